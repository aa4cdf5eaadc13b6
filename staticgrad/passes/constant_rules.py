"""Exact rules on constants, and on marks that derivatives alone read."""

from __future__ import annotations

import numpy as np

from staticgrad.errors import StaticgradError
from staticgrad.ir.node import Node, Value, constant, constant_array
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.control import StopGradient
from staticgrad.ops.movement import (
    Broadcast,
)
from staticgrad.passes.rewrite import rule

MAX_FOLDED = 1 << 16
"""Constants are computed at compile time up to this many elements."""


@rule(
    *(
        cls
        for cls in REGISTRY.values()
        if cls.kind in ("map", "reduce", "alias", "contract", "view", "assemble", "row", "mark") and cls is not Broadcast
    )
)
def fold_constants(node: Node) -> Value | None:
    """op(constants) -> constant."""
    if not node.inputs or node.outputs[0].aval.size > MAX_FOLDED:
        return None
    arrays = [constant_array(v) for v in node.inputs]
    if any(array is None or array.size > MAX_FOLDED for array in arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            return constant(node.op.numpy(*arrays))
    except StaticgradError:  # an index out of bounds: that is an error where the node runs
        return None


@rule(StopGradient)
def drop_stop_gradient(node: Node) -> Value | None:
    """After differentiation the mark has done its work."""
    return node.inputs[0]
