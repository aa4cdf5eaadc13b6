"""What a backward pass needs, and what may be changed in place before it."""

import pytest

import staticgrad.eager as torch
from staticgrad.errors import StaleValueError


@pytest.mark.parametrize(
    "function",
    [lambda x, w: x / w, lambda x, w: 1 / x, lambda x, w: x * w, lambda x, w: x + w, lambda x, w: x.sin(), lambda x, w: x**2],
)
def test_results_that_are_not_needed(function):
    x, w = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([4.0, 5.0], requires_grad=True)
    function(x, w).sum().backward()
    expected = [None if v.grad is None else v.grad.tolist() for v in (x, w)]
    x.grad = w.grad = None
    y = function(x, w)
    y += 1
    y.sum().backward()
    assert [None if v.grad is None else v.grad.tolist() for v in (x, w)] == expected


@pytest.mark.parametrize("function", [lambda x: x.exp(), lambda x: x.sqrt(), lambda x: x.tanh(), lambda x: x.sigmoid()])
def test_results_that_are_needed(function):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = function(x)
    y += 1
    with pytest.raises(StaleValueError, match="version 1"):
        y.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("function", [lambda x, w: x * w, lambda x, w: w / x, lambda x, w: x @ w])
def test_operands_that_are_needed(function):
    x, w = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0], requires_grad=True)
    y = function(x, w).sum()
    x.zero_()
    with pytest.raises(StaleValueError):
        y.backward()


def test_versions_count_writes():
    x = torch.tensor([1.0, 2.0])
    view, alias, copied = x[0], x.detach(), x.clone()
    assert x._version == 0
    x += 1
    x[0] = 5.0
    view.mul_(2)
    assert x._version == view._version == alias._version == 3 and copied._version == 0
    x.data.zero_()
    assert x._version == 3, "what .data writes is not noticed"
    with pytest.raises(AttributeError):
        x._version = 0
