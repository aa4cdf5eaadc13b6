"""Batches in which only some elements take part in a computation: those of one branch, or those whose loop still goes on.

All elements go through it, and what it makes of the others is thrown away. So are their derivatives: what they are computed from is
no part of the function, and the 0 that comes back does not become NaN where the computation has an infinite slope for them.

    sqrt(x)  for those with p   ->   where(p, sqrt(where(p, x, stop_gradient(x))), ...)

That is not enough where the elements meet, in the derivative of an operand that is one for all of them, or where the computation may
fail: there the others go through it with the operands of one that takes part.

    w * log(x)  for those with p   ->   where(p, w * log(where(p, x, stop_gradient(x[argmax(p)]))), ...)
"""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.ir.aval import INT64, is_float
from staticgrad.ir.node import Value, apply
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import where
from staticgrad.ops.control import stop_gradient
from staticgrad.ops.index import Gather
from staticgrad.ops.movement import broadcast
from staticgrad.ops.reduce import Any_, ArgMax


def have_their_own(batched: Sequence[bool], x: Sequence[Value]) -> list[bool]:
    """Return which operands had better be there for each element: those that are, and floats no larger than one of these.

    `x` are operands of one element. What is larger (weights, tables) stays one for all.
    """
    largest = max((v.aval.size for v, has in zip(x, batched, strict=True) if has), default=1)
    return [has or (is_float(v.dtype) and v.aval.size <= largest) for v, has in zip(x, batched, strict=True)]


def taking_part(active: Value, x: Sequence[Value], own: Sequence[bool], may_fail: bool) -> list[Value]:
    """Return operands, without a derivative where elements do not take part; `own` says which of them there are for each element."""
    meeting = may_fail or any(is_float(v.dtype) and not has for v, has in zip(x, own, strict=True))
    first = apply(ArgMax((0,)), cast(active, INT64)) if meeting and active.aval.size else None
    anyone = apply(Any_((0,)), active)

    def given(v: Value, has: bool) -> Value:
        if has and first is not None:
            other = broadcast(apply(Gather((0,), 0), v, first), v.shape, (0,))
        elif is_float(v.dtype):
            other = v
        else:
            return v
        return where(spread(active if has else anyone, v), v, stop_gradient(other))

    return [given(v, has) for v, has in zip(x, own, strict=True)]


def spread(flags: Value, x: Value) -> Value:
    """Return flags for all of x where there is one for each along its first axes."""
    return broadcast(flags, x.shape, tuple(range(len(flags.shape), len(x.shape))))
