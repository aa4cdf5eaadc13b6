"""`kernel`: what emitted functions are decorated with.

Numba compiles a kernel when it is first needed, for the one signature that the decorator names. Kernels with equal code are one
object, whatever unit they come from and whatever their variables are called.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import types as python_types
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import VerificationError

_kernels: dict[str, Any] = {}
_lock = threading.Lock()

SCALARS = ("bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64")


def parse_signature(text: str) -> tuple[str, ...]:
    """Return the parameters of a signature: "f32*, i64" -> ("f32*", "i64")."""
    parameters = tuple(part.strip() for part in text.split(",") if part.strip())
    for parameter in parameters:
        if parameter != "void**" and parameter.removesuffix("*") not in SCALARS:
            raise VerificationError(f"{parameter!r} in {text!r} is none of {', '.join(SCALARS)}, a pointer to one of them, or void**")
    return parameters


def numba_type(parameter: str) -> Any:
    """Return the Numba type of a parameter: "f32*" -> CPointer(float32)."""
    from staticgrad.runtime.vocabulary.lowering import pointer_to, types

    if parameter == "void**":
        return types.CPointer(types.voidptr)
    name = parameter.removesuffix("*")
    names = {"i": "int", "u": "uint", "f": "float"}
    scalar = types.boolean if name == "bool" else getattr(types, names[name[0]] + name[1:])
    return pointer_to(scalar) if parameter.endswith("*") else scalar


def kernel(signature: str, *, entry: bool = False, disjoint: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a Numba dispatcher (plain Python under NUMBA_DISABLE_JIT).

    Parameters
    ----------
    signature
        The types of the parameters: "f32*, i64".
    entry
        A stage of a unit: it returns an int64 and is exported with the C ABI.
    disjoint
        What is written through one pointer is not reached through another, so loops need no checks before they are vectorised.
    """
    parameters = parse_signature(signature)

    def decorate(function: Callable[..., Any]) -> Any:
        import numba

        if numba.config.DISABLE_JIT:
            return plain(signature, entry=entry)(function)
        from numba.core.compiler_lock import global_compiler_lock

        with global_compiler_lock:  # Numba's tables are not meant to grow while a thread compiles
            import staticgrad.runtime.vocabulary.lowering_external
            import staticgrad.runtime.vocabulary.lowering_lanes
            import staticgrad.runtime.vocabulary.lowering_parallel  # noqa: F401
        from staticgrad.runtime.vocabulary.pipeline import DisjointKernelCompiler, KernelCompiler

        key = content_key(function, (parameters, entry, disjoint))
        with _lock:
            if key not in _kernels:
                dispatcher = numba.njit(
                    error_model="numpy",
                    nogil=True,
                    boundscheck=False,
                    fastmath=False,
                    pipeline_class=DisjointKernelCompiler if disjoint else KernelCompiler,
                )(function)
                dispatcher.kernel_key, dispatcher.kernel_parameters = key, parameters
                dispatcher.kernel_entry, dispatcher.kernel_disjoint = entry, disjoint
                _kernels[key] = dispatcher
            return _kernels[key]

    return decorate


def plain(signature: str, *, entry: bool = False, disjoint: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator in place of `kernel` that leaves functions as they are, but for NumPy's warnings: overflow is no surprise."""

    def decorate(function: Callable[..., Any]) -> Any:
        if not entry:
            return function

        @functools.wraps(function)
        def run(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*arguments)

        return run

    return decorate


def content_key(function: Any, options: tuple[Any, ...]) -> str:
    """Return a hash of all that decides what `function` computes; names of variables and the docstring do not."""
    code = function.__code__
    constants = [None if position == 0 and value == function.__doc__ else value for position, value in enumerate(code.co_consts)]
    names = [_meaning(function.__globals__.get(name, name)) for name in code.co_names]
    described = (options, code.co_code.hex(), code.co_argcount, [(type(c).__name__, repr(c)) for c in constants], names)
    return hashlib.sha256(repr(described).encode()).hexdigest()[:24]


def _meaning(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, python_types.ModuleType):
        return value.__name__
    if isinstance(value, (int, float)):  # a constant of the module
        return repr(value)
    if (key := getattr(value, "kernel_key", None)) is not None:
        return f"kernel {key}"
    return f"{value.__module__}.{value.__qualname__}"
