"""Linear algebra on small matrices: systems of equations, solved where they stand in a graph, one row of memory a system."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.ops.along import Along, ReadRow, Room, WriteRow
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import concatenate, reshape, slice_axis, transpose


@op
class Solve(Along):
    """The solutions of systems of linear equations, each a row along `axis`: ((2, 1 | 4), (0, 3 | 6)) -> (1, 2).

    A row holds the (order, order + k) elements of a matrix with k right-hand sides beside it, the result the (order, k) solutions.
    Where elimination with partial pivoting meets a pivot of 0 it divides by it: a singular system has infinities and NaN in its
    solutions, and the others do not know of it.
    """

    axis: int
    order: int
    cost = 60

    def infer(self, *avals: Aval) -> Aval:
        if not is_float(avals[0].dtype):
            raise DTypeError(f"{self.name}: {avals[0]} does not hold floats")
        return super().infer(*avals)

    def result(self, aval: Aval) -> Aval:
        size, square = aval.shape[self.axis], self.order**2
        if size < square or (self.order and size % self.order):
            raise ShapeError(f"{self.name}: {size} elements are no {self.order} equations with their right-hand sides")
        return Aval((*aval.shape[: self.axis], size - square, *aval.shape[self.axis + 1 :]), aval.dtype)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        """The kernel's operations, in its order, for all systems together."""
        rows = np.moveaxis(x, self.axis, -1)
        n, shape = self.order, rows.shape
        if not n or not x.size:
            return np.zeros(self.infer(Aval(x.shape, x.dtype)).shape, x.dtype)
        systems = rows.reshape(-1, n, shape[-1] // n).copy()
        each = np.arange(len(systems))
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
        return np.moveaxis(systems[:, :, n:].reshape(*shape[:-1], -1), -1, self.axis)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        """A dX = dB - dA X."""
        if tangents[0] is None:
            return None
        (a, _), (moved, right) = self._parts(x), self._parts(tangents[0])
        return self._row(solve(a, right - _product(moved, self._matrices(y))))

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        """The cotangent of B is G with A^T G = g, that of A is -G X^T."""
        a, _ = self._parts(x)
        found = solve(_transposed(a), self._matrices(g))
        return (self._row(concatenate((-_product(found, _transposed(self._matrices(y))), found), len(found.shape) - 1)),)

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return apply(Solve(self.axis + 1, self.order), x)

    def room(self, dtype: np.dtype, length: int) -> dict[str, np.dtype]:
        return {"system": dtype}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, length: int, room: Room) -> None:
        system, start = room["system"]
        n, width = self.order, length // self.order
        with b.loop(length, hint="k") as k:
            b.store(system, start + k, read(k))
        b.invoke(elimination.solve(system.dtype, n, width), (room["system"],))
        with b.loop(n, hint="i") as i, b.loop(width - n, hint="j") as j:
            write(i * (width - n) + j, b.load(system, start + i * width + j + n))

    def _matrices(self, rows: Value) -> Value:
        """Return rows as matrices in the last two axes."""
        last = len(rows.shape) - 1
        moved = transpose(rows, (*(k for k in range(last + 1) if k != self.axis), self.axis))
        return reshape(moved, (*moved.shape[:-1], self.order, moved.shape[-1] // max(self.order, 1)))

    def _row(self, matrices: Value) -> Value:
        """Return matrices in the last two axes as rows along `axis`."""
        flat = reshape(matrices, (*matrices.shape[:-2], matrices.shape[-2] * matrices.shape[-1]))
        last = len(flat.shape) - 1
        return transpose(flat, (*range(self.axis), last, *range(self.axis, last)))

    def _parts(self, rows: Value) -> tuple[Value, Value]:
        """Return the matrices and the right-hand sides of systems."""
        systems = self._matrices(rows)
        last, width = len(systems.shape) - 1, systems.shape[-1]
        return slice_axis(systems, last, 0, self.order), slice_axis(systems, last, self.order, width)


def solve(a: Value, b: Value) -> Value:
    """Return the X of A X = B for matrices (..., n, n) and right-hand sides (..., n, k) with the same leading axes."""
    order, leading = a.shape[-1], a.shape[:-2]
    systems = concatenate((a, b), len(leading) + 1)
    rows = reshape(systems, (*leading, order * systems.shape[-1]))
    return reshape(apply(Solve(len(leading), order), rows), b.shape)


def _transposed(x: Value) -> Value:
    last = len(x.shape) - 1
    return transpose(x, (*range(last - 1), last, last - 1))


def _product(x: Value, y: Value) -> Value:
    """Return the products of matrices in the last two axes."""
    last = len(x.shape) - 1
    leading = tuple(range(last - 1))
    return contract(x, y, (*leading, last - 1, last), (*leading, last, last + 1), (*leading, last - 1, last + 1))
