"""Mistakes with tensors raise what PyTorch raises, and stay what NumPy raises."""

import numpy as np
import pytest

from staticgrad.eager.creation import from_numpy, ones, tensor
from staticgrad.errors import AxisError, DTypeError, ShapeError, StaticgradError

SHAPES = {
    "broadcast": lambda: ones(2, 3) + ones(2, 4),
    "comparison": lambda: ones(2) == ones(3),
    "in place": lambda: ones(2).add_(ones(2, 2)),
    "assignment": lambda: ones(4).__setitem__(slice(2), ones(3)),
    "product": lambda: ones(1, 2) @ ones(1, 2),
    "mm": lambda: ones(2).mm(ones(2, 1)),
    "view": lambda: ones(6).view(4, 2),
    "two unknown lengths": lambda: ones(6).view(-1, -1),
    "stack": lambda: np.stack([ones(2), ones(3)]),
    "cat": lambda: np.concatenate([ones(2, 2), ones(3, 3)]),
    "largest of nothing": lambda: ones(0).max(),
}


@pytest.mark.parametrize("mistake", SHAPES.values(), ids=SHAPES)
def test_shapes_are_runtime_errors_and_value_errors(mistake):
    with pytest.raises(RuntimeError) as caught:
        mistake()
    assert isinstance(caught.value, (ShapeError, ValueError)) and isinstance(caught.value, StaticgradError)
    assert "test_errors.py" in str(caught.value), "the user's line"


DTYPES = {
    "bitwise": lambda: ones(1) & ones(1),
    "difference of truth values": lambda: tensor([True]) - tensor([True]),
    "negative of a truth value": lambda: -tensor([True]),
    "mean of integers": lambda: tensor([1, 2]).mean(),
    "float into integers": lambda: tensor([1, 2]).add_(1.5),
    "quotient into integers": lambda: tensor([1, 2]).div_(2),
}


@pytest.mark.parametrize("mistake", DTYPES.values(), ids=DTYPES)
def test_dtypes_are_runtime_errors_and_type_errors(mistake):
    with pytest.raises(RuntimeError) as caught:
        mistake()
    assert isinstance(caught.value, DTypeError)


def test_axes_stay_index_errors():
    with pytest.raises(IndexError) as caught:
        ones(2).sum(1)
    assert isinstance(caught.value, AxisError) and isinstance(caught.value, ValueError)


def test_a_power_of_integers():
    with pytest.raises(RuntimeError, match="negative integer power"):
        tensor([1, 2]) ** -1


def test_operators_refuse_what_is_no_number():
    for other in ("a", None, {}):
        with pytest.raises(TypeError):
            from_numpy(np.ones(1)) + other
