"""Lesson L2, extending autograd: a quantiser with a gradient of its own, eagerly and traced."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch
from tests.lessons.running import run


class Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        whole = x.to(torch.uint8).to(x.dtype)
        ctx.save_for_backward(x - whole)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        (error,) = ctx.saved_tensors
        return gradient + error


NUMBERS = [0.0, -0.0, 0.99, -0.99, 1.5, -1.5, 255.9, 256.0, 300.75, -257.5, 1e9 + 0.5]
WHOLE = [0.0, 0.0, 0.0, 0.0, 1.0, 255.0, 255.0, 0.0, 44.0, 255.0, 0.0]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l2_extending_autograd", tmp_path_factory.mktemp("lesson"))


def test_a_cast_to_bytes_cuts_towards_zero_and_counts_modulo_256_eagerly():
    assert Quantise.apply(torch.tensor(NUMBERS, dtype=torch.float64)).tolist() == WHOLE


@pytest.mark.parametrize("options", [{"backend": "interp"}, {"printer": "llvm"}, {"printer": "numba"}], ids=str)
def test_a_cast_to_bytes_cuts_towards_zero_and_counts_modulo_256_traced(options):
    assert sg.trace(Quantise.apply, **options)(np.array(NUMBERS)).tolist() == WHOLE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backward_adds_the_saved_error_eagerly_and_traced(dtype):
    array = np.array(NUMBERS, dtype)
    weights = np.arange(1.0, len(array) + 1, dtype=dtype)
    expected = weights + (array - np.array(WHOLE, dtype))
    x = torch.tensor(array, requires_grad=True)
    (Quantise.apply(x) * torch.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    np.testing.assert_array_equal(sg.grad(lambda x: np.sum(Quantise.apply(x) * weights))(array), expected)


def test_grad_fn_names_the_function_and_leads_on():
    x = torch.tensor([1.5], requires_grad=True)
    node = Quantise.apply(x * 2).grad_fn
    assert node.name() == "QuantiseBackward"
    assert [following.name() for following, _ in node.next_functions] == ["MulBackward0"]


def test_gradcheck_tells_a_true_gradient_from_a_pretended_one():
    x = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: torch.exp(torch.sin(x)), (x,))
    with pytest.raises(RuntimeError, match="gradcheck"):
        torch.autograd.gradcheck(Quantise.apply, (x,))


def test_the_lesson_compares_networks_with_and_without_it(lesson):
    last = {place: losses[-1] for place, losses in lesson["histories"].items()}
    assert last["nowhere"] < 0.1
    assert last["input"] < 0.1
    assert last["middle"] > 10 * last["nowhere"]
    assert lesson["moved"] > 0.5


def test_the_picture_shows_the_three_histories(lesson):
    lines = {line.get_label(): line.get_ydata() for line in lesson["axes"].get_lines()}
    assert list(lines) == ["no quantiser", "quantiser input", "quantiser middle"]
    for drawn, losses in zip(lines.values(), lesson["histories"].values(), strict=True):
        np.testing.assert_array_equal(drawn, losses)
