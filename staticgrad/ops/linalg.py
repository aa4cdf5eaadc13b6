"""Linear algebra on small matrices: systems of equations, solved where they stand in a graph, each matrix a row of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.builder import Builder
from staticgrad.ir.links import Links, numbers_without
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.ops.along import Along, ReadRow, Room, WriteRow
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import reshape, transpose


@op
class Solve(Along):
    """The X of A X = B: ((2, 1 | 0, 3), (4 | 6)) -> (1 | 2). Matrices are rows along `axis`: n n elements of A, n k of B.

    Where elimination with partial pivoting meets a pivot of 0 it divides by it: a singular system has infinities and NaN in its
    solutions, and the others do not know of it.
    """

    axis: int
    cost = 60

    def infer(self, *avals: Aval) -> Aval:
        a, b = avals
        if a.dtype != b.dtype or not is_float(a.dtype):
            raise DTypeError(f"{self.name}: {a} and {b} do not hold floats of one dtype")
        if not 0 <= self.axis < a.rank or a.without((self.axis,)).shape != b.without((self.axis,)).shape:
            raise ShapeError(f"{self.name}: {a} and {b} differ in axes other than {self.axis}")
        order, size = self.order(a), b.shape[self.axis]
        if order**2 != a.shape[self.axis] or (size % order if order else size):
            raise ShapeError(f"{self.name}: {a} and {b} are no square matrices with right-hand sides along axis {self.axis}")
        return Aval(b.shape, b.dtype)

    def order(self, a: Aval) -> int:
        """Return the number of equations."""
        return math.isqrt(a.shape[self.axis])

    def numpy(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The kernel's operations, in its order, for all systems together."""
        if not b.size:
            return b.copy()
        rows = np.moveaxis(b, self.axis, -1)
        n = math.isqrt(a.shape[self.axis])
        count = rows.size // rows.shape[-1]
        systems = np.concatenate([np.moveaxis(a, self.axis, -1).reshape(count, n, n), rows.reshape(count, n, -1)], axis=2)
        each = np.arange(count)
        for k in range(n):
            size = np.abs(systems[:, k:, k])
            place = k + np.argmax(np.where(np.isnan(size), -1, size), axis=1)
            place[np.isnan(size[:, 0])] = k
            systems[each, k], systems[each, place] = systems[each, place], systems[each, k]
            factors = systems[:, k + 1 :, k] / systems[:, k, k, None]
            systems[:, k + 1 :, k + 1 :] -= factors[:, :, None] * systems[:, k, None, k + 1 :]
        for k in reversed(range(n)):
            systems[:, k, n:] /= systems[:, k, k, None]
            systems[:, :k, n:] -= systems[:, :k, k, None] * systems[:, k, None, n:]
        return np.moveaxis(systems[:, :, n:].reshape(rows.shape), -1, self.axis)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value, b: Value) -> Value | None:
        """A dX = dB - dA X."""
        moved, right = tangents
        if moved is not None:
            product = self._row(_product(self._matrices(moved, a), self._matrices(y, a)))
            right = -product if right is None else right - product
        return None if right is None else apply(self, a, right)

    def vjp(self, g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
        """The cotangent of B is G with A^T G = g, that of A is -G X^T."""
        found = apply(self, self._row(_transposed(self._matrices(a, a))), g)
        return -self._row(_product(self._matrices(found, a), _transposed(self._matrices(y, a)))), found

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        """A column of X depends on its matrix and on one column of B."""
        a, b = avals
        rows, count = numbers_without(b.shape, (self.axis,))
        sides = max(b.shape[self.axis] // max(self.order(a), 1), 1)
        place = np.arange(b.shape[self.axis]) % sides
        columns = (rows * sides + place.reshape(-1, *(1 for _ in b.shape[self.axis + 1 :]))).reshape(-1)
        return [super().links(y, avals, known)[0], Links(columns, count * sides, columns)]

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        """Systems with one matrix become one system with more right-hand sides."""
        a, b = x
        order = self.order(a.aval)
        if batched[0] or not order:
            return super().batch(size, batched, *x)
        sides = Solve(self.axis + 1)._matrices(b, a, order)  # (size, ..., order, k)
        wide = transpose(sides, (*range(1, len(sides.shape)), 0))
        found = apply(self, a, self._row(reshape(wide, (*wide.shape[:-2], wide.shape[-2] * size))))
        apart = reshape(self._matrices(found, a), wide.shape)
        last = len(wide.shape) - 1
        return Solve(self.axis + 1)._row(transpose(apart, (last, *range(last))))

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"system": (avals[0].dtype, sum(aval.shape[self.axis] for aval in avals))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (system, start), n = room["system"], self.order(avals[0])
        sides = avals[1].shape[self.axis] // n
        width = n + sides
        with b.loop(n, hint="i") as i:
            for operand, columns, offset in ((0, n, 0), (1, sides, n)):
                with b.loop(columns, hint="j") as j:
                    b.store(system, start + i * width + j + offset, read(operand, i * columns + j))
        b.invoke(elimination.solve(system.dtype, n, width), (room["system"],))
        with b.loop(n, hint="i") as i, b.loop(sides, hint="j") as j:
            write(i * sides + j, b.load(system, start + i * width + j + n))

    def _matrices(self, rows: Value, a: Value, order: int | None = None) -> Value:
        """Return rows as matrices in the last two axes, as many rows each as the matrices `a` have."""
        last = len(rows.shape) - 1
        order = self.order(a.aval) if order is None else order
        moved = transpose(rows, (*(k for k in range(last + 1) if k != self.axis), self.axis))
        return reshape(moved, (*moved.shape[:-1], order, moved.shape[-1] // max(order, 1)))

    def _row(self, matrices: Value) -> Value:
        """Return matrices in the last two axes as rows along `axis`."""
        flat = reshape(matrices, (*matrices.shape[:-2], matrices.shape[-2] * matrices.shape[-1]))
        last = len(flat.shape) - 1
        return transpose(flat, (*range(self.axis), last, *range(self.axis, last)))


def solve(a: Value, b: Value) -> Value:
    """Return the X of A X = B for matrices (..., n, n) and right-hand sides (..., n, k) with the same leading axes."""
    leading = a.shape[:-2]
    rows = [reshape(v, (*leading, v.shape[-2] * v.shape[-1])) for v in (a, b)]
    return reshape(apply(Solve(len(leading)), *rows), b.shape)


def _transposed(x: Value) -> Value:
    last = len(x.shape) - 1
    return transpose(x, (*range(last - 1), last, last - 1))


def _product(x: Value, y: Value) -> Value:
    """Return the products of matrices in the last two axes."""
    last = len(x.shape) - 1
    leading = tuple(range(last - 1))
    return contract(x, y, (*leading, last - 1, last), (*leading, last, last + 1), (*leading, last - 1, last + 1))
