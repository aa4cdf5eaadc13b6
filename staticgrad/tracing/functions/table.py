"""The table of NumPy functions that tracers answer to, and what is said of those that are missing."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.ufuncs import UFUNCS

Handler = Callable[..., Any]
Decorated = TypeVar("Decorated", bound=Handler)

FUNCTIONS: dict[Handler, Handler] = {}
"""What does the work of each NumPy function when a tracer is among its arguments; same signature."""

CALLABLE_UFUNCS: set[np.ufunc] = set(UFUNCS)
"""The universal functions that can be called on tracers; `ufunc_methods` adds those made of several ops."""

RELATED = {
    "cumprod": ("cumsum", "prod"), "nonzero": ("where",), "unique": ("sort", "where"), "lexsort": ("argsort",),
    "piecewise": ("select", "where"), "putmask": ("copyto", "where"), "place": ("copyto", "where"), "cov": ("mean", "dot"),
    "corrcoef": ("mean", "dot"), "isin": ("equal", "any"), "apply_along_axis": ("stack",), "convolve": ("dot",), "correlate": ("dot",),
    "insert": ("concatenate",), "delete": ("concatenate",), "nanmedian": ("median",), "nanquantile": ("quantile",),
    "eig": ("linalg.eigh",), "eigvals": ("linalg.eigvalsh",), "modf": ("trunc", "fmod"),
    "spacing": ("nextafter",), "frexp": ("log2", "floor", "ldexp"), "unwrap": ("remainder",), "angle": ("arctan2",), "vander": ("power",),
}  # fmt: skip
"""What serves in place of a missing function whose name looks different."""


def implements(*functions: Handler | None) -> Callable[[Decorated], Decorated]:
    """Enter a handler for `functions`; None stands for one that this version of NumPy does not have."""

    def enter(handler: Decorated) -> Decorated:
        FUNCTIONS.update({function: handler for function in functions if function is not None})
        return handler

    return enter


def name_of(function: Any) -> str:
    """Return the name under which users call it: np.linalg.norm."""
    name = getattr(function, "__name__", repr(function))
    if isinstance(function, np.ufunc):
        return f"np.{name}" if getattr(np, name, None) is function else f"scipy.special.{name}"
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module.replace('numpy', 'np', 1)}.{name}"


def supported_names() -> list[str]:
    """Return the names of all functions and universal functions that work on tracers."""
    return sorted({name_of(function).removeprefix("np.") for function in (*FUNCTIONS, *CALLABLE_UFUNCS)})


def closest(name: str, names: list[str] | None = None) -> str:
    """Return the sentence that lists the supported names nearest to `name`."""
    names = supported_names() if names is None else names
    short = name.rpartition(".")[2]
    by_last = {full.rpartition(".")[2]: full for full in reversed(names)}
    related = [full for full in RELATED.get(short, ()) if full in names]
    inside = [full for last, full in by_last.items() if len(last) > 2 and (last in short or short in last)]
    alike = [by_last[last] for last in difflib.get_close_matches(short, by_last, 4, 0.7)]
    found = list(dict.fromkeys((*related, *sorted(inside, key=lambda full: -len(full)), *alike)))[:5]
    if not found:
        found = [by_last[last] for last in difflib.get_close_matches(short, by_last, 3, 0.0)]
    return f"the closest supported names are {', '.join(found)}"


def unsupported(name: str) -> UnsupportedError:
    """Return the error for a function that tracers do not know."""
    if name.startswith("np.fft."):
        return UnsupportedError(
            at_user_line(f"{name} needs complex numbers, which traced arrays cannot hold yet; transform real arrays outside of the trace")
        )
    return UnsupportedError(at_user_line(f"{name} is not supported on traced arrays; {closest(name)}"))


@functools.cache
def _signature(handler: Handler) -> inspect.Signature:
    return inspect.signature(handler)


def invoke(handler: Handler, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return `handler(*args, **kwargs)`; what it does not take is an error at the user's line."""
    try:
        bound = _signature(handler).bind(*args, **kwargs)
    except TypeError as error:
        unknown = [key for key in kwargs if key not in _signature(handler).parameters]
        if unknown:
            raise UnsupportedError(at_user_line(f"{name}: keyword {unknown[0]!r} is not supported on traced arrays")) from error
        raise ArgumentError(at_user_line(f"{name}: {error}")) from error
    try:
        return handler(*bound.args, **bound.kwargs)
    except (ShapeError, DTypeError) as error:
        if "\n  at " in str(error):
            raise
        raise type(error)(at_user_line(f"{name}: {error}")) from error


def call_numpy_function(function: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a NumPy function gives on tracers: the target of `__array_function__`."""
    handler = FUNCTIONS.get(function)
    if handler is None:
        raise unsupported(name_of(function))
    return invoke(handler, name_of(function), args, kwargs)
