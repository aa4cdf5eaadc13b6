"""Loop IR as Python text: names, literals, expressions and statements, shared by the printers that write Python.

An instruction that is used once becomes part of the expression that uses it; everything else gets a name.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.loops import (
    Assign,
    Block,
    Buffer,
    Comment,
    Declare,
    External,
    Fail,
    Function,
    Get,
    If,
    Index,
    Invoke,
    Let,
    Load,
    Local,
    Loop,
    Position,
    Scalar,
    Statement,
    Store,
    Variable,
    While,
    children,
    walk,
)

WIDTH = 100
"""The longest line that a folded expression may make."""

INT64, FLOAT64, BOOL = np.dtype(np.int64), np.dtype(np.float64), np.dtype(np.bool_)

# Binding strength of Python's operators.
NOT, COMPARE, OR, XOR, AND, SHIFT, SUM, PRODUCT, UNARY, ATOM = range(1, 11)

OPERATORS: dict[str, tuple[str, int]] = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT),
    "lt": ("<", COMPARE), "le": ("<=", COMPARE), "eq": ("==", COMPARE), "ne": ("!=", COMPARE),
    "and": ("&", AND), "or": ("|", OR), "xor": ("^", XOR), "shl": ("<<", SHIFT), "shr": (">>", SHIFT),
}  # fmt: skip

CALLS: dict[str, str] = {
    "fma": "fma", "min": "minimum", "max": "maximum", "sqrt": "sqrt", "floor": "floor", "rint": "rint", "trunc": "trunc",
    "quotient": "quotient", "remainder": "remainder", "mulhi": "mulhi", "select": "select",
    "shl": "shift_left", "shr": "shift_right", "extract": "extract",
}  # fmt: skip
"""Instructions that are calls of the vocabulary."""

NOUNS: dict[str, str] = {
    "add": "total", "sub": "difference", "mul": "product", "div": "ratio", "neg": "negative", "abs": "magnitude", "fma": "fused",
    "min": "least", "max": "greatest", "sqrt": "root", "floor": "below", "rint": "nearest", "trunc": "whole",
    "quotient": "quotient", "remainder": "rest", "mulhi": "high", "lt": "less", "le": "at_most", "eq": "equal", "ne": "unequal",
    "select": "chosen", "cast": "converted", "bitcast": "bits", "shl": "shifted", "shr": "shifted", "and": "both", "or": "either",
    "xor": "mixed", "not": "inverse", "splat": "copies", "extract": "lane",
}  # fmt: skip
"""What the result of an instruction is called."""

COUNTERS = "ijklmnpq"


@dataclass(frozen=True)
class Text:
    """An expression: its text, how strongly it binds, and what must not change before it is evaluated."""

    text: str
    strength: int = ATOM
    reads_memory: bool = False
    variables: frozenset[int] = frozenset()
    loose: bool = False  # a plain `int` when Python runs the text: it would not wrap around

    def within(self, strength: int) -> str:
        """Return the text as an operand of an operator of `strength`."""
        return self.text if self.strength >= strength else f"({self.text})"


def identifier(text: str) -> str:
    """Return `text` as a Python identifier: "h.1" -> "h_1"."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    return f"v{name}" if name[0].isdigit() else name


@dataclass
class Names:
    """Hands out names that are neither taken nor mean something in Python."""

    taken: set[str] = field(default_factory=set)

    def free(self, name: str) -> bool:
        """Return whether `name` may still be given."""
        return not (name in self.taken or keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name))

    def unique(self, wish: str, start: int | None = None) -> str:
        """Return `wish`, or `wish` with the first free number (at once where `start` is given)."""
        wish = identifier(wish)
        if start is None and self.free(wish):
            name = wish
        else:
            stem = f"{wish}_" if wish[-1].isdigit() else wish
            number = 2 if start is None else start
            while not self.free(name := f"{stem}{number}"):
                number += 1
        self.taken.add(name)
        return name


def dtype_name(dtype: np.dtype) -> str:
    """Return the dtype as it is written in source: np.float32."""
    return f"np.{dtype.name}" if dtype != BOOL else "np.bool_"


def literal_text(value: np.generic, typed: bool = False) -> Text:
    """Return a literal: float64, int64 and bool plainly unless `typed`, others as np.float32(0.5)."""
    dtype = value.dtype
    if dtype == BOOL:
        return Text(str(bool(value)))
    if dtype.kind == "f":
        if math.isnan(value):
            plain = "np.nan"
        elif math.isinf(value):
            plain = "np.inf" if value > 0 else "-np.inf"
        else:
            plain = str(value)
    else:
        plain = str(int(value))
    if dtype == INT64 and int(value) == np.iinfo(np.int64).min:
        typed = True  # -9223372036854775808 is an operator and an operand that does not fit
    if dtype in (INT64, FLOAT64) and not typed:
        return Text(plain, UNARY if plain.startswith("-") else ATOM, loose=dtype == INT64)
    return Text(f"{dtype_name(dtype)}({plain})")


def can_fail(function: Function) -> bool:
    """Return whether `function`, or one that it calls, can note a failure."""
    return any(
        isinstance(statement, Fail) or (isinstance(statement, Invoke) and can_fail(statement.function))
        for statement in walk(function.body)
    )


def index_scalars(index: Index) -> Iterable[Scalar]:
    """Return the scalars that `index` is made of."""
    return (scalar for scalar, _ in index.terms)


def operands(statement: Statement) -> tuple[Scalar, ...]:
    """Return the scalars that `statement` itself reads, blocks inside it left out."""
    match statement:
        case Let(operands=values):
            return values
        case Position(index=index) | Load(index=index):
            return tuple(index_scalars(index))
        case Store(index=index, value=value, mask=mask):
            return (*index_scalars(index), value, *(() if mask is None else (mask,)))
        case Declare(value=value) | Assign(value=value):
            return (value,)
        case Loop(start=start, stop=stop):
            return (*index_scalars(start), *index_scalars(stop))
        case If(condition=condition) | While(condition=condition):
            return (condition,)
        case Fail(condition=condition, index=index):
            return (condition, *index_scalars(index))
        case Invoke(buffers=buffers, numbers=numbers) | External(buffers=buffers, numbers=numbers):
            positions = [index for _, index in buffers]
            return tuple(scalar for index in [*positions, *numbers] for scalar in index_scalars(index))
        case _:
            return ()


def wrapped(items: list[str], before: str, after: str, indent: str) -> list[str]:
    """Return `before` + the items with commas + `after`, over several lines where one is too long."""
    line = indent + before + ", ".join(items) + after
    if len(line) <= WIDTH or len(items) < 2:
        return [line]
    lines, inner = [indent + before], indent + "    "
    row = inner
    for position, item in enumerate(items):
        piece = item + ("," if position < len(items) - 1 else "")
        if row != inner and len(row) + len(piece) + 1 > WIDTH:
            lines.append(row)
            row = inner
        row += piece if row == inner else f" {piece}"
    return [*lines, row, indent + after]


class FunctionText:
    """Prints the body of one function; subclasses say how a target writes loops and calls."""

    def __init__(self, names: Names, functions: dict[Function, str], note: Callable[[str], str]) -> None:
        self.names = names
        self.functions = functions
        self.note = note  # notes that a vocabulary name is used, and returns it
        self.lines: list[str] = []
        self.level = 1
        self.buffers: dict[Buffer, str] = {}
        self.scalars: dict[Scalar, Text] = {}
        self.variables: dict[Variable, str] = {}
        self.pending: dict[Scalar, Text] = {}  # to be folded into the one statement that reads them
        self.hints: dict[Scalar, str] = {}
        self.counters: list[str] = []
        self.uses: dict[Scalar, int] = {}

    # ---- plumbing

    @property
    def indent(self) -> str:
        """The white space before a statement."""
        return "    " * self.level

    def line(self, text: str) -> None:
        """Append one line."""
        self.lines.append(f"{self.indent}{text}")

    def call(self, name: str, *arguments: str) -> Text:
        """Return a call of a vocabulary function."""
        return Text(f"{self.note(name)}({', '.join(arguments)})")

    def buffer(self, buffer: Buffer) -> str:
        """Return the name of `buffer`."""
        if buffer not in self.buffers:
            raise VerificationError(f"buffer {buffer.name!r} is used in a function that does not hold it")
        return self.buffers[buffer]

    # ---- values

    def value(self, scalar: Scalar, *, typed: bool = False) -> Text:
        """Return the expression for `scalar`; with `typed` it has its dtype in plain Python too."""
        if scalar.literal is not None:
            return literal_text(scalar.literal, typed)
        if scalar not in self.scalars:
            raise VerificationError(f"scalar {scalar.number} ({scalar.hint or scalar.dtype}) is used before it is made")
        text = self.scalars[scalar]
        return Text(f"np.int64({text.text})", ATOM, text.reads_memory, text.variables) if typed and text.loose else text

    def index(self, index: Index) -> Text:
        """Return an index expression: constant last, `i * 32 + j + 1`."""
        text = ""
        parts = [self._term(scalar, coefficient) for scalar, coefficient in index.terms]
        positive = sorted(parts, key=lambda part: part[0] < 0)  # a positive term first
        for sign, term in positive:
            if not text:
                text = f"-{term}" if sign < 0 else term
            else:
                text += f" - {term}" if sign < 0 else f" + {term}"
        if index.constant or not text:
            text = f"{text} {'-' if index.constant < 0 else '+'} {abs(index.constant)}" if text else str(index.constant)
        strength = ATOM if text.isidentifier() or text.isdigit() else SUM
        sources = [self.value(scalar) for scalar in index_scalars(index)]
        reads = any(source.reads_memory for source in sources)
        return Text(text, strength, reads, frozenset().union(*(source.variables for source in sources)), loose=True)

    def _term(self, scalar: Scalar, coefficient: int) -> tuple[int, str]:
        text = self.value(scalar)
        if scalar.dtype != INT64:
            text = Text(f"np.int64({text.text})")
        if abs(coefficient) == 1:
            return coefficient, text.within(SUM if coefficient > 0 else PRODUCT)
        return (1 if coefficient > 0 else -1), f"{text.within(PRODUCT)} * {abs(coefficient)}"

    # ---- instructions

    def expression(self, let: Let) -> Text:
        """Return the expression of an instruction."""
        text = self._operation(let)
        sources = [self.value(operand) for operand in let.operands]
        variables: frozenset[int] = frozenset().union(*(source.variables for source in sources))
        return Text(text.text, text.strength, any(source.reads_memory for source in sources), variables)

    def _operation(self, let: Let) -> Text:
        opcode, dtype, arguments = let.opcode, let.operands[0].dtype, let.operands
        lanes = max(operand.lanes for operand in arguments)
        if opcode in ("cast", "bitcast"):
            return self._conversion(let)
        if opcode == "splat":
            return self.call("splat", self.value(arguments[0], typed=True).text, str(let.target.lanes))
        if opcode == "not":
            if dtype == BOOL and lanes == 1:
                return Text(f"not {self.value(arguments[0]).within(NOT)}", NOT)
            return self._wrapped(let, Text(f"~{self.value(arguments[0], typed=True).within(UNARY)}", UNARY), lanes)
        if opcode == "neg":
            return self._wrapped(let, Text(f"-{self.value(arguments[0], typed=True).within(UNARY)}", UNARY), lanes)
        if opcode == "abs":
            return self._wrapped(let, Text(f"abs({self.value(arguments[0], typed=True).text})"), lanes)
        if dtype == BOOL and lanes == 1 and opcode in ("lt", "le", "min", "max"):
            return self._bool_order(let)
        if opcode in OPERATORS and not (opcode in ("shl", "shr") and not _short_shift(let)):
            return self._operator(let, lanes)
        if opcode in CALLS:
            known = all(operand.literal is not None for operand in arguments)
            return self.call(CALLS[opcode], *(self.value(operand, typed=known).text for operand in arguments))
        raise VerificationError(f"unknown instruction {opcode!r}")

    def _operator(self, let: Let, lanes: int) -> Text:
        symbol, strength = OPERATORS[let.opcode]
        x, y = let.operands
        known = x.literal is not None and y.literal is not None
        exact = strength != COMPARE  # a comparison of plain integers is right as it is
        left = self.value(x, typed=known or (exact and x.literal is None))
        right = self.value(y, typed=exact and y.literal is None)
        tight = strength + 1 if strength == COMPARE else strength
        text = Text(f"{left.within(tight)} {symbol} {right.within(strength + 1)}", strength)
        return text if strength == COMPARE else self._wrapped(let, text, lanes)

    def _wrapped(self, let: Let, text: Text, lanes: int) -> Text:
        """Return `text` brought back to its dtype: scalar arithmetic widens narrow integers."""
        dtype = let.target.dtype
        if lanes > 1 or dtype.kind in "fb" or dtype == INT64:
            return text
        if dtype == np.uint64 and let.opcode not in ("neg", "not", "abs"):
            return text
        return Text(f"{dtype_name(dtype)}({text.text})")

    def _bool_order(self, let: Let) -> Text:
        x, y = (self.value(operand) for operand in let.operands)
        if let.opcode in ("min", "max"):
            symbol, strength = ("&", AND) if let.opcode == "min" else ("|", OR)
            return Text(f"{x.within(strength)} {symbol} {y.within(strength + 1)}", strength)
        symbol, strength = ("&", AND) if let.opcode == "lt" else ("|", OR)
        return Text(f"(not {x.within(NOT)}) {symbol} {y.within(strength + 1)}", strength)

    def _conversion(self, let: Let) -> Text:
        source, target = let.operands[0], let.target
        name, x = dtype_name(target.dtype), self.value(source)
        if let.opcode == "bitcast":
            return self.call("bitcast", self.value(source, typed=True).text, name)
        if target.dtype == source.dtype:
            return x
        if target.dtype == BOOL and source.lanes == 1:
            zero = literal_text(source.dtype.type(0))
            return Text(f"{x.within(COMPARE + 1)} != {zero.text}", COMPARE)
        if source.dtype.kind == "f" and target.dtype.kind in "iu":
            return self.call("to_integer", self.value(source, typed=True).text, name)
        if source.lanes > 1:
            return self.call("convert", x.text, name)
        return Text(f"{name}({self.value(source, typed=target.dtype.kind != 'f').text})")

    # ---- statements

    def block(self, block: Block) -> None:
        """Print the statements of `block`."""
        start = len(self.lines)
        for position, statement in enumerate(block.statements):
            self._statement(statement, block.statements, position)
        if len(self.lines) == start:
            self.line("pass")

    def inner(self, block: Block) -> None:
        """Print `block` one level deeper."""
        self.level += 1
        self.block(block)
        self.level -= 1

    def count_uses(self, body: Block) -> None:
        """Count how often each scalar is read, and find names for those that are stored."""
        for statement in walk(body):
            for scalar in operands(statement):
                self.uses[scalar] = self.uses.get(scalar, 0) + 1
            if isinstance(statement, Store):
                self.hints.setdefault(statement.value, statement.buffer.name)
            elif isinstance(statement, Assign):
                self.hints.setdefault(statement.value, statement.variable.hint)

    def _statement(self, statement: Statement, block: list[Statement], position: int) -> None:
        match statement:
            case Let(target=target):
                self._define(target, self.expression(statement), NOUNS[statement.opcode], block, position)
            case Position(target=target, index=index):
                self._define(target, self.index(index), "position", block, position)
            case Load(target=target, buffer=buffer, index=index):
                self._define(target, self.load(statement), self.buffer(buffer), block, position)
            case Get(target=target, variable=variable):
                text = Text(self.variables[variable], ATOM, False, frozenset({variable.number}))
                self._define(target, text, variable.hint or "value", block, position)
            case Store():
                self._settle(statement, memory=True)
                self.store(statement)
            case Declare(variable=variable, value=value):
                self._settle(statement)
                name = self.variables[variable] = self.names.unique(variable.hint or "value")
                self._assign(name, value)
            case Assign(variable=variable, value=value):
                self._settle(statement, variable=variable.number)
                self._assign(self.variables[variable], value)
            case Local(buffer=buffer):
                name = self.buffers[buffer] = self.names.unique(buffer.name)
                call = self.call("local_array", dtype_name(buffer.dtype), str(buffer.size))
                self.line(f"{name} = {call.text}")
            case Loop():
                self._settle(statement, memory=True, compound=True)
                self.loop(statement)
            case If():
                self._settle(statement, memory=True, compound=True)
                self._if(statement)
            case While():
                self._settle(statement, memory=True, compound=True)
                self._while(statement)
            case Fail():
                self._settle(statement)
                self._fail(statement)
            case Invoke():
                self._settle(statement, memory=True)
                self._invoke(statement)
            case External(symbol=symbol):
                raise VerificationError(f"the external symbol {symbol!r} cannot be called by this printer")
            case Comment(text=text):
                for row in text.splitlines():
                    self.line(f"# {row}".rstrip())

    # ---- folding

    def _define(self, target: Scalar, text: Text, noun: str, block: list[Statement], position: int) -> None:
        """Keep `text` for the statement that uses `target`, or give it a name."""
        if self._folds(target, text, block, position):
            self.scalars[target] = self.pending[target] = text
            return
        self._materialise(target, text, noun)

    def _materialise(self, target: Scalar, text: Text, noun: str) -> None:
        self._long(target, text)
        wish = target.hint or self.hints.get(target, "")
        name = self.names.unique(wish or noun, None if target.hint else 0)
        shown = self.scalars[target] if target in self.pending else text
        self.line(f"{name} = {shown.text}")
        self.pending.pop(target, None)
        self.scalars[target] = Text(name, loose=text.loose)

    def _long(self, target: Scalar, text: Text) -> None:
        pass

    def _folds(self, target: Scalar, text: Text, block: list[Statement], position: int) -> bool:
        if self.uses.get(target, 0) == 0:
            return True  # dead: never printed
        return False
