"""Values of the loop IR as Python expressions: names, literals, indices and instructions."""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.loops import Index, Let, Scalar

INT64, UINT64, FLOAT64, BOOL = (np.dtype(kind) for kind in (np.int64, np.uint64, np.float64, np.bool_))

# How strongly Python's operators bind.
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
    "any": "any_lane",
}  # fmt: skip
"""Instructions that are calls of the vocabulary."""


WIDTH = 100
"""The longest line, where it can be helped."""


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
        """Return `wish`, or `wish` with the first free number (always numbered where `start` is given)."""
        name = stem = identifier(wish)
        if start is not None or not self.free(name):
            stem = f"{stem}_" if stem[-1].isdigit() else stem
            number = 2 if start is None else start
            while not self.free(name := f"{stem}{number}"):
                number += 1
        self.taken.add(name)
        return name


def rows(items: list[str], width: int, gap: int = 1) -> list[list[str]]:
    """Return `items` in rows of at most `width` columns."""
    result: list[list[str]] = [[]]
    used = 0
    for item in items:
        if result[-1] and used + gap + len(item) > width:
            result.append([])
            used = 0
        used += len(item) + (gap if result[-1] else 0)
        result[-1].append(item)
    return result


def wrapped(items: list[str], before: str, after: str, indent: str) -> list[str]:
    """Return `before`, the items with commas and `after`, over several lines where one would be too long."""
    line = indent + before + ", ".join(items) + after
    if len(line) <= WIDTH or len(items) < 2:
        return [line]
    pieces = [*(f"{item}," for item in items[:-1]), items[-1]]
    texts = [f"{indent}    {' '.join(row)}" for row in rows(pieces, WIDTH - len(indent) - 4)]
    return [indent + before, *texts, indent + after]


def dtype_name(dtype: np.dtype) -> str:
    """Return the dtype as it is written in source: np.float32."""
    return "np.bool_" if dtype == BOOL else f"np.{dtype.name}"


def docstring(title: str) -> str:
    """Return `title` as one line that can stand between triple quotes."""
    text = re.sub(r"\s+", " ", title).strip().replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text} """' if text.endswith('"') else f'"""{text}"""'


def literal_text(value: np.generic, typed: bool = False) -> Text:
    """Return a literal: float64, int64 and bool plainly unless `typed`, others as np.float32(0.5)."""
    dtype = value.dtype
    if dtype == BOOL:
        return Text(str(bool(value)))
    number = value.item()
    if isinstance(number, int):
        plain = str(number)
    elif math.isfinite(number):
        plain = str(value)
        if dtype.type(float(plain)) != value:
            plain = repr(number)  # the short form, read as a double, rounds to a neighbour
    else:
        plain = "np.nan" if math.isnan(number) else "np.inf" if number > 0 else "-np.inf"
    if dtype == INT64 and number == np.iinfo(np.int64).min:
        typed = True  # the minus sign would be an operator whose operand does not fit
    if dtype in (INT64, FLOAT64) and not typed:
        return Text(plain, UNARY if plain.startswith("-") else ATOM, loose=dtype == INT64)
    return Text(f"{dtype_name(dtype)}({plain})")


class Values:
    """The expressions of a function's scalars."""

    def __init__(self, note: Callable[[str], str]) -> None:
        self.note = note  # remembers that a name of the vocabulary is used, and returns it
        self.scalars: dict[Scalar, Text] = {}

    def call(self, name: str, *arguments: str) -> Text:
        """Return a call of a vocabulary function."""
        return Text(f"{self.note(name)}({', '.join(arguments)})")

    def value(self, scalar: Scalar, *, typed: bool = False) -> Text:
        """Return the expression for `scalar`; with `typed` it has its dtype in plain Python too."""
        if scalar.literal is not None:
            return literal_text(scalar.literal, typed)
        if scalar not in self.scalars:
            raise VerificationError(f"scalar {scalar.number} ({scalar.hint or scalar.dtype}) is used before it is made")
        text = self.scalars[scalar]
        if typed and text.loose:
            return Text(f"np.int64({text.text})", ATOM, text.reads_memory, text.variables)
        return text

    def index(self, index: Index) -> Text:
        """Return an index expression, its constant last: `i * 32 + j + 1`."""
        text, strength = "", ATOM
        for scalar, coefficient in sorted(index.terms, key=lambda term: term[1] < 0):
            term = self._term(scalar, abs(coefficient))
            if text:
                text = f"{text} {'-' if coefficient < 0 else '+'} {term.within(PRODUCT)}"
                strength = SUM
            else:
                text, strength = (f"-{term.within(ATOM)}", UNARY) if coefficient < 0 else (term.text, term.strength)
        if not text:
            text, strength = str(index.constant), ATOM if index.constant >= 0 else UNARY
        elif index.constant:
            text, strength = f"{text} {'-' if index.constant < 0 else '+'} {abs(index.constant)}", SUM
        return self._reading(Text(text, strength, loose=True), [scalar for scalar, _ in index.terms])

    def _term(self, scalar: Scalar, factor: int) -> Text:
        text = self.value(scalar)
        if scalar.dtype != INT64:
            text = Text(f"np.int64({text.text})")
        return text if factor == 1 else Text(f"{text.within(PRODUCT)} * {factor}", PRODUCT)

    def _reading(self, text: Text, sources: list[Scalar] | tuple[Scalar, ...]) -> Text:
        """Return `text` with what its `sources` depend on."""
        texts = [self.value(source) for source in sources]
        variables: frozenset[int] = frozenset().union(*(source.variables for source in texts))
        return Text(text.text, text.strength, any(source.reads_memory for source in texts), variables, text.loose)

    # ---- instructions

    def expression(self, let: Let) -> Text:
        """Return the expression of an instruction."""
        return self._reading(self._operation(let), let.operands)

    def _operation(self, let: Let) -> Text:
        opcode, operands, lanes = let.opcode, let.operands, let.operands[0].lanes
        flag = operands[0].dtype == BOOL and lanes == 1
        if opcode == "cast":
            return self._cast(operands[0], let.target)
        if opcode == "bitcast":
            return self.call("bitcast", self.value(operands[0]).text, dtype_name(let.target.dtype))
        if opcode == "splat":
            return self.call("splat", self.value(operands[0]).text, str(let.target.lanes))
        if opcode == "extract":
            return self.call("extract", self.value(operands[0]).text, str(operands[1].literal))
        if opcode == "not" and flag:
            return Text(f"not {self.value(operands[0]).within(NOT)}", NOT)
        if opcode in ("neg", "not"):
            sign = "-" if opcode == "neg" else "~"
            return self._narrowed(let, Text(f"{sign}{self.value(operands[0], typed=True).within(UNARY)}", UNARY))
        if opcode == "abs":
            return self._narrowed(let, Text(f"abs({self.value(operands[0], typed=True).text})"))
        if flag and opcode in ("lt", "le", "min", "max"):
            return self._flag_order(let)
        if opcode in OPERATORS and (opcode not in ("shl", "shr") or _is_short_shift(let)):
            return self._operator(let)
        if opcode in CALLS:
            return self.call(CALLS[opcode], *(self.value(operand).text for operand in operands))
        raise VerificationError(f"the printer does not know the instruction {opcode!r}")

    def _operator(self, let: Let) -> Text:
        symbol, strength = OPERATORS[let.opcode]
        x, y = let.operands
        plain = all(operand.literal is not None or self.value(operand).loose for operand in (x, y))
        exact = strength != COMPARE  # plain numbers compare as they are
        left, right = self.value(x, typed=exact and plain), self.value(y)
        text = Text(f"{left.within(strength + (not exact))} {symbol} {right.within(strength + 1)}", strength)
        return self._narrowed(let, text) if exact else text

    def _narrowed(self, let: Let, text: Text) -> Text:
        """Return `text` brought back to its dtype: arithmetic on integer scalars widens them."""
        dtype = let.target.dtype
        if let.target.lanes > 1 or dtype.kind in "fb" or dtype == INT64 or (dtype == np.uint64 and text.strength < UNARY):
            return text
        return Text(f"{dtype_name(dtype)}({text.text})")

    def _flag_order(self, let: Let) -> Text:
        """Return an order of flags by logic: x < y is (not x) & y."""
        x, y = (self.value(operand) for operand in let.operands)
        symbol, strength = ("&", AND) if let.opcode in ("min", "lt") else ("|", OR)
        left = x.within(strength) if let.opcode in ("min", "max") else f"(not {x.within(NOT)})"
        return Text(f"{left} {symbol} {y.within(strength + 1)}", strength)

    def _cast(self, source: Scalar, target: Scalar) -> Text:
        name, x = dtype_name(target.dtype), self.value(source)
        if target.dtype == source.dtype:
            return x
        if source.dtype.kind == "f" and target.dtype.kind in "iu":
            return self.call("to_integer", x.text, name)
        if source.lanes > 1:
            return self.call("convert", x.text, name)
        if target.dtype == BOOL:
            zero = literal_text(source.dtype.type(0))
            return Text(f"{x.within(COMPARE + 1)} != {zero.text}", COMPARE)
        return Text(f"{name}({self.value(source, typed=target.dtype.kind != 'f').text})")


def _is_short_shift(let: Let) -> bool:
    """Return whether a shift's count is known and below the width."""
    count = let.operands[1].literal
    return let.operands[0].lanes == 1 and count is not None and 0 <= int(count) < 8 * let.target.dtype.itemsize
