"""How often loops ask their caller whether to go on: often enough for Ctrl-C, too seldom to be noticed.

while goes_on and steps < 4096: ...     ask     while goes_on and steps < 8192: ...     ask     ...
"""

from __future__ import annotations

from staticgrad.codegen.blocks import graph_work
from staticgrad.ir.node import Node
from staticgrad.ops.loops import Scan
from staticgrad.ops.nested import Nested
from staticgrad.ops.while_loops import While

MOST_WORK = 2e7
"""Nanoseconds of work that a loop does without asking: estimates may be wrong by far, and a loop may be inside of another."""

MOST_STEPS = 4096
"""So many steps, a power of two, a loop does without asking however little they do."""


def steps_between(op: Scan | While) -> int:
    """Return after how many steps a loop asks whether to go on; 0 where it is soon over."""
    step = _step_work(op)
    most = op.length if isinstance(op, Scan) else op.limit
    if 0 <= most * step <= MOST_WORK:
        return 0
    steps = 1
    while steps < MOST_STEPS and 2 * steps * step <= MOST_WORK:
        steps *= 2
    return steps


def _step_work(op: Nested) -> float:
    return sum(graph_work(graph, _work) for graph in op.subgraphs)


def _work(node: Node) -> float:
    """Return the most nanoseconds that an op with sub-graphs goes on without asking."""
    op = node.op
    assert isinstance(op, Nested)
    steps = 1
    if isinstance(op, (Scan, While)):
        steps = steps_between(op) or (op.length if isinstance(op, Scan) else op.limit)
    return steps * _step_work(op)
