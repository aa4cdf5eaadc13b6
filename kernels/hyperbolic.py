"""tanh."""

from __future__ import annotations

import math

from staticgrad.kernels.exponential import LOG2_E, exp_coefficients, expm1_parts
from staticgrad.kernels.floating import SINGLE, Value, Vocabulary, at_most, fast_two_sum, format_of, with_sign_of
from staticgrad.kernels.polynomial import horner

SMALL = 0.7
# (tanh x - x) / x**3 in x**2 for |x| <= 0.7, relative error of tanh 2**-25.95; `tests/kernels/minimax.py` computes it
SMALL_TAIL = (-0.3333319127559662, 0.1332913190126419, -0.053559962660074234, 0.020094336941838264, -0.00514046847820282)


def tanh(b: Vocabulary, x: Value) -> Value:
    """Return the hyperbolic tangent for float32 (within 1.1 ULP) or float64 (1.05)."""
    magnitude = b.abs(x)
    y = _tanh_single(b, magnitude) if format_of(x) is SINGLE else _tanh_double(b, magnitude)
    return with_sign_of(b, y, x)


def _tanh_single(b: Vocabulary, x: Value) -> Value:
    """Return tanh x for x >= 0: an odd polynomial up to 0.7, from there 1 - 1 / (e**2x / 2 + 1 / 2)."""
    square = b.mul(x, x)
    small = b.fma(b.mul(square, x), horner(b, square, SMALL_TAIL), x)
    inside = at_most(b, x, 10.0)
    # exp at 2 x, the factors 2 moved into the constants; no result is subnormal, so 2**n / 2 is one number.
    shifter = b.like(SINGLE.shifter + SINGLE.bias - 1, x)
    shifted = b.fma(inside, b.like(2 * LOG2_E, x), shifter)
    n = b.sub(shifted, shifter)
    half_r = b.fma(n, b.like(-0.5 * math.log(2), x), inside)
    half_power = b.bitcast(b.shl(b.bitcast(shifted, SINGLE.bits), SINGLE.fraction), SINGLE.dtype)
    series = horner(b, half_r, tuple(c * 2.0**i for i, c in enumerate(exp_coefficients(SINGLE))))
    large = b.sub(b.like(1, x), b.div(b.like(1, x), b.fma(half_power, series, b.like(0.5, x))))
    return b.select(b.lt(x, b.like(SMALL, x)), small, large)


def _tanh_double(b: Vocabulary, x: Value) -> Value:
    """Return tanh x for x >= 0: z / (z + 2) with z = e**2x - 1, where z, the sum and the quotient keep what rounding lost."""
    one, two = b.like(1, x), b.like(2, x)
    head, tail, power = expm1_parts(b, b.mul(at_most(b, x, 20.0), two))
    base = b.fma(power, head, b.sub(power, one))
    z = b.fma(power, tail, base)
    z_low = b.fma(power, tail, b.sub(base, z))
    total, lost = fast_two_sum(b, two, z)  # exact for z > 2 as well: total - 2 is a multiple of the last bit of `total`
    inverse = b.div(one, total)
    y = b.mul(z, inverse)
    minus_y = b.neg(y)
    rest = b.fma(minus_y, b.add(lost, z_low), b.add(b.fma(minus_y, total, z), z_low))
    return b.fma(rest, inverse, y)
