"""Rounding to digits, polynomials, interpolation, and differences and integrals on a grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, UnsupportedError
from staticgrad.ir.aval import BOOL, FLOAT64
from staticgrad.ir.node import Value, constant_array, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, rounding, trigonometric
from staticgrad.ops.movement import concatenate, reshape, slice_axis
from staticgrad.ops.reduce import sum_
from staticgrad.tracing.functions.arguments import as_tracer, axis_of, deliver, distinct_axes, operand, whole_number
from staticgrad.tracing.functions.joining import np_diff
from staticgrad.tracing.functions.reductions import np_sum
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, promoted, together
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value

# ---- rounding -----------------------------------------------------------------------------------------------------------------


def rounded(x: Value, decimals: Any) -> Value:
    """Return x rounded to a number of decimals, halves to even: scaled, rounded and scaled back, as NumPy does it."""
    digits = whole_number(decimals, "np.round: decimals")
    if x.dtype == BOOL and digits:
        raise DTypeError(at_user_line(f"np.round: {x.aval} cannot be rounded to {digits} decimals"))
    if x.dtype.kind in "iu" and digits >= 0:
        return x
    if not digits:
        return elementwise_value(np.rint, x)
    wide = x if x.dtype.kind == "f" else convert(x, FLOAT64)
    scale = full(x.shape, 10.0 ** abs(digits), wide.dtype)
    there, back = (arithmetic.multiply, arithmetic.divide) if digits > 0 else (arithmetic.divide, arithmetic.multiply)
    return convert(back(rounding.rint(there(wide, scale)), scale), x.dtype)


@implements(np.round, np.around)
def np_round(a: Any, decimals: Any = 0, out: Any = None) -> Tracer:
    """Return the elements rounded to a number of decimals, halves to even; the derivative is 0."""
    return deliver("round", rounded(operand(a), decimals), out)


@implements(np.fix)
def np_fix(x: Any, out: Any = None) -> Tracer:
    """Return the elements rounded toward zero."""
    return deliver("fix", elementwise_value(np.trunc, operand(x)), out)


# ---- functions of one variable ------------------------------------------------------------------------------------------------

SINC_TERMS = 12
SINC_SERIES_UP_TO = 0.3


@implements(np.sinc)
def np_sinc(x: Any) -> Tracer:
    """Return sin(pi x) / (pi x), near 0 as a series, whose derivatives of any order are accurate there."""
    value = operand(x)
    value = value if value.dtype.kind == "f" else convert(value, FLOAT64)
    shape, dtype = value.shape, value.dtype
    near = comparison.less(arithmetic.absolute(value), full(shape, SINC_SERIES_UP_TO, dtype))
    small = comparison.where_zero(near, value)
    square, series = small * small, full(shape, 0, dtype)
    for k in reversed(range(SINC_TERMS)):
        series = series * square + (-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k + 1)
    angle = comparison.where(near, full(shape, 1, dtype), value) * math.pi
    return tracer_of(comparison.where(near, series, trigonometric.sin(angle) / angle))


@implements(np.polyval)
def np_polyval(p: Any, x: Any) -> Tracer:
    """Return the value of a polynomial, the highest coefficient first, by Horner's rule."""
    coefficients, at = operand(p), operand(x)
    if not coefficients.shape:
        raise ArgumentError(at_user_line(f"np.polyval: the coefficients must have at least one axis, not {coefficients.aval}"))
    result = full(at.shape, 0, at.dtype)
    for k in range(coefficients.shape[0]):
        coefficient = reshape(slice_axis(coefficients, 0, k, k + 1), coefficients.shape[1:])
        result = elementwise_value(np.add, elementwise_value(np.multiply, result, at), coefficient)
    return tracer_of(result)


@implements(np.interp)
def np_interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Tracer:
    """Return the piecewise linear function through the points (xp, fp), whose xp increase, at x; compares x with all of them."""
    name = "np.interp"
    if period is not None:
        raise UnsupportedError(at_user_line(f"{name}: period= is not supported on traced arrays; interpolate at np.remainder(x, period)"))
    at, knots, heights = (convert(operand(v), FLOAT64) for v in (x, xp, fp))
    if len(knots.shape) != 1 or knots.shape != heights.shape:
        raise InvalidValueError(at_user_line(f"{name}: fp and xp must be of the same length, got {heights.aval} and {knots.aval}"))
    count = knots.shape[0]
    if not count:
        raise InvalidValueError(at_user_line(f"{name}: array of sample points is empty"))
    start, low = (slice_axis(points, 0, 0, count - 1) for points in (knots, heights))
    end, high = (slice_axis(points, 0, 1, count) for points in (knots, heights))
    slope = (high - low) / (end - start)
    column = reshape(at, (*at.shape, 1))
    column, start, end, slope, low = together([column, start, end, slope, low], name)
    inside = comparison.logical_and(comparison.less_equal(start, column), comparison.less(column, end))
    result = sum_(comparison.where_zero(inside, slope * (column - start) + low), (len(at.shape),))
    ends = [reshape(slice_axis(points, 0, k, k + 1), ()) for points in (knots, heights) for k in (0, count - 1)]
    below, above = (end if given is None else convert(operand(given), FLOAT64) for end, given in zip(ends[2:], (left, right), strict=True))
    at, result, first, last, last_height, below, above = together([at, result, ends[0], ends[1], ends[3], below, above], name)
    result = comparison.where(comparison.less(at, first), below, result)
    result = comparison.where(comparison.equal(at, last), last_height, result)
    result = comparison.where(comparison.less(last, at), above, result)
    return tracer_of(comparison.where(comparison.isnan(at), at, result))


# ---- differences and integrals --------------------------------------------------------------------------------------------------


@implements(np.ediff1d)
def np_ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Tracer:
    """Return the differences of neighbours of the flattened array, with more numbers before and after."""
    x = operand(ary)
    parts = [np_diff(reshape(x, (x.aval.size,))).value]
    for place, more in ((0, to_begin), (1, to_end)):
        if more is not None:
            extra = operand(more)
            if not np.can_cast(extra.dtype, x.dtype, "same_kind"):
                raise ArgumentError(at_user_line(f"np.ediff1d: {extra.aval} must be compatible with the input {x.aval} (same_kind)"))
            parts.insert(place * len(parts), convert(reshape(extra, (extra.aval.size,)), x.dtype))
    return tracer_of(concatenate(parts, 0))


@implements(np.trapezoid)
def np_trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: Any = -1) -> Tracer:
    """Return the integral along `axis` by the trapezoidal rule, over points `x` or steps `dx`."""
    values = as_tracer(y)
    place = axis_of(axis, values.ndim, "np.trapezoid")
    steps = dx
    if x is not None:
        points = as_tracer(x)
        steps = np_diff(points, axis=0 if points.ndim == 1 else axis)
        if points.ndim == 1:
            steps = steps.reshape(tuple(-1 if k == place else 1 for k in range(values.ndim)))
    return np_sum(steps * (_part(values, place, 1, None) + _part(values, place, 0, -1)) / 2.0, place)


def _part(x: Tracer, axis: int, start: int | None, stop: int | None) -> Tracer:
    """Return a range of one axis."""
    return x[(*(slice(None),) * axis, slice(start, stop), ...)]


@implements(np.gradient)
def np_gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: Any = 1) -> Any:
    """Return central differences along each axis, one-sided ones at the ends; a spacing is a number or the coordinates of an axis."""
    name = "np.gradient"
    y = as_tracer(f)
    y = y if y.dtype.kind == "f" else tracer_of(convert(y.value, FLOAT64))
    axes = tuple(range(y.ndim)) if axis is None else distinct_axes(axis if isinstance(axis, tuple) else (axis,), y.ndim, name)
    if len(varargs) not in (0, 1, len(axes)):
        raise ArgumentError(at_user_line(f"{name}: invalid number of arguments: {len(varargs)} spacings for {len(axes)} axes"))
    order = whole_number(edge_order, f"{name}: edge_order")
    if order > 2:
        raise InvalidValueError(at_user_line(f"{name}: 'edge_order' greater than 2 not supported"))
    spacings = varargs * len(axes) if len(varargs) == 1 and not np.ndim(varargs[0]) else varargs or (1.0,) * len(axes)
    if len(spacings) != len(axes):
        raise InvalidValueError(at_user_line(f"{name}: coordinates of one axis given for {len(axes)} axes"))
    found = tuple(_slope_along(y, place, _steps(given, y, place, name), order, name) for place, given in zip(axes, spacings, strict=True))
    return found[0] if len(axes) == 1 else found


def _steps(spacing: Any, y: Tracer, axis: int, name: str) -> Any:
    """Return one number, or the distances of neighbours along `axis`."""
    if not np.ndim(spacing):
        return spacing
    points = as_tracer(spacing)
    if points.ndim != 1 or points.shape[0] != y.shape[axis]:
        raise InvalidValueError(at_user_line(f"{name}: distances must be a number or match axis {axis} of {y.aval}, got {points.aval}"))
    steps = np_diff(points if points.dtype.kind == "f" else tracer_of(convert(points.value, FLOAT64)))
    known = constant_array(points.value)
    if known is not None and known.size > 1:
        distances = np.diff(known.astype(steps.dtype))
        if (distances == distances[0]).all():
            return distances[0]
    return steps


def _slope_along(y: Tracer, axis: int, steps: Any, order: int, name: str) -> Tracer:
    extent = y.shape[axis]
    if extent < order + 1:
        raise InvalidValueError(
            at_user_line(f"{name}: shape {y.aval} is too small to calculate a numerical gradient: at least {order + 1} elements")
        )
    after, here, before = _part(y, axis, 2, None), _part(y, axis, 1, -1), _part(y, axis, 0, -2)
    first, last = (_part(y, axis, k, k + 1) for k in (0, extent - 1))
    if not np.ndim(steps):
        inner = (after - before) / (2.0 * steps)
        ends = [(_part(y, axis, 1, 2) - first) / steps, (last - _part(y, axis, extent - 2, extent - 1)) / steps]
        if order == 2:
            weights = (-1.5 / steps, 2.0 / steps, -0.5 / steps)
            ends = [_weighted(y, axis, (0, 1, 2), weights), _weighted(y, axis, (-1, -2, -3), tuple(-w for w in weights))]
    else:
        column = steps.reshape(tuple(-1 if k == axis else 1 for k in range(y.ndim)))
        left, right = _part(column, axis, 0, -1), _part(column, axis, 1, None)
        weights = -right / (left * (left + right)), (right - left) / (left * right), left / (right * (left + right))
        inner = before * weights[0] + here * weights[1] + after * weights[2]
        ends = [(_part(y, axis, 1, 2) - first) / steps[0], (last - _part(y, axis, extent - 2, extent - 1)) / steps[-1]]
        if order == 2:
            ends = [
                _weighted(y, axis, (0, 1, 2), _end_weights(steps[0], steps[1])),
                _weighted(y, axis, (-1, -2, -3), tuple(-w for w in _end_weights(steps[-1], steps[-2]))),
            ]
    pieces = promoted(ends[0].value, inner.value, ends[1].value)
    return tracer_of(convert(concatenate(pieces, axis), y.dtype))


def _weighted(y: Tracer, axis: int, places: tuple[int, ...], weights: tuple[Any, ...]) -> Tracer:
    """Return the weighted sum of some positions along `axis`, of length 1 there."""
    terms: list[Tracer] = [w * _part(y, axis, k % y.shape[axis], k % y.shape[axis] + 1) for k, w in zip(places, weights, strict=True)]
    total: Tracer = terms[0] + terms[1] + terms[2]
    return total


def _end_weights(first: Any, second: Any) -> tuple[Any, Any, Any]:
    """Return the weights of a one-sided difference of second order over two steps."""
    both = first + second
    return -(2.0 * first + second) / (first * both), both / (first * second), -first / (second * both)
