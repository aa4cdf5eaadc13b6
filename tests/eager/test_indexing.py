"""Parts of tensors, read and written, against NumPy."""

import numpy as np
import pytest

import staticgrad.eager as torch
from staticgrad.errors import IndexingError

NUMBERS = np.arange(24.0).reshape(2, 3, 4)
ROWS, COLUMNS = np.array([True, False]), np.array([True, False, True])

INDICES = [
    0, -1, (0, 1), (slice(None), 1), (..., 0), (None, 0), (slice(None, None, 2),), (0, slice(1, 3), -1), Ellipsis, None,
    [0, 1], [1], np.array([[0, 1], [1, 0]]), (slice(None), [0, 2]), ([0, 1], [2, 0]), (0, [0, 2], slice(1, 2)), (..., [0, 3]),
    ROWS, (ROWS,), (slice(None), COLUMNS), (..., COLUMNS, 0), (0, COLUMNS), (ROWS, 0), (None, ROWS), (ROWS, ..., [0, 1]),
    NUMBERS > 10, (NUMBERS > 10)[:, :, 0], (..., NUMBERS[0] > 5), (slice(None), (NUMBERS[0] > 5)), (0, NUMBERS[0] > 5),
    NUMBERS < 0, True, False, np.True_, (slice(None), True), [True, False], (0, [False, True, True]),
]  # fmt: skip


def as_tensors(index):
    if isinstance(index, tuple):
        return tuple(map(as_tensors, index))
    return torch.from_numpy(np.array(index)) if isinstance(index, (np.ndarray, list)) else index


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_parts_are_those_of_numpy(index):
    expected = NUMBERS[index]
    for way in (index, as_tensors(index)):
        x = torch.tensor(NUMBERS, requires_grad=True)
        found = x[way]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.detach().numpy(), expected)
        (found * 2).sum().backward()
        gradient = np.zeros_like(NUMBERS)
        np.add.at(gradient, index, 2)
        np.testing.assert_array_equal(x.grad.numpy(), gradient)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_parts_are_written_as_in_numpy(index):
    x = torch.tensor(NUMBERS, requires_grad=True)
    y = x * 1
    y[as_tensors(index)] = -1
    expected = NUMBERS.copy()
    expected[index] = -1
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected >= 0)


@pytest.mark.parametrize(
    "index",
    [COLUMNS, (slice(None), ROWS), (..., COLUMNS), (0, ROWS), NUMBERS[0] > 5, (None, COLUMNS), (ROWS, ROWS), [True, False, True]],
    ids=str,
)
def test_masks_that_do_not_fit(index):
    x = torch.tensor(NUMBERS)
    for way in (index, as_tensors(index)):
        with pytest.raises(IndexingError, match="mask"):
            x[way]
        with pytest.raises(IndexingError, match="mask"):
            x[way] = 0.0
    assert x.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("index", [2, (0, 3), (0, 0, 0, 0), 1.5, [5], (..., ...), np.array([0.5])], ids=str)
def test_indices_out_of_range_and_of_a_wrong_kind(index):
    with pytest.raises(IndexError):
        torch.tensor(NUMBERS)[index]
    with pytest.raises(IndexError):
        torch.tensor(NUMBERS)[as_tensors(index)]


def test_writes_are_named_on_the_tape():
    x = torch.ones(3, requires_grad=True) * 1
    x[0] = 5.0
    assert x.grad_fn.name() == "CopySlices"
    x[[1, 2]] = 5.0
    assert x.grad_fn.name() == "IndexPutBackward0"
