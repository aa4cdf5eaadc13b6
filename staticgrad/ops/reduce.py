"""Reductions: many elements to one, along axes.

A reduction is a state (one or two scalars), a step that takes in an element, a merge of two states and a result. The schedule is
free to keep several states and to merge them in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import BOOL, INT64, Aval, is_float, product
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.links import Links, numbers_without
from staticgrad.ir.node import Value, apply, full
from staticgrad.ir.op import Op, op
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import equal
from staticgrad.ops.movement import Axes, broadcast, concatenate, pad, reshape, slice_, slice_axis, transpose

State = tuple[Scalar, ...]


class Reduce(Op):
    """Base of the reductions; `axes` are sorted and may be empty."""

    axes: Axes
    kind = "reduce"
    empty_allowed = True

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        if list(self.axes) != sorted(set(self.axes)) or any(not 0 <= a < x.rank for a in self.axes):
            raise ShapeError(f"{self.name}: axes {self.axes} do not fit {x}")
        result = x.without(self.axes)
        if not self.empty_allowed and product(x.shape[a] for a in self.axes) == 0:
            raise ShapeError(f"{self.name} of no elements (shape {x.shape}, axes {self.axes}) has no identity")
        return self.result(result)

    def result(self, aval: Aval) -> Aval:
        """Return the output's aval from that of an operand without the axes."""
        return aval

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        numbers, count = numbers_without(avals[0].shape, self.axes)
        return [Links(numbers.reshape(-1), count)]

    def start(self, b: Builder, dtype: np.dtype) -> State:
        """Return the state before the first element."""
        raise ShapeError(f"{self.name} has no start")

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        """Return the state after `x`, which stands at `position` (counted along the reduced axes)."""
        raise ShapeError(f"{self.name} has no step")

    def merge(self, b: Builder, first: State, second: State) -> State:
        """Return the state of both; `first` saw the elements at lower lanes."""
        return self.step(b, first, second[0], second[-1])

    def finish(self, b: Builder, state: State) -> Scalar:
        """Return the result of a state."""
        return state[0]

    def batch(self, size: int, batched: Sequence[bool], x: Value) -> Value:
        return apply(type(self)(tuple(axis + 1 for axis in self.axes)), x)  # type: ignore[call-arg]


def spread(g: Value, x: Value, axes: Axes) -> Value:
    """Return g repeated along the reduced `axes`, in the shape of x."""
    return broadcast(g, x.shape, axes)


@op
class Sum(Reduce):
    """Add over `axes`: (2, 3) --Sum(axes=(1,))--> (2,). The transpose of `Broadcast`."""

    axes: Axes
    linear = True
    notation = "Sum"

    def infer(self, *avals: Aval) -> Aval:
        if avals[0].dtype == BOOL:
            raise DTypeError("sum of bool: cast to an integer first")
        return super().infer(*avals)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum(x, axis=self.axes, dtype=x.dtype))

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else sum_(tangents[0], self.axes)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (spread(g, x, self.axes),)

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(0, dtype),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.add(state[0], x),)


@op
class Prod(Reduce):
    """Multiply over `axes`. Its derivative goes through a tree of products, so zeros are no special case at any order."""

    axes: Axes
    notation = "Product"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.prod(x, axis=self.axes, dtype=x.dtype))

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        if tangents[0] is None:
            return None
        return sum_(tangents[0] * product_of_others(x, self.axes), self.axes)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        return (spread(g, x, self.axes) * product_of_others(x, self.axes),)

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(1, dtype),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.mul(state[0], x),)


def product_of_others(x: Value, axes: Axes) -> Value:
    """Return, for each element, the product of all others along `axes`: no division, so zeros are exact."""
    kept = tuple(a for a in range(len(x.shape)) if a not in axes)
    order = (*kept, *axes)
    moved = transpose(x, order)
    rows = reshape(moved, (*(x.shape[a] for a in kept), _count(x, axes)))
    others = _others_of_last_axis(rows)
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return transpose(reshape(others, moved.shape), back)


def _count(x: Value, axes: Axes) -> int:
    return int(np.prod([x.shape[a] for a in axes], dtype=np.int64))


def _others_of_last_axis(x: Value) -> Value:
    """Pair the elements, multiply the pairs, recurse: each element's others are its partner times its pair's others."""
    count = x.shape[-1]
    levels: list[Value] = []
    while x.shape[-1] > 1:
        if x.shape[-1] % 2:
            high = (0,) * (len(x.shape) - 1) + (1,)
            x = pad(x, full((), 1, x.dtype), (0,) * len(x.shape), high, (0,) * len(x.shape))
        levels.append(x)
        x = _every_other(x, 0) * _every_other(x, 1)
    others = full(x.shape, 1, x.dtype)
    for level in reversed(levels):
        left, right = _every_other(level, 0), _every_other(level, 1)
        half = others if others.shape == left.shape else slice_axis(others, len(others.shape) - 1, 0, left.shape[-1])
        pairs = [reshape(half * v, (*left.shape, 1)) for v in (right, left)]
        others = reshape(concatenate(pairs, len(left.shape)), level.shape)
    return slice_axis(others, len(others.shape) - 1, 0, count)


def _every_other(x: Value, first: int) -> Value:
    rank = len(x.shape)
    return slice_(x, (0,) * (rank - 1) + (first,), x.shape, (1,) * (rank - 1) + (2,))


class Extremum(Reduce):
    """Base of max and min; NaN wins, and ties share the derivative equally."""

    axes: Axes
    empty_allowed = False

    def _share(self, y: Value, x: Value) -> tuple[Value, Value]:
        winners = cast(equal(x, spread(y, x, self.axes)), x.dtype)
        return winners, sum_(winners, self.axes)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        if tangents[0] is None:
            return None
        winners, count = self._share(y, x)
        return sum_(tangents[0] * winners, self.axes) / count

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        winners, count = self._share(y, x)
        return (winners * spread(g / count, x, self.axes),)


def _least(dtype: np.dtype) -> Any:
    return False if dtype == BOOL else -np.inf if is_float(dtype) else np.iinfo(dtype).min


def _greatest(dtype: np.dtype) -> Any:
    return True if dtype == BOOL else np.inf if is_float(dtype) else np.iinfo(dtype).max


@op
class Max(Extremum):
    """The largest element along `axes`."""

    axes: Axes

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.max(x, axis=self.axes))

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(_least(dtype), dtype),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.or_(state[0], x) if x.dtype == BOOL else b.max(state[0], x),)


@op
class Min(Extremum):
    """The smallest element along `axes`."""

    axes: Axes

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.min(x, axis=self.axes))

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(_greatest(dtype), dtype),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.and_(state[0], x) if x.dtype == BOOL else b.min(state[0], x),)


class Logical(Reduce):
    """Base of any and all, on bool."""

    axes: Axes

    def infer(self, *avals: Aval) -> Aval:
        if avals[0].dtype != BOOL:
            raise DTypeError(f"{self.name} takes bool, not {avals[0].dtype}")
        return super().infer(*avals)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[None]:
        return (None,)


@op
class Any_(Logical):
    """Whether one element along `axes` is true."""

    axes: Axes
    name = "any"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.any(x, axis=self.axes))

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(False, BOOL),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.or_(state[0], x),)


@op
class All_(Logical):
    """Whether all elements along `axes` are true."""

    axes: Axes
    name = "all"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.all(x, axis=self.axes))

    def start(self, b: Builder, dtype: np.dtype) -> State:
        return (b.literal(True, BOOL),)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        return (b.and_(state[0], x),)


class Position(Reduce):
    """Base of argmax and argmin: the first place of the extremum along one axis; the first NaN wins."""

    axes: Axes
    empty_allowed = False

    def infer(self, *avals: Aval) -> Aval:
        if len(self.axes) != 1:
            raise ShapeError(f"{self.name} takes one axis, not {self.axes}")
        return super().infer(*avals)

    def result(self, aval: Aval) -> Aval:
        return aval.with_dtype(INT64)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[None]:
        return (None,)

    def beats(self, b: Builder, x: Scalar, best: Scalar) -> Scalar:
        """Whether x is strictly better than the best so far, NaN aside."""
        raise ShapeError(f"{self.name} has no order")

    def start(self, b: Builder, dtype: np.dtype) -> State:
        worst = _least(dtype) if self.name == "arg_max" else _greatest(dtype)
        return b.literal(worst, dtype), b.literal(np.iinfo(np.int64).max, INT64)

    def step(self, b: Builder, state: State, x: Scalar, position: Scalar) -> State:
        best, place = state
        earlier = b.lt(position, place)
        better = b.or_(self.beats(b, x, best), b.and_(b.eq(x, best), earlier))
        if is_float(x.dtype):
            best_nan, x_nan = b.is_nan(best), b.is_nan(x)
            better = b.select(best_nan, b.and_(x_nan, earlier), b.or_(x_nan, better))
        return b.select(better, x, best), b.select(better, position, place)

    def finish(self, b: Builder, state: State) -> Scalar:
        return state[1]


@op
class ArgMax(Position):
    """Where the largest element along the axis stands."""

    axes: Axes

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.argmax(x, axis=self.axes[0]))

    def beats(self, b: Builder, x: Scalar, best: Scalar) -> Scalar:
        return b.lt(best, x)


@op
class ArgMin(Position):
    """Where the smallest element along the axis stands."""

    axes: Axes

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.argmin(x, axis=self.axes[0]))

    def beats(self, b: Builder, x: Scalar, best: Scalar) -> Scalar:
        return b.lt(x, best)


def sum_(x: Value, axes: Axes) -> Value:
    """Return the sum over `axes`; x itself for no axes."""
    return apply(Sum(tuple(sorted(axes))), x) if axes else x


def prod(x: Value, axes: Axes) -> Value:
    """Return the product over `axes`; x itself for no axes."""
    return apply(Prod(tuple(sorted(axes))), x) if axes else x


def max_(x: Value, axes: Axes) -> Value:
    """Return the largest elements along `axes`."""
    return apply(Max(tuple(sorted(axes))), x) if axes else x


def min_(x: Value, axes: Axes) -> Value:
    """Return the smallest elements along `axes`."""
    return apply(Min(tuple(sorted(axes))), x) if axes else x
