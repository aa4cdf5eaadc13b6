"""Which writes can go into the memory of what they write to: those after which nothing reads it as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from staticgrad.ir.node import Node, Value
from staticgrad.ops.movement import Reshape, Write, only_unit_axes_differ


def is_alias(value: Value) -> bool:
    """Return whether `value` is its operand's memory under another shape."""
    return isinstance(value.op, Reshape) and not only_unit_axes_differ(value.node.inputs[0].shape, value.shape)


def root_of(value: Value) -> Value:
    """Return the value that `value` is another shape of."""
    while is_alias(value):
        value = value.node.inputs[0]
    return value


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
            if isinstance(node.op, Write):
                for reader in self._of(root_of(node.inputs[0])):
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
                if is_alias(user.outputs[0]):
                    stack.append(user.outputs[0])
                else:
                    found.append(user)
        return list(dict.fromkeys(found))

    def before(self, write: Node) -> list[Node] | None:
        """Return what else reads the base of a write, None if some of it comes after."""
        readers = [reader for reader in self._of(root_of(write.inputs[0])) if reader is not write]
        for reader in readers:
            if self._position[reader] > self._position[write] or (write in self._forward and reader not in self._forward):
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
