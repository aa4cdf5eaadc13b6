"""Functions of our own, such as softmax, on whatever they are given: traced values become a graph, arrays a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, constant_array, new_input
from staticgrad.tracing.functions.arguments import operand
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.tracer import tracer_of


def evaluated(function: Callable[..., Value], *operands: Any) -> Any:
    """Return `function` of the operands: a tracer if one is among them, otherwise what NumPy computes."""
    values = [operand(x) for x in operands]
    if any(map(holds_tracer, operands)):
        return tracer_of(function(*values))
    inputs = tuple(new_input(v.aval) for v in values)
    graph = Graph(inputs, (function(*inputs),))
    arrays = [array for v in values if (array := constant_array(v)) is not None]
    return interpret(graph, arrays)[0][()]
