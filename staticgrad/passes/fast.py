"""Rules for `fastmath`: they change the last digits, and the range in which steps on the way overflow, but no NaN into a number.

    x / 3                     ->  x * 0.333...
    exp(x) / sum of rows      ->  exp(x) * (1 / sum of rows), one division a row
    (x * 2) * 0.1             ->  x * 0.2

`x * 0`, `x - x` and `x / x` stay, as do `isnan`, `isinf` and `isfinite`, and sums keep their order. A NaN or a number may come where
a step on the way would have overflowed (`sqrt(x * x)` of 1e200), or underflowed: numbers below the least normal one, 2e-308, may
count as 0 where they divide.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.ir.node import Node, Value, full
from staticgrad.ops.arithmetic import absolute, divide, multiply
from staticgrad.ops.comparison import Where
from staticgrad.ops.control import Contiguous
from staticgrad.ops.movement import Broadcast, Reshape, View, broadcast
from staticgrad.ops.powers import IntegerPower, integer_power, sqrt
from staticgrad.ops.reduce import Max, Min, Prod, Sum
from staticgrad.passes.matching import named, splat
from staticgrad.passes.rewrite import Rule, rule

DEPTH = 8
"""So many operations are looked through to find out that a value is never negative."""


def _known(x: Value) -> Any:
    """Return the number that every element of x is, None if that is not known."""
    return splat(x)


def _ordinary(number: Any) -> bool:
    """Return whether a number is finite, not 0 and not subnormal."""
    return bool(np.isfinite(number) and abs(number) >= np.finfo(number.dtype).tiny)


def nonnegative(x: Value, depth: int = DEPTH) -> bool:
    """Return whether it is certain that no element of x is negative: each is at least -0, or NaN."""
    op, inputs = x.op, x.node.inputs
    known = _known(x)
    if known is not None:
        return bool(known >= 0)
    if depth == 0:
        return False
    if op.name in ("absolute", "exp", "sqrt", "sigmoid", "softplus", "relu"):
        return True
    if op.name == "multiply" and inputs[0] is inputs[1]:
        return True
    if isinstance(op, IntegerPower) and op.exponent % 2 == 0:
        return True
    if op.name == "maximum":
        return any(nonnegative(v, depth - 1) for v in inputs)
    if isinstance(op, Where):
        return all(nonnegative(v, depth - 1) for v in inputs[1:])
    passes = (Sum, Prod, Max, Min, View, Reshape, Contiguous, IntegerPower)
    if isinstance(op, passes) or op.name in ("add", "multiply", "divide", "minimum"):
        return all(nonnegative(v, depth - 1) for v in inputs)
    return False


@rule(named("divide"), exact=False)
def divide_by_number(node: Node) -> Value | None:
    """X / c -> x * (1 / c)."""
    x, y = node.inputs
    known = _known(y)
    if known is None or splat(x) is not None or not _ordinary(known):
        return None
    with np.errstate(all="ignore"):
        inverse = known.dtype.type(1) / known
    return multiply(x, full(x.shape, inverse, x.dtype)) if _ordinary(inverse) else None


@rule(named("divide"), exact=False)
def divide_by_repeated(node: Node) -> Value | None:
    """X / broadcast(y) -> x * broadcast(1 / y): fewer divisions."""
    x, y = node.inputs
    if not isinstance(y.op, Broadcast) or isinstance(x.op, Broadcast) or splat(y) is not None:
        return None
    divisor = y.node.inputs[0]
    if divisor.aval.size >= y.aval.size:
        return None
    return multiply(x, broadcast(divide(full(divisor.shape, 1, divisor.dtype), divisor), y.shape, y.op.axes))


@rule(named("multiply"), exact=False)
def multiply_by_two_numbers(node: Node) -> Value | None:
    """(x * c) * d -> x * (c * d)."""
    for x, number in (node.inputs, node.inputs[::-1]):
        outer = _known(number)
        if outer is None or outer.dtype.kind != "f" or x.op.name != "multiply" or splat(x) is not None:
            continue
        for y, other in (x.node.inputs, x.node.inputs[::-1]):
            inner = _known(other)
            if inner is None:
                continue
            with np.errstate(all="ignore"):
                both = inner * outer
            if _ordinary(inner) and _ordinary(outer) and _ordinary(both):
                return multiply(y, full(y.shape, both, y.dtype))
    return None


@rule(named("sqrt"), exact=False)
def sqrt_of_square(node: Node) -> Value | None:
    """sqrt(x * x) -> |x|."""
    x = node.inputs[0]
    is_square = x.op.name == "multiply" and x.node.inputs[0] is x.node.inputs[1]
    return absolute(x.node.inputs[0]) if is_square else None


@rule(named("multiply"), exact=False)
def square_of_sqrt(node: Node) -> Value | None:
    """sqrt(x) * sqrt(x) -> x, for x that is never negative."""
    x, y = node.inputs
    if x is not y or x.op.name != "sqrt":
        return None
    inner = x.node.inputs[0]
    return inner if nonnegative(inner) else None


@rule(named("log"), exact=False)
def log_of_exp(node: Node) -> Value | None:
    """log(exp(x)) -> x."""
    x = node.inputs[0]
    return x.node.inputs[0] if x.op.name == "exp" else None


@rule(named("exp"), exact=False)
def exp_of_log(node: Node) -> Value | None:
    """exp(log(x)) -> x, for x that is never negative."""
    x = node.inputs[0]
    if x.op.name != "log":
        return None
    inner = x.node.inputs[0]
    return inner if nonnegative(inner) else None


@rule(named("power"), exact=False)
def power_of_halves(node: Node) -> Value | None:
    """x**1.5 -> x * sqrt(x), x**-0.5 -> 1 / sqrt(x), for x that is never negative."""
    x, exponent = node.inputs
    known = _known(exponent)
    if known is None or known.dtype.kind != "f" or abs(known) not in (0.5, 1.5, 2.5) or not nonnegative(x):
        return None
    root, whole = sqrt(x), int(abs(known))
    found = multiply(integer_power(x, whole), root) if whole else root
    return found if known > 0 else divide(full(x.shape, 1, x.dtype), found)


FAST_RULES: tuple[Rule, ...] = tuple(value for value in globals().values() if isinstance(value, Rule))
"""All rules, in the order in which they are tried."""
