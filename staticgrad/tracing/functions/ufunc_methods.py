"""Universal functions beyond the plain call of an op: reduce, outer, at, matrix products, and those of two results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import TraceError, UnsupportedError
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions.arguments import as_tracer, deliver, operand
from staticgrad.tracing.functions.contractions import MATRIX_UFUNCS
from staticgrad.tracing.functions.picking import at_arrays
from staticgrad.tracing.functions.reductions import extremum_of, logical_of, prod_of, sum_of
from staticgrad.tracing.functions.sorting import running_sum
from staticgrad.tracing.functions.special import is_scipy, special_value
from staticgrad.tracing.functions.table import CALLABLE_UFUNCS, closest, name_of
from staticgrad.tracing.indexing import PickView, parsed
from staticgrad.tracing.lift import check_dtype_here, convert, lift
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


PAIRS: dict[np.ufunc, tuple[np.ufunc, np.ufunc]] = {np.divmod: (np.floor_divide, np.remainder)}
"""The universal functions of two results, with the one that gives each."""


def _enter_names() -> None:
    CALLABLE_UFUNCS.update(PAIRS)
    CALLABLE_UFUNCS.update({getattr(np, name) for name in MATRIX_UFUNCS if isinstance(getattr(np, name, None), np.ufunc)})


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
    if method == "accumulate" and ufunc is np.add:
        (x,) = inputs
        return deliver(name, running_sum(operand(x), options.pop("axis", 0), options.pop("dtype", None), name), out)
    if method == "outer" and ufunc in CALLABLE_UFUNCS and ufunc.nin == 2 and ufunc.signature is None:
        x, y = map(as_tracer, inputs)
        return ufunc(x.view(ReshapeView((*x.shape, *(1,) * y.ndim))), y, **options, **({} if out is None else {"out": out}))
    if method == "at" and ufunc in CALLABLE_UFUNCS:
        return _at(ufunc, *inputs)
    known = [f"np.{each.__name__}.reduce" for each in REDUCTIONS] if method == "reduce" else ["add.accumulate", "reduce", "outer", "at"]
    raise UnsupportedError(at_user_line(f"{name} is not supported on traced arrays; supported are {', '.join(known)}"))


def _call(ufunc: np.ufunc, inputs: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
    name = name_of(ufunc)
    if ufunc in PAIRS:
        targets = (None, None) if out is None else out
        keywords = [options if target is None else {**options, "out": target} for target in targets]
        return tuple(each(*inputs, **own) for each, own in zip(PAIRS[ufunc], keywords, strict=True))
    if is_scipy(ufunc):
        return deliver(ufunc.__name__, special_value(ufunc, [lift(x) for x in inputs], options), out)
    if ufunc.__name__ in MATRIX_UFUNCS and options.keys() <= {"dtype", "casting"}:
        x, y = map(operand, inputs)
        if options.get("dtype") is not None:
            x, y = (convert(v, check_dtype_here(options["dtype"], "dtype=")) for v in (x, y))
        return deliver(ufunc.__name__, MATRIX_UFUNCS[ufunc.__name__](x, y), out)
    keyword = f" with {next(iter(options))}=" if options and ufunc in CALLABLE_UFUNCS else ""
    raise UnsupportedError(at_user_line(f"{name}{keyword} is not supported on traced arrays; {closest(ufunc.__name__)}"))


def _at(ufunc: np.ufunc, target: Any, index: Any, *operands: Any) -> None:
    """Write the function of a part into that part: of each element as often as it occurs."""
    if not isinstance(target, Tracer):
        raise TraceError(
            at_user_line(f"{name_of(ufunc)}.at: a real NumPy array cannot hold traced values; make it with snp.zeros(...) or x.copy()")
        )
    *basic, last = parsed(index, target.shape)[0]
    if isinstance(last, PickView):
        at_arrays(ufunc, target.part(tuple(basic)), last, operands)
        return
    part = target.view()[index]
    new = elementwise_value(ufunc, part, *operands) if ufunc in UFUNCS else lift(ufunc(part, *operands))
    target[index] = new
