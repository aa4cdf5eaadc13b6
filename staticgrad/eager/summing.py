"""Reductions by PyTorch's names and arguments: `dim` for NumPy's `axis`, `keepdim` for `keepdims`."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager.apply import Operation
from staticgrad.eager.modes import get_default_dtype
from staticgrad.eager.names import extremum_name, node_name, reduction_name
from staticgrad.errors import DTypeError, TensorError
from staticgrad.ir.aval import INT64
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions import norms
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.tracer import tracer_of


def _axis(dim: Any, axis: Any) -> Any:
    """Return the axes that `dim`, or NumPy's word for it, means."""
    chosen = axis if dim is None else dim
    if isinstance(chosen, (list, tuple)):
        return tuple(chosen) or None
    return chosen


ADDING = {np.sum, np.prod, np.nansum}
"""Reductions whose result of whole numbers is int64, also of those without a sign."""


def _reduction(function: Callable[..., Any], floats: bool = False) -> Callable[..., Any]:
    """Return a reduction of all elements, or along some axes."""

    def reduce(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
        value = lift(input)
        if dtype is not None:
            input = tracer_of(convert(value, np.dtype(dtype)))
        elif floats and value.dtype.kind != "f":
            raise DTypeError(
                at_user_line(f"{function.__name__} of a tensor of {value.dtype}: its result is no integer; convert it first, x.float()")
            )
        elif function in ADDING and value.dtype.kind == "u":
            input = tracer_of(convert(value, INT64))
        return function(input, axis=_axis(dim, axis), keepdims=keepdim or keepdims)

    return reduce


def _spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the variance or the standard deviation; by default of a sample, divided by n - 1."""

    def reduce(
        input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = 1, axis: Any = None,
        keepdims: bool = False, ddof: Any = None,
    ) -> Any:  # fmt: skip
        if isinstance(dim, bool):  # x.var(False)
            dim, unbiased = None, dim
        divisor = ddof if ddof is not None else correction if unbiased is None else int(bool(unbiased))
        return function(input, axis=_axis(dim, axis), ddof=divisor, keepdims=keepdim or keepdims)

    return reduce


def _pair(name: str) -> Any:
    """Return PyTorch's structure of values and their places, named like the function."""
    return namedtuple(name, ["values", "indices"])


_SORTED, _TOPK, _MEDIAN = _pair("sort"), _pair("topk"), _pair("median")


def _extremum(name: str, value_of: Callable[..., Any], place_of: Callable[..., Any], pairwise: np.ufunc) -> Callable[..., Any]:
    """Return torch.max or torch.min: of all elements, along one axis with the places, or of two tensors element by element."""
    pair = _pair(name)

    def extremum(input: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        if dim is not None and not isinstance(dim, int):
            from staticgrad.eager.operations import promoted

            return pairwise(*promoted(input, dim))
        if axis is not None:
            return value_of(input, axis=_axis(None, axis), keepdims=keepdim or keepdims)
        if dim is None:
            return value_of(input)
        place = place_of(input, axis=dim, keepdims=True)
        value = np.take_along_axis(input, place, axis=dim)  # the gradient goes to the place that is reported
        if not keepdim:
            value, place = (np.squeeze(x, axis=dim) for x in (value, place))
        return pair(_computed(value), _computed(place))

    return extremum


def _computed(x: Any) -> Any:
    return np.copy(x)


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return argmax and its like: along one axis, or of all elements in one row."""

    def along(input: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        return function(input, axis=_axis(dim, axis), keepdims=keepdim or keepdims)

    return along


def _running(input: Any, dim: Any = None, *, dtype: Any = None, axis: Any = None) -> Any:
    chosen = _axis(dim, axis)
    if chosen is None:
        raise TensorError(at_user_line("cumsum: dim, the axis to add along, is missing"))
    return np.cumsum(input, axis=chosen, dtype=INT64 if dtype is None and lift(input).dtype.kind == "u" else dtype)


def _softmax(function: Callable[..., Any]) -> Callable[..., Any]:
    def softmax(input: Any, dim: Any = None, *, dtype: Any = None, axis: Any = None) -> Any:
        value = lift(input)
        wanted = np.dtype(dtype) if dtype is not None else value.dtype if value.dtype.kind == "f" else get_default_dtype()
        chosen = _axis(dim, axis)
        if chosen is None:
            raise TensorError(at_user_line("softmax: dim, the axis along which the results add up to 1, is missing"))
        return tracer_of(function(convert(value, wanted), chosen))

    return softmax


def _logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    return tracer_of(norms.logsumexp_of(lift(input), _axis(dim, None), keepdim))


def _norm(input: Any, p: Any = None, dim: Any = None, keepdim: bool = False) -> Any:
    axis = _axis(dim, None)
    if axis is None and len(lift(input).shape) != 1:
        return np.linalg.norm(np.ravel(input), None if p == "fro" else p)
    return np.linalg.norm(input, p, axis=axis, keepdims=keepdim)


def _count_nonzero(input: Any, dim: Any = None) -> Any:
    return np.count_nonzero(input, axis=_axis(dim, None))


def _sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    order = _argsort(input, dim, descending)
    return _SORTED(_computed(np.take_along_axis(input, order, axis=dim)), order)


def _argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    order = np.argsort(np.flip(input, dim) if descending else input, axis=dim, stable=True)
    if not descending:
        return order
    return np.flip(lift_length(input, dim) - 1 - order, dim)


def _topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    length = lift_length(input, dim)
    if not 0 <= k <= length:
        raise TensorError(at_user_line(f"topk: k={k}, but axis {dim} has {length} elements"))
    order = np.take(_argsort(input, dim, largest), np.arange(k), axis=dim)
    return _TOPK(_computed(np.take_along_axis(input, order, axis=dim)), order)


def _median(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Return the middle value, of an even number the lower one; NaN where there is any."""
    x, axis = (np.ravel(input), 0) if dim is None else (input, dim)
    length = lift_length(x, axis)
    if not length:
        raise TensorError(at_user_line(f"median of a tensor of shape {lift(input).shape}: there are no elements to choose from"))
    order, middle = np.argsort(x, axis=axis, stable=True), (length - 1) // 2
    valid = np.sum(x == x, axis=axis, keepdims=True)  # NaN stands last when sorted
    place = np.take_along_axis(order, np.where(valid < length, valid, middle), axis=axis)
    value = np.take_along_axis(x, place, axis=axis)
    if dim is None:
        return np.reshape(value, ())
    if not keepdim:
        value, place = (np.squeeze(each, axis=axis) for each in (value, place))
    return _MEDIAN(_computed(value), _computed(place))


def lift_length(x: Any, axis: int) -> int:
    """Return the length of an axis."""
    shape = lift(x).shape
    return shape[axis] if shape else 1


def _named(name: str, function: Callable[..., Any], title: Any = None) -> Operation:
    function.__name__ = name
    return Operation(function, title or node_name(name))


SUMMING: dict[str, Operation] = {
    "sum": _named("sum", _reduction(np.sum), reduction_name("Sum")),
    "mean": _named("mean", _reduction(np.mean, floats=True), reduction_name("Mean")),
    "prod": _named("prod", _reduction(np.prod), reduction_name("Prod")),
    "var": _named("var", _spread(np.var)), "std": _named("std", _spread(np.std)),
    "amax": _named("amax", _reduction(np.max)), "amin": _named("amin", _reduction(np.min)),
    "max": _named("max", _extremum("max", np.max, np.argmax, np.maximum), extremum_name("Max", "Maximum")),
    "min": _named("min", _extremum("min", np.min, np.argmin, np.minimum), extremum_name("Min", "Minimum")),
    "argmax": _named("argmax", _along(np.argmax)), "argmin": _named("argmin", _along(np.argmin)),
    "any": _named("any", _along(np.any)), "all": _named("all", _along(np.all)), "nansum": _named("nansum", _reduction(np.nansum)),
    "nanmean": _named("nanmean", _reduction(np.nanmean, floats=True)), "count_nonzero": _named("count_nonzero", _count_nonzero),
    "cumsum": _named("cumsum", _running), "softmax": _named("softmax", _softmax(norms.softmax_of)),
    "log_softmax": _named("log_softmax", _softmax(norms.log_softmax_of)), "logsumexp": _named("logsumexp", _logsumexp),
    "norm": _named("norm", _norm, "LinalgVectorNorm"), "sort": _named("sort", _sort), "argsort": _named("argsort", _argsort),
    "topk": _named("topk", _topk), "median": _named("median", _median),
}  # fmt: skip
"""Functions that are methods of tensors, too."""
