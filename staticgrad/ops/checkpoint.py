"""Marks around what a checkpointed function computes: none of it is to be saved, but for what is worth it by name.

    x --start--> x --exp--> y --end(y, x)--> y          `exp` lies between a start and its end: on the way back it is computed anew

Marks are the identity to every transform, and derivatives need what lies between them as they need anything else. Code generation
takes them out and has what lay between them run again where the way back reads it (`codegen.recompute`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph, substitution, topological
from staticgrad.ir.links import EACH, Links
from staticgrad.ir.node import Node, Value, apply, apply_all
from staticgrad.ir.op import Op, op
from staticgrad.ops.nested import Nested, in_front


@op
class CheckpointStart(Op):
    """x itself, as what a checkpointed function starts from."""

    kind = "mark"
    linear = True

    def infer(self, x: Aval) -> Aval:
        return x

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[Value]:
        return (g,)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return [EACH]

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return apply(self, x)


@op
class CheckpointEnd(Op):
    """The first operand itself, as a result of a checkpointed function; the others are what that starts from.

    Results of ops called one of the names `saveable` may be saved nevertheless.
    """

    saveable: tuple[str, ...]
    kind = "mark"

    def infer(self, y: Aval, *starts: Aval) -> Aval:
        return y

    def numpy(self, y: np.ndarray, *starts: np.ndarray) -> np.ndarray:
        return y

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        if tangents[0] is None:
            return None
        return end_checkpoint(tangents[0], (*x[1:], *(t for t in tangents[1:] if t is not None)), self.saveable)

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[Value | None, ...]:
        return (g, *(None for _ in x[1:]))

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return [EACH, *(None for _ in avals[1:])]

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        return apply(self, x[0] if batched[0] else in_front(x[0], size), *x[1:])


def end_checkpoint(y: Value, starts: Iterable[Value], saveable: tuple[str, ...]) -> Value:
    """Return y as a result of a checkpointed function, which starts from those of `starts` that y is computed from."""
    read = set(topological([y]))
    return apply(CheckpointEnd(saveable), y, *(v for v in starts if v.node in read))


def checkpointed(roots: Iterable[Value], with_results: bool = False) -> set[Value]:
    """Return what `roots` need that lies between marks and is not to be saved; of what they surround, the results too where asked."""
    found: set[Value] = set()
    for end in topological(roots):
        if not isinstance(end.op, CheckpointEnd):
            continue
        result, *starts = end.inputs
        inside: set[Value] = set(starts)
        for node in topological([result], stop=starts):
            if any(v in inside for v in node.inputs):
                inside.update(node.outputs)
                if node.op.name not in end.op.saveable:
                    found.update(v for v in node.outputs if with_results or v is not result)
    return found


def without_marks(graph: Graph) -> tuple[Graph, frozenset[Value]]:
    """Return the graph without marks, in its sub-graphs neither, and what is not to be saved in it."""
    if not _has_marks(graph):
        return graph, frozenset()

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(node.op, (CheckpointStart, CheckpointEnd)):
            return inputs[:1]
        op = node.op
        if isinstance(op, Nested):
            op = op.with_subgraphs([without_marks(inner)[0] for inner in op.subgraphs], op.constants)
        return apply_all(op, *inputs, line=node.line)

    roots = (*graph.outputs, *graph.primals)
    image = substitution(roots, {v: v for v in graph.inputs}, replace)
    plain = graph.with_outputs([image[v] for v in graph.outputs], [image[v] for v in graph.primals])
    return plain, frozenset(image[v] for v in checkpointed(roots))


def _has_marks(graph: Graph) -> bool:
    return any(node.op.kind == "mark" or any(map(_has_marks, node.op.subgraphs)) for node in graph.nodes)
