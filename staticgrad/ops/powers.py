"""Powers and roots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.errors import IntegerPowerError, ShapeError
from staticgrad.ir.aval import INT64, Aval, is_float, is_integer
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, apply, full, zeros_like
from staticgrad.ir.op import op
from staticgrad.kernels.floating import format_of
from staticgrad.ops.arithmetic import absolute
from staticgrad.ops.comparison import equal, less, less_equal, logical_and, logical_not, where, where_zero
from staticgrad.ops.elementwise import FLOAT, NUMBER, Apply, Elementwise, elementwise
from staticgrad.ops.exponential import log

sqrt: Apply = elementwise("sqrt", np.sqrt, lambda b, x: b.sqrt(x), lambda g, y, x: g / (y + y), kinds=FLOAT, cost=6, notation="sqrt(x)")
cbrt: Apply = elementwise("cbrt", np.cbrt, kernels.cbrt, lambda g, y, x: g / (y * y * 3), kinds=FLOAT, cost=40, notation="real_root(x, 3)")


def _cosine(g: Value, part: Value, length: Value) -> Value:
    """Return g * part / length, 0 for no length."""
    nothing = equal(length, zeros_like(length))
    return g * (part / where(nothing, full(length.shape, 1, length.dtype), length))


hypot: Apply = elementwise(
    "hypot", np.hypot, kernels.hypot, lambda g, y, a, b: _cosine(g, a, y), lambda g, y, a, b: _cosine(g, b, y),
    arity=2, kinds=FLOAT, cost=20, notation="sqrt(x**2 + y**2)",
)  # fmt: skip


def integer_power_by_multiplication(x: Any, n: int, times: Callable[[Any, Any], Any]) -> Any:
    """Return x**n for n >= 1 by repeated squaring: the one meaning of small integer powers, here and in kernels."""
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else times(result, square)
        n >>= 1
        if n:
            square = times(square, square)
    return result


@op
class IntegerPower(Elementwise):
    """x**n for a whole number n known at tracing, by repeated multiplication."""

    exponent: int
    kinds = NUMBER
    cost = 4

    def numpy(self, x: np.ndarray) -> np.ndarray:
        if self.exponent == 0:
            return np.ones_like(x)
        power = integer_power_by_multiplication(x, abs(self.exponent), np.multiply)
        return np.asarray(power if self.exponent > 0 else np.divide(np.ones_like(x), power))

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        if self.exponent == 0:
            return b.like(1, x)
        power: Scalar = integer_power_by_multiplication(x, abs(self.exponent), b.mul)
        return power if self.exponent > 0 else b.div(b.like(1, x), power)

    derivatives = ()

    def formula(self, *avals: Aval) -> str:
        return f"x**{self.exponent}"

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        if not is_float(x.dtype) or self.exponent == 0:
            return (None,)
        return (g * (integer_power(x, self.exponent - 1) * self.exponent),)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else self.vjp(tangents[0], y, x)[0]


def integer_power(x: Value, exponent: int) -> Value:
    """Return x**exponent; 1 gives x itself."""
    return x if exponent == 1 else apply(IntegerPower(exponent), x)


def _power_of_integers(b: Builder, x: Scalar, p: Scalar) -> Scalar:
    """Integer x**p by repeated squaring; a negative exponent is a failure, as in NumPy."""
    if p.dtype.kind == "i":
        b.fail_if(b.lt(p, b.like(0, p)), 1, 0)
    zero, one = b.like(0, p), b.like(1, p)
    result, square, left = b.variable(b.like(1, x), "result"), b.variable(x, "square"), b.variable(p, "left")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.lt(zero, b.get(left)))
        with parts.body():
            odd = b.eq(b.and_(b.get(left), one), one)
            b.set(result, b.select(odd, b.mul(b.get(result), b.get(square)), b.get(result)))
            b.set(square, b.mul(b.get(square), b.get(square)))
            b.set(left, b.shr(b.get(left), 1))
    return b.get(result)


def _power(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    if is_integer(p.dtype) and np.any(p < 0):
        raise IntegerPowerError("integers to negative integer powers are not allowed; make the base or the exponent a float")
    return np.asarray(np.power(x, p))


def _power_base(g: Value, y: Value, x: Value, p: Value) -> Value:
    # x**0 is 1 whatever x is, but how its slope p * x**(p - 1) changes with p counts wherever x**-1 is finite.
    nothing = logical_and(equal(p, zeros_like(p)), logical_not(less(zeros_like(x), absolute(x))))
    return g * where_zero(logical_not(nothing), p * power(x, where(nothing, p + 1, p - 1)))


def _power_exponent(g: Value, y: Value, x: Value, p: Value) -> Value:
    nothing = logical_and(equal(x, zeros_like(x)), less_equal(zeros_like(p), p))
    return g * where_zero(logical_not(nothing), y * log(where(nothing, x + 1, x)))


power: Apply = elementwise(
    "power", _power, lambda b, x, p: kernels.power(b, x, p) if is_float(x.dtype) else _power_of_integers(b, x, p),
    _power_base, _power_exponent, arity=2, kinds=NUMBER, cost=60, notation="x**y", fails_on="i",
)  # fmt: skip


@op
class Ldexp(Elementwise):
    """x * 2**n for a float x and an int64 n, rounded once."""

    name = "ldexp"
    arity = 2
    kinds = FLOAT
    cost = 15
    notation = "x*2**y"
    derivatives = (lambda g, y, x, n: ldexp(g, n), None)

    def operand_avals(self, avals: Sequence[Aval]) -> Sequence[Aval]:
        return avals[:1]

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        if avals[1].shape != avals[0].shape or avals[1].dtype != INT64:
            raise ShapeError(f"ldexp: the exponent must be int64 in the shape of {avals[0]}, not {avals[1]}")
        return found.with_dtype(found.dtype)

    def numpy(self, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        return np.asarray(np.ldexp(x, n))

    def scalar(self, b: Builder, x: Scalar, n: Scalar) -> Scalar:
        """Multiply by three powers of two, the small one first: where the result is subnormal only the last product rounds."""
        f = format_of(x)
        most, bits = b.like(f.bias - 1, n), np.dtype(f"i{f.width // 8}")
        least = b.neg(most)
        left, powers = n, []
        for _ in range(3):
            part = b.max(b.min(left, most), least)
            left = b.sub(left, part)
            biased = b.cast(b.add(part, b.like(f.bias, part)), bits)
            powers.append(b.bitcast(b.shl(biased, f.fraction), f.dtype))
        for power_of_two in reversed(powers):
            x = b.mul(x, power_of_two)
        return x


def ldexp(x: Value, n: Value) -> Value:
    """Return x * 2**n."""
    return apply(Ldexp(), x, n)
