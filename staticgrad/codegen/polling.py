"""At which pace loops ask their caller whether to go on: often enough for Ctrl-C, too seldom to be noticed.

    while goes_on and steps < 4096: ...     poll     while goes_on and steps < 8192: ...     poll     ...

Each loop accounts for its own work, in rounds of not too many steps and at its end; that of loops inside, which do so themselves, left
out. So it does not matter how loops are nested, and how long the inner ones go on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from staticgrad.codegen.blocks import graph_work
from staticgrad.ir.graph import Graph
from staticgrad.ir.loops import WORK_BETWEEN_POLLS
from staticgrad.ir.node import Node
from staticgrad.ops.loops import Scan
from staticgrad.ops.nested import Nested
from staticgrad.ops.while_loops import While

MOST_STEPS = 4096
"""So many steps, a power of two, are a round at most, however little they do."""


@dataclass(frozen=True)
class Pace:
    """The steps of a round, the nanoseconds of work of a step, and whether a loop inside may have got the answer that it is to end."""

    steps: int
    work: int
    each_step: bool


REMEMBERED = 1024
"""Of so many loops it is known what was found out: each asks those inside of it, and so do those around it."""


@functools.lru_cache(REMEMBERED)
def pace_of(op: Scan | While) -> Pace | None:
    """Return the pace at which a loop asks whether to go on; None where it is soon over."""
    work = _step_work(op)
    most = op.length if isinstance(op, Scan) else op.limit
    asks_inside = any(map(_asks, op.subgraphs))
    if not asks_inside and 0 <= most * work <= WORK_BETWEEN_POLLS:
        return None
    steps = 1
    while steps < MOST_STEPS and 2 * steps * work <= WORK_BETWEEN_POLLS:
        steps *= 2
    return Pace(steps, max(1, round(work)), asks_inside)


def _asks(graph: Graph) -> bool:
    """Return whether a loop in a graph asks whether to go on."""
    ops = [node.op for node in graph.nodes if isinstance(node.op, Nested)]
    return any(pace_of(op) is not None if isinstance(op, (Scan, While)) else any(map(_asks, op.subgraphs)) for op in ops)


@functools.lru_cache(REMEMBERED)
def _step_work(op: Nested) -> float:
    return sum(graph_work(graph, _work) for graph in op.subgraphs)


def _work(node: Node) -> float:
    """Return the work of an op with sub-graphs that it does not account for itself."""
    op = node.op
    assert isinstance(op, Nested)
    if not isinstance(op, (Scan, While)):
        return _step_work(op)
    most = op.length if isinstance(op, Scan) else op.limit
    return most * _step_work(op) if pace_of(op) is None else 0.0
