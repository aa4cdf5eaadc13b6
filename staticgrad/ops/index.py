"""Operations that pick elements by integer arrays, and those that write them: reading x[i], x[i] = y, x[i] += y.

Index operands are int64 and lie within bounds: `BoundedIndex` makes them so out of what the user wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from staticgrad.errors import DTypeError, IndexingError, ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval, Shape, product
from staticgrad.ir.builder import Buffer, Builder, Index, Scalar
from staticgrad.ir.links import EACH, Links, moved, numbers_without, on_all
from staticgrad.ir.loops import OUT_OF_BOUNDS
from staticgrad.ir.node import Value, apply, constant, constant_array, full, zeros_like
from staticgrad.ir.op import Op, Read, op
from staticgrad.ir.source import at_user_line
from staticgrad.ops.comparison import equal, logical_and, logical_not, where_zero
from staticgrad.ops.elementwise import INTEGER, Elementwise
from staticgrad.ops.movement import Axes, Broadcast, Reshape, Write, broadcast, reshape, transpose
from staticgrad.ops.reduce import Any_

Part = TypeVar("Part")


@op
class BoundedIndex(Elementwise):
    """Indices of an axis of `extent` elements, counted from the front: (-1, 0) --BoundedIndex(3)--> (2, 0).

    The modes are those of `np.take`: what is out of bounds is an error ("raise"), goes around ("wrap"), or is the nearest ("clip").
    """

    extent: int
    mode: str = "raise"
    kinds = INTEGER
    derivatives = (None,)
    cost = 4

    def result(self, dtype: np.dtype) -> np.dtype:
        return INT64

    def may_fail(self, *avals: Aval) -> bool:
        return self.mode == "raise"

    def infer(self, *avals: Aval) -> Aval:
        if not self.extent and avals[0].size:
            raise IndexingError(f"{avals[0].size} indices are out of bounds for an axis with size 0")
        return super().infer(*avals)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        i = x.astype(INT64)
        if not i.size:
            return i
        if self.mode != "raise":
            return np.asarray(i % self.extent if self.mode == "wrap" else np.clip(i, 0, self.extent - 1))
        outside = i[(i < -self.extent) | (i >= self.extent)]
        if outside.size:
            raise IndexingError(at_user_line(f"index {outside[0]} is out of bounds for an axis with size {self.extent}"))
        return np.where(i < 0, i + self.extent, i)

    def scalar(self, b: Builder, *x: Scalar) -> Scalar:
        i = b.cast(x[0], INT64)
        zero, extent = b.literal(0, INT64), b.literal(self.extent, INT64)
        if self.mode == "clip":
            return b.max(zero, b.min(i, b.literal(self.extent - 1, INT64)))
        place = b.variable(b.remainder(i, extent) if self.mode == "wrap" else i, "place")
        with b.if_(b.lt(b.get(place), zero)):
            b.set(place, b.add(b.get(place), extent))
        if self.mode == "raise":
            counted = b.get(place)
            outside = b.variable(b.or_(b.lt(counted, zero), b.le(extent, counted)), "outside")
            b.fail_if(b.get(outside), OUT_OF_BOUNDS, self.extent, Index.of(i))
            b.set(place, b.select(b.get(outside), zero, counted))  # after a failure: somewhere in memory
        return b.get(place)


class Indexed(Op):
    """Base of the ops with an operand x that is indexed by arrays.

    `axes` are the axes of x that are indexed, by one array each. The arrays have one shape: the first `shared` axes of x, then
    axes of their own. Those stand at `place` in what is picked, between the axes of x that are not indexed:
    x (2, 5, 3) indexed along axis 1 by an array (4,), placed at 1, gives (2, 4, 3).
    """

    axes: Axes
    place: int
    shared: int

    def picked(self, x: Aval, indices: Sequence[Aval]) -> Aval:
        """Return what the arrays pick out of x; raise unless they fit x and each other."""
        listed = f"{x} indexed along axes {self.axes} by {', '.join(map(str, indices))}"
        if len(indices) != len(self.axes) or not indices or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(f"{self.name}: {listed}: one array an axis, in order")
        if not self.shared <= self.place <= x.rank - len(self.axes) or not self.shared <= self.axes[0] <= self.axes[-1] < x.rank:
            raise ShapeError(f"{self.name}: {listed}, placed at {self.place}, with {self.shared} shared axes")
        if any(i.dtype != INT64 for i in indices):
            raise DTypeError(f"{self.name}: {listed}: the arrays must be int64")
        shape = indices[0].shape
        if any(i.shape != shape for i in indices) or shape[: self.shared] != x.shape[: self.shared]:
            raise ShapeError(f"{self.name}: {listed}: the arrays must agree in shape")
        rest = x.without(self.axes).shape
        return Aval((*rest[: self.place], *shape[self.shared :], *rest[self.place :]), x.dtype)

    def own_axes(self, index: Aval) -> range:
        """Return the axes of what is picked that belong to the arrays alone."""
        return range(self.place, self.place + index.rank - self.shared)

    def source(self, index: Sequence[Part], own: range, read: Callable[[int, tuple[Part, ...]], Part]) -> tuple[Part, ...]:
        """Return where in x the element at `index` of what is picked stands; `read` gives elements of the arrays, by their number."""
        rest = [part for axis, part in enumerate(index) if axis not in own]
        at = (*rest[: self.shared], *(index[axis] for axis in own))
        arrays, others = iter(range(len(self.axes))), iter(rest)
        rank = len(rest) + len(self.axes)
        return tuple(read(next(arrays), at) if axis in self.axes else next(others) for axis in range(rank))

    def offsets(self, x: np.ndarray, indices: Sequence[np.ndarray]) -> np.ndarray:
        """Return, for each element that is picked in C order, where it stands in the memory of x."""
        avals = [Aval(i.shape, INT64) for i in indices]
        shape = self.picked(Aval(x.shape, x.dtype), avals).shape
        index = np.ogrid[tuple(map(slice, shape))] if shape else ()
        source = self.source(index, self.own_axes(avals[0]), lambda k, at: indices[k][at])
        total = sum(i * product(x.shape[axis + 1 :]) for axis, i in enumerate(source))
        return np.asarray(np.broadcast_to(total, shape).reshape(-1))

    def read_index(self, read: Read, first: int, index: tuple[Index, ...], avals: Sequence[Aval]) -> tuple[Index, ...]:
        """Return where in x an element stands, for lowerings; the arrays are the operands from `first` on."""
        return self.source(index, self.own_axes(avals[first]), lambda k, at: Index.of(read(first + k, at)))

    def under_batch(self) -> tuple[Axes, int, int]:
        """Return the parameters for operands that all have one more leading axis."""
        return tuple(axis + 1 for axis in self.axes), self.place + 1, self.shared + 1


def known_arrays(values: Sequence[Value]) -> list[np.ndarray] | None:
    """Return the arrays of repeated or reshaped constants; None if one of the values is anything else."""
    found = []
    for x in values:
        path = []
        while isinstance(x.op, (Broadcast, Reshape)):
            path.append(x.op)
            x = x.node.inputs[0]
        array = constant_array(x)
        if array is None:
            return None
        for view in reversed(path):
            array = view.numpy(array)
        found.append(array)
    return found


def spread_batch(size: int, batched: Sequence[bool], values: Sequence[Value]) -> list[Value]:
    """Return all operands with a batch axis in front."""
    return [v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip(values, batched, strict=True)]


@op
class Gather(Indexed):
    """What index arrays pick out of x: the functional form of reading x[i]. The transpose of `ScatterAdd`."""

    axes: Axes
    place: int
    shared: int = 0
    kind = "view"
    cost = 2

    def infer(self, x: Aval, *indices: Aval) -> Aval:
        return self.picked(x, indices)

    def numpy(self, x: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        shape = self.infer(Aval(x.shape, x.dtype), *(Aval(i.shape, i.dtype) for i in indices)).shape
        return np.asarray(x.reshape(-1)[self.offsets(x, indices)].reshape(shape))

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value, *indices: Value) -> Value | None:
        return None if tangents[0] is None else apply(self, tangents[0], *indices)

    def vjp(self, g: Value, y: Value, x: Value, *indices: Value) -> tuple[Value | None, ...]:
        total = apply(ScatterAdd(self.axes, self.place, self.shared), zeros_like(x), g, *indices)
        return total, *(None for _ in indices)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        x, *indices = avals
        nothing = [None for _ in indices]
        if not x.size:
            return [on_all(x, y), *nothing]
        arrays = [i for i in known[1:] if i is not None]
        if len(arrays) == len(indices):
            return [*moved(lambda numbers: self.numpy(numbers, *arrays), [x]), *nothing]
        groups, count = numbers_without(x.shape, self.axes)
        return [Links(groups.reshape(-1), count, self.anywhere(groups, indices)), *nothing]

    def anywhere(self, numbers: np.ndarray, indices: Sequence[Aval]) -> np.ndarray:
        """Return what is picked out of numbers that are the same all along the indexed axes, whatever the index arrays hold."""
        return self.numpy(numbers, *(np.zeros(i.shape, INT64) for i in indices)).reshape(-1)

    def batch(self, size: int, batched: Sequence[bool], x: Value, *indices: Value) -> Value:
        arrays = spread_batch(size, batched[1:], indices)
        if batched[0]:
            return apply(Gather(*self.under_batch()), x, *arrays)
        # One x for the whole batch: the batch is one more axis of the arrays' own.
        order = (*range(1, self.shared + 1), 0, *range(self.shared + 1, len(arrays[0].shape)))
        picked = apply(self, x, *(transpose(i, order) for i in arrays))
        rank = len(picked.shape)
        return transpose(picked, (self.place, *(axis for axis in range(rank) if axis != self.place)))

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        return read(0, self.read_index(read, 1, index, avals))


class Scatter(Indexed, Write):
    """Base of the ops that write y into x where index arrays say, one element of y after the other."""

    axes: Axes
    place: int
    shared: int

    def infer(self, x: Aval, y: Aval, *indices: Aval) -> Aval:
        region = self.picked(x, indices)
        if region.shape != y.shape or region.dtype != y.dtype:
            raise ShapeError(f"{self.name}: {y} into a region of {region}")
        return Aval(x.shape, x.dtype)

    @property
    def gather(self) -> Gather:
        """The op that reads what this one writes."""
        return Gather(self.axes, self.place, self.shared)

    def jvp(self, tangents: Sequence[Value | None], out: Value, x: Value, y: Value, *indices: Value) -> Value | None:
        if tangents[0] is None and tangents[1] is None:
            return None
        moved = (zeros_like(v) if t is None else t for t, v in zip(tangents, (x, y), strict=False))
        return apply(self, *moved, *indices)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        x, written, *indices = avals
        nothing = [None for _ in indices]
        if not x.size:
            return [EACH, on_all(written, y), *nothing]
        arrays = [i for i in known[2:] if i is not None]
        if len(arrays) == len(indices):
            return [*self.known_links(x, written, arrays), *nothing]
        groups, count = numbers_without(x.shape, self.axes)
        return [EACH, Links(self.gather.anywhere(groups, indices), count, groups.reshape(-1)), *nothing]

    def known_links(self, x: Aval, y: Aval, indices: Sequence[np.ndarray]) -> Sequence[Links]:
        """Return the links of x and y for index arrays that are known."""
        return moved(lambda *numbers: self.numpy(*numbers, *indices), [x, y])

    def batch(self, size: int, batched: Sequence[bool], *operands: Value) -> Value:
        return apply(type(self)(*self.under_batch()), *spread_batch(size, batched, operands))  # type: ignore[call-arg]

    def put(self, b: Builder, buffer: Buffer, place: Index, y: Scalar) -> None:
        """Emit the writing of one element."""
        raise ShapeError(f"{self.name} has no lowering")


@op
class ScatterAdd(Scatter):
    """x with the elements of y added where index arrays say, in their order: the functional form of `np.add.at(x, i, y)`."""

    axes: Axes
    place: int
    shared: int = 0

    def infer(self, x: Aval, y: Aval, *indices: Aval) -> Aval:
        if x.dtype == BOOL:
            raise DTypeError("scatter_add of bool: write True instead")
        return super().infer(x, y, *indices)

    def numpy(self, x: np.ndarray, y: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        result = x.reshape(-1).copy()
        np.add.at(result, self.offsets(x, indices), y.reshape(-1))
        return result.reshape(x.shape)

    def vjp(self, g: Value, out: Value, x: Value, y: Value, *indices: Value) -> tuple[Value | None, ...]:
        return g, apply(self.gather, g, *indices), *(None for _ in indices)

    def known_links(self, x: Aval, y: Aval, indices: Sequence[np.ndarray]) -> Sequence[Links]:
        numbers = np.arange(x.size).reshape(x.shape)
        return [EACH, Links(self.gather.numpy(numbers, *indices).reshape(-1), x.size)]

    def put(self, b: Builder, buffer: Buffer, place: Index, y: Scalar) -> None:
        b.store(buffer, place, b.add(b.load(buffer, place), y))


@op
class ScatterSet(Scatter):
    """x with the elements of y where index arrays say: the functional form of x[i] = y. Of several for one place the last stays."""

    axes: Axes
    place: int
    shared: int = 0

    def numpy(self, x: np.ndarray, y: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        result = x.reshape(-1).copy()
        result[self.offsets(x, indices)] = y.reshape(-1)
        return result.reshape(x.shape)

    def vjp(self, g: Value, out: Value, x: Value, y: Value, *indices: Value) -> tuple[Value | None, ...]:
        kept = apply(self, g, zeros_like(y), *indices)
        taken = apply(self.gather, g, *indices)
        last = self.last_writes(x.aval, indices)
        if last is not None:
            others = tuple(axis for axis in range(self.shared, len(y.shape)) if axis not in self.own_axes(indices[0].aval))
            taken = where_zero(broadcast(last, y.shape, others), taken)
        return kept, taken, *(None for _ in indices)

    def last_writes(self, x: Aval, indices: Sequence[Value]) -> Value | None:
        """Return which elements of the arrays are not written over by a later one; None if that is known of all."""
        shape = indices[0].shape
        count = product(shape[self.shared :])
        if count < 2:
            return None
        axes = tuple(range(self.shared, self.shared + len(self.axes)))
        write = ScatterSet(axes, self.shared, self.shared)
        held = (*x.shape[: self.shared], *(x.shape[axis] for axis in self.axes))
        numbers = np.arange(count).reshape(shape[self.shared :])
        arrays = known_arrays(indices)
        if arrays is not None:
            places = write.offsets(np.broadcast_to(0, held), arrays)
            last = np.zeros(places.size, np.bool_)
            last[places.size - 1 - np.unique(places[::-1], return_index=True)[1]] = True
            return None if last.all() else constant(last.reshape(shape))
        if count * count <= product(held):
            return _differ_from_later(shape[: self.shared], count, held, indices)
        # Each element leaves its number at its place: the last one finds its own there.
        own = broadcast(constant(numbers), shape, tuple(range(self.shared)))
        written = apply(write, full(held, 0, INT64), own, *indices)
        return equal(apply(write.gather, written, *indices), own)

    def put(self, b: Builder, buffer: Buffer, place: Index, y: Scalar) -> None:
        b.store(buffer, place, y)


def _differ_from_later(shared: Shape, count: int, extents: Shape, indices: Sequence[Value]) -> Value:
    """Return which elements of index arrays name another place than all after them, each compared with each."""
    places = full(indices[0].shape, 0, INT64)
    for extent, i in zip(extents[len(shared) :], indices, strict=True):
        places = places * extent + i
    places = reshape(places, (*shared, count))
    square, rank = (*shared, count, count), len(shared)
    same = equal(broadcast(places, square, (rank + 1,)), broadcast(places, square, (rank,)))
    later = broadcast(constant(np.triu(np.ones((count, count), np.bool_), 1)), square, tuple(range(rank)))
    return reshape(logical_not(apply(Any_((rank + 1,)), logical_and(same, later))), indices[0].shape)
