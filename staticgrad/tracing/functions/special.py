"""The universal functions of `scipy.special` on tracers, and its functions that do not arrive through NumPy's protocols."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, UnsupportedError
from staticgrad.ir.aval import DTYPES
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, exponential, special, trigonometric
from staticgrad.ops.control import stop_gradient
from staticgrad.ops.elementwise import Apply
from staticgrad.ops.movement import broadcast_to, reshape
from staticgrad.ops.powers import power, sqrt
from staticgrad.ops.reduce import max_, sum_
from staticgrad.tracing.functions import norms
from staticgrad.tracing.functions.arguments import axes_of, keep_axes
from staticgrad.tracing.functions.table import closest
from staticgrad.tracing.lift import convert, promoted, together, weak_type

Composite = Callable[..., Value]


def _full(x: Value, number: float) -> Value:
    return full(x.shape, number, x.dtype)


def _where(condition: Value, x: Value | float, y: Value | float) -> Value:
    like = x if isinstance(x, Value) else y
    assert isinstance(like, Value)
    return comparison.where(condition, *(v if isinstance(v, Value) else _full(like, v) for v in (x, y)))


# ---- logarithms, with care at 0 ------------------------------------------------------------------------------------------------


def _times_logarithm(x: Value, y: Value, logarithm: Apply, pole: float, harmless: float) -> Value:
    """x log y; 0 where x is 0 and y has no logarithm (but is a number), with derivative 0 there."""
    regular = comparison.logical_and(comparison.less(_full(y, pole), y), comparison.isfinite(y))
    missing = comparison.logical_not(comparison.logical_or(regular, comparison.isnan(y)))
    nothing = comparison.logical_and(comparison.equal(x, _full(x, 0)), missing)
    return _where(nothing, 0, x * logarithm(_where(nothing, harmless, y)))


def _xlogy(x: Value, y: Value) -> Value:
    return _times_logarithm(x, y, exponential.log, 0, 1)


def _xlog1py(x: Value, y: Value) -> Value:
    return _times_logarithm(x, y, exponential.log1p, -1, 0)


def _entr(x: Value) -> Value:
    return _where(comparison.less(x, _full(x, 0)), -np.inf, -_xlogy(x, x))


def _logit(x: Value) -> Value:
    """log(x / (1 - x)), near one half as 2 atanh(2 x - 1), which loses no digits there."""
    twice = x + x - 1
    near = comparison.less(arithmetic.absolute(twice), _full(x, 0.5))
    small = _where(near, twice, 0)
    safe = _where(near, 0.25, x)
    middle = exponential.log1p(small) - exponential.log1p(-small)
    return _where(near, middle, exponential.log(safe) - exponential.log1p(-safe))


def _log_expit(x: Value) -> Value:
    return -exponential.softplus(-x)


# ---- powers and waves ----------------------------------------------------------------------------------------------------------


def _cosm1(x: Value) -> Value:
    half = trigonometric.sin(x * 0.5)
    return half * half * -2


def _huber(delta: Value, r: Value) -> Value:
    size = arithmetic.absolute(r)
    inside = comparison.less_equal(size, delta)
    value = _where(inside, r * r * 0.5, delta * (size - delta * 0.5))
    return _where(comparison.less(delta, _full(delta, 0)), np.inf, value)


def _pseudo_huber(delta: Value, r: Value) -> Value:
    """r**2 / (1 + sqrt(1 + (r / delta)**2)), which is delta**2 (sqrt(...) - 1) without its cancellation."""
    zero = _full(delta, 0)
    nothing = comparison.equal(delta, zero)
    ratio = r / _where(nothing, 1, delta)
    root = sqrt(ratio * ratio + 1)
    finite = comparison.logical_and(comparison.isfinite(delta), comparison.isfinite(r))
    value = _where(finite, r * r / (root + 1), delta * delta * (root - 1))
    value = _where(comparison.logical_or(nothing, comparison.equal(r, zero)), 0, value)
    return _where(comparison.less(delta, zero), np.inf, value)


def _loggamma(x: Value) -> Value:
    """The real branch: NaN below 0, where SciPy's complex result leaves the real line."""
    return _where(comparison.less(x, _full(x, 0)), np.nan, special.gammaln(x))


SPECIAL: dict[str, Composite] = {
    "expit": exponential.sigmoid, "logit": _logit, "log_expit": _log_expit, "xlogy": _xlogy, "xlog1py": _xlog1py, "entr": _entr,
    "rel_entr": special.rel_entr, "kl_div": special.kl_div, "expm1": exponential.expm1, "log1p": exponential.log1p,
    "exp2": exponential.exp2, "exp10": lambda x: power(_full(x, 10), x), "cosm1": _cosm1,
    "huber": _huber, "pseudo_huber": _pseudo_huber, "erf": special.erf, "erfc": special.erfc, "erfinv": special.erfinv,
    "erfcx": special.erfcx, "ndtr": special.ndtr, "log_ndtr": special.log_ndtr, "gamma": special.gamma,
    "gammaln": special.gammaln, "psi": special.digamma,
    "loggamma": _loggamma, "betaln": special.betaln,
}  # fmt: skip
"""The universal functions that exist, by SciPy's name: functions of values of one shape and one float dtype."""


def is_scipy(ufunc: np.ufunc) -> bool:
    """Return whether `ufunc` is one of `scipy.special`, which is not imported for the answer."""
    return getattr(sys.modules.get("scipy.special"), ufunc.__name__, None) is ufunc


def special_value(ufunc: np.ufunc, values: list[Value], options: dict[str, Any]) -> Value:
    """Return `ufunc` of `scipy.special` for values, in the dtype that NumPy's resolution gives."""
    short, name = ufunc.__name__, f"scipy.special.{ufunc.__name__}"
    if short not in SPECIAL:
        raise UnsupportedError(at_user_line(f"{name} is not supported on traced arrays; {closest(name, supported_special())}"))
    if options:
        raise UnsupportedError(at_user_line(f"{name} with {next(iter(options))}= is not supported on traced arrays"))
    listed = ", ".join(str(v.aval) for v in values)
    try:
        dtype = np.dtype(ufunc.resolve_dtypes((*map(weak_type, values), None))[-1])
    except TypeError as error:
        raise DTypeError(at_user_line(f"{name} is not defined for {listed}")) from error
    if dtype.name not in DTYPES or dtype.kind != "f":
        raise DTypeError(at_user_line(f"{name} of {listed} gives {dtype}, which is not supported: use .astype(np.float32) first"))
    return SPECIAL[short](*together([convert(v, dtype) for v in values], name))


def supported_special() -> list[str]:
    """Return the names of SciPy's universal functions that work on tracers."""
    return [f"scipy.special.{name}" for name in sorted(SPECIAL)]


# ---- functions that are no universal functions ----------------------------------------------------------------------------------


def weighted_logsumexp(x: Value, weights: Value, axis: Any = None, keepdims: Any = False) -> tuple[Value, Value]:
    """Return log |sum(weights * exp(x))| along `axis`, without overflow, and the sign of the sum."""
    x, weights = promoted(x, weights)
    x, weights = together([convert(v, np.dtype(np.float64)) if v.dtype.kind != "f" else v for v in (x, weights)], "logsumexp")
    axes = axes_of(axis, len(x.shape), "logsumexp")
    absent = comparison.equal(weights, _full(weights, 0))
    x = _where(absent, -np.inf, x)
    if not x.aval.size:
        empty = keep_axes(full(x.aval.without(axes).shape, -np.inf, x.dtype), x.shape, axes, keepdims)
        return empty, _full(empty, 0)
    largest = stop_gradient(keep_axes(max_(x, axes), x.shape, axes, True))
    shift = _where(comparison.isfinite(largest), largest, 0)
    total = sum_(weights * exponential.exp(x - broadcast_to(shift, x.shape)), axes)
    nothing = comparison.equal(total, _full(total, 0))
    logarithm = exponential.log(_where(nothing, 1, arithmetic.absolute(total)))
    result = _where(nothing, -np.inf, logarithm + reshape(shift, total.shape))
    kept = [keep_axes(v, x.shape, axes, keepdims) for v in (result, arithmetic.sign(total))]
    return kept[0], kept[1]


def signed_logsumexp(x: Value, axis: Any = None, keepdims: Any = False) -> tuple[Value, Value]:
    """Return `logsumexp` and the sign of the sum: 1, or 0 where all elements are -inf."""
    result = norms.logsumexp_of(x, axis, keepdims)
    sign = _where(comparison.equal(result, _full(result, -np.inf)), 0, _full(result, 1))
    return result, _where(comparison.isnan(result), np.nan, sign)


def nan_where_negative(result: Value, sign: Value) -> Value:
    """Return the logarithm of a sum of that sign as a real number."""
    return _where(comparison.less(sign, _full(sign, 0)), np.nan, result)
