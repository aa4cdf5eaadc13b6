"""The functions of `staticgrad.eager` inside of traced functions."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch


@pytest.mark.parametrize("number", [0.3, 2])
def test_numbers_are_float64_in_traced_code(number):
    """A traced function takes Python numbers as float64, whatever the default dtype of tensors is."""
    value = sg.trace(torch.sigmoid)(number)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, 1 / (1 + np.exp(-number)), rtol=1e-15)


def test_gradients_of_numbers_are_float64():
    slope = sg.grad(lambda x: torch.sin(x * x) + torch.clamp(x, min=0.0))(1.5)
    assert slope.dtype == np.float64
    np.testing.assert_allclose(slope, 3 * np.cos(2.25) + 1, rtol=1e-15)


def test_arrays_keep_their_dtype_beside_numbers():
    x = np.array([0.5, 1.5], np.float32)
    assert sg.trace(lambda x: torch.exp(x) * 2.5)(x).dtype == np.float32


def test_tensors_beside_traced_arrays_are_constants():
    weight = sg.tensor([1.0, 2.0], dtype=np.float64)
    np.testing.assert_array_equal(sg.grad(lambda x: torch.sum(weight * x))(np.zeros(2)), [1.0, 2.0])


def test_a_tensor_that_requires_gradients_must_be_an_argument():
    weight = sg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="requires gradients"):
        sg.trace(lambda x: torch.sum(weight * x))(np.zeros(2))
