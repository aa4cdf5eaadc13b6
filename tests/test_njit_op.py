"""`sg.njit_op`: a user's Numba functions in traced code, in every backend, differentiated, mapped, failing, in several threads."""

import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import numba
import numpy as np
import pytest

import staticgrad as sg
from staticgrad.config import config, configure
from staticgrad.errors import ArgumentError, DTypeError, ExecutionError, MissingDerivativeError, ShapeError, UnsupportedError
from staticgrad.runtime import foreign
from staticgrad.runtime.build import forget
from staticgrad.runtime.compile import Stage
from staticgrad.runtime.vocabulary.kernel import numba_type
from tests.ops.running import run_uncompiled

jax = pytest.importorskip("jax")

X = np.linspace(-1, 1, 12)
BACKENDS = {"llvm": {"printer": "llvm"}, "numba": {"printer": "numba"}, "interp": {"backend": "interp"}}


@pytest.fixture(params=BACKENDS)
def traced(request):
    """`sg.trace` for one of the ways to run a graph."""
    return lambda function: sg.trace(function, **BACKENDS[request.param])


# ---- functions


@numba.njit
def filtered(x, decay):
    """A recursive filter: each element and what is left of those before it."""
    y = np.empty_like(x)
    last = x[0] * 0
    for i in range(x.size):
        last = decay * last + x[i]
        y[i] = last
    return y


@numba.njit
def filtered_back(g, decay):
    y = np.empty_like(g)
    last = g[0] * 0
    for i in range(g.size - 1, -1, -1):
        last = decay * last + g[i]
        y[i] = last
    return y


def filter_vjp(g, y, x, decay):
    back = backward_filter(g, decay)
    shifted = np.concatenate([np.zeros_like(y[:1]), y[:-1]])
    return back, np.sum(back * shifted)


def filter_jvp(tangents, y, x, decay):
    tx, tdecay = tangents
    source = sg.numpy.zeros(x.shape) if tx is None else tx
    if tdecay is not None:
        source = source + tdecay * np.concatenate([np.zeros_like(y[:1]), y[:-1]])
    return forward_filter(source, decay)


def back_vjp(g, y, x, decay):
    along = forward_filter(g, decay)
    shifted = np.concatenate([y[1:], np.zeros_like(y[:1])])
    return along, np.sum(along * shifted)


def back_jvp(tangents, y, x, decay):
    tx, tdecay = tangents
    source = sg.numpy.zeros(x.shape) if tx is None else tx
    if tdecay is not None:
        source = source + tdecay * np.concatenate([y[1:], np.zeros_like(y[:1])])
    return backward_filter(source, decay)


forward_filter = sg.njit_op(filtered, shape=lambda x, decay: x, vjp=filter_vjp, jvp=filter_jvp)
backward_filter = sg.njit_op(filtered_back, shape=lambda g, decay: g, vjp=back_vjp, jvp=back_jvp)


@sg.njit_op
@numba.njit
def area(x, y):
    """The area of a polygon: a number."""
    total = 0.0
    for i in range(x.size):
        k = (i + 1) % x.size
        total += x[i] * y[k] - x[k] * y[i]
    return total / 2


@sg.njit_op(shape=lambda a: (a[1], a[0]))
@numba.njit
def turned(a):
    return a[::-1].T


@sg.njit_op
@numba.njit
def checked(x):
    if x[0] > 0.5:
        raise ValueError("the first element is too large", x[0])
    return x * 2


# ---- values


def test_on_arrays_it_is_the_function_itself():
    np.testing.assert_array_equal(forward_filter(X, 0.5), filtered(X, 0.5))
    assert forward_filter.__name__ == "filtered" and "recursive filter" in forward_filter.__doc__
    assert repr(area) == "<njit_op area>"
    assert area(np.array([0.0, 1, 1, 0]), np.array([0.0, 0, 1, 1])) == 1.0


def test_in_a_graph_it_is_one_node_between_fused_loops(traced):
    f = traced(lambda x, decay: np.sum(np.tanh(forward_filter(2 * x, decay) + 1) * x))
    expected = np.sum(np.tanh(filtered(2 * X, 0.25) + 1) * X)
    for _ in range(4):  # the third call goes through the entry in machine code
        assert f(X, 0.25) == pytest.approx(expected, rel=1e-14)
    text = str(f.lower(X, 0.25).graph)
    assert text.count("filtered(") == 1


def test_operands_that_are_views_are_laid_out(traced):
    a = np.arange(12.0).reshape(3, 4)
    f = traced(lambda a: (turned(a.T), turned(a[:, 1:3]), turned(a.reshape(2, 6)), turned(np.flip(a, 0)), turned(a[None, 0])))
    plain = [turned(np.ascontiguousarray(v)) for v in (a.T, a[:, 1:3], a.reshape(2, 6), np.flip(a, 0), a[None, 0])]
    for found, expected in zip(f(a), plain, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_numbers_constants_and_broadcasts_as_operands(traced):
    def f(x):
        known = forward_filter(x, 0.5)
        computed = forward_filter(np.broadcast_to(x[3], (5,)), np.sum(x) + 1)
        constant = forward_filter(np.ones(4), x[0])
        return known, computed, constant, area(x, np.arange(12.0)), forward_filter(known, decay=0.125)

    found = traced(f)(X)
    assert found[3].ndim == 0 and isinstance(found[3], np.float64)
    known = filtered(X, 0.5)
    expected = known, filtered(np.full(5, X[3]), X.sum() + 1), filtered(np.ones(4), X[0]), area(X, np.arange(12.0)), filtered(known, 0.125)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@numba.njit
def counted(x, least, strict=False):
    return (x > least).sum() if strict else (x >= least).sum()


@numba.njit
def above(x, least):
    return x > least


def test_dtypes_are_those_that_numba_finds(traced):
    count, mask = sg.njit_op(counted), sg.njit_op(above, shape=lambda x, least: x)
    x32, ints = X.astype(np.float32), np.arange(-3, 9, dtype=np.int16)
    f = traced(lambda x, k: (count(x, 0.0), count(x, 0.0, strict=True), count(k, 2, strict=x[0] > 5), mask(k, 1), forward_filter(x, x[0])))
    results = f(x32, ints)
    assert [r.dtype for r in results] == [np.int64, np.int64, np.int64, np.bool_, np.float32]
    assert results[:3] == (6, 6, 7) and results[3].tolist() == (ints > 1).tolist()
    np.testing.assert_array_equal(results[4], filtered(x32, x32[0]))
    assert traced(lambda flags, k: mask(flags & (k > 0), False))(ints > 1, ints).tolist() == (ints > 1).tolist()


def test_a_function_of_numbers_alone(traced):
    @sg.njit_op
    @numba.njit
    def steps(n):
        count = 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += 1
        return count

    assert traced(lambda n: steps(n) * 10)(27) == 1110


def test_what_the_function_closed_over_is_numbas_business(traced):
    table, scale = np.array([1.0, 10.0, 100.0]), 3.0
    op = sg.njit_op(numba.njit(lambda k: table[k] * scale), shape=lambda k: k)
    np.testing.assert_array_equal(traced(lambda k: op(k))(np.array([2, 0])), [300.0, 3.0])


def test_empty_arrays(traced):
    op = sg.njit_op(numba.njit(lambda x: x + 1))
    assert traced(lambda x: op(x) * 2)(np.zeros((0, 3))).shape == (0, 3)
    assert traced(lambda x: op(x).sum())(np.zeros((0, 3))) == 0


def test_a_function_that_writes_into_its_argument_gets_a_copy(traced):
    @numba.njit
    def cleared(x):
        x[0] = 0
        return x

    op, x = sg.njit_op(cleared), X.copy()
    first, second = traced(lambda x: (op(x), x * 1))(x)
    assert first[0] == 0 and second[0] == x[0] == -1 and first[1:].tolist() == X[1:].tolist()


def test_parallel_functions_are_welcome(traced):
    @numba.njit(parallel=True)
    def squares(x):
        y = np.empty_like(x)
        for i in numba.prange(x.size):
            y[i] = x[i] ** 2
        return y

    x = np.linspace(0, 1, 100_000)
    found = traced(lambda x: np.sum(sg.njit_op(squares)(x + 1)))(x)
    assert found == pytest.approx(np.sum((x + 1) ** 2), rel=1e-12)


def test_signatures_that_the_user_fixed(traced):
    @numba.njit(["float64[:](float64[:])", "float64(float64)"])
    def doubled(x):
        return x * 2

    op = sg.njit_op(doubled)
    many, one = traced(lambda x: (op(x), op(x[3])))(X)
    assert many.tolist() == (2 * X).tolist() and one == 2 * X[3]
    with pytest.raises(DTypeError, match=r"doubled: Numba cannot compile it for \(f64\[2,6\]\): its signatures are"):
        traced(lambda x: op(x))(X.reshape(2, 6))


def test_the_graph_knows_equal_calls():
    f = sg.trace(lambda x: forward_filter(x, 0.5) + forward_filter(x, 0.5))
    assert str(f.lower(X).graph).count("filtered(") == 1


# ---- what is emitted


def test_both_printers_call_it_by_its_symbol():
    lowered = sg.trace(lambda x: forward_filter(x + 1, 0.5)).lower(X)
    assert "    decay0[0] = 0.5\n" in lowered.source
    call = re.sub(r"\s+", " ", lowered.source.partition("call_external(")[2].partition(")")[0])
    assert re.fullmatch(r' ?context, "sg_foreign_filtered_[0-9a-f]{8}", scratch_add, decay0, out0, 12, 12 ?', call)
    assert "call i64 @sg_foreign_filtered_" in lowered.llvm
    assert "forward nest 1: scalar: filtered" in str(lowered.schedule)
    assert lowered.report.forward_nests == 2


def test_the_source_runs_as_plain_python():
    f = sg.trace(lambda x, decay: np.sum(forward_filter(x * 2, decay) ** 2) + area(x, x * x))
    graph = sg.trace(f).lower(X, 0.5).graph
    (found,) = run_uncompiled(graph, [X, np.array(0.5)])
    assert found == pytest.approx(f(X, 0.5), rel=1e-13)
    graph = sg.vmap(f, in_axes=(0, None)).lower(np.stack([X, X + 1]), 0.5).graph
    (found,) = run_uncompiled(graph, [np.stack([X, X + 1]), np.array(0.5)])
    np.testing.assert_allclose(found, [f(X, 0.5), f(X + 1, 0.5)], rtol=1e-13)


def test_failures_of_plain_python_arrive_too():
    graph = sg.trace(lambda x: checked(x) + 1).lower(X).graph
    with pytest.raises(ExecutionError, match=r"checked .*too large"):
        run_uncompiled(graph, [X + 2])


@pytest.mark.parametrize("printer", ["llvm", "numba"])
def test_dispatchers_can_be_called_from_numba(printer):
    lowered = sg.grad(lambda x: np.sum(forward_filter(x, 0.5) * x)).lower(X, printer=printer)
    stages = [as_stage(lowered.forward), as_stage(lowered.backward)]
    result, context = np.zeros(12), np.zeros(8, np.int64)
    workspace = np.zeros(lowered.memory + 128, np.uint8)
    room = workspace[-workspace.ctypes.data % 64 :]
    table = np.array([X.ctypes.data, result.ctypes.data], np.uintp)
    for stage in stages:
        assert stage(table.ctypes.data, room.ctypes.data, context.ctypes.data) == 0
    np.testing.assert_allclose(result, filtered(X, 0.5) + filtered_back(X, 0.5), rtol=1e-13)


callbacks = []


def as_stage(dispatcher, **options):
    """Return a stage that is called through Numba: by a C callback that calls the dispatcher."""
    kinds = [numba_type(kind) for kind in ("void**", "u8*", "i64*")]

    def call(table, workspace, context):
        return dispatcher(table, workspace, context)

    callbacks.append(numba.cfunc(numba.types.int64(*kinds), **options)(call))
    return Stage(callbacks[-1].address)


def test_numba_keeps_no_code_with_addresses_of_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    lowered = sg.trace(lambda x: forward_filter(x, 0.5)).lower(X)
    with pytest.warns(numba.NumbaWarning, match="dynamic globals"):
        as_stage(lowered.forward, cache=True)
    assert not list(tmp_path.rglob("*.nbc"))


# ---- derivatives


def jax_filter(x, decay):
    step = lambda last, each: (decay * last + each,) * 2  # noqa: E731
    return jax.lax.scan(step, 0.0, x)[1]


def loss(x, decay):
    return np.sum(np.tanh(forward_filter(x * x, decay)) * x) + forward_filter(np.sin(x), decay)[-1]


def jax_loss(x, decay):
    return jax.numpy.sum(jax.numpy.tanh(jax_filter(x * x, decay)) * x) + jax_filter(jax.numpy.sin(x), decay)[-1]


def test_gradients_are_those_of_jax(traced):
    with jax.enable_x64(True):
        value, (gx, gdecay) = jax.value_and_grad(jax_loss, argnums=(0, 1))(X, 0.5)
        second = jax.grad(lambda x: jax.numpy.sum(jax.grad(jax_loss)(x, 0.5) ** 2))(X)
        _, tangent = jax.jvp(jax_loss, (X, 0.5), (np.cos(X), 0.25))
    found, grads = sg.value_and_grad(traced(loss), argnums=(0, 1))(X, 0.5)
    assert found == pytest.approx(float(value), rel=1e-12) and grads[1] == pytest.approx(float(gdecay), rel=1e-12)
    np.testing.assert_allclose(grads[0], gx, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(sg.grad(loss)(x, 0.5) ** 2))(X), second, rtol=1e-11, atol=1e-12)
    assert sg.jvp(traced(loss), (X, 0.5), (np.cos(X), 0.25))[1] == pytest.approx(float(tangent), rel=1e-12)


@pytest.mark.parametrize("printer", ["llvm", "numba"])
def test_both_modes_to_second_order(printer):
    sg.check_grads(sg.trace(loss, printer=printer), (X[:5], 0.5), order=2)


def test_cotangents_take_the_dtype_of_the_argument():
    gx, gdecay = sg.grad(lambda x, decay: np.sum(forward_filter(x, decay) ** 2), argnums=(0, 1))(X.astype(np.float32), 0.5)
    assert gx.dtype == np.float32 and gdecay.dtype == np.float64


def test_none_stands_for_zero_and_numbers_without_derivative_need_nothing():
    op = sg.njit_op(numba.njit(lambda x, k, y: x * k + y), vjp=lambda g, y, x, k, z: (g * k, None, None))
    gx, gz = sg.grad(lambda x, z: np.sum(op(x, 3, z)), argnums=(0, 1))(X, X)
    assert gx.tolist() == [3.0] * 12 and gz.tolist() == [0.0] * 12


def test_results_that_are_no_floats_have_no_derivative():
    count = sg.njit_op(counted)
    assert sg.grad(lambda x: np.sum(x) * count(x, 0.0))(X).tolist() == [6.0] * 12
    assert sg.jvp(lambda x: np.sum(x) * count(x, 0.0), (X,), (np.ones(12),))[1] == 72.0


def test_without_a_rule_the_error_says_which_one_to_give():
    with pytest.raises(MissingDerivativeError, match=r"(?s)area .* in reverse mode: give a rule, sg.njit_op\(area, vjp=.*test_njit_op.py"):
        sg.grad(lambda x: area(x, x * 2) * 3)(X)
    with pytest.raises(NotImplementedError, match=r"area .* in forward mode: give a rule, .*jvp="):
        sg.jvp(lambda x: area(x, x * 2) * 3, (X,), (X,))
    only = sg.njit_op(numba.njit(lambda x: x * 2), vjp=lambda g, y, x: (2 * g,))
    assert sg.grad(lambda x: np.sum(only(x)))(X).tolist() == [2.0] * 12
    with pytest.raises(RuntimeError, match="in forward mode; it has vjp= only"):
        sg.jvp(lambda x: only(x), (X,), (X,))
    assert sg.grad(lambda x: np.sum(x) * area(sg.stop_gradient(x), np.arange(12.0)))(X)[0] == area(X, np.arange(12.0))
    assert sg.grad(lambda x, y: np.sum(x) * area(y, y * y))(X, X)[0] == area(X, X * X)  # y is a constant to it


@pytest.mark.parametrize(
    "vjp, error, message",
    [
        (lambda g, y, x: 2 * g, ArgumentError, "must return a tuple of 1 cotangents, one for each argument, not "),
        (lambda g, y, x: (g, g), ArgumentError, "not 2 things"),
        (lambda g, y, x: (np.sum(g),), ShapeError, r"vjp= of .* argument 0: it returned shape \(\) for what has shape \(12,\)"),
        (lambda g, y: (g,), ArgumentError, "vjp= of "),
    ],
)
def test_rules_that_do_not_fit(vjp, error, message):
    op = sg.njit_op(numba.njit(lambda x: x * 2), vjp=vjp)
    with pytest.raises(error, match=message):
        sg.grad(lambda x: np.sum(op(x)))(X)


def test_tangents_that_do_not_fit():
    for jvp, error in ((lambda t, y, x: (t[0], t[0]), ArgumentError), (lambda t, y, x: np.sum(t[0]), ShapeError)):
        op = sg.njit_op(numba.njit(lambda x: x * 2), jvp=jvp)
        with pytest.raises(error, match="jvp= of"):
            sg.jvp(lambda x, op=op: op(x), (X,), (X,))


factor = 2.0


def test_a_rebound_global_of_a_rule_is_never_stale(monkeypatch):
    op = sg.njit_op(numba.njit(lambda x: x * 2), vjp=lambda g, y, x: (factor * g,))
    gradient = sg.grad(sg.trace(lambda x: np.sum(op(x))))
    assert gradient(X)[0] == 2.0
    monkeypatch.setitem(globals(), "factor", 3.0)
    assert gradient(X)[0] == 3.0


# ---- vmap

ROWS = np.stack([X, X**2 + 1, np.cos(X)])
DECAYS = np.array([0.5, 0.25, -0.75])


def test_vmap_calls_it_for_each_row(traced):
    f = traced(lambda x, decay: np.sum(forward_filter(x * 2, decay)) + forward_filter(x, 0.5))
    each = [[f(x, d) for d in DECAYS] for x in ROWS]
    np.testing.assert_allclose(sg.vmap(f)(ROWS, DECAYS), [each[k][k] for k in range(3)], rtol=1e-13)
    np.testing.assert_allclose(sg.vmap(f, in_axes=(1, None))(ROWS.T, 0.25), [row[1] for row in each], rtol=1e-13)
    nested = sg.vmap(sg.vmap(f, in_axes=(None, 0)), in_axes=(0, None))
    np.testing.assert_allclose(nested(ROWS, DECAYS), each, rtol=1e-13)


def test_gradients_of_vmap_add_up_what_is_shared(traced):
    f = traced(loss)

    def total(x, decays):
        return np.sum(sg.vmap(sg.vmap(f, in_axes=(None, 0)), in_axes=(0, None))(x, decays) * np.array([[1.0, 2, 3]]))

    gx, gdecays = sg.grad(total, argnums=(0, 1))(ROWS, DECAYS)
    each = [[sg.grad(loss, argnums=(0, 1))(x, d) for d in DECAYS] for x in ROWS]
    np.testing.assert_allclose(gx, [sum(w * pair[0] for w, pair in zip((1, 2, 3), row)) for row in each], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(gdecays, [w * sum(row[k][1] for row in each) for k, w in enumerate((1, 2, 3))], rtol=1e-11)
    direction = (np.cos(ROWS), np.array([1.0, -1, 0.5]))
    expected = sum(np.vdot(g, t) for g, t in zip((gx, gdecays), direction))
    assert sg.jvp(total, (ROWS, DECAYS), direction)[1] == pytest.approx(expected, rel=1e-11)


def test_vmap_of_gradients():
    np.testing.assert_allclose(sg.vmap(sg.grad(loss))(ROWS, DECAYS), [sg.grad(loss)(x, d) for x, d in zip(ROWS, DECAYS)], rtol=1e-12)


# ---- failures


def test_exceptions_inside_arrive_with_their_cause(traced):
    f = traced(lambda x: np.exp(checked(x)) + 1)
    for _ in range(4):
        assert f(X)[0] == np.exp(-2) + 1
        with pytest.raises(ExecutionError, match=r"checked \(test_njit_op.py:\d+\): it raised ValueError: .*too large") as caught:
            f(X + 2)
        assert isinstance(caught.value.__cause__, ValueError) and caught.value.__cause__.args == ("the first element is too large", 1.0)
        assert isinstance(caught.value, RuntimeError)
    assert not foreign._failures


def test_nothing_is_called_after_a_failure(traced):
    f = traced(lambda x: checked(checked(x) + 3))
    with pytest.raises(ExecutionError):
        f(X + 2)
    assert not foreign._failures  # a second one would have been kept


def test_failures_in_a_gradient(traced):
    @sg.njit_op
    @numba.njit
    def failing(g):
        if g[0] > 1:
            raise ArithmeticError("a steep descent")
        return g * 2

    @sg.njit_op(vjp=lambda g, y, x: (failing(g),))
    @numba.njit
    def doubled(x):
        return x * 2

    f = traced(lambda x: np.sum(doubled(x) ** 2))
    assert f(X + 2) == pytest.approx(4 * np.sum((X + 2) ** 2))
    np.testing.assert_allclose(sg.grad(f)(X), 8 * X)
    value, pullback = sg.vjp(f, X + 2)
    assert value == f(X + 2)
    for differentiate in (sg.grad(f), lambda x: pullback(1.0)):
        with pytest.raises(ExecutionError, match=r"failing .* it raised ArithmeticError: a steep descent"):
            differentiate(X + 2)


def test_a_result_of_another_shape(traced):
    op = sg.njit_op(numba.njit(lambda x: x[1:]))
    with pytest.raises(ExecutionError, match=r"its result has shape \(11,\), not \(12,\); shape= tells"):
        traced(lambda x: op(x) + 1)(X)


def test_failures_that_nobody_asks_for_are_forgotten():
    call = sg.trace(lambda x: checked(x)).lower(X)
    stage, x, out = as_stage(call.forward), X + 2, np.zeros(12)
    table = np.array([x.ctypes.data, out.ctypes.data], np.uintp)
    for _ in range(foreign.KEPT + 10):
        context = np.zeros(8, np.int64)
        assert stage(table.ctypes.data, 0, context.ctypes.data) == 3
    assert len(foreign._failures) == foreign.KEPT
    foreign._failures.clear()
    assert isinstance(foreign.kept_failure(1), ExecutionError)


def test_what_cannot_become_an_op(traced):
    with pytest.raises(ArgumentError, match=r"(?s)plain is not compiled by Numba: decorate it with @numba.njit first.*test_njit_op.py"):

        @sg.njit_op
        def plain(x):
            return x

    with pytest.raises(TypeError, match="not int"):
        sg.njit_op(3)
    names = sg.njit_op(numba.njit(lambda x: x.name))
    with pytest.raises(DTypeError, match=r"(?s)Numba cannot compile it for \(f64\[12\]\): .*name.*test_njit_op.py"):
        traced(lambda x: names(x))(X)
    for function, what in (
        (lambda x: (x, x), "UniTuple"),
        (lambda x: x * 1j, "complex128"),
        (lambda x: None, "none"),
        (lambda x: "a", "unicode"),
    ):
        with pytest.raises(DTypeError, match=f"returns .*{what}.*one array or number of dtype bool"):
            traced(sg.njit_op(numba.njit(function)))(X)
    with pytest.raises(ArgumentError, match="missing a required argument: 'decay'"):
        traced(lambda x: forward_filter(x))(X)


def test_shape_rules_that_do_not_fit(traced):
    product = numba.njit(lambda x, y: x @ y)
    with pytest.raises(ShapeError, match=r"the shapes \(2, 6\), \(6, 2\) do not broadcast; tell the shape of the result with shape="):
        traced(lambda x: sg.njit_op(product)(x, x.T))(X.reshape(2, 6))
    with pytest.raises(ShapeError, match=r"returns a number, not one of shape \(12,\)"):
        traced(lambda x: sg.njit_op(product, shape=lambda x, y: x)(x, x))(X)
    with pytest.raises(ShapeError, match=r"shape= returned 'ab' for \(12,\), \(12,\), which is no shape"):
        traced(lambda x: sg.njit_op(product, shape=lambda x, y: "ab")(x, x))(X)
    assert traced(lambda x: sg.njit_op(product, shape=lambda x, y: (x[0], y[1]))(x, x.T))(X.reshape(2, 6)).shape == (2, 2)
    assert traced(lambda x: sg.njit_op(numba.njit(lambda x: x[1:]), shape=lambda x: x[0] - 1)(x))(X).shape == (11,)


def test_gpus_are_refused():
    with pytest.raises(UnsupportedError, match=r"(?s)filtered is compiled for CPUs only: .*backend='cuda'.*test_njit_op.py"):
        _ = sg.trace(lambda x: forward_filter(x, 0.5)).lower(X, backend="cuda").source


# ---- life in a process


def test_the_disk_cache_is_left_alone(tmp_path):
    before = configure(replace(config(), cache=tmp_path / "cache", verify=False, dump=None, log=frozenset()))
    try:
        forget()
        f = sg.trace(lambda x: np.sum(forward_filter(x, 0.5) + 1.25))
        f(X)
        sg.vmap(f)(ROWS)
        assert not list(tmp_path.rglob("*.unit"))
        assert "filtered, which this process alone has" in str(sg.explain_cache())
        sg.trace(lambda x: np.sum(x + 1.25))(X)
        assert len(list(tmp_path.rglob("*.unit"))) == 1
    finally:
        configure(before)
        forget()


@pytest.mark.parametrize("printer", ["llvm", "numba"])
def test_threads_call_it_side_by_side(printer):
    f = sg.trace(lambda x, k: np.sum(forward_filter(x, 0.5)) + np.sum(checked(x)) + k, printer=printer)
    found: dict[int, list[object]] = {}

    def work(number):
        results = found[number] = []
        for k in range(40):
            try:
                results.append(f(X + (2 if (k + number) % 2 else 0), float(number)) - number)
            except ExecutionError as error:
                results.append(error.__cause__.args[1])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = np.sum(filtered(X, 0.5)) + np.sum(X * 2)
    for number, results in found.items():
        for k, result in enumerate(results):
            assert result == (1.0 if (k + number) % 2 else pytest.approx(good, rel=1e-12))
    assert len(found) == 4 and all(len(results) == 40 for results in found.values())


PARALLEL = """
import threading, numba, numpy as np, staticgrad as sg

@sg.njit_op
@numba.njit(parallel=True)
def squares(x):
    if x[0] > 5:
        raise ValueError("too large")
    y = np.empty_like(x)
    for i in numba.prange(x.size):
        y[i] = x[i] ** 2
    return y

f = sg.trace(lambda x: np.sum(squares(x + 1)))
x = np.linspace(0, 1, 2000)
expected, wrong = f(x), []

def work():
    for k in range(200):
        try:
            wrong.append(f(x + 10 * (k % 20 == 0)) != expected)
        except RuntimeError:
            wrong.append(k % 20 != 0)

threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(numba.threading_layer(), len(wrong), sum(wrong))
"""


def test_threads_call_parallel_functions_one_at_a_time():
    """Numba ends the process where two threads use its pool `workqueue`."""
    done = subprocess.run(
        [sys.executable, "-c", PARALLEL],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NUMBA_THREADING_LAYER": "workqueue"},
    )
    assert (done.stdout, done.returncode) == ("workqueue 800 0\n", 0), done.stderr


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_training_through_it(backend):
    def error(params, x, target):
        predicted = sg.vmap(forward_filter, in_axes=(0, None))(x, params["decay"])
        return np.mean((params["scale"] * predicted - target) ** 2)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 10))
    data = (x, 2.0 * np.stack([filtered(row, 0.4) for row in x]))
    trainer = sg.Trainer(error, sg.optim.adam(0.05), backend=backend)
    state, history = trainer.fit(trainer.init({"decay": 0.0, "scale": 1.0}), data, epochs=60, batch_size=16, seed=1, progress=False)
    assert history["loss"][-1] < 1e-3 * history["loss"][0]
    assert state.params["decay"] == pytest.approx(0.4, abs=0.01) and state.params["scale"] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_a_failure_ends_a_training(backend):
    trainer = sg.Trainer(lambda w, x: w * np.mean(sg.stop_gradient(checked(x[:, 0]))), sg.optim.sgd(0.1), backend=backend)
    rows = np.linspace(0, 1, 40).reshape(40, 1)
    with pytest.raises(ExecutionError, match=r"checked .*too large"):
        trainer.fit(trainer.init(1.0), rows, epochs=2, batch_size=4, shuffle=False, progress=False)


WITHOUT_JIT = """
import numba, numpy as np, staticgrad as sg
calls = []
@sg.njit_op(vjp=lambda g, y, x, k: (g * k, None))
@numba.njit
def scaled(x, k):
    calls.append(type(x).__name__)
    if k > 5:
        raise ValueError("too large")
    return x * k
x = np.arange(3.0)
for printer in ("numba", "llvm"):
    f = sg.trace(lambda x, k: np.sum(scaled(x, k) ** 2), printer=printer)
    assert f(x, 2.0) == 20.0, f(x, 2.0)
    assert sg.grad(f)(x, 2.0).tolist() == [0.0, 8.0, 16.0]
    try:
        f(x, 6.0)
    except RuntimeError as error:
        print(type(error.__cause__).__name__)
assert "ndarray" in calls
"""


def test_without_the_compiler_it_is_plain_python():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", WITHOUT_JIT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ValueError", "ValueError"]


def test_numba_functions_as_they_are_point_here():
    with pytest.raises(sg.TraceError, match="njit_op"):
        sg.trace(lambda x: filtered(x, 0.5))(X)
