"""Which values to keep and which to compute anew, so that a schedule needs no more memory than it may.

    h1 ... h64 kept      ->      h8, h16, ... h64 kept; h1 ... h7 are computed anew, from the inputs, before the first late nest reads them

Two families of choices are tried: to compute anew what costs least for its size, and to cut the early part into segments of which only
what the next one starts from is kept. Of all that fits, the choice with the least work is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from staticgrad.codegen.blocks import estimated_work
from staticgrad.codegen.memory import bytes_beside, plan
from staticgrad.codegen.recompute import Reuse, rescheduled
from staticgrad.codegen.schedule import Schedule
from staticgrad.ir.node import Value

SEGMENTS = 16
"""Sizes of segments that are tried: from all that may be dropped downwards, each smaller than the one before by `STEP`."""

STEP = 0.7

CLOSEST = 4
"""Of so many sizes of segments it is found out how few segments have to be dropped."""


@dataclass(frozen=True, eq=False)
class _Choice:
    """What is kept, the work of computing the rest anew, and the bytes that are expected to be in use."""

    saved: frozenset[Value]
    work: float
    peak: int


class Budget:
    """The search for a schedule that needs at most `limit` bytes; what is `unsaved` is not kept if it can be computed anew.

    `scratch` is what nests need while they run, beside what the memory plan of their schedule hands out.
    """

    def __init__(self, schedule: Schedule, limit: int, scratch: int = 0, unsaved: Set[Value] = frozenset()) -> None:
        self._reuse = Reuse(schedule)
        self._limit = limit
        self._scratch = scratch
        self._beside = bytes_beside(schedule) + scratch
        early = self._reuse.early
        self._kept = sorted(self._reuse.kept(unsaved), key=early.__getitem__)
        self._work = [estimated_work(nest) for nest in schedule.nests[: self._reuse.turn]]
        self._live = self._lives()
        self._choices: dict[frozenset[Value], _Choice] = {}
        self._planned: dict[frozenset[Value], tuple[Schedule, int]] = {}

    def run(self) -> tuple[Schedule | None, int]:
        """Return the schedule with the least work, None where none fits, and the bytes that it, or the smallest one found, needs."""
        schedule, needed = self._plan(self._choice(self._kept))  # in another order, all that is kept may fit
        if needed <= self._limit:
            return schedule, needed
        self._drop_cheap()
        self._drop_segments()
        choices = sorted(self._choices.values(), key=lambda choice: (choice.work, choice.peak))
        for choice in sorted(choices, key=lambda choice: choice.peak > self._limit):
            schedule, needed = self._plan(choice)
            if needed <= self._limit:
                return schedule, needed
        return None, min(needed for _, needed in self._planned.values())

    def _plan(self, choice: _Choice) -> tuple[Schedule, int]:
        if choice.saved not in self._planned:
            made = rescheduled(self._reuse, choice.saved)
            self._planned[choice.saved] = made, plan(made).peak + self._scratch
        return self._planned[choice.saved]

    def _choice(self, saved: Iterable[Value]) -> _Choice:
        """Return what it costs to keep no more than is `saved`."""
        closed = frozenset(self._reuse.closed(set(saved)))
        if closed not in self._choices:
            steps, peak = self._reuse.steps(closed)
            work = sum(self._work[step.nest] for step in steps if step.again)
            self._choices[closed] = _Choice(closed, work, peak + self._beside)
        return self._choices[closed]

    def _fewest(self, saved_with: Callable[[int], Iterable[Value]], most: int) -> None:
        """Try, from `most` drops on downwards by halves, how few are enough."""
        if self._choice(saved_with(most)).peak > self._limit:
            return
        few, enough = 0, most
        while enough - few > 1:
            middle = (few + enough) // 2
            if self._choice(saved_with(middle)).peak <= self._limit:
                enough = middle
            else:
                few = middle

    def _drop_cheap(self) -> None:
        """Try to drop the values that are the cheapest to compute, for their size, from what is kept."""
        early, repeatable = self._reuse.early, self._reuse.repeatable
        price = {v: self._work[early[v]] / max(self._reuse.size(v), 1) for v in self._kept if v in repeatable and self._reuse.size(v)}
        cheap = sorted(price, key=lambda v: (price[v], early[v]))
        self._fewest(lambda count: set(self._kept) - set(cheap[:count]), len(cheap))

    def _drop_segments(self) -> None:
        """Try to cut the early part into segments and to drop, from its beginning, all between the cuts."""
        total = sum(map(self._reuse.size, self._kept))
        sizes = dict.fromkeys(int(total * STEP**k) for k in range(SEGMENTS))
        cuts = dict.fromkeys(tuple(self._cuts(size)) for size in sizes)
        whole = {each: self._choice(self._between(each, len(each))) for each in cuts}
        closest = sorted(whole, key=lambda each: (whole[each].peak > self._limit, whole[each].work, whole[each].peak))
        for each in closest[:CLOSEST]:
            self._fewest(functools.partial(self._between, each), len(each))

    def _between(self, cuts: tuple[int, ...], count: int) -> set[Value]:
        """Return what is kept where the first `count` segments are dropped, which end at `cuts`."""
        end = cuts[count - 1] if count else 0
        crossing = set(self._kept)
        saved = {v for v in self._kept if self._reuse.early[v] >= end}
        for cut in cuts[:count]:
            saved |= self._live[cut] if cut < self._reuse.turn else set()
        return saved if count else crossing

    def _cuts(self, size: int) -> list[int]:
        """Return where segments end in which about `size` bytes would be kept: where the least is alive, towards the end of each."""
        turn = self._reuse.turn
        made = [0] * turn
        for v in self._kept:
            made[self._reuse.early[v]] += self._reuse.size(v)
        alive = [sum(map(self._reuse.size, self._live[cut])) for cut in range(turn)]
        cuts: list[int] = []
        start = total = 0
        while True:
            end, total = start, 0
            while end < turn and total + made[end] <= size:
                total += made[end]
                end += 1
            if end == turn:
                return [*cuts, turn]
            end = max(end, start + 1)
            window = range(max(start + 1, (start + end) // 2), end + 1)
            start = min(window, key=lambda cut: (alive[cut], -cut)) if end < turn else turn
            cuts.append(start)
            if start == turn:
                return cuts

    def _lives(self) -> list[set[Value]]:
        """Return, for each place between early nests, what was written before it and is read there or later by early nests."""
        turn, early = self._reuse.turn, self._reuse.early
        lives: list[set[Value]] = [set() for _ in range(turn)]
        alive: set[Value] = set()
        for number in reversed(range(turn)):
            alive |= {v for v in self._reuse.reads[number] if v in early}
            alive -= {v for v in self._reuse.writes[number] if early[v] == number}
            lives[number] = set(alive)
        return lives
