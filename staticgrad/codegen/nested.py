"""From an op with sub-graphs to the loop IR: a native branch or loop around the nests of each sub-graph, which has a schedule of its own.

    for step in range(1000):
        following = carry * a[0] + x[step]      # the nest of the body, in place of a call where it is small
        y[step] = carry
        carry = following

What is carried along lives where the op's result does. A step writes its successor beside it, which is copied when all of the step is
done; where the last that reads a part of the carry is what computes its successor, element by element, it is written in place. So are
writes into the carry, by a loop or a branch inside as well, if nothing reads afterwards what was there before. Parts of stacked
operands and results are read and written where they are. Large nests run in blocks, as those outside of ops do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from staticgrad.codegen.blocks import Grain, divide
from staticgrad.codegen.memory import Scratch, lifetimes
from staticgrad.codegen.nest import Parameters
from staticgrad.codegen.operands import number_of
from staticgrad.codegen.polling import Pace, pace_of
from staticgrad.codegen.schedule import Nest, Schedule, can_replace
from staticgrad.codegen.scheduler import schedule as scheduled
from staticgrad.codegen.splice import each_place_once, in_registers, placed, size_of
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, INT64
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.graph import Graph
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loops import Buffer, Function, Space, notes_failures
from staticgrad.ir.node import Node, Value, constant_array
from staticgrad.ops.branches import Switch
from staticgrad.ops.loops import Scan
from staticgrad.ops.nested import Nested
from staticgrad.ops.while_loops import While

Place = tuple[Buffer, Index]
"""Where an array begins."""

Made = tuple[Function, tuple[Buffer, ...]]
FunctionsOf = Callable[[Nest, Schedule, dict[Value, Buffer]], Iterable[Made]]

LARGEST_INLINE, LARGEST_BODY = 120, 400
"""Statements of a nest that becomes a part of the function around it instead of a call, and of such a function altogether."""


class Library:
    """The functions of a unit that others call, equal ones once."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def __call__(self, made: Function) -> Function:
        """Return the function of the unit that does what `made` does."""
        text = function_text(made, anonymous=True)
        if text not in self._functions:
            self._functions[text] = replace(made, name=f"part_{len(self._functions)}")
        return self._functions[text]


@dataclass(frozen=True, eq=False)
class Tools:
    """What lowering a nest inside of an op needs of the unit."""

    functions_of: FunctionsOf
    scratch: Scratch
    library: Library
    grain: Grain | None = None
    """How finely nests inside of the op are divided into blocks; None where they stay whole."""
    item_by_item: bool = False
    """Whether the items of a nest are not done together, element by element, but one after the other."""
    polls: bool = True
    """Whether long loops ask their caller whether to go on."""


def lower_nested(nest: Nest, schedule: Schedule, buffers: dict[Value, Buffer], tools: Tools) -> Made:
    """Return the function of an op with sub-graphs, and the buffers that it is called with."""
    assert nest.nested is not None
    node = nest.nested
    lowering = _NestedLowering(node, schedule, buffers, tools)
    match node.op:
        case Switch():
            lowering.switch(node.op)
        case Scan():
            lowering.scan(node.op)
        case While():
            lowering.while_loop(node.op)
        case _:
            raise VerificationError(f"{node.op.name} has no lowering")
    taken = lowering.parameters.taken
    return Function("", tuple(taken.values()), (), in_registers(lowering.b.root), nest.title), tuple(taken)


class _NestedLowering:
    """Lowers one op."""

    def __init__(self, node: Node, schedule: Schedule, buffers: dict[Value, Buffer], tools: Tools) -> None:
        self.b = Builder()
        self.node = node
        self.tools = tools
        self.parameters = Parameters(schedule.memory, buffers)
        self.memory = schedule.memory
        self.fuse = schedule.fused
        self.results = [(self.parameters(schedule.memory[value]), Index()) for value in node.outputs]
        self.operands = [self._operand(k, value) for k, value in enumerate(node.inputs)]
        self.size = 0

    def _operand(self, place: int, value: Value) -> Place:
        """Return the memory that holds an operand; a number that is known gets some of the function's own where it is read there."""
        assert isinstance(self.node.op, Nested)
        if place in self.node.op.starts and number_of(value) is not None:
            return self.results[place - self.node.op.starts.start]  # which is filled with it
        while value not in self.memory and value.node.inputs:
            value = value.node.inputs[0]
        if value in self.memory:
            return self.parameters(self.memory[value]), Index()
        number = self.b.local(value.dtype, 1, "number"), Index()
        known = number_of(value)
        assert known is not None
        self._fill(number, 1, known)
        return number

    # ---- the ops

    def switch(self, op: Switch) -> None:
        """Emit the branches, the one of the smallest number first; larger numbers than there are mean the last one."""
        index = self.b.load(*self.operands[0])
        self._branch(op, index, 0)

    def _branch(self, op: Switch, index: Scalar, number: int) -> None:
        b, operands = self.b, self.operands[1:]
        following = {j: operands.index(place) for j, place in enumerate(self.results) if place in operands}
        if number == len(op.branches) - 1:
            self._advance(op.branches[number], operands, self.results, following)
            return
        with b.if_(b.lt(index, b.literal(number + 1, INT64))) as otherwise:
            self._advance(op.branches[number], operands, self.results, following)
        with b.otherwise(otherwise):
            self._branch(op, index, number + 1)

    def scan(self, op: Scan) -> None:
        """Emit a loop over steps."""
        b = self.b
        consts, init, stacked = op.parts(self.operands)
        carry, results = self._started(op.parts(self.node.inputs)[1], init), self.results[op.carries :]
        count: Scalar | int = op.length
        if op.counted:
            count = b.min(b.load(*self.operands[0]), b.literal(op.length, INT64))
            for result, value in zip(results, op.results, strict=True) if op.padded else ():
                self._fill(result, op.length * value.aval.size, np.int64(0))
        step = b.local(INT64, 1, "number")
        _, _, inputs = self._inner(op, op.body.inputs)
        with self._steps(count, pace_of(op) if self.tools.polls else None) as k:
            at = Index.of(count) - 1 - k if op.reverse else k
            if _is_read(op.body.inputs[0], op.body):
                b.store(step, 0, b.position(at))
            parts = [(buffer, at * value.aval.size) for (buffer, _), value in zip(stacked, inputs, strict=True)]
            made = [(buffer, at * value.aval.size) for (buffer, _), value in zip(results, op.results, strict=True)]
            self._step(op.body, [(step, Index()), *consts], carry, parts, made)
        self._end(carry)

    @contextlib.contextmanager
    def _steps(self, count: Scalar | int, pace: Pace | None) -> Iterator[Index]:
        """Open a loop over steps; at the pace, if there is one, it asks whether to go on, and does nothing more if not."""
        b = self.b
        if pace is None:
            with b.loop(count, hint="step") as step:
                yield step
            return
        goes_on, end = b.local(BOOL, 1, "goes_on"), b.literal(count, INT64) if isinstance(count, int) else count
        b.store(goes_on, 0, b.literal(True, BOOL))
        with b.loop(count, step=pace.steps, hint="first") as first, b.if_(b.load(goes_on, 0)):
            with b.loop(b.min(b.position(first + pace.steps), end), first, hint="step") as step:
                if not pace.each_step:
                    yield step
                else:
                    with b.if_(b.load(goes_on, 0)):
                        yield step
                        b.store(goes_on, 0, b.poll(pace.work))
            if not pace.each_step:
                b.store(goes_on, 0, b.poll(pace.steps * pace.work))

    @staticmethod
    def _inner(op: Scan, values: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        first = 1 + op.consts
        return values[1:first], values[first : first + op.carries], values[first + op.carries :]

    def while_loop(self, op: While) -> None:
        """Emit a loop that counts its steps; one that may go on for long in rounds, after each of which it asks whether to go on."""
        b = self.b
        carry = self._started(self.node.inputs[op.consts :], self.operands[op.consts :])
        goes_on, pace = b.local(BOOL, 1, "goes_on"), pace_of(op) if self.tools.polls else None
        if pace is None:
            steps = self._round(op, carry, goes_on, b.literal(op.limit, INT64) if op.limit >= 0 else None)
        else:
            counter = b.local(INT64, 1, "steps")
            b.store(counter, 0, b.literal(0, INT64))
            b.store(goes_on, 0, b.literal(True, BOOL))
            with b.while_() as parts:
                with parts.test():
                    parts.until(b.load(goes_on, 0))
                with parts.body():
                    most = b.literal(pace.steps, INT64)
                    if op.limit >= 0:
                        most = b.min(most, b.sub(b.literal(op.limit, INT64), b.load(counter, 0)))
                    done = self._round(op, carry, goes_on, most)
                    total = b.add(b.load(counter, 0), done)
                    b.store(counter, 0, total)
                    more = b.and_(b.load(goes_on, 0), b.poll(Index.of(done) * pace.work))
                    b.store(goes_on, 0, more if op.limit < 0 else b.and_(more, b.lt(total, b.literal(op.limit, INT64))))
            steps = b.load(counter, 0)
        self._end(carry)
        b.store(*self.results[-1], steps)

    def _round(self, op: While, carry: Sequence[Place], goes_on: Buffer, most: Scalar | None) -> Scalar:
        """Emit a loop that goes on while its condition holds, for so many steps at most; return how many there were."""
        b, consts = self.b, self.operands[: op.consts]
        start = b.literal(0, INT64) if most is None else most
        left = b.local(INT64, 1, "left")
        b.store(left, 0, start)
        with b.while_() as parts:
            with parts.body():
                self._step(op.body, consts, carry, [], [])
                b.store(left, 0, b.sub(b.load(left, 0), b.literal(1, INT64)))
            with parts.test():
                self.run(op.condition, [*consts, *carry], [(goes_on, Index())])
                holds = b.load(goes_on, 0)
                if most is not None:
                    holds = b.and_(holds, b.lt(b.literal(0, INT64), b.load(left, 0)))
                if notes_failures(parts.test_block) or notes_failures(parts.body_block):  # after one, it might go on for ever
                    holds = b.and_(holds, b.not_(b.failed()))
                parts.until(holds)
        return b.sub(start, b.load(left, 0))

    # ---- what is carried along

    def _started(self, values: Sequence[Value], init: Sequence[Place]) -> list[Place]:
        """Return where the carry lives, with what it starts as: numbers in memory of the function's own, which becomes registers."""
        carry = []
        for value, start, (result, _) in zip(values, init, self.results, strict=False):
            place = (self.b.local(result.dtype, 1, "carry"), Index()) if result.size == 1 else (result, Index())
            known = number_of(value)
            if known is None and place != start:
                self._copy(place, start, result.size)
            elif known is not None:
                self._fill(place, result.size, known)
            carry.append(place)
        return carry

    def _end(self, carry: Sequence[Place]) -> None:
        for place, result in zip(carry, self.results, strict=False):
            if place[0] is not result[0]:
                self._copy(result, place, 1)

    def _step(self, body: Graph, ahead: Sequence[Place], carry: Sequence[Place], parts: Sequence[Place], made: Sequence[Place]) -> None:
        """Emit one step and let the carry move on."""
        following = {k: len(ahead) + k for k in range(len(carry))}
        self._advance(body, [*ahead, *carry, *parts], [*carry, *made], following)

    def _advance(self, graph: Graph, inputs: Sequence[Place], outputs: Sequence[Place], following: Mapping[int, int]) -> None:
        """Emit what a graph computes; an output that `following` names takes the place of an input when all is done."""
        moving: dict[int, Value] = {}
        beside: dict[Value, tuple[Value, Place]] = {}
        for j, k in following.items():
            if graph.outputs[j] is not graph.inputs[k]:
                moving[j] = graph.outputs[j]
                beside.setdefault(graph.outputs[j], (graph.inputs[k], outputs[j]))
        made = [j for j in range(len(outputs)) if j in moving or j not in following]
        if not made:
            return
        places = [None if j in moving else outputs[j] for j in made]
        found = self.run(graph.with_outputs([graph.outputs[j] for j in made]), inputs, places, beside)
        for j, value in moving.items():
            if found[value] != outputs[j]:
                self._copy(outputs[j], found[value], value.aval.size)

    def _copy(self, to: Place, source: Place, size: int) -> None:
        b = self.b
        if size == 1:
            b.store(*to, b.load(*source))
        elif size:
            with b.loop(size, hint="i") as i:
                b.store(to[0], to[1] + i, b.load(source[0], source[1] + i))

    def _fill(self, place: Place, size: int, number: np.generic) -> None:
        b, x = self.b, self.b.literal(number, place[0].dtype)
        if size == 1:
            b.store(*place, x)
        elif size:
            with b.loop(size, hint="i") as i:
                b.store(place[0], place[1] + i, x)

    # ---- sub-graphs

    def run(
        self,
        graph: Graph,
        inputs: Sequence[Place],
        outputs: Sequence[Place | None],
        beside: Mapping[Value, tuple[Value, Place]] | None = None,
    ) -> dict[Value, Place]:
        """Emit what a graph computes of `inputs` into `outputs`, and return where each output is.

        One without a place follows the input that `beside` names for it: it goes there if nothing is lost, otherwise beside it.
        """
        inner = scheduled(graph, self.fuse, {before: value for value, (before, _) in (beside or {}).items()})
        if self.tools.grain is not None:
            divide(inner, self.tools.grain)
        places: dict[Buffer, Place] = {}
        buffers: dict[Value, Buffer] = {}

        def put(value: Value, name: str, place: Place) -> None:
            buffers[value] = Buffer(name, value.dtype, value.aval.size, Space.PARAMETER)
            places[buffers[value]] = place

        for number, (value, place) in enumerate(zip(graph.inputs, inputs, strict=True)):
            put(value, graph.labels[number] if number < len(graph.labels) and graph.labels[number] else place[0].name, place)
        where: dict[Value, Place] = {}
        unique = dict(zip(dict.fromkeys(graph.outputs), inner.outputs, strict=True))
        for value, own in unique.items():
            first = next((place for v, place in zip(graph.outputs, outputs, strict=True) if v is value and place is not None), None)
            if inner.memory[own] in buffers:  # it is written to what there was before
                first = places[buffers[inner.memory[own]]]
            elif first is None:
                assert beside is not None
                before, place = beside[value]
                first = place if can_replace(inner, own, before, self.tools.item_by_item) else self._beside(value)
            where[value] = first
            if inner.memory[own] not in buffers:
                put(inner.memory[own], first[0].name, first)
        self._place_scratch(inner, buffers, places)
        for nest in inner.nests:
            if nest.partial_items:  # one thread would have to merge what the blocks make
                nest.blocks = None
            for function, outer in self.tools.functions_of(nest, inner, buffers):
                blocks = nest.blocks.count if nest.blocks is not None else 0
                self._call(function, [self._placed(buffer, places) for buffer in outer], blocks)
        for value, wanted in zip(graph.outputs, outputs, strict=True):
            if wanted is not None and wanted != where[value]:
                self._copy(wanted, where[value], value.aval.size)
        return where

    def _beside(self, value: Value) -> Place:
        """Return memory for what follows a part of the carry until all of the step is done."""
        if value.aval.size == 1:
            return self.b.local(value.dtype, 1, "following"), Index()
        return self.parameters.take(self.tools.scratch.take("following", value.dtype, value.aval.size)), Index()

    def _placed(self, buffer: Buffer, places: dict[Buffer, Place]) -> Place:
        """Return where a buffer of a nest's function is; what belongs to the unit is handed on by the function around it."""
        return places[buffer] if buffer in places else (self.parameters.take(buffer), Index())

    def _place_scratch(self, inner: Schedule, buffers: dict[Value, Buffer], places: dict[Buffer, Place]) -> None:
        """Give memory to what a graph computes on the way: numbers the function's own, arrays one place after the other.

        Where one is free again that is large enough, it is the very same buffer, so that code knows what overlaps.
        """
        first, last, _ = lifetimes(inner)
        owners = [value for value in dict.fromkeys(inner.memory.values()) if value not in buffers]
        free: list[tuple[int, Buffer]] = []
        for value in sorted(owners, key=lambda v: first.get(v, 0)):
            if constant_array(value) is not None:
                raise VerificationError(f"{value!r} is a constant array inside of a graph: it was not lifted")
            size = max(value.aval.size, 1)
            begin = first.get(value, 0)
            fits = [entry for entry in free if entry[0] < begin and entry[1].dtype == value.dtype and entry[1].size >= size]
            if size == 1:
                buffer = self.b.local(value.dtype, 1, value.op.name)
            elif fits:
                entry = min(fits, key=lambda each: each[1].size)
                free.remove(entry)
                buffer = entry[1]
            else:
                buffer = self.parameters.take(self.tools.scratch.take(f"scratch_{value.op.name}", value.dtype, size))
            if size > 1:
                free.append((last.get(value, begin), buffer))
            buffers[value] = Buffer(buffer.name, value.dtype, value.aval.size, Space.PARAMETER)
            places[buffers[value]] = buffer, Index()

    def _call(self, function: Function, places: Sequence[Place], blocks: int) -> None:
        """Emit the statements of a function, or its call where they are many or several threads may share them."""
        size = size_of(function.body)
        if blocks or size > LARGEST_INLINE or self.size + size > LARGEST_BODY:
            self.size += 1
            function, places = each_place_once(function, places)
            self.b.invoke(self.tools.library(function), tuple(places), blocks=blocks)
            return
        self.size += size
        if function.title:
            self.b.comment(function.title)
        self.b.splice(placed(function.body, dict(zip(function.buffers, places, strict=True))))


def _is_read(value: Value, graph: Graph) -> bool:
    """Return whether something in a graph reads a value, or it is among the outputs."""
    return value in graph.outputs or any(value in node.inputs for node in graph.nodes)
