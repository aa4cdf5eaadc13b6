"""The logistic function and its integral, and logarithms of sums of exponentials."""

from __future__ import annotations

import math

from staticgrad.kernels.bases import exp2
from staticgrad.kernels.exponential import exp_of_negative
from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, at_least, fast_two_sum
from staticgrad.kernels.logarithm import log1p_scaled

# As `logarithm.TAIL`, for f from -1/4 to 1/2: relative errors 2**-27.6 and 2**-62.7
TAIL = {
    SINGLE: (
        -0.5, 0.3333345055580139, -0.25000110268592834, 0.19990848004817963, -0.1664687842130661, 0.14477629959583282,
        -0.13163937628269196, 0.10472557693719864, -0.045152343809604645,
    ),
    DOUBLE: (
        0.666666666666666, 0.4000000000005666, 0.2857142855583199, 0.22222224296131224, 0.18181665888984969,
        0.15391111758442969, 0.1317359844417708, 0.13843070930844184,
    ),
}  # fmt: skip


def sigmoid(b: Vocabulary, x: Value) -> Value:
    """Return 1 / (1 + e**-x) for float32 or float64 within 1.5 ULP, subnormal results included.

    It is z / (1 + z) or 1 / (1 + z) with z = e**-|x|; the roundings of 1 + z and of its inverse are made good.
    """
    zero, one = b.like(0, x), b.like(1, x)
    z = exp_of_negative(b, b.neg(b.abs(x)))
    total, lost = fast_two_sum(b, one, z)
    numerator = b.select(b.lt(x, zero), z, one)
    inverse = b.div(one, total)
    y = b.mul(numerator, inverse)
    minus_y = b.neg(y)
    return b.fma(b.fma(minus_y, lost, b.fma(minus_y, total, numerator)), inverse, y)


def softplus(b: Vocabulary, x: Value) -> Value:
    """Return log(1 + e**x) for float32 or float64 within 1.67 ULP: max(x, 0) + log(1 + z) with z = e**-|x|."""
    return b.add(at_least(b, x, 0.0), _log1p_up_to_one(b, exp_of_negative(b, b.neg(b.abs(x)))))


def logaddexp(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return log(e**x + e**y) for float32 or float64: wrong by at most 1.1 ULP of the largest of |x|, |y| and 1."""
    z = exp_of_negative(b, b.neg(b.abs(b.sub(x, y))))
    return _sum_of_logarithms(b, x, y, _log1p_up_to_one(b, z), math.log(2))


def logaddexp2(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return log2(2**x + 2**y) for float32 or float64: wrong by at most 1.5 ULP of the largest of |x|, |y| and 1."""
    more = _log1p_up_to_one(b, exp2(b, b.neg(b.abs(b.sub(x, y)))))
    return _sum_of_logarithms(b, x, y, b.mul(more, b.like(1 / math.log(2), x)), 1.0)


def _sum_of_logarithms(b: Vocabulary, x: Value, y: Value, more: Value, at_tie: float) -> Value:
    """Return the larger of x and y plus `more`; the distance of equal infinities, of which `more` was made, is NaN."""
    return b.add(b.max(x, y), b.select(b.eq(x, y), b.like(at_tie, x), more))


def _log1p_up_to_one(b: Vocabulary, z: Value) -> Value:
    """Return log(1 + z) for z from 0 to 1."""
    zero, one, half = b.like(0, z), b.like(1, z), b.like(0.5, z)
    # 1 + z = 2 (1 + (z - 1) / 2) for large z, both without rounding
    is_large = b.lt(half, z)
    part = b.select(is_large, b.fma(z, half, b.neg(half)), z)
    minus_k = b.select(is_large, b.neg(one), zero)
    return log1p_scaled(b, part, minus_k, tails=TAIL)
