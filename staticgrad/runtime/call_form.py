"""From a call to its form: what the entry must know to recognise such a call, to run it and to make its result."""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from staticgrad.ir.aval import BOOL, Aval
from staticgrad.runtime.executor import CallPlan, Executable
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
"""Leaves, and items of containers: a call with more of them takes longer than its entry anyway, and the entry works on the stack."""

MOST_PAIRS = 1024
"""Comparisons of memory ranges: with more arrays `out=` takes the slow path."""

READABLE, WRITABLE = 0x101, 0x501
"""What arrays must be: NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED; also NPY_ARRAY_WRITEABLE."""

LONG_WORK = 10_000.0
"""Nanoseconds of work from which on a call releases the GIL, which takes some hundred."""


class Unsuitable(Exception):
    """A call that has no form: a container, an array type or a size that only the slow path knows."""


def form_of(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    signature: Signature,
    program: Program,
    probes: Sequence[tuple[Read, object]],
    executable: Executable,
    has_out: bool = False,
    threads: int | None = None,
) -> Form | None:
    """Return the form of a call of `function`, or None where only the slow path knows such calls.

    `probes` are what the program's guards look at. With `has_out` the keyword `out`, which is no argument of the function, holds the
    arrays that receive the results.
    """
    plan = executable.plan
    if program.prints or max(map(len, (plan.inputs, plan.constants, plan.outputs, plan.order))) > LARGEST_FORM:
        return None
    places, named_places = unflatten(signature.tree, list(range(len(signature.avals))))
    pattern, result = Words(), Words()
    finish: Callable[[Any], Any] | None = None
    try:
        for argument, place in zip(args, places, strict=True):
            pattern_of(argument, place, signature.avals, pattern)
        for name, argument in kwargs.items():
            if has_out and name == "out":
                _out_pattern(argument, program, plan, pattern)
            else:
                pattern_of(argument, named_places.get(name), signature.avals, pattern)
    except (Unsuitable, RecursionError):  # the caller's stack may be nearly full
        return None
    if pattern.items > LARGEST_FORM:
        return None
    out = len(args) + list(kwargs).index("out") if has_out else -1
    leaves = tuple(range(program.results))
    try:
        shape_of(unflatten(program.out_tree, leaves), plan, result, set())
    except (Unsuitable, RecursionError):
        result = Words()
        shape_of(leaves, plan, result, set())
        finish = functools.partial(unflatten, program.out_tree) if out < 0 else None
    roots = (function, getattr(function, "__func__", None))
    looks = [probe_of(read, expected, roots) for read, expected in probes]
    is_long = plan.work >= LONG_WORK or plan.parallel
    return Form(len(args), tuple(kwargs), pattern, result, finish, looks, executable, is_long, out, threads)


def _out_pattern(out: Any, program: Program, plan: CallPlan, words: Words) -> None:
    """Append the pattern of the arrays that receive the results."""
    if len(set(plan.order)) != len(plan.order) or len(plan.outputs) * (len(plan.inputs) + len(plan.outputs)) > MOST_PAIRS:
        raise Unsuitable("out= for results that are the same array, or for very many arrays")
    first = len(plan.inputs) + len(plan.constants)
    places = unflatten(program.out_tree, list(range(program.results)))
    outputs = [plan.outputs[output] for output in plan.order]
    pattern_of(out, places, outputs, words, [first + output for output in plan.order])


def pattern_of(argument: Any, places: Any, avals: Sequence[Aval], words: Words, slots: Sequence[int] | None = None) -> None:
    """Append the pattern of an argument. `places` has its structure, with the numbers of the leaves; static values are None there.

    With `slots`, by number, the leaves are arrays to be written, in those places of the argument table.

    Raises
    ------
    Unsuitable
        For containers other than tuple, list and dict, and for leaves that are not NumPy's own or Python's numbers.
    """
    kind = type(argument)
    if type(places) is int:
        aval = avals[places]
        if slots is not None or aval.rank:
            if kind is not np.ndarray:
                raise Unsuitable(f"a {kind.__name__}")
            slot, flags = (places, READABLE) if slots is None else (slots[places], WRITABLE)
            words.add(ARRAY, slot).hold(aval.dtype).add(aval.rank, flags, *aval.shape)
        elif aval.weak:
            if kind is not float and kind is not int:
                raise Unsuitable(f"a {kind.__name__}")
            words.add(FLOAT if kind is float else INT, places)
        else:
            if kind is not aval.dtype.type and kind is not np.ndarray and not (kind is bool and aval.dtype == BOOL):
                raise Unsuitable(f"a {kind.__name__}")
            words.add(NUMBER, places).hold(aval.dtype).hold(aval.dtype.type).add(int(aval.dtype == BOOL))
    elif places is None:
        words.add(SAME).hold(argument)
    elif kind is not type(places):
        raise Unsuitable(f"a {kind.__name__}")
    elif kind is tuple or kind is list:
        words.add(TUPLE if kind is tuple else LIST, len(argument))
        words.items += len(argument) if kind is list else 0
        for item, place in zip(argument, places, strict=True):
            pattern_of(item, place, avals, words, slots)
    elif kind is dict:
        words.add(DICT, len(argument))
        words.items += len(argument)
        for key, item in argument.items():
            words.hold(key)
            pattern_of(item, places[key], avals, words, slots)
    else:
        raise Unsuitable(f"a {kind.__name__}")


def shape_of(result: Any, plan: CallPlan, words: Words, seen: set[int]) -> None:
    """Append the shape of a result, a structure of the numbers of its leaves. An array that is there already is copied.

    Raises
    ------
    Unsuitable
        For containers other than tuple, list and dict.
    """
    kind = type(result)
    if kind is int:
        output = plan.order[result]
        words.add(COPY if output in seen and plan.outputs[output].rank else OUTPUT, output)
        seen.add(output)
    elif result is None:
        words.add(OBJECT).hold(None)
    elif kind is tuple or kind is list:
        words.add(TUPLE_OF if kind is tuple else LIST_OF, len(result))
        for item in result:
            shape_of(item, plan, words, seen)
    elif kind is dict:
        words.add(DICT_OF, len(result))
        for key, item in result.items():
            words.hold(key)
            shape_of(item, plan, words, seen)
    else:
        raise Unsuitable(f"a {kind.__name__}")


# ---- probes


def probe_of(read: Read, expected: Any, roots: Sequence[Any]) -> Probe:
    """Return how the entry does without calling `read`, where it can. What is called itself, one of `roots`, is not kept alive."""
    if type(read) is EntryOf:
        get: Any = read.func
        return Probe(ENTRY, get.__self__, read.args[0], expected)
    if type(read) is CellOf and (offset := cell_offset()) is not None:
        return Probe(FIELD, read.args[0], offset, expected)
    if type(read) is PartOf and (offset := part_offsets().get(read.args[1])) is not None and (function := read.function()) is not None:
        return Probe(FIELD, id(function) if any(function is root for root in roots) else function, offset, expected)
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
