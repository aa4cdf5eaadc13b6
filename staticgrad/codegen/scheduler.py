"""The scheduler: chooses, for one graph, what gets memory and what is computed together, before any loop exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from staticgrad.codegen.in_place import Readers, bases_of, is_alias, root_of, steps_from
from staticgrad.codegen.operands import held_by, in_rows, number_of, steps_forward
from staticgrad.codegen.schedule import (
    Item,
    Nest,
    Schedule,
    is_renamed,
    is_view,
    item_nodes,
    item_price,
    item_reads,
    items_title,
    node_title,
)
from staticgrad.ir.aval import Shape, product
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.node import Constant, Input, Node, Value, apply, at_line
from staticgrad.ops.along import Along, SearchSorted
from staticgrad.ops.control import Contiguous
from staticgrad.ops.index import Gather
from staticgrad.ops.movement import Broadcast, Concatenate, Reshape, SliceSet, View, Write
from staticgrad.ops.nested import Nested
from staticgrad.ops.reduce import Position, Reduce

MAX_INLINED = 290
"""Work of this price (scalar instructions, see `Op.cost`, and a load each) is done in one place before a value of it gets memory."""

MAX_VIEWS = 24
"""So many views of each other are read through before one of them gets memory: each is some ten calls deep in the lowering."""

MAX_NEST = 300
"""A nest takes in further items up to this total price."""

OWNERS = ("reduce", "contract", "assemble", "row", "foreign", "nested")
"""The kinds of ops whose results always have memory."""

WHOLE = {"contract": "contraction", "foreign": "foreign", "nested": "nested"}
"""The kinds of ops that are nests of their own, and what such a nest calls its node."""

KERNEL, MANY_KERNELS = 15, 16
"""From this cost on an op is a kernel; more of them than this on single numbers are calls of shared functions, not code in line."""

SIDE_BY_SIDE = 16
"""So many kernels are worth a loop of their own, in which they run many at a time."""

WORTH_SAVING = 10
"""A value that costs this much is stored rather than computed in two nests."""


class Scheduler:
    """Makes the schedule of a graph. `fuse=False` gives every operation a nest of its own (for tests and comparisons).

    `following` names inputs in whose memory an output may be made if that is what is written to them, as nobody wants them afterwards:
    what a step of a loop makes of what it carries along.
    """

    def __init__(self, graph: Graph, fuse: bool = True, following: Mapping[Value, Value] | None = None) -> None:
        self.fuse = fuse
        self.lent: dict[Value, set[Value]] = {}
        for before, after in (following or {}).items():
            steps = steps_from(before, after)
            if not steps & {v for v in graph.outputs if v is not after}:
                self.lent[before] = steps
        self.forward = set(graph.forward_nodes)
        self.outputs = self._own_outputs(graph)
        self.graph = graph
        self.readers = Readers(topological((*self.outputs,), stop=graph.inputs), self.forward)
        self.nodes, self.users = self.readers.nodes, self.readers.users
        self.required: set[Value] = set()
        self.apart: set[Value] = set()

    def _own_outputs(self, graph: Graph) -> tuple[Value, ...]:
        """Return the outputs, distinct and each with memory of its own."""
        claimed: set[Value] = set()
        made: list[Value] = []
        for output in dict.fromkeys(graph.outputs):
            base = output
            while is_alias(base) or (is_view(base) and isinstance(base.op, Reshape)):
                base = base.node.inputs[0]
            if (
                (isinstance(base.op, (Input, Constant)) and base is not output)
                or isinstance(output.op, (Input, Constant))
                or base in claimed
            ):
                with at_line(output.node.line):
                    wrapped = apply(Contiguous(), output)
                if not graph.is_backward(output):
                    self.forward.add(wrapped.node)
                made.append(wrapped)
            else:
                claimed.add(base)
                made.append(output)
        self.claimed = claimed
        return tuple(made)

    def stage_of(self, value: Value) -> str:
        """Return the stage that computes `value`."""
        return "forward" if value.node in self.forward else "backward"

    # ---- which values get memory

    def run(self) -> Schedule:
        """Return the schedule."""
        self._require()
        for _ in range(8):
            memory = self._memory()
            nests = self._group(memory)
            again = self._computed_twice(nests, memory)
            if not again:
                break
            self.required |= again
        nests = self._ordered(nests, memory)
        return Schedule(self.graph, self.outputs, nests, memory, self.fuse)

    def _require(self) -> None:
        """Collect the values that must have memory whatever the grouping."""
        for output in self.outputs:
            self._need(output)
        self._need_kernels_on_numbers()
        inlined: dict[Value, frozenset[Node]] = {}
        views: dict[Value, int] = {}
        for node in self.nodes:
            op, value = node.op, node.outputs[0]
            if op.kind in OWNERS:
                for each in node.outputs:
                    self._need(each)
            if op.kind == "contract":
                left, right = node.inputs
                self._need_strided(left, steps_forward(left))
                self._need_strided(right, steps_forward(right) and in_rows(right))
            if op.kind in ("foreign", "nested"):
                for place, operand in enumerate(node.inputs):
                    if not (isinstance(op, Nested) and place in op.starts and number_of(operand) is not None):
                        self._need(held_by(operand))
            for _, base in bases_of(node):
                self._need_base(node, base)
            if isinstance(op, Gather):
                self._need_picked(node)
            if is_alias(value) or isinstance(op, SearchSorted):
                self._need(node.inputs[0])
            if isinstance(op, Contiguous) or (not self.fuse and op.kind == "map"):
                self._need(value)
            if isinstance(op, Broadcast) and (self._repeats_work(node) or self._is_kernel_of_rows(node)):
                self._need(node.inputs[0])
            inside = frozenset().union(*(inlined.get(v, frozenset()) for v in node.inputs)) | {node}
            if op.kind not in ("map", "view") or value in self.required:
                inside = frozenset()
            views[value] = max((views.get(v, 0) for v in node.inputs), default=0) + is_view(value) if inside else 0
            if views[value] > MAX_VIEWS or (sum(n.op.cost + 1 for n in inside) > MAX_INLINED and op.kind == "map"):
                self._need(value)
                inside, views[value] = frozenset(), 0
            inlined[value] = inside

    def _need_kernels_on_numbers(self) -> None:
        """Set apart kernels on single numbers, as unrolled Python loops make them by the hundred: equal nests are emitted once."""
        kernels = [n for n in self.nodes if n.op.kind == "map" and n.op.cost >= KERNEL and n.outputs[0].aval.size == 1]
        if len(kernels) <= MANY_KERNELS:
            return
        for node in kernels:
            self.apart.add(node.outputs[0])
            for value in (*node.outputs, *node.inputs):
                while is_view(value):
                    value = value.node.inputs[0]
                self._need(value)
        # All that can run at one time side by side, so that what lies between the kernels shares nests.
        level: dict[Node, int] = {}
        for node in self.nodes:
            level[node] = max((level.get(v.node, 0) for v in node.inputs), default=0) + (node.outputs[0] in self.apart)
        self.readers.arrange(sorted(self.nodes, key=lambda node: (level[node], node.outputs[0] not in self.apart)))
        self.nodes = self.readers.nodes

    def _need(self, value: Value) -> None:
        """Give `value` memory, or the value whose memory it is a view of."""
        while is_alias(value):
            value = value.node.inputs[0]
        if not isinstance(value.op, (Input, Constant)):
            self.required.add(value)

    def _need_strided(self, value: Value, readable: bool) -> None:
        """Give memory to what a contraction reads through strides: to what it is a view of, where its kernels can read that.

        A single number stands in the source, not in memory.
        """
        source = value
        while readable and is_view(source) and isinstance(source.op, View):
            source = source.node.inputs[0]
        self._need(value if isinstance(source.op, Constant) and source.aval.size == 1 else source)

    def _need_base(self, node: Node, base: Value) -> None:
        """Give memory to the base of a write or a loop, and to the little that else reads it: then that may go into that memory."""
        root = root_of(base)
        if root.op.kind != "assemble" and root not in self.lent:
            return
        self._need(root)
        readers = self.readers.before(node, base) or []
        if 2 * sum(reader.outputs[0].aval.size for reader in readers) <= root.aval.size:
            for reader in readers:
                self._need(reader.outputs[0])

    def _repeats_work(self, node: Node) -> bool:
        """Return whether a broadcast would compute its operand anew for every turn of an outer loop."""
        op, operand = node.op, node.inputs[0]
        assert isinstance(op, Broadcast)
        kept = [axis for axis in range(len(op.shape)) if axis not in op.axes]
        outer = [axis for axis in op.axes if kept and axis < kept[-1]]
        return bool(kept) and product(op.shape[a] for a in outer) > 1 and self._is_dear(operand)

    def _is_kernel_of_rows(self, node: Node) -> bool:
        """Return whether a broadcast would have a kernel run row by row, one number at a time, not many of them side by side."""
        op, operand = node.op, node.inputs[0]
        assert isinstance(op, Broadcast)
        return len(op.shape) - 1 in op.axes and operand.aval.size >= SIDE_BY_SIDE and self._is_dear(operand, KERNEL)

    def _need_picked(self, node: Node) -> None:
        """Give memory to what index arrays would have computed several times over."""
        op, result, (x, *indices) = node.op, node.outputs[0], node.inputs
        assert isinstance(op, Gather)
        if result.aval.size > x.aval.size and self._is_dear(x):
            self._need(x)
        for index in indices:
            if op.place > op.shared and self._is_dear(index):
                self._need(index)

    def _is_dear(self, operand: Value, limit: int = WORTH_SAVING) -> bool:
        """Return whether an element of `operand` had better be computed once."""
        price, stack, seen = 0, [operand], set[Value]()
        while stack and price < limit:
            value = stack.pop()
            if value in seen or value in self.required or value.op.kind not in ("map", "view"):
                continue
            seen.add(value)
            price += value.op.cost
            stack.extend(value.node.inputs)
        return price >= limit

    def _memory(self) -> dict[Value, Value]:
        """Return, for every value that is read from memory, the value that owns it."""
        memory: dict[Value, Value] = {v: v for v in self.graph.inputs}
        for node in self.nodes:
            value = node.outputs[0]
            if isinstance(node.op, Constant):
                if value.aval.size != 1:
                    memory[value] = value
            elif is_alias(value):
                memory[value] = memory[node.inputs[0]]
            elif node.op.kind == "nested":
                memory |= {each: each for each in node.outputs}
                memory |= {made: memory[base] for made, base in bases_of(node) if self._in_place(node, made, base)}
            elif value in self.required:
                shared = any(self._in_place(node, *pair) for pair in bases_of(node))
                shared = shared or (isinstance(node.op, Reshape) and node.inputs[0].op.kind in OWNERS)
                memory[value] = memory[node.inputs[0]] if shared else value
        return memory

    def _in_place(self, node: Node, made: Value, base: Value) -> bool:
        """Return whether a write or a loop may go into the memory of its base: nobody reads that afterwards, or meanwhile."""
        root = root_of(base)
        steps = self.lent.get(root, set())
        ours = made in steps or (root in self.required and root.op.kind in ("assemble", "nested"))
        if not ours or [root_of(v) for v in node.inputs].count(root) > 1:
            return False
        if root in self.claimed or root in self.outputs or self.stage_of(root) != self.stage_of(made):
            return False
        readers = self.readers.before(node, base)
        return readers is not None and all(reader.outputs[0] in self.required for reader in readers)

    # ---- which nest computes which value

    def _items(self, value: Value, memory: dict[Value, Value]) -> Iterable[Item]:
        """Return what has to be computed to fill the memory of `value`."""
        op, node = value.op, value.node
        if isinstance(op, Reduce):
            return [Item(value, node.inputs[0], op)]
        if isinstance(op, Along):
            return [Item(value, node.inputs[0])]
        if isinstance(op, Concatenate):
            offsets = op.offsets([v.shape for v in node.inputs])
            return [
                Item(value, v, None, tuple((start if axis == op.axis else 0, 1) for axis in range(len(v.shape))))
                for v, start in zip(node.inputs, offsets, strict=True)
            ]
        if isinstance(op, Write):
            base, part, *_ = node.inputs
            copy = [] if memory[value] is not value else [Item(value, base, None, tuple((0, 1) for _ in base.shape))]
            if isinstance(op, SliceSet):
                return [*copy, Item(value, part, None, tuple(zip(op.starts, op.steps, strict=True)))]
            return [*copy, Item(value, part, scatter=node)]
        return [Item(value, value)]

    def _group(self, memory: dict[Value, Value]) -> list[Nest]:
        nests: list[Nest] = []
        place: dict[Value, int] = {}
        by_domain: dict[tuple[Shape, str, bool], list[int]] = {}
        for node in self.nodes:
            value = node.outputs[0]
            if is_renamed(value, memory):
                if node.inputs[0] in place:
                    place[value] = place[node.inputs[0]]
                continue
            if memory.get(value) is None or isinstance(node.op, (Input, Constant)):
                continue
            stage = self.stage_of(value)
            if node.op.kind in WHOLE:
                nest = Nest((), stage, reads=self._operands(node, memory))
                setattr(nest, WHOLE[node.op.kind], node)
                nests.append(nest)
                place |= dict.fromkeys(node.outputs, len(nests) - 1)
                continue
            in_place = memory[value] is not value
            if in_place:
                place[value] = place.get(node.inputs[0], -1)
            for item in self._items(value, memory):
                if not value.aval.size or (product(item.domain) == 0 and item.reduce is None):
                    place.setdefault(value, -1)
                    continue
                reads = item_reads(item, memory)
                if in_place:
                    before = self.readers.before(node, node.inputs[0]) or []
                    reads = {**reads, node.inputs[0]: False, **{reader.outputs[0]: False for reader in before}}
                price = item_price(item, reads, memory)
                # Without a loop, items run one after the other and may read what those before them wrote.
                straight = not item.domain
                earliest = max((place.get(v, -1) + (0 if pointwise or straight else 1) for v, pointwise in reads.items()), default=0)
                if isinstance(node.op, Write):
                    earliest = max(earliest, place.get(value, -1) + (0 if straight else 1))
                chosen = self._choose(nests, by_domain.get((item.domain, stage, False), ()), item, reads, price, earliest, place)
                if chosen is None:
                    nests.append(Nest(item.domain, stage))
                    chosen = len(nests) - 1
                    if not self._alone(item):
                        by_domain.setdefault((item.domain, stage, False), []).append(chosen)
                nest = nests[chosen]
                nest.items.append(item)
                nest.price += price
                for v, pointwise in reads.items():
                    nest.reads[v] = nest.reads.get(v, True) and pointwise
                place[value] = max(place.get(value, -1), chosen)
        return nests

    def _operands(self, node: Node, memory: dict[Value, Value]) -> dict[Value, bool]:
        reads: dict[Value, bool] = {}
        for operand in node.inputs:
            while operand not in memory and operand.node.inputs:
                operand = operand.node.inputs[0]
            reads |= {operand: False} if operand in memory else {}
        return reads

    def _choose(
        self,
        nests: list[Nest],
        candidates: Sequence[int],
        item: Item,
        reads: dict[Value, bool],
        price: int,
        earliest: int,
        place: dict[Value, int],
    ) -> int | None:
        """Return the latest nest that the item may join, None if it needs one of its own."""
        if isinstance(item.reduce, Position) or self._alone(item):
            return None
        for number in reversed(candidates):
            if number < earliest:
                return None
            nest = nests[number]
            if nest.price + price > MAX_NEST or any(isinstance(other.reduce, Position) for other in nest.items):
                continue
            own = {other.target: other for other in nest.items}
            inside = [v for v in reads if v in own]
            if item.domain and any(not reads[v] or own[v].reduce is not None or own[v].partial for v in inside):
                continue
            if any(place.get(v, -1) > number for v in reads):
                continue
            if not item.domain or (self.fuse and (inside or self._shares(nest, reads, item))):
                return number
        return None

    def _alone(self, item: Item) -> bool:
        """Return whether no other item may join a nest with `item`: rows are made whole, and a scatter takes its elements in order."""
        return item.target in self.apart or item.is_row or (item.scatter is not None and bool(item.domain))

    def _shares(self, nest: Nest, reads: dict[Value, bool], item: Item) -> bool:
        """Return whether joining saves anything: a common read, or the start of another small loop."""
        return not reads or any(v in nest.reads for v in reads) or product(item.domain) <= 4096

    def _computed_twice(self, nests: list[Nest], memory: dict[Value, Value]) -> set[Value]:
        """Return the values worth saving that are computed in more than one nest, at the points where their uses part."""
        if not self.fuse:
            return set()
        where: dict[Value, set[int]] = {}
        for number, nest in enumerate(nests):
            for item in nest.items:
                for node in item_nodes(item, memory):
                    where.setdefault(node.outputs[0], set()).add(number)
        found: set[Value] = set()
        price: dict[Value, int] = {}
        for node in self.nodes:
            value = node.outputs[0]
            if value not in where or value in memory:
                continue
            price[value] = min(node.op.cost + sum(price.get(v, 0) for v in node.inputs), 1000)
            computes = node.op.kind == "map" or node.op.cost >= WORTH_SAVING  # most views only map indices
            if not computes or len(where[value]) < 2 or price[value] < WORTH_SAVING:
                continue
            parting = any(where.get(user.outputs[0], set()) != where[value] for user in self.users.get(value, ()))
            if parting:
                found.add(value)
        return found

    def _ordered(self, nests: list[Nest], memory: dict[Value, Value]) -> list[Nest]:
        for nest in nests:
            nest.title = items_title(nest.items, memory) if nest.whole is None else node_title([nest.whole])
            nest.order = tuple(range(len(nest.domain)))
            for item in nest.items:
                if isinstance(item.reduce, Position):
                    nest.order = (*(a for a in nest.order if a not in item.reduced), *item.reduced)
        return [nest for stage in ("forward", "backward") for nest in nests if nest.stage == stage]


def schedule(graph: Graph, fuse: bool = True, following: Mapping[Value, Value] | None = None) -> Schedule:
    """Return the schedule of an optimised graph."""
    return Scheduler(graph, fuse, following).run()
