"""Carries of which each step of a loop reads and writes some elements, and hands the others on: which ones, and who wrote them last.

Where indices are known a step gets what it reads, and gives what it writes; the rest of the carry is not looked at, however large it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.ir.aval import Shape, is_float, product
from staticgrad.ir.graph import topological
from staticgrad.ir.node import Node, Value
from staticgrad.ops.index import Gather, Scatter, ScatterAdd
from staticgrad.ops.movement import Slice, SliceSet, Write
from staticgrad.ops.nested import depends

if TYPE_CHECKING:
    from staticgrad.ops.loops import Scan


@dataclass(frozen=True, eq=False)
class Access:
    """What reads or writes a part of a carry."""

    part: Gather | Slice
    """How the part is picked."""
    indices: tuple[Value, ...]
    value: Value
    """What is read, or written."""
    version: int
    """How many writes of the same step come before it."""
    adds: bool = False

    def places(self, shape: Shape, indices: Sequence[np.ndarray], length: int) -> np.ndarray:
        """Return the numbers of the elements, (length, size of the part), of a carry of this shape; the arrays are those of all steps."""
        size = product(shape)
        if isinstance(self.part, Slice):
            places = self.part.numpy(np.arange(size).reshape(shape)).reshape(-1)
            return np.broadcast_to(places, (length, places.size))
        every = np.broadcast_to(np.float64(0), (length, *shape))
        found = Gather(*self.part.under_batch()).offsets(every, indices)
        return (found % max(size, 1)).reshape(length, -1)


@dataclass(frozen=True, eq=False)
class Touched:
    """A carry that is only read and written in parts, and its accesses: all reads, and all writes in their order."""

    carry: Value
    reads: list[Access] = field(default_factory=list)
    writes: list[Access] = field(default_factory=list)

    @property
    def accesses(self) -> list[Access]:
        """Reads and writes."""
        return [*self.reads, *self.writes]


def touched(scan: Scan, known: Sequence[np.ndarray | None]) -> list[Touched | None]:
    """Return, for each carry of a loop, how its steps get at parts of it that are known; None where they do anything else with it.

    `known` are the arrays of the loop's operands that are.
    """
    body, first = scan.body, 1 + scan.consts
    users: dict[Value, list[Node]] = {}
    for node in topological(body.outputs, stop=body.inputs):
        for value in node.inputs:
            users.setdefault(value, []).append(node)
    carries = zip(body.inputs[first : first + scan.carries], body.outputs, strict=False)
    found = [_accesses(x, end, users, body.outputs) if is_float(x.dtype) else None for x, end in carries]
    indices = [[v for access in each.accesses for v in access.indices] if each else [] for each in found]
    unknown = [False, *(k in scan.starts or known[k] is None for k in range(scan.own, len(known)))]
    return [
        each if each and not any(depends(body.with_outputs(arrays), unknown)) else None for each, arrays in zip(found, indices, strict=True)
    ]


def _accesses(carry: Value, end: Value, users: dict[Value, list[Node]], outputs: Sequence[Value]) -> Touched | None:
    """Return the accesses that lead from what a step is given to what it hands on; None if there is more to it."""
    chain = [end]
    while chain[-1] is not carry:
        if not isinstance(chain[-1].op, Write):
            return None
        chain.append(chain[-1].node.inputs[0])
    made = Touched(carry)
    for version, value in enumerate(reversed(chain)):
        if outputs.count(value) != (value is end):
            return None
        for node in users.get(value, []):
            if value in node.inputs[1:]:
                return None
            if isinstance(node.op, (Gather, Slice)):
                made.reads.append(Access(node.op, node.inputs[1:], node.outputs[0], version))
            elif node.outputs[0] in chain and isinstance(node.op, (Scatter, SliceSet)):
                part = node.op.gather if isinstance(node.op, Scatter) else node.op.slice
                made.writes.append(Access(part, node.inputs[2:], node.inputs[1], version, isinstance(node.op, ScatterAdd)))
            else:
                return None
    return made if sum(access.value.aval.size for access in made.accesses) < carry.aval.size else None


class Events:
    """The writes of single elements, numbered in the order in which they happen.

    Parameters
    ----------
    places
        What each write of a step writes, (turns, elements) each, in the order of the writes.
    turns
        How many turns there are.

    Examples
    --------
    >>> import numpy as np
    >>> events = Events([np.array([[3], [5], [3]])], 3)
    >>> events.last(np.array([3, 3, 5]), np.array([2, 3, 0]))
    array([ 0,  2, -1])
    """

    def __init__(self, places: Sequence[np.ndarray], turns: int) -> None:
        self.elements = np.concatenate([np.zeros((turns, 0), np.int64), *places], 1).reshape(-1)
        self.count = len(self.elements)
        self._ahead: np.ndarray = np.cumsum([0, *(each.shape[1] for each in places)])
        """How many elements a step writes ahead of each of its writes, and in all."""
        self._keys = np.sort(self.elements * self.count + np.arange(self.count))

    def before(self, turns: np.ndarray, version: int) -> np.ndarray:
        """Return the number that the next event has after so many turns and so many writes of the next one."""
        before: np.ndarray = turns * self._ahead[-1] + self._ahead[version]
        return before

    def last(self, elements: np.ndarray, before: np.ndarray | int) -> np.ndarray:
        """Return the last event of each element that has a number less than `before`, -1 for none."""
        if not self.count:
            return np.full(np.shape(elements), -1)
        keys = self._keys[np.searchsorted(self._keys, elements * self.count + before) - 1]
        found = (keys // self.count == elements) & (keys % self.count < before)
        last: np.ndarray = np.where(found, keys % self.count, -1)
        return last
