"""The memory plan: where each value with memory lives, decided before anything runs."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from staticgrad.codegen.blocks import state_dtypes
from staticgrad.codegen.schedule import Item, Nest, Schedule
from staticgrad.ir.loops import Buffer, Space
from staticgrad.ir.node import Constant, Value, constant_array

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@dataclass(frozen=True)
class Plan:
    """The buffers of a schedule.

    The first `residual` of the `workspace` bytes carry values from forward to backward, which writes over those it has done with. What
    else lies between these values is not read.
    """

    arguments: tuple[Buffer, ...]
    constants: tuple[np.ndarray, ...]
    buffers: dict[Value, Buffer]
    workspace: int
    residual: int
    partials: dict[Item, tuple[Buffer, ...]]
    """For each reduction that is made in blocks, what its state consists of: one after the other for all blocks."""

    results: int
    """Bytes of all results: one that is returned twice is copied."""

    @property
    def peak(self) -> int:
        """Bytes of results and workspace together."""
        return self.workspace + self.results

    @property
    def inputs(self) -> int:
        """Bytes of the arguments of the function."""
        return sum(b.size * b.dtype.itemsize for b in self.arguments if b.space is Space.INPUT)


def aligned(size: int) -> int:
    """Return `size` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Arena:
    """Hands out byte ranges; a freed range is used again (first fit)."""

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.end = base
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """Return the offset of `size` free bytes."""
        for position, (start, length) in enumerate(self._free):
            if length >= size or start + length == self.end:
                self.end = max(self.end, start + size)
                self._free[position : position + 1] = [(start + size, length - size)] if length > size else []
                return start
        start, self.end = self.end, self.end + size
        return start

    def give(self, start: int, size: int) -> None:
        """Return a range; neighbours join."""
        position = bisect.bisect_left(self._free, (start, 0))
        following = self._free[position : position + 1]
        before = self._free[position - 1 : position] if position else []
        if before and sum(before[0]) == start:
            start, size, position = before[0][0], size + before[0][1], position - 1
        else:
            before = []
        if following and start + size == following[0][0]:
            size += following[0][1]
        else:
            following = []
        self._free[position : position + len(before) + len(following)] = [(start, size)]


class Scratch:
    """Workspace for what a nest needs while it runs, behind what the plan hands out; every nest uses it anew."""

    def __init__(self, base: int) -> None:
        self._base = aligned(base)
        self._arena = Arena(self._base)
        self.end = base

    def clear(self) -> None:
        """Let all that was taken be used again."""
        self._arena = Arena(self._base)

    def take(self, name: str, dtype: np.dtype, size: int) -> Buffer:
        """Return a buffer of the workspace."""
        offset = self._arena.take(aligned(size * dtype.itemsize))
        self.end = max(self.end, self._arena.end)
        return Buffer(name, dtype, size, Space.WORKSPACE, offset=offset)


def plan(schedule: Schedule) -> Plan:
    """Return the memory plan of `schedule`."""
    memory = schedule.memory
    graph = schedule.graph
    arguments: list[Buffer] = []
    buffers: dict[Value, Buffer] = {}
    constants: list[np.ndarray] = []

    def argument(value: Value, name: str, space: Space) -> None:
        buffer = Buffer(name, value.dtype, value.aval.size, space, position=len(arguments))
        arguments.append(buffer)
        buffers[value] = buffer

    for number, value in enumerate(graph.inputs):
        label = graph.labels[number] if number < len(graph.labels) else ""
        argument(value, label or f"x{number}", Space.INPUT)
    for value in memory:
        if isinstance(value.op, Constant):
            array = constant_array(value)
            assert array is not None
            argument(value, f"constant{len(constants)}", Space.CONSTANT)
            constants.append(np.ascontiguousarray(array))
    for number, value in enumerate(schedule.outputs):
        argument(memory[value], f"out{number}", Space.OUTPUT)

    first, last, read_by_backward = lifetimes(schedule)
    owners = [value for value in dict.fromkeys(memory.values()) if value not in buffers]
    owners.sort(key=lambda v: first.get(v, -1))
    stage_of = {target: nest.stage for nest in schedule.nests for target in map(memory.__getitem__, nest.targets)}
    residuals = {v for v in owners if stage_of.get(v) == "forward" and v in read_by_backward}
    lives = {v: Life(first[v], last[v], aligned(max(v.aval.nbytes, 1))) for v in owners if v in first}
    offsets, residual, workspace = _placed(lives, residuals)
    buffers |= {v: _workspace(v, Space.RESIDUAL if v in residuals else Space.WORKSPACE, offset) for v, offset in offsets.items()}
    buffers |= {v: _workspace(v, Space.WORKSPACE, 0) for v in owners if v not in buffers}  # they have no elements
    partials, workspace = _place_partials(schedule, workspace)
    return Plan(tuple(arguments), tuple(constants), buffers, workspace, residual, partials, _results(schedule))


def _results(schedule: Schedule) -> int:
    return sum(value.aval.nbytes for value in schedule.graph.outputs)


def _place_partials(schedule: Schedule, base: int) -> tuple[dict[Item, tuple[Buffer, ...]], int]:
    """Return the partial results of every nest, all of them from `base` on as one nest runs at a time, and where they end."""
    found: dict[Item, tuple[Buffer, ...]] = {}
    end = base
    for nest in schedule.nests:
        at = base
        for item in nest.partial_items:
            assert nest.blocks is not None and item.reduce is not None
            size = nest.blocks.count * item.part
            made = []
            for dtype in state_dtypes(item):
                made.append(Buffer(f"partial_{item.reduce.name}", dtype, size, Space.WORKSPACE, offset=at))
                at += aligned(size * dtype.itemsize)
            found[item] = tuple(made)
        end = max(end, at)
    return found, end


def bytes_beside(schedule: Schedule) -> int:
    """Return the bytes of results, and of partial results: what is needed whatever the lifetimes of values are."""
    return _results(schedule) + _place_partials(schedule, 0)[1]


def _workspace(value: Value, space: Space, offset: int) -> Buffer:
    name = {Space.RESIDUAL: "saved"}.get(space, "scratch")
    return Buffer(f"{name}_{value.op.name}", value.dtype, value.aval.size, space, offset=offset)


class Life(NamedTuple):
    """The first and the last nest for which a value is needed, and its bytes."""

    first: int
    last: int
    size: int


def _placed(lives: dict[Value, Life], residuals: set[Value]) -> tuple[dict[Value, int], int, int]:
    """Return where values are, and where residuals and all of them end: of some ways to place them that which takes the least room.

    Either residuals come first and one after the other, so that they are all that is kept for the backward stage, or they lie among
    what is needed before and after them.
    """
    by_size = sorted(lives, key=lambda v: -lives[v].size)
    saved = [v for v in lives if v in residuals]
    packed = dict(zip(saved, itertools.accumulate((lives[v].size for v in saved), initial=0), strict=False))

    def ways() -> Iterator[tuple[dict[Value, int], int, int]]:
        for order, given in ((lives, packed), (by_size, packed), (by_size, {})):
            offsets = _at_lowest(lives, [v for v in order if v not in given], given)
            ends = {v: offset + lives[v].size for v, offset in offsets.items()}
            yield offsets, max((ends[v] for v in residuals), default=0), max(ends.values(), default=0)

    return min(ways(), key=lambda way: (way[2], way[1]))


def _at_lowest(lives: dict[Value, Life], order: Sequence[Value], given: dict[Value, int]) -> dict[Value, int]:
    """Return offsets: beside those that are `given` the lowest where there is room, for one value after the other."""
    offsets = dict(given)
    table = np.zeros((4, len(given) + len(order)), np.int64)
    firsts, lasts, starts, ends = table
    for k, (value, offset) in enumerate(given.items()):
        table[:, k] = lives[value].first, lives[value].last, offset, offset + lives[value].size
    for count, value in enumerate(order, len(given)):
        first, last, size = lives[value]
        near = np.flatnonzero((firsts[:count] <= last) & (lasts[:count] >= first))
        near = near[np.argsort(starts[near], kind="stable")]
        covered = np.concatenate(([0], np.maximum.accumulate(ends[near])))
        fits = starts[near] - covered[:-1] >= size
        offset = int(covered[fits.argmax() if fits.any() else -1])
        table[:, count] = first, last, offset, offset + size
        offsets[value] = offset
    return offsets


def lifetimes(schedule: Schedule) -> tuple[dict[Value, int], dict[Value, int], set[Value]]:
    """Return, by owner, the first nest that writes and the last that touches, and who is read by the backward kernel."""
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    crossing: set[Value] = set()

    def touch(value: Value, number: int, nest: Nest) -> None:
        owner = schedule.memory[value]
        last[owner] = max(last.get(owner, number), number)
        if nest.stage == "backward":
            crossing.add(owner)

    for number, nest in enumerate(schedule.nests):
        for target in nest.targets:
            first.setdefault(schedule.memory[target], number)
            touch(target, number, nest)
        for value in nest.reads:
            touch(value, number, nest)
    return first, last, crossing
