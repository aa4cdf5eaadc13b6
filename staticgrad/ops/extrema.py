"""The larger and the smaller of several values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from staticgrad.ir.aval import BOOL, is_float
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, zeros_like
from staticgrad.ops.comparison import equal, greater, less, less_equal, logical_and, logical_or, not_equal, where, where_zero
from staticgrad.ops.elementwise import NUMBER, Apply, Derivative, elementwise


def _emit_extremum(opcode: str, for_bool: str) -> Callable[..., Scalar]:
    return lambda b, x, y: getattr(b, for_bool if x.dtype == BOOL else opcode)(x, y)


def _winner(better: Callable[..., Value]) -> tuple[Derivative, Derivative]:
    """Return the derivatives of an extremum: g to the winner, one half each at a tie."""

    def share(g: Value, x: Value, other: Value) -> Value:
        return where(equal(x, other), g * 0.5, where_zero(better(x, other), g))

    return (lambda g, y, a, b: share(g, a, b)), (lambda g, y, a, b: share(g, b, a))


maximum: Apply = elementwise(
    "maximum", np.maximum, _emit_extremum("max", "or_"), *_winner(greater), arity=2, cost=2, notation="Max(x, y)", logic="x | y"
)
minimum: Apply = elementwise(
    "minimum", np.minimum, _emit_extremum("min", "and_"), *_winner(less), arity=2, cost=2, notation="Min(x, y)", logic="x & y"
)


def _emit_ignoring_nan(opcode: str, for_bool: str) -> Callable[..., Scalar]:
    emit = _emit_extremum(opcode, for_bool)

    def emit_ignoring_nan(b: Builder, x: Scalar, y: Scalar) -> Scalar:
        if not is_float(x.dtype):
            return emit(b, x, y)
        return b.select(b.is_nan(x), y, b.select(b.is_nan(y), x, emit(b, x, y)))

    return emit_ignoring_nan


def _winner_ignoring_nan(better: Callable[..., Value]) -> tuple[Derivative, Derivative]:
    """Return the derivatives of an extremum that any number wins against NaN."""
    return _winner(lambda x, other: logical_or(better(x, other), logical_and(not_equal(other, other), equal(x, x))))


fmax: Apply = elementwise(
    "fmax", np.fmax, _emit_ignoring_nan("max", "or_"), *_winner_ignoring_nan(greater), arity=2, cost=4, notation="Max(x, y)", logic="x | y"
)
fmin: Apply = elementwise(
    "fmin", np.fmin, _emit_ignoring_nan("min", "and_"), *_winner_ignoring_nan(less), arity=2, cost=4, notation="Min(x, y)", logic="x & y"
)
clip: Apply = elementwise(
    "clip",
    lambda x, low, high: np.minimum(np.maximum(x, low), high),
    lambda b, x, low, high: b.min(b.max(x, low), high),
    lambda g, y, x, low, high: where_zero(logical_and(less_equal(low, x), less_equal(x, high)), g),
    lambda g, y, x, low, high: where_zero(logical_and(less(x, low), less_equal(low, high)), g),
    lambda g, y, x, low, high: where_zero(logical_or(less(high, x), less(high, low)), g),
    arity=3, kinds=NUMBER, cost=4, notation="Min(Max(x, y), z)",
)  # fmt: skip
relu: Apply = elementwise(
    "relu", lambda x: np.where(x < 0, np.zeros_like(x), x),
    lambda b, x: b.select(b.lt(x, b.like(0, x)), b.like(0, x), x),
    lambda g, y, x: where_zero(greater(x, zeros_like(x)), g), kinds=NUMBER, cost=2, notation="Max(0, x)",
)  # fmt: skip
