"""Making tensors: dtypes, defaults, and what is refused."""

import numpy as np
import pytest

import staticgrad.eager as torch
from staticgrad.errors import ArgumentError, TensorError


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (3, "int64"), (3.0, "float32"), (True, "bool"), ([1, 2.5], "float32"), ([True, 2], "int64"), ([], "float32"), (range(3), "int64"),
        (np.float64(1), "float64"), (np.int32(1), "int32"), (np.arange(2.0), "float64"), ([np.float32(1)], "float32"), (2**63 - 1, "int64"),
    ],
)  # fmt: skip
def test_dtypes_of_data(data, dtype):
    assert torch.tensor(data).dtype == dtype


def test_too_large_numbers_are_infinite_and_too_large_integers_are_refused():
    assert torch.tensor(1e40).item() == np.inf and torch.tensor([1e40], dtype=torch.float64).item() == 1e40
    assert torch.tensor([1e40], dtype=torch.float32).item() == np.inf
    with pytest.raises(TensorError, match="int64"):
        torch.tensor(2**63)
    with pytest.raises(TensorError, match="uint8"):
        torch.tensor(300, dtype=torch.uint8)


def test_arange():
    for bounds in ((5,), (2, 5), (0, 1, 0.25), (5, 0, -2), (3.0,), (0,)):
        np.testing.assert_array_equal(torch.arange(*bounds).numpy(), np.arange(*bounds))
    assert torch.arange(3.0).dtype == torch.float32 and torch.arange(3, dtype=torch.float64).dtype == torch.float64
    assert torch.arange(start=1, end=3).tolist() == [1, 2] and torch.arange(0, 10, step=5).tolist() == [0, 5]


@pytest.mark.parametrize("bounds", [(1, 5, -1), (5, 1), (1, 5, 0)])
def test_steps_that_do_not_lead_there(bounds):
    with pytest.raises(TensorError, match="arange"):
        torch.arange(*bounds)


@pytest.mark.parametrize(("bounds", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"end": 2}), ((1, 2), {"stop": 2})])
def test_bounds_of_arange(bounds, named):
    with pytest.raises(ArgumentError, match="arange"):
        torch.arange(*bounds, **named)


@pytest.mark.parametrize(("size", "error"), [((-1,), RuntimeError), ((2.5,), TypeError), (("a",), TypeError)])
def test_shapes_that_cannot_be(size, error):
    with pytest.raises(error):
        torch.zeros(*size)
