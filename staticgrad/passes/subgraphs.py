"""Passes on ops with sub-graphs: what nobody reads is dropped, equal work is done once, and operands and sub-graphs are told apart.

scan that makes y; scan that makes y and what each step started from      ->  the latter alone
a constant array inside of a body                                         ->  an operand
a number among the operands                                               ->  a number in the body
a carry that no step changes                                              ->  a constant
cond of a predicate that is known                                         ->  the branch
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, inline, rebuild, substitution, topological
from staticgrad.ir.node import Constant, Input, Node, Value, apply_all, at_line, constant_array, full, new_input
from staticgrad.ops.branches import Switch
from staticgrad.ops.loops import Scan
from staticgrad.ops.nested import Nested, plain, trim
from staticgrad.ops.while_loops import While
from staticgrad.passes.matching import splat

Pass = Callable[[Graph], Graph]


def inside(graph: Graph, function: Pass) -> Graph:
    """Return the graph with `function` applied to the graphs inside of its ops."""
    if not any(node.op.subgraphs for node in graph.nodes):
        return graph

    def better(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        op = node.op
        if isinstance(op, Nested):
            op = op.with_subgraphs([function(inner) for inner in op.subgraphs], op.constants)
        return apply_all(op, *inputs, line=node.line)

    return rebuild(graph, better)


def everywhere(function: Pass) -> Pass:
    """Return `function` as a pass that is applied to the graphs inside of ops as well, the innermost first."""

    def run(graph: Graph) -> Graph:
        return function(inside(graph, run))

    return run


# ---- one loop for the same work


def merge_loops(graph: Graph) -> Graph:
    """Return the graph in which a loop that is a part of another one is that other one.

    The outermost loops come first: what is inside of them is the same before anything is merged there.
    """
    return inside(_merged(graph), merge_loops)


def _merged(graph: Graph) -> Graph:
    while (found := _mergeable(graph)) is not None:
        small, outputs = found
        known = {**{v: v for v in graph.inputs}, **dict(zip(small.outputs, outputs, strict=True))}
        image = substitution((*graph.outputs, *graph.primals), known)
        graph = graph.with_outputs([image[v] for v in graph.outputs], [image[v] for v in graph.primals])
    return graph


def _mergeable(graph: Graph) -> tuple[Node, list[Value]] | None:
    """Return a loop that is a part of another one, and the outputs of that one that are its own."""
    loops = [node for node in graph.nodes if isinstance(node.op, (Scan, While))]
    starting: dict[Value | None, list[Node]] = {None: loops}
    for node in loops:
        if (start := _first_start(node)) is not None:
            starting.setdefault(start, []).append(node)
    for small in loops:
        for large in starting[_first_start(small)]:
            if large is not small and len(large.outputs) >= len(small.outputs):
                outputs = _part(small, large)
                if outputs is not None and small not in topological(large.inputs) and not _comes_too_early(graph, small, large):
                    return small, outputs
    return None


def _first_start(loop: Node) -> Value | None:
    """Return what the first part of the carry of a loop starts as: equal work starts equally."""
    starts = loop.op.starts  # type: ignore[attr-defined]
    return loop.inputs[starts[0]] if starts else None


def _comes_too_early(graph: Graph, small: Node, large: Node) -> bool:
    """Return whether the forward kernel needs `small` at a time when an input of `large` is not there: a tangent, a cotangent."""
    forward = graph.forward_nodes
    if small not in forward or large in forward:
        return False
    there = {*topological(graph.primals)}
    return any(isinstance(node.op, Input) and node not in there for node in topological(large.inputs))


def _part(small: Node, large: Node) -> list[Value] | None:
    """Return the outputs of the loop `large` that those of `small` are, None if it does not make them all.

    A loop that was made of another one, for its derivative, keeps its carry in front.
    """
    one, other = small.op, large.op
    if isinstance(one, Scan) and isinstance(other, Scan):
        alike = replace(one, body=other.body, consts=0, carries=0) == replace(other, consts=0, carries=0)
        alike = alike and small.inputs[: one.own] == large.inputs[: other.own]
        mine, theirs = one.parts(small.inputs), other.parts(large.inputs)
    elif isinstance(one, While) and isinstance(other, While):
        alike = one.limit == other.limit
        mine, theirs = ((node.inputs[: op.consts], node.inputs[op.consts :], ()) for node, op in ((small, one), (large, other)))
    else:
        return None
    if not alike or mine[1] != theirs[1][: len(mine[1])]:
        return None
    place = [{v: k for k, v in reversed(list(enumerate(values)))} for values in theirs]  # where several are the same, the first one
    if any(v not in place[k] for k in (0, 2) for v in mine[k]):
        return None
    constants = [place[0][v] for v in mine[0]]
    stacked = [len(theirs[0]) + len(theirs[1]) + place[2][v] for v in mine[2]]
    numbers = [*constants, *range(len(theirs[0]), len(theirs[0]) + len(mine[1])), *stacked]
    inputs = [*range(one.inner), *(one.inner + k for k in numbers)]
    made = [inline(g, [h.inputs[k] for k in inputs]) for g, h in zip(one.subgraphs, other.subgraphs, strict=True)]
    carries = len(mine[1])
    if made[-1][:carries] != other.subgraphs[-1].outputs[:carries] or made[:-1] != [g.outputs for g in other.subgraphs[:-1]]:
        return None
    if isinstance(one, While):
        return [*large.outputs[:carries], large.outputs[-1]]
    first = len(theirs[1])
    found = {v: large.outputs[first + k] for k, v in reversed(list(enumerate(other.subgraphs[-1].outputs[first:])))}
    results = made[-1][carries:]
    return None if any(v not in found for v in results) else [*large.outputs[:carries], *(found[v] for v in results)]


# ---- operands


def each_nested(graph: Graph, better: Callable[[Nested, tuple[Value, ...]], Sequence[Value] | None]) -> Graph:
    """Return the graph with the outputs of ops with sub-graphs replaced where `better` gives others."""
    if not any(isinstance(node.op, Nested) for node in graph.nodes):
        return graph

    def found(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        with at_line(node.line):
            made = better(node.op, inputs) if isinstance(node.op, Nested) else None
        return made if made is not None else apply_all(node.op, *inputs, line=node.line)

    return rebuild(graph, found)


def lift_constants(graph: Graph) -> Graph:
    """Return the graph with the constant arrays inside of its ops' graphs as operands: code reads constants in one place."""
    return everywhere(lambda inner: each_nested(inner, _lifted))(graph)


def _lifted(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    nodes = (node for inner in op.subgraphs for node in inner.nodes)
    arrays = list(dict.fromkeys(n.outputs[0] for n in nodes if isinstance(n.op, Constant) and n.outputs[0].aval.size != 1))
    if not arrays:
        return None
    places = {v: k for k, v in enumerate(arrays)}
    place = op.own + op.constants
    return apply_all(
        with_constants(op, [v.aval for v in arrays], [places for _ in op.subgraphs]), *inputs[:place], *arrays, *inputs[place:]
    )


def with_constants(op: Nested, avals: Sequence[Aval], places: Sequence[Mapping[Value, int]]) -> Nested:
    """Return the op with constants of these avals after those that it has; `places` says which of them its sub-graphs' values become."""
    graphs = []
    for inner, place in zip(op.subgraphs, places, strict=True):
        fresh = [new_input(plain(aval)) for aval in avals]
        graphs.append(with_other_inputs(inner, op.inner + op.constants, fresh, {v: fresh[k] for v, k in place.items()}))
    return op.with_subgraphs(graphs, op.constants + len(avals))


def with_other_inputs(graph: Graph, first: int, fresh: Sequence[Value], image: Mapping[Value, Value], gone: Collection[int] = ()) -> Graph:
    """Return the graph with `image` in place of values, with the inputs `fresh` ahead of that at `first`, and without those at `gone`."""
    made = substitution(graph.outputs, {**{v: v for v in graph.inputs}, **image})

    def arranged(own: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
        ahead, behind = ([each for k, each in enumerate(own) if k not in gone and (k < first) is before] for before in (True, False))
        return (*ahead, *new, *behind)

    labels = arranged(labels_of(graph), ["" for _ in fresh])
    return Graph(arranged(graph.inputs, fresh), tuple(made[v] for v in graph.outputs), (), graph.name, labels)


def labels_of(graph: Graph) -> tuple[str, ...]:
    """Return a label for each input, "" where there is none."""
    return (*graph.labels, *("" for _ in range(len(graph.inputs) - len(graph.labels))))


def _with_numbers(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """Numbers among the operands become part of the sub-graphs; one operand is not handed over twice."""
    constants = inputs[op.own : op.own + op.constants]
    first: dict[Value, int] = {}
    images: list[tuple[int, Value | int]] = []
    for k, value in enumerate(constants):
        known = splat(value)
        if known is not None:
            images.append((k, full(value.shape, known.item(), value.dtype)))
        elif first.setdefault(value, k) != k:
            images.append((k, first[value]))
    if not images:
        return None
    graphs = []
    for inner in op.subgraphs:
        own = inner.inputs[op.inner :]
        image = {own[k]: own[new] if isinstance(new, int) else new for k, new in images}
        graphs.append(with_other_inputs(inner, op.inner, (), image, {op.inner + k for k, _ in images}))
    gone = {op.own + k for k, _ in images}
    kept = [v for k, v in enumerate(inputs) if k not in gone]
    return apply_all(op.with_subgraphs(graphs, op.constants - len(images)), *kept)


# ---- what is not needed


def tidy_subgraphs(graph: Graph) -> Graph:
    """Return the graph with ops that have sub-graphs made smaller: see the top of the file."""

    def tidied(inner: Graph) -> Graph:
        return trim(each_nested(each_nested(each_nested(inner, _known), _without_invariants), _with_numbers))

    return everywhere(tidied)(trim(graph))


def _known(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if isinstance(op, Switch):
        index = constant_array(inputs[0])
        if index is not None or len(op.branches) == 1:
            number = 0 if index is None else min(max(int(index), 0), len(op.branches) - 1)
            return inline(op.branches[number], inputs[1:])
    if isinstance(op, Scan):
        if not op.length:
            return (*op.parts(inputs)[1], *(full((0, *v.shape), 0, v.dtype) for v in op.results))
        if op.counted and (count := constant_array(inputs[0])) is not None and int(count) >= op.length:
            return apply_all(replace(op, counted=False), *inputs[1:])
        if len(set(op.results)) < len(op.results):
            return _each_once(op, inputs)
    if isinstance(op, While) and (holds := constant_array(op.condition.outputs[0])) is not None and not holds:
        return (*inputs[op.consts :], full((), 0, INT64))
    return None


def _each_once(op: Scan, inputs: tuple[Value, ...]) -> Sequence[Value]:
    """Return the outputs of a loop in which nothing is stacked twice."""
    place = {value: op.carries + k for k, value in enumerate(dict.fromkeys(op.results))}
    made = apply_all(replace(op, body=op.body.with_outputs((*op.body.outputs[: op.carries], *place))), *inputs)
    return (*made[: op.carries], *(made[place[value]] for value in op.results))


def _without_invariants(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """What every step hands on as it is becomes a constant."""
    if not isinstance(op, (Scan, While)):
        return None
    first, carries = op.inner + op.constants, op.carries
    body = op.subgraphs[-1]
    same = [body.outputs[k] is body.inputs[first + k] for k in range(carries)]
    if not any(same):
        return None
    moved, stays = [k for k in range(carries) if same[k]], [k for k in range(carries) if not same[k]]

    def arranged(values: Sequence[Any], start: int) -> list[Any]:
        ends = start + op.constants
        return [*values[:ends], *(values[ends + k] for k in moved), *(values[ends + k] for k in stays), *values[ends + carries :]]

    graphs = [replace(g, inputs=tuple(arranged(g.inputs, op.inner)), labels=tuple(arranged(labels_of(g), op.inner))) for g in op.subgraphs]
    graphs[-1] = graphs[-1].with_outputs([*(body.outputs[k] for k in stays), *body.outputs[carries:]])
    made = op.with_subgraphs(graphs, op.constants + len(moved))
    if isinstance(made, Scan):
        made = replace(made, carries=len(stays))
    results = apply_all(made, *arranged(inputs, op.own))
    changing = iter(results)
    init = inputs[op.own + op.constants :]
    return (*(init[k] if same[k] else next(changing) for k in range(carries)), *changing)
