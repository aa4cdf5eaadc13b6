"""Samples of the ops with sub-graphs: branches and loops."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from staticgrad.ir.aval import FLOAT32, FLOAT64, INT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, full, new_input
from staticgrad.ops.branches import Switch
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import less, where
from staticgrad.ops.loops import Scan
from staticgrad.ops.movement import broadcast, flip
from staticgrad.ops.powers import sqrt
from staticgrad.ops.reduce import sum_
from staticgrad.ops.while_loops import While
from tests.ops.samples import Sample, random_array, sampler

NUMBER = Aval((), INT64)
SHAPES = ((), (1,), (3,), (0, 3), (2, 3))


def graph_of(function: Callable[..., Sequence[Value]], *avals: Aval) -> Graph:
    """Return what a function of values does as a graph."""
    inputs = tuple(new_input(aval) for aval in avals)
    return Graph(inputs, tuple(function(*inputs)), (), function.__name__)


def bent(x: Value) -> Value:
    """Return a smooth function of x in which every rounding is correct."""
    return sqrt(x * x + 1)


def spread(x: Value, shape: tuple[int, ...]) -> Value:
    """Return a number everywhere in an array."""
    return broadcast(x, shape, tuple(range(len(shape))))


@sampler("switch")
def _switch(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(30)

    def first(x: Value, y: Value) -> list[Value]:
        return [bent(x) * y, y]

    def second(x: Value, y: Value) -> list[Value]:
        return [x, x + y]

    def third(x: Value, y: Value) -> list[Value]:
        return [full(x.shape, 2.5, x.dtype), full(x.shape, 1, x.dtype)]

    for shape in SHAPES:
        for index in (-1, 0, 1, 2, 7):
            branches = tuple(graph_of(f, *[Aval(shape, FLOAT64)] * 2) for f in (first, second, third))
            arrays = random_array(rng, shape, np.float64), random_array(rng, shape, np.float64)
            yield Sample(Switch(branches), (np.asarray(index), *arrays))
    single = tuple(graph_of(f, *[Aval((4,), FLOAT32)] * 2) for f in (first, second))
    yield Sample(Switch(single), (np.asarray(1), *(random_array(rng, (4,), np.float32) for _ in range(2))), "single precision")

    def whole(x: Value) -> list[Value]:
        return [x + 1]

    def none(x: Value) -> list[Value]:
        return [x]

    yield Sample(Switch((graph_of(none, NUMBER), graph_of(whole, NUMBER))), (np.asarray(1), np.asarray(2**40)), "integers")


def damped(step: Value, a: Value, x: Value, y: Value, u: Value) -> list[Value]:
    """Return (next x, next y, a result) of a step in which everything plays a part."""
    moved = x + spread(a, x.shape) * bent(y)
    return [moved, y * u - spread(cast(step, a.dtype) * 0.1, y.shape), moved * u]


@sampler("scan")
def _scan(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(31)
    for shape in SHAPES:
        for length in (0, 1, 4):
            for reverse in (False, True):
                operands = [random_array(rng, s, np.float64) for s in ((), shape, shape, (length, *shape))]
                body = graph_of(damped, NUMBER, Aval((), FLOAT64), *[Aval(shape, FLOAT64)] * 3)
                yield Sample(Scan(body, length, 1, 2, reverse), tuple(operands))
    body = graph_of(damped, NUMBER, Aval((), FLOAT64), *[Aval((2,), FLOAT64)] * 3)
    for count in (0, 3, 5, 9):
        for reverse in (False, True):
            operands = [random_array(rng, s, np.float64) for s in ((), (2,), (2,), (5, 2))]
            yield Sample(Scan(body, 5, 1, 2, reverse, counted=True), (np.asarray(count), *operands))

    def exchanged(step: Value, x: Value, y: Value) -> list[Value]:
        return [y, x, y, flip(x, (0,))]

    def sums(step: Value, x: Value, part: Value) -> list[Value]:
        return [x + broadcast(sum_(flip(x, (0,)) * part, (0,)), (5,), (0,))]

    def counted(step: Value, total: Value) -> list[Value]:
        return [total + step, step]

    yield Sample(
        Scan(graph_of(exchanged, NUMBER, *[Aval((5,), FLOAT64)] * 2), 3, 0, 2), tuple(random_array(rng, (5,), np.float64) for _ in "xy")
    )
    yield Sample(
        Scan(graph_of(sums, NUMBER, *[Aval((5,), FLOAT64)] * 2), 3, 0, 1),
        (random_array(rng, (5,), np.float64), random_array(rng, (3, 5), np.float64) / 8),
    )
    yield Sample(Scan(graph_of(counted, NUMBER, NUMBER), 6, 0, 1), (np.asarray(2**62),), "integers")
    single = graph_of(damped, NUMBER, Aval((), FLOAT32), *[Aval((3,), FLOAT32)] * 3)
    yield Sample(Scan(single, 4, 1, 2), tuple(random_array(rng, s, np.float32) for s in ((), (3,), (3,), (4, 3))), "single precision")


@sampler("while")
def _while(name: str) -> Iterator[Sample]:
    rng = np.random.default_rng(32)

    def below(end: Value, a: Value, k: Value, x: Value) -> list[Value]:
        return [less(k, end)]

    def step(end: Value, a: Value, k: Value, x: Value) -> list[Value]:
        return [k + 1, bent(x) * spread(a, x.shape) + x * 0.5]

    for shape in SHAPES:
        avals = NUMBER, Aval((), FLOAT64), NUMBER, Aval(shape, FLOAT64)
        for end, limit in ((0, -1), (1, -1), (3, -1), (3, 0), (3, 2), (3, 9)):
            operands = np.asarray(end), random_array(rng, (), np.float64), np.asarray(0), random_array(rng, shape, np.float64)
            yield Sample(While(graph_of(below, *avals), graph_of(step, *avals), 2, limit), operands)

    def small(x: Value) -> list[Value]:
        return [less(sum_(x * x, (0,)), full((), 100, x.dtype))]

    def grown(x: Value) -> list[Value]:
        return [x + x * (1 / (x * x + 1)) + where(less(x, full(x.shape, 0, x.dtype)), -x * x, x * x)]

    for dtype in (FLOAT64, FLOAT32):
        aval = Aval((3,), dtype)
        yield Sample(
            While(graph_of(small, aval), graph_of(grown, aval), 0), (random_array(rng, (3,), dtype),), f"as long as it takes, {dtype}"
        )
    yield Sample(While(graph_of(lambda x: [less(x, x)], NUMBER), graph_of(lambda x: [x], NUMBER), 0), (np.asarray(3),), "none")
