"""How sparsity patterns spread through loops.

A step of a loop links what it carries on, and what it stacks, to what it was given. Where the body is small enough for all of its steps
to be looked at as one batch, each step's links are known, also those through indices that the number of the step is in; then the pattern
is that of the loop written out (`loop_steps`). Of carries that steps touch in parts only the parts count (`loop_elements`). Otherwise all
steps are taken to be alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.links import Links, Reached
from staticgrad.ir.sparsity import NotSparseError, at_most, divided, linked, pattern_at, related, relation_of, stacked
from staticgrad.ops.loop_steps import Sizes, all_steps

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
    from scipy.sparse.csgraph import connected_components

    count, component = connected_components(onward, connection="strong")
    joined = linked(Links(component, count), start)
    rows, columns = component[np.repeat(np.arange(onward.shape[0]), np.diff(onward.indptr))], component[onward.indices]
    apart = rows != columns
    power = pattern_at(rows[apart], columns[apart], (count, count))
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
    steps = all_steps(scan, known, Sizes(consts.sizes, init.sizes, parts.sizes))
    groups = (init, consts, parts)
    fixed = stacked([group.whole(columns) for group in groups], [sum(group.sizes) for group in groups], columns)

    def parted(rows: csr_array) -> tuple[csr_array, csr_array]:
        """Return how rows depend on what is made in steps, and on what the loop is given."""
        return rows[:, : steps.made], related(rows[:, steps.made :], fixed)

    onward, given = parted(steps.onward)
    return [directly + _reached(links, onward, given) for links, directly in map(parted, steps.outputs)]


def _reached(wanted: csr_array, onward: csr_array, given: csr_array) -> csr_array:
    """Return what is wanted depends on: `wanted (1 + onward + onward**2 + ...) given`.

    What lies on no way from what is given to what is wanted is left out first. Then 1, 2, 4 ... links are followed at once, each time from
    the side that has less to go through.
    """
    there = np.flatnonzero(_reachable(wanted.indices, onward) & _reachable(np.flatnonzero(np.diff(given.indptr)), onward.T.tocsr()))
    wanted, onward, given = wanted[:, there], onward[there][:, there], given[there]
    while onward.nnz:
        if _work(wanted, onward) <= _work(onward, given):
            wanted = wanted + related(wanted, onward)
        else:
            given = given + related(onward, given)
        onward = related(onward, onward)
    return related(wanted, given)


def _reachable(starts: np.ndarray, links: csr_array) -> np.ndarray:
    """Return which places are among `starts` or linked to from them, over any number of links."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    count = links.shape[0]
    starts = np.unique(starts)
    indices, ends = np.append(links.indices, starts), np.append(links.indptr, links.nnz + len(starts))
    found = np.zeros(count + 1, np.bool_)
    rooted = csr_array((np.ones(len(indices), np.bool_), indices, ends), shape=(count + 1, count + 1))
    found[breadth_first_order(rooted, count, return_predecessors=False)] = True
    return found[:count]


def _work(relation: csr_array, dependence: csr_array) -> int:
    """Return how many entries their product goes through."""
    return int(np.diff(dependence.indptr)[relation.indices].sum())


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
    made = divided(carry, init.sizes)
    columns_of = np.cumsum([second, *each_size])
    for rows in divided(relation[size:], [aval.size for aval in results]):
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
    made = iter(divided(carried(relation[:, first:], start, start.shape[0] if steps is None else steps), init.sizes))
    return [next(made) if is_float(aval.dtype) else None for aval in avals[consts:]]


def _relation(body: Graph) -> csr_array:
    """Return the pattern of the outputs of a body that are floats."""
    return relation_of(body.with_outputs([v for v in body.outputs if is_float(v.dtype)]))
