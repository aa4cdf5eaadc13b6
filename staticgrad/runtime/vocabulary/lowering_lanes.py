"""Lanes for Numba's compiler: loads, stores, operators and conversions of LLVM vectors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import lower_builtin

from staticgrad.runtime.vocabulary import lanes
from staticgrad.runtime.vocabulary.lowering import I1, I8, I32, Lanes, compare, constant, element, llvm_intrinsic, types, typing_rule


def _alignment(dtype: Any) -> int:
    return 1 if dtype == types.boolean else int(dtype.bitwidth) // 8


def _address(context: Any, builder: Any, pointer: Any, index: Any, index_type: Any, kind: Any) -> Any:
    place = builder.gep(pointer, [context.cast(builder, index, index_type, types.intp)])
    return builder.bitcast(place, kind.as_pointer())


def _stored(kind: Any) -> Any:
    """Return a vector type as it stands in memory: flags are bytes."""
    return ir.VectorType(I8, kind.count) if kind.element == I1 else kind


@typing_rule(lanes.load_lanes)
def _load_rule(pointer: Any, index: Any, count: Any) -> Any:
    known = isinstance(pointer, types.CPointer) and isinstance(index, types.Integer) and isinstance(count, types.IntegerLiteral)
    return Lanes(pointer.dtype, count.literal_value) if known else None


@lower_builtin(lanes.load_lanes, types.Any, types.Any, types.Any)
def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = context.get_value_type(sig.return_type)
    stored = _stored(kind)
    place = _address(context, builder, args[0], args[1], sig.args[1], stored)
    value = builder.load(place, align=_alignment(sig.return_type.dtype))
    return value if stored == kind else builder.icmp_unsigned("!=", value, constant(stored, 0))


@typing_rule(lanes.store_lanes)
def _store_rule(pointer: Any, index: Any, value: Any, mask: Any = None) -> Any:
    fits = isinstance(pointer, types.CPointer) and isinstance(value, Lanes) and pointer.dtype == value.dtype
    return types.none if fits and (mask is None or mask == Lanes(types.boolean, value.count)) else None


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value, alignment = args[2], _alignment(sig.args[2].dtype)
    stored = _stored(value.type)
    if stored != value.type:
        value = builder.zext(value, stored)
    place = _address(context, builder, args[0], args[1], sig.args[1], stored)
    if len(args) == 3:
        builder.store(value, place, align=alignment)
        return context.get_dummy_value()
    function = ir.FunctionType(ir.VoidType(), [stored, place.type, I32, args[3].type])
    name = f"llvm.masked.store.v{stored.count}{stored.element.intrinsic_name}.p0"
    masked = cgutils.get_or_insert_function(builder.module, function, name)
    builder.call(masked, [value, place, I32(alignment), args[3]])
    return context.get_dummy_value()


lower_builtin(lanes.store_lanes, types.Any, types.Any, types.Any)(_store)
lower_builtin(lanes.store_lanes, types.Any, types.Any, types.Any, types.Any)(_store)


@typing_rule(lanes.splat)
def _splat_rule(x: Any, count: Any) -> Any:
    known = isinstance(count, types.IntegerLiteral) and isinstance(types.unliteral(x), (types.Number, types.Boolean))
    return Lanes(types.unliteral(x), count.literal_value) if known else None


@lower_builtin(lanes.splat, types.Any, types.Any)
def _splat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = context.get_value_type(sig.return_type)
    value = context.cast(builder, args[0], sig.args[0], sig.return_type.dtype)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), constant(ir.VectorType(I32, kind.count), 0))


@typing_rule(lanes.extract)
def _extract_rule(x: Any, lane: Any) -> Any:
    return x.dtype if isinstance(x, Lanes) and isinstance(lane, types.IntegerLiteral) else None


@lower_builtin(lanes.extract, types.Any, types.Any)
def _extract(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.extract_element(args[0], I32(sig.args[1].literal_value))


@typing_rule(lanes.any_lane)
def _any_rule(x: Any) -> Any:
    return types.boolean if isinstance(x, Lanes) and x.dtype == types.boolean else None


@lower_builtin(lanes.any_lane, types.Any)
def _any(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bits = ir.IntType(sig.args[0].count)
    return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), bits(0))


@typing_rule(lanes.convert)
def _convert_rule(x: Any, target: Any) -> Any:
    return Lanes(target.instance_type, x.count) if isinstance(x, Lanes) and isinstance(target, types.NumberClass) else None


@lower_builtin(lanes.convert, types.Any, types.Any)
def _convert(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    x, source, target = args[0], sig.args[0].dtype, sig.return_type.dtype
    kind = context.get_value_type(sig.return_type)
    if source == target:
        return x
    if target == types.boolean:
        return compare(builder, source, "!=", x, constant(x.type, 0))
    signed = source != types.boolean and isinstance(source, types.Integer) and source.signed
    if isinstance(source, types.Float):
        return builder.fpext(x, kind) if target.bitwidth > source.bitwidth else builder.fptrunc(x, kind)
    if isinstance(target, types.Float):
        return builder.sitofp(x, kind) if signed else builder.uitofp(x, kind)
    width = 1 if source == types.boolean else source.bitwidth
    if target.bitwidth < width:
        return builder.trunc(x, kind)
    if target.bitwidth == width:
        return x
    return builder.sext(x, kind) if signed else builder.zext(x, kind)


# ---- operators


def _define_operator(function: Any, arity: int, generate: Callable[..., Any], flags: bool = False) -> None:
    @typing_rule(function)
    def rule(*kinds: Any) -> Any:
        if len(kinds) != arity or not all(isinstance(kind, Lanes) and kind == kinds[0] for kind in kinds):
            return None
        return Lanes(types.boolean, kinds[0].count) if flags else kinds[0]

    @lower_builtin(function, *[Lanes] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return generate(builder, sig.args[0], *args)


def _arithmetic(name: str) -> Callable[..., Any]:
    def generate(builder: Any, kind: Any, x: Any, y: Any) -> Any:
        return getattr(builder, f"f{name}" if isinstance(kind.dtype, types.Float) else name)(x, y)

    return generate


def _negative(builder: Any, kind: Any, x: Any) -> Any:
    return builder.fneg(x) if isinstance(kind.dtype, types.Float) else builder.neg(x)


def _absolute(builder: Any, kind: Any, x: Any) -> Any:
    if isinstance(kind.dtype, types.Float):
        return llvm_intrinsic(builder, "fabs", x)
    if not element(kind).signed:
        return x
    return builder.select(builder.icmp_signed("<", x, constant(x.type, 0)), builder.neg(x), x)


def _comparison(symbol: str) -> Callable[..., Any]:
    return lambda builder, kind, x, y: compare(builder, kind, symbol, x, y)


def _bitwise(name: str) -> Callable[..., Any]:
    return lambda builder, kind, x, y: getattr(builder, name)(x, y)


for _name in ("add", "sub", "mul"):
    _define_operator(getattr(operator, _name), 2, _arithmetic(_name))
    _define_operator(getattr(operator, f"i{_name}"), 2, _arithmetic(_name))
_define_operator(operator.truediv, 2, lambda builder, kind, x, y: builder.fdiv(x, y))
for _name, _symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!=")):
    _define_operator(getattr(operator, _name), 2, _comparison(_symbol), flags=True)
for _name in ("and_", "or_", "xor"):
    _define_operator(getattr(operator, _name), 2, _bitwise(_name))
_define_operator(operator.neg, 1, _negative)
_define_operator(operator.invert, 1, lambda builder, kind, x: builder.not_(x))
_define_operator(abs, 1, _absolute)
