"""arcsinh, arccosh and arctanh: logarithms whose argument is a sum of two numbers.

float32 is computed in float64. `tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, format_of, two_product, two_sum, with_sign_of
from staticgrad.kernels.logarithm import log1p, log_of_sum
from staticgrad.kernels.polynomial import horner

# (arcsinh x - x) / x**3 in x**2 for |x| <= 1/2, relative error of arcsinh 2**-60.4
ARCSINH_TAIL = (
    -0.1666666666666661, 0.07499999999984397, -0.04464285712780515, 0.03038194371502682, -0.02237213832044127, 0.017352386324617497,
    -0.013960225532930585, 0.011512937095948847, -0.009533928224329651, 0.0074649850516137475, -0.00474650635397378,
    0.0017173676819205324,
)  # fmt: skip

LARGE = 2.0**60
"""From here on x**2 + 1 and x**2 - 1 are x**2, and both arcsinh and arccosh are log 2x."""


def arcsinh(b: Vocabulary, x: Value) -> Value:
    """Return the inverse of sinh for float32 (within 0.51 ULP) or float64 (0.85)."""
    magnitude = b.abs(b.cast(x, DOUBLE.dtype))
    one = b.like(1, magnitude)
    if format_of(x) is SINGLE:
        square = b.mul(magnitude, magnitude)
        y = log1p(b, b.add(magnitude, b.div(square, b.add(one, b.sqrt(b.add(one, square))))))
        y = b.select(b.lt(magnitude, b.like(math.inf, y)), y, magnitude)
        return b.cast(with_sign_of(b, y, b.cast(x, DOUBLE.dtype)), x.dtype)
    square, square_low = two_product(b, magnitude, magnitude)
    small = b.fma(b.mul(square, magnitude), horner(b, square, ARCSINH_TAIL), magnitude)
    radicand, lost = two_sum(b, square, one)
    root, root_low = _root_of_sum(b, radicand, b.add(lost, square_low))
    total, lost = two_sum(b, magnitude, root)
    large = _log_of_twice(b, magnitude, total, b.add(lost, root_low))
    return with_sign_of(b, b.select(b.lt(magnitude, b.like(0.5, x)), small, large), x)


def arccosh(b: Vocabulary, x: Value) -> Value:
    """Return the inverse of cosh for float32 (within 0.51 ULP) or float64 (0.9): NaN below 1."""
    wide = b.cast(x, DOUBLE.dtype)
    one = b.like(1, wide)
    beyond = b.sub(wide, one)
    twice = b.add(beyond, beyond)
    if format_of(x) is SINGLE:
        y = log1p(b, b.add(beyond, b.sqrt(b.fma(beyond, beyond, twice))))
    else:
        square, square_low = two_product(b, beyond, beyond)
        radicand, lost = two_sum(b, twice, square)
        root, root_low = _root_of_sum(b, radicand, b.add(lost, square_low))
        part, part_low = two_sum(b, beyond, root)
        total, lost = two_sum(b, one, part)
        y = _log_of_twice(b, x, total, b.add(lost, b.add(part_low, root_low)))
    return b.cast(b.select(b.le(one, wide), y, b.like(math.nan, wide)), x.dtype)


def arctanh(b: Vocabulary, x: Value) -> Value:
    """Return the inverse of tanh for float32 (within 0.51 ULP) or float64 (1.0): infinite at -1 and 1, NaN beyond."""
    wide = b.cast(x, DOUBLE.dtype)
    magnitude = b.abs(wide)
    one, half = b.like(1, wide), b.like(0.5, wide)
    twice = b.add(magnitude, magnitude)
    if format_of(x) is SINGLE:
        y = log1p(b, b.div(twice, b.sub(one, magnitude)))
    else:
        divisor, divisor_low = two_sum(b, one, b.neg(magnitude))
        inverse = b.div(one, divisor)
        part = b.mul(twice, inverse)
        minus_part = b.neg(part)
        part_low = b.mul(b.fma(minus_part, divisor_low, b.fma(minus_part, divisor, twice)), inverse)
        total, lost = two_sum(b, one, part)
        y = log_of_sum(b, total, b.add(lost, part_low))
        y = b.select(b.eq(magnitude, one), b.like(math.inf, y), y)
        y = b.select(b.lt(magnitude, b.like(2.0**-30, y)), twice, y)
    return b.cast(with_sign_of(b, b.mul(y, half), wide), x.dtype)


def _root_of_sum(b: Vocabulary, high: Value, low: Value) -> tuple[Value, Value]:
    """Return the square root of high + low as a sum of two numbers; the second one is NaN where the first one is 0 or infinite."""
    root = b.sqrt(high)
    rest = b.add(b.fma(b.neg(root), root, high), low)
    return root, b.mul(rest, b.div(b.like(0.5, root), root))


def _log_of_twice(b: Vocabulary, x: Value, total: Value, low: Value) -> Value:
    """Return log(total + low), or log 2x for a large x."""
    is_large = b.lt(b.like(LARGE, x), x)
    minus_one, zero = b.like(-1, x), b.like(0, x)
    exact = b.or_(is_large, b.eq(x, b.like(1, x)))
    return log_of_sum(b, b.select(is_large, x, total), b.select(exact, zero, low), b.select(is_large, minus_one, zero))
