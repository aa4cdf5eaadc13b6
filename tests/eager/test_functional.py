"""Jacobians, Hessians and products with them on tensors, beside those of the compiled transforms."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from staticgrad.eager.autograd import functional

X, Y = np.array([[0.3, -1.2, 2.0], [0.5, 0.1, -0.7]]), np.array([1.5, -0.5, 0.25])


def product(x, y):
    return np.sin(x) @ y


def test_jacobians_are_those_of_the_transform():
    found = functional.jacobian(product, (sg.tensor(X), sg.tensor(Y)))
    expected = sg.jacobian(product, argnums=(0, 1))(X, Y)
    for each, reference in zip(found, expected, strict=True):
        assert not each.requires_grad
        np.testing.assert_allclose(each.numpy(), reference, rtol=1e-12, atol=1e-15)
    constant = functional.jacobian(lambda x: torch.ones(2), torch.ones(3))
    assert constant.tolist() == np.zeros((2, 3)).tolist()


def test_jacobians_can_be_differentiated():
    x = sg.tensor(Y, requires_grad=True)
    functional.jacobian(lambda x: x**3, x, create_graph=True).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * Y, rtol=1e-12)


def test_hessians_are_those_of_the_transform():
    def f(x):
        return np.sum(np.exp(x) * x[::-1])

    np.testing.assert_allclose(functional.hessian(f, sg.tensor(Y)).numpy(), sg.hessian(f)(Y), rtol=1e-12, atol=1e-15)
    assert functional.hessian(lambda x: x.sum(), torch.ones(2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_products_with_jacobians():
    x, v = sg.tensor(X), sg.tensor([2.0, -1.0], dtype=np.float64)
    result, (gx, gy) = functional.vjp(product, (x, sg.tensor(Y)), v)
    np.testing.assert_allclose(result.numpy(), product(X, Y), rtol=1e-12)
    np.testing.assert_allclose(gx.numpy(), np.outer(v.numpy(), Y) * np.cos(X), rtol=1e-12)
    np.testing.assert_allclose(gy.numpy(), v.numpy() @ np.sin(X), rtol=1e-12)
    assert x.grad is None


def test_products_of_jacobians_and_directions():
    direction = np.array([1.0, 10.0, -2.0])
    result, product = functional.jvp(lambda x: torch.sin(x)[:2] * x[2], sg.tensor(Y), sg.tensor(direction))
    expected = np.cos(Y[:2]) * Y[2] * direction[:2] + np.sin(Y[:2]) * direction[2]
    np.testing.assert_allclose(product.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(result.numpy(), np.sin(Y[:2]) * Y[2], rtol=1e-12)
    assert functional.jvp(lambda x: x * 2, torch.ones(2), torch.tensor([1.0, 3.0]))[1].tolist() == [2.0, 6.0]
    fixed = torch.ones(2, requires_grad=True)
    assert functional.jvp(lambda x: fixed * 2, torch.ones(3), torch.ones(3))[1].tolist() == [0.0, 0.0]


def test_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"jacobian: input 0 is of type ndarray"):
        functional.jacobian(np.sin, X)
    with pytest.raises(TypeError, match=r"vjp: the function returned float"):
        functional.vjp(lambda x: 1.0, sg.tensor(X))
