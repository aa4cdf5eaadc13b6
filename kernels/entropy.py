"""The logarithm of a ratio, and what measures how far two distributions lie apart.

For a ratio near 1, log(x / y) = 2 atanh s with s = (x - y) / (x + y), and atanh s = s + s**3 A(s**2);
`tests/kernels/special_fits.py` computes every coefficient here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, format_of
from staticgrad.kernels.logarithm import log
from staticgrad.kernels.polynomial import horner

# (atanh s - s) / s**3 in s**2 for |s| <= 1/3, relative errors of atanh 2**-27.7 and 2**-59.4
ATANH_TAIL = {
    SINGLE: (0.3333320915699005, 0.20010718703269958, 0.14001509547233582, 0.1400342583656311),
    DOUBLE: (
        0.33333333333333154, 0.20000000000077958, 0.14285714274004682, 0.11111111980404456, 0.09090872106931924, 0.07693277145071553,
        0.06650520483199396, 0.06052801465426226, 0.04171003195947811, 0.08507705044994203,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Parts:
    """What the logarithm of x / y is made of: if `near`, it is 2 (s + s**3 tail) with s = u / (2 + u) and u = (x - y) / y."""

    near: Value
    u: Value
    s: Value
    tail: Value
    logarithm: Value


def log_ratio(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return log(x / y) for x, y > 0 in float32 or float64 within 3 ULP, also where x / y is nearly 1 or out of range."""
    return _parts(b, x, y).logarithm


def _parts(b: Vocabulary, x: Value, y: Value) -> _Parts:
    f = format_of(x)
    zero, one, two = (b.like(k, x) for k in (0, 1, 2))
    ratio = b.div(x, y)
    near = b.and_(b.lt(b.like(0.5, x), ratio), b.lt(ratio, two))
    inside = b.and_(b.le(b.like(f.smallest_normal, x), ratio), b.lt(ratio, b.like(math.inf, x)))
    apart = b.sub(log(b, b.select(inside, ratio, x)), log(b, b.select(inside, one, y)))
    u = b.select(near, b.div(b.sub(x, y), y), zero)
    s = b.div(u, b.add(two, u))
    square = b.mul(s, s)
    tail = horner(b, square, ATANH_TAIL[f])
    twice = b.add(s, s)
    return _Parts(near, u, s, tail, b.select(near, b.fma(b.mul(twice, square), tail, twice), apart))


def rel_entr(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return x log(x / y) for float32 or float64 within 4 ULP; 0 for x = 0 <= y, infinity for numbers of another sign."""
    return _divergence(b, x, y, lambda x, y: b.mul(x, _parts(b, x, y).logarithm), b.like(0, x))


def kl_div(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return x log(x / y) - x + y for float32 or float64 within 8 ULP; y for x = 0 <= y, infinity for numbers of another sign."""
    return _divergence(b, x, y, lambda x, y: _kl_div(b, x, y), y)


def _kl_div(b: Vocabulary, x: Value, y: Value) -> Value:
    """Near 1 it is y u s (1 + (1 + s) s A(s**2)): the terms of first order are gone."""
    parts = _parts(b, x, y)
    bracket = b.fma(b.mul(b.add(b.like(1, x), parts.s), parts.s), parts.tail, b.like(1, x))
    small = b.mul(b.mul(b.mul(y, parts.u), parts.s), bracket)
    return b.select(parts.near, small, b.add(b.sub(b.mul(x, parts.logarithm), x), y))


def _divergence(b: Vocabulary, x: Value, y: Value, usual: Callable[[Value, Value], Value], at_zero: Value) -> Value:
    """Return `usual` where both are positive."""
    zero, one, infinity = b.like(0, x), b.like(1, x), b.like(math.inf, x)
    both = b.and_(b.lt(zero, x), b.lt(zero, y))
    result = usual(b.select(both, x, one), b.select(both, y, one))
    result = b.select(both, result, b.select(b.and_(b.eq(x, zero), b.le(zero, y)), at_zero, infinity))
    return b.select(b.or_(b.is_nan(x), b.is_nan(y)), b.like(math.nan, x), result)
