"""How sparsity patterns spread through loops.

A step of a loop links what it carries on, and what it stacks, to what it was given. Where the body is small enough for all of its steps
to be looked at as one batch, each step's links are known, also those through indices that the number of the step is in; then the pattern
is that of the loop written out. Otherwise all steps are taken to be alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, inline, topological
from staticgrad.ir.links import Links, Reached
from staticgrad.ir.node import constant
from staticgrad.ir.sparsity import NotSparseError, at_most, check_entries, linked, related, relation_of, stacked, structure_of
from staticgrad.ops.nested import mapped

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from staticgrad.ops.loops import Scan

MOST_IN_STEPS = 20_000_000
"""How many elements a body may compute in all steps together, and how many entries what they carry may have, to tell steps apart."""
WORK = 50_000_000
"""How many entries are gone through, step after step, before it is given up that not everything is linked to everything."""


class Floats(NamedTuple):
    """The operands of one kind that are floats."""

    avals: list[Aval]
    patterns: list[csr_array | None]

    @classmethod
    def of(cls, avals: Sequence[Aval], patterns: Sequence[csr_array | None]) -> Floats:
        """Return those of them that are."""
        pairs = [(aval, pattern) for aval, pattern in zip(avals, patterns, strict=True) if is_float(aval.dtype)]
        return cls([aval for aval, _ in pairs], [pattern for _, pattern in pairs])

    @property
    def sizes(self) -> list[int]:
        """How many elements they have."""
        return [aval.size for aval in self.avals]

    def whole(self, columns: int) -> csr_array:
        """Return what all their elements depend on, as one pattern."""
        return stacked(self.patterns, self.sizes, columns)


def carried(onward: csr_array, start: csr_array, steps: int) -> csr_array:
    """Return what a carry may depend on that depends on `start`, after any number of steps up to `steps` whose links are `onward`."""
    work = 0
    for _ in range(steps):
        work += int(np.diff(start.indptr)[onward.indices].sum())
        if work > WORK:
            return _closed(onward, start)
        more = start + related(onward, start)
        if more.nnz == start.nnz:
            break
        start = more
    return start


def _closed(onward: csr_array, start: csr_array) -> csr_array:
    """Return what a carry may depend on after any number of steps: elements that reach each other depend on the same."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    count, component = connected_components(onward, connection="strong")
    joined = linked(Links(component, count), start)
    rows, columns = component[np.repeat(np.arange(onward.shape[0]), np.diff(onward.indptr))], component[onward.indices]
    apart = rows != columns
    power = csr_array((np.ones(np.count_nonzero(apart), np.bool_), (rows[apart], columns[apart])), shape=(count, count))
    return linked(Links(source=component), _followed(power, joined))


def _followed(power: csr_array, start: csr_array) -> csr_array:
    """Return what is reached from `start` along links without cycles, by 1, 2, 4 ... of them at once."""
    while power.nnz:
        start = start + related(power, start)
        power = related(power, power)
    return start


def scanned(scan: Scan, node: Reached) -> list[csr_array | None]:
    """Return what the outputs of a loop depend on."""
    columns = next(pattern.shape[1] for pattern in node.found if pattern is not None)
    pairs = zip(scan.parts(node.avals), scan.parts(node.found), strict=True)
    consts, init, parts = (Floats.of(*pair) for pair in pairs)
    try:
        with at_most(MOST_IN_STEPS):
            made = _step_by_step(scan, node.known, consts, init, parts, columns)
    except NotSparseError:
        made = _all_alike(scan, consts, init, parts, columns)
    rest = iter(made)
    return [next(rest) if is_float(y.dtype) else None for y in node.outputs]


def _step_by_step(
    scan: Scan, known: Sequence[np.ndarray | None], consts: Floats, init: Floats, parts: Floats, columns: int
) -> list[csr_array]:
    """Return the patterns of the outputs that are floats, from the links of every step."""
    length, body = scan.length, scan.body
    check_entries(length * sum(y.aval.size for node in topological(body.outputs) for y in node.outputs))
    flags = [True, *(False for _ in range(scan.consts)), *(True for _ in body.inputs[1 + scan.consts :])]
    inputs, batch = mapped(body, flags, length, [True for _ in body.outputs])
    arrays = [np.arange(length), *(None if k in scan.starts else known[k] for k in range(scan.own, len(known)))]
    given = [v if array is None else constant(array) for v, array in zip(inputs, arrays, strict=True)]
    batch = list(inline(Graph(tuple(inputs), tuple(batch)), given))
    floats = [v for v in inputs[1:] if is_float(v.dtype)]
    carries = [v for v in batch[: scan.carries] if is_float(v.dtype)]
    results = [v for v in batch[scan.carries :] if is_float(v.dtype)]
    relation = structure_of([*carries, *results], floats)

    size, first = sum(init.sizes), sum(consts.sizes)
    everything = length * size
    order = np.arange(length)[:: -1 if scan.reverse else 1]
    starts = np.cumsum([0, *(length * each for each in init.sizes)])
    blocks = (start + np.arange(length * each).reshape(length, each) for start, each in zip(starts, init.sizes, strict=False))
    in_turn = np.concatenate([np.zeros((length, 0), np.int64), *blocks], 1)[order].reshape(-1)
    fixed, begin, over = (group.whole(columns) for group in (consts, init, parts))

    def by_given(rows: csr_array) -> csr_array:
        return related(rows[:, :first], fixed) + related(rows[:, first + everything :], over)

    def by_carry(rows: csr_array) -> csr_array:
        return rows[:, first : first + everything][:, in_turn]

    steps = relation[in_turn]
    given, onward = by_given(steps), by_carry(steps)
    rows = _divided(relation[everything:], [v.aval.size for v in results])
    reads = [by_carry(each) for each in rows]
    kept = np.arange(size) if scan.counted else _needed(reads, onward, size)
    places = (np.arange(length)[:, None] * size + kept).reshape(-1)
    carry = _every(begin[kept], given[places], onward[places][:, places], begins_anywhere=scan.counted and scan.reverse)
    if not scan.counted:
        end = _last(begin, given, onward)
    elif scan.reverse:
        end = carry[everything:]
    else:  # it may end anywhere
        end = linked(Links(np.tile(np.arange(size), length + 1), size), carry)
    before = carry[: len(places)]
    made = [by_given(each) + related(read[:, places], before) for each, read in zip(rows, reads, strict=True)]
    return [*_divided(end, init.sizes), *made]


def _needed(reads: Sequence[csr_array], onward: csr_array, size: int) -> np.ndarray:
    """Return which elements of the carry what is read depends on; of the others only the last ones matter."""
    needed = np.zeros(size, np.bool_)
    if not size:
        return np.flatnonzero(needed)
    for read in reads:
        needed[read.indices % size] = True
    rows = np.repeat(np.arange(onward.shape[0]) % size, np.diff(onward.indptr))
    later, earlier = np.divmod(np.unique(rows * size + onward.indices % size), size)
    while True:
        more = needed.copy()
        more[earlier[needed[later]]] = True
        if np.array_equal(more, needed):
            return np.flatnonzero(needed)
        needed = more


def _every(begin: csr_array, given: csr_array, onward: csr_array, begins_anywhere: bool) -> csr_array:
    """Return what the carry depends on before each step, and after the last: from what steps are given, and their links."""
    size, everything = begin.shape[0], given.shape[0]
    carry = stacked([begin, given], [size, everything], begin.shape[1])
    if begins_anywhere:
        carry = carry + linked(Links(source=np.tile(np.arange(size), carry.shape[0] // max(size, 1))), begin)
    onward.resize((everything, everything + size))
    return _followed(stacked([None, onward], [size, everything], everything + size), carry)


def _last(begin: csr_array, given: csr_array, onward: csr_array) -> csr_array:
    """Return what the carry depends on after the last step: two neighbouring steps are made one, until none is left."""
    size = begin.shape[0]
    while given.shape[0]:
        if given.shape[0] // size % 2:
            begin = given[:size] + related(onward[:size, :size], begin)
            given, onward = given[size:], onward[size:, size:]
            continue
        pairs = np.arange(given.shape[0]).reshape(-1, 2, size)
        early, late = pairs[:, 0].reshape(-1), pairs[:, 1].reshape(-1)
        second = onward[late][:, late]
        given = given[late] + related(second, given[early])
        onward = related(second, onward[early][:, early])
    return begin


def _all_alike(scan: Scan, consts: Floats, init: Floats, parts: Floats, columns: int) -> list[csr_array]:
    """Return the patterns of the outputs that are floats, where what any step is given may reach any later one, and any earlier one.

    What is stacked depends on that, and on the parts of its own step.
    """
    from scipy.sparse import eye_array, kron

    length = scan.length
    results = [v.aval for v in scan.results if is_float(v.dtype)]
    relation = _relation(scan.body)
    each_size = [aval.size // length if length else 0 for aval in parts.avals]
    fixed, begin = consts.whole(columns), init.whole(columns)
    given = [
        None if pattern is None else linked(Links(np.tile(np.arange(size), length), size), pattern)
        for size, pattern in zip(each_size, parts.patterns, strict=True)
    ]
    over = stacked(given, each_size, columns)
    first, second = fixed.shape[0], fixed.shape[0] + begin.shape[0]

    size = begin.shape[0]
    onward = relation[:size]
    entering = related(onward[:, :first], fixed) + related(onward[:, second:], over)
    carry = carried(onward[:, first:second], begin + entering, length)
    made = _divided(carry, init.sizes)
    columns_of = np.cumsum([second, *each_size])
    for rows in _divided(relation[size:], [aval.size for aval in results]):
        own = [
            related(kron(eye_array(length), rows[:, start:end], format="csr").astype(np.bool_), pattern)
            for pattern, start, end in zip(parts.patterns, columns_of, columns_of[1:], strict=False)
            if pattern is not None
        ]
        by_any = related(rows[:, :first], fixed) + related(rows[:, first:second], carry)
        everywhere = linked(Links(source=np.tile(np.arange(rows.shape[0]), length)), by_any)
        made.append(sum(own, everywhere))
    return made


def looped(body: Graph, steps: int | None, consts: int, avals: Sequence[Aval], found: Sequence[csr_array | None]) -> list[csr_array | None]:
    """Return what a carry depends on after any number of steps, no more than `steps`: operands are `consts` constants and the carry."""
    columns = next(pattern.shape[1] for pattern in found if pattern is not None)
    fixed = Floats.of(avals[:consts], found[:consts]).whole(columns)
    init = Floats.of(avals[consts:], found[consts:])
    relation, first = _relation(body), fixed.shape[0]
    start = init.whole(columns) + related(relation[:, :first], fixed)
    made = iter(_divided(carried(relation[:, first:], start, start.shape[0] if steps is None else steps), init.sizes))
    return [next(made) if is_float(aval.dtype) else None for aval in avals[consts:]]


def _relation(body: Graph) -> csr_array:
    """Return the pattern of the outputs of a body that are floats."""
    return relation_of(body.with_outputs([v for v in body.outputs if is_float(v.dtype)]))


def _divided(pattern: csr_array, sizes: Sequence[int]) -> list[csr_array]:
    """Return the rows of a pattern in parts of so many."""
    return [pattern[end - size : end] for size, end in zip(sizes, np.cumsum(sizes, dtype=np.int64), strict=True)]
