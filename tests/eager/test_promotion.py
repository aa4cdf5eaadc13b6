"""Dtypes of results: PyTorch's rules, stated here as literal tables."""

import numpy as np
import pytest

import staticgrad.eager as torch

ONES = {name: getattr(torch, name) for name in ("bool", "uint8", "int32", "int64", "float32", "float64")}


def dtype_of(x):
    return x.dtype.name


@pytest.mark.parametrize(
    ("tensor", "number", "expected"),
    [
        ("bool", True, "bool"), ("bool", 2, "int64"), ("bool", 2.5, "float32"), ("uint8", 2, "uint8"), ("uint8", 2.5, "float32"),
        ("int32", 2, "int32"), ("int64", 2.5, "float32"), ("float32", 2, "float32"), ("float32", 2.5, "float32"),
        ("float64", 2.5, "float64"),
        ("float32", np.float64(2.5), "float32"), ("float32", np.int64(2), "float32"), ("int32", np.int64(2), "int32"),
        ("int64", np.float32(2.5), "float32"), ("int64", np.float64(2.5), "float32"), ("bool", np.True_, "bool"),
    ],
)  # fmt: skip
def test_numbers_decide_only_the_kind(tensor, number, expected):
    for x in (torch.ones(2, dtype=ONES[tensor]), torch.ones((), dtype=ONES[tensor])):
        assert dtype_of(x * number) == dtype_of(number * x) == dtype_of(x.mul(number)) == expected


@pytest.mark.parametrize(
    ("first", "second", "axes", "without_axes"),
    [
        ("int32", "int64", "int64", "int32"), ("uint8", "int64", "int64", "uint8"), ("int64", "float32", "float32", "float32"),
        ("float32", "float64", "float64", "float32"), ("float32", "int64", "float32", "float32"), ("bool", "uint8", "uint8", "uint8"),
        ("int64", "float64", "float64", "float64"),
    ],
)  # fmt: skip
def test_tensors_without_axes_decide_only_the_kind(first, second, axes, without_axes):
    x, y = torch.ones(2, dtype=ONES[first]), torch.ones(2, dtype=ONES[second])
    assert dtype_of(x + y) == dtype_of(y + x) == axes
    assert dtype_of(x + y[0]) == dtype_of(y[0] + x) == without_axes
    assert dtype_of(x[0] + y[0]) == axes


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_whole_numbers(dtype):
    x = torch.ones(2, dtype=ONES[dtype])
    for total in (x.sum(), x.prod(), x.cumsum(0), torch.sum(x, 0), x.sum(dim=0, keepdim=True)):
        assert dtype_of(total) == "int64"
    for result in (x / 2, x / x, x.sin(), x.exp(), x.sqrt(), x.sigmoid(), x.reciprocal(), torch.log(x), x.mean(dtype=torch.float32)):
        assert dtype_of(result) == "float32"
    assert (torch.tensor([2, 4]).reciprocal() == torch.tensor([0.5, 0.25])).all()


def test_what_is_written_in_place_keeps_its_dtype():
    x = torch.ones(2, dtype=torch.uint8)
    x += 255
    assert x.tolist() == [0, 0]
    x += torch.tensor([1, 2], dtype=torch.int64)
    x *= torch.tensor(3, dtype=torch.int32)
    assert x.tolist() == [3, 6] and dtype_of(x) == "uint8"
    y = torch.ones(2)
    y += torch.ones(2, dtype=torch.float64)
    y.mul_(2)
    assert y.tolist() == [4.0, 4.0] and dtype_of(y) == "float32"


@pytest.mark.parametrize("change", [lambda x: x.add_(1.5), lambda x: x.div_(2), lambda x: x.mul_(torch.ones(2))])
def test_floats_are_not_written_into_integers(change):
    x = torch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="int64"):
        change(x)
    assert x.tolist() == [1, 2]


def test_a_gradient_of_whole_numbers_weighs_too():
    x = torch.ones(2, requires_grad=True)
    (x * 3).backward(gradient=torch.tensor([1, 2]))
    assert x.grad.tolist() == [3, 6] and dtype_of(x.grad) == "float32"
