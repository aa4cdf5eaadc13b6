"""Activations against JAX: values, first and second derivatives, kinks, and numbers far out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special

import staticgrad as sg
from staticgrad import nn

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

SMOOTH = np.array([-30.0, -5.5, -2.25, -0.75, -1e-3, 1e-3, 0.5, 1.75, 4.5, 20.0])
FAR = np.array([-1e30, -800.0, 800.0, 1e30])

ACTIVATIONS: dict[str, tuple[Any, Any]] = {
    "relu": (nn.relu, jax.nn.relu),
    "sigmoid": (nn.sigmoid, jax.nn.sigmoid),
    "softplus": (nn.softplus, jax.nn.softplus),
    "log_sigmoid": (nn.log_sigmoid, jax.nn.log_sigmoid),
    "silu": (nn.silu, jax.nn.silu),
    "gelu": (nn.gelu, jax.nn.gelu),
    "gelu_exact": (lambda x: nn.gelu(x, approximate=False), lambda x: jax.nn.gelu(x, approximate=False)),
    "relu6": (nn.relu6, jax.nn.relu6),
    "leaky_relu": (nn.leaky_relu, jax.nn.leaky_relu),
    "leaky_relu_steep": (lambda x: nn.leaky_relu(x, 0.3), lambda x: jax.nn.leaky_relu(x, 0.3)),
    "elu": (nn.elu, jax.nn.elu),
    "elu_half": (lambda x: nn.elu(x, alpha=0.5), lambda x: jax.nn.elu(x, 0.5)),
    "selu": (nn.selu, jax.nn.selu),
    "hard_tanh": (nn.hard_tanh, jax.nn.hard_tanh),
}
each = pytest.mark.parametrize("name", ACTIVATIONS)


def derivative(function: Any) -> Any:
    return sg.grad(sg.trace(lambda x: np.sum(function(x)), backend="interp"))


@each
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values(name: str, dtype: Any) -> None:
    ours, theirs = ACTIVATIONS[name]
    x = np.concatenate([SMOOTH, FAR, [0.0, 1.0, -1.0, 6.0]]).astype(dtype)
    found = ours(x)
    assert found.dtype == dtype
    rtol = 2e-6 if dtype == np.float32 else 1e-13
    tail = name in ("gelu", "gelu_exact")  # JAX's formula cancels for negative numbers
    np.testing.assert_allclose(found, np.asarray(theirs(x)), rtol=rtol, atol=8e-7 if tail and dtype == np.float32 else 1e-15 if tail else 0)
    np.testing.assert_array_equal(sg.trace(ours, backend="interp")(x), found)


@each
def test_derivatives(name: str) -> None:
    ours, theirs = ACTIVATIONS[name]
    reference = jax.grad(lambda x: jax.numpy.sum(theirs(x)))
    np.testing.assert_allclose(derivative(ours)(SMOOTH), reference(SMOOTH), rtol=1e-11, atol=1e-14)
    second = jax.grad(lambda x: jax.numpy.sum(reference(x)))
    found = sg.grad(sg.trace(lambda x: np.sum(derivative(ours)(x)), backend="interp"))(SMOOTH)
    np.testing.assert_allclose(found, second(SMOOTH), rtol=1e-10, atol=1e-13)
    assert np.isfinite(derivative(ours)(FAR)).all()
    assert np.isfinite(derivative(ours)(FAR.astype(np.float32))).all()


def test_tails_of_gelu_are_accurate() -> None:
    x = np.array([-5.0, -8.0, -12.0])
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    np.testing.assert_allclose(nn.gelu(x), x * scipy.special.expit(2 * u), rtol=1e-12)
    mpmath = pytest.importorskip("mpmath")
    exact = [float(mpmath.mpf(v) * mpmath.ncdf(v)) for v in x.tolist()]
    np.testing.assert_allclose(nn.gelu(x, approximate=False), exact, rtol=1e-13)


def test_kinks() -> None:
    def at(function: Any, *x: float) -> list[float]:
        return [float(d) for d in derivative(function)(np.array(x, float))]

    assert at(nn.relu6, -1, 0, 3, 6, 7) == [0, 0, 1, 0, 0]
    assert at(nn.leaky_relu, -1, 0, 1) == [0.01, 1, 1]
    assert at(lambda x: nn.elu(x, 0.5), 0, 1) == [0.5, 1]
    assert at(nn.hard_tanh, -2, -1, 0, 1, 2) == [0, 1, 1, 1, 0]


def test_integers_and_nan() -> None:
    for ours, _ in ACTIVATIONS.values():
        assert np.isnan(ours(np.array([np.nan]))).all()
        if ours is not nn.relu:
            assert ours(np.array([1, -1])).dtype == np.float64
    np.testing.assert_array_equal(nn.relu6([-2, 3, 9]), [0, 3, 6])
