"""The order of nests: one in which memory is soon free again.

    backward: g3(h3), g2(h2), g1(h1), w3(g3), w2(g2), w1(g1)     ->     backward: g3(h3), w3(g3), g2(h2), w2(g2), g1(h1), w1(g1)

So large values that few others need, such as a layer's cotangent, do not wait until the end for those.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

from staticgrad.codegen.memory import aligned
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.node import Constant, Input, Value
from staticgrad.ops.foreign import foreign_names


class Traffic:
    """What each nest reads and writes, by the number of who owns the memory."""

    def __init__(self, schedule: Schedule) -> None:
        memory = schedule.memory
        self.owners = list(dict.fromkeys(memory.values()))
        self.number = {owner: k for k, owner in enumerate(self.owners)}
        fixed = {memory[v] for v in schedule.outputs}
        self.sizes = [0 if v in fixed or isinstance(v.op, (Input, Constant)) else aligned(max(v.aval.nbytes, 1)) for v in self.owners]
        """The bytes of workspace that each owner takes: none for what lies in arrays of the caller's."""
        self.calls = {k for k, nest in enumerate(schedule.nests) if _calls(nest)}
        """The nests that call functions of unknown effects: these come one after the other as they are."""
        self.reads = [self.of(memory, nest.reads) for nest in schedule.nests]
        self.writes = [self.of(memory, nest.targets) for nest in schedule.nests]

    def of(self, memory: dict[Value, Value], values: Iterable[Value]) -> list[int]:
        """Return the numbers of the owners of `values`, each once."""
        return list(dict.fromkeys(self.number[memory[v]] for v in values))

    def peak(self, order: Sequence[int], there: Set[int] = frozenset(), stays: Set[int] = frozenset()) -> tuple[int, int]:
        """Return the most bytes in use at a time while nests run in this order, and at which place that is.

        What is `there` is in use from the beginning, what `stays` until the end.
        """
        first: dict[int, int] = dict.fromkeys(there, 0)
        last: dict[int, int] = {}
        for place, number in enumerate(order):
            for owner in (*self.reads[number], *self.writes[number]):
                first.setdefault(owner, place)
                last[owner] = place
        change = [0] * (len(order) + 1)
        for owner, place in first.items():
            change[place] += self.sizes[owner]
            if owner in last and owner not in stays:
                change[last[owner] + 1] -= self.sizes[owner]
        sums = list(itertools.accumulate(change))
        most = max(sums)
        return most, sums.index(most)


def _calls(nest: Nest) -> bool:
    return nest.foreign is not None or (nest.nested is not None and any(map(foreign_names, nest.nested.op.subgraphs)))


def in_frugal_order(schedule: Schedule, tight: bool = False) -> Schedule:
    """Return the schedule with the nests of each stage in another order where that needs less memory.

    A `tight` order is the best for late nests where little of what early ones make is kept.
    """
    traffic = Traffic(schedule)
    turn = len(schedule.stage("forward"))
    stages = range(turn), range(turn, len(schedule.nests))
    early = {owner for number in stages[0] for owner in traffic.writes[number]}
    crossing = {owner for number in stages[1] for owner in traffic.reads[number]} & early
    order = [
        *_better(traffic, stages[0], frozenset(), crossing, tight),
        *_better(traffic, stages[1], crossing, frozenset(), tight),
    ]
    return replace(schedule, nests=[schedule.nests[number] for number in order])


def _better(traffic: Traffic, nests: range, there: Set[int], stays: Set[int], tight: bool) -> Sequence[int]:
    """Return a frugal order of these nests, or the one they have if none is better."""
    orders = [nests, *(_Frugal(traffic, nests, there, stays, at_once).run() for at_once in (False, True))]

    def needed(order: Sequence[int]) -> tuple[int, ...]:
        both = traffic.peak(order, there, stays)[0], traffic.peak(order, there, {*stays, *there})[0]
        return both[::-1] if tight else both

    return min(orders, key=needed)


class _Frugal:
    """Of the nests whose turn it can be, the one comes next after which the least memory is in use.

    Of equal ones, the one whose turn it has been for the shortest time, and of these the one on which the fewest others wait, one after
    the other; with `at_once`, this comes before the memory.
    """

    def __init__(self, traffic: Traffic, nests: Iterable[int], there: Set[int], stays: Set[int], at_once: bool) -> None:
        self._touched = {number: set(traffic.reads[number]) | set(traffic.writes[number]) for number in nests}
        self._sizes = [0 if k in stays else size for k, size in enumerate(traffic.sizes)]
        self._there = set(there)
        self._waiting: dict[int, set[int]] = {}
        """For each owner that has a size, the nests still to run that touch it."""
        for number, touched in self._touched.items():
            for owner in touched:
                if self._sizes[owner]:
                    self._waiting.setdefault(owner, set()).add(number)
        self._blocked, self._after = dependences(traffic, self._touched)
        self._height: dict[int, int] = {}
        for number in reversed(self._touched):
            self._height[number] = 1 + max((self._height[each] for each in self._after[number]), default=0)
        self._at_once = at_once
        self._since: dict[int, int] = {}
        self._ready: list[tuple[int, ...]] = []
        self._rank: dict[int, tuple[int, ...]] = {}

    def run(self) -> list[int]:
        """Return the order."""
        for number, blocked in self._blocked.items():
            if not blocked:
                self._since[number] = 0
                self._offer(number)
        order: list[int] = []
        while self._ready:
            rank = heapq.heappop(self._ready)
            number = rank[-1]
            if self._rank.get(number) != rank:  # it has changed since, or the nest has run
                continue
            del self._rank[number]
            order.append(number)
            for changed in self._run(number):
                if changed in self._rank:
                    self._offer(changed)
            for follower in self._after[number]:
                self._blocked[follower] -= 1
                if not self._blocked[follower]:
                    self._since[follower] = len(order)
                    self._offer(follower)
        return order

    def _offer(self, number: int) -> None:
        """Let a nest be chosen, by how much more memory is in use after it."""
        growth = 0
        for owner in self._touched[number]:
            size = self._sizes[owner]
            if size:
                growth += (0 if owner in self._there else size) - (size if len(self._waiting[owner]) == 1 else 0)
        since = self._since[number]
        order = (-since, self._height[number] if since else 0)
        rank = (*order, growth, number) if self._at_once else (growth, *order, number)
        if self._rank.get(number) != rank:
            self._rank[number] = rank
            heapq.heappush(self._ready, rank)

    def _run(self, number: int) -> Iterable[int]:
        """Note that a nest has run, and return those for which that makes a difference."""
        for owner in self._touched[number]:
            if not self._sizes[owner]:
                continue
            waiting = self._waiting[owner]
            waiting.discard(number)
            if owner not in self._there or len(waiting) == 1:
                self._there.add(owner)
                yield from waiting


def dependences(traffic: Traffic, numbers: Iterable[int]) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Return of how many others each nest has to come after, and which come after it."""
    after: dict[int, dict[int, None]] = {number: {} for number in numbers}
    wrote: dict[int, int] = {}
    read: dict[int, list[int]] = {}
    for number in after:
        for owner in traffic.reads[number]:
            if owner in wrote and wrote[owner] != number:
                after[wrote[owner]][number] = None
            read.setdefault(owner, []).append(number)
        for owner in traffic.writes[number]:
            for other in (*read.get(owner, ()), *([wrote[owner]] if owner in wrote else ())):
                if other != number:
                    after[other][number] = None
            wrote[owner] = number
            read[owner] = []
    for before, number in itertools.pairwise(number for number in after if number in traffic.calls):
        after[before][number] = None
    blocked = dict.fromkeys(after, 0)
    for followers in after.values():
        for number in followers:
            blocked[number] += 1
    return blocked, {number: list(followers) for number, followers in after.items()}
