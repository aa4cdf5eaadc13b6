"""Reverse and forward mode and batching as transforms of graphs: activity, structure, depth, and how they compose."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ad.batch import all_batched
from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import full, new_input
from staticgrad.ops.arithmetic import add, multiply
from staticgrad.ops.casts import cast
from staticgrad.ops.control import Rules, call, inline_calls, stop_gradient
from staticgrad.ops.exponential import exp
from staticgrad.ops.movement import broadcast, slice_
from staticgrad.ops.reduce import sum_
from staticgrad.ops.trigonometric import sin, tanh
from tests.ad.functions import CASES
from tests.ops.derivatives import Function, assert_adjoint, assert_differences

F64 = np.dtype(float)
RNG = np.random.default_rng(0)


def value(*shape, dtype=F64):
    return new_input(Aval(shape, np.dtype(dtype)))


def numbers(values, inputs, *arrays):
    return interpret(Graph(tuple(inputs), tuple(values)), list(arrays))


# ---- reverse mode


def test_cotangents_of_what_is_not_reached_are_none():
    x, y, n = value(3), value(3), value(3, dtype=np.int64)
    out = sin(x) * cast(n, F64)
    found = cotangents([out], [x, y, n], [full((3,), 1.0, F64)])
    assert found[0] is not None
    assert found[1:] == [None, None]


def test_a_seed_may_be_missing():
    x = value(3)
    a, b = sin(x), exp(x)
    (found,) = cotangents([a, b], [x], [None, full((3,), 1.0, F64)])
    np.testing.assert_allclose(numbers([found], [x], np.arange(3.0))[0], np.exp(np.arange(3.0)))
    assert cotangents([a, b], [x], [None, None]) == [None]


def test_an_output_that_is_an_input():
    x = value(3)
    g = value(3)
    assert cotangents([x], [x], [g]) == [g]
    (both,) = cotangents([x, x * 2.0], [x], [g, g])
    np.testing.assert_allclose(numbers([both], [x, g], np.zeros(3), np.ones(3))[0], 3 * np.ones(3))


def test_a_seed_of_the_wrong_shape_is_a_defect():
    x = value(3)
    with pytest.raises(VerificationError, match="does not fit"):
        cotangents([sin(x)], [x], [value(2)])


def test_the_same_slice_twice():
    """Cotangents of slices are put into their place; two equal ones add up."""
    x, g = value(20), value(2)
    part = slice_(x, (4,), (6,), (1,))
    for outputs in ([part, part], [part, slice_(x, (4,), (6,), (1,)) * 1.0], [part + part], [slice_(x + x, (4,), (6,), (1,))]):
        found = cotangents(outputs, [x], [g] * len(outputs))
        expected = np.zeros(20)
        expected[4:6] = 2.0
        np.testing.assert_array_equal(numbers(found, [x, g], np.zeros(20), np.ones(2))[0], expected)


def test_overlapping_slices():
    x = value(40)
    regions = [(0, 4, 1), (2, 6, 1), (2, 6, 1), (1, 9, 2), (30, 40, 3), (33, 34, 1)]
    parts = [slice_(x, (a,), (b,), (d,)) for a, b, d in regions]
    seeds = [value(*p.shape) for p in parts]
    arrays = [RNG.standard_normal(s.shape) for s in seeds]
    expected = np.zeros(40)
    for (a, b, d), g in zip(regions, arrays, strict=True):
        expected[a:b:d] += g
    found = cotangents(parts, [x], seeds)
    np.testing.assert_allclose(numbers(found, [x, *seeds], np.zeros(40), *arrays)[0], expected, rtol=1e-14)
    whole = value(40)
    found = cotangents([*parts, x * 2.0], [x], [*seeds, whole])
    np.testing.assert_allclose(numbers(found, [x, *seeds, whole], np.zeros(40), *arrays, np.ones(40))[0], expected + 2, rtol=1e-14)


def test_scattered_reads_of_a_vector_stay_linear_in_size():
    """x[0], x[1], ... x[n-1] read one by one: the gradient does not add up n padded vectors."""
    x = value(300)
    total = full((), 0.0, F64)
    for k in range(300):
        element = sum_(slice_(x, (k,), (k + 1,), (1,)), (0,))
        total = total + element * element
    (found,) = cotangents([total], [x], [full((), 1.0, F64)])
    work = sum(v.aval.size for node in topological([found], stop=[x]) if node.op.kind == "map" for v in node.outputs)
    assert work < 300 * 20
    at = RNG.standard_normal(300)
    np.testing.assert_allclose(numbers([found], [x], at)[0], 2 * at, rtol=1e-13)


def test_chains_of_any_length():
    x = value(2)
    v = x
    for _ in range(5000):
        v = sin(v) + x
    (g,) = cotangents([v], [x], [full((2,), 1.0, F64)])
    (t,) = tangents([v], [x], [full((2,), 1.0, F64)])
    by_reverse, by_forward = numbers([g, t], [x], np.array([0.1, 1.0]))
    np.testing.assert_allclose(by_reverse, by_forward, rtol=1e-9)


def test_linear_functions_keep_nothing():
    """The pullback of a linear function does not read the point."""
    x, w = value(4, 3), value(3)
    y = sum_(x * broadcast(w, (4, 3), (0,)), (1,))
    (g,) = cotangents([y], [x], [value(4)])
    assert x.node not in topological([g])


def test_derivatives_carry_the_line_of_what_they_are_of():
    x = value(3)
    y = tanh(x)
    (g,) = cotangents([y], [x], [full((3,), 1.0, F64)])
    assert g.node.line == y.node.line


def test_stop_gradient_in_both_modes():
    x = value(3)
    y = x * stop_gradient(sin(x))
    (g,) = cotangents([y], [x], [full((3,), 1.0, F64)])
    (t,) = tangents([y], [x], [full((3,), 1.0, F64)])
    at = np.arange(3.0)
    for found in numbers([g, t], [x], at):
        np.testing.assert_allclose(found, np.sin(at))


# ---- calls and rules


def test_calls_without_rules_are_inlined():
    x = value(3)
    inner = value(3)
    body = Graph((inner,), (sin(inner), exp(inner)), (), "body")
    outer = value(3)
    (nested,) = call(Graph((outer,), (call(body, outer)[0] * 2.0,), (), "nested"), x)
    graph = inline_calls(Graph((x,), (nested,)))
    assert all(node.op.name != "call" for node in graph.nodes)
    function = Function([x], [graph.outputs[0]], [np.arange(3.0)])
    assert_differences("call", function, np.random.default_rng(0))
    assert_adjoint("call", function, np.random.default_rng(0))


def test_rules_replace_the_derivative():
    x = value(3)
    inner = value(3)
    rules = Rules("times_ten", vjp=lambda g, y, v: (g[0] * 10.0,), jvp=lambda t, y, v: (t[0] * 10.0,))
    (y,) = call(Graph((inner,), (sin(inner),), (), "body"), x, rules=rules)
    graph = inline_calls(Graph((x,), (y,)))
    (g,) = cotangents(graph.outputs, [x], [full((3,), 1.0, F64)])
    (t,) = tangents(graph.outputs, [x], [full((3,), 1.0, F64)])
    for found in numbers([g, t], [x], np.arange(3.0)):
        np.testing.assert_array_equal(found, 10 * np.ones(3))


# ---- forward mode


def test_tangents_of_what_does_not_move_are_none():
    x, y = value(3), value(3)
    assert tangents([sin(y), cast(x, np.dtype(np.int64))], [x, y], [full((3,), 1.0, F64), None]) == [None, None]


def test_a_tangent_of_the_wrong_dtype_is_a_defect():
    x = value(3)
    inner = value(3)
    rules = Rules("wrong", jvp=lambda t, y, v: (cast(t[0], np.dtype(np.float32)),))
    (y,) = call(Graph((inner,), (sin(inner),)), x, rules=rules)
    with pytest.raises(VerificationError, match="does not fit"):
        tangents([y], [x], [full((3,), 1.0, F64)])


# ---- batching


def test_only_what_depends_on_the_batch_is_batched():
    x, y = value(3), value(3)
    shared = tanh(y)
    many = value(5, 3)
    (out, alone) = all_batched([add(x, shared), shared], [x, y], [many, y], [True, False], 5)
    assert out.shape == alone.shape == (5, 3)
    assert shared.node in topological([out])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batches_of_gradients(case):
    """vmap of grad is the stack of gradients, one or all arguments mapped."""
    floats = tuple(k for k, x in enumerate(case.args) if np.asarray(x).dtype.kind == "f")
    function = sg.trace(lambda *args: case.function(np, *args), backend="interp")
    gradient = sg.grad(function, floats)
    rng = np.random.default_rng(0)
    for mapped in (floats, floats[:1]):
        stacks = [np.stack([np.asarray(x) * s for s in rng.uniform(0.9, 1.1, 3)]) if k in mapped else x for k, x in enumerate(case.args)]
        axes = tuple(0 if k in mapped else None for k in range(len(stacks)))
        found = sg.vmap(gradient, in_axes=axes)(*stacks)
        for row in range(3):
            single = gradient(*(x[row] if k in mapped else x for k, x in enumerate(stacks)))
            for many, one in zip(found, single, strict=True):
                np.testing.assert_allclose(many[row], one, rtol=1e-10, atol=1e-12)


def test_gradient_through_a_batch():
    function = sg.trace(lambda w, x: np.tanh(np.sum(w * x)), backend="interp")
    w, xs = RNG.standard_normal(4), RNG.standard_normal((6, 4))

    def total(w):
        return np.sum(sg.vmap(function, in_axes=(None, 0))(w, xs))

    found = sg.grad(sg.trace(total, backend="interp"))(w)
    expected = sum(sg.grad(function)(w, x) for x in xs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_batches_of_batches():
    function = sg.trace(lambda x, y: np.sum(x) * np.exp(y), backend="interp")
    xs, ys = RNG.standard_normal((3, 4)), RNG.standard_normal(2)
    table = sg.vmap(sg.vmap(function, in_axes=(None, 0)), in_axes=(0, None))(xs, ys)
    np.testing.assert_allclose(table, np.sum(xs, axis=1)[:, None] * np.exp(ys), rtol=1e-13)


# ---- the transforms


def test_hessians_are_symmetric():
    for case in CASES:
        if len(case.args) > 1 or case.name == "kinks":
            continue
        (x,) = case.args
        gradient = sg.grad(sg.trace(lambda x, case=case: case.function(np, x), backend="interp"))
        rng = np.random.default_rng(0)
        u, v = rng.standard_normal(x.shape), rng.standard_normal(x.shape)
        hu, hv = sg.jvp(gradient, (x,), (u,))[1], sg.jvp(gradient, (x,), (v,))[1]
        np.testing.assert_allclose(np.sum(hu * v), np.sum(hv * u), rtol=1e-9)


def test_third_derivative():
    d = sg.trace(lambda x: np.sin(x) * x, backend="interp")
    for _ in range(3):
        d = sg.grad(d)
    x = 0.7
    np.testing.assert_allclose(d(x), -3 * np.sin(x) - x * np.cos(x), rtol=1e-12)


def test_multiply_is_its_own_check():
    x, y = value(3), value(3)
    function = Function([x, y], [multiply(x, y)], [np.arange(3.0), np.arange(3.0) + 1])
    assert_adjoint("multiply", function, np.random.default_rng(0))


# ---- compiled, where stages and memory matter


def test_a_cotangent_that_is_passed_on_as_it_is():
    """The pullback of the identity runs in the backward stage, though all it does is copy an input."""
    x = RNG.standard_normal(5)
    for function in (lambda x: x, lambda x: (x, np.sin(x))):
        value, pullback = sg.vjp(function, x)
        for scale in (1.0, 2.0):
            seeds = np.full(5, scale) if not isinstance(value, tuple) else (np.full(5, scale), np.zeros(5))
            np.testing.assert_array_equal(pullback(seeds)[0], np.full(5, scale))


def test_graphs_with_other_stages_are_other_graphs():
    x, g = value(3), value(3)
    assert Graph((x, g), (x, g), (x,)).digest != Graph((x, g), (x, g)).digest
    assert Graph((x, g), (x, g), (x,)).differentiated
    assert not Graph((x, g), (x, g), (x, g)).differentiated


def test_pullbacks_run_any_number_of_times():
    x, y = RNG.standard_normal(4), RNG.standard_normal((3, 4))

    def function(x, y):
        h = np.tanh(y * x)
        return {"h": h, "total": np.sum(h), "best": np.argmax(h)}

    first, pull_first = sg.vjp(function, x, y)
    second, pull_second = sg.vjp(function, 2 * x, y)
    h = np.tanh(y * x)
    for scale in (1.0, -3.0, 1.0):
        gx, gy = pull_first({"h": np.zeros((3, 4)), "total": scale, "best": 0})
        np.testing.assert_allclose(gx, scale * np.sum((1 - h * h) * y, axis=0), rtol=1e-12)
        np.testing.assert_allclose(gy, scale * (1 - h * h) * x, rtol=1e-12)
        assert pull_second({"h": np.zeros((3, 4)), "total": 1.0, "best": 0})[0].shape == (4,)
    np.testing.assert_allclose(first["h"], h, rtol=1e-14)
    assert second["best"] == np.argmax(second["h"])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_gradients_of_nothing(shape):
    x = np.zeros(shape)
    value, gradient = sg.value_and_grad(lambda x: np.sum(np.sin(x) * 2) + 1.0)(x)
    assert value == 1.0
    assert gradient.shape == shape
    assert sg.grad(lambda x: np.sum(x))(x).shape == shape


def test_dtypes_of_gradients():
    x, y = np.float32([1, 2]), np.array([1.0, 2.0])
    gradients = sg.grad(lambda x, y, s: np.sum(x * y) * s, (0, 1, 2))(x, y, 3.0)
    assert [g.dtype for g in gradients] == [np.float32, np.float64, np.float64]
