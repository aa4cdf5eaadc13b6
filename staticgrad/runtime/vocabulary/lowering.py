"""The vocabulary for Numba's compiler: how each name is typed and which LLVM instructions it becomes.

Scalars and lanes share the code, as LLVM's instructions take vectors. Undefined results (poison) are always guarded by a
`select`, undefined behaviour (a division by zero) by a safe operand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numba.core.types
from llvmlite import ir
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from staticgrad.ir.context import CODE, INDEX, NODE
from staticgrad.runtime.vocabulary import memory, scalars

types: Any = numba.core.types  # most of its names are made at run time

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):  # type: ignore[misc]
    """A vector of `count` values."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"Lanes({dtype}, {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        element = manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))


class FlagPointer(types.CPointer):  # type: ignore[misc]
    """A pointer to flags, bytes in memory (Numba stores a bit through its own `CPointer(boolean)`)."""

    def __init__(self) -> None:
        super().__init__(types.boolean)


register_model(FlagPointer)(models.PointerModel)


def pointer_to(dtype: Any) -> Any:
    """Return the Numba type of a pointer to `dtype`."""
    return FlagPointer() if dtype == types.boolean else types.CPointer(dtype)


@lower_builtin(operator.getitem, FlagPointer, types.Integer)
def _load_flag(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.icmp_unsigned("!=", builder.load(builder.gep(args[0], [args[1]])), I8(0))


@lower_builtin(operator.setitem, FlagPointer, types.Integer, types.Any)
def _store_flag(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.store(builder.zext(args[2], I8), builder.gep(args[0], args[1:2]))


Rule = Callable[..., Any]
"""From the argument types to the type of the result; None where they do not fit."""


def typing_rule(function: Any) -> Callable[[Rule], Rule]:
    """Tell Numba which type a call of `function` has."""

    def decorate(rule: Rule) -> Rule:
        class Template(AbstractTemplate):  # type: ignore[misc]
            key = function

            def generic(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
                result = None if kws else rule(*args)
                return None if result is None else signature(result, *args)

        infer_global(function)(Template)
        return rule

    return decorate


def element(kind: Any) -> Any:
    """Return the type of one lane, or of the scalar."""
    return kind.dtype if isinstance(kind, Lanes) else kind


def like(kind: Any, dtype: Any) -> Any:
    """Return `dtype` with as many lanes as `kind`."""
    return Lanes(dtype, kind.count) if isinstance(kind, Lanes) else dtype


def constant(kind: Any, value: Any) -> Any:
    """Return an LLVM constant, in every lane of a vector."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def llvm_intrinsic(builder: Any, name: str, *values: Any) -> Any:
    """Call `llvm.<name>` for the type of its first operand (llvmlite's own helper refuses vectors)."""
    kind = values[0].type
    scalar = kind.element if isinstance(kind, ir.VectorType) else kind
    suffix = f"v{kind.count}{scalar.intrinsic_name}" if isinstance(kind, ir.VectorType) else scalar.intrinsic_name
    function = ir.FunctionType(kind, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), values)


# ---- scalars and lanes


def _define(function: Any, arity: int, rule: Rule, generate: Callable[..., Any]) -> None:
    """Type `function` by `rule`; lower it by `generate(builder, type of the first operand, values)`."""
    typing_rule(function)(rule)

    @lower_builtin(function, *[types.Any] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return generate(builder, sig, *args)


def _alike(*kinds: Any) -> Any:
    first = types.unliteral(kinds[0])
    return first if all(types.unliteral(kind) == first for kind in kinds) else None


def floats(*kinds: Any) -> Any:
    """Return the type of operands that are floats of one kind."""
    return _alike(*kinds) if isinstance(element(kinds[0]), types.Float) else None


def _integers(*kinds: Any) -> Any:
    return _alike(*kinds) if isinstance(element(types.unliteral(kinds[0])), types.Integer) else None


def _select(builder: Any, sig: Any, condition: Any, x: Any, y: Any) -> Any:
    return builder.select(condition, x, y)


def _select_rule(condition: Any, x: Any, y: Any) -> Any:
    return _alike(x, y) if element(condition) == types.boolean else None


def compare(builder: Any, kind: Any, symbol: str, x: Any, y: Any) -> Any:
    """Return a comparison; with NaN only `!=` holds."""
    scalar = element(kind)
    if isinstance(scalar, types.Float):
        return builder.fcmp_unordered(symbol, x, y) if symbol == "!=" else builder.fcmp_ordered(symbol, x, y)
    signed = isinstance(scalar, types.Integer) and scalar.signed
    return builder.icmp_signed(symbol, x, y) if signed else builder.icmp_unsigned(symbol, x, y)


def _extreme(symbol: str) -> Callable[..., Any]:
    def generate(builder: Any, sig: Any, x: Any, y: Any) -> Any:
        chosen = builder.select(compare(builder, sig.args[0], symbol, x, y), x, y)
        if isinstance(element(sig.args[0]), types.Float):
            chosen = builder.select(builder.fcmp_unordered("uno", x, x), x, chosen)
        return chosen

    return generate


def _quotient(builder: Any, sig: Any, x: Any, y: Any, remainder: bool = False) -> Any:
    one, zero = constant(x.type, 1), constant(x.type, 0)
    by_zero = builder.icmp_signed("==", y, zero)
    divisor = builder.select(by_zero, one, y)
    if not element(sig.args[0]).signed:
        result = builder.urem(x, divisor) if remainder else builder.udiv(x, divisor)
        return builder.select(by_zero, zero, result)
    by_minus_one = builder.icmp_signed("==", y, constant(x.type, -1))
    divisor = builder.select(by_minus_one, one, divisor)  # the least integer / -1 traps
    result = builder.srem(x, divisor) if remainder else builder.sdiv(x, divisor)
    if not remainder:
        result = builder.select(by_minus_one, builder.neg(x), result)
    return builder.select(by_zero, zero, result)


def _remainder(builder: Any, sig: Any, x: Any, y: Any) -> Any:
    return _quotient(builder, sig, x, y, remainder=True)


def _resized(kind: Any, width: int) -> Any:
    return ir.VectorType(ir.IntType(width), kind.count) if isinstance(kind, ir.VectorType) else ir.IntType(width)


def _mulhi(builder: Any, sig: Any, x: Any, y: Any) -> Any:
    scalar = element(sig.args[0])
    wide = _resized(x.type, 2 * scalar.bitwidth)
    extend = builder.sext if scalar.signed else builder.zext
    product = builder.mul(extend(x, wide), extend(y, wide))
    return builder.trunc(builder.lshr(product, constant(wide, scalar.bitwidth)), x.type)


def _shift_left(builder: Any, sig: Any, x: Any, count: Any) -> Any:
    fits = builder.icmp_unsigned("<", count, constant(x.type, element(sig.args[0]).bitwidth))
    return builder.select(fits, builder.shl(x, count), constant(x.type, 0))


def _shift_right(builder: Any, sig: Any, x: Any, count: Any) -> Any:
    scalar = element(sig.args[0])
    fits = builder.icmp_unsigned("<", count, constant(x.type, scalar.bitwidth))
    if scalar.signed:
        return builder.ashr(x, builder.select(fits, count, constant(x.type, scalar.bitwidth - 1)))
    return builder.select(fits, builder.lshr(x, count), constant(x.type, 0))


def to_integer(builder: Any, source: Any, target: Any, x: Any) -> Any:
    """Return the float x as an integer of the Numba type `target` (see `scalars.to_integer`)."""
    bits = 64 if target in (types.uint32, types.int64, types.uint64) else 32
    wide, least = _resized(x.type, bits), -(2 ** (bits - 1))
    below = (">", least - 1.0) if source == types.float64 and bits == 32 else (">=", float(least))
    inside = builder.and_(
        builder.fcmp_ordered(below[0], x, constant(x.type, below[1])),
        builder.fcmp_ordered("<", x, constant(x.type, -float(least))),
    )
    result = builder.select(inside, builder.fptosi(x, wide), constant(wide, least))
    if target == types.uint64:
        upper = builder.and_(
            builder.fcmp_ordered(">=", x, constant(x.type, 2.0**63)), builder.fcmp_ordered("<", x, constant(x.type, 2.0**64))
        )
        result = builder.select(upper, builder.fptoui(x, wide), result)
    return result if target.bitwidth == bits else builder.trunc(result, _resized(x.type, target.bitwidth))


def _target_rule(kind: Any, target: Any) -> Any:
    return like(kind, target.instance_type) if isinstance(target, types.NumberClass) else None


def _to_integer(builder: Any, sig: Any, x: Any, target: Any) -> Any:
    return to_integer(builder, element(sig.args[0]), element(sig.return_type), x)


def _llvm_type(context_kind: Any, x: Any) -> Any:
    scalar = element(context_kind)
    if isinstance(scalar, types.Float):
        kind = ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()
    else:
        kind = ir.IntType(1 if scalar == types.boolean else scalar.bitwidth)
    return ir.VectorType(kind, x.type.count) if isinstance(x.type, ir.VectorType) else kind


def _bitcast(builder: Any, sig: Any, x: Any, target: Any) -> Any:
    return builder.bitcast(x, _llvm_type(sig.return_type, x))


def _intrinsic(name: str) -> Callable[..., Any]:
    return lambda builder, sig, *values: llvm_intrinsic(builder, name, *values)


INSTRUCTIONS: dict[Callable[..., Any], tuple[int, Rule, Callable[..., Any]]] = {
    scalars.select: (3, _select_rule, _select),
    scalars.minimum: (2, _alike, _extreme("<")),
    scalars.maximum: (2, _alike, _extreme(">")),
    scalars.fma: (3, floats, _intrinsic("fma")),
    scalars.sqrt: (1, floats, _intrinsic("sqrt")),
    scalars.floor: (1, floats, _intrinsic("floor")),
    scalars.rint: (1, floats, _intrinsic("rint")),
    scalars.trunc: (1, floats, _intrinsic("trunc")),
    scalars.quotient: (2, _integers, _quotient),
    scalars.remainder: (2, _integers, _remainder),
    scalars.mulhi: (2, _integers, _mulhi),
    scalars.shift_left: (2, _integers, _shift_left),
    scalars.shift_right: (2, _integers, _shift_right),
    scalars.to_integer: (2, _target_rule, _to_integer),
    scalars.bitcast: (2, _target_rule, _bitcast),
}
"""The number of operands of each instruction, its type from theirs, and the LLVM instructions it becomes on any target."""

for _function, (_arity, _rule, _generate) in INSTRUCTIONS.items():
    _define(_function, _arity, _rule, _generate)


# ---- memory


def _pointer_rule(pointer: Any, position: Any, dtype: Any) -> Any:
    fits = isinstance(pointer, types.CPointer) and isinstance(position, types.Integer) and isinstance(dtype, types.NumberClass)
    return pointer_to(dtype.instance_type) if fits else None


typing_rule(memory.argument)(_pointer_rule)
typing_rule(memory.scratch)(_pointer_rule)


@lower_builtin(memory.argument, types.Any, types.Any, types.Any)
def _lower_argument(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer = builder.load(builder.gep(args[0], [args[1]]))
    return builder.bitcast(pointer, context.get_value_type(sig.return_type))


@lower_builtin(memory.scratch, types.Any, types.Any, types.Any)
def _lower_scratch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.bitcast(builder.gep(args[0], [args[1]]), context.get_value_type(sig.return_type))


@typing_rule(memory.offset)
def _offset_rule(pointer: Any, index: Any) -> Any:
    return pointer if isinstance(pointer, types.CPointer) and isinstance(index, types.Integer) else None


@lower_builtin(memory.offset, types.Any, types.Any)
def _lower_offset(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.gep(args[0], [context.cast(builder, args[1], sig.args[1], types.intp)])


@typing_rule(memory.local_array)
def _local_array_rule(dtype: Any, size: Any) -> Any:
    known = isinstance(dtype, types.NumberClass) and isinstance(size, types.IntegerLiteral)
    return pointer_to(dtype.instance_type) if known else None


@lower_builtin(memory.local_array, types.Any, types.Any)
def _lower_local_array(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = context.get_data_type(sig.return_type.dtype)
    with builder.goto_entry_block():
        space = builder.alloca(ir.ArrayType(kind, sig.args[1].literal_value))
    space.align = 64
    return builder.bitcast(space, kind.as_pointer())


@typing_rule(memory.fail)
def _fail_rule(context: Any, code: Any, node: Any, index: Any) -> Any:
    return types.none if context == types.CPointer(types.int64) else None


@lower_builtin(memory.fail, types.Any, types.Any, types.Any, types.Any)
def _lower_fail(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, *values = args
    values = [context.cast(builder, value, kind, types.int64) for value, kind in zip(values, sig.args[1:])]
    first = builder.icmp_signed("==", builder.load(pointer), I64(0))
    with builder.if_then(first, likely=False):
        for position, value in zip((CODE, NODE, INDEX), values):
            builder.store(value, builder.gep(pointer, [I64(position)]))
    return context.get_dummy_value()
