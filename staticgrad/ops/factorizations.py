"""Factorisations of small matrices: Cholesky's, and QR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder
from staticgrad.ir.node import Value, apply, constant
from staticgrad.ir.op import op
from staticgrad.kernels import factorization
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.matrices import OnMatrices, as_rows, mirrored, onto_triangle, product, transposed, triangle
from staticgrad.ops.movement import broadcast_to, concatenate, reshape, slice_axis
from staticgrad.ops.triangular import solve_triangular


@op
class Cholesky(OnMatrices):
    """The lower triangular L of A = L L^T: (4, _ | 2, 5) -> (2, 0 | 1, 2). The upper triangle of A is not read.

    All of L is NaN where A is not positive definite.
    """

    axis: int

    def length(self, *lengths: int) -> int:
        return self.order(lengths[0]) ** 2

    def numpy(self, a: np.ndarray) -> np.ndarray:
        n = math.isqrt(a.shape[self.axis])
        matrices = self.stacked(a, n)
        found = np.zeros_like(matrices)
        with np.errstate(invalid="ignore"):
            for j in range(n):
                column = matrices[:, j:, j].copy()
                for k in range(j):
                    column -= found[:, j:, k] * found[:, j, k, None]
                found[:, j, j] = np.sqrt(column[:, 0])
                found[:, j + 1 :, j] = column[:, 1:] / found[:, j, j, None]
        if n:
            found[np.isnan(found[:, -1, -1])] = np.nan
        return self.unstacked(found, a)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        """dL = L half(L^-1 dA L^-T), where half takes the lower triangle with one half of the diagonal."""
        if tangents[0] is None:
            return None
        n = self.order(a.shape[self.axis])
        lower, both = self.matrices(y, n), mirrored(self.matrices(tangents[0], n))
        inner = solve_triangular(lower, transposed(solve_triangular(lower, both)))
        return self.row_of(product(lower, halved(inner)))

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        n = self.order(a.shape[self.axis])
        lower = self.matrices(y, n)
        upper = transposed(lower)
        inner = halved(product(upper, self.matrices(g, n)))
        once = solve_triangular(upper, inner, lower=False)
        whole = transposed(solve_triangular(upper, transposed(once), lower=False))
        return (self.row_of(onto_triangle(whole)),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"matrix": (avals[0].dtype, avals[0].shape[self.axis])}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (matrix, start), n = room["matrix"], self.order(avals[0].shape[self.axis])
        with b.loop(n * n, hint="k") as k:
            b.store(matrix, start + k, read(0, k))
        b.invoke(factorization.cholesky(matrix.dtype, n), (room["matrix"],))
        last = b.load(matrix, start + (n * n - 1))
        nothing = b.select(b.is_nan(last), last, b.like(0, last))
        with b.loop(n, hint="i") as i, b.loop(n, hint="j") as j:
            below = b.le(b.position(j), b.position(i))
            write(i * n + j, b.select(b.and_(below, b.eq(last, last)), b.load(matrix, start + i * n + j), nothing))


# ---- QR


@op
class QR(OnMatrices):
    """Q and R of A = Q R, one after the other in a row, for matrices of `rows` rows and at most as many columns.

    The columns of Q are at right angles to each other and have length 1; R is upper triangular.
    """

    name = "qr"
    axis: int
    rows: int

    def columns(self, length: int) -> int:
        """Return the number of columns, for rows of operands of that length."""
        return length // max(self.rows, 1)

    def length(self, *lengths: int) -> int:
        columns = self.columns(lengths[0])
        if columns * self.rows != lengths[0] or columns > self.rows:
            raise ShapeError(f"{self.name}: rows of {lengths[0]} elements are no matrices of {self.rows} rows and at most as many columns")
        return (self.rows + columns) * columns

    def numpy(self, a: np.ndarray) -> np.ndarray:
        matrices = self.stacked(a, self.rows)
        q, r = np.linalg.qr(matrices) if matrices.shape[-1] else (matrices, matrices[:, :0])
        parts = [part.reshape(len(matrices), part.shape[1] * part.shape[2]) for part in (q, r)]
        return self.unstacked(np.concatenate(parts, axis=1).astype(a.dtype, copy=False), a)

    def parts(self, y: Value, a: Value) -> tuple[Value, Value]:
        """Return Q and R, or their cotangents, as matrices."""
        columns, length = self.columns(a.shape[self.axis]), a.shape[self.axis]
        return (
            self.matrices(slice_axis(y, self.axis, 0, length), self.rows),
            self.matrices(slice_axis(y, self.axis, length, length + columns**2), columns),
        )

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        """dQ = Q S + (1 - Q Q^T) dA R^-1, dR = (Q^T dA R^-1 - S) R, where S is antisymmetric with the lower triangle of Q^T dA R^-1."""
        if tangents[0] is None:
            return None
        q, r = self.parts(y, a)
        moved = _over(self.matrices(tangents[0], self.rows), r)
        inner = product(transposed(q), moved)
        below = triangle(inner, -1)
        turn = below - transposed(below)
        parts = product(q, turn - inner) + moved, product(inner - turn, r)
        return concatenate([self.row_of(part) for part in parts], self.axis)

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        (q, r), (to_q, to_r) = self.parts(y, a), self.parts(g, a)
        inner = product(r, transposed(to_r)) - product(transposed(to_q), q)
        mirrored = triangle(inner) + transposed(triangle(inner, -1))
        found = to_q + product(q, mirrored)
        return (self.row_of(transposed(solve_triangular(r, transposed(found), lower=False))),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        dtype, length = avals[0].dtype, avals[0].shape[self.axis]
        return {"matrix": (dtype, length), "q": (dtype, length), "taus": (dtype, self.columns(length))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        length = avals[0].shape[self.axis]
        columns = self.columns(length)
        (matrix, start), (q, q_start) = room["matrix"], room["q"]
        with b.loop(length, hint="k") as k:
            b.store(matrix, start + k, read(0, k))
        b.invoke(factorization.qr(matrix.dtype, self.rows, columns), tuple(room.values()))
        with b.loop(length, hint="k") as k:
            write(k, b.load(q, q_start + k))
        with b.loop(columns, hint="i") as i, b.loop(columns, hint="j") as j:
            x = b.load(matrix, start + i * columns + j)
            write(i * columns + j + length, b.select(b.le(b.position(i), b.position(j)), x, b.like(0, x)))


# ---- on matrices in the last two axes


def halved(x: Value) -> Value:
    """Return the lower triangle of square matrices with one half of the diagonal."""
    weights = np.tril(np.ones(x.shape[-2:])) - np.eye(x.shape[-1]) / 2
    return triangle(x) * broadcast_to(constant(weights.astype(x.dtype)), x.shape)


def _over(x: Value, r: Value) -> Value:
    """Return X R^-1 for upper triangular R."""
    return transposed(solve_triangular(transposed(r), transposed(x)))


def cholesky(a: Value) -> Value:
    """Return the factors L of A = L L^T for matrices (..., n, n), whose upper triangles are not read."""
    return reshape(apply(Cholesky(len(a.shape) - 2), as_rows(a)), a.shape)


def qr(a: Value) -> tuple[Value, Value]:
    """Return Q and R of matrices (..., m, n); of a wide one, those of its first m columns, and Q^T times the others."""
    last, wide = len(a.shape) - 1, a.shape[-1] - a.shape[-2]
    if wide > 0:
        q, r = qr(slice_axis(a, last, 0, a.shape[-2]))
        return q, concatenate([r, product(transposed(q), slice_axis(a, last, a.shape[-2], a.shape[-1]))], last)
    op = QR(len(a.shape) - 2, a.shape[-2])
    rows = as_rows(a)
    return op.parts(apply(op, rows), rows)
