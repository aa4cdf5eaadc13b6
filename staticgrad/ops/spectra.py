"""Eigenvalues of small symmetric matrices with their vectors, and what singular values have in common with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Buffer, Builder, Index, Scalar
from staticgrad.ir.node import Value, apply, full
from staticgrad.ir.op import op
from staticgrad.kernels import jacobi
from staticgrad.kernels.elimination import exchange
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.matrices import OnMatrices, as_rows, identity, mirrored, onto_triangle, product, transposed
from staticgrad.ops.movement import broadcast_to, concatenate, reshape, slice_axis
from staticgrad.ops.reduce import sum_


class Spectrum(OnMatrices):
    """Base of the ops whose results are several matrices, one after the other in a row; all NaN where an element is not finite."""

    axis: int

    def shapes(self, length: int) -> tuple[tuple[int, int], ...]:
        """Return the shapes of the matrices, for rows of operands of that length."""
        raise VerificationError(f"{self.name} does not say of which matrices its results for rows of {length} elements are")

    def length(self, *lengths: int) -> int:
        return sum(m * n for m, n in self.shapes(lengths[0]))

    def parts(self, y: Value, a: Value) -> tuple[Value, ...]:
        """Return the matrices of a row of results, or their cotangents."""
        found, start = [], 0
        for m, n in self.shapes(a.shape[self.axis]):
            found.append(self.matrices(slice_axis(y, self.axis, start, start + m * n), m, n))
            start += m * n
        return tuple(found)

    def joined(self, parts: Sequence[Value]) -> Value:
        """Return matrices as a row of results."""
        return concatenate([self.row_of(part) for part in parts], self.axis)

    def packed(self, parts: Sequence[np.ndarray], a: np.ndarray) -> np.ndarray:
        """Return stacks of matrices as rows of results, NaN for operands that are not finite."""
        flat = np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in parts], axis=1)
        flat[~np.isfinite(self.stacked(a, 1)).all((1, 2))] = np.nan
        return self.unstacked(flat, a)


@op
class Eigen(Spectrum):
    """Eigenvalues, the least one first, and eigenvectors as columns, of symmetric matrices: (2, _ | 0, 1) -> (1, 2 | 0, 1 | 1, 0).

    The upper triangle is not read.
    """

    axis: int

    def shapes(self, length: int) -> tuple[tuple[int, int], ...]:
        order = self.order(length)
        return (1, order), (order, order)

    def numpy(self, a: np.ndarray) -> np.ndarray:
        (_, n), _ = self.shapes(a.shape[self.axis])
        matrices = np.tril(self.stacked(a, n))
        matrices += np.tril(matrices, -1).swapaxes(1, 2)
        turned, vectors = matrices.copy(), np.tile(np.eye(n, dtype=a.dtype), (len(matrices), 1, 1))
        with np.errstate(all="ignore"):
            least = np.abs(matrices).max((1, 2), initial=0) * a.dtype.type(np.finfo(a.dtype).eps / 8)

            def pair(p: int, q: int, active: np.ndarray) -> np.ndarray:
                coupling = turned[:, p, q].copy()
                turns = active & (least < np.abs(coupling))
                angle = rotation(turned[:, q, q] - turned[:, p, p], coupling, turns)
                for array in (turned, vectors, turned.swapaxes(1, 2)):
                    turn(array, p, q, *angle)
                return turns  # type: ignore[no-any-return]

            sweep(n, len(matrices), pair)
        values = np.diagonal(turned, 0, 1, 2).copy()
        sort(values, (vectors,), descending=False)
        return self.packed((values, vectors), a)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        if tangents[0] is None:
            return None
        values, vectors = self.parts(y, a)
        inner = product(transposed(vectors), product(mirrored(self.matrices(tangents[0], vectors.shape[-1])), vectors))
        return self.joined((diagonal(inner), product(vectors, inner * inverse_gaps(values, values))))

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        (values, vectors), (to_values, to_vectors) = self.parts(y, a), self.parts(g, a)
        inner = product(transposed(vectors), to_vectors) * inverse_gaps(values, values) + on_diagonal(to_values)
        return (self.row_of(onto_triangle(product(vectors, product(inner, transposed(vectors))))),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        dtype, length = avals[0].dtype, avals[0].shape[self.axis]
        return {"matrix": (dtype, length), "vectors": (dtype, length)}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (matrix, start), (vectors, first) = room["matrix"], room["vectors"]
        n = self.order(avals[0].shape[self.axis])
        nothing = loaded(b, read, room["matrix"], n * n)
        with b.loop(n, hint="i") as i, b.loop(n, i + 1, hint="j") as j:
            b.store(matrix, start + i * n + j, b.load(matrix, start + j * n + i))
        b.invoke(jacobi.eigen(matrix.dtype, n), (room["matrix"], room["vectors"]))

        def swap(i: Index, j: Index) -> None:
            exchange(b, matrix, start + i * (n + 1), start + j * (n + 1))
            with b.loop(n, hint="k") as k:
                exchange(b, vectors, first + k * n + i, first + k * n + j)

        sorted_places(b, n, lambda i, j: b.lt(b.load(matrix, start + i * (n + 1)), b.load(matrix, start + j * (n + 1))), swap)
        with b.loop(n, hint="k") as k:
            write(k, b.add(b.load(matrix, start + k * (n + 1)), nothing))
        with b.loop(n * n, hint="k") as k:
            write(k + n, b.add(b.load(vectors, first + k), nothing))


# ---- in derivatives


def inverse_gaps(rows: Value, columns: Value) -> Value:
    """Return 1 / (columns_j - rows_i) for values (..., 1, n), and 0 where both are equal: what couples them has no derivative."""
    gaps = along_rows(columns) - along_columns(rows)
    same = equal(gaps, full(gaps.shape, 0, gaps.dtype))
    return where(
        same, full(gaps.shape, 0, gaps.dtype), full(gaps.shape, 1, gaps.dtype) / where(same, full(gaps.shape, 1, gaps.dtype), gaps)
    )


def along_rows(values: Value) -> Value:
    """Return values (..., 1, n) in each row of matrices (..., n, n)."""
    n = values.shape[-1]
    return broadcast_to(values, (*values.shape[:-2], n, n))


def along_columns(values: Value) -> Value:
    """Return values (..., 1, n) in each column of matrices (..., n, n)."""
    return transposed(along_rows(values))


def diagonal(x: Value) -> Value:
    """Return the diagonals of matrices (..., n, n) as (..., 1, n)."""
    last = len(x.shape) - 1
    return reshape(sum_(x * identity(x.shape, x.dtype), (last - 1,)), (*x.shape[:-2], 1, x.shape[-1]))


def on_diagonal(values: Value) -> Value:
    """Return values (..., 1, n) as diagonal matrices (..., n, n)."""
    wide = along_rows(values)
    return wide * identity(wide.shape, wide.dtype)


# ---- in kernels


def loaded(b: Builder, read: ReadRow, place: tuple[Buffer, Index], count: int) -> Scalar:
    """Read a row into scratch memory; return 0, or NaN if an element is not finite."""
    array, start = place
    nothing = b.variable(b.literal(0, array.dtype), "nothing")
    with b.loop(count, hint="k") as k:
        x = read(0, k)
        b.store(array, start + k, x)
        b.set(nothing, b.add(b.get(nothing), b.sub(x, x)))
    return b.get(nothing)


def sorted_places(b: Builder, count: int, before: Callable[[Index, Index], Scalar], exchange: Callable[[Index, Index], None]) -> None:
    """Exchange places until they are in order, each with the first of what belongs there."""
    with b.loop(count, hint="i") as i:
        place = b.variable(b.position(i), "place")
        with b.loop(count, i + 1, hint="j") as j, b.if_(before(j, Index.of(b.get(place)))):
            b.set(place, b.position(j))
        with b.if_(b.ne(b.position(i), b.get(place))):
            exchange(i, Index.of(b.get(place)))


# ---- the same on arrays


def sweep(columns: int, count: int, pair: Callable[[int, int, np.ndarray], np.ndarray]) -> None:
    """Go over all pairs of columns of a stack of matrices, each until none of its own is turned."""
    active = np.ones(count, bool)
    for _ in range(jacobi.MOST_SWEEPS):
        turned = np.zeros(count, bool)
        for p in range(columns):
            for q in range(p + 1, columns):
                turned |= pair(p, q, active)
        active = turned
        if not active.any():
            break


def rotation(difference: np.ndarray, coupling: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of the smaller of the angles that uncouple two columns; of 0 for what is not turned."""
    theta = difference / (coupling + coupling)
    tangent = 1 / (np.abs(theta) + np.sqrt(theta * theta + 1))
    tangent = np.where(theta < 0, -tangent, tangent)
    cosine = 1 / np.sqrt(tangent * tangent + 1)
    return np.where(turns, cosine, 1), np.where(turns, tangent * cosine, 0)


def turn(array: np.ndarray, p: int, q: int, cosine: np.ndarray, sine: np.ndarray) -> None:
    """Rotate two columns of each matrix of a stack."""
    x, y = array[:, :, p].copy(), array[:, :, q].copy()
    array[:, :, p] = cosine[:, None] * x - sine[:, None] * y
    array[:, :, q] = sine[:, None] * x + cosine[:, None] * y


def sort(values: np.ndarray, stacks: Sequence[np.ndarray], descending: bool) -> None:
    """Sort rows of values, and the columns of stacks of matrices with them."""
    each = np.arange(len(values))
    for k in range(values.shape[1]):
        rest = values[:, k:]
        place = k + (np.argmax(rest, 1) if descending else np.argmin(rest, 1))
        values[each, k], values[each, place] = values[each, place], values[each, k]
        for stack in stacks:
            stack[each, :, k], stack[each, :, place] = stack[each, :, place], stack[each, :, k]


# ---- on matrices in the last two axes


def eigen(a: Value) -> tuple[Value, Value]:
    """Return the eigenvalues (..., n) and the eigenvectors (..., n, n) of symmetric matrices."""
    op, rows = Eigen(len(a.shape) - 2), as_rows(a)
    values, vectors = op.parts(apply(op, rows), rows)
    return reshape(values, a.shape[:-1]), vectors
