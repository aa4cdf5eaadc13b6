"""Values, tangents, gradients and batches of programs with control flow, against `jax.lax`."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from tests.control.programs import PROGRAMS

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

BACKENDS = ("interp", "cpu")
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


def ours(program, backend):
    def function(*args):
        return program.function(sg, snp, *args)

    function.__name__ = program.name
    return sg.trace(function, backend=backend)


def theirs(program):
    return lambda *args: program.function(jax.lax, jax.numpy, *map(jax.numpy.asarray, args))


def active(program):
    return tuple(k for k, x in enumerate(program.args) if np.asarray(x).dtype.kind == "f")


def total(function):
    """Return the function whose result is a number in which every result plays a part."""

    def summed(*args):
        leaves = jax.tree_util.tree_leaves(function(*args))
        return sum((x * x).sum() + x.sum() * (k + 1) for k, x in enumerate(leaves))

    return summed


def assert_same(found, expected, tolerance=1e-11):
    assert jax.tree_util.tree_structure(found) == jax.tree_util.tree_structure(expected)
    for x, y in zip(jax.tree_util.tree_leaves(found), jax.tree_util.tree_leaves(expected), strict=True):
        assert np.shape(x) == np.shape(y)
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@each_program
def test_values(program):
    expected = theirs(program)(*program.args)
    for backend in BACKENDS:
        assert_same(ours(program, backend)(*program.args), expected)
    assert_same(program.function(sg, snp, *program.args), expected)


@each_program
def test_tangents(program):
    rng = np.random.default_rng(0)
    places = active(program)
    primals = [program.args[k] for k in places]
    directions = tuple(np.asarray(rng.standard_normal(np.shape(x)))[()] for x in primals)

    def only(function):
        def of_floats(*floats):
            args = list(program.args)
            for k, x in zip(places, floats, strict=True):
                args[k] = x
            return function(*args)

        return of_floats

    expected = jax.jvp(only(theirs(program)), tuple(map(jax.numpy.asarray, primals)), tuple(map(jax.numpy.asarray, directions)))
    for backend in BACKENDS:
        found = sg.jvp(sg.trace(only(ours(program, backend)), backend=backend), tuple(primals), directions)
        assert_same(found, expected, 1e-10)


def our_total(program, backend):
    function = ours(program, backend)

    def summed(*args):
        leaves = jax.tree_util.tree_leaves(function(*args))
        return sum((x * x).sum() + x.sum() * (k + 1) for k, x in enumerate(leaves))

    summed.__name__ = program.name
    return sg.trace(summed, backend=backend)


def their_gradient(program):
    """Return JAX's gradient, by forward mode where it cannot go backwards."""
    transform = jax.grad if program.reverse_in_jax else jax.jacfwd
    return transform(total(theirs(program)), active(program))


@each_program
def test_gradients(program):
    args = [jax.numpy.asarray(x) for x in program.args]
    expected, their_grads = total(theirs(program))(*args), their_gradient(program)(*args)
    for backend in BACKENDS:
        value, grads = sg.value_and_grad(our_total(program, backend), active(program))(*program.args)
        np.testing.assert_allclose(value, expected, rtol=1e-11)
        assert_same(grads, their_grads, 1e-9)


@each_program
def test_second_derivatives(program):
    args = [jax.numpy.asarray(x) for x in program.args]
    rng = np.random.default_rng(1)
    places = active(program)
    weights = [rng.standard_normal(np.shape(program.args[k])) for k in places]

    def weighted(gradient):
        return lambda *a: sum((g * w).sum() for g, w in zip(gradient(*a), weights, strict=True))

    ours_twice = sg.grad(weighted(sg.grad(our_total(program, "cpu"), places)), places)
    transform = jax.grad if program.reverse_in_jax else jax.jacfwd
    assert_same(ours_twice(*program.args), transform(weighted(their_gradient(program)), places)(*args), 1e-8)


@each_program
def test_batches(program):
    rng = np.random.default_rng(2)
    places = active(program)
    batch = [np.asarray(x) for x in program.args]
    for k in places:
        batch[k] = batch[k] * (1 + 0.1 * rng.standard_normal((3, *np.shape(batch[k]))))
    axes = tuple(0 if k in places else None for k in range(len(batch)))
    expected = jax.vmap(theirs(program), axes)(*map(jax.numpy.asarray, batch))
    for backend in BACKENDS:
        assert_same(sg.vmap(ours(program, backend), axes)(*batch), expected)


@each_program
def test_batches_of_gradients(program):
    rng = np.random.default_rng(3)
    places = active(program)
    batch = [np.asarray(x) for x in program.args]
    for k in places:
        batch[k] = batch[k] * (1 + 0.1 * rng.standard_normal((3, *np.shape(batch[k]))))
    axes = tuple(0 if k in places else None for k in range(len(batch)))
    found = sg.vmap(sg.grad(our_total(program, "cpu"), places), axes)(*batch)
    assert_same(found, jax.vmap(their_gradient(program), axes)(*map(jax.numpy.asarray, batch)), 1e-9)
