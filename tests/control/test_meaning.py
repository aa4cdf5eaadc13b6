"""What control flow does with numbers, containers, closures and keys, where there is no need to ask JAX."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
import staticgrad.numpy as snp

BACKENDS = ("interp", "cpu")
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def traced(function, backend):
    return sg.trace(function, backend=backend)


# ---- closures


@each_backend
def test_closed_over_values_are_operands(backend):
    def f(x, y):
        z = np.exp(x)  # computed once, outside
        total, ys = sg.scan(lambda c, v: (c + z * v + y, z), 0.0, np.arange(3.0))
        return total + ys.sum()

    x, y = 0.3, 2.0
    np.testing.assert_allclose(traced(f, backend)(x, y), np.exp(x) * 6 + 3 * y, rtol=1e-14)
    assert np.allclose(sg.grad(traced(f, backend), (0, 1))(x, y), (np.exp(x) * 6, 3.0))
    graph = sg.trace(f).lower(x, y).graph
    (loop,) = [node for node in graph.nodes if node.op.name == "scan"]
    assert not any(node.op.name == "exp" for node in loop.op.body.nodes)


def test_what_is_computed_of_constants_is_computed_once():
    def f(x):
        table = sg.scan(lambda c, k: (c * 2 + k, c), 1.0, np.arange(4.0))[1]  # of constants alone
        return sg.fori_loop(0, 3, lambda i, c: c + np.sum(np.exp(table / 100)), x)

    (outer,) = [node for node in sg.trace(f).lower(1.0).graph.nodes if node.op.name == "scan" and node.op.length == 3]
    assert {node.op.name for node in outer.op.body.nodes} <= {"input", "add"}
    np.testing.assert_allclose(sg.trace(f)(1.0), 1.0 + 3 * np.sum(np.exp(np.array([1, 2, 5, 12]) / 100)), rtol=1e-14)


@each_backend
def test_closures_over_two_levels(backend):
    def f(x, y):
        def outer(c, u):
            w = c * y

            def inner(d, v):
                return d + w * v * x + u, None

            return sg.scan(inner, c, np.arange(2.0))[0], w

        return sg.scan(outer, 1.0, np.arange(3.0))[0]

    def plain(x, y):
        c = 1.0
        for u in range(3):
            w = c * y
            d = c
            for v in range(2):
                d = d + w * v * x + u
            c = d
        return c

    np.testing.assert_allclose(traced(f, backend)(0.5, 0.7), plain(0.5, 0.7), rtol=1e-14)
    step = 1e-6
    numeric = (plain(0.5 + step, 0.7) - plain(0.5 - step, 0.7)) / (2 * step)
    np.testing.assert_allclose(sg.grad(traced(f, backend))(0.5, 0.7), numeric, rtol=1e-8)


def test_constant_arrays_inside_of_bodies():
    table = np.arange(12.0).reshape(4, 3)

    @sg.trace
    def f(x):
        def outer(c, _):
            inner = sg.scan(lambda d, row: (d * 0.5 + row * table[1], None), c, table)[0]
            return sg.cond(inner[0] > 3, lambda v: v - table[2], lambda v: v + table[3], inner), None

        return sg.scan(outer, x, None, length=2)[0]

    expected = sg.trace(f.py_func, backend="interp")(np.ones(3))
    np.testing.assert_allclose(f(np.ones(3)), expected, rtol=1e-14)


def test_methods_partials_and_traced_functions_as_bodies():
    class Model:
        rate = 0.5

        def step(self, c, x):
            return c + self.rate * x, c

    model = Model()
    run = sg.trace(lambda xs: sg.scan(model.step, 0.0, xs)[0])
    assert run(np.ones(4)) == 2.0
    model.rate = 1.0
    assert run(np.ones(4)) == 4.0  # guarded as anywhere else
    double = sg.trace(lambda i, v: v * 2)
    assert sg.fori_loop(0, 3, double, 1.0) == 8.0


# ---- numbers


@each_backend
def test_python_numbers_become_what_the_body_makes_of_them(backend):
    x = np.float32(1.5)
    single = traced(lambda x: sg.fori_loop(0, 3, lambda i, v: v + x, 0), backend)(x)
    assert single.dtype == np.float32
    assert single == 4.5
    assert traced(lambda x: sg.while_loop(lambda v: v < 10, lambda v: v + x, 0), backend)(3.0).dtype == np.float64
    counted = traced(lambda n: sg.fori_loop(0, n, lambda i, v: v + 1, 0), backend)(np.int32(5))
    assert counted.dtype == np.int64
    assert counted == 5
    kept = traced(lambda x: sg.scan(lambda c, _: (0.0, c), x, None, length=2), backend)(x)
    assert [each.dtype for each in kept] == [np.float32, np.float32]
    assert traced(lambda x: sg.cond(x > 0, lambda: x, lambda: 0), backend)(x).dtype == np.float32


@each_backend
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float32", "float64"])
def test_dtypes_stay(backend, dtype):
    xs = np.array([3, 0, 1, 2, 7]).astype(dtype)

    def f(xs):
        return sg.scan(lambda c, x: (np.maximum(c, x), c), xs[1], xs)

    last, ys = traced(f, backend)(xs)
    assert (last.dtype, ys.dtype) == (xs.dtype, xs.dtype)
    assert last == xs.max()
    np.testing.assert_array_equal(ys, [xs[1], *np.maximum.accumulate(xs)[:-1]])


@each_backend
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "uint64", "float32"])
def test_python_numbers_take_on_the_dtype_of_a_carry(backend, dtype):
    xs = np.arange(5).astype(dtype)
    total, ys = traced(lambda xs: sg.scan(lambda c, x: (c + x, c), 0, xs), backend)(xs)
    assert (total.dtype, ys.dtype) == (xs.dtype, xs.dtype)
    assert total == 10
    assert traced(lambda one: sg.while_loop(lambda v: v < 2, lambda v: v + one, 0), backend)(xs[1]) == xs[2]
    counted = traced(lambda x: sg.fori_loop(0, 4, lambda i, c: c * 2 + i, x), backend)(xs[1])  # as range gives Python integers
    assert (counted.dtype, counted) == (xs.dtype, 16 + 11)
    assert traced(lambda n, x: sg.fori_loop(0, n, lambda i, c: c * 2 + i, x), backend)(4, xs[1]).dtype == xs.dtype


@each_backend
def test_integers_wrap_around(backend):
    f = traced(lambda x: sg.fori_loop(0, 70, lambda i, v: v * 3, x), backend)
    with np.errstate(over="ignore"):
        expected = np.int64(3) ** np.int64(70)
    assert f(np.int64(1)) == expected


@each_backend
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_shapes(backend, shape, length):
    x, xs = np.full(shape, 2.0), np.ones((length, *shape))

    def f(x, xs):
        return sg.scan(lambda c, v: (c * 2 + v, c), x, xs)

    last, ys = traced(f, backend)(x, xs)
    assert (np.shape(last), ys.shape) == (shape, (length, *shape))
    np.testing.assert_array_equal(last, x * 2**length + 2**length - 1)
    g, gs = sg.grad(traced(lambda x, xs: np.sum(f(x, xs)[0]), backend), (0, 1))(x, xs)
    np.testing.assert_array_equal(g, np.full(shape, 2.0**length))
    np.testing.assert_array_equal(gs, np.broadcast_to(2.0 ** np.arange(length)[::-1].reshape(length, *(1 for _ in shape)), gs.shape))


@each_backend
def test_loops_without_a_carry_or_results(backend):
    assert traced(lambda xs: sg.scan(lambda c, x: ((), x * 2), (), xs), backend)(np.arange(3.0))[1].tolist() == [0, 2, 4]
    assert traced(lambda x: sg.scan(lambda c, _: (c + x, None), x, None, 3), backend)(1.0) == (4.0, None)
    assert traced(lambda x: sg.fori_loop(0, 3, lambda i, v: v, ()), backend)(1.0) == ()
    carry, _ = traced(lambda x: sg.scan(lambda c, _: ({"b": c["b"], "a": c["a"] + 1}, None), {"a": x, "b": None}, None, 2), backend)(1.0)
    assert carry == {"a": 3.0, "b": None}


@each_backend
def test_what_changes_places(backend):
    def f(x, y):
        return sg.fori_loop(0, 5, lambda i, c: (c[1], c[2], c[0], c[0] + c[1]), (x, y, x * 2, y))

    x, y = np.arange(3.0), np.arange(3.0) + 10
    a, b, c, d = x, y, x * 2, y
    for _ in range(5):
        a, b, c, d = b, c, a, a + b
    for found, expected in zip(traced(f, backend)(x, y), (a, b, c, d), strict=True):
        np.testing.assert_array_equal(found, expected)


@each_backend
def test_stencils_read_what_was_there_before(backend):
    x = np.random.default_rng(0).normal(size=40)

    def step(c):
        return np.concatenate([c[:1], 0.25 * c[:-2] + 0.5 * c[1:-1] + 0.25 * c[2:], c[-1:]])

    expected = x
    for _ in range(7):
        expected = step(expected)
    found = traced(lambda x: sg.fori_loop(0, 7, lambda i, c: step(c), x), backend)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@each_backend
def test_writes_inside_of_bodies(backend):
    def f(x):
        def step(i, c):
            c = c.copy()
            c[0] += c[1]
            c[1:] *= 2
            return c

        return sg.fori_loop(0, 3, step, x)

    np.testing.assert_array_equal(traced(f, backend)(np.ones(3)), [8, 8, 8])
    with pytest.raises(sg.StaticgradError, match="cannot be written"):
        traced(lambda x: sg.fori_loop(0, 3, lambda i, c: c.fill(0) or c, x), backend)(np.ones(3))


@each_backend
def test_numbers_of_a_scan_as_indices(backend):
    table = np.arange(10.0) ** 2
    f = traced(lambda t: sg.fori_loop(2, 6, lambda i, v: v + t[i], 0.0), backend)
    assert f(table) == table[2:6].sum()
    np.testing.assert_array_equal(sg.grad(f)(table), [0, 0, 1, 1, 1, 1, 0, 0, 0, 0])


@each_backend
def test_tables_in_bodies(backend):
    rule = np.array([(110 >> k) & 1 for k in range(8)], bool)
    cells = np.arange(31) == 15

    def step(c, _):
        c = snp.asarray(rule)[4 * np.roll(c, 1) + 2 * c + np.roll(c, -1)]
        return c, c

    found = traced(lambda c: sg.scan(step, c, None, length=9)[1], backend)(cells)
    for row in found:
        cells = rule[4 * np.roll(cells, 1) + 2 * cells + np.roll(cells, -1)]
        np.testing.assert_array_equal(row, cells)


# ---- one branch or the other


def test_only_one_branch_runs():
    @sg.trace
    def f(n, x):
        return sg.cond(x > 0, lambda: sg.fori_loop(0, n, lambda i, v: v + 1.0, 0.0), lambda: -1.0)

    assert f(10**15, -1.0) == -1.0  # the other one would take days


def test_a_known_predicate_leaves_one_branch():
    for predicate, expected in ((True, 2.0), (False, 3.0)):
        lowered = sg.trace(lambda x, p=predicate: sg.cond(p, lambda v: v * 2, lambda v: v * 3, x)).lower(1.0)
        assert not any(node.op.subgraphs for node in lowered.optimized.nodes)
        assert lowered.compile().run([np.array(1.0)])[0] == expected


@pytest.mark.parametrize("index", [-5, 0, 1, 2, 3, 2**40])
def test_indices_are_clamped(index):
    branches = [lambda x: x, lambda x: x * 10, lambda x: x * 100]
    expected = branches[min(max(index, 0), 2)](3.0)
    assert sg.switch(index, branches, 3.0) == expected
    assert sg.trace(lambda k, x: sg.switch(k, branches, x))(index, 3.0) == expected
    assert sg.vmap(lambda k, x: sg.switch(k, branches, x), (0, None))(np.array([index, 1]), 3.0).tolist() == [expected, 30.0]


# ---- random numbers


@each_backend
def test_keys_are_carried(backend):
    def walk(key):
        def step(carry, _):
            key, x = carry
            key, own = sg.random.split(key)
            x = x + sg.random.normal(own)
            return (key, x), x

        return sg.scan(step, (key, 0.0), None, length=6)[1]

    key, x, expected = sg.random.key(3), 0.0, []
    for _ in range(6):
        key, own = sg.random.split(key)
        x = x + sg.random.normal(own)
        expected.append(x)
    np.testing.assert_allclose(traced(walk, backend)(sg.random.key(3)), expected, rtol=1e-14)


# ---- against plain Python


@given(
    st.integers(0, 12), st.booleans(), st.floats(-1.2, 1.2), st.lists(st.floats(-3, 3), min_size=12, max_size=12), st.sampled_from(BACKENDS)
)
def test_scans_of_any_length(length, reverse, a, numbers, backend):
    xs = np.array(numbers[:length]).reshape(length)

    def plain(a, xs):
        c, ys = a, [0.0] * length
        for k in reversed(range(length)) if reverse else range(length):
            ys[k] = c * xs[k]
            c = a * c + xs[k] * xs[k]
        return c, ys

    def f(a, xs):
        return sg.scan(lambda c, x: (a * c + x * x, c * x), a, xs, length=length, reverse=reverse)

    c, ys = traced(f, backend)(a, xs)
    expected, others = plain(a, xs)
    np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ys, others, rtol=1e-12, atol=1e-14)


@given(st.integers(0, 40), st.integers(-3, 45), st.sampled_from(BACKENDS))
def test_ranges_that_depend_on_data(low, high, backend):
    found = RANGES[backend](low, high, 1.0)
    expected = 1.0
    for i in range(low, high):
        expected = expected * 0.9 + i
    np.testing.assert_allclose(found, expected, rtol=1e-12)


RANGES = {b: sg.trace(lambda low, high, x: sg.fori_loop(low, high, lambda i, v: v * 0.9 + i, x), backend=b) for b in BACKENDS}


def test_zeros_of_snp_are_carried():
    assert sg.trace(lambda n: sg.fori_loop(0, n, lambda i, v: v + 1, snp.zeros(3)))(4).tolist() == [4, 4, 4]


# ---- functions of the user's own, and failures


@numba.njit
def shrunk(x):
    if x[0] > 100:
        raise ValueError("too large")
    return x * 0.5 + 1


shrink = sg.njit_op(shrunk, jvp=lambda tangents, y, x: tangents[0] * 0.5, vjp=lambda g, y, x: (g * 0.5,))


@each_backend
def test_numba_functions_in_loops(backend):
    f = traced(lambda x: sg.fori_loop(0, 3, lambda i, c: shrink(c), x), backend)
    x = np.arange(3.0)
    np.testing.assert_allclose(f(x), x / 8 + 1.75, rtol=1e-14)
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(f(x)))(x), np.full(3, 0.125), rtol=1e-14)
    chosen = traced(lambda x, k: sg.switch(k, [shrink, lambda v: v], x), backend)
    np.testing.assert_array_equal(chosen(x + 200, 1), x + 200)
    with pytest.raises(sg.StaticgradError, match="too large"):
        chosen(x + 200, 0)


@each_backend
def test_a_failure_ends_a_loop(backend):
    """What failed leaves its result as it was, so the condition would hold for ever."""
    f = traced(lambda x: sg.while_loop(lambda c: c[0] > 10, shrink, x), backend)
    assert f(np.array([64.0]))[0] < 10
    with pytest.raises(sg.StaticgradError, match="too large"):
        f(np.array([640.0]))
    table = np.ones(5)
    g = traced(lambda t: sg.while_loop(lambda c: c[1] < 3, lambda c: (c[0] + 1, c[1] + 0 * t[c[0]]), (0, 0.0)), backend)
    with pytest.raises(IndexError, match=r"5.* for an axis with size 5"):
        g(table)
