"""What the text of a call needs to know of the functions of a unit: their names, and what they take behind their own parameters."""

from __future__ import annotations

from staticgrad.ir.loops import Function, Invoke, Unit, can_fail, walk


class Callees:
    """The functions of a unit as others call them.

    Attributes
    ----------
    names
        What they are called; a printer enters each when it prints it.
    tasks
        The names of what runs one block of a function that others call in blocks.
    in_blocks
        The functions that others call in blocks.
    """

    def __init__(self, unit: Unit) -> None:
        self.names: dict[Function, str] = {}
        self.tasks: dict[Function, str] = {}
        self.in_blocks: set[Function] = set()
        self._behind: dict[Function, tuple[str, ...]] = {}
        for function in unit.functions:  # callees come before their callers
            calls = [statement for statement in walk(function.body) if isinstance(statement, Invoke)]
            self.in_blocks.update(call.function for call in calls if call.blocks)
            shares = any(call.blocks or len(self._behind[call.function]) == 2 for call in calls)
            self._behind[function] = ("workspace", "context") if shares else ("context",) if can_fail(function) else ()

    def behind(self, function: Function) -> tuple[str, ...]:
        """Return what a function takes behind its own parameters: the context to note failures in, and all that blocks are run with."""
        return self._behind[function]

    @property
    def can_fail(self) -> bool:
        """Whether any of them can note a failure."""
        return any(map(can_fail, self._behind))
