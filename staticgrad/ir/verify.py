"""The type checker of the array graph: every shape rule runs again."""

from __future__ import annotations

from staticgrad.errors import VerificationError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Input, Node


def verify(graph: Graph, after: str = "tracing") -> None:
    """Check that each node's avals follow from its operands and that the graph is closed.

    Raises
    ------
    VerificationError
        Naming the pass `after` which the graph is broken, and the node.
    """
    known: set[Node] = set()
    inputs = {value.node for value in graph.inputs}
    for node in graph.nodes:
        if isinstance(node.op, Input):
            if node not in inputs:
                raise VerificationError(f"after {after}: the graph reads an input of another graph: {node!r}")
        else:
            _verify_node(node, known, after)
            for inner in node.op.subgraphs:
                verify(inner, f"{after} (inside of {node.op.name})")
        known.add(node)
    for value in (*graph.outputs, *graph.inputs):
        if value.node not in known:
            raise VerificationError(f"after {after}: {value!r} is not computed")


def _verify_node(node: Node, known: set[Node], after: str) -> None:
    for value in node.inputs:
        if value.node not in known or value.node.outputs[value.index] is not value:
            raise VerificationError(f"after {after}: {node!r} reads a value that does not come before it")
    avals = node.op.infer(*(value.aval for value in node.inputs))
    expected = avals if isinstance(avals, tuple) else (avals,)
    found = tuple(value.aval for value in node.outputs)
    if expected != found:
        raise VerificationError(f"after {after}: {node!r} should give {', '.join(map(str, expected))}")
