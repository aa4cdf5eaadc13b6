"""The readable form of the loop IR: pseudo-code that names everything by the order in which it appears.

Equal texts mean equal programs: literals carry their dtype unless it is float64, int64 or bool, and a result shows its type where
the operands do not tell it (`%2: f32 = cast %1`, `%3: f64x4 = load x[i0]`).
"""

from __future__ import annotations

import re

import numpy as np

from staticgrad.ir.aval import BOOL, INT64
from staticgrad.ir.loops import (
    FAILURES,
    Assign,
    Block,
    Buffer,
    Comment,
    Declare,
    External,
    Fail,
    Failed,
    Function,
    Get,
    If,
    Index,
    Invoke,
    Let,
    Load,
    Local,
    Loop,
    Poll,
    Position,
    Scalar,
    Space,
    Statement,
    Store,
    Unit,
    Variable,
    While,
)

COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
"""The opcodes whose result is bool, whatever they compare."""


def unit_text(unit: Unit) -> str:
    """Return a unit as text: its memory, the functions that each stage runs, and the functions."""
    names = Names()
    lines = [f"unit {unit.name}: {unit.workspace} bytes of workspace, the first {unit.residual} residual"]
    calls = (*unit.forward, *(unit.backward or ()))
    for buffer in dict.fromkeys((*unit.arguments, *(buffer for call in calls for buffer, _ in call.buffers))):
        table = buffer.space in (Space.INPUT, Space.CONSTANT, Space.OUTPUT)
        place = f"{buffer.position}" if table else f"at {buffer.offset}"
        lines.append(f"  {names.declared(buffer)} {buffer.space.value} {place}")
    for stage, stage_calls in (("forward", unit.forward), ("backward", unit.backward)):
        if stage_calls is not None:
            lines += [f"  {stage}:", *(f"    {names.call(call)}" for call in stage_calls)]
    return "\n\n".join(["\n".join(lines), *map(function_text, unit.functions)])


def function_text(function: Function, anonymous: bool = False) -> str:
    """Return a function as text; `anonymous` without names, title and remarks, so that equal text means equal code."""
    return "\n".join(FunctionText(function, anonymous).lines)


def type_text(dtype: np.dtype, lanes: int = 1) -> str:
    """Return the short name of a type: f64, i32, bool, f32x8."""
    name = "bool" if dtype == BOOL else f"{dtype.kind}{8 * dtype.itemsize}"
    return name if lanes == 1 else f"{name}x{lanes}"


def literal_text(literal: np.generic) -> str:
    """Return a literal with the dtype behind it: 0.5, 0.5f32, 3, 3i32, True."""
    dtype = literal.dtype
    if dtype == BOOL:
        return str(bool(literal))
    if dtype.kind == "f":
        suffix = "" if dtype == np.float64 else type_text(dtype)
        if np.isnan(literal) and literal.tobytes() != dtype.type(np.nan).tobytes():
            return f"nan:{literal.tobytes()[::-1].hex()}{suffix}"
        return f"{literal!s}{suffix}"
    return f"{int(literal)}{'' if dtype == INT64 else type_text(dtype)}"


def result_type(opcode: str, operands: tuple[Scalar, ...]) -> tuple[np.dtype, int]:
    """Return the dtype and lanes that the result has unless the opcode is there to change them (cast, bitcast, splat, extract)."""
    first = operands[1] if opcode == "select" and len(operands) > 1 else operands[0]
    if opcode == "any":
        return BOOL, 1
    return (BOOL if opcode in COMPARISONS else first.dtype), first.lanes


class Names:
    """Gives everything a name when it is first met."""

    def __init__(self, anonymous: bool = False) -> None:
        self.anonymous = anonymous
        self._names: dict[Scalar | Variable | Buffer, str] = {}
        self._taken: set[str] = set()
        self._scalars = 0

    def _new(self, thing: Scalar | Variable | Buffer, hint: str, numbered: bool) -> str:
        base = re.sub(r"\W", "_", hint) or "_"
        numbered = numbered and not base[-1].isdigit()
        count = 0
        name = f"{base}0" if numbered else base
        while name in self._taken:
            count += 1
            name = f"{base}{count}" if numbered else f"{base}_{count}"
        self._taken.add(name)
        self._names[thing] = name
        return name

    def buffer(self, buffer: Buffer) -> str:
        """Return the name of a buffer."""
        return self._names.get(buffer) or self._new(buffer, "p" if self.anonymous else buffer.name, self.anonymous)

    def declared(self, buffer: Buffer) -> str:
        """Return `name: dtype[size]`."""
        return f"{self.buffer(buffer)}: {type_text(buffer.dtype)}[{'?' if buffer.size < 0 else buffer.size}]"

    def number(self, scalar: Scalar) -> str:
        """Return the name of a function's parameter."""
        return self._names.get(scalar) or self._new(scalar, "n" if self.anonymous else scalar.hint or "n", self.anonymous)

    def counter(self, scalar: Scalar) -> str:
        """Return the name of a loop's counter."""
        return self._names.get(scalar) or self._new(scalar, "i" if self.anonymous else scalar.hint or "i", True)

    def variable(self, variable: Variable) -> str:
        """Return the name of a mutable scalar."""
        return self._names.get(variable) or self._new(variable, "v" if self.anonymous else variable.hint or "v", True)

    def scalar(self, scalar: Scalar) -> str:
        """Return the name of a scalar, or its value if that is known."""
        if scalar.literal is not None:
            return literal_text(scalar.literal)
        if scalar not in self._names:
            self._scalars += 1
            self._names[scalar] = f"%{self._scalars}"
        return self._names[scalar]

    def index(self, index: Index) -> str:
        """Return an index: `i0*128 + i1 - 3`."""
        text = ""
        for scalar, coefficient in index.terms:
            sign = ("-" if coefficient < 0 else "") if not text else (" - " if coefficient < 0 else " + ")
            text += f"{sign}{self.scalar(scalar)}" + (f"*{abs(coefficient)}" if abs(coefficient) != 1 else "")
        if not text:
            return str(index.constant)
        return text + (f" {'-' if index.constant < 0 else '+'} {abs(index.constant)}" if index.constant else "")

    def call(self, call: Invoke) -> str:
        """Return `function(buffer, buffer + index; number)`, for parallel blocks `8 blocks of function(...)`."""
        blocks = f"{call.blocks} blocks of " if call.blocks else ""
        return f"{blocks}{call.function.name}{self._arguments(call.buffers, call.numbers)}"

    def external(self, call: External) -> str:
        """Return the call of a library's symbol with what it demands."""
        demands = [
            word for word, holds in (("gil", call.needs_gil), ("thread-safe", call.thread_safe), ("exportable", call.exportable)) if holds
        ]
        return f"{call.library}:{call.symbol}{self._arguments(call.buffers, call.numbers)}" + (
            f" ({', '.join(demands)})" if demands else ""
        )

    def _arguments(self, buffers: tuple[tuple[Buffer, Index], ...], numbers: tuple[Index, ...]) -> str:
        pointers = (self.buffer(b) + ("" if index == Index() else f"[{self.index(index)}]") for b, index in buffers)
        return f"({', '.join(pointers)}{'; ' if numbers else ''}{', '.join(map(self.index, numbers))})"


class FunctionText:
    """The lines of one function, and the line of each of its statements."""

    def __init__(self, function: Function, anonymous: bool = False) -> None:
        self.names = Names(anonymous)
        self.line_of: dict[int, str] = {}
        parameters = ", ".join(map(self.names.declared, function.buffers))
        numbers = ", ".join(map(self.names.number, function.numbers))
        title = f"  # {_flat(function.title)}" if function.title and not anonymous else ""
        name = "" if anonymous else f" {function.name}"
        self.lines = [f"function{name}({parameters}{'; ' if numbers else ''}{numbers}):{title}"]
        self._block(function.body, 1)

    def _line(self, text: str, depth: int) -> None:
        self.lines.append("  " * depth + text)

    def _block(self, block: Block, depth: int) -> None:
        for statement in block.statements:
            if isinstance(statement, Comment) and self.names.anonymous:
                continue
            if isinstance(statement, While):
                self._while(statement, depth)
                continue
            self.line_of[id(statement)] = text = self._text(statement)
            self._line(text, depth)
            if isinstance(statement, Loop):
                self._block(statement.body, depth + 1)
            elif isinstance(statement, If):
                self._block(statement.then, depth + 1)
                if statement.otherwise.statements:
                    self._line("else:", depth)
                    self._block(statement.otherwise, depth + 1)

    def _while(self, statement: While, depth: int) -> None:
        self._line("repeat:", depth)
        self._block(statement.test, depth + 1)
        self.line_of[id(statement)] = text = f"while {self.names.scalar(statement.condition)}:"
        self._line(text, depth + 1)
        self._block(statement.body, depth + 2)

    def _text(self, statement: Statement) -> str:
        names = self.names
        match statement:
            case Let(target, opcode, operands):
                right = f"{opcode} {', '.join(map(names.scalar, operands))}"
                return self._assigned(target, *result_type(opcode, operands), right)
            case Position(target, index):
                return self._assigned(target, INT64, 1, f"index {names.index(index)}")
            case Load(target, buffer, index):
                return self._assigned(target, buffer.dtype, 1, f"load {names.buffer(buffer)}[{names.index(index)}]")
            case Store(buffer, index, value, mask):
                where = "" if mask is None else f" where {names.scalar(mask)}"
                return f"store {names.buffer(buffer)}[{names.index(index)}] <- {names.scalar(value)}{where}"
            case Declare(variable, value):
                first = names.scalar(value)
                return f"var {names.variable(variable)}: {type_text(variable.dtype, variable.lanes)} = {first}"
            case Assign(variable, value):
                return f"{names.variable(variable)} = {names.scalar(value)}"
            case Get(target, variable):
                return self._assigned(target, variable.dtype, variable.lanes, names.variable(variable))
            case Loop():
                return self._loop(statement)
            case If(condition=condition):
                return f"if {names.scalar(condition)}:"
            case Local(buffer):
                return f"local {names.declared(buffer)}"
            case Invoke():
                return f"call {names.call(statement)}"
            case External():
                return f"call {names.external(statement)}"
            case Fail(condition, code, node, index):
                meaning = f" ({FAILURES[code]})" if code in FAILURES else ""
                return f"fail {code}{meaning} if {names.scalar(condition)} at node {node}, index {names.index(index)}"
            case Failed(target):
                return self._assigned(target, BOOL, 1, "failed")
            case Poll(target, work):
                return self._assigned(target, BOOL, 1, f"poll after {names.index(work)}")
            case Comment(text):
                return f"# {_flat(text)}"
            case _:
                return type(statement).__name__.lower()

    def _assigned(self, target: Scalar, dtype: np.dtype, lanes: int, right: str) -> str:
        told = target.dtype == dtype and target.lanes == lanes
        return f"{self.names.scalar(target)}{'' if told else f': {type_text(target.dtype, target.lanes)}'} = {right}"

    def _loop(self, loop: Loop) -> str:
        limits = f"{self.names.index(loop.start)}..{self.names.index(loop.stop)}"
        step = f" step {loop.step}" if loop.step != 1 else ""
        lanes = f" lanes {loop.lanes}" if loop.lanes != 1 else ""
        parallel = " parallel" if loop.parallel else ""
        block = f" block {loop.block}" if loop.block else ""
        return f"for {self.names.counter(loop.counter)} in {limits}{step}{lanes}{parallel}{block}:"


def _flat(text: str) -> str:
    return " ".join(text.split())
