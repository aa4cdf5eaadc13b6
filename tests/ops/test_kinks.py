"""The conventions where a derivative does not exist, each in both modes, and what the ops promise at the edge of their domains."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.aval import Aval
from staticgrad.ir.node import apply, full, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.arithmetic import absolute, copysign, heaviside
from staticgrad.ops.exponential import logaddexp, logaddexp2, sigmoid, softplus
from staticgrad.ops.extrema import clip, fmax, fmin, maximum, minimum, relu
from staticgrad.ops.movement import pad
from staticgrad.ops.powers import cbrt, hypot, integer_power, power, sqrt
from staticgrad.ops.reduce import max_, min_
from staticgrad.ops.remainders import fmod, remainder
from staticgrad.ops.rounding import ceil, floor, rint, trunc
from staticgrad.ops.trigonometric import arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, tanh
from tests.ops.derivatives import Function

F64 = np.dtype(np.float64)


def derivatives(build, *arrays):
    """Return the gradient of the sum of `build(*values)` by reverse mode, after checking that forward mode gives the same Jacobian."""
    arrays = [np.asarray(x, float) for x in arrays]
    inputs = [new_input(Aval(x.shape, F64)) for x in arrays]
    function = Function(inputs, [build(*inputs)], arrays)
    reverse, _ = function.reverse(np.random.default_rng(0))
    gradients = reverse(arrays=[*arrays, np.ones(function.outputs[0].shape)])
    elementwise = all(x.shape == function.outputs[0].shape for x in arrays)
    for k, x in enumerate(arrays):
        hot = np.ones((1, *x.shape)) if elementwise else np.eye(x.size).reshape(x.size, *x.shape)
        forward, _ = function.forward(np.random.default_rng(0), only=[k])
        for direction in hot:
            (moved,) = forward(arrays=[*arrays, direction])
            expected = gradients[k] if elementwise else np.sum(gradients[k] * direction)
            np.testing.assert_array_equal(moved if elementwise else np.sum(moved), expected)
    return gradients


def test_absolute_at_zero():
    (d,) = derivatives(absolute, [-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(d, [-1, 0, 0, 1])


def test_relu_at_zero():
    (d,) = derivatives(relu, [-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(d, [0, 0, 0, 1])


@pytest.mark.parametrize("extremum", [maximum, minimum])
def test_ties_share_one_half_each(extremum):
    dx, dy = derivatives(extremum, [1.0, 2.0, 3.0, 0.0], [1.0, 5.0, 0.0, -0.0])
    first = [0, 0, 1, 0] if extremum is maximum else [0, 1, 0, 0]
    np.testing.assert_array_equal(dx, np.where([1, 0, 0, 1], 0.5, first))
    np.testing.assert_array_equal(dx + dy, np.ones(4))


@pytest.mark.parametrize("extremum", [max_, min_])
def test_reductions_share_among_ties(extremum):
    x = np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0], [0.0, -0.0, 5.0, 5.0]])
    (d,) = derivatives(lambda v: extremum(v, (1,)), x)
    best = x == (x.max(1, keepdims=True) if extremum is max_ else x.min(1, keepdims=True))
    np.testing.assert_allclose(d, best / best.sum(1, keepdims=True), rtol=1e-15)


def test_bounds_of_clip_pass_one():
    x, low, high = [-2.0, -1.0, 0.0, 1.0, 2.0], [-1.0] * 5, [1.0] * 5
    dx, dlow, dhigh = derivatives(clip, x, low, high)
    np.testing.assert_array_equal(dx, [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(dlow, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(dhigh, [0, 0, 0, 0, 1])


def test_clip_with_crossed_bounds_is_the_upper_one():
    dx, dlow, dhigh = derivatives(clip, [-2.0, 0.0, 2.0], [1.0] * 3, [-1.0] * 3)
    np.testing.assert_array_equal(dx, [0, 0, 0])
    np.testing.assert_array_equal(dlow, [0, 0, 0])
    np.testing.assert_array_equal(dhigh, [1, 1, 1])


def test_products_with_zeros():
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    (d,) = derivatives(lambda v: apply(REGISTRY["prod"]((1,)), v), x)
    np.testing.assert_array_equal(d, [[6, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_powers_at_zero():
    dx, dp = derivatives(power, [0.0, 0.0, 0.0, 0.0, -2.0, -2.0], [0.0, 1.0, 2.0, 0.5, 2.0, 3.0])
    np.testing.assert_array_equal(dx, [0, 1, 0, np.inf, -4, 12])
    np.testing.assert_array_equal(dp[:4], [0, 0, 0, 0])
    for exponent, expected in ((0, 0), (1, 1), (2, 0), (3, 0)):
        (d,) = derivatives(lambda v, n=exponent: integer_power(v, n), [0.0])
        assert d[0] == expected


def test_square_root_at_zero():
    (d,) = derivatives(sqrt, [0.0, 4.0])
    np.testing.assert_array_equal(d, [np.inf, 0.25])


@pytest.mark.parametrize("function", [sigmoid, softplus, tanh])
def test_stable_far_out(function):
    x = np.array([-800.0, -40.0, 0.0, 40.0, 800.0])
    (d,) = derivatives(function, x)
    assert np.isfinite(d).all()
    assert d[0] == 0.0
    assert d[-1] == (1.0 if function is softplus else 0.0)


def test_second_derivatives_at_kinks_are_zero():
    for build in (absolute, relu, lambda v: maximum(v, full(v.shape, 0.0, F64)), lambda v: max_(v, (0,))):
        x = np.zeros(3)
        v = new_input(Aval((3,), F64))
        first, _ = Function([v], [build(v)], [x]).reverse(np.random.default_rng(0))
        second, _ = first.forward(np.random.default_rng(0), only=[0])
        for moved in second():
            np.testing.assert_array_equal(moved, np.zeros(3))


def test_the_fill_of_a_padding_sees_nothing_of_what_is_inside():
    x, fill = new_input(Aval((3,), F64)), new_input(Aval((), F64))
    function = Function([x, fill], [pad(x, fill, (1,), (2,), (1,))], [np.arange(3.0), np.array(7.0)])
    reverse, _ = function.reverse(np.random.default_rng(0))
    seed = np.array([1.0, np.inf, 2.0, 1e300, 4.0, np.nan, 8.0, 16.0])
    inside, outside = reverse(arrays=[*function.arrays, seed])
    np.testing.assert_array_equal(inside, [np.inf, 1e300, np.nan])
    assert outside == 31.0


# ---- remainders, signs and rounding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extremum", [fmax, fmin])
def test_ties_of_extrema_that_ignore_nan_share_too(extremum):
    dx, dy = derivatives(extremum, [1.0, 2.0, np.nan, 3.0, 0.0], [1.0, 5.0, 4.0, np.nan, -0.0])
    np.testing.assert_array_equal(dx, [0.5, 0 if extremum is fmax else 1, 0, 1, 0.5])
    np.testing.assert_array_equal(dx + dy, np.ones(5))


def test_remainders_at_multiples():
    dx, dy = derivatives(remainder, [6.0, -6.0, 7.0, -7.0, 7.0], [3.0, 3.0, 3.0, 3.0, -3.0])
    np.testing.assert_array_equal(dx, np.ones(5))
    np.testing.assert_array_equal(dy, [-2, 2, -2, 3, 3])
    dx, dy = derivatives(fmod, [6.0, -6.0, 7.0, -7.0, 7.0], [3.0, 3.0, 3.0, 3.0, -3.0])
    np.testing.assert_array_equal(dx, np.ones(5))
    np.testing.assert_array_equal(dy, [-2, 2, -2, 2, 2])


@pytest.mark.parametrize("function", [ceil, floor, trunc, rint, lambda v: heaviside(v, full(v.shape, 0.5, F64))])
def test_steps_have_no_slope(function):
    (d,) = derivatives(function, [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5])
    np.testing.assert_array_equal(d, np.zeros(7))


def test_heaviside_at_zero_gives_all_to_its_second_operand():
    dx, dh = derivatives(heaviside, [-1.0, 0.0, -0.0, 2.0], [0.5] * 4)
    np.testing.assert_array_equal(dx, np.zeros(4))
    np.testing.assert_array_equal(dh, [0, 1, 1, 0])


def test_copysign_at_zero():
    dx, dy = derivatives(copysign, [2.0, -2.0, 2.0, 0.0, -0.0], [1.0, 1.0, -1.0, -1.0, 1.0])
    np.testing.assert_array_equal(dx, [1, -1, -1, 0, 0])
    np.testing.assert_array_equal(dy, np.zeros(5))


# ---- the ends of domains ------------------------------------------------------------------------------------------------------


def test_lengths_and_angles_at_the_origin():
    for build in (hypot, arctan2):
        dx, dy = derivatives(build, [0.0, -0.0], [0.0, 0.0])
        np.testing.assert_array_equal([dx, dy], np.zeros((2, 2)))
    dx, dy = derivatives(hypot, [3e200, 3e-200, 3.0], [4e200, 4e-200, 4.0])
    np.testing.assert_allclose([dx, dy], [[0.6] * 3, [0.8] * 3], rtol=1e-15)
    dy, dx = derivatives(arctan2, [3e200, 3e-100, 3.0], [4e200, 4e-100, 4.0])
    np.testing.assert_allclose(dy, [4 / 25 / 1e200, 4 / 25 * 1e100, 4 / 25], rtol=1e-14)
    np.testing.assert_allclose(dx, [-3 / 25 / 1e200, -3 / 25 * 1e100, -3 / 25], rtol=1e-14)


def test_cube_root_at_zero():
    (d,) = derivatives(cbrt, [0.0, 8.0, -8.0])
    np.testing.assert_allclose(d, [np.inf, 1 / 12, 1 / 12], rtol=1e-15)


def test_inverse_functions_near_the_ends_of_their_domains():
    step = 2.0**-40
    x = np.array([1 - step, -1 + step, 1.0])
    exact = 1 / np.sqrt(step * (2 - step))
    np.testing.assert_allclose(derivatives(arcsin, x)[0], [exact, exact, np.inf], rtol=1e-14)
    np.testing.assert_allclose(derivatives(arccos, x)[0], [-exact, -exact, -np.inf], rtol=1e-14)
    np.testing.assert_allclose(derivatives(arctanh, x[:2])[0], 1 / (step * (2 - step)), rtol=1e-14)
    np.testing.assert_allclose(
        derivatives(arccosh, [1 + step, 1.0, 1e200])[0], [1 / np.sqrt(step * (2 + step)), np.inf, 1e-200], rtol=1e-14
    )
    np.testing.assert_allclose(derivatives(arcsinh, [1e200, -1e200, 1e-200])[0], [1e-200, 1e-200, 1], rtol=1e-15)
    np.testing.assert_allclose(derivatives(arctan, [1e200, 0.0])[0], [0, 1], rtol=1e-15)
    assert np.isnan(derivatives(arcsin, [1.5])[0]).all()


def test_logarithms_of_sums_far_apart_and_at_infinities():
    for build in (logaddexp, logaddexp2):
        dx, dy = derivatives(build, [800.0, -800.0, 3.0, -np.inf, -np.inf, np.inf], [-800.0, 800.0, 3.0, -np.inf, 1.0, 0.0])
        np.testing.assert_array_equal(dx, [1, 0, 0.5, 0.5, 0, 1])
        np.testing.assert_array_equal(dy, [0, 1, 0.5, 0.5, 1, 0])
    x = new_input(Aval((1,), F64))
    first, _ = Function([x], [logaddexp(x, full((1,), 3.0, F64))], [np.array([3.0])]).reverse(np.random.default_rng(0))
    second, _ = first.forward(np.random.default_rng(0), only=[0])
    assert second(arrays=[np.array([3.0]), np.ones(1), np.ones(1)])[0] == 0.25


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("x", [0.5, 2.0])
def test_the_slope_of_a_power_changes_with_the_exponent_also_at_0(x, order):
    """The second derivative of x**p by x and p is x**(p - 1) (1 + p log x): 1/x at p = 0, in either order."""
    first, second = order
    mixed = sg.grad(sg.grad(lambda x, p: x**p, first), second)(x, 0.0)
    np.testing.assert_allclose(mixed, 1 / x, rtol=1e-15)


@pytest.mark.parametrize("x", [0.0, np.nan, np.inf, -2.0])
def test_the_power_of_0_has_no_slope(x):
    assert sg.grad(lambda x, p: x**p)(x, 0.0) == 0
