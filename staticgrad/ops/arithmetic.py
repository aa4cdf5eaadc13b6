"""The four operations, and what belongs to the sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from staticgrad.ir.aval import BOOL, is_float
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.kernels.floating import with_sign_of
from staticgrad.ops.comparison import equal, where_zero
from staticgrad.ops.elementwise import FLOAT, NUMBER, Apply, elementwise


def _logical(opcode: str, otherwise: str) -> Callable[..., Scalar]:
    """Return an emitter that uses `opcode` for bool and `otherwise` for numbers, as NumPy does."""
    return lambda b, *x: getattr(b, opcode if x[0].dtype == BOOL else otherwise)(*x)


def _is_zero(known: np.ndarray | None) -> np.ndarray | None:
    return None if known is None else known == 0


add: Apply = elementwise(
    "add", np.add, _logical("or_", "add"), lambda g, y, a, b: g, lambda g, y, a, b: g, arity=2, linear=True, notation="x + y", logic="x | y"
)
subtract: Apply = elementwise(
    "subtract", np.subtract, lambda b, x, y: b.sub(x, y), lambda g, y, a, b: g, lambda g, y, a, b: -g,
    arity=2, kinds=NUMBER, linear=True, notation="x - y",
)  # fmt: skip
multiply: Apply = elementwise(
    "multiply",
    np.multiply,
    _logical("and_", "mul"),
    lambda g, y, a, b: g * b,
    lambda g, y, a, b: a * g,
    arity=2,
    notation="x*y",
    logic="x & y",
    flat=lambda a, b: (_is_zero(b), _is_zero(a)),
)
divide: Apply = elementwise(
    "divide", np.divide, lambda b, x, y: b.div(x, y), lambda g, y, a, b: g / b, lambda g, y, a, b: -(g * y) / b,
    arity=2, kinds=FLOAT, cost=4, notation="x/y",
)  # fmt: skip
negative: Apply = elementwise("negative", np.negative, lambda b, x: b.neg(x), lambda g, y, x: -g, kinds=NUMBER, linear=True, notation="-x")
absolute: Apply = elementwise(
    "absolute", np.absolute, lambda b, x: x if x.dtype.kind in "bu" else b.abs(x), lambda g, y, x: g * sign(x), notation="Abs(x)", logic="x"
)


def _emit_sign(b: Builder, x: Scalar) -> Scalar:
    one, zero = b.like(1, x), b.like(0, x)
    if x.dtype.kind == "u":
        return b.select(b.eq(x, zero), zero, one)
    signed = b.select(b.lt(zero, x), one, b.select(b.lt(x, zero), b.like(-1, x), zero))
    return b.select(b.is_nan(x), x, signed) if is_float(x.dtype) else signed


sign: Apply = elementwise("sign", np.sign, _emit_sign, None, kinds=NUMBER, cost=3, notation="sign(x)")


def _copied_sign(g: Value, y: Value, x: Value, other: Value) -> Value:
    return g * (sign(x) * copysign(full(x.shape, 1, x.dtype), other))


copysign: Apply = elementwise(
    "copysign",
    np.copysign,
    lambda b, x, y: with_sign_of(b, b.abs(x), y),
    _copied_sign,
    None,
    arity=2,
    kinds=FLOAT,
    cost=4,
    notation="Piecewise((Abs(x), y >= 0), (-Abs(x), True))",
)


def _emit_heaviside(b: Builder, x: Scalar, at_zero: Scalar) -> Scalar:
    zero = b.like(0, x)
    step = b.select(b.lt(zero, x), b.like(1, x), b.select(b.lt(x, zero), zero, at_zero))
    return b.select(b.is_nan(x), x, step)


heaviside: Apply = elementwise(
    "heaviside",
    np.heaviside,
    _emit_heaviside,
    None,
    lambda g, y, x, h: where_zero(equal(x, zeros_like(x)), g),
    arity=2,
    kinds=FLOAT,
    cost=4,
    notation="Heaviside(x, y)",
)
