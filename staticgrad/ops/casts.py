"""Conversions between dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.ir.aval import BOOL, INT64, Aval, is_float, is_integer
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import op
from staticgrad.ops.elementwise import Elementwise


@op
class Cast(Elementwise):
    """Conversion to another dtype; a float becomes an integer by truncation, narrowed modulo its width."""

    dtype: np.dtype
    linear = True

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        return Aval(x.shape, self.dtype)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        if is_float(x.dtype) and is_integer(self.dtype):
            return float_to_integer(x, self.dtype)
        return x.astype(self.dtype)

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        if self.dtype == BOOL:
            return b.ne(x, b.like(0, x)) if x.dtype != BOOL else x
        return b.cast(x, self.dtype)

    def formula(self, *avals: Aval) -> str:
        (x,) = avals
        if x.dtype == BOOL or self.dtype == BOOL:
            return "x" if x.dtype == self.dtype else "Ne(x, 0)" if self.dtype == BOOL else "Piecewise((1, x), (0, True))"
        return "sign(x)*floor(Abs(x))" if is_float(x.dtype) and not is_float(self.dtype) else "x"

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        return (cast(g, x.dtype) if is_float(x.dtype) and is_float(self.dtype) else None,)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None or not is_float(self.dtype) else cast(tangents[0], self.dtype)


def float_to_integer(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `x` truncated to integers of `dtype`, defined for every float.

    As x86 does it: through int32 for the dtypes up to its width and through int64 for the wider ones, where anything out of range
    (or NaN) becomes the least value; then the low bits are kept.
    """
    wide = INT64 if dtype.itemsize == 8 or dtype == np.uint32 else np.dtype(np.int32)
    limit = x.dtype.type(2.0 ** (8 * wide.itemsize - 1))
    truncated = np.trunc(x)
    inside = (truncated >= -limit) & (truncated < limit)
    result = np.where(inside, truncated, 0).astype(wide)
    result = np.where(inside, result, np.iinfo(wide).min)
    if dtype == np.uint64:
        above = (truncated >= limit) & (truncated < 2 * limit)
        shifted = np.where(above, truncated - limit, 0).astype(np.int64) ^ np.iinfo(np.int64).min
        result = np.where(above, shifted, result)
    return np.asarray(result).astype(dtype)


def cast(x: Value, dtype: np.dtype) -> Value:
    """Return x converted to `dtype`; x itself if it has it (and is not weak)."""
    if x.dtype == dtype and not x.aval.weak:
        return x
    return apply(Cast(dtype), x)
