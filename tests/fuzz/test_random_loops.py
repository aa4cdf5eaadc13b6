"""Loops and branches whose bodies are random graphs: interpreter, emitted source with and without fusion, machine code agree."""

import numpy as np
import pytest

from staticgrad.ad.reverse import cotangents
from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply_all, full, new_input
from staticgrad.ir.verify import verify
from staticgrad.ops.branches import Switch
from staticgrad.ops.comparison import less
from staticgrad.ops.control import inline_calls
from staticgrad.ops.loops import Scan
from staticgrad.ops.movement import broadcast
from staticgrad.ops.reduce import sum_
from staticgrad.ops.trigonometric import sin
from staticgrad.ops.while_loops import While
from staticgrad.runtime.build import build, lower_graph
from tests.fuzz.programs import Program
from tests.ops.running import run_uncompiled

SEEDS, COMPILED = range(24), range(100, 106)
STEPS = 3


def body_of(program: Program) -> tuple[list[Value], list[Value], list[Value]]:
    """Return the inputs that are carried along, what each becomes, and what else a step makes.

    Some become a mixture with something of the same shape and dtype, some exchange places, some stay.
    """
    rng = program.rng
    carry = [v for v in program.inputs if v.dtype.kind == "f" and rng.random() < 0.8] or program.inputs[:1]
    following = []
    for v in carry:
        alike = [u for u in program.pool if u.aval == v.aval and u is not v]
        others = [u for u in carry if u.aval == v.aval]
        kind = rng.random()
        if alike and kind < 0.6:
            following.append(v + 0.01 * sin(program.pick(alike)))
        elif kind < 0.9:
            following.append(program.pick(others))
        else:
            following.append(v * 0.5)
    return carry, following, list(program.graph(3).outputs)


def loop(seed: int) -> tuple[Graph, list[np.ndarray]]:
    """Return a loop, a loop of unknown length or a branch as a graph with arrays for its inputs."""
    program = Program(seed, smooth=True).grow(18)
    carry, following, made = body_of(program)
    consts = [v for v in program.inputs if v not in carry]
    arrays = [program.numbers[v] for v in (*consts, *carry)]
    outer = [new_input(v.aval) for v in (*consts, *carry)]
    step = new_input(Aval((), INT64), "step")
    kind = seed % 4
    if kind < 2:
        body = inline_calls(Graph((step, *consts, *carry), (*following, *made)))
        outputs = apply_all(Scan(body, STEPS, len(consts), len(carry), reverse=bool(kind)), *outer)
    elif kind == 2:
        body = inline_calls(Graph((*consts, step, *carry), (step + 1, *following)))
        inputs = [new_input(v.aval) for v in body.inputs]
        condition = Graph(tuple(inputs), (less(inputs[len(consts)], full((), STEPS, INT64)),))
        outputs = apply_all(While(condition, body, len(consts)), *outer[: len(consts)], full((), 0, INT64), *outer[len(consts) :])
    else:
        first = inline_calls(Graph((*consts, *carry), tuple(following)))
        second = inline_calls(Graph(first.inputs, inline(first, [*consts, *following])))
        outer = [new_input(Aval((), INT64)), *outer]
        arrays = [np.asarray(seed // 4 % 2), *arrays]
        outputs = apply_all(Switch((first, second)), *outer)
    return Graph(tuple(outer), outputs), arrays


def gradient(graph: Graph) -> Graph:
    """Return the results with the gradient of the sum of their sines."""
    total = full((), 0, np.dtype(float))
    for v in graph.outputs:
        if v.dtype == np.float64:
            total = total + sum_(sin(v), tuple(range(len(v.shape))))
    wanted = [v for v in graph.inputs if v.dtype == np.float64]
    found = cotangents([total], wanted, [full((), 1, np.dtype(float))])
    zeros = [broadcast(full((), 0, v.dtype), v.shape, tuple(range(len(v.shape)))) for v in wanted]
    return graph.with_outputs([total, *(z if g is None else g for g, z in zip(found, zeros, strict=True))], [total])


def assert_equal(what: str, graph: Graph, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        tolerance = 1e-3 if any(v.dtype == np.float32 for node in graph.nodes for v in node.outputs) else 1e-8
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"{what}, output {k} of\n{graph}")


@pytest.mark.parametrize("seed", SEEDS)
def test_all_ways_to_run_agree(seed):
    graph, arrays = loop(seed)
    for what, each in (("values", graph), ("gradient", gradient(graph))):
        verify(each)
        expected = interpret(each, arrays)
        for fuse in (True, False):
            lowering = lower_graph(each, fuse)
            verify(lowering.optimized)
            assert_equal(f"{what}, fuse={fuse}", each, run_uncompiled(each, arrays, fuse, lowering), expected)


@pytest.mark.parametrize("seed", COMPILED)
def test_machine_code(seed):
    graph, arrays = loop(seed)
    each = gradient(graph)
    assert_equal("machine code", each, build(each, "cpu")[0].run(arrays), interpret(each, arrays))
