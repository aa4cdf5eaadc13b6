"""From a nest of the schedule to a function of the loop IR, for CPUs.

Reductions along the innermost loops keep `W` partial results, one a lane, merged in a fixed tree; reductions along outer loops
accumulate in memory. Long sums are blocked, so that rounding errors grow with the square root of the blocks, not of the elements.
A nest that several threads may run becomes a function of the number of a block; reductions over the divided loop leave their states
in the workspace, and a second function merges them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from staticgrad.codegen.axes import counts_places, loop_axes, own_targets, target_index, write
from staticgrad.codegen.elements import Position, Reader, expanded
from staticgrad.codegen.schedule import Item, Nest, Schedule, item_nodes
from staticgrad.ir.aval import INT64, product
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.loops import Block, Buffer, Function, Space, Variable
from staticgrad.ir.node import Value
from staticgrad.ops.reduce import Reduce, State, Sum

BLOCK_OF_LANES = 64
"""So many elements a lane are added up before the lane's total takes them in."""

SHORTEST_ROW, DEAR = 4, 12
"""Elements of shorter rows, and those that cost less, are computed and reduced one by one."""


@dataclass
class Accumulator:
    """The state of one reduction in registers or a small array, living inside the first `level` loops."""

    item: Item
    reduce: Reduce
    level: int
    in_memory: bool
    lanes: int = 1
    variables: tuple[Variable, ...] = ()
    arrays: tuple[Buffer, ...] = ()
    totals: tuple[Buffer, ...] = ()
    partials: tuple[Buffer, ...] = ()


@dataclass
class Parameters:
    """The buffers a function takes, in the order of first use."""

    memory: dict[Value, Value]
    buffers: dict[Value, Buffer]
    taken: dict[Buffer, Buffer] = field(default_factory=dict)

    def __call__(self, owner: Value) -> Buffer:
        """Return the function's parameter for the memory of `owner`."""
        return self.take(self.buffers[owner])

    def take(self, outer: Buffer) -> Buffer:
        """Return the function's parameter for a buffer of the unit."""
        if outer not in self.taken:
            names = {b.name for b in self.taken.values()}
            name, count = outer.name, 1
            while name in names:
                count += 1
                name = f"{outer.name}_{count}"
            self.taken[outer] = Buffer(name, outer.dtype, outer.size, Space.PARAMETER)
        return self.taken[outer]


class NestLowering:
    """Lowers one nest."""

    def __init__(
        self, nest: Nest, schedule: Schedule, buffers: dict[Value, Buffer], partials: dict[Item, tuple[Buffer, ...]] | None = None
    ) -> None:
        self.nest = nest
        self.partials = partials or {}
        self.memory = schedule.memory
        self.buffers = buffers
        self.loops = loop_axes(nest.items, nest.order or tuple(range(len(nest.domain))), self.memory)
        self.parameters = Parameters(self.memory, buffers)
        axes = nest.blocks.axes if nest.blocks is not None else ()
        self.divided = next((number for number, loop in enumerate(self.loops) if loop.axes == axes), -1)
        self.block: Scalar | None = None

    def function(self, name: str) -> tuple[Function, tuple[Buffer, ...]]:
        """Return the function and the outer buffers it is called with."""
        body = self._emit()
        taken = self.parameters.taken
        numbers = () if self.block is None else (self.block,)
        return Function(name, tuple(taken.values()), numbers, body, self.nest.title), tuple(taken)

    def merging(self, name: str) -> tuple[Function, tuple[Buffer, ...]]:
        """Return the function that merges what the blocks left, and the outer buffers it is called with."""
        assert self.nest.blocks is not None
        b, parameters = Builder(), Parameters(self.memory, self.buffers)
        for item in self.nest.partial_items:
            reduce, size = item.reduce, item.target.aval.size
            assert reduce is not None
            partials = [parameters.take(buffer) for buffer in self.partials[item]]

            def states(place: Index, partials: list[Buffer] = partials) -> State:
                return tuple(b.load(buffer, place) for buffer in partials)

            with b.loop(self.nest.blocks.count, 1, hint="block") as block, b.loop(size, lanes=size) as i:
                for buffer, new in zip(partials, reduce.merge(b, states(i), states(block * item.part + i)), strict=True):
                    b.store(buffer, i, new)
            with b.loop(size, lanes=size) as i:
                b.store(parameters(self.memory[item.target]), i, reduce.finish(b, states(i)))
        taken = parameters.taken
        return Function(name, tuple(taken.values()), (), b.root, f"the blocks of {self.nest.title} together"), tuple(taken)

    # ---- emitting

    def _emit(self) -> Block:
        self.b = Builder()
        if self.nest.blocks is not None:
            self.block = self.b.number(self.nest.blocks.count, "block")
        self.reader = Reader(self.b, self.memory, self.parameters, own_targets(self.nest.items))
        self.accumulators = self._plan_accumulators()
        if product(self.nest.domain) == 0:
            self._store_starts()
        else:
            for accumulator in self.accumulators:
                if accumulator.in_memory:
                    self._clear_memory(accumulator)
            self._level(0, {})
        return self.b.root

    def _plan_accumulators(self) -> list[Accumulator]:
        found = []
        depth = len(self.loops)
        for item in self.nest.items:
            if item.reduce is None:
                continue
            reduced = [all(a in item.reduced for a in loop.axes) for loop in self.loops]
            level = depth
            while level and reduced[level - 1]:
                level -= 1
            in_memory = any(reduced[:level])
            partials = tuple(self.parameters.take(buffer) for buffer in self.partials.get(item, ()))
            found.append(Accumulator(item, item.reduce, level, in_memory, partials=partials))
        return found

    def _index(self, counters: dict[int, Index]) -> Position:
        """Return the domain index for the loops' counters: a merged loop counts its last axis."""
        index = [Index()] * len(self.nest.domain)
        for number, loop in enumerate(self.loops):
            index[loop.counted] = counters[number]
        return tuple(index)

    def _level(self, level: int, counters: dict[int, Index]) -> None:
        depth = len(self.loops)
        if level == depth:
            self._body(counters)
            return
        starting = [a for a in self.accumulators if a.level == level]
        carried = [a for a in self.accumulators if a.level < depth]
        blocks = self.nest.blocks if self.divided == depth - 1 else None
        lanes = self._lanes(carried, self.loops[-1].extent if blocks is None else blocks.size)
        for accumulator in starting:
            self._begin(accumulator, lanes)

        def run(first: Index, extent: Scalar | int) -> None:
            if level == depth - 1 and lanes > 1:
                assert isinstance(extent, int)
                self._lane_loop(level, counters, lanes, carried, first, extent)
                return
            if level == depth - 1 and carried and isinstance(extent, int) and extent >= SHORTEST_ROW and self._is_dear():
                self._row_apart(level, counters, carried, first, extent)
                return
            with self.b.loop(extent, hint=self._hint(level)) as i:
                self._level(level + 1, {**counters, level: first + i})

        self._iterations(level, run)
        for accumulator in starting:
            self._end(accumulator, counters)

    def _iterations(self, level: int, run: Callable[[Index, Scalar | int], None]) -> None:
        """Have `run(first, extent)` emit the iterations of a loop, of a divided one those of the block.

        An innermost loop keeps extents that are numbers, so that it becomes vectors.
        """
        b, blocks, extent = self.b, self.nest.blocks, self.loops[level].extent
        if blocks is None or level != self.divided:
            run(Index(), extent)
            return
        assert self.block is not None
        first, rest = Index.of(self.block) * blocks.size, extent - blocks.count * blocks.size
        if not rest:
            run(first, blocks.size)
            return
        is_last = b.eq(self.block, b.literal(blocks.count - 1, INT64))
        if level == len(self.loops) - 1:
            run(first, blocks.size)
            with b.if_(is_last):
                run(Index(extent - rest), rest)
        else:
            run(first, b.select(is_last, b.literal(blocks.size + rest, INT64), b.literal(blocks.size, INT64)))

    def _hint(self, level: int) -> str:
        return "ijklmnpq"[level] if level < 8 else f"i{level}"

    def _lanes(self, accumulators: list[Accumulator], extent: int) -> int:
        """Return how many partial results the innermost reductions keep."""
        if not accumulators:
            return 1
        widest = max(a.item.value.dtype.itemsize for a in accumulators)
        lanes = max(8, min(16, 64 // widest))
        return lanes if extent >= 2 * lanes else 1

    def _lane_loop(
        self, level: int, counters: dict[int, Index], lanes: int, accumulators: list[Accumulator], start: Index, extent: int
    ) -> None:
        """Emit `extent` iterations of the innermost loop, `lanes` at a time: in blocks where totals are kept, then what is left over."""
        b = self.b
        whole = extent - extent % lanes

        def chunk(first: Index, count: int) -> None:
            with b.loop(count, lanes=count, hint="lane") as lane:
                self._body({**counters, level: start + first + lane}, lane)

        def chunks(first: Index, stop: Index | Scalar | int) -> None:
            with b.loop(stop, 0, lanes, hint=self._hint(level)) as i:
                chunk(first + i, lanes)

        totals = [a for a in accumulators if a.totals]
        block = BLOCK_OF_LANES * lanes
        if totals and whole:
            with b.loop(-(-whole // block), hint="block") as k:
                for a in totals:
                    self._fill(a.arrays, a, lanes)
                left = b.position(-(k * block) + whole)
                chunks(k * block, b.min(left, b.literal(block, INT64)) if whole % block else block)
                for a in totals:
                    self._merge_lanes(a, a.totals, a.arrays, lanes)
        elif whole:
            chunks(Index(), whole)
        if extent - whole:
            for a in totals:
                self._fill(a.arrays, a, lanes)
            chunk(Index(whole), extent - whole)
            for a in totals:
                self._merge_lanes(a, a.totals, a.arrays, lanes)

    def _is_dear(self) -> bool:
        """Return whether what is computed for an element costs more than to keep it for a moment."""
        nodes = {node for item in self.nest.items for node in item_nodes(item, self.memory)}
        return sum(node.op.cost for node in nodes) >= DEAR

    def _row_apart(self, level: int, counters: dict[int, Index], accumulators: list[Accumulator], first: Index, extent: int) -> None:
        """Emit a row too short for lanes: its elements, which can be computed side by side, then the reductions, in order."""
        b = self.b
        rows = {v: b.local(v.dtype, extent, "row") for v in dict.fromkeys(a.item.value for a in accumulators)}
        with b.loop(extent, lanes=extent, hint=self._hint(level)) as i:
            self._body({**counters, level: first + i}, keep=lambda a, x: b.store(rows[a.item.value], i, x))
        with b.loop(extent, hint=self._hint(level)) as i:
            index = self._index({**counters, level: first + i})
            for a in accumulators:
                self._take_in(a, b.load(rows[a.item.value], i), self._position(a, index), None)

    def _body(
        self, counters: dict[int, Index], lane: Index | None = None, keep: Callable[[Accumulator, Scalar], None] | None = None
    ) -> None:
        """Emit the items of one element; `keep` takes what reductions in registers would take in."""
        index = self._index(counters)
        self.reader.domain_index = index
        by_item = {a.item: a for a in self.accumulators}
        for item in self.nest.items:
            x = self.reader.read(item.value, expanded(index, item.value.shape))
            accumulator = by_item.get(item)
            if accumulator is None:
                self._store(item, x, index)
            elif accumulator.level == len(self.loops):
                self._step_in_memory(accumulator, x, index)
            elif keep is not None:
                keep(accumulator, x)
            else:
                position = self._position(accumulator, index)
                self._take_in(accumulator, x, position, lane)

    def _position(self, accumulator: Accumulator, index: Position) -> Scalar:
        (axis,) = accumulator.item.reduced if counts_places(accumulator.item) else (None,)
        return self.b.literal(0, INT64) if axis is None else self.b.position(index[axis])

    def _store(self, item: Item, x: Scalar, index: Position) -> None:
        place = target_index(item, index, self.reader)
        write(self.b, item, self.parameters(self.memory[item.target]), place, x)

    # ---- reductions

    def _begin(self, a: Accumulator, lanes: int) -> None:
        b, dtype = self.b, a.item.value.dtype
        state = a.reduce.start(b, dtype)
        a.lanes = lanes
        if lanes == 1:
            a.variables = tuple(b.variable(s, a.reduce.name) for s in state)
            return
        if not a.arrays:
            a.arrays = tuple(b.local(s.dtype, lanes, "partial") for s in state)
            trips = product(loop.extent for loop in self.loops[a.level :])
            if isinstance(a.reduce, Sum) and dtype.kind == "f" and trips > 2 * BLOCK_OF_LANES * lanes:
                a.totals = tuple(b.local(s.dtype, lanes, "total") for s in state)
        self._fill(a.totals or a.arrays, a, lanes)

    def _fill(self, arrays: tuple[Buffer, ...], a: Accumulator, lanes: int) -> None:
        b = self.b
        with b.loop(lanes, hint="lane") as lane:
            for array, start in zip(arrays, a.reduce.start(b, a.item.value.dtype), strict=True):
                b.store(array, lane, start)

    def _take_in(self, a: Accumulator, x: Scalar, position: Scalar, lane: Index | None) -> None:
        b = self.b
        if a.variables:
            state = tuple(b.get(v) for v in a.variables)
            for variable, new in zip(a.variables, a.reduce.step(b, state, x, position), strict=True):
                b.set(variable, new)
            return
        assert lane is not None
        state = tuple(b.load(array, lane) for array in a.arrays)
        for array, new in zip(a.arrays, a.reduce.step(b, state, x, position), strict=True):
            b.store(array, lane, new)

    def _merge_lanes(self, a: Accumulator, into: tuple[Buffer, ...], source: tuple[Buffer, ...], lanes: int, shift: int = 0) -> None:
        b = self.b
        with b.loop(lanes, hint="lane") as lane:
            first = tuple(b.load(array, lane) for array in into)
            second = tuple(b.load(array, lane + shift) for array in source)
            for array, new in zip(into, a.reduce.merge(b, first, second), strict=True):
                b.store(array, lane, new)

    def _end(self, a: Accumulator, counters: dict[int, Index]) -> None:
        b = self.b
        if a.lanes > 1:
            arrays = a.totals or a.arrays
            half = a.lanes // 2
            while half:
                self._merge_lanes(a, arrays, arrays, half, half)
                half //= 2
            state: State = tuple(b.load(array, 0) for array in arrays)
        else:
            state = tuple(b.get(v) for v in a.variables)
        full = {**{k: Index() for k in range(len(self.loops))}, **counters}
        (buffer, *_), place = self._home(a, self._index(full))
        if a.in_memory:
            state = a.reduce.merge(b, (b.load(buffer, place),), state)
        if a.partials:
            for partial, part in zip(a.partials, state, strict=True):
                b.store(partial, place, part)
            return
        b.store(buffer, place, a.reduce.finish(b, state))

    def _home(self, a: Accumulator, index: Position) -> tuple[tuple[Buffer, ...], Index]:
        """Return where the result, or this block's part of it, stands for a domain index."""
        place = target_index(a.item, index, self.reader)
        if not a.partials:
            return (self.parameters(self.memory[a.item.target]),), place
        assert self.block is not None
        return a.partials, place + Index.of(self.block) * a.item.part

    def _step_in_memory(self, a: Accumulator, x: Scalar, index: Position) -> None:
        b = self.b
        (buffer, *_), place = self._home(a, index)
        if not a.in_memory:
            state = a.reduce.step(b, a.reduce.start(b, x.dtype), x, b.literal(0, INT64))
            b.store(buffer, place, a.reduce.finish(b, state))
            return
        (new,) = a.reduce.step(b, (b.load(buffer, place),), x, b.literal(0, INT64))
        b.store(buffer, place, new)

    def _clear_memory(self, a: Accumulator) -> None:
        b, target = self.b, a.item.target
        (start,) = a.reduce.start(b, a.item.value.dtype)
        if self.divided >= 0 and not a.partials:
            self._clear_part(a, start, 0, {k: Index() for k in range(len(self.loops))})
            return
        (buffer, *_), first = self._home(a, (Index(),) * len(self.nest.domain))
        with b.loop(target.aval.size, hint="start") as i:
            b.store(buffer, first + i, start)

    def _clear_part(self, a: Accumulator, start: Scalar, level: int, counters: dict[int, Index]) -> None:
        """Emit the start of the elements that this block computes."""
        if level == len(self.loops):
            (buffer, *_), place = self._home(a, self._index(counters))
            self.b.store(buffer, place, start)
        elif set(self.loops[level].axes) & set(a.item.reduced):
            self._clear_part(a, start, level + 1, counters)
        else:

            def run(first: Index, extent: Scalar | int) -> None:
                with self.b.loop(extent, hint="start") as i:
                    self._clear_part(a, start, level + 1, {**counters, level: first + i})

            self._iterations(level, run)

    def _store_starts(self) -> None:
        """Emit the results of reductions over no elements."""
        for accumulator in self.accumulators:
            self._clear_memory(accumulator)
