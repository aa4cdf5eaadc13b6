"""All steps of a loop at once: what each element that a step makes depends on, be it made in other steps or given to the loop.

These links are patterns with *places* as columns: first what is made of carries in all steps, then what carries start as, the constants
of the loop, and the parts of steps. What a step is given of a carry is at the place where it was made, in whatever step that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, inline, substitution, topological
from staticgrad.ir.node import constant, new_input
from staticgrad.ir.sparsity import Known, check_entries, divided, pattern_at, related, structure_of
from staticgrad.ops.loop_elements import Access, Events, Touched, touched
from staticgrad.ops.nested import mapped

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from staticgrad.ops.loops import Scan


class Sizes(NamedTuple):
    """How many elements the operands of a loop have, those of each kind that are floats."""

    consts: list[int]
    init: list[int]
    parts: list[int]


class Steps(NamedTuple):
    """The links of all steps of a loop."""

    made: int
    """How many elements of carries are made in all steps: so many places come first."""
    onward: csr_array
    """What these depend on."""
    outputs: list[csr_array]
    """What the outputs of the loop that are floats depend on."""


def all_steps(scan: Scan, known: Sequence[np.ndarray | None], sizes: Sizes) -> Steps:
    """Return the links of all steps; `known` are the arrays of the loop's operands that are."""
    there = touched(scan, known)
    relation, taken, results = _as_batch(scan, known, there)
    made = relation.shape[0] - sum(results)
    rest = made + np.arange(sum(map(sum, sizes)))
    init, consts, parts, _ = np.split(rest, np.cumsum([sum(sizes.init), sum(sizes.consts), sum(sizes.parts)]))
    turns = np.arange(scan.length)[:: -1 if scan.reverse else 1]
    floats = [each for each, v in zip(there, scan.body.outputs, strict=False) if is_float(v.dtype)]
    carries: dict[int, _Carry] = {}
    first = 0
    for k in sorted(range(len(floats)), key=lambda k: floats[k] is not None):  # as they stand in the batch
        each, start = floats[k], init[sum(sizes.init[:k]) :][: sizes.init[k]]
        carries[k] = _whole(first, start, turns) if each is None else _in_parts(first, start, turns, each, taken)
        first += len(carries[k].made)

    whole, touching = ([g for k, c in carries.items() if (floats[k] is None) == flag for g in c.given] for flag in (True, False))
    given = np.concatenate([consts, *whole, parts, *touching])
    width = made + len(rest)
    links = related(relation, pattern_at(np.arange(len(given)), given, (len(given), width)))
    onward = links[:made]
    for carry in carries.values():
        onward = onward + pattern_at(*carry.added, onward.shape)
        if scan.counted and scan.reverse:  # it begins at any step: those ahead of it hand on what it starts as
            onward = onward + pattern_at(carry.made, carry.begun, onward.shape)
    ends = [carries[k].end(scan.counted and not scan.reverse, width) for k in range(len(floats))]
    return Steps(made, onward, [*ends, *divided(links[made:], results)])


def _as_batch(
    scan: Scan, known: Sequence[np.ndarray | None], there: Sequence[Touched | None]
) -> tuple[csr_array, dict[Access, np.ndarray], list[int]]:
    """Return the links of steps looked at one by one, which elements each access is to, and the sizes of results.

    Carries that are touched in parts are these parts only. The rows are other carries, what is written, and results; the columns are
    constants, other carries, parts of steps, and what is read.
    """
    body, length, first = scan.body, scan.length, 1 + scan.consts
    whole = [k for k, each in enumerate(there) if each is None]
    accesses = [(access, each.carry.shape) for each in there if each for access in each.accesses]
    reads = [access.value for each in there if each for access in each.reads]
    writes = [access.value for each in there if each for access in each.writes]
    results = [v for v in scan.results if is_float(v.dtype)]
    made = [*(body.outputs[k] for k in whole if is_float(body.outputs[k].dtype)), *writes, *results]
    indices = [v for access, _ in accesses for v in access.indices]
    fresh = [new_input(Aval(v.shape, v.dtype)) for v in reads]
    image = substitution([*made, *indices], {v: v for v in body.inputs} | dict(zip(reads, fresh, strict=True)))
    places = [*range(first), *(first + k for k in whole), *range(first + scan.carries, len(body.inputs))]
    graph = Graph((*(body.inputs[k] for k in places), *fresh), tuple(image[v] for v in (*made, *indices)))

    inputs, batch = mapped(graph, [not 1 <= k < first for k in range(len(graph.inputs))], length, [True for _ in graph.outputs])
    check_entries(sum(y.aval.size for node in topological(batch, stop=inputs) for y in node.outputs))
    arrays = [np.arange(length), *(None if k in scan.starts else known[k] for k in range(scan.own, len(known)))]
    given = [*(arrays[k] for k in places), *(None for _ in fresh)]
    values = [v if array is None else constant(array) for v, array in zip(inputs, given, strict=True)]
    batch = list(inline(Graph(tuple(inputs), tuple(batch)), values))
    relation = structure_of(batch[: len(made)], [v for v in inputs[1:] if is_float(v.dtype)])
    found = iter([array for array in Known(batch[len(made) :]) if array is not None])
    taken = {access: access.places(shape, [next(found) for _ in access.indices], length) for access, shape in accesses}
    return relation, taken, [length * v.aval.size for v in results]


@dataclass(frozen=True, eq=False)
class _Carry:
    """The places of a carry."""

    given: list[np.ndarray]
    """Those of what steps are given of it, step after step: one array for all of it, or for each part that they read."""
    made: np.ndarray
    """Those of what they make."""
    begun: np.ndarray
    """Those of what the same elements start as."""
    start: np.ndarray
    """Those of what its elements start as."""
    last: np.ndarray
    """Those of its elements after the last step."""
    added: tuple[np.ndarray, np.ndarray]
    """What is added to something, and to what."""

    def end(self, anywhere: bool, width: int) -> csr_array:
        """Return the links of what the loop ends with, after the last step or after any."""
        rows, places = np.arange(len(self.start)), self.last
        if anywhere and len(rows):
            rows, places = np.concatenate([rows, rows, self.begun - self.start[0]]), np.concatenate([places, self.start, self.made])
        return pattern_at(rows, places, (len(self.start), width))


def _whole(first: int, start: np.ndarray, turns: np.ndarray) -> _Carry:
    """Return a carry all of which is made anew in each step; what is made stands from place `first` on."""
    made = first + np.arange(len(turns) * len(start)).reshape(len(turns), len(start))
    in_turn = np.concatenate([start[None], made[turns]])
    nothing = np.zeros(0, np.int64)
    return _Carry([in_turn[turns].reshape(-1)], made.reshape(-1), np.tile(start, len(turns)), start, in_turn[-1], (nothing, nothing))


def _in_parts(first: int, start: np.ndarray, turns: np.ndarray, touched: Touched, taken: dict[Access, np.ndarray]) -> _Carry:
    """Return a carry that steps touch in parts; what they write stands from place `first` on."""
    events = Events([taken[access][turns] for access in touched.writes], len(turns))
    sizes = [access.value.aval.size for access in touched.writes]
    firsts = first + len(turns) * np.cumsum([0, *sizes])
    made = [begin + turns[:, None] * size + np.arange(size) for begin, size in zip(firsts, sizes, strict=False)]
    place_of = np.concatenate([np.zeros((len(turns), 0), np.int64), *made], 1).reshape(-1)
    adds = np.repeat([access.adds for access in touched.writes], sizes)

    def place(elements: np.ndarray, before: np.ndarray | int) -> np.ndarray:
        event = events.last(elements, before)
        found: np.ndarray = np.where(event < 0, start[elements], np.append(place_of, 0)[event])
        return found

    added = np.flatnonzero(np.tile(adds, len(turns)).astype(np.bool_))
    return _Carry(
        given=[place(taken[access], events.before(turns, access.version)[:, None]).reshape(-1) for access in touched.reads],
        made=place_of,
        begun=start[events.elements],
        start=start,
        last=place(np.arange(len(start)), events.count),
        added=(place_of[added], place(events.elements[added], added)),
    )
