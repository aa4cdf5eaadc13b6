"""Operations that move elements without computing: views, paddings, pieces put together.

Each view maps an index of its output to an index of its operand; that one rule is its lowering.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval, Shape, product
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.links import EACH, Links, moved
from staticgrad.ir.node import Value, apply, full, zeros_like
from staticgrad.ir.op import Op, Read, op

Axes = tuple[int, ...]


class View(Op):
    """Base of the ops that only map indices; linear, so the tangent of a view is the view of the tangent."""

    kind = "view"
    linear = True

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return moved(self.numpy, avals)

    def source(self, index: tuple[Index, ...], shape: Shape) -> tuple[Index, ...]:
        """Return the operand's index (its shape is `shape`) of the output's element at `index`."""
        raise ShapeError(f"{self.name} has no index rule")

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        return read(0, self.source(index, avals[0].shape))


@op
class Reshape(View):
    """The same elements in C order under another shape: (2, 3) --Reshape((6,))--> (6,)."""

    shape: Shape
    kind = "alias"

    def infer(self, *avals: Aval) -> Aval:
        if product(self.shape) != avals[0].size:
            raise ShapeError(f"reshape: {avals[0]} has {avals[0].size} elements, shape {self.shape} has {product(self.shape)}")
        return avals[0].with_shape(self.shape)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.shape)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (reshape(g, x.shape),)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return [EACH]

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return reshape(x, (size, *self.shape))


def only_unit_axes_differ(before: Shape, after: Shape) -> bool:
    """Return whether the shapes are equal but for axes of length 1: such a reshape is a plain view."""
    return [e for e in before if e != 1] == [e for e in after if e != 1]


def unit_axes_source(index: tuple[Index, ...], after: Shape, before: Shape) -> tuple[Index, ...]:
    """Return the operand's index of a reshape that only adds or drops axes of length 1."""
    kept = iter([i for i, extent in zip(index, after, strict=True) if extent != 1])
    return tuple(next(kept) if extent != 1 else Index() for extent in before)


@op
class Transpose(View):
    """Axes in another order: output axis k is operand axis order[k]."""

    order: Axes

    def infer(self, *avals: Aval) -> Aval:
        if sorted(self.order) != list(range(avals[0].rank)):
            raise ShapeError(f"transpose: order {self.order} does not fit {avals[0]}")
        return avals[0].with_shape(tuple(avals[0].shape[axis] for axis in self.order))

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.order)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (transpose(g, inverse_order(self.order)),)

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return transpose(x, (0, *(axis + 1 for axis in self.order)))

    def source(self, index: tuple[Index, ...], shape: Shape) -> tuple[Index, ...]:
        return tuple(index[k] for k in inverse_order(self.order))


def inverse_order(order: Axes) -> Axes:
    """Return the permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


@op
class Broadcast(View):
    """Repeat along new axes: (3,) --Broadcast((2, 3), axes=(0,))--> (2, 3). The transpose of `Sum`."""

    shape: Shape
    axes: Axes

    def infer(self, *avals: Aval) -> Aval:
        result = avals[0].with_shape(self.shape)
        if result.without(self.axes).shape != avals[0].shape or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(f"broadcast: {avals[0]} does not become {self.shape} by new axes {self.axes}")
        return result

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.expand_dims(x, self.axes), self.shape)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        from staticgrad.ops.reduce import sum_

        return (sum_(g, self.axes),)

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return broadcast(x, (size, *self.shape), tuple(axis + 1 for axis in self.axes))

    def source(self, index: tuple[Index, ...], shape: Shape) -> tuple[Index, ...]:
        return tuple(i for axis, i in enumerate(index) if axis not in self.axes)


@op
class Slice(View):
    """Every step-th element from start up to stop along each axis; steps are positive."""

    starts: Axes
    stops: Axes
    steps: Axes

    def infer(self, *avals: Aval) -> Aval:
        return avals[0].with_shape(tuple(len(range(*s)) for s in zip(self.starts, self.stops, self.steps, strict=True)))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The same as Python slices."""
        return tuple(slice(*s) for s in zip(self.starts, self.stops, self.steps, strict=True))

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x[self.slices]

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        high = tuple(
            n - (s + (k - 1) * d + 1) if k else n - s for n, s, k, d in zip(x.shape, self.starts, g.shape, self.steps, strict=True)
        )
        return (pad(g, full((), 0, g.dtype), self.starts, high, tuple(d - 1 for d in self.steps)),)

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return slice_(x, (0, *self.starts), (size, *self.stops), (1, *self.steps))

    def source(self, index: tuple[Index, ...], shape: Shape) -> tuple[Index, ...]:
        return tuple(i * d + s for i, s, d in zip(index, self.starts, self.steps, strict=True))


@op
class Flip(View):
    """Reversed order along `axes`."""

    axes: Axes

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.flip(x, self.axes)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (flip(g, self.axes),)

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return flip(x, tuple(axis + 1 for axis in self.axes))

    def source(self, index: tuple[Index, ...], shape: Shape) -> tuple[Index, ...]:
        return tuple(-i + (shape[axis] - 1) if axis in self.axes else i for axis, i in enumerate(index))


@op
class Pad(Op):
    """Elements of the scalar `fill` before, after and between those of x: (a, b) --Pad(1, 0, 2)--> (f, a, f, f, b)."""

    low: Axes
    high: Axes
    interior: Axes
    kind = "view"
    cost = 3

    def infer(self, x: Aval, fill: Aval) -> Aval:
        if fill.shape or fill.dtype != x.dtype:
            raise ShapeError(f"pad: the fill value must be a scalar of {x.dtype}, not {fill}")
        parts = zip(x.shape, self.low, self.high, self.interior, strict=True)
        return Aval(tuple(n + low + high + max(n - 1, 0) * k for n, low, high, k in parts), x.dtype)

    def numpy(self, x: np.ndarray, fill: np.ndarray) -> np.ndarray:
        shape = self.infer(Aval(x.shape, x.dtype), Aval((), x.dtype)).shape
        result = np.full(shape, fill, x.dtype)
        result[self.region(x.shape)] = x
        return result

    def region(self, shape: Shape) -> tuple[slice, ...]:
        """Return where x of `shape` lies in the result."""
        parts = zip(shape, self.low, self.interior, strict=True)
        return tuple(slice(low, low + max((n - 1) * (k + 1) + 1, 0) if n else low, k + 1) for n, low, k in parts)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value, fill: Value) -> Value | None:
        if tangents[0] is None and tangents[1] is None:
            return None
        return apply(self, *(zeros_like(v) if t is None else t for t, v in zip(tangents, (x, fill), strict=True)))

    def vjp(self, g: Value, y: Value, x: Value, fill: Value) -> tuple[Value, Value]:
        from staticgrad.ops.reduce import sum_

        region = self.region(x.shape)
        place = tuple(s.start for s in region), tuple(s.stop for s in region), tuple(s.step for s in region)
        inside = slice_(g, *place)
        outside = slice_set(g, zeros_like(inside), *place)  # no difference of sums: that would lose small numbers beside large ones
        return inside, sum_(outside, tuple(range(len(g.shape))))

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return moved(self.numpy, avals)

    def batch(self, size: int, batched: Sequence[bool], x: Value, fill: Value) -> Value:
        from staticgrad.ops.comparison import where

        wide = x if batched[0] else broadcast(x, (size, *x.shape), (0,))
        low, high, interior = (0, *self.low), (0, *self.high), (0, *self.interior)
        if not batched[1]:
            return pad(wide, fill, low, high, interior)
        inside = pad(full(wide.shape, True, BOOL), full((), False, BOOL), low, high, interior)
        padded = pad(wide, full((), 0, x.dtype), low, high, interior)
        return where(inside, padded, broadcast(fill, padded.shape, tuple(range(1, len(padded.shape)))))

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        if not avals[0].size:
            return read(1, ())
        inside: Scalar | None = None
        inner: list[Index] = []
        for position, extent, low, high, gap in zip(index, avals[0].shape, self.low, self.high, self.interior, strict=True):
            moved = position - low
            last = (extent - 1) * (gap + 1)
            if not moved.terms:
                if not 0 <= moved.constant <= last or moved.constant % (gap + 1):
                    return read(1, ())
                inner.append(Index(moved.constant // (gap + 1)))
                continue
            checks: list[Scalar] = []
            if low or high or gap:
                place = b.position(moved)  # a number of its own, so this axis is not merged with others
                least, greatest = b.bounds(moved)
                if greatest < 0 or least > last:
                    return read(1, ())
            if low or gap:
                checks.append(b.le(b.literal(0, INT64), place))
            if high or gap:
                checks.append(b.le(place, b.literal(last, INT64)))
            if gap:
                step = b.literal(gap + 1, INT64)
                checks.append(b.eq(b.remainder(place, step), b.literal(0, INT64)))
                moved = Index.of(b.quotient(place, step))
            for check in checks:
                inside = check if inside is None else b.and_(inside, check)
            inner.append(moved)
        if inside is None:
            return read(0, tuple(inner))
        result = b.variable(read(1, ()), "padded")
        with b.if_(inside):
            b.set(result, read(0, tuple(inner)))
        return b.get(result)


@op
class Concatenate(Op):
    """Operands one after the other along `axis`."""

    axis: int
    kind = "assemble"
    linear = True

    def infer(self, *avals: Aval) -> Aval:
        first = avals[0]
        for aval in avals[1:]:
            if aval.dtype != first.dtype or aval.without((self.axis,)).shape != first.without((self.axis,)).shape:
                raise ShapeError(f"concatenate along axis {self.axis}: {', '.join(map(str, avals))} do not fit together")
        extents = list(first.shape)
        extents[self.axis] = sum(aval.shape[self.axis] for aval in avals)
        return Aval(tuple(extents), first.dtype)

    def numpy(self, *arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays, self.axis)

    def offsets(self, shapes: Sequence[Shape]) -> list[int]:
        """Return where each operand begins along the axis."""
        return [sum(shape[self.axis] for shape in shapes[:k]) for k in range(len(shapes))]

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        if all(t is None for t in tangents):
            return None
        return apply(self, *(zeros_like(v) if t is None else t for t, v in zip(tangents, x, strict=True)))

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[Value | None, ...]:
        parts = zip(x, self.offsets([v.shape for v in x]), strict=True)
        return tuple(slice_axis(g, self.axis, start, start + v.shape[self.axis]) for v, start in parts)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return moved(self.numpy, avals)

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        wide = (v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip(x, batched, strict=True))
        return apply(Concatenate(self.axis + 1), *wide)


class Write(Op):
    """Base of the ops that give their first operand with the second one written into a part of it."""

    kind = "assemble"


@op
class SliceSet(Write):
    """x with y written at a slice: the functional form of `x[slices] = y`."""

    starts: Axes
    stops: Axes
    steps: Axes
    linear = True

    @property
    def slice(self) -> Slice:
        """The op that reads what this one writes."""
        return Slice(self.starts, self.stops, self.steps)

    def infer(self, x: Aval, y: Aval) -> Aval:
        region = self.slice.infer(x)
        if region.shape != y.shape or x.dtype != y.dtype:
            raise ShapeError(f"writing {y} into a region of {region}")
        return Aval(x.shape, x.dtype)

    def numpy(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        result = x.copy()
        result[self.slice.slices] = y
        return result

    def jvp(self, tangents: Sequence[Value | None], out: Value, x: Value, y: Value) -> Value | None:
        if tangents[0] is None and tangents[1] is None:
            return None
        return apply(self, *(zeros_like(v) if t is None else t for t, v in zip(tangents, (x, y), strict=True)))

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return apply(self, g, zeros_like(y)), apply(self.slice, g)

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return moved(self.numpy, avals)

    def batch(self, size: int, batched: Sequence[bool], x: Value, y: Value) -> Value:
        x, y = (v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip((x, y), batched, strict=True))
        return apply(SliceSet((0, *self.starts), (size, *self.stops), (1, *self.steps)), x, y)


# ---- regions: where slices lie ------------------------------------------------------------------------------------------------

Region = tuple[slice, ...]


def same_region(first: Region, shape: Shape, second: Region, other: Shape) -> bool:
    """Return whether two strided regions are the same elements."""
    pairs = zip(first, second, shape)
    return shape == other and all(a.start == b.start and (a.step == b.step or n == 1) for a, b, n in pairs)


def apart(first: Region, shape: Shape, second: Region, other: Shape) -> bool:
    """Return whether two strided regions surely have no element in common."""
    pairs = zip(first, second, shape, other, strict=True)
    return any(n == 0 or m == 0 or a.start > last_of(b, m) or b.start > last_of(a, n) for a, b, n, m in pairs)


def last_of(region: slice, length: int) -> int:
    """Return the last position of a strided region of `length` elements."""
    return int(region.start + (length - 1) * region.step)


# ---- functions: those that would do nothing return their operand ---------------------------------------------------------------


def reshape(x: Value, shape: Shape) -> Value:
    """Return x under another shape."""
    return x if x.shape == tuple(shape) else apply(Reshape(tuple(shape)), x)


def transpose(x: Value, order: Axes) -> Value:
    """Return x with its axes in another order."""
    return x if tuple(order) == tuple(range(len(order))) else apply(Transpose(tuple(order)), x)


def broadcast(x: Value, shape: Shape, axes: Axes) -> Value:
    """Return x repeated along the new `axes` of `shape`."""
    return apply(Broadcast(tuple(shape), tuple(axes)), x) if axes else x


def broadcast_to(x: Value, shape: Shape) -> Value:
    """Return x broadcast to `shape` by NumPy's rule: axes of length 1 are dropped, then repeated."""
    if x.shape == tuple(shape):
        return x
    ahead = len(shape) - len(x.shape)
    if ahead < 0 or any(e not in (1, shape[ahead + k]) for k, e in enumerate(x.shape)):
        raise ShapeError(f"cannot broadcast shape {x.shape} to {tuple(shape)}")
    stretched = [k for k, e in enumerate(x.shape) if e == 1 and shape[ahead + k] != 1]
    kept = tuple(e for k, e in enumerate(x.shape) if k not in stretched)
    return broadcast(reshape(x, kept), shape, (*range(ahead), *(ahead + k for k in stretched)))


def slice_(x: Value, starts: Axes, stops: Axes, steps: Axes) -> Value:
    """Return a strided region of x; x itself if that is all of it."""
    whole = all(s == 0 and e >= n and d == 1 for s, e, d, n in zip(starts, stops, steps, x.shape, strict=True))
    return x if whole else apply(Slice(tuple(starts), tuple(stops), tuple(steps)), x)


def slice_axis(x: Value, axis: int, start: int, stop: int) -> Value:
    """Return x[start:stop] along one axis."""
    rank = len(x.shape)
    starts = tuple(start if k == axis else 0 for k in range(rank))
    stops = tuple(stop if k == axis else x.shape[k] for k in range(rank))
    return slice_(x, starts, stops, (1,) * rank)


def flip(x: Value, axes: Axes) -> Value:
    """Return x reversed along `axes`."""
    return apply(Flip(tuple(sorted(axes))), x) if axes else x


def pad(x: Value, fill: Value, low: Axes, high: Axes, interior: Axes) -> Value:
    """Return x with `fill` around and between its elements."""
    return apply(Pad(tuple(low), tuple(high), tuple(interior)), x, fill) if any((*low, *high, *interior)) else x


def concatenate(values: Sequence[Value], axis: int) -> Value:
    """Return the values one after the other along `axis`."""
    return values[0] if len(values) == 1 else apply(Concatenate(axis), *values)


def slice_set(x: Value, y: Value, starts: Axes, stops: Axes, steps: Axes) -> Value:
    """Return x with y written at a slice."""
    return apply(SliceSet(tuple(starts), tuple(stops), tuple(steps)), x, y)
