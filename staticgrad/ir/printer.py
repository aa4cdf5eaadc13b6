"""The readable form of a graph: one line a node."""

from __future__ import annotations

from dataclasses import fields

from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Constant, Input, Node, Value


def value_names(graph: Graph) -> dict[Value, str]:
    """Return a short name for every value: inputs by their label, the others numbered."""
    names: dict[Value, str] = {}
    taken: set[str] = set()
    for position, value in enumerate(graph.inputs):
        label = (graph.labels[position] if position < len(graph.labels) else "") or f"x{position}"
        while label in taken:
            label += "_"
        taken.add(label)
        names[value] = label
    count = 0
    for node in graph.nodes:
        for value in node.outputs:
            if value in names:
                continue
            scalar = isinstance(node.op, Constant) and not value.shape
            names[value] = f"{node.op.bits.array()[()]}" if scalar and isinstance(node.op, Constant) else f"%{count}"
            count += not scalar
    return names


def graph_text(graph: Graph) -> str:
    """Return the graph as text: `%3: f64[4] = multiply(%1, x)  # model.py:12`; graphs inside of an op below it, further in."""
    names = value_names(graph)
    parameters = ", ".join(f"{names[v]}: {v.aval}" for v in graph.inputs)
    lines = [f"{graph.name}({parameters}):"]
    forward, differentiated = graph.forward_nodes, graph.differentiated
    backward_begun = False
    ordered = sorted(graph.nodes, key=lambda node: node not in forward) if differentiated else graph.nodes
    for node in ordered:
        if isinstance(node.op, Input) or (isinstance(node.op, Constant) and not node.outputs[0].shape):
            continue
        if differentiated and node not in forward and not backward_begun:
            lines.append("  # backward")
            backward_begun = True
        lines.append("  " + _node_text(node, names))
        for inner in node.op.subgraphs:
            lines += [f"    {line}" for line in graph_text(inner).splitlines()]
    lines.append(f"  return {', '.join(names[v] for v in graph.outputs)}")
    return "\n".join(lines)


def _node_text(node: Node, names: dict[Value, str]) -> str:
    left = ", ".join(f"{names[v]}: {v.aval}" for v in node.outputs)
    operands = ", ".join(names[v] for v in node.inputs)
    head, _, parameters = node.op.signature().partition("(")
    if node.op.subgraphs:  # which stand below; what is as usual goes without saying
        given = ((f.name, getattr(node.op, f.name), f.default) for f in fields(node.op))
        shown = [f"{name}={value}" for name, value, usual in given if isinstance(value, int) and value != usual]
        parameters = ", ".join(shown) + ")" if shown else ""
    call = f"{head}({operands}{'; ' + parameters[:-1] if parameters else ''})"
    return f"{left} = {call}" + (f"  # {node.line}" if node.line else "")
