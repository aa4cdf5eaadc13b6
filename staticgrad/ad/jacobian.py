"""Jacobians: the pullback or the pushforward of all unit vectors at once, as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from staticgrad.ad.batch import all_batched
from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.ir.aval import Aval
from staticgrad.ir.node import Value, constant, full, new_input
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import equal
from staticgrad.ops.movement import broadcast, concatenate, reshape, transpose

LinearMap = Callable[[Value], Sequence[Value | None]]


def blocks_by_pullback(y: Value, inputs: Sequence[Value]) -> list[Value]:
    """Return dy/dx for each input, of shape y.shape + x.shape and the input's dtype: one pullback for each element of y."""
    rows = of_unit_vectors(lambda g: cotangents([y], inputs, [g]), y.aval)
    return [_zeros(y, x) if row is None else reshape(row, (*y.shape, *x.shape)) for row, x in zip(rows, inputs, strict=True)]


def blocks_by_pushforward(outputs: Sequence[Value], x: Value) -> list[Value]:
    """Return dy/dx for each output, of shape y.shape + x.shape and the input's dtype: one pushforward for each element of x."""
    blocks = []
    for column, y in zip(of_unit_vectors(lambda t: tangents(outputs, [x], [t]), x.aval), outputs, strict=True):
        if column is None:
            blocks.append(_zeros(y, x))
        else:
            row = transpose(column, (*range(1, len(column.shape)), 0))
            blocks.append(cast(reshape(row, (*y.shape, *x.shape)), x.dtype))
    return blocks


def sums_by_pullback(outputs: Sequence[Value], inputs: Sequence[Value], colors: np.ndarray, count: int) -> Value:
    """Return the sum of the rows of each colour of the Jacobian, (count, elements of all inputs): one pullback a colour."""
    return _of_colored(lambda seeds: cotangents(outputs, inputs, seeds), outputs, inputs, colors, count)


def sums_by_pushforward(outputs: Sequence[Value], inputs: Sequence[Value], colors: np.ndarray, count: int) -> Value:
    """Return the sum of the columns of each colour of the Jacobian, (count, elements of all outputs): one pushforward a colour."""
    return _of_colored(lambda seeds: tangents(outputs, inputs, seeds), inputs, outputs, colors, count)


def _of_colored(
    linear: Callable[[Sequence[Value]], Sequence[Value | None]],
    sources: Sequence[Value],
    targets: Sequence[Value],
    colors: np.ndarray,
    count: int,
) -> Value:
    """Return what a linear map from `sources` to `targets` makes of the vectors that are 1 at the elements of one colour each."""
    dtype = np.result_type(*(v.dtype for v in targets))
    if not count:
        return full((0, sum(v.aval.size for v in targets)), 0, dtype)
    ends = np.cumsum([v.aval.size for v in sources])[:-1]
    seeds = [_of_colors(part.reshape(v.shape), count, v.dtype) for part, v in zip(np.split(colors, ends), sources, strict=True)]
    vectors = [new_input(Aval(v.shape, v.dtype), "vector") for v in sources]
    found = linear(vectors)
    reached = [r for r in found if r is not None]
    images = dict(zip(reached, all_batched(reached, vectors, seeds, [True] * len(seeds), count), strict=True))
    rows = [
        full((count, v.aval.size), 0, dtype) if r is None else cast(reshape(images[r], (count, v.aval.size)), dtype)
        for r, v in zip(found, targets, strict=True)
    ]
    return concatenate(rows, 1)


def of_unit_vectors(linear: LinearMap, aval: Aval) -> list[Value | None]:
    """Return what a linear map makes of each unit vector, one after the other along a new first axis; None stands for zero."""
    if aval.size == 1:
        return [None if r is None else reshape(r, (1, *r.shape)) for r in linear(full(aval.shape, 1, aval.dtype))]
    vector = new_input(Aval(aval.shape, aval.dtype), "vector")
    results = linear(vector)
    reached = [r for r in results if r is not None] if aval.size else []
    images = dict(zip(reached, all_batched(reached, [vector], [_unit_vectors(aval)], [True], aval.size), strict=True))
    return [None if r is None else images.get(r) for r in results]


def _unit_vectors(aval: Aval) -> Value:
    """Return every array of a shape that is 1 at one element and 0 elsewhere: f64[2,3] -> f64[6,2,3]; fused into what reads it."""
    return _of_colors(np.arange(aval.size).reshape(aval.shape), aval.size, aval.dtype)


def _of_colors(colors: np.ndarray, count: int, dtype: np.dtype) -> Value:
    """Return, for each colour, the array that is 1 where `colors` has it and 0 elsewhere: (0, 1, 0) -> ((1, 0, 1), (0, 1, 0))."""
    shape = (count, *colors.shape)
    element = broadcast(constant(colors), shape, (0,))
    chosen = broadcast(constant(np.arange(count, dtype=colors.dtype)), shape, tuple(range(1, len(shape))))
    return cast(equal(element, chosen), dtype)


def _zeros(y: Value, x: Value) -> Value:
    return full((*y.shape, *x.shape), 0, x.dtype)
