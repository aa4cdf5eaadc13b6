"""What rules ask of the values they match."""

from __future__ import annotations

import numpy as np

from staticgrad.ir.node import Value, constant_array
from staticgrad.ir.op import REGISTRY, Op
from staticgrad.ops.control import Contiguous
from staticgrad.ops.elementwise import Elementwise
from staticgrad.ops.movement import (
    Broadcast,
    Reshape,
)


def maps() -> tuple[type[Op], ...]:
    """Return every elementwise op that computes something: a copy has to stay where it is."""
    return tuple(cls for cls in REGISTRY.values() if issubclass(cls, Elementwise) and not issubclass(cls, Contiguous))


def named(name: str) -> type[Op]:
    """Return the op class called `name`."""
    return REGISTRY[name]


def splat(x: Value) -> np.generic | None:
    """Return the number that every element of x is, if that is known."""
    while isinstance(x.op, (Broadcast, Reshape)):
        x = x.node.inputs[0]
    array = constant_array(x)
    number: np.generic | None = None if array is None or array.size != 1 else array.reshape(-1)[0]
    return number


def is_number(x: Value, number: float) -> bool:
    """Return whether every element of x is `number`, sign of zero included."""
    known = splat(x)
    return known is not None and bool(known == number) and bool(np.signbit(known) == np.signbit(np.float64(number)))
