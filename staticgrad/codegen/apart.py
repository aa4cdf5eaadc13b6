"""Schedules whose nests have little in hand at a time, for graphs that are to need little memory.

    total = g1 + g2 + ... + g40      ->     s1 = g1 + ... + g8;  s2 = s1 + g9 + ... + g15;  ...  total = s5 + g37 + ... + g40
    zeros for a, b and c             ->     zeros for a;  zeros for b;  zeros for c

What one nest computes of many arrays is computed by several, one after the other, so that neither all that it reads nor all that it writes
has to be there at the same time. Only nests that go element by element are divided: sums are made as before, so that results keep their
bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from staticgrad.codegen.schedule import Item, Nest, Schedule, is_view, item_nodes, item_price, item_reads, items_title
from staticgrad.ir.aval import product
from staticgrad.ir.graph import topological
from staticgrad.ir.node import Value

SMALL = 64
"""A nest over so few elements stays as it is."""


def apart(schedule: Schedule, most_reads: int) -> Schedule:
    """Return the schedule with nests that read at most so many arrays where that can be."""
    memory = dict(schedule.memory)
    given = _given_memory(schedule, memory, most_reads)
    nests: list[Nest] = []
    for nest in schedule.nests:
        if _can_be_divided(nest):
            items = [part for item in nest.items for part in (*given.get(item, ()), item)]
            nests += _groups(items, memory, nest.stage, most_reads)
        else:
            nests.append(nest)
    return replace(schedule, nests=nests, memory=memory)


def _can_be_divided(nest: Nest) -> bool:
    whole = nest.whole is not None or nest.rows is not None or product(nest.domain) <= SMALL
    return not whole and all(item.reduce is None and item.scatter is None for item in nest.items)


def _given_memory(schedule: Schedule, memory: dict[Value, Value], most_reads: int) -> dict[Item, list[Item]]:
    """Give memory to values on the way to what is computed of many arrays; return the items that compute them by those that come after."""
    first: dict[Value, Item] = {}
    fixed: set[Value] = set()
    for nest in schedule.nests:
        for item in nest.items:
            for node in item_nodes(item, memory):
                first.setdefault(node.outputs[0], item)
                if not _can_be_divided(nest):
                    fixed.update(node.outputs)
    found: dict[Value, None] = {}
    for nest in schedule.nests:
        for item in nest.items if _can_be_divided(nest) else ():
            for value in _on_the_way(item, memory, fixed, most_reads):
                found[value] = None
    given: dict[Item, list[Item]] = {}
    for value in (node.outputs[0] for node in topological(found)):
        if value in found:
            given.setdefault(first[value], []).append(Item(value, value))
    return given


def _on_the_way(item: Item, memory: dict[Value, Value], fixed: set[Value], most_reads: int) -> Iterator[Value]:
    """Give memory to values of which an item is computed, and yield them, until no step reads more than so many arrays."""
    size = item.value.aval.size
    leaves: dict[Value, frozenset[Value]] = {}

    def read(value: Value) -> frozenset[Value]:
        """Return the arrays that a value is computed from, but for small ones."""
        if value in memory and value is not item.target:
            return frozenset([value] if 4 * value.aval.size >= size else [])
        return leaves.get(value, frozenset())

    for node in reversed(item_nodes(item, memory)):
        for operand in sorted(node.inputs, key=lambda v: -len(read(v))):
            while is_view(operand) and operand not in memory:
                operand = operand.node.inputs[0]
            many = len(frozenset().union(*map(read, node.inputs))) > most_reads and len(read(operand)) > 1
            if many and operand.op.kind == "map" and operand not in fixed and operand not in memory:
                memory[operand] = operand
                yield operand
        leaves[node.outputs[0]] = frozenset().union(*map(read, node.inputs))


def _groups(items: Sequence[Item], memory: dict[Value, Value], stage: str, most_reads: int) -> list[Nest]:
    """Return nests for items that one nest did in this order: each joins the last one with which it has something in common."""
    nests: list[Nest] = []
    read_in: dict[Value, int] = {}
    written_in: dict[Value, int] = {}
    for item in items:
        reads = item_reads(item, memory)
        owner = memory[item.target]
        first = max((written_in.get(memory[v], -1) + (not at_own) for v, at_own in reads.items()), default=0)
        first = max(first, read_in.get(owner, 0), written_in.get(owner, 0), 0)
        fitting = (k for k in reversed(range(first, len(nests))) if _may_join(nests[k], item, reads, most_reads))
        number = next(fitting, len(nests))
        if number == len(nests):
            nests.append(Nest(item.domain, stage, order=tuple(range(len(item.domain)))))
        nest = nests[number]
        nest.items.append(item)
        nest.price += item_price(item, reads, memory)
        for v, at_own in reads.items():
            nest.reads[v] = nest.reads.get(v, True) and at_own
            read_in[memory[v]] = max(read_in.get(memory[v], 0), number)
        written_in[owner] = max(written_in.get(owner, 0), number)
    for nest in nests:
        nest.title = items_title(nest.items, memory)
    return nests


def _may_join(nest: Nest, item: Item, reads: Collection[Value], most_reads: int) -> bool:
    """Return whether an item has so much in common with those of a nest. What is put in its place elsewhere can wait for its neighbours."""
    made = set(nest.targets)
    alike = nest.domain == item.domain and nest.items[0].partial == item.partial
    together = [v for v in dict.fromkeys((*nest.reads, *reads)) if v not in made]
    return alike and any(v in nest.reads or v in made for v in reads) and len(together) <= most_reads
