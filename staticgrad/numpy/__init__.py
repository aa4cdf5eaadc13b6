"""NumPy's namespace for traced code: what NumPy's own functions cannot catch, and everything else under the same names.

`np.sum(x)` and its like work on traced arrays as they are. Creation functions and lists do not reach them, so

    np.zeros(3)            a real array, which cannot hold traced values      snp.zeros(3)
    np.array([a, b])       an error                                           snp.array([a, b])
    np.full(3, a)          an error                                           snp.full(3, a)
    np.max([a, b])         an error                                           snp.max([a, b])

While a function is traced, creation functions give traced arrays that can be written; anywhere else all is NumPy's. Given tensors
(`sg.tensor`) the functions give tensors.

>>> import numpy as np
>>> import staticgrad.numpy as snp
>>> snp.stack([np.arange(2.0), snp.ones(2)])
array([[0., 1.],
       [1., 1.]])
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.numpy.grids import c_, r_
from staticgrad.tracing.context import tracing
from staticgrad.tracing.functions import FUNCTIONS, call_numpy_function, closest, creation
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.functions.table import CALLABLE_UFUNCS, invoke
from staticgrad.tracing.protocol import taker

_PLAIN = (
    "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "intp", "generic", "number",
    "integer", "signedinteger", "unsignedinteger", "inexact", "floating", "dtype", "ndarray", "finfo", "iinfo", "pi", "e", "inf", "nan",
    "euler_gamma", "newaxis", "broadcast_shapes", "promote_types", "issubdtype", "isscalar", "errstate", "s_", "index_exp", "ndindex",
    "ndenumerate",
)  # fmt: skip

_CREATION: dict[str, Callable[..., Any]] = {
    "array": creation.array, "asarray": creation.asarray, "asanyarray": creation.asarray, "ascontiguousarray": creation.asarray,
    "zeros": creation.zeros, "ones": creation.ones, "empty": creation.empty, "full": creation.full_, "arange": creation.arange,
    "zeros_like": creation.np_zeros_like, "ones_like": creation.np_ones_like, "empty_like": creation.np_empty_like,
    "full_like": creation.np_full_like, "copy": creation.np_copy, "linspace": creation.np_linspace,
}  # fmt: skip
_TABLES = ("eye", "identity", "tri", "logspace", "geomspace", "indices")


def _dispatching(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` such that traced values inside of lists are found too."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if tracing() and (holds_tracer(args) or holds_tracer(list(kwargs.values()))):
            return call_numpy_function(function, args, kwargs)
        takes = taker(args)
        return function(*args, **kwargs) if takes is None else takes(FUNCTIONS[function], args, kwargs)

    return call


def _creating(name: str, traced: Callable[..., Any]) -> Callable[..., Any]:
    """Return NumPy's function of that name, which gives a traced array while a function is traced."""
    function = getattr(np, name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if tracing():
            return invoke(traced, f"snp.{name}", args, kwargs)
        takes = taker(args)
        return function(*args, **kwargs) if takes is None else takes(traced, args, kwargs)

    return call


def _table(name: str) -> Callable[..., Any]:
    function = getattr(np, name)
    return lambda *args, **kwargs: creation.array(function(*args, **kwargs))


def _names() -> dict[str, Any]:
    found = {name: getattr(np, name) for name in _PLAIN}
    for name, member in vars(np).items():
        if isinstance(member, np.ufunc) and member in CALLABLE_UFUNCS:
            found[name] = member
        elif callable(member) and not isinstance(member, type) and not name.startswith("_") and member in FUNCTIONS:
            found[name] = _dispatching(member)
    return found | {name: _creating(name, traced) for name, traced in _CREATION.items()} | {n: _creating(n, _table(n)) for n in _TABLES}


_NAMESPACE: dict[str, Any] = _names()
globals().update(_NAMESPACE)

from staticgrad.numpy import fft, linalg  # noqa: E402  (they need _dispatching)

__all__ = ["c_", "fft", "linalg", "r_", *sorted(_NAMESPACE)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if hasattr(np, name):
        raise UnsupportedAttributeError(at_user_line(f"staticgrad.numpy.{name} is not supported; {closest(name, __all__)}"))
    raise MissingAttributeError(at_user_line(f"neither NumPy nor staticgrad.numpy has {name!r}; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)
