"""Random graphs: interpreter, emitted source with and without passes and fusion, and machine code agree. The seed is in the test's name."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from staticgrad.codegen.blocks import Grain
from staticgrad.config import config, configure
from staticgrad.gradient_check import derivative_at_zero
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.verify import verify
from staticgrad.runtime.build import build, lower_graph
from staticgrad.runtime.compile import Stage
from staticgrad.runtime.executor import Executable
from staticgrad.runtime.llvm_compile import compile_text
from tests.fuzz.programs import Program
from tests.ops.running import identical, run_uncompiled

SEEDS = range(40)
COMPILED = range(100, 106)

FINE = Grain(work=1e-6, row=2, partial=1e9)
"""All that can be divided runs in blocks."""


@contextlib.contextmanager
def settings(**changes: object) -> Iterator[None]:
    before = configure(replace(config(), **changes))
    try:
        yield
    finally:
        configure(before)


def assert_equal(what: str, graph: Graph, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert x.dtype == y.dtype and x.shape == y.shape
        single = any(v.dtype == np.float32 for node in graph.nodes for v in node.outputs)
        tolerance = 1e-3 if single else 1e-8
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"{what}, output {k} of\n{graph}")


@pytest.mark.parametrize("seed", SEEDS)
def test_all_ways_to_run_agree(seed):
    program = Program(seed).grow(25)
    graph, arrays = program.graph(), program.arrays
    verify(graph)
    expected = interpret(graph, arrays)
    with settings(verify=True, cache=None):
        for fuse in (True, False):
            assert_equal(f"optimised, fuse={fuse}", graph, run_uncompiled(graph, arrays, fuse), expected)
        with settings(skip=frozenset({"simplify", "simplify again"})):
            assert_equal("unoptimised", graph, run_uncompiled(graph, arrays), expected)
    assert_equal("optimised graph", graph, interpret(lower_graph(graph).optimized, arrays), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_random_programs(seed):
    program = Program(seed + 1000).grow(20)
    graph, arrays = program.gradient(), program.arrays
    verify(graph)
    expected = interpret(graph, arrays)
    with settings(verify=True, cache=None):
        assert_equal("optimised", graph, run_uncompiled(graph, arrays), expected)
        with settings(skip=frozenset({"simplify", "simplify again"})):
            assert_equal("unoptimised", graph, run_uncompiled(graph, arrays, fuse=False), expected)
    rng = np.random.default_rng(seed)
    directions = [rng.standard_normal(v.shape) for v in program.active()]
    (forward,) = interpret(program.derivative(graph.outputs[0], directions), arrays)
    by_reverse = sum(float(np.sum(g * t)) for g, t in zip(expected[1:], directions, strict=True))
    np.testing.assert_allclose(by_reverse, forward, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_derivatives_of_smooth_programs(seed):
    program = Program(seed + 2000, smooth=True).grow(20)
    graph, arrays = program.gradient(), program.arrays
    _, *gradient = interpret(graph, arrays)
    rng = np.random.default_rng(seed)
    directions = [rng.standard_normal(v.shape) for v in program.active()]
    (forward,) = interpret(program.derivative(graph.outputs[0], directions), arrays)
    terms = [np.sum(g * t) for g, t in zip(gradient, directions, strict=True)]
    scale = max(1.0, *(float(np.sum(np.abs(g * t))) for g, t in zip(gradient, directions, strict=True)))
    assert abs(sum(terms) - forward) <= 1e-10 * scale

    def along(distance: float) -> np.ndarray:
        moved = [x + distance * t for x, t in zip(arrays, directions, strict=True)]
        return interpret(graph.with_outputs(graph.outputs[:1]), moved)[0]

    numeric = derivative_at_zero(along, 2.0**-10)
    assert abs(numeric - forward) <= 1e-5 * scale


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_random_programs(seed):
    program = Program(seed + 3000).grow(20)
    for graph in (program.graph(), program.gradient()):
        with settings(verify=True, cache=None):
            lowering = lower_graph(graph, grain=FINE)
        found = run_uncompiled(graph, program.arrays, lowering=lowering)
        assert_equal("in blocks", graph, found, interpret(graph, program.arrays))


@pytest.mark.parametrize("seed", COMPILED)
def test_threads_of_random_programs(seed):
    program = Program(seed).grow(40)
    graph, arrays = program.graph(6), program.arrays
    lowering = lower_graph(graph, grain=FINE)
    forward = compile_text(*lowering.llvm, False).forward_address
    executable = Executable(lowering.call_plan, Stage(forward), None)
    expected = run_uncompiled(graph, arrays, lowering=lowering)
    for threads in (1, 2, 3, 7):
        for x, y in zip(executable(arrays, threads), expected, strict=True):
            assert identical(x, y)


@pytest.mark.parametrize("seed", COMPILED)
def test_machine_code(seed):
    program = Program(seed).grow(40)
    graph, arrays = program.graph(6), program.arrays
    assert_equal("compiled", graph, build(graph, "cpu")[0].run(arrays), interpret(graph, arrays))
    graph = program.gradient()
    assert_equal("compiled gradient", graph, build(graph, "cpu")[0].run(arrays), interpret(graph, arrays))
