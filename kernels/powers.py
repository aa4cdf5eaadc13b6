"""x**y.

The magnitude is exp(y log |x|). In float32 all of it is computed in float64. In float64 the logarithm is a sum of two numbers with
a relative error below 2**-63, because an error of the logarithm is multiplied by up to 745 in the power.
`tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

from staticgrad.kernels.exponential import exp_of_sum
from staticgrad.kernels.floating import (
    DOUBLE,
    SINGLE,
    Value,
    Vocabulary,
    at_least,
    at_most,
    fast_two_sum,
    format_of,
    two_product,
)
from staticgrad.kernels.logarithm import LN2_HIGH, LN2_LOW, split
from staticgrad.kernels.polynomial import horner

# log2((1 + s) / (1 - s)) / s in s**2 for |s| <= 3 - 2 sqrt 2, relative error 2**-37.8
LOG2_SERIES = (2.8853900817900886, 0.9617966733404644, 0.5770835851109578, 0.4116727135921871, 0.34073017038474274)
# 2**r for |r| <= 1/2, relative error 2**-28.9
EXP2_SERIES = (
    1.0, 0.6931472028572724, 0.24022647914922007, 0.055503324724074626, 0.009618437212878368, 0.0013398873166677507,
    0.00015353397705235785,
)  # fmt: skip
# With z = s**2, log((1 + s) / (1 - s)) = 2 s + s z (2/3 + z * (...)) for |s| <= 3 - 2 sqrt 2, relative error 2**-73.5
LOG_SERIES = (
    0.3999999999999998, 0.2857142857144384, 0.22222222217789556, 0.18181818844046596, 0.15384558422543654, 0.1333626482046056,
    0.11675772389754568, 0.11981837032072722,
)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def power(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return x**y for float32 (within 0.55 ULP) or float64 (1.0), with the special cases of C's `pow`: 1**y = x**0 = 1 even for NaN."""
    f = format_of(x)
    zero, one, infinity = b.like(0, x), b.like(1, x), b.like(math.inf, x)
    magnitude = b.abs(x)
    is_one = b.or_(b.eq(y, zero), b.eq(magnitude, one))
    base, exponent = b.select(is_one, one, magnitude), b.select(is_one, one, y)
    result = _single(b, base, exponent) if f is SINGLE else _double(b, base, exponent)
    half = b.mul(y, b.like(0.5, y))
    is_integer = b.eq(b.floor(y), y)
    is_odd = b.and_(is_integer, b.ne(b.floor(half), half))
    bits = b.bitcast(x, f.bits)
    sign = b.select(is_odd, b.and_(bits, b.like(f.sign, bits)), b.like(0, bits))
    result = b.bitcast(b.xor(b.bitcast(result, f.bits), sign), f.dtype)
    has_none = b.and_(b.and_(b.lt(x, zero), b.lt(magnitude, infinity)), b.not_(is_integer))
    return b.select(has_none, b.like(math.nan, x), result)


def _with_limits(b: Vocabulary, logarithm: Value, x: Value) -> Value:
    """Return `logarithm`, or log x where x is 0, infinite or NaN."""
    infinity = b.like(math.inf, x)
    logarithm = b.select(b.lt(x, infinity), logarithm, x)
    return b.select(b.eq(x, b.like(0, x)), b.neg(infinity), logarithm)


def _single(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return x**y for float32 x >= 0 and y != 0."""
    base, exponent = b.cast(x, DOUBLE.dtype), b.cast(y, DOUBLE.dtype)
    fraction, minus_k = split(b, base)
    f = b.sub(fraction, b.like(1, base))
    s = b.div(f, b.add(b.like(2, base), f))
    log2 = b.sub(b.mul(s, horner(b, b.mul(s, s), LOG2_SERIES)), minus_k)
    inside = at_most(b, at_least(b, b.mul(exponent, _with_limits(b, log2, base)), -200.0), 200.0)
    shifter = b.like(DOUBLE.shifter + DOUBLE.bias, base)
    shifted = b.add(inside, shifter)
    r = b.sub(inside, b.sub(shifted, shifter))
    scale = b.bitcast(b.shl(b.bitcast(shifted, DOUBLE.bits), DOUBLE.fraction), DOUBLE.dtype)
    return b.cast(b.mul(horner(b, r, EXP2_SERIES), scale), SINGLE.dtype)


def _double(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return x**y for float64 x >= 0 and y != 0."""
    high, low = log_of_two_parts(b, x)
    high = _with_limits(b, high, x)
    product = b.mul(y, high)
    rest = b.fma(y, low, b.fma(y, high, b.neg(product)))
    in_range = b.lt(b.abs(product), b.like(800.0, x))  # otherwise the rest may be infinite or NaN
    return exp_of_sum(b, product, b.select(in_range, rest, b.like(0, x)))


def log_of_two_parts(b: Vocabulary, x: Value) -> tuple[Value, Value]:
    """Return log x as a sum of two float64 numbers, the first one nearly rounded, for finite x > 0."""
    fraction, minus_k = split(b, x, subnormals=True)
    f = b.sub(fraction, b.like(1, x))
    # s = f / (2 + f) in two parts
    divisor, divisor_low = fast_two_sum(b, b.like(2, x), f)
    inverse = b.div(b.like(1, x), divisor)
    s = b.mul(f, inverse)
    minus_s = b.neg(s)
    s_low = b.mul(b.fma(minus_s, divisor_low, b.fma(minus_s, divisor, f)), inverse)
    twice, twice_low = b.add(s, s), b.add(s_low, s_low)
    z, z_low = two_product(b, s, s)
    z_low = b.fma(twice, s_low, z_low)
    series, series_low = fast_two_sum(b, b.like(TWO_THIRDS[0], x), b.mul(z, horner(b, z, LOG_SERIES)))
    series_low = b.add(series_low, b.like(TWO_THIRDS[1], x))
    # log(1 + f) = 2 s + s**3 series
    cube, cube_low = two_product(b, z, s)
    cube_low = b.add(cube_low, b.fma(z, s_low, b.mul(z_low, s)))
    tail, tail_low = two_product(b, cube, series)
    tail_low = b.add(tail_low, b.fma(cube, series_low, b.mul(cube_low, series)))
    part, part_low = fast_two_sum(b, twice, tail)
    part_low = b.add(part_low, b.add(twice_low, tail_low))
    total, total_low = fast_two_sum(b, b.mul(minus_k, b.like(-LN2_HIGH, x)), part)
    return total, b.add(total_low, b.fma(minus_k, b.like(-LN2_LOW, x), part_low))
