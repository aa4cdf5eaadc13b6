"""Indices with arrays: x[i, :, j] with integer arrays and masks, traced or not, by NumPy's rules.

Such an index is a basic index that takes every element along the axes of the arrays, and then a gather: x[2:, i] is x[2:, :] picked
along axis 1. Masks whose values are known are the places where they are true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import IndexingError, ShapeError, UnsupportedError
from staticgrad.ir.aval import BOOL, INT64, Shape
from staticgrad.ir.node import Value, apply, constant, constant_array
from staticgrad.ir.source import at_user_line
from staticgrad.ops.comparison import where
from staticgrad.ops.index import BoundedIndex, Gather, ScatterAdd, ScatterSet
from staticgrad.ops.movement import Axes, broadcast, broadcast_to, reshape
from staticgrad.tracing.lift import convert, lift, strong
from staticgrad.tracing.views import Strides, View, parse_index

Array = np.ndarray | Value
"""An index array: known now, or traced."""


@dataclass(frozen=True)
class PickView(View):
    """What integer arrays pick along `axes`. Reading it copies, as in NumPy, so it is a view only while it is written.

    Single traced integers are basic indices: what they pick is a view, with the axes of the base that are left.
    """

    axes: Axes
    place: int
    indices: tuple[Value, ...]

    def read(self, base: Value) -> Value:
        return apply(Gather(self.axes, self.place), base, *self.indices)

    def write(self, base: Value, part: Value) -> Value:
        return apply(ScatterSet(self.axes, self.place), base, part, *self.indices)

    def strides(self, shape: Shape, strides: Strides) -> Strides:
        return tuple(step for axis, step in enumerate(strides) if axis not in self.axes)

    def add(self, base: Value, part: Value) -> Value:
        """Return the base with the part added element by element: one that is picked twice takes in both."""
        return apply(ScatterAdd(self.axes, self.place), base, part, *self.indices)


def parsed(index: Any, shape: Shape) -> tuple[tuple[View, ...], bool]:
    """Return the views that lead to a part of an array of `shape`, and whether reading it gives a copy or scalar of its own.

    Raises
    ------
    IndexingError
        An index out of range, arrays that do not fit together, or an index that NumPy does not take.
    """
    items = index if isinstance(index, tuple) else (index,)
    if not any(map(_is_array, items)):
        view, scalar = parse_index(index, shape)
        return (view,), scalar
    entries = _entries(items, shape)
    basic, _ = parse_index(tuple(entry.basic for entry in entries), shape)
    arrays = [entry for entry in entries if entry.array is not None]
    if not arrays:
        return (basic,), True
    scalars = all(map(_is_scalar, filter(_is_array, items)))
    pick = _pick(entries, arrays)
    own = not scalars or (len(basic.shape) == len(arrays) and not any(item is Ellipsis for item in items))
    return (basic, pick), own


def masked(mask: Any, new: Value, x: Value) -> Value | None:
    """Return x with `new` where a traced mask holds: x[mask] = new; None if `mask` is no traced mask."""
    if isinstance(mask, tuple) and len(mask) == 1:
        mask = mask[0]
    if not _is_traced(mask) or lift(mask).dtype != BOOL:
        return None
    flags = lift(mask)
    _check_mask(flags.shape, x.shape, 0)
    rest = x.shape[len(flags.shape) :]
    surplus = len(new.shape) - len(rest)
    if surplus > 0 and all(extent == 1 for extent in new.shape[:surplus]):
        new = reshape(new, new.shape[surplus:])
    try:
        spread = broadcast_to(strong(convert(new, x.dtype)), rest)
    except ShapeError as error:
        raise ShapeError(
            at_user_line(
                f"x[mask] = y with a traced mask: {new.aval} has to broadcast to {rest}, the part that one element of the mask stands "
                "for, because how many of them hold is not known while tracing; write x = np.where(mask, y, x) with a y of the shape of x"
            )
        ) from error
    flags = broadcast(flags, x.shape, tuple(range(len(flags.shape), len(x.shape))))
    return where(flags, broadcast(spread, x.shape, tuple(range(len(x.shape) - len(rest)))), x)


# ---- items


@dataclass(frozen=True, eq=False)
class _Entry:
    """One item of an index: the basic index in its place, and the array that picks along that axis."""

    basic: Any
    array: Array | None = None


def _is_traced(item: Any) -> bool:
    from staticgrad.tracing.tracer import Tracer

    return isinstance(item, Tracer) and constant_array(item.value) is None


def _is_scalar(item: Any) -> bool:
    """Return whether an item is a traced integer that NumPy would hold as a scalar, not as an array without axes."""
    from staticgrad.tracing.tracer import Tracer

    return isinstance(item, Tracer) and not item.shape and not item.is_array and item.dtype != BOOL


def _is_array(item: Any) -> bool:
    from staticgrad.tracing.tracer import Tracer

    if item is None or item is Ellipsis or isinstance(item, (slice, int, np.integer)):
        return isinstance(item, bool)
    return isinstance(item, (Tracer, np.ndarray, np.bool_, list, tuple)) or hasattr(item, "__array__")


def _entries(items: Sequence[Any], shape: Shape) -> list[_Entry]:
    """Return an entry for each axis of the array and each new one; no ellipsis is left."""
    ellipses = sum(item is Ellipsis for item in items)
    if ellipses > 1:
        raise IndexingError(at_user_line("an index can only have a single ellipsis ('...')"))
    arrays = [_array_of(item) if _is_array(item) else None for item in items]
    used = [_axes_used(item, array) for item, array in zip(items, arrays, strict=True)]
    missing = len(shape) - sum(used)
    if missing < 0:
        raise IndexingError(at_user_line(f"too many indices: shape {shape} has {len(shape)} axes, {sum(used)} were indexed"))
    # Beside arrays an integer is an array too, as in NumPy: x[i, 2] picks one element, and no column to pick it from.
    picks = any(array is not None and (isinstance(array, Value) or array.ndim > 0 or array.dtype == BOOL) for array in arrays)
    found: list[_Entry] = []
    axis = 0
    for item, array, count in zip(items, arrays, used, strict=True):
        if item is Ellipsis:
            found += [_Entry(slice(None))] * missing
            axis += missing
        elif array is None and not (picks and isinstance(item, (int, np.integer))):
            found.append(_Entry(item))
        elif array is None:
            found.append(_Entry(slice(None), bounded(np.asarray(item), shape[axis], axis)))
        elif isinstance(array, np.ndarray) and array.dtype == BOOL:
            found += _places_of_mask(array, shape, axis)
        elif isinstance(array, np.ndarray) and not picks:
            found.append(_Entry(int(array)))
        else:
            found.append(_Entry(slice(None), bounded(array, shape[axis], axis)))
        axis += count
    return found if ellipses else [*found, *[_Entry(slice(None))] * missing]


def _array_of(item: Any) -> Array:
    """Return an index array as it is if it is known, as int64 or bool if it is traced."""
    value = lift(np.zeros(0, INT64) if isinstance(item, (list, tuple)) and not len(item) else item)
    if value.dtype.kind not in "biu":
        raise IndexingError(at_user_line(f"arrays used as indices must be of integer (or boolean) type, not {value.aval}"))
    known = constant_array(value)
    if known is None and value.dtype == BOOL:
        raise UnsupportedError(
            at_user_line(
                f"x[mask] with a traced mask ({value.aval}) has a shape that depends on values which are not known while tracing; "
                "use np.where(mask, x, y), or np.sum(x, where=mask) and its like; x[mask] = y alone works"
            )
        )
    return value if known is None else known


def _axes_used(item: Any, array: Array | None) -> int:
    if array is not None:
        return len(array.shape) if array.dtype == BOOL else 1
    return int(item is not None and item is not Ellipsis)


def _check_mask(mask: Shape, shape: Shape, axis: int) -> None:
    for k, extent in enumerate(mask):
        if axis + k >= len(shape) or shape[axis + k] != extent:
            size = shape[axis + k] if axis + k < len(shape) else "nothing"
            raise IndexingError(
                at_user_line(
                    f"boolean index did not match indexed array along axis {axis + k}; size of axis is {size} but size of corresponding "
                    f"boolean axis is {extent}"
                )
            )


def _places_of_mask(mask: np.ndarray, shape: Shape, axis: int) -> list[_Entry]:
    """Return the places where a mask is true, axis by axis; a single flag picks along a new axis."""
    if not mask.ndim:
        return [_Entry(None, np.zeros(int(mask), INT64))]
    _check_mask(mask.shape, shape, axis)
    return [_Entry(slice(None), places.astype(INT64)) for places in np.nonzero(mask)]


def bounded(array: Array, extent: int, axis: int, mode: str = "raise") -> Array:
    """Return an index array counted from the front; what is known is checked now, what is traced when it runs."""
    where = f"is out of bounds for axis {axis} with size {extent}"
    if isinstance(array, Value):
        if not extent and array.aval.size:
            raise IndexingError(at_user_line(f"a traced index ({array.aval}) {where}"))
        return apply(BoundedIndex(extent, mode), array)
    numbers = array.astype(INT64)
    outside = numbers[(numbers < -extent) | (numbers >= extent)]
    if outside.size and (mode == "raise" or not extent):
        raise IndexingError(at_user_line(f"index {outside[0]} {where}"))
    return BoundedIndex(extent, mode).numpy(numbers)


# ---- picking


def _pick(entries: Sequence[_Entry], arrays: Sequence[_Entry]) -> PickView:
    """Return the view of what the arrays pick out of the result of the entries' basic index."""
    axes = tuple(entries.index(entry) for entry in arrays)
    indices = spread_together([entry.array for entry in arrays if entry.array is not None])
    side_by_side = axes[-1] - axes[0] + 1 == len(axes)
    return PickView(axes, axes[0] if side_by_side else 0, indices)


def spread_together(arrays: Sequence[Array]) -> tuple[Value, ...]:
    """Return index arrays broadcast to their common shape, as values."""
    shapes = [array.shape for array in arrays]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        listed = " ".join(map(str, shapes))
        raise IndexingError(
            at_user_line(f"shape mismatch: indexing arrays could not be broadcast together with shapes {listed}")
        ) from error
    values = (array if isinstance(array, Value) else constant(array) for array in arrays)
    return tuple(broadcast_to(value, shape) for value in values)
