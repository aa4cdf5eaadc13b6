"""Gradients, tangents and Hessian products of NumPy code against JAX and HIPS autograd."""

import numpy as np
import pytest

import staticgrad as sg
from tests.ad.functions import CASES, WITHOUT_AUTOGRAD

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def plain(case):
    def function(*args):
        return case.function(np, *args)

    function.__name__ = case.name
    return sg.trace(function, backend="interp")


def active(case):
    return tuple(k for k, x in enumerate(case.args) if np.asarray(x).dtype.kind == "f")


def assert_all_close(found, expected, tolerance=1e-10):
    for x, y in zip(found, expected, strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@each_case
def test_gradients_against_jax(case):
    value, grads = sg.value_and_grad(plain(case), active(case))(*case.args)
    expected, expected_grads = jax.value_and_grad(lambda *a: case.function(jax.numpy, *a), active(case))(*case.args)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(value, case.function(np, *case.args), rtol=1e-12)
    assert_all_close(grads, expected_grads)


@each_case
def test_gradients_against_autograd(case):
    autograd = pytest.importorskip("autograd")
    numpy = pytest.importorskip("autograd.numpy")
    if case.name in WITHOUT_AUTOGRAD:
        return
    grads = sg.grad(plain(case), active(case))(*case.args)
    for k, found in zip(active(case), grads, strict=True):
        expected = autograd.grad(lambda *a: case.function(numpy, *a), k)(*case.args)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@each_case
def test_tangents_and_hessian_products_against_jax(case):
    rng = np.random.default_rng(0)
    numbers = active(case)

    def of_active(np_, *x):
        args = list(case.args)
        for k, v in zip(numbers, x, strict=True):
            args[k] = v
        return case.function(np_, *args)

    points = tuple(np.asarray(case.args[k], float) for k in numbers)
    tangents = tuple(rng.standard_normal(x.shape) for x in points)
    traced = sg.trace(lambda *x: of_active(np, *x), backend="interp")
    _, moved = sg.jvp(traced, points, tangents)
    np.testing.assert_allclose(moved, jax.jvp(lambda *x: of_active(jax.numpy, *x), points, tangents)[1], rtol=1e-10, atol=1e-12)

    everything = tuple(range(len(points)))
    gradient = sg.grad(traced, everything)
    expected = jax.jvp(jax.grad(lambda *x: of_active(jax.numpy, *x), everything), points, tangents)[1]
    _, forward_over_reverse = sg.jvp(gradient, points, tangents)
    assert_all_close(forward_over_reverse, expected, 1e-9)
    reverse_over_reverse = sg.vjp(gradient, *points)[1](tangents)
    assert_all_close(reverse_over_reverse, expected, 1e-9)

    def along(*x):
        return sg.jvp(traced, x, tangents)[1]

    reverse_over_forward = sg.grad(sg.trace(along, backend="interp"), everything)(*points)
    assert_all_close(reverse_over_forward, expected, 1e-9)


def test_compiled_gradients_against_jax():
    """All cases in one program, through the compiler."""
    cases = [c for c in CASES if c.name not in ("recurrence",)]
    args = tuple(tuple(np.asarray(x) for x in c.args) for c in cases)

    def everything(args):
        return sum(c.function(np, *a) for c, a in zip(cases, args, strict=True))

    floats = tuple(tuple(x for x in a if x.dtype.kind == "f") for a in args)

    def of_floats(floats):
        filled = []
        for a, f in zip(args, floats, strict=True):
            supply = iter(f)
            filled.append(tuple(next(supply) if x.dtype.kind == "f" else x for x in a))
        return everything(tuple(filled))

    value, grads = sg.value_and_grad(of_floats)(floats)
    np.testing.assert_allclose(value, everything(args), rtol=1e-12)
    for c, a, found in zip(cases, args, grads, strict=True):
        numbers = tuple(k for k, x in enumerate(a) if x.dtype.kind == "f")
        expected = jax.grad(lambda *x, c=c: c.function(jax.numpy, *x), numbers)(*a)
        assert_all_close(found, expected, 1e-9)
