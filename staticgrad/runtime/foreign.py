"""Foreign functions for machine code: what Numba makes of a user's function, an address to call it at, and what it raised.

    int64 symbol(operand pointers..., result pointer, int64 extents of the operands..., of the result...)

The address is that of a Numba C callback around the function. It returns 0, or the number of an exception, which is kept until
someone asks for it; nothing that is raised ends in the callback.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, ExecutionError
from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.loops import EXTERNAL_FAILED, FAILURES
from staticgrad.ops.foreign import FUNCTIONS, ForeignFunction, call_flat

KEPT = 64
"""So many failures that nobody asked for are kept, of threads that run compiled code outside of Python."""

_failures: OrderedDict[int, ExecutionError] = OrderedDict()
_numbers = itertools.count(1)
_addresses: dict[str, int] = {}
_alive: list[Any] = []  # callbacks: code is never unloaded


# ---- failures


def keep_failure(error: ExecutionError) -> int:
    """Keep what a function raised; return the number under which `kept_failure` finds it."""
    number = next(_numbers)
    _failures[number] = error
    while len(_failures) > KEPT:
        _failures.popitem(last=False)
    return number


def kept_failure(number: int) -> ExecutionError:
    """Return what was kept under a number, once."""
    return _failures.pop(number, None) or ExecutionError(FAILURES[EXTERNAL_FAILED])


def call_in_python(symbol: str, operands: Sequence[Any]) -> int:
    """Call a foreign function with flat arrays, then extents; return 0 or the number of its failure."""
    error = call_flat(symbol, operands)
    return 0 if error is None else keep_failure(error)


# ---- typing


@dataclass(frozen=True)
class Inferred:
    """What Numba says of a function for certain operands; `rank` is None for a number."""

    dtype: np.dtype
    rank: int | None
    copies: bool


def without_jit() -> bool:
    """Return whether NUMBA_DISABLE_JIT is set: then `@njit` functions are plain ones."""
    import numba

    return bool(numba.config.DISABLE_JIT)


def check_dispatcher(function: Any, name: str) -> None:
    """Raise `ArgumentError` unless Numba compiles `function`."""
    from numba.core.registry import CPUDispatcher

    if isinstance(function, CPUDispatcher) or (without_jit() and callable(function)):
        return
    if callable(function):
        raise ArgumentError(f"sg.njit_op: {name} is not compiled by Numba: decorate it with @numba.njit first, or call it as it is, traced")
    raise ArgumentError(f"sg.njit_op takes a function that is decorated with @numba.njit, not {type(function).__name__}")


def infer(function: Any, name: str, avals: Sequence[Aval]) -> Inferred:
    """Return what `function` makes of operands; Numba compiles it for their dtypes and numbers of axes.

    Arrays are read-only for it. A function that needs to write into them gets copies.

    Raises
    ------
    DTypeError
        If Numba cannot compile the function for them, or the result is no array or number of a dtype that graphs hold.
    """
    if without_jit():
        return _observed(function, name, avals)
    from numba.core.errors import NumbaError

    for copies in (False, True):
        try:
            returned = _returned(function, [_numba_type(aval.dtype, aval.rank, copies) for aval in avals])
        except (NumbaError, TypeError) as error:
            problem = error
        else:
            return _of_type(returned, name, copies)
    given = ", ".join(map(str, avals))
    raise DTypeError(f"{name}: Numba cannot compile it for ({given}): {str(problem).strip()}") from problem


def _numba_type(dtype: np.dtype, rank: int, writable: bool) -> Any:
    from numba.core import types
    from numba.np.numpy_support import from_dtype

    kind = from_dtype(dtype)
    return types.Array(kind, rank, "C", readonly=not writable) if rank else kind


def _returned(function: Any, kinds: Sequence[Any]) -> Any:
    template, _, folded, _ = function.get_call_template(tuple(kinds), {})
    signature = template(function.typingctx).apply(folded, {})
    if signature is None:
        raise TypeError(f"its signatures are {', '.join(map(str, function.nopython_signatures))}")
    return signature.return_type


def _of_type(returned: Any, name: str, copies: bool) -> Inferred:
    import numba.core.types
    from numba.np.numpy_support import as_dtype

    types: Any = numba.core.types  # most of its names are made at run time
    kind = types.unliteral(returned)
    rank = kind.ndim if isinstance(kind, types.Array) else None
    element = kind.dtype if isinstance(kind, types.Array) else kind
    if isinstance(element, (types.Number, types.Boolean)):
        dtype = DTYPES.get(as_dtype(element).name)
        if dtype is not None:
            return Inferred(dtype, rank, copies)
    raise DTypeError(f"{name} returns {kind} (Numba's type); it must return one array or number of dtype {', '.join(DTYPES)}")


def _observed(function: Any, name: str, avals: Sequence[Aval]) -> Inferred:
    """Return the same from a call with ones, where there is no compiler to ask (NUMBA_DISABLE_JIT)."""
    result = function(*(np.ones(aval.shape, aval.dtype)[()] for aval in avals))
    array = np.asarray(result)
    if array.dtype.name not in DTYPES or isinstance(result, (tuple, list)):
        raise DTypeError(f"{name} returns {type(result).__name__}; it must return one array or number of dtype {', '.join(DTYPES)}")
    return Inferred(DTYPES[array.dtype.name], array.ndim if isinstance(result, np.ndarray) else None, copies=True)


# ---- addresses


def address_of(symbol: str) -> int:
    """Return where machine code calls a foreign function; it is compiled at the first request."""
    if symbol not in _addresses:
        known = FUNCTIONS[symbol]
        if without_jit():
            callback: Any = _python_callback(known)
            address = ctypes.cast(callback, ctypes.c_void_p).value or 0
        else:
            from staticgrad.runtime.foreign_callback import callback_of

            callback = callback_of(known, keep_failure)
            address = callback.address
        _alive.append(callback)
        _addresses[symbol] = address
    return _addresses[symbol]


def _python_callback(known: ForeignFunction) -> Any:
    dtypes = [*(dtype for dtype, _ in known.operands), known.result]
    count, extents = len(dtypes), sum(rank for _, rank in known.operands) + (known.rank or 0)

    def run(*arguments: int) -> int:
        from staticgrad.runtime.vocabulary.calls import pointer

        return call_in_python(known.symbol, [*map(pointer, arguments[:count], dtypes), *arguments[count:]])

    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * count, *[ctypes.c_int64] * extents)(run)
