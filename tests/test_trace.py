"""What users do with `sg.trace`: arguments of every kind, reuse, guards, and what goes wrong."""

import collections
import functools
import logging
import math
import os
import threading

import numpy as np
import pytest

import staticgrad as sg

snp = sg.numpy
X = np.arange(12.0).reshape(3, 4)
Pair = collections.namedtuple("Pair", "a b")


# ---- arguments and results -----------------------------------------------------------------------------------------------


def test_arguments_of_every_form():
    assert sg.trace(lambda x, k=2.0: x * k)(3.0) == 6.0
    assert sg.trace(lambda x, *, k=2.0: x * k)(3.0, k=4.0) == 12.0
    assert sg.trace(lambda *a, **k: sum(a) + k["z"])(1.0, 2.0, z=3.0) == 6.0
    assert sg.trace(functools.partial(lambda a, b: a * b, 3.0))(4.0) == 12.0
    assert sg.trace(lambda x, y: x * 2)(1.0, None) == 2.0
    assert sg.grad(lambda p: p.a * p.b)(Pair(2.0, 3.0)) == Pair(3.0, 2.0)


@pytest.mark.parametrize(
    "x",
    [
        X,
        np.asfortranarray(X),
        X[::2, ::-1],
        X.astype(">f8"),
        X.astype(np.float32),
        np.array(2.0),
        np.float32(2),
        np.zeros((0, 3)),
        X[:, :0],
    ],
    ids=["plain", "fortran", "strided", "big endian", "float32", "0-d", "scalar", "empty", "empty columns"],
)
def test_arrays_of_every_layout(x):
    found, expected = sg.trace(lambda x: (x * 2 + 1, np.sum(x, axis=-1) if np.ndim(x) else x))(x), (x * 2 + 1, np.sum(x, -1))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype.newbyteorder("=")


def test_read_only_and_unaligned_arguments():
    frozen = X.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float64).reshape(X.shape)
    double = sg.trace(lambda x: 2 * x)
    np.testing.assert_array_equal(double(frozen), 2 * X)
    np.testing.assert_array_equal(double(unaligned), 2 * X)


def test_results_of_every_form():
    result = sg.trace(lambda x: {"same": x, "twice": (x * 2, x * 2), "none": None, "number": 3.0, "view": x.T, "flat": x.reshape(-1)})(X)
    assert result["none"] is None
    assert result["number"] == 3.0
    for found, expected in [(result["same"], X), (result["view"], X.T), (result["flat"], X.ravel()), (result["twice"][1], 2 * X)]:
        np.testing.assert_array_equal(found, expected)
        assert not np.shares_memory(found, X)
    assert not np.shares_memory(*result["twice"])
    assert isinstance(sg.trace(np.sum)(X), np.float64)


def test_pandas_objects_are_their_arrays():
    class Series:
        """What is asked of a pandas Series."""

        def to_numpy(self):
            return np.array([1.0, 2.0])

    Series.__module__ = "pandas.core.series"
    assert sg.trace(np.sum)(Series()) == 3.0


def test_methods_keep_their_instances_apart():
    class Model:
        def __init__(self, factor):
            self.factor = factor

        @sg.trace
        def scaled(self, x):
            return self.factor * x

    first, second = Model(2.0), Model(3.0)
    assert (first.scaled(1.0), second.scaled(1.0)) == (2.0, 3.0)
    first.factor = 5.0
    assert (first.scaled(1.0), second.scaled(1.0)) == (5.0, 3.0)


def test_static_arguments():
    @sg.trace(static_argnames="mode")
    def f(x, mode="double"):
        return 2 * x if mode == "double" else 3 * x

    assert (f(1.0), f(1.0, "triple"), f(1.0, mode="triple")) == (2.0, 3.0, 3.0)
    assert sg.grad(f)(1.0, mode="triple") == 3.0
    with pytest.raises(sg.StaticgradError, match="cannot be hashed"):
        f(1.0, mode=["double"])
    with pytest.raises(ValueError, match="no parameter 'nothing'"):
        sg.trace(static_argnames="nothing")(lambda x: x)


# ---- reuse -----------------------------------------------------------------------------------------------------------------


def test_the_function_runs_once_a_signature():
    calls = []

    def f(x):
        calls.append(1)
        return np.sum(x * x)

    with pytest.warns(sg.StaticgradWarning, match="side effects"):
        traced = sg.trace(f)
        for _ in range(5):
            traced(X)
    for _ in range(5):
        sg.grad(f)(X)
        sg.value_and_grad(traced)(X)
        traced.lower(X)
    assert len(calls) == 1
    info = sg.grad(f).cache_info()
    assert (info.traces, info.compiles + info.disk_hits + info.memory_hits) == (1, 1)


def test_a_counter_in_the_function_counts_traces_however_signatures_alternate():
    counts = [0]

    def f(x):
        counts[0] += 1
        return np.sum(x)

    with pytest.warns(sg.StaticgradWarning, match="side effects"):
        traced = sg.trace(f)
        for _ in range(4):
            traced(np.ones(3))
            traced(np.ones(4))
    assert counts == [2]
    assert traced.cache_info().traces == 2


def test_equal_graphs_share_kernels_and_scalars_share_a_signature():
    first, second = sg.trace(lambda x: x * 7.25 - 1), sg.trace(lambda x: x * 7.25 - 1)
    first(X)
    second(X)
    assert second.cache_info().memory_hits == 1
    f = sg.trace(lambda x: x * x)
    for x in (np.float64(2), np.array(2.0), sg.grad(lambda v: v * v)(1.0)):
        f(x)
    assert f.cache_info().traces == 1
    f.cache_clear()
    assert f.cache_info().traces == 0


rate, table = 0.5, np.ones(3)


def test_rebound_scalars_retrace_and_arrays_are_snapshots(caplog, monkeypatch):
    f = sg.trace(lambda x: x * rate + table[0])
    assert f(1.0) == 1.5
    monkeypatch.setitem(globals(), "rate", 2.5)
    with caplog.at_level(logging.INFO, logger="staticgrad.retrace"):
        assert f(1.0) == 3.5
    assert "'rate'" in caplog.text
    table[0] = 100.0
    try:
        assert f(1.0) == 3.5
    finally:
        table[0] = 1.0


def test_random_numbers_in_a_trace_warn():
    with pytest.warns(sg.StaticgradWarning, match=r"np\.random\.rand"):
        sg.trace(lambda x: x + np.random.rand())(1.0)


def test_nested_traces_and_closures_over_tracers():
    @sg.trace
    def square(x):
        return x * x

    @sg.trace
    def outer(x, y):
        inner = sg.grad(lambda v: np.sum(v * v * y))
        return inner(x) + square(y)

    np.testing.assert_allclose(outer(X, X), 2 * X * X + X * X)
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(outer(x, x)))(X), 6 * X)


def test_threads_and_fork_reuse_one_compilation():
    f, results = sg.trace(lambda x: np.tanh(x).sum()), []
    threads = [threading.Thread(target=lambda: results.append(float(f(X)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1
    assert f.cache_info().traces == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_compiles_and_calls():
    f = sg.trace(lambda x: np.tanh(x).sum())
    expected = float(f(X))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(float(f(X)) != expected or not np.allclose(sg.trace(lambda x: np.exp(-x))(X), np.exp(-X)))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_debug_print_shows_values_at_every_call(capsys):
    def f(x):
        sg.debug.print("sum {}", np.sum(x))
        return np.sum(x * x)

    for call in (sg.trace(f), sg.grad(f), lambda x: sg.trace(lambda v: sg.grad(f)(v) + 0)(x), lambda x: sg.vjp(f, x)[0]):
        for _ in range(2):
            call(np.array([1.0, 2.0]))
            assert capsys.readouterr().out == "sum 3.0\n"
    with pytest.raises(ValueError, match="does not fit"):
        sg.debug.print("{} {}", 1.0)


# ---- what goes wrong -----------------------------------------------------------------------------------------------------------

WRONG = [
    ("complex", lambda: sg.trace(lambda x: x)(1 + 2j), TypeError, "complex128"),
    ("float16", lambda: sg.trace(lambda x: x)(X.astype(np.float16)), TypeError, "float32"),
    ("object", lambda: sg.trace(lambda x: x)(np.array([1, "a"], object)), TypeError, "object"),
    ("masked", lambda: sg.trace(lambda x: x)(np.ma.array([1.0], mask=[1])), TypeError, "filled"),
    ("string", lambda: sg.trace(lambda x: x)("a"), TypeError, "static_argnames"),
    ("callable", lambda: sg.trace(lambda x: x)(len), TypeError, "static_argnames"),
    ("big integer", lambda: sg.trace(lambda x: x)(2**70), TypeError, "64 bits"),
    ("too few", lambda: sg.trace(lambda x, y: x)(1.0), TypeError, "missing a required argument: 'y'"),
    ("too many", lambda: sg.trace(lambda x: x)(1.0, 2.0), TypeError, "too many positional"),
    ("returns a string", lambda: sg.trace(lambda x: "a")(1.0), TypeError, "returned str"),
    ("returns a generator", lambda: sg.trace(lambda x: (i for i in [x]))(1.0), TypeError, "returned generator"),
    ("if", lambda: sg.trace(lambda x: 1.0 if x > 0 else 2.0)(1.0), sg.TraceError, "np.where"),
    ("float", lambda: sg.trace(lambda x: float(x))(1.0), sg.TraceError, "float"),
    ("int", lambda: sg.trace(lambda x: int(x))(1.0), sg.TraceError, "static"),
    ("range", lambda: sg.trace(lambda x: list(range(x)))(3), sg.TraceError, "static"),
    ("asarray", lambda: sg.trace(lambda x: np.asarray(x))(1.0), sg.TraceError, "staticgrad.numpy"),
    ("array of tracers", lambda: sg.trace(lambda x: np.array([x, x]))(1.0), sg.TraceError, "snp.array"),
    ("into a real array", lambda: sg.trace(lambda x: np.zeros(3).__setitem__(0, x))(1.0), sg.TraceError, "snp.zeros"),
    ("math", lambda: sg.trace(lambda x: math.sin(x))(1.0), sg.TraceError, "float"),
    ("write an argument", lambda: sg.trace(lambda x: x.__setitem__(0, 1.0))(X), ValueError, ".copy()"),
    ("+= an argument", lambda: sg.trace(lambda x: x.__iadd__(1.0))(X), ValueError, ".copy()"),
    ("unknown function", lambda: sg.trace(lambda x: np.linalg.eigvals(x))(X), TypeError, "linalg.eigvals"),
    ("axis", lambda: sg.trace(lambda x: np.sum(x, axis=5))(X), IndexError, "axis 5"),
    ("einsum", lambda: sg.trace(lambda x: np.einsum("ij,jk->ik", x, x))(X), ValueError, "ij,jk->ik"),
    ("reshape", lambda: sg.trace(lambda x: x.reshape(5))(X), ValueError, "(5,)"),
    ("broadcast", lambda: sg.trace(lambda x: x + np.ones(3))(X), ValueError, "f64[3,4] and f64[3]"),
    ("matmul", lambda: sg.trace(lambda x: x @ x)(X), ValueError, "f64[3,4]"),
    ("index", lambda: sg.trace(lambda x: x[7])(X), IndexError, "out of bounds"),
    ("overflow", lambda: sg.trace(lambda x: x + 300)(np.zeros(3, np.uint8)), OverflowError, "uint8"),
    ("integer power", lambda: sg.trace(lambda x, y: x**y)(np.arange(3), np.array([1, -1, 2])), ValueError, "negative integer power"),
    ("gradient of an array", lambda: sg.grad(lambda x: x)(X), ValueError, "sg.vjp"),
    ("gradient of integers", lambda: sg.grad(lambda x: np.sum(x) * 1.0)(np.arange(3)), TypeError, "int64"),
    ("gradient of a pair", lambda: sg.grad(lambda x: (np.sum(x), 1.0))(X), TypeError, "has_aux"),
    ("argnums", lambda: sg.grad(np.sum, argnums=3)(X), ValueError, "argnums=3"),
    ("no function", lambda: sg.grad(3), TypeError, "expected a function"),
    ("backend", lambda: sg.trace(lambda x: x, backend="tpu"), ValueError, "cpu, cuda, interp"),
    ("threads", lambda: sg.trace(lambda x: x, threads=0), ValueError, "threads=0"),
    ("pullback shape", lambda: sg.vjp(lambda x: 2 * x, X)[1](np.ones(2)), ValueError, "f64[3,4]"),
    ("pullback structure", lambda: sg.vjp(lambda x: 2 * x, X)[1]((X, X)), TypeError, "structure"),
    ("jvp structure", lambda: sg.jvp(lambda x: x, (X,), (X, X)), TypeError, "structure"),
    ("jvp shape", lambda: sg.jvp(lambda x: x, (X,), (X[0],)), ValueError, "tangent"),
    ("jvp no tuple", lambda: sg.jvp(lambda x: x, X, X), TypeError, "tuple"),
    ("vmap sizes", lambda: sg.vmap(lambda x, y: x + y)(np.ones(2), np.ones(3)), ValueError, "2 and 3"),
]


@pytest.mark.parametrize(("call", "kind", "text"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_use_names_the_line_and_the_way_out(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, sg.StaticgradError)
    assert text in str(caught.value)
    if not isinstance(caught.value, sg.errors.IntegerPowerError):
        assert "test_trace.py:" in str(caught.value)


def test_a_leaked_tracer_is_told_from_a_live_one():
    kept = []

    def f(x):
        kept[:] = [x]
        return x * 2

    with pytest.warns(sg.StaticgradWarning):
        sg.trace(f)(1.0)
    for use in (lambda: kept[0] + 1, lambda: sg.trace(lambda x: x + kept[0])(1.0), lambda: kept[0].shape):
        with pytest.raises(sg.TraceError, match="after its tracing ended"):
            use()
    assert "dead" in repr(kept[0])


def test_recursion_without_end():
    def f(x):
        return f(x) + 1

    with pytest.raises(RecursionError, match="without end"):
        sg.trace(f)(1.0)


def test_exceptions_of_the_user_pass_through():
    with pytest.raises(ZeroDivisionError):
        sg.trace(lambda x: 1 // 0)(1.0)


def test_a_numba_function_on_tracers_points_to_the_way_out():
    numba = pytest.importorskip("numba")
    double = numba.njit(lambda x: 2 * x)
    with pytest.raises(sg.TraceError, match="njit_op"):
        sg.trace(lambda x: double(x))(1.0)


# ---- looking inside ------------------------------------------------------------------------------------------------------------


def test_lower_shows_every_stage():
    def loss(params, x):
        return np.mean(np.tanh(x @ params["w"] + params["b"]) ** 2)

    params = {"w": np.ones((4, 2)), "b": np.zeros(2)}
    lowered = sg.value_and_grad(loss).lower(params, X)
    assert "w: f64[4,2]" in str(lowered.graph)
    assert "# backward" in str(lowered.graph)
    assert "test_trace.py:" in str(lowered.graph)
    assert "def forward(" in lowered.source
    assert "def backward(" in lowered.source
    assert "nodes before" in str(lowered.report)
    assert lowered.graph.to_dot().startswith("digraph")
    assert lowered.graph._repr_svg_().startswith("<svg")
    assert "forward nest 0" in str(lowered.schedule)
    assert lowered.memory > 0
    assert sg.value_and_grad(loss).lower(params, X, printer="numba").printer == "numba"
    compile(lowered.source, "source", "exec")


def test_forward_and_backward_are_numba_dispatchers_with_one_signature():
    from numba.core.dispatcher import Dispatcher

    lowered = sg.value_and_grad(lambda x: np.sum(x * x * 1.5)).lower(X)
    for kernel in (lowered.forward, lowered.backward):
        assert isinstance(kernel, Dispatcher)
        assert len(kernel.nopython_signatures) == 1
    assert sg.trace(lambda x: x * 1.5).lower(X).backward is None
    assert "def backward" not in sg.trace(lambda x: x * 1.5).lower(X).source


def test_signatures_and_representation():
    f = sg.trace(lambda x: x + 2.5)
    f(X)
    assert [str(aval) for aval in f.signatures[0]] == ["f64[3,4]"]
    assert "1 traces" in repr(f)
    assert f.py_func(1.0) == 3.5


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_backends_agree(backend):
    def f(x, y):
        return np.sum(np.exp(-x) * y) / np.max(y), x[::2] + 1

    found = sg.trace(f, backend=backend)(X, X + 1)
    expected = f(X, X + 1)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-15)
    value, pullback = sg.vjp(sg.trace(lambda x: np.sin(x), backend=backend), X)
    np.testing.assert_allclose(value, np.sin(X), rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(pullback(X)[0], X * np.cos(X), rtol=1e-14, atol=1e-14)


# ---- transforms ----------------------------------------------------------------------------------------------------------------


def test_result_structures_are_those_of_jax():
    f = lambda x, p: (np.sum(x * p["a"]), {"aux": x})  # noqa: E731
    p = {"a": 2.0}
    value, grads = sg.value_and_grad(lambda x, p: f(x, p)[0], argnums=(0, 1))(X, p)
    assert value == 2 * X.sum()
    np.testing.assert_array_equal(grads[0], np.full_like(X, 2))
    assert grads[1] == {"a": X.sum()}
    (value, aux), gradient = sg.value_and_grad(f, has_aux=True)(X, p)
    assert (value, gradient.shape) == (2 * X.sum(), X.shape)
    np.testing.assert_array_equal(aux["aux"], X)
    gradient, aux = sg.grad(f, argnums=-1, has_aux=True)(X, p)
    assert gradient == {"a": X.sum()}
    value, pullback, aux = sg.vjp(lambda x: f(x, p), X, has_aux=True)
    assert pullback(1.0)[0].shape == X.shape


def test_the_pullback_can_be_called_again_and_keeps_what_it_saw():
    x = X.copy()
    _, pullback = sg.vjp(lambda v: np.tanh(v) * v, x)
    first = pullback(np.ones_like(x))[0]
    x[:] = 0
    np.testing.assert_array_equal(pullback(np.ones_like(x))[0], first)
    np.testing.assert_allclose(pullback(2 * np.ones_like(x))[0], 2 * first)


def test_derivatives_of_any_order():
    f = lambda x: np.sin(x) * x**3  # noqa: E731
    derivative = f
    for _ in range(3):
        derivative = sg.grad(derivative)
    x = 0.7
    exact = -(x**3) * math.cos(x) - 9 * x**2 * math.sin(x) + 18 * x * math.cos(x) + 6 * math.sin(x)
    assert derivative(x) == pytest.approx(exact, rel=1e-13)
    second = sg.jvp(lambda v: sg.jvp(f, (v,), (1.0,))[1], (x,), (1.0,))[1]
    assert second == pytest.approx(sg.grad(sg.grad(f))(x), rel=1e-14)


def test_vmap_maps_axes_and_composes_with_grad():
    np.testing.assert_allclose(sg.vmap(np.dot, in_axes=(0, None))(X, X[0]), X @ X[0])
    np.testing.assert_allclose(sg.vmap(lambda v: 2 * v, in_axes=1, out_axes=1)(X), 2 * X)
    per_row = sg.vmap(sg.grad(lambda w, row: np.sum(w * row) ** 2), in_axes=(None, 0))(np.ones(4), X)
    np.testing.assert_allclose(per_row, 2 * X.sum(1)[:, None] * X)


def test_writes_are_differentiated():
    def f(x):
        y = snp.zeros(5)
        y[1:4] = x
        y[0] += 2 * x[0]
        y *= 3
        z = x.copy()
        z[::-1][0] = 7.0
        return np.sum(y * y) + np.sum(z)

    value, gradient = sg.value_and_grad(f)(np.arange(3.0))
    assert value == f(np.arange(3.0))
    np.testing.assert_allclose(gradient, [1.0, 19.0, 36.0])


def test_a_long_recurrence_through_writes_stays_small():
    def f(x):
        y = snp.zeros(100)
        y[0] = x[0]
        for i in range(1, 100):
            y[i] = 0.5 * y[i - 1] + x[i]
        return np.sum(y * y)

    lowered = sg.value_and_grad(f).lower(np.arange(100.0))
    assert len(lowered.schedule.nests) < 20
    weights = np.tril(0.5 ** np.subtract.outer(np.arange(100.0), np.arange(100.0)))
    value, gradient = sg.value_and_grad(f)(np.arange(100.0))
    state = weights @ np.arange(100.0)
    assert value == pytest.approx(state @ state, rel=1e-13)
    np.testing.assert_allclose(gradient, 2 * weights.T @ state, rtol=1e-12)
