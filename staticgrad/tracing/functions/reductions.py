"""Sums, means, extrema and their kin along axes, with NumPy's accumulators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.aval import BOOL, FLOAT64, INT64, product
from staticgrad.ir.node import Value, apply, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, extrema, powers
from staticgrad.ops import reduce as r
from staticgrad.ops.movement import Axes, broadcast_to, reshape, transpose
from staticgrad.tracing.functions.arguments import axis_of, deliver, keep_axes, mask_of, operand, reduced_axes
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import check_dtype_here, convert, lift, promoted, together
from staticgrad.tracing.tracer import Tracer, tracer_of

UINT64 = np.dtype(np.uint64)


def accumulator(dtype: np.dtype, wanted: Any = None) -> np.dtype:
    """Return the dtype in which NumPy adds: what was asked for, 64 bits for bool and narrower integers, otherwise the same."""
    if wanted is not None:
        return check_dtype_here(wanted, "dtype=")
    return UINT64 if dtype.kind == "u" else INT64 if dtype.kind in "bi" else dtype


def _folded(
    name: str, x: Value, axis: Any, keepdims: Any, where: Any, identity: Any, initial: Any, fold: Callable[[Value, Axes], Value],
    join: Callable[[Value, Value], Value],
) -> Value:  # fmt: skip
    axes = reduced_axes(axis, len(x.shape), name)
    mask = mask_of(where, x.shape, name)
    if mask is not None:
        x = comparison.where(mask, x, full(x.shape, identity, x.dtype))
    result = fold(x, axes)
    if initial is not None:
        first = convert(lift(initial), x.dtype)
        result = join(broadcast_to(first, result.shape), result)
    return keep_axes(result, x.shape, axes, keepdims)


def sum_of(
    x: Value, axis: Any = None, dtype: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True, name: str = "np.sum"
) -> Value:
    """Return the sum along `axis`."""
    kind = accumulator(x.dtype, dtype)
    if kind == BOOL:
        return logical_of(name, convert(x, BOOL), axis, keepdims, where, initial)
    return _folded(name, convert(x, kind), axis, keepdims, where, 0, initial, r.sum_, arithmetic.add)


def prod_of(
    x: Value, axis: Any = None, dtype: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True, name: str = "np.prod"
) -> Value:
    """Return the product along `axis`."""
    kind = accumulator(x.dtype, dtype)
    if kind == BOOL:
        return logical_of(name, convert(x, BOOL), axis, keepdims, where, initial, everywhere=True)
    return _folded(name, convert(x, kind), axis, keepdims, where, 1, initial, r.prod, arithmetic.multiply)


def _any(x: Value, axes: Axes) -> Value:
    return apply(r.Any_(axes), x) if axes else x


def _all(x: Value, axes: Axes) -> Value:
    return apply(r.All_(axes), x) if axes else x


def logical_of(
    name: str, x: Value, axis: Any, keepdims: Any = False, where: Any = True, initial: Any = None, everywhere: bool = False
) -> Value:
    """Return whether one element along `axis` is true, or all of them."""
    fold, join = (_all, comparison.logical_and) if everywhere else (_any, comparison.logical_or)
    return _folded(name, convert(x, BOOL), axis, keepdims, where, everywhere, initial, fold, join)


def extremum_of(
    x: Value, axis: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True, greatest: bool = True, name: str = "np.max"
) -> Value:
    """Return the largest (or smallest) elements along `axis`."""
    ufunc = "maximum" if greatest else "minimum"
    axes = reduced_axes(axis, len(x.shape), name)
    empty = axes and not product(x.shape[a] for a in axes)
    if initial is None:
        if where is not True:
            raise InvalidValueError(at_user_line(f"{name}: {ufunc} has no identity, so to use where= one has to give initial="))
        if empty:
            raise InvalidValueError(
                at_user_line(f"{name}: zero-size array to reduction operation {ufunc} which has no identity ({x.aval}, axis={axis})")
            )
        return keep_axes(r.max_(x, axes) if greatest else r.min_(x, axes), x.shape, axes, keepdims)
    first = convert(lift(initial), x.dtype)
    if empty:
        return keep_axes(broadcast_to(first, x.aval.without(axes).shape), x.shape, axes, keepdims)
    mask = mask_of(where, x.shape, name)
    if mask is not None:
        x = comparison.where(mask, x, broadcast_to(first, x.shape))
    fold, join = (r.max_, extrema.maximum) if greatest else (r.min_, extrema.minimum)
    return _folded(name, x, axes, keepdims, True, None, initial, fold, join)


def mean_of(x: Value, axis: Any = None, dtype: Any = None, keepdims: Any = False, where: Any = True, name: str = "np.mean") -> Value:
    """Return the mean along `axis`: integers in float64, floats in their own dtype."""
    axes = _means_axes(axis, x, name)
    kind = check_dtype_here(dtype, "dtype=") if dtype is not None else FLOAT64 if x.dtype.kind in "biu" else x.dtype
    total = sum_of(x, axes, kind, keepdims, where=where, name=name)
    work = kind if kind.kind == "f" else FLOAT64
    return convert(arithmetic.divide(convert(total, work), _count(x, axes, where, total, keepdims, work, name)), kind)


def _means_axes(axis: Any, x: Value, name: str) -> Axes:
    if axis is None or isinstance(axis, tuple):
        return reduced_axes(axis, len(x.shape), name)
    return (axis_of(axis, len(x.shape), name),)


def _count(x: Value, axes: Axes, where: Any, like: Value, keepdims: Any, dtype: np.dtype, name: str) -> Value:
    mask = mask_of(where, x.shape, name)
    if mask is None:
        return full(like.shape, product(x.shape[a] for a in axes), dtype)
    return convert(sum_of(mask, axes, INT64, keepdims), dtype)


def var_of(
    x: Value, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = False, where: Any = True, mean: Any = None,
    name: str = "np.var",
) -> Value:  # fmt: skip
    """Return the variance along `axis` in two passes: the mean, then the mean square of the differences."""
    axes = _means_axes(axis, x, name)
    kind = check_dtype_here(dtype, "dtype=") if dtype is not None else FLOAT64 if x.dtype.kind in "biu" else x.dtype
    work = kind if kind.kind == "f" else FLOAT64
    x = convert(x, work)
    center = mean_of(x, axes, work, True, where, name) if mean is None else convert(operand(mean), work)
    difference = arithmetic.subtract(*together([x, center], name))
    mask = mask_of(where, x.shape, name)
    if mask is not None:  # what is left out may be NaN, and has no part in the derivative of the mean either
        difference = comparison.where_zero(mask, difference)
    total = sum_of(arithmetic.multiply(difference, difference), axes, work, keepdims, where=where, name=name)
    count = _count(x, axes, where, total, keepdims, work, name)
    left = arithmetic.subtract(count, full(count.shape, ddof, work))
    return convert(arithmetic.divide(total, extrema.maximum(left, full(left.shape, 0, work))), kind)


def safe_sqrt(x: Value) -> Value:
    """Return the square root with derivative 0 at 0: the convention of `std` and `norm`."""
    nothing = comparison.equal(x, full(x.shape, 0, x.dtype))
    root = powers.sqrt(comparison.where(nothing, full(x.shape, 1, x.dtype), x))
    return comparison.where(nothing, full(x.shape, 0, x.dtype), root)


def std_of(
    x: Value, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = False, where: Any = True, mean: Any = None,
    name: str = "np.std",
) -> Value:  # fmt: skip
    """Return the standard deviation along `axis`."""
    variance = var_of(x, axis, dtype, ddof, keepdims, where, mean, name)
    kind = variance.dtype
    return convert(safe_sqrt(convert(variance, kind if kind.kind == "f" else FLOAT64)), kind)


def freedom_of(ddof: Any, correction: Any, name: str) -> Any:
    """Return the degrees of freedom taken away, under either of NumPy's names."""
    if correction is None:
        return ddof
    if ddof:
        raise InvalidValueError(at_user_line(f"{name}: ddof and correction cannot be given together"))
    return correction


def position_of(x: Value, axis: Any = None, keepdims: Any = False, greatest: bool = True, name: str = "np.argmax") -> Value:
    """Return where the first of the largest (or smallest) elements stands, in the flattened array without `axis`."""
    op = r.ArgMax if greatest else r.ArgMin
    rows, axes = x, tuple(range(len(x.shape)))
    if axis is None or not x.shape:
        reduced_axes(axis, len(x.shape), name)
        rows, place = reshape(x, (x.aval.size,)), 0
    else:
        place = axis_of(axis, len(x.shape), name)
        axes = (place,)
    if not rows.shape[place]:
        raise InvalidValueError(at_user_line(f"{name}: attempt to get {name.removeprefix('np.')} of an empty sequence ({x.aval})"))
    return keep_axes(apply(op((place,)), rows), x.shape, axes, keepdims)


# ---- the functions of NumPy ---------------------------------------------------------------------------------------------------


@implements(np.sum)
def np_sum(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Tracer:
    """Return the sum along `axis`."""
    return deliver("sum", sum_of(operand(a), axis, dtype, keepdims, initial, where), out)


@implements(np.prod)
def np_prod(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Tracer:
    """Return the product along `axis`."""
    return deliver("prod", prod_of(operand(a), axis, dtype, keepdims, initial, where), out)


@implements(np.max, np.amax)
def np_max(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True) -> Tracer:
    """Return the largest elements along `axis`."""
    return deliver("max", extremum_of(operand(a), axis, keepdims, initial, where), out)


@implements(np.min, np.amin)
def np_min(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True) -> Tracer:
    """Return the smallest elements along `axis`."""
    return deliver("min", extremum_of(operand(a), axis, keepdims, initial, where, False, "np.min"), out)


@implements(np.ptp)
def np_ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Tracer:
    """Return the largest minus the smallest element along `axis`."""
    x = operand(a)
    low = extremum_of(x, axis, keepdims, greatest=False, name="np.ptp")
    return deliver("ptp", arithmetic.subtract(extremum_of(x, axis, keepdims, name="np.ptp"), low), out)


@implements(np.argmax)
def np_argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """Return where the first of the largest elements stands."""
    return deliver("argmax", position_of(operand(a), axis, keepdims), out)


@implements(np.argmin)
def np_argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """Return where the first of the smallest elements stands."""
    return deliver("argmin", position_of(operand(a), axis, keepdims, False, "np.argmin"), out)


@implements(np.any)
def np_any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """Return whether one element along `axis` is true."""
    return deliver("any", logical_of("np.any", operand(a), axis, keepdims, where), out)


@implements(np.all)
def np_all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """Return whether all elements along `axis` are true."""
    return deliver("all", logical_of("np.all", operand(a), axis, keepdims, where, everywhere=True), out)


@implements(np.count_nonzero)
def np_count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Tracer:
    """Return the number of elements that are not 0."""
    return tracer_of(sum_of(convert(operand(a), BOOL), axis, INT64, keepdims, name="np.count_nonzero"))


@implements(np.mean)
def np_mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """Return the mean along `axis`."""
    return deliver("mean", mean_of(operand(a), axis, dtype, keepdims, where), out)


@implements(np.var)
def np_var(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *, where: Any = True,
    mean: Any = None, correction: Any = None,
) -> Tracer:  # fmt: skip
    """Return the variance along `axis`."""
    freedom = freedom_of(ddof, correction, "np.var")
    return deliver("var", var_of(operand(a), axis, dtype, freedom, keepdims, where, mean), out)


@implements(np.std)
def np_std(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *, where: Any = True,
    mean: Any = None, correction: Any = None,
) -> Tracer:  # fmt: skip
    """Return the standard deviation along `axis`; its derivative where it is 0 is 0."""
    freedom = freedom_of(ddof, correction, "np.std")
    return deliver("std", std_of(operand(a), axis, dtype, freedom, keepdims, where, mean), out)


@implements(np.average)
def np_average(a: Any, axis: Any = None, weights: Any = None, returned: Any = False, *, keepdims: Any = False) -> Any:
    """Return the mean along `axis`, weighted."""
    x = operand(a)
    if weights is None:
        mean = mean_of(x, axis, None, keepdims, name="np.average")
        count = full(mean.shape, x.aval.size // max(mean.aval.size, 1), mean.dtype)
        return (tracer_of(mean), tracer_of(count)) if returned else tracer_of(mean)
    weight = _weights(operand(weights), x, axis)
    if x.dtype.kind in "biu":
        x = convert(x, FLOAT64)
    x, weight = promoted(x, weight)
    scale = sum_of(broadcast_to(weight, x.shape), axis, x.dtype, keepdims, name="np.average")
    mean = arithmetic.divide(
        sum_of(arithmetic.multiply(x, broadcast_to(weight, x.shape)), axis, x.dtype, keepdims, name="np.average"), scale
    )
    return (tracer_of(mean), tracer_of(scale)) if returned else tracer_of(mean)


def _weights(weight: Value, x: Value, axis: Any) -> Value:
    """Return the weights in a shape that broadcasts with x."""
    if weight.shape == x.shape:
        return weight
    if axis is None:
        raise ArgumentError(at_user_line(f"np.average: axis must be given when weights {weight.aval} differ in shape from {x.aval}"))
    axes = tuple(axis_of(a, len(x.shape), "np.average") for a in (axis if isinstance(axis, tuple) else (axis,)))
    if tuple(x.shape[a] for a in axes) != weight.shape:
        raise InvalidValueError(at_user_line(f"np.average: weights {weight.aval} do not fit {x.aval} along axis {axis}"))
    ordered = transpose(weight, tuple(sorted(range(len(axes)), key=axes.__getitem__)))
    return reshape(ordered, tuple(extent if a in axes else 1 for a, extent in enumerate(x.shape)))
