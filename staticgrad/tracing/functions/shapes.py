"""Functions that give another view of the same elements, and those that repeat or reorder them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError, ShapeError, UnsupportedError
from staticgrad.ir.aval import Shape, product
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import Axes, reshape
from staticgrad.tracing.functions.arguments import as_tracer, axis_of, distinct_axes, operand, shape_of, whole_number
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.views import (
    BroadcastView,
    DiagonalView,
    FrozenView,
    ReshapeView,
    TransposeView,
    contiguous_strides,
    reshaped_strides,
)


def reshape_like_numpy(x: Tracer, shape: Shape, copy: Any = None, name: str = "np.reshape") -> Tracer:
    """Return `x` under another shape: a view where NumPy has one, otherwise a copy."""
    viewable = reshaped_strides(x.shape, x.element_strides, shape) is not None
    if viewable and not copy:
        return x.view(ReshapeView(shape))
    if copy is False:
        raise InvalidValueError(at_user_line(f"{name}: {x.aval} cannot be given shape {shape} without a copy"))
    return tracer_of(reshape(x.value, shape), array=True)


def complete_shape(shape: Any, size: int, name: str) -> Shape:
    """Return `shape` with its -1 replaced by what is left of `size` elements."""
    parts = tuple(shape) if isinstance(shape, (tuple, list, np.ndarray)) else (shape,)
    found = [whole_number(part, f"{name}: a length in the shape") for part in parts]
    if sum(extent < 0 for extent in found) > 1:
        raise InvalidValueError(at_user_line(f"{name}: can only specify one unknown dimension, got {tuple(found)}"))
    known = product(extent for extent in found if extent >= 0)
    complete = tuple(extent if extent >= 0 else size // max(known, 1) for extent in found)
    if product(complete) != size or (known == 0 and min(found, default=0) < 0):
        raise ShapeError(at_user_line(f"{name}: cannot reshape array of size {size} into shape {tuple(found)}"))
    return complete


def permuted(x: Tracer, order: Axes) -> Tracer:
    """Return the view of `x` with its axes in another order."""
    return x.view(TransposeView(order))


def _reversed(x: Tracer) -> Tracer:
    return permuted(x, tuple(range(x.ndim))[::-1])


def _memory_order(x: Tracer, order: Any, name: str) -> str:
    if order in ("C", "F"):
        return str(order)
    contiguous = _is_contiguous(x.shape, x.element_strides)
    reverse = _is_contiguous(x.shape[::-1], x.element_strides[::-1])
    if order == "A":
        return "F" if reverse and not contiguous else "C"
    if order == "K" and (contiguous or reverse):
        return "C" if contiguous else "F"
    raise UnsupportedError(at_user_line(f"{name}: order={order!r} is not supported on traced arrays; use 'C' or 'F'"))


def _is_contiguous(shape: Shape, strides: Sequence[int]) -> bool:
    expected = contiguous_strides(shape)
    return not product(shape) or all(n == 1 or s == t for n, s, t in zip(shape, strides, expected, strict=True))


@implements(np.reshape)
def np_reshape(a: Any, /, shape: Any = None, order: Any = "C", *, newshape: Any = None, copy: Any = None) -> Tracer:
    """Return `a` under another shape."""
    x = as_tracer(a)
    complete = complete_shape(newshape if shape is None else shape, x.size, "np.reshape")
    if _memory_order(x, order, "np.reshape") == "C":
        return reshape_like_numpy(x, complete, copy)
    return _reversed(reshape_like_numpy(_reversed(x), complete[::-1], copy))


@implements(np.ravel)
def np_ravel(a: Any, order: Any = "C") -> Tracer:
    """Return the elements along one axis: a view of a contiguous array, otherwise a copy (more often than reshape)."""
    x = as_tracer(a)
    x = x if _memory_order(x, order, "np.ravel") == "C" else _reversed(x)
    return reshape_like_numpy(x, (x.size,), copy=not _is_contiguous(x.shape, x.element_strides), name="np.ravel")


def flatten(a: Tracer, order: Any = "C") -> Tracer:
    """Return a copy of the elements along one axis."""
    x = a if _memory_order(a, order, ".flatten") == "C" else _reversed(a)
    return tracer_of(reshape(x.value, (x.size,)), array=True)


@implements(np.transpose)
def np_transpose(a: Any, axes: Any = None) -> Tracer:
    """Return the view with the axes in the order of `axes`, reversed by default."""
    x = as_tracer(a)
    if axes is None:
        return _reversed(x)
    given = tuple(axes) if isinstance(axes, (tuple, list, np.ndarray)) else (axes,)
    if len(given) != x.ndim:
        raise InvalidValueError(at_user_line(f"np.transpose: axes {given} don't match {x.aval}"))
    return permuted(x, distinct_axes(given, x.ndim, "np.transpose"))


@implements(getattr(np, "matrix_transpose", None), getattr(np.linalg, "matrix_transpose", None))
def np_matrix_transpose(x: Any, /) -> Tracer:
    """Return the view with the last two axes swapped."""
    return as_tracer(x).mT


@implements(np.swapaxes)
def np_swapaxes(a: Any, axis1: Any, axis2: Any) -> Tracer:
    """Return the view with two axes swapped."""
    x = as_tracer(a)
    first, second = (axis_of(axis, x.ndim, "np.swapaxes", what) for axis, what in ((axis1, "axis1"), (axis2, "axis2")))
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    return permuted(x, tuple(order))


@implements(np.moveaxis)
def np_moveaxis(a: Any, source: Any, destination: Any) -> Tracer:
    """Return the view with some axes at other places."""
    x = as_tracer(a)
    sources, targets = (
        distinct_axes(tuple(axis) if isinstance(axis, (tuple, list)) else (axis,), x.ndim, "np.moveaxis") for axis in (source, destination)
    )
    if len(sources) != len(targets):
        raise InvalidValueError(at_user_line(f"np.moveaxis: source {source} and destination {destination} must have the same length"))
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return permuted(x, tuple(order))


@implements(np.rollaxis)
def np_rollaxis(a: Any, axis: Any, start: Any = 0) -> Tracer:
    """Return the view with `axis` moved before the axis `start`."""
    x = as_tracer(a)
    place = axis_of(axis, x.ndim, "np.rollaxis")
    before = x.ndim if start == x.ndim else axis_of(start, x.ndim, "np.rollaxis", "start")
    order = [k for k in range(x.ndim) if k != place]
    order.insert(before - (place < before), place)
    return permuted(x, tuple(order))


@implements(np.squeeze)
def np_squeeze(a: Any, axis: Any = None) -> Tracer:
    """Return the view without axes of length 1."""
    x = as_tracer(a)
    if axis is None:
        gone: Axes = tuple(k for k, extent in enumerate(x.shape) if extent == 1)
    else:
        gone = distinct_axes(axis if isinstance(axis, tuple) else (axis,), x.ndim, "np.squeeze")
    if any(x.shape[k] != 1 for k in gone):
        raise InvalidValueError(at_user_line(f"np.squeeze: cannot select an axis of {x.aval} to squeeze out whose length is not 1: {axis}"))
    return x.view(ReshapeView(x.aval.without(gone).shape))


@implements(np.expand_dims)
def np_expand_dims(a: Any, axis: Any) -> Tracer:
    """Return the view with new axes of length 1."""
    x = as_tracer(a)
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    new = distinct_axes(given, x.ndim + len(given), "np.expand_dims")
    old = iter(x.shape)
    return x.view(ReshapeView(tuple(1 if k in new else next(old) for k in range(x.ndim + len(given)))))


@implements(np.broadcast_to)
def np_broadcast_to(array: Any, shape: Any, subok: Any = False) -> Tracer:
    """Return the read-only view of the elements repeated to `shape`."""
    x, wanted = as_tracer(array), shape_of(shape, "np.broadcast_to")
    ahead = len(wanted) - x.ndim
    if ahead < 0 or any(n not in (1, m) for n, m in zip(x.shape, wanted[ahead:], strict=True)):
        raise ShapeError(at_user_line(f"np.broadcast_to: {x.aval} cannot be broadcast to shape {wanted}"))
    return x.view(BroadcastView(wanted))


@implements(np.broadcast_arrays)
def np_broadcast_arrays(*args: Any, subok: Any = False) -> tuple[Tracer, ...]:
    """Return all arguments broadcast to their common shape."""
    tracers = [as_tracer(x) for x in args]
    try:
        shape = np.broadcast_shapes(*(x.shape for x in tracers))
    except ValueError as error:
        listed = ", ".join(str(x.aval) for x in tracers)
        raise ShapeError(at_user_line(f"np.broadcast_arrays: {listed} cannot be broadcast together")) from error
    return tuple(x if x.shape == shape else x.view(BroadcastView(shape)) for x in tracers)


def _at_least(x: Tracer, rank: int) -> Tracer:
    if x.ndim >= rank:
        return x
    shapes: dict[tuple[int, int], Shape] = {
        (0, 1): (1,), (0, 2): (1, 1), (0, 3): (1, 1, 1), (1, 2): (1, *x.shape), (1, 3): (1, *x.shape, 1), (2, 3): (*x.shape, 1),
    }  # fmt: skip
    return x.view(ReshapeView(shapes[x.ndim, rank]))


def _at_least_each(arrays: tuple[Any, ...], rank: int) -> Any:
    found = tuple(_at_least(as_tracer(x), rank) for x in arrays)
    return found[0] if len(found) == 1 else found


@implements(np.atleast_1d)
def np_atleast_1d(*arys: Any) -> Any:
    """Return the arguments with at least one axis."""
    return _at_least_each(arys, 1)


@implements(np.atleast_2d)
def np_atleast_2d(*arys: Any) -> Any:
    """Return the arguments with at least two axes."""
    return _at_least_each(arys, 2)


@implements(np.atleast_3d)
def np_atleast_3d(*arys: Any) -> Any:
    """Return the arguments with at least three axes."""
    return _at_least_each(arys, 3)


@implements(np.flip)
def np_flip(m: Any, axis: Any = None) -> Tracer:
    """Return the view with the order reversed along `axis`, all axes by default."""
    x = as_tracer(m)
    axes = range(x.ndim) if axis is None else distinct_axes(axis if isinstance(axis, tuple) else (axis,), x.ndim, "np.flip")
    return x[(*(slice(None, None, -1) if k in axes else slice(None) for k in range(x.ndim)), ...)]


@implements(np.fliplr)
def np_fliplr(m: Any) -> Tracer:
    """Return the view reversed along axis 1."""
    return np_flip(m, 1)


@implements(np.flipud)
def np_flipud(m: Any) -> Tracer:
    """Return the view reversed along axis 0."""
    return np_flip(m, 0)


@implements(np.rot90)
def np_rot90(m: Any, k: Any = 1, axes: Any = (0, 1)) -> Tracer:
    """Return the view rotated by 90 degrees `k` times from the first towards the second axis."""
    x = as_tracer(m)
    first, second = distinct_axes(axes, x.ndim, "np.rot90")
    turns = whole_number(k, "np.rot90: k") % 4
    if turns == 0:
        return x[...]
    if turns == 2:
        return np_flip(x, (first, second))
    return np_swapaxes(np_flip(x, second), first, second) if turns == 1 else np_flip(np_swapaxes(x, first, second), second)


def diagonal_view(x: Tracer, offset: int, first: int, second: int) -> Tracer:
    """Return the diagonal of two axes, last in the result, as a view that can be written."""
    order = (*(k for k in range(x.ndim) if k not in (first, second)), first, second)
    return permuted(x, order).view(DiagonalView(x.shape[first], x.shape[second], offset))


@implements(np.diagonal)
def np_diagonal(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Tracer:
    """Return the read-only view of a diagonal."""
    x = as_tracer(a)
    if x.ndim < 2:
        raise InvalidValueError(at_user_line(f"np.diagonal: {x.aval} must have at least two axes"))
    first, second = distinct_axes((axis1, axis2), x.ndim, "np.diagonal")
    return diagonal_view(x, whole_number(offset, "np.diagonal: offset"), first, second).view(FrozenView("the result of np.diagonal"))


@implements(np.fill_diagonal)
def np_fill_diagonal(a: Any, val: Any, wrap: Any = False) -> None:
    """Write the diagonal of a matrix."""
    x = as_tracer(a)
    if x.ndim != 2 or (wrap and x.shape[0] > x.shape[1]):
        raise UnsupportedError(at_user_line(f"np.fill_diagonal of {x.aval}: only matrices, and wrap=False, are supported on traced arrays"))
    diagonal_view(x, 0, 0, 1).assign(operand(val), "np.fill_diagonal")


@implements(np.repeat)
def np_repeat(a: Any, repeats: Any, axis: Any = None) -> Tracer:
    """Return each element repeated a fixed number of times."""
    x = as_tracer(a)
    if np.ndim(repeats) and np.size(repeats) != 1:
        raise UnsupportedError(at_user_line("np.repeat of a traced array takes one number of repeats for all elements"))
    times = whole_number(repeats if not np.ndim(repeats) else np.ravel(repeats)[0], "np.repeat: repeats")
    if times < 0:
        raise InvalidValueError(at_user_line(f"np.repeat: repeats may not be negative, got {times}"))
    if axis is None:
        x, axis = np_ravel(x), 0
    place = axis_of(axis, x.ndim, "np.repeat") + 1
    wide = np_broadcast_to(np_expand_dims(x, place), (*x.shape[:place], times, *x.shape[place:]))
    return tracer_of(reshape(wide.value, (*x.shape[: place - 1], x.shape[place - 1] * times, *x.shape[place:])))


@implements(np.tile)
def np_tile(A: Any, reps: Any) -> Tracer:
    """Return the array laid out `reps` times along each axis."""
    x, counts = as_tracer(A), shape_of(reps, "np.tile")
    counts = (1,) * (x.ndim - len(counts)) + counts
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    paired = [extent for n in shape for extent in (1, n)]
    wide = [extent for pair in zip(counts, shape, strict=True) for extent in pair]
    spread = np_broadcast_to(x.view(ReshapeView(tuple(paired))), wide)
    return tracer_of(reshape(spread.value, tuple(map(math.prod, zip(counts, shape, strict=True)))), array=True)
