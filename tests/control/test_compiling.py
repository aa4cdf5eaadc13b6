"""What becomes of control flow on its way to machine code: passes, memory, sources, and how long that takes."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import apply_all
from staticgrad.ir.verify import verify
from staticgrad.passes.pipeline import PIPELINE, optimize
from staticgrad.runtime.build import lower_graph
from tests.control.programs import PROGRAMS
from tests.ops.running import run_uncompiled

PASSES = dict(PIPELINE)


def loops_of(graph):
    return [node for node in graph.nodes if node.op.subgraphs]


def recurrent(w, x, xs):
    last, ys = sg.scan(lambda h, row: (np.tanh(w @ h + row), h), x, xs)
    return np.sum(last) + np.sum(ys**2)


ARGUMENTS = (np.eye(3) / 2, np.ones(3), np.ones((10, 3)))


def all_graphs():
    for program in PROGRAMS:
        yield f"{program.name}", sg.trace(lambda *a, p=program: p.function(sg, sg.numpy, *a)).program(*program.args), program.args
    yield "gradient", sg.value_and_grad(recurrent, (0, 1, 2)).program(*ARGUMENTS), ARGUMENTS
    yield "second derivative", sg.grad(lambda *a: np.sum(sg.grad(recurrent)(*a)), (0, 1, 2)).program(*ARGUMENTS), ARGUMENTS


GRAPHS = {name: (program.graph, [np.asarray(x) for x in args]) for name, program, args in all_graphs()}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_pass_keeps_what_is_computed(name):
    graph, arrays = GRAPHS[name]
    expected = interpret(graph, arrays)
    for title, function in PIPELINE:
        graph, _ = function(graph)
        verify(graph, after=title)
        for x, y in zip(interpret(graph, arrays), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13, err_msg=title)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_source_without_a_compiler(name, fuse):
    graph, arrays = GRAPHS[name]
    for x, y in zip(run_uncompiled(graph, arrays, lowering=lower_graph(graph, fuse)), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


# ---- passes


def test_the_way_there_is_gone_once():
    program = sg.value_and_grad(recurrent, (0, 1, 2)).program(*ARGUMENTS)
    assert len(loops_of(program.graph)) == 3
    optimized, _ = optimize(program.graph)
    forward, backward = loops_of(optimized)
    assert (forward.op.reverse, backward.op.reverse) == (False, True)
    assert {node.op.name for node in backward.op.body.nodes}.isdisjoint({"tanh", "contract"})  # dear to compute: stacked by forward


def test_tangents_share_the_loop():
    f = sg.trace(lambda x, xs: sg.scan(lambda c, row: (np.sin(c) * row, c), x, xs)[0])
    program = sg.trace(lambda x, xs: sg.jvp(f, (x, xs), (x, xs))).program(1.0, np.ones(4))
    assert len(loops_of(optimize(program.graph)[0])) == 1


def test_a_loop_that_depends_on_another_one_stays():
    def f(x):
        first = sg.fori_loop(0, 3, lambda i, c: c * 2, x)
        second = sg.fori_loop(0, 3, lambda i, c: c * 2, first)
        return first, second

    optimized, _ = optimize(sg.trace(f).program(1.0).graph)
    assert len(loops_of(optimized)) == 2


def test_what_nobody_reads_is_dropped():
    def f(x, y, xs):
        def step(carry, row):
            a, b, c = carry
            return (a * 2, b + np.sin(a) * row, c + np.exp(b)), (a, b)

        (_, _, _), (first, _) = sg.scan(step, (x, y, y), xs)
        return first

    (loop,) = loops_of(optimize(sg.trace(f).program(1.0, 2.0, np.ones(4)).graph)[0])
    assert (loop.op.carries, len(loop.outputs), len(loop.inputs)) == (1, 2, 1)
    assert {node.op.name for node in loop.op.body.nodes} <= {"input", "constant", "add", "multiply"}
    dead, _ = optimize(sg.trace(lambda x: (sg.fori_loop(0, 3, lambda i, c: c * x, x), x)[1]).program(1.0).graph)
    assert not loops_of(dead)


def test_what_does_not_change_is_a_constant():
    def f(x, n):
        def step(carry):
            k, a, total = carry
            return k + 1, a, total + a

        return sg.while_loop(lambda c: c[0] < n, step, (0, x, 0.0))[1:]

    (loop,) = loops_of(optimize(sg.trace(f).program(1.5, 4).graph)[0])
    assert loop.op.carries == 2
    assert sg.trace(f)(1.5, 4) == (1.5, 6.0)


def test_numbers_are_part_of_the_body():
    program = sg.trace(lambda xs: sg.scan(lambda c, x: (c * 0.5 + x * np.float64(1.0), None), 0.0, xs)[0]).program(np.ones(4))
    (loop,) = loops_of(optimize(program.graph)[0])
    assert loop.op.consts == 0
    assert [node.op.name for node in loop.op.body.nodes].count("multiply") == 1  # x * 1 is x


def test_equal_bodies_are_equal_ops():
    programs = [sg.trace(lambda x, xs: sg.scan(lambda c, v: (c * v + 1, c), x, xs)).program(1.0, np.ones(4)) for _ in range(2)]
    first, second = (loops_of(program.graph)[0] for program in programs)
    assert first.op == second.op
    assert hash(first.op) == hash(second.op)
    assert programs[0].graph.digest == programs[1].graph.digest
    other = sg.trace(lambda x, xs: sg.scan(lambda c, v: (c * v + 2, c), x, xs)).program(1.0, np.ones(4))
    assert loops_of(other.graph)[0].op != first.op
    assert apply_all(second.op, *first.inputs)[0].node is first


# ---- code


def test_the_length_is_a_number_in_the_code():
    def ending(w, x, xs):
        return np.sum(sg.scan(lambda h, row: (np.tanh(w @ h + row), None), x, xs)[0])

    def sizes(length):
        lowered = sg.value_and_grad(ending, (0, 1, 2)).lower(*ARGUMENTS[:2], np.ones((length, 3)))
        return len(lowered.source.splitlines()), len(lowered.optimized.nodes), len(loops_of(lowered.optimized))

    assert sizes(10) == sizes(10_000)


def test_carries_are_written_in_place():
    source = sg.trace(lambda x: sg.fori_loop(0, 9, lambda i, c: np.sin(c) + x, x)).lower(np.ones(1000)).source
    assert "following" not in source
    source = sg.trace(lambda x: sg.fori_loop(0, 9, lambda i, c: np.sin(c[::-1]) + x, x)).lower(np.ones(1000)).source
    assert "following" in source


def test_long_bodies_are_functions_of_their_own():
    def f(x):
        def step(i, c):
            for k in range(40):
                c = np.sin(c) * (1 + k / 40) + np.cumsum(c[::-1]) / 50
            return c

        return sg.fori_loop(0, 2, step, x)

    x = np.linspace(0, 1, 8)
    lowered = sg.trace(f).lower(x)
    assert "def part_" in lowered.source
    np.testing.assert_allclose(lowered.compile().run([x])[0], interpret(lowered.graph, [x])[0], rtol=1e-11)


def test_memory_is_used_again():
    def f(x):
        def step(i, c):
            for k in range(12):
                c = np.cumsum(c[::-1]) / 300 + k
            return c

        return sg.fori_loop(0, 3, step, x)

    assert sg.trace(f).lower(np.ones(10_000)).memory < 5 * 80_000


def test_graphs_are_drawn_and_printed():
    lowered = sg.trace(recurrent).lower(*ARGUMENTS)
    text = str(lowered.graph)
    assert "scan(w, x, xs; length=10, consts=1, carries=1)" in text
    assert "      %" in text
    assert "tanh" in text
    assert "scan" in lowered.graph._repr_svg_()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_constants_without_elements():
    """They stand among the operands of branches and are searched, and have memory of no bytes as inputs without elements have."""
    nothing, row = np.zeros((0, 3)), np.zeros(0)

    def function(x, k):
        chosen = sg.cond(k > 0, lambda x, e: (np.sum(x) + np.sum(e), 2 * e), lambda x, e: (np.sum(x), e), x, nothing)
        looped = sg.fori_loop(0, 2, lambda i, c: c + np.sum(sg.cond(k > i, lambda e: e + 1.0, lambda e: e, nothing)), x[0])
        return chosen, looped, np.searchsorted(row, x)

    graph = sg.trace(function).program(np.ones(3), 1).graph
    arrays = [np.ones(3), np.asarray(1)]
    for found, expected in zip(run_uncompiled(graph, arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_loops_deep_in_each_other():
    """Each asks those inside of it whether they may take long: the time to compile grows with the depth, not with a power of it."""

    def nested(depth):
        if not depth:
            return lambda x: x + 1.0
        inner = nested(depth - 1)
        return lambda x: sg.fori_loop(0, 2, lambda _, v: inner(v), x)

    assert sg.trace(nested(16))(0.5) == 2.0**16 + 0.5
