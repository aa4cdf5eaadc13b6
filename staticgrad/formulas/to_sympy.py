"""Expressions as objects of SymPy, built node by node: no text is parsed, and shared parts stay shared."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy

from staticgrad.formulas.algebra import CONSTANTS, Expression, walk

_OPERATORS: dict[str, Callable[..., Any]] = {
    "<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge,
    "&": sympy.And, "|": sympy.Or, "^": sympy.Xor, "~": sympy.Not,
}  # fmt: skip
_CONSTANTS = {"True": sympy.true, "False": sympy.false, "pi": sympy.pi, "oo": sympy.oo, "nan": sympy.nan}


def to_sympy(x: Expression) -> Any:
    """Return the expression as SymPy has it."""
    made: dict[Expression, Any] = {}
    for node in walk([x]):
        made[node] = _object(node, [made[part] for part in node.parts])
    return made[x]


def _object(x: Expression, parts: list[Any]) -> Any:
    match x.kind:
        case "number":
            return _number(x.head)
        case "symbol":
            return _CONSTANTS[str(x.head)] if x in CONSTANTS else sympy.Symbol(str(x.head))
        case "element":
            return sympy.IndexedBase(str(x.head))[tuple(parts)]
        case "tuple":
            return tuple(parts)
        case "sum":
            return sympy.Add(*parts)
        case "product":
            return sympy.Mul(_number(x.head), *parts)
        case "power":
            return sympy.Pow(*parts)
        case "call":
            return getattr(sympy, str(x.head))(*parts)
    return _OPERATORS[str(x.head)](*parts)


def _number(value: Any) -> Any:
    return sympy.Rational(value.numerator, value.denominator) if isinstance(value, Fraction) else sympy.Float(value)
