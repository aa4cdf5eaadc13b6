"""Systems of linear equations by Gaussian elimination with partial pivoting, for matrices that fit into a core's caches.

A system is the matrix with its right-hand sides beside it, row after row. All right-hand sides are solved along with the matrix, so
that neither its factors nor the exchanges of its rows need memory. Divisions by a pivot of 0 give infinities and NaN: nothing fails.
"""

from __future__ import annotations

import functools

import numpy as np

from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar, Space


@functools.cache
def solve(dtype: np.dtype, order: int, width: int) -> Function:
    """Return a function that solves a system of `order` rows of `width` elements in place: the solutions replace the right-hand sides."""
    b = Builder()
    system = Buffer("system", dtype, -1, Space.PARAMETER)

    def at(row: Index | int, column: Index | int) -> Index:
        return Index.of(row) * width + Index.of(column)

    def subtract(row: Index, pivot: Index, factor: Scalar, first: Index) -> None:
        with b.loop(width, first, hint="column") as j:
            b.store(system, at(row, j), b.sub(b.load(system, at(row, j)), b.mul(factor, b.load(system, at(pivot, j)))))

    with b.loop(order, hint="pivot") as k:
        largest = b.variable(b.abs(b.load(system, at(k, k))), "largest")
        place = b.variable(b.position(k), "place")
        with b.loop(order, k + 1, hint="row") as i:
            size = b.abs(b.load(system, at(i, k)))
            with b.if_(b.lt(b.get(largest), size)):
                b.set(largest, size)
                b.set(place, b.position(i))
        other = Index.of(b.get(place))
        with b.if_(b.ne(b.position(k), b.get(place))), b.loop(width, k, hint="column") as j:
            above = b.load(system, at(k, j))
            b.store(system, at(k, j), b.load(system, at(other, j)))
            b.store(system, at(other, j), above)
        with b.loop(order, k + 1, hint="row") as i:
            subtract(i, k, b.div(b.load(system, at(i, k)), b.load(system, at(k, k))), k + 1)
    with b.loop(order, hint="step") as step:
        k = -step + (order - 1)
        with b.loop(width, order, hint="column") as j:
            b.store(system, at(k, j), b.div(b.load(system, at(k, j)), b.load(system, at(k, k))))
        with b.loop(k, hint="row") as i:
            subtract(i, k, b.load(system, at(i, k)), Index(order))
    title = f"Solve {order} equations with {width - order} right-hand sides: elimination with partial pivoting, then substitution"
    return Function(f"solve_{dtype.name}_{order}_{width}", (system,), (), b.root, title)
