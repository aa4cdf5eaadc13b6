"""Gradients of gradients on tensors, against those of the same functions traced."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.eager.creation import from_numpy
from staticgrad.eager.engine import autograd_grad

NUMBERS = np.array([0.5, 1.25])

OF_ONE = {
    "a result": np.exp,
    "a result of a root": np.sqrt,
    "a result of a quotient": lambda x: 1.0 / x,
    "a result of a logistic function": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "results and operands": lambda x: np.sin(x) * np.exp(x) / np.sqrt(x),
    "a power": lambda x: x**3,
    "a chain": lambda x: np.exp(np.sin(np.exp(-x))),
    "a product of vectors": lambda x: (x @ x) ** 2 * x,
}


@pytest.mark.parametrize("function", OF_ONE.values(), ids=OF_ONE)
def test_three_orders(function):
    """Whatever a backward pass needs, operand or result, it can be differentiated through."""
    x = from_numpy(NUMBERS.copy()).requires_grad_()
    found = np.sum(function(x))

    def expected(z):
        return np.sum(function(z))

    for _ in range(3):
        (gradient,) = autograd_grad(found, x, create_graph=True)
        expected = sg.grad(expected)
        np.testing.assert_allclose(gradient.detach().numpy(), expected(NUMBERS), rtol=1e-12)
        found, expected = np.sum(gradient), lambda z, inner=expected: np.sum(inner(z))


def test_accumulated_gradients_can_be_differentiated():
    x = from_numpy(NUMBERS.copy()).requires_grad_()
    np.sum(np.exp(x)).backward(create_graph=True)
    (second,) = autograd_grad(np.sum(x.grad), x)
    np.testing.assert_allclose(second.numpy(), np.exp(NUMBERS), rtol=1e-15)


def test_through_an_in_place_operation():
    x = from_numpy(NUMBERS.copy()).requires_grad_()
    y = x * 1.0
    y.exp_()
    (first,) = autograd_grad(np.sum(y * y), x, create_graph=True)
    (second,) = autograd_grad(np.sum(first), x)
    np.testing.assert_allclose(second.numpy(), 4 * np.exp(2 * NUMBERS), rtol=1e-14)
