"""Tiles of matrix products: a block of the result stays in registers while a row of the right operand streams by.

The technique is the register blocking of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS, 2008),
without packing: the right operand is read in rows, elements of the left one are broadcast to all lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar, Space


def tile(name: str, dtype: np.dtype, rows: int, vectors: Sequence[int], accumulate: bool = False) -> Function:
    """Return a function that computes `rows` x sum(`vectors`) elements of c = a @ b.

    Its buffers are a, b and c (pointers to the first elements), its numbers the length of the contraction, the strides of a (along
    rows, along the contraction), of b and of c (from row to row). Every element is one chain of fused multiply-adds in the order of
    the contraction, so tiles of all shapes give the same bits. With `accumulate` the chains start from what c holds.
    """
    b = Builder()
    left, right, out = (Buffer(label, dtype, -1, Space.PARAMETER) for label in ("a", "b", "c"))
    names = ("depth", "a_row", "a_step", "b_step", "c_row")
    numbers = tuple(Scalar(-2 - k, np.dtype(np.int64), 1, None, label) for k, label in enumerate(names))
    depth, a_row, a_step, b_step, c_row = numbers
    starts = [sum(vectors[:k]) for k in range(len(vectors))]

    def row_of_c(row: int) -> Index:
        return Index(0, ((c_row, row),)) if row else Index()

    def start(row: int, column: int, lanes: int) -> Scalar:
        return b.load(out, row_of_c(row) + column, lanes) if accumulate else b.literal(0, dtype, lanes)

    sums = [[b.variable(start(row, at, lanes), f"sum{row}") for at, lanes in zip(starts, vectors, strict=True)] for row in range(rows)]
    a_at = [b.variable(b.position(Index(0, ((a_row, row),)) if row else Index()), f"a_at{row}") for row in range(rows)]
    b_at = b.variable(b.literal(0, np.dtype(np.int64)), "b_at")
    with b.loop(depth, hint="k"):
        row_of_b = Index.of(b.get(b_at))
        columns = [b.load(right, row_of_b + at, lanes) for at, lanes in zip(starts, vectors, strict=True)]
        for row in range(rows):
            position = b.get(a_at[row])
            element = b.load(left, position)
            for variable, column in zip(sums[row], columns, strict=True):
                b.set(variable, b.fma(b.splat(element, column.lanes), column, b.get(variable)))
            b.set(a_at[row], b.add(position, a_step))
        b.set(b_at, b.add(b.get(b_at), b_step))
    for row in range(rows):
        for variable, at in zip(sums[row], starts, strict=True):
            b.store(out, row_of_c(row) + at, b.get(variable))
    shape = f"{rows} x {sum(vectors)}"
    return Function(name, (left, right, out), numbers, b.root, f"{shape} elements of a product of {dtype} matrices")
