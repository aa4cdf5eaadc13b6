"""`newton`: against SciPy's root, as a part of traced functions, with derivatives, and where there is no root."""

import numpy as np
import pytest
import scipy.optimize

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError


def on_circle(p, radius):
    return np.stack([p[0] ** 2 + p[1] ** 2 - radius**2, p[0] - p[1]])


def chemistry(x):
    """Three concentrations in equilibrium."""
    return np.stack([x[0] + x[1] + x[2] - 1.0, x[0] * x[1] - 0.05 * x[2], np.exp(x[0]) * x[2] - 0.4 * np.sqrt(x[1])])


def broyden(x):
    """Broyden's tridiagonal system."""
    y = (3 - 2 * x) * x + 1
    y[1:] -= x[:-1]
    y[:-1] -= 2 * x[1:]
    return y


@pytest.mark.parametrize(
    ("f", "start"), [(chemistry, np.full(3, 0.4)), (broyden, -np.ones(7)), (lambda x: np.tanh(x) - x**3 / 7 - 0.2, np.full(1, 0.5))]
)
def test_roots_are_those_of_scipy(f, start):
    found, expected = sg.newton(f, start), scipy.optimize.root(f, start, tol=1e-14)
    assert found.converged
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)
    np.testing.assert_allclose(found.residual, np.abs(f(found.x)).max(), atol=1e-15)
    assert found.residual < 1e-14
    assert found.iterations < 15


def test_steps_are_halved_where_full_ones_diverge():
    found = sg.newton(np.arctan, 3.0)  # full steps from there swing further and further out
    assert found.converged
    assert abs(found.x) < 1e-15


def test_a_step_out_of_the_domain_does_not_stay():
    found = sg.newton(np.log, 5.0)
    assert found.converged
    assert found.x == 1


@pytest.mark.parametrize(
    ("f", "start"),
    [
        (lambda x: snp.concatenate([np.exp(x[:1]) - 1, np.exp(x[1:]) + x[:-1] - 1]), np.full(5, 1 / 400)),
        (lambda x: x * x, np.ones(2)),  # as a double root: half of the way a step
        (lambda x: np.stack([x[0] + 10 * x[1], (x[1] - x[0]) ** 2]), np.array([3.0, -1.0])),
    ],
)
def test_roots_at_zero(f, start):
    found = sg.newton(f, start, maxiter=300)
    assert found.converged
    np.testing.assert_allclose(found.x, 0, atol=1e-15)


@pytest.mark.parametrize(
    ("f", "start"),
    [
        (lambda x: np.exp(x) - 1, 40.0),
        (lambda x: np.exp(x) - 1, -20.0),
        (lambda x: np.where(x > 50, np.nan, np.arctan(x)), 49.0),
        (lambda x: np.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]), np.array([-120.0, 100.0])),
        (lambda x: np.stack([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001]), np.array([0.0, 1.0])),
    ],
)
def test_far_starts_and_bad_scales(f, start):
    found = sg.newton(f, start, maxiter=100)
    assert found.converged
    assert found.residual < 1e-12


@pytest.mark.parametrize(
    ("f", "start"),
    [
        (lambda x: x * x + 1, 3.0),  # no root
        (lambda x: x * x - 1, 0.0),  # no slope
        (lambda x: np.log(x), -1.0),  # not a number
        (lambda x: np.stack([x[0] + x[1], x[0] + x[1] - 1]), np.zeros(2)),  # parallel lines
        (lambda x: x / 0.0, 1.0),
    ],
)
def test_what_has_no_root_is_reported(f, start):
    found = sg.newton(f, start)
    assert not found.converged
    assert found.iterations <= 50


def test_nothing_to_find():
    found = sg.newton(lambda x: x, np.zeros(0))
    assert (found.x.shape, found.residual, found.iterations, found.converged) == ((0,), 0, 0, True)


def test_options():
    assert sg.newton(chemistry, np.full(3, 0.4), maxiter=0).iterations == 0
    np.testing.assert_array_equal(sg.newton(chemistry, np.full(3, 0.4), maxiter=0).x, 0.4)
    short = sg.newton(chemistry, np.full(3, 0.4), maxiter=2)
    assert (short.iterations, short.converged) == (2, False)
    rough = sg.newton(chemistry, np.full(3, 0.4), ftol=1e-3)
    assert rough.converged
    assert rough.iterations < sg.newton(chemistry, np.full(3, 0.4)).iterations
    assert 1e-9 < rough.residual <= 1e-3
    assert sg.newton(chemistry, np.full(3, 0.4), xtol=1e-3).iterations < sg.newton(chemistry, np.full(3, 0.4)).iterations
    at_once = sg.newton(lambda x: x - 1, 1.0)
    assert (at_once.iterations, at_once.converged) == (0, True)


def test_containers_and_float32():
    def f(p, scale):
        return {"second": (p["a"] * p["b"] - 2.0) * scale, "first": p["a"] - p["b"].sum()}

    found = sg.newton(f, {"a": np.float32(1.0), "b": np.ones(2, np.float32)}, args=(np.float32(3.0),))
    assert found.converged
    assert found.x["b"].dtype == found.x["a"].dtype == np.float32
    np.testing.assert_allclose(found.x["b"], [1, 1], rtol=1e-6)
    np.testing.assert_allclose(found.x["a"], 2, rtol=1e-6)
    assert set(found.fun) == {"first", "second"}
    np.testing.assert_allclose(sg.newton(on_circle, [1, 0.5], args=(2.0,)).x, np.sqrt([2, 2]), rtol=1e-15)


def test_mapped_it_is_a_loop():
    radii = np.linspace(0.5, 3, 6)
    mapped = sg.vmap(lambda r: sg.newton(on_circle, np.array([1.0, 0.1]), args=(r,)))(radii)
    single = [sg.newton(on_circle, np.array([1.0, 0.1]), args=(r,)) for r in radii]
    np.testing.assert_allclose(mapped.x, [each.x for each in single], rtol=1e-14)
    np.testing.assert_array_equal(mapped.iterations, [each.iterations for each in single])
    assert mapped.converged.all()


def test_one_failure_leaves_the_others_alone():
    found = sg.vmap(lambda a: sg.newton(lambda x: x * x - a, 1.0))(np.array([4.0, -1.0, np.nan, 9.0]))
    np.testing.assert_array_equal(found.converged, [True, False, False, True])
    np.testing.assert_allclose(found.x[[0, 3]], [2, 3], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_derivatives_are_those_of_the_root(dtype):
    def root(a):
        return sg.newton(lambda x: np.stack([x[0] ** 3 + a[0] * x[1] - 3, x[1] * x[1] - a[1] * x[0]]), np.ones(2, dtype)).x

    a = np.array([1.2, 0.7], dtype)
    exact, differences = sg.jacobian(root)(a), np.zeros((2, 2))
    for k in range(2):
        step = np.zeros(2)
        step[k] = 1e-6
        wide = a.astype(np.float64)
        differences[:, k] = (_root_in_float64(wide + step) - _root_in_float64(wide - step)) / 2e-6
    assert exact.dtype == dtype
    np.testing.assert_allclose(exact, differences, rtol=1e-8 if dtype == np.float64 else 1e-5)
    np.testing.assert_allclose(sg.jacobian(root, mode="forward")(a), exact, rtol=1e-6)


def _root_in_float64(a):
    return scipy.optimize.root(lambda x: [x[0] ** 3 + a[0] * x[1] - 3, x[1] * x[1] - a[1] * x[0]], np.ones(2), tol=1e-15).x


def test_second_derivatives():
    root = sg.trace(lambda a: sg.newton(lambda x: x**3 + a * x - 3, 1.0).x, backend="interp")
    sg.check_grads(root, (1.3,), order=2)


def test_inside_of_a_loop_and_with_what_the_equations_close_over():
    @sg.trace
    def implicit_euler(rate, y):
        for _ in range(3):
            y = sg.newton(lambda new, y=y: new - y + 0.1 * rate * new**3, y).x
        return y

    rate, y = 2.0, np.array([1.0, 0.5])
    expected = y
    for _ in range(3):
        expected = scipy.optimize.root(lambda new, y=expected: new - y + 0.2 * new**3, expected, tol=1e-15).x
    np.testing.assert_allclose(implicit_euler(rate, y), expected, rtol=1e-12)
    sg.check_grads(implicit_euler, (rate, y), order=1)


def test_other_arguments_compile_nothing():
    def f(x, a):
        return x * x - a

    sg.newton(f, 1.0, args=(2.0,))
    before = sg.trace(f).cache_info().traces
    assert abs(sg.newton(f, 1.0, args=(9.0,)).x - 3) < 1e-14
    assert sg.trace(f).cache_info().traces == before


LEVEL = 4.0


def test_a_rebound_global_is_seen():
    global LEVEL

    def f(x):
        return x * x - LEVEL

    assert abs(sg.newton(f, 1.0).x - 2) < 1e-14
    LEVEL = 9.0
    assert abs(sg.newton(f, 1.0).x - 3) < 1e-14


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ShapeError, "1 equations for 2 unknowns", lambda: sg.newton(lambda x: x[0], np.ones(2))),
        (DTypeError, "equations are floats", lambda: sg.newton(lambda x: x > 0, np.ones(2))),
        (DTypeError, "parameter .* has dtype int64", lambda: sg.newton(lambda x: x, np.array([1, 2]))),
        (ArgumentError, "args must be a tuple", lambda: sg.newton(lambda x, a: x - a, 1.0, args=2.0)),
        (InvalidValueError, "maxiter=-1", lambda: sg.newton(lambda x: x, 1.0, maxiter=-1)),
        (InvalidValueError, "xtol=-1.0", lambda: sg.newton(lambda x: x, 1.0, xtol=-1.0)),
    ],
)
def test_errors(error, words, call):
    with pytest.raises(error, match=f"(?s){words}.*test_newton.py"):
        call()
