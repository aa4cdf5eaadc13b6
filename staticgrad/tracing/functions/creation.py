"""Arrays from nothing, from numbers and from nested lists of traced values: fresh storages, which can be written."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64, INT64, Shape
from staticgrad.ir.node import Value, constant, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, rounding
from staticgrad.ops.movement import Axes, concatenate, reshape, transpose
from staticgrad.tracing.functions.arguments import axis_of, operand, shape_of, whole_number
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import check_dtype_here, checked_broadcast, convert, lift, promoted, strong, together
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value


def array_of(nested: Any, dtype: Any = None) -> Value:
    """Return what np.array gives for a nested list of traced values, arrays and numbers: one more axis a level."""
    leaves: list[Value] = []
    shape = _gather(nested, leaves)
    if not leaves:
        return constant(np.zeros(shape, FLOAT64 if dtype is None else dtype))
    pieces = promoted(*leaves) if dtype is None else [convert(v, check_dtype_here(dtype, "dtype=")) for v in leaves]
    return reshape(concatenate([reshape(v, (v.aval.size,)) for v in pieces], 0), shape)


def _gather(nested: Any, leaves: list[Value]) -> Shape:
    """Append the leaves in order and return the shape of all of them together."""
    if not holds_tracer(nested) or not isinstance(nested, (list, tuple)):
        leaf = operand(nested)
        leaves.append(leaf)
        return leaf.shape
    shapes = [_gather(part, leaves) for part in nested]
    if any(shape != shapes[0] for shape in shapes):
        raise ShapeError(at_user_line(f"np.array of traced values: the parts of a list differ in shape: {', '.join(map(str, shapes))}"))
    return (len(nested), *shapes[0])


def array(obj: Any, dtype: Any = None, *, copy: Any = True, order: Any = "K", subok: Any = False, ndmin: Any = 0) -> Tracer:
    """Return a new traced array of numbers, arrays, traced values and nested lists of them."""
    value = array_of(obj, dtype) if isinstance(obj, (list, tuple)) and holds_tracer(obj) else operand(obj)
    if dtype is not None:
        value = convert(value, check_dtype_here(dtype, "dtype="))
    missing = whole_number(ndmin, "np.array: ndmin") - len(value.shape)
    return tracer_of(reshape(value, ((1,) * max(missing, 0) + value.shape)), array=True)


def holds_tracer(obj: Any) -> bool:
    """Return whether `obj` is a tracer or a nested list of some."""
    return any(holds_tracer(part) for part in obj) if isinstance(obj, (list, tuple)) else isinstance(obj, Tracer)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None) -> Any:
    """Return `a` itself if it is a traced array of that dtype, otherwise a new one."""
    if isinstance(a, Tracer) and not copy and (dtype is None or a.dtype == np.dtype(dtype)):
        return a
    return array(a, dtype)


def filled(shape: Any, value: Any, dtype: Any, name: str) -> Tracer:
    """Return a new array of `shape` full of `value`."""
    number = strong(operand(value))
    if dtype is not None:
        number = convert(number, check_dtype_here(dtype, "dtype="))
    return tracer_of(checked_broadcast(number, shape_of(shape, name), name), array=True)


def zeros(shape: Any, dtype: Any = float, order: Any = "C") -> Tracer:
    """Return a new array of zeros."""
    return filled(shape, 0, float if dtype is None else dtype, "np.zeros")


def ones(shape: Any, dtype: Any = None, order: Any = "C") -> Tracer:
    """Return a new array of ones."""
    return filled(shape, 1, float if dtype is None else dtype, "np.ones")


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> Tracer:
    """Return a new array of undefined elements: zeros."""
    return filled(shape, 0, float if dtype is None else dtype, "np.empty")


def full_(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> Tracer:
    """Return a new array full of a number or a traced value."""
    return filled(shape, fill_value, dtype, "np.full")


def _like(a: Any, value: Any, dtype: Any, shape: Any, name: str) -> Tracer:
    model = operand(a)
    return filled(model.shape if shape is None else shape, value, model.dtype if dtype is None else dtype, name)


@implements(np.zeros_like)
def np_zeros_like(a: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None) -> Tracer:
    """Return a new array of zeros."""
    return _like(a, 0, dtype, shape, "np.zeros_like")


@implements(np.ones_like)
def np_ones_like(a: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None) -> Tracer:
    """Return a new array of ones."""
    return _like(a, 1, dtype, shape, "np.ones_like")


@implements(np.empty_like)
def np_empty_like(
    prototype: Any, /, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None
) -> Tracer:
    """Return a new array of undefined elements: zeros."""
    return _like(prototype, 0, dtype, shape, "np.empty_like")


@implements(np.full_like)
def np_full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None
) -> Tracer:
    """Return a new array full of a number or a traced value."""
    return _like(a, fill_value, dtype, shape, "np.full_like")


@implements(np.copy)
def np_copy(a: Any, order: Any = "K", subok: Any = False) -> Tracer:
    """Return a new array with the same elements, which can be written."""
    return tracer_of(operand(a), array=True)


@implements(np.linspace)
def np_linspace(
    start: Any, stop: Any, num: Any = 50, endpoint: Any = True, retstep: Any = False, dtype: Any = None, axis: Any = 0, *,
    device: Any = None,
) -> Any:  # fmt: skip
    """Return evenly spaced numbers; both ends may be traced."""
    count = whole_number(num, "np.linspace: num")
    if count < 0:
        raise InvalidValueError(at_user_line(f"np.linspace: Number of samples, {count}, must be non-negative."))
    ends = promoted(lift(start), lift(stop))
    first, last = together([strong(v if v.dtype.kind == "f" else convert(v, FLOAT64)) for v in ends], "np.linspace")
    parts = count - 1 if endpoint else count
    step = arithmetic.divide(arithmetic.subtract(last, first), full(first.shape, parts or np.nan, first.dtype))
    shape = (count, *(1,) * len(first.shape))
    position = constant(np.arange(count, dtype=first.dtype).reshape(shape))
    result = elementwise_value(np.add, elementwise_value(np.multiply, position, step if parts else arithmetic.subtract(last, first)), first)
    if endpoint and count > 1:
        end = checked_broadcast(constant(np.arange(count).reshape(shape) == count - 1), result.shape, "np.linspace")
        result = comparison.where(end, checked_broadcast(last, result.shape, "np.linspace"), result)
    if dtype is not None:
        kind = check_dtype_here(dtype, "dtype=")
        result = convert(rounding.floor(result) if kind.kind in "iu" else result, kind)
    place = axis_of(axis, len(result.shape), "np.linspace")
    order: Axes = (*range(1, place + 1), 0, *range(place + 1, len(result.shape)))
    made = tracer_of(transpose(result, order), array=True)
    return (made, tracer_of(step)) if retstep else made


@implements(np.meshgrid)
def np_meshgrid(*xi: Any, copy: Any = True, sparse: Any = False, indexing: Any = "xy") -> tuple[Tracer, ...]:
    """Return the coordinates of a grid as one array an axis."""
    if indexing not in ("xy", "ij"):
        raise InvalidValueError(at_user_line("np.meshgrid: Valid values for `indexing` are 'xy' and 'ij'."))
    values = [operand(x) for x in xi]
    rank = len(values)
    places = list(range(rank))
    if indexing == "xy" and rank > 1:
        places[:2] = [1, 0]
    wide = [
        reshape(v, tuple(v.aval.size if axis == place else 1 for axis in range(rank)))
        for v, place in zip(values, places, strict=True)
    ]  # fmt: skip
    return tuple(tracer_of(v) for v in (wide if sparse else together(wide, "np.meshgrid")))


def arange(*args: Any, dtype: Any = None) -> Tracer:
    """Return evenly spaced numbers as a new array; start, stop and step must be known."""
    if any(isinstance(x, Tracer) for x in args):
        raise ArgumentError(
            at_user_line("np.arange of a traced value has an unknown length; use n * step + start with n = np.arange(count)")
        )
    return tracer_of(constant(np.arange(*args, dtype=dtype)), array=True)


def one_hot_of(labels: Value, count: int, dtype: np.dtype) -> Value:
    """Return a new last axis of length `count` with 1 where it equals the label, 0 elsewhere."""
    positions = constant(np.arange(count, dtype=INT64))
    return convert(elementwise_value(np.equal, reshape(labels, (*labels.shape, 1)), positions), dtype)
