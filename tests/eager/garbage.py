"""What only the garbage collector can free."""

import gc

import numpy as np

from staticgrad.calls.linear_part import LinearPart
from staticgrad.eager.function import FunctionContext
from staticgrad.eager.nodes import Saved
from staticgrad.eager.tape import Node
from staticgrad.eager.tensors import Tensor


def cycles() -> list[object]:
    """Return the parts of a tape that are in reference cycles, and free them; graphs that caches of traces let go do not count."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = {Tensor, Node, Saved, FunctionContext, LinearPart, np.ndarray}
        # isinstance would ask a proxy for what it stands for, and an abstract class would remember every type that it is asked about.
        return [x for x in gc.garbage if kinds.intersection(type(x).__mro__)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
