"""`least_squares`, its two optimisers, and what they do where a problem is singular, not finite, or no problem at all."""

from typing import NamedTuple

import numpy as np
import pytest
import scipy.optimize

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError, StaticgradError, TraceError, UnsupportedError
from staticgrad.optim import gauss_newton, levenberg_marquardt

METHODS = ("lm", "gauss-newton")
X = np.linspace(0, 4, 40)
Y = 2 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.sin(37 * X)


def decay(b, x, y):
    return b[0] * np.exp(-b[1] * x) + b[2] - y


def rosenbrock(p):
    return np.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


def box(p):
    """Box's exponential function."""
    t = np.arange(1, 11) / 10
    return np.exp(-p[0] * t) - np.exp(-p[1] * t) - p[2] * (np.exp(-t) - np.exp(-10 * t))


def powell(p):
    """Powell's function, whose Jacobian is singular at the minimum."""
    return np.stack([p[0] + 10 * p[1], np.sqrt(5) * (p[2] - p[3]), (p[1] - 2 * p[2]) ** 2, np.sqrt(10) * (p[0] - p[3]) ** 2])


def freudenstein(p):
    return np.stack([-13 + p[0] + ((5 - p[1]) * p[1] - 2) * p[1], -29 + p[0] + ((p[1] + 1) * p[1] - 14) * p[1]])


PROBLEMS = {
    "decay": (lambda b: decay(b, X, Y), [1.0, 1.0, 0.0]),
    "rosenbrock": (rosenbrock, [-1.2, 1.0]),
    "box": (box, [0.0, 10.0, 20.0]),
    "powell": (powell, [3.0, -1.0, 0.0, 1.0]),
    "freudenstein": (freudenstein, [15.0, -2.0]),
    "linear": (lambda p: np.vander(X, 4) @ p - Y, [0.0, 0.0, 0.0, 0.0]),
}


# ---- against SciPy


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_are_those_of_scipy(name):
    residuals, start = PROBLEMS[name]
    ours = sg.least_squares(residuals, start)
    theirs = scipy.optimize.least_squares(residuals, start, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=2000)
    assert ours.success
    assert ours.cost <= theirs.cost * (1 + 1e-12) + 1e-30
    if name != "powell":  # where the last digits of x do not matter to the residuals
        np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-5, atol=1e-9)
    at_theirs = scipy.optimize.least_squares(residuals, ours.x, jac="cs" if name == "linear" else "3-point", method="lm", max_nfev=1)
    np.testing.assert_allclose(ours.jac, at_theirs.jac, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(ours.fun, residuals(ours.x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.grad, ours.jac.T @ ours.fun, rtol=1e-9, atol=1e-12)
    assert ours.optimality == np.max(np.abs(ours.grad))
    assert ours.nfev == ours.njev == 1 + sum(np.isfinite(trial.cost) for trial in ours.history)


def test_the_covariance_is_that_of_curve_fit():
    found = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y))
    best, covariance = scipy.optimize.curve_fit(
        lambda x, a, b, c: a * np.exp(-b * x) + c, X, Y, [1.0, 1.0, 0.0], ftol=1e-14, xtol=1e-14, gtol=1e-14
    )
    np.testing.assert_allclose(found.x, best, rtol=1e-7)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-5)
    np.testing.assert_allclose(found.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-5)


def test_the_result_reads_well():
    shown = repr(sg.least_squares(rosenbrock, [-1.2, 1.0]))
    assert "success: True" in shown
    assert shown.endswith("x: [1. 1.]")


BARD = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])


def bard(p):
    u = np.arange(1.0, 16.0)
    return BARD - (p[0] + u / ((16 - u) * p[1] + np.minimum(u, 16 - u) * p[2]))


def brown_dennis(p):
    t = np.arange(1, 21) / 5
    return (p[0] + t * p[1] - np.exp(t)) ** 2 + (p[2] + p[3] * np.sin(t) - np.cos(t)) ** 2


@pytest.mark.parametrize("factor", [1, 10, 100])
@pytest.mark.parametrize(
    ("residuals", "start", "least"),
    [
        (rosenbrock, [-1.2, 1.0], 0),
        (powell, [3.0, -1.0, 0.0, 1.0], 0),
        (freudenstein, [0.5, -2.0], 48.9842),
        (bard, [1.0, 1.0, 1.0], 8.21487e-3),
        (brown_dennis, [25.0, 5.0, -5.0, -1.0], 85822.2),
    ],
)
def test_far_starts(residuals, start, least, factor):
    """From the starts of More, Garbow and Hillstrom (ACM TOMS 7, 1981), and from 10 and 100 times them, to their least sums of squares."""
    found = sg.least_squares(residuals, factor * np.array(start))
    assert found.success
    assert 2 * found.cost == pytest.approx(least, rel=1e-5, abs=1e-25)


# ---- what goes in


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "start",
    [
        {"height": 1.0, "rate": np.ones((1, 1)), "base": [np.zeros(1)]},
        {"height": np.float32(1), "rate": np.ones((1, 1)), "base": [np.zeros(1, np.float32)]},
        {"height": 1, "rate": np.ones((1, 1)), "base": [0]},
    ],
    ids=["float64", "mixed", "whole"],
)
def test_parameters_in_containers(method, start):
    def residuals(p, x, *, y):
        fit = p["height"] * np.exp(-p["rate"][0, 0] * x) + p["base"][0]
        return {"first": (fit - y)[:10].reshape(2, 5), "rest": (fit - y)[10:]}

    flat = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y))
    found = sg.least_squares(residuals, start, args=(X,), kwargs={"y": Y}, method=method)
    assert found.success
    np.testing.assert_allclose(found.x["height"], flat.x[0], rtol=1e-6)
    np.testing.assert_allclose(found.x["rate"], flat.x[1:2][:, None], rtol=1e-6)
    assert found.x["rate"].shape == (1, 1)
    assert found.fun["first"].shape == (2, 5)
    order = [2, 0, 1]  # leaves are ordered by their keys
    np.testing.assert_allclose(found.jac, flat.jac[:, order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.standard_errors["rate"][0, 0], flat.standard_errors[1], rtol=1e-5)
    assert (
        np.asarray(found.x["height"]).dtype == np.asarray(float(start["height"]) if type(start["height"]) is int else start["height"]).dtype
    )


class Line(NamedTuple):
    slope: float
    offset: float


def test_a_named_tuple_stays_one():
    found = sg.least_squares(lambda p: p.slope * X + p.offset - 3 * X, Line(0.0, 1.0))
    assert type(found.x) is Line
    np.testing.assert_allclose(found.x, (3, 0), atol=1e-14)


@pytest.mark.parametrize("start", [[-1.2, 1.0], (-1.2, 1.0), [-2, 1], [np.float64(-1.2), 1]])
def test_a_list_of_numbers_is_an_array(start):
    found = sg.least_squares(lambda p: rosenbrock(p * 1), start)
    assert isinstance(found.x, np.ndarray)
    np.testing.assert_allclose(found.x, [1, 1], rtol=1e-12)


def test_one_number():
    found = sg.least_squares(lambda p: p**2 - 2, 1.0)
    assert found.x.shape == ()
    assert abs(found.x - np.sqrt(2)) < 1e-15
    assert found.jac.shape == (1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_float32(method):
    x, y = X.astype(np.float32), Y.astype(np.float32)
    found = sg.least_squares(decay, np.array([1, 1, 0], np.float32), args=(x, y), method=method)
    wide = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y))
    assert found.success
    assert len(found.history) < 40
    assert found.x.dtype == found.fun.dtype == found.jac.dtype == np.float32
    np.testing.assert_allclose(found.x, wide.x, rtol=1e-5)
    np.testing.assert_allclose(found.standard_errors, wide.standard_errors, rtol=1e-4)


def test_other_data_of_the_same_shape_compile_nothing():
    traced = sg.trace(lambda b, x, y: decay(b, x, y))
    sg.least_squares(traced, [1.0, 1.0, 0.0], args=(X, Y))
    before = traced.cache_info()
    other = sg.least_squares(traced, [1.0, 1.0, 0.0], args=(X, 2 * Y))
    assert traced.cache_info() == before
    assert before.traces == 1
    np.testing.assert_allclose(other.x[0], 2 * sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y)).x[0], rtol=1e-10)


def test_options_of_the_residuals_are_static():
    powers = sg.trace(lambda p, x, degree: p[0] * x**degree - 2 * x**2, static_argnames="degree")
    assert sg.least_squares(powers, [1.0], args=(X, 2)).x == pytest.approx([2], rel=1e-14)
    assert sg.least_squares(powers, [1.0], args=(X,), kwargs={"degree": 2}).x == pytest.approx([2], rel=1e-14)


def test_tensors_as_data():
    found = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(sg.tensor(X), Y))
    assert type(found.x) is type(found.jac) is np.ndarray
    np.testing.assert_array_equal(found.x, sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y)).x)


def test_a_rebound_global_is_seen():
    global weight
    weight = 1.0
    assert abs(sg.least_squares(weighted, 1.0).x - 1) < 1e-14
    weight = 2.0
    assert abs(sg.least_squares(weighted, 1.0).x - 2) < 1e-14


weight = 1.0


def weighted(p):
    return p - weight


# ---- the steps


def test_the_gradient_is_that_of_the_lecture():
    """For eps = Y - f(X, p) and the loss eps^T eps: dL/dp = 2 J_eps^T eps = -2 J_f^T eps."""
    p = np.array([1.0, 1.5, 0.2])
    state = levenberg_marquardt().init(p, lambda p: -decay(p, X, Y))
    jacobian, epsilon = state.linear.transposed.T, state.linear.residuals
    slope = sg.grad(lambda p: np.sum(decay(p, X, Y) ** 2))(p)
    np.testing.assert_allclose(2 * jacobian.T @ epsilon, slope, rtol=1e-12)
    np.testing.assert_allclose(jacobian, -sg.jacobian(lambda p: decay(p, X, 0 * Y))(p), rtol=1e-12)
    np.testing.assert_allclose(2 * state.linear.gradient, slope, rtol=1e-12)
    np.testing.assert_allclose(state.linear.gram, jacobian.T @ jacobian, rtol=1e-12)


@pytest.mark.parametrize("optimizer", [levenberg_marquardt(), levenberg_marquardt(1e-4, acceleration=False), gauss_newton()])
def test_a_step_stays_only_if_the_cost_falls(optimizer):
    found = sg.least_squares(freudenstein, [15.0, -2.0], method=optimizer)
    costs = [sum(freudenstein(p) ** 2) / 2 for p in found.path]
    assert len(found.path) == len(found.history) + 1
    assert 0 < sum(trial.accepted for trial in found.history) < len(found.history)
    for trial, before, after, old, new in zip(found.history, costs, costs[1:], found.path, found.path[1:], strict=False):
        if trial.accepted:
            assert after < before * (1 + 1e-14)
            np.testing.assert_allclose(trial.cost, after, rtol=1e-12)
        else:
            assert new is old
            assert not trial.cost < before
    assert found.cost == pytest.approx(costs[-1], rel=1e-12)


def test_the_damping_follows():
    """It falls, at most to a third, after a step that stayed; otherwise it grows by 2, 4, 8 ..."""
    found = sg.least_squares(freudenstein, [15.0, -2.0], method=levenberg_marquardt(1e-4, acceleration=False))
    growth, grown = 2.0, 0
    for trial, following in zip(found.history, found.history[1:], strict=False):
        factor = following.control / trial.control
        if trial.accepted:
            ratio = min(trial.fall / trial.predicted, 1)
            assert factor == pytest.approx(max(1 / 3, 1 - (2 * ratio - 1) ** 3))
            growth = 2.0
        else:
            assert factor == growth
            growth, grown = 2 * growth, grown + 1
    assert grown > 2


def test_a_damped_step_solves_the_damped_normal_equations():
    p = np.array([1.0, 1.5, 0.2])
    optimizer = levenberg_marquardt(0.1, acceleration=False)
    state = optimizer.init(p, decay, X, Y)
    moved, after = optimizer.update(p, decay, state, X, Y)
    jacobian = sg.jacobian(decay)(p, X, Y)
    damped = np.vstack([jacobian, np.diag(np.sqrt(0.1) * np.linalg.norm(jacobian, axis=0))])
    step = np.linalg.lstsq(damped, -np.append(decay(p, X, Y), np.zeros(3)))[0]
    np.testing.assert_allclose(moved - p, step, rtol=1e-9)
    assert after.last.accepted
    again, _ = optimizer.update(p, decay, state, X, Y)  # nothing was changed by the first call
    np.testing.assert_array_equal(again, moved)


def test_the_acceleration_is_half_of_the_second_derivative():
    """For residuals that are quadratic along the step the accelerated step is the second-order one."""
    p, optimizer = np.array([2.0]), levenberg_marquardt(1e-12)
    square = lambda p: p + 0.01 * p**2  # noqa: E731
    moved, state = optimizer.update(p, square, optimizer.init(p, square))
    slope, residual = 1 + 0.02 * 2, 2 + 0.01 * 4
    velocity = -residual / slope
    np.testing.assert_allclose(moved - p, velocity - 0.02 * velocity**2 / slope / 2, rtol=1e-9)
    assert state.last.accepted


def test_gauss_newton_jumps_to_the_minimum_of_a_linear_model():
    found = sg.least_squares(PROBLEMS["linear"][0], np.zeros(4), method="gauss-newton")
    np.testing.assert_allclose(found.path[1], np.linalg.lstsq(np.vander(X, 4), Y)[0], rtol=1e-10)


def test_gauss_newton_halves_its_jump():
    found = sg.least_squares(lambda p: np.arctan(p), 3.0, method="gauss-newton")
    assert [trial.control for trial in found.history[:3]] == [1, 0.5, 0.25]
    assert abs(found.x) < 1e-12


def test_parameters_get_all_their_digits():
    """Not only the half that a sum of squares resolves: this one has its minimum at a known place."""
    target = np.array([0.3, 0.7])
    found = sg.least_squares(lambda p: np.concatenate([np.exp(p) - np.exp(target), np.array([1e3, 2e3])]), [0.0, 0.0])
    np.testing.assert_allclose(found.x, target, rtol=1e-13)


# ---- singular, not finite


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("residuals", "extra"),
    [
        (lambda b: decay(b, X, Y), 7.0),
        (lambda b: decay(np.stack([b[0] + b[3], b[1], b[2]]), X, Y), 0.5),
        (lambda b: decay(np.stack([b[0] * b[3], b[1], b[2]]), X, Y), 1.5),
    ],
    ids=["a parameter without influence", "a sum of two", "a product of two"],
)
def test_parameters_that_the_residuals_do_not_determine(method, residuals, extra):
    best = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y))
    found = sg.least_squares(residuals, [1.0, 1.0, 0.0, extra], method=method)
    assert found.success
    assert len(found.history) < 40
    np.testing.assert_allclose(found.cost, best.cost, rtol=1e-12)
    np.testing.assert_allclose(found.x[1:3], best.x[1:], rtol=1e-7)
    assert np.all(np.isinf(found.covariance))


@pytest.mark.parametrize("method", METHODS)
def test_more_parameters_than_residuals(method):
    found = sg.least_squares(lambda p: np.stack([p[0] * p[1] - 2, p[2] + p[3] * p[0] - 1]), np.ones(4), method=method)
    assert found.success
    assert found.cost < 1e-28
    assert np.all(np.isinf(found.standard_errors))


def test_a_parameter_whose_influence_is_lost_in_rounding():
    """exp(-1000 t) moves nothing at first; the damping of the others must not wait for that of this one."""
    found = sg.least_squares(box, [0.0, 1000.0, 2000.0])
    assert found.success
    assert found.cost < 0.0378
    assert len(found.history) < 60


@pytest.mark.parametrize("method", METHODS)
def test_a_minimum_without_slope(method):
    found = sg.least_squares(lambda p: p**2, np.ones(3), method=method)
    assert found.success
    assert np.all(np.abs(found.x) < 1e-6)


def test_no_step_lowers_the_cost():
    """At a kink the derivative of one side tells nothing of the other: it ends where it started."""
    found = sg.least_squares(lambda p: 1 + np.where(p < 0, -p, 2 * p), 0.0)
    assert abs(found.x) < 1e-16
    assert found.cost == 0.5
    assert len(found.history) < 100


def test_no_damping_is_too_much():
    optimizer, start = levenberg_marquardt(damping=1e300), np.array([1e200, 1.0])
    found = sg.least_squares(lambda p: p * np.array([1e-100, 1e100]) - 1, start, method=optimizer, max_nfev=50)
    assert np.all(np.isfinite(found.x))


def test_nothing_to_do():
    found = sg.least_squares(lambda p: p - 1, np.ones(2))
    assert (found.status, found.nfev, found.history, found.cost) == (1, 1, [], 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_out_of_the_domain_does_not_stay(method):
    found = sg.least_squares(lambda p: np.sqrt(p) - np.array([1.0, 2.0]), np.array([100.0, 1e-3]), method=method)
    np.testing.assert_allclose(found.x, [1, 4], rtol=1e-12)
    assert not all(trial.accepted for trial in found.history)


@pytest.mark.parametrize("method", METHODS)
def test_overflow_on_the_way(method):
    found = sg.least_squares(lambda p: np.exp(p) - 1, np.array([-30.0]), method=method)
    assert found.success
    assert abs(found.x[0]) < 1e-12


@pytest.mark.parametrize("optimizer", [levenberg_marquardt(), gauss_newton()])
@pytest.mark.parametrize(
    ("residuals", "start", "words"),
    [
        (np.log, [2.0, -1.0], "residual 1 is nan"),
        (np.sqrt, [0.0, 1.0], "derivative of the residuals by parameter 0"),
        (lambda p: 1e200 * p, [1.0], "overflow"),
    ],
)
def test_residuals_must_be_finite_at_first(optimizer, residuals, start, words):
    with pytest.raises(InvalidValueError, match=words), np.errstate(all="ignore"):
        sg.least_squares(residuals, start, method=optimizer)


def test_bounds_on_the_steps():
    for most in (1, 2, 5):
        found = sg.least_squares(rosenbrock, [-1.2, 1.0], max_nfev=most)
        assert (found.status, found.success, len(found.history)) == (0, False, most - 1)
        assert found.nfev <= most


@pytest.mark.parametrize(("option", "status"), [("ftol", 2), ("xtol", 3), ("gtol", 1)])
def test_tolerances(option, status):
    exact = {"ftol": 0, "xtol": 0, "gtol": 0}
    loose = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y), **(exact | {option: 1e-3}))
    tight = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y))
    assert loose.status == status
    assert loose.nfev < tight.nfev
    np.testing.assert_allclose(loose.x, tight.x, rtol=0.05)


# ---- what is not there


@pytest.mark.parametrize(
    ("kind", "words", "call"),
    [
        (DTypeError, "int64", lambda: sg.least_squares(rosenbrock, np.array([1, 2]))),
        (DTypeError, "bool", lambda: sg.least_squares(rosenbrock, [True, False])),
        (DTypeError, r"\['a'\] has dtype int32", lambda: sg.least_squares(rosenbrock, {"a": np.ones(2, np.int32)})),
        (DTypeError, "residuals are floats", lambda: sg.least_squares(lambda p: np.arange(3), [1.0])),
        (ArgumentError, "function", lambda: sg.least_squares(3, [1.0])),
        (ArgumentError, "str", lambda: sg.least_squares(rosenbrock, "start")),
        (ArgumentError, "missing a required argument: 'y'", lambda: sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X,))),
        (ArgumentError, "args must be a tuple", lambda: sg.least_squares(decay, [1.0, 1.0, 0.0], args=X)),
        (ShapeError, "0 residuals", lambda: sg.least_squares(lambda p: p[:0], [1.0])),
        (ShapeError, "0 residuals", lambda: sg.least_squares(lambda p: None, [1.0])),
        (ShapeError, "0 parameters", lambda: sg.least_squares(lambda p: X, np.zeros(0))),
        (ShapeError, "cannot be broadcast", lambda: sg.least_squares(decay, [1.0, 1.0, 0.0], args=(X, Y[:-1]))),
        (InvalidValueError, "8e.03 GB", lambda: sg.least_squares(lambda p: p, np.zeros(1_000_000))),
        (InvalidValueError, "'newton'", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], method="newton")),
        (InvalidValueError, "max_nfev", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], max_nfev=0)),
        (InvalidValueError, "ftol", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], ftol=-1)),
        (ArgumentError, "xtol", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], xtol="small")),
        (ArgumentError, "no option 'tolerance'", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], tolerance=1)),
        (UnsupportedError, "damping", lambda: sg.least_squares(rosenbrock, [0.0, 0.0], bounds=(-1, 1), method="gauss-newton")),
        (ArgumentError, "a pair", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], bounds=(1, 2, 3))),
        (ShapeError, "lower bounds have shape", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], bounds=([0, 0, 0], 5))),
        (InvalidValueError, "must be less", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], bounds=(1, 1))),
        (InvalidValueError, "parameter 1 is 1.0, not in", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], bounds=(0, [2, 0.5]))),
        (ArgumentError, "the upper bounds are", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], bounds=(0, {"a": 1, "b": 1}))),
        (InvalidValueError, "'l2'", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], loss="l2")),
        (ArgumentError, "loss=2", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], loss=2)),
        (InvalidValueError, "f_scale=0", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], loss="huber", f_scale=0)),
        (InvalidValueError, "x_scale='auto'", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], x_scale="auto")),
        (InvalidValueError, "x_scale=-1", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], x_scale=-1)),
        (UnsupportedError, "history", lambda: sg.least_squares(rosenbrock, [1.0, 1.0], verbose=2)),
        (InvalidValueError, "gauss_newton", lambda: levenberg_marquardt(damping=0)),
        (InvalidValueError, "damping", lambda: levenberg_marquardt(damping=-1)),
        (ArgumentError, "damping", lambda: levenberg_marquardt(rosenbrock)),
        (ArgumentError, "state", lambda: levenberg_marquardt().update(np.ones(2), rosenbrock, None)),
        (ArgumentError, "state", lambda: gauss_newton().update(np.ones(3), rosenbrock, gauss_newton().init(np.ones(2), rosenbrock))),
        (ArgumentError, "residuals, not the gradient", lambda: sg.Trainer(rosenbrock, levenberg_marquardt())),
        (TraceError, "cannot be traced", lambda: sg.trace(lambda p: gauss_newton().init(p, rosenbrock).scale)(np.ones(2))),
    ],
)
def test_errors(kind, words, call):
    with pytest.raises(kind, match=words) as caught:
        call()
    assert isinstance(caught.value, StaticgradError)
    assert "test_least_squares.py" in str(caught.value)


def test_options_of_scipy_that_say_what_is_done_anyway():
    found = sg.least_squares(rosenbrock, [-1.2, 1.0], bounds=(-np.inf, np.inf), loss="linear", x_scale="jac", verbose=0)
    np.testing.assert_allclose(found.x, [1, 1], rtol=1e-14)
