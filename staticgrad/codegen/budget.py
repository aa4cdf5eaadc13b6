"""Which values to keep and which to compute anew, so that a schedule needs no more memory than it may.

    h1 ... h64 kept     ->     h11, h21, h30 ... h64 kept; the late nest that reads h29 has h22 ... h29 computed anew before it, and so on

What the early part makes is kept only where it is cut, and after the last cut, so that all of it fits into some room. When a late nest
needs what was not kept, the nests between the cuts run again, and what they make is dealt with in the same way, in the room that is left
by then: so there are cuts within cuts where there is little room (binomial checkpointing [1]_). Before that, what is cheap to compute
anew for its size may be given up altogether. Of all that fits, the choice with the least work is taken.

.. [1] A. Griewank, A. Walther, "Algorithm 799: revolve", ACM Transactions on Mathematical Software 26 (2000).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from staticgrad.codegen.blocks import estimated_work
from staticgrad.codegen.memory import bytes_beside, plan
from staticgrad.codegen.recompute import Reuse, Step, owned_by, rescheduled
from staticgrad.codegen.schedule import Schedule
from staticgrad.ir.node import Value

ROOMS, STEP = 24, 0.9
"""So many rooms are tried, from what is left beside what has to be there downwards, each smaller than the one before by a factor."""

SMALLEST, LARGE_STEP = 12, 0.7
"""The same where nothing fits, from all that would be kept downwards, to learn how much memory is enough."""

CHEAP = (0.0, 0.5, 1.0)
"""Parts of the bytes that would be kept of which the cheapest to compute anew are given up from the first."""

MOST = 4
"""A choice is given up when so many times the nests of the schedule run."""


@dataclass(frozen=True, eq=False)
class _Choice:
    """What runs in the late part, the work of computing anew, and the bytes that are expected to be in use."""

    steps: list[Step]
    work: float
    peak: int


class Budget:
    """The search for a schedule that needs at most `limit` bytes; what is `unsaved` is not kept if it can be computed anew.

    `scratch` is what nests need while they run, beside what the memory plan of their schedule hands out. See `Reuse` for `at_highest`.
    """

    def __init__(
        self, schedule: Schedule, limit: int, scratch: int = 0, unsaved: Set[Value] = frozenset(), at_highest: bool = False
    ) -> None:
        self._reuse = reuse = Reuse(schedule, at_highest)
        self._limit = limit
        self._scratch = scratch
        self._beside = bytes_beside(schedule) + scratch
        kept = reuse.kept(owned_by(reuse, unsaved)) if unsaved else reuse.crossing
        self._kept = sorted(kept, key=lambda owner: reuse.early[owner])
        self._work = [estimated_work(nest) for nest in schedule.nests[: reuse.turn]]
        self._planned: dict[_Choice, tuple[Schedule, int]] = {}

    def run(self) -> tuple[Schedule | None, int]:
        """Return the schedule with the least work, None where none fits, and the bytes that it, or the smallest one found, needs."""
        total = self._bytes(self._kept)
        wanted = [self._dear(part, total) for part in CHEAP]
        room = min(self._limit - self._beside, total)
        found = [choice for each in wanted if (choice := self._fastest(each, room)) is not None]
        if found:
            return self._plan(min(found, key=lambda choice: choice.work))
        smallest = [self._plan(choice) for each in wanted if (choice := self._smallest(each, total)) is not None]
        schedule, needed = min(smallest, key=lambda planned: planned[1], default=(None, self._limit + 1))
        return schedule if needed <= self._limit else None, needed

    def _fastest(self, wanted: Set[int], room: int) -> _Choice | None:
        """Return the choice with the largest room, up to this one, that is within the limit; None where none is found."""
        fitting: _Choice | None = None
        misses, step = -1, 1  # the number of the smallest room known not to do
        while misses + step < ROOMS and fitting is None and room > 0:
            choice = self._choice(wanted, int(room * STEP ** (misses + step)))
            if choice is None:
                return None
            if self._fits(choice):
                fitting = choice
            else:
                misses += step
                step *= 2
        while fitting is not None and step > 1:
            step //= 2
            choice = self._choice(wanted, int(room * STEP ** (misses + step)))
            if choice is not None and self._fits(choice):
                fitting = choice
            else:
                misses += step
        return fitting

    def _smallest(self, wanted: Set[int], room: int) -> _Choice | None:
        """Return the choice, for rooms up to this one, that needs the least memory; None where all take too long."""
        found: _Choice | None = None
        for k in range(SMALLEST):
            choice = self._choice(wanted, int(room * LARGE_STEP**k))
            if choice is None:
                break
            if found is None or choice.peak < found.peak:
                found = choice
        return found

    def _fits(self, choice: _Choice) -> bool:
        return choice.peak <= self._limit and self._plan(choice)[1] <= self._limit

    def _plan(self, choice: _Choice) -> tuple[Schedule, int]:
        if choice not in self._planned:
            made = rescheduled(self._reuse, choice.steps)
            self._planned[choice] = made, plan(made).peak + self._scratch
        return self._planned[choice]

    def _bytes(self, owners: Sequence[int] | Set[int]) -> int:
        return sum(map(self._reuse.sizes.__getitem__, owners))

    def _dear(self, part: float, total: int) -> set[int]:
        """Return what would be kept but for the values that are the cheapest to compute, for their size: so great a part of all bytes."""
        reuse = self._reuse
        cheap = [owner for owner in self._kept if owner in reuse.repeatable and reuse.sizes[owner]]
        price = {owner: sum(self._work[number] for number in reuse.early[owner]) / reuse.sizes[owner] for owner in cheap}
        left, wanted = part * total, set(self._kept)
        for owner in sorted(cheap, key=lambda each: (price[each], each)):
            left -= reuse.sizes[owner]
            if left < 0:
                break
            wanted.discard(owner)
        return wanted

    def _choice(self, wanted: Set[int], room: int) -> _Choice | None:
        """Return what it costs to keep of what is `wanted` only what fits into the room."""
        reuse = self._reuse
        saved = reuse.closed(self._fitting(range(reuse.turn), wanted, room))
        held = sorted(saved, key=lambda owner: reuse.needed_until[owner])
        standing, passed = self._bytes(saved), 0
        anew: dict[int, int] = {}

        def retain(again: Sequence[int], number: int) -> Set[int]:
            nonlocal standing, passed
            while passed < len(held) and reuse.needed_until[held[passed]] < number:
                standing -= reuse.sizes[held[passed]]
                passed += 1
            for owner in [each for each in anew if reuse.needed_until[each] < number]:
                del anew[owner]
            made = {owner for each in again for owner in reuse.writes[each] if owner not in saved and reuse.needed_until[owner] >= number}
            fitting = self._fitting(again, made, room - standing - sum(anew.values())) & made
            anew.update((owner, reuse.sizes[owner]) for owner in fitting)
            return fitting

        steps = reuse.steps(saved, retain, MOST * len(reuse.reads))
        if steps is None:
            return None
        work = sum(self._work[step.nest] for step in steps if step.batch)
        return _Choice(steps, work, reuse.peak(steps) + self._beside)

    def _fitting(self, nests: Sequence[int], wanted: Set[int], room: int) -> set[int]:
        """Return what to keep of what these early nests make, so that it fits: what is alive at some cuts, and all after the last one."""
        reuse = self._reuse
        made = [[owner for owner in reuse.writes[number] if reuse.early[owner][-1] == number] for number in nests]
        gain = [self._bytes([owner for owner in owners if owner in wanted]) for owners in made]
        left = sum(gain)
        if left <= room:
            return {owner for owners in made for owner in owners if owner in wanted}
        lives = self._lives(nests, made)
        change = [0] * (len(nests) + 1)
        for owner, (born, last) in lives.items():
            change[born + 1] += reuse.sizes[owner]
            change[last + 1] -= reuse.sizes[owner]
        cost = list(itertools.accumulate(change))[:-1]
        between = sorted(each for each, some in zip(cost, gain, strict=True) if some and each)
        unit = between[len(between) // 2] if between else 1
        levels = next((k for k in range(1, 7) if _capacity(room / unit, k) * unit >= left), 7)
        found: set[int] = set()
        start = standing = 0
        while left > room - standing:
            most, end, total = _capacity((room - standing) / unit, levels - 1) * unit, start, 0
            while end < len(nests) and (total + gain[end] <= most or end == start):
                total += gain[end]
                end += 1
            if end == len(nests):
                break
            window = range(max(start + 1, (start + end) // 2), end + 1)
            cut = min(window, key=lambda place: (cost[place], -place))
            rest = left - sum(gain[start:cut])
            for place in range(cut - 1, start, -1):  # no more than it takes for the rest to fit
                if rest + gain[place] + standing + cost[place] > room:
                    break
                rest += gain[place]
                cut = place
            with_cut = found | {owner for owner, (born, last) in lives.items() if born < cut <= last}
            standing = self._bytes(with_cut)
            if standing >= room:
                break
            left, start, found = rest, cut, with_cut
        if left <= room - standing:
            found |= {owner for owners in made[start:] for owner in owners if owner in wanted}
        return found

    def _lives(self, nests: Sequence[int], made: Sequence[Sequence[int]]) -> dict[int, tuple[int, int]]:
        """Return, for what these nests make and read, between which of their places it is alive: after the first, up to the last."""
        born = {owner: place for place, owners in enumerate(made) for owner in owners}
        last = {owner: place for place, number in enumerate(nests) for owner in self._reuse.reads[number] if owner in born}
        return {owner: (born[owner], place) for owner, place in last.items() if place > born[owner]}


def _capacity(units: float, levels: int) -> float:
    """Return how many values can be got at in reverse order with memory for `units` of them, each computed `levels` times at most."""
    return math.prod((units + k) / (k + 1) for k in range(levels)) if units > 0 else 0.0
