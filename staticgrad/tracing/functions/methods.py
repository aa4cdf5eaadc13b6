"""The methods and attributes of arrays that tracers have beyond shape and dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions.arguments import operand
from staticgrad.tracing.functions.picking import np_compress
from staticgrad.tracing.functions.selection import np_imag
from staticgrad.tracing.functions.shapes import flatten, np_reshape, np_transpose
from staticgrad.tracing.functions.sorting import partition_in_place, sort_in_place
from staticgrad.tracing.functions.table import FUNCTIONS, closest, invoke
from staticgrad.tracing.lift import check_dtype_here, convert, strong
from staticgrad.tracing.tracer import Tracer, tracer_of


def _reshape(x: Tracer, *shape: Any, order: Any = "C", copy: Any = None) -> Tracer:
    return np_reshape(x, shape[0] if len(shape) == 1 else shape, order, copy=copy)


def _transpose(x: Tracer, *axes: Any) -> Tracer:
    return np_transpose(x, (axes[0] if len(axes) == 1 else axes) if axes else None)


def _astype(x: Tracer, dtype: Any, order: Any = "K", casting: Any = "unsafe", subok: Any = True, copy: Any = True) -> Tracer:
    kind = check_dtype_here(dtype, f"astype of {x.aval}")
    if not np.can_cast(x.dtype, kind, casting):
        raise DTypeError(at_user_line(f".astype: cannot cast {x.aval} to {kind} with casting rule {casting!r}"))
    if not copy and kind == x.dtype:
        return x
    return tracer_of(strong(convert(x.value, kind)))


def _copy(x: Tracer, order: Any = "C") -> Tracer:
    return x.__copy__()


def _fill(x: Tracer, value: Any) -> None:
    x.assign(operand(value), ".fill")


def _compress(x: Tracer, condition: Any, axis: Any = None, out: Any = None) -> Tracer:
    return np_compress(condition, x, axis, out)


def _conjugate(x: Tracer, out: Any = None) -> Any:
    return np.conjugate(x) if out is None else np.conjugate(x, out=out)


METHODS: dict[str, Callable[..., Any]] = {
    "reshape": _reshape, "transpose": _transpose, "astype": _astype, "copy": _copy, "fill": _fill, "flatten": flatten,
    "compress": _compress, "conj": _conjugate, "conjugate": _conjugate, "sort": sort_in_place, "partition": partition_in_place,
}  # fmt: skip
METHODS |= {
    name: FUNCTIONS[getattr(np, name)]
    for name in (
        "sum", "prod", "max", "min", "argmax", "argmin", "any", "all", "mean", "var", "std", "clip", "dot", "ravel", "swapaxes",
        "squeeze", "repeat", "diagonal", "trace", "take", "put", "choose", "argsort", "argpartition", "searchsorted", "cumsum", "round",
    )
}  # fmt: skip
ATTRIBUTES: dict[str, Callable[[Tracer], Any]] = {"imag": np_imag, "device": lambda x: "cpu"}


def array_method(tracer: Tracer, name: str) -> Any:
    """Return the method `name` of a tracer, or an error that says what is near."""
    if name in ATTRIBUTES:
        return ATTRIBUTES[name](tracer)
    method = METHODS.get(name)
    if method is None:
        names = [*METHODS, *ATTRIBUTES, *(n for n in vars(Tracer) if not n.startswith("_"))]
        if hasattr(np.ndarray, name):
            raise UnsupportedAttributeError(at_user_line(f".{name} of a traced array is not supported; {closest(name, names)}"))
        raise MissingAttributeError(at_user_line(f"a traced array has no attribute {name!r}; {closest(name, names)}"))
    return functools.wraps(method)(functools.partial(_invoke, method, f".{name}", tracer))


def _invoke(method: Callable[..., Any], name: str, tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
    return invoke(method, name, (tracer, *args), kwargs)
