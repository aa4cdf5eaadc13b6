"""Views: how a part of a storage is read and written, each an index, a reshape or a transposition."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.errors import IndexingError, InvalidValueError, ReadOnlyError, TraceError, UnsupportedError
from staticgrad.ir.aval import Shape, product
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import Axes, broadcast_to, flip, inverse_order, reshape, slice_, slice_set, transpose

Strides = tuple[int, ...]
"""Steps in elements, one an axis: what decides whether NumPy's reshape is a view or a copy."""


class View:
    """One step from a base to a part of it."""

    def read(self, base: Value) -> Value:
        """Return the part."""
        raise UnsupportedError("a view without a reading")

    def write(self, base: Value, part: Value) -> Value:
        """Return the base with the part replaced."""
        raise UnsupportedError("a view without a writing")

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        """Return the part's strides, given the base's shape and strides."""
        raise UnsupportedError("a view without strides")


@dataclass(frozen=True)
class ReshapeView(View):
    """The same elements under another shape."""

    shape: Shape

    def read(self, base: Value) -> Value:
        return reshape(base, self.shape)

    def write(self, base: Value, part: Value) -> Value:
        return reshape(part, base.shape)

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        found = reshaped_strides(shape, strides, self.shape)
        return contiguous_strides(self.shape) if found is None else found


@dataclass(frozen=True)
class TransposeView(View):
    """The axes in another order."""

    order: Axes

    def read(self, base: Value) -> Value:
        return transpose(base, self.order)

    def write(self, base: Value, part: Value) -> Value:
        return transpose(part, inverse_order(self.order))

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        return tuple(strides[axis] for axis in self.order)


@dataclass(frozen=True)
class IndexView(View):
    """A basic index: a strided region, axes flipped where the step was negative, then integer axes dropped and new ones added."""

    starts: Axes
    stops: Axes
    steps: Axes
    flipped: Axes
    region: Shape
    shape: Shape

    def read(self, base: Value) -> Value:
        return reshape(flip(slice_(base, self.starts, self.stops, self.steps), self.flipped), self.shape)

    def write(self, base: Value, part: Value) -> Value:
        piece = flip(reshape(part, self.region), self.flipped)
        if self.region == base.shape:
            return piece
        return slice_set(base, piece, self.starts, self.stops, self.steps)

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        parts = zip(strides, self.steps, self.region, strict=True)
        steps = [-s * d if k in self.flipped else s * d for k, (s, d, extent) in enumerate(parts) if extent != 1]
        kept = iter(steps)
        return tuple(next(kept) if extent != 1 else 0 for extent in self.shape)


@dataclass(frozen=True)
class DiagonalView(View):
    """The last two axes replaced by their diagonal: every (m + 1)-th element of the flattened n x m matrix, from `start` on."""

    rows: int
    columns: int
    offset: int = 0

    @property
    def length(self) -> int:
        """The number of elements on the diagonal."""
        return max(0, min(self.rows, self.columns - self.offset) if self.offset >= 0 else min(self.rows + self.offset, self.columns))

    def _span(self, base: Value) -> tuple[Axes, Axes, Axes]:
        rank = len(base.shape) - 2
        start = self.offset if self.offset >= 0 else -self.offset * self.columns
        start, step = (start, self.columns + 1) if self.length else (0, 1)
        stop = start + (self.length - 1) * step + 1 if self.length else 0
        return (0,) * rank + (start,), (*base.shape[:-2], stop), (1,) * rank + (step,)

    def _flat(self, base: Value) -> Value:
        return reshape(base, (*base.shape[:-2], self.rows * self.columns))

    def read(self, base: Value) -> Value:
        return slice_(self._flat(base), *self._span(base))

    def write(self, base: Value, part: Value) -> Value:
        return reshape(slice_set(self._flat(base), part, *self._span(base)), base.shape)

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        return (*strides[:-2], strides[-2] + strides[-1])


@dataclass(frozen=True)
class BroadcastView(View):
    """The elements repeated; it cannot be written, as in NumPy."""

    shape: Shape

    def read(self, base: Value) -> Value:
        return broadcast_to(base, self.shape)

    def write(self, base: Value, part: Value) -> Value:
        raise ReadOnlyError(at_user_line("the result of np.broadcast_to cannot be written in place: copy it first, x = x.copy()"))

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        ahead = len(self.shape) - len(shape)
        return (0,) * ahead + tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True))


@dataclass(frozen=True)
class FrozenView(View):
    """The array itself, not to be written."""

    what: str

    def read(self, base: Value) -> Value:
        return base

    def write(self, base: Value, part: Value) -> Value:
        raise ReadOnlyError(at_user_line(f"{self.what} cannot be written in place: copy it first, x = x.copy()"))

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        return strides


def contiguous_strides(shape: Shape) -> Strides:
    """Return the strides of an array in C order: (2, 3) -> (3, 1)."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def reshaped_strides(shape: Shape, strides: Strides, new: Shape) -> Strides | None:
    """Return the strides under another shape, None where NumPy has to copy: the transpose of (2, 3) under (6,)."""
    if not product(shape):
        return contiguous_strides(new)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = [0] * len(new)
    position = 0
    while old and position < len(new):
        first, extent, (size, stride) = position, new[position], old.pop(0)
        while extent != size:
            if extent < size:
                position += 1
                extent *= new[position]
            else:
                following, finer = old.pop(0)
                if stride != following * finer:
                    return None
                size, stride = size * following, finer
        for axis in range(position, first - 1, -1):
            found[axis] = stride
            stride *= new[axis]
        position += 1
    return tuple(found)


def strides_of(shape: Shape, views: Sequence[tuple[View, Shape]]) -> Strides:
    """Return the strides of a part: a contiguous base of `shape`, then views, each with the shape it gives."""
    strides = contiguous_strides(shape)
    for view, result in views:
        strides, shape = view.strides(shape, strides), result
    return strides


def parse_index(index: Any, shape: Shape) -> tuple[IndexView, bool]:
    """Return the view of a basic index, and whether it gives a scalar (integers only) rather than a view.

    Raises
    ------
    IndexingError
        An index out of range, too many of them, or of a kind that is not an integer, slice, ellipsis or newaxis.
    """
    items = index if isinstance(index, tuple) else (index,)
    items = tuple(_plain(item) for item in items)
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > len(shape):
        raise IndexingError(at_user_line(f"too many indices: shape {shape} has {len(shape)} axes, {used} were indexed"))
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexingError(at_user_line("an index can only have a single ellipsis ('...')"))
    if Ellipsis not in items:
        items = (*items, Ellipsis)
    starts: list[int] = []
    stops: list[int] = []
    steps: list[int] = []
    flipped: list[int] = []
    region: list[int] = []
    result: list[int] = []
    axis = 0
    for item in items:
        if item is None:
            result.append(1)
            continue
        many = len(shape) - used if item is Ellipsis else 1
        for _ in range(many):
            extent = shape[axis]
            each = slice(None) if item is Ellipsis else item
            start, stop, step, length = _span(each, extent, axis)
            if not length:
                start, step = 0, 1
            if step < 0:
                start, step = start + (length - 1) * step, -step
                flipped.append(axis)
            stop = start + (length - 1) * step + 1 if length else start
            starts.append(start)
            stops.append(stop)
            steps.append(step)
            region.append(length)
            if isinstance(each, slice):
                result.append(length)
            axis += 1
    explicit = index if isinstance(index, tuple) else (index,)
    scalar = all(isinstance(_plain(i), int) for i in explicit) and used == len(shape)
    view = IndexView(tuple(starts), tuple(stops), tuple(steps), tuple(flipped), tuple(region), tuple(result))
    return view, scalar


def _span(item: slice | int, extent: int, axis: int) -> tuple[int, int, int, int]:
    if isinstance(item, int):
        if not -extent <= item < extent:
            raise IndexingError(at_user_line(f"index {item} is out of bounds for axis {axis} with size {extent}"))
        position = item % extent
        return position, position + 1, 1, 1
    try:
        start, stop, step = item.indices(extent)
    except TraceError:
        raise
    except TypeError as error:
        raise IndexingError(at_user_line(f"slice {item}: {error}; slices of a traced array need Python integers")) from error
    except ValueError as error:
        raise InvalidValueError(at_user_line(f"slice {item}: {error}")) from error
    length = len(range(start, stop, step))
    return start, stop, step, length


def _plain(item: Any) -> Any:
    """Return one item of a basic index as int, slice, None or Ellipsis."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    try:
        return operator.index(item)
    except TypeError as error:
        raise IndexingError(
            at_user_line(f"only integers, slices (`:`), ellipsis (`...`) and np.newaxis (`None`) are valid indices, not {item!r}")
        ) from error
