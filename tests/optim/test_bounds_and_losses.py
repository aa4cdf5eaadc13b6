"""`least_squares` with bounds, losses and scales: against SciPy, inside of traced functions, and with derivatives."""

import numpy as np
import pytest
import scipy.optimize
from scipy.sparse import csr_array

import staticgrad as sg
from staticgrad.optim import levenberg_marquardt

LOSSES = ("linear", "soft_l1", "huber", "cauchy", "arctan")
NOISE = np.random.default_rng(0)
T = np.linspace(0, 4, 40)
Y = 2 * np.exp(-1.3 * T) + 0.5 + 0.05 * NOISE.normal(size=40)
Y[[5, 20, 33]] += [3.0, -4.0, 6.0]
EXACT = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}


def decay(b, y):
    return b[0] * np.exp(-b[1] * T) + b[2] - y


def rosenbrock(p):
    return np.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


BOXES = [
    ([-np.inf, -1.5], [np.inf, np.inf]),
    ([-np.inf, -1.5], [0.8, np.inf]),
    ([-2.0, 1.5], [2.0, 3.0]),
    ([-50.0, -50.0], [0.5, 0.2]),
    ([1.0, -np.inf], [np.inf, np.inf]),
    ([-50.0, 0.0], [0.5, 100.0]),
    (-4.0, -0.2),
]
STARTS = [[-2.0, 1.0], [-1.2, 1.0], [-2.0, 2.0], [0.0, 2.0], [2.0, 2.0], [0.0, -0.1], [1.5, -1.49], [-1.5, -1.0]]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_bounded_minima_are_those_of_scipy(box):
    """Rosenbrock's valley in the boxes of SciPy's tests, from starts within them."""
    inside = [start for start in STARTS if np.all(box[0] <= np.array(start)) and np.all(start <= np.array(box[1]))]
    assert inside
    seen = []

    def residuals(p):
        return rosenbrock(p)

    for start in inside:
        found = sg.least_squares(residuals, start, bounds=box)
        expected = scipy.optimize.least_squares(rosenbrock, start, bounds=box, **EXACT)
        assert found.success
        np.testing.assert_allclose(found.x, expected.x, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.cost, expected.cost, rtol=1e-10, atol=1e-16)
        np.testing.assert_array_equal(found.active_mask, np.where(found.x <= box[0], -1, np.where(found.x >= box[1], 1, 0)))
        assert found.optimality < 1e-10
        for point in found.path:
            assert np.all(box[0] <= point)
            assert np.all(point <= box[1])
        seen.append(found.nfev)
    inside_trace = sg.trace(lambda start: sg.least_squares(residuals, start, bounds=box))(np.array(inside[0]))
    np.testing.assert_allclose(inside_trace.x, sg.least_squares(residuals, inside[0], bounds=box).x, rtol=1e-12)
    assert abs(inside_trace.nfev - seen[0]) <= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_scipy(loss):
    found = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), loss=loss, f_scale=0.1)
    expected = scipy.optimize.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), loss=loss, f_scale=0.1, **EXACT)
    assert found.success
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6)
    np.testing.assert_allclose(found.cost, expected.cost, rtol=1e-12)
    np.testing.assert_allclose(found.fun, expected.fun, atol=1e-6)
    np.testing.assert_allclose(found.grad, np.zeros(3), atol=1e-8)
    if loss in ("huber", "cauchy", "arctan"):
        np.testing.assert_allclose(found.x, [2, 1.3, 0.5], rtol=0.06)


def test_a_loss_may_be_a_function():
    def cauchy(z):
        return np.stack([np.log1p(z), 1 / (1 + z), -1 / (1 + z) ** 2])

    found = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), loss=cauchy, f_scale=0.1)
    named = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), loss="cauchy", f_scale=0.1)
    np.testing.assert_allclose(found.x, named.x, rtol=1e-9)
    exact = sg.least_squares(lambda p: p - np.ones(2), np.ones(2), loss=cauchy)  # residuals of 0
    assert exact.cost == 0


def test_bounds_of_every_form():
    start = {"a": np.float32(1.0), "b": [np.ones(1), 0.0]}

    def residuals(p, y):
        return p["a"] * np.exp(-p["b"][0] * T) + p["b"][1] - y

    y = 2 * np.exp(-1.3 * T) + 0.5
    free = sg.least_squares(residuals, start, args=(y,))
    np.testing.assert_allclose(free.x["a"], 2, rtol=1e-6)
    tree = sg.least_squares(residuals, start, args=(y,), bounds=(0, {"a": 1.5, "b": [np.full(1, np.inf), np.inf]}))
    assert tree.x["a"] == 1.5
    assert tree.x["a"].dtype == np.float32
    np.testing.assert_array_equal(tree.active_mask, [1, 0, 0])
    flat = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(y,), bounds=scipy.optimize.Bounds([0, 0, 0], [1.5, np.inf, np.inf]))
    np.testing.assert_allclose(flat.x[1], tree.x["b"][0][0], rtol=1e-5)
    everything = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(y,), bounds=([-np.inf] * 3, np.inf))
    np.testing.assert_array_equal(everything.active_mask, 0)


@pytest.mark.parametrize("x_scale", ["jac", 1.0, [1.0, 0.1, 1.0]], ids=str)
def test_scales_do_not_move_the_optimum(x_scale):
    found = sg.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), x_scale=x_scale, loss="soft_l1")
    np.testing.assert_allclose(found.x, sg.least_squares(decay, [1.0, 1.0, 0.0], args=(Y,), loss="soft_l1").x, rtol=1e-7)


def test_sparse_with_bounds():
    def residuals(p):
        return np.concatenate([10 * (p[1:] - p[:-1] ** 2), 1 - p[:-1]])

    box = (-2.0, np.where(np.arange(12) % 3, 2.0, 0.5))
    dense = sg.least_squares(residuals, np.zeros(12), bounds=box)
    sparse = sg.least_squares(residuals, np.zeros(12), bounds=box, method=levenberg_marquardt(sparse=True))
    assert isinstance(sparse.jac, csr_array)
    assert (dense.active_mask > 0).any()
    np.testing.assert_array_equal(sparse.active_mask, dense.active_mask)
    np.testing.assert_allclose(sparse.x, dense.x, rtol=1e-6, atol=1e-8)


def test_many_bounded_robust_fits_at_once_and_their_derivatives():
    """A lane whose bound holds a parameter moves with the bound, and its other parameters with the data."""
    rng = np.random.default_rng(1)
    data = Y + 0.05 * rng.normal(size=(4, 40))
    tops = np.array([1.5, 10.0, 1.8, 10.0])

    def fit(y, top):
        return sg.least_squares(
            decay, np.array([1.0, 1.0, 0.0]), args=(y,), bounds=(0.0, np.stack([top, 9.0, 9.0])), loss="soft_l1", f_scale=0.1
        )

    mapped = sg.vmap(fit)(data, tops)
    assert mapped.success.all()
    np.testing.assert_array_equal(mapped.active_mask[:, 0], [1, 0, 1, 0])
    single = sg.trace(fit)
    for k in range(4):
        alone = single(data[k], tops[k])
        np.testing.assert_array_equal(mapped.x[k], alone.x)
        expected = scipy.optimize.least_squares(
            decay, [1.0, 1.0, 0.1], args=(data[k],), bounds=(0, [tops[k], 9, 9]), loss="soft_l1", f_scale=0.1, **EXACT
        )
        np.testing.assert_allclose(alone.x, expected.x, rtol=1e-5)
    by_top = sg.vmap(sg.jacobian(lambda y, top: fit(y, top).x, 1))(data, tops)
    step = 1e-5
    for k in range(4):
        differences = (single(data[k], tops[k] + step).x - single(data[k], tops[k] - step).x) / (2 * step)
        np.testing.assert_allclose(by_top[k], differences, rtol=1e-5, atol=1e-9)
    by_data = sg.jacobian(lambda y: fit(y, tops[0]).x)(data[0])
    for k in (0, 5, 20):
        moved = step * np.eye(40)[k]
        differences = (single(data[0] + moved, tops[0]).x - single(data[0] - moved, tops[0]).x) / (2 * step)
        np.testing.assert_allclose(by_data[:, k], differences, rtol=1e-4, atol=1e-8)
