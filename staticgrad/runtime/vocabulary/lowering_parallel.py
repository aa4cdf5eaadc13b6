"""Parallel blocks for Numba's compiler: by the `parallel_for` of the context, or one after the other where it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.funcdesc import ExternalFunctionDescriptor
from numba.extending import lower_builtin, overload

from staticgrad.ir.context import PARALLEL_FOR
from staticgrad.runtime.vocabulary import memory
from staticgrad.runtime.vocabulary.lowering import I8, I64, types, typing_rule

BYTES = I8.as_pointer()


@typing_rule(memory.parallel)
def _parallel_rule(task: Any, blocks: Any, arguments: Any, workspace: Any, context: Any) -> Any:
    return types.none if isinstance(task, types.ExternalFunction) else None


@lower_builtin(memory.parallel, *[types.Any] * 5)
def _lower_parallel(target: Any, builder: Any, sig: Any, args: Any) -> Any:
    kernel, (_, count, *pointers) = sig.args[0], args
    blocks = target.cast(builder, count, sig.args[1], types.int64)
    task = target.declare_external_function(
        builder.module, ExternalFunctionDescriptor(kernel.symbol, kernel.sig.return_type, kernel.sig.args)
    )
    place = builder.gep(pointers[2], [I64(PARALLEL_FOR)])
    driver = builder.inttoptr(builder.load(place), ir.FunctionType(ir.VoidType(), [BYTES, I64, BYTES, BYTES, BYTES]).as_pointer())
    with builder.if_else(cgutils.is_not_null(builder, driver)) as (shared, serial):
        with shared:
            table, workspace, words = (builder.bitcast(pointer, BYTES) for pointer in pointers)
            builder.call(driver, [builder.bitcast(task, BYTES), blocks, table, workspace, words])
        with serial, cgutils.for_range(builder, blocks) as loop:
            builder.call(task, [*pointers, loop.index])
    return target.get_dummy_value()


@typing_rule(memory.pointers)
def _pointers_rule(*places: Any) -> Any:
    return types.CPointer(types.voidptr) if all(isinstance(place, types.CPointer) for place in places) else None


@lower_builtin(memory.pointers, types.VarArg(types.Any))
def _lower_pointers(target: Any, builder: Any, sig: Any, args: Any) -> Any:
    table = cgutils.alloca_once(builder, BYTES, size=I64(len(args)))
    for number, place in enumerate(args):
        builder.store(builder.bitcast(place, BYTES), builder.gep(table, [I64(number)]))
    return table


@overload(memory.parallel)
def _in_order(task: Any, blocks: Any, arguments: Any, workspace: Any, context: Any) -> Callable[..., None] | None:
    """Run the blocks of a kernel that Numba itself calls in order: in the dispatchers of a unit."""
    if not isinstance(task, types.Dispatcher):
        return None

    def run(task: Any, blocks: Any, arguments: Any, workspace: Any, context: Any) -> None:
        for block in range(blocks):
            task(arguments, workspace, context, block)

    return run
