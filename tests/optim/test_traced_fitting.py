"""`least_squares` inside of traced functions: as its driver outside, mapped, with derivatives, and where it fails."""

import numpy as np
import pytest
import scipy.optimize

import staticgrad as sg
from staticgrad.errors import DTypeError, ShapeError, TraceError, UnsupportedError
from staticgrad.optim import gauss_newton, levenberg_marquardt

T = np.linspace(0, 4, 20)
START = np.array([1.0, 1.0])


def decay(p, y):
    return p[0] * np.exp(-p[1] * T) - y


def rosenbrock(p, a=1.0):
    return np.stack([10 * (p[1] - p[0] ** 2), a - p[0]])


def noisy(count, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 2, (count, 2))
    return true[:, :1] * np.exp(-true[:, 1:] * T) + 0.02 * rng.normal(size=(count, 20))


def fit(y, **options):
    return sg.least_squares(decay, START, args=(y,), **options)


METHODS = ["lm", "gauss-newton", levenberg_marquardt(damping=0.1, acceleration=False), gauss_newton()]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_it_goes_the_way_of_the_driver(method):
    for residuals, start in ((lambda p: decay(p, Y), START), (rosenbrock, np.array([-1.2, 1.0]))):
        driver = sg.least_squares(residuals, start, method=method)
        found = sg.trace(lambda x0, residuals=residuals: sg.least_squares(residuals, x0, method=method))(start)
        np.testing.assert_allclose(found.x, driver.x, rtol=1e-12)
        np.testing.assert_allclose(found.cost, driver.cost, rtol=1e-12, atol=1e-28)
        assert found.success
        assert driver.success
        # The last steps are of the size of rounding errors, and the two solve their equations differently.
        assert abs(found.nfev - driver.nfev) <= 2
        for name in ("fun", "jac", "grad", "optimality"):
            np.testing.assert_allclose(getattr(found, name), getattr(driver, name), rtol=1e-9, atol=1e-12)


Y = noisy(1)[0]


def test_many_fits_at_once_are_those_of_scipy():
    data = noisy(300)
    found = sg.vmap(fit)(data)
    assert found.success.all()
    for k in range(0, 300, 23):
        expected = scipy.optimize.least_squares(decay, START, args=(data[k],), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        np.testing.assert_allclose(found.x[k], expected.x, rtol=1e-6)
        np.testing.assert_allclose(found.cost[k], expected.cost, rtol=1e-10)


def test_mapped_it_is_a_loop():
    data = noisy(5)
    mapped, single = sg.vmap(fit)(data), [sg.trace(fit)(y) for y in data]
    for k, each in enumerate(single):
        np.testing.assert_allclose(mapped.x[k], each.x, rtol=1e-13)
    np.testing.assert_allclose(mapped.jac, [each.jac for each in single], rtol=1e-11)


def test_one_failure_leaves_the_others_alone():
    data = noisy(4)
    data[1, 3] = np.nan
    data[2] = 0  # the amplitude goes to 0, and nothing is left to say what the rate is
    found = sg.vmap(lambda y: fit(y, max_nfev=200))(data)
    assert found.status[1] == -1
    assert not found.success[1]
    assert found.success[0]
    assert found.success[3]
    np.testing.assert_allclose(found.x[[0, 3]], [sg.least_squares(decay, START, args=(y,)).x for y in data[[0, 3]]], rtol=1e-12)
    assert abs(found.x[2, 0]) < 1e-6


def test_it_ends_when_evaluations_run_out():
    found = sg.trace(lambda y: fit(y, max_nfev=3))(Y)
    assert (found.status, found.success) == (0, False)
    assert found.nfev <= 3


@pytest.mark.parametrize(("option", "status"), [("gtol", 1), ("ftol", 2), ("xtol", 3)])
def test_tolerances(option, status):
    others = dict.fromkeys({"gtol", "ftol", "xtol"} - {option}, 0.0)
    found = sg.trace(lambda y: fit(y, **{option: 1e-3}, **others))(Y)
    assert found.status == status
    assert found.nfev < sg.trace(fit)(Y).nfev


@pytest.mark.parametrize("method", ["lm", "gauss-newton"])
def test_derivatives_are_those_of_the_optimum(method):
    def parameters(y):
        return fit(y, method=method).x

    f, step = sg.trace(parameters), 1e-5
    differences = np.stack([(f(Y + step * e) - f(Y - step * e)) / (2 * step) for e in np.eye(20)], axis=1)
    exact = sg.jacobian(parameters, mode="reverse")(Y)
    np.testing.assert_allclose(exact, differences, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sg.jacobian(parameters, mode="forward")(Y), exact, rtol=1e-9, atol=1e-13)
    mapped = sg.vmap(sg.jacobian(parameters))(np.stack([Y, Y]))
    np.testing.assert_allclose(mapped[1], exact, rtol=1e-9, atol=1e-13)


def test_the_cost_has_the_derivative_of_the_envelope():
    """Along the data the cost changes as if the parameters stayed."""
    gradient = sg.grad(lambda y: fit(y).cost)(Y)
    np.testing.assert_allclose(gradient, -decay(fit(Y).x, Y), rtol=1e-8, atol=1e-12)


def test_second_derivatives():
    @sg.trace(backend="interp")
    def curvature(a):
        return sg.least_squares(lambda p: np.stack([p[0] ** 3 + p[1] - a, p[1] - a * p[0], p[0] - 1]), np.array([1.0, 1.0])).x[1]

    sg.check_grads(curvature, (1.4,), order=2)


def test_what_the_residuals_close_over_has_derivatives():
    def outer(scale):
        return sg.least_squares(lambda p: rosenbrock(p, scale), np.array([0.5, 0.5])).x

    np.testing.assert_allclose(sg.jacobian(outer)(1.3), [1, 2.6], rtol=1e-8)


def test_containers_of_float32():
    def residuals(p, y):
        return {"fit": p["size"] * np.exp(-p["rate"] * T.astype(np.float32)) - y, "prior": np.float32(0.01) * p["rate"]}

    start, y = {"size": np.float32(1), "rate": np.float32(1)}, Y.astype(np.float32)
    found = sg.trace(lambda y: sg.least_squares(residuals, start, args=(y,)))(y)
    expected = sg.least_squares(residuals, start, args=(y,))
    assert found.success
    assert found.x["size"].dtype == np.float32
    assert set(found.fun) == {"fit", "prior"}
    for name, value in expected.x.items():
        np.testing.assert_allclose(found.x[name], value, rtol=1e-5)
    gradient = sg.grad(lambda y: sg.least_squares(residuals, start, args=(y,)).x["rate"])(y)
    exact = sg.grad(lambda y: sg.least_squares(residuals, {"size": 1.0, "rate": 1.0}, args=(y,)).x["rate"])(y.astype(np.float64))
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, exact, rtol=1e-3, atol=1e-4)


def test_keywords_and_numbers_in_a_list():
    def residuals(p, *, y):
        return decay(p, y)

    found = sg.trace(lambda y: sg.least_squares(residuals, [1, 1.0], kwargs={"y": y}))(Y)
    np.testing.assert_allclose(found.x, sg.least_squares(decay, START, args=(Y,)).x, rtol=1e-12)


def test_a_singular_problem_ends():
    """The damping makes steps possible where two parameters do the same; without damping there is none."""

    def residuals(p):
        return np.stack([p[0] + p[1] - 1, 2 * (p[0] + p[1]) - 3])

    found = sg.trace(lambda x0: sg.least_squares(residuals, x0, max_nfev=500))(np.zeros(2))
    np.testing.assert_allclose(found.x.sum(), 1.4, rtol=1e-9)
    stuck = sg.trace(lambda x0: sg.least_squares(residuals, x0, method="gauss-newton", max_nfev=500))(np.zeros(2))
    assert not stuck.success
    np.testing.assert_array_equal(stuck.x, 0)


@pytest.mark.parametrize(
    ("error", "words", "residuals", "start", "options"),
    [
        (DTypeError, "residuals are floats", lambda p, y: p > y[:2], START, {}),
        (DTypeError, "has dtype int64", decay, np.array([1, 1]), {}),
        (ShapeError, "0 residuals", lambda p, y: p[:0], START, {}),
        (UnsupportedError, "damping", decay, START, {"bounds": (0, 1), "method": "gauss-newton"}),
    ],
)
def test_errors(error, words, residuals, start, options):
    with pytest.raises(error, match=f"(?s){words}.*test_traced_fitting.py"):
        sg.trace(lambda y: sg.least_squares(residuals, start, args=(y,), **options))(Y)


def test_single_steps_name_the_way_out():
    with pytest.raises(TraceError, match=r"sg.least_squares\(residuals, x0, method=...\) can"):
        sg.trace(lambda x: levenberg_marquardt().init(x, rosenbrock).linear.cost)(START)
