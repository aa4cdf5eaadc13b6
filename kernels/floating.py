"""The layout of the two float formats, and small building blocks that every kernel uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Vocabulary = Any
"""A `Builder`, or `OnFloats`."""

Value = Any
"""What the vocabulary works on: a `Scalar` of the loop IR, or a NumPy scalar or array."""


@dataclass(frozen=True)
class Format:
    """A binary float format: bits of the fraction, exponent bias and the integer dtype of the same width."""

    dtype: np.dtype
    bits: np.dtype
    fraction: int
    bias: int

    @property
    def width(self) -> int:
        """The number of bits."""
        return 8 * self.dtype.itemsize

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.fraction

    @property
    def sign(self) -> int:
        """The bits of -0.0."""
        return 1 << (self.width - 1)

    @property
    def smallest_normal(self) -> float:
        """The least number with a full fraction."""
        return 2.0 ** (1 - self.bias)

    @property
    def shifter(self) -> float:
        """Adding it rounds to an integer, which then stands in the low bits: 1.5 * 2**fraction."""
        return 1.5 * 2.0**self.fraction


SINGLE = Format(np.dtype(np.float32), np.dtype(np.uint32), 23, 127)
DOUBLE = Format(np.dtype(np.float64), np.dtype(np.uint64), 52, 1023)
_FORMATS = {SINGLE.dtype: SINGLE, DOUBLE.dtype: DOUBLE}


def format_of(x: Value) -> Format:
    """Return the float format of `x`."""
    return _FORMATS[x.dtype]


def lanes(x: Value) -> int:
    """Return the number of lanes of `x` (1 on NumPy values, where elements broadcast)."""
    return getattr(x, "lanes", 1)


def at_most(b: Vocabulary, x: Value, bound: float) -> Value:
    """Return the smaller of x and `bound`; NaN stays. One instruction on x86, unlike `min`."""
    limit = b.like(bound, x)
    return b.select(b.lt(limit, x), limit, x)


def at_least(b: Vocabulary, x: Value, bound: float) -> Value:
    """Return the larger of x and `bound`; NaN stays. One instruction on x86, unlike `max`."""
    limit = b.like(bound, x)
    return b.select(b.lt(x, limit), limit, x)


def with_sign_of(b: Vocabulary, magnitude: Value, x: Value) -> Value:
    """Return `magnitude`, which is not negative, with the sign of x."""
    f = format_of(x)
    bits = b.bitcast(x, f.bits)
    return b.bitcast(b.or_(b.bitcast(magnitude, f.bits), b.and_(bits, b.like(f.sign, bits))), f.dtype)


def two_sum(b: Vocabulary, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x + y as the rounded sum and its error (Knuth)."""
    total = b.add(x, y)
    y_part = b.sub(total, x)
    return total, b.add(b.sub(x, b.sub(total, y_part)), b.sub(y, y_part))


def fast_two_sum(b: Vocabulary, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x + y as the rounded sum and its error, where |x| >= |y| or x is 0 (Dekker)."""
    total = b.add(x, y)
    return total, b.sub(y, b.sub(total, x))


def two_product(b: Vocabulary, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x * y as the rounded product and its error."""
    product = b.mul(x, y)
    return product, b.fma(x, y, b.neg(product))
