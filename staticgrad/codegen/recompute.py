"""Schedules in which some nests run again, for those that read them late: what runs when, and how such a schedule is written.

    forward: h1, h2, h3 | backward: g3(h3), g2(h2), g1(h1)     ->     forward: h1, h2, h3 | backward: h2, h3, g3(h3), g2(h2), g1(h1)

A nest runs again as it is, over the same blocks, so that results keep their bits. What it computes goes by the name `Again(value)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from staticgrad.codegen.memory import aligned
from staticgrad.codegen.order import Traffic
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.graph import substitution
from staticgrad.ir.node import Constant, Node, Value, apply, apply_all
from staticgrad.ops.control import Again


@dataclass(frozen=True)
class Step:
    """One nest of the schedule by number: run in its turn, or again.

    Nests that run again together, so as to make a value that they all write, are one `batch`, counted from 1; new is what is in `made`.
    What else such a nest writes is lost: it is there still, or may be the caller's by now.
    """

    nest: int
    batch: int = 0
    made: frozenset[int] = frozenset()


Name = tuple[int, int]
"""Who owns memory, and the batch that computed it anew: 0 for what was there from the first, less than 0 for what is lost."""


class Reuse:
    """What the nests of a schedule read and write, by the numbers of who owns the memory, and what can be computed anew."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._traffic = traffic = Traffic(schedule)
        self.reads, self.writes, self.sizes = traffic.reads, traffic.writes, traffic.sizes
        self.writers: list[list[int]] = [[] for _ in traffic.owners]
        self.readers: list[list[int]] = [[] for _ in traffic.owners]
        for number in range(len(schedule.nests)):
            for owner in self.writes[number]:
                self.writers[owner].append(number)
            for owner in self.reads[number]:
                self.readers[owner].append(number)
        self.operands = [[each for each in found if self.writers[each][:1] != [number]] for number, found in enumerate(self.reads)]
        """What is read and was there before: not what another item of the nest has just written."""
        stages = [nest.stage for nest in schedule.nests]
        self.turn = stages.index("backward") if "backward" in stages else traffic.peak(range(len(stages)))[1]
        """The first nest of the backward stage; in a schedule of one stage, where most memory is in use."""
        self.repeatable = [self._can_repeat(owner) for owner in range(len(traffic.owners))]

    def __getitem__(self, value: Value) -> int:
        """Return the number of who owns the memory of `value`."""
        return self._traffic.number[self.schedule.memory[value]]

    def bytes_of(self, owner: int) -> int:
        """Return the bytes that it takes to make anew what is there, even if that is in an array of the caller's."""
        return aligned(max(self._traffic.owners[owner].aval.nbytes, 1))

    def _can_repeat(self, owner: int) -> bool:
        """Return whether the nests that write it can run again.

        They have operands, all of which stay as they are, they call nothing of unknown effects, and nobody sees what is half done.
        """
        own = self.writers[owner]
        if not own or not self.sizes[owner] or any(own[0] < number < own[-1] and number not in own for number in self.readers[owner]):
            return False
        for number in own:
            writers = ((each, self.writers[each]) for each in self.reads[number])
            changed = [each for each, found in writers if found and found[-1] >= number and found != [number]]
            if number in self._traffic.calls or changed not in ([], [owner]) or (changed and len(self.writes[number]) > 1):
                return False
        return any(not isinstance(v.op, Constant) for number in own for v in self.schedule.nests[number].reads)

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


def rescheduled(reuse: Reuse, steps: Sequence[Step]) -> Schedule:
    """Return the schedule that consists of these steps."""
    return _Copying(reuse).run(steps)


class _Copying:
    """Writes a schedule anew."""

    def __init__(self, reuse: Reuse) -> None:
        self._reuse = reuse
        self._old = reuse.schedule
        self._memory = dict(self._old.memory)

    def run(self, steps: Sequence[Step]) -> Schedule:
        """Return the schedule that consists of these steps; what runs again belongs to the stage of the nest in whose turn it does."""
        nests = self._old.nests
        stages: list[str] = []
        for step in reversed(steps):
            stages.append(stages[-1] if step.batch else nests[step.nest].stage)
        made = []
        for step, stage, (reads, writes) in zip(steps, reversed(stages), self._reuse.names(steps), strict=True):
            if step.batch:
                made.append(self._again(nests[step.nest], stage, step.batch, dict(reads), dict(writes)))
            else:
                made.append(self._in_turn(nests[step.nest], dict(reads)))
        return replace(self._old, nests=made, memory=self._memory)

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

    def _in_turn(self, nest: Nest, reads: dict[int, int]) -> Nest:
        read = {v: self._name(v, reads[self._reuse[v]], reads[self._reuse[v]]) if reads[self._reuse[v]] else v for v in nest.reads}
        return nest if all(old is new for old, new in read.items()) else self._copy(nest, read, {v: v for v in nest.targets})

    def _again(self, nest: Nest, stage: str, run: int, reads: dict[int, int], writes: dict[int, int]) -> Nest:
        # Even what is read where it always was goes by a name of this run, so that no node is one that was computed before.
        read = {v: v if isinstance(v.op, Constant) else self._name(v, run, reads[self._reuse[v]]) for v in nest.reads}
        names = {v: self._name(v, writes[self._reuse[v]], writes[self._reuse[v]]) for v in nest.targets}
        return replace(self._copy(nest, read, names), stage=stage, title=f"again: {nest.title}")

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
