"""NumPy's universal functions on tracers: dtypes are NumPy's own resolution, broadcasts and casts become nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, IntegerPowerError, ShapeError, TraceError, UnsupportedError
from staticgrad.ir.aval import BOOL, DTYPES, FLOAT64, INT64, Shape
from staticgrad.ir.node import Value, apply, constant, constant_array, full, zeros_like
from staticgrad.ir.op import REGISTRY
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic, comparison, powers
from staticgrad.tracing.lift import check_dtype_here, convert, is_python_scalar, lift, strong, together, weak_type
from staticgrad.tracing.tracer import Tracer, tracer_of

MAX_REPEATED = 64
"""Whole exponents up to this size mean repeated multiplication."""


def _applying(name: str) -> Callable[..., Value]:
    """Return the function that applies the op of that name."""
    operation = REGISTRY[name]()
    return lambda *x: apply(operation, *x)


def _times(factor: float) -> Callable[[Value], Value]:
    return lambda x: arithmetic.multiply(x, full(x.shape, factor, x.dtype))


def _reciprocal(x: Value) -> Value:
    """1 / x; of integers what is left of it when it is made an integer."""
    wide = convert(x, FLOAT64 if x.dtype.kind != "f" else x.dtype)
    return convert(arithmetic.divide(full(x.shape, 1, wide.dtype), wide), x.dtype)


SAME_NAME = (
    "add", "subtract", "multiply", "divide", "negative", "absolute", "sign", "sqrt", "cbrt", "hypot", "power", "maximum", "minimum", "fmax",
    "fmin", "floor", "ceil", "trunc", "rint", "remainder", "fmod", "floor_divide", "gcd", "lcm", "copysign", "heaviside", "nextafter",
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "logaddexp2", "sin", "cos", "tan", "arcsin", "arccos",
    "arctan", "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "less", "less_equal", "greater", "greater_equal", "equal",
    "not_equal", "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "invert",
    "left_shift", "right_shift", "isnan", "isinf", "isfinite", "signbit",
)  # fmt: skip
"""The universal functions that are ops under NumPy's name."""

UFUNCS: dict[np.ufunc, Callable[..., Value]] = {getattr(np, name): _applying(name) for name in SAME_NAME} | {
    np.positive: lambda x: x, np.conjugate: lambda x: x, np.fabs: arithmetic.absolute, np.float_power: powers.power,
    np.square: lambda x: arithmetic.multiply(x, x), np.reciprocal: _reciprocal,
    np.ldexp: lambda x, n: powers.ldexp(x, convert(n, INT64)),
    np.deg2rad: _times(np.pi / 180), np.radians: _times(np.pi / 180), np.rad2deg: _times(180 / np.pi), np.degrees: _times(180 / np.pi),
}  # fmt: skip
"""The universal functions that exist, with the op each becomes."""

ON_BOOL = {np.logical_and, np.logical_or, np.logical_xor, np.logical_not}
OF_NOTHING_BUT_FLOATS = {np.isnan: False, np.isinf: False, np.isfinite: True}
IDENTITY_ON_INTEGERS = {np.floor, np.ceil, np.trunc, np.conjugate, np.positive}
COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
KEEPS_WEAK = {
    np.add, np.subtract, np.multiply, np.divide, np.power, np.negative, np.positive, np.absolute, np.floor_divide, np.remainder,
    np.left_shift, np.right_shift,
}  # fmt: skip
"""What Python's operators call: of Python numbers they give Python numbers; any other function gives NumPy's, which do not yield."""


def ufunc_dtypes(ufunc: np.ufunc, values: list[Value], dtype: Any = None) -> tuple[np.dtype, ...]:
    """Return the dtypes of operands and result by NumPy's own resolution (NEP 50); `dtype` asks for one of the result."""
    given = (*map(weak_type, values), None)
    try:
        if dtype is None:
            found = ufunc.resolve_dtypes(given)
        else:
            found = ufunc.resolve_dtypes(given, signature=(*(None,) * len(values), check_dtype_here(dtype, "dtype=")))
    except TypeError as error:
        listed = ", ".join(str(v.aval) for v in values)
        with_dtype = "" if dtype is None else f" with dtype={np.dtype(dtype)}"
        raise DTypeError(at_user_line(f"np.{ufunc.__name__} is not defined for {listed}{with_dtype}")) from error
    if any(each.name not in DTYPES for each in found):
        listed = ", ".join(str(v.aval) for v in values)
        raise DTypeError(
            at_user_line(f"np.{ufunc.__name__} of {listed} gives {found[-1]}, which is not supported: use .astype(np.float32) first")
        )
    return tuple(found)


def elementwise_value(ufunc: np.ufunc, *inputs: Any, dtype: Any = None) -> Value:
    """Return the value of `ufunc` for tracers, arrays and numbers."""
    values = [lift(x) for x in inputs]
    if ufunc is np.power and dtype is None and (short := _whole_power(values, inputs[1])) is not None:
        return short
    if ufunc in COMPARISONS and (known := _beyond_range(ufunc, values)) is not None:
        return known
    if ufunc not in KEEPS_WEAK:
        values = [strong(v) for v in values] if all(v.aval.weak for v in values) else values
    if ufunc is np.signbit and values[0].dtype.kind != "f":  # NumPy reads narrow integers as half floats
        return comparison.less(values[0], zeros_like(values[0]))
    dtypes = ufunc_dtypes(ufunc, values, dtype)
    if ufunc in OF_NOTHING_BUT_FLOATS and values[0].dtype.kind != "f":
        return full(values[0].shape, OF_NOTHING_BUT_FLOATS[ufunc], BOOL)
    weak = all(v.aval.weak for v in values)
    operands = [convert(v, BOOL) if ufunc in ON_BOOL else convert(v, d) for v, d in zip(values, dtypes, strict=False)]
    if ufunc in IDENTITY_ON_INTEGERS and dtypes[0].kind != "f":
        return operands[0]
    if weak:
        operands = [v if (number := constant_array(v)) is None else constant(number, weak=True) for v in operands]
    operands = together(operands, f"np.{ufunc.__name__}")
    if ufunc in COMPARISONS and operands[0].dtype != operands[1].dtype:
        return _compare_signed_with_unsigned(ufunc, *operands)
    return UFUNCS[ufunc](*operands)


def _beyond_range(ufunc: np.ufunc, values: list[Value]) -> Value | None:
    """Return the comparison with a Python integer that the other operand's dtype cannot hold: the same for all elements."""
    for place, (number, other) in enumerate(zip(values, reversed(values), strict=True)):
        known = constant_array(number)
        if known is None or not number.aval.weak or known.dtype.kind != "i" or other.dtype.kind not in "iu" or other.aval.weak:
            continue
        info = np.iinfo(other.dtype)
        if not info.min <= int(known) <= info.max:
            pair = (int(known), 0) if place == 0 else (0, int(known))
            return full(other.shape, bool(ufunc(*pair)), BOOL)
    return None


def _compare_signed_with_unsigned(ufunc: np.ufunc, x: Value, y: Value) -> Value:
    """Compare int64 with uint64 exactly, as NumPy does: a negative number is less than all others."""
    signed = x if x.dtype.kind == "i" else y
    negative = comparison.less(signed, full(signed.shape, 0, signed.dtype))
    answer = bool(ufunc(-1, 0)) if signed is x else bool(ufunc(0, -1))
    unsigned = np.dtype(np.uint64)
    return comparison.where(negative, full(signed.shape, answer, BOOL), UFUNCS[ufunc](convert(x, unsigned), convert(y, unsigned)))


def _whole_power(values: list[Value], exponent: Any) -> Value | None:
    """Return x**n by repeated multiplication where n is a small whole number known now."""
    x, p = values
    known = constant_array(p)
    if known is None or known.ndim != 0 or known.dtype.kind not in "iuf" or x.dtype.kind not in "iuf":
        return None
    n = float(known)
    if n < 0 and x.dtype.kind != "f" and known.dtype.kind != "f":
        if x.dtype.kind == "u" and p.aval.weak:
            return None
        raise IntegerPowerError(
            at_user_line(f"np.power: {x.aval} to the power of {known}: integers to negative integer powers are not allowed; use x ** {n}")
        )
    if n == 0.5 and x.dtype.kind == "f" and is_python_scalar(exponent):
        return powers.sqrt(x)
    if n != int(n if np.isfinite(n) else 0.5) or abs(n) > MAX_REPEATED:
        return None
    dtype = ufunc_dtypes(np.power, values)[0]
    return powers.integer_power(convert(x, dtype), int(n))


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return what `ufunc.method(*inputs, **options)` gives on tracers."""
    from staticgrad.tracing.functions import ufunc_method

    out = options.pop("out", None)
    if method != "__call__" or ufunc not in UFUNCS:
        return ufunc_method(ufunc, method, inputs, options, out)
    where = options.pop("where", True)
    dtype = options.pop("dtype", None)
    options.pop("casting", None)
    options.pop("order", None)
    options.pop("subok", None)
    if options:
        raise UnsupportedError(at_user_line(f"np.{ufunc.__name__}: keyword {next(iter(options))!r} is not supported on traced arrays"))
    result = elementwise_value(ufunc, *inputs, dtype=dtype)
    target = out[0] if isinstance(out, tuple) else out
    if where is not True:
        if target is None:
            raise ArgumentError(at_user_line(f"np.{ufunc.__name__}: where= without out= leaves undefined elements; use np.where"))
        mask, new, old = together([convert(lift(where), BOOL), result, lift(target)], f"np.{ufunc.__name__}")
        result = comparison.where(mask, convert(new, old.dtype), old)
    return tracer_of(result) if target is None else write_out(ufunc.__name__, target, result)


def _fits(shape: Shape, target: Shape) -> bool:
    ahead = len(target) - len(shape)
    return ahead >= 0 and all(n in (1, m) for n, m in zip(shape, target[ahead:], strict=True))


def write_out(name: str, target: Any, result: Value) -> Any:
    """Write `result` into `target` (an `out=` argument) and return it."""
    if not isinstance(target, Tracer):
        raise TraceError(
            at_user_line(
                f"np.{name}: a traced value cannot be written into a real NumPy array (out= or an operator such as +=); "
                "make the array with snp.zeros(...), np.zeros_like(x) or x.copy()"
            )
        )
    if not np.can_cast(result.dtype, target.dtype, "same_kind"):
        raise DTypeError(
            at_user_line(f"np.{name}: cannot cast the result from {result.dtype} to {target.dtype} with casting rule 'same_kind'")
        )
    if not _fits(result.shape, target.shape):
        raise ShapeError(at_user_line(f"np.{name}: the result {result.aval} does not fit out= of shape {target.shape}"))
    target.assign(result, f"np.{name} with out=")
    return target
