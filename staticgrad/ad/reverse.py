"""Reverse mode: cotangents flow from the outputs to the inputs, through each op's `vjp`."""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import is_float
from staticgrad.ir.graph import Graph, rebuild, topological
from staticgrad.ir.node import Node, Value, apply_all, at_line
from staticgrad.ops.control import Call


def inline_calls(graph: Graph, keep_rules: bool = True) -> Graph:
    """Return `graph` with its calls replaced by their bodies, except (if asked) those with rules of their own."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(node.op, Call) and not (keep_rules and node.op.rules is not None):
            return inlined(node.op, inputs)
        return apply_all(node.op, *inputs, line=node.line)

    def inlined(call: Call, inputs: tuple[Value, ...]) -> Sequence[Value]:
        body = inline_calls(call.graph, keep_rules)
        from staticgrad.ir.graph import inline

        return inline(body, inputs)

    return rebuild(graph, replace) if any(isinstance(n.op, Call) for n in graph.nodes) else graph


def cotangents(outputs: Sequence[Value], inputs: Sequence[Value], seeds: Sequence[Value | None]) -> list[Value | None]:
    """Return the cotangent of each input for the cotangents `seeds` of the outputs; None stands for zero.

    Parameters
    ----------
    outputs, inputs
        Values of one graph without calls that lack rules.
    seeds
        One value of the shape and dtype of each output, or None.
    """
    order = topological(outputs, stop=inputs)
    active = _active(order, inputs)
    gathered: dict[Value, Value] = {}

    def give(value: Value, g: Value | None) -> None:
        if g is None or value not in active or not is_float(value.dtype):
            return
        if g.shape != value.shape or g.dtype != value.dtype:
            raise VerificationError(f"the cotangent {g.aval} does not fit {value!r}")
        gathered[value] = g if value not in gathered else gathered[value] + g

    for value, seed in zip(outputs, seeds, strict=True):
        give(value, seed)
    for node in reversed(order):
        found = [gathered.get(value) for value in node.outputs]
        if all(g is None for g in found) or not any(value in active for value in node.inputs):
            continue
        with at_line(node.line):
            single = node.op.outputs == 1 and len(node.outputs) == 1 and not isinstance(node.op, Call)
            g, y = (found[0], node.outputs[0]) if single else (tuple(found), node.outputs)
            for value, piece in zip(node.inputs, node.op.vjp(g, y, *node.inputs), strict=True):
                give(value, piece)
    return [gathered.get(value) for value in inputs]


def _active(order: Sequence[Node], inputs: Sequence[Value]) -> set[Value]:
    """Return the values that depend on `inputs` through floats."""
    active = {value for value in inputs if is_float(value.dtype)}
    for node in order:
        if any(value in active for value in node.inputs):
            active.update(value for value in node.outputs if is_float(value.dtype))
    return active
