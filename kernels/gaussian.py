"""Bells: e**-x**2, and the density of the standard normal distribution. The square keeps what its rounding lost."""

from __future__ import annotations

from staticgrad.kernels.exponential import exp_of_sum
from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, at_most, format_of, two_product

INVERSE_ROOT = {SINGLE: (0.3989422917366028, -1.133517010526318e-08), DOUBLE: (0.3989422804014327, -2.49232720227773e-17)}
"""1 / sqrt(2 pi) as a sum of two numbers."""


def gaussian(b: Vocabulary, x: Value) -> Value:
    """Return e**-x**2 for float32 or float64 within 0.8 ULP, subnormal results included."""
    return _bell(b, x, 1.0)


def normal_density(b: Vocabulary, x: Value) -> Value:
    """Return e**(-x**2 / 2) / sqrt(2 pi) for float32 or float64 within 1.6 ULP, subnormal results included."""
    y = _bell(b, x, 0.5)
    high, low = INVERSE_ROOT[format_of(x)]
    return b.fma(y, b.like(high, x), b.mul(y, b.like(low, x)))


def _bell(b: Vocabulary, x: Value, scale: float) -> Value:
    """Return e**(-scale x**2) for a power of two as scale."""
    inside = at_most(b, b.abs(x), 15.0 if format_of(x) is SINGLE else 40.0)  # 0 from there on
    square, lost = two_product(b, inside, inside)
    factor = b.like(-scale, x)
    return exp_of_sum(b, b.mul(square, factor), b.mul(lost, factor))
