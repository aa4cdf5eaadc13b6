"""Which values to keep and which to compute anew, so that a schedule needs no more memory than it may, or keeps nothing that it must not.

What gives way when there is so much room is found in one go through the nests (`eviction`). It has a parameter of taste, and bytes that
fit may not fit at addresses; so several are made, and of those within the limit the one with the least work is taken.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Set

from staticgrad.codegen.eviction import Eviction, Outcome
from staticgrad.codegen.memory import bytes_beside, plan
from staticgrad.codegen.recompute import Reuse, rescheduled
from staticgrad.codegen.schedule import Schedule
from staticgrad.ir.node import Value

DISTANCES = (1.0, 0.7, 0.5, 0.3, 2.0)
"""Powers that are tried of the time until something is read again. The first ones do best in most graphs."""

PLANS = 12
"""So many memory plans are made at most: what fits in bytes may not fit at addresses, and is then tried again with less room."""

STEPS = 64
"""The room then becomes smaller by such a part of it at least."""

EXACT, QUICK = 1.03, 3
"""The least room is looked for up to this factor, and with so many of the powers."""


class Budget:
    """The search for a schedule that needs at most `limit` bytes; what is `unsaved` is not kept if it can be computed anew.

    `scratch` is what nests need while they run, beside what the memory plan of their schedule hands out.
    """

    def __init__(self, schedule: Schedule, limit: int, scratch: int = 0, unsaved: Set[Value] = frozenset()) -> None:
        self._limit = limit
        self._scratch = scratch
        self._beside = bytes_beside(schedule) + scratch
        self._reuse = Reuse(schedule)
        self._eviction = Eviction(self._reuse, owned_by(self._reuse, unsaved))

    def fitting(self) -> Schedule | None:
        """Return the schedule with the least work of those within the limit, None where none is found."""
        tried: list[tuple[float, int, int, Outcome]] = []

        def try_with(room: int, number: int) -> None:
            outcome = self._eviction.run(room, DISTANCES[number])
            if outcome is not None:
                heapq.heappush(tried, (outcome.work, number, room, outcome))

        if self._beside + self._eviction.least <= self._limit:
            for number in range(len(DISTANCES)):
                try_with(self._limit - self._beside, number)
        for _ in range(PLANS):
            if not tried:
                break
            _, number, room, outcome = heapq.heappop(tried)
            schedule = rescheduled(self._reuse, outcome.steps)
            excess = plan(schedule).peak + self._scratch - self._limit
            if excess <= 0:
                return schedule
            try_with(min(outcome.peak, room) - max(excess, room // STEPS), number)
        return None

    def smallest(self) -> Schedule:
        """Return a schedule that needs about as little as can be."""
        found, low = self._eviction.run(math.inf), self._eviction.least
        assert found is not None
        while found.peak > EXACT * low:
            room = int(math.sqrt(low * found.peak))
            outcomes = (self._eviction.run(room, distance) for distance in DISTANCES[:QUICK])
            fitting = next((outcome for outcome in outcomes if outcome is not None), None)
            if fitting is None:
                low = room + 1
            else:
                found = fitting
        return rescheduled(self._reuse, found.steps)


def without_saving(schedule: Schedule, unsaved: Set[Value]) -> Schedule:
    """Return the schedule in which late nests compute what is `unsaved` anew, where that can be."""
    reuse = Reuse(schedule)
    outcome = Eviction(reuse, owned_by(reuse, unsaved)).run(math.inf)
    return rescheduled(reuse, outcome.steps) if outcome is not None and outcome.work else schedule


def owned_by(reuse: Reuse, values: Set[Value]) -> set[int]:
    """Return whose memory holds `values` and nothing else that late nests read."""
    memory = reuse.schedule.memory
    others = {reuse[v] for nest in reuse.schedule.nests[reuse.turn :] for v in nest.reads if v not in values}
    return {reuse[v] for v in values if v in memory} - others
