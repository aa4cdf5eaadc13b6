"""Derivatives through loops: long ones, those of unknown length, those inside of each other, each of every order."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.ops.while_loops import CHECKPOINTS
from staticgrad.tracing.pytree import flatten

BACKENDS = ("interp", "cpu")


def unrolled(f, init, xs):
    carry, ys = init, []
    for x in xs:
        carry, y = f(carry, x)
        ys.append(y)
    return carry, ys


def test_a_thousand_steps_are_the_unrolled_ones():
    xs = np.random.default_rng(0).normal(size=1000)

    def step(c, x):
        return np.sin(c) * 0.9 + x, c * x

    def scanned(a, xs):
        c, ys = sg.scan(step, a, xs)
        return c + ys.sum()

    def by_hand(a, xs):  # chain rule, step by step
        carries = [a]
        for x in xs:
            carries.append(np.sin(carries[-1]) * 0.9 + x)
        g, gs = 1.0, np.zeros(len(xs))
        for k in reversed(range(len(xs))):
            gs[k] = g + carries[k]
            g = g * 0.9 * np.cos(carries[k]) + xs[k]
        return g, gs

    expected, others = by_hand(0.3, xs)
    g, gs = sg.grad(scanned, (0, 1))(0.3, xs)
    np.testing.assert_allclose(g, expected, rtol=1e-10)
    np.testing.assert_allclose(gs, others, rtol=1e-10, atol=1e-12)
    short = xs[:40]

    def plainly(a, xs):
        c, ys = unrolled(step, a, [xs[k] for k in range(40)])
        return c + sum(ys)

    for found, wanted in zip(sg.grad(scanned, (0, 1))(0.3, short), sg.grad(plainly, (0, 1))(0.3, short), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("limit", [None, 5, 100_000])
@pytest.mark.parametrize("steps", [0, 1, 2, 7, CHECKPOINTS - 1, CHECKPOINTS, CHECKPOINTS + 1, 5 * CHECKPOINTS + 3, CHECKPOINTS**2 + 1])
def test_loops_of_unknown_length(steps, limit):
    done = steps if limit is None else min(steps, limit)
    found = GRADIENTS[limit](1.0 + 1 / (steps + 1), 1.5, steps)
    x = 1.0 + 1 / (steps + 1)
    value, g, g2 = 1.5, (0.0, 1.0), None
    for _ in range(done):  # v -> v * x - v * v / 8 / (steps + 1), with its derivatives along x and v
        small = 0.125 / (steps + 1)
        g = (value + g[0] * (x - 2 * small * value), g[1] * (x - 2 * small * value))
        value = value * x - small * value * value
    assert g2 is None
    np.testing.assert_allclose(found[0], value, rtol=1e-10)
    np.testing.assert_allclose(found[1], g, rtol=1e-9)


def _loop(x, v, n, limit):
    small = 0.125 / (n + 1)

    def step(c):
        return c[0] + 1, c[1] * x - small * c[1] * c[1]

    return sg.while_loop(lambda c: c[0] < n, step, (0, v), max_steps=limit)[1]


GRADIENTS = {limit: sg.value_and_grad(lambda x, v, n, limit=limit: _loop(x, v, n, limit), (0, 1)) for limit in (None, 5, 100_000)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [None, 60])
def test_every_order_of_a_loop_of_unknown_length(backend, limit):
    """Newton's iteration for the cube root: all derivatives are known."""

    @sg.trace(backend=backend)
    def root(x):
        def step(r):
            return r - (r**3 - x) / (3 * r**2)

        return sg.while_loop(lambda r: abs(r**3 - x) > 1e-13 * x, step, x / 2, max_steps=limit)

    x = 5.0
    first = x ** (-2 / 3) / 3
    second = -2 / 9 * x ** (-5 / 3)
    third = 10 / 27 * x ** (-8 / 3)
    np.testing.assert_allclose(root(x), x ** (1 / 3), rtol=1e-12)
    np.testing.assert_allclose(sg.grad(root)(x), first, rtol=1e-9)
    np.testing.assert_allclose(sg.grad(sg.grad(root))(x), second, rtol=1e-7)
    np.testing.assert_allclose(sg.jvp(sg.grad(root), (x,), (1.0,))[1], second, rtol=1e-7)
    np.testing.assert_allclose(sg.grad(lambda v: sg.jvp(root, (v,), (1.0,))[1])(x), second, rtol=1e-7)
    if (backend == "cpu") == (limit is not None):  # once compiled, once without a limit
        np.testing.assert_allclose(sg.grad(sg.grad(sg.grad(root)))(x), third, rtol=1e-5)
    several = np.array([0.5, 5.0, 700.0])
    np.testing.assert_allclose(sg.vmap(sg.grad(root))(several), several ** (-2 / 3) / 3, rtol=1e-9)
    np.testing.assert_allclose(sg.grad(lambda v: np.sum(sg.vmap(root)(v)))(several), several ** (-2 / 3) / 3, rtol=1e-9)


def test_third_order_of_a_scan():
    def f(x):
        return sg.scan(lambda c, k: (c * x + k, None), x, np.arange(3.0))[0]

    # x ** 4 + x + 2, as ((x * x + 0) * x + 1) * x + 2
    x = 1.3
    np.testing.assert_allclose(f(x), x**4 + x + 2, rtol=1e-12)
    np.testing.assert_allclose(sg.grad(f)(x), 4 * x**3 + 1, rtol=1e-12)
    np.testing.assert_allclose(sg.grad(sg.grad(f))(x), 12 * x**2, rtol=1e-12)
    np.testing.assert_allclose(sg.grad(sg.grad(sg.grad(f)))(x), 24 * x, rtol=1e-12)
    np.testing.assert_allclose(sg.jvp(sg.grad(sg.grad(f)), (x,), (1.0,))[1], 24 * x, rtol=1e-12)


def test_steps_that_put_an_array_together_piece_by_piece():
    """What of it to save is decided in time that grows with the number of pieces, not doubles with each."""

    @sg.trace(backend="interp")
    def f(x):
        def step(c, _):
            y = c.copy()
            for k in range(40):
                y[k] = c[k] * (1 + k / 40)
            return np.roll(y, 1) * c, None

        return np.sum(sg.scan(step, x, None, length=2)[0])

    x = np.linspace(0.5, 1.5, 40)
    factors = 1 + np.arange(40) / 40
    _, expected = sg.jvp(lambda v: np.sum(np.roll((once := np.roll(v * factors, 1) * v) * factors, 1) * once), (x,), (np.ones(40),))
    np.testing.assert_allclose(np.sum(sg.grad(f)(x)), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["scan", "fori", "while", "cond", "switch", "nested"])
def test_against_differences(name):
    w = np.random.default_rng(1).normal(size=(3, 3)) / 2

    def loop(w, x, number):
        if name == "scan":
            return sg.scan(lambda c, k: (np.tanh(w @ c) + k, c.sum()), x, np.arange(4.0), reverse=True)[1].sum()
        if name == "fori":
            return sg.fori_loop(1, 5, lambda i, c: np.tanh(w @ c) / i, x).sum()
        if name == "while":
            return sg.while_loop(lambda c: c[1] < number, lambda c: (np.tanh(w @ c[0]), c[1] + 1), (x, 0))[0].sum()
        if name == "cond":
            return sg.cond(number > 2, lambda a, b: np.tanh(a @ b), lambda a, b: a @ b, w, x).sum()
        if name == "switch":
            return sg.switch(number, [lambda a: a, lambda a: a * 2, lambda a: a * a, np.exp], w @ x).sum()

        def step(c, k):
            inner = sg.fori_loop(0, number, lambda i, d: sg.cond(d.sum() > 0, lambda e: np.sin(w @ e), lambda e: e + k, d), c)
            return inner * 0.5 + c, inner

        return (sg.scan(step, x, np.arange(3.0))[1] ** 2).sum()

    sg.check_grads(lambda w, x: loop(w, x, 3), (w, np.array([0.3, -0.2, 0.9])), order=2)


def test_what_has_no_derivative():
    def f(x):
        number = sg.fori_loop(0, 3, lambda i, v: v + 2, 1)
        kept = sg.scan(lambda c, v: (c, sg.stop_gradient(v) * c), x, np.arange(1.0, 4.0))[1]
        return kept.sum() * number

    assert sg.grad(f)(2.0) == 6.0 * 7
    g = sg.grad(lambda x, y: sg.fori_loop(0, 3, lambda i, v: v * x, 1.0) + 0 * y, (0, 1))(2.0, 5.0)
    assert g == (12.0, 0.0)
    assert sg.grad(lambda x: sg.scan(lambda c, _: (c, c * 0), 1.0, None, 3)[0] + x)(2.0) == 1.0


def slow_square_root(x):
    return sg.while_loop(lambda r: abs(r * r - x) > 1e-13 * x, lambda r: (r + x / r) / 2, x)


LINEAR = {
    "scan": lambda x: sg.scan(lambda c, k: (np.sin(c) * k, c * c), x, np.arange(1.0, 4.0)),
    "fori": lambda x: sg.fori_loop(0, 3, lambda i, c: c * x + i, x),
    "while": slow_square_root,
    "limited": lambda x: sg.while_loop(lambda c: c < 50, lambda c: c * c + x, x, max_steps=9),
    "cond": lambda x: sg.cond(x > 1, lambda v: sg.fori_loop(0, 3, lambda i, c: c * v, v), np.sin, x),
    "in a loop": lambda x: sg.scan(lambda c, k: (slow_square_root(c) + k, c), x, np.arange(3.0)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_parts(name, backend):
    """The forward kernel of a linear part runs before there are tangents: what it shares with the tangents' loop is done again."""
    f = sg.trace(LINEAR[name], backend=backend)
    value, moved = sg.jvp(f, (1.7,), (1.0,))
    found, pushforward = sg.linearize(f, 1.7)
    for x, y in zip(flatten(found)[0], flatten(value)[0], strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(flatten(pushforward(-2.0))[0], flatten(moved)[0], strict=True):
        np.testing.assert_allclose(x, -2 * y, rtol=1e-12)


def test_memory_of_loops_in_loops_is_bounded():
    """What is stacked of a loop inside of another one of unknown length is computed anew where it would be much."""

    def outer(x):
        return sg.while_loop(lambda c: np.sum(c) < 9, lambda c: c + sg.while_loop(lambda d: d[0] < 3, lambda d: d * 1.5 + x, c), x)

    x = np.array([0.2, 0.3])
    second = sg.hessian(lambda v: np.sum(outer(v)))
    assert second.lower(x).memory < 2**30
    h = 1e-5
    differences = [
        (sg.grad(lambda v: np.sum(outer(v)))(x + e) - sg.grad(lambda v: np.sum(outer(v)))(x - e)) / (2 * h) for e in np.eye(2) * h
    ]
    np.testing.assert_allclose(second(x), differences, rtol=1e-5, atol=1e-6)


# ---- batches of which some take no part


def root_where_positive(x, scale):
    return sg.cond(x > 0, lambda: np.sqrt(scale * x), lambda: 0.0 * x)


def roots_on_the_way_down(x, scale):
    return sg.while_loop(lambda c: c[0] > 1, lambda c: (c[0] - 1, c[1] + np.sqrt(scale * (c[0] - 1))), (x, 0.0))[1]


def so_many_roots(x, scale):
    n = sg.stop_gradient(np.maximum(np.floor(x), 0)).astype(np.int64)
    return sg.fori_loop(0, n, lambda i, c: (c[0] - 1, c[1] + np.sqrt(scale * c[0])), (x, 0.0))[1]


def one_of_three(x, scale):
    return sg.switch(x.astype(np.int64), [lambda: 0 * x, lambda: np.log(x * scale), lambda: scale / (x - 1)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [root_where_positive, roots_on_the_way_down, so_many_roots, one_of_three])
def test_what_takes_no_part_has_no_derivative(function, backend):
    """Where elements of a batch take different ways, infinite slopes of the ways not taken do not become NaN."""
    x, scale = np.array([0.0, 1.0, 2.0, 3.5, -1.0]), 2.0
    gradients = sg.grad(sg.trace(function, backend=backend), (0, 1))
    expected = np.array([gradients(v, scale) for v in x])
    assert np.all(np.isfinite(expected))
    batch = sg.trace(lambda x, scale: sg.vmap(function, (0, None))(x, scale), backend=backend)
    by_x, by_scale = sg.grad(lambda x, s: np.sum(batch(x, s)), (0, 1))(x, scale)
    np.testing.assert_allclose(by_x, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(by_scale, expected[:, 1].sum(), rtol=1e-12)
    for one, row in zip(sg.vmap(gradients, (0, None))(x, scale), expected.T, strict=True):
        np.testing.assert_allclose(one, row, rtol=1e-12)


def test_what_all_share_has_a_derivative_where_any_takes_part():
    def f(weights, x):
        return np.sum(sg.vmap(lambda v: sg.cond(v > 0, lambda: np.sum(np.sqrt(weights)) * v, lambda: 0 * v))(x))

    np.testing.assert_array_equal(sg.grad(f)(np.zeros(40), np.array([0.0, -1.0])), np.zeros(40))
    np.testing.assert_allclose(sg.grad(f)(np.full(40, 4.0), np.array([0.0, 3.0])), np.full(40, 0.75))


def test_pullbacks():
    value, pullback = sg.vjp(lambda a, xs: sg.scan(lambda c, x: (a * c + x, c), 0.0, xs), 0.5, np.arange(4.0))
    ga, gxs = pullback((1.0, np.zeros(4)))
    np.testing.assert_allclose(value[0], 3 + 2 * 0.5 + 1 * 0.25)
    np.testing.assert_allclose((ga, *gxs), (2 + 2 * 0.5 * 1, 0.125, 0.25, 0.5, 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_that_differ_in_a_batch(backend):
    """Each element goes on for its own number of steps, backwards as well."""

    @sg.trace(backend=backend)
    def f(x, n):
        return sg.fori_loop(0, n, lambda i, v: np.sin(v) * x + i, x)

    x, n = np.linspace(0.5, 1.5, 5), np.array([3, 0, 7, 1, -2])
    value_and_grad = sg.value_and_grad(f)
    expected = [value_and_grad(a, k) for a, k in zip(x, n, strict=True)]
    values, grads = sg.vmap(value_and_grad)(x, n)
    np.testing.assert_allclose(values, [value for value, _ in expected], rtol=1e-13)
    np.testing.assert_allclose(grads, [g for _, g in expected], rtol=1e-12)
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(sg.vmap(f)(x, n)))(x), grads, rtol=1e-12)


class TestElementsOfABatchThatTakeNoPart:
    """What a branch, or a step beyond the last one, would make of an element has no part in any derivative, and cannot fail."""

    def chosen(self, w, x):
        return sg.cond(x[0] > 0, lambda: np.sum(np.log(x) @ w), lambda: np.sum(x))

    @pytest.mark.parametrize("size", [2, 40])
    def test_operands_that_all_share_have_finite_cotangents(self, size):
        w, x = np.eye(size), np.abs(np.random.default_rng(5).normal(size=(3, size))) + 0.1
        x[1, 0] = -1.0
        found = sg.grad(lambda w, x: np.sum(sg.vmap(self.chosen, in_axes=(None, 0))(w, x)), argnums=(0, 1))(w, x)
        each = [sg.grad(self.chosen, argnums=(0, 1))(w, row) for row in x]
        np.testing.assert_allclose(found[0], sum(g for g, _ in each), rtol=1e-12)
        np.testing.assert_allclose(found[1], [g for _, g in each], rtol=1e-12)

    def test_a_branch_that_nobody_takes_does_not_fail(self):
        table = np.arange(4.0)
        guarded = sg.vmap(lambda i, x: sg.cond(i < 4, lambda: snp.take(table, i) * x, lambda: -x))
        for numbers in ([0, 3, 7, 1], [5, 6], []):
            x = np.ones(len(numbers))
            expected = [table[i] if i < 4 else -1.0 for i in numbers]
            np.testing.assert_array_equal(guarded(np.array(numbers, int), x), expected)
            slopes = sg.grad(lambda x, i: np.sum(guarded(i, x)))(x, np.array(numbers, int))
            np.testing.assert_array_equal(slopes, expected)

    def test_nor_does_a_step_that_is_not_taken(self):
        table = np.arange(1.0, 5.0)

        def product(n, x):
            return sg.fori_loop(0, n, lambda i, c: c * snp.take(table, i) * x, 1.0)

        def until(n, x):
            return sg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * snp.take(table, c[0]) * x), (0, 1.0))[1]

        n, x = np.array([0, 4, 2]), np.array([0.5, 2.0, 3.0])
        for function in (product, until):
            found, slopes = sg.vmap(sg.value_and_grad(function, argnums=1))(n, x)
            np.testing.assert_allclose(found, [1.0, 24 * 16.0, 2 * 9.0])
            np.testing.assert_allclose(slopes, [0.0, 24 * 32.0, 2 * 6.0])
