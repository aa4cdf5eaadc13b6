"""Functions that choose between elements, and those that compare whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, InvalidValueError, TraceError
from staticgrad.ir.aval import BOOL
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import comparison, extrema
from staticgrad.tracing.functions.arguments import deliver, operand
from staticgrad.tracing.functions.reductions import np_all
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, lift, promoted, result_dtype, strong, together
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import elementwise_value


@implements(np.where)
def np_where(condition: Any, x: Any = None, y: Any = None, /) -> Tracer:
    """Return x where the condition holds, otherwise y."""
    if x is None and y is None:
        raise TraceError(
            at_user_line("np.where with one argument gives as many indices as there are true elements, which is not known while tracing")
        )
    if x is None or y is None:
        raise InvalidValueError(at_user_line("np.where takes both x and y, or neither"))
    mask = convert(operand(condition), BOOL)
    values = promoted(lift(x), lift(y))
    if all(v.aval.weak for v in values):
        values = [strong(v) for v in values]
    return tracer_of(comparison.where(*together([mask, *values], "np.where")))


@implements(np.select)
def np_select(condlist: Any, choicelist: Any, default: Any = 0) -> Tracer:
    """Return, for each element, the choice of the first condition that holds."""
    conditions, choices = [operand(c) for c in condlist], [lift(c) for c in choicelist]
    if len(conditions) != len(choices):
        raise InvalidValueError(
            at_user_line(f"np.select: list of cases must be same length as list of conditions, got {len(choices)} and {len(conditions)}")
        )
    if not conditions:
        raise InvalidValueError(at_user_line("np.select with an empty condition list is not possible"))
    for k, condition in enumerate(conditions):
        if condition.dtype != BOOL:
            raise DTypeError(at_user_line(f"np.select: invalid entry {k} in condlist: should be boolean ndarray, not {condition.aval}"))
    values = [strong(v) for v in promoted(*choices, lift(default))]
    values = together([*conditions, *values], "np.select")
    conditions, (*choices, result) = values[: len(conditions)], values[len(conditions) :]
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        result = comparison.where(condition, choice, result)
    return tracer_of(result)


@implements(np.clip)
def np_clip(
    a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None, dtype: Any = None,
    casting: Any = "same_kind",
) -> Tracer:  # fmt: skip
    """Return the elements limited to an interval, whose bounds may be missing."""
    if (a_min is not None and min is not None) or (a_max is not None and max is not None):
        raise InvalidValueError(at_user_line("np.clip: give a_min and a_max, or min and max, not both"))
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    x = lift(a)
    low, high = _needed_bounds(x, low, high)
    if low is None and high is None:
        return deliver("clip", x, out)
    bounds = [lift(bound) for bound in (low, high) if bound is not None]
    kind = result_dtype(x, *bounds) if dtype is None else np.dtype(dtype)
    if kind == BOOL:
        return deliver("clip", _bool_clip(x, low, high), out)
    least, greatest = _limits(kind)
    values = [convert(v, kind) for v in (x, lift(least if low is None else low), lift(greatest if high is None else high))]
    return deliver("clip", extrema.clip(*together(values, "np.clip")), out)


def _needed_bounds(x: Value, low: Any, high: Any) -> tuple[Any, Any]:
    """Return the bounds without Python integers that no element of an integer x can pass."""
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        low = None if type(low) is int and low <= info.min else low
        high = None if type(high) is int and high >= info.max else high
    return low, high


def _limits(dtype: np.dtype) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    info = np.iinfo(dtype)
    return dtype.type(info.min), dtype.type(info.max)


def _bool_clip(x: Value, low: Any, high: Any) -> Value:
    value = x if low is None else comparison.logical_or(*together([x, lift(low)], "np.clip"))
    return value if high is None else comparison.logical_and(*together([value, lift(high)], "np.clip"))


@implements(np.nan_to_num)
def np_nan_to_num(x: Any, copy: Any = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Tracer:
    """Return finite numbers in place of NaN and the infinities."""
    value = operand(x)
    if value.dtype.kind == "f":
        limit = np.finfo(value.dtype)
        inf = full(value.shape, np.inf, value.dtype)
        found = comparison.where(comparison.isnan(value), _fill(nan, value), value)
        found = comparison.where(comparison.equal(value, inf), _fill(limit.max if posinf is None else posinf, value), found)
        value = comparison.where(comparison.equal(value, -inf), _fill(limit.min if neginf is None else neginf, value), found)
    if copy or not isinstance(x, Tracer):
        return tracer_of(value)
    x.assign(value, "np.nan_to_num with copy=False")
    return x


def _fill(number: Any, like: Value) -> Value:
    return together([convert(operand(number), like.dtype), like], "np.nan_to_num")[0]


@implements(np.isclose)
def np_isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Tracer:
    """Return whether the elements agree within tolerances: |a - b| <= atol + rtol * |b|."""
    x, y = operand(a), operand(b)
    y = convert(y, result_dtype(y, lift(1.0)))
    distance = elementwise_value(np.absolute, elementwise_value(np.subtract, x, y))
    allowed = elementwise_value(np.add, atol, elementwise_value(np.multiply, rtol, elementwise_value(np.absolute, y)))
    near = elementwise_value(np.logical_and, elementwise_value(np.less_equal, distance, allowed), elementwise_value(np.isfinite, y))
    close = elementwise_value(np.logical_or, near, elementwise_value(np.equal, x, y))
    if equal_nan:
        both = elementwise_value(np.logical_and, elementwise_value(np.isnan, x), elementwise_value(np.isnan, y))
        close = elementwise_value(np.logical_or, close, both)
    return tracer_of(close)


@implements(np.allclose)
def np_allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Tracer:
    """Return whether all elements agree within tolerances, a traced bool."""
    return np_all(np_isclose(a, b, rtol, atol, equal_nan))


@implements(np.array_equal)
def np_array_equal(a1: Any, a2: Any, equal_nan: Any = False) -> Any:
    """Return whether shapes and all elements are equal: a traced bool, or False where the shapes differ."""
    x, y = operand(a1), operand(a2)
    if x.shape != y.shape:
        return False
    return _equal_everywhere(x, y, equal_nan)


@implements(np.array_equiv)
def np_array_equiv(a1: Any, a2: Any) -> Any:
    """Return whether all elements are equal after broadcasting: a traced bool, or False where the shapes do not fit."""
    x, y = operand(a1), operand(a2)
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return False
    return _equal_everywhere(x, y, False)


def _equal_everywhere(x: Value, y: Value, equal_nan: Any) -> Tracer:
    same = elementwise_value(np.equal, x, y)
    if equal_nan:
        both = elementwise_value(np.logical_and, elementwise_value(np.isnan, x), elementwise_value(np.isnan, y))
        same = elementwise_value(np.logical_or, same, both)
    return np_all(same)


@implements(np.copyto)
def np_copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """Write `src` into `dst`, where the mask holds."""
    if not isinstance(dst, Tracer):
        raise TraceError(
            at_user_line("np.copyto: a real NumPy array cannot hold traced values; make it with snp.zeros(...) or np.zeros_like(x)")
        )
    new = lift(src)
    if not new.aval.weak and not np.can_cast(new.dtype, dst.dtype, casting):
        raise DTypeError(at_user_line(f"np.copyto: cannot cast {new.aval} to {dst.dtype} with casting rule {casting!r}"))
    if where is not True:
        mask = convert(operand(where), BOOL)
        values = together([mask, convert(new, dst.dtype), dst.value], "np.copyto")
        new = comparison.where(*values)
    dst.assign(new, "np.copyto")


# ---- questions that shape and dtype answer --------------------------------------------------------------------------------


@implements(np.shape)
def np_shape(a: Any) -> tuple[int, ...]:
    """Return the lengths of the axes."""
    return operand(a).shape


@implements(np.ndim)
def np_ndim(a: Any) -> int:
    """Return the number of axes."""
    return len(operand(a).shape)


@implements(np.size)
def np_size(a: Any, axis: Any = None) -> int:
    """Return the number of elements, along one axis if it is given."""
    shape = operand(a).shape
    return operand(a).aval.size if axis is None else shape[axis]


@implements(np.result_type)
def np_result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """Return the dtype that the arguments promote to."""
    values = [x.value if isinstance(x, Tracer) else x for x in arrays_and_dtypes]
    samples = [(0 if v.dtype.kind == "i" else 0.0) if isinstance(v, Value) and v.aval.weak else v for v in values]
    return np.result_type(*(v.dtype if isinstance(v, Value) else v for v in samples))


@implements(np.can_cast)
def np_can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """Return whether a cast is allowed."""
    return bool(np.can_cast(from_.dtype if isinstance(from_, Tracer) else from_, to, casting))


@implements(np.iscomplexobj)
def np_iscomplexobj(x: Any) -> bool:
    """Return False: graphs hold real numbers."""
    return False


@implements(np.isrealobj)
def np_isrealobj(x: Any) -> bool:
    """Return True: graphs hold real numbers."""
    return True


@implements(np.real)
def np_real(val: Any) -> Any:
    """Return the array itself."""
    return val


@implements(np.imag)
def np_imag(val: Any) -> Tracer:
    """Return zeros: graphs hold real numbers."""
    x = operand(val)
    return tracer_of(full(x.shape, 0, x.dtype))


@implements(np.may_share_memory, np.shares_memory)
def np_may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Return whether two traced arrays are parts of one storage."""
    return isinstance(a, Tracer) and isinstance(b, Tracer) and a.shares_storage(b)
