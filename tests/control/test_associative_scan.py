"""`associative_scan` against `jax.lax.associative_scan`."""

import numpy as np
import pytest

import staticgrad as sg

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)


def affine(first, second):
    """Return one affine map after the other: x -> a x + b."""
    (a, b), (c, d) = first, second
    return a * c, c * b + d


@pytest.mark.parametrize("backend", ["interp", "cpu"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 8, 13, 64])
def test_against_jax(length, reverse, backend):
    rng = np.random.default_rng(length)
    elems = rng.normal(size=(length, 2)), rng.normal(size=(length, 2))
    found = sg.trace(lambda x: sg.associative_scan(affine, x, reverse=reverse), backend=backend)(elems)
    expected = jax.lax.associative_scan(affine, tuple(map(jax.numpy.asarray, elems)), reverse=reverse) if length else elems
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axes_and_containers(axis):
    x = np.random.default_rng(0).normal(size=(5, 6))
    found = sg.associative_scan(lambda a, b: {"x": a["x"] + b["x"]}, {"x": x}, axis=axis)["x"]
    np.testing.assert_allclose(found, np.cumsum(x, axis), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(sg.associative_scan(np.maximum, x, axis=axis), np.maximum.accumulate(x, axis))


def test_the_gradient_is_that_of_the_loop():
    x = np.random.default_rng(1).normal(size=11)
    one = sg.grad(lambda x: np.sum(sg.associative_scan(np.multiply, x) ** 2))(x)
    other = sg.grad(lambda x: np.sum(sg.scan(lambda c, v: (c * v, c * v), 1.0, x)[1] ** 2))(x)
    np.testing.assert_allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sg.associative_scan(np.add, np.float64(1.0)), IndexError, "axis 0"),
        (lambda: sg.associative_scan(np.add, np.ones((2, 3)), axis=2), ValueError, "axis 2"),
        (lambda: sg.associative_scan(affine, (np.ones(3), np.ones(4))), ValueError, "3 and 4 elements"),
        (lambda: sg.associative_scan(lambda a, b: (a, b), np.ones(3)), TypeError, "structure"),
        (lambda: sg.associative_scan(np.add, ()), TypeError, "no arrays"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words) as found:
        call()
    assert isinstance(found.value, sg.StaticgradError)
