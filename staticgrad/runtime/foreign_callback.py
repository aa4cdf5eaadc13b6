"""A Numba C callback around a user's function: pointers and extents in, 0 or the number of an exception out.

    def call(x0, x1, result, n0, m0):
        made = function(read_only(carray(x0, (n0,))), carray(x1, (1,))[0])
        if made.shape != (m0,):
            raise ResultShapeError(made.shape, (m0,))
        carray(result, (m0,))[...] = made

`guarded` calls this and, where it raised something, takes the GIL and hands the exception to Python. Functions that
launch threads of Numba's are called one at a time: of its pools, `workqueue` ends the process where two threads use it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numba.core.types
from llvmlite import ir
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from staticgrad.errors import ExecutionError
from staticgrad.ops.foreign import ForeignFunction, ResultShapeError

types: Any = numba.core.types  # most of its names are made at run time

I64 = ir.IntType(64)

PARALLEL_FOR = "numba_parallel_for"
"""What code calls that launches threads."""

launching = threading.RLock()
"""Held while a function runs that launches threads, and while the process forks, so that a child does not find it taken."""

acquire, release = launching.acquire, launching.release  # machine code holds the addresses of these two objects

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)


@intrinsic
def read_only(typing_context: Any, x: Any) -> Any:
    """Return an array as one that cannot be written to."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return values[0]

    return x.copy(readonly=True)(x), generate


@global_compiler_lock
def callback_of(known: ForeignFunction, keep_failure: Callable[[ExecutionError], int]) -> Any:
    """Return the C callback of a function; `keep_failure` gives the error it raised a number."""
    pointers, extents = _parameters(known)
    parameters = [*pointers, *extents]
    dtypes = [*(dtype for dtype, _ in known.operands), known.result]
    kinds = (*(types.CPointer(from_dtype(dtype)) for dtype in dtypes), *(types.int64 for _ in extents))
    names = {"function": known.function, "carray": numba.carray, "read_only": read_only, "ResultShapeError": ResultShapeError}
    call = numba.njit(_defined("call", parameters, _lines(known), names))
    call.compile(kinds)

    def keep(error: BaseException) -> int:
        return keep_failure(known.failure(error))

    guarded = _guarded(call.overloads[kinds], keep)
    entry = _defined("entry", parameters, [f"return guarded(({', '.join(parameters)},))"], {"guarded": guarded})
    callback = numba.cfunc(types.int64(*kinds))(entry)
    callback.kept = call, keep  # the machine code holds their addresses
    return callback


def _parameters(known: ForeignFunction) -> tuple[list[str], list[str]]:
    """Return the names of the pointers and of the extents."""
    extents = [f"n{k}_{axis}" for k, (_, rank) in enumerate(known.operands) for axis in range(rank)]
    return [*(f"x{k}" for k in range(len(known.operands))), "result"], [*extents, *(f"m{axis}" for axis in range(known.rank or 0))]


def _lines(known: ForeignFunction) -> Iterator[str]:
    """Yield the body of the function that calls the user's own."""
    operands = []
    for k, (_, rank) in enumerate(known.operands):
        shape = "".join(f"n{k}_{axis}, " for axis in range(rank))
        array = f"carray(x{k}, ({shape or '1,'}))"
        operands.append(f"{array}[0]" if not rank else f"{array}.copy()" if known.copies else f"read_only({array})")
    yield f"made = function({', '.join(operands)})"
    if known.rank:
        shape = "".join(f"m{axis}, " for axis in range(known.rank))
        yield f"if made.shape != ({shape}):"
        yield f"    raise ResultShapeError(made.shape, ({shape}))"
        yield f"carray(result, ({shape}))[...] = made"
    else:
        yield f"carray(result, (1,))[0] = made{'' if known.rank is None else '[()]'}"


def _defined(name: str, parameters: list[str], lines: Iterator[str] | list[str], names: dict[str, Any]) -> Any:
    """Return a function of these lines."""
    namespace = dict(names)
    exec("\n    ".join([f"def {name}({', '.join(parameters)}):", *lines]), namespace)
    return namespace[name]


def _guarded(compiled: Any, keep: Callable[[BaseException], int]) -> Any:
    """Return an intrinsic that calls compiled code with a tuple of arguments; the result is 0, or what `keep` makes of its exception."""
    launches = PARALLEL_FOR in compiled.library.get_llvm_str()

    @intrinsic
    def guarded(typing_context: Any, arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            context.active_code_library.add_linking_library(compiled.library)
            unpacked = cgutils.unpack_tuple(builder, values[0])
            if launches:
                _in_python(context, builder, acquire)
            status, _ = context.call_internal_no_propagate(builder, compiled.fndesc, compiled.signature, unpacked)
            number = cgutils.alloca_once_value(builder, I64(0))
            with cgutils.if_unlikely(builder, status.is_error):
                builder.store(_kept(context, builder, status, keep), number)
            if launches:
                _in_python(context, builder, release)
            return builder.load(number)

        return types.int64(arguments), generate

    return guarded


def _in_python(context: Any, builder: Any, function: Callable[[], Any]) -> None:
    """Emit a call into Python, of a function that is kept alive and raises nothing."""
    api = context.get_python_api(builder)
    lock = api.gil_ensure()
    api.decref(api.call_function_objargs(_object(context, api, function), ()))
    api.gil_release(lock)


def _object(context: Any, api: Any, value: Any) -> Any:
    """Return an object that is kept alive as a constant of machine code that stays in this process."""
    return context.get_constant(types.uintp, id(value)).inttoptr(api.pyobj)


def _kept(context: Any, builder: Any, status: Any, keep: Callable[[BaseException], int]) -> Any:
    """Emit the way of an exception into Python; return the number that it got there."""
    api = context.get_python_api(builder)
    lock = api.gil_ensure()
    context.call_conv.raise_error(builder, api, status)
    kind, error, trace = (cgutils.alloca_once_value(builder, cgutils.get_null_value(api.pyobj)) for _ in range(3))
    api.err_fetch(kind, error, trace)
    places = ir.FunctionType(ir.VoidType(), [api.pyobjptr] * 3)
    builder.call(cgutils.get_or_insert_function(builder.module, places, "PyErr_NormalizeException"), (kind, error, trace))
    with cgutils.if_likely(builder, cgutils.is_not_null(builder, builder.load(trace))):
        setting = ir.FunctionType(ir.IntType(32), [api.pyobj] * 2)
        setter = cgutils.get_or_insert_function(builder.module, setting, "PyException_SetTraceback")
        builder.call(setter, (builder.load(error), builder.load(trace)))
    answer = api.call_function_objargs(_object(context, api, keep), (builder.load(error),))
    number = cgutils.alloca_once_value(builder, I64(-1))
    with builder.if_else(cgutils.is_not_null(builder, answer)) as (kept, lost):
        with kept:
            builder.store(api.long_as_longlong(answer), number)
            api.decref(answer)
        with lost:
            api.err_clear()
    for place in (kind, error, trace):
        api.decref(builder.load(place))
    api.gil_release(lock)
    return builder.load(number)
