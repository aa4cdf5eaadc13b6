"""Division with a remainder: of integers, and of floats without any rounding."""

from __future__ import annotations

import numpy as np

from staticgrad.ir.builder import Builder, Scalar
from staticgrad.kernels.floating import format_of, with_sign_of
from staticgrad.ops.elementwise import INTEGER, NUMBER, Apply, elementwise
from staticgrad.ops.rounding import rint


def _float_remainder(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Return x - n y for floats, exactly, with n = x / y rounded toward zero; NaN where y is 0 or x infinite.

    Quotients below 2**fraction take one step; larger ones are first reduced by multiples y 2**k that are nearly as large as x.
    """
    f = format_of(x)
    one, zero, infinity = b.like(1, x), b.like(0, x), b.like(np.inf, x)
    left, divisor = b.abs(x), b.abs(y)
    # Small operands are scaled up, so that y 2**k is a normal number.
    small = b.lt(left, one)
    scale, back = (b.select(small, b.like(2.0**k, x), one) for k in (f.fraction + 12, -f.fraction - 12))
    left, divisor = b.mul(left, scale), b.mul(divisor, scale)
    normal = b.select(b.lt(divisor, b.like(f.smallest_normal, x)), b.mul(divisor, b.like(2.0 ** (f.fraction + 2), x)), divisor)
    bits = b.bitcast(normal, f.bits)
    fraction = b.and_(bits, b.like(2**f.fraction - 1, bits))
    limit = b.mul(divisor, b.like(2.0**f.fraction, x))
    rest = b.variable(left, "rest")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.and_(b.and_(b.le(limit, b.get(rest)), b.lt(b.get(rest), infinity)), b.lt(zero, divisor)))
        with parts.body():
            present = b.get(rest)
            exponent = b.sub(b.shr(b.bitcast(present, f.bits), f.fraction), b.like(f.fraction - 2, bits))
            b.set(rest, _one_step(b, present, b.bitcast(b.or_(fraction, b.shl(exponent, f.fraction)), f.dtype)))
    left = b.get(rest)
    result = b.select(b.lt(left, divisor), left, _one_step(b, left, divisor))
    signed: Scalar = with_sign_of(b, b.mul(b.abs(result), back), x)
    return signed


def _one_step(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Return the remainder of x >= 0 and y > 0 whose quotient is below 2**fraction: it is a float, so `fma` does not round."""
    rest = b.fma(b.neg(b.trunc(b.div(x, y))), y, x)
    return b.select(b.lt(rest, b.like(0, x)), b.add(rest, y), rest)


def _truncated(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    return _float_remainder(b, x, y) if x.dtype.kind == "f" else b.remainder(x, y)


def _is_on_the_other_side(b: Builder, rest: Scalar, y: Scalar) -> Scalar:
    """Return whether the remainder toward zero has another sign than y, so that the quotient was not rounded down."""
    zero = b.like(0, y)
    return b.and_(b.ne(rest, zero), b.xor(b.lt(rest, zero), b.lt(y, zero)))


def _emit_remainder(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    rest, zero = _truncated(b, x, y), b.like(0, y)
    if y.dtype.kind == "u":
        return rest
    result = b.select(_is_on_the_other_side(b, rest, y), b.add(rest, y), rest)
    return b.select(b.eq(rest, zero), with_sign_of(b, zero, y), result) if y.dtype.kind == "f" else result


def _emit_floor_divide(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    zero, one = b.like(0, y), b.like(1, y)
    rest = _truncated(b, x, y)
    if y.dtype.kind != "f":
        quotient = b.quotient(x, y)
        return quotient if y.dtype.kind == "u" else b.select(_is_on_the_other_side(b, rest, y), b.sub(quotient, one), quotient)
    ratio = b.div(x, y)
    quotient = b.div(b.sub(x, rest), y)  # next to a whole number
    quotient = b.select(_is_on_the_other_side(b, rest, y), b.sub(quotient, one), quotient)
    below = b.floor(quotient)
    below = b.select(b.lt(b.like(0.5, y), b.sub(quotient, below)), b.add(below, one), below)
    result = b.select(b.eq(quotient, zero), with_sign_of(b, zero, ratio), below)
    return b.select(b.eq(y, zero), ratio, result)


floor_divide: Apply = elementwise(
    "floor_divide", np.floor_divide, _emit_floor_divide, None, None, arity=2, kinds=NUMBER, cost=30, notation="floor(x/y)"
)
remainder: Apply = elementwise(
    "remainder", np.remainder, _emit_remainder, lambda g, r, x, y: g, lambda g, r, x, y: -(g * floor_divide(x, y)),
    arity=2, kinds=NUMBER, cost=25, notation="x - y*floor(x/y)",
)  # fmt: skip
fmod: Apply = elementwise(
    "fmod",
    np.fmod,
    _truncated,
    lambda g, r, x, y: g,
    lambda g, r, x, y: -(g * rint((x - r) / y)),
    arity=2,
    kinds=NUMBER,
    cost=20,
    notation="x - y*sign(x/y)*floor(Abs(x/y))",
)


def _emit_gcd(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    return b.cast(_common_divisor(b, *_magnitudes(b, x, y)), x.dtype)


def _emit_lcm(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    first, second = _magnitudes(b, x, y)
    return b.cast(b.mul(b.quotient(first, _common_divisor(b, first, second)), second), x.dtype)


def _magnitudes(b: Builder, x: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
    """Return |x| and |y| as unsigned integers, which hold that of the least integer too."""
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    first, second = (b.cast(b.abs(v) if v.dtype.kind == "i" else v, unsigned) for v in (x, y))
    return first, second


def _common_divisor(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Return the greatest common divisor by Euclid's algorithm."""
    large, small = b.variable(x, "large"), b.variable(y, "small")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.ne(b.get(small), b.like(0, x)))
        with parts.body():
            divisor = b.get(small)
            b.set(small, b.remainder(b.get(large), divisor))
            b.set(large, divisor)
    return b.get(large)


gcd: Apply = elementwise("gcd", np.gcd, _emit_gcd, None, None, arity=2, kinds=INTEGER, cost=60)
lcm: Apply = elementwise("lcm", np.lcm, _emit_lcm, None, None, arity=2, kinds=INTEGER, cost=70)
