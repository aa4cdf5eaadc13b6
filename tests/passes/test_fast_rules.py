"""The rules of `fastmath`: each fires, changes the last digits only, turns no NaN into a number, and leaves alone what it must."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.loops import walk
from staticgrad.ir.node import Value, full, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.arithmetic import absolute, divide
from staticgrad.ops.exponential import exp, log
from staticgrad.ops.extrema import maximum
from staticgrad.ops.matrices import OnMatrices
from staticgrad.ops.movement import broadcast
from staticgrad.ops.powers import power, sqrt
from staticgrad.passes.fast import FAST_RULES, nonnegative
from staticgrad.passes.simplify import RULES
from staticgrad.runtime.build import build, lower_graph
from staticgrad.runtime.compile import compile_unit
from tests.fuzz.programs import Program
from tests.ops.running import close, run_uncompiled, ulps_apart
from tests.ops.samples import REORDERED, ULPS, edge_values, samples_of
from tests.passes.test_rules import rewritten

f32, f64 = np.dtype(np.float32), np.dtype(np.float64)

BY_NAME = {rule.name: rule for rule in FAST_RULES}


@dataclass
class Example:
    """A graph that a rule changes, of one or two vectors."""

    rule: str
    build: Callable[..., Value]
    count: int = 1


def _rows(x: Value, y: Value) -> Value:
    return broadcast(x, (3, *x.shape), (0,)) * full((3, *x.shape), 1.0, x.dtype) / broadcast(y, (3, *y.shape), (0,))


EXAMPLES = [
    Example("divide_by_number", lambda x: x / 3.0),
    Example("divide_by_number", lambda x: x / -7e5),
    Example("divide_by_repeated", lambda x, y: (x + x) / y, 2),
    Example("multiply_by_two_numbers", lambda x: (x * 3.0) * 0.1),
    Example("multiply_by_two_numbers", lambda x: 0.3 * (7.0 * x)),
    Example("sqrt_of_square", lambda x: sqrt(x * x)),
    Example("square_of_sqrt", lambda x: sqrt(absolute(x)) * sqrt(absolute(x))),
    Example("log_of_exp", lambda x: log(exp(x))),
    Example("exp_of_log", lambda x: exp(log(absolute(x)))),
    Example("power_of_halves", lambda x: power(absolute(x), full(x.shape, 0.5, x.dtype))),
    Example("power_of_halves", lambda x: power(absolute(x), full(x.shape, -1.5, x.dtype))),
    Example("power_of_halves", lambda x: power(x * x, full(x.shape, 2.5, x.dtype))),
]


def graph_of(example: Example, dtype: np.dtype, values: np.ndarray) -> tuple[Graph, list[np.ndarray]]:
    """Return the example's graph; the second vector, of divisors, is spread over rows."""
    x = new_input(Aval(values.shape if example.count == 1 else (values.size, values.size), dtype))
    if example.count == 1:
        return Graph((x,), (example.build(x),)), [values]
    y = new_input(Aval(values.shape, dtype))
    spread = broadcast(y, x.shape, (1,))
    return Graph((x, y), (example.build(x, spread),)), [np.tile(values, (values.size, 1)), values]


def test_every_rule_has_an_example():
    assert {example.rule for example in EXAMPLES} == set(BY_NAME)
    assert not set(BY_NAME) & {rule.name for rule in RULES}
    assert not any(rule.exact for rule in FAST_RULES)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.rule)
def test_rule_fires_and_changes_the_last_digits_only(example, dtype):
    values = (np.random.default_rng(0).standard_normal(40) * 8).astype(dtype)
    graph, arrays = graph_of(example, dtype, values)
    after, rewriter = rewritten(graph, BY_NAME[example.rule])
    assert rewriter.fired[example.rule] >= 1
    (before,), (now,) = interpret(graph, arrays), interpret(after, arrays)
    np.testing.assert_allclose(now, before, rtol=40 * np.finfo(dtype).eps)
    graph, arrays = graph_of(example, dtype, edge_values(dtype))
    (before,), (now,) = interpret(graph, arrays), interpret(rewritten(graph, BY_NAME[example.rule])[0], arrays)
    assert not np.any(np.isnan(before) & ~np.isnan(now))
    if example.rule != "divide_by_repeated":
        assert not np.any(np.isnan(now) & ~np.isnan(before))
    else:
        divisors = np.broadcast_to(edge_values(dtype)[:, None], before.shape)
        assert np.all(np.abs(divisors[np.isnan(now) & ~np.isnan(before)]) < np.finfo(dtype).tiny)


UNTOUCHED = {
    "x * 0": lambda x: x * 0.0,
    "x - x": lambda x: x - x,
    "x / x": lambda x: divide(x, x),
    "x / 0": lambda x: x / 0.0,
    "x / 1e-310": lambda x: x / 1e-310,
    "x / 1e308": lambda x: x / 1.7e308,
    "x / inf": lambda x: x / np.inf,
    "x / nan": lambda x: x / np.nan,
    "sqrt(x) * sqrt(x)": lambda x: sqrt(x) * sqrt(x),
    "exp(log(x))": lambda x: exp(log(x)),
    "x ** 0.5": lambda x: power(x, full(x.shape, 0.5, x.dtype)),
    "|x| ** 0.7": lambda x: power(absolute(x), full(x.shape, 0.7, x.dtype)),
    "x * 1e200 * 1e200": lambda x: x * 1e200 * 1e200,
    "x * 1e-200 * 1e-200": lambda x: x * 1e-200 * 1e-200,
    "x + 1 - 1": lambda x: x + 1.0 - 1.0,
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_left_alone(name):
    x = new_input(Aval((5,), f64))
    with np.errstate(all="ignore"):
        graph = Graph((x,), (UNTOUCHED[name](x),))
    after, rewriter = rewritten(graph, *FAST_RULES)
    assert after.outputs == graph.outputs, dict(rewriter.fired)


def test_what_is_never_negative():
    x, y = (new_input(Aval((5,), f64)) for _ in range(2))
    for value in (x * x, absolute(x), exp(x), sqrt(x), maximum(x, absolute(y)), x * x + absolute(y), broadcast(x * x, (2, 5), (0,)) / 2.0):
        assert nonnegative(value)
    for value in (x, x * y, x + y, -exp(x), x * x - 1.0, maximum(x, y), log(exp(x))):
        assert not nonnegative(value)
    for _ in range(50):
        y = y + 1.0
    assert not nonnegative(y)


def test_rules_meet_at_a_fixed_point():
    for seed in range(7100, 7120):
        graph = Program(seed).grow(25).gradient()
        once = graph
        for _ in range(4):
            once = rewritten(once, *RULES, *FAST_RULES)[0]
        again, rewriter = rewritten(once, *RULES, *FAST_RULES)
        assert again.outputs == once.outputs, dict(rewriter.fired)


# ---- rules and fused products together


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_op(name):
    for sample in samples_of(name):
        graph = sample.graph()
        expected = interpret(graph, sample.operands)
        for x, y in zip(run_uncompiled(graph, sample.operands, lowering=lower_graph(graph, fastmath=True)), expected, strict=True):
            several = name in REORDERED or isinstance(sample.op, OnMatrices) or sample.op.subgraphs  # one rounding after the other
            if x.dtype.kind != "f" or several:
                assert close(x, y, 10.0), str(sample)
            else:
                assert ulps_apart(x, y) <= ULPS.get(name, 0) + 2, str(sample)


@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed):
    program = Program(seed + 8000).grow(25)
    for graph in (program.graph(), program.gradient()):
        found = run_uncompiled(graph, program.arrays, lowering=lower_graph(graph, fastmath=True))
        for x, y in zip(found, interpret(graph, program.arrays), strict=True):
            tolerance = 1e-3 if any(v.dtype == f32 for node in graph.nodes for v in node.outputs) else 1e-8
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# ---- what a user sees


def softmax(x):
    powers = np.exp(x - np.max(x, 1, keepdims=True))
    return powers / np.sum(powers, 1, keepdims=True)


def loss(x, y):
    return np.mean((softmax(x) - y) ** 2) / 3 + np.sum(x * y + x)


X, Y = np.random.default_rng(3).standard_normal((2, 30, 20))


def instructions(lowered) -> int:
    return sum(1 for function in lowered._lowering.lowered.unit.functions for _ in walk(function.body))


@pytest.mark.parametrize("printer", ["numba", "llvm"])
def test_fewer_instructions_and_nearly_the_same_numbers(printer):
    exact, fast = (sg.value_and_grad(sg.trace(loss, printer=printer, fastmath=flag)) for flag in (False, True))
    assert instructions(fast.lower(X, Y)) < instructions(exact.lower(X, Y))
    assert fast.lower(X, Y).source != exact.lower(X, Y).source
    assert str(fast.lower(X, Y).optimized) != str(exact.lower(X, Y).optimized)
    (value, grads), (fast_value, fast_grads) = exact(X, Y), fast(X, Y)
    np.testing.assert_allclose(fast_value, value, rtol=1e-14)
    np.testing.assert_allclose(fast_grads, grads, rtol=1e-13)
    graph = fast.lower(X, Y).graph
    plain = run_uncompiled(graph, [X, Y], lowering=lower_graph(graph, fastmath=True))
    for x, y in zip(build(graph, "cpu", printer, True)[0].run([X, Y]), plain, strict=True):
        assert x.tobytes() == y.tobytes()


def test_entries_are_distinct_and_transforms_inherit():
    def f(x):
        return np.sum(x / 3)

    exact, fast = sg.trace(f), sg.trace(f, fastmath=True)
    x = np.arange(10.0)
    exact(x)
    fast(x)
    fast(x)
    assert exact.cache_info()[0] == 1 and exact.cache_info().signatures == 2
    assert sg.trace(f, fastmath=False)(x) == exact(x)
    assert exact.cache_info().signatures == 2
    for derived in (sg.grad(fast), sg.vmap(fast), sg.value_and_grad(sg.grad(fast))):
        assert derived._options.fastmath
    _, pullback = sg.vjp(sg.trace(lambda x: x / 3, fastmath=True), x)
    np.testing.assert_array_equal(pullback(x)[0], x * (1 / 3))


def test_the_interpreter_takes_no_notice():
    f = sg.trace(lambda x: x / 3, fastmath=True, backend="interp")
    x = np.arange(50.0)
    assert f(x).tobytes() == (x / 3).tobytes()


@pytest.mark.parametrize("printer", ["numba", "llvm"])
def test_nan_and_infinities_are_told(printer):
    x = np.array([1.0, np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324] * 5)

    def f(x):
        y = x * 3 + x / 3
        told = [test(v) for v in (x, y) for test in (np.isnan, np.isinf, np.isfinite)]
        return (*told, x != x, np.where(x == x, x, 0.0), x - x, x * 0)

    with np.errstate(all="ignore"):
        expected = f(x)
    f = sg.trace(f, printer=printer, fastmath=True)
    for found, known in zip(f(x), expected, strict=True):
        np.testing.assert_array_equal(found, known)


def test_training_takes_the_option():
    x = np.random.default_rng(0).standard_normal((64, 3))
    states = []
    for flag in (False, True):
        trainer = sg.Trainer(sg.trace(lambda w, x: np.mean((x @ w - x[:, 0]) ** 2) / 3, fastmath=flag), sg.optim.sgd(0.1))
        state, _ = trainer.fit(trainer.init(np.ones(3)), (x,), epochs=3, batch_size=16, progress=False)
        states.append(state.params)
        assert trainer.cache_info().compiles + trainer.cache_info().memory_hits + trainer.cache_info().disk_hits >= 1
    np.testing.assert_allclose(states[0], states[1], rtol=1e-12)


def test_wrong_values():
    with pytest.raises(ValueError, match="fastmath='yes'"):
        sg.trace(lambda x: x, fastmath="yes")


def test_dispatchers_are_of_the_fast_unit():
    lowered = sg.trace(lambda x: x * 2 + x / 3, fastmath=True).lower(np.arange(4.0))
    assert "fma(" in lowered.source
    assert compile_unit("sg_fast", lowered.source).forward is not None
