"""Abstract values: what is known of an array before it exists."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from staticgrad.errors import DTypeError

Extent = int
"""The length of an axis. Always ask `product` and friends, never assume literals: extents may become symbolic."""

Shape = tuple[Extent, ...]

BOOL = np.dtype(np.bool_)
INT64 = np.dtype(np.int64)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

DTYPES: dict[str, np.dtype] = {
    name: np.dtype(name)
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
}
"""The dtypes that graphs can hold, by name."""

NATIVE: dict[np.dtype, np.dtype] = {dtype: dtype for dtype in DTYPES.values()}
"""The same by themselves: dtypes of another byte order are not found."""


def product(shape: Iterable[Extent]) -> Extent:
    """Return the number of elements of `shape`: (2, 3) -> 6, () -> 1."""
    return math.prod(shape)


def is_float(dtype: np.dtype) -> bool:
    """Return whether values of `dtype` have derivatives."""
    return dtype.kind == "f"


def is_integer(dtype: np.dtype) -> bool:
    """Return whether `dtype` is a signed or unsigned integer (bool is not)."""
    return dtype.kind in "iu"


def check_dtype(dtype: object, what: str = "the operand") -> np.dtype:
    """Return `dtype` as a native NumPy dtype that graphs can hold, or raise `DTypeError`."""
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError as error:
        raise DTypeError(f"{dtype!r} is not a dtype ({what}).") from error
    native = DTYPES.get(found.name)
    if native is None:
        hint = "use .astype(np.float32)" if found.kind == "f" else "graphs hold " + ", ".join(DTYPES)
        raise DTypeError(f"dtype {found} of {what} is not supported: {hint}.")
    return native


@dataclass(frozen=True, slots=True)
class Aval:
    """Shape and dtype of a value; `weak` marks what came from a Python scalar and yields to other dtypes (NEP 50)."""

    shape: Shape
    dtype: np.dtype
    weak: bool = False

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Extent:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Extent:
        """The number of bytes of a contiguous array of this kind."""
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: Shape) -> Aval:
        """Return the same dtype with another shape."""
        return replace(self, shape=tuple(shape))

    def with_dtype(self, dtype: np.dtype) -> Aval:
        """Return the same shape with another dtype, no longer weak."""
        return Aval(self.shape, dtype)

    def without(self, axes: Iterable[int]) -> Aval:
        """Return the aval with `axes` removed: (2, 3) without (1,) is (2,)."""
        gone = frozenset(axes)
        return self.with_shape(tuple(extent for axis, extent in enumerate(self.shape) if axis not in gone))

    def __str__(self) -> str:
        names = {"bool": "bool", "float32": "f32", "float64": "f64"}
        name = names.get(self.dtype.name) or self.dtype.name.replace("uint", "u").replace("int", "i")
        return f"{name}[{','.join(map(str, self.shape))}]{'~' if self.weak else ''}"
