"""Exact rules on arithmetic, choices and casts.

`x + 0` is not among them (-0 + 0 is 0), nor `x * 0`, nor `x - x`.
"""

from __future__ import annotations

import numpy as np

from staticgrad.ir.aval import BOOL, is_float, is_integer
from staticgrad.ir.node import Node, Value, full
from staticgrad.ops.arithmetic import multiply, negative
from staticgrad.ops.casts import Cast
from staticgrad.ops.comparison import Where, logical_not, where
from staticgrad.ops.movement import Broadcast, broadcast
from staticgrad.ops.powers import IntegerPower
from staticgrad.passes.matching import is_number, named, splat
from staticgrad.passes.rewrite import rule


@rule(named("multiply"))
def multiply_by_one(node: Node) -> Value | None:
    """X * 1 -> x."""
    x, y = node.inputs
    if x.dtype.kind == "b":
        return None
    return x if is_number(y, 1) else y if is_number(x, 1) else None


@rule(named("multiply"))
def multiply_by_minus_one(node: Node) -> Value | None:
    """X * -1 -> -x."""
    x, y = node.inputs
    if not (is_float(x.dtype) or x.dtype.kind == "i"):
        return None
    return negative(x) if is_number(y, -1) else negative(y) if is_number(x, -1) else None


@rule(named("divide"))
def divide_by_one(node: Node) -> Value | None:
    """X / 1 -> x."""
    return node.inputs[0] if is_number(node.inputs[1], 1) else None


@rule(named("divide"))
def divide_by_power_of_two(node: Node) -> Value | None:
    """X / 2**k -> x * 2**-k: both are exact, and the product is cheaper."""
    x, y = node.inputs
    known = splat(y)
    if known is None or splat(x) is not None or not np.isfinite(known) or known == 0:
        return None
    mantissa, exponent = np.frexp(np.float64(known))
    if abs(mantissa) != 0.5 or abs(exponent) > 120:
        return None
    return multiply(x, full(x.shape, 1.0 / float(known), x.dtype))


@rule(named("add"))
def add_negative_zero(node: Node) -> Value | None:
    """X + -0 -> x, and for integers x + 0 -> x."""
    x, y = node.inputs
    zero = 0.0 if is_integer(x.dtype) else -0.0
    if x.dtype.kind == "b":
        return None
    return x if is_number(y, zero) else y if is_number(x, zero) else None


@rule(named("subtract"))
def subtract_zero(node: Node) -> Value | None:
    """X - 0 -> x."""
    return node.inputs[0] if is_number(node.inputs[1], 0) else None


@rule(named("add"))
def add_negative(node: Node) -> Value | None:
    """X + -y -> x - y."""
    x, y = node.inputs
    if isinstance(y.op, named("negative")):
        return x - y.node.inputs[0]
    return y - x.node.inputs[0] if isinstance(x.op, named("negative")) else None


@rule(named("subtract"))
def subtract_negative(node: Node) -> Value | None:
    """X - -y -> x + y."""
    x, y = node.inputs
    return x + y.node.inputs[0] if isinstance(y.op, named("negative")) else None


@rule(named("negative"))
def negative_of_negative(node: Node) -> Value | None:
    """--x -> x."""
    x = node.inputs[0]
    return x.node.inputs[0] if isinstance(x.op, named("negative")) else None


@rule(IntegerPower)
def first_power(node: Node) -> Value | None:
    """x**1 -> x, x**2 -> x*x."""
    x = node.inputs[0]
    exponent = node.op.exponent if isinstance(node.op, IntegerPower) else 0
    return x if exponent == 1 else multiply(x, x) if exponent == 2 else None


@rule(Where)
def where_same(node: Node) -> Value | None:
    """where(c, x, x) -> x."""
    _, x, y = node.inputs
    return x if x is y else None


@rule(Where)
def where_known(node: Node) -> Value | None:
    """where(True, x, y) -> x."""
    condition, x, y = node.inputs
    known = splat(condition)
    return None if known is None else x if known else y


@rule(Where)
def where_not(node: Node) -> Value | None:
    """where(not c, x, y) -> where(c, y, x), broadcast or not."""
    condition, x, y = node.inputs
    spread = condition.op if isinstance(condition.op, Broadcast) else None
    inner = condition if spread is None else condition.node.inputs[0]
    if not isinstance(inner.op, named("logical_not")):
        return None
    (c,) = inner.node.inputs
    return where(c if spread is None else broadcast(c, spread.shape, spread.axes), y, x)


@rule(named("less"))
def number_of_a_truth_value_less_than_one(node: Node) -> Value | None:
    """int(c) < 1 -> not c, as in a choice between two branches."""
    x, y = node.inputs
    if not (isinstance(x.op, Cast) and x.node.inputs[0].dtype == BOOL and is_number(y, 1)):
        return None
    return logical_not(x.node.inputs[0])


@rule(named("logical_not"))
def not_of_not(node: Node) -> Value | None:
    """Not not x -> x."""
    x = node.inputs[0]
    return x.node.inputs[0] if isinstance(x.op, named("logical_not")) else None


@rule(Cast)
def cast_to_same(node: Node) -> Value | None:
    """A cast that changes nothing -> x."""
    x = node.inputs[0]
    return x if x.dtype == node.outputs[0].dtype else None


@rule(Cast)
def cast_there_and_back(node: Node) -> Value | None:
    """f32 -> f64 -> f32 is x, likewise for every widening that keeps all values."""
    x = node.inputs[0]
    if not isinstance(x.op, Cast):
        return None
    source = x.node.inputs[0]
    return source if source.dtype == node.outputs[0].dtype and _keeps_all_values(source.dtype, x.dtype) else None


def _keeps_all_values(narrow: np.dtype, wide: np.dtype) -> bool:
    """Return whether `wide` holds every value of `narrow`; NumPy calls int64 -> float64 safe, which rounds."""
    rounds = is_integer(narrow) and is_float(wide) and 8 * narrow.itemsize > np.finfo(wide).nmant
    return np.can_cast(narrow, wide, "safe") and not rounds
