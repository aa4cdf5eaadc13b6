"""Eigenvalues of symmetric matrices, and singular values, by Jacobi's rotations: as accurate as any method, and small.

Both go round over all pairs of columns until none is left that has to be turned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from staticgrad.ir.aval import INT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar
from staticgrad.kernels.elimination import parameter

MOST_SWEEPS = 30
"""Far more than there ever are: about log2 of the number of columns, and five or six more."""

Turn = Callable[[Scalar, Scalar], None]
"""Takes the cosine and the sine of a rotation."""


@functools.cache
def eigen(dtype: np.dtype, order: int) -> Function:
    """Return a function that turns a symmetric matrix into a diagonal one, and puts the product of the rotations into another array.

    References
    ----------
    G. H. Golub, C. F. Van Loan, "Matrix Computations" (Johns Hopkins, 2013), section 8.5.
    """
    b = Builder()
    matrix, vectors = parameter("matrix", dtype), parameter("vectors", dtype)
    _set_unit(b, vectors, order)
    size = b.variable(b.literal(0, dtype), "size")
    with b.loop(order * order, hint="k") as k:
        b.set(size, b.max(b.get(size), b.abs(b.load(matrix, k))))
    least = b.mul(b.get(size), b.literal(np.finfo(dtype).eps / 8, dtype))

    def pair(p: Index, q: Index, turned: Callable[[], None]) -> None:
        coupling = b.load(matrix, p * order + q)
        with b.if_(b.lt(least, b.abs(coupling))):
            turned()
            difference = b.sub(b.load(matrix, q * order + q), b.load(matrix, p * order + p))
            cosine, sine = _rotation(b, difference, coupling)
            for array in (matrix, vectors):
                with b.loop(order, hint="k") as k:
                    _turn(b, array, k * order + p, k * order + q, cosine, sine)
            with b.loop(order, hint="k") as k:
                _turn(b, matrix, p * order + k, q * order + k, cosine, sine)

    _sweep(b, order, pair)
    return Function(f"eigen_{dtype.name}_{order}", (matrix, vectors), (), b.root, f"Turn a symmetric matrix of {order} rows diagonal")


@functools.cache
def orthogonal_columns(dtype: np.dtype, rows: int, columns: int) -> Function:
    """Return a function that turns the columns of a matrix until they are at right angles, and keeps the product of the rotations.

    References
    ----------
    M. R. Hestenes, "Inversion of matrices by biorthogonalization and related results" (Journal of the SIAM 6, 1958).
    """
    b = Builder()
    matrix, vectors = parameter("matrix", dtype), parameter("vectors", dtype)
    _set_unit(b, vectors, columns)

    def pair(p: Index, q: Index, turned: Callable[[], None]) -> None:
        first, second, coupling = (b.variable(b.literal(0, dtype), hint) for hint in ("first", "second", "coupling"))
        with b.loop(rows, hint="k") as k:
            x, y = b.load(matrix, k * columns + p), b.load(matrix, k * columns + q)
            for total, term in ((first, b.mul(x, x)), (second, b.mul(y, y)), (coupling, b.mul(x, y))):
                b.set(total, b.add(b.get(total), term))
        least = b.mul(b.mul(b.sqrt(b.get(first)), b.sqrt(b.get(second))), b.literal(np.finfo(dtype).eps, dtype))
        with b.if_(b.lt(least, b.abs(b.get(coupling)))):
            turned()
            cosine, sine = _rotation(b, b.sub(b.get(second), b.get(first)), b.get(coupling))
            for array, count in ((matrix, rows), (vectors, columns)):
                with b.loop(count, hint="k") as k:
                    _turn(b, array, k * columns + p, k * columns + q, cosine, sine)

    _sweep(b, columns, pair)
    title = f"Turn the {columns} columns of a matrix of {rows} rows until they are at right angles"
    return Function(f"orthogonal_columns_{dtype.name}_{rows}_{columns}", (matrix, vectors), (), b.root, title)


def _set_unit(b: Builder, array: Buffer, order: int) -> None:
    with b.loop(order, hint="row") as i, b.loop(order, hint="column") as j:
        one, zero = b.literal(1, array.dtype), b.literal(0, array.dtype)
        b.store(array, i * order + j, b.select(b.eq(b.position(i), b.position(j)), one, zero))


def _rotation(b: Builder, difference: Scalar, coupling: Scalar) -> tuple[Scalar, Scalar]:
    """Return cosine and sine of the smaller of the angles that uncouple two columns."""
    one = b.like(1, coupling)
    theta = b.div(difference, b.add(coupling, coupling))
    tangent = b.div(one, b.add(b.abs(theta), b.sqrt(b.add(b.mul(theta, theta), one))))
    tangent = b.select(b.lt(theta, b.like(0, theta)), b.neg(tangent), tangent)
    cosine = b.div(one, b.sqrt(b.add(b.mul(tangent, tangent), one)))
    return cosine, b.mul(tangent, cosine)


def _turn(b: Builder, array: Buffer, one: Index, other: Index, cosine: Scalar, sine: Scalar) -> None:
    """Rotate two elements of an array."""
    x, y = b.load(array, one), b.load(array, other)
    b.store(array, one, b.sub(b.mul(cosine, x), b.mul(sine, y)))
    b.store(array, other, b.add(b.mul(sine, x), b.mul(cosine, y)))


def _sweep(b: Builder, columns: int, pair: Callable[[Index, Index, Callable[[], None]], None]) -> None:
    """Go over all pairs of columns until none is turned."""
    zero, one = b.literal(0, INT64), b.literal(1, INT64)
    sweeps, turning = b.variable(zero, "sweeps"), b.variable(one, "turning")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.and_(b.ne(b.get(turning), zero), b.lt(b.get(sweeps), b.literal(MOST_SWEEPS, INT64))))
        with parts.body():
            b.set(turning, zero)
            b.set(sweeps, b.add(b.get(sweeps), one))
            with b.loop(columns, hint="p") as p, b.loop(columns, p + 1, hint="q") as q:
                pair(p, q, lambda: b.set(turning, one))
