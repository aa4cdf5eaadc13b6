"""`lbfgs`: against SciPy's minimisers, as a part of traced functions, with derivatives, and where there is no minimum."""

import numpy as np
import pytest
import scipy.optimize

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from tests.optim.minimisation_problems import MINIMISATION


def rosenbrock(x, a=1.0):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)


def beale(p):
    x, y = p[0], p[1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


NOISE = np.random.default_rng(3)
X = NOISE.normal(size=(60, 5))
SIGNS = np.where(X @ np.arange(5) + NOISE.normal(size=60) > 0, 1.0, -1.0)


def logistic(w):
    return np.mean(np.log1p(np.exp(-SIGNS * (X @ w)))) + 0.01 * np.sum(w * w)


def scaled(x):
    return np.sum(10.0 ** np.arange(0, 8, 2) * (x - 1) ** 2) + np.sum((x - 1) ** 4)


PROBLEMS = [(rosenbrock, np.full(6, -1.2)), (beale, np.array([1.0, 1.0])), (logistic, np.zeros(5)), (scaled, np.zeros(4))]


@pytest.mark.parametrize(("f", "start"), PROBLEMS)
def test_minima_are_those_of_scipy(f, start):
    found = sg.lbfgs(f, start)
    gradient = sg.grad(f)
    best = min(
        (scipy.optimize.minimize(f, start, jac=gradient, method=m, tol=1e-12) for m in ("BFGS", "L-BFGS-B")), key=lambda result: result.fun
    )
    assert found.converged
    np.testing.assert_allclose(found.x, best.x, rtol=1e-6, atol=1e-6)
    assert found.fun <= best.fun + 1e-12
    np.testing.assert_allclose(found.grad, gradient(found.x), atol=1e-15)
    assert found.iterations <= found.evaluations <= 200


@pytest.fixture(scope="module")
def compared():
    """Each of More, Garbow and Hillstrom's problems, and others: SciPy's result and ours."""
    found = {}
    for name, (f, start) in MINIMISATION.items():
        both = sg.value_and_grad(sg.trace(f, backend="interp"))
        options = {"gtol": 1.5e-8, "ftol": 2.3e-16, "maxcor": 10}
        with np.errstate(all="ignore"):
            theirs = scipy.optimize.minimize(both, start, jac=True, method="L-BFGS-B", options=options)
        found[name] = theirs, sg.lbfgs(f, start)
    return found


@pytest.mark.parametrize("name", MINIMISATION)
def test_problems_of_the_literature(compared, name):
    theirs, ours = compared[name]
    assert ours.converged
    assert ours.fun <= theirs.fun + 1e-9 * (1 + abs(theirs.fun)) or np.isnan(theirs.fun)


def test_it_takes_no_more_evaluations_than_scipy(compared):
    """On the whole, those left out where SciPy's minimiser gave up."""
    pairs = [(theirs.nfev, int(ours.evaluations)) for theirs, ours in compared.values() if theirs.fun <= ours.fun * (1 + 1e-6) + 1e-12]
    assert len(pairs) >= 15
    assert sum(ours for _, ours in pairs) <= 1.1 * sum(theirs for theirs, _ in pairs)


@pytest.mark.parametrize(
    ("f", "start", "least"),
    [
        (lambda x: np.sum(x - np.log(x)), 50.0, 1.0),  # NaN below 0, with a finite slope
        (lambda x: np.sum(np.where(x < 3, np.inf, (x - 4.0) ** 2)), 100.0, 0.0),  # a wall close to the minimum
        (lambda x: np.sum(np.exp(x) - x), -700.0, 1.0),  # overflow far off
        (lambda x: np.sum(np.abs(x - 0.3)), 1.0, 0.0),  # a kink at the minimum
        (lambda x: np.sum(np.where(x > 1e3, np.nan, x * x)), 999.0, 0.0),
    ],
)
def test_it_steps_back_from_what_is_not_finite(f, start, least):
    found = sg.lbfgs(f, np.full(2, start), maxiter=500)
    assert found.converged
    np.testing.assert_allclose(found.fun, 2 * least, rtol=1e-9, atol=1e-9)


def test_a_quadratic_is_done_in_about_as_many_steps_as_dimensions():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(8, 8))
    matrix, b = a @ a.T + np.eye(8), rng.normal(size=8)
    found = sg.lbfgs(lambda x: x @ matrix @ x / 2 - b @ x, np.zeros(8))
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)
    assert found.iterations < 40


def test_history_is_of_use():
    counts = [int(sg.lbfgs(rosenbrock, np.full(10, -1.2), history=m).iterations) for m in (1, 10)]
    assert counts[1] < counts[0]


@pytest.mark.parametrize(
    ("f", "start", "status"),
    [
        (lambda x: np.sum(x), np.ones(2), -2),  # falls without end
        (lambda x: np.log(x), -1.0, -1),
        (lambda x: np.sqrt(x), 0.0, -1),  # no finite slope
        (lambda x: np.sum(np.abs(x - 0.3)) * 1e300 * 1e300, np.ones(2), -1),
    ],
)
def test_what_has_no_minimum_is_reported(f, start, status):
    found = sg.lbfgs(f, start, maxiter=100)
    assert found.status == status
    assert not found.converged


def test_a_slope_that_lies_is_reported():
    @sg.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: (-g,))
    assert sg.lbfgs(lambda x: f(x) ** 2 + 1, 1.0).status == -2


def test_options():
    start = np.full(4, -1.2)
    assert sg.lbfgs(rosenbrock, start, maxiter=0).iterations == 0
    short = sg.lbfgs(rosenbrock, start, maxiter=3)
    assert (short.iterations, short.status, short.converged) == (3, 0, False)
    rough, exact = sg.lbfgs(rosenbrock, start, gtol=1.0), sg.lbfgs(rosenbrock, start, gtol=1e-12, ftol=0.0)
    assert rough.status == exact.status == 1
    assert rough.iterations < exact.iterations
    assert np.abs(exact.grad).max() <= 1e-12
    assert sg.lbfgs(lambda x: rosenbrock(x) + 1e3, start, gtol=0.0, ftol=1e-3).status == 2
    at_once = sg.lbfgs(rosenbrock, np.ones(4))
    assert (at_once.iterations, at_once.evaluations, at_once.status) == (0, 1, 1)


def test_containers_and_float32():
    def f(p, target):
        return np.sum((p["w"] - target) ** 2) + (p["b"] + 1) ** 2 * np.sum(p["w"] ** 2)

    target = np.array([1.0, 2.0], np.float32)
    found = sg.lbfgs(f, {"w": np.zeros(2, np.float32), "b": np.float32(0.5)}, args=(target,))
    assert found.converged
    assert found.x["w"].dtype == found.grad["b"].dtype == found.fun.dtype == np.float32
    np.testing.assert_allclose(found.x["w"], target, rtol=1e-3)
    np.testing.assert_allclose(found.x["b"], -1, rtol=1e-3)
    np.testing.assert_allclose(sg.lbfgs(lambda x: (x[0] - 1) ** 2 + (x[1] + 2) ** 2, [0, 0]).x, [1, -2])


def test_mapped_it_is_a_loop_and_one_failure_leaves_the_others_alone():
    goals = np.array([0.7, 1.0, np.nan, 1.2])
    mapped = sg.vmap(lambda a: sg.lbfgs(rosenbrock, np.zeros(3), args=(a,)))(goals)
    np.testing.assert_array_equal(mapped.status, [1, 1, -1, 1])
    for k in (0, 1, 3):
        single = sg.lbfgs(rosenbrock, np.zeros(3), args=(goals[k],))
        np.testing.assert_allclose(mapped.x[k], single.x, rtol=1e-12)
        assert (mapped.iterations[k], mapped.evaluations[k]) == (single.iterations, single.evaluations)


def test_derivatives_are_those_of_the_minimum():
    def minimum(a):
        return sg.lbfgs(lambda x: np.sum(np.cosh(x - a)) + x[0] * x[1] * a[0], np.zeros(2), gtol=1e-13, ftol=0.0).x

    a, step = np.array([0.4, -0.3]), 1e-5
    f = sg.trace(minimum)
    differences = np.stack([(f(a + step * e) - f(a - step * e)) / (2 * step) for e in np.eye(2)], axis=1)
    np.testing.assert_allclose(sg.jacobian(minimum)(a), differences, rtol=1e-7)
    np.testing.assert_allclose(sg.vmap(sg.jacobian(minimum))(np.stack([a, a]))[1], differences, rtol=1e-7)


def test_the_minimum_does_not_depend_on_the_start():
    assert sg.grad(lambda start: sg.lbfgs(lambda x: (x - 3.0) ** 2, start).x)(1.0) == 0


def test_what_is_learnt_from_a_fit_inside():
    """The regularisation that makes a ridge regression predict best: a gradient through the fit."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(20, 3)), rng.normal(size=(9, 3))
    y, v = x @ np.ones(3) + rng.normal(size=20), z @ np.ones(3)

    def loss(penalty):
        w = sg.lbfgs(lambda w: np.sum((x @ w - y) ** 2) + penalty * np.sum(w * w), np.zeros(3), gtol=1e-12, ftol=0.0).x
        return np.sum((z @ w - v) ** 2)

    def exact(penalty):
        w = np.linalg.solve(x.T @ x + penalty * np.eye(3), x.T @ y)
        return np.sum((z @ w - v) ** 2)

    np.testing.assert_allclose(sg.grad(loss)(2.0), (exact(2 + 1e-5) - exact(2 - 1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ShapeError, "must return one number", lambda: sg.lbfgs(lambda x: x, np.ones(2))),
        (DTypeError, "bool", lambda: sg.lbfgs(lambda x: x[0] > 0, np.ones(2))),
        (DTypeError, "parameter .* has dtype int64", lambda: sg.lbfgs(np.sum, np.array([1, 2]))),
        (ArgumentError, "args must be a tuple", lambda: sg.lbfgs(lambda x, a: x - a, 1.0, args=2.0)),
        (InvalidValueError, "history=0", lambda: sg.lbfgs(lambda x: x, 1.0, history=0)),
        (InvalidValueError, "gtol=-1.0", lambda: sg.lbfgs(lambda x: x, 1.0, gtol=-1.0)),
    ],
)
def test_errors(error, words, call):
    with pytest.raises(error, match=f"(?s){words}.*test_lbfgs.py"):
        call()


RANDOM = NOISE.normal(size=(12, 12))
CONVEX, PULL = RANDOM @ RANDOM.T + 0.1 * np.eye(12), 5 * NOISE.normal(size=12)


def quadratic(x):
    return x @ CONVEX @ x / 2 - PULL @ x


BOUNDED = [
    (rosenbrock, np.full(6, -1.2), (-1.5, 0.5)),
    (rosenbrock, np.full(10, 3.0), (1.2, 4.0)),
    (rosenbrock, np.full(4, -1.2), (-2.0, np.array([0.5, 0.8, np.inf, 0.2]))),
    (quadratic, np.zeros(12), (0.0, np.inf)),
    (quadratic, np.full(12, 0.5), (-0.1, 0.5)),
    (lambda x: np.sum(x - np.log(x)), np.full(5, 0.5), (1e-3, 0.7)),
]


def test_minima_within_bounds_are_those_of_scipy():
    """Found with about as many evaluations, all of them within the bounds."""
    counts = []
    for f, start, bounds in BOUNDED:
        found = sg.lbfgs(f, start, bounds=bounds)
        limits = scipy.optimize.Bounds(*(np.broadcast_to(each, start.shape) for each in bounds))
        options = {"gtol": 1e-8, "ftol": 1e-15}
        best = scipy.optimize.minimize(f, start, jac=sg.grad(f), method="L-BFGS-B", bounds=limits, options=options)
        assert found.converged
        assert np.all((limits.lb <= found.x) & (found.x <= limits.ub))
        np.testing.assert_allclose(found.x, best.x, atol=1e-7)
        assert found.fun <= best.fun + 1e-12 * abs(best.fun)
        counts.append((int(found.evaluations), best.nfev))
    ours, theirs = np.sum(counts, axis=0)
    assert ours <= 1.5 * theirs


def test_derivatives_within_bounds():
    """A parameter that is held up moves with its bound, the others with the data, and with what the bounds do to them."""

    @sg.trace(backend="interp")
    def minimum(a, lower, upper):
        return sg.lbfgs(lambda x: np.sum((x - a) ** 2) + x[0] * x[1], np.full(3, 0.5), bounds=(lower, upper), gtol=1e-13, ftol=0.0).x

    a, lower, upper = np.array([2.0, 0.9, -1.0]), np.zeros(3), np.ones(3)
    np.testing.assert_allclose(minimum(a, lower, upper), [1.0, 0.4, 0.0], atol=1e-12)
    by_data, by_lower, by_upper = sg.jacobian(minimum, (0, 1, 2))(a, lower, upper)
    np.testing.assert_allclose(by_data, np.diag([0.0, 1.0, 0.0]), atol=1e-12)
    np.testing.assert_allclose(by_lower, np.diag([0.0, 0.0, 1.0]), atol=1e-12)
    np.testing.assert_allclose(by_upper, [[1, 0, 0], [-0.5, 0, 0], [0, 0, 0]], atol=1e-12)
    many = sg.vmap(minimum, (0, None, 0))(np.stack([a, -a]), lower, np.stack([upper, 2 * upper]))
    np.testing.assert_allclose(many, [[1.0, 0.4, 0.0], [0.0, 0.0, 1.0]], atol=1e-12)


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ((1.0, 0.0), InvalidValueError, "lbfgs: each lower bound"),
        ((2.0, 3.0), InvalidValueError, r"lbfgs: x0 is not within the bounds: parameter 0 is 0.5, not in \[2.0, 3.0\]"),
        (([0.0, 0.0], 1.0), ShapeError, r"lbfgs: the lower bounds have shape \(2,\)"),
        ((0.0,), ArgumentError, r"expected a pair \(lower, upper\)"),
    ],
)
def test_bounds_that_are_none(bounds, error, words):
    with pytest.raises(error, match=words):
        sg.lbfgs(rosenbrock, np.full(3, 0.5), bounds=bounds)
