"""What is the same in every step of a loop is computed once, ahead of it, and never stacked.

scan of c -> c * exp(a)                  ->  e = exp(a); scan of c -> c * e
scan that stacks exp(a) in every step    ->  exp(a), repeated along the steps
scan over repetitions of one value       ->  scan with that value as a constant

So a loop on the way back, which is given what it needs of every step, shares the one copy of what is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.node import Node, Value, apply_all, new_input
from staticgrad.ops.control import Contiguous
from staticgrad.ops.loops import DEAR, Scan
from staticgrad.ops.movement import Broadcast, broadcast
from staticgrad.ops.nested import Nested, plain, trim
from staticgrad.ops.while_loops import While
from staticgrad.passes.subgraphs import each_nested, everywhere, with_constants, with_other_inputs


def hoist_invariants(graph: Graph) -> Graph:
    """Return the graph with its loops relieved of what does not change in them, the innermost ones first."""

    def hoisted(inner: Graph) -> Graph:
        if not any(isinstance(node.op, (Scan, While)) for node in inner.nodes):
            return inner
        return trim(each_nested(each_nested(each_nested(inner, _ahead), _not_handed_out), _not_stacked))

    return everywhere(hoisted)(graph)


def _ahead(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """What depends on constants alone becomes a constant itself where that is worth a place in memory."""
    if not isinstance(op, (Scan, While)):
        return None
    first, own = op.inner + op.constants, inputs[op.own : op.own + op.constants]
    ahead: list[Value] = []
    places = []
    for inner in op.subgraphs:
        constants = inner.inputs[op.inner : first]
        found = [v for v in _frontier(inner, constants, runs=isinstance(op, Scan) and not op.counted) if v not in constants]
        places.append({v: len(ahead) + k for k, v in enumerate(found)})
        ahead += inline(Graph(constants, tuple(found)), own) if found else []
    if not ahead:
        return None
    end = op.own + op.constants
    return apply_all(with_constants(op, [v.aval for v in ahead], places), *inputs[:end], *ahead, *inputs[end:])


def _frontier(graph: Graph, constants: Sequence[Value], runs: bool) -> list[Value]:
    """Return what is worth computing ahead of that which depends on constants alone, and is read where more is needed.

    What may fail stays where it is unless the graph `runs` in any case; so does what is marked.
    """
    fixed = set(constants)
    read: dict[Value, None] = {}

    def moves(node: Node) -> bool:
        op = node.op
        return all(v in fixed for v in node.inputs) and op.kind != "mark" and (runs or not op.may_fail(*(v.aval for v in node.inputs)))

    for node in graph.nodes:
        if node.is_fixed or (node.inputs and moves(node)):
            fixed.update(node.outputs)
        else:
            read |= dict.fromkeys(v for v in node.inputs if v in fixed)
    found: dict[Value, None] = {}
    stack, seen = [*read, *(v for v in graph.outputs if v in fixed)], set(constants)
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            if _is_dear(value):
                found[value] = None
            else:
                stack += value.node.inputs
    return list(found)


def _is_dear(value: Value) -> bool:
    """Return whether it is better to read a value than to compute it: it takes dear operations, or many, on elements of its own number."""
    if value.op.kind in ("view", "alias", "leaf"):
        return False
    cost, stack, seen = 0, [value], {value}
    while stack and cost < DEAR:
        v = stack.pop()
        if v.op.kind not in ("map", "view", "alias", "leaf") or isinstance(v.op, Contiguous):
            return True
        cost += v.op.cost if v.op.kind == "map" else 0
        same = [x for x in v.node.inputs if x.aval.size == value.aval.size and x not in seen]
        seen.update(same)
        stack += same
    return cost >= DEAR


def _not_handed_out(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """A result that every step gives alike is one value, repeated."""
    if not isinstance(op, Scan) or (op.counted and op.padded):
        return None
    known = dict(zip(op.body.inputs[op.inner :], inputs[op.own : op.own + op.consts], strict=False))
    alike = {k: known.get(v, v) for k, v in enumerate(op.results) if v in known or v.node.is_fixed}
    if not alike:
        return None
    kept = [v for k, v in enumerate(op.results) if k not in alike]
    body = op.body.with_outputs([*op.body.outputs[: op.carries], *kept])
    made = iter(apply_all(replace(op, body=body), *inputs) if body.outputs else ())
    carry = [next(made) for _ in range(op.carries)]
    results = [broadcast(alike[k], (op.length, *v.shape), (0,)) if k in alike else next(made) for k, v in enumerate(op.results)]
    return (*carry, *results)


def _not_stacked(op: Nested, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """Repetitions of one value along the steps are a constant."""
    if not isinstance(op, Scan):
        return None
    first = op.own + op.consts + op.carries
    repeated = [k for k, v in enumerate(inputs) if k >= first and isinstance(v.op, Broadcast) and v.op.axes[:1] == (0,)]
    if not repeated:
        return None
    ahead = [inputs[k].node.inputs[0] for k in repeated]
    shift = op.inner - op.own
    fresh = [new_input(plain(v.aval)) for v in ahead]
    parts = {}
    for k, new in zip(repeated, fresh, strict=True):
        source, part = inputs[k].op, op.body.inputs[k + shift]
        assert isinstance(source, Broadcast)
        parts[part] = broadcast(new, part.shape, tuple(axis - 1 for axis in source.axes[1:]))
    graph = with_other_inputs(op.body, op.inner + op.consts, fresh, parts, {k + shift for k in repeated})
    end = op.own + op.consts
    rest = [v for k, v in enumerate(inputs) if k >= end and k not in repeated]
    return apply_all(op.with_subgraphs([graph], op.consts + len(ahead)), *inputs[:end], *ahead, *rest)
