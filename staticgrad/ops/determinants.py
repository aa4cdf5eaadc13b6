"""Determinants of small matrices, from the pivots of elimination."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.node import Value, apply, constant
from staticgrad.ir.op import op
from staticgrad.kernels import elimination
from staticgrad.kernels.logarithm import log
from staticgrad.ops.along import ReadRow, Room, WriteRow
from staticgrad.ops.linalg import bring_pivots, solve
from staticgrad.ops.matrices import OnMatrices, as_rows, transposed
from staticgrad.ops.movement import broadcast_to, concatenate, reshape, slice_axis
from staticgrad.ops.reduce import sum_


class OfPivots(OnMatrices):
    """Base of what is computed from the pivots of an elimination: the diagonal of the upper triangular matrix that it ends with."""

    axis: int

    def of_pivots(self, pivots: np.ndarray, sign: np.ndarray) -> np.ndarray:
        """Return the rows of the result for rows of pivots, and the signs of the permutations of rows."""
        raise NotImplementedError

    def numpy(self, a: np.ndarray) -> np.ndarray:
        n = math.isqrt(a.shape[self.axis])
        matrices = self.stacked(a, n)
        sign = np.ones(len(matrices), a.dtype)
        for k in range(n):
            sign[bring_pivots(matrices, k) != k] *= -1
            pivot = np.where(matrices[:, k, k] == 0, 1, matrices[:, k, k])
            factors = matrices[:, k + 1 :, k] / pivot[:, None]
            matrices[:, k + 1 :, k + 1 :] -= factors[:, :, None] * matrices[:, k, None, k + 1 :]
        return self.unstacked(self.of_pivots(np.diagonal(matrices, 0, 1, 2), sign), a)

    def relative(self, moved: Value, a: Value) -> Value:
        """Return the trace of A^-1 dA along `axis`: the tangent of the logarithm of the determinant."""
        n = self.order(a.shape[self.axis])
        found = solve(self.matrices(a, n), self.matrices(moved, n))
        last = len(found.shape) - 1
        unit = broadcast_to(constant(np.eye(n, dtype=a.dtype)), found.shape)
        total = sum_(found * unit, (last - 1, last))
        return reshape(total, (*total.shape[: self.axis], 1, *total.shape[self.axis :]))

    def inverse(self, g: Value, a: Value) -> Value:
        """Return g A^-T, for g of length 1 along `axis`, as rows."""
        n = self.order(a.shape[self.axis])
        matrices = self.matrices(a, n)
        unit = broadcast_to(constant(np.eye(n, dtype=a.dtype)), matrices.shape)
        return self.row_of(solve(transposed(matrices), unit)) * broadcast_to(g, a.shape)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        return {"system": (avals[0].dtype, avals[0].shape[self.axis] + 1)}

    def eliminated(self, b: Builder, read: ReadRow, avals: Sequence[Aval], room: Room) -> tuple[int, int]:
        """Emit the elimination; return the number of rows, and the distance from one pivot to the next in the room."""
        (system, start), n = room["system"], self.order(avals[0].shape[self.axis])
        with b.loop(n * n, hint="k") as k:
            b.store(system, start + k, read(0, k))
        b.store(system, start + n * n, b.literal(1, system.dtype))
        b.invoke(elimination.triangularize(system.dtype, n), (room["system"],))
        return n, n + 1


@op
class Determinant(OfPivots):
    """The determinant: (1, 2 | 3, 4) -> (-2,). Rows of the result have one element."""

    axis: int

    def length(self, *lengths: int) -> int:
        self.order(lengths[0])
        return 1

    def of_pivots(self, pivots: np.ndarray, sign: np.ndarray) -> np.ndarray:
        found = sign.copy()
        for k in range(pivots.shape[1]):
            found *= pivots[:, k]
        return found[:, None]

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        return None if tangents[0] is None else y * self.relative(tangents[0], a)

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        return (self.inverse(g * y, a),)

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        system, start = room["system"]
        n, step = self.eliminated(b, read, avals, room)
        found = b.variable(b.load(system, start + n * n), "determinant")
        with b.loop(n, hint="k") as k:
            b.set(found, b.mul(b.get(found), b.load(system, start + k * step)))
        write(Index(), b.get(found))


@op
class SignAndLogDeterminant(OfPivots):
    """The sign of the determinant, and the logarithm of its absolute value: (1, 2 | 3, 4) -> (-1, 0.693); (0, -inf) where it is 0."""

    axis: int

    def length(self, *lengths: int) -> int:
        self.order(lengths[0])
        return 2

    def of_pivots(self, pivots: np.ndarray, sign: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            logarithms = np.log(np.abs(pivots))
        total = np.zeros(len(sign), pivots.dtype)
        for k in range(pivots.shape[1]):
            total += logarithms[:, k]
        return np.stack([sign * np.prod(np.sign(pivots), axis=1), total], axis=1)

    def jvp(self, tangents: Sequence[Value | None], y: Value, a: Value) -> Value | None:
        if tangents[0] is None:
            return None
        moved = self.relative(tangents[0], a)
        return concatenate([moved - moved, moved], self.axis)

    def vjp(self, g: Value, y: Value, a: Value) -> tuple[Value]:
        return (self.inverse(slice_axis(g, self.axis, 1, 2), a),)

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        system, start = room["system"]
        n, step = self.eliminated(b, read, avals, room)
        sign = b.variable(b.load(system, start + n * n), "sign")
        total = b.variable(b.literal(0, system.dtype), "total")
        with b.loop(n, hint="k") as k:
            pivot = b.load(system, start + k * step)
            zero, one = b.like(0, pivot), b.like(1, pivot)
            signed = b.select(b.lt(pivot, zero), b.neg(one), b.select(b.gt(pivot, zero), one, pivot))
            b.set(sign, b.mul(b.get(sign), signed))
            b.set(total, b.add(b.get(total), log(b, b.abs(pivot))))
        write(Index(), b.get(sign))
        write(Index(1), b.get(total))


def determinant(a: Value) -> Value:
    """Return the determinants of matrices (..., n, n)."""
    return reshape(apply(Determinant(len(a.shape) - 2), as_rows(a)), a.shape[:-2])


def sign_and_log_determinant(a: Value) -> tuple[Value, Value]:
    """Return the signs of the determinants of matrices (..., n, n), and the logarithms of their absolute values."""
    last = len(a.shape) - 2
    found = apply(SignAndLogDeterminant(last), as_rows(a))
    sign, logarithm = (reshape(slice_axis(found, last, k, k + 1), a.shape[:-2]) for k in range(2))
    return sign, logarithm
