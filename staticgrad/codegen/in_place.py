"""What can be made in the memory of what it is made from: writes, and loops of what they start from, if nothing reads that later."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence, Set

from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Node, Value
from staticgrad.ops.branches import Switch
from staticgrad.ops.movement import Reshape, Write, only_unit_axes_differ
from staticgrad.ops.nested import Nested


def is_alias(value: Value) -> bool:
    """Return whether `value` is its operand's memory under another shape."""
    return isinstance(value.op, Reshape) and not only_unit_axes_differ(value.node.inputs[0].shape, value.shape)


def root_of(value: Value) -> Value:
    """Return the value that `value` is another shape of."""
    while is_alias(value):
        value = value.node.inputs[0]
    return value


def bases_of(node: Node) -> list[tuple[Value, Value]]:
    """Return the outputs of a node that may be made in the memory of an operand, each with that.

    They are writes, what a loop carries, and what every branch makes of one operand by writes and loops, or hands on as it is.
    """
    if isinstance(node.op, Write):
        return [(node.outputs[0], node.inputs[0])]
    if isinstance(node.op, Switch):
        return [(node.outputs[j], node.inputs[k]) for j, k in _bases_of_branches(node.op)]
    if isinstance(node.op, Nested):
        return [(made, node.inputs[k]) for made, k in zip(node.outputs, node.op.starts, strict=False)]
    return []


@functools.lru_cache(1024)
def _bases_of_branches(op: Switch) -> tuple[tuple[int, int], ...]:
    """Return the numbers of outputs and of the operands that they are made of."""
    found: dict[int, int] = {}
    for j, ends in enumerate(zip(*(branch.outputs for branch in op.branches), strict=True)):
        places = {_source(v, branch) for v, branch in zip(ends, op.branches, strict=True)}
        place = places.pop()
        if not places and place is not None:
            found.setdefault(place, j)
    return tuple((j, op.own + k) for k, j in found.items())


def _source(value: Value, graph: Graph) -> int | None:
    """Return the number of the input that `value` is made of by writes and loops, None for none."""
    while value not in graph.inputs:
        base = dict(bases_of(value.node)).get(value, value.node.inputs[0] if is_alias(value) else None)
        if base is None:
            return None
        value = base
    return graph.inputs.index(value)


def steps_from(before: Value, after: Value) -> set[Value]:
    """Return what there is from `before` to `after` if that is made of it by writes and loops alone, nothing otherwise."""
    found = {after}
    while after is not before:
        known = dict(bases_of(after.node))
        if after not in known and not is_alias(after):
            return set()
        after = known[after] if after in known else after.node.inputs[0]
        found.add(after)
    return found


class Readers:
    """The nodes of a graph in an order in which whatever else reads the base of a write comes before it, wherever it can."""

    def __init__(self, nodes: Sequence[Node], forward: Set[Node]) -> None:
        self._forward = forward
        self.users: dict[Value, list[Node]] = {}
        for node in nodes:
            for value in dict.fromkeys(node.inputs):
                self.users.setdefault(value, []).append(node)
        self.arrange(nodes)

    def arrange(self, nodes: Iterable[Node]) -> None:
        """Take the nodes in this order, operands first, but for readers of the bases of writes that have to come earlier."""
        order: dict[Node, None] = {}
        members = dict.fromkeys(nodes)
        for node in members:
            for _, base in bases_of(node):
                for reader in self._of(root_of(base)):
                    order |= dict.fromkeys(_needed(reader, members, order, node))
            order[node] = None
        self.nodes = list(order)
        self._position = {node: number for number, node in enumerate(self.nodes)}

    def _of(self, root: Value) -> list[Node]:
        """Return the nodes that read `root`, under whatever shape."""
        found: list[Node] = []
        stack = [root]
        while stack:
            for user in self.users.get(stack.pop(), ()):
                if isinstance(user.op, Reshape):
                    stack.append(user.outputs[0])
                else:
                    found.append(user)
        return list(dict.fromkeys(found))

    def before(self, node: Node, base: Value) -> list[Node] | None:
        """Return what else reads the base of a write or a loop, None if some of it comes after."""
        readers = [reader for reader in self._of(root_of(base)) if reader is not node]
        for reader in readers:
            if self._position[reader] > self._position[node] or (node in self._forward and reader not in self._forward):
                return None
        return readers


def _needed(node: Node, members: dict[Node, None], done: dict[Node, None], avoided: Node) -> list[Node]:
    """Return what has to come before `node` and is not done yet, and `node` itself; nothing if `avoided` were among it."""
    found: dict[Node, None] = {}
    stack = [(node, False)]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            found[current] = None
        elif current is avoided:
            return []
        elif current in members and current not in done and current not in found:
            stack += [(current, True), *((v.node, False) for v in reversed(current.inputs))]
    return list(found)
