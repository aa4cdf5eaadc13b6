"""Systems of linear equations: against JAX, with singular ones among them, and how batches of them are made."""

import numpy as np
import pytest
import scipy.linalg

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ops.elimination import LU, Solve

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


def inside(graph, *ops):
    """Return the nodes of some ops in a graph, and in those inside of its ops."""
    found = [node for node in graph.nodes if isinstance(node.op, ops)]
    return found + [node for owner in graph.nodes for inner in owner.op.subgraphs for node in inside(inner, *ops)]


@pytest.mark.parametrize("shapes", [((3, 3), (50, 3)), ((1, 3, 3), (50, 3, 1))], ids=str)
def test_one_matrix_is_eliminated_once_for_many_right_hand_sides(shapes):
    a, b = system(shapes)
    one_by_one = sg.vmap(lambda a, b: np.linalg.solve(a, b), in_axes=(None, 0)) if a.ndim == 2 else np.linalg.solve
    lowered = sg.trace(lambda a, b: one_by_one(a, b)).lower(a, b)
    (node,) = inside(lowered.optimized, LU)
    assert node.inputs[0].aval.size == 9
    np.testing.assert_allclose(sg.trace(lambda a, b: one_by_one(a, b))(a, b), one_by_one(a, b), rtol=1e-12)


def gaussian(numpy):
    return lambda a, b: numpy.linalg.slogdet(a)[1] + b @ numpy.linalg.solve(a, b) + numpy.sum(numpy.linalg.inv(a)) + numpy.linalg.det(a)


@pytest.mark.parametrize("transform", [sg.value_and_grad, sg.hessian, lambda f: lambda a, b: sg.jvp(f, (a, b), (a, b))])
def test_one_matrix_is_eliminated_once_for_values_and_derivatives(transform):
    a, b = system(((5, 5), (5,)))
    assert len(inside(sg.trace(transform(gaussian(np))).lower(a, b).optimized, LU)) == 1


def test_values_and_derivatives_that_share_factors_are_those_of_jax():
    a, b = system(((5, 5), (5,)))
    for found, expected in zip(sg.value_and_grad(gaussian(np))(a, b), jax.value_and_grad(gaussian(jnp))(a, b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(sg.hessian(gaussian(np))(a, b), jax.hessian(gaussian(jnp))(a, b), rtol=1e-9, atol=1e-9)


def steps(numpy, scan, varying):
    """Implicit steps, with one matrix or with another one in each of them."""

    def loss(rate, start):
        def step(u, k):
            matrix = numpy.eye(5) * (3 + (numpy.sin(u) * k if varying else 0.0)) + rate * MIXED
            u = numpy.linalg.solve(matrix, u + 1.0)
            return u, u[0]

        end, path = scan(step, start, np.arange(6.0))
        return numpy.sum(end**2) + numpy.sum(numpy.cos(path))

    return loss


MIXED = np.random.default_rng(5).normal(size=(5, 5))


@pytest.mark.parametrize("varying", [False, True])
def test_steps_share_factors(varying):
    args = 0.3, np.linspace(0, 1, 5)
    ours, theirs = steps(np, sg.scan, varying), steps(jnp, jax.lax.scan, varying)
    graph = sg.value_and_grad(ours, (0, 1)).lower(*args).optimized
    loops = [node for node in graph.nodes if node.op.name == "scan"]
    eliminations = [len(inside(node.op.body, LU)) for node in loops]
    assert eliminations == ([1, 0] if varying else [0, 0])  # the loop on the way back is given factors
    assert len(inside(graph, LU)) == 1
    for found, expected in zip(sg.grad(ours, (0, 1))(*args), jax.grad(theirs, (0, 1))(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11)
    expected = jax.jacfwd(jax.grad(theirs))(*args)
    for second in (
        sg.jacobian(sg.grad(ours), mode="forward"),
        sg.grad(sg.grad(ours)),
        sg.grad(lambda r, u: sg.jvp(ours, (r, u), (1.0, 0 * u))[1]),
    ):
        np.testing.assert_allclose(second(*args), expected, rtol=1e-10)


def test_factors_by_the_names_of_scipy():
    for shape in ((6, 6), (3, 4, 4)):
        a, b = system((shape, (*shape[:-1], 2)))
        factors, places = sg.trace(lambda a: snp.linalg.lu_factor(a))(a)
        expected = [scipy.linalg.lu_factor(x) for x in a.reshape(-1, *shape[-2:])]
        np.testing.assert_allclose(factors.reshape(-1, *shape[-2:]), [x for x, _ in expected], rtol=1e-12)
        assert places.dtype == np.int32
        np.testing.assert_array_equal(places.reshape(-1, shape[-1]), [x for _, x in expected])
        for trans, matrices in ((0, a), ("T", a.mT)):
            solved = sg.trace(lambda f, p, b, t=trans: snp.linalg.lu_solve((f, p), b, trans=t))(factors, places, b)
            np.testing.assert_allclose(solved, np.linalg.solve(matrices, b), rtol=1e-11)
    assert [x.shape for x in sg.trace(lambda a: snp.linalg.lu_factor(a))(np.zeros((2, 0, 0)))] == [(2, 0, 0), (2, 0)]
    np.testing.assert_array_equal(snp.linalg.lu_factor(a[0])[1], scipy.linalg.lu_factor(a[0])[1])


@pytest.mark.parametrize("trans", [0, 1])
def test_derivatives_through_factors_are_those_of_jax(trans):
    a, b = system(((5, 5), (5, 3)), seed=2)

    def loss(numpy, linalg):
        def run(a, b):
            factors, places = linalg.lu_factor(a)
            return numpy.sum(numpy.sin(linalg.lu_solve((factors, places), b, trans))) + numpy.sum(factors**3)

        return run

    ours, theirs = loss(np, snp.linalg), loss(jnp, jax.scipy.linalg)
    for found, expected in zip(sg.grad(ours, (0, 1))(a, b), jax.grad(theirs, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(sg.hessian(ours)(a, b), jax.hessian(theirs)(a, b), rtol=1e-8, atol=1e-9)


def test_factors_may_be_anything():
    """Rows to exchange with that are none of the matrix's do not lead out of it."""
    for order in (3, 6, 9):
        factors, places = np.eye(order), np.array([7, -3, 2**31 - 1, *range(3, order)], np.int32)
        x = sg.trace(lambda f, p, b: snp.linalg.lu_solve((f, p), b))(factors, places, np.arange(float(order)))
        np.testing.assert_array_equal(np.sort(x), np.arange(order))


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
