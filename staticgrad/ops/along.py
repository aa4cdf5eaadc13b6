"""Operations on whole rows: each row along one axis gives a row of results that no element of it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval
from staticgrad.ir.builder import Buffer, Builder, Index, Scalar
from staticgrad.ir.links import Links, numbers_without
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import Op, Read, op
from staticgrad.kernels.sorting import RUN, comes_before, sort, sort_runs
from staticgrad.ops.index import Gather
from staticgrad.ops.movement import broadcast, flip, inverse_order, transpose

ReadRow = Callable[[int, Index], Scalar]
"""Gives an element of the row of an operand (by number)."""
WriteRow = Callable[[Index, Scalar], None]
Room = dict[str, tuple[Buffer, Index]]
"""Scratch memory by name: a buffer and where in it this row's part begins."""


class Along(Op):
    """Base of the ops on rows along `axis`; operands and result may differ in the lengths of their rows, not in other axes."""

    axis: int
    kind = "row"

    def infer(self, *avals: Aval) -> Aval:
        if not 0 <= self.axis < avals[0].rank:
            raise ShapeError(f"{self.name}: {avals[0]} has no axis {self.axis}")
        return self.result(avals[0])

    def result(self, aval: Aval) -> Aval:
        """Return the output's aval from that of the operand."""
        return Aval(aval.shape, aval.dtype)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        """Return the scratch arrays, dtypes and lengths, that a row takes."""
        return {}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        """Emit the computation of one row."""
        raise ShapeError(f"{self.name} has no lowering")

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        rows, count = numbers_without(y.shape, (self.axis,))
        return [Links(numbers_without(aval.shape, (self.axis,))[0].reshape(-1), count, rows.reshape(-1)) for aval in avals]

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        full = (v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip(x, batched, strict=True))
        return apply(replace(self, axis=self.axis + 1), *full)  # type: ignore[call-arg]


@op
class ArgSort(Along):
    """Where the elements of each sorted row come from: (30, 10, 20) -> (1, 2, 0). Equal ones keep their order; NaN comes last."""

    axis: int
    cost = 60

    def result(self, aval: Aval) -> Aval:
        return aval.with_dtype(INT64)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.argsort(x, axis=self.axis, kind="stable").astype(INT64, copy=False)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[None]:
        return (None,)

    def room(self, *avals: Aval) -> dict[str, tuple[np.dtype, int]]:
        dtype, length = avals[0].dtype, avals[0].shape[self.axis]
        one = {"keys": (dtype, length), "places": (INT64, length)}
        return one if length <= RUN else {**one, "other_keys": (dtype, length), "other_places": (INT64, length)}

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        length = avals[0].shape[self.axis]
        keys, keys_at = room["keys"]
        places, places_at = room["places"]
        with b.loop(length, hint="k") as k:
            b.store(keys, keys_at + k, read(0, k))
            b.store(places, places_at + k, b.position(k))
        function = sort_runs(keys.dtype) if length <= RUN else sort(keys.dtype)
        b.invoke(function, tuple(room.values()), (length,))
        with b.loop(length, hint="k") as k:
            write(k, b.load(places, places_at + k))


@op
class CumulativeSum(Along):
    """The sums of all elements up to each one along `axis`: (1, 2, 3) -> (1, 3, 6)."""

    axis: int
    linear = True

    def infer(self, *avals: Aval) -> Aval:
        if avals[0].dtype == BOOL:
            raise DTypeError("cumulative sum of bool: cast to an integer first")
        return super().infer(*avals)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.cumsum(x, axis=self.axis, dtype=x.dtype)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (flip(apply(self, flip(g, (self.axis,))), (self.axis,)),)

    def row(self, b: Builder, read: ReadRow, write: WriteRow, avals: Sequence[Aval], room: Room) -> None:
        first = read(0, Index())
        total = b.variable(first, "total")
        write(Index(), first)
        with b.loop(avals[0].shape[self.axis], 1, hint="k") as k:
            b.set(total, b.add(b.get(total), read(0, k)))
            write(k, b.get(total))


@op
class SearchSorted(Op):
    """Where in sorted rows x each element of v belongs: before those that are not less (left), after those that are not greater (right).

    x has the axes (*shared, n), v the `shared` ones and any others: each row of x serves its part of v.
    """

    side: str
    shared: int = 0
    kind = "view"
    cost = 60

    def infer(self, x: Aval, v: Aval) -> Aval:
        if x.rank != self.shared + 1 or x.shape[: self.shared] != v.shape[: self.shared] or x.dtype != v.dtype:
            raise ShapeError(f"{self.name}: {v} in rows {x} with {self.shared} shared axes")
        return Aval(v.shape, INT64)

    def numpy(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        result = np.empty(v.shape, INT64)
        for k in np.ndindex(x.shape[: self.shared]):
            result[k] = np.searchsorted(x[k], v[k], "left" if self.side == "left" else "right")
        return result

    def jvp(self, tangents: Sequence[Value | None], y: Value, *operands: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, *operands: Value) -> tuple[None, None]:
        return None, None

    def batch(self, size: int, batched: Sequence[bool], x: Value, v: Value) -> Value:
        if not batched[0] and not self.shared:
            return apply(self, x, v)
        x, v = (a if has else broadcast(a, (size, *a.shape), (0,)) for a, has in zip((x, v), batched, strict=True))
        return apply(SearchSorted(self.side, self.shared + 1), x, v)

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        wanted = read(1, index)
        low, high = b.variable(b.literal(0, INT64), "low"), b.variable(b.literal(avals[0].shape[-1], INT64), "high")
        with b.while_() as parts:
            with parts.test():
                parts.until(b.lt(b.get(low), b.get(high)))
            with parts.body():
                middle = b.get(b.variable(b.shr(b.add(b.get(low), b.get(high)), 1), "middle"))
                found = read(0, (*index[: self.shared], Index.of(middle)))
                after = comes_before(b, found, wanted) if self.side == "left" else b.not_(comes_before(b, wanted, found))
                with b.if_(after) as otherwise:
                    b.set(low, b.add(middle, b.literal(1, INT64)))
                with b.otherwise(otherwise):
                    b.set(high, middle)
        return b.get(low)


def along_last_axis(x: Value, index: Value, order: tuple[int, ...]) -> Value:
    """Return what each row of `index` picks out of its row of x, both along their last axis, with the axes put back from `order`."""
    last = len(x.shape) - 1
    return transpose(apply(Gather((last,), last, last), x, index), inverse_order(order))


def axis_last(rank: int, axis: int) -> tuple[int, ...]:
    """Return the order of axes that moves one to the end."""
    return (*(k for k in range(rank) if k != axis), axis)


def sorted_along(x: Value, axis: int) -> Value:
    """Return x with its rows along `axis` sorted: what the permutation that sorts them picks, so derivatives go where elements go."""
    order = axis_last(len(x.shape), axis)
    moved = transpose(x, order)
    return along_last_axis(moved, apply(ArgSort(len(order) - 1), moved), order)
