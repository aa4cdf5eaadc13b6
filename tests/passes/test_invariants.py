"""What does not change in a loop is computed ahead of it: where it goes, that no bit changes, and what has to stay."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ops.loops import Scan
from staticgrad.passes.pipeline import optimize
from tests.ops.running import identical

RNG = np.random.default_rng(3)
A, X = RNG.normal(size=(5, 5)), RNG.normal(size=5)


def loops(graph: Graph) -> list[Graph]:
    """Return the bodies of loops in a graph, those inside of others too."""
    found = []
    for node in graph.nodes:
        for inner in node.op.subgraphs:
            found += [inner, *loops(inner)]
    return found


def names(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes}


def optimized(function, *args):
    """Return the graph of a function before and after the passes, which change no bit of what it gives."""
    lowered = sg.trace(function).lower(*args)
    arrays = [np.asarray(x) for x in args]
    for found, expected in zip(interpret(lowered.optimized, arrays), interpret(lowered.graph, arrays), strict=True):
        assert identical(found, expected)
    return lowered.optimized


def repeated(k, x):
    return sg.scan(lambda c, _: (np.tanh(np.exp(A * k) @ c), None), x, None, length=20)[0]


def test_what_depends_on_constants_is_computed_ahead():
    graph = optimized(repeated, 0.5, X)
    (body,) = loops(graph)
    assert "exp" in names(graph)
    assert "exp" not in names(body)


def test_on_the_way_back_it_is_one_value_and_not_one_for_each_step():
    lowered = sg.grad(lambda k, x: np.sum(repeated(k, x)), argnums=(0, 1)).lower(0.5, X)
    expected = interpret(lowered.graph, [np.asarray(0.5), X])
    for found, each in zip(interpret(lowered.optimized, [np.asarray(0.5), X]), expected, strict=True):
        np.testing.assert_allclose(found, each, rtol=1e-13)
    stacked = [v.shape for node in lowered.optimized.nodes if isinstance(node.op, Scan) for v in node.outputs]
    assert stacked
    assert (20, 5, 5) not in stacked
    assert all("exp" not in names(body) for body in loops(lowered.optimized))


def test_a_loop_inside_of_a_loop_gives_it_to_the_outermost_that_it_does_not_change_in():
    def nested(k, x):
        def outer(c, s):
            inner = sg.fori_loop(0, 3, lambda i, d: d * np.exp(k * A[0]) + np.sin(s * A[1]), c)
            return inner, None

        return sg.scan(outer, x, np.arange(4.0))[0]

    graph = optimized(nested, 0.1, X)
    outer, inner = loops(graph)
    assert "exp" in names(graph)
    assert "exp" not in names(outer) | names(inner)
    assert "sin" in names(outer)
    assert "sin" not in names(inner)


def test_also_out_of_a_while_loop_and_of_its_condition():
    def until(k, x):
        return sg.while_loop(lambda c: np.sum(c) < np.sum(np.exp(A * A * k)), lambda c: c + np.exp(k), x)

    graph = optimized(until, 0.5, X)
    assert all("exp" not in names(body) for body in loops(graph))
    for start in (X, X + 100.0):  # with and without a step
        np.testing.assert_allclose(sg.trace(until)(0.5, start), interpret(graph, [np.asarray(0.5), start])[0], rtol=1e-14)


def test_what_is_cheap_stays_in_the_loop():
    graph = optimized(lambda k, x: sg.scan(lambda c, _: (c * (A[0] * k + 1.0), None), x, None, length=5)[0], 0.5, X)
    assert "multiply" in names(loops(graph)[0])
    assert "multiply" not in names(graph)


def test_a_large_product_of_small_parts_stays_and_its_dear_parts_go():
    def spread(k, x):
        return sg.scan(lambda c, _: (c + np.exp(k * x)[:, None] * x[None, :], None), A, None, length=5)[0]

    graph = optimized(spread, 0.5, X)
    (body,) = loops(graph)
    assert "exp" not in names(body)
    assert [v.shape for v in body.inputs[1:]] == [(5,), (5,), (5, 5)] or [v.shape for v in body.inputs[1:]] == [(5,), (5, 5)]


def test_a_copy_in_another_layout_is_made_once():
    def network(w, xs):
        return np.sum(sg.scan(lambda h, x: (np.tanh(h @ w + x), None), np.zeros((4, 16)), xs)[0])

    lowered = sg.grad(network).lower(RNG.normal(size=(16, 16)), RNG.normal(size=(7, 4, 16)))
    assert all("contiguous" not in names(body) for body in loops(lowered.optimized))


def test_a_loop_with_steps_that_do_not_run_stacks_zeros():
    def partly(n, k):
        return sg.grad(lambda k: np.sum(sg.fori_loop(0, n, lambda i, c: c * np.exp(k * X), np.ones(5))))(k)

    for n in (0, 1, 4):
        expected = np.sum(n * X * np.exp(n * 0.3 * X))
        np.testing.assert_allclose(sg.trace(partly)(n, 0.3), expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [0, 2])
def test_what_fails_fails_only_where_it_would(steps):
    table = np.arange(4.0)

    def read(n, i):
        return sg.while_loop(lambda c: c[1] < n, lambda c: (c[0] + np.exp(snp.take(table, i)), c[1] + 1), (0.0, 0))[0]

    traced = sg.trace(read)
    if steps:
        with pytest.raises(IndexError, match="out of bounds"):
            traced(steps, 9)
    else:
        assert traced(steps, 9) == 0.0


def test_what_a_checkpoint_does_not_keep_stays_inside():
    def kept(k, x):
        step = sg.checkpoint(lambda c, k: np.sin(c * np.exp(k)))
        return np.sum(sg.scan(lambda c, _: (step(c, k), None), x, None, length=3)[0])

    k = RNG.normal(size=5)
    graph, _ = optimize(sg.grad(kept).lower(k, X).graph)
    assert all("exp" in names(body) for body in loops(graph))
    sg.check_grads(kept, (k, X), order=1)


def test_a_branch_keeps_what_another_branch_computes_too():
    """What a construct closes over is what its functions read, not what happens to be in the graph already."""
    table = np.arange(4.0)

    def guarded(i, inside):
        first = sg.cond(inside, lambda: snp.take(table, i) + 1, lambda: 0.0)
        second = sg.cond(inside, lambda: snp.take(table, i) + 2, lambda: 0.0)
        return first + second - first * sg.switch(i, [lambda: snp.take(table, i) + 3, lambda: snp.take(table, i) + 4, lambda: 5.0])

    traced = sg.trace(lambda i, inside: guarded(i, inside) + sg.cond(inside, lambda: snp.take(table, i), lambda: 0.0))
    assert traced(9, False) == 0.0
    assert traced(1, True) == 2.0 + 3.0 - 2.0 * 5.0 + 1.0
    with pytest.raises(IndexError, match="out of bounds"):
        traced(9, True)
