"""From the notation of an op to an expression: the text is parsed once, and nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction
from functools import cache

from staticgrad.errors import VerificationError
from staticgrad.formulas.algebra import CONSTANTS, Expression, add, call, logic, make, multiply, number, power

_COMPARISONS: dict[type[ast.AST], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_LOGIC: dict[type[ast.AST], str] = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}
_CONSTANTS = {str(each.head): each for each in CONSTANTS}

OPERANDS = ("x", "y", "z")


@cache
def _parsed(notation: str) -> ast.expr:
    return ast.parse(notation, mode="eval").body


def expression_of(notation: str, operands: Mapping[str, Expression]) -> Expression:
    """Return the notation with expressions for its operands: "x + y" for a and b -> a + b."""

    def made(node: ast.expr) -> Expression:
        match node:
            case ast.Name(id=name):
                return operands[name] if name in operands else _CONSTANTS[name]
            case ast.Constant(value=bool(value)):
                return _CONSTANTS[str(value)]
            case ast.Constant(value=int(value)):
                return number(value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -made(operand)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return logic("~", made(operand))
            case ast.BinOp(left=left, op=sign, right=right):
                return _binary(sign, made(left), made(right))
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return logic(_COMPARISONS[type(sign)], made(left), made(right))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return call(name, *map(made, arguments))
            case ast.Tuple(elts=elements):
                return make("tuple", "", *map(made, elements))
        raise VerificationError(f"the notation {notation!r} is not a formula")

    return made(_parsed(notation))


def _binary(sign: ast.operator, x: Expression, y: Expression) -> Expression:
    match sign:
        case ast.Add():
            return add(x, y)
        case ast.Sub():
            return add(x, -y)
        case ast.Mult():
            return multiply(x, y)
        case ast.Div():
            return multiply(x, power(y, number(Fraction(-1))))
        case ast.Pow():
            return power(x, y)
    return logic(_LOGIC[type(sign)], x, y)
