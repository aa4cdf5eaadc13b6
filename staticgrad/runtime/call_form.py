"""From a call to its form: what the entry must know to recognise such a call, to run it and to make its result."""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from staticgrad.ir.aval import BOOL, Aval
from staticgrad.runtime.executor import Executable
from staticgrad.runtime.fast_call import (
    ARRAY,
    CALL,
    COPY,
    DICT,
    DICT_OF,
    ENTRY,
    FIELD,
    FLOAT,
    INT,
    LIST,
    LIST_OF,
    NUMBER,
    OBJECT,
    OUTPUT,
    SAME,
    TUPLE,
    TUPLE_OF,
    Form,
    Probe,
    Words,
)
from staticgrad.tracing.pytree import Signature, unflatten
from staticgrad.tracing.record import Program
from staticgrad.tracing.snapshots import CellOf, EntryOf, PartOf, Read

LARGEST_FORM = 512
"""Leaves: a call with more of them takes longer than its entry anyway, and the entry works on the stack."""

LONG_WORK = 100_000
"""Scalar instructions, some ten microseconds: from there on a call releases the GIL."""


class Unsuitable(Exception):
    """A call that has no form: a container, an array type or a size that only the slow path knows."""


def form_of(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], signature: Signature, program: Program, executable: Executable
) -> Form | None:
    """Return the form of a call, or None where only the slow path knows such calls."""
    plan = executable.plan
    if program.prints or max(len(plan.inputs), len(plan.outputs), len(plan.order)) > LARGEST_FORM:
        return None
    places, named_places = unflatten(signature.tree, list(range(len(signature.avals))))
    pattern, result = Words(), Words()
    finish: Callable[[Any], Any] | None = None
    try:
        for argument, place in zip(args, places, strict=True):
            pattern_of(argument, place, signature.avals, pattern)
        for name, argument in kwargs.items():
            pattern_of(argument, named_places.get(name), signature.avals, pattern)
    except Unsuitable:
        return None
    leaves = tuple(range(program.results))
    try:
        shape_of(unflatten(program.out_tree, leaves), plan.order, result, set())
    except Unsuitable:
        result = Words()
        shape_of(leaves, plan.order, result, set())
        finish = functools.partial(unflatten, program.out_tree)
    pairs = program.guards.probes() if program.guards is not None else ()
    probes = [probe_of(read, expected) for read, expected in pairs]
    return Form(len(args), tuple(kwargs), pattern, result, finish, probes, executable, plan.work >= LONG_WORK)


def pattern_of(argument: Any, places: Any, avals: Sequence[Aval], words: Words) -> None:
    """Append the pattern of an argument. `places` has its structure, with the positions of the leaves; static values are None there.

    Raises
    ------
    Unsuitable
        For containers other than tuple, list and dict, and for leaves that are not NumPy's own or Python's numbers.
    """
    kind = type(argument)
    if type(places) is int:
        _leaf_pattern(argument, places, avals[places], words)
    elif places is None:
        words.add(SAME).hold(argument)
    elif kind is not type(places):
        raise Unsuitable(f"a {kind.__name__}")
    elif kind is tuple or kind is list:
        words.add(TUPLE if kind is tuple else LIST, len(argument))
        for item, place in zip(argument, places, strict=True):
            pattern_of(item, place, avals, words)
    elif kind is dict:
        words.add(DICT, len(argument))
        for key, item in argument.items():
            words.hold(key)
            pattern_of(item, places[key], avals, words)
    else:
        raise Unsuitable(f"a {kind.__name__}")


def _leaf_pattern(leaf: Any, slot: int, aval: Aval, words: Words) -> None:
    kind = type(leaf)
    if aval.rank:
        if kind is not np.ndarray:
            raise Unsuitable(f"a {kind.__name__}")
        words.add(ARRAY, slot).hold(aval.dtype).add(aval.rank, *aval.shape)
    elif aval.weak:
        if kind is not float and kind is not int:
            raise Unsuitable(f"a {kind.__name__}")
        words.add(FLOAT if kind is float else INT, slot)
    else:
        words.add(NUMBER, slot).hold(aval.dtype).hold(aval.dtype.type).add(int(aval.dtype == BOOL))


def shape_of(result: Any, order: Sequence[int], words: Words, seen: set[int]) -> None:
    """Append the shape of a result, a structure of the positions of its leaves; `order` says which output each of them is.

    Raises
    ------
    Unsuitable
        For containers other than tuple, list and dict.
    """
    kind = type(result)
    if kind is int:
        output = order[result]
        words.add(COPY if output in seen else OUTPUT, output)
        seen.add(output)
    elif result is None:
        words.add(OBJECT).hold(None)
    elif kind is tuple or kind is list:
        words.add(TUPLE_OF if kind is tuple else LIST_OF, len(result))
        for item in result:
            shape_of(item, order, words, seen)
    elif kind is dict:
        words.add(DICT_OF, len(result))
        for key, item in result.items():
            words.hold(key)
            shape_of(item, order, words, seen)
    else:
        raise Unsuitable(f"a {kind.__name__}")


# ---- probes


def probe_of(read: Read, expected: Any) -> Probe:
    """Return how the entry does without calling `read`, where it can."""
    if type(read) is EntryOf:
        return Probe(ENTRY, read.func.__self__, read.args[0], expected)
    if type(read) is CellOf and (offset := cell_offset()) is not None:
        return Probe(FIELD, read.args[0], offset, expected)
    if type(read) is PartOf and (offset := part_offsets().get(read.args[1])) is not None and (function := read.function()) is not None:
        return Probe(FIELD, function, offset, expected)
    return Probe(CALL, read, 0, expected)


def _offset_of(item: object, owner: object, size: int) -> int | None:
    """Return where the memory of an object of `size` bytes holds the address of another one, None where it does not once only."""
    words = (ctypes.c_int64 * (size // 8)).from_address(id(owner))
    places = [8 * place for place, word in enumerate(words) if place >= 2 and word == id(item)]
    return places[0] if len(places) == 1 else None


@functools.cache
def cell_offset() -> int | None:
    """Return where a cell holds its content."""
    content = object()
    return _offset_of(content, types.CellType(content), object.__sizeof__(types.CellType()))


@functools.cache
def part_offsets() -> dict[str, int]:
    """Return where a function holds its code and its defaults, by the names of these."""

    def sample(x: int = 1, *, y: int = 2) -> int:
        return x + y

    size = object.__sizeof__(sample)
    found = {name: _offset_of(getattr(sample, name), sample, size) for name in ("__code__", "__defaults__", "__kwdefaults__")}
    return {name: offset for name, offset in found.items() if offset is not None}
