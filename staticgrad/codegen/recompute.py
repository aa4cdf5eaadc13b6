"""Computing values anew instead of keeping them: a schedule in which some nests run a second time, for those that read them late.

    forward: h1, h2, h3 | backward: g3(h3), g2(h2), g1(h1)     ->     forward: h1, h2, h3 | backward: h2, h3, g3(h3), g2(h2), g1(h1)

A nest runs again as it is, over the same blocks, so that results keep their bits. What it computes goes by the name `Again(value)`.
Such nests stand right before the first nest that needs them; the late nests are put into an order in which memory is soon free again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace

from staticgrad.codegen.memory import aligned, lifetimes
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.graph import substitution
from staticgrad.ir.node import Constant, Input, Node, Value, apply, apply_all
from staticgrad.ops.control import Again
from staticgrad.ops.foreign import foreign_names


@dataclass(frozen=True)
class Step:
    """One nest of the schedule by number, run in its turn or once more."""

    nest: int
    again: bool = False


Name = tuple[Value, bool]
"""What owns memory, and whether it is computed anew."""

Touched = tuple[list[Name], list[Name]]
"""What a nest reads and what it writes."""


class _Held:
    """The memory in use: `left` says how often each is still read."""

    def __init__(self, left: Counter[Name], sizes: dict[Name, int]) -> None:
        self._left = left
        self._sizes = sizes
        self._now = sum(sizes.values())

    def growth(self, nests: Iterable[Touched], size: Callable[[Value], int]) -> int:
        """Return by how much more memory is in use after these nests."""
        written: dict[Name, int] = {}
        read: Counter[Name] = Counter()
        for reads, writes in nests:
            read.update(reads)
            written |= {name: size(name[0]) for name in writes if name not in self._sizes}
        over = [name for name in {**read, **written} if self._left[name] == read[name]]
        return sum(written.values()) - sum(self._sizes.get(name, written.get(name, 0)) for name in over)

    def run(self, nest: Touched, size: Callable[[Value], int]) -> int:
        """Return the bytes in use while a nest runs, and let go of what nobody reads any more."""
        reads, writes = nest
        for name in writes:
            if name not in self._sizes:
                self._sizes[name] = size(name[0])
                self._now += self._sizes[name]
        most = self._now
        self._left.subtract(reads)
        for name in (*reads, *writes):
            if not self._left[name]:
                self._now -= self._sizes.get(name, 0)
                self._sizes[name] = 0
        return most


class Reuse:
    """What nests of a schedule read and write: `early` ones, up to the turning point, and late ones.

    The turning point is where the backward stage begins; of a schedule of one stage, where most memory is in use.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        memory = schedule.memory
        nests = schedule.nests
        self.fixed = {memory[v] for v in schedule.outputs} | {v for v in memory if isinstance(v.op, (Input, Constant))}
        """What lies in memory that is not the workspace's."""
        self.reads = [dict.fromkeys(memory[v] for v in nest.reads) for nest in nests]
        self.writes = [dict.fromkeys(memory[v] for v in nest.targets) for nest in nests]
        self.two_stages = any(nest.stage == "backward" for nest in nests)
        self.turn = len(schedule.stage("forward")) if self.two_stages else self._highest()
        writers: dict[Value, list[int]] = {}
        for number, written in enumerate(self.writes):
            for owner in written:
                writers.setdefault(owner, []).append(number)
        self.early = {owner: numbers[0] for owner, numbers in writers.items() if numbers[0] < self.turn}
        """For what early nests write, the first that does."""
        self.repeatable = {owner for owner, number in self.early.items() if len(writers[owner]) == 1 and self._can_repeat(number, writers)}
        late = range(self.turn, len(nests))
        self.crossing = {owner for number in late for owner in self.reads[number] if owner in self.early}
        """What early nests write and late ones read."""

    def size(self, owner: Value) -> int:
        """Return the bytes of workspace that a value takes."""
        return 0 if owner in self.fixed else aligned(max(owner.aval.nbytes, 1))

    def _highest(self) -> int:
        first, last, _ = lifetimes(self.schedule)
        change = [0] * (len(self.schedule.nests) + 1)
        for owner, number in first.items():
            change[number] += self.size(owner)
            change[last[owner] + 1] -= self.size(owner)
        sums = list(itertools.accumulate(change))
        return sums.index(max(sums)) if sums else 0

    def _can_repeat(self, number: int, writers: dict[Value, list[int]]) -> bool:
        """Return whether a nest can run again: it has operands, all of them stay as they are, and it calls nothing of unknown effects."""
        nest = self.schedule.nests[number]
        stay = all(writers.get(owner, [-1])[-1] < number or writers[owner] == [number] for owner in self.reads[number])
        calls = nest.foreign is not None or (nest.nested is not None and any(map(foreign_names, nest.nested.op.subgraphs)))
        return not calls and stay and any(not isinstance(v.op, Constant) for v in nest.reads)

    def needed_again(self, saved: Set[Value], roots: Iterable[int], done: Set[int] = frozenset()) -> list[int]:
        """Return the early nests that have to run again, in order, before the nests `roots` can; those of `done` have."""
        found: set[int] = set()
        stack = list(roots)
        while stack:
            for owner in self.reads[stack.pop()]:
                number = self.early.get(owner)
                if number is not None and owner not in saved and number not in found and number not in done:
                    found.add(number)
                    stack.append(number)
        return sorted(found)

    def kept(self, unsaved: Set[Value]) -> set[Value]:
        """Return what is saved where all that is `unsaved` is computed anew if it can be, and nothing else is."""
        return self.closed(self.crossing - unsaved, unsaved)

    def closed(self, wanted: Set[Value], dropped: Set[Value] | None = None) -> set[Value]:
        """Return what has to be saved so that all that is not wanted can be computed anew, or only what is `dropped`."""
        saved = set(wanted)
        stack = list(range(self.turn, len(self.schedule.nests)))
        seen: set[int] = set(stack)
        while stack:
            for owner in self.reads[stack.pop()]:
                if owner not in self.early or owner in saved:
                    continue
                number = self.early[owner]
                if owner not in self.repeatable or (dropped is not None and owner not in dropped):
                    saved.add(owner)
                elif number not in seen:
                    seen.add(number)
                    stack.append(number)
        return saved

    def steps(self, saved: Set[Value]) -> tuple[list[Step], int]:
        """Return the late part, with what runs again in it, and the most bytes of workspace that are in use at a time in either part.

        Of the nests whose turn it can be, the one comes next after which least memory is in use.
        """
        late = range(self.turn, len(self.schedule.nests))
        left: Counter[Name] = Counter()
        for number in (*late, *self.needed_again(saved, late)):
            left.update(self._names(number, saved)[0])
        kept = {(owner, False): self.size(owner) for owner in self.early if left[owner, False]}
        most = self._early_peak({owner for owner, _ in kept})
        held = _Held(left, {} if self.two_stages else kept)
        standing = sum(kept.values()) if self.two_stages else 0
        blocked, after = self._dependences(late)
        ready = [number for number in late if not blocked[number]]
        done: set[int] = set()
        steps: list[Step] = []
        while ready:
            needs = {number: [*self.needed_again(saved, [number], done), number] for number in ready}
            growth = {number: held.growth([self._names(each, saved) for each in needs[number]], self.size) for number in ready}
            chosen = min(ready, key=lambda number: (growth[number], number))
            for each in needs[chosen]:
                most = max(most, standing + held.run(self._names(each, saved), self.size))
                steps.append(Step(each, each < self.turn))
            done.update(needs[chosen][:-1])
            ready.remove(chosen)
            for number in after[chosen]:
                blocked[number] -= 1
                if not blocked[number]:
                    ready.append(number)
        return steps, most

    def _names(self, number: int, saved: Set[Value]) -> Touched:
        """Return what a nest of the late part reads and writes, and of each whether it is what was computed anew."""
        return (
            [(owner, owner in self.early and owner not in saved) for owner in self.reads[number]],
            [(owner, number < self.turn) for owner in self.writes[number]],
        )

    def _early_peak(self, kept: Set[Value]) -> int:
        """Return the most bytes in use in the early part, where what is kept stays until its end."""
        last = {owner: number for number in range(self.turn) for owner in (*self.reads[number], *self.writes[number])}
        change = [0] * (self.turn + 1)
        standing = 0
        for owner, number in self.early.items():
            if owner in kept and self.two_stages:
                standing += self.size(owner)
                continue
            change[number] += self.size(owner)
            if owner not in kept:
                change[last[owner] + 1] -= self.size(owner)
        return standing + max(itertools.accumulate(change))

    def _dependences(self, late: range) -> tuple[dict[int, int], dict[int, list[int]]]:
        """Return of how many others each late nest has to come after, and which come after it."""
        after: dict[int, dict[int, None]] = {number: {} for number in late}
        wrote: dict[Value, int] = {}
        read: dict[Value, list[int]] = {}
        for number in late:
            for owner in self.reads[number]:
                if owner in wrote and wrote[owner] != number:
                    after[wrote[owner]][number] = None
                read.setdefault(owner, []).append(number)
            for owner in self.writes[number]:
                for other in (*read.get(owner, ()), *([wrote[owner]] if owner in wrote else ())):
                    if other != number:
                        after[other][number] = None
                wrote[owner] = number
                read[owner] = []
        blocked = dict.fromkeys(late, 0)
        for followers in after.values():
            for number in followers:
                blocked[number] += 1
        return blocked, {number: list(followers) for number, followers in after.items()}


def without_saving(schedule: Schedule, unsaved: Set[Value]) -> Schedule:
    """Return the schedule in which late nests compute what is `unsaved` anew, where that can be."""
    reuse = Reuse(schedule)
    kept = reuse.kept(unsaved)
    return schedule if kept >= reuse.crossing else rescheduled(reuse, kept)


def rescheduled(reuse: Reuse, saved: Set[Value]) -> Schedule:
    """Return the schedule in which of all that early nests write only what is `saved` is kept for late ones."""
    steps, _ = reuse.steps(saved)
    return _Copying(reuse, saved).run(steps)


class _Copying:
    """Writes the late part of a schedule anew."""

    def __init__(self, reuse: Reuse, saved: Set[Value]) -> None:
        self._reuse = reuse
        self._saved = saved
        self._old = reuse.schedule
        self._memory = dict(self._old.memory)

    def run(self, steps: Iterable[Step]) -> Schedule:
        """Return the schedule with its early part as it is, then these steps."""
        nests = self._old.nests
        late = [self._again(nests[step.nest]) if step.again else self._late(nests[step.nest]) for step in steps]
        return Schedule(self._old.graph, self._old.outputs, [*nests[: self._reuse.turn], *late], self._memory)

    def _is_anew(self, value: Value) -> bool:
        owner = self._old.memory[value]
        return owner in self._reuse.early and owner not in self._saved

    def _name(self, value: Value, times: int = 1) -> Value:
        """Return what a value is called by late nests: as what is computed anew, or what nests that run again read where it always was."""
        name = value
        for _ in range(times):
            name = apply(Again(), name, line=value.node.line)
        if name not in self._memory:
            owner = self._old.memory[value]
            moves = times > 1 or self._is_anew(value)
            self._memory[name] = (name if owner is value else self._memory[self._name(owner, times)]) if moves else owner
        return name

    def _late(self, nest: Nest) -> Nest:
        read = {v: self._name(v) if self._is_anew(v) else v for v in nest.reads}
        return nest if all(old is new for old, new in read.items()) else self._copy(nest, read, {v: v for v in nest.targets})

    def _again(self, nest: Nest) -> Nest:
        # Even what is read where it always was goes by another name, so that no node is the one that was computed before. A result
        # that is saved is not written there a second time: an array may be the caller's by now.
        read = {v: v if isinstance(v.op, Constant) else self._name(v) for v in nest.reads}
        made = self._copy(nest, read, {v: self._name(v, 1 if self._is_anew(v) else 2) for v in nest.targets})
        return replace(made, stage="backward" if self._reuse.two_stages else "forward", title=f"again: {nest.title}")

    def _copy(self, nest: Nest, read: dict[Value, Value], names: dict[Value, Value]) -> Nest:
        """Return a nest that reads other values, and whose targets are, or lie in the memory of, those that `names` gives."""
        image = {sibling: sibling for v in read for sibling in v.node.outputs} | read  # the outputs of a node go together
        if nest.whole is not None:
            node = _with_operands(nest.whole, image)
            for old, new in zip(nest.whole.outputs, node.outputs, strict=True):
                self._memory[new] = self._memory[names[old]]
            made = replace(nest, reads={read[v]: at_own for v, at_own in nest.reads.items()})
            made.contraction, made.foreign, made.nested = (each and node for each in (nest.contraction, nest.foreign, nest.nested))
            return made
        items = []
        for item in nest.items:
            old = item.target
            target = names[old]
            if item.value is old or (item.is_row and target is not old):
                target = _with_operands(old.node, image).outputs[0]
                self._memory[target] = self._memory[names[old]]
            value = target if item.value is old else _substituted(item.value, image)
            scatter = item.scatter and _with_operands(item.scatter, image, kept=2)
            items.append(replace(item, target=target, value=value, scatter=scatter))
            image[old] = target
        return replace(nest, items=items, reads={image[v]: at_own for v, at_own in nest.reads.items()})


def _substituted(value: Value, image: dict[Value, Value]) -> Value:
    return image[value] if value in image else substitution([value], image)[value]


def _with_operands(node: Node, image: dict[Value, Value], kept: int = 0) -> Node:
    """Return the node with its operands replaced, but for the first ones that are kept."""
    operands = [*node.inputs[:kept], *(_substituted(v, image) for v in node.inputs[kept:])]
    return apply_all(node.op, *operands, line=node.line)[0].node
