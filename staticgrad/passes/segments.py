"""Loops that keep less: a loop and its way back are divided into segments, and each segment is gone through once more on the way back.

    y, saved = scan(x);  g = scan_back(saved, g)
    ->      y, starts = scan over segments(scan(x));  g = scan_back over segments(saved = scan(start); scan_back(saved, g))

Of a segment only what it starts from is kept, and what its steps save for the way back only while that goes through it. Every step does
what it did, in the same order, so that results keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, inline, rebuild
from staticgrad.ir.node import Node, Value, apply_all, constant, new_input
from staticgrad.ops.loops import Scan
from staticgrad.ops.movement import concatenate, reshape, slice_axis
from staticgrad.ops.nested import plain

FEWEST = 4
"""A loop of fewer steps is not divided."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """A loop, the one that goes back over the same steps, and which of the former's outputs only the latter reads, step by step."""

    there: Node
    back: Node
    saved: tuple[int, ...]

    @property
    def length(self) -> int:
        """How many steps a segment has, so that about the least memory is in use; if possible so many that none are left over."""
        op = _scan(self.there)
        starts = sum(v.aval.nbytes for v in self.there.outputs[: op.carries])
        steps = sum(self.there.outputs[k].aval.nbytes for k in self.saved) // op.length
        best = max(2, round(math.sqrt(op.length * starts / max(steps, 1))))
        return min(range(best // 2 + 1, 2 * best), key=lambda length: (op.length % length > 0, abs(length - best)))


def divided_loops(graph: Graph) -> Graph:
    """Return the graph in which loops, where that takes less memory, go in segments."""
    pairs = [pair for pair in _pairs(graph) if pair.length <= _scan(pair.there).length // 2]
    there, back = {pair.there: pair for pair in pairs}, {pair.back: pair for pair in pairs}
    starts: dict[Node, Sequence[Value]] = {}
    operands: dict[Node, Sequence[Value]] = {}

    def replaced(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if node in there:
            outputs, starts[node] = _there(there[node], inputs)
            operands[node] = inputs
            return outputs
        if node in back:
            pair = back[node]
            return _back(pair, inputs, operands[pair.there], starts[pair.there])
        return apply_all(node.op, *inputs, line=node.line)

    return rebuild(graph, replaced) if pairs else graph


def _pairs(graph: Graph) -> Iterator[_Pair]:
    users: dict[Value, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for place, value in enumerate(node.inputs):
            users.setdefault(value, []).append((node, place))
    outside = {*graph.outputs, *graph.primals}
    taken: set[Node] = set()
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, Scan) or op.counted or op.length < FEWEST or node in taken:
            continue
        reading: dict[Node, list[int]] = {}
        for number, value in enumerate(node.outputs[op.carries :], op.carries):
            found = {user for user, place in users.get(value, ()) if _takes_apart(user, place, op)}
            if len(found) == 1 and len({user for user, _ in users[value]}) == 1 and value not in outside:
                reading.setdefault(found.pop(), []).append(number)
        for back, saved in reading.items():
            if back not in taken and len(reading) == 1:
                taken |= {node, back}
                yield _Pair(node, back, tuple(saved))


def _takes_apart(user: Node, place: int, there: Scan) -> bool:
    """Return whether a node is the way back through a loop, and what it reads at a place is what each step saved."""
    op = user.op
    if not isinstance(op, Scan) or op.counted or op.length != there.length or op.reverse == there.reverse:
        return False
    return place >= op.consts + op.carries


def _scan(node: Node) -> Scan:
    assert isinstance(node.op, Scan)
    return node.op


# ---- the parts of a loop


@dataclass(frozen=True)
class _Cut:
    """Where a loop is cut: `count` segments of `length` steps from `start` on, and what is left over at the other end of the steps."""

    count: int
    length: int
    start: int
    rest: int
    rest_start: int

    def segments(self, value: Value) -> Value:
        """Return the parts of the segments of a stacked value, stacked."""
        part = slice_axis(value, 0, self.start, self.start + self.count * self.length)
        return reshape(part, (self.count, self.length, *value.shape[1:]))

    def remainder(self, value: Value) -> Value:
        """Return the part of a stacked value that is left over."""
        return slice_axis(value, 0, self.rest_start, self.rest_start + self.rest)

    def whole(self, segments: Value, remainder: Value | None) -> Value:
        """Return a stacked value of the parts of the segments and of what is left over."""
        joined = reshape(segments, (self.count * self.length, *segments.shape[2:]))
        if remainder is None:
            return joined
        return concatenate((remainder, joined) if self.start else (joined, remainder), 0)


def _cut(pair: _Pair) -> _Cut:
    op = _scan(pair.there)
    count = op.length // pair.length
    rest = op.length - count * pair.length
    start = rest if op.reverse else 0  # what is left over comes last on the way there
    return _Cut(count, pair.length, start, rest, 0 if op.reverse else op.length - rest)


def _fresh(values: Sequence[Value]) -> list[Value]:
    return [new_input(plain(v.aval)) for v in values]


def _parts(values: Sequence[Value], length: int) -> list[Value]:
    """Return fresh inputs for so many steps of stacked values."""
    return [new_input(Aval((length, *v.shape[1:]), v.dtype)) for v in values]


def _some_steps(op: Scan, length: int, first: Value, consts: Sequence[Value], others: Sequence[Value]) -> Sequence[Value]:
    """Return what a loop makes of `length` steps, the first of which is number `first`."""
    step, begin = new_input(Aval((), INT64), "step"), new_input(Aval((), INT64), "begin")
    own = _fresh(op.body.inputs[1:])
    body = Graph((step, begin, *own), inline(op.body, (step + begin, *own)), (), op.body.name)
    return apply_all(replace(op, body=body, length=length, consts=op.consts + 1), first, *consts, *others)


def _number(value: int) -> Value:
    return constant(np.int64(value))


def _there(pair: _Pair, inputs: Sequence[Value]) -> tuple[list[Value], Sequence[Value]]:
    """Return the outputs of the loop, of which those that are saved are of no use, and what each segment starts from."""
    op, cut = _scan(pair.there), _cut(pair)
    shown = [k for k in range(len(op.body.outputs)) if k not in pair.saved]
    less = replace(op, body=op.body.with_outputs([op.body.outputs[k] for k in shown]))
    consts, init, stacked = op.parts(inputs)
    step, own, carry, parts = new_input(Aval((), INT64), "segment"), _fresh(consts), _fresh(init), _parts(stacked, cut.length)
    made = _some_steps(less, cut.length, step * cut.length + cut.start, own, (*carry, *parts))
    body = Graph((step, *own, *carry, *parts), (*made, *carry), (), f"segment of {op.body.name}")
    over = Scan(body, cut.count, op.consts, op.carries, op.reverse)
    results = list(apply_all(over, *consts, *init, *map(cut.segments, stacked), line=pair.there.line))
    starts = results[len(shown) :]
    ends, joined = results[: op.carries], results[op.carries : len(shown)]
    outputs: dict[int, Value] = {}
    if cut.rest:
        rest = _some_steps(op, cut.rest, _number(cut.rest_start), consts, (*ends, *map(cut.remainder, stacked)))
        ends = list(rest[: op.carries])
        outputs |= {k: rest[k] for k in pair.saved}  # by their places, for the way back
    for k, value in zip(shown[op.carries :], joined, strict=True):
        outputs[k] = cut.whole(value, rest[k] if cut.rest else None)
    outputs |= dict(enumerate(ends))
    return [outputs.get(k, v) for k, v in enumerate(pair.there.outputs)], starts


def _back(pair: _Pair, inputs: Sequence[Value], operands: Sequence[Value], starts: Sequence[Value]) -> Sequence[Value]:
    """Return the outputs of the loop that goes back."""
    there, back, cut = _scan(pair.there), _scan(pair.back), _cut(pair)
    consts, init, stacked = back.parts(inputs)
    given = back.parts(pair.back.inputs)[2]
    number_of: Mapping[Value, int] = {pair.there.outputs[k]: k for k in pair.saved}
    saved = [number_of.get(v) for v in given]  # of what is read step by step, which output of the other loop it is
    others = [v for v, number in zip(stacked, saved, strict=True) if number is None]
    before, _, along = there.parts(operands)

    rest: Sequence[Value] = ()
    if cut.rest:
        pieces = [cut.remainder(v) if number is None else v for v, number in zip(stacked, saved, strict=True)]
        rest = _some_steps(back, cut.rest, _number(cut.rest_start), consts, (*init, *pieces))
        init = rest[: back.carries]

    step, own, own_before = new_input(Aval((), INT64), "segment"), _fresh(consts), _fresh(before)
    carry, start = _fresh(init), [new_input(Aval(v.shape[1:], v.dtype)) for v in starts]
    parts, parts_along = _parts(others, cut.length), _parts(along, cut.length)
    first = step * cut.length + cut.start
    again = _some_steps(there, cut.length, first, own_before, (*start, *parts_along))
    other = iter(parts)
    steps = [next(other) if number is None else again[number] for number in saved]
    made = _some_steps(back, cut.length, first, own, (*carry, *steps))
    body = Graph((step, *own, *own_before, *carry, *start, *parts, *parts_along), tuple(made), (), f"segment of {back.body.name}")
    over = Scan(body, cut.count, len(own) + len(own_before), back.carries, back.reverse)
    segments = [cut.segments(v) for v in (*others, *along)]
    results = apply_all(over, *consts, *before, *init, *starts, *segments, line=pair.back.line)
    joined = [cut.whole(v, rest[k] if cut.rest else None) for k, v in enumerate(results[back.carries :], back.carries)]
    return (*results[: back.carries], *joined)
