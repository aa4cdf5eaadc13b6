"""Searches whose result's shape depends on values, beside NumPy's."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.eager as torch

MIXED = np.array([[0.0, 2.0, -1.0], [3.0, 0.0, 2.0]])


@pytest.mark.parametrize("array", [MIXED, MIXED[0], np.array(2.0), np.array(0.0), np.zeros((0, 2)), MIXED > 1, MIXED.astype(int)])
def test_places(array):
    x = sg.tensor(array)
    for found in (torch.nonzero(x), x.nonzero(), torch.argwhere(x), x.argwhere()):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found.numpy(), np.argwhere(array))
    places = x.nonzero(as_tuple=True)
    assert len(places) == max(1, array.ndim)
    for found, expected in zip(places, np.nonzero(np.atleast_1d(array)), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


def test_places_are_an_index():
    x = sg.tensor(MIXED, requires_grad=True)
    assert x[torch.nonzero(x, as_tuple=True)].tolist() == [2.0, -1.0, 3.0, 2.0]


def test_different_elements():
    x = sg.tensor(MIXED)
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    assert values.tolist() == x.unique().tolist() == [-1.0, 0.0, 2.0, 3.0]
    assert values[inverse].tolist() == MIXED.tolist()
    assert counts.tolist() == [1, 2, 2, 1]
    assert torch.unique(sg.tensor([[1, 2], [1, 2], [0, 5]]), dim=0).tolist() == [[0, 5], [1, 2]]


def test_chosen_elements_have_gradients():
    x = sg.tensor(MIXED, requires_grad=True)
    mask = sg.tensor([False, True, True])
    chosen = torch.masked_select(x, mask)
    assert chosen.tolist() == [2.0, -1.0, 0.0, 2.0]
    chosen.sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0, 1.0]] * 2
    row = sg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    row.masked_select(sg.tensor(MIXED > 1)).sum().backward()  # the elements are repeated along the mask's rows
    assert row.grad.tolist() == [1.0, 1.0, 1.0]


def test_what_cannot_be_searched():
    with pytest.raises(TypeError, match="nonzero: expected a tensor, not ndarray"):
        torch.nonzero(MIXED)
    with pytest.raises(RuntimeError, match="the mask must be of bool, not float64"):
        torch.masked_select(sg.tensor(MIXED), sg.tensor(MIXED))
    with pytest.raises((RuntimeError, TypeError), match=r"depends on values|expected a tensor"):
        sg.trace(lambda x: torch.nonzero(x))(MIXED)
    with pytest.raises(RuntimeError, match=r"no elements to choose from"):
        torch.median(sg.tensor(np.zeros((2, 0))))
    with pytest.raises(RuntimeError, match=r"k=4, but axis -1 has 3 elements"):
        torch.topk(sg.tensor(MIXED), 4)


def test_the_median_of_nan_is_nan():
    x = sg.tensor([[1.0, np.nan, 0.0, 2.0], [4.0, 3.0, 2.0, 1.0]], dtype=np.float64)
    assert np.isnan(x.median().item())
    values, places = x.median(dim=1)
    assert np.isnan(values[0].item())
    assert (values[1].item(), places.tolist()) == (2.0, [1, 2])


def test_operations_that_take_several_forms():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    with torch.inference_mode():
        assert not (x * 2).requires_grad
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps
    assert torch.iinfo(torch.int64).max == 2**63 - 1
