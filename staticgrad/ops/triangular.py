"""Systems of linear equations, each matrix a row of memory: what they have in common, and triangular ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder
from staticgrad.ir.links import Links, numbers_without
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.matrices import OnMatrices, as_rows, product, rows_beside, transposed, triangle
from staticgrad.ops.movement import reshape, transpose


class System(OnMatrices):
    """Base of the ops that give the X of A X = B: n n elements of A, n k of B."""

    axis: int

    def length(self, *lengths: int) -> int:
        order, size = self.order(lengths[0]), lengths[1]
        if size % order if order else size:
            raise ShapeError(f"{self.name}: {order} equations, but right-hand sides of {size} elements along axis {self.axis}")
        return size

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        """Systems with one matrix become one system with more right-hand sides."""
        a, b = x
        if batched[0] or not a.shape[self.axis]:
            return super().batch(size, batched, *x)
        order, inner = self.order(a.shape[self.axis]), replace(self, axis=self.axis + 1)  # type: ignore[call-arg]
        sides = inner.matrices(b, order)  # (size, ..., order, k)
        wide = transpose(sides, (*range(1, len(sides.shape)), 0))
        found = apply(self, a, self.row_of(reshape(wide, (*wide.shape[:-2], wide.shape[-2] * wide.shape[-1]))))
        apart = reshape(self.matrices(found, order), wide.shape)
        last = len(wide.shape) - 1
        return inner.row_of(transpose(apart, (last, *range(last))))

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        """A column of X depends on its matrix and on one column of B."""
        a, b = avals
        rows, count = numbers_without(b.shape, (self.axis,))
        sides = max(b.shape[self.axis] // max(self.order(a.shape[self.axis]), 1), 1)
        place = np.arange(b.shape[self.axis]) % sides
        columns = (rows * sides + place.reshape(-1, *(1 for _ in b.shape[self.axis + 1 :]))).reshape(-1)
        return [super().links(y, avals, known)[0], Links(columns, count * sides, columns)]


@op
class SolveTriangular(System):
    """The X of A X = B for triangular A: ((2, _ | 1, 4), (4 | 6)) -> (2 | 1). The other triangle is not read, nor a `unit` diagonal."""

    axis: int
    lower: bool
    unit: bool

    def numpy(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The kernel's operations, in its order, for all systems together."""
        if not b.size:
            return b.copy()
        n = math.isqrt(a.shape[self.axis])
        matrices, x = self.stacked(a, n), self.stacked(b, n)
        for k in range(n) if self.lower else reversed(range(n)):
            if not self.unit:
                x[:, k] /= matrices[:, k, k, None]
            rest = slice(k + 1, n) if self.lower else slice(0, k)
            x[:, rest] -= matrices[:, rest, k, None] * x[:, k, None]
        return self.unstacked(x, b)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value, b: Value) -> Value | None:
        """A dX = dB - dA X, where dA has the triangle of A."""
        moved, right = tangents
        if moved is not None:
            n = self.order(a.shape[self.axis])
            less = self.row_of(product(self._triangle(self.matrices(moved, n)), self.matrices(y, n)))
            right = -less if right is None else right - less
        return None if right is None else apply(self, a, right)

    def vjp(self, g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
        """The cotangent of B is G with A^T G = g, that of A the triangle of -G X^T."""
        n = self.order(a.shape[self.axis])
        found = apply(replace(self, lower=not self.lower), self.row_of(transposed(self.matrices(a, n))), g)
        outer = product(self.matrices(found, n), transposed(self.matrices(y, n)))
        return -self.row_of(self._triangle(outer)), found

    def _triangle(self, x: Value) -> Value:
        """Return matrices with zeros where this does not read them."""
        return triangle(x, -1 if self.unit else 0) if self.lower else transposed(triangle(transposed(x), -1 if self.unit else 0))

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"system": (avals[0].dtype, sum(aval.shape[self.axis] for aval in avals))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (system, start), n = room["system"], self.order(avals[0].shape[self.axis])
        sides = avals[1].shape[self.axis] // n
        width = n + sides
        with b.loop(n, hint="i") as i:
            for operand, columns, offset in ((0, n, 0), (1, sides, n)):
                with b.loop(columns, hint="j") as j:
                    b.store(system, start + i * width + j + offset, read(operand, i * columns + j))
        b.invoke(elimination.solve_triangular(system.dtype, n, width, self.lower, self.unit), (room["system"],))
        with b.loop(n, hint="i") as i, b.loop(sides, hint="j") as j:
            write(i * sides + j, b.load(system, start + i * width + j + n))


def solve_triangular(a: Value, b: Value, lower: bool = True, unit: bool = False) -> Value:
    """Return the X of A X = B for triangular matrices (..., n, n) and sides (..., n, k), along whose leading axes A is repeated."""
    return reshape(apply(SolveTriangular(len(b.shape) - 2, lower, unit), rows_beside(a, b), as_rows(b)), b.shape)
