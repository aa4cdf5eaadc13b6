"""From a schedule to a unit of the loop IR: one function a nest, equal functions once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from staticgrad.codegen.contraction import ContractionLowering, TileLibrary
from staticgrad.codegen.memory import Plan, plan
from staticgrad.codegen.nest import NestLowering
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loops import Block, Buffer, External, Function, Index, Invoke, Load, Statement, Store, Unit, children, walk


@dataclass(frozen=True, eq=False)
class Lowered:
    """A unit with what is needed to call it."""

    unit: Unit
    plan: Plan
    constants: tuple[np.ndarray, ...]


Made = tuple[Function, tuple[Buffer, ...]]
"""A function whose name is the ending of its final one, and the buffers of the unit that it is called with."""


def lower(schedule: Schedule, name: str) -> Lowered:
    """Return the unit of `schedule` for CPUs."""
    layout = plan(schedule)
    tiles = TileLibrary()

    def functions_of(nest: Nest) -> Iterator[Made]:
        if nest.contraction is not None:
            yield ContractionLowering(nest, schedule, layout.buffers, tiles).function("")
        else:
            yield NestLowering(nest, schedule, layout.buffers).function("")

    return assembled(schedule, name, layout, functions_of, tiles.functions.values())


def assembled(
    schedule: Schedule, name: str, layout: Plan, functions_of: Callable[[Nest], Iterable[Made]], internal: Iterable[Function] = ()
) -> Lowered:
    """Return the unit that runs the functions of every nest in order; `internal` are those that they call."""
    functions: dict[str, Function] = {}

    def invocations(stage: str) -> Iterator[Invoke]:
        for nest in schedule.stage(stage):
            for made, buffers in functions_of(nest):
                function, starts = _relocated(replace(made, name=f"nest_{len(functions)}{made.name}"))
                yield Invoke(functions.setdefault(_anonymous(function), function), tuple(zip(buffers, starts, strict=True)))

    forward, backward = tuple(invocations("forward")), tuple(invocations("backward"))
    unit = Unit(
        name=name,
        arguments=layout.arguments,
        forward=forward,
        backward=backward if backward or schedule.graph.differentiated else None,
        workspace=layout.workspace,
        residual=layout.residual,
        functions=(*internal, *functions.values()),
    )
    return Lowered(unit, layout, layout.constants)


def _relocated(function: Function) -> tuple[Function, list[Index]]:
    """Return `function` with each pointer at the lowest element it touches, and those places.

    Nests that do the same at different places of an array thereby become equal.
    """
    lowest: dict[Buffer, int] = {}
    for statement in walk(function.body):
        for buffer, index in _accesses(statement):
            first = index.constant if all(coefficient > 0 for _, coefficient in index.terms) else 0
            lowest[buffer] = min(lowest.get(buffer, first), first)
    starts = {buffer: max(lowest.get(buffer, 0), 0) for buffer in function.buffers}
    moved = {buffer: (replace(buffer, size=buffer.size - start), start) for buffer, start in starts.items() if start}
    if moved:
        _shift(function.body, moved)
        function = replace(function, buffers=tuple(moved.get(buffer, (buffer, 0))[0] for buffer in function.buffers))
    return function, [Index(start) for start in starts.values()]


def _accesses(statement: Statement) -> tuple[tuple[Buffer, Index], ...]:
    match statement:
        case Load() | Store():
            return ((statement.buffer, statement.index),)
        case Invoke() | External():
            return statement.buffers
        case _:
            return ()


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


def _anonymous(function: Function) -> str:
    """Return the function's text with the names that do not matter taken out, so that equal nests are found."""
    renamed = {buffer: Buffer(f"p{k}", buffer.dtype, buffer.size, buffer.space) for k, buffer in enumerate(function.buffers)}
    text = function_text(Function("nest", function.buffers, function.numbers, function.body))
    for buffer, replacement in renamed.items():
        text = _replace_word(text, buffer.name, replacement.name)
    return text


def _replace_word(text: str, word: str, replacement: str) -> str:
    import re

    return re.sub(rf"(?<![\w%]){re.escape(word)}(?!\w)", f"\0{replacement}", text).replace("\0", "$")
