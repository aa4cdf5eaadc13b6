"""Derivatives of solutions: against closed forms, against JAX, against differentiating through solvers, at every order and batched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, MissingDerivativeError, ShapeError
from tests.ad.test_jacobian import MODES, assert_trees_close, interpreted, with_jax

RNG = np.random.default_rng(0)


def newton(f, x, steps=30):
    """For numbers, with a derivative by a difference: fine for finding a root, useless for differentiating."""
    for _ in range(steps):
        slope = (f(x + 1e-6) - f(x - 1e-6)) / 2e-6
        x = x - f(x) / slope
    return x


def divide(g, y):
    return y / g(1.0)


def square_root(a):
    return sg.custom_root(lambda x: x * x - a, 1.0, newton, divide)


def jacobi(matvec, b, steps=80):
    """Solve a diagonally dominant system."""
    diagonal = np.stack([matvec(e)[k] for k, e in enumerate(np.eye(b.shape[0]))])
    x = b / diagonal
    for _ in range(steps):
        x = x + (b - matvec(x)) / diagonal
    return x


def dominant(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, n)) / n + 2 * np.eye(n), rng.standard_normal(n)


def solution(a, b, **options):
    options = options or {"transpose_solve": jacobi}
    return sg.custom_linear_solve(lambda x: a @ x, b, jacobi, **options)


# ---- roots


def test_the_square_root_at_every_order_and_in_every_mode():
    for modes in [(), *((a,) for a in MODES), *((a, b) for a in MODES for b in MODES), *((a, b, "forward") for a in MODES for b in MODES)]:
        made = interpreted(square_root)
        for mode in modes:
            made = sg.jacobian(made, mode=mode)
        expected = [lambda a: a**0.5, lambda a: a**-0.5 / 2, lambda a: -(a**-1.5) / 4, lambda a: 3 * a**-2.5 / 8][len(modes)]
        np.testing.assert_allclose(made(2.5), expected(2.5), rtol=1e-9)


def test_outside_of_a_trace_it_is_the_solver():
    np.testing.assert_allclose(square_root(2.0), 2**0.5)
    a, b = dominant(3)
    np.testing.assert_allclose(solution(a, b), np.linalg.solve(a, b))


def test_batches_of_roots():
    a = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(sg.vmap(interpreted(square_root))(a), a**0.5, rtol=1e-12)
    np.testing.assert_allclose(sg.vmap(sg.grad(interpreted(square_root)))(a), a**-0.5 / 2, rtol=1e-10)
    np.testing.assert_allclose(sg.grad(interpreted(lambda a: np.sum(sg.vmap(square_root)(a))))(a), a**-0.5 / 2, rtol=1e-10)
    np.testing.assert_allclose(sg.vmap(sg.hessian(interpreted(square_root)))(a), -(a**-1.5) / 4, rtol=1e-9)


def test_the_guess_and_the_solver_have_no_derivative():
    def root(a, guess, rate):
        def solve(f, x):
            for _ in range(80):
                x = x - rate * f(x)
            return x

        return sg.custom_root(lambda x: x * x - a, guess, solve, divide)

    found = sg.grad(interpreted(root), (0, 1, 2))(2.0, 1.2, 0.3)
    np.testing.assert_allclose(found, [2**-0.5 / 2, 0, 0], rtol=1e-10)
    np.testing.assert_allclose(sg.jacobian(interpreted(root), (0, 1, 2), "forward")(2.0, 1.2, 0.3), found, rtol=1e-10)


def fixed_steps(m):
    """A system in containers, with auxiliary results, for us and for JAX: x = cos(p x + q y) / 2, y = sin(q x) / 2."""

    def root(p, q, solve_root, linear):
        def f(v):
            return {"x": v["x"] - m.cos(p * v["x"] + m.sum(q * v["y"])) / 2, "y": v["y"] - m.sin(q * v["x"]) / 2}

        def solve(f, v):
            for _ in range(60):
                residual = f(v)
                v = {name: v[name] - residual[name] for name in v}
            return v, {"steps": 60.0}

        def tangent_solve(g, right):
            v = right
            for _ in range(80):
                moved = g(v)
                v = {name: v[name] + right[name] - moved[name] for name in v}
            return v

        guess = {"x": m.zeros(()) + 0.1, "y": m.zeros(2)}
        found, aux = solve_root(f, guess, solve, tangent_solve, has_aux=True)
        return {"found": found, "steps": aux["steps"] + 0.0 * p} if linear else found["x"] ** 2 + m.sum(found["y"] ** 3)

    return root


def test_systems_are_those_of_jax():
    jax = with_jax()
    p, q = 0.7, np.array([0.4, -0.9])
    ours, theirs = fixed_steps(np), fixed_steps(jax.numpy)

    def mine(p, q):
        return ours(p, q, sg.custom_root, False)

    def other(p, q):
        return theirs(p, q, jax.lax.custom_root, False)

    function = interpreted(mine)
    np.testing.assert_allclose(function(p, q), other(p, q), rtol=1e-12)
    expected = jax.tree.map(np.asarray, jax.grad(other, (0, 1))(p, q))
    assert_trees_close(sg.grad(function, (0, 1))(p, q), expected)
    assert_trees_close(sg.jacobian(function, (0, 1), "forward")(p, q), expected)
    hessian = jax.tree.map(np.asarray, jax.hessian(other, (0, 1))(p, q))
    assert_trees_close(sg.hessian(function, (0, 1))(p, q), hessian, 1e-8, 1e-9)
    found = sg.jvp(interpreted(lambda p, q: ours(p, q, sg.custom_root, True)), (p, q), (1.0, q))
    expected = jax.jvp(lambda p, q: theirs(p, q, jax.lax.custom_root, True), (p, q), (1.0, q))
    assert_trees_close(found, jax.tree.map(np.asarray, expected))


def test_roots_of_roots():
    """An equation whose own terms are roots."""

    def few(f, x):
        return newton(f, x, 8)

    def inner(a):
        return sg.custom_root(lambda y: y * y * y - a, 1.0, few, divide)

    def outer(a):
        return sg.custom_root(lambda x: x * inner(a) + x * x * 0.5 - inner(a * a), 0.8, few, divide)

    function = interpreted(outer)
    a, h = 1.3, 1e-5
    numeric = (outer(a + h) - outer(a - h)) / (2 * h)
    np.testing.assert_allclose(sg.grad(function)(a), numeric, rtol=1e-7)
    np.testing.assert_allclose(sg.hessian(function)(a), (outer(a + 1e-3) - 2 * outer(a) + outer(a - 1e-3)) / 1e-6, rtol=1e-3)


def test_compiled_roots():
    np.testing.assert_allclose(sg.value_and_grad(square_root)(2.0), (2**0.5, 2**-0.5 / 2), rtol=1e-9)
    value, pullback = sg.vjp(square_root, 2.0)
    np.testing.assert_allclose([pullback(1.0)[0], pullback(-2.0)[0]], [2**-0.5 / 2, -(2**-0.5)], rtol=1e-9)
    np.testing.assert_allclose(value, 2**0.5)


# ---- linear systems


@pytest.mark.parametrize("mode", MODES)
def test_linear_systems_by_the_closed_form(mode):
    a, b = dominant(3)
    by_a, by_b = sg.jacobian(interpreted(solution), (0, 1), mode)(a, b)
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(by_b, inverse, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_a, -np.einsum("ij,k->ijk", inverse, inverse @ b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("modes", [(a, b) for a in MODES for b in MODES])
def test_second_derivatives_of_linear_systems(modes):
    jax = with_jax()
    a, b = dominant(3)
    made = interpreted(lambda a, b: np.sum(solution(a, b) ** 3))
    for mode in modes:
        made = sg.jacobian(made, (0, 1), mode)
    expected = jax.hessian(lambda a, b: jax.numpy.sum(jax.numpy.linalg.solve(a, b) ** 3), (0, 1))(a, b)
    assert_trees_close(made(a, b), jax.tree.map(np.asarray, expected), 1e-8, 1e-9)


@given(seed=st.integers(0, 50), n=st.integers(1, 4))
def test_linear_systems_are_adjoint(seed, n):
    """<g, jvp> = <vjp, t>, both held to a dense solver."""
    rng = np.random.default_rng(seed)
    a, b = dominant(n, seed)
    ta, tb, g = rng.standard_normal((n, n)), rng.standard_normal(n), rng.standard_normal(n)
    function = interpreted(solution)
    x, moved = sg.jvp(function, (a, b), (ta, tb))
    np.testing.assert_allclose(moved, np.linalg.solve(a, tb - ta @ x), rtol=1e-8, atol=1e-10)
    ga, gb = sg.vjp(function, a, b)[1](g)
    np.testing.assert_allclose(np.sum(ga * ta) + gb @ tb, g @ moved, rtol=1e-8, atol=1e-10)


def test_symmetric_systems():
    a, b = dominant(3)
    a = a @ a.T

    def symmetric(a, b):
        return solution((a + a.T) / 2, b, symmetric=True)

    inverse = np.linalg.inv(a)
    for mode in MODES:
        np.testing.assert_allclose(sg.jacobian(interpreted(symmetric), 1, mode)(a, b), inverse, rtol=1e-7, atol=1e-9)
    found = sg.grad(interpreted(lambda a, b: np.sum(symmetric(a, b))))(a, b)
    outer = -np.outer(inverse @ np.ones(3), inverse @ b)
    np.testing.assert_allclose(found, (outer + outer.T) / 2, rtol=1e-7, atol=1e-9)


def test_batches_of_linear_systems():
    systems = [dominant(3, k) for k in range(4)]
    a, b = np.stack([s[0] for s in systems]), np.stack([s[1] for s in systems])
    function = interpreted(solution)
    np.testing.assert_allclose(sg.vmap(function)(a, b), np.linalg.solve(a, b[..., None])[..., 0], rtol=1e-9)
    shared = sg.vmap(function, in_axes=(None, 0))(a[0], b)
    np.testing.assert_allclose(shared, np.linalg.solve(a[0], b.T).T, rtol=1e-9)
    by_a = sg.grad(interpreted(lambda a, b: np.sum(sg.vmap(solution, in_axes=(None, 0))(a, b) ** 2)))(a[0], b)
    expected = sum(sg.grad(interpreted(lambda a, b: np.sum(solution(a, b) ** 2)))(a[0], one) for one in b)
    np.testing.assert_allclose(by_a, expected, rtol=1e-9)
    many = sg.vmap(sg.grad(interpreted(lambda a, b: np.sum(solution(a, b) ** 2)), (0, 1)))(a, b)
    one = sg.grad(interpreted(lambda a, b: np.sum(solution(a, b) ** 2)), (0, 1))(a[2], b[2])
    np.testing.assert_allclose(many[0][2], one[0], rtol=1e-9)
    np.testing.assert_allclose(many[1][2], one[1], rtol=1e-9)


def test_containers_and_auxiliary_results():
    def solve(matvec, b):
        x = b
        for _ in range(80):
            moved = matvec(x)
            x = {name: x[name] + 0.3 * (b[name] - moved[name]) for name in x}
        return x, {"residual": b["u"] - matvec(x)["u"]}

    def system(c, u, v):
        def matvec(x):
            return {"u": 2 * x["u"] + c * x["v"], "v": 3 * x["v"] - c * c * x["u"]}

        x, aux = sg.custom_linear_solve(matvec, {"u": u, "v": v}, solve, solve, has_aux=True)
        return np.sum(x["u"]) * np.sum(x["v"] ** 2) + 0.0 * np.sum(aux["residual"])

    def dense(c, u, v):
        determinant = 6 + c * c * c
        return np.sum((3 * u - c * v) / determinant) * np.sum(((2 * v + c * c * u) / determinant) ** 2)

    args = 0.4, np.array([1.0, 2.0]), np.array([0.5, -1.0])
    for mode in MODES:
        found = sg.jacobian(interpreted(system), (0, 1, 2), mode)(*args)
        assert_trees_close(found, sg.jacobian(interpreted(dense), (0, 1, 2))(*args), 1e-8, 1e-10)
    assert_trees_close(sg.hessian(interpreted(system))(*args), sg.hessian(interpreted(dense))(*args), 1e-7, 1e-9)


def test_newton_with_a_linear_solver_inside():
    """The tangents of a root come from `custom_linear_solve`, as they do in practice."""

    def tangent_solve(g, y):
        return sg.custom_linear_solve(g, y, jacobi, jacobi)

    def root(p):
        def f(x):
            return 3 * x + np.tanh(x[::-1] * p) - p

        def solve(f, x):
            for _ in range(60):
                x = x - f(x) / 3
            return x

        return np.sum(sg.custom_root(f, np.zeros(3), solve, tangent_solve) ** 2)

    def unrolled(p):
        x = np.zeros(3)
        for _ in range(60):
            x = x - (3 * x + np.tanh(x[::-1] * p) - p) / 3
        return np.sum(x**2)

    p = np.array([0.5, -0.3, 0.8])
    for mode in MODES:
        expected = sg.jacobian(interpreted(unrolled), mode=mode)(p)
        np.testing.assert_allclose(sg.jacobian(interpreted(root), mode=mode)(p), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(sg.hessian(interpreted(root))(p), sg.hessian(interpreted(unrolled))(p), rtol=1e-7, atol=1e-9)


def test_solvers_are_not_differentiated():
    """The graph of a gradient does not grow with the number of steps that the way there took, but for the steps themselves."""

    def nodes(steps):
        def root(a):
            return sg.custom_root(lambda x: x * x - a, 1.0, lambda f, x: newton(f, x, steps), divide)

        plain, gradient = sg.trace(root), sg.grad(root)
        return len(gradient.lower(2.0).optimized.nodes) - len(plain.lower(2.0).optimized.nodes)

    assert nodes(5) == nodes(20)


def test_compiled_linear_systems():
    a, b = dominant(3)
    found = sg.grad(lambda a, b: np.sum(solution(a, b)), (0, 1))(a, b)
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(found[1], inverse.T @ np.ones(3), rtol=1e-8)
    np.testing.assert_allclose(found[0], -np.outer(inverse.T @ np.ones(3), inverse @ b), rtol=1e-8)


# ---- mistakes


def root_of(f=lambda x: x, guess=None, solve=lambda f, x: x, tangent=divide, **options):
    guess = np.zeros(2) if guess is None else guess
    return sg.grad(interpreted(lambda a: np.sum(sg.custom_root(lambda x: f(x) - a, guess, solve, tangent, **options))))(1.0)


def linear(matvec=lambda x: 2.0 * x, solve=lambda m, b: b / 2.0, transpose=lambda m, b: b / 2.0, **options):
    return sg.grad(interpreted(lambda b: np.sum(sg.custom_linear_solve(lambda x: matvec(x), b, solve, transpose, **options))))(np.ones(2))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: root_of(solve=lambda f, x: (x, x)), ArgumentError, r"custom_root: the initial guess is PyTreeSpec\(\*\), .* returned"),
        (lambda: root_of(solve=lambda f, x: x[0]), ShapeError, r"the initial guess is f64\[2\], <lambda> returned f64\[\]"),
        (lambda: root_of(solve=lambda f, x: x.astype(np.float32)), DTypeError, r"guess is f64\[2\], <lambda> returned f32\[2\]"),
        (lambda: root_of(solve=lambda f, x: x, has_aux=True), ArgumentError, "has_aux=True: <lambda> must return a pair, not Tracer"),
        (lambda: root_of(f=lambda x: np.sum(x)), ShapeError, r"f is given f64\[2\], <lambda> returned f64\[\]"),
        (lambda: root_of(tangent=lambda g, y: np.sum(y)), ShapeError, r"the right-hand side is f64\[2\], <lambda> returned f64\[\]"),
        (lambda: root_of(tangent=lambda g, y: g(1.0)), ShapeError, r"the linear approximation of f takes f64\[2\], not f64\[\]"),
        (lambda: root_of(tangent=lambda g, y: y * y), ArgumentError, "not linear in the tangents"),
        (lambda: root_of(tangent=lambda g: g), ArgumentError, "missing|too many"),
        (lambda: linear(solve=lambda m, b: b[0]), ShapeError, r"custom_linear_solve: b is f64\[2\], <lambda> returned f64\[\]"),
        (lambda: linear(matvec=lambda x: x[0]), ShapeError, r"matvec is given f64\[2\], <lambda> returned f64\[\]"),
        (lambda: linear(matvec=lambda x: x * x), ArgumentError, "not linear in x"),
        (lambda: linear(transpose=None), MissingDerivativeError, "solves with the transpose.*transpose_solve=.*symmetric=True"),
        (lambda: linear(transpose=lambda m, b: b[:1]), ShapeError, r"the right-hand side is f64\[2\], <lambda> returned f64\[1\]"),
        (lambda: linear(transpose=lambda m, b: m(b[:1])), ShapeError, r"the transpose of matvec takes f64\[2\], not f64\[1\]"),
        (lambda: linear(solve=lambda m, b: b / 2.0, has_aux=True), ArgumentError, "must return a pair, not Tracer"),
        (lambda: linear(solve=None), ArgumentError, "custom_linear_solve: solve has to be a function"),
        (lambda: sg.custom_root(None, 1.0, newton, divide), ArgumentError, "custom_root: f has to be a function"),
        (lambda: root_of(solve=lambda f: 1.0), ArgumentError, r"<lambda>, the solve of custom_root, \(f\): too many positional"),
        (lambda: sg.custom_root(lambda x: x, 1.0, lambda f: 1.0, divide), ArgumentError, "the solve of custom_root"),
        (lambda: root_of(tangent=lambda g, y: g(y, y)), ArgumentError, "linear approximation of f that custom_root hands out"),
        (lambda: linear(solve=lambda m: 1.0), ArgumentError, "the solve of custom_linear_solve"),
        (lambda: linear(transpose=lambda m, b: m()), ArgumentError, "the transpose of matvec that custom_linear_solve hands out"),
        (lambda: sg.custom_root(lambda x: x, 1.0, None, divide), ArgumentError, "custom_root: solve has to be a function"),
        (lambda: linear(transpose=3), ArgumentError, "custom_linear_solve: transpose_solve has to be a function, and int '3'"),
    ],
)  # fmt: skip
def test_mistakes(make, error, said):
    with pytest.raises(error, match=said) as caught:
        make()
    assert "test_implicit.py" in str(caught.value)


def test_without_a_transpose_there_is_forward_mode():
    a, b = dominant(3)
    function = interpreted(lambda b: sg.custom_linear_solve(lambda x: a @ x, b, jacobi))
    np.testing.assert_allclose(sg.jvp(function, (b,), (b,))[1], np.linalg.solve(a, b), rtol=1e-9)
    np.testing.assert_allclose(sg.jacobian(function)(b), np.linalg.inv(a), rtol=1e-9, atol=1e-12)


def test_tangents_of_roots_found_by_steps():
    """`tangent_solve` iterates, too: reverse mode is its steps read backwards."""

    def root(a):
        return sg.custom_root(
            lambda x: x - 0.5 * np.cos(a * x),
            0.5,
            lambda f, x: sg.fori_loop(0, 60, lambda _, x: x - f(x), x),
            lambda linear, y: sg.fori_loop(0, 60, lambda _, v: v + (y - linear(v)), y),
        )

    function = sg.trace(root, backend="interp")
    x = function(1.3)
    expected = -0.5 * x * np.sin(1.3 * x) / (1 + 0.65 * np.sin(1.3 * x))
    np.testing.assert_allclose(sg.jvp(function, (1.3,), (1.0,))[1], expected, rtol=1e-12)
    np.testing.assert_allclose(sg.grad(function)(1.3), expected, rtol=1e-12)
    second = [sg.jacobian(sg.jacobian(function, mode=a), mode=b)(1.3) for a in ("forward", "reverse") for b in ("forward", "reverse")]
    np.testing.assert_allclose(second, np.full(4, second[0]), rtol=1e-10)
