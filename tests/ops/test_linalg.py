"""Systems of linear equations: against JAX, with singular ones among them, and how batches of them are made."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ops.linalg import Solve

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

SHAPES = [((3, 3), (3,)), ((3, 3), (3, 2)), ((4, 2, 2), (4, 2, 3)), ((2, 3, 3), (3, 1)), ((2, 2), (5, 1, 2, 2)), ((1, 1), (1,))]


def system(shapes, seed=0):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=shape) for shape in shapes)
    return a + 3 * np.eye(a.shape[-1]), b


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_derivatives_are_those_of_jax(shapes):
    a, b = system(shapes)

    def loss(numpy):
        return lambda a, b: numpy.sum(numpy.sin(numpy.linalg.solve(a, b)))

    ours, theirs = loss(np), loss(jnp)
    np.testing.assert_allclose(np.linalg.solve(a, b), sg.trace(lambda a, b: np.linalg.solve(a, b))(a, b), rtol=1e-12)
    for found, expected in zip(sg.grad(ours, (0, 1))(a, b), jax.grad(theirs, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    moved = sg.jvp(ours, (a, b), (np.cos(a), np.cos(b)))[1]
    np.testing.assert_allclose(moved, jax.jvp(theirs, (a, b), (np.cos(a), np.cos(b)))[1], rtol=1e-10)
    np.testing.assert_allclose(sg.hessian(ours)(a, b), jax.hessian(theirs)(a, b), rtol=1e-8, atol=1e-11)


def test_the_inverse_and_its_derivative():
    a, _ = system(((2, 3, 3), (3,)))
    np.testing.assert_allclose(sg.trace(lambda a: np.linalg.inv(a))(a), np.linalg.inv(a), rtol=1e-12)
    expected = jax.jacobian(jnp.linalg.inv)(a)
    np.testing.assert_allclose(sg.jacobian(lambda a: np.linalg.inv(a))(a), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_a_batch_is_a_loop(axes):
    a, b = system(((5, 3, 3), (5, 3, 2)))
    a, b = (x if axis == 0 else x[0] for x, axis in zip((a, b), axes, strict=True))
    pick = [lambda k, x=x, axis=axis: x[k] if axis == 0 else x for x, axis in zip((a, b), axes, strict=True)]
    expected = np.stack([np.linalg.solve(pick[0](k), pick[1](k)) for k in range(5)])
    np.testing.assert_allclose(sg.vmap(lambda a, b: np.linalg.solve(a, b), in_axes=axes)(a, b), expected, rtol=1e-11)


def test_one_matrix_is_eliminated_once_for_a_batch_of_right_hand_sides():
    a, b = system(((3, 3), (50, 3)))
    lowered = sg.vmap(lambda a, b: np.linalg.solve(a, b), in_axes=(None, 0)).lower(a, b)
    (node,) = [node for node in lowered.optimized.nodes if isinstance(node.op, Solve)]
    assert [v.shape for v in node.inputs] == [(9,), (150,)]


def test_a_singular_system_leaves_the_others_alone():
    a, b = system(((4, 3, 3), (4, 3)))
    a[1] = 0
    a[2, 1] = 2 * a[2, 0]
    a[3, 0, 0] = np.nan
    found = sg.trace(lambda a, b: np.linalg.solve(a, b[..., None])[..., 0])(a, b)
    np.testing.assert_allclose(found[0], np.linalg.solve(a[0], b[0]), rtol=1e-12)
    assert not np.isfinite(found[1]).any()
    assert not np.isfinite(found[2]).all() or np.abs(found[2]).max() > 1e14
    assert np.isnan(found[3]).any()


def test_pivots_are_looked_for():
    a = np.array([[1e-20, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(sg.trace(lambda a: np.linalg.solve(a, np.array([1.0, 2.0])))(a), [1.0, 1.0], rtol=1e-15)
    order = np.eye(7)[[3, 0, 6, 1, 5, 2, 4]]
    np.testing.assert_array_equal(sg.trace(lambda a: np.linalg.inv(a))(order), order.T)


def test_malformed_systems_are_refused():
    with pytest.raises(ShapeError, match="rows of 8 elements along axis 0 are no square matrices"):
        Solve(0).infer(Aval((8,), np.dtype(np.float64)), Aval((2,), np.dtype(np.float64)))
    with pytest.raises(ShapeError, match="differ in axes other than 1"):
        Solve(1).infer(Aval((2, 4), np.dtype(np.float64)), Aval((3, 2), np.dtype(np.float64)))
    with pytest.raises(DTypeError, match="floats of one dtype"):
        Solve(0).infer(Aval((4,), np.dtype(np.int64)), Aval((2,), np.dtype(np.int64)))
