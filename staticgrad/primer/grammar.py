"""The language of an expression graph: `xy = ab*xx + ac*xa^2`, read by recursive descent into a tree.

    definition = name "=" sum
    sum        = product (("+" | "-") product)*
    product    = signed (("*" | "/") signed)*
    signed     = "-" signed | power
    power      = atom ("^" signed)?                     so that -x^2 = -(x^2) and 2^3^2 = 2^(3^2)
    atom       = number | name | function "(" sum ")" | "(" sum ")"

Nothing is ever evaluated as Python: `evaluate` walks the tree and calls NumPy's functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from staticgrad.errors import ExpressionError
from staticgrad.ir.source import at_user_line

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power,
}  # fmt: skip

FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "abs": np.abs, "cos": np.cos, "exp": np.exp, "log": np.log, "sin": np.sin, "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip

DEEPEST = 100
"""How deep a tree may be: reading, printing and evaluating it recurse."""

_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<symbol>\S))", re.ASCII)
_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}
_SIGN, _ATOM = 3, 5


# ---- trees


@dataclass(frozen=True)
class Number:
    """A number, at least 0."""

    value: float
    position: int = field(default=0, compare=False)
    binding = _ATOM
    depth = 1

    def __str__(self) -> str:
        return repr(self.value).removesuffix(".0")


@dataclass(frozen=True)
class Name:
    """A vertex or a constant."""

    name: str
    position: int = field(default=0, compare=False)
    binding = _ATOM
    depth = 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Negative:
    """-operand."""

    operand: Tree
    position: int = field(default=0, compare=False)
    binding = _SIGN

    @property
    def depth(self) -> int:
        return 1 + self.operand.depth

    def __str__(self) -> str:
        return "-" + _bracketed(self.operand, _SIGN)


@dataclass(frozen=True)
class Binary:
    """left operator right."""

    operator: str
    left: Tree
    right: Tree
    position: int = field(default=0, compare=False)

    @property
    def binding(self) -> int:
        return _BINDING[self.operator]

    @property
    def depth(self) -> int:
        return 1 + max(self.left.depth, self.right.depth)

    def __str__(self) -> str:
        if self.operator == "^":
            return f"{_bracketed(self.left, _ATOM)}^{_bracketed(self.right, _SIGN)}"
        space = " " if self.operator in "+-" else ""
        return f"{_bracketed(self.left, self.binding)}{space}{self.operator}{space}{_bracketed(self.right, self.binding + 1)}"


@dataclass(frozen=True)
class Call:
    """function(argument)."""

    function: str
    argument: Tree
    position: int = field(default=0, compare=False)
    binding = _ATOM

    @property
    def depth(self) -> int:
        return 1 + self.argument.depth

    def __str__(self) -> str:
        return f"{self.function}({self.argument})"


Tree: TypeAlias = Number | Name | Negative | Binary | Call


@dataclass(frozen=True)
class Definition:
    """`target = tree`, with the text that it was read from."""

    target: Name
    tree: Tree
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.target} = {self.tree}"


def _bracketed(tree: Tree, least: int) -> str:
    return str(tree) if tree.binding >= least else f"({tree})"


def names_in(tree: Tree) -> Iterator[Name]:
    """Return the names in a tree from left to right, with repetitions."""
    match tree:
        case Name():
            yield tree
        case Negative(operand) | Call(_, operand):
            yield from names_in(operand)
        case Binary(_, left, right):
            yield from names_in(left)
            yield from names_in(right)


def evaluate(tree: Tree, values: Mapping[str, Any]) -> Any:
    """Return the value of a tree: NumPy's functions on numbers, arrays or tracers."""
    match tree:
        case Number(value):
            return value
        case Name(name):
            return values[name]
        case Negative(operand):
            return np.negative(evaluate(operand, values))
        case Call(function, argument):
            return FUNCTIONS[function](evaluate(argument, values))
        case Binary(operator, left, right):
            return OPERATORS[operator](evaluate(left, values), evaluate(right, values))


# ---- reading


def is_vertex(name: str) -> bool:
    """Return whether a name is that of a vertex: its first letter decides."""
    return name.startswith("x")


def error_at(message: str, text: str, position: int) -> ExpressionError:
    """Return an error that shows `text` with a caret below `position`."""
    shown = re.sub(r"\s", " ", text)
    return ExpressionError(at_user_line(f"{message}\n    {shown}\n    {' ' * position}^"))


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, symbol, end
    text: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


class _Reader:
    """Reads one definition; `self.token` is what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.depth = 0
        self.before = self.token = _Token("start", "", 0)
        self.advance()

    def _tokens(self) -> Iterator[_Token]:
        position = 0
        while found := _TOKEN.match(self.text, position):
            assert found.lastgroup is not None
            yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))
            position = found.end()
        yield _Token("end", "", len(self.text.rstrip()))

    def advance(self) -> _Token:
        self.before, self.token = self.token, next(self.tokens, self.token)
        return self.before

    def take(self, symbols: str) -> _Token | None:
        """Return the next token and go on if it is one of these symbols."""
        return self.advance() if self.token.kind == "symbol" and self.token.text in symbols else None

    def error(self, message: str, token: _Token | None = None) -> ExpressionError:
        return error_at(message, self.text, (token or self.token).position)

    def definition(self) -> Definition:
        if self.token.kind == "end":
            raise self.error("an empty expression; write for example xy = ab*xx")
        if self.token.kind != "name":
            raise self.error(f"an expression begins with the vertex that it defines, not with {self.token}")
        target = self.advance()
        if not self.take("="):
            found = "it ends" if self.token.kind == "end" else f"{self.token} stands"
            raise self.error(f"expected = after {target}, where {found}; an expression defines a vertex, for example xy = ab*xx")
        if not is_vertex(target.text):
            raise self.error(f"{target} is a trained constant and cannot be defined: the name of a vertex begins with x", target)
        tree = self.sum()
        if self.token.kind != "end":
            raise self.left_over()
        return Definition(Name(target.text, target.position), tree, self.text)

    def left_over(self) -> ExpressionError:
        token, before = self.token, self.before
        if token.text == "=":
            return self.error("a second = in one expression")
        if token.text == ")":
            return self.error("a closing parenthesis that was never opened")
        if token.kind in ("name", "number") or token.text == "(":
            if before.kind == "name" and token.text == "(":
                known = ", ".join(sorted(FUNCTIONS))
                return self.error(f"{before} is not a function ({known} are); for a product write {before.text}*(...)", before)
            product = f"; for a product write {before.text}*{token.text}"
            return self.error(f"expected an operator between {before} and {token}{product}")
        return self.error(f"{token} has no meaning here; operators are + - * / ^, names consist of letters from a to z, digits and _")

    def sum(self) -> Tree:
        left = self.product()
        while operator := self.take("+-"):
            left = self.limited(Binary(operator.text, left, self.product(), operator.position))
        return left

    def product(self) -> Tree:
        left = self.signed()
        while operator := self.take("*/"):
            if operator.text == "*" == self.token.text:
                raise self.error("expected a value after '*'; a power is written with ^, for example xa^2")
            left = self.limited(Binary(operator.text, left, self.signed(), operator.position))
        return left

    def signed(self) -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(_too_deep())
        sign = self.take("-")
        tree: Tree = Negative(self.signed(), sign.position) if sign else self.power()
        self.depth -= 1
        return self.limited(tree)

    def power(self) -> Tree:
        base = self.atom()
        operator = self.take("^")
        return Binary("^", base, self.signed(), operator.position) if operator else base

    def atom(self) -> Tree:
        token = self.token
        if token.kind == "number":
            value = float(self.advance().text)
            if math.isinf(value):
                raise self.error(f"the number {token.text} is too large", token)
            return Number(value, token.position)
        if token.kind == "name":
            return self.call(self.advance()) if token.text in FUNCTIONS else Name(self.advance().text, token.position)
        if self.take("("):
            return self.closed(token)
        after = f" after {self.before}"
        raise self.error(f'expected a number, a name or "("{after}, not {token}')

    def call(self, function: _Token) -> Tree:
        opened = self.token
        if not self.take("("):
            raise self.error(f'expected "(" after the function {function}, not {self.token}: its name cannot be that of a constant')
        return Call(function.text, self.closed(opened), function.position)

    def closed(self, opened: _Token) -> Tree:
        tree = self.sum()
        if self.token.kind == "end":
            raise self.error("this parenthesis is never closed", opened)
        if not self.take(")"):
            raise self.left_over()
        return tree

    def limited(self, tree: Tree) -> Tree:
        if tree.depth > DEEPEST:
            raise error_at(_too_deep(), self.text, tree.position)
        return tree


def _too_deep() -> str:
    return f"an expression of more than {DEEPEST} levels; define a vertex for a part of it"


def parse(text: str) -> Definition:
    """Return the definition that a text spells.

    Raises
    ------
    ExpressionError
        If it is malformed; the message shows where.

    Examples
    --------
    >>> print(parse("xy=ab*xx-(ac+-xa^2)").tree)
    ab*xx - (ac + -xa^2)
    >>> parse("xy = ab*")
    Traceback (most recent call last):
    staticgrad.errors.ExpressionError: expected a number, a name or "(" after '*', not the end
        xy = ab*
                ^
    ...
    """
    return _Reader(text).definition()
