"""Fusion: chains with broadcasts and sums are one loop nest in each stage, whatever surrounds them; without fusion the results stay."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.interp import interpret
from staticgrad.runtime.build import build, lower_graph
from tests.fuzz.programs import Program
from tests.ops.running import run_uncompiled

RNG = np.random.default_rng(0)


def chain(x, b):
    """Twelve elementwise operations on x, a row b broadcast into them."""
    h = np.tanh(x * 2.0 + b)
    h = np.exp(-h * h) * x
    h = np.sqrt(h * h + 1.0) - np.sin(h)
    return np.maximum(h, 0.1) / (1.0 + h * h)


def summed(x, b):
    return np.sum(chain(x, b))


def averaged(x, b):
    return np.mean(chain(x, b))


def shifted_twice(x, b, c):
    return np.sum(chain(x * c[:, None], b))


def scaled(x, s):
    return np.sum(chain(x, s))


CASES = {
    "sum": (summed, [(8, 6), (6,)]),
    "mean": (averaged, [(8, 6), (6,)]),
    "three axes": (summed, [(4, 5, 6), (6,)]),
    "a plane": (summed, [(4, 5, 6), (5, 6)]),
    "kept axis": (summed, [(8, 6), (1, 6)]),
    "column": (summed, [(8, 6), (8, 1)]),
    "scalar": (scaled, [(8, 6), ()]),
    "row and column": (shifted_twice, [(8, 6), (6,), (8,)]),
    "long": (summed, [(70, 1030), (1030,)]),
}


def arguments(shapes, dtype):
    return [np.asarray(RNG.uniform(0.5, 1.5, shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_chain_is_one_nest_in_each_stage(name, dtype):
    function, shapes = CASES[name]
    args = arguments(shapes, dtype)
    everything = tuple(range(len(args)))
    report = sg.value_and_grad(function, everything).lower(*args).report
    assert (report.forward_nests, report.backward_nests) == (1, 1), str(report)
    assert report.forward_nests_unfused > 10
    assert report.backward_nests_unfused > 10


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradient_alone_is_one_nest(name):
    function, shapes = CASES[name]
    args = arguments(shapes, float)
    for numbers in (0, 1):
        report = sg.grad(function, numbers).lower(*args).report
        assert report.backward_nests == 1, str(report)
        assert report.forward_nests <= 1


def test_emitted_functions_of_a_chain():
    lowered = sg.value_and_grad(summed, (0, 1)).lower(*arguments([(8, 6), (6,)], float))
    assert lowered.source.count("def nest_") == 2
    assert lowered.source.count("def forward(") == 1
    assert lowered.source.count("def backward(") == 1


@pytest.mark.parametrize("name", sorted(CASES))
def test_values_and_gradients_of_chains(name):
    function, shapes = CASES[name]
    args = [x[-2:, -150:] if x.ndim == 2 else x[-150:] for x in arguments(shapes, float)] if name == "long" else arguments(shapes, float)
    graph = sg.value_and_grad(function, tuple(range(len(args)))).lower(*args).graph
    expected = interpret(graph, args)
    np.testing.assert_allclose(expected[0], function(*args), rtol=1e-13)
    for fuse in (True, False):
        for x, y in zip(run_uncompiled(graph, args, fuse), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["sum", "row and column", "long"])
def test_compiled_chains(name):
    function, shapes = CASES[name]
    args = arguments(shapes, float)
    gradient = sg.value_and_grad(function, tuple(range(len(args))))
    value, grads = gradient(*args)
    np.testing.assert_allclose(value, function(*args), rtol=1e-12)
    expected = interpret(gradient.lower(*args).graph, args)
    for x, y in zip(grads, expected[1:], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)


def test_only_evaluated_functions_have_no_backward():
    lowered = sg.trace(summed).lower(*arguments([(8, 6), (6,)], float))
    assert "def backward" not in lowered.source
    assert lowered.backward is None
    assert lowered.report.backward_nests == 0
    assert lowered.report.forward_nests == 1


def test_fusion_off_gives_equal_results_and_more_loops():
    more = 0
    for seed in range(8000, 8010):
        program = Program(seed).grow(20)
        graph = program.gradient()
        fused, unfused = lower_graph(graph), lower_graph(graph, fuse=False)
        assert len(unfused.schedule.nests) >= len(fused.schedule.nests)
        more += len(unfused.schedule.nests) > len(fused.schedule.nests)
        expected = interpret(graph, program.arrays)
        for lowering in (fused, unfused):
            for x, y in zip(run_uncompiled(graph, program.arrays, lowering=lowering), expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)
    assert more > 5


def test_outputs_of_one_nest():
    """Several results of one chain: elementwise ones and reductions along different axes come out of the same loops."""

    def several(x):
        h = np.exp(x) * x
        return h, np.sum(h, axis=0), np.sum(h, axis=1), np.max(h)

    x = RNG.standard_normal((6, 5))
    lowered = sg.trace(several).lower(x)
    assert lowered.report.forward_nests == 1, str(lowered.schedule)
    for found, expected in zip(build(lowered.graph, "cpu")[0].run([x]), several(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_softmax_is_few_nests():
    def softmax(x):
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        return e / np.sum(e, axis=1, keepdims=True)

    x = RNG.standard_normal((6, 5))
    report = sg.trace(softmax).lower(x).report
    assert report.forward_nests <= 3, str(report)


def test_kernels_of_rows_run_side_by_side():
    """A kernel that is needed once for each row has a loop of its own, where many of them are done at a time."""

    def f(x):
        return x * (np.sum(x * x, axis=1) ** -1.5)[:, None]

    x = RNG.uniform(0.5, 1.5, (40, 3))
    schedule = sg.trace(f).lower(x).schedule
    assert any(item.target.op.name == "power" and item.domain == (40,) for nest in schedule.nests for item in nest.items)
    few = sg.trace(f).lower(x[:4]).schedule
    assert not any(item.target.op.name == "power" for nest in few.nests for item in nest.items)
    np.testing.assert_allclose(sg.trace(f)(x), f(x), rtol=1e-13)


@pytest.mark.parametrize("length", [3, 4, 10, 15, 16])
def test_short_rows_are_computed_side_by_side_and_added_up_in_order(length):
    """A loop that adds up cannot become vectors; what is dear to compute stands in one of its own, and not a bit of the sums changes."""

    def function(x):
        e = np.exp(x)
        return e, np.sum(e, axis=1), np.argmax(e, axis=1), np.max(np.tanh(x), axis=1), np.sum(x, axis=1)

    graph = sg.trace(function).program(RNG.standard_normal((5, length))).graph
    x = [RNG.standard_normal((5, length))]
    e, sums, *others = run_uncompiled(graph, x)
    assert ("row0[j]" in str(lower_graph(graph).source)) == (4 <= length < 16)
    if length < 16:
        np.testing.assert_array_equal(sums, [sum(row.tolist()) for row in e])
    for found, expected in zip([e, sums, *others], interpret(graph, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    for found, expected in zip(build(graph, "cpu")[0].run(x), [e, sums, *others], strict=True):
        np.testing.assert_array_equal(found, expected)
