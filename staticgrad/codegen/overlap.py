"""Which functions of a unit are handed pointers that do not overlap where something is written."""

from __future__ import annotations

from collections.abc import Iterator

from staticgrad.ir.loops import Buffer, External, Function, Index, Invoke, Space, Store, Unit, walk

WORKSPACE = (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL)
TABLE = (Space.INPUT, Space.OUTPUT, Space.CONSTANT)


def disjoint_functions(unit: Unit) -> frozenset[Function]:
    """Return the functions for which every call keeps what is written apart from all else that is handed over.

    Entries of the argument table count as distinct: the caller owns the outputs, and they overlap nothing.
    """
    written: dict[Function, frozenset[int]] = {}
    mixed: set[Function] = set()

    def visit(calls: Iterator[Invoke], caller_is_mixed: bool) -> None:
        for call in calls:
            apart = _keeps_apart(call, _written(call.function, written))
            if (caller_is_mixed or not apart) and call.function not in mixed:
                mixed.add(call.function)
                visit(_calls(call.function), True)

    for stage in (unit.forward, unit.backward or ()):
        visit(iter(stage), False)
    for function in reversed(unit.functions):  # callers come after what they call
        visit(_calls(function), function in mixed)
    return frozenset(unit.functions) - mixed


def _calls(function: Function) -> Iterator[Invoke]:
    return (statement for statement in walk(function.body) if isinstance(statement, Invoke))


def _written(function: Function, known: dict[Function, frozenset[int]]) -> frozenset[int]:
    """Return the positions of the parameters that `function` writes through."""
    if function not in known:
        places = {buffer: position for position, buffer in enumerate(function.buffers)}
        stores = [s.buffer for s in walk(function.body) if isinstance(s, Store)]
        stores += [buffer for s in walk(function.body) if isinstance(s, External) for buffer in s.written]
        found = {places[buffer] for buffer in stores if buffer in places}
        for call in _calls(function):
            found |= {places[call.buffers[p][0]] for p in _written(call.function, known) if call.buffers[p][0] in places}
        known[function] = frozenset(found)
    return known[function]


def _keeps_apart(call: Invoke, written: frozenset[int]) -> bool:
    return all(
        not _overlap(call.buffers[position], other) for position in written for place, other in enumerate(call.buffers) if place != position
    )


def _overlap(first: tuple[Buffer, Index], second: tuple[Buffer, Index]) -> bool:
    x, y = first[0], second[0]
    if x is y:
        return True
    if x.space in WORKSPACE and y.space in WORKSPACE:
        return x.offset < y.offset + y.size * y.dtype.itemsize and y.offset < x.offset + x.size * x.dtype.itemsize
    return x.space in TABLE and y.space in TABLE and x.position == y.position
