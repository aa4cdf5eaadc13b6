"""Symmetry bit for bit, order up to a unit in the last place, and inverses."""

from __future__ import annotations

import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.floats import OnFloats
from tests.kernels.accuracy import FORMATS

pytestmark = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)
B = OnFloats()


def sample(dtype: type, low: float, high: float, count: int = 20_000) -> np.ndarray:
    return np.random.default_rng(5).uniform(low, high, count).astype(dtype)


ODD = (kernels.sin, kernels.tan, kernels.tanh, kernels.sinh, kernels.arctan, kernels.arcsinh, kernels.cbrt)


@pytest.mark.parametrize("kernel", ODD, ids=lambda kernel: kernel.__name__)
def test_odd(kernel, dtype: type) -> None:
    x = sample(dtype, -1e6, 1e6)
    np.testing.assert_array_equal(kernel(B, -x), -kernel(B, x))


def test_tanh_stays_within_one(dtype: type) -> None:
    y = kernels.tanh(B, np.concatenate([sample(dtype, -25, 25), sample(dtype, 7, 10), np.array([np.inf, -np.inf], dtype)]))
    assert np.abs(y).max() == 1


def test_even(dtype: type) -> None:
    x = sample(dtype, -1e6, 1e6)
    np.testing.assert_array_equal(kernels.cos(B, -x), kernels.cos(B, x))


# Where a kernel goes over from one formula or one power of two to the next, its order must hold as well.
@pytest.mark.parametrize(
    ("kernel", "seams"),
    [
        (kernels.exp, (0.34657359, -0.34657359, 1.0397208, 20.4478)),
        (kernels.expm1, (0.34657359, -0.34657359, 1.0397208, 0.0)),
        (kernels.log, (0.66666667, 1.3333333, 0.70710678, 1.41421356, 1.0)),
        (kernels.log1p, (0.33333333, -0.33333333, 0.41421356, 0.0, 1.0)),
        (kernels.tanh, (0.2557868, 0.6023604, 9.0, 9.5, 19.06, 0.17328680)),
        (kernels.sigmoid, (0.0, 0.34657359, -87.3, -4.85)),
        (kernels.softplus, (0.0, -0.6931472, 0.6931472)),
        (kernels.sin, (0.78539816, -0.78539816, 0.0)),
        (kernels.tan, (0.78539816, -0.78539816, 0.0)),
        (kernels.exp2, (0.5, -0.5, 1.5, 20.5, -100.5)),
        (kernels.log2, (0.66666667, 1.3333333, 0.70710678, 1.41421356, 1.0)),
        (kernels.log10, (0.66666667, 1.3333333, 0.70710678, 1.41421356, 1.0)),
        (kernels.sinh, (0.34657359, -0.34657359, 1.0397208, 40.0, 0.0)),
        (kernels.arcsinh, (0.5, -0.5, 0.0, 2.0**60)),
        (kernels.arccosh, (1.5, 2.0, 2.0**60)),
        (kernels.arctanh, (0.1, 0.33333333, 0.98)),
        (kernels.arcsin, (0.5, -0.5, 0.0, 0.98)),
        (kernels.arctan, (0.41421356, -0.41421356, 1.0, 2.4142136, 0.0)),
        (kernels.cbrt, (0.70710678, 1.41421356, 2.8284271, 0.35355339, 0.0)),
    ],
)
def test_increasing(kernel, seams: tuple[float, ...], dtype: type) -> None:
    for seam in seams:
        x = np.full(2000, seam, dtype)
        for i in range(1, x.size):
            x[i] = np.nextafter(x[i - 1], dtype(np.inf))
        x = np.concatenate([x, np.sort(sample(dtype, seam - 0.01, seam + 0.01, 2000))])
        x.sort()
        y = kernel(B, x)
        drop = np.maximum.accumulate(y) - y
        assert (drop <= 1.01 * np.spacing(np.abs(y))).all()


def test_squares_of_sine_and_cosine_add_up(dtype: type) -> None:
    x = np.concatenate([sample(dtype, -10, 10), sample(dtype, -1e9, 1e9), sample(dtype, -1e30, 1e30)])
    total = kernels.sin(B, x).astype(np.float64) ** 2 + kernels.cos(B, x).astype(np.float64) ** 2
    assert np.abs(total - 1).max() < 2 * np.finfo(dtype).eps


def test_logistic_functions_fit_together(dtype: type) -> None:
    x, eps = sample(dtype, -30, 30), np.finfo(dtype).eps
    assert np.abs(kernels.sigmoid(B, x) + kernels.sigmoid(B, -x) - 1).max() <= 2 * eps
    assert np.abs(kernels.softplus(B, x) - kernels.softplus(B, -x) - x).max() <= 64 * eps
    np.testing.assert_allclose(2 * kernels.sigmoid(B, x + x) - 1, kernels.tanh(B, x), rtol=0, atol=4 * eps)


def test_inverses(dtype: type) -> None:
    eps = np.finfo(dtype).eps
    angle, ratio = sample(dtype, -1.5, 1.5), sample(dtype, -0.99, 0.99)
    np.testing.assert_allclose(kernels.arctan(B, kernels.tan(B, angle)), angle, rtol=4 * eps, atol=4 * eps)
    np.testing.assert_allclose(kernels.arcsin(B, ratio) + kernels.arccos(B, ratio), np.pi / 2, rtol=4 * eps)
    np.testing.assert_allclose(kernels.arcsinh(B, kernels.sinh(B, angle)), angle, rtol=4 * eps)
    np.testing.assert_allclose(kernels.arctanh(B, kernels.tanh(B, ratio)), ratio, rtol=8 * eps)
    np.testing.assert_allclose(kernels.log2(B, kernels.exp2(B, angle)), angle, rtol=4 * eps, atol=4 * eps)
    x = sample(dtype, -20, 20)
    np.testing.assert_allclose(kernels.log(B, kernels.exp(B, x)), x, rtol=2 * eps, atol=2 * eps)
    np.testing.assert_allclose(kernels.log1p(B, kernels.expm1(B, np.abs(x))), np.abs(x), rtol=4 * eps)


def test_power_agrees_with_simpler_operations(dtype: type) -> None:
    x = np.abs(sample(dtype, 0, 100)) + dtype(1e-3)
    np.testing.assert_array_equal(kernels.power(B, x, np.ones_like(x)), x)
    np.testing.assert_array_max_ulp(kernels.power(B, x, np.full_like(x, 0.5)), np.sqrt(x), 1)
    np.testing.assert_array_max_ulp(kernels.power(B, x, np.full_like(x, 2)), x * x, 1)
    np.testing.assert_array_max_ulp(kernels.power(B, x, np.full_like(x, -1)), 1 / x, 1)
