"""Values of the loop IR as LLVM operands: names, types, literals and indices."""

from __future__ import annotations

import functools
import struct

import numpy as np

from staticgrad.codegen.python_text import NOUNS
from staticgrad.codegen.python_values import identifier
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Index, Let, Scalar


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

    def result(self, let: Let, text: str) -> str:
        """Append the instruction that gives the result of `let`."""
        target = let.target
        return self.assign(self.hints.get(target) or target.hint or NOUNS[let.opcode], text)

    def choose(self, let: Let, condition: str, first: str, second: str) -> str:
        """Append a choice between two operands as the result of `let`."""
        flags, kind = register_type(BOOL, let.target.lanes), register_type(let.target.dtype, let.target.lanes)
        return self.result(let, f"select {flags} {condition}, {kind} {first}, {kind} {second}")
