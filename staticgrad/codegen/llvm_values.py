"""Values of the loop IR as LLVM instructions: names, types, literals, indices and opcodes.

`fused = fma x0, y0, 0.5f32` -> `%fused0 = call float @llvm.fma.f32(float %x0, float %y0, float 0x3FE0000000000000)`

No instruction carries a fast-math flag, and none can be undefined: what LLVM leaves open (poison) is chosen away by a `select`, and
a division never sees a divisor that traps.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import numpy as np

from staticgrad.codegen.python_text import NOUNS
from staticgrad.codegen.python_values import identifier
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Index, Let, Scalar

WIDE = (np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.uint64))
"""Integers that a float becomes by way of int64, the others by way of int32."""


def width(dtype: np.dtype) -> int:
    """Return the bits of a value in a register: 1 for a bool."""
    return 1 if dtype == BOOL else 8 * dtype.itemsize


def register_type(dtype: np.dtype, lanes: int = 1) -> str:
    """Return the LLVM type of a value: float, <16 x i1>."""
    name = {4: "float", 8: "double"}[dtype.itemsize] if dtype.kind == "f" else f"i{width(dtype)}"
    return name if lanes == 1 else f"<{lanes} x {name}>"


def memory_type(dtype: np.dtype, lanes: int = 1) -> str:
    """Return the LLVM type of a value in memory, where a bool is a byte."""
    return register_type(np.dtype(np.uint8) if dtype == BOOL else dtype, lanes)


def type_suffix(dtype: np.dtype, lanes: int = 1) -> str:
    """Return the type as the names of intrinsics end: v16f32."""
    name = f"{'f' if dtype.kind == 'f' else 'i'}{width(dtype)}"
    return name if lanes == 1 else f"v{lanes}{name}"


def literal_text(value: np.generic) -> str:
    """Return a literal, floats as the bits of a double: 0x3FB99999A0000000 for np.float32(0.1)."""
    if value.dtype == BOOL:
        return "true" if value else "false"
    if value.dtype.kind != "f":
        return str(int(value))
    if value.dtype.itemsize == 8:
        return f"0x{value.view(np.uint64):016X}"
    if np.isnan(value):  # a conversion to double would lose that a NaN signals
        bits = int(value.view(np.uint32))
        return f"0x{(bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29:016X}"
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"


@functools.cache
def stem(text: str) -> str:
    """Return `text` as the beginning of a name."""
    return identifier(text)


class LocalNames:
    """Hands out the names of one function; values and labels share them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def unique(self, wish: str) -> str:
        """Return `wish` itself if it is free: x; otherwise with a number behind it."""
        name = stem(wish)
        if name in self._taken:
            return self.numbered(name)
        self._taken.add(name)
        return name

    def numbered(self, wish: str) -> str:
        """Return `wish` with the next number: x0, x1."""
        base = stem(wish)
        if base[-1].isdigit():
            base += "."
        count = self._counts.get(base, 0)
        while (name := f"{base}{count}") in self._taken:
            count += 1
        self._counts[base] = count + 1
        self._taken.add(name)
        return name


class Values:
    """The instructions of one function, in order, and the names of its scalars."""

    def __init__(self, declared: dict[str, str]) -> None:
        self.declared = declared  # the declarations of the intrinsics that the unit uses, by name
        self.names = LocalNames()
        self.lines: list[str] = []
        self.scalars: dict[Scalar, str] = {}
        self.copied: dict[Scalar, np.generic] = {}  # literals in every lane
        self.hints: dict[Scalar, str] = {}
        self.indices: list[dict[Index, str]] = [{}]  # what is computed, by open block

    # ---- lines

    def line(self, text: str) -> None:
        """Append one instruction."""
        self.lines.append(f"  {text}")

    def assign(self, name: str, text: str) -> str:
        """Append an instruction with a result and return the result's name."""
        result = f"%{self.names.numbered(name)}"
        self.lines.append(f"  {result} = {text}")
        return result

    def intrinsic(self, name: str, dtype: np.dtype, lanes: int, *operands: str, flags: str = "") -> str:
        """Return a call of `llvm.<name>`, all of whose operands have one type; `flags` are constants behind them."""
        kind, full = register_type(dtype, lanes), f"llvm.{name}.{type_suffix(dtype, lanes)}"
        if full not in self.declared:
            behind = ", i1" if flags else ""
            self.declared[full] = f"declare {kind} @{full}({', '.join([kind] * len(operands))}{behind})"
        return f"call {kind} @{full}({', '.join(f'{kind} {operand}' for operand in operands)}{flags and f', {flags}'})"

    # ---- scalars and indices

    def value(self, scalar: Scalar) -> str:
        """Return the operand for `scalar`: a name or a literal."""
        if scalar.literal is not None:
            return literal_text(scalar.literal)
        if scalar not in self.scalars:
            raise VerificationError(f"scalar {scalar.number} ({scalar.hint or scalar.dtype}) is used before it is made")
        return self.scalars[scalar]

    def typed(self, scalar: Scalar) -> str:
        """Return the operand with its type: float %x0."""
        return f"{register_type(scalar.dtype, scalar.lanes)} {self.value(scalar)}"

    def index(self, index: Index) -> str:
        """Return an index as an i64 operand; an equal one that is in scope is used again."""
        if not index.terms:
            return str(index.constant)
        for scope in reversed(self.indices):
            if (known := scope.get(index)) is not None:
                return known
        total = ""
        for scalar, coefficient in index.terms:
            term = self._as_int64(scalar)
            if coefficient != 1:
                term = self.assign("scaled", f"mul i64 {term}, {coefficient}")
            total = self.assign("index", f"add i64 {total}, {term}") if total else term
        if index.constant:
            total = self.assign("index", f"add i64 {total}, {index.constant}")
        self.indices[-1][index] = total
        return total

    def _as_int64(self, scalar: Scalar) -> str:
        value, bits = self.value(scalar), width(scalar.dtype)
        if bits == 64 or scalar.literal is not None:
            return value
        return self.assign("wide", f"{'sext' if scalar.dtype.kind == 'i' else 'zext'} i{bits} {value} to i64")

    def known(self, scalar: Scalar) -> np.generic | None:
        """Return the number that a scalar, or each of its lanes, is known to be."""
        return scalar.literal if scalar.literal is not None else self.copied.get(scalar)

    def constant(self, value: int | float, dtype: np.dtype, lanes: int = 1) -> str:
        """Return a constant as an operand, in all lanes where there are several."""
        text = literal_text(dtype.type(value))
        if lanes == 1:
            return text
        return "zeroinitializer" if value == 0 and dtype.kind != "f" else f"<{', '.join([f'{register_type(dtype)} {text}'] * lanes)}>"

    # ---- instructions

    def let(self, let: Let) -> None:
        """Print an instruction of the loop IR."""
        emit = _OPCODES.get(let.opcode)
        if emit is None:
            raise VerificationError(f"the printer does not know the instruction {let.opcode!r}")
        self.scalars[let.target] = emit(self, let)

    def result(self, let: Let, text: str) -> str:
        """Append the instruction that gives the result of `let`."""
        target = let.target
        return self.assign(self.hints.get(target) or target.hint or NOUNS[let.opcode], text)

    def choose(self, let: Let, condition: str, first: str, second: str) -> str:
        """Append a choice between two operands as the result of `let`."""
        flags, kind = register_type(BOOL, let.target.lanes), register_type(let.target.dtype, let.target.lanes)
        return self.result(let, f"select {flags} {condition}, {kind} {first}, {kind} {second}")


Emitter = Callable[[Values, Let], str]
"""Appends the instructions of a `Let` and returns its result as an operand."""


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
    wide = np.dtype(np.int64 if target.dtype in WIDE else np.int32)
    value, lanes, least = v.value(x), target.lanes, float(np.iinfo(wide).min)
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


_OPCODES: dict[str, Emitter] = {
    "add": _plain("fadd", "add"), "sub": _plain("fsub", "sub"), "mul": _plain("fmul", "mul"), "div": _plain("fdiv", "fdiv"),
    "neg": _negative, "abs": _magnitude, "fma": _called("fma"),
    "min": _extreme("olt", "smin", "umin", "and"), "max": _extreme("ogt", "smax", "umax", "or"),
    "sqrt": _called("sqrt"), "floor": _called("floor"), "rint": _called("rint"), "trunc": _called("trunc"),
    "quotient": _division(rest=False), "remainder": _division(rest=True), "mulhi": _high_product,
    "lt": _compare("olt", "slt", "ult"), "le": _compare("ole", "sle", "ule"), "eq": _compare("oeq", "eq", "eq"),
    "ne": _compare("une", "ne", "ne"), "select": _select, "cast": _cast, "bitcast": _bitcast, "shl": _shift, "shr": _shift,
    "and": _plain("", "and"), "or": _plain("", "or"), "xor": _plain("", "xor"), "not": _inverse, "splat": _splat, "extract": _extract,
}  # fmt: skip
