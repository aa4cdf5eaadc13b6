"""Derivatives given by hand: respected at every order, under every transform, and checked."""

import functools
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.custom.modes import call_with_pullback
from staticgrad.custom.rules import CustomFunction
from staticgrad.errors import (
    ArgumentError,
    DTypeError,
    InvalidValueError,
    LeakedTracerError,
    MissingDerivativeError,
    ShapeError,
    UnsupportedError,
)
from staticgrad.tracing.closures import holds_tracers
from tests.ad.test_jacobian import assert_trees_close, interpreted, with_jax

RNG = np.random.default_rng(0)
ONE = np.ones(())
OURS = SimpleNamespace(np=np, custom_vjp=sg.custom_vjp, custom_jvp=sg.custom_jvp)


def theirs():
    jax = with_jax()
    return SimpleNamespace(np=jax.numpy, custom_vjp=jax.custom_vjp, custom_jvp=jax.custom_jvp)


# ---- functions whose rules are wrong on purpose (twice or three times the derivative), so that nobody mistakes one for the other


def by_pullback(m):
    """A pytree in, a pytree out, and a rule that calls the function itself."""

    @m.custom_vjp
    def f(p, x):
        return {"y": m.np.sin(x * p["w"]), "s": m.np.sum(x) * p["b"]}

    def forward(p, x):
        return f(p, x), (p, x)

    def backward(kept, g):
        p, x = kept
        c = 2 * m.np.cos(x * p["w"]) * g["y"]
        return {"w": m.np.sum(c * x), "b": 2 * g["s"] * m.np.sum(x)}, c * p["w"] + 2 * g["s"] * p["b"] * m.np.ones(3)

    f.defvjp(forward, backward)
    return f


def by_tangents(m):
    """The same function with a rule for tangents."""

    @m.custom_jvp
    def f(p, x):
        return {"y": m.np.sin(x * p["w"]), "s": m.np.sum(x) * p["b"]}

    @f.defjvp
    def rule(primals, tangents):
        (p, x), (tp, tx) = primals, tangents
        value = f(p, x)
        ty = m.np.cos(x * p["w"]) * (tx * p["w"] + x * tp["w"])
        return value, {"y": 2 * ty, "s": 2 * (m.np.sum(tx) * p["b"] + m.np.sum(x) * tp["b"])}

    return f


def total(m, f):
    def function(p, x):
        value = f(p, x)
        return m.np.sum(value["y"] ** 3) + m.np.exp(0.1 * value["s"])

    return function


POINT = ({"w": 0.7, "b": -0.4}, np.array([0.3, -0.5, 1.1]))


@pytest.mark.parametrize("make", [by_pullback, by_tangents])
def test_gradients_and_hessians_are_those_of_jax(make):
    jax, them = with_jax(), theirs()
    ours, other = interpreted(total(OURS, make(OURS))), total(them, make(them))
    for argnums in (0, 1, (0, 1)):
        assert_trees_close(sg.grad(ours, argnums)(*POINT), jax.tree.map(np.asarray, jax.grad(other, argnums)(*POINT)))
        for mode in ("reverse", "auto"):
            jacobian = sg.jacobian(ours, argnums, mode)(*POINT)
            assert_trees_close(jacobian, jax.tree.map(np.asarray, jax.jacrev(other, argnums)(*POINT)))
        reverse_over_reverse = jax.jacrev(jax.jacrev(other, argnums), argnums)(*POINT)
        assert_trees_close(sg.hessian(ours, argnums)(*POINT), jax.tree.map(np.asarray, reverse_over_reverse))
    vectors = ({"w": 0.2, "b": 0.5}, np.array([1.0, 0.1, -0.3]))
    gradient = jax.grad(other, (0, 1))
    expected = jax.vjp(lambda *u: jax.vjp(gradient, *POINT)[1](u), *gradient(*POINT))[1](vectors)
    assert_trees_close(sg.hvp(ours, POINT, vectors), jax.tree.map(np.asarray, expected))


def test_forward_mode_is_that_of_jax():
    jax, them = with_jax(), theirs()
    ours, other = by_tangents(OURS), by_tangents(them)
    tangents = ({"w": 0.2, "b": 0.5}, np.array([1.0, 0.1, -0.3]))
    found = sg.jvp(interpreted(lambda p, x: ours(p, x)), POINT, tangents)
    assert_trees_close(found, jax.tree.map(np.asarray, jax.jvp(other, POINT, tangents)))
    found = sg.jacobian(interpreted(lambda p, x: ours(p, x)), (0, 1), "forward")(*POINT)
    assert_trees_close(found, jax.tree.map(np.asarray, jax.jacfwd(other, (0, 1))(*POINT)))
    _, pushforward = sg.linearize(interpreted(lambda p, x: ours(p, x)), *POINT)
    assert_trees_close(pushforward(*tangents), jax.tree.map(np.asarray, jax.jvp(other, POINT, tangents)[1]))
    for modes in [("forward", "forward"), ("forward", "reverse"), ("reverse", "forward"), ("reverse", "reverse")]:
        made, expected = interpreted(total(OURS, ours)), total(them, other)
        for mode in modes:
            made = sg.jacobian(made, 1, mode)
            expected = (jax.jacfwd if mode == "forward" else jax.jacrev)(expected, 1)
        np.testing.assert_allclose(made(*POINT), expected(*POINT), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [by_pullback, by_tangents])
@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), ({"w": 0, "b": None}, None)])
def test_batches_keep_the_rules(make, axes):
    """vmap of grad, grad of vmap (where what all share gets a sum), and the Hessian of a batch; JAX goes through them one by one."""
    jax, them = with_jax(), theirs()
    rng = np.random.default_rng(1)
    p = {name: rng.standard_normal(4) if axes[0] == 0 or (isinstance(axes[0], dict) and axes[0][name] == 0) else 0.3 for name in ("w", "b")}
    x = rng.standard_normal((4, 3) if axes[1] == 0 else 3)
    ours, other = interpreted(total(OURS, make(OURS))), total(them, make(them))
    found = sg.vmap(sg.grad(ours, (0, 1)), in_axes=axes)(p, x)
    assert_trees_close(found, jax.tree.map(np.asarray, jax.vmap(jax.grad(other, (0, 1)), in_axes=axes)(p, x)))

    def ours_together(p, x):
        return np.sum(sg.vmap(ours, in_axes=axes)(p, x) ** 2)

    def each(k, p, x):
        many = [axes[0][name] if isinstance(axes[0], dict) else axes[0] for name in ("w", "b")]
        p = {name: p[name] if axis is None else p[name][k] for name, axis in zip(("w", "b"), many, strict=True)}
        return other(p, x if axes[1] is None else x[k])

    def together(p, x):
        return sum(each(k, p, x) ** 2 for k in range(4))

    found = sg.grad(interpreted(ours_together), (0, 1))(p, x)
    assert_trees_close(found, jax.tree.map(np.asarray, jax.grad(together, (0, 1))(p, x)))
    found = sg.jacobian(sg.grad(interpreted(ours_together), 1), 1, "reverse")(p, x)
    np.testing.assert_allclose(found, jax.jacrev(jax.grad(together, 1), 1)(p, x), rtol=1e-9, atol=1e-10)
    if make is by_tangents:
        tangents = jax.tree.map(np.ones_like, (p, x))
        assert_trees_close(
            sg.jvp(interpreted(ours_together), (p, x), tangents), jax.tree.map(np.asarray, jax.jvp(together, (p, x), tangents))
        )


def test_batches_of_batches():
    f = sg.custom_vjp(lambda x, y: np.sum(x) * y)
    f.defvjp(lambda x, y: (f(x, y), (x, y)), lambda kept, g: (3 * g * kept[1] * np.ones_like(kept[0]), 5 * g * np.sum(kept[0])))
    xs, ys = RNG.standard_normal((3, 4)), RNG.standard_normal(2)

    def everything(xs, ys):
        return np.sum(sg.vmap(sg.vmap(f, in_axes=(None, 0)), in_axes=(0, None))(xs, ys))

    by_x, by_y = sg.grad(interpreted(everything), (0, 1))(xs, ys)
    np.testing.assert_allclose(by_x, np.full((3, 4), 3 * np.sum(ys)))
    np.testing.assert_allclose(by_y, np.full(2, 5 * np.sum(xs)))
    single = sg.vmap(sg.vmap(sg.grad(f, 1), in_axes=(None, 0)), in_axes=(0, None))(xs, ys)
    np.testing.assert_allclose(single, np.repeat(5 * np.sum(xs, axis=1)[:, None], 2, axis=1))


# ---- every order


def test_two_functions_that_are_each_others_derivative():
    """With factors: the n-th derivative carries 2^n."""
    sine, cosine = sg.custom_vjp(np.sin), sg.custom_vjp(np.cos)
    sine.defvjp(lambda x: (sine(x), x), lambda x, g: (2 * g * cosine(x),))
    cosine.defvjp(lambda x: (cosine(x), x), lambda x, g: (-2 * g * sine(x),))
    derivative = interpreted(lambda x: sine(x))
    for order, expected in enumerate([np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin, np.cos]):
        np.testing.assert_allclose(derivative(0.3), 2**order * expected(0.3), rtol=1e-14)
        derivative = sg.grad(derivative)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_rule_that_calls_the_function_with_other_options(mode):
    """f(n, x) = 3^n exp(3x): each derivative is the next of a family."""

    @functools.partial(sg.custom_jvp, nondiff_argnums=(0,))
    def f(n, x):
        assert isinstance(n, int)
        return 3.0**n * np.exp(3 * x)

    @f.defjvp
    def rule(n, primals, tangents):
        return f(n, *primals), 2 * f(n + 1, *primals) * tangents[0]

    derivative = interpreted(lambda x: f(0, x))
    for order in range(5):
        np.testing.assert_allclose(derivative(0.1), 6.0**order * np.exp(0.3), rtol=1e-13)
        derivative = sg.jacobian(derivative, mode=mode)


def test_rules_of_rules():
    """The rule of a function is itself given by a function with a rule."""
    half = sg.custom_vjp(lambda x: x * x)
    inner = sg.custom_vjp(lambda x, g: 2 * x * g)
    half.defvjp(lambda x: (x * x, x), lambda x, g: (inner(x, g),))
    inner.defvjp(lambda x, g: (inner(x, g), (x, g)), lambda kept, h: (100.0 * kept[1] * h, 2 * kept[0] * h))
    np.testing.assert_allclose(sg.grad(half)(3.0), 6.0)
    np.testing.assert_allclose(sg.grad(sg.grad(half))(3.0), 100.0)


@given(seed=st.integers(0, 20), order=st.integers(1, 3))
def test_true_rules_change_nothing(seed, order):
    """A function with its true derivative, in the middle of others, at every order and in any mixture of modes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(2)
    modes = [str(rng.choice(["reverse", "forward"])) for _ in range(order)]
    ruled = sg.custom_jvp(lambda x, y: np.tanh(x) * y)
    ruled.defjvp(lambda p, t: (ruled(*p), (1 - np.tanh(p[0]) ** 2) * p[1] * t[0] + np.tanh(p[0]) * t[1]))

    def chain(inner):
        return interpreted(lambda x: np.sum(np.sin(inner(x * x, np.exp(x[::-1]))) * x))

    found, expected = chain(ruled), chain(lambda x, y: np.tanh(x) * y)
    for mode in modes:
        found, expected = sg.jacobian(found, mode=mode), sg.jacobian(expected, mode=mode)
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-9, atol=1e-10)


def test_tangents_and_cotangents_are_adjoint():
    f = by_tangents(OURS)
    function = interpreted(lambda p, x: f(p, x))
    t = ({"w": 0.2, "b": 0.5}, np.array([1.0, 0.1, -0.3]))
    g = {"y": np.array([0.3, 0.2, -1.0]), "s": 0.9}
    _, moved = sg.jvp(function, POINT, t)
    pulled = sg.vjp(function, *POINT)[1](g)
    inner = [sum(np.sum(a * b) for a, b in zip(*map(optree.tree_leaves, pair), strict=True)) for pair in ((g, moved), (pulled, t))]
    np.testing.assert_allclose(*inner, rtol=1e-12)


def test_numerical_check_of_a_true_rule_and_of_a_wrong_one():
    f = sg.custom_vjp(lambda x: np.sin(x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (np.cos(x) * g,))
    sg.check_grads(interpreted(lambda x: f(x) * x), (np.array([0.1, 0.5]),), order=1, modes=("rev",))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (2 * np.cos(x) * g,))
    with pytest.raises(AssertionError):
        sg.check_grads(interpreted(lambda x: f(x) * x), (np.array([0.1, 0.5]),), order=1, modes=("rev",))


def test_a_rule_for_each_argument():
    jax = with_jax()

    def made(m):
        f = m.custom_jvp(lambda x, y, z: {"a": x * y, "b": z + y})
        f.defjvps(lambda t, value, x, y, z: {"a": 2 * t * y, "b": 0 * t}, None, lambda t, value, x, y, z: {"a": 0 * t, "b": 3 * t})
        return lambda x, y, z: m.np.sin(f(x, y, z)["a"]) * f(x, y, z)["b"]

    ours, theirs_ = interpreted(made(OURS)), made(theirs())
    args = 0.3, 0.7, -0.2
    assert_trees_close(sg.grad(ours, (0, 1, 2))(*args), tuple(map(np.asarray, jax.grad(theirs_, (0, 1, 2))(*args))))
    np.testing.assert_allclose(sg.jvp(ours, args, args), jax.jvp(theirs_, args, args), rtol=1e-12)
    f = sg.custom_jvp(lambda x, y: x * y)
    f.defjvps(None, None)
    assert sg.jvp(f, (2.0, 3.0), (1.0, 1.0)) == (6.0, 0.0)
    f.defjvps(None)
    with pytest.raises(ArgumentError, match="2 arguments, but defjvps was given 1 rules"):
        sg.jvp(f, (2.0, 3.0), (1.0, 1.0))
    with pytest.raises(ArgumentError, match="nondiff_argnums"):
        sg.custom_jvp(np.sin, nondiff_argnums=(0,)).defjvps(None)


# ---- inside of loops and branches


def step_by_pullback():
    f = sg.custom_vjp(lambda x, w: np.sin(x * w))
    f.defvjp(
        lambda x, w: (f(x, w), (x, w)), lambda kept, g: (2 * g * kept[1] * np.cos(kept[0] * kept[1]), 3 * g * np.cos(kept[0] * kept[1]))
    )
    return f


def step_by_tangents():
    f = sg.custom_jvp(lambda x, w: np.sin(x * w))
    f.defjvp(lambda p, t: (f(*p), np.cos(p[0] * p[1]) * (2 * p[1] * t[0] + 3 * t[1])))
    return f


def branched(f, x, w):
    for _ in range(4):
        x = sg.cond(x > -5, lambda x: f(x, w), lambda x: x * 0, x)
    return x


LOOPS = {
    "scan": lambda f, x, w: sg.scan(lambda c, _: (f(c, w), c), x, None, length=4)[0],
    "fori_loop": lambda f, x, w: sg.fori_loop(0, 4, lambda i, c: f(c, w), x),
    "while_loop": lambda f, x, w: sg.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, f(s[1], w)), (0, x))[1],
    "cond": branched,
}


@pytest.mark.parametrize("backend", ["interp", "cpu"])
@pytest.mark.parametrize("make", [step_by_pullback, step_by_tangents])
@pytest.mark.parametrize("loop", LOOPS)
def test_rules_hold_in_loops(loop, make, backend):
    f = make()

    def unrolled(x, w):
        for _ in range(4):
            x = f(x, w)
        return x

    def looped(x, w):
        return LOOPS[loop](f, x, w)

    xs = np.array([0.7, 0.8])
    found, expected = sg.trace(looped, backend=backend), interpreted(unrolled)
    np.testing.assert_allclose(sg.grad(found, (0, 1))(0.7, 1.2), sg.grad(expected, (0, 1))(0.7, 1.2), rtol=1e-12)
    many = sg.vmap(sg.grad(found, (0, 1)), in_axes=(0, None))(xs, 1.2)
    np.testing.assert_allclose(many, sg.vmap(sg.grad(expected, (0, 1)), in_axes=(0, None))(xs, 1.2), rtol=1e-12)
    if backend == "interp":
        np.testing.assert_allclose(sg.grad(sg.grad(found), 1)(0.7, 1.2), sg.grad(sg.grad(expected), 1)(0.7, 1.2), rtol=1e-11)
        together = interpreted(lambda x, w: np.sum(sg.vmap(looped, in_axes=(0, None))(x, w)))
        np.testing.assert_allclose(sg.grad(together, 1)(xs, 1.2), np.sum(many[1]), rtol=1e-12)
        if make is step_by_tangents:
            np.testing.assert_allclose(sg.jvp(found, (0.7, 1.2), (1.0, 0.5)), sg.jvp(expected, (0.7, 1.2), (1.0, 0.5)), rtol=1e-12)


CLOSING = {
    "scan": lambda f, x, w: sg.scan(lambda c, _: (f(c, w), c), x, None, length=3)[0],
    "fori_loop": lambda f, x, w: sg.fori_loop(0, 3, lambda k, c: f(c, w), x),
    "while_loop": lambda f, x, w: sg.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1], w)), (0, x))[1],
    "bounded while_loop": lambda f, x, w: sg.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1], w)), (0, x), max_steps=5)[1],
    "cond": lambda f, x, w: sg.cond(x > -5, lambda x: f(f(f(x, w), w), w), lambda x: x, x),
    "loop in a loop": lambda f, x, w: sg.fori_loop(0, 3, lambda k, c: sg.fori_loop(0, 1, lambda j, d: f(d, w), c), x),
}


@pytest.mark.parametrize("loop", CLOSING)
def test_rules_in_loops_close_over_arrays(loop):
    """What is closed over is an error only where it is differentiated by."""

    def f(x, w):
        own = sg.custom_vjp(lambda y: np.sin(y) * w)
        own.defvjp(lambda y: (own(y), y), lambda y, g: (2 * g * np.cos(y) * w,))
        return own(x)

    def looped(x, w):
        return CLOSING[loop](f, x, w)

    found = sg.grad(interpreted(looped))(0.7, 1.2)
    np.testing.assert_allclose(found, sg.grad(interpreted(lambda x, w: f(f(f(x, w), w), w)))(0.7, 1.2), rtol=1e-12)
    with pytest.raises(MissingDerivativeError, match="closes over an array"):
        sg.grad(interpreted(looped), 1)(0.7, 1.2)


def test_loops_inside_of_rules():
    f = sg.custom_vjp(lambda x: sg.fori_loop(0, 5, lambda k, y: 0.5 * y + x, x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (sg.fori_loop(0, 3, lambda k, h: 2 * h * x, g),))
    assert sg.grad(f)(1.0) == 8.0
    assert sg.grad(sg.grad(f))(2.0) == 96.0
    np.testing.assert_array_equal(sg.vmap(sg.grad(f))(np.array([1.0, 2.0])), [8.0, 64.0])


# ---- arguments, results and residuals of every kind


LINEAR = {
    "loop": (lambda x, t: sg.fori_loop(0, 3, lambda _, c: 0.5 * c + x * t, t), lambda x: 0.125 + 1.75 * x),
    "scan": (lambda x, t: sg.scan(lambda c, y: (c + x * y, None), t, t * np.ones(3))[0], lambda x: 1 + 3 * x),
    "while": (lambda x, t: sg.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, t))[1], lambda x: x**3),
    "branch": (lambda x, t: sg.cond(x > 0, lambda t: 2 * t * x, lambda t: 3 * t, t), lambda x: 2 * x if x > 0 else 3.0),
}
"""Functions that are linear in t, and the factor of t."""


@pytest.mark.parametrize("loop", LINEAR)
def test_rules_with_loops_over_tangents_serve_reverse_mode(loop):
    """The loop carries tangents that its transpose does not read."""
    linear, factor = LINEAR[loop]
    f = sg.custom_jvp(np.sin)
    f.defjvp(lambda p, t: (f(*p), linear(p[0], t[0])))
    function = interpreted(lambda x: f(x))
    for x in (0.7, -0.7):
        np.testing.assert_allclose(sg.jvp(function, (x,), (1.0,))[1], factor(x), rtol=1e-13)
        np.testing.assert_allclose(sg.grad(function)(x), factor(x), rtol=1e-13)
        slope = (factor(x + 1e-4) - factor(x - 1e-4)) / 2e-4
        for second in (sg.grad(sg.grad(function)), sg.jacobian(sg.grad(function), mode="forward")):
            np.testing.assert_allclose(second(x), slope, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(sg.vmap(sg.grad(function))(np.array([x, 0.3])), [factor(x), factor(0.3)], rtol=1e-13)


def test_none_is_zero():
    f = sg.custom_vjp(lambda p, x, n: p["a"] * x * n + p["b"])
    f.defvjp(lambda p, x, n: (f(p, x, n), x), lambda x, g: ({"a": np.sum(x * g), "b": None}, None, None))
    by_p, by_x = sg.grad(interpreted(lambda p, x, n: np.sum(f(p, x, n))), (0, 1))({"a": 2.0, "b": 3.0}, np.ones(2), 4)
    assert by_p == {"a": 2.0, "b": 0.0}
    np.testing.assert_array_equal(by_x, np.zeros(2))
    f.defvjp(lambda p, x, n: (f(p, x, n), x), lambda x, g: (None, 7.0 * g, np.ones((), int)))
    by_p, by_x = sg.grad(interpreted(lambda p, x, n: np.sum(f(p, x, n))), (0, 1))({"a": 2.0, "b": 3.0}, np.ones(2), 4)
    assert by_p == {"a": 0.0, "b": 0.0}
    np.testing.assert_array_equal(by_x, np.full(2, 7.0))


def test_no_tangent_is_zero():
    f = sg.custom_jvp(lambda x: (x * x, x + 1))
    f.defjvp(lambda p, t: (f(*p), (5 * t[0], None)))
    assert sg.jvp(f, (2.0,), (1.0,)) == ((4.0, 3.0), (5.0, 0.0))
    assert sg.grad(lambda x: f(x)[0] + f(x)[1])(2.0) == 5.0
    f.defjvp(lambda p, t: (f(*p), None))
    assert sg.jvp(f, (2.0,), (1.0,))[1] == (0.0, 0.0)  # a new rule is a new trace
    f.defjvps(lambda t, value, x: (None, 3.0 * t))
    assert sg.jvp(f, (2.0,), (1.0,))[1] == (0.0, 3.0)


def test_integers_in_and_out():
    f = sg.custom_vjp(lambda x, n: (x * n, np.argmax(x)))
    f.defvjp(lambda x, n: (f(x, n), (n, x)), lambda kept, g: (10.0 * g[0] + 0.0 * g[1], None))
    x = np.array([1.0, 3.0, 2.0])
    value, pullback = sg.vjp(interpreted(lambda x: f(x, 3)), x)
    assert value[1] == 1
    np.testing.assert_array_equal(pullback((np.ones(3), 0))[0], np.full(3, 10.0))
    h = sg.custom_jvp(lambda x, n: (x * n, np.argmax(x)))
    h.defjvp(lambda p, t: (h(*p), (10.0 * t[0], None)))
    np.testing.assert_array_equal(sg.jvp(interpreted(lambda x: h(x, 3)), (x,), (np.ones(3),))[1][0], np.full(3, 10.0))
    np.testing.assert_array_equal(sg.grad(interpreted(lambda x: np.sum(h(x, 3)[0])))(x), np.full(3, 10.0))


def test_float32_stays():
    f = sg.custom_vjp(lambda x: x * 2)
    f.defvjp(lambda x: (f(x), None), lambda _, g: (g * 3,))
    x = np.float32([1, 2])
    gradient = sg.grad(lambda x: np.sum(f(x)))(x)
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, [3, 3])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3)])
def test_shapes(shape):
    for f in (sg.custom_vjp(np.sin), sg.custom_jvp(np.sin)):
        if isinstance(f, sg.custom_vjp):
            f.defvjp(lambda x, f=f: (f(x), x), lambda x, g: (5 * g,))
        else:
            f.defjvp(lambda p, t, f=f: (f(*p), 5 * t[0]))
        x = np.ones(shape)
        np.testing.assert_array_equal(sg.grad(interpreted(lambda x, f=f: np.sum(f(x))))(x), np.full(shape, 5.0))
        np.testing.assert_array_equal(
            sg.vmap(sg.grad(interpreted(lambda x, f=f: np.sum(f(x)))))(np.ones((2, *shape))), np.full((2, *shape), 5.0)
        )


def test_residuals_that_are_no_arrays():
    """Shapes, strings, functions and numbers are handed on as they are."""

    @sg.custom_vjp
    def f(x):
        return np.sum(x)

    def backward(kept, g):
        assert kept["shape"] == (2, 3)
        assert isinstance(kept["shape"][0], int)
        assert kept["word"] == "sum" and kept["nothing"] is None
        return (kept["function"](np.broadcast_to(g, kept["shape"])) * kept["array"] * kept["scale"],)

    f.defvjp(
        lambda x: (f(x), {"shape": x.shape, "word": "sum", "nothing": None, "function": lambda g: g + 0.0, "array": x, "scale": 2.0}),
        backward,
    )
    x = RNG.standard_normal((2, 3))
    np.testing.assert_allclose(sg.grad(interpreted(f))(x), 2 * x)


def test_options():
    """Functions, strings and numbers in any place."""

    @functools.partial(sg.custom_vjp, nondiff_argnums=(0, 2))
    def f(function, x, word, y):
        return function(x) * y if word == "times" else function(x) + y

    def forward(function, x, word, y):
        return f(function, x, word, y), (x, y)

    def backward(function, word, kept, g):
        assert function is np.sin and word == "times"
        return 10.0 * g * kept[1], 20.0 * g * function(kept[0])

    f.defvjp(forward, backward)
    assert f(np.sin, 0.5, "times", 2.0) == np.sin(0.5) * 2
    assert sg.grad(lambda x, y: f(np.sin, x, "times", y), (0, 1))(0.5, 2.0) == (20.0, 20.0 * np.sin(0.5))
    assert sg.grad(lambda x: f(np.sin, x, y=2.0, word="times"))(0.5) == 20.0


@pytest.mark.parametrize("make", [sg.custom_vjp, sg.custom_jvp])
def test_methods(make):
    """`self` is an option, and what rules read of it is looked after."""

    class Scaled:
        def __init__(self, scale):
            self.scale = scale

        @functools.partial(make, nondiff_argnums=(0,))
        def times(self, x):
            return self.scale * x

        def forward(self, x):
            return self.times(x), None

        def backward(self, _, g):
            return (7 * self.scale * g,)

        def tangent(self, primals, tangents):
            return self.times(*primals), 7 * self.scale * tangents[0]

        times.defvjp(forward, backward) if make is sg.custom_vjp else times.defjvp(tangent)

    scaled = Scaled(2.0)
    within = sg.grad(sg.trace(lambda x: scaled.times(x) * 1.0, backend="interp"))
    assert scaled.times(3.0) == 6.0
    assert (sg.grad(scaled.times)(1.0), within(1.0)) == (14.0, 14.0)
    scaled.scale = 3.0
    assert (sg.grad(scaled.times)(1.0), within(1.0)) == (21.0, 21.0)


@pytest.mark.parametrize("given", [{"nondiff_argnums": 0}, {"nondiff_argnums": np.int64(-2)}, {"nondiff_argnames": "function"}])
def test_options_are_static_in_transforms(given):
    apply = sg.custom_jvp(lambda function, x: function(x), **given)
    apply.defjvp(lambda function, p, t: (apply(function, *p), 3 * t[0]))
    named = sg.custom_jvp(lambda function, x: function(x), nondiff_argnames=["function"])
    named.defjvp(lambda function, p, t: (named(function, *p), 3 * t[0]))
    for function in (np.sin, np.cos):
        assert sg.value_and_grad(apply, 1)(function, 0.5) == (function(0.5), 3.0)
        np.testing.assert_allclose(sg.vmap(apply, in_axes=(None, 0))(function, np.arange(3.0)), function(np.arange(3.0)), rtol=1e-15)
    with pytest.raises(ArgumentError, match="static"):
        sg.jvp(apply, (np.sin, 1.0), (0.0, 1.0))
    with pytest.raises(InvalidValueError, match=r"custom_jvp: nondiff_argnames: .*no parameter 'y'"):
        sg.custom_jvp(lambda x: x, nondiff_argnames="y")


def test_default_values_and_keywords():
    @sg.custom_vjp
    def f(x, scale=3.0):
        return x * scale

    f.defvjp(lambda x, scale: (f(x, scale), scale), lambda scale, g: (10 * scale * g, None))
    assert f(2.0) == 6.0
    assert sg.grad(lambda x: f(x))(2.0) == 30.0
    assert sg.grad(lambda x: f(scale=x * 0 + 5.0, x=x))(2.0) == 50.0


def test_outside_of_a_trace_it_is_the_function():
    calls = []

    @sg.custom_vjp
    def f(x):
        calls.append(type(x))
        return {"list": [x, 2]}

    f.defvjp(lambda x: (f(x), None), lambda _, g: (g["list"][0],))
    array = np.ones(2)
    assert f(array)["list"][0] is array
    assert calls == [np.ndarray]
    assert f.__name__ == "f"


def test_rules_are_recorded_when_they_are_needed():
    calls = []
    f = sg.custom_vjp(lambda x: x * x)

    def forward(x):
        calls.append("forward")
        return f(x), x

    f.defvjp(forward, lambda x, g: (calls.append("backward") or g * x,))
    function = interpreted(lambda x: f(x) + 1)
    assert function(2.0) == 5.0
    assert calls == []
    assert sg.grad(function)(2.0) == 2.0
    assert calls == ["forward", "backward"]


# ---- closures


def test_closing_over_arrays_of_an_enclosing_trace():
    """They are operands: of the function, of both rules, and under every transform."""

    @interpreted
    def outer(x, s, r):
        @sg.custom_vjp
        def f(y):
            return y * s

        f.defvjp(lambda y: (f(y), y * r), lambda kept, g: (g * s * 10 + kept * r,))
        return np.sum(f(x)) * 1.0

    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(outer(x, 3.0, 0.5), 9.0)
    np.testing.assert_allclose(sg.grad(outer)(x, 3.0, 0.5), 30 + x * 0.25)
    np.testing.assert_allclose(sg.hessian(outer)(x, 3.0, 0.5), 0.25 * np.eye(2))
    found = sg.vmap(sg.grad(outer), in_axes=(None, 0, 0))(x, np.array([3.0, 4.0]), np.array([0.5, 1.0]))
    np.testing.assert_allclose(found, [30 + x * 0.25, 40 + x])
    by_s = sg.jacobian(sg.grad(outer), (1, 2), "reverse")(x, 3.0, 0.5)
    np.testing.assert_allclose(by_s, [[10, 10], x])


def test_what_closes_over_arrays():
    """Where a tracer may be: cells, defaults, bound objects, partial arguments, containers, functions in functions."""
    found = []

    class Holder:
        def __init__(self, x):
            self.x = x

        def method(self):
            return self.x

    def outer(x):
        empty = sg.custom_vjp(np.sin)
        held = [lambda: x, lambda y=x: y, lambda *, y=x: y, Holder(x).method, functools.partial(np.sin, x), sg.trace(lambda: x)]
        held += [functools.partial(np.sin, x=[{"x": x}]), lambda f=(lambda: x): f, sg.custom_vjp(lambda: x)]
        found.extend(map(holds_tracers, held))
        others = [np.sin, lambda: 3, lambda y=ONE: y, Holder(1.0).method, sg.trace(np.sin), empty, sg, sg.grad(many), lambda: undefined]
        found.append([holds_tracers(each) for each in others])
        undefined = 3
        return x

    many = interpreted(lambda x: np.sum(x) + sum(np.sin(x[k]) for k in range(3)))
    sg.grad(many)(np.ones(3))
    with pytest.warns(sg.StaticgradWarning, match="changed"):
        interpreted(outer)(1.0)
    assert found == [*[True] * 9, [False] * 9]


def test_closing_over_what_a_rule_computed():
    """A function with a rule inside of a rule, over the array that the rule was given."""
    f = sg.custom_vjp(lambda x: x * x)

    def backward(x, g):
        inner = sg.custom_vjp(lambda y: y * g)
        inner.defvjp(lambda y: (inner(y), None), lambda _, h: (1000.0 * h + 0 * g,))
        return (inner(2 * x),)

    f.defvjp(lambda x: (f(x), x), backward)
    assert sg.grad(f)(3.0) == 6.0
    with pytest.raises(MissingDerivativeError, match="closes over an array"):
        sg.grad(sg.grad(lambda x: np.sin(f(x))))(3.0)
    assert sg.grad(sg.grad(lambda x: f(x)))(3.0) == 2000.0


def test_a_function_that_calls_itself_through_its_rules_and_closes_over_arrays():
    @interpreted
    def outer(x, s):
        f, h = sg.custom_vjp(lambda y: np.sin(y) + 0 * s), sg.custom_vjp(lambda y: np.cos(y))
        f.defvjp(lambda y: (f(y), y), lambda y, g: (s * g * h(y),))
        h.defvjp(lambda y: (h(y), y), lambda y, g: (-s * g * f(y),))
        return f(x)

    derivative = outer
    for order, expected in enumerate([np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin]):
        np.testing.assert_allclose(derivative(0.3, 2.0), 2**order * expected(0.3), rtol=1e-14)
        derivative = sg.grad(derivative)


def test_differentiating_by_what_is_closed_over_is_an_error():
    def outer(x, s):
        f = sg.custom_vjp(lambda y: y * s)
        f.defvjp(lambda y: (f(y), None), lambda _, g: (g * s,))
        return np.sum(f(x))

    function = interpreted(outer)
    assert sg.grad(function)(2.0, 3.0) == 3.0
    with pytest.raises(MissingDerivativeError, match=r"closes over an array \(f64\[\]\).*pass the array as an argument") as caught:
        sg.grad(function, 1)(2.0, np.float64(3.0))
    assert "test_custom_rules.py" in str(caught.value)
    assert sg.grad(interpreted(lambda x, s: outer(x, sg.stop_gradient(s))), (0, 1))(2.0, 3.0) == (3.0, 0.0)

    def tangents(x, s):
        f = sg.custom_jvp(lambda y: y * s)
        f.defjvp(lambda p, t: (f(*p), s * t[0]))
        return f(x)

    assert sg.jvp(lambda x: interpreted(tangents)(x, 3.0), (2.0,), (1.0,)) == (6.0, 3.0)
    for transform in (lambda: sg.jvp(interpreted(tangents), (2.0, 3.0), (0.0, 1.0)), lambda: sg.grad(interpreted(tangents), 1)(2.0, 3.0)):
        with pytest.raises(MissingDerivativeError, match="closes over an array"):
            transform()


def test_an_array_that_a_rule_cannot_reach_any_more():
    kept = {}
    f = sg.custom_vjp(lambda x: x * 1.0)
    f.defvjp(lambda x: (f(x), None), lambda _, g: (g * kept["array"],))

    def outer(x):
        value = f(x)
        kept["array"] = np.sin(x)
        return value

    with pytest.warns(sg.StaticgradWarning, match="changed"), pytest.raises(LeakedTracerError, match=r"a rule of .*among the residuals"):
        sg.grad(interpreted(outer))(1.0)
    kept.clear()


def test_a_number_that_a_rule_reads_is_looked_after():
    """A rebound global or closure variable is never stale."""
    scale = 2.0
    f = sg.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (f(x), None), lambda _, g: (g * scale,))
    gradient = sg.grad(lambda x: f(x))
    assert gradient(1.0) == 2.0
    scale = 5.0
    assert gradient(1.0) == 5.0


def test_writes_after_the_call_do_not_reach_the_rule():
    @interpreted
    def outer(x):
        buffer = np.zeros_like(x)
        buffer[0] = 3.0
        f = sg.custom_vjp(lambda y: y * 1.0)
        f.defvjp(lambda y: (f(y), None), lambda _, g: (g * buffer,))
        value = np.sum(f(x))
        buffer[1] = 100.0
        return value + 0.0 * np.sum(sg.stop_gradient(buffer))

    np.testing.assert_array_equal(sg.grad(outer)(np.ones(2)), [3.0, 0.0])


# ---- compiled


@pytest.mark.parametrize("make", [by_pullback, by_tangents])
def test_compiled(make):
    f = make(OURS)
    function, reference = total(OURS, f), interpreted(total(OURS, f))
    assert_trees_close(sg.trace(function)(*POINT), reference(*POINT))
    assert_trees_close(sg.value_and_grad(function, (0, 1))(*POINT), sg.value_and_grad(reference, (0, 1))(*POINT))
    assert_trees_close(sg.hessian(function, 1)(*POINT), sg.hessian(reference, 1)(*POINT))
    _, pullback = sg.vjp(function, *POINT)
    for scale in (1.0, -2.0):
        assert_trees_close(pullback(scale)[1], scale * sg.grad(reference, 1)(*POINT))


def test_equal_functions_share_machine_code_though_their_rules_differ():
    x = np.linspace(0.1, 1.0, 7)
    for _ in range(2):
        f = by_pullback(OURS)
        functions = [sg.trace(lambda x, f=f: np.sum(f({"w": 1.5, "b": 0.5}, x[:3])["y"] * 1.25))]
        functions.append(sg.grad(functions[0]))
        for function in functions:
            function(x)
    infos = [function.cache_info() for function in functions]
    assert [info.memory_hits + info.disk_hits for info in infos] == [1, 1]


def test_two_rules_of_one_function_in_one_graph():
    """Equal bodies on equal operands, other rules."""

    def scaled(scale):
        @sg.custom_vjp
        def f(x):
            return np.sin(x)

        f.defvjp(lambda x: (f(x), None), lambda _, g: (g * scale,))
        return f

    function = interpreted(lambda x: scaled(2.0)(x) + 10 * scaled(3.0)(x) + 100 * np.sin(x))
    np.testing.assert_allclose(sg.grad(function)(0.5), 2 + 30 + 100 * np.cos(0.5))
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(sg.vmap(function)(x)))(np.full(2, 0.5)), 2 + 30 + 100 * np.cos(0.5))


def test_one_node_until_it_is_compiled():
    f = by_pullback(OURS)
    lowered = sg.trace(lambda p, x: f(p, x)).lower(*POINT)
    assert str(lowered.graph).count("call(") == 1
    assert "call(" not in str(lowered.optimized)


def test_printing(capsys):
    """What the function prints is printed once, also where its rule calls it."""

    @sg.custom_jvp
    def f(x):
        sg.debug.print("x = {}", x)
        return x * x

    f.defjvp(lambda p, t: (f(*p), 2 * p[0] * t[0]))
    assert sg.trace(lambda x: f(x) + 1.0)(3.0) == 10.0
    assert capsys.readouterr().out == "x = 3.0\n"
    assert sg.grad(lambda x: f(x))(3.0) == 6.0
    assert capsys.readouterr().out == "x = 3.0\n"
    f.defjvp(lambda p, t: (f(*p), sg.debug.print("t") or 2 * p[0] * t[0]))
    with pytest.raises(UnsupportedError, match=r"sg\.debug\.print in .*, a rule of f"):
        sg.grad(lambda x: f(x))(3.0)


def test_tensors():
    """One node of the tape, with the rule as its backward pass."""
    f = sg.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (f(x), x), lambda x, g: (100.0 * x * g,))
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    f(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [100.0, 200.0])
    np.testing.assert_array_equal(f(sg.tensor([3.0])).numpy(), [9.0])


def test_nothing_is_kept_alive():
    def make():
        f = sg.custom_vjp(lambda x: x * x)
        f.defvjp(lambda x: (f(x), x), lambda x, g: (x * g,))
        assert sg.grad(lambda x: f(x))(2.0) == 2.0
        return weakref.ref(f)

    reference = make()
    for _ in range(3):
        gc.collect()
    assert reference() is None


def test_the_entry_for_other_front_ends():
    """What `sg.Function` is recorded through."""

    class Scale:
        pass

    def apply(x, factor):
        custom = CustomFunction("Scale", lambda x: x * factor, Scale, (factor,))
        return call_with_pullback(custom, lambda x: (x * factor, {"factor": factor}), lambda kept, g: (g * kept["factor"] * 10,), (x,))

    assert sg.grad(lambda x: apply(x, 3.0))(2.0) == 30.0
    np.testing.assert_array_equal(sg.vmap(sg.grad(lambda x: apply(x, 3.0)))(np.ones(2)), [30.0, 30.0])


# ---- mistakes


def vjp_of(backward, forward=None, x=ONE):
    f = sg.custom_vjp(lambda x: x * 2.0)
    f.defvjp(forward or (lambda x: (x * 2.0, None)), backward)
    return sg.grad(interpreted(lambda x: np.sum(f(x))))(x)


def jvp_of(rule, x=ONE):
    f = sg.custom_jvp(lambda x: x * 2.0)
    f.defjvp(rule)
    return sg.jvp(interpreted(lambda x: f(x)), (x,), (x,))


def two(backward):
    f = sg.custom_vjp(lambda p, n: p["a"] * p["b"] * n)
    f.defvjp(lambda p, n: (f(p, n), None), backward)
    return sg.grad(interpreted(lambda p: np.sum(f(p, 3))))({"a": 2.0, "b": np.ones(2)})


def option(*args, numbers=(0,)):
    f = sg.custom_vjp(lambda k, x: x * 1.0, nondiff_argnums=numbers)
    f.defvjp(lambda k, x: (x * 1.0, None), lambda k, kept, g: (g,))
    return sg.grad(interpreted(lambda *args: f(*args)))(*args)


def each_of(rule):
    f = sg.custom_jvp(lambda x, y: x * y)
    f.defjvps(None, rule)
    return sg.jvp(interpreted(lambda x, y: f(x, y)), (np.ones(2), np.ones(2)), (np.ones(2), np.ones(2)))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: sg.custom_vjp(3), ArgumentError, "custom_vjp: expected a function, not int"),
        (lambda: sg.custom_jvp(np.sin, "x"), ArgumentError, "custom_jvp: nondiff_argnums='x'"),
        (lambda: sg.custom_vjp(np.sin)(1.0), MissingDerivativeError, r"sin is a custom_vjp function without rules.*defvjp"),
        (lambda: sg.custom_jvp(np.sin)(1.0), MissingDerivativeError, r"sin is a custom_jvp function without rules.*defjvp"),
        (lambda: sg.custom_vjp(np.sin).defvjp(np.sin, None), ArgumentError, "a rule of sin must be a function, not NoneType"),
        (lambda: vjp_of(lambda kept, g: g), ArgumentError, "tuple of 1 cotangents.*not Tracer"),
        (lambda: vjp_of(lambda kept, g: (g, g)), ArgumentError, "tuple of 1 cotangents.*not tuple of 2"),
        (lambda: vjp_of(lambda kept, g: None), ArgumentError, "tuple of 1 cotangents.*not NoneType"),
        (lambda: vjp_of(lambda kept, g: (np.sum(g),), x=np.ones((2, 3))), ShapeError, r"argument 0 is f64\[2,3\], .* returned f64\[\]"),
        (lambda: vjp_of(lambda kept, g: (g.astype(np.float32),)), DTypeError, r"0 is f64\[\], .* returned f32\[\].*astype\(np\.float64\)"),
        (lambda: vjp_of(lambda kept, g: (g > 0,)), DTypeError, r"argument 0 is f64\[\], .* returned bool\[\]"),
        (lambda: vjp_of(lambda kept, g: ("g",)), ArgumentError, "returned str"),
        (lambda: vjp_of(lambda kept, g: ([g],)), ArgumentError, "argument 0 has structure .* returned PyTreeSpec"),
        (lambda: vjp_of(lambda kept, g: (g,), lambda x: x * 2.0), ArgumentError, r"must return a pair \(value, residuals\), not Tracer"),
        (lambda: vjp_of(lambda kept, g: (g,), lambda x: ((x, x), None)), ArgumentError, "it returns a value of structure .* returned"),
        (lambda: vjp_of(lambda kept, g: (g,), lambda x: (np.ones(3), None)), ShapeError, r"it returns f64\[\], .* returned f64\[3\]"),
        (lambda: vjp_of(lambda kept, g: (g,), lambda x: (np.float32(1), None)), DTypeError, r"it returns f64\[\], .* returned f32\[\]"),
        (lambda: vjp_of(lambda kept: (kept,)), ArgumentError, "a rule of"),
        (lambda: vjp_of(lambda kept, g: (g,), lambda x, y: (x, None)), ArgumentError, "missing a required argument: 'y'"),
        (lambda: two(lambda kept, g: ({"a": np.sum(g)}, None)), ArgumentError, "argument 0 has structure"),
        (lambda: two(lambda kept, g: ({"a": np.sum(g), "b": np.ones(3)}, None)), ShapeError, r"argument 0\['b'\] is f64\[2\], .* f64\[3\]"),
        (lambda: jvp_of(lambda p, t: p[0]), ArgumentError, r"must return a pair \(value, tangent\), not Tracer"),
        (lambda: jvp_of(lambda p, t: (p[0] * 2.0, (t[0],))), ArgumentError, "tangent of structure"),
        (lambda: jvp_of(lambda p, t: (p[0] * 2.0, np.ones(2))), ShapeError, r"the value is f64\[\], .* returned f64\[2\]"),
        (lambda: jvp_of(lambda p, t: (p[0] * 2.0, np.float32(1))), DTypeError, r"the value is f64\[\], .* returned f32\[\]"),
        (lambda: sg.jvp(by_pullback(OURS), POINT, POINT), MissingDerivativeError, "reverse mode only"),
        (lambda: sg.jacobian(by_pullback(OURS), mode="forward")(*POINT), MissingDerivativeError, r"f: .*sg\.custom_jvp"),
        (lambda: each_of(lambda t, value, x: t), ArgumentError, r"a rule of <lambda>, \(t, value, x\): too many positional"),
        (lambda: each_of(lambda t, value, x, y: (t,)), ArgumentError, "must return a tangent like the value, .* not PyTreeSpec"),
        (lambda: each_of(lambda t, value, x, y: t[:1]), ShapeError, r"must return a tangent like the value, of shape \(2,\), not of .*1"),
        (lambda: by_pullback(OURS).defvjp(np.sin, np.cos, symbolic_zeros=True), UnsupportedError, "f: symbolic_zeros=True .*leave"),
        (lambda: sg.custom_jvp(np.sin).defjvp(np.cos, symbolic_zeros=True), UnsupportedError, "sin: symbolic_zeros=True .*leave"),
        (lambda: option(2.0, 1.0), ArgumentError, "argument 0 is in nondiff_argnums, and a traced array was passed"),
        (lambda: option(1.0, 2.0, numbers=(5,)), InvalidValueError, r"nondiff_argnums=\(5,\), but there are 2 arguments"),
    ],
)  # fmt: skip
def test_mistakes(make, error, said):
    with pytest.raises(error, match=said) as caught:
        make()
    assert "test_custom_rules.py" in str(caught.value)


def test_a_string_among_the_arguments():
    f = sg.custom_vjp(lambda x, word: x * 1.0)
    f.defvjp(lambda x, word: (x, None), lambda kept, g: (g, None))
    with pytest.raises(ArgumentError, match=r"type str .*nondiff_argnums"):
        sg.grad(lambda x: f(x, "word"))(1.0)


def test_a_rule_that_is_not_linear():
    f = sg.custom_jvp(lambda x: x * 1.0)
    f.defjvp(lambda p, t: (f(*p), t[0] * t[0]))
    assert sg.jvp(f, (1.0,), (3.0,))[1] == 9.0
    with pytest.raises(ArgumentError, match="not linear in the tangents"):
        sg.grad(f)(1.0)


def test_mistakes_in_rules_over_closures_show_when_it_is_differentiated():
    @interpreted
    def outer(x, s):
        f = sg.custom_vjp(lambda y: y * s)
        f.defvjp(lambda y: (f(y), None), lambda _, g: (np.ones(3) * s,))
        return f(x)

    assert outer(2.0, 3.0) == 6.0
    with pytest.raises(ShapeError, match=r"argument 0 is f64\[\]"):
        sg.grad(outer)(2.0, 3.0)
