"""Instructions that Python's operators do not have, or have with another meaning.

Every function works on NumPy scalars and on arrays (lanes) in plain Python; `lowering` gives Numba the same meaning.
All are total: no operand leads to an undefined result.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

Value = Any
"""A NumPy scalar, or an array of lanes."""


def _scalar(value: Value) -> Value:
    """Return a plain Python number, which is how literals are written, as the NumPy scalar it stands for."""
    if isinstance(value, (bool, int)):
        return np.bool_(value) if isinstance(value, bool) else np.int64(value)
    return np.float64(value) if type(value) is float else value


def _same(*values: Value) -> tuple[Any, ...]:
    return tuple(_scalar(value) for value in values)


def select(condition: Value, x: Value, y: Value) -> Value:
    """Return x where the condition holds, otherwise y."""
    x, y = _same(x, y)
    if isinstance(condition, np.ndarray):
        return np.where(condition, x, y)
    return x if condition else y


def minimum(x: Value, y: Value) -> Value:
    """Return the smaller of x and y, NaN if one of them is, y where they are equal (-0.0 and 0.0 are)."""
    x, y = _same(x, y)
    return select((x < y) | (x != x), x, y)


def maximum(x: Value, y: Value) -> Value:
    """Return the larger of x and y, NaN if one of them is, y where they are equal (-0.0 and 0.0 are)."""
    x, y = _same(x, y)
    return select((x > y) | (x != x), x, y)


def fma(x: Value, y: Value, z: Value) -> Value:
    """Return x * y + z, rounded once."""
    if any(isinstance(value, np.ndarray) for value in (x, y, z)):
        rows = np.broadcast_arrays(x, y, z)
        return np.array([fma(*row) for row in zip(*(row.ravel() for row in rows))], rows[0].dtype).reshape(rows[0].shape)
    return _exact_fma()(*_same(x, y, z))


def _exact_fma() -> Callable[[Any, Any, Any], Any]:
    try:
        from staticgrad.ir.floats import exact_fma
    except ImportError:
        return _fraction_fma
    found: Callable[[Any, Any, Any], Any] = exact_fma
    return found


def _fraction_fma(x: Any, y: Any, z: Any) -> Any:
    kind = type(x)
    if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
        return x * y + z
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    if exact == 0:
        return x * y + z
    if kind is np.float64:
        try:
            return np.float64(exact.numerator / exact.denominator)
        except OverflowError:
            return np.float64(np.inf if exact > 0 else -np.inf)
    near = kind(float(exact))
    candidates = [np.nextafter(near, kind(-np.inf)), near, np.nextafter(near, kind(np.inf))]
    finite = [value for value in candidates if np.isfinite(value)]
    bits = {np.float32: np.uint32}[kind]
    best = min(finite, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(bits)) & 1))
    return near if np.isinf(near) else best


def sqrt(x: Value) -> Value:
    """Return the square root, correctly rounded."""
    return np.sqrt(_scalar(x))


def floor(x: Value) -> Value:
    """Round toward minus infinity."""
    return np.floor(_scalar(x))


def rint(x: Value) -> Value:
    """Round to the nearest integer, halves to even."""
    return np.rint(_scalar(x))


def trunc(x: Value) -> Value:
    """Round toward zero."""
    return np.trunc(_scalar(x))


def quotient(x: Value, y: Value) -> Value:
    """Return the integer x / y toward zero, 0 where y is 0; the least integer over -1 is itself."""
    x, y = _same(x, y)
    divisor = np.where(y == 0, y.dtype.type(1), y)
    down = np.floor_divide(x, divisor)
    inexact = (down * divisor != x) & ((x < 0) != (divisor < 0))
    return np.where(y == 0, y.dtype.type(0), np.where(inexact, down + down.dtype.type(1), down)).astype(x.dtype)[()]


def remainder(x: Value, y: Value) -> Value:
    """Return the integer x - y * quotient(x, y), 0 where y is 0."""
    x, y = _same(x, y)
    return np.where(y == 0, y.dtype.type(0), x - y * quotient(x, y)).astype(x.dtype)[()]


def mulhi(x: Value, y: Value) -> Value:
    """Return the high half of the double-width product of two integers."""
    x, y = np.broadcast_arrays(*_same(x, y))
    width = 8 * x.dtype.itemsize
    high = [(int(a) * int(b)) >> width for a, b in zip(x.ravel(), y.ravel())]
    return np.array(high, x.dtype).reshape(x.shape)[()]


def shift_left(x: Value, count: Value) -> Value:
    """Return x << count, 0 for counts that are negative or not below the width."""
    x, count = _same(x, count)
    fits = (count >= 0) & (count < 8 * x.dtype.itemsize)
    return np.where(fits, x << np.where(fits, count, 0).astype(x.dtype), x.dtype.type(0)).astype(x.dtype)[()]


def shift_right(x: Value, count: Value) -> Value:
    """Return x >> count with the sign carried in; only the sign is left for counts that are negative or not below the width."""
    x, count = _same(x, count)
    width = 8 * x.dtype.itemsize
    fits = (count >= 0) & (count < width)
    rest = np.where(x < 0, -1, 0).astype(x.dtype) if x.dtype.kind == "i" else x.dtype.type(0)
    return np.where(fits, x >> np.where(fits, count, 0).astype(x.dtype), rest).astype(x.dtype)[()]


def to_integer(x: Value, dtype: Any) -> Value:
    """Return the float x truncated to an integer; out of range, or NaN, it is the least int32, narrowed (int64 for u32, i64 and u64)."""
    x, target = _scalar(x), np.dtype(dtype)
    wide = np.int64 if target in (np.uint32, np.int64, np.uint64) else np.int32
    least = np.iinfo(wide).min
    whole = np.trunc(x)
    inside = (whole >= least) & (whole < -float(least))
    result = np.where(inside, np.where(inside, whole, 0).astype(wide), wide(least)).astype(target)
    if target == np.uint64:
        upper = (whole >= 2.0**63) & (whole < 2.0**64)
        result = np.where(upper, np.where(upper, whole, 2.0**63).astype(np.uint64), result)
    return result[()]


def bitcast(x: Value, dtype: Any) -> Value:
    """Return the bits of x read as `dtype`, which is as wide."""
    return _scalar(x).view(dtype)
