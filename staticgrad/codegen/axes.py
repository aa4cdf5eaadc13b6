"""The loops of a nest as data: which axes of the domain one loop runs over, and where results go."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from staticgrad.codegen.elements import Position, Reader, expanded, flat_index
from staticgrad.codegen.schedule import Item
from staticgrad.ir.aval import INT64, product
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.loops import Block, Buffer, Load, Loop, Scalar, Space, Statement, Store, walk
from staticgrad.ir.loops import Position as PositionStatement
from staticgrad.ir.node import Value
from staticgrad.ops.index import Scatter


@dataclass(frozen=True)
class LoopAxis:
    """One loop: the domain's axes it runs over (several where they are contiguous everywhere) and its extent."""

    axes: tuple[int, ...]
    extent: int

    @property
    def counted(self) -> int:
        """The axis whose index is the loop's counter; those of the others stay 0."""
        return self.axes[-1]


def loop_axes(items: Sequence[Item], order: Sequence[int], memory: dict[Value, Value]) -> list[LoopAxis]:
    """Return the loops over the domain of `items`, outermost first.

    Neighbours are merged where every access runs through both in one stride: x[i, j] + y[i, j] over (2, 3) is one loop over 6.
    """
    domain = items[0].domain
    loops = [LoopAxis((axis,), domain[axis]) for axis in order]
    if len(loops) < 2 or product(domain) == 0:
        return loops
    accesses = _accesses(items, loops, memory)
    merged = loops[:1]
    for inner in loops[1:]:
        outer = merged[-1]
        if _alike(items, outer.counted, inner.counted) and accesses.contiguous(outer, inner):
            merged[-1] = LoopAxis((*outer.axes, *inner.axes), outer.extent * inner.extent)
        else:
            merged.append(inner)
    return merged


def target_index(item: Item, index: Position, reader: Reader) -> Index:
    """Return where in its target's memory the item's result for the domain `index` lies."""
    full = expanded(index, item.value.shape)
    if item.scatter is not None:
        op, inputs = item.scatter.op, item.scatter.inputs
        assert isinstance(op, Scatter)
        full = op.read_index(lambda k, at: reader.read(inputs[k], at), 2, full, [v.aval for v in inputs])
    if item.reduce is not None:
        full = tuple(i for axis, i in enumerate(full) if axis not in item.reduce.axes)
    elif item.region is not None:
        full = tuple(i * step + start for i, (start, step) in zip(full, item.region, strict=True))
    return flat_index(full, item.target.shape)


def write(b: Builder, item: Item, buffer: Buffer, place: Index, x: Scalar) -> None:
    """Emit the writing of an element of an item that reduces nothing."""
    if item.scatter is None:
        b.store(buffer, place, x)
        return
    assert isinstance(item.scatter.op, Scatter)
    item.scatter.op.put(b, buffer, place, x)


def counts_places(item: Item) -> bool:
    """Return whether the item's reduction asks where an element stands (argmax)."""
    return item.reduce is not None and len(item.reduce.start(Builder(), INT64)) > 1


def own_targets(items: Sequence[Item]) -> frozenset[Value]:
    """Return the values that the items compute element by element: at the same index they need not be loaded."""
    return frozenset(item.target for item in items if item.reduce is None and not item.partial)


# ---- merging


@dataclass
class _Accesses:
    """Every access to memory, and every position used as a number, as strides by axis; and the axes whose counter alone is one."""

    strides: list[dict[int, int]] = field(default_factory=list)
    alone: set[int] = field(default_factory=set)

    def contiguous(self, outer: LoopAxis, inner: LoopAxis) -> bool:
        slow, fast = outer.counted, inner.counted
        if slow in self.alone or fast in self.alone:
            return False
        return all(steps.get(slow, 0) == steps.get(fast, 0) * inner.extent for steps in self.strides)


def _alike(items: Sequence[Item], slow: int, fast: int) -> bool:
    """Return whether each item takes its elements in order along both axes or along none."""
    return all((slow in item.in_order) == (fast in item.in_order) for item in items)


def _accesses(items: Sequence[Item], loops: Sequence[LoopAxis], memory: dict[Value, Value]) -> _Accesses:
    """Return what a body over unmerged loops accesses: it is emitted once for this and thrown away."""
    b, found = Builder(), _Accesses()
    axis_of: dict[Scalar, int] = {}
    index = [Index()] * len(items[0].domain)
    reader = Reader(b, memory, lambda owner: Buffer("", owner.dtype, owner.aval.size, Space.PARAMETER), own_targets(items))
    with contextlib.ExitStack() as stack:
        for loop in loops:
            counter = index[loop.counted] = stack.enter_context(b.loop(loop.extent))
            axis_of[counter.terms[0][0]] = loop.counted
        reader.domain_index = tuple(index)
        for item in items:
            reader.read(item.value, expanded(reader.domain_index, item.value.shape))
            found.strides.append(_by_axis(target_index(item, reader.domain_index, reader), axis_of))
            if counts_places(item):
                found.alone |= set(item.reduced)
    _record(b.root, axis_of, found)
    return found


def _record(body: Block, axis_of: dict[Scalar, int], found: _Accesses) -> None:
    for statement in walk(body):
        if isinstance(statement, (Load, Store)):
            if statement.buffer.space is not Space.LOCAL:
                found.strides.append(_by_axis(statement.index, axis_of))
        elif isinstance(statement, PositionStatement):
            found.strides.append(_by_axis(statement.index, axis_of))
        elif not isinstance(statement, Loop):
            found.alone |= {axis_of[scalar] for scalar in _operands(statement) if scalar in axis_of}


def _by_axis(index: Index, axis_of: dict[Scalar, int]) -> dict[int, int]:
    return {axis_of[scalar]: coefficient for scalar, coefficient in index.terms if scalar in axis_of}


def _operands(statement: Statement) -> tuple[Scalar, ...]:
    operands = getattr(statement, "operands", ())
    return tuple(operands) if isinstance(operands, tuple) else ()
