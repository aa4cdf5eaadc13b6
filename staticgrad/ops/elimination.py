"""Factors of matrices, systems of equations solved with them, and what else is computed of factors.

The ops on matrices here have derivatives of their own. A pass makes each of them one of the matrix's factors, so that everything that is
asked of one matrix, derivatives and all steps of a loop included, shares one elimination.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from staticgrad.errors import ShapeError, VerificationError
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.graph import Graph, rebuild
from staticgrad.ir.node import Node, Value, apply, apply_all
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.casts import float_to_integer
from staticgrad.ops.matrices import OnMatrices, as_rows, identity, product, rows_beside, transposed, triangle
from staticgrad.ops.movement import Broadcast, broadcast, broadcast_to, concatenate, reshape, slice_axis
from staticgrad.ops.nested import zeros
from staticgrad.ops.triangular import System, solve_triangular


class OnFactors(OnMatrices):
    """Base of the ops on factors: n n elements of L and U, row after row, then n rows with which others were exchanged."""

    axis: int

    def order(self, length: int) -> int:
        order = math.isqrt(length)
        if order * (order + 1) != length:
            raise ShapeError(f"{self.name}: rows of {length} elements along axis {self.axis} are no factors of square matrices")
        return order


def unpacked(factors: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return stacks of the factors, each L and U in one matrix, and of the rows with which others were exchanged."""
    rows = np.moveaxis(factors, axis, -1)
    rows = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    n = math.isqrt(rows.shape[1])
    places = np.clip(float_to_integer(rows[:, n * n :], np.dtype(np.int64)), np.arange(n), n - 1)
    return rows[:, : n * n].reshape(len(rows), n, n), places


@op
class LU(OnMatrices):
    """Factors of A by elimination with partial pivoting: (1, 2 | 2, 2) -> (2, 2 | 0.5, 1), and exchanges (1, 1).

    P A = L U, where L has a diagonal of ones, which is not kept, and P exchanges each row in turn. A column without a pivot has zeros.
    """

    name = "lu"
    axis: int

    def length(self, *lengths: int) -> int:
        order = self.order(lengths[0])
        return order * (order + 1)

    def numpy(self, a: np.ndarray) -> np.ndarray:
        """The kernel's operations, in its order, for all matrices together. A NaN on the diagonal is a pivot, others are none."""
        n = math.isqrt(a.shape[self.axis])
        matrices = self.stacked(a, n)
        each, places = np.arange(len(matrices)), np.zeros((len(matrices), n), a.dtype)
        with np.errstate(all="ignore"):
            for k in range(n):
                size = np.abs(matrices[:, k:, k])
                place = np.asarray(k + np.argmax(np.where(np.isnan(size), -1, size), axis=1))
                place[np.isnan(size[:, 0])] = k
                places[:, k] = place
                matrices[each, k], matrices[each, place] = matrices[each, place], matrices[each, k]
                pivot = np.where(matrices[:, k, k] == 0, 1, matrices[:, k, k])
                matrices[:, k + 1 :, k] /= pivot[:, None]
                matrices[:, k + 1 :, k + 1 :] -= matrices[:, k + 1 :, k, None] * matrices[:, k, None, k + 1 :]
        return self.unstacked(np.concatenate([matrices.reshape(len(matrices), n * n), places], axis=1), a)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        """dL = L S and dU = M - S U, where M = L^-1 P dA, and S is the lower triangle of M U^-1 without the diagonal."""
        if tangents[0] is None:
            return None
        lower, upper, order = _triangles(self, y)
        moved = product(_permutation(self, y), self.matrices(tangents[0], self.order(a.shape[self.axis])))
        inner = solve_triangular(lower, moved, unit=True)
        turn = triangle(transposed(solve_triangular(transposed(upper), transposed(inner))), -1)
        return _packed(self, product(lower, turn), inner - product(turn, upper), order)

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        lower, upper, order = _triangles(self, y)
        both = self.matrices(slice_axis(g, self.axis, 0, order * order), order)
        to_lower, to_upper = triangle(both, -1), _upper(both)
        turn = triangle(product(transposed(lower), to_lower) - product(to_upper, transposed(upper)), -1)
        inner = to_upper + transposed(solve_triangular(upper, transposed(turn), lower=False))
        moved = solve_triangular(transposed(lower), inner, lower=False, unit=True)
        return (self.row_of(product(transposed(_permutation(self, y)), moved)),)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        length = avals[0].shape[self.axis]
        return {} if self.order(length) <= elimination.SMALL else {"matrix": (avals[0].dtype, self.length(length))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        length = avals[0].shape[self.axis]
        n = self.order(length)
        if not room:
            factors, exchanges = elimination.factor_small(b, [[read(0, Index(i * n + j)) for j in range(n)] for i in range(n)])
            for place, x in enumerate([*itertools.chain(*factors), *exchanges]):
                write(Index(place), x)
            return
        matrix, start = room["matrix"]
        with b.loop(length, hint="k") as k:
            b.store(matrix, start + k, read(0, k))
        b.invoke(elimination.factor(matrix.dtype, n), (room["matrix"],))
        with b.loop(length + n, hint="k") as k:
            write(k, b.load(matrix, start + k))


@op
class Permutation(OnFactors):
    """The P of P A = L U, of the factors of A: ones where the rows of A come from, zeros elsewhere."""

    axis: int

    def length(self, *lengths: int) -> int:
        return self.order(lengths[0]) ** 2

    def numpy(self, factors: np.ndarray) -> np.ndarray:
        _, places = unpacked(factors, self.axis)
        rows = np.tile(np.eye(places.shape[1], dtype=factors.dtype), (len(places), 1, 1))
        _exchanged(rows, places, range(places.shape[1]))
        return self.unstacked(rows, factors)

    def jvp(self, tangents: Sequence[Value | None], y: Value, factors: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, factors: Value) -> tuple[None]:
        return (None,)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"places": (avals[0].dtype, self.order(avals[0].shape[self.axis]))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (places, start), n = room["places"], self.order(avals[0].shape[self.axis])
        with b.loop(n, hint="k") as k:
            b.store(places, start + k, b.cast(b.position(k), places.dtype))
        with b.loop(n, hint="k") as k:
            elimination.exchange(b, places, start + k, start + elimination.exchange_of(b, lambda place: read(0, place), n, k))
        with b.loop(n, hint="i") as i, b.loop(n, hint="j") as j:
            here = b.eq(b.load(places, start + i), b.cast(b.position(j), places.dtype))
            write(i * n + j, b.select(here, b.literal(1, places.dtype), b.literal(0, places.dtype)))


@op
class SolveFactored(OnFactors, System):
    """The X of A X = B, or of A^T X = B if `turned`, given the factors of A.

    A pivot of 0 is divided by: the solution of a singular system has infinities and NaN.
    """

    axis: int
    turned: bool = False

    def numpy(self, factors: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The kernel's operations for all systems together; it adds in another order where there are few right-hand sides."""
        if not b.size:
            return b.copy()
        matrices, places = unpacked(factors, self.axis)
        n = places.shape[1]
        x = self.stacked(b, n)
        below, above = [slice(k + 1, n) for k in range(n)], [slice(0, k) for k in range(n)]

        def substitute(order: Sequence[int], rests: Sequence[slice], stack: np.ndarray, unit: bool) -> None:
            for k in order:
                if not unit:
                    x[:, k] /= stack[:, k, k, None]
                x[:, rests[k]] -= stack[:, rests[k], k, None] * x[:, k, None]

        with np.errstate(all="ignore"):
            if self.turned:
                turned = matrices.swapaxes(1, 2)
                substitute(range(n), below, turned, unit=False)
                substitute(range(n)[::-1], above, turned, unit=True)
                _exchanged(x, places, range(n)[::-1])
            else:
                _exchanged(x, places, range(n))
                substitute(range(n), below, matrices, unit=True)
                substitute(range(n)[::-1], above, matrices, unit=False)
        return self.unstacked(x, b)

    def jvp(self, tangents: Sequence[Value | None], y: Value, factors: Value, b: Value) -> Value | None:
        """A dX = dB - dA X, where P dA = dL U + L dU."""
        moved, right = tangents
        if moved is not None:
            lower, upper, order = _triangles(self, factors)
            both = self.matrices(slice_axis(moved, self.axis, 0, order * order), order)
            to_lower, to_upper = triangle(both, -1), _upper(both)
            permutation, x = _permutation(self, factors), self.matrices(y, order)
            if self.turned:
                x = product(permutation, x)
                less = product(transposed(upper), product(transposed(to_lower), x))
                less = less + product(transposed(to_upper), product(transposed(lower), x))
            else:
                less = product(to_lower, product(upper, x)) + product(lower, product(to_upper, x))
                less = product(transposed(permutation), less)
            right = -self.row_of(less) if right is None else right - self.row_of(less)
        return None if right is None else apply(self, factors, right)

    def vjp(self, g: Value, y: Value, factors: Value, b: Value) -> tuple[Value, Value]:
        found = apply(replace(self, turned=not self.turned), factors, g)
        lower, upper, order = _triangles(self, factors)
        left, right = (self.matrices(v, order) for v in ((y, found) if self.turned else (found, y)))
        moved = product(product(_permutation(self, factors), left), transposed(right))
        to_lower, to_upper = product(moved, transposed(upper)), product(transposed(lower), moved)
        return -_packed(self, triangle(to_lower, -1), to_upper, order), found

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        short = self.order(avals[0].shape[self.axis]) <= elimination.SHORT
        return {} if short else {"sides": (avals[1].dtype, avals[1].shape[self.axis])}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        n = self.order(avals[0].shape[self.axis])
        count = avals[1].shape[self.axis] // n

        def factors(place: Index) -> Scalar:
            return read(0, place)

        if not room:
            matrix = [[factors(Index(i * n + j)) for j in range(n)] for i in range(n)]
            places = [b.position(elimination.exchange_of(b, factors, n, Index(k))) for k in range(n)]
            with elimination.each_side(b, count) as c:
                side = [read(1, c + i * count) for i in range(n)]
                for place, x in enumerate(elimination.substitute_small(b, matrix, places, side, self.turned)):
                    write(c + place * count, x)
            return
        sides, start = room["sides"]
        steps = (1, n) if count < elimination.WIDE else (count, 1)
        with b.loop(n, hint="i") as i, elimination.each_side(b, count) as c:
            b.store(sides, start + i * steps[0] + c * steps[1], read(1, i * count + c))
        elimination.substitute(b, factors, sides, start, n, count, self.turned)
        with b.loop(n, hint="i") as i, elimination.each_side(b, count) as c:
            write(i * count + c, b.load(sides, start + i * steps[0] + c * steps[1]))


# ---- parts of factors


def _exchanged(x: np.ndarray, places: np.ndarray, order: Sequence[int]) -> None:
    """Exchange rows of each matrix of a stack, one exchange after the other."""
    each = np.arange(len(x))
    for k in order:
        x[each, k], x[each, places[:, k]] = x[each, places[:, k]], x[each, k]


def _triangles(op: OnMatrices, factors: Value) -> tuple[Value, Value, int]:
    """Return L and U as matrices, and their order."""
    order = math.isqrt(factors.shape[op.axis])
    both = op.matrices(slice_axis(factors, op.axis, 0, order * order), order)
    return triangle(both, -1) + identity(both.shape, both.dtype), _upper(both), order


def _permutation(op: OnMatrices, factors: Value) -> Value:
    return op.matrices(apply(Permutation(op.axis), factors), math.isqrt(factors.shape[op.axis]))


def _packed(op: OnMatrices, below: Value, above: Value, order: int) -> Value:
    """Return tangents or cotangents of L, which are 0 on and above the diagonal, and of U as those of factors."""
    rows = op.row_of(below + _upper(above))
    return concatenate([rows, zeros(rows.aval.with_shape((*rows.shape[: op.axis], order, *rows.shape[op.axis + 1 :])))], op.axis)


def _upper(x: Value) -> Value:
    return transposed(triangle(transposed(x)))


# ---- ops on matrices that a pass makes ops on factors


class ByFactors(OnMatrices):
    """Base of the ops of which a pass makes others, on the factors of their first operand."""

    axis: int

    def by_factors(self, factors: Value, *others: Value) -> Value:
        """Return the result, given the factors of the matrices."""
        raise VerificationError(f"{self.name} does not say what it is of {factors.aval} and {len(others)} other operands")


@op
class Solve(ByFactors, System):
    """The X of A X = B, or of A^T X = B if `turned`: ((2, 1 | 0, 3), (4 | 6)) -> (1 | 2).

    Matrices are rows along `axis`: n n elements of A, n k of B. The solution of a singular system has infinities and NaN; the others
    do not know of it.
    """

    axis: int
    turned: bool = False

    def numpy(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return SolveFactored(self.axis, self.turned).numpy(LU(self.axis).numpy(a), b)

    def by_factors(self, factors: Value, *others: Value) -> Value:
        return apply(SolveFactored(self.axis, self.turned), factors, *others)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value, b: Value) -> Value | None:
        """A dX = dB - dA X."""
        moved, right = tangents
        if moved is not None:
            n = self.order(a.shape[self.axis])
            matrices = self.matrices(moved, n)
            less = self.row_of(product(transposed(matrices) if self.turned else matrices, self.matrices(y, n)))
            right = -less if right is None else right - less
        return None if right is None else apply(self, a, right)

    def vjp(self, g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
        """The cotangent of B is G with A^T G = g, that of A is -G X^T, or its transpose if `turned`."""
        n = self.order(a.shape[self.axis])
        found = apply(replace(self, turned=not self.turned), a, g)
        left, right = (self.matrices(v, n) for v in ((y, found) if self.turned else (found, y)))
        return -self.row_of(product(left, transposed(right))), found


def factors_of(axis: int, a: Value) -> Value:
    """Return the factors of matrices; those of repeated ones are repeated."""
    if isinstance(a.op, Broadcast) and axis not in a.op.axes:
        inner = axis - sum(k < axis for k in a.op.axes)
        found = apply(LU(inner), a.node.inputs[0])
        return broadcast(found, (*a.shape[:axis], found.shape[inner], *a.shape[axis + 1 :]), a.op.axes)
    return apply(LU(axis), a)


def share_factors(graph: Graph, of: type[ByFactors] = ByFactors) -> Graph:
    """Return the graph with ops of one class on matrices as ops on the factors of those."""

    def replaced(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(node.op, of):
            return (node.op.by_factors(factors_of(node.op.axis, inputs[0]), *inputs[1:]),)
        return apply_all(node.op, *inputs, line=node.line)

    return rebuild(graph, replaced) if any(isinstance(node.op, of) for node in graph.nodes) else graph


# ---- on matrices in the last two axes


def solve(a: Value, b: Value, turned: bool = False) -> Value:
    """Return the X of A X = B, or of A^T X = B, for matrices (..., n, n) and sides (..., n, k), along whose leading axes A is repeated."""
    return reshape(apply(Solve(len(b.shape) - 2, turned), rows_beside(a, b), as_rows(b)), b.shape)


def lu(a: Value) -> tuple[Value, Value]:
    """Return the factors of matrices (..., n, n), L and U in one, and with which row each was exchanged, as floats (..., n)."""
    last, n = len(a.shape) - 2, a.shape[-1]
    found = apply(LU(last), as_rows(a))
    return reshape(slice_axis(found, last, 0, n * n), a.shape), slice_axis(found, last, n * n, n * n + n)


def solve_factored(factors: Value, exchanges: Value, b: Value, turned: bool = False) -> Value:
    """Return the X of A X = B, or of A^T X = B, given what `lu` returned of A, which is repeated along the leading axes of B."""
    rows = concatenate([as_rows(factors), exchanges], len(exchanges.shape) - 1)
    if rows.shape[:-1] != b.shape[:-2]:
        rows = broadcast_to(rows, (*b.shape[:-2], rows.shape[-1]))
    return reshape(apply(SolveFactored(len(b.shape) - 2, turned), rows, as_rows(b)), b.shape)
