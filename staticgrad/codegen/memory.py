"""The memory plan: where each value with memory lives, decided before anything runs."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

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

    The first `residual` of the `workspace` bytes carry values from forward to backward, which writes over those it has done with.
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
    stage_of = {target: nest.stage for nest in schedule.nests for target in map(memory.__getitem__, nest.targets)}
    residuals = [v for v in owners if stage_of.get(v) == "forward" and v in read_by_backward]
    residual = 0
    for value in residuals:
        buffers[value] = _workspace(value, Space.RESIDUAL, residual)
        residual += aligned(value.aval.nbytes)
    others = [v for v in owners if v not in buffers]
    turn = len(schedule.stage("forward"))
    early, late = ([v for v in others if (first.get(v, 0) >= turn) == is_late] for is_late in (False, True))
    workspace = _place_scratch(early, (), first, last, buffers, residual)
    workspace = max(workspace, _place_scratch(late, residuals, first, last, buffers, residual))
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


def _place_scratch(
    values: Iterable[Value],
    there: Iterable[Value],
    first: dict[Value, int],
    last: dict[Value, int],
    buffers: dict[Value, Buffer],
    base: int,
) -> int:
    """Place values from `base` on, or where what is already `there` is not needed any more; return where they end."""
    arena = Arena(base)
    live = [(last[v], buffers[v].offset, aligned(v.aval.nbytes)) for v in there]
    heapq.heapify(live)
    for value in sorted(values, key=lambda v: first.get(v, -1)):
        if value not in first:  # it has no elements
            buffers[value] = _workspace(value, Space.WORKSPACE, base)
            continue
        begin = first[value]
        while live and live[0][0] < begin:
            arena.give(*heapq.heappop(live)[1:])
        size = aligned(max(value.aval.nbytes, 1))
        buffers[value] = _workspace(value, Space.WORKSPACE, arena.take(size))
        heapq.heappush(live, (last[value], buffers[value].offset, size))
    return arena.end


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
