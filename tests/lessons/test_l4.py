"""Lesson L4, tensors and the backward graph: each statement by tensors and traced."""

from xml.etree import ElementTree

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from tests.lessons.running import run


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l4_tensors_and_the_backward_graph", tmp_path_factory.mktemp("pictures"))


# ---- a chain of neurons

ACTIVATIONS = {
    "tanh": (np.tanh, lambda f: 1 - f**2),
    "sigmoid": (sg.nn.sigmoid, lambda f: f * (1 - f)),
    "relu": (sg.nn.relu, lambda f: (f > 0) * 1.0),
}
"""Each with its derivative, in terms of its value."""


def chain(activation, weights, x, y):
    value = x
    for k in range(5):
        value = activation(weights[k] * value)
    return 0.5 * (y - value) ** 2


def chain_by_hand(activation, slope, weights, x, y):
    """Return the gradient by the chain rule, layer by layer from the last to the first."""
    values = [x]
    for weight in weights:
        values.append(activation(np.float64(weight * values[-1])))
    error, gradient = values[-1] - y, np.zeros(len(weights))
    for k in reversed(range(len(weights))):
        error = error * slope(values[k + 1])
        gradient[k] = error * values[k]
        error = error * weights[k]
    return gradient


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_chain_rule_by_hand_equals_backward(name):
    activation, slope = ACTIVATIONS[name]
    weights, x, y = np.array([0.7, 1.3, 0.4, 2.1, 0.9]), 0.6, 0.2
    expected = chain_by_hand(activation, slope, weights, x, y)
    assert np.abs(expected).min() > 1e-6
    tensor = torch.tensor(weights, requires_grad=True)
    chain(activation, tensor, x, y).backward()
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_chain_rule_by_hand_equals_grad(name):
    activation, slope = ACTIVATIONS[name]
    weights, x, y = np.array([0.7, 1.3, 0.4, 2.1, 0.9]), 0.6, 0.2
    found = sg.grad(lambda weights: chain(activation, weights, x, y))(weights)
    np.testing.assert_allclose(found, chain_by_hand(activation, slope, weights, x, y), rtol=1e-9)


def test_the_chain_of_the_lesson(lesson):
    np.testing.assert_allclose(lesson["weights"].grad.numpy(), lesson["by_hand"], rtol=1e-9)
    np.testing.assert_allclose(lesson["chain_traced"], lesson["by_hand"], rtol=1e-9)
    np.testing.assert_allclose(lesson["kept_errors"], lesson["errors"], rtol=1e-9)


# ---- the five fields


def test_the_five_fields_of_a_node():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 3).sum()
    assert [getattr(x, name) for name in ("grad", "grad_fn", "is_leaf", "requires_grad")] == [None, None, True, True]
    assert x.data.tolist() == [1.0, 2.0] and not x.data.requires_grad
    assert y.grad_fn.name() == "SumBackward0" and not y.is_leaf and y.requires_grad and y.data.item() == 9.0
    y.backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_the_five_fields_in_the_picture(lesson):
    svg = (lesson["output"] / "l4_five_fields.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    for text in (
        ">tracked<", ">data tensor(2.)<", ">grad tensor(1.)<", ">grad_fn None<", ">is_leaf True<", ">requires_grad True<",
        ">untracked<", ">data tensor(3.)<", ">grad None<", ">requires_grad False<",
        ">total<", ">data tensor(5.)<", ">grad_fn &lt;AddBackward0&gt;<", ">is_leaf False<",
    ):  # fmt: skip
        assert text in svg
    fields = lesson["after"]["total"].fields
    assert (fields.data.item(), fields.grad, fields.grad_fn) == (5.0, None, "AddBackward0")
    assert (fields.is_leaf, fields.requires_grad) == (False, True)


def test_a_tracked_and_an_untracked_tensor():
    tracked, untracked = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0)
    for total in (tracked + untracked, untracked + tracked):
        tracked.grad = None
        assert total.requires_grad and repr(total) == "tensor(5., grad_fn=<AddBackward0>)"
        total.backward()
        assert tracked.grad.item() == 1.0
        assert untracked.grad is None
    assert not (untracked + untracked).requires_grad


def test_a_tracked_and_an_untracked_argument_traced():
    assert sg.grad(lambda a, b: a + b)(2.0, 3.0) == 1.0
    tracked, untracked = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0)
    total = sg.trace(lambda a, b: a + b)(tracked, untracked)
    assert total.requires_grad
    total.backward()
    assert tracked.grad.item() == 1.0 and untracked.grad is None


def test_grad_is_none_before_backward(lesson):
    assert lesson["before"]["tracked"].fields.grad is None
    assert torch.tensor(1.0, requires_grad=True).grad is None


def test_requires_grad_spreads():
    x, u = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0])
    assert all(y.requires_grad for y in (x + u, u * x, x.sum(), x[0], x.exp() * 0, torch.stack([u, x]), torch.where(x > 0, u, x)))
    assert not any(y.requires_grad for y in (u + u, x > 0, x.detach() + u, torch.stack([u, u])))


def test_grad_fn_names_its_operation(lesson):
    """The names are PyTorch's."""
    assert lesson["grad_fns"] == {
        "z + 1": "AddBackward0", "z * z": "MulBackward0", "z - 1": "SubBackward0", "z / 2": "DivBackward0", "z ** 2": "PowBackward0",
        "z.exp()": "ExpBackward0", "z.log()": "LogBackward0", "z.sin()": "SinBackward0", "z.sigmoid()": "SigmoidBackward0",
        "z.sum()": "SumBackward0", "z.mean()": "MeanBackward0",
    }  # fmt: skip
    matrix = torch.ones(2, 2, requires_grad=True)
    assert (matrix @ matrix).grad_fn.name() == "MmBackward0"
    assert torch.relu(matrix).grad_fn.name() == "ReluBackward0"
    assert sg.trace(np.tanh)(matrix).grad_fn.name() == "TanhBackward"


def test_integer_tensors_do_not_require_gradients(lesson):
    for integers in (torch.tensor([1, 2, 3]), torch.arange(3), torch.tensor([1.5]).int(), lesson["integers"]):
        assert integers.requires_grad is False
    with pytest.raises(RuntimeError, match="only floating-point and complex tensors can require gradients"):
        torch.tensor([1, 2]).requires_grad_()
    with pytest.raises(TypeError, match="int64"):
        sg.grad(lambda x: x * 2)(np.array(3))


# ---- two powers, and vectors times Jacobians


def powers(a, b):
    return 2 * a**6 - b**9


def test_two_powers_eagerly():
    a, b = torch.tensor([1.0, 4.0], requires_grad=True), torch.tensor([5.0, 2.0], requires_grad=True)
    c = powers(a, b)
    assert c.tolist() == [-1953123.0, 7680.0]
    assert repr(c) == "tensor([-1953123.,     7680.], grad_fn=<SubBackward0>)"
    c.backward(gradient=torch.tensor([1.0, 1.0]))
    assert a.grad.tolist() == [12.0, 12288.0]
    assert b.grad.tolist() == [-3515625.0, -2304.0]


def test_two_powers_traced():
    a, b = np.array([1.0, 4.0], np.float32), np.array([5.0, 2.0], np.float32)
    c, pullback = sg.vjp(powers, a, b)
    assert c.tolist() == [-1953123.0, 7680.0]
    of_a, of_b = pullback(np.ones(2, np.float32))
    assert of_a.tolist() == [12.0, 12288.0] and of_b.tolist() == [-3515625.0, -2304.0]


def test_two_powers_through_a_traced_function_on_tensors():
    a, b = torch.tensor([1.0, 4.0], requires_grad=True), torch.tensor([5.0, 2.0], requires_grad=True)
    c = sg.trace(powers)(a, b)
    assert c.tolist() == [-1953123.0, 7680.0]
    c.backward(gradient=torch.tensor([1.0, 1.0]))
    assert a.grad.tolist() == [12.0, 12288.0] and b.grad.tolist() == [-3515625.0, -2304.0]


def test_backward_of_a_non_scalar_says_what_to_pass(lesson):
    a = torch.tensor([1.0, 4.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*pass gradient=v of that shape"):
        (a * 2).backward()
    with pytest.raises(RuntimeError, match=r"gradient has shape \(3,\).*\(2,\)"):
        (a * 2).backward(gradient=torch.ones(3))
    assert "gradient=v" in lesson["refusal"]
    with pytest.raises(ValueError, match=r"shape \(2,\).*sg.jacobian or sg.vjp"):
        sg.grad(lambda a: a * 2)(np.ones(2))


def test_backward_is_a_vector_jacobian_product(lesson):
    np.testing.assert_allclose(lesson["tensor_point"].grad.numpy(), lesson["v"] @ lesson["jacobian"], rtol=1e-9)
    np.testing.assert_allclose(lesson["traced_product"], lesson["v"] @ lesson["jacobian"], rtol=1e-9)
    a, b = np.array([1.0, 4.0]), np.array([5.0, 2.0])
    v = np.array([0.3, -1.7])
    of_a, of_b = sg.jacobian(powers, argnums=(0, 1))(a, b)
    a_tensor, b_tensor = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    powers(a_tensor, b_tensor).backward(gradient=torch.tensor(v))
    np.testing.assert_allclose(a_tensor.grad.numpy(), v @ of_a, rtol=1e-9)
    np.testing.assert_allclose(b_tensor.grad.numpy(), v @ of_b, rtol=1e-9)
    for found, expected in zip(sg.vjp(powers, a, b)[1](v), (v @ of_a, v @ of_b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_pictures(lesson):
    np.testing.assert_array_equal(lesson["drawn_errors"], np.abs(lesson["errors"]))
    assert sorted(path.name for path in lesson["output"].iterdir()) == ["l4_chain.png", "l4_five_fields.svg", "l4_two_powers.svg"]
    svg = (lesson["output"] / "l4_two_powers.svg").read_text(encoding="utf-8")
    assert all(f">{name}<" in svg for name in ("a", "b", "c", "2", "a.grad", "b.grad", "MulBackward0", "PowBackward0 #2"))
