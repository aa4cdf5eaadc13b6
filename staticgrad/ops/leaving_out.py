"""Batches in which only some elements take part in a computation: those of one branch, or those whose loop still goes on.

All elements go through it, and what it makes of the others is thrown away. Their derivatives are too: what they are computed from is
no part of the function, so that the 0 that comes back does not become NaN where the computation has an infinite slope for them.

    sqrt(x)  for those with p   ->   where(p, sqrt(where(p, x, stop_gradient(x))), ...)
"""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.ir.aval import is_float
from staticgrad.ir.node import Value, apply
from staticgrad.ops.comparison import where
from staticgrad.ops.control import stop_gradient
from staticgrad.ops.movement import broadcast
from staticgrad.ops.reduce import Any_


def have_their_own(batched: Sequence[bool], x: Sequence[Value]) -> list[bool]:
    """Return which operands had better be there for each element: those that are, and floats no larger than one of these.

    `x` are operands of one element. What is larger (weights, tables) stays one for all, and has a derivative where any element takes
    part.
    """
    largest = max((v.aval.size for v, has in zip(x, batched, strict=True) if has), default=1)
    return [has or (is_float(v.dtype) and v.aval.size <= largest) for v, has in zip(x, batched, strict=True)]


def taking_part(active: Value, x: Value, has: bool) -> Value:
    """Return x, without a derivative where elements do not take part; `has` says whether there is an x for each of them."""
    if not is_float(x.dtype):
        return x
    flags = active if has else apply(Any_((0,)), active)
    return where(spread(flags, x), x, stop_gradient(x))


def spread(flags: Value, x: Value) -> Value:
    """Return flags for all of x where there is one for each along its first axes."""
    return broadcast(flags, x.shape, tuple(range(len(flags.shape), len(x.shape))))
