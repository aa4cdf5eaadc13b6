"""From a schedule to a unit of the loop IR for GPUs: a function is one parallel loop, each iteration of it a thread's work.

A nest becomes a function for its elementwise results and one for each set of axes that it reduces: the loop runs over the elements
of the result, the reduced axes are a loop inside. Long reductions to few elements are made in steps: a number of partial results
that depends on the shapes alone, then a fixed tree that merges them. So results have the same bits for every launch configuration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from staticgrad.codegen.axes import LoopAxis, counts_places, loop_axes, own_targets, target_index, write
from staticgrad.codegen.contraction import operand_places
from staticgrad.codegen.elements import Position, Reader, expanded, flat_index, strides
from staticgrad.codegen.lower import Lowered, Made, assembled, with_scratch
from staticgrad.codegen.memory import Scratch, plan
from staticgrad.codegen.nest import Parameters
from staticgrad.codegen.nested import Library, Tools, lower_nested
from staticgrad.codegen.rows import emit_row, room_for
from staticgrad.codegen.schedule import Item, Nest, Schedule, items_title
from staticgrad.errors import UnsupportedError
from staticgrad.ir.aval import INT64, Extent, product
from staticgrad.ir.builder import Builder, Index, Scalar, Variable
from staticgrad.ir.loops import Buffer, Function
from staticgrad.ir.node import Node, Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.contract import Contract
from staticgrad.ops.reduce import Reduce, State, Sum

SERIAL = 256
"""A reduction of at most so many elements to one is the work of one thread."""

LEAST = 64
"""A longer one is divided among threads with at least so many elements each."""

ENOUGH = 2**16
"""So many threads keep a GPU busy: with more, nothing is divided."""

FAN_IN = 32
"""So many partial results are merged by one thread."""

BLOCK = 64
"""A float sum adds up blocks of so many elements and then the blocks: rounding errors grow slower."""


def lower_for_gpu(schedule: Schedule, name: str) -> Lowered:
    """Return the unit of `schedule` for GPUs."""
    layout = plan(schedule)
    scratch = Scratch(layout.workspace)

    def inside_of_op(nest: Nest, inner: Schedule, buffers: dict[Value, Buffer]) -> Iterator[Made]:
        return OneThreadLowering(nest, inner, buffers, scratch, tools).functions()

    def functions_of(nest: Nest) -> Iterator[Made]:
        scratch.clear()
        return GpuLowering(nest, schedule, layout.buffers, scratch, tools).functions()

    tools = Tools(inside_of_op, scratch, Library(), item_by_item=True, polls=False)
    return with_scratch(assembled(schedule, name, layout, functions_of), scratch)


def partial_count(kept: Extent, reduced: Extent) -> int:
    """Return into how many parts (a power of two) the reduction to each of `kept` elements is divided."""
    if reduced <= SERIAL or 2 * kept > ENOUGH:
        return 1
    return 1 << (min(ENOUGH // kept, reduced // LEAST).bit_length() - 1)


class Flattened:
    """One counter over several extents, the last of which runs fastest: over (1000, 64), i counts (i // 64, i % 64)."""

    def __init__(self, b: Builder, counter: Index, extents: Sequence[int]) -> None:
        self.counter = counter
        self._weights = strides(tuple(extents))
        self.parts: tuple[Index, ...] = (counter,)[: len(extents)]
        if len(extents) > 1:
            i = b.position(counter)
            parts: list[Scalar] = []
            for extent, weight in zip(extents, self._weights, strict=True):
                part = b.quotient(i, b.literal(weight, INT64)) if weight > 1 else i
                parts.append(b.remainder(part, b.literal(extent, INT64)) if parts else part)
            self.parts = tuple(map(Index.of, parts))

    def folded(self, index: Index) -> Index:
        """Return `index` with the parts put together where they make up the counter: (i // 64) * 64 + i % 64 -> i."""
        coefficients = dict(index.terms)
        scalars = [part.terms[0][0] for part in self.parts]
        unit = coefficients.get(scalars[-1], 0) if scalars else 0
        if not unit or any(coefficients.get(s) != unit * w for s, w in zip(scalars, self._weights, strict=True)):
            return index
        return Index(index.constant, tuple(term for term in index.terms if term[0] not in scalars)) + self.counter * unit


class FoldingReader(Reader):
    """A reader that counts through whole arrays by the flat counter."""

    fold: Callable[[Index], Index]

    def _load(self, value: Value, index: Position) -> Scalar:
        return self.b.load(self._buffer_of(self._memory[value]), self.fold(flat_index(index, value.shape)))


@dataclass
class Reduction:
    """One reduction of a function: its running state, and that of the block under way where blocks are added up first."""

    item: Item
    reduce: Reduce
    state: tuple[Variable, ...]
    block: tuple[Variable, ...] | None = None

    @property
    def in_blocks(self) -> bool:
        """Whether blocks are to be added up first."""
        return isinstance(self.reduce, Sum) and self.item.value.dtype.kind == "f"

    def start(self, b: Builder) -> State:
        """Return the state before the first element."""
        return self.reduce.start(b, self.item.value.dtype)


class GpuLowering:
    """Lowers one nest."""

    def __init__(self, nest: Nest, schedule: Schedule, buffers: dict[Value, Buffer], scratch: Scratch, tools: Tools) -> None:
        self.nest = nest
        self.schedule = schedule
        self.tools = tools
        self.memory = schedule.memory
        self.buffers = buffers
        self.scratch = scratch

    def functions(self) -> Iterator[Made]:
        """Return the nest's functions in the order in which they are to run; their names are endings."""
        if self.nest.contraction is not None:
            if self.nest.contraction.outputs[0].aval.size:
                yield self._contraction(self.nest.contraction)
            return
        if self.nest.foreign is not None:
            node = self.nest.foreign
            raise UnsupportedError(at_user_line(f"{node.op.name} is compiled for CPUs only: it cannot run with backend='cuda'", node.line))
        if self.nest.nested is not None:
            yield lower_nested(self.nest, self.schedule, self.buffers, self.tools)
            return
        if self.nest.rows is not None:
            yield self._rows(self.nest.rows)
            return
        if not self.nest.domain:
            yield self._straight()
            return
        elementwise = [item for item in self.nest.items if item.reduce is None and item.scatter is None]
        if elementwise and product(self.nest.domain):
            yield self._elementwise(elementwise)
        for item in self.nest.items:
            if item.scatter is not None:
                yield self._scatter(item)
        groups: dict[tuple[int, ...], list[Item]] = {}
        for item in self.nest.items:
            if item.reduce is not None and item.target.aval.size:
                groups.setdefault(item.reduced, []).append(item)
        for axes, items in groups.items():
            if product(self.nest.domain) == 0:
                yield self._starts(items)
            else:
                yield from self._reduction(items, axes)

    def _open(self) -> tuple[Builder, Parameters]:
        return Builder(), Parameters(self.memory, self.buffers)

    @contextlib.contextmanager
    def _threads(self, b: Builder, count: int) -> Iterator[Index]:
        """Open the loop that threads share; a single thread needs none."""
        if count == 1:
            yield Index()
            return
        with b.loop(count, parallel=True) as i:
            yield i

    def _partial_count(self, kept: Extent, reduced: Extent) -> int:
        return partial_count(kept, reduced)

    def _made(self, ending: str, b: Builder, parameters: Parameters, title: str) -> Made:
        taken = parameters.taken
        return Function(ending, tuple(taken.values()), (), b.root, title), tuple(taken)

    def _domain_index(self, loops: Sequence[LoopAxis], parts: Sequence[Index]) -> Position:
        index = [Index()] * len(self.nest.domain)
        for loop, part in zip(loops, parts, strict=True):
            index[loop.counted] = part
        return tuple(index)

    def _reader(self, b: Builder, parameters: Parameters, items: Sequence[Item], index: Position, *folds: Flattened) -> FoldingReader:
        reader = FoldingReader(b, self.memory, parameters, own_targets(items))
        reader.domain_index = index

        def fold(place: Index) -> Index:
            for flat in folds:
                place = flat.folded(place)
            return place

        reader.fold = fold
        return reader

    def _rows(self, item: Item) -> Made:
        """Return the function of an operation on rows: each row is the work of one thread."""
        b, parameters = self._open()
        outer = [axis for axis in range(len(self.nest.domain)) if axis not in item.in_order]
        extents = [self.nest.domain[axis] for axis in outer]
        count = product(extents)
        with self._threads(b, count) as i:
            flat = Flattened(b, i, extents)
            index = self._domain_index([LoopAxis((axis,), self.nest.domain[axis]) for axis in outer], flat.parts)
            reader = self._reader(b, parameters, [item], index, flat)
            emit_row(b, item, index, reader, parameters, room_for(item, parameters, self.scratch, count, i))
        return self._made("", b, parameters, items_title([item], self.memory))

    # ---- elementwise results

    def _straight(self) -> Made:
        """Return the function for items of one element each: one thread makes one after the other, as they may read each other."""
        b, parameters = self._open()
        reader = self._reader(b, parameters, self.nest.items, ())
        for item in self.nest.items:
            x = reader.read(item.value, expanded((), item.value.shape))
            if item.reduce is not None:
                state = item.reduce.step(b, item.reduce.start(b, x.dtype), x, b.literal(0, INT64))
                x = item.reduce.finish(b, state)
            place = target_index(item, (), reader)
            write(b, item, parameters(self.memory[item.target]), place, x)
        return self._made("", b, parameters, items_title(self.nest.items, self.memory))

    def _elementwise(self, items: list[Item]) -> Made:
        b, parameters = self._open()
        loops = loop_axes(items, self.nest.order or range(len(self.nest.domain)), self.memory)
        with self._threads(b, product(loop.extent for loop in loops)) as i:
            flat = Flattened(b, i, [loop.extent for loop in loops])
            index = self._domain_index(loops, flat.parts)
            reader = self._reader(b, parameters, items, index, flat)
            for item in items:
                x = reader.read(item.value, expanded(index, item.value.shape))
                b.store(parameters(self.memory[item.target]), flat.folded(target_index(item, index, reader)), x)
        return self._made("", b, parameters, items_title(items, self.memory))

    def _scatter(self, item: Item) -> Made:
        """Return the function of a scatter: threads share the axes that are not indexed, and each takes in all elements in order."""
        b, parameters = self._open()
        order = self.nest.order or tuple(range(len(self.nest.domain)))
        order = (*(a for a in order if a not in item.in_order), *(a for a in order if a in item.in_order))
        loops = loop_axes([item], order, self.memory)
        apart = [loop for loop in loops if loop.counted not in item.in_order]
        within = [loop for loop in loops if loop.counted in item.in_order]
        with self._threads(b, product(loop.extent for loop in apart)) as i, contextlib.ExitStack() as stack:
            flat = Flattened(b, i, [loop.extent for loop in apart])
            counters = [stack.enter_context(b.loop(loop.extent, hint="k")) for loop in within]
            index = self._domain_index([*apart, *within], [*flat.parts, *counters])
            reader = self._reader(b, parameters, [item], index, flat)
            x = reader.read(item.value, expanded(index, item.value.shape))
            place = flat.folded(target_index(item, index, reader))
            write(b, item, parameters(self.memory[item.target]), place, x)
        return self._made("", b, parameters, items_title([item], self.memory))

    def _starts(self, items: list[Item]) -> Made:
        """Return the function for reductions over no elements."""
        b, parameters = self._open()
        with self._threads(b, items[0].target.aval.size) as i:
            for item in items:
                assert item.reduce is not None
                result = item.reduce.finish(b, item.reduce.start(b, item.value.dtype))
                b.store(parameters(self.memory[item.target]), i, result)
        return self._made("", b, parameters, items_title(items, self.memory))

    # ---- reductions

    def _reduction(self, items: list[Item], axes: tuple[int, ...]) -> Iterator[Made]:
        order = self.nest.order or tuple(range(len(self.nest.domain)))
        loops = loop_axes(items, (*(a for a in order if a not in axes), *(a for a in order if a in axes)), self.memory)
        kept = [loop for loop in loops if loop.counted not in axes]
        reduced = [loop for loop in loops if loop.counted in axes]
        count, length = (product(loop.extent for loop in group) for group in (kept, reduced))
        parts = self._partial_count(count, length)
        partial = self._partial_buffers(items, parts * count) if parts > 1 else []
        b, parameters = self._open()
        # Neighbouring threads read neighbouring elements: of the reduced axes where those are contiguous, else of the kept ones.
        parts_fastest = any(loop.counted == max(axis.counted for axis in loops) for loop in reduced)
        extents = [loop.extent for loop in kept]
        divided = [] if parts == 1 else [parts]
        with self._threads(b, count * parts) as i:
            flat = Flattened(b, i, [*extents, *divided] if parts_fastest else [*divided, *extents])
            places = flat.parts
            part = Index() if parts == 1 else places[-1 if parts_fastest else 0]
            kept_at = places[:-1] if parts_fastest and divided else places[len(divided) :]
            reductions = [self._begin(b, item) for item in items]
            with self._elements(b, reductions, part, parts, length) as r:
                inner = Flattened(b, r, [loop.extent for loop in reduced])
                index = self._domain_index([*kept, *reduced], [*kept_at, *inner.parts])
                reader = self._reader(b, parameters, items, index, inner, flat)
                for reduction in reductions:
                    self._take_in(b, reduction, reader, index)
            place = sum((at * step for at, step in zip(kept_at, strides(tuple(extents)), strict=True)), part * count)
            for number, reduction in enumerate(reductions):
                self._store(b, parameters, reduction, flat.folded(place), partial[number] if partial else None)
        title = items_title(items, self.memory)
        yield self._made("_parts" if partial else "", b, parameters, f"{title}: {parts} partial results of each" if partial else title)
        while partial:
            merged = parts // min(FAN_IN, parts)
            results = self._partial_buffers(items, merged * count) if merged > 1 else []
            yield self._merge(items, partial, results, parts // merged, merged * count)
            partial, parts = results, merged

    def _partial_buffers(self, items: Sequence[Item], size: int) -> list[tuple[Buffer, ...]]:
        found = []
        for item in items:
            assert item.reduce is not None
            states = item.reduce.start(Builder(), item.value.dtype)
            found.append(tuple(self.scratch.take(f"partial_{item.reduce.name}", state.dtype, size) for state in states))
        return found

    def _begin(self, b: Builder, item: Item) -> Reduction:
        assert item.reduce is not None
        start = item.reduce.start(b, item.value.dtype)
        return Reduction(item, item.reduce, tuple(b.variable(state, item.reduce.name) for state in start))

    @contextlib.contextmanager
    def _elements(self, b: Builder, reductions: Sequence[Reduction], first: Index, step: int, length: int) -> Iterator[Index]:
        """Open the loop over every step-th element from `first` on, in blocks where a long float sum wants them."""
        if length == 1:
            yield Index()
            return
        blocked = [reduction for reduction in reductions if reduction.in_blocks]
        if not blocked or length <= 2 * BLOCK * step:
            with b.loop(length, first, step, hint="k") as k:
                yield k
            return
        width = BLOCK * step
        with b.loop(length, first, width, hint="block") as block:
            for reduction in blocked:
                reduction.block = tuple(b.variable(state, "block_sum") for state in reduction.start(b))
            whole = length % width == 0
            stop = block + width if whole else Index.of(b.min(b.position(block + width), b.literal(length, INT64)))
            with b.loop(stop, block, step, hint="k") as k:
                yield k
            for reduction in blocked:
                assert reduction.block is not None
                self._merge_states(b, reduction, (b.get(variable) for variable in reduction.block))

    def _take_in(self, b: Builder, reduction: Reduction, reader: Reader, index: Position) -> None:
        item = reduction.item
        position = b.position(index[item.reduced[0]]) if counts_places(item) and item.reduced else b.literal(0, INT64)
        variables = reduction.block or reduction.state
        state = tuple(b.get(variable) for variable in variables)
        new = reduction.reduce.step(b, state, reader.read(item.value, expanded(index, item.value.shape)), position)
        for variable, value in zip(variables, new, strict=True):
            b.set(variable, value)

    def _merge_states(self, b: Builder, reduction: Reduction, second: Iterable[Scalar]) -> None:
        first = tuple(b.get(variable) for variable in reduction.state)
        for variable, value in zip(reduction.state, reduction.reduce.merge(b, first, tuple(second)), strict=True):
            b.set(variable, value)

    def _store(self, b: Builder, parameters: Parameters, reduction: Reduction, place: Index, partial: tuple[Buffer, ...] | None) -> None:
        state = tuple(b.get(variable) for variable in reduction.state)
        if partial is None:
            b.store(parameters(self.memory[reduction.item.target]), place, reduction.reduce.finish(b, state))
            return
        for buffer, value in zip(partial, state, strict=True):
            b.store(parameters.take(buffer), place, value)

    def _merge(
        self, items: Sequence[Item], sources: list[tuple[Buffer, ...]], results: list[tuple[Buffer, ...]], fan: int, count: int
    ) -> Made:
        """Return the function that merges `fan` partial results into each of `count`."""
        b, parameters = self._open()
        with self._threads(b, count) as i:
            reductions = []
            for item, source in zip(items, sources, strict=True):
                assert item.reduce is not None
                start = [b.load(parameters.take(buffer), i) for buffer in source]
                reductions.append(Reduction(item, item.reduce, tuple(b.variable(state, item.reduce.name) for state in start)))
            with b.loop(fan, 1, hint="k") as k:
                for reduction, source in zip(reductions, sources, strict=True):
                    self._merge_states(b, reduction, (b.load(parameters.take(buffer), k * count + i) for buffer in source))
            for number, reduction in enumerate(reductions):
                self._store(b, parameters, reduction, i, results[number] if results else None)
        names = ", ".join(dict.fromkeys(reduction.reduce.name for reduction in reductions))
        return self._made("_merge", b, parameters, f"{names}: {fan} partial results merged into one")

    # ---- contractions

    def _contraction(self, node: Node) -> Made:
        """Return a function in which each thread makes one element of the product: one chain of fused multiply-adds."""
        op, out = node.op, node.outputs[0]
        assert isinstance(op, Contract)
        b, parameters = self._open()
        extents = op.extents(*(value.aval for value in node.inputs))
        sides = operand_places(node, self.memory, parameters)
        outer = [label for label in op.out if extents[label] != 1]
        _, _, _, inner = op.groups()
        with self._threads(b, out.aval.size) as i:
            flat = Flattened(b, i, [extents[label] for label in outer])
            counters = dict(zip(outer, flat.parts, strict=True))
            total = b.variable(b.literal(0, out.dtype), "total")
            with contextlib.ExitStack() as stack:
                for label in inner:
                    counters[label] = stack.enter_context(b.loop(extents[label], hint="k"))
                x, y = (b.load(buffer, flat.folded(_place(offset, steps, counters))) for buffer, offset, steps in sides[:2])
                floating = out.dtype.kind == "f"
                b.set(total, b.fma(x, y, b.get(total)) if floating else b.add(b.get(total), b.mul(x, y)))
            buffer, offset, steps = sides[2]
            b.store(buffer, flat.folded(_place(offset, steps, counters)), b.get(total))
        return self._made("", b, parameters, self.nest.title)


class OneThreadLowering(GpuLowering):
    """Lowers a nest inside of a branch or a loop, all of which is the work of one thread: steps follow one another."""

    @contextlib.contextmanager
    def _threads(self, b: Builder, count: int) -> Iterator[Index]:
        with b.loop(count) as i:
            yield i

    def _partial_count(self, kept: Extent, reduced: Extent) -> int:
        return 1


def _place(offset: Index, steps: dict[int, int], counters: dict[int, Index]) -> Index:
    return sum((counters[label] * step for label, step in steps.items() if label in counters), offset)
