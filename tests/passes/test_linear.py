"""Graphs of thousands of nodes: no recursion, no function beyond its limits, and the work grows with the graph, not faster."""

import sys

import numpy as np
import pytest

from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.loops import Let, Load, Loop, Store, walk
from staticgrad.ir.node import full, new_input
from staticgrad.ops.arithmetic import add, subtract
from staticgrad.ops.exponential import exp
from staticgrad.ops.extrema import maximum
from staticgrad.ops.movement import broadcast, concatenate, flip, pad, reshape, slice_, transpose
from staticgrad.ops.reduce import sum_
from staticgrad.ops.trigonometric import sin, tanh
from staticgrad.runtime.build import lower_graph
from tests.ops.running import run_uncompiled

F64 = np.dtype(float)
NODES = 2000

MOST_NESTS, MOST_INSTRUCTIONS = 20, 300
"""What a function may hold."""

OF_KERNELS = 2500
"""What one that is a single fused chain of kernels may hold: a dozen of them must fuse, and the sine alone takes 183."""


def chain(count):
    """A chain of elementwise ops, each reading the one before and an input."""
    x, y = (new_input(Aval((8,), F64), name) for name in "xy")
    v = x
    while len(topological([v])) < count:
        v = tanh(v) * 0.5 + y * v
    return Graph((x, y), (v, sum_(v, (0,))))


def bush(count):
    """Elementwise ops that share earlier results: every value is used several times."""
    x = new_input(Aval((8,), F64), "x")
    values = [x, x * 0.5]
    rng = np.random.default_rng(0)
    while len(values) < count:
        a, b = (values[-1 - int(k)] for k in rng.integers(0, min(len(values), 12), 2))
        values.append((add, subtract, maximum, lambda a, _: sin(a))[int(rng.integers(4))](a, b * 0.5))
    return Graph((x,), (values[-1], sum_(values[-2], (0,))))


def mixed(count):
    """Chains, reductions, broadcasts, slices, reshapes and joins by turns."""
    x = new_input(Aval((4, 6), F64), "x")
    v, number = x, 0
    while len(topological([v])) < count:
        total = sum_(v, (0,))
        v = tanh(v - broadcast(total * 0.1, (4, 6), (0,)))
        left, right = slice_(v, (0, 0), (4, 3), (1, 1)), slice_(v, (0, 3), (4, 6), (1, 1))
        v = concatenate([right, left * 0.5], 1)
        v = transpose(reshape(flip(v, (0,)), (6, 4)), (1, 0)) + x
        v = exp(v * -0.1) * (1.0 + number / 1000)
        number += 1
    return Graph((x,), (v, sum_(v, (0, 1))))


def views(count):
    """Paddings and slices of each other, nothing computed in between."""
    x = new_input(Aval((8,), F64), "x")
    v = x
    while len(topological([v])) < count:
        v = pad(v, full((), 1.0, F64), (1,), (1,), (0,))
        v = flip(slice_(v, (0,), (8,), (1,)), (0,))
    return Graph((x,), (v,))


def sums(count):
    """One reduction after the other, each of its own domain."""
    x = new_input(Aval((3, 5), F64), "x")
    total, v = full((), 0.0, F64), x
    number = 0
    while number < count // 4:
        v = reshape(v, (5, 3) if number % 2 else (3, 5))
        total = total + sum_(v * (1.0 + number), (0, 1))
        number += 1
    return Graph((x,), (total,))


def numbers(count):
    """What an unrolled Python loop over single elements makes: kernels on numbers, each element read by itself."""
    size = count // 8
    x = new_input(Aval((size,), F64), "x")
    total = full((), 0.0, F64)
    for k in range(size):
        element = reshape(slice_(x, (k,), (k + 1,), (1,)), ())
        total = total + sin(element) * exp(element * 0.5 + k / size)
    return Graph((x,), (total,))


GRAPHS = {"chain": chain, "bush": bush, "mixed": mixed, "views": views, "sums": sums, "numbers": numbers}


def instructions(function):
    return sum(isinstance(statement, (Let, Load, Store)) for statement in walk(function.body))


def nests(function):
    return sum(isinstance(statement, Loop) for statement in function.body.statements)


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_two_thousand_nodes(name):
    graph = GRAPHS[name](NODES)
    assert len(graph.nodes) >= NODES / 2
    limit = sys.getrecursionlimit()
    lowering = lower_graph(graph)
    source = lowering.source
    assert sys.getrecursionlimit() == limit
    unit = lowering.lowered.unit
    for function in unit.functions:
        assert nests(function) <= MOST_NESTS, f"{function.name}: {nests(function)} nests"
        most = OF_KERNELS if name in ("chain", "bush") else MOST_INSTRUCTIONS
        assert instructions(function) <= most, f"{function.name}: {instructions(function)} instructions"
    arrays = [np.linspace(-1, 1, v.aval.size).reshape(v.shape) for v in graph.inputs]
    expected = interpret(graph, arrays)
    assert len(source) < 3_000_000
    for x, y in zip(run_uncompiled(graph, arrays, lowering=lowering), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["chain", "mixed", "sums"])
def test_work_grows_with_the_graph(name):
    small, large = (sum(map(instructions, lower_graph(GRAPHS[name](count)).lowered.unit.functions)) for count in (500, 2000))
    assert large <= 6 * small


def test_kernels_on_numbers_are_emitted_once():
    unit = lower_graph(numbers(NODES)).lowered.unit
    assert len(unit.forward) > 400
    assert len(unit.functions) < 20
    few = lower_graph(numbers(48)).lowered.unit
    assert len(few.functions) == 1, "a handful is one straight piece of code"
