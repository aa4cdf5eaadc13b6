"""The schedule: which values get memory, and which loop nest computes which of them, as data. `scheduler` makes the choices.

A value without memory is computed where it is read. A *nest* is one set of loops over a domain that computes several *items*:
elementwise results, reductions, pieces of an assembled array. Forward and backward have nests of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Shape
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Constant, Input, Node, Value
from staticgrad.ops.along import Along
from staticgrad.ops.index import Scatter
from staticgrad.ops.movement import Broadcast, Reshape, only_unit_axes_differ
from staticgrad.ops.reduce import Reduce

ITEM = 4
"""The price of an item beside what it computes: a load, a store, the step of a reduction."""

LONGEST_TITLE = 114
"""A title of more characters names fewer of the user's lines."""


@dataclass(frozen=True, eq=False)
class Item:
    """One result of a nest: the elements of `value` go to the memory of `target`.

    They may be reduced, go to a `region` of the target, or where the index arrays of the node `scatter` say.
    """

    target: Value
    value: Value
    reduce: Reduce | None = None
    region: tuple[tuple[int, int], ...] | None = None
    scatter: Node | None = None

    @property
    def partial(self) -> bool:
        """Whether it writes a part of its target, at an index other than that of the value."""
        return self.region is not None or self.scatter is not None or self.is_row

    @property
    def is_row(self) -> bool:
        """Whether the target is what an operation on rows makes of `value`."""
        return isinstance(self.target.op, Along)

    @property
    def indices(self) -> tuple[Value, ...]:
        """The index arrays that say where it writes."""
        return self.scatter.inputs[2:] if self.scatter is not None else ()

    @property
    def others(self) -> tuple[Value, ...]:
        """What it reads beside its value: index arrays, and the further operands of an operation on rows."""
        return self.target.node.inputs[1:] if self.is_row else self.indices

    @property
    def domain(self) -> Shape:
        """The shape that the nest loops over: that of the value without axes of length 1."""
        return tuple(extent for extent in self.value.shape if extent != 1)

    @property
    def reduced(self) -> tuple[int, ...]:
        """The axes of the domain that are reduced."""
        return self._of_domain(self.reduce.axes if self.reduce is not None else ())

    @property
    def in_order(self) -> tuple[int, ...]:
        """The axes of the domain along which one element comes after the other: reduced ones, rows, and those of index arrays."""
        if isinstance(self.target.op, Along):
            return self._of_domain((self.target.op.axis,))
        if self.scatter is None:
            return self.reduced
        assert isinstance(self.scatter.op, Scatter)
        return self._of_domain(self.scatter.op.own_axes(self.indices[0].aval))

    def _of_domain(self, axes: Iterable[int]) -> tuple[int, ...]:
        long = [axis for axis, extent in enumerate(self.value.shape) if extent != 1]
        return tuple(long.index(axis) for axis in axes if axis in long)

    @property
    def part(self) -> int:
        """The elements from the result of one block to that of the next: whole cache lines, so that no two threads share one."""
        return -(-self.target.aval.size // 64) * 64


@dataclass(frozen=True)
class Blocks:
    """A loop in blocks that any thread may run: `count` of `size` iterations, of which the last takes what is left over as well.

    `axes` are those of the domain that the loop runs over; of a contraction, the label of the rows or columns.
    """

    axes: tuple[int, ...]
    count: int
    size: int

    def __str__(self) -> str:
        return f"{self.count} blocks of {self.size}"


@dataclass(eq=False)
class Nest:
    """Loops over `domain`; or one contraction, one call of a foreign function, or one op with sub-graphs."""

    domain: Shape
    stage: str
    items: list[Item] = field(default_factory=list)
    contraction: Node | None = None
    foreign: Node | None = None
    nested: Node | None = None
    price: int = 0
    reads: dict[Value, bool] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    blocks: Blocks | None = None
    title: str = ""
    """For the reader: what is computed, and for which lines of the user's."""

    @property
    def rows(self) -> Item | None:
        """The one item of a nest of rows."""
        return self.items[0] if self.items and self.items[0].is_row else None

    @property
    def whole(self) -> Node | None:
        """The one node of a nest that is no loop over items."""
        return self.contraction or self.foreign or self.nested

    @property
    def targets(self) -> tuple[Value, ...]:
        """What the nest writes."""
        if self.whole is not None:
            return self.whole.outputs
        return tuple(item.target for item in self.items)

    @property
    def partial_items(self) -> tuple[Item, ...]:
        """The reductions of which each block makes a part."""
        axes = set(self.blocks.axes) if self.blocks is not None else set()
        return tuple(item for item in self.items if axes & set(item.reduced))


@dataclass(eq=False)
class Schedule:
    """All choices for one graph. `memory` maps a value to the one whose memory it shares (itself if it has its own)."""

    graph: Graph
    outputs: tuple[Value, ...]
    nests: list[Nest]
    memory: dict[Value, Value]
    fused: bool = True
    """Whether operations may share nests, those inside of branches and loops as well."""

    def stage(self, stage: str) -> list[Nest]:
        """Return the nests of `forward` or `backward`."""
        return [nest for nest in self.nests if nest.stage == stage]

    def storage(self, value: Value) -> Value | None:
        """Return the value whose memory holds `value`, None if it has none."""
        return self.memory.get(value)

    def __str__(self) -> str:
        lines = []
        for stage in ("forward", "backward"):
            for number, nest in enumerate(self.stage(stage)):
                shape = "x".join(map(str, nest.domain)) or "scalar"
                blocks = f" in {nest.blocks}" if nest.blocks is not None else ""
                lines.append(f"{stage} nest {number}: {shape}{blocks}: {nest.title}")
        return "\n".join(lines)


def node_title(nodes: Sequence[Node]) -> str:
    """Return, for the reader, what `nodes` compute, and for which lines of the user's."""
    shown = [node for node in nodes if not isinstance(node.op, (Constant, Input, Broadcast, Reshape))]
    names = [node.op.name for node in shown]
    text = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    lines = list(dict.fromkeys(str(node.line) for node in shown if node.line))
    shown_lines = next((k for k in (3, 2) if len(", ".join((text, *lines[:k]))) <= LONGEST_TITLE), 1)
    return text + (f"  ({', '.join(lines[:shown_lines])}{', ...' if len(lines) > shown_lines else ''})" if lines else "")


def is_view(value: Value) -> bool:
    """Return whether `value` is an index transformation of its first operand."""
    op = value.op
    return op.kind == "view" or (isinstance(op, Reshape) and only_unit_axes_differ(value.node.inputs[0].shape, value.shape))


def is_renamed(value: Value, memory: dict[Value, Value]) -> bool:
    """Return whether `value` is read from its operand's memory under another shape."""
    return isinstance(value.op, Reshape) and memory.get(value, value) is not value


def item_nodes(item: Item, memory: dict[Value, Value]) -> list[Node]:
    """Return the nodes that are computed inside the item's nest, the last one first."""
    found: list[Node] = []
    seen: set[Value] = set()
    stack = [item.value, *item.others]
    while stack:
        value = stack.pop()
        if value in seen or (value in memory and value is not item.target) or value.op.kind not in ("map", "view", "alias"):
            continue
        seen.add(value)
        found.append(value.node)
        stack.extend(value.node.inputs)
    return found


def items_title(items: Iterable[Item], memory: dict[Value, Value]) -> str:
    """Return, for the reader, what is computed for `items`, and for which lines of the user's."""
    nodes: dict[Node, None] = {}
    for item in items:
        nodes |= dict.fromkeys([*reversed(item_nodes(item, memory)), item.target.node])
    return node_title(list(nodes))


def item_reads(item: Item, memory: dict[Value, Value]) -> dict[Value, bool]:
    """Return the values with memory that the item reads, and whether it reads them only at its own index."""
    reads: dict[Value, bool] = {}
    seen: set[tuple[Value, bool]] = set()
    stack = [(item.value, not item.is_row), *((other, False) for other in item.others)]
    while stack:
        value, pointwise = stack.pop()
        if (value, pointwise) in seen:
            continue
        seen.add((value, pointwise))
        if value in memory and (value is not item.target):
            reads[value] = reads.get(value, True) and pointwise and not is_renamed(value, memory)
            continue
        if value.op.kind == "map":
            stack.extend((v, pointwise) for v in value.node.inputs)
        elif is_view(value):
            stack.extend((v, pointwise and isinstance(value.op, Reshape)) for v in value.node.inputs)
        elif not isinstance(value.op, (Constant, Input)):
            raise VerificationError(f"schedule: {value!r} is read but has no memory")
    return reads


def item_price(item: Item, reads: Collection[Value], memory: dict[Value, Value]) -> int:
    """Return the price of an item that reads so many arrays."""
    return ITEM + len(reads) + sum(node.op.cost for node in item_nodes(item, memory))


def can_replace(schedule: Schedule, new: Value, old: Value, item_by_item: bool = False) -> bool:
    """Return whether `new` may be written where the input `old` is: what computes it, element by element, is the last that reads that.

    `item_by_item` says that the items of a nest may be done in another order than theirs.
    """
    if new.shape != old.shape or new.dtype != old.dtype or schedule.memory.get(new) is not new:
        return False

    def reads_old(values: Iterable[Value]) -> bool:
        return any(schedule.memory.get(v) is old for v in values)

    found = False
    for nest in schedule.nests:
        if found and reads_old(nest.reads):
            return False
        if new not in nest.targets:
            continue
        if found or nest.whole is not None or any(v is not old or not at_own for v, at_own in nest.reads.items() if reads_old([v])):
            return False
        found = True
        numbers = [k for k, item in enumerate(nest.items) if item.target is new]
        item = nest.items[numbers[0]]
        if len(numbers) > 1 or item.reduce is not None or item.partial or item.value is not new:
            return False
        others = nest.items if item_by_item else nest.items[numbers[0] + 1 :]
        if any(each is not item and reads_old(item_reads(each, schedule.memory)) for each in others):
            return False
    return found
