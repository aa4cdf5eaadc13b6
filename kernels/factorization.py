"""Factorisations of small matrices: Cholesky's, and QR by Householder's reflections. Matrices are row after row."""

from __future__ import annotations

import functools

import numpy as np

from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index
from staticgrad.kernels.elimination import parameter


@functools.cache
def cholesky(dtype: np.dtype, order: int) -> Function:
    """Return a function that puts L with A = L L^T in place of the lower triangle of A; NaN from where A is not positive definite on."""
    b, matrix = Builder(), parameter("matrix", dtype)

    def less_products(row: Index, j: Index) -> None:
        """Subtract the product of two rows of L, as far as it is known, from an element."""
        rest = b.variable(b.load(matrix, row * order + j), "rest")
        with b.loop(j, hint="k") as k:
            b.set(rest, b.sub(b.get(rest), b.mul(b.load(matrix, row * order + k), b.load(matrix, j * order + k))))
        b.store(matrix, row * order + j, b.get(rest))

    with b.loop(order, hint="column") as j:
        less_products(j, j)
        b.store(matrix, j * order + j, b.sqrt(b.load(matrix, j * order + j)))
        with b.loop(order, j + 1, hint="row") as i:
            less_products(i, j)
            b.store(matrix, i * order + j, b.div(b.load(matrix, i * order + j), b.load(matrix, j * order + j)))
    return Function(f"cholesky_{dtype.name}_{order}", (matrix,), (), b.root, f"Factor a matrix of {order} rows as L L^T, column by column")


@functools.cache
def qr(dtype: np.dtype, rows: int, columns: int) -> Function:
    """Return a function that puts R in place of the upper triangle of A, and Q into another array of the same shape.

    Below the diagonal of A stand the reflections 1 - tau v v^T afterwards, whose v begin with 1, and their tau in a third array.
    """
    b = Builder()
    matrix, q, taus = (parameter(name, dtype) for name in ("matrix", "q", "taus"))

    def reflect(target: Buffer, j: Index, first: Index | int) -> None:
        """Apply reflection j to the columns of an array from `first` on."""
        with b.loop(columns, first, hint="column") as c:
            total = b.variable(b.load(target, j * columns + c), "total")
            with b.loop(rows, j + 1, hint="row") as i:
                b.set(total, b.add(b.get(total), b.mul(b.load(matrix, i * columns + j), b.load(target, i * columns + c))))
            part = b.mul(b.load(taus, j), b.get(total))
            b.store(target, j * columns + c, b.sub(b.load(target, j * columns + c), part))
            with b.loop(rows, j + 1, hint="row") as i:
                b.store(target, i * columns + c, b.sub(b.load(target, i * columns + c), b.mul(part, b.load(matrix, i * columns + j))))

    with b.loop(columns, hint="j") as j:
        below = b.variable(b.literal(0, dtype), "below")
        with b.loop(rows, j + 1, hint="row") as i:
            x = b.load(matrix, i * columns + j)
            b.set(below, b.add(b.get(below), b.mul(x, x)))
        b.store(taus, j, b.literal(0, dtype))
        with b.if_(b.ne(b.get(below), b.literal(0, dtype))):
            first = b.load(matrix, j * columns + j)
            size = b.sqrt(b.add(b.mul(first, first), b.get(below)))
            last = b.select(b.lt(first, b.like(0, first)), size, b.neg(size))
            b.store(taus, j, b.div(b.sub(last, first), last))
            with b.loop(rows, j + 1, hint="row") as i:
                b.store(matrix, i * columns + j, b.div(b.load(matrix, i * columns + j), b.sub(first, last)))
            b.store(matrix, j * columns + j, last)
        reflect(matrix, j, j + 1)
    with b.loop(rows, hint="row") as i, b.loop(columns, hint="column") as j:
        b.store(q, i * columns + j, b.select(b.eq(b.position(i), b.position(j)), b.literal(1, dtype), b.literal(0, dtype)))
    with b.loop(columns, hint="step") as step:
        j = -step + (columns - 1)
        reflect(q, j, j)
    title = f"Factor a matrix of {rows} rows and {columns} columns as Q R, by reflections"
    return Function(f"qr_{dtype.name}_{rows}_{columns}", (matrix, q, taus), (), b.root, title)
