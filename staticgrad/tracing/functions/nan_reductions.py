"""Reductions that pass over NaN: those of `reductions` with a mask; the derivative at a NaN is 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.ir.node import Value, full
from staticgrad.ops import comparison
from staticgrad.tracing.functions.arguments import deliver, mask_of, operand
from staticgrad.tracing.functions.reductions import extremum_of, freedom_of, logical_of, mean_of, prod_of, std_of, sum_of, var_of
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.tracer import Tracer


def _numbers(x: Value, where: Any, name: str) -> Any:
    """Return the mask of the elements that count: those of `where` that are not NaN."""
    mask = mask_of(where, x.shape, name)
    if x.dtype.kind != "f":
        return True if mask is None else mask
    valid = comparison.logical_not(comparison.isnan(x))
    return valid if mask is None else comparison.logical_and(mask, valid)


@implements(np.nansum)
def np_nansum(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Tracer:
    """Return the sum of what is not NaN along `axis`."""
    x = operand(a)
    return deliver("nansum", sum_of(x, axis, dtype, keepdims, initial, _numbers(x, where, "np.nansum"), "np.nansum"), out)


@implements(np.nanprod)
def np_nanprod(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Tracer:
    """Return the product of what is not NaN along `axis`."""
    x = operand(a)
    return deliver("nanprod", prod_of(x, axis, dtype, keepdims, initial, _numbers(x, where, "np.nanprod"), "np.nanprod"), out)


@implements(np.nanmean)
def np_nanmean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """Return the mean of what is not NaN along `axis`; NaN where there is nothing."""
    x = operand(a)
    return deliver("nanmean", mean_of(x, axis, dtype, keepdims, _numbers(x, where, "np.nanmean"), "np.nanmean"), out)


@implements(np.nanvar)
def np_nanvar(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *, where: Any = True,
    mean: Any = None, correction: Any = None,
) -> Tracer:  # fmt: skip
    """Return the variance of what is not NaN along `axis`; NaN where there are too few numbers."""
    x, freedom = operand(a), freedom_of(ddof, correction, "np.nanvar")
    mask = _numbers(x, where, "np.nanvar")
    variance = var_of(x, axis, dtype, freedom, keepdims, mask, mean, "np.nanvar")
    return deliver("nanvar", _with_freedom(variance, x, axis, freedom, keepdims, mask), out)


@implements(np.nanstd)
def np_nanstd(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *, where: Any = True,
    mean: Any = None, correction: Any = None,
) -> Tracer:  # fmt: skip
    """Return the standard deviation of what is not NaN along `axis`; its derivative where it is 0 is 0."""
    x, freedom = operand(a), freedom_of(ddof, correction, "np.nanstd")
    mask = _numbers(x, where, "np.nanstd")
    deviation = std_of(x, axis, dtype, freedom, keepdims, mask, mean, "np.nanstd")
    return deliver("nanstd", _with_freedom(deviation, x, axis, freedom, keepdims, mask), out)


def _with_freedom(result: Value, x: Value, axis: Any, freedom: Any, keepdims: Any, mask: Any) -> Value:
    """Return NaN in place of results of no more numbers than the degrees of freedom taken away."""
    if mask is True:
        return result
    count = sum_of(mask, axis, result.dtype, keepdims)
    enough = comparison.less(full(count.shape, freedom, count.dtype), count)
    return comparison.where(enough, result, full(result.shape, np.nan, result.dtype))


@implements(np.nanmax)
def np_nanmax(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True) -> Tracer:
    """Return the largest number along `axis`; NaN where there is none."""
    return deliver("nanmax", _nan_extremum(operand(a), axis, keepdims, initial, where, True, "np.nanmax"), out)


@implements(np.nanmin)
def np_nanmin(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True) -> Tracer:
    """Return the smallest number along `axis`; NaN where there is none."""
    return deliver("nanmin", _nan_extremum(operand(a), axis, keepdims, initial, where, False, "np.nanmin"), out)


def _nan_extremum(x: Value, axis: Any, keepdims: Any, initial: Any, where: Any, greatest: bool, name: str) -> Value:
    if x.dtype.kind != "f":
        return extremum_of(x, axis, keepdims, initial, where, greatest, name)
    nan = comparison.isnan(x)
    least = full(x.shape, -np.inf if greatest else np.inf, x.dtype)
    result = extremum_of(comparison.where(nan, least, x), axis, keepdims, initial, where, greatest, name)
    if initial is not None:
        return result
    nothing = logical_of(name, nan, axis, keepdims, everywhere=True)
    return comparison.where(nothing, full(result.shape, np.nan, result.dtype), result)
