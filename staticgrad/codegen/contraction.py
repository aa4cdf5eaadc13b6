"""From a contraction to a function of the loop IR: loops over register tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from staticgrad.codegen.elements import strides
from staticgrad.codegen.nest import Parameters
from staticgrad.codegen.schedule import Nest, Schedule, is_view
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import INT64
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.loops import Buffer, Function
from staticgrad.ir.node import Node, Value
from staticgrad.kernels.matmul import tile
from staticgrad.ops.contract import Contract
from staticgrad.ops.movement import Reshape, unit_axes_source

Tiles = Callable[[np.dtype, int, tuple[int, ...], bool], Function]

VECTOR_BYTES = 64
ROWS, VECTORS = 4, 4
"""The largest tile: 4 rows of 4 vectors keep 16 sums, 4 rows of the right operand and a broadcast in 32 vector registers."""


class TileLibrary:
    """The tile functions of a unit, each made once."""

    def __init__(self) -> None:
        self.functions: dict[tuple[object, ...], Function] = {}

    def __call__(self, dtype: np.dtype, rows: int, vectors: tuple[int, ...], accumulate: bool) -> Function:
        """Return the tile of that shape."""
        key = (dtype, rows, vectors, accumulate)
        if key not in self.functions:
            lanes = "_".join(map(str, vectors))
            name = f"tile_{dtype.name}_{rows}x{lanes}{'_more' if accumulate else ''}"
            self.functions[key] = tile(name, dtype, rows, vectors, accumulate)
        return self.functions[key]


def strided(value: Value, memory: dict[Value, Value]) -> tuple[Value, Index, tuple[int, ...]]:
    """Return the owner of the memory that holds `value`, and its offset and strides there."""
    b = Builder()
    with contextlib.ExitStack() as stack:
        counters = tuple(stack.enter_context(b.loop(extent)) for extent in value.shape)
        index: tuple[Index, ...] = counters
        while value not in memory:
            if not is_view(value):
                raise VerificationError(f"{value!r} of a contraction has no memory")
            source = value.node.inputs[0]
            if isinstance(value.op, Reshape):
                index = unit_axes_source(index, value.shape, source.shape)
            else:
                index = value.op.source(index, source.shape)  # type: ignore[attr-defined]
            value = source
        flat = Index()
        for i, step in zip(index, strides(value.shape), strict=True):
            flat = flat + i * step
    coefficients = dict(flat.terms)
    steps = tuple(coefficients.get(counter.terms[0][0], 0) for counter in counters)
    return memory[value], Index(flat.constant), steps


Place = tuple[Buffer, Index, dict[int, int]]
"""An array of a contraction: its buffer, where it begins there, and its stride by label."""


def operand_places(node: Node, memory: dict[Value, Value], parameters: Parameters) -> list[Place]:
    """Return where both operands and the result of a contraction lie."""
    op, out = node.op, node.outputs[0]
    assert isinstance(op, Contract)
    places = []
    for value, labels in zip(node.inputs, (op.lhs, op.rhs), strict=True):
        owner, offset, steps = strided(value, memory)
        places.append((parameters(owner), offset, dict(zip(labels, steps, strict=True))))
    return [*places, (parameters(memory[out]), Index(), dict(zip(op.out, strides(out.shape), strict=True)))]


def chunks(extent: int, dtype: np.dtype) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return the columns as (start, stop, vectors): whole tiles first, then ever narrower ones."""
    lanes = VECTOR_BYTES // dtype.itemsize
    found: list[tuple[int, int, tuple[int, ...]]] = []
    at = 0
    for count in (VECTORS, 2, 1):
        width = count * lanes
        stop = at + (extent - at) // width * width
        if stop > at:
            found.append((at, stop, (lanes,) * count))
            at = stop
    rest: list[int] = []
    while lanes > 1:
        lanes //= 2
        if extent - at - sum(rest) >= lanes:
            rest.append(lanes)
    if rest:
        found.append((at, extent, tuple(rest)))
    return found


class ContractionLowering:
    """Lowers one contraction to loops over tiles."""

    def __init__(self, nest: Nest, schedule: Schedule, buffers: dict[Value, Buffer], tiles: Tiles) -> None:
        assert nest.contraction is not None
        self.node = nest.contraction
        self.title = nest.title
        self.blocks = nest.blocks
        self.block: Scalar | None = None
        self.memory = schedule.memory
        self.parameters = Parameters(schedule.memory, buffers)
        self.tiles = tiles

    def function(self, name: str) -> tuple[Function, tuple[Buffer, ...]]:
        """Return the function and the outer buffers it is called with."""
        op = self.node.op
        assert isinstance(op, Contract)
        b = Builder()
        if self.blocks is not None:
            self.block = b.number(self.blocks.count, "block")
        sides = operand_places(self.node, self.memory, self.parameters)
        extents = op.extents(*(v.aval for v in self.node.inputs))
        _, left, right, inner = op.groups()
        if len(left) > 1 or len(right) > 1 or len(inner) > 1:
            raise VerificationError(f"{op.signature()} was not packed")
        m, n, k = (group[0] if group else None for group in (left, right, inner))
        outer = [label for label in op.out if label not in (m, n)]
        with contextlib.ExitStack() as stack:
            counters = {label: stack.enter_context(self._loop(b, label, extents[label], 1, "batch")) for label in outer}
            places = [offset + _sum(counters[label] * steps.get(label, 0) for label in outer) for _, offset, steps in sides]
            self._product(b, [(buffer, place, steps) for (buffer, _, steps), place in zip(sides, places, strict=True)], m, n, k, extents)
        taken = self.parameters.taken
        numbers = () if self.block is None else (self.block,)
        return Function(name, tuple(taken.values()), numbers, b.root, self.title), tuple(taken)

    @contextlib.contextmanager
    def _loop(self, b: Builder, label: int | None, stop: int, step: int, hint: str) -> Iterator[Index]:
        """Open the loop over a label from 0 to `stop`; over a divided one, over what is the block's part of that."""
        if self.blocks is None or self.block is None or label not in self.blocks.axes:
            with b.loop(stop, 0, step, hint=hint) as i:
                yield i
            return
        first = Index.of(self.block) * self.blocks.size
        following = first + self.blocks.size
        exact = stop == self.blocks.count * self.blocks.size
        last = following if exact else b.select(self._is_last(b), b.literal(stop, INT64), b.position(following))
        with b.loop(last, first, step, hint=hint) as i:
            yield i

    @contextlib.contextmanager
    def _once(self, b: Builder, label: int | None) -> Iterator[None]:
        """Open what is done behind the loop over a label: by the last block."""
        if self.blocks is None or label not in self.blocks.axes:
            yield
            return
        with b.if_(self._is_last(b)):
            yield

    def _is_last(self, b: Builder) -> Scalar:
        assert self.blocks is not None and self.block is not None
        return b.eq(self.block, b.literal(self.blocks.count - 1, INT64))

    def _product(
        self,
        b: Builder,
        sides: Sequence[tuple[Buffer, Index, dict[int, int]]],
        m: int | None,
        n: int | None,
        k: int | None,
        extents: dict[int, int],
    ) -> None:
        (a, a_at, a_steps), (c, c_at, c_steps), (out, out_at, out_steps) = sides

        def step(steps: dict[int, int], label: int | None) -> int:
            return steps.get(label, 0) if label is not None else 0

        rows, columns, depth = (1 if label is None else extents[label] for label in (m, n, k))
        if step(c_steps, n) != 1 or step(out_steps, n) != 1:
            raise VerificationError(f"{self.node!r}: the right operand is not in rows")
        numbers = (depth, step(a_steps, m), step(a_steps, k), step(c_steps, k), step(out_steps, m))
        whole = rows - rows % ROWS
        with contextlib.ExitStack() as behind:
            for number, (start, stop, vectors) in enumerate(chunks(columns, out.dtype)):
                if number == 1:
                    behind.enter_context(self._once(b, n))
                divided = self._loop(b, n, stop, sum(vectors), "column") if not number else b.loop(stop, start, sum(vectors), hint="column")
                with divided as j:
                    if whole:
                        tile_ = self.tiles(out.dtype, ROWS, vectors, False)
                        with self._loop(b, m, whole, ROWS, "row") as i:
                            places = (a_at + i * numbers[1], c_at + j, out_at + i * numbers[4] + j)
                            b.invoke(tile_, tuple(zip((a, c, out), places, strict=True)), numbers)
                    if rows - whole:
                        with self._once(b, m):
                            places = (a_at + whole * numbers[1], c_at + j, out_at + whole * numbers[4] + j)
                            rest = self.tiles(out.dtype, rows - whole, vectors, False)
                            b.invoke(rest, tuple(zip((a, c, out), places, strict=True)), numbers)


def _sum(parts: Iterable[Index]) -> Index:
    total = Index()
    for part in parts:
        total = total + part
    return total
