"""From what the user wrote to values of the graph: constants, promotion, broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, OverflowedError, ShapeError
from staticgrad.ir.aval import DTYPES, INT64, Shape, check_dtype
from staticgrad.ir.node import Constant, Value, constant, constant_array
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.ops.movement import broadcast_to


def is_python_scalar(x: object) -> bool:
    """Return whether x is a Python number, weak in promotion (bool is not)."""
    return isinstance(x, (int, float)) and not isinstance(x, (bool, np.generic))


def lift(x: Any) -> Value:
    """Return `x` as a value: a tracer's present value, or a constant holding a copy of an array or number."""
    from staticgrad.tracing.tracer import Tracer

    if isinstance(x, Tracer):
        return x.value
    if isinstance(x, Value):
        return x
    if is_python_scalar(x):
        if isinstance(x, int) and not -(2**63) <= x < 2**63:
            if x < 2**64 and x >= 0:
                return constant(np.uint64(x))
            raise OverflowedError(at_user_line(f"the Python integer {x} does not fit into 64 bits"))
        return constant(x, dtype=INT64 if isinstance(x, int) else np.dtype(np.float64), weak=True)
    if isinstance(x, (list, tuple)) and _holds_tracer(x):
        from staticgrad.tracing.functions.creation import array_of

        return array_of(x)
    array = as_array(x)
    if array.dtype.name not in DTYPES:
        check_dtype_here(array.dtype, f"the {type(x).__name__} operand")
    return constant(array)


def strong(value: Value) -> Value:
    """Return `value` as NumPy's array or scalar, which does not yield in promotion as a Python number does."""
    if not value.aval.weak:
        return value
    known = constant_array(value)
    return cast(value, value.dtype) if known is None else constant(known)


def check_dtype_here(dtype: object, what: str) -> np.dtype:
    """Return `dtype` as one that graphs can hold, or raise `DTypeError` at the user's line."""
    try:
        return check_dtype(dtype, what)
    except DTypeError as error:
        raise DTypeError(at_user_line(str(error))) from error


def as_array(x: Any) -> np.ndarray:
    """Return a real array of anything array-like, pandas objects and nested lists included."""
    if isinstance(x, np.ma.MaskedArray):
        raise ArgumentError(at_user_line("a masked array cannot be traced: fill it first, x.filled(value)"))
    if hasattr(x, "to_numpy") and type(x).__module__.partition(".")[0] in ("pandas", "polars"):
        x = x.to_numpy()
    try:
        array = np.asarray(x)
    except ValueError as error:  # nested lists of unequal lengths
        raise InvalidValueError(at_user_line(f"{type(x).__name__} {str(x)[:60]} is not an array: {error}")) from error
    if array.dtype.kind in "OUSV":
        raise ArgumentError(
            at_user_line(f"{type(x).__name__} {str(x)[:60]!r} is not an array of numbers; name it in static_argnames if it is an option")
        )
    return array


def _holds_tracer(x: Any) -> bool:
    from staticgrad.tracing.tracer import Tracer

    if isinstance(x, (list, tuple)):
        return any(_holds_tracer(part) for part in x)
    return isinstance(x, Tracer)


def weak_type(value: Value) -> Any:
    """Return what NumPy's promotion should see: a dtype, or the Python type of a weak scalar."""
    if not value.aval.weak:
        return value.dtype
    return {"i": int, "f": float}.get(value.dtype.kind, value.dtype)


def result_dtype(*values: Value) -> np.dtype:
    """Return the dtype that NumPy 2 promotes the values to."""
    samples = [_WEAK_SAMPLE.get(weak_type(v), v.dtype) for v in values]
    return np.result_type(*samples)


_WEAK_SAMPLE: dict[Any, Any] = {int: 0, float: 0.0}


def convert(value: Value, dtype: np.dtype) -> Value:
    """Return `value` in `dtype`; a weak Python integer that does not fit is an error, as in NumPy."""
    if value.aval.weak and isinstance(value.op, Constant) and dtype.kind in "iu":
        number = value.op.bits.array()[()]
        if value.dtype.kind == "i" and not np.iinfo(dtype).min <= int(number) <= np.iinfo(dtype).max:
            raise OverflowedError(at_user_line(f"the Python integer {number} is out of bounds for {dtype}"))
    if value.dtype == dtype:
        return value
    if isinstance(value.op, Constant) and value.dtype.kind != "f":
        with np.errstate(all="ignore"):
            return constant(value.op.bits.array().astype(dtype))
    return cast(value, dtype)


def promoted(*values: Value) -> list[Value]:
    """Return the values in their common dtype."""
    dtype = result_dtype(*values)
    if dtype.kind not in "biuf" or (dtype.itemsize == 2 and dtype.kind == "f"):
        raise DTypeError(at_user_line(f"operands promote to {dtype}, which is not supported"))
    return [convert(v, dtype) for v in values]


def together(values: Sequence[Value], operation: str) -> list[Value]:
    """Return the values broadcast to their common shape."""
    shapes = [v.shape for v in values]
    if all(shape == shapes[0] for shape in shapes):
        return list(values)
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        listed = " and ".join(str(v.aval) for v in values)
        raise ShapeError(at_user_line(f"{operation}: {listed} cannot be broadcast together")) from error
    return [broadcast_to(v, shape) for v in values]


def checked_broadcast(value: Value, shape: Shape, operation: str) -> Value:
    """Return `value` broadcast to exactly `shape`, or an error that names both."""
    try:
        return broadcast_to(value, shape)
    except ShapeError as error:
        raise ShapeError(at_user_line(f"{operation}: {value.aval} cannot be broadcast to shape {tuple(shape)}")) from error
