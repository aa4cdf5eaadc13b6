"""Functions that sort, what builds on sorted rows, and running sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import IndexingError, InvalidValueError, ShapeError, UnsupportedError
from staticgrad.ir.aval import BOOL, INT64, product
from staticgrad.ir.node import Value, apply, constant, constant_array, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import comparison
from staticgrad.ops.along import ArgSort, CumulativeSum, SearchSorted, sorted_along
from staticgrad.ops.index import Gather
from staticgrad.ops.movement import Axes, broadcast_to, reshape, slice_axis, transpose
from staticgrad.tracing.functions.arguments import axis_of, deliver, keep_axes, operand, reduced_axes, whole_number
from staticgrad.tracing.functions.picking import np_take
from staticgrad.tracing.functions.reductions import accumulator, mean_of
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, promoted, strong
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value

SORTS = (None, "quicksort", "heapsort", "stable", "mergesort")


def _row_axis(x: Value, axis: Any, name: str) -> tuple[Value, int]:
    """Return x and one of its axes; all elements in a row where `axis` is None."""
    if axis is None:
        return reshape(x, (x.aval.size,)), 0
    return x, axis_of(axis, len(x.shape), name)


def _check_sort(kind: Any, order: Any, name: str, kinds: tuple[Any, ...] = SORTS) -> None:
    if order is not None:
        raise InvalidValueError(at_user_line(f"{name}: order= needs an array with fields"))
    if kind not in kinds:
        raise InvalidValueError(at_user_line(f"{name}: kind must be one of {', '.join(map(str, kinds[1:]))}, got {kind!r}"))


def _check_places(kth: Any, x: Value, axis: int, name: str) -> None:
    for place in np.ravel(kth):
        k = whole_number(place, f"{name}: kth")
        if not -x.shape[axis] <= k < x.shape[axis]:
            raise InvalidValueError(at_user_line(f"{name}: kth(={k}) out of bounds ({x.shape[axis]})"))


@implements(np.sort)
def np_sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Tracer:
    """Return the rows along `axis` sorted; every kind of sort is a stable one here."""
    _check_sort(kind, order, "np.sort")
    return tracer_of(sorted_along(*_row_axis(operand(a), axis, "np.sort")))


@implements(np.argsort)
def np_argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Tracer:
    """Return where the elements of the sorted rows stand; equal elements keep their order, whatever the kind of sort."""
    _check_sort(kind, order, "np.argsort")
    x, place = _row_axis(operand(a), axis, "np.argsort")
    return tracer_of(apply(ArgSort(place), x))


@implements(np.partition)
def np_partition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Tracer:
    """Return the rows sorted, so that each element of `kth` stands where it belongs; NumPy leaves the others in some order."""
    _check_sort(kind, order, "np.partition", (None, "introselect"))
    x, place = _row_axis(operand(a), axis, "np.partition")
    _check_places(kth, x, place, "np.partition")
    return tracer_of(sorted_along(x, place))


@implements(np.argpartition)
def np_argpartition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Tracer:
    """Return where the elements of rows stand that are partitioned by sorting them."""
    _check_sort(kind, order, "np.argpartition", (None, "introselect"))
    x, place = _row_axis(operand(a), axis, "np.argpartition")
    _check_places(kth, x, place, "np.argpartition")
    return tracer_of(apply(ArgSort(place), x))


def sort_in_place(x: Tracer, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
    """Sort the rows of a traced array in place."""
    _check_sort(kind, order, ".sort")
    x.assign(sorted_along(x.value, axis_of(axis, x.ndim, ".sort")), ".sort")


def partition_in_place(x: Tracer, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> None:
    """Partition the rows of a traced array in place."""
    x.assign(np_partition(x, kth, axis_of(axis, x.ndim, ".partition"), kind, order).value, ".partition")


@implements(np.searchsorted)
def np_searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Tracer:
    """Return where the elements of `v` belong in the sorted array `a`."""
    if side not in ("left", "right"):
        raise InvalidValueError(at_user_line(f"np.searchsorted: side must be 'left' or 'right', got {side!r}"))
    x = operand(a if sorter is None else np_take(a, sorter))
    if len(x.shape) != 1:
        raise ShapeError(at_user_line(f"np.searchsorted: the sorted array must have one axis, not {x.aval}"))
    return tracer_of(apply(SearchSorted(side), *promoted(x, operand(v))))


# ---- quantiles


def _rows(x: Value, axes: Axes) -> Value:
    """Return x with `axes` as one axis at the end."""
    kept = tuple(axis for axis in range(len(x.shape)) if axis not in axes)
    return reshape(transpose(x, (*kept, *axes)), (*(x.shape[a] for a in kept), product(x.shape[a] for a in axes)))


def _or_nan(result: Value, ordered: Value, own: int = 0) -> Value:
    """Return NaN for rows that hold one, which stands at the end of a sorted row; `own` axes at the end of `result` are its own."""
    if ordered.dtype.kind != "f":
        return result
    last = slice_axis(ordered, len(ordered.shape) - 1, ordered.shape[-1] - 1, ordered.shape[-1])
    spread = broadcast_to(reshape(last, (*ordered.shape[:-1], *(1,) * own)), result.shape)
    return comparison.where(comparison.isnan(spread), full(result.shape, np.nan, result.dtype), result)


@implements(np.median)
def np_median(a: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, keepdims: Any = False) -> Tracer:
    """Return the median along `axis`: the middle element, or the mean of the two in the middle."""
    x = operand(a)
    axes = reduced_axes(axis, len(x.shape), "np.median")
    rows = _rows(x, axes)
    count = rows.shape[-1]
    if count:
        ordered = sorted_along(rows, len(rows.shape) - 1)
        middle = slice_axis(ordered, len(rows.shape) - 1, (count - 1) // 2, count // 2 + 1)
        result = _or_nan(mean_of(middle, -1, name="np.median"), ordered)
    else:
        result = mean_of(rows, -1, name="np.median")
    return deliver("median", keep_axes(result, x.shape, axes, keepdims), out)


@implements(np.quantile)
def np_quantile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, method: Any = "linear", keepdims: Any = False, *,
    weights: Any = None,
) -> Tracer:  # fmt: skip
    """Return the elements below which the parts `q` of each row lie, interpolated linearly."""
    return _quantile(operand(a), q, np.asarray(_known(q, "np.quantile")), axis, out, method, keepdims, weights, "np.quantile")


@implements(np.percentile)
def np_percentile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, method: Any = "linear", keepdims: Any = False, *,
    weights: Any = None,
) -> Tracer:  # fmt: skip
    """Return the elements below which `q` percent of each row lie, interpolated linearly."""
    x = operand(a)
    part = np.true_divide(_known(q, "np.percentile"), x.dtype.type(100) if x.dtype.kind == "f" else 100)
    return _quantile(x, q, np.asarray(part), axis, out, method, keepdims, weights, "np.percentile")


def _known(q: Any, name: str) -> Any:
    known = constant_array(operand(q))
    if known is None:
        raise UnsupportedError(at_user_line(f"{name}: q must be known while tracing; sort, and interpolate between elements with np.take"))
    return q if type(q) in (int, float) else known


def _quantile(
    x: Value, q: Any, part: np.ndarray, axis: Any, out: Any, method: Any, keepdims: Any, weights: Any, name: str
) -> Tracer:  # fmt: skip
    if method != "linear" or weights is not None:
        what = "weights=" if weights is not None else f"method={method!r}"
        raise UnsupportedError(at_user_line(f"{name}: {what} is not supported on traced arrays; method='linear' without weights is"))
    if not np.all((part >= 0) & (part <= 1)):
        limit = 1 if name == "np.quantile" else 100
        raise InvalidValueError(at_user_line(f"{name}: q must be in the range [0, {limit}], got {q!r}"))
    axes = reduced_axes(axis, len(x.shape), name)
    rows = _rows(x, axes)
    count, kept = rows.shape[-1], len(rows.shape) - 1
    if not count:
        raise IndexingError(at_user_line(f"{name} of no elements (shape {x.shape}, axes {axes})"))
    ordered = sorted_along(rows, kept)
    at = (count - 1) * part
    below = np.floor(at).astype(INT64)
    left, right = (_picked(ordered, places) for places in (below, np.minimum(below + 1, count - 1)))
    result = left
    if part.dtype.kind == "f":
        result = _between(left, right, float(at - below) if type(q) in (int, float) else at - below)
    result = _or_nan(result, ordered, part.ndim)
    result = transpose(result, (*range(kept, kept + part.ndim), *range(kept)))
    if keepdims:
        result = reshape(result, (*part.shape, *(1 if k in axes else extent for k, extent in enumerate(x.shape))))
    return deliver(name.removeprefix("np."), result, out)


def _picked(rows: Value, places: np.ndarray) -> Value:
    last = len(rows.shape) - 1
    return apply(Gather((last,), last), rows, constant(places))


def _between(left: Value, right: Value, t: Any) -> Value:
    """Return the element the part t of the way from left to right, reckoned from the nearer one, as NumPy does."""
    across = elementwise_value(np.subtract, right, left)
    from_left = elementwise_value(np.add, left, elementwise_value(np.multiply, across, t))
    from_right = elementwise_value(np.subtract, right, elementwise_value(np.multiply, across, 1 - t))
    return comparison.where(broadcast_to(constant(np.asarray(t) >= 0.5), from_left.shape), from_right, from_left)


# ---- running sums


def running_sum(x: Value, axis: Any, dtype: Any, name: str) -> Value:
    """Return the sums of all elements up to each one along `axis`."""
    kind = accumulator(x.dtype, dtype)
    rows, place = _row_axis(x, axis, name)
    if kind == BOOL:
        raise UnsupportedError(at_user_line(f"{name}: dtype=bool is not supported on traced arrays; compare an integer sum with 0"))
    return apply(CumulativeSum(place), strong(convert(rows, kind)))


@implements(np.cumsum)
def np_cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
    """Return the sums of all elements up to each one along `axis`, of all elements in a row by default."""
    return deliver("cumsum", running_sum(operand(a), axis, dtype, "np.cumsum"), out)
