"""Which tensors share memory: views do, or refuse; results never do."""

import numpy as np
import pytest

from staticgrad.eager.apply import apply
from staticgrad.eager.creation import arange, ones
from staticgrad.eager.operations import FUNCTIONS
from staticgrad.errors import TensorError


def test_view_shares_memory():
    x = arange(6)
    x.view(2, 3)[1, 0] = 30
    assert x.tolist() == [0, 1, 2, 30, 4, 5]
    assert x.view(2, 3).T.view(3, 2).tolist() == [[0, 30], [1, 4], [2, 5]]
    assert x.view_as(ones(3, 2)).shape == (3, 2) and ones(2, 0).view(0).shape == (0,)


@pytest.mark.parametrize(
    "view",
    [lambda x: x.T.view(6), lambda x: x.T.view(-1), lambda x: x[:, :2].view(4), lambda x: x.T.view_as(ones(6))],
)
def test_view_refuses_to_copy(view):
    with pytest.raises(TensorError, match="reshape"):
        view(arange(6).view(2, 3))


def test_reshape_copies_where_it_must():
    x = arange(6).view(2, 3)
    copied = x.T.reshape(6)
    copied[0] = 9
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_contiguous_copies_where_it_must():
    x = arange(6).view(2, 3)
    assert x.contiguous() is x
    copied = x.T.contiguous()
    assert copied.is_contiguous() and copied.tolist() == [[0, 3], [1, 4], [2, 5]]
    copied[0] = 9
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


RESULTS = {
    "product of transposes": lambda x, y: y.T @ x.T,
    "einsum": lambda x, y: np.einsum("ij,jk->ki", x, y),
    "flip": lambda x, y: apply(FUNCTIONS["flip"], (x, (0,))),
    "sorted": lambda x, y: apply(FUNCTIONS["sort"], (x, 0))[0],
    "sine of a transpose": lambda x, y: np.sin(x.T),
    "clone of a transpose": lambda x, y: x.T.clone(),
    "expanded": lambda x, y: x[0].expand(2, 3) * 1.0,
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_results_can_be_viewed_in_any_shape(result):
    x, y = ones(2, 3, requires_grad=True), ones(3, 4, requires_grad=True)
    found = result(x, y)
    assert found.view(-1).shape == (found.numel(),)
    (found**2).sum().backward()
    for leaf in (x, y):
        if leaf.grad is not None:
            leaf.grad.view(-1)[0] = 5.0
            assert leaf.grad.tolist()[0][0] == 5.0


def test_results_do_not_share_memory_with_operands():
    x = ones(2)
    for result in (x * 1, x + 0, x.clone(), np.maximum(x, x), x.to(np.float64), x.abs()):
        result[0] = 7
        assert x.tolist() == [1, 1]
