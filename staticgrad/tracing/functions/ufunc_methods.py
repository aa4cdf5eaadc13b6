"""Universal functions beyond the plain call of an op: reduce, outer, at, matrix products, and those made of several ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import TraceError, UnsupportedError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops import arithmetic
from staticgrad.tracing.functions.arguments import as_tracer, deliver, operand
from staticgrad.tracing.functions.contractions import MATRIX_UFUNCS
from staticgrad.tracing.functions.reductions import extremum_of, logical_of, prod_of, sum_of
from staticgrad.tracing.functions.special import is_scipy, special_value
from staticgrad.tracing.functions.table import CALLABLE_UFUNCS, closest, name_of
from staticgrad.tracing.lift import check_dtype_here, convert, lift, promoted, together
from staticgrad.tracing.tracer import Tracer
from staticgrad.tracing.ufuncs import UFUNCS, elementwise_value
from staticgrad.tracing.views import ReshapeView

REDUCTIONS: dict[np.ufunc, Callable[..., Value]] = {
    np.add: lambda x, axis, dtype, **more: sum_of(x, axis, dtype, name="np.add.reduce", **more),
    np.multiply: lambda x, axis, dtype, **more: prod_of(x, axis, dtype, name="np.multiply.reduce", **more),
    np.maximum: lambda x, axis, dtype, **more: extremum_of(x, axis, name="np.maximum.reduce", **more),
    np.minimum: lambda x, axis, dtype, **more: extremum_of(x, axis, greatest=False, name="np.minimum.reduce", **more),
    np.logical_and: lambda x, axis, dtype, **more: logical_of("np.logical_and.reduce", x, axis, everywhere=True, **more),
    np.logical_or: lambda x, axis, dtype, **more: logical_of("np.logical_or.reduce", x, axis, **more),
}


def _reciprocal(x: Value) -> Value:
    return arithmetic.divide(full(x.shape, 1, x.dtype), x)


COMPOSITES: dict[str, Callable[..., Value]] = {"reciprocal": _reciprocal}
"""Universal functions of NumPy on floats, by name."""


def _enter_names() -> None:
    CALLABLE_UFUNCS.update({getattr(np, name) for name in (*COMPOSITES, *MATRIX_UFUNCS) if isinstance(getattr(np, name, None), np.ufunc)})


_enter_names()


def ufunc_method(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
    """Return what a universal function without an op, or a method of one, gives on tracers."""
    if method == "__call__":
        return _call(ufunc, inputs, options, out)
    name = f"{name_of(ufunc)}.{method}"
    if method == "reduce" and ufunc in REDUCTIONS:
        (x,) = inputs
        axis, dtype = options.pop("axis", 0), options.pop("dtype", None)
        return deliver(name, REDUCTIONS[ufunc](operand(x), axis, dtype, **options), out)
    if method == "outer" and ufunc in CALLABLE_UFUNCS and ufunc.nin == 2 and ufunc.signature is None:
        x, y = map(as_tracer, inputs)
        return ufunc(x.view(ReshapeView((*x.shape, *(1,) * y.ndim))), y, **options, **({} if out is None else {"out": out}))
    if method == "at" and ufunc in CALLABLE_UFUNCS:
        return _at(ufunc, *inputs)
    known = [f"np.{each.__name__}.reduce" for each in REDUCTIONS] if method == "reduce" else ["reduce", "outer", "at"]
    raise UnsupportedError(at_user_line(f"{name} is not supported on traced arrays; supported are {', '.join(known)}"))


def _call(ufunc: np.ufunc, inputs: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
    name = name_of(ufunc)
    if is_scipy(ufunc):
        return deliver(ufunc.__name__, special_value(ufunc, [lift(x) for x in inputs], options), out)
    composite = COMPOSITES.get(ufunc.__name__)
    if ufunc.__name__ in MATRIX_UFUNCS and options.keys() <= {"dtype", "casting"}:
        x, y = map(operand, inputs)
        if options.get("dtype") is not None:
            x, y = (convert(v, check_dtype_here(options["dtype"], "dtype=")) for v in (x, y))
        return deliver(ufunc.__name__, MATRIX_UFUNCS[ufunc.__name__](x, y), out)
    if composite is None or options:
        keyword = f" with {next(iter(options))}=" if options and ufunc in CALLABLE_UFUNCS else ""
        raise UnsupportedError(at_user_line(f"{name}{keyword} is not supported on traced arrays; {closest(ufunc.__name__)}"))
    values = promoted(*map(lift, inputs))
    floats = [convert(v, FLOAT64) if v.dtype.kind != "f" else v for v in values]
    return deliver(ufunc.__name__, composite(*together(floats, name)), out)


def _at(ufunc: np.ufunc, target: Any, index: Any, *operands: Any) -> None:
    """Write the function of a part into that part; with a basic index no element occurs twice."""
    if not isinstance(target, Tracer):
        raise TraceError(
            at_user_line(f"{name_of(ufunc)}.at: a real NumPy array cannot hold traced values; make it with snp.zeros(...) or x.copy()")
        )
    part = target.view()[index]
    new = elementwise_value(ufunc, part, *operands) if ufunc in UFUNCS else lift(ufunc(part, *operands))
    target[index] = new
