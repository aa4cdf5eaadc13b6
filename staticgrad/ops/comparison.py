"""Comparisons, logic, questions about floats, and the choice between two values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.errors import DTypeError
from staticgrad.ir.aval import BOOL, Aval
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, apply, zeros_like
from staticgrad.ir.op import register
from staticgrad.kernels.floating import format_of
from staticgrad.ops.elementwise import FLOAT, Apply, Elementwise, elementwise


def _comparison(
    name: str, meaning: Callable[..., Any], emit: Callable[..., Scalar], notation: str, logic: str | None = None
) -> Callable[..., Value]:
    return elementwise(name, meaning, emit, None, None, arity=2, result=BOOL, notation=notation, logic=logic)


less: Apply = _comparison("less", np.less, lambda b, x, y: b.lt(x, y), notation="x < y", logic="~x & y")
less_equal: Apply = _comparison("less_equal", np.less_equal, lambda b, x, y: b.le(x, y), notation="x <= y", logic="~x | y")
greater: Apply = _comparison("greater", np.greater, lambda b, x, y: b.lt(y, x), notation="x > y", logic="x & ~y")
greater_equal: Apply = _comparison("greater_equal", np.greater_equal, lambda b, x, y: b.le(y, x), notation="x >= y", logic="x | ~y")
equal: Apply = _comparison("equal", np.equal, lambda b, x, y: b.eq(x, y), notation="Eq(x, y)", logic="~(x ^ y)")
not_equal: Apply = _comparison("not_equal", np.not_equal, lambda b, x, y: b.ne(x, y), notation="Ne(x, y)", logic="x ^ y")
logical_and: Apply = elementwise("logical_and", np.logical_and, lambda b, x, y: b.and_(x, y), None, None, arity=2, kinds="b", logic="x & y")
logical_or: Apply = elementwise("logical_or", np.logical_or, lambda b, x, y: b.or_(x, y), None, None, arity=2, kinds="b", logic="x | y")
logical_xor: Apply = elementwise("logical_xor", np.logical_xor, lambda b, x, y: b.xor(x, y), None, None, arity=2, kinds="b", logic="x ^ y")
logical_not: Apply = elementwise("logical_not", np.logical_not, lambda b, x: b.not_(x), None, kinds="b", logic="~x")


def _emit_finite(b: Builder, x: Scalar) -> Scalar:
    return b.lt(b.abs(x), b.like(np.inf, x))


isnan: Apply = elementwise("isnan", np.isnan, lambda b, x: b.ne(x, x), None, kinds=FLOAT, result=BOOL, notation="False")
isinf: Apply = elementwise(
    "isinf", np.isinf, lambda b, x: b.eq(b.abs(x), b.like(np.inf, x)), None, kinds=FLOAT, result=BOOL, notation="False"
)
isfinite: Apply = elementwise("isfinite", np.isfinite, _emit_finite, None, kinds=FLOAT, result=BOOL, notation="True")


def _emit_signbit(b: Builder, x: Scalar) -> Scalar:
    f = format_of(x)
    bits = b.bitcast(x, f.bits)
    return b.ne(b.shr(bits, f.width - 1), b.like(0, bits))


signbit: Apply = elementwise("signbit", np.signbit, _emit_signbit, None, kinds=FLOAT, result=BOOL)


@register
class Where(Elementwise):
    """x where the condition holds, otherwise y."""

    name = "where"
    arity = 3
    notation = "Piecewise((y, x), (z, True))"
    logic = "x & y | ~x & z"
    derivatives = (None, lambda g, y, c, a, b: where_zero(c, g), lambda g, y, c, a, b: where(c, zeros_like(g), g))

    def operand_avals(self, avals: Sequence[Aval]) -> Sequence[Aval]:
        return avals[1:]

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        if avals[0].dtype != BOOL:
            raise DTypeError(f"where: the condition must be bool, not {avals[0].dtype}")
        return Aval(found.shape, found.dtype, all(a.weak for a in avals[1:]))

    def numpy(self, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(condition, x, y)

    def flat(self, known: Sequence[np.ndarray | None]) -> Sequence[np.ndarray | None] | None:
        condition = known[0]
        return None if condition is None else (None, ~condition, condition)

    def scalar(self, b: Builder, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
        return b.select(condition, x, y)

    def __eq__(self, other: object) -> bool:
        return type(other) is Where

    def __hash__(self) -> int:
        return hash("where")

    def signature(self) -> str:
        return "where"


def where(condition: Value, x: Value, y: Value) -> Value:
    """Return x where the condition holds, otherwise y."""
    return apply(Where(), condition, x, y)


def where_zero(condition: Value, x: Value) -> Value:
    """Return x where the condition holds, 0 elsewhere."""
    return where(condition, x, zeros_like(x))
