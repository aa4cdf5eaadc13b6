"""Fixed points: the point, its derivatives at every order and in both modes, batches, and what goes wrong."""

import numpy as np
import pytest
from scipy import optimize

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from tests.ad.test_jacobian import MODES, assert_trees_close, interpreted


def cosine(a):
    return sg.fixed_point(lambda x: np.cos(a * x), 0.5)


def step(x, w):
    return {"u": 0.3 * np.tanh(w @ x["v"]) + 0.1, "v": 0.4 * np.sin(x["u"] + w[0])}


def system(w, start=0.0):
    return sg.fixed_point(step, {"u": np.zeros(3) + start, "v": np.zeros(3)}, args=(w,))


def unrolled(w):
    x = {"u": np.zeros(3), "v": np.zeros(3)}
    for _ in range(60):
        x = step(x, w)
    return x


W = np.random.default_rng(0).standard_normal((3, 3))


def test_the_point_is_that_of_scipy():
    for a in (0.1, 0.7, 1.0):
        expected = optimize.fixed_point(lambda x, a: np.cos(a * x), 0.5, args=(a,), xtol=1e-14)
        np.testing.assert_allclose(cosine(a), expected, rtol=1e-10)
        np.testing.assert_allclose(sg.trace(cosine)(a), expected, rtol=1e-10)


@pytest.mark.parametrize("modes", [(), *((a,) for a in MODES), *((a, b) for a in MODES for b in MODES)])
def test_derivatives_are_those_of_the_steps(modes):
    found, expected = interpreted(lambda w: system(w)["u"] ** 2), interpreted(lambda w: unrolled(w)["u"] ** 2)
    for mode in modes:
        found, expected = sg.jacobian(found, mode=mode), sg.jacobian(expected, mode=mode)
    if len(modes) == 2:
        found, expected = (interpreted(lambda w, f=f: f(w)[..., 0, 0]) for f in (found, expected))
    np.testing.assert_allclose(found(W), expected(W), rtol=1e-7, atol=1e-8)


def test_compiled():
    value, gradient = sg.value_and_grad(lambda w: np.sum(system(w)["v"]))(W)
    expected, expected_gradient = sg.value_and_grad(interpreted(lambda w: np.sum(unrolled(w)["v"])))(W)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-7, atol=1e-9)


def test_batches():
    a = np.array([0.1, 0.5, 1.0])
    for function in (cosine, sg.grad(cosine)):
        found = sg.vmap(interpreted(function))(a)
        np.testing.assert_allclose(found, [function(each) for each in a], rtol=1e-8)
    by_all = sg.grad(interpreted(lambda a: np.sum(sg.vmap(cosine)(a))))(a)
    np.testing.assert_allclose(by_all, [sg.grad(cosine)(each) for each in a], rtol=1e-8)


def test_the_start_has_no_derivative():
    gradient = sg.grad(interpreted(lambda w, start: np.sum(system(w, start)["u"])), (0, 1))(W, 0.2)
    assert gradient[1] == 0.0
    np.testing.assert_allclose(gradient[0], sg.grad(interpreted(lambda w: np.sum(unrolled(w)["u"])))(W), rtol=1e-7, atol=1e-9)


def test_float32_and_integers_to_start_from():
    found = sg.fixed_point(lambda x: np.cos(x), np.zeros(2, np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.7390851, rtol=1e-4)
    np.testing.assert_allclose(sg.fixed_point(lambda x: np.cos(x), 1), 0.7390851332, rtol=1e-9)
    assert sg.grad(lambda a: sg.fixed_point(lambda x: np.cos(a * x), np.float32(0.5)))(np.float32(0.3)).dtype == np.float32


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 2)])
def test_shapes(shape):
    found = sg.fixed_point(lambda x: 0.5 * x + 1, np.zeros(shape))
    np.testing.assert_allclose(found, np.full(shape, 2.0))


def test_what_does_not_converge_is_nan():
    assert np.isnan(sg.fixed_point(lambda x: 2 * x + 1, 1.0, maxiter=50))
    assert np.isnan(sg.fixed_point(lambda x: np.cos(x), 0.0, maxiter=3))
    assert np.isfinite(sg.fixed_point(lambda x: np.cos(x), 0.0, maxiter=3, xtol=0.5))
    found = sg.vmap(lambda a: sg.fixed_point(lambda x: a * x + 1, 1.0, maxiter=200))(np.array([0.5, 2.0]))
    np.testing.assert_allclose(found, [2.0, np.nan])


def test_inside_of_others():
    """A fixed point of a function that has a fixed point in it, and one inside of a loop."""

    def outer(a):
        return sg.fixed_point(lambda x: 0.5 * sg.fixed_point(lambda y: np.cos(a * y * x) * 0.5, 0.1) + 0.2, 0.3)

    h = 1e-5
    np.testing.assert_allclose(sg.grad(interpreted(outer))(0.8), (outer(0.8 + h) - outer(0.8 - h)) / (2 * h), rtol=1e-5)

    def looped(a):
        return sg.fori_loop(0, 3, lambda k, x: sg.fixed_point(lambda y: 0.5 * np.sin(y) + x * a, 0.1), 0.2)

    numeric = (looped(0.4 + h) - looped(0.4 - h)) / (2 * h)
    np.testing.assert_allclose(sg.grad(interpreted(looped))(0.4), numeric, rtol=1e-5)


def test_arguments_in_containers():
    def solution(p):
        return sg.fixed_point(lambda x, p: p["a"] * np.sin(x) + p["b"], np.zeros(2), args=(p,))

    p = {"a": 0.3, "b": np.array([0.5, 1.0])}
    found = sg.jacobian(interpreted(solution))(p)
    x = solution(p)
    slope = 1 / (1 - p["a"] * np.cos(x))
    assert_trees_close(found, {"a": np.sin(x) * slope, "b": np.diag(slope)}, 1e-8, 1e-9)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: sg.fixed_point(lambda x: x, np.zeros(2, int)), DTypeError, "x0 has dtype int64"),
        (lambda: sg.fixed_point(lambda x: (x, x), 0.0), ArgumentError, "x0 is .* <lambda> returned"),
        (lambda: sg.fixed_point(lambda x: x[:1], np.zeros(2)), ShapeError, r"x0 is f64\[2\], <lambda> returned f64\[1\]"),
        (lambda: sg.fixed_point(lambda x: x.astype(np.float32), np.zeros(2)), DTypeError, r"x0 is f64\[2\], <lambda> returned f32\[2\]"),
        (lambda: sg.fixed_point(lambda x: x, 0.0, maxiter=0), InvalidValueError, "maxiter=0"),
        (lambda: sg.fixed_point(lambda x: x, 0.0, xtol=-1.0), InvalidValueError, r"xtol=-1\.0"),
        (lambda: sg.fixed_point(lambda x: x, 0.0, args=3.0), ArgumentError, "args must be a tuple, not float"),
    ],
)
def test_mistakes(make, error, said):
    with pytest.raises(error, match=said) as caught:
        make()
    assert "test_fixed_point.py" in str(caught.value)
