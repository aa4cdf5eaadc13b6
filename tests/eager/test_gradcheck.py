"""`torch.autograd.gradcheck` and its errors."""

import pytest

import staticgrad.eager as torch
from staticgrad.errors import GradientCheckError

NUMBERS = [0.5, 2.0]


def leaf(dtype=torch.float64, requires_grad=True):
    return torch.tensor(NUMBERS, dtype=dtype, requires_grad=requires_grad)


def half_detached(x):
    return x.detach() ** 2 + x


def test_what_agrees():
    assert torch.autograd.gradcheck(lambda x: x**2, leaf())
    assert torch.autograd.gradcheck(lambda x, y: (torch.sin(x) * y, x / y), (leaf(), leaf()))
    assert torch.autograd.gradcheck(lambda x, k: x * k, (leaf(), 3.0))
    assert torch.autograd.gradgradcheck(lambda x: x.exp() * x, leaf())


def test_what_does_not_agree():
    for kind in (GradientCheckError, RuntimeError):
        with pytest.raises(kind, match="argument 0"):
            torch.autograd.gradcheck(half_detached, leaf())
    assert not torch.autograd.gradcheck(half_detached, leaf(), raise_exception=False)


def test_nothing_to_check():
    with pytest.raises(ValueError, match="requires_grad=True"):
        torch.autograd.gradcheck(lambda x: x**2, leaf(requires_grad=False))
