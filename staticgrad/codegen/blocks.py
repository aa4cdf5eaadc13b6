"""Which nests run on several threads: large ones, in blocks whose number depends on the nest alone.

    x * y over 1000000          ->  31 blocks of 32256 elements
    x.sum() over 1000000        ->  as many partial sums, added up in order by one thread
    x @ w, 256 x 784 by 512     ->  8 blocks of 64 columns

So results have the same bits for any number of threads, one included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from staticgrad.codegen.axes import loop_axes
from staticgrad.codegen.contraction import ROWS, VECTOR_BYTES, VECTORS
from staticgrad.codegen.schedule import Blocks, Item, Nest, Schedule
from staticgrad.ir.aval import product
from staticgrad.ir.builder import Builder
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Constant, Input, Node
from staticgrad.ops.contract import Contract
from staticgrad.ops.foreign import Foreign
from staticgrad.ops.loops import Scan
from staticgrad.ops.matrices import OnMatrices
from staticgrad.ops.nested import Nested
from staticgrad.ops.while_loops import While


@dataclass(frozen=True)
class Grain:
    """How finely nests are divided."""

    work: float = 50_000.0
    """Nanoseconds of work from which on a nest runs in blocks: some ten times what it takes to wake a thread."""

    row: int = 256
    """Elements that a block of the innermost loop has at least."""

    partial: float = 1 / 8
    """Partial results that are made for each element of the domain at most: one thread merges them."""


GRAIN = Grain()

MOST_BLOCKS = 64
"""More are not made: a nest has to keep this many processors busy at most."""

ENOUGH_BLOCKS = 8
"""With so many, a better way to divide is worth more than further blocks."""

PRICE, MULTIPLY_ADD = 0.005, 0.0025
"""Nanoseconds that a unit of a nest's price, or a multiply-add of a contraction, takes on one core for each byte of its type."""

FOREIGN = 1e6
"""Nanoseconds that a foreign function counts for. Nobody knows what it does, so it is never called with the GIL held."""


def divide(schedule: Schedule, grain: Grain) -> Schedule:
    """Choose the blocks of every nest of `schedule` that is worth it, and return it."""
    for nest in schedule.nests:
        estimate = estimated_work(nest)
        if nest.foreign is None and nest.nested is None and estimate >= grain.work:
            count = int(min(MOST_BLOCKS, 2 * estimate / grain.work))
            nest.blocks = _contraction(nest.contraction, count) if nest.contraction is not None else _nest(nest, schedule, count, grain)
    return schedule


def estimated_work(nest: Nest) -> float:
    """Return the nanoseconds that one core is expected to need for a nest."""
    if nest.foreign is not None:
        return FOREIGN
    if nest.nested is not None:
        return _nested_work(nest.nested)
    if nest.contraction is not None:
        op, out = nest.contraction.op, nest.contraction.outputs[0]
        assert isinstance(op, Contract)
        return MULTIPLY_ADD * out.dtype.itemsize * product(op.extents(*(v.aval for v in nest.contraction.inputs)).values())
    widest = max(max(item.value.dtype.itemsize, item.target.dtype.itemsize) for item in nest.items)
    return PRICE * widest * nest.price * product(nest.domain)


def _nested_work(node: Node) -> float:
    """Return the work of an op with sub-graphs: of a loop whose number of steps nobody knows as much as of a foreign function."""
    if isinstance(node.op, While):
        return FOREIGN
    steps = node.op.length if isinstance(node.op, Scan) else 1
    return steps * sum(graph_work(graph, _nested_work) for graph in node.op.subgraphs)


def graph_work(graph: Graph, nested_work: Callable[[Node], float]) -> float:
    """Return the work of a graph; `nested_work` tells it of ops with sub-graphs."""
    total = 0.0
    for node in graph.nodes:
        out = node.outputs[0]
        if isinstance(node.op, Nested):
            total += nested_work(node)
        elif isinstance(node.op, Foreign):
            total += FOREIGN
        elif isinstance(node.op, OnMatrices):
            total += PRICE * out.dtype.itemsize * (node.op.cost + 1) * max(v.aval.size * v.shape[node.op.axis] ** 0.5 for v in node.inputs)
        elif isinstance(node.op, Contract):
            total += MULTIPLY_ADD * out.dtype.itemsize * product(node.op.extents(*(v.aval for v in node.inputs)).values())
        elif not isinstance(node.op, (Input, Constant)):
            total += PRICE * out.dtype.itemsize * (node.op.cost + 1) * out.aval.size
    return total


def _nest(nest: Nest, schedule: Schedule, count: int, grain: Grain) -> Blocks | None:
    """Return blocks of a loop; of one that is reduced only where the others are short.

    Of loops with about as many blocks the outermost one is divided: its blocks write memory from front to back, which processors
    do several times as fast as a bit here and a bit there. Rows are made in one room, one after the other, and a scatter takes its
    elements in order: those loops stay whole.
    """
    if nest.rows is not None:
        return None
    ordered = {axis for item in nest.items if item.scatter is not None for axis in item.in_order}
    loops = loop_axes(nest.items, nest.order or range(len(nest.domain)), schedule.memory)
    found: dict[bool, Blocks] = {}
    for number, loop in enumerate(loops):
        blocks = _blocks(loop.axes, loop.extent, count, grain.row if number == len(loops) - 1 else 1)
        if blocks is None or ordered & set(loop.axes):
            continue
        partial = [item for item in nest.items if set(loop.axes) & set(item.reduced)]
        if sum(_partial_size(item) for item in partial) * blocks.count > grain.partial * product(nest.domain):
            continue
        if bool(partial) not in found or 2 * found[bool(partial)].count < blocks.count:
            found[bool(partial)] = blocks
    independent, merged = found.get(False), found.get(True)
    if independent is None or merged is None:
        return independent or merged
    return independent if independent.count >= min(merged.count, ENOUGH_BLOCKS) else merged


def _contraction(node: Node, count: int) -> Blocks | None:
    """Return blocks of the outermost batch, of columns (then each core reads every row once) or of rows, whichever are enough."""
    op, dtype = node.op, node.outputs[0].dtype
    assert isinstance(op, Contract)
    extents = op.extents(*(v.aval for v in node.inputs))
    batch, rows, columns, _ = op.groups()
    tried: list[Blocks] = []
    for labels, unit in ((batch[:1], 1), (columns, VECTORS * VECTOR_BYTES // dtype.itemsize), (rows, ROWS)):
        for label in labels:
            blocks = _blocks((label,), extents[label] // unit, count, 1)
            if blocks is not None:
                tried.append(Blocks(blocks.axes, blocks.count, blocks.size * unit))
    enough = (blocks for blocks in tried if blocks.count >= min(count, ENOUGH_BLOCKS))
    return next(enough, max(tried, key=lambda blocks: blocks.count, default=None))


def _blocks(axes: tuple[int, ...], extent: int, most: int, least: int) -> Blocks | None:
    """Return at most `most` blocks of `least` iterations or more, as even as can be; None if there are not two."""
    most = min(most, extent // least)
    best: tuple[int, int] | None = None
    for count in range(most, max(1, most // 2 - 1), -1):
        size = extent // count
        size -= size % 64 if least > 1 and size > 64 else 0
        longest = extent - (count - 1) * size
        if best is None or longest < extent - (best[0] - 1) * best[1]:
            best = count, size
    return None if best is None else Blocks(axes, *best)


def _partial_size(item: Item) -> int:
    return item.target.aval.size * len(state_dtypes(item))


def state_dtypes(item: Item) -> tuple[np.dtype, ...]:
    """Return the dtypes of what a reduction keeps."""
    assert item.reduce is not None
    return tuple(scalar.dtype for scalar in item.reduce.start(Builder(), item.value.dtype))
