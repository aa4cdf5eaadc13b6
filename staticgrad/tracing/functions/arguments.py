"""Arguments that many functions share: axes, dtypes, shapes, operands."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from staticgrad.errors import ArgumentError, AxisError, InvalidValueError, ShapeError, TraceError
from staticgrad.ir.aval import BOOL, Shape
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import Axes, broadcast_to, reshape
from staticgrad.tracing.lift import convert, lift, strong
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import write_out


def operand(x: Any) -> Value:
    """Return `x` as a value; a Python number becomes an array, so it no longer yields in promotion (as in most of NumPy's functions)."""
    return strong(lift(x))


def as_tracer(x: Any) -> Tracer:
    """Return `x` itself if it is a tracer, otherwise one of a constant."""
    return x if isinstance(x, Tracer) else tracer_of(operand(x), array=True)


def deliver(name: str, result: Value, out: Any = None) -> Tracer:
    """Return the tracer of `result`, or `out` with the result written into it."""
    if out is None:
        return tracer_of(strong(result))
    target = out[0] if isinstance(out, tuple) else out
    write_out(name, target, result)
    return target  # type: ignore[no-any-return]


def whole_number(x: Any, what: str) -> int:
    """Return `x` as a Python integer, or an error that names `what`."""
    try:
        return operator.index(x)
    except TraceError:
        raise
    except TypeError as error:
        raise ArgumentError(at_user_line(f"{what} must be an integer, not {x!r}")) from error


def axis_of(axis: Any, rank: int, name: str, what: str = "axis") -> int:
    """Return one axis, counted from the front."""
    number = whole_number(axis, f"{name}: {what}")
    if not -rank <= number < rank:
        raise AxisError(at_user_line(f"{name}: {what} {number} is out of bounds for array of dimension {rank}"))
    return number % rank


def axes_of(axis: Any, rank: int, name: str) -> Axes:
    """Return the axes that `axis` (None, an integer or a tuple) means, sorted."""
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(distinct_axes(axis if isinstance(axis, tuple) else (axis,), rank, name)))


def reduced_axes(axis: Any, rank: int, name: str) -> Axes:
    """Return the axes of a reduction; a scalar has the axes 0 and -1, as in NumPy."""
    if rank == 0 and not isinstance(axis, tuple) and axis is not None and whole_number(axis, f"{name}: axis") in (0, -1):
        return ()
    return axes_of(axis, rank, name)


def distinct_axes(axes: Sequence[Any], rank: int, name: str) -> Axes:
    """Return `axes` counted from the front, in their order; a repeated one is an error."""
    found = tuple(axis_of(axis, rank, name) for axis in axes)
    if len(set(found)) != len(found):
        raise InvalidValueError(at_user_line(f"{name}: duplicate value in 'axis': {tuple(axes)}"))
    return found


def shape_of(shape: Any, name: str) -> Shape:
    """Return a shape given as an integer or a sequence of them."""
    parts = tuple(shape) if isinstance(shape, (tuple, list)) or (hasattr(shape, "__iter__") and not isinstance(shape, Tracer)) else (shape,)
    found = tuple(whole_number(part, f"{name}: a length in the shape") for part in parts)
    if any(extent < 0 for extent in found):
        raise InvalidValueError(at_user_line(f"{name}: negative dimensions are not allowed, got {found}"))
    return found


def keep_axes(result: Value, shape: Shape, axes: Axes, keepdims: Any) -> Value:
    """Return the result of a reduction of `shape` with its axes kept at length 1 if `keepdims` says so."""
    if not keepdims:
        return result
    return reshape(result, tuple(1 if axis in axes else extent for axis, extent in enumerate(shape)))


def mask_of(where: Any, shape: Shape, name: str) -> Value | None:
    """Return the mask of a `where=` keyword in `shape`; None for all."""
    if where is True:
        return None
    mask = convert(operand(where), BOOL)
    try:
        return broadcast_to(mask, shape)
    except ShapeError as error:
        raise ShapeError(at_user_line(f"{name}: where= of shape {mask.shape} does not broadcast to {shape}")) from error


def check_equal_rank(values: Sequence[Value], name: str) -> None:
    """Raise unless all values have the same number of axes."""
    if len({len(v.shape) for v in values}) > 1:
        listed = ", ".join(str(v.aval) for v in values)
        raise ShapeError(at_user_line(f"{name}: all arrays must have the same number of axes, got {listed}"))
