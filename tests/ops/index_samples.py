"""Samples of the ops that pick and write by index arrays, and of those on whole rows."""

from collections.abc import Iterator

import numpy as np

from staticgrad.ir.aval import DTYPES, INT64, Aval
from staticgrad.ir.op import REGISTRY
from tests.ops.samples import FLOATS, INTEGERS, SHAPES, Sample, edge_values, random_array, sampler

CASES = [
    # shape of x, axes, place, shared, shape of the arrays
    ((5,), (0,), 0, 0, ()), ((5,), (0,), 0, 0, (1,)), ((5,), (0,), 0, 0, (7,)), ((5,), (0,), 0, 0, (0,)), ((5,), (0,), 0, 0, (2, 3)),
    ((1,), (0,), 0, 0, (3,)), ((4, 3), (0,), 0, 0, (5,)), ((4, 3), (1,), 1, 0, (5,)), ((4, 3), (1,), 0, 0, (5,)),
    ((4, 3), (0,), 1, 0, (2,)),
    ((4, 3), (0, 1), 0, 0, (6,)), ((4, 3), (0, 1), 0, 0, ()), ((0, 3), (1,), 1, 0, (2,)), ((3, 0), (0,), 0, 0, (2,)),
    ((0, 3), (0,), 0, 0, (0,)),
    ((2, 4, 3), (1,), 1, 0, (2, 2)), ((2, 4, 3), (0, 2), 0, 0, (5,)), ((2, 4, 3), (0, 2), 1, 0, (5,)), ((3, 1, 2), (1, 2), 1, 0, (4,)),
    ((3, 4), (1,), 1, 1, (3, 5)), ((3, 4), (1,), 1, 1, (3,)), ((3, 4, 2), (1,), 2, 1, (3, 5)), ((2, 3, 4), (2,), 2, 2, (2, 3, 1)),
    ((2, 3, 4, 2), (2, 3), 2, 1, (2, 5)), ((0, 4), (1,), 1, 1, (0, 2)),
]  # fmt: skip


def index_arrays(rng: np.random.Generator, shape: tuple[int, ...], axes: tuple[int, ...], own: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return one array of positions for each of the axes, some of them more than once."""
    return tuple(np.asarray(rng.integers(0, max(shape[axis], 1), own)).astype(INT64) for axis in axes)


@sampler("bounded_index")
def _bounded_index(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(20)
    for mode in ("raise", "wrap", "clip"):
        op = REGISTRY[name](6, mode)
        for dtype in INTEGERS:
            for shape in SHAPES:
                yield Sample(op, (random_array(rng, shape, dtype) if mode != "raise" else rng.integers(0, 6, shape).astype(dtype),))
            edges = edge_values(dtype)
            yield Sample(op, (edges if mode != "raise" else edges[(edges < 6) & (edges >= 0)],), "edge values")
        yield Sample(op, (np.arange(-6, 6),), "edge values")
        yield Sample(REGISTRY[name](0, mode), (np.zeros((0, 3), np.int64),))
        yield Sample(REGISTRY[name](1, mode), (np.array([0, -1]),))


@sampler("gather")
def _gather(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(21)
    for shape, axes, place, shared, own in CASES:
        yield Sample(REGISTRY[name](axes, place, shared), (random_array(rng, shape, np.float64), *index_arrays(rng, shape, axes, own)))
    for dtype in DTYPES.values():
        yield Sample(REGISTRY[name]((1,), 1), (random_array(rng, (2, 3), dtype), np.array([2, 0, 0, 1])))


@sampler("scatter_add", "scatter_set")
def _scatter(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(22)
    for shape, axes, place, shared, own in CASES:
        op, arrays = REGISTRY[name](axes, place, shared), index_arrays(rng, shape, axes, own)
        part = op.picked(Aval(shape, DTYPES["float64"]), [Aval(i.shape, INT64) for i in arrays]).shape
        yield Sample(op, (random_array(rng, shape, np.float64), random_array(rng, part, np.float64), *arrays))
    for dtype in DTYPES.values():
        if name == "scatter_add" and dtype.kind == "b":
            continue
        operands = (random_array(rng, (2, 3), dtype), random_array(rng, (2, 4), dtype), np.array([2, 0, 2, 1]))
        yield Sample(REGISTRY[name]((1,), 1), operands)
    many = np.asarray(rng.integers(0, 3, 40))  # so many writes to so few places that they leave their numbers there
    yield Sample(REGISTRY[name]((0,), 0), (random_array(rng, (3,), np.float64), random_array(rng, (40,), np.float64), many))


@sampler("arg_sort", "cumulative_sum")
def _rows(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(23)
    dtypes = tuple(DTYPES) if name == "arg_sort" else (*INTEGERS, *FLOATS)
    for shape in (*SHAPES[1:], (4, 0), (2, 3, 4), (40,), (2, 17), (33, 2)):
        for axis in range(len(shape)):
            yield Sample(REGISTRY[name](axis), (random_array(rng, shape, np.float64),))
    for dtype in dtypes:
        yield Sample(REGISTRY[name](0), (random_array(rng, (70,), dtype),))
        yield Sample(REGISTRY[name](1), (random_array(rng, (2, 5), dtype),))
    if name == "arg_sort":
        for dtype in dtypes:
            yield Sample(REGISTRY[name](0), (rng.permutation(np.tile(edge_values(dtype), 3)),), "edge values")
            yield Sample(REGISTRY[name](1), (np.stack([np.sort(edge_values(dtype)), np.sort(edge_values(dtype))[::-1]]),), "edge values")
        for length in (15, 16, 17, 31, 32, 33, 64, 65, 129):
            yield Sample(REGISTRY[name](0), (rng.integers(0, 9, length).astype(np.float32),), "lengths around those of runs")


@sampler("search_sorted")
def _search_sorted(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(24)
    for side in ("left", "right"):
        for shape in SHAPES:
            for length in (0, 1, 6):
                x = np.sort(random_array(rng, (length,), np.float64))
                yield Sample(REGISTRY[name](side), (x, random_array(rng, shape, np.float64)))
        for x_shape, shape, shared in (((3, 5), (3,), 1), ((3, 5), (3, 4), 1), ((2, 3, 4), (2, 3, 2), 2), ((0, 5), (0, 3), 1)):
            x = np.sort(random_array(rng, x_shape, np.float64))
            yield Sample(REGISTRY[name](side, shared), (x, random_array(rng, shape, np.float64)))
        for dtype in DTYPES.values():
            values = edge_values(dtype)
            yield Sample(REGISTRY[name](side), (np.sort(np.tile(values, 2)), values), "edge values")
