"""The mistakes that everyone makes: each is the error PyTorch raises, says what to do, and shows the user's line."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import eager


def leaf(*values):
    return sg.tensor(list(values), requires_grad=True)


def backward_twice():
    y = (leaf(1.0, 2.0) ** 2).sum()
    y.backward()
    y.backward()


def change_a_needed_value():
    y = leaf(1.0, 2.0) * 2
    z = (y * y).sum()
    y += 1
    z.backward()


def function_returning(gradients):
    class Sum(sg.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return gradients(g)

    return lambda: Sum.apply(leaf(1.0, 2.0), leaf(3.0, 4.0)).sum().backward()


MISTAKES = {
    "gradients of integers": (lambda: sg.tensor([1, 2], requires_grad=True), r"int64.*sg\.tensor\(\[1\., 2\.\]"),
    "gradients of truth values": (lambda: sg.tensor([True], requires_grad=True), "bool.*floating-point"),
    "gradients of integers, set later": (lambda: sg.tensor([1]).requires_grad_(), r"int64.*x\.float\(\)"),
    "gradients of an array of integers": (lambda: eager.from_numpy(np.arange(3)).requires_grad_(), r"int64.*x\.float\(\)"),
    "gradients of ones of integers": (lambda: eager.ones(2, dtype=np.int32, requires_grad=True), "int32.*floating-point"),
    "backward of no scalar": (lambda: (leaf(1.0, 2.0) * 2).backward(), r"shape \(2,\).*x\.sum\(\).*gradient=v"),
    "autograd_grad of no scalar": (lambda: sg.autograd_grad(x := leaf(1.0, 2.0), x), r"shape \(2,\).*grad_outputs=v"),
    "a gradient of the wrong shape": (lambda: leaf(1.0, 2.0).backward(sg.tensor([1.0])), r"\(1,\).*\(2,\).*must be equal"),
    "backward twice": (backward_twice, "freed.*retain_graph=True"),
    "backward of a constant": (lambda: sg.tensor(1.0).backward(), "requires_grad=True"),
    "backward of a detached tensor": (lambda: (leaf(1.0).detach() * 2).backward(), "detached"),
    "a needed value that was changed": (change_a_needed_value, r"in-place operation.*y = x \+ 1.*x\.clone\(\)"),
    "a leaf that was changed": (lambda: leaf(1.0).add_(1), r"leaf.*with sg\.no_grad\(\).*x\.clone\(\)"),
    "a part of a leaf that was changed": (lambda: leaf(1.0, 2.0).__setitem__(0, 5.0), r"leaf.*with sg\.no_grad\(\)"),
    "a view of a leaf that was changed": (lambda: leaf(1.0, 2.0)[0].zero_(), r"view.*leaf.*with sg\.no_grad\(\)"),
    "too few gradients of a Function": (function_returning(lambda g: g), "1 gradients.*2 arguments.*None"),
    "too many gradients of a Function": (function_returning(lambda g: (g, g, g)), "3 gradients.*2 arguments"),
    "a gradient of a Function of the wrong shape": (function_returning(lambda g: (g[:1], g)), r"f32\[1\].*argument 0.*\(2,\)"),
    "numpy of a tensor with gradients": (lambda: leaf(1.0).numpy(), r"x\.detach\(\)\.numpy\(\)"),
    "np.asarray of a tensor with gradients": (lambda: np.asarray(leaf(1.0)), r"x\.detach\(\)\.numpy\(\)"),
    "the truth of many": (lambda: bool(leaf(1.0, 2.0)), r"\.any\(\)"),
    "the number of many": (lambda: leaf(1.0, 2.0).item(), "2 elements"),
    "a result that should stop requiring gradients": (lambda: (leaf(1.0) * 2).requires_grad_(False), r"x\.detach\(\)"),
    "a number that is too large": (lambda: leaf(1.0) * 2**70, "64 bits.*float"),
    "an unused input": (lambda: sg.autograd_grad(leaf(1.0).sum(), leaf(2.0)), "allow_unused=True"),
}


@pytest.mark.parametrize("mistake, words", MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes(mistake, words):
    with pytest.raises(RuntimeError, match="(?s)" + words) as caught:
        mistake()
    assert isinstance(caught.value, sg.StaticgradError)
    assert __file__ in str(caught.value)


def test_mistakes_change_nothing():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError):
        (x * 2).backward()
    with pytest.raises(RuntimeError):
        x.mul_(2)
    assert x.grad is None
    assert x.tolist() == [1.0, 2.0]
    assert sg.is_grad_enabled()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_the_line_that_recorded_a_changed_value_is_shown():
    y = leaf(1.0, 2.0) * 2
    z = (y * y).sum()  # this line
    y += 1
    with pytest.raises(RuntimeError, match=r"recorded at[\s\S]*# this line"):
        z.backward()
