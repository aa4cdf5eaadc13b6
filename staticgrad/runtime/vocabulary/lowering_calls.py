"""Addresses for Numba's compiler: pointers made of integers, copies of bytes, calls through a pointer."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import lower_builtin

from staticgrad.runtime.vocabulary import calls
from staticgrad.runtime.vocabulary.lowering import I1, I8, I64, pointer_to, typing_rule

BYTES = I8.as_pointer()


@typing_rule(calls.pointer)
def _pointer_rule(address: Any, dtype: Any) -> Any:
    fits = isinstance(address, types.Integer) and isinstance(dtype, types.NumberClass)
    return pointer_to(dtype.instance_type) if fits else None


@lower_builtin(calls.pointer, types.Any, types.Any)
def _lower_pointer(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], context.get_value_type(sig.return_type))


@typing_rule(calls.copy_bytes)
def _copy_rule(target: Any, source: Any, size: Any) -> Any:
    return types.none if target == source == size == types.int64 else None


@lower_builtin(calls.copy_bytes, types.int64, types.int64, types.int64)
def _lower_copy(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    target, source, size = args
    kind = ir.FunctionType(ir.VoidType(), [BYTES, BYTES, I64, I1])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.memcpy.p0i8.p0i8.i64")
    builder.call(function, [builder.inttoptr(target, BYTES), builder.inttoptr(source, BYTES), size, I1(0)])
    return context.get_dummy_value()


@typing_rule(calls.call_stage)
def _call_rule(address: Any, table: Any, workspace: Any, context: Any) -> Any:
    wanted = (types.int64, types.int64, pointer_to(types.uint8), pointer_to(types.int64))
    return types.int64 if (address, table, workspace, context) == wanted else None


@lower_builtin(calls.call_stage, types.int64, types.int64, types.Any, types.Any)
def _lower_call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address, table, workspace, words = args
    kind = ir.FunctionType(I64, [BYTES, BYTES, BYTES])
    stage = builder.inttoptr(address, kind.as_pointer())
    return builder.call(stage, [builder.inttoptr(table, BYTES), builder.bitcast(workspace, BYTES), builder.bitcast(words, BYTES)])
