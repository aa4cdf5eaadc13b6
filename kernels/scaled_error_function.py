"""e**x**2 erfc x, its derivatives, and the normal distribution function with its logarithm.

e**x**2 erfc x = P(t) / (1 + 2 x) for all x >= 0, as in `error_function`; `tests/kernels/special_fits.py` computes every coefficient.
"""

from __future__ import annotations

import math

from staticgrad.kernels.error_function import centred, erf_of_small, over_linear, without_exponential
from staticgrad.kernels.exponential import exp_of_sum
from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, at_least, at_most, fast_two_sum, format_of, two_product
from staticgrad.kernels.logarithm import log, log1p
from staticgrad.kernels.polynomial import horner

CENTRE = {SINGLE: 2.0, DOUBLE: 3.5}
# (1 + 2 x) e**x**2 erfc x in t = (x - centre) / (x + centre) for -1 <= t <= 1, relative errors 2**-27.2 and 2**-56.6
SCALED = {
    SINGLE: (
        1.2769783735275269, -0.09276382625102997, -0.16603010892868042, 0.16405057907104492, -0.054222334176301956, -0.008024673908948898,
        0.008730990812182426, 0.001229519140906632, -0.0014735605800524354, -0.00036934041418135166, 0.00022833856928627938,
        6.733262853231281e-05, -2.211527134932112e-05,
    ),
    DOUBLE: (
        1.2423492448711544, -0.1400091801376194, -0.010555596332221348, 0.09751909515325544, -0.11508959816004671, 0.08798315382500767,
        -0.048823325830568656, 0.01909933093946227, -0.004215019883020828, -0.00030226784354480285, 0.0005643842866563457,
        -0.00012151266114582324, -4.278181641201837e-05, 2.4262035134460112e-05, 2.327525096982526e-06, -3.817752675304344e-06,
        -4.3420385642678355e-08, 6.069438843770781e-07, -8.246671585119946e-09, -1.017274681101687e-07, 4.0860684243690855e-10,
        1.6948365618362614e-08, 1.6370687741359935e-10, -2.3654395027256713e-09, -1.8138363316460497e-11, 1.9053939404247425e-10,
    ),
}  # fmt: skip
FAR = 2.0**30
"""From here on e**x**2 erfc x is 1 / (sqrt(pi) x)."""

STEPS = 40
"""Depth of the continued fraction of the higher derivatives, for x >= 2."""


def erfcx(b: Vocabulary, x: Value) -> Value:
    """Return e**x**2 erfc x for float32 or float64 within 2.2 ULP, infinite where it overflows."""
    size = b.abs(x)
    y = _erfcx_of_positive(b, size)
    inside = at_most(b, size, 15.0 if format_of(x) is SINGLE else 30.0)
    square, lost = two_product(b, inside, inside)
    power = exp_of_sum(b, square, lost)
    return b.select(b.lt(x, b.like(0, x)), b.sub(b.add(power, power), y), y)


def _erfcx_of_positive(b: Vocabulary, x: Value) -> Value:
    f = format_of(x)
    inside = at_most(b, x, FAR)
    t = centred(b, inside, CENTRE[f])
    constant, *others = SCALED[f]
    numerator, lost = fast_two_sum(b, b.like(constant, x), b.mul(t, horner(b, t, others)))
    high, low = over_linear(b, numerator, lost, inside)
    return b.select(b.lt(b.like(FAR, x), x), b.div(b.like(1 / math.sqrt(math.pi), x), x), b.add(high, low))


def erfcx_integral(b: Vocabulary, x: Value, order: int) -> Value:
    """Return e**x**2 times the `order`-fold integral of erfc from x on, for float32 or float64; computed in float64.

    With E(-1) = 2 / sqrt(pi) and E(0) = erfcx, 2 n E(n) = E(n - 2) - 2 x E(n - 1). Up to 2 this loses a digit with each order; from
    there the same relation, read as a continued fraction for E(n) / E(n - 1), loses nothing.
    """
    return b.cast(_integral(b, b.cast(x, DOUBLE.dtype), order), x.dtype)


def _integral(b: Vocabulary, x: Value, order: int) -> Value:
    two, zero = b.like(2, x), b.like(0, x)
    first = erfcx(b, x)
    minus_two_x = b.mul(b.like(-2, x), at_most(b, x, 2.0))
    before, small = b.like(2 / math.sqrt(math.pi), x), first
    for n in range(1, order + 1):
        before, small = small, b.mul(b.fma(minus_two_x, small, before), b.like(1 / (2 * n), x))
    inside = at_least(b, x, 2.0)
    twice = b.mul(two, inside)
    depth = STEPS + order
    ratio = b.div(b.like(1, x), b.add(inside, b.sqrt(b.fma(inside, at_most(b, inside, FAR), b.like(2 * depth + 1, x)))))
    large = first
    for n in reversed(range(1, depth)):
        ratio = b.div(b.like(1, x), b.fma(ratio, b.like(2 * (n + 1), x), twice))
        if n <= order:
            large = b.mul(large, ratio)
    y = b.select(b.lt(x, two), small, large)
    return b.select(b.eq(first, b.like(math.inf, x)), first, b.select(b.eq(first, zero), zero, y))


# ---- the normal distribution ---------------------------------------------------------------------------------------------------

ROOT_HALF = math.sqrt(0.5)
HIGHEST = {SINGLE: 14.25, DOUBLE: 38.6}  # the tail is 0 from here on


def ndtr(b: Vocabulary, x: Value) -> Value:
    """Return the normal distribution function for float32 or float64 within 2.6 ULP, subnormal results included."""
    zero, half, one = b.like(0, x), b.like(0.5, x), b.like(1, x)
    u = b.mul(x, b.like(ROOT_HALF, x))
    size = b.abs(x)
    inside = at_most(b, size, HIGHEST[format_of(x)])
    high, low = without_exponential(b, b.mul(inside, b.like(ROOT_HALF, x)))
    power = b.mul(_half_bell(b, inside), half)
    tail = b.fma(power, high, b.mul(power, low))
    far = b.select(b.lt(x, zero), tail, b.sub(one, tail))
    return b.select(b.lt(b.abs(u), half), b.fma(half, erf_of_small(b, u), half), far)


def log_ndtr(b: Vocabulary, x: Value) -> Value:
    """Return the logarithm of `ndtr` for float32 or float64 within 3.7 ULP; -0.0 far out."""
    zero, half = b.like(0, x), b.like(0.5, x)
    size = b.abs(x)
    part = b.mul(_erfcx_of_positive(b, b.mul(size, b.like(ROOT_HALF, x))), half)
    below = b.fma(b.mul(x, b.like(-0.5, x)), x, log(b, part))
    above = log1p(b, b.neg(b.mul(_half_bell(b, at_most(b, size, HIGHEST[format_of(x)])), part)))
    return b.select(b.lt(zero, x), above, below)


def _half_bell(b: Vocabulary, x: Value) -> Value:
    """Return e**(-x**2 / 2) for moderate x."""
    square, lost = two_product(b, x, x)
    minus_half = b.like(-0.5, x)
    return exp_of_sum(b, b.mul(square, minus_half), b.mul(lost, minus_half))
