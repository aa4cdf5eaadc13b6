"""Operations on small matrices: each matrix is a row of memory, which a core has for itself while it works on it."""

from __future__ import annotations

import math

import numpy as np

from staticgrad.errors import DTypeError, ShapeError, VerificationError
from staticgrad.ir.aval import Aval, Shape, is_float
from staticgrad.ir.node import Value, constant
from staticgrad.ops.along import Along
from staticgrad.ops.comparison import where_zero
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import broadcast_to, reshape, transpose


class OnMatrices(Along):
    """Base of the ops that take matrices of floats, each one a row along `axis`."""

    axis: int
    cost = 60

    def infer(self, *avals: Aval) -> Aval:
        first = avals[0]
        if any(aval.dtype != first.dtype for aval in avals) or not is_float(first.dtype):
            raise DTypeError(f"{self.name}: {' and '.join(map(str, avals))} do not hold floats of one dtype")
        if not 0 <= self.axis < first.rank or any(a.without((self.axis,)).shape != first.without((self.axis,)).shape for a in avals):
            raise ShapeError(f"{self.name}: {' and '.join(map(str, avals))} differ in axes other than {self.axis}")
        length = self.length(*(aval.shape[self.axis] for aval in avals))
        return Aval((*first.shape[: self.axis], length, *first.shape[self.axis + 1 :]), first.dtype)

    def length(self, *lengths: int) -> int:
        """Return how long rows of the result are, for operands with rows of these lengths."""
        raise VerificationError(f"{self.name} does not say how long its results are for rows of {lengths} elements")

    def order(self, length: int) -> int:
        """Return the number of rows of a square matrix."""
        order = math.isqrt(length)
        if order**2 != length:
            raise ShapeError(f"{self.name}: rows of {length} elements along axis {self.axis} are no square matrices")
        return order

    def matrices(self, rows: Value, count: int, columns: int | None = None) -> Value:
        """Return rows as matrices with `count` rows, and so many columns as there are elements for, in the last two axes."""
        last = len(rows.shape) - 1
        moved = transpose(rows, (*(k for k in range(last + 1) if k != self.axis), self.axis))
        return reshape(moved, (*moved.shape[:-1], count, moved.shape[-1] // max(count, 1) if columns is None else columns))

    def row_of(self, matrices: Value) -> Value:
        """Return matrices in the last two axes as rows along `axis`."""
        flat = reshape(matrices, (*matrices.shape[:-2], matrices.shape[-2] * matrices.shape[-1]))
        last = len(flat.shape) - 1
        return transpose(flat, (*range(self.axis), last, *range(self.axis, last)))

    def stacked(self, x: np.ndarray, count: int) -> np.ndarray:
        """Return rows as a stack of matrices with `count` rows each."""
        rows = np.moveaxis(x, self.axis, -1)
        return np.array(rows.reshape(math.prod(rows.shape[:-1]), count, rows.shape[-1] // max(count, 1)))

    def unstacked(self, found: np.ndarray, like: np.ndarray) -> np.ndarray:
        """Return a stack of results as rows where they belong, beside an operand."""
        shape = like.shape[: self.axis] + like.shape[self.axis + 1 :]
        return np.moveaxis(found.reshape(*shape, math.prod(found.shape[1:])), -1, self.axis)


# ---- on matrices in the last two axes


def as_rows(x: Value) -> Value:
    """Return matrices in the last two axes as rows along one: (..., m, n) -> (..., m n)."""
    return reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def rows_beside(a: Value, b: Value) -> Value:
    """Return matrices as rows, repeated along the leading axes of other matrices."""
    rows = as_rows(a)
    return rows if rows.shape[:-1] == b.shape[:-2] else broadcast_to(rows, (*b.shape[:-2], rows.shape[-1]))


def transposed(x: Value) -> Value:
    """Return matrices with their last two axes exchanged."""
    last = len(x.shape) - 1
    return transpose(x, (*range(last - 1), last, last - 1))


def product(x: Value, y: Value) -> Value:
    """Return the products of matrices in the last two axes."""
    last = len(x.shape) - 1
    leading = tuple(range(last - 1))
    return contract(x, y, (*leading, last - 1, last), (*leading, last, last + 1), (*leading, last - 1, last + 1))


def identity(shape: Shape, dtype: np.dtype) -> Value:
    """Return matrices of a shape with ones on the diagonal and zeros elsewhere."""
    return broadcast_to(constant(np.eye(*shape[-2:], dtype=dtype)), shape)


def triangle(x: Value, offset: int = 0) -> Value:
    """Return the lower triangle of matrices, up to a diagonal; zeros elsewhere."""
    kept = np.tri(x.shape[-2], x.shape[-1], offset, bool)
    return where_zero(broadcast_to(constant(kept), x.shape), x)


def mirrored(x: Value) -> Value:
    """Return the symmetric matrices with the lower triangles of x."""
    return triangle(x) + transposed(triangle(x, -1))


def onto_triangle(x: Value) -> Value:
    """Return lower triangles to which the upper ones of x are added: the transpose of `mirrored`."""
    return triangle(x) + triangle(transposed(x), -1)
