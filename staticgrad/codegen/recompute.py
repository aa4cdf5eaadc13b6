"""Computing values anew instead of keeping them: a schedule in which some nests run again, for those that read them late.

    forward: h1, h2, h3 | backward: g3(h3), g2(h2), g1(h1)     ->     forward: h1, h2, h3 | backward: h2, h3, g3(h3), g2(h2), g1(h1)

A nest runs again as it is, over the same blocks, so that results keep their bits. What it computes goes by the name `Again(value)`.
Such nests stand right before the first nest that needs them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from staticgrad.codegen.order import Traffic
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.graph import substitution
from staticgrad.ir.node import Constant, Node, Value, apply, apply_all
from staticgrad.ops.control import Again


@dataclass(frozen=True)
class Step:
    """One nest of the schedule by number: run in its turn, or again.

    Nests that run again for the same reader are one `batch`, counted from 1, and make new what is in `made`. What else such a nest
    writes is lost: it may be the caller's by now.
    """

    nest: int
    batch: int = 0
    made: frozenset[int] = frozenset()


Name = tuple[int, int]
"""Who owns memory, and the batch that computed it anew: 0 for what was there from the first, less than 0 for what is lost."""

Retain = Callable[[Sequence[int], int], Set[int]]
"""Of what these nests, run again before that late one, have made: what stays until it is read again."""


class Reuse:
    """What nests of a schedule read and write: `early` ones, up to the turning point, and late ones.

    The turning point is where the backward stage begins, or, `at_highest` and in a schedule of one stage, where most memory is in use.
    """

    def __init__(self, schedule: Schedule, at_highest: bool = False) -> None:
        self.schedule = schedule
        self._traffic = traffic = Traffic(schedule)
        self.reads, self.writes, self.sizes = traffic.reads, traffic.writes, traffic.sizes
        self.two_stages = any(nest.stage == "backward" for nest in schedule.nests)
        numbers = range(len(schedule.nests))
        self._forward = len(schedule.stage("forward")) if self.two_stages else 0
        self.turn = max(self._forward, traffic.peak(numbers)[1]) if at_highest or not self.two_stages else self._forward
        writers: dict[int, list[int]] = {}
        self._readers: dict[int, list[int]] = {}
        for number in numbers:
            for owner in self.writes[number]:
                writers.setdefault(owner, []).append(number)
            for owner in self.reads[number]:
                self._readers.setdefault(owner, []).append(number)
        self.early = {owner: found for owner, found in writers.items() if found[0] < self.turn}
        """For what early nests write, all that write it."""
        self.repeatable = {owner for owner in self.early if self._can_repeat(owner, writers)}
        self.crossing = {owner for number in numbers[self.turn :] for owner in self.reads[number] if owner in self.early}
        """What early nests write and late ones read."""
        self.needed_until = self._needs()

    def __getitem__(self, value: Value) -> int:
        """Return the number of who owns the memory of `value`."""
        return self._traffic.number[self.schedule.memory[value]]

    def _can_repeat(self, owner: int, writers: dict[int, list[int]]) -> bool:
        """Return whether the nests that write it can run again.

        They have operands, all of which stay as they are, they call nothing of unknown effects, and nobody sees what is half done.
        """
        own = writers[owner]
        if own[-1] >= self.turn or any(own[0] < number < own[-1] and number not in own for number in self._readers.get(owner, ())):
            return False
        for number in own:
            changed = [each for each in self.reads[number] if writers.get(each, [-1])[-1] >= number and writers[each] != [number]]
            if number in self._traffic.calls or changed not in ([], [owner]) or (changed and len(self.writes[number]) > 1):
                return False
        return any(not isinstance(v.op, Constant) for number in own for v in self.schedule.nests[number].reads)

    def _needs(self) -> dict[int, int]:
        """Return the last late nest for which each early value is needed, by itself or to compute others anew; -1 if for none."""
        found: dict[int, int] = {}
        for owner in sorted(self.early, key=lambda each: self.early[each][-1], reverse=True):
            after = -1
            for number in self._readers.get(owner, ()):
                reader = number if number >= self.turn else max((found.get(each, -1) for each in self.writes[number]), default=-1)
                after = max(after, reader)
            found[owner] = after
        return found

    def needed_again(self, there: Set[int], root: int) -> list[int]:
        """Return the early nests that have to run again, in order, before the nest `root` can, where only so much is there."""
        found: set[int] = set()
        stack = [root]
        while stack:
            for owner in self.reads[stack.pop()]:
                if owner in there or owner not in self.early:
                    continue
                for number in self.early[owner]:
                    if number not in found:
                        found.add(number)
                        stack.append(number)
        return sorted(found)

    def kept(self, unsaved: Set[int]) -> set[int]:
        """Return what is saved where all that is `unsaved` is computed anew if it can be, and nothing else is."""
        return self.closed(self.crossing - unsaved, unsaved)

    def closed(self, wanted: Set[int], dropped: Set[int] | None = None) -> set[int]:
        """Return what has to be saved so that all that is not wanted can be computed anew, or only what is `dropped`."""
        saved = set(wanted)
        stack = list(range(self.turn, len(self.schedule.nests)))
        seen: set[int] = set(stack)
        while stack:
            for owner in self.reads[stack.pop()]:
                if owner not in self.early or owner in saved:
                    continue
                if owner not in self.repeatable or (dropped is not None and owner not in dropped):
                    saved.add(owner)
                    continue
                for number in self.early[owner]:
                    if number not in seen:
                        seen.add(number)
                        stack.append(number)
        return saved

    def steps(self, saved: Set[int], retain: Retain | None = None, most: int | None = None) -> list[Step] | None:
        """Return the late part, with what runs again in it right before it is first needed.

        What has been computed anew stays, or what `retain` says, and else is computed once more. None if more than `most` nests run.
        """
        there = set(saved)
        steps: list[Step] = []
        batches = itertools.count(1)
        for number in range(self.turn, len(self.schedule.nests)):
            again = self.needed_again(there, number)
            if again:
                batch, own = next(batches), set(again)
                made = frozenset(each for k in again for each in self.writes[k] if each not in there and own.issuperset(self.early[each]))
                steps += [Step(each, batch, made) for each in again]
                there |= made if retain is None else retain(again, number) & made
            steps.append(Step(number))
            if most is not None and len(steps) > most:
                return None
        return steps

    def names(self, steps: Iterable[Step]) -> Iterable[tuple[list[Name], list[Name]]]:
        """Yield what each step reads and what it writes."""
        newest: dict[int, int] = {}
        for step in steps:
            reads = [(owner, newest.get(owner, 0)) for owner in self.reads[step.nest]]
            writes = []
            for owner in self.writes[step.nest]:
                if owner in step.made:
                    newest[owner] = step.batch
                writes.append((owner, step.batch if owner in step.made else -step.batch))
            if step.batch:  # the nests that write a value together may read it as well
                reads = [(owner, step.batch if owner in step.made else batch) for owner, batch in reads]
            yield reads, writes

    def peak(self, steps: Iterable[Step]) -> int:
        """Return the most bytes of workspace that are in use at a time, in the early part or in these steps."""
        first: dict[Name, int] = {}
        last: dict[Name, int] = {}
        place = -1
        for place, (reads, writes) in enumerate(self.names(steps)):
            for name in (*reads, *writes):
                first.setdefault(name, place)
                last[name] = place
        kept = {owner for owner, batch in first if not batch and owner in self.early}
        change = [0] * (place + 2)
        for name, at in first.items():
            change[0 if name[0] in kept and not name[1] else at] += self.sizes[name[0]]
            change[last[name] + 1] -= self.sizes[name[0]]
        before = range(self._forward, self.turn)
        saved = {owner for owner in kept.union(*(self.reads[k] for k in before)) if self.early.get(owner, [self.turn])[0] < self._forward}
        early, _ = self._traffic.peak(range(self.turn), saved, kept)
        return max(early, *itertools.accumulate(change))


def without_saving(schedule: Schedule, unsaved: Set[Value]) -> Schedule:
    """Return the schedule in which late nests compute what is `unsaved` anew, where that can be."""
    reuse = Reuse(schedule)
    dropped = owned_by(reuse, unsaved)
    kept = reuse.kept(dropped)
    return schedule if kept >= reuse.crossing else rescheduled(reuse, reuse.steps(kept) or [])


def owned_by(reuse: Reuse, values: Set[Value]) -> set[int]:
    """Return whose memory holds `values` and nothing else that late nests read."""
    memory = reuse.schedule.memory
    others = {reuse[v] for nest in reuse.schedule.nests[reuse.turn :] for v in nest.reads if v not in values}
    return {reuse[v] for v in values if v in memory} - others


def rescheduled(reuse: Reuse, steps: Sequence[Step]) -> Schedule:
    """Return the schedule with its early part as it is, then these steps."""
    return _Copying(reuse).run(steps)


class _Copying:
    """Writes the late part of a schedule anew."""

    def __init__(self, reuse: Reuse) -> None:
        self._reuse = reuse
        self._old = reuse.schedule
        self._memory = dict(self._old.memory)

    def run(self, steps: Sequence[Step]) -> Schedule:
        """Return the schedule with its early part as it is, then these steps."""
        nests = self._old.nests
        late = []
        for step, (reads, writes) in zip(steps, self._reuse.names(steps), strict=True):
            copied = self._again if step.batch else self._late
            late.append(copied(nests[step.nest], step.batch, dict(reads), dict(writes)))
        return replace(self._old, nests=[*nests[: self._reuse.turn], *late], memory=self._memory)

    def _name(self, value: Value, run: int, batch: int) -> Value:
        """Return what a value is called in the `run`-th batch: what lies in the memory that a batch has computed."""
        name = apply(Again(run), value, line=value.node.line)
        if name not in self._memory:
            owner = self._old.memory[value]
            if not batch:
                self._memory[name] = owner
            elif owner is value and run == batch:
                self._memory[name] = name
            else:
                self._memory[name] = self._memory[self._name(owner, batch, batch)]
        return name

    def _late(self, nest: Nest, _: int, reads: dict[int, int], writes: dict[int, int]) -> Nest:
        read = {v: self._name(v, reads[self._reuse[v]], reads[self._reuse[v]]) if reads[self._reuse[v]] else v for v in nest.reads}
        return nest if all(old is new for old, new in read.items()) else self._copy(nest, read, {v: v for v in nest.targets})

    def _again(self, nest: Nest, run: int, reads: dict[int, int], writes: dict[int, int]) -> Nest:
        # Even what is read where it always was goes by a name of this run, so that no node is one that was computed before.
        read = {v: v if isinstance(v.op, Constant) else self._name(v, run, reads[self._reuse[v]]) for v in nest.reads}
        names = {v: self._name(v, writes[self._reuse[v]], writes[self._reuse[v]]) for v in nest.targets}
        made = self._copy(nest, read, names)
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
