"""Numba dispatchers of units that llvmlite compiled: functions of one line that the unit is linked into.

The unit becomes part of every function that calls the dispatcher, so that a user's own `cache=True` function holds it too and
survives the next process. A unit that calls functions of this process is called at its address, and Numba caches no caller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from staticgrad.ir.loops import symbol
from staticgrad.runtime.llvm_compile import optimised
from staticgrad.runtime.vocabulary.kernel import numba_type
from staticgrad.runtime.vocabulary.lowering import types

STAGE_TYPES = ("void**", "u8*", "i64*")

BYTES, I64 = ir.IntType(8).as_pointer(), ir.IntType(64)


class _FinishedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """A library of code that is optimised already."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Leave the functions as they are."""

    def _optimize_final_module(self) -> None:
        """Leave the module as it is."""


@functools.lru_cache(maxsize=64)
def _library(name: str, text: str) -> Any:
    """Return the unit as a library that Numba links."""
    from numba.core.registry import cpu_target

    library = _FinishedLibrary(cpu_target.target_context.codegen(), name)
    library.add_llvm_module(optimised(name, text))
    library.finalize()
    return library


STAGE = ir.FunctionType(I64, [BYTES] * 3)


def linked(name: str, text: str, stage: str) -> Any:
    """Return the dispatcher of a stage, which holds the unit."""

    def function(target: Any, builder: Any) -> Any:
        target.active_code_library.add_linking_library(_library(name, text))
        return cgutils.get_or_insert_function(builder.module, STAGE, symbol(name, stage))

    return _dispatcher(stage, function)


def calling(address: int, stage: str) -> Any:
    """Return the dispatcher of a stage that is called at its address."""
    return _dispatcher(stage, lambda target, builder: builder.bitcast(target.add_dynamic_addr(builder, address, stage), STAGE.as_pointer()))


@global_compiler_lock
def _dispatcher(stage: str, function: Callable[[Any, Any], Any]) -> Any:
    """Return a dispatcher that is compiled for the one signature of stages; it calls what `function` emits."""
    kinds = tuple(numba_type(kind) for kind in STAGE_TYPES)

    @intrinsic
    def call_unit(typing_context: Any, arguments: Any, workspace: Any, context: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.call(function(target, builder), [builder.bitcast(value, BYTES) for value in values])

        return types.int64(*kinds), generate

    def forward(arguments: Any, workspace: Any, context: Any) -> Any:
        return call_unit(arguments, workspace, context)

    def backward(arguments: Any, workspace: Any, context: Any) -> Any:
        return call_unit(arguments, workspace, context)

    dispatcher = numba.njit(nogil=True)(forward if stage == "forward" else backward)
    dispatcher.compile(kinds)
    dispatcher.disable_compile()
    return dispatcher
