"""The instructions of the loop IR as LLVM instructions.

`fused = fma x0, y0, 0.5f32` -> `%fused0 = call float @llvm.fma.f32(float %x0, float %y0, float 0x3FE0000000000000)`

No instruction carries a fast-math flag, and none can be undefined: what LLVM leaves open (poison) is chosen away by a `select`, and
a division never sees a divisor that traps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from staticgrad.codegen.llvm_values import Values, register_type, width
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, INT64
from staticgrad.ir.loops import Let

WIDE = (np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.uint64))
"""Integers that a float becomes by way of int64, the others by way of int32."""

Emitter = Callable[[Values, Let], str]
"""Appends the instructions of a `Let` and returns its result as an operand."""


def instruction(v: Values, let: Let) -> str:
    """Append the LLVM instructions of `let` and return its result as an operand."""
    emit = OPCODES.get(let.opcode)
    if emit is None:
        raise VerificationError(f"the printer does not know the instruction {let.opcode!r}")
    return emit(v, let)


def _kind(let: Let) -> str:
    return let.operands[0].dtype.kind


def _type(let: Let) -> str:
    return register_type(let.operands[0].dtype, let.operands[0].lanes)


def _plain(floats: str, signed: str, unsigned: str | None = None) -> Emitter:
    """Return the emitter of one LLVM instruction with two operands, which depends on their kind."""
    names = {"f": floats, "i": signed, "u": unsigned or signed, "b": unsigned or signed}

    def emit(v: Values, let: Let) -> str:
        x, y = map(v.value, let.operands)
        return v.result(let, f"{names[_kind(let)]} {_type(let)} {x}, {y}")

    return emit


def _called(name: str) -> Emitter:
    """Return the emitter of an intrinsic."""

    def emit(v: Values, let: Let) -> str:
        return v.result(let, v.intrinsic(name, let.target.dtype, let.target.lanes, *map(v.value, let.operands)))

    return emit


def _negative(v: Values, let: Let) -> str:
    x = v.value(let.operands[0])
    if _kind(let) == "f":
        return v.result(let, f"fneg {_type(let)} {x}")
    return v.result(let, f"sub {_type(let)} {v.constant(0, let.target.dtype, let.target.lanes)}, {x}")


def _magnitude(v: Values, let: Let) -> str:
    x, target = v.value(let.operands[0]), let.target
    if _kind(let) == "u":
        return x
    if _kind(let) == "f":
        return v.result(let, v.intrinsic("fabs", target.dtype, target.lanes, x))
    return v.result(let, v.intrinsic("abs", target.dtype, target.lanes, x, flags="i1 false"))


def _inverse(v: Values, let: Let) -> str:
    dtype, lanes = let.target.dtype, let.target.lanes
    ones = v.constant(True if dtype == BOOL else int(~dtype.type(0)), dtype, lanes)
    return v.result(let, f"xor {_type(let)} {v.value(let.operands[0])}, {ones}")


def _extreme(floats: str, signed: str, unsigned: str, flags: str) -> Emitter:
    def emit(v: Values, let: Let) -> str:
        x, y = map(v.value, let.operands)
        if _kind(let) == "b":
            return v.result(let, f"{flags} {_type(let)} {x}, {y}")
        if _kind(let) != "f":
            name = signed if _kind(let) == "i" else unsigned
            return v.result(let, v.intrinsic(name, let.target.dtype, let.target.lanes, x, y))
        better = v.assign("better", f"fcmp {floats} {_type(let)} {x}, {y}")
        first = v.known(let.operands[0])
        if first is not None and not np.isnan(first):
            return v.choose(let, better, x, y)
        flags_type = register_type(BOOL, let.target.lanes)
        chosen = v.assign("chosen", f"select {flags_type} {better}, {_type(let)} {x}, {_type(let)} {y}")
        return v.choose(let, v.assign("nan", f"fcmp uno {_type(let)} {x}, {x}"), x, chosen)

    return emit


def _division(rest: bool) -> Emitter:
    """Return the emitter of `quotient` or `remainder`."""
    name = "rem" if rest else "div"

    def emit(v: Values, let: Let) -> str:
        x, y = map(v.value, let.operands)
        dtype, lanes, kind = let.target.dtype, let.target.lanes, _type(let)
        operation = f"{'s' if _kind(let) == 'i' else 'u'}{name}"
        zero, one = v.constant(0, dtype, lanes), v.constant(1, dtype, lanes)
        known = v.known(let.operands[1])
        if known is not None and int(known) not in (0, -1):
            return v.result(let, f"{operation} {kind} {x}, {y}")
        flags = register_type(BOOL, lanes)
        by_zero = v.assign("by_zero", f"icmp eq {kind} {y}, {zero}")
        divisor = v.assign("divisor", f"select {flags} {by_zero}, {kind} {one}, {kind} {y}")
        if _kind(let) == "u":
            return v.choose(let, by_zero, zero, v.assign(name, f"{operation} {kind} {x}, {divisor}"))
        flips = v.assign("by_minus_one", f"icmp eq {kind} {y}, {v.constant(-1, dtype, lanes)}")
        divisor = v.assign("divisor", f"select {flags} {flips}, {kind} {one}, {kind} {divisor}")  # the least integer / -1 traps
        result = v.assign(name, f"{operation} {kind} {x}, {divisor}")
        if not rest:
            negative = v.assign("negative", f"sub {kind} {zero}, {x}")
            result = v.assign(name, f"select {flags} {flips}, {kind} {negative}, {kind} {result}")
        return v.choose(let, by_zero, zero, result)

    return emit


def _high_product(v: Values, let: Let) -> str:
    bits, lanes, kind = width(let.target.dtype), let.target.lanes, _type(let)
    wide = f"i{2 * bits}" if lanes == 1 else f"<{lanes} x i{2 * bits}>"
    extend = "sext" if _kind(let) == "i" else "zext"
    x, y = (v.assign("wide", f"{extend} {kind} {v.value(operand)} to {wide}") for operand in let.operands)
    count = str(bits) if lanes == 1 else f"<{', '.join([f'i{2 * bits} {bits}'] * lanes)}>"
    both = v.assign("both", f"mul {wide} {x}, {y}")
    return v.result(let, f"trunc {wide} {v.assign('upper', f'lshr {wide} {both}, {count}')} to {kind}")


def _shift(v: Values, let: Let) -> str:
    x, count = map(v.value, let.operands)
    dtype, lanes, kind, bits = let.target.dtype, let.target.lanes, _type(let), width(let.target.dtype)
    signed_right = let.opcode == "shr" and dtype.kind == "i"
    operation = "shl" if let.opcode == "shl" else "ashr" if signed_right else "lshr"
    known = v.known(let.operands[1])
    if known is not None and 0 <= int(known) < bits:
        return v.result(let, f"{operation} {kind} {x}, {count}")
    fits = v.assign("fits", f"icmp ult {kind} {count}, {v.constant(bits, dtype, lanes)}")
    if signed_right:
        flags, most = register_type(BOOL, lanes), v.constant(bits - 1, dtype, lanes)
        count = v.assign("count", f"select {flags} {fits}, {kind} {count}, {kind} {most}")
        return v.result(let, f"ashr {kind} {x}, {count}")
    return v.choose(let, fits, v.assign("shifted", f"{operation} {kind} {x}, {count}"), v.constant(0, dtype, lanes))


def _compare(floats: str, signed: str, unsigned: str) -> Emitter:
    def emit(v: Values, let: Let) -> str:
        x, y = map(v.value, let.operands)
        test = {"f": f"fcmp {floats}", "i": f"icmp {signed}"}.get(_kind(let), f"icmp {unsigned}")
        return v.result(let, f"{test} {_type(let)} {x}, {y}")

    return emit


def _select(v: Values, let: Let) -> str:
    return v.choose(let, *map(v.value, let.operands))


def _cast(v: Values, let: Let) -> str:
    (x,), target = let.operands, let.target
    if x.dtype == target.dtype:
        return v.value(x)
    if x.dtype.kind == "f" and target.dtype.kind in "iu":
        return _to_integer(v, let)
    if target.dtype == BOOL:
        test = "fcmp une" if x.dtype.kind == "f" else "icmp ne"
        return v.result(let, f"{test} {_type(let)} {v.value(x)}, {v.constant(0, x.dtype, x.lanes)}")
    signed, wider = x.dtype.kind == "i", width(target.dtype) > width(x.dtype)
    if x.dtype.kind == "f":
        name = "fpext" if wider else "fptrunc"
    elif target.dtype.kind == "f":
        name = "sitofp" if signed else "uitofp"
    elif width(target.dtype) == width(x.dtype):
        return v.value(x)
    else:
        name = "trunc" if not wider else "sext" if signed else "zext"
    return v.result(let, f"{name} {_type(let)} {v.value(x)} to {register_type(target.dtype, target.lanes)}")


def _to_integer(v: Values, let: Let) -> str:
    """Append a float as an integer: truncated; the least int32 (int64 for wide types) where that is out of range, then narrowed."""
    (x,), target, kind = let.operands, let.target, _type(let)
    wide = INT64 if target.dtype in WIDE else np.dtype(np.int32)
    value, lanes, least = v.value(x), target.lanes, -(2.0 ** (width(wide) - 1))
    exact = x.dtype == np.float64 and wide == np.int32  # only there does least - 1 stand between two floats
    test, bound = ("ogt", least - 1) if exact else ("oge", least)
    flags, wide_type = register_type(BOOL, lanes), register_type(wide, lanes)

    def between(test: str, low: float, high: float) -> str:
        above = v.assign("above", f"fcmp {test} {kind} {value}, {v.constant(low, x.dtype, lanes)}")
        below = v.assign("below", f"fcmp olt {kind} {value}, {v.constant(high, x.dtype, lanes)}")
        return v.assign("inside", f"and {flags} {above}, {below}")

    inside = between(test, bound, -least)
    whole = v.assign("whole", f"fptosi {kind} {value} to {wide_type}")
    least_text = v.constant(int(least), wide, lanes)
    if target.dtype == wide:
        return v.choose(let, inside, whole, least_text)
    result = v.assign("whole", f"select {flags} {inside}, {wide_type} {whole}, {wide_type} {least_text}")
    if target.dtype == np.uint64:
        upper = between("oge", 2.0**63, 2.0**64)
        return v.choose(let, upper, v.assign("whole", f"fptoui {kind} {value} to {wide_type}"), result)
    if width(target.dtype) == width(wide):
        return result
    return v.result(let, f"trunc {wide_type} {result} to {register_type(target.dtype, lanes)}")


def _bitcast(v: Values, let: Let) -> str:
    (x,), target = let.operands, let.target
    source, result = _type(let), register_type(target.dtype, target.lanes)
    return v.value(x) if source == result else v.result(let, f"bitcast {source} {v.value(x)} to {result}")


def _splat(v: Values, let: Let) -> str:
    (x,), lanes = let.operands, let.target.lanes
    if x.literal is not None:
        v.copied[let.target] = x.literal
        zero = not x.literal.tobytes().strip(b"\0")
        return "zeroinitializer" if zero else f"<{', '.join([v.typed(x)] * lanes)}>"
    kind = register_type(x.dtype, lanes)
    first = v.assign("first", f"insertelement {kind} poison, {v.typed(x)}, i64 0")
    return v.result(let, f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")


def _extract(v: Values, let: Let) -> str:
    x, lane = let.operands
    assert lane.literal is not None
    return v.result(let, f"extractelement {v.typed(x)}, i64 {int(lane.literal)}")


def _any(v: Values, let: Let) -> str:
    (x,) = let.operands
    bits = f"i{x.lanes}"
    return v.result(let, f"icmp ne {bits} {v.assign('mask', f'bitcast {v.typed(x)} to {bits}')}, 0")


OPCODES: dict[str, Emitter] = {
    "add": _plain("fadd", "add"), "sub": _plain("fsub", "sub"), "mul": _plain("fmul", "mul"), "div": _plain("fdiv", "fdiv"),
    "neg": _negative, "abs": _magnitude, "fma": _called("fma"),
    "min": _extreme("olt", "smin", "umin", "and"), "max": _extreme("ogt", "smax", "umax", "or"),
    "sqrt": _called("sqrt"), "floor": _called("floor"), "rint": _called("rint"), "trunc": _called("trunc"),
    "quotient": _division(rest=False), "remainder": _division(rest=True), "mulhi": _high_product,
    "lt": _compare("olt", "slt", "ult"), "le": _compare("ole", "sle", "ule"), "eq": _compare("oeq", "eq", "eq"),
    "ne": _compare("une", "ne", "ne"), "select": _select, "cast": _cast, "bitcast": _bitcast, "shl": _shift, "shr": _shift,
    "and": _plain("", "and"), "or": _plain("", "or"), "xor": _plain("", "xor"), "not": _inverse, "splat": _splat, "extract": _extract,
    "any": _any,
}  # fmt: skip
