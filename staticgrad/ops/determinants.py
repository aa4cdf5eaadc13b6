"""Determinants of small matrices and their cofactors, from the factors of elimination."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder
from staticgrad.ir.node import Value, apply, constant
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.arithmetic import absolute, sign
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.elimination import LU, ByFactors, OnFactors, solve, unpacked
from staticgrad.ops.exponential import log
from staticgrad.ops.matrices import as_rows, identity, product, transposed
from staticgrad.ops.movement import broadcast_to, concatenate, reshape, slice_, slice_axis
from staticgrad.ops.reduce import prod, sum_


class OfPivots(ByFactors):
    """Base of what is computed of the pivots of an elimination."""

    axis: int

    def of_pivots(self, a: np.ndarray) -> np.ndarray:
        """Return rows of pivots, those negated whose rows were exchanged: their product is the determinant."""
        matrices, places = unpacked(LU(self.axis).numpy(a), self.axis)
        pivots = np.diagonal(matrices, 0, 1, 2)
        return np.where(places == np.arange(places.shape[1]), pivots, -pivots)

    def signed(self, factors: Value) -> Value:
        """Return the same, given the factors."""
        length, rank = factors.shape[self.axis], len(factors.shape)
        n = math.isqrt(length)
        starts = [0] * rank
        stops, steps = list(factors.shape), [1] * rank
        stops[self.axis], steps[self.axis] = n * n, n + 1
        pivots = slice_(factors, tuple(starts), tuple(stops), tuple(steps))
        own = np.arange(n, dtype=factors.dtype).reshape(n, *(1 for _ in factors.shape[self.axis + 1 :]))
        stayed = equal(slice_axis(factors, self.axis, n * n, length), broadcast_to(constant(own), pivots.shape))
        return where(stayed, pivots, -pivots)

    def inverse(self, a: Value) -> Value:
        """Return A^-T, as rows."""
        matrices = self.matrices(a, self.order(a.shape[self.axis]))
        return self.row_of(solve(matrices, identity(matrices.shape, a.dtype), turned=True))

    def inner(self, x: Value, y: Value) -> Value:
        """Return the inner products of rows, as rows of one element."""
        total = sum_(x * y, (self.axis,))
        return reshape(total, (*total.shape[: self.axis], 1, *total.shape[self.axis :]))


@op
class Determinant(OfPivots):
    """The determinant: (1, 2 | 3, 4) -> (-2,). Rows of the result have one element."""

    axis: int

    def length(self, *lengths: int) -> int:
        self.order(lengths[0])
        return 1

    def numpy(self, a: np.ndarray) -> np.ndarray:
        return self.unstacked(np.prod(self.of_pivots(a), axis=1)[:, None], a)

    def by_factors(self, factors: Value, *others: Value) -> Value:
        found = prod(self.signed(factors), (self.axis,))
        return reshape(found, (*found.shape[: self.axis], 1, *found.shape[self.axis :]))

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        return None if tangents[0] is None else self.inner(apply(Cofactors(self.axis), a), tangents[0])

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        return (apply(Cofactors(self.axis), a) * broadcast_to(g, a.shape),)


@op
class SignAndLogDeterminant(OfPivots):
    """The sign of the determinant, and the logarithm of its absolute value: (1, 2 | 3, 4) -> (-1, 0.693); (0, -inf) where it is 0."""

    axis: int

    def length(self, *lengths: int) -> int:
        self.order(lengths[0])
        return 2

    def numpy(self, a: np.ndarray) -> np.ndarray:
        pivots = self.of_pivots(a)
        with np.errstate(divide="ignore"):
            logarithm = np.log(np.abs(pivots)).sum(axis=1)
        return self.unstacked(np.stack([np.prod(np.sign(pivots), axis=1), logarithm], axis=1), a)

    def by_factors(self, factors: Value, *others: Value) -> Value:
        pivots = self.signed(factors)
        parts = [prod(sign(pivots), (self.axis,)), sum_(log(absolute(pivots)), (self.axis,))]
        return concatenate([reshape(x, (*x.shape[: self.axis], 1, *x.shape[self.axis :])) for x in parts], self.axis)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        if tangents[0] is None:
            return None
        moved = self.inner(self.inverse(a), tangents[0])
        return concatenate([moved - moved, moved], self.axis)

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        return (self.inverse(a) * broadcast_to(slice_axis(g, self.axis, 1, 2), a.shape),)


@op
class Cofactors(OfPivots):
    """The derivative of the determinant, for singular matrices, too: (1, 2 | 3, 4) -> (4, -3 | -2, 1)."""

    axis: int

    def length(self, *lengths: int) -> int:
        return self.order(lengths[0]) ** 2

    def numpy(self, a: np.ndarray) -> np.ndarray:
        return _CofactorsFactored(self.axis).numpy(LU(self.axis).numpy(a))

    def by_factors(self, factors: Value, *others: Value) -> Value:
        return apply(_CofactorsFactored(self.axis), factors)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        """dC = trace(A^-1 dA) C - A^-T dA^T C, for matrices that are not singular."""
        if tangents[0] is None:
            return None
        n = self.order(a.shape[self.axis])
        moved = product(transposed(self.matrices(tangents[0], n)), self.matrices(y, n))
        turned = self.row_of(solve(self.matrices(a, n), moved, turned=True))
        return y * broadcast_to(self.inner(self.inverse(a), tangents[0]), y.shape) - turned

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        n = self.order(a.shape[self.axis])
        found = product(self.matrices(y, n), transposed(solve(self.matrices(a, n), self.matrices(g, n))))
        return (self.inverse(a) * broadcast_to(self.inner(g, y), a.shape) - self.row_of(found),)


@dataclass(frozen=True)
class _CofactorsFactored(OnFactors):
    """The cofactors, given the factors: what a pass makes of `Cofactors`, after all derivatives."""

    axis: int
    name = "cofactors_factored"

    def length(self, *lengths: int) -> int:
        return self.order(lengths[0]) ** 2

    def numpy(self, factors: np.ndarray) -> np.ndarray:
        """The kernel's operations, in its order, for all matrices together."""
        matrices, places = unpacked(factors, self.axis)
        n = places.shape[1]
        pivots = np.diagonal(matrices, 0, 1, 2)
        minors = np.zeros_like(matrices)
        with np.errstate(all="ignore"):
            for j in range(n):
                minors[:, j, j] = 1
                for i in reversed(range(j)):
                    total = matrices[:, i, j].copy()
                    for k in range(j - 1, i, -1):
                        total = total * pivots[:, k] + matrices[:, i, k] * minors[:, k, j]
                    minors[:, i, j] = -total
            scale = np.prod(np.where(places == np.arange(n), 1, -1), axis=1).astype(factors.dtype)
            for i in range(n):
                minors[:, i, i:] *= scale[:, None]
                scale = scale * pivots[:, i]
            scale = np.ones_like(scale)
            for j in reversed(range(n)):
                minors[:, : j + 1, j] *= scale[:, None]
                scale = scale * pivots[:, j]
            for k in reversed(range(n)):
                minors[:, :, :k] -= matrices[:, k, None, :k] * minors[:, :, k, None]
        each = np.arange(len(minors))
        for k in reversed(range(n)):
            minors[each, :, k], minors[each, :, places[:, k]] = minors[each, :, places[:, k]], minors[each, :, k]
        return self.unstacked(minors.swapaxes(1, 2), factors)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"matrix": (avals[0].dtype, self.length(avals[0].shape[self.axis]))}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        (matrix, start), n = room["matrix"], self.order(avals[0].shape[self.axis])
        elimination.cofactors(b, lambda place: read(0, place), matrix, start, n)
        with b.loop(n * n, hint="k") as k:
            write(k, b.load(matrix, start + k))


# ---- on matrices in the last two axes


def determinant(a: Value) -> Value:
    """Return the determinants of matrices (..., n, n)."""
    return reshape(apply(Determinant(len(a.shape) - 2), as_rows(a)), a.shape[:-2])


def sign_and_log_determinant(a: Value) -> tuple[Value, Value]:
    """Return the signs of the determinants of matrices (..., n, n), and the logarithms of their absolute values."""
    last = len(a.shape) - 2
    found = apply(SignAndLogDeterminant(last), as_rows(a))
    signs, logarithms = (reshape(slice_axis(found, last, k, k + 1), a.shape[:-2]) for k in range(2))
    return signs, logarithms
