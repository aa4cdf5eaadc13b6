"""Lesson L5, a notebook on autograd: each experiment by tensors and traced."""

import math
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from tests.lessons.running import run


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l5_notebook_on_autograd", tmp_path_factory.mktemp("pictures"))


def slope_eagerly(function, at, dtype=np.float64):
    x = torch.tensor(at, dtype=dtype, requires_grad=True)
    function(x).backward()
    return x.grad.item()


def slope_on_the_tape(function, at):
    """Return the slope of a traced function that is given a tensor."""
    return slope_eagerly(sg.trace(function), at)


WAYS = {"eagerly": slope_eagerly, "traced": lambda function, at: float(sg.grad(function)(at)), "traced on a tensor": slope_on_the_tape}


def test_integers_cannot_require_gradients(lesson):
    for data in (3, [1, 2], True, np.arange(3)):
        with pytest.raises(RuntimeError, match="only floating-point and complex tensors can require gradients"):
            torch.tensor(data, requires_grad=True)
    assert "sg.tensor([1., 2.], requires_grad=True)" in lesson["refusal"]
    with pytest.raises(TypeError):
        sg.grad(lambda x: x * x)(np.int64(3))


# ---- slopes of compositions


@pytest.mark.parametrize("way", WAYS)
def test_x_squared(way, lesson):
    assert WAYS[way](lambda x: x**2, 3.0) == 6.0
    assert repr(lesson["square"]) == "tensor(9., grad_fn=<PowBackward0>)"
    assert lesson["square_traced"] == (9.0, 6.0)


@pytest.mark.parametrize("way", WAYS)
def test_sine_of_x_squared(way, lesson):
    for at, slope in {3.0: -5.466781571308061, 2.0: -2.6145744834544478}.items():
        assert WAYS[way](lambda x: np.sin(x**2), at) == pytest.approx(slope, rel=1e-9)
        assert lesson["sine_eager"][at] == pytest.approx(slope, rel=1e-9)
        assert lesson["sine_traced"][at] == pytest.approx(slope, rel=1e-9)


def test_value_of_sine_of_x_squared():
    assert repr(torch.sin(torch.tensor(3.0, requires_grad=True) ** 2)) == "tensor(0.4121, grad_fn=<SinBackward0>)"
    assert sg.trace(lambda x: np.sin(x**2))(3.0) == pytest.approx(0.4121, abs=5e-5)


@pytest.mark.parametrize("way", WAYS)
def test_exponential_of_sine_of_x_squared(way, lesson):
    for at, slope in {3.0: -8.2549131, 2.0: -1.2266647}.items():
        assert WAYS[way](lambda x: np.exp(np.sin(x**2)), at) == pytest.approx(slope, abs=5e-8)
        assert slope_eagerly(lambda x: torch.exp(torch.sin(x**2)), at, np.float32) == pytest.approx(slope, rel=1e-5)
        assert lesson["exp_eager"][at] == pytest.approx(slope, rel=1e-5)
        assert lesson["exp_traced"][at] == pytest.approx(slope, abs=5e-8)


def test_the_gradient_of_an_intermediate_is_not_kept(lesson):
    x = torch.tensor(2.0, requires_grad=True)
    middle = x**2
    torch.sin(middle).backward()
    with pytest.warns(UserWarning, match=r"retain_grad\(\)"):
        assert middle.grad is None
    assert lesson["not_kept"] is None and "retain_grad()" in lesson["warning"]


def test_retain_grad_keeps_it(lesson):
    expected = math.cos(4.0) * math.exp(math.sin(4.0))
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    middle = x**2
    middle.retain_grad()
    torch.exp(torch.sin(middle)).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert middle.grad.item() == pytest.approx(expected, rel=1e-9)
    assert float(lesson["inner_traced"]) == pytest.approx(expected, rel=1e-9)


# ---- the perceptron


def chain_rule(x, y, w=1.0, b=0.0):
    """Return loss and gradient by hand, in double precision, where the clamp does nothing."""
    p = 1 / (1 + math.exp(-(w * x + b)))
    loss = -(y * math.log(p) + (1 - y) * math.log(1 - p))
    of_p = -(y / p) + (1 - y) / (1 - p)
    of_b = of_p * p * (1 - p)
    return loss, of_b * x, of_b


def test_perceptron_in_double_precision(lesson):
    expected = chain_rule(6.7, 0.0)
    assert expected == pytest.approx((6.701230, 6.691762, 0.998771), rel=1e-6)
    for found in lesson["results"]["float64"].values():
        assert found == pytest.approx(expected, rel=1e-9)


def test_perceptron_in_single_precision(lesson):
    for found in lesson["results"]["float32"].values():
        assert found == pytest.approx((6.701176, 6.691762, 0.998771), rel=1e-5)
    loss, of_w, of_b = lesson["results"]["float32"]["tensors"]
    assert (f"{loss:.6f}", f"{of_w:.4f}", f"{of_b:.4f}") == ("6.701176", "6.6918", "0.9988")


def test_perceptron_by_the_chain_rule(lesson):
    assert lesson["by_hand"] == pytest.approx((6.691762, 0.998771), rel=1e-6)
    assert lesson["p"] == pytest.approx(0.9988, abs=5e-5)


@pytest.mark.parametrize(("x", "y"), [(6.7, 0.0), (6.7, 1.0), (-2.0, 1.0), (0.3, 0.0)])
def test_perceptron_elsewhere(lesson, x, y):
    expected = chain_rule(x, y)
    w, b = (torch.tensor(start, dtype=torch.float64, requires_grad=True) for start in (1.0, 0.0))
    loss = lesson["perceptron_loss"](w, b, x, y)
    loss.backward()
    assert (loss.item(), w.grad.item(), b.grad.item()) == pytest.approx(expected, rel=1e-9)
    value, gradient = sg.value_and_grad(lesson["perceptron_loss"], argnums=(0, 1))(*np.array([1.0, 0.0, x, y]))
    assert (float(value), *map(float, gradient)) == pytest.approx(expected, rel=1e-9)


def test_the_upper_clamp_is_one_in_single_precision():
    assert torch.clamp(torch.tensor(2.0), 1e-8, 1 - 1e-8).item() == 1.0
    assert sg.trace(lambda p: np.clip(p, 1e-8, 1 - 1e-8))(np.float32(2.0)) == 1.0
    assert torch.clamp(torch.tensor(2.0, dtype=torch.float64), 1e-8, 1 - 1e-8).item() == 1 - 1e-8


@pytest.mark.parametrize("way", ["tensors", "traced"])
def test_a_saturated_prediction(lesson, way):
    """PyTorch gives these numbers, too: a clamp stops the gradient in double precision, and does not help in single."""
    assert lesson["saturated"]["float64"][way] == pytest.approx((18.420680738927608, 0.0, 0.0), rel=1e-9)
    loss, of_w, of_b = lesson["saturated"]["float32"][way]
    assert loss == math.inf and math.isnan(of_w) and math.isnan(of_b)


@pytest.mark.parametrize("way", ["tensors", "traced"])
def test_a_saturated_prediction_that_is_right(lesson, way):
    """No is sure, and no it is: the loss is that of the lower clamp (in single precision 0), and nothing is left to learn."""
    for dtype, loss in ((torch.float64, 1.0000000100247594e-08), (torch.float32, 0.0)):
        assert lesson["perceptron"](-200.0, dtype)[way] == pytest.approx((loss, 0.0, 0.0), rel=1e-7)


def test_the_cure_of_saturation(lesson):
    assert (lesson["cured"].item(), lesson["w"].grad.item(), lesson["b"].grad.item()) == (67.0, 67.0, 1.0)
    value, gradient = lesson["cured_traced"]
    assert (value, *gradient) == pytest.approx((67.0, 67.0, 1.0), rel=1e-6)


# ---- vectors, accumulation, and no tracking


def test_mean_of_squares(lesson):
    assert lesson["mean_of_squares"].item() == pytest.approx(14 / 3, rel=1e-6)
    assert repr(lesson["mean_of_squares"]) == "tensor(4.6667, grad_fn=<MeanBackward0>)"
    assert repr(lesson["vector"].grad) == "tensor([0.6667, 1.3333, 2.0000])"
    assert lesson["mean_traced"] == pytest.approx(14 / 3, rel=1e-12)
    np.testing.assert_allclose(lesson["mean_slope_traced"], [2 / 3, 4 / 3, 2.0], rtol=1e-12)


def test_two_backward_passes_accumulate(lesson):
    assert lesson["seen"] == [4.0, 8.0, 4.0]
    x = torch.tensor(2.0, requires_grad=True)
    traced = sg.trace(lambda x: x**2)
    for expected in (4.0, 8.0):
        traced(x).backward()
        assert x.grad.item() == expected
    gradient = sg.grad(lambda x: x**2)
    assert gradient(2.0) == gradient(2.0) == 4.0


def test_requires_grad_off(lesson):
    x = torch.tensor(2.0, requires_grad=True)
    assert x.requires_grad_(False) is x
    assert not (x**2).requires_grad
    with pytest.raises(RuntimeError, match="does not require gradients"):
        (x**2).backward()
    assert lesson["tracked"] == [True, False, False, False, True]


def test_detach(lesson):
    x = torch.tensor(2.0, requires_grad=True)
    detached = x.detach()
    assert not detached.requires_grad and detached.grad_fn is None and x.requires_grad
    assert np.shares_memory(detached.numpy(), x.data.numpy())
    (x * x.detach()).backward()
    assert x.grad.item() == 2.0
    assert lesson["held_traced"] == 2.0


def test_no_grad():
    x = torch.tensor(2.0, requires_grad=True)
    with torch.no_grad():
        assert not (x**2).requires_grad and not torch.is_grad_enabled() and x.requires_grad
        assert not sg.trace(lambda x: x**2)(x).requires_grad
    assert (x**2).requires_grad and torch.is_grad_enabled()

    @torch.no_grad()
    def evaluate(x):
        return x**2

    assert not evaluate(x).requires_grad


def test_the_pictures(lesson):
    values, slopes, dots = lesson["drawn"]
    x = values[:, 0]
    np.testing.assert_allclose(values[:, 1], np.exp(np.sin(x**2)), rtol=1e-9)
    np.testing.assert_allclose(slopes[:, 1], 2 * x * np.cos(x**2) * np.exp(np.sin(x**2)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dots, [[3.0, -8.2549131], [2.0, -1.2266647]], rtol=1e-5)
    assert lesson["chain"].backward_arrows == [
        ("output.backward()", "ExpBackward0"), ("ExpBackward0", "SinBackward0"), ("SinBackward0", "PowBackward0"),
        ("PowBackward0", "x.grad"),
    ]  # fmt: skip
    ElementTree.fromstring((lesson["output"] / "l5_chain.svg").read_text(encoding="utf-8"))
    assert sorted(path.name for path in lesson["output"].iterdir()) == ["l5_chain.svg", "l5_slope.png"]
