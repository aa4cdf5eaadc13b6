"""Random programs over all ops under `vmap`: values and gradients are the stacks of single ones. The seed is in the test's name."""

import functools
from collections.abc import Callable

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply_all, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.along import sorted_along
from staticgrad.ops.casts import cast
from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import tracer_of
from tests.fuzz.programs import Program
from tests.ops.running import run_uncompiled
from tests.ops.samples import Sample, samples_of

SEEDS = range(100)
SIZE = 2
STRUCTURED = ("arg_sort", "cumulative_sum", "gather", "scan", "scatter_add", "scatter_set", "search_sorted", "solve", "switch", "while")
"""Ops that elements of a batch share in ways of their own: picked more often."""


@functools.cache
def samples(name: str) -> list[Sample]:
    return [s for s in samples_of(name) if not s.note and max(x.size for x in s.operands) <= 60]


class AnyProgram(Program):
    """A random program whose steps are any ops, with the parameters that they have in their samples."""

    def any_op(self) -> Value:
        """Apply an op to values of the pool where its sample has floats; anything else becomes an input."""
        sample = self.pick(samples(self.pick(self.pick([sorted(REGISTRY), STRUCTURED]))))
        operands = [self.operand(x) for x in sample.operands]
        if sample.op.name == "search_sorted":  # in rows without order anything may be found
            operands[0] = sorted_along(operands[0], len(operands[0].shape) - 1)
        y = self.pick(apply_all(sample.op, *operands))
        return y if y.dtype.kind == "f" else cast(y, FLOAT64)

    def operand(self, x: np.ndarray) -> Value:
        if x.dtype == np.float64:
            return self.like(new_input(lift(x).aval))
        v = new_input(lift(x).aval, f"x{len(self.inputs)}")
        self.inputs.append(v)
        self.arrays.append(x)
        return v

    def steps(self) -> list[Callable[[], Value]]:
        ordinary = super().steps()
        return [*ordinary, *[self.any_op] * len(ordinary)]


def traced(graph: Graph) -> Callable[..., list[np.ndarray]]:
    """Return a graph as a traced function."""

    def run(*arrays):
        return [tracer_of(v) for v in inline(graph, [lift(x) for x in arrays])]

    return sg.trace(run, backend="interp")


class Batch:
    """Arrays for a program: which of them are mapped, and along which axes."""

    def __init__(self, rng: np.random.Generator, arrays: list[np.ndarray]) -> None:
        self.flags = rng.random(len(arrays)) < 0.5
        self.flags[rng.integers(len(arrays))] = True
        self.rows = [[x, np.roll(x, 1).reshape(x.shape)] for x in arrays]
        self.axes = tuple(int(rng.integers(-x.ndim - 1, x.ndim + 1)) if has else None for x, has in zip(arrays, self.flags, strict=True))

    def single(self, k: int) -> list[np.ndarray]:
        return [row[k if has else 0] for row, has in zip(self.rows, self.flags, strict=True)]

    def whole(self) -> list[np.ndarray]:
        return [np.stack(row, axis) if axis is not None else row[0] for row, axis in zip(self.rows, self.axes, strict=True)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_batches_of_random_programs(seed):
    program = AnyProgram(seed + 5000).grow(20)
    rng = np.random.default_rng(seed)
    for graph in (program.graph(), program.gradient()):
        function, batch = traced(graph), Batch(rng, program.arrays)
        singles = [function(*batch.single(k)) for k in range(SIZE)]
        out_axes = [int(rng.integers(-y.ndim - 1, y.ndim + 1)) for y in map(np.asarray, singles[0])]
        found = sg.vmap(function, batch.axes, out_axes)(*batch.whole())
        for y, axis, *expected in zip(found, out_axes, *singles, strict=True):
            assert_stack(y, np.stack(expected, axis))


def assert_stack(y: np.ndarray, expected: np.ndarray) -> None:
    assert y.dtype == expected.dtype and y.shape == expected.shape
    assert np.array_equal(np.isfinite(y), np.isfinite(expected))
    finite = np.isfinite(expected)
    scale = max(1.0, float(np.max(np.abs(expected[finite].astype(float)), initial=0)))
    np.testing.assert_allclose(y[finite], expected[finite], rtol=1e-3, atol=scale * (1e-4 if y.dtype == np.float32 else 1e-9))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(20))
def test_emitted_source_of_batches(seed):
    program = AnyProgram(seed + 7000).grow(14)
    batch = Batch(np.random.default_rng(seed), program.arrays)
    for graph in (program.graph(), program.gradient()):
        mapped = sg.vmap(traced(graph), batch.axes).program(*batch.whole()).graph
        for y, expected in zip(run_uncompiled(mapped, batch.whole()), interpret(mapped, batch.whole()), strict=True):
            assert_stack(y, expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_batches_of_batches_of_random_programs(seed):
    program = AnyProgram(seed + 6000).grow(12)
    rng = np.random.default_rng(seed)
    for graph in (program.graph(), program.gradient()):
        function, inner = traced(graph), Batch(rng, program.arrays)
        outer = Batch(rng, inner.whole())
        found = sg.vmap(sg.vmap(function, inner.axes), outer.axes)(*outer.whole())
        singles = [sg.vmap(function, inner.axes)(*outer.single(k)) for k in range(SIZE)]
        for y, *expected in zip(found, *singles, strict=True):
            assert_stack(y, np.stack(expected))
