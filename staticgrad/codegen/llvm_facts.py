"""What is known of the pointers that the functions of a unit take: which are read, which are written, how they are aligned.

`nest(x, y)` called with an input and the workspace from byte 128 on, writing y: x is only read, aligned to its elements; y is only
written, aligned to 64 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from staticgrad.codegen.overlap import WORKSPACE
from staticgrad.ir.loops import Buffer, External, Function, Index, Invoke, Load, Space, Store, Unit, walk

ALIGNMENT = 64
"""Bytes: where the workspace, its buffers and local arrays begin."""


@dataclass
class PointerFacts:
    """What is known of one parameter. Behind it lie `elements` elements at least."""

    reads: bool = False
    writes: bool = False
    alignment: int = ALIGNMENT
    elements: int = 0


Facts = dict[Function, list[PointerFacts]]


def pointer_facts(unit: Unit) -> Facts:
    """Return the facts of every parameter of every function, in order."""
    facts: Facts = {function: [PointerFacts() for _ in function.buffers] for function in unit.functions}
    for function in unit.functions:  # callees come before their callers
        _note_accesses(function, facts)
    called: set[Function] = set()
    for call in (*unit.forward, *(unit.backward or ())):
        called.add(call.function)
        _note_call(call, facts, {})
    for function in reversed(unit.functions):
        known = dict(zip(function.buffers, facts[function]))
        for call in _calls(function):
            _note_call(call, facts, known)
            called.discard(call.function)
    for function in called:  # their calls have constant positions, which `verify_unit` has checked
        for fact, buffer in zip(facts[function], function.buffers):
            fact.elements = max(buffer.size, 0)
    return facts


def _calls(function: Function) -> Iterator[Invoke]:
    return (statement for statement in walk(function.body) if isinstance(statement, Invoke))


def _note_accesses(function: Function, facts: Facts) -> None:
    known = dict(zip(function.buffers, facts[function]))
    for statement in walk(function.body):
        if isinstance(statement, Load) and statement.buffer in known:
            known[statement.buffer].reads = True
        elif isinstance(statement, Store) and statement.buffer in known:
            known[statement.buffer].writes = True
        elif isinstance(statement, External):
            for buffer, _ in statement.buffers:
                if buffer in known:
                    known[buffer].reads = True
                    known[buffer].writes |= buffer in statement.written
        elif isinstance(statement, Invoke):
            for (buffer, _), inner in zip(statement.buffers, facts[statement.function]):
                if buffer in known:
                    known[buffer].reads |= inner.reads
                    known[buffer].writes |= inner.writes


def _note_call(call: Invoke, facts: Facts, known: dict[Buffer, PointerFacts]) -> None:
    for (buffer, index), fact in zip(call.buffers, facts[call.function]):
        fact.alignment = math.gcd(fact.alignment, _alignment(buffer, index, known))


def _alignment(buffer: Buffer, index: Index, known: dict[Buffer, PointerFacts]) -> int:
    size = buffer.dtype.itemsize
    start = size
    if buffer in known:
        start = known[buffer].alignment
    elif buffer.space in WORKSPACE:
        start = math.gcd(ALIGNMENT, buffer.offset)
    elif buffer.space is Space.LOCAL:
        start = ALIGNMENT
    return math.gcd(start, size * index.constant, *_steps(index, size))


def _steps(index: Index, size: int) -> Iterable[int]:
    return (size * coefficient for _, coefficient in index.terms)
