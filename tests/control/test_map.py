"""`sg.map`: the results of a function for each part of arrays, one after the other or several at once."""

import numpy as np
import pytest

import staticgrad as sg

xs = np.random.default_rng(3).normal(size=(7, 3))


def function(part):
    """Return what has another structure than the part, and other dtypes."""
    x, k = part
    return {"scaled": x * x.sum(), "count": (k + 1, x[0] > 0), "nothing": None}


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 10])
def test_it_is_the_stack_of_the_results(batch_size):
    found = sg.trace(lambda parts: sg.map(function, parts, batch_size=batch_size), backend="interp")((xs, np.arange(7)))
    np.testing.assert_allclose(found["scaled"], xs * xs.sum(1, keepdims=True))
    np.testing.assert_array_equal(found["count"][0], np.arange(1, 8))
    np.testing.assert_array_equal(found["count"][1], xs[:, 0] > 0)
    assert found["count"][1].dtype == np.bool_
    assert found["nothing"] is None


@pytest.mark.parametrize("batch_size", [None, 2])
def test_it_has_derivatives_and_closes_over_tracers(batch_size):
    def total(xs, w):
        return sg.map(lambda x: np.tanh(x @ w), xs, batch_size=batch_size).sum()

    w = np.array([0.5, -1.0, 2.0])
    slope = 1 - np.tanh(xs @ w) ** 2
    for_xs, for_w = sg.grad(total, argnums=(0, 1))(xs, w)
    np.testing.assert_allclose(for_xs, slope[:, None] * w, rtol=1e-12)
    np.testing.assert_allclose(for_w, slope @ xs, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_no_parts_and_no_trace(batch_size):
    assert sg.map(lambda x: x * x, np.zeros((0, 2)), batch_size=batch_size).shape == (0, 2)
    np.testing.assert_array_equal(sg.map(lambda x: x * x, np.arange(5), batch_size=batch_size), np.arange(5) ** 2)


def test_it_takes_the_memory_of_one_batch():
    def memory(size):
        return (
            sg.trace(lambda x: sg.map(lambda v: np.linalg.det(np.exp(np.outer(v, v))), x, batch_size=size)).lower(np.ones((60, 30))).memory
        )

    assert memory(None) < memory(3) < memory(60) / 10
