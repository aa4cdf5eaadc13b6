"""Calls that leave a unit for Numba's compiler: of a symbol that is resolved where the machine code is linked, and of `poll`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import lower_builtin

from staticgrad.ir.context import CODE, INDEX, NODE, POLL, WORK_LEFT
from staticgrad.ir.loops import EXTERNAL_FAILED, WORK_BETWEEN_POLLS
from staticgrad.runtime.vocabulary import memory
from staticgrad.runtime.vocabulary.lowering import I8, I64, pointer_to, types, typing_rule

BYTES = I8.as_pointer()


@typing_rule(memory.call_external)
def _call_rule(context: Any, symbol: Any, *operands: Any) -> Any:
    fits = all(isinstance(kind, (types.CPointer, types.Integer, types.IntegerLiteral)) for kind in operands)
    return types.none if isinstance(symbol, types.StringLiteral) and context == pointer_to(types.int64) and fits else None


@lower_builtin(memory.call_external, types.Any, types.StringLiteral, types.VarArg(types.Any))
def _lower_call(target: Any, builder: Any, sig: Any, args: Any) -> Any:
    words, _, *operands = args
    with cgutils.if_likely(builder, builder.icmp_signed("==", builder.load(words), I64(0))):
        values = [
            builder.bitcast(value, BYTES) if isinstance(kind, types.CPointer) else target.cast(builder, value, kind, types.int64)
            for value, kind in zip(operands, sig.args[2:], strict=True)
        ]
        function = ir.FunctionType(I64, [value.type for value in values])
        number = builder.call(cgutils.get_or_insert_function(builder.module, function, sig.args[1].literal_value), values)
        with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, number)):
            for position, value in zip((CODE, NODE, INDEX), (I64(EXTERNAL_FAILED), I64(0), number), strict=True):
                builder.store(value, builder.gep(words, [I64(position)]))
    return target.get_dummy_value()


@typing_rule(memory.poll)
def _poll_rule(context: Any, work: Any) -> Any:
    return types.boolean if context == pointer_to(types.int64) and isinstance(work, types.Integer) else None


@lower_builtin(memory.poll, types.Any, types.Any)
def _lower_poll(target: Any, builder: Any, sig: Any, args: Any) -> Any:
    words, work = args[0], target.cast(builder, args[1], sig.args[1], types.int64)
    place = builder.gep(words, [I64(WORK_LEFT)])
    left = builder.sub(builder.load(place), work)
    builder.store(left, place)
    with cgutils.if_unlikely(builder, builder.icmp_signed("<", left, I64(0))):
        builder.store(I64(WORK_BETWEEN_POLLS), place)
        function = ir.FunctionType(ir.VoidType(), [BYTES]).as_pointer()
        poll = builder.inttoptr(builder.load(builder.gep(words, [I64(POLL)])), function)
        with cgutils.if_likely(builder, cgutils.is_not_null(builder, poll)):
            builder.call(poll, [builder.bitcast(words, BYTES)])
    return builder.icmp_signed("==", builder.load(words), I64(0))
