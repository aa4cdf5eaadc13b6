"""Singular values of small matrices with their vectors, and pseudo-inverses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Buffer, Builder, Index, Scalar
from staticgrad.ir.node import Value, apply, full
from staticgrad.ir.op import op
from staticgrad.kernels import factorization, jacobi
from staticgrad.kernels.elimination import exchange
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.matrices import as_rows, identity, product, transposed
from staticgrad.ops.movement import broadcast_to, reshape
from staticgrad.ops.spectra import (
    Spectrum,
    along_columns,
    along_rows,
    diagonal,
    inverse_gaps,
    loaded,
    on_diagonal,
    rotation,
    sort,
    sorted_places,
    sweep,
    turn,
)


@op
class SingularValues(Spectrum):
    """U, S and V of A = U diag(S) V^T for matrices of `rows` rows and at most as many columns, the greatest value first.

    The columns of U and of V are at right angles to each other and have length 1; there are as many as A has columns.
    """

    axis: int
    rows: int

    def shapes(self, length: int) -> tuple[tuple[int, int], ...]:
        columns = length // max(self.rows, 1)
        if columns * self.rows != length or columns > self.rows:
            raise ShapeError(f"{self.name}: rows of {length} elements are no matrices of {self.rows} rows and at most as many columns")
        return (self.rows, columns), (1, columns), (columns, columns)

    def numpy(self, a: np.ndarray) -> np.ndarray:
        (m, n), _, _ = self.shapes(a.shape[self.axis])
        turned = self.stacked(a, m)
        with np.errstate(all="ignore"):
            vectors = _orthogonal_columns(turned)
            lengths = np.square(turned).sum(1)
            sort(lengths, (turned, vectors), descending=True)
            q, r = np.linalg.qr(turned) if n else (turned, vectors)
        values = np.diagonal(r, 0, 1, 2)
        return self.packed((q * np.where(values < 0, -1, 1)[:, None].astype(a.dtype), np.abs(values), vectors), a)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        if tangents[0] is None:
            return None
        u, s, v = self.parts(y, a)
        moved = product(self.matrices(tangents[0], self.rows), v)
        inner = product(transposed(u), moved)
        gaps = inverse_gaps(s * s, s * s)
        right, left = inner * along_rows(s), inner * along_columns(s)
        to_u = product(u, gaps * (right + transposed(right))) + _divided(moved - product(u, inner), s)
        to_v = product(v, gaps * (left + transposed(left)))
        return self.joined((to_u, diagonal(inner), to_v))

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        (u, s, v), (to_u, to_s, to_v) = self.parts(y, a), self.parts(g, a)
        gaps = inverse_gaps(s * s, s * s)
        by_u, by_v = product(transposed(u), to_u), product(transposed(v), to_v)
        turn_u, turn_v = gaps * (by_u - transposed(by_u)), gaps * (by_v - transposed(by_v))
        inner = turn_u * along_rows(s) + turn_v * along_columns(s) + on_diagonal(to_s)
        found = product(u, inner) + _divided(to_u - product(u, by_u), s)
        return (self.row_of(product(found, transposed(v))),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        dtype, length = avals[0].dtype, avals[0].shape[self.axis]
        (_, n), _, _ = self.shapes(length)
        return {"matrix": (dtype, length), "vectors": (dtype, n * n), "q": (dtype, length), "rest": (dtype, n)}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (m, n), _, _ = self.shapes(avals[0].shape[self.axis])
        (matrix, start), (vectors, first), (q, q_start), (rest, rest_start) = room.values()
        nothing = loaded(b, read, room["matrix"], m * n)
        b.invoke(jacobi.orthogonal_columns(matrix.dtype, m, n), (room["matrix"], room["vectors"]))
        with b.loop(n, hint="j") as j:
            b.store(rest, rest_start + j, _squares(b, matrix, start + j, m, n))

        def swap(i: Index, j: Index) -> None:
            exchange(b, rest, rest_start + i, rest_start + j)
            for array, begin, count in ((matrix, start, m), (vectors, first, n)):
                with b.loop(count, hint="k") as k:
                    exchange(b, array, begin + k * n + i, begin + k * n + j)

        sorted_places(b, n, lambda i, j: b.lt(b.load(rest, rest_start + j), b.load(rest, rest_start + i)), swap)
        b.invoke(factorization.qr(matrix.dtype, m, n), (room["matrix"], room["q"], room["rest"]))
        with b.loop(n, hint="j") as j:
            value = b.load(matrix, start + j * (n + 1))
            write(j + m * n, b.add(b.abs(value), nothing))
            negative = b.lt(value, b.like(0, value))
            with b.loop(m, hint="i") as i:
                x = b.load(q, q_start + i * n + j)
                write(i * n + j, b.add(b.select(negative, b.neg(x), x), nothing))
        with b.loop(n * n, hint="k") as k:
            write(k + (m * n + n), b.add(b.load(vectors, first + k), nothing))


@op
class PseudoInverse(Spectrum):
    """The pseudo-inverse of matrices of `rows` rows and at most as many columns; singular values up to `limit` are taken as 0.

    The limit is relative to the greatest of them. Derivatives are those of matrices whose rank does not change.

    References
    ----------
    G. H. Golub, V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate"
    (SIAM Journal on Numerical Analysis 10, 1973).
    """

    axis: int
    rows: int
    limit: float

    def shapes(self, length: int) -> tuple[tuple[int, int], ...]:
        (m, n), _, _ = SingularValues(self.axis, self.rows).shapes(length)
        return ((n, m),)

    def numpy(self, a: np.ndarray) -> np.ndarray:
        turned = self.stacked(a, self.rows)
        with np.errstate(all="ignore"):
            vectors = _orthogonal_columns(turned)
            lengths = np.square(turned).sum(1)
            counts = np.sqrt(lengths) > a.dtype.type(self.limit) * np.sqrt(lengths.max(1, initial=0))[:, None]
            weights = np.where(counts, 1 / np.where(counts, lengths, 1), 0)
            return self.packed(((vectors * weights[:, None]) @ turned.swapaxes(1, 2),), a)

    def _sides(self, y: Value, a: Value) -> tuple[Value, Value, Value]:
        """Return the pseudo-inverse P, 1 - A P and 1 - P A."""
        (found,), matrix = self.parts(y, a), self.matrices(a, self.rows)
        return found, _unit_less(product(matrix, found)), _unit_less(product(found, matrix))

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        """dP = -P dA P + P P^T dA^T (1 - A P) + (1 - P A) dA^T P^T P."""
        if tangents[0] is None:
            return None
        found, left, right = self._sides(y, a)
        moved = self.matrices(tangents[0], self.rows)
        turned = transposed(moved)
        inside = product(found, product(transposed(found), product(turned, left)))
        outside = product(right, product(turned, product(transposed(found), found)))
        return self.joined((inside + outside - product(found, product(moved, found)),))

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        (to_found,), (found, left, right) = self.parts(g, a), self._sides(y, a)
        across, turned = transposed(found), transposed(to_found)
        inside = product(left, product(turned, product(found, across)))
        outside = product(across, product(found, product(turned, right)))
        return (self.row_of(inside + outside - product(across, product(to_found, across))),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        dtype, length = avals[0].dtype, avals[0].shape[self.axis]
        ((n, _),) = self.shapes(length)
        return {"matrix": (dtype, length), "vectors": (dtype, n * n), "weights": (dtype, n)}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        ((n, m),) = self.shapes(avals[0].shape[self.axis])
        (matrix, start), (vectors, first), (weights, begin) = room.values()
        dtype = matrix.dtype
        nothing = loaded(b, read, room["matrix"], m * n)
        b.invoke(jacobi.orthogonal_columns(dtype, m, n), (room["matrix"], room["vectors"]))
        greatest = b.variable(b.literal(0, dtype), "greatest")
        with b.loop(n, hint="j") as j:
            total = _squares(b, matrix, start + j, m, n)
            b.store(weights, begin + j, total)
            b.set(greatest, b.max(b.get(greatest), total))
        least = b.mul(b.literal(self.limit, dtype), b.sqrt(b.get(greatest)))
        with b.loop(n, hint="j") as j:
            total = b.load(weights, begin + j)
            counts = b.lt(least, b.sqrt(total))
            one, zero = b.like(1, total), b.like(0, total)
            b.store(weights, begin + j, b.select(counts, b.div(one, b.select(counts, total, one)), zero))
        with b.loop(n, hint="i") as i, b.loop(m, hint="j") as j:
            found = b.variable(nothing, "found")
            with b.loop(n, hint="k") as k:
                part = b.mul(b.mul(b.load(vectors, first + i * n + k), b.load(weights, begin + k)), b.load(matrix, start + j * n + k))
                b.set(found, b.add(b.get(found), part))
            write(i * m + j, b.get(found))


# ---- parts


def _divided(x: Value, s: Value) -> Value:
    """Return the columns of x divided by singular values; 0 by those that are 0."""
    wide = broadcast_to(s, x.shape)
    zero, one = full(x.shape, 0, x.dtype), full(x.shape, 1, x.dtype)
    same = equal(wide, zero)
    return where(same, zero, x / where(same, one, wide))


def _unit_less(x: Value) -> Value:
    """Return 1 - x for square matrices."""
    return identity(x.shape, x.dtype) - x


def _squares(b: Builder, array: Buffer, start: Index, count: int, step: int) -> Scalar:
    """Return the sum of the squares of elements of an array."""
    total = b.variable(b.literal(0, array.dtype), "total")
    with b.loop(count, hint="i") as i:
        x = b.load(array, start + i * step)
        b.set(total, b.add(b.get(total), b.mul(x, x)))
    return b.get(total)


def _orthogonal_columns(turned: np.ndarray) -> np.ndarray:
    """Turn the columns of each matrix of a stack until they are at right angles; return the product of the rotations."""
    count, _, n = turned.shape
    vectors = np.tile(np.eye(n, dtype=turned.dtype), (count, 1, 1))
    epsilon = np.finfo(turned.dtype).eps

    def pair(p: int, q: int, active: np.ndarray) -> np.ndarray:
        x, y = turned[:, :, p], turned[:, :, q]
        first, second, coupling = ((one * other).sum(1) for one, other in ((x, x), (y, y), (x, y)))
        turns: np.ndarray = active & (np.sqrt(first) * np.sqrt(second) * epsilon < np.abs(coupling))
        angle = rotation(second - first, coupling, turns)
        for array in (turned, vectors):
            turn(array, p, q, *angle)
        return turns

    sweep(n, count, pair)
    return vectors


# ---- on matrices in the last two axes


def singular_values(a: Value) -> tuple[Value, Value, Value]:
    """Return U (..., m, k), the singular values (..., k), and V (..., n, k) of matrices (..., m, n), k the lesser of m and n."""
    if a.shape[-2] < a.shape[-1]:
        v, s, u = singular_values(transposed(a))
        return u, s, v
    op, rows = SingularValues(len(a.shape) - 2, a.shape[-2]), as_rows(a)
    u, s, v = op.parts(apply(op, rows), rows)
    return u, reshape(s, (*a.shape[:-2], a.shape[-1])), v


def pseudo_inverse(a: Value, limit: float) -> Value:
    """Return the pseudo-inverses (..., n, m) of matrices (..., m, n)."""
    if a.shape[-2] < a.shape[-1]:
        return transposed(pseudo_inverse(transposed(a), limit))
    op, rows = PseudoInverse(len(a.shape) - 2, a.shape[-2], float(limit)), as_rows(a)
    return op.parts(apply(op, rows), rows)[0]
