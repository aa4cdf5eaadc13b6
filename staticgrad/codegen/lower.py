"""From a schedule to a unit of the loop IR: one function a nest, equal functions once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from staticgrad.codegen.contraction import ContractionLowering, TileLibrary
from staticgrad.codegen.memory import Plan, plan
from staticgrad.codegen.nest import NestLowering
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loops import Buffer, Function, Index, Invoke, Unit


@dataclass(frozen=True, eq=False)
class Lowered:
    """A unit with what is needed to call it."""

    unit: Unit
    plan: Plan
    constants: tuple[np.ndarray, ...]


def lower(schedule: Schedule, name: str) -> Lowered:
    """Return the unit of `schedule`."""
    layout = plan(schedule)
    tiles = TileLibrary()
    functions: dict[str, Function] = {}

    def invoke(nest: Nest) -> Invoke:
        number = f"nest_{len(functions)}"
        if nest.contraction is not None:
            made, taken = ContractionLowering(nest, schedule, layout.buffers, tiles).function(number)
        else:
            made, taken = NestLowering(nest, schedule, layout.buffers).function(number)
        text = _anonymous(made)
        function = functions.setdefault(text, made)
        return Invoke(function, tuple((buffer, Index()) for buffer in taken))

    forward = tuple(invoke(nest) for nest in schedule.stage("forward"))
    backward = tuple(invoke(nest) for nest in schedule.stage("backward"))
    differentiated = bool(backward) or schedule.graph.differentiated
    unit = Unit(
        name=name,
        arguments=layout.arguments,
        forward=forward,
        backward=backward if differentiated else None,
        workspace=layout.workspace,
        residual=layout.residual,
        functions=(*tiles.functions.values(), *functions.values()),
    )
    return Lowered(unit, layout, layout.constants)


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
