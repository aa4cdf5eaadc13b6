"""Gaussian elimination with partial pivoting, and what is computed of the factors that it leaves, for matrices that fit into caches.

Factors of a matrix A are kept in one array: L and U with P A = L U, row after row, the diagonal of L being ones and not kept; then the
row with which each row was exchanged, the first exchange first. All inner loops run along neighbours in memory.
A column without a pivot leaves zeros in L and U. Divisions by such a pivot give infinities and NaN: nothing fails.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

import numpy as np

from staticgrad.ir.aval import INT64
from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar, Space

Element = Callable[[Index], Scalar]
"""Gives an element of an array that is only read."""

SMALL = 4
"""Matrices of at most so many rows are factored in registers, without loops."""

SHORT = 6
"""Right-hand sides of at most so many rows are solved for in registers."""

WIDE = 8
"""So many right-hand sides are worked on together, fewer one after the other."""


def parameter(name: str, dtype: np.dtype) -> Buffer:
    """Return a buffer that a function is called with."""
    return Buffer(name, dtype, -1, Space.PARAMETER)


# ---- factors


@functools.cache
def factor(dtype: np.dtype, order: int) -> Function:
    """Return a function that puts the factors of a matrix in its place, and the exchanges after it."""
    b, matrix = Builder(), parameter("matrix", dtype)

    def at(row: Index | int, column: Index | int) -> Index:
        return Index.of(row) * order + Index.of(column)

    with b.loop(order, hint="pivot") as k:
        largest = b.variable(b.abs(b.load(matrix, at(k, k))), "largest")
        place = b.variable(b.position(k), "place")
        with b.loop(order, k + 1, hint="row") as i:
            size = b.abs(b.load(matrix, at(i, k)))
            with b.if_(b.lt(b.get(largest), size)):
                b.set(largest, size)
                b.set(place, b.position(i))
        found = b.get(place)
        b.store(matrix, k + order * order, b.cast(found, dtype))
        with b.if_(b.ne(b.position(k), found)), b.loop(order, hint="column") as j:
            exchange(b, matrix, at(k, j), at(Index.of(found), j))
        with b.loop(order, k + 1, hint="row") as i:
            pivot = b.load(matrix, at(k, k))
            multiple = b.div(b.load(matrix, at(i, k)), b.select(b.eq(pivot, b.like(0, pivot)), b.like(1, pivot), pivot))
            b.store(matrix, at(i, k), multiple)
            _subtract(b, matrix, at(i, 0), multiple, lambda j: b.load(matrix, at(k, j)), k + 1, order)
    title = f"Factor a matrix of {order} rows by elimination with partial pivoting"
    return Function(f"factor_{dtype.name}_{order}", (matrix,), (), b.root, title)


def factor_small(b: Builder, rows: Sequence[Sequence[Scalar]]) -> tuple[list[list[Scalar]], list[Scalar]]:
    """Return the factors of a small matrix, row after row, and the exchanges."""
    matrix, order = [list(row) for row in rows], len(rows)
    exchanges = []
    for k in range(order):
        largest, place = b.abs(matrix[k][k]), b.like(k, matrix[k][k])
        for i in range(k + 1, order):
            size = b.abs(matrix[i][k])
            better = b.lt(largest, size)
            largest, place = b.select(better, size, largest), b.select(better, b.like(i, size), place)
        exchanges.append(place)
        for j in range(order):
            column = [row[j] for row in matrix]
            _exchange_small(b, column, k, place)
            for row, x in zip(matrix, column, strict=True):
                row[j] = x
        pivot = b.select(b.eq(matrix[k][k], b.like(0, matrix[k][k])), b.like(1, matrix[k][k]), matrix[k][k])
        for i in range(k + 1, order):
            matrix[i][k] = b.div(matrix[i][k], pivot)
            for j in range(k + 1, order):
                matrix[i][j] = b.sub(matrix[i][j], b.mul(matrix[i][k], matrix[k][j]))
    return matrix, exchanges


def exchange_of(b: Builder, factors: Element, order: int, k: Index) -> Index:
    """Return the row with which row k was exchanged: that one or one after it, whatever is there."""
    return Index.of(b.max(b.position(k), b.min(b.cast(factors(k + order * order), INT64), b.literal(order - 1, INT64))))


# ---- systems of equations


def each_side(b: Builder, count: int) -> contextlib.AbstractContextManager[Index]:
    """Return a loop over right-hand sides; for a single one there is none."""
    return b.loop(count, hint="side") if count > 1 else contextlib.nullcontext(Index())


def substitute(b: Builder, factors: Element, sides: Buffer, start: Index, order: int, count: int, turned: bool) -> None:
    """Put the X of A X = B in the place of B, or of A^T X = B if `turned`: `count` right-hand sides.

    If there are fewer than `WIDE`, they stand one after the other, otherwise row after row.
    """
    if count < WIDE:
        with each_side(b, count) as c:
            _substitute_one(b, factors, sides, start + c * order, order, turned)
        return

    def exchanged(k: Index) -> None:
        other = exchange_of(b, factors, order, k)
        with b.if_(b.ne(b.position(k), b.position(other))), b.loop(count, hint="side") as c:
            exchange(b, sides, start + k * count + c, start + other * count + c)

    def subtracted(i: Index, k: Index, multiple: Scalar) -> None:
        """Subtract a multiple of the right-hand sides of row k from those of row i."""
        _subtract(b, sides, start + i * count, multiple, lambda c: b.load(sides, start + k * count + c), 0, count)

    def divided(k: Index) -> None:
        pivot = factors(k * (order + 1))
        with b.loop(count, hint="side") as c:
            b.store(sides, start + k * count + c, b.div(b.load(sides, start + k * count + c), pivot))

    if not turned:
        with b.loop(order, hint="row") as k:
            exchanged(k)
        with b.loop(order, hint="row") as k, b.loop(order, k + 1, hint="below") as i:
            subtracted(i, k, factors(i * order + k))
    with b.loop(order, hint="step") as step:
        k = step if turned else -step + (order - 1)
        divided(k)
        with b.loop(order, k + 1, hint="below") if turned else b.loop(k, hint="above") as i:
            subtracted(i, k, factors(k * order + i if turned else i * order + k))
    if turned:
        with b.loop(order, hint="step") as step:
            k = -step + (order - 1)
            with b.loop(k, hint="above") as i:
                subtracted(i, k, factors(k * order + i))
        with b.loop(order, hint="step") as step:
            exchanged(-step + (order - 1))


def _substitute_one(b: Builder, factors: Element, x: Buffer, start: Index, order: int, turned: bool) -> None:
    """Solve for one right-hand side, by rows of the factors: they are multiplied with what is known, or subtracted as wholes."""

    def exchanged(k: Index) -> None:
        exchange(b, x, start + k, start + exchange_of(b, factors, order, k))

    def known(k: Index, first: Index | int, end: Index | int) -> Scalar:
        """Return element k less what a part of the solution makes of row k."""
        return b.sub(b.load(x, start + k), _inner(b, x, start, factors, k * order, first, end))

    def subtracted(k: Index, first: Index | int, end: Index | int) -> None:
        """Subtract row k times element k from a part of the solution."""
        _subtract(b, x, start, b.load(x, start + k), lambda i: factors(k * order + i), first, end)

    if turned:
        with b.loop(order, hint="row") as k:
            b.store(x, start + k, b.div(b.load(x, start + k), factors(k * (order + 1))))
            subtracted(k, k + 1, order)
        with b.loop(order, hint="step") as step:
            k = -step + (order - 1)
            subtracted(k, 0, k)
        with b.loop(order, hint="step") as step:
            exchanged(-step + (order - 1))
    else:
        with b.loop(order, hint="row") as k:
            exchanged(k)
        with b.loop(order, hint="row") as k:
            b.store(x, start + k, known(k, 0, k))
        with b.loop(order, hint="step") as step:
            k = -step + (order - 1)
            b.store(x, start + k, b.div(known(k, k + 1, order), factors(k * (order + 1))))


def substitute_small(
    b: Builder, matrix: Sequence[Sequence[Scalar]], exchanges: Sequence[Scalar], side: Sequence[Scalar], turned: bool
) -> list[Scalar]:
    """Return the solution for one right-hand side, given the factors of a small matrix and rows with which others were exchanged."""
    x, order = list(side), len(side)

    def less(i: int, factor: Scalar, k: int) -> None:
        x[i] = b.sub(x[i], b.mul(factor, x[k]))

    if not turned:
        for k in range(order):
            _exchange_small(b, x, k, exchanges[k])
        for k in range(order):
            for i in range(k + 1, order):
                less(i, matrix[i][k], k)
    for k in range(order) if turned else reversed(range(order)):
        x[k] = b.div(x[k], matrix[k][k])
        for i in range(k + 1, order) if turned else range(k):
            less(i, matrix[k][i] if turned else matrix[i][k], k)
    if turned:
        for k in reversed(range(order)):
            for i in range(k):
                less(i, matrix[k][i], k)
        for k in reversed(range(order)):
            _exchange_small(b, x, k, exchanges[k])
    return x


# ---- triangular systems


@functools.cache
def solve_triangular(dtype: np.dtype, order: int, width: int, lower: bool, unit: bool) -> Function:
    """Return a function that solves triangular equations, each row of the matrix with those of the right-hand sides beside it.

    The solutions replace the right-hand sides. What is on the other side is not read, nor a diagonal of ones.
    """
    b, system = Builder(), parameter("system", dtype)
    with b.loop(order, hint="step") as step:
        k = step if lower else -step + (order - 1)
        if not unit:
            with b.loop(width, order, hint="column") as j:
                b.store(system, k * width + j, b.div(b.load(system, k * width + j), b.load(system, k * width + k)))
        with b.loop(order, k + 1, hint="row") if lower else b.loop(k, hint="row") as i:
            _subtract(b, system, i * width, b.load(system, i * width + k), lambda j: b.load(system, k * width + j), order, width)
    side, ones = "lower" if lower else "upper", ", ones on the diagonal," if unit else ""
    title = f"Solve {order} {side} triangular equations{ones} with {width - order} right-hand sides by substitution"
    return Function(f"solve_{side}{'_unit' if unit else ''}_{dtype.name}_{order}_{width}", (system,), (), b.root, title)


# ---- cofactors


def cofactors(b: Builder, factors: Element, matrix: Buffer, start: Index, order: int) -> None:
    """Compute the cofactors of a matrix: the determinants of what is left of it without a row and a column, with their signs.

    They are adj(U) L^-1 P, transposed, and change sign with every exchange. The minors of U need no division, so that pivots may be 0:
    with m_jj = 1 and m_ij = -(u_ij m_jj u_i+1 ... u_j-1 + ... + u_i,i+1 m_i+1,j) an element of adj(U) is m_ij times all pivots
    before i and after j.
    """

    def at(row: Index, column: Index) -> Index:
        return start + column * order + row

    def pivot(k: Index) -> Scalar:
        return factors(k * (order + 1))

    with b.loop(order, hint="column") as j:
        b.store(matrix, at(j, j), b.literal(1, matrix.dtype))
        with b.loop(order, j + 1, hint="row") as i:
            b.store(matrix, at(i, j), b.literal(0, matrix.dtype))
        with b.loop(j, hint="step") as step:
            i = j + -step + -1
            total = b.variable(factors(i * order + j), "total")
            with b.loop(step, hint="step") as inner:
                k = j + -inner + -1
                b.set(total, b.add(b.mul(b.get(total), pivot(k)), b.mul(factors(i * order + k), b.load(matrix, at(k, j)))))
            b.store(matrix, at(i, j), b.neg(b.get(total)))
    sign = b.variable(b.literal(1, matrix.dtype), "sign")
    with b.loop(order, hint="row") as k:
        x = b.get(sign)
        b.set(sign, b.select(b.eq(b.position(k), b.position(exchange_of(b, factors, order, k))), x, b.neg(x)))
    before = b.variable(b.get(sign), "before")
    with b.loop(order, hint="row") as i:
        scale = b.get(before)
        with b.loop(order, i, hint="column") as j:
            b.store(matrix, at(i, j), b.mul(b.load(matrix, at(i, j)), scale))
        b.set(before, b.mul(scale, pivot(i)))
    after = b.variable(b.literal(1, matrix.dtype), "after")
    with b.loop(order, hint="step") as step:
        j = -step + (order - 1)
        scale = b.get(after)
        with b.loop(j + 1, hint="row") as i:
            b.store(matrix, at(i, j), b.mul(b.load(matrix, at(i, j)), scale))
        b.set(after, b.mul(scale, pivot(j)))
    with b.loop(order, hint="step") as step:
        k = -step + (order - 1)
        with b.loop(k, hint="column") as j:
            _subtract(b, matrix, at(Index(), j), factors(k * order + j), lambda i: b.load(matrix, at(i, k)), 0, order)
    with b.loop(order, hint="step") as step:
        k = -step + (order - 1)
        other = exchange_of(b, factors, order, k)
        with b.if_(b.ne(b.position(k), b.position(other))), b.loop(order, hint="row") as i:
            exchange(b, matrix, at(i, k), at(i, other))


# ---- steps


def _subtract(b: Builder, target: Buffer, start: Index, multiple: Scalar, x: Element, first: Index | int, end: Index | int) -> None:
    """Subtract a multiple of some numbers from those in memory."""
    with b.loop(end, first, hint="k") as k:
        b.store(target, start + k, b.sub(b.load(target, start + k), b.mul(multiple, x(k))))


LANES = 4
"""So many partial sums are kept of an inner product."""


def _inner(b: Builder, x: Buffer, start: Index, factors: Element, row: Index, first: Index | int, end: Index | int) -> Scalar:
    """Return the inner product of a part of a row of factors with the same part of a solution."""
    totals = [b.variable(b.literal(0, x.dtype), "total") for _ in range(LANES)]

    def add(total: int, k: Index) -> None:
        b.set(totals[total], b.add(b.get(totals[total]), b.mul(factors(row + k), b.load(x, start + k))))

    count = b.position(Index.of(end) + -Index.of(first))
    whole = Index.of(b.and_(count, b.literal(-LANES, INT64))) + Index.of(first)
    with b.loop(whole, first, LANES, hint="k") as k:
        for lane in range(LANES):
            add(lane, k + lane)
    with b.loop(end, whole, hint="k") as k:
        add(0, k)
    one, two, three, four = map(b.get, totals)
    return b.add(b.add(one, two), b.add(three, four))


def exchange(b: Builder, array: Buffer, one: Index, other: Index) -> None:
    """Exchange two elements of an array."""
    x = b.load(array, one)
    b.store(array, one, b.load(array, other))
    b.store(array, other, x)


def _exchange_small(b: Builder, x: list[Scalar], k: int, place: Scalar) -> None:
    """Exchange x[k] with the one of those after it that is at `place`."""
    before, found = x[k], x[k]
    for i in range(k + 1, len(x)):
        here = b.eq(place, b.like(i, place))
        found = b.select(here, x[i], found)
        x[i] = b.select(here, before, x[i])
    x[k] = found
