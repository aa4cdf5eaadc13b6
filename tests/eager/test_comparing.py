"""Comparisons of whole tensors."""

import pytest

import staticgrad.eager as torch

NAN = float("nan")


def test_allclose():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert torch.allclose(x, x * (1 + 1e-6)) is True
    assert torch.allclose(x, x + 0.1) is False and x.allclose(x + 0.1, atol=0.2)
    assert not torch.allclose(torch.tensor([NAN]), torch.tensor([NAN]))
    assert torch.allclose(torch.tensor([NAN]), torch.tensor([NAN]), equal_nan=True)


def test_equal():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert torch.equal(x, x.clone()) is True and x.equal(torch.tensor([1.0, 2.0]))
    assert not torch.equal(x, torch.tensor([1.0])) and not torch.equal(x, x + 1)


@pytest.mark.parametrize("compare", [torch.allclose, torch.equal])
def test_only_tensors(compare):
    with pytest.raises(TypeError, match="tensors"):
        compare(torch.ones(1), [1.0])
