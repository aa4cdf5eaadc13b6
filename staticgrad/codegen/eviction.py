"""What runs when there is so much room and no more: values give way to others, and are computed anew when they are read again.

    forward: h1 ... h64 | backward: g64(h64) ... g1(h1)        with room for 12
    ->     forward: h1 ... h64, of which h8, h17, h26 ... stay | backward: h62, h63, h64, g64(h64), g63(h63) ...

The nests are gone through in their order. Where there is no room for what the next one writes, that gives way which costs least: what
takes little work to compute anew, together with what has given way before it and what would have to wait for it, for its size and for
the time until it is read again. (Dynamic tensor rematerialization [1]_ knows how long ago a value was read; a schedule knows the future.)
This needs no structure: chains, skip connections, concatenations, derivatives of derivatives are all dealt with alike.

.. [1] M. Kirisame et al., "Dynamic Tensor Rematerialization", ICLR 2021.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from staticgrad.codegen.blocks import estimated_work
from staticgrad.codegen.recompute import Reuse, Step

MOST = 4
"""It is given up when so many times the nests of the schedule run."""

STALE = 1.05
"""A cost that has grown by no more than this factor since it was estimated is as good as new."""


class Eviction:
    """What is known of a schedule before its nests are gone through. What is `unsaved` gives way once early nests have done with it."""

    def __init__(self, reuse: Reuse, unsaved: Set[int] = frozenset()) -> None:
        self.reuse = reuse
        self.work = work = list(map(estimated_work, reuse.schedule.nests))
        count = len(reuse.sizes)
        self.own = [sum(work[number] for number in reuse.writers[owner]) for owner in range(count)]
        self.parents: list[list[int]] = [[] for _ in range(count)]
        self.children: list[list[int]] = [[] for _ in range(count)]
        for owner in range(count):
            if reuse.repeatable[owner]:
                found = dict.fromkeys(p for number in reuse.writers[owner] for p in reuse.operands[number] if p != owner and reuse.sizes[p])
                self.parents[owner] = list(found)
                for parent in found:
                    self.children[parent].append(owner)
        self.touches = [sorted({*reuse.readers[owner], *reuse.writers[owner]}) for owner in range(count)]
        self.until = self._needed_until()
        touched = ({*reads, *writes} for reads, writes in zip(reuse.reads, reuse.writes, strict=True))
        self.least = max((sum(map(reuse.sizes.__getitem__, each)) for each in touched), default=0)
        """The bytes that some nest reads and writes: with less room there is no way."""
        self.unsaved = unsaved
        self.turn = reuse.turn

    def near(self, owner: int) -> Sequence[int]:
        """Return what it is computed from, and what is computed from it."""
        return (*self.parents[owner], *self.children[owner])

    def _needed_until(self) -> list[int]:
        """Return the last nest for which each value is needed, by itself or to compute others anew; -1 if for none."""
        reuse = self.reuse
        found = [touches[-1] if touches else -1 for touches in self.touches]
        born = sorted((o for o, own in enumerate(reuse.writers) if own), key=lambda o: reuse.writers[o][-1], reverse=True)
        for owner in born:
            found[owner] = max(found[owner], max((found[child] for child in self.children[owner]), default=-1))
        return found

    def run(self, room: float, distance: float = 1.0) -> Outcome | None:
        """Return what runs when workspace may take so many bytes, None where that is not enough or takes too long.

        The more the power of the `distance` is, the more it counts for giving way that something is not read again for long.
        """
        return _Pass(self, room, distance).run()


@dataclass(frozen=True)
class Outcome:
    """What runs, the work of computing anew, and the most bytes in use."""

    steps: list[Step]
    work: float
    peak: int


class _NoRoomError(Exception):
    """There is no room for what has to be there at once."""


class _Pass:
    """Goes through the nests once."""

    def __init__(self, facts: Eviction, room: float, distance: float) -> None:
        self._facts, self._room, self._distance = facts, room, distance
        self._reuse = reuse = facts.reuse
        self._repeatable = list(reuse.repeatable)
        self._there = [not size for size in reuse.sizes]
        self._away = [False] * len(reuse.sizes)
        self._locks = [0] * len(reuse.sizes)
        self._passed = [0] * len(reuse.sizes)
        """How many of its touches each value has behind it."""
        self._wanted = [math.inf] * len(reuse.sizes)
        """When what is away is needed next."""
        self._groups = _Groups(len(reuse.sizes))
        self._heap: list[tuple[float, int]] = []
        self._offered = [-1.0] * len(reuse.sizes)
        self._ends: list[list[int]] = [[] for _ in reuse.reads]
        for owner, until in enumerate(facts.until):
            if until >= 0 and reuse.sizes[owner]:
                self._ends[until].append(owner)
        self._turn = 0
        self._live = self._peak = 0
        self._steps: list[Step] = []
        self._batch = 0
        self._again = 0.0

    def run(self) -> Outcome | None:
        """Return what runs, if that can be."""
        try:
            for number in range(len(self._reuse.reads)):
                self._turn = number
                self._run_in_turn(number)
        except _NoRoomError:
            return None
        return Outcome(self._steps, self._again, self._peak)

    def _run_in_turn(self, number: int) -> None:
        """Run a nest, and before it what has to be computed anew for it."""
        reuse = self._reuse
        touched = list(dict.fromkeys((*reuse.reads[number], *reuse.writes[number])))
        here = [owner for owner in touched if self._there[owner]]
        self._lock(here, 1)
        for owner in reuse.operands[number]:
            if not self._there[owner] and reuse.writers[owner]:
                self._obtain(owner)
                self._lock([owner], 1)
                here.append(owner)
        new = [owner for owner in reuse.writes[number] if not self._there[owner]]
        self._make_room(sum(reuse.sizes[owner] for owner in new))
        self._arrive(new)
        self._steps.append(Step(number))
        self._lock(here, -1)
        for owner in touched:
            self._passed[owner] += 1
        for owner in self._ends[number]:
            self._forget(owner)
        for owner in touched:
            if owner in self._facts.unsaved and number < self._facts.turn <= self._due(owner) and self._can_go(owner):
                self._leave(owner)
            self._offer(owner)

    def _forget(self, owner: int) -> None:
        """Note that nobody needs a value any more."""
        if self._there[owner]:
            self._there[owner] = False
            self._live -= self._reuse.sizes[owner]
        elif self._away[owner]:
            self._away[owner] = False
            self._groups.remove(owner, self._facts.own[owner])

    # ---- computing anew

    def _obtain(self, wanted: int) -> None:
        """Compute a value anew, and before that those that it needs."""
        reuse = self._reuse
        stack = [wanted]
        held: list[list[int]] = [[]]
        while stack:
            owner = stack[-1]
            group = reuse.writers[owner]
            made = [
                each
                for each in dict.fromkeys(w for number in group for w in reuse.writes[number])
                if not self._there[each] and self._facts.until[each] >= self._turn and set(reuse.writers[each]) <= set(group)
            ]
            parents = list(dict.fromkeys(p for number in group for p in reuse.operands[number] if p not in made))
            missing = [p for p in parents if not self._there[p] and reuse.writers[p]]
            if missing:  # first what most has to be computed for: then the others need not be there meanwhile
                stack.append(max(missing, key=self._cost))
                held.append([])
                continue
            self._lock(parents, 1)
            lost = {w for number in group for w in reuse.writes[number]}.difference(made)
            self._make_room(sum(reuse.sizes[each] for each in made) + sum(map(reuse.bytes_of, lost)))
            self._batch += 1
            self._steps += [Step(number, self._batch, frozenset(made)) for number in group]
            self._again += sum(self._facts.work[number] for number in group)
            if len(self._steps) > MOST * len(reuse.reads):
                raise _NoRoomError
            self._arrive(made)
            self._lock(parents, -1)
            self._lock(held.pop(), -1)
            stack.pop()
            if held:
                held[-1].append(owner)
                self._lock([owner], 1)
            for each in dict.fromkeys((*made, *parents)):
                self._offer(each)

    def _lock(self, owners: Iterable[int], change: int) -> None:
        """Let values stay where they are as long as more have locked than unlocked them."""
        for owner in owners:
            self._locks[owner] += change

    def _arrive(self, owners: Iterable[int]) -> None:
        """Note that values have been computed."""
        for owner in owners:
            self._there[owner] = True
            self._live += self._reuse.sizes[owner]
            if self._away[owner]:
                self._away[owner] = False
                self._groups.remove(owner, self._facts.own[owner])
                for near in self._facts.near(owner):
                    self._offer(near)
        self._peak = max(self._peak, self._live)

    # ---- giving way

    def _make_room(self, size: int) -> None:
        """Let values give way until so many bytes are free."""
        while self._live + size > self._room:
            if not self._heap:
                raise _NoRoomError
            price, owner = heapq.heappop(self._heap)
            if self._offered[owner] != price:
                continue
            self._offered[owner] = -1.0
            if not self._can_go(owner):
                continue
            now = self._price(owner)
            if now <= price * STALE:
                self._leave(owner)
            else:
                self._offered[owner] = now
                heapq.heappush(self._heap, (now, owner))

    def _can_go(self, owner: int) -> bool:
        """Return whether a value may give way: one that cannot be computed anew only if nobody needs it, or what it made, again."""
        if not self._there[owner] or self._locks[owner] or not self._reuse.sizes[owner] or self._turn < self._reuse.writers[owner][-1]:
            return False
        if self._repeatable[owner]:
            return True
        return self._due(owner) == math.inf and not any(self._away[child] for child in self._facts.children[owner])

    def _leave(self, owner: int) -> None:
        """Let a value give way. What was made of one that is lost for good cannot be computed anew from now on."""
        facts = self._facts
        self._wanted[owner] = self._next(owner)
        self._there[owner] = False
        self._live -= self._reuse.sizes[owner]
        if self._repeatable[owner]:
            self._away[owner] = True
            self._groups.add(owner, facts.own[owner], [near for near in facts.near(owner) if self._away[near]])
        else:
            for child in facts.children[owner]:
                self._repeatable[child] = False

    def _offer(self, owner: int) -> None:
        """Note what it costs now that a value gives way, if it may."""
        if self._room < math.inf and self._can_go(owner):
            price = self._price(owner)
            if self._offered[owner] != price:
                self._offered[owner] = price
                heapq.heappush(self._heap, (price, owner))

    def _due(self, owner: int) -> float:
        """Return the next nest, in its turn, that reads or writes a value."""
        touches, passed = self._facts.touches[owner], self._passed[owner]
        return touches[passed] if passed < len(touches) else math.inf

    def _next(self, owner: int) -> float:
        """Return when a value will be read next, by a nest in its turn or to compute others anew."""
        again = (self._wanted[child] for child in self._facts.children[owner] if self._away[child])
        return min((self._due(owner), *again))

    def _cost(self, owner: int) -> float:
        """Return the work of computing a value anew, with all that is away and that it needs, or that needs it."""
        return self._facts.own[owner] + self._groups.cost([each for each in self._facts.near(owner) if self._away[each]])

    def _price(self, owner: int) -> float:
        """Return what it costs, for the room that it makes, to let a value give way; nothing if nobody is known to read it again."""
        due = self._next(owner)
        if due == math.inf:
            return 0.0
        return self._cost(owner) / (self._reuse.sizes[owner] * math.pow(max(due - self._turn, 0.5), self._distance))


class _Groups:
    """What is away, in groups that have to be computed one from the other, and what each group costs: union-find."""

    def __init__(self, count: int) -> None:
        self._member = [-1] * count
        self._over: list[int] = []
        self._costs: list[float] = []

    def _root(self, member: int) -> int:
        over = self._over
        while over[member] != member:
            over[member] = over[over[member]]
            member = over[member]
        return member

    def add(self, owner: int, cost: float, near: Iterable[int]) -> None:
        """Let a value be in one group with those near to it."""
        member = self._member[owner] = len(self._over)
        self._over.append(member)
        self._costs.append(cost)
        for root in {self._root(self._member[each]) for each in near}:
            self._over[root] = member
            self._costs[member] += self._costs[root]

    def remove(self, owner: int, cost: float) -> None:
        """Take a value out of its group, which stays one."""
        root = self._root(self._member[owner])
        self._costs[root] = max(self._costs[root] - cost, 0.0)
        self._member[owner] = -1

    def cost(self, near: Iterable[int]) -> float:
        """Return what the groups of these values cost together."""
        return sum(self._costs[root] for root in {self._root(self._member[each]) for each in near})
