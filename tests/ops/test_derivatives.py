"""Derivatives of each op: against differences, forward against reverse, and the same once more for the derivatives themselves."""

import numpy as np
import pytest

from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ir.verify import verify
from staticgrad.ops.nested import trim
from tests.ops.derivatives import Function, assert_adjoint, assert_differences
from tests.ops.running import run_uncompiled
from tests.ops.samples import Sample, samples_of, smooth_samples

CONSTANT = {
    "sign", "floor", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isnan", "isinf", "isfinite",
    "stop_gradient", "arg_max", "arg_min", "arg_sort", "search_sorted", "ceil", "trunc", "rint", "signbit", "nextafter", "floor_divide",
    "permutation",
}  # fmt: skip
"""Ops of floats whose derivative is zero everywhere."""

WITHOUT_FLOATS = {
    "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "invert", "any", "all",
    "bounded_index", "left_shift", "right_shift", "gcd", "lcm", "random_bits",
}  # fmt: skip

DIFFERENTIABLE = sorted(set(REGISTRY) - CONSTANT - WITHOUT_FLOATS)


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - WITHOUT_FLOATS))
def test_smooth_samples(name):
    samples = smooth_samples(name)
    assert any(max(x.size for x in sample.operands) > 1 for sample in samples)
    for sample in samples:
        assert all(np.isfinite(y).all() for y in Function.of(sample)())


@pytest.mark.parametrize("name", sorted(CONSTANT))
def test_constant_ops_have_no_derivative(name):
    for sample in smooth_samples(name):
        function = Function.of(sample)
        seeds = [new_input(v.aval) for v in function.inputs]
        assert tangents(function.outputs, function.inputs, seeds) == [None]
        if function.outputs[0].dtype.kind == "f":
            assert set(cotangents(function.outputs, function.inputs, [new_input(function.outputs[0].aval)])) == {None}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_first_order(name):
    rng = np.random.default_rng(0)
    for sample in smooth_samples(name):
        function = Function.of(sample)
        if function.outputs[0].dtype.kind != "f":
            continue
        rounds = sample.op == REGISTRY["cast"](np.dtype(np.float32))
        assert_differences(str(sample), function, rng, 1e-2 if rounds else 1e-7)
        assert_adjoint(str(sample), function, rng, 1e-6 if rounds else 1e-12)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_tangents_of_some_operands(name):
    rng = np.random.default_rng(0)
    for sample in smooth_samples(name):
        function = Function.of(sample)
        active = function.active
        if len(active) < 2 or function.outputs[0].dtype.kind != "f":
            continue
        total = [np.zeros(y.shape) for y in function.outputs]
        for k in active:
            part, _ = function.forward(np.random.default_rng(k), only=[k])
            total = [a + b for a, b in zip(total, part(), strict=True)]
        whole, _ = function.forward(rng)
        directions = [np.random.default_rng(k).standard_normal(function.inputs[k].shape) for k in active]
        found = whole(arrays=[*function.arrays, *directions])
        for x, y in zip(found, total, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13, err_msg=str(sample))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_transposed_pushforwards_read_no_tangents(name):
    """Tangents are linear in tangents, and the transpose says so by its structure, loops and branches included."""
    for sample in smooth_samples(name):
        function = Function.of(sample)
        wanted = [function.inputs[k] for k in function.active]
        seeds = [new_input(v.aval) for v in wanted]
        moved = [t for t in tangents(function.outputs, wanted, seeds) if t is not None]
        ends = [new_input(t.aval) for t in moved]
        found = [v for v in cotangents(moved, seeds, ends) if v is not None]
        back = trim(Graph((*function.inputs, *ends), tuple(found)))
        assert not back.free, str(sample)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_order(name):
    rng = np.random.default_rng(0)
    for sample in smooth_samples(name):
        function = Function.of(sample)
        if function.outputs[0].dtype != np.float64:
            continue
        for what, (first, _) in (("jvp", function.forward(rng)), ("vjp", function.reverse(rng))):
            assert_differences(f"{what} of {sample}", first, rng, 1e-6)
            assert_adjoint(f"{what} of {sample}", first, rng)


@pytest.mark.parametrize("name", ["prod", "power", "tanh", "divide", "contract", "logical_and"])
def test_third_order(name):
    rng = np.random.default_rng(0)
    for sample in smooth_samples(name)[:12]:
        second, _ = Function.of(sample).reverse(rng)[0].forward(rng)
        assert_differences(f"jvp of vjp of {sample}", second, rng, 1e-5)
        assert_adjoint(f"jvp of vjp of {sample}", second, rng)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_float32_stays_float32(name):
    for sample in smooth_samples(name):
        if name == "cast" or sample.op.subgraphs:  # whose graphs say float64
            continue
        single = Sample(sample.op, tuple(x.astype(np.float32) if x.dtype == np.float64 else x for x in sample.operands))
        function, wide = Function.of(single), Function.of(sample)
        for low, high in (
            (function.forward(np.random.default_rng(1)), wide.forward(np.random.default_rng(1))),
            (function.reverse(np.random.default_rng(1)), wide.reverse(np.random.default_rng(1))),
        ):
            for x, y in zip(low[0](), high[0](), strict=True):
                assert x.dtype == np.float32, str(single)
                np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4, err_msg=str(single))


def derivative_graph(samples: list[Sample]) -> tuple[Graph, list[np.ndarray], list[tuple[Sample, slice]]]:
    """Return values, tangents and cotangents of many samples as one graph with a backward stage."""
    rng = np.random.default_rng(0)
    inputs, arrays, primals, outputs, parts = [], [], [], [], []
    for sample in samples:
        function = Function.of(sample)
        primals += function.outputs
        forward, _ = function.forward(rng)
        reverse, _ = function.reverse(rng)
        own = [*function.inputs, *forward.inputs[len(function.inputs) :], *reverse.inputs[len(function.inputs) :]]
        inputs += own
        arrays += [*forward.arrays, *reverse.arrays[len(function.inputs) :]]
        made = [*function.outputs, *forward.outputs, *reverse.outputs]
        parts.append((sample, slice(len(outputs), len(outputs) + len(made))))
        outputs += made
    graph = Graph(tuple(inputs), tuple(outputs), tuple(primals))
    verify(graph)
    return graph, arrays, parts


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_emitted_derivatives(name):
    samples = [s for s in smooth_samples(name) if Function.of(s).outputs[0].dtype.kind == "f"]
    graph, arrays, parts = derivative_graph(samples)
    expected, found = interpret(graph, arrays), run_uncompiled(graph, arrays)
    for sample, part in parts:
        for x, y in zip(found[part], expected[part], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12, err_msg=str(sample))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_emitted_derivatives_at_edge_values(name):
    samples = [s for s in samples_of(name) if s.note and {x.dtype for x in s.operands} <= {np.dtype(np.float64), np.dtype(bool)}]
    samples = [s for s in samples if Function.of(s).outputs[0].dtype.kind == "f" and s.operands[-1].dtype.kind == "f"]
    if name == "power":  # every third pair will do
        samples = [Sample(s.op, tuple(x[::3] for x in s.operands), s.note) for s in samples]
    graph, arrays, parts = derivative_graph(samples)
    expected, found = interpret(graph, arrays), run_uncompiled(graph, arrays)
    for sample, part in parts:
        for x, y in zip(found[part], expected[part], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=0, err_msg=str(sample))
