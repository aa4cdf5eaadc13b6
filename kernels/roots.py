"""Cube roots and lengths: cbrt and hypot. `tests/kernels/minimax.py` computes the coefficients."""

from __future__ import annotations

import math

from staticgrad.kernels.floating import (
    DOUBLE,
    SINGLE,
    Value,
    Vocabulary,
    fast_two_sum,
    format_of,
    two_product,
    with_sign_of,
)
from staticgrad.kernels.logarithm import split
from staticgrad.kernels.polynomial import horner

# f**(-1/3) for f from sqrt(1/2) to sqrt(2), relative error 2**-20
INVERSE_ROOT = (
    2.1099844508561105, -3.151586352186143, 4.438140969697247, -4.042569733995691, 2.2537632163324863, -0.7010083163287452,
    0.09327652122122671,
)  # fmt: skip
ROOT_OF_TWO = 2.0 ** (1 / 3)


def cbrt(b: Vocabulary, x: Value) -> Value:
    """Return the cube root for float32 (within 0.51 ULP) or float64 (0.51)."""
    wide = b.cast(x, DOUBLE.dtype)
    magnitude = b.abs(wide)
    # |x| = m 2**3q with m from sqrt(1/8) to sqrt(8), r = m**(-1/3)
    fraction, minus_k = split(b, magnitude, subnormals=format_of(x) is DOUBLE)
    shifter = b.like(DOUBLE.shifter + DOUBLE.bias, wide)
    shifted = b.fma(minus_k, b.like(-1 / 3, wide), shifter)
    rest = b.fma(b.sub(shifted, shifter), b.like(-3, wide), b.neg(minus_k))
    zero, one = b.like(0, wide), b.like(1, wide)
    more, less = b.lt(zero, rest), b.lt(rest, zero)
    m = b.mul(fraction, b.select(more, b.like(2, wide), b.select(less, b.like(0.5, wide), one)))
    start = b.select(more, b.like(1 / ROOT_OF_TWO, wide), b.select(less, b.like(ROOT_OF_TWO, wide), one))
    r = b.mul(horner(b, fraction, INVERSE_ROOT), start)
    error = b.fma(b.neg(b.mul(r, r)), b.mul(r, m), one)
    r = b.fma(r, b.mul(error, b.fma(error, b.like(2 / 9, wide), b.like(1 / 3, wide))), r)
    square = b.mul(r, r)
    y = b.mul(m, square)
    if format_of(x) is DOUBLE:
        y_square, y_square_low = two_product(b, y, y)
        residual = b.fma(b.neg(y_square_low), y, b.fma(b.neg(y_square), y, m))
        y = b.fma(residual, b.mul(square, b.like(1 / 3, wide)), y)
    scale = b.bitcast(b.shl(b.bitcast(shifted, DOUBLE.bits), DOUBLE.fraction), DOUBLE.dtype)
    regular = b.and_(b.lt(zero, magnitude), b.lt(magnitude, b.like(math.inf, wide)))
    y = b.select(regular, b.mul(y, scale), magnitude)
    return b.cast(with_sign_of(b, y, wide), x.dtype)


def hypot(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return sqrt(x**2 + y**2) for float32 (within 0.51 ULP) or float64 (1.0) without overflow; infinite where one of them is."""
    infinity = b.like(math.inf, x)
    if format_of(x) is SINGLE:
        a, c = b.cast(x, DOUBLE.dtype), b.cast(y, DOUBLE.dtype)
        length = b.cast(b.sqrt(b.fma(a, a, b.mul(c, c))), x.dtype)
    else:
        length = _length(b, b.abs(x), b.abs(y))
    is_infinite = b.or_(b.eq(b.abs(x), infinity), b.eq(b.abs(y), infinity))
    return b.select(is_infinite, infinity, length)


def _length(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return the same for float64 numbers that are not negative: scaled, with a correction of the root."""
    zero, one, half = b.like(0, x), b.like(1, x), b.like(0.5, x)
    swapped = b.lt(x, y)
    large, small = b.select(swapped, y, x), b.select(swapped, x, y)
    big, tiny = b.lt(b.like(2.0**500, x), large), b.lt(large, b.like(2.0**-400, x))
    down, up = b.like(2.0**-600, x), b.like(2.0**600, x)
    scale, inverse = b.select(big, down, b.select(tiny, up, one)), b.select(big, up, b.select(tiny, down, one))
    large, small = b.mul(large, scale), b.mul(small, scale)
    square, square_low = two_product(b, large, large)
    other, other_low = two_product(b, small, small)
    total, lost = fast_two_sum(b, square, other)
    root = b.sqrt(total)
    rest = b.add(b.fma(b.neg(root), root, total), b.add(lost, b.add(square_low, other_low)))
    nothing = b.eq(root, zero)
    correction = b.div(b.mul(rest, half), b.select(nothing, one, root))
    return b.mul(b.add(root, correction), inverse)
