"""Lengths of vectors and matrices, traces, and the functions of sg.nn that need care with large numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import BOOL, FLOAT64
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, exponential
from staticgrad.ops.control import stop_gradient
from staticgrad.ops.movement import Axes, broadcast_to, reshape, transpose
from staticgrad.ops.reduce import max_, sum_
from staticgrad.ops.singular_values import singular_values
from staticgrad.tracing.functions.arguments import as_tracer, axes_of, deliver, distinct_axes, keep_axes, operand, whole_number
from staticgrad.tracing.functions.reductions import extremum_of, safe_sqrt, sum_of
from staticgrad.tracing.functions.shapes import diagonal_view
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value


def _vector_norm(x: Value, order: Any, axes: Axes, name: str) -> Value:
    if order is None or order == 2:
        return safe_sqrt(sum_(arithmetic.multiply(x, x), axes))
    size = arithmetic.absolute(x)
    if order in (np.inf, -np.inf):
        return _extremum(size, axes, order > 0, name)
    if order == 0:
        return sum_of(convert(convert(x, BOOL), x.dtype), axes)
    if order == 1:
        return sum_(size, axes)
    if isinstance(order, (str, Tracer)):
        raise InvalidValueError(at_user_line(f"{name}: invalid norm order {order!r} for vectors"))
    total = sum_(elementwise_value(np.power, size, order), axes)
    return elementwise_value(np.power, total, 1.0 / order)


def _matrix_norm(x: Value, order: Any, rows: int, columns: int, name: str) -> Value:
    both = tuple(sorted((rows, columns)))
    if order in (None, "fro", "f"):
        return safe_sqrt(sum_(arithmetic.multiply(x, x), both))
    if order in (2, -2, "nuc"):
        values = singular_values(transpose(x, (*(k for k in range(len(x.shape)) if k not in both), rows, columns)))[1]
        last = len(values.shape) - 1
        return sum_(values, (last,)) if order == "nuc" else _extremum(values, (last,), order > 0, name)
    if order not in (1, -1, np.inf, -np.inf):
        raise InvalidValueError(at_user_line(f"{name}: invalid norm order {order!r} for matrices"))
    summed, other = (rows, columns) if order in (1, -1) else (columns, rows)
    totals = sum_(arithmetic.absolute(x), (summed,))
    return _extremum(totals, (other - (summed < other),), order > 0, name)


def _extremum(sizes: Value, axes: Axes, greatest: bool, name: str) -> Value:
    """Return the greatest of sizes, 0 of none, or the least one."""
    none = greatest and not all(sizes.shape[axis] for axis in axes)
    return extremum_of(sizes, axes, initial=0 if none else None, greatest=greatest, name=name)


@implements(np.linalg.norm)
def np_norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Tracer:
    """Return the 2-norm of vectors, the Frobenius norm of matrices, or another one."""
    name = "np.linalg.norm"
    value = operand(x)
    value = convert(value, FLOAT64) if value.dtype.kind in "biu" else value
    rank = len(value.shape)
    if axis is None:
        if ord is None:
            axes = tuple(range(rank))
            return tracer_of(keep_axes(_vector_norm(value, None, axes, name), value.shape, axes, keepdims))
        if rank not in (1, 2):
            raise InvalidValueError(at_user_line(f"{name}: improper number of axes to norm: {value.aval} with ord={ord!r}"))
        axes = tuple(range(rank))
    else:
        axes = distinct_axes(axis if isinstance(axis, tuple) else (axis,), rank, name)
    if len(axes) > 2:
        raise InvalidValueError(at_user_line(f"{name}: improper number of axes to norm: axis={axis}"))
    result = _vector_norm(value, ord, axes, name) if len(axes) == 1 else _matrix_norm(value, ord, axes[0], axes[1], name)
    return tracer_of(keep_axes(result, value.shape, axes, keepdims))


@implements(getattr(np.linalg, "vector_norm", None))
def np_vector_norm(x: Any, /, *, axis: Any = None, keepdims: Any = False, ord: Any = 2) -> Tracer:
    """Return the norm of vectors along any axes."""
    value = operand(x)
    value = convert(value, FLOAT64) if value.dtype.kind in "biu" else value
    axes = axes_of(axis, len(value.shape), "np.linalg.vector_norm")
    return tracer_of(keep_axes(_vector_norm(value, ord, axes, "np.linalg.vector_norm"), value.shape, axes, keepdims))


@implements(getattr(np.linalg, "matrix_norm", None))
def np_matrix_norm(x: Any, /, *, keepdims: Any = False, ord: Any = "fro") -> Tracer:
    """Return the norm of the matrices in the last two axes."""
    return np_norm(x, ord, (-2, -1), keepdims)


@implements(np.trace)
def np_trace(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1, dtype: Any = None, out: Any = None) -> Tracer:
    """Return the sum along a diagonal."""
    x = as_tracer(a)
    if x.ndim < 2:
        raise InvalidValueError(at_user_line(f"np.trace: {x.aval} must have at least two axes"))
    first, second = distinct_axes((axis1, axis2), x.ndim, "np.trace")
    diagonal = diagonal_view(x, whole_number(offset, "np.trace: offset"), first, second).value
    return deliver("trace", sum_of(diagonal, -1, dtype, name="np.trace"), out)


# ---- logarithms of sums of exponentials ---------------------------------------------------------------------------------------


def _floats(x: Value) -> Value:
    return x if x.dtype.kind == "f" else convert(x, FLOAT64)


def _largest(x: Value, axes: Axes) -> Value:
    """Return the largest element along `axes`, kept, as a constant to derivatives."""
    return stop_gradient(keep_axes(max_(x, axes), x.shape, axes, True))


def logsumexp_of(x: Value, axis: Any = None, keepdims: Any = False) -> Value:
    """Return log(sum(exp(x))) without overflow; -inf where all elements are -inf, with derivative 0."""
    x = _floats(x)
    axes = axes_of(axis, len(x.shape), "logsumexp")
    if not x.aval.size:
        return keep_axes(full(x.aval.without(axes).shape, -np.inf, x.dtype), x.shape, axes, keepdims)
    largest = _largest(x, axes)
    shift = comparison.where(comparison.isfinite(largest), largest, full(largest.shape, 0, x.dtype))
    total = sum_(exponential.exp(arithmetic.subtract(x, broadcast_to(shift, x.shape))), axes)
    nothing = comparison.equal(total, full(total.shape, 0, x.dtype))
    logarithm = exponential.log(comparison.where(nothing, full(total.shape, 1, x.dtype), total))
    result = comparison.where(nothing, full(total.shape, -np.inf, x.dtype), arithmetic.add(logarithm, reshape(shift, total.shape)))
    return keep_axes(result, x.shape, axes, keepdims)


def softmax_of(x: Value, axis: Any = -1) -> Value:
    """Return exp(x) divided by its sum along `axis`, without overflow."""
    x = _floats(x)
    axes = axes_of(axis, len(x.shape), "softmax")
    if not x.aval.size:
        return x
    powers = exponential.exp(arithmetic.subtract(x, broadcast_to(_largest(x, axes), x.shape)))
    total = keep_axes(sum_(powers, axes), x.shape, axes, True)
    return arithmetic.divide(powers, broadcast_to(total, x.shape))


def log_softmax_of(x: Value, axis: Any = -1) -> Value:
    """Return the logarithm of the softmax, accurate where the softmax rounds to 0 or 1."""
    x = _floats(x)
    axes = axes_of(axis, len(x.shape), "log_softmax")
    if not x.aval.size:
        return x
    shifted = arithmetic.subtract(x, broadcast_to(_largest(x, axes), x.shape))
    total = keep_axes(exponential.log(sum_(exponential.exp(shifted), axes)), x.shape, axes, True)
    return arithmetic.subtract(shifted, broadcast_to(total, x.shape))
