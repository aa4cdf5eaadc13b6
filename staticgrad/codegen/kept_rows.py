"""Rows that every iteration of a loop reads anew, kept in registers instead.

    for j in 0..64:                        %1: f32x16 = load b[0]
      %2 = load a[j]                       %3: f32x16 = load b[16]
      for k in 0..32:                      for j in 0..64:
        %4 = load b[k]             ->        %2 = load a[j]
        %5 = mul %2, %4                      store y[32 j] <- mul splat %2, %1
        store y[32 j + k] <- %5              store y[32 j + 16] <- mul splat %2, %3

An outer product is bound by the writing of its result, and processors write fastest from front to back with nothing in between.
"""

from __future__ import annotations

from dataclasses import dataclass

from staticgrad.codegen.widen_pattern import VECTOR_BYTES, Pattern, analysed
from staticgrad.ir.loops import Comment, Let, Load, Loop, Position, Scalar, Store

SHORT_BODY = 6
"""A body of more statements is not bound by memory, nor worth being written out for every vector."""

REGISTERS = 16
"""So many vectors are kept at most: half of what there is."""


@dataclass(frozen=True)
class KeptRow:
    """A loop whose one inner loop has the given pattern, and those of its loads that give the same in every iteration of the outer."""

    outer: Loop
    pattern: Pattern
    loads: tuple[Load, ...]

    @property
    def places(self) -> list[int]:
        """Where the vectors of the inner loop begin; the last may overlap the one before."""
        pattern = self.pattern
        last = pattern.start + pattern.trip - pattern.width
        return [min(at, last) for at in range(pattern.start, pattern.start + pattern.trip, pattern.width)]


def kept_row(outer: Loop, disjoint: bool) -> KeptRow | None:
    """Return what of a loop's inner loop can be kept in registers; None if nothing can."""
    statements = outer.body.statements
    inner = [statement for statement in statements if isinstance(statement, Loop)]
    if not disjoint or len(inner) != 1 or not all(isinstance(s, Loop | Load | Let | Position | Comment) for s in statements):
        return None
    pattern = analysed(inner[0], disjoint)
    if pattern is None or pattern.width == 1 or pattern.size > SHORT_BODY or pattern.reads_back:
        return None
    if not all(isinstance(s, Load | Let | Store | Comment) for s in inner[0].body.statements):
        return None
    changing = {outer.counter, *(s.target for s in statements if isinstance(s, Load | Let | Position))}
    loads = tuple(s for s in inner[0].body.statements if isinstance(s, Load) and _stays(s, pattern, changing))
    size = sum(load.buffer.dtype.itemsize for load in loads) * pattern.trip
    return KeptRow(outer, pattern, loads) if 0 < size <= REGISTERS * VECTOR_BYTES else None


def _stays(load: Load, pattern: Pattern, changing: set[Scalar]) -> bool:
    index = pattern.index(load.index)
    return pattern.step(index) == 1 and not any(scalar in changing for scalar, _ in index.terms)
