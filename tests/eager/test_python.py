"""Tensors in Python's own operations: len, float, format, iteration, membership."""

import numpy as np
import pytest

from staticgrad.eager.creation import arange, ones, tensor
from staticgrad.errors import StaticgradError

MISTAKES = [
    (TypeError, lambda: len(tensor(1.0))),
    (TypeError, lambda: list(tensor(1.0))),
    (TypeError, lambda: iter(tensor(1.0))),
    (TypeError, lambda: f"{ones(2):.2f}"),
    (TypeError, lambda: [1, 2][tensor(1.0)]),
    (TypeError, lambda: range(ones(1))),
    (TypeError, lambda: setattr(ones(1), "grad", 5.0)),
    (TypeError, lambda: hooked("a")),
    (ValueError, lambda: float(ones(2))),
    (ValueError, lambda: int(ones(2))),
    (ValueError, lambda: complex(ones(0))),
    (RuntimeError, lambda: ones(2).item()),
    (RuntimeError, lambda: bool(ones(2))),
    (RuntimeError, lambda: bool(ones(0))),
    (RuntimeError, lambda: "a" in ones(2)),
    (RuntimeError, lambda: None in ones(2)),
]


def hooked(answer):
    x = ones(1, requires_grad=True)
    x.register_hook(lambda gradient: answer)
    (x * 2).backward()


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_errors_are_those_of_pytorch(kind, mistake):
    with pytest.raises(kind) as caught:
        mistake()
    assert isinstance(caught.value, StaticgradError) and "test_python.py" in str(caught.value)


def test_a_tensor_without_axes_formats_as_its_number():
    loss = (tensor(1.5, requires_grad=True) * 1.0).sum()
    assert f"{loss}" == "1.5" and f"{loss:.3f}" == "1.500" and f"{tensor(3):d}" == "3" and f"{tensor(True)}" == "True"
    assert str(loss) == "tensor(1.5000, grad_fn=<SumBackward0>)"
    assert f"{ones(2)}" == str(ones(2)) == "tensor([1., 1.])"


def test_conversions():
    assert float(tensor([1.5])) == 1.5 and int(tensor([[3.7]])) == 3 and complex(tensor(2.0)) == 2
    assert list(range(tensor(3))) == [0, 1, 2] and [10, 20][tensor(1)] == 20
    assert bool(tensor([[1]])) and not bool(tensor(0.0))


def test_membership_and_iteration():
    assert 2.0 in tensor([1.0, 2.0]) and 5 not in arange(3) and tensor(2) in arange(3) and np.float64(1) in ones(1)
    assert [x.item() for x in arange(3)] == [0, 1, 2]
    first, second = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert first.requires_grad and second.tolist() == [3.0, 4.0]


def test_gradients_can_be_deleted():
    x = ones(1, requires_grad=True)
    (x * 2).backward()
    del x.grad
    assert x.grad is None
