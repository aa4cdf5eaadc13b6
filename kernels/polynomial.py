"""Polynomials."""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.kernels.floating import Value, Vocabulary


def horner(b: Vocabulary, x: Value, coefficients: Sequence[float]) -> Value:
    """Return c0 + c1 x + c2 x**2 + ... by Horner's rule, one fused multiply-add a step; constant term first."""
    *rest, result = (b.like(c, x) for c in coefficients)
    for coefficient in reversed(rest):
        result = b.fma(result, x, coefficient)
    return result
