"""Systems of linear equations by Gaussian elimination with partial pivoting, for matrices that fit into a core's caches.

A system is the matrix with its right-hand sides beside it, row after row. All right-hand sides are solved along with the matrix, so
that neither its factors nor the exchanges of its rows need memory. Divisions by a pivot of 0 give infinities and NaN: nothing fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar, Space


def parameter(name: str, dtype: np.dtype) -> Buffer:
    """Return a buffer that a function is called with."""
    return Buffer(name, dtype, -1, Space.PARAMETER)


@functools.cache
def solve(dtype: np.dtype, order: int, width: int) -> Function:
    """Return a function that solves a system of `order` rows of `width` elements in place: the solutions replace the right-hand sides."""
    b, system = Builder(), parameter("system", dtype)
    _eliminate(b, system, order, width)
    _substitute(b, system, order, width, lower=False, unit=False)
    title = f"Solve {order} equations with {width - order} right-hand sides: elimination with partial pivoting, then substitution"
    return Function(f"solve_{dtype.name}_{order}_{width}", (system,), (), b.root, title)


@functools.cache
def solve_triangular(dtype: np.dtype, order: int, width: int, lower: bool, unit: bool) -> Function:
    """Return a function like that of `solve` for triangular matrices; what is on the other side is not read, nor a diagonal of ones."""
    b, system = Builder(), parameter("system", dtype)
    _substitute(b, system, order, width, lower, unit)
    side, ones = "lower" if lower else "upper", ", ones on the diagonal," if unit else ""
    title = f"Solve {order} {side} triangular equations{ones} with {width - order} right-hand sides by substitution"
    return Function(f"solve_{side}{'_unit' if unit else ''}_{dtype.name}_{order}_{width}", (system,), (), b.root, title)


@functools.cache
def triangularize(dtype: np.dtype, order: int) -> Function:
    """Return a function that makes a matrix upper triangular by elimination with partial pivoting.

    The element after the matrix changes its sign with every exchange of rows. A column of zeros is left as it is.
    """
    b, system = Builder(), parameter("system", dtype)

    def exchanged() -> None:
        b.store(system, order * order, b.neg(b.load(system, order * order)))

    _eliminate(b, system, order, order, exchanged)
    title = f"Make a matrix of {order} rows upper triangular by elimination with partial pivoting"
    return Function(f"triangularize_{dtype.name}_{order}", (system,), (), b.root, title)


def _eliminate(b: Builder, system: Buffer, order: int, width: int, exchanged: Callable[[], None] | None = None) -> None:
    """Subtract multiples of each row from those below it so that the matrix becomes upper triangular.

    Where it is told of exchanges, the pivots are what matters: then no row is divided by one that is 0.
    """

    def at(row: Index | int, column: Index | int) -> Index:
        return Index.of(row) * width + Index.of(column)

    with b.loop(order, hint="pivot") as k:
        largest = b.variable(b.abs(b.load(system, at(k, k))), "largest")
        place = b.variable(b.position(k), "place")
        with b.loop(order, k + 1, hint="row") as i:
            size = b.abs(b.load(system, at(i, k)))
            with b.if_(b.lt(b.get(largest), size)):
                b.set(largest, size)
                b.set(place, b.position(i))
        other = Index.of(b.get(place))
        with b.if_(b.ne(b.position(k), b.get(place))):
            if exchanged is not None:
                exchanged()
            with b.loop(width, k, hint="column") as j:
                above = b.load(system, at(k, j))
                b.store(system, at(k, j), b.load(system, at(other, j)))
                b.store(system, at(other, j), above)
        with b.loop(order, k + 1, hint="row") as i:
            pivot = b.load(system, at(k, k))
            if exchanged is not None:
                pivot = b.select(b.eq(pivot, b.like(0, pivot)), b.like(1, pivot), pivot)
            _subtract(b, system, width, i, k, b.div(b.load(system, at(i, k)), pivot), k + 1)


def _substitute(b: Builder, system: Buffer, order: int, width: int, lower: bool, unit: bool) -> None:
    """Solve triangular equations, each row with what is known from those before (lower) or after it (upper)."""
    with b.loop(order, hint="step") as step:
        k = step if lower else -step + (order - 1)
        if not unit:
            with b.loop(width, order, hint="column") as j:
                b.store(system, k * width + j, b.div(b.load(system, k * width + j), b.load(system, k * width + k)))
        with b.loop(order, k + 1, hint="row") if lower else b.loop(k, hint="row") as i:
            _subtract(b, system, width, i, k, b.load(system, i * width + k), Index(order))


def _subtract(b: Builder, system: Buffer, width: int, row: Index, pivot: Index, factor: Scalar, first: Index) -> None:
    """Subtract `factor` times one row from another one, from column `first` on."""
    with b.loop(width, first, hint="column") as j:
        less = b.mul(factor, b.load(system, pivot * width + j))
        b.store(system, row * width + j, b.sub(b.load(system, row * width + j), less))
