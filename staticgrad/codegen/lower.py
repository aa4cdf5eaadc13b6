"""From a schedule to a unit of the loop IR: one function a nest, equal functions once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from staticgrad.codegen.blocks import GRAIN, Grain
from staticgrad.codegen.contraction import ContractionLowering, TileLibrary
from staticgrad.codegen.foreign import lower_foreign
from staticgrad.codegen.memory import Plan, Scratch, plan
from staticgrad.codegen.nest import NestLowering
from staticgrad.codegen.nested import Library, Tools, lower_nested
from staticgrad.codegen.rows import lower_rows
from staticgrad.codegen.schedule import Item, Nest, Schedule
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loops import Block, Buffer, External, Function, Index, Invoke, Load, Loop, Scalar, Statement, Store, Unit, children, walk
from staticgrad.ir.node import Value


@dataclass(frozen=True, eq=False)
class Lowered:
    """A unit with what is needed to call it."""

    unit: Unit
    plan: Plan
    constants: tuple[np.ndarray, ...]


Made = tuple[Function, tuple[Buffer, ...]]
"""A function whose name is the ending of its final one, and the buffers of the unit that it is called with. One that takes a number
is called for every block of its nest."""


def lower(schedule: Schedule, name: str, grain: Grain = GRAIN) -> Lowered:
    """Return the unit of `schedule` for CPUs; `grain` says which nests inside of loops and branches become parallel blocks."""
    layout = plan(schedule)
    tiles, scratch = TileLibrary(), Scratch(layout.workspace)

    def functions_of(
        nest: Nest, inner: Schedule, buffers: dict[Value, Buffer], partials: dict[Item, tuple[Buffer, ...]] | None = None
    ) -> Iterator[Made]:
        if nest.contraction is not None:
            yield ContractionLowering(nest, inner, buffers, tiles).function("")
            return
        if nest.foreign is not None:
            yield lower_foreign(nest, nest.foreign, inner, buffers)
            return
        if nest.nested is not None:
            yield lower_nested(nest, inner, buffers, tools)
            return
        if nest.rows is not None:
            yield lower_rows(nest, inner, buffers, scratch)
            return
        lowering = NestLowering(nest, inner, buffers, partials)
        yield lowering.function("")
        if nest.partial_items:
            yield lowering.merging("_merged")

    def own_functions_of(nest: Nest) -> Iterator[Made]:
        scratch.clear()
        return functions_of(nest, schedule, layout.buffers, layout.partials)

    tools = Tools(functions_of, scratch, Library(), grain)
    return with_scratch(assembled(schedule, name, layout, own_functions_of), scratch)


def with_scratch(lowered: Lowered, scratch: Scratch) -> Lowered:
    """Return the unit with the workspace that its nests need while they run."""
    unit = replace(lowered.unit, workspace=scratch.end)
    return replace(lowered, unit=unit, plan=replace(lowered.plan, workspace=scratch.end))


def assembled(schedule: Schedule, name: str, layout: Plan, functions_of: Callable[[Nest], Iterable[Made]]) -> Lowered:
    """Return the unit that runs the functions of every nest in order."""
    functions: dict[str, Function] = {}

    def invocations(stage: str) -> Iterator[Invoke]:
        for nest in schedule.stage(stage):
            for made, buffers in functions_of(nest):
                function, starts = _relocated(replace(made, name=f"nest_{len(functions)}{made.name}"))
                text = function_text(function, anonymous=True)
                blocks = nest.blocks.count if nest.blocks is not None and function.numbers else 0
                yield Invoke(functions.setdefault(text, function), tuple(zip(buffers, starts, strict=True)), blocks=blocks)

    forward, backward = tuple(invocations("forward")), tuple(invocations("backward"))
    unit = Unit(
        name=name,
        arguments=layout.arguments,
        forward=forward,
        backward=backward if backward or schedule.graph.differentiated else None,
        workspace=layout.workspace,
        residual=layout.residual,
        functions=(*called_by(functions.values()), *functions.values()),
    )
    return Lowered(unit, layout, layout.constants)


def called_by(functions: Iterable[Function]) -> list[Function]:
    """Return the functions that `functions` call, directly or not, each after those that it calls itself."""
    found: dict[Function, None] = {}
    for function in functions:
        callees = [statement.function for statement in walk(function.body) if isinstance(statement, Invoke)]
        found |= dict.fromkeys([*called_by(callees), *callees])
    return list(found)


def _relocated(function: Function) -> tuple[Function, list[Index]]:
    """Return `function` with each pointer at the lowest element it touches, and those places.

    Nests that do the same at different places of an array thereby become equal.
    """
    span: dict[Buffer, tuple[int, int]] = {}
    counters = _counters(function.body)
    for statement in walk(function.body):
        for buffer, index, lanes in _accesses(statement):
            first, last = _reach(index, counters, buffer.size)
            last = buffer.size - 1 if lanes is None else last + lanes - 1
            low, high = span.get(buffer, (first, last))
            span[buffer] = min(low, first), max(high, last)
    known = {buffer: span.get(buffer, (0, buffer.size - 1)) for buffer in function.buffers}
    moved = {buffer: (replace(buffer, size=last - first + 1), first) for buffer, (first, last) in known.items()}
    _shift(function.body, moved)
    made = replace(function, buffers=tuple(buffer for buffer, _ in moved.values()))
    return made, [Index(first) for _, first in moved.values()]


def _counters(body: Block) -> dict[Scalar, tuple[int, int]]:
    """Return the first and last value of every counter whose bounds are numbers."""
    loops = (s for s in walk(body) if isinstance(s, Loop) and not s.start.terms and not s.stop.terms)
    return {s.counter: (s.start.constant, max(s.start.constant, s.stop.constant - 1)) for s in loops}


def _reach(index: Index, counters: dict[Scalar, tuple[int, int]], size: int) -> tuple[int, int]:
    """Return the first and last element of `size` ones that `index` can name."""
    first = last = index.constant
    for scalar, coefficient in index.terms:
        if scalar not in counters:
            return 0, size - 1
        ends = [coefficient * end for end in counters[scalar]]
        first, last = first + min(ends), last + max(ends)
    return (first, last) if 0 <= first <= last < size else (0, size - 1)


def _accesses(statement: Statement) -> Iterator[tuple[Buffer, Index, int | None]]:
    """Yield the memory that a statement touches: where, and how many neighbours (None where another function decides)."""
    match statement:
        case Load(target, buffer, index):
            yield buffer, index, target.lanes
        case Store(buffer, index, value):
            yield buffer, index, value.lanes
        case Invoke() | External():
            for buffer, index in statement.buffers:
                yield buffer, index, None


def _shift(block: Block, moved: dict[Buffer, tuple[Buffer, int]]) -> None:
    for number, statement in enumerate(block.statements):
        if isinstance(statement, (Load, Store)) and statement.buffer in moved:
            buffer, start = moved[statement.buffer]
            block.statements[number] = replace(statement, buffer=buffer, index=statement.index - start)
        elif isinstance(statement, (Invoke, External)):
            pairs = ((*moved.get(buffer, (buffer, 0)), index) for buffer, index in statement.buffers)
            block.statements[number] = replace(statement, buffers=tuple((buffer, index - start) for buffer, start, index in pairs))
        for inner in children(statement):
            _shift(inner, moved)
