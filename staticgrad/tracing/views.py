"""Views: how a part of a storage is read and written, each an index, a reshape or a transposition."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import IndexingError, UnsupportedError
from staticgrad.ir.aval import Shape
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import Axes, flip, inverse_order, reshape, slice_, slice_set, transpose


class View:
    """One step from a base to a part of it."""

    def read(self, base: Value) -> Value:
        """Return the part."""
        raise UnsupportedError("a view without a reading")

    def write(self, base: Value, part: Value) -> Value:
        """Return the base with the part replaced."""
        raise UnsupportedError("a view without a writing")


@dataclass(frozen=True)
class ReshapeView(View):
    """The same elements under another shape."""

    shape: Shape

    def read(self, base: Value) -> Value:
        return reshape(base, self.shape)

    def write(self, base: Value, part: Value) -> Value:
        return reshape(part, base.shape)


@dataclass(frozen=True)
class TransposeView(View):
    """The axes in another order."""

    order: Axes

    def read(self, base: Value) -> Value:
        return transpose(base, self.order)

    def write(self, base: Value, part: Value) -> Value:
        return transpose(part, inverse_order(self.order))


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
    scalar = bool(explicit) and all(isinstance(_plain(i), int) for i in explicit) and used == len(shape)
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
    except (TypeError, ValueError) as error:
        raise IndexingError(at_user_line(f"slice {item}: {error}; slices of a traced array need Python integers")) from error
    length = len(range(start, stop, step))
    return (start if length else 0), stop, step, length


def _plain(item: Any) -> Any:
    """Return one index item as int, slice, None or Ellipsis."""
    from staticgrad.tracing.tracer import Tracer

    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, Tracer):
        raise UnsupportedError(
            at_user_line(
                f"indexing with a traced array ({item.aval}) is not supported yet; use a Python integer or a slice, or np.where with a mask"
            )
        )
    if isinstance(item, (bool, np.bool_)) or isinstance(item, (np.ndarray, list)) and np.ndim(item) > 0:
        raise UnsupportedError(
            at_user_line("indexing a traced array with an array, a list or a mask is not supported yet; use slices, or np.where for a mask")
        )
    try:
        return operator.index(item)
    except TypeError as error:
        raise IndexingError(
            at_user_line(f"only integers, slices (`:`), ellipsis (`...`) and np.newaxis (`None`) are valid indices, not {item!r}")
        ) from error
