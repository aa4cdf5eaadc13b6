"""log and log1p.

x = 2**k (1 + f) with k and f taken from the bits, then log x = k ln2 + log(1 + f). In float32 log(1 + f) is a polynomial in f;
in float64 it is fdlibm's scheme (Sun Microsystems, e_log.c): with s = f / (2 + f), log(1 + f) = f - (f**2/2 - s (f**2/2 + R(s**2))),
where log((1 + s) / (1 - s)) = 2 s + s R(s**2).
`tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

import numpy as np

from staticgrad.kernels.floating import DOUBLE, SINGLE, Format, Value, Vocabulary, format_of
from staticgrad.kernels.polynomial import horner

TAIL: dict[Format, tuple[float, ...]] = {
    # (log(1 + f) - f) / f**2 for |f| <= 1/3, relative error of log(1 + f) 2**-27.7
    SINGLE: (
        -0.5, 0.3333321511745453, -0.2499980628490448, 0.2001042664051056, -0.16680195927619934, 0.14005735516548157,
        -0.12187481671571732, 0.1398458033800125, -0.12880021333694458,
    ),
    # R(z) / z for |s| <= 3 - 2 sqrt 2, relative error of log(1 + f) 2**-59.5
    DOUBLE: (
        0.6666666666666734, 0.3999999999941692, 0.28571428741938004, 0.22222198615710045, 0.18183562265505526, 0.15314100050888788,
        0.14795482574644533,
    ),
}  # fmt: skip

LOWEST_FRACTION = {SINGLE: int(np.float32(2 / 3).view(np.uint32)), DOUBLE: int(np.float64(math.sqrt(0.5)).view(np.uint64))}
"""The bits of the least fraction that `split` returns."""

LN2_HIGH = 0.693147180369123816490173  # 21 trailing zeros: exact when multiplied by an exponent
LN2_LOW = 1.90821492927058770002e-10


def log(b: Vocabulary, x: Value) -> Value:
    """Return the natural logarithm for float32 (within 0.95 ULP) or float64 (0.9): -inf at 0, NaN below."""
    fraction, minus_k = split(b, x, subnormals=True)
    return with_logarithms_limits(b, log1p_scaled(b, b.sub(fraction, b.like(1, x)), minus_k), x)


def with_logarithms_limits(b: Vocabulary, y: Value, x: Value) -> Value:
    """Return `y`, which is the logarithm of a finite x > 0, or the logarithm where x is anything else: -inf at 0, NaN below."""
    zero, infinity = b.like(0, x), b.like(math.inf, x)
    y = b.select(b.eq(x, infinity), infinity, y)
    return b.select(b.lt(zero, x), y, b.select(b.eq(x, zero), b.like(-math.inf, x), b.like(math.nan, x)))


def log1p(b: Vocabulary, x: Value) -> Value:
    """Return log(1 + x) for float32 (within 1.2 ULP) or float64 (0.95): -inf at -1, NaN below."""
    one = b.like(1, x)
    total = b.add(x, one)
    one_part = b.sub(total, x)
    return log_of_sum(b, total, b.sub(b.sub(x, b.sub(total, one_part)), b.sub(one_part, one)))  # -0.0 at -0.0


def log_of_sum(b: Vocabulary, total: Value, low: Value, more_minus_k: Value | None = None) -> Value:
    """Return log(total + low), accurate near 1 too, where `total` is their rounded sum; `more_minus_k` adds its multiple of -ln2."""
    f = format_of(total)
    one = b.like(1, total)
    fraction, minus_k = split(b, total)
    bits = b.bitcast(fraction, f.bits)
    scale = b.bitcast(b.add(b.sub(bits, b.bitcast(total, f.bits)), b.like(f.one, bits)), f.dtype)  # fraction / total
    is_seen = b.lt(total, b.like(2.0 ** (f.fraction + 4), total))
    small = b.select(is_seen, b.mul(low, scale), b.like(0, total))
    below_one = b.sub(one, fraction)
    part = b.sub(small, below_one)
    if more_minus_k is not None:
        minus_k = b.add(minus_k, more_minus_k)
    y = log1p_scaled(b, part, minus_k, b.sub(small, b.add(part, below_one)))
    return with_logarithms_limits(b, y, total)


def split(b: Vocabulary, x: Value, *, subnormals: bool = False) -> tuple[Value, Value]:
    """Return (m, -k) with x = m * 2**k and m from 2/3 to 4/3 (float32), from sqrt(1/2) to sqrt(2) (float64); x > 0.

    k is wrong for subnormal numbers, unless they are asked for. -k is not -0.0.
    """
    f = format_of(x)
    lowest = LOWEST_FRACTION[f]
    unbias = b.like(2.0**f.fraction + f.bias, x)
    if subnormals:
        is_small = b.lt(x, b.like(f.smallest_normal, x))
        shift = f.fraction + 2
        unbias = b.select(is_small, b.like(2.0**f.fraction + f.bias + shift, x), unbias)
        x = b.select(is_small, b.mul(x, b.like(2.0**shift, x)), x)
    bits = b.bitcast(x, f.bits)
    moved = b.add(bits, b.like(f.one - lowest, bits))
    fraction = b.add(b.and_(moved, b.like(2**f.fraction - 1, bits)), b.like(lowest, bits))
    # The biased exponent in the low bits of 2**fraction is the number 2**fraction + exponent.
    exponent = b.or_(b.shr(moved, f.fraction), b.like((f.bias + f.fraction) << f.fraction, bits))
    return b.bitcast(fraction, f.dtype), b.sub(unbias, b.bitcast(exponent, f.dtype))


def log1p_scaled(
    b: Vocabulary, f: Value, minus_k: Value, f_low: Value | None = None, tails: dict[Format, tuple[float, ...]] = TAIL
) -> Value:
    """Return k ln2 + log(1 + f + f_low); -0.0 at f = -0.0, k = 0. With `TAIL`, 1 + f is a fraction as `split` gives it."""
    tail = tails[format_of(f)]
    square = b.mul(f, f)
    if format_of(f) is SINGLE:
        series = horner(b, f, tail)
        y = b.fma(square, series, f) if f_low is None else b.add(f, b.fma(square, series, f_low))
        return b.fma(minus_k, b.like(-math.log(2), f), y)
    s = b.div(f, b.add(b.like(2, f), f))
    z = b.mul(s, s)
    half_square = b.mul(b.like(0.5, f), square)
    low = b.like(-LN2_LOW, f)
    low = b.mul(minus_k, low) if f_low is None else b.fma(minus_k, low, f_low)
    inner = b.fma(s, b.fma(z, horner(b, z, tail), half_square), low)
    return b.fma(minus_k, b.like(-LN2_HIGH, f), b.sub(f, b.sub(half_square, inner)))
