"""Factorisations, determinants and triangular systems as users call them: against NumPy, SciPy and JAX, and on hostile matrices."""

import numpy as np
import pytest
import scipy.linalg

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError, UnsupportedError

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

NOISE = np.random.default_rng(0)
PLAIN = NOISE.normal(size=(2, 3, 3)) + 2 * np.eye(3)
FOUR = NOISE.normal(size=(4, 4))
TALL = NOISE.normal(size=(2, 4, 3))
DEFINITE = PLAIN @ PLAIN.mT + np.eye(3)
SIDES = NOISE.normal(size=(3, 2))


def triangular(module, **options):
    return lambda a, b: module.solve_triangular(a, b, **options)


CASES = {
    "cholesky": (lambda a: np.linalg.cholesky(a), jnp.linalg.cholesky, (DEFINITE,)),
    "cholesky, upper": (lambda a: np.linalg.cholesky(a, upper=True), lambda a: jnp.linalg.cholesky(a, upper=True), (DEFINITE,)),
    "det": (lambda a: np.linalg.det(a), jnp.linalg.det, (PLAIN,)),
    "det of four": (lambda a: np.linalg.det(a), jnp.linalg.det, (FOUR,)),
    "slogdet": (lambda a: tuple(np.linalg.slogdet(a)), lambda a: tuple(jnp.linalg.slogdet(a)), (PLAIN,)),
    "qr": (lambda a: tuple(np.linalg.qr(a)), lambda a: tuple(jnp.linalg.qr(a)), (TALL,)),
    "r": (lambda a: np.linalg.qr(a, mode="r"), lambda a: jnp.linalg.qr(a, mode="r"), (TALL,)),
    "upper": (triangular(snp.linalg), triangular(jax.scipy.linalg), (PLAIN[0], SIDES)),
    "upper, transposed": (triangular(snp.linalg, trans=1), triangular(jax.scipy.linalg, trans=1), (PLAIN[0], SIDES[:, 0])),
    "lower, ones": (
        triangular(snp.linalg, lower=True, unit_diagonal=True),
        triangular(jax.scipy.linalg, lower=True, unit_diagonal=True),
        (PLAIN[0], SIDES),
    ),
    "lower, transposed": (
        triangular(snp.linalg, lower=True, trans="T"),
        triangular(jax.scipy.linalg, lower=True, trans="T"),
        (PLAIN[0], SIDES),
    ),
}


def symmetric(a):
    return a + a.mT


CASES |= {
    "eigh": (
        lambda a: (np.linalg.eigh(a)[0], np.linalg.eigh(a)[1] ** 2),
        lambda a: (jnp.linalg.eigh(a)[0], jnp.linalg.eigh(a)[1] ** 2),
        (symmetric(PLAIN),),
    ),
    "eigvalsh": (lambda a: np.linalg.eigvalsh(a), jnp.linalg.eigvalsh, (symmetric(FOUR),)),
    "svd": (
        lambda a: tuple(x * abs(x) for x in np.linalg.svd(a, full_matrices=False)[1:2]),
        lambda a: tuple(x * abs(x) for x in jnp.linalg.svd(a, full_matrices=False)[1:2]),
        (TALL.mT,),
    ),
    "polar": (
        lambda a: np.matmul(*np.linalg.svd(a, full_matrices=False)[::2]),
        lambda a: jnp.matmul(*jnp.linalg.svd(a, full_matrices=False)[::2]),
        (TALL,),
    ),
    "pinv": (lambda a: np.linalg.pinv(a), jnp.linalg.pinv, (TALL.mT,)),
    "pinv of equal values": (lambda a: np.linalg.pinv(a), jnp.linalg.pinv, (np.eye(3)[:, :2],)),
    "lstsq": (lambda a, b: np.linalg.lstsq(a, b)[0], lambda a, b: jnp.linalg.lstsq(a, b)[0], (TALL[0], FOUR[0])),
    "shortest": (lambda a, b: np.linalg.lstsq(a, b)[0], lambda a, b: jnp.linalg.lstsq(a, b)[0], (TALL[0].T, SIDES)),
    "spectral norm": (lambda a: np.linalg.norm(a, 2), lambda a: jnp.linalg.norm(a, 2), (FOUR,)),
}


def leaves(x):
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_jax(name):
    ours, theirs, args = CASES[name]
    places = tuple(range(len(args)))

    def loss(function, numpy):
        return lambda *a: sum(numpy.sum(numpy.sin(1.3 * x)) for x in leaves(function(*a)))

    def along_gradient(grad, function, numpy):
        slope = grad(loss(function, numpy))
        return lambda *a: numpy.sum(numpy.cos(slope(*a)))

    moved = tuple(np.cos(3 * a) for a in args)
    for found, expected in zip(leaves(sg.trace(ours)(*args)), leaves(theirs(*args)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    for found, expected in zip(sg.grad(loss(ours, np), places)(*args), jax.grad(loss(theirs, jnp), places)(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    expected = jax.jvp(loss(theirs, jnp), args, moved)[1]
    np.testing.assert_allclose(sg.jvp(loss(ours, np), args, moved)[1], expected, rtol=1e-9, atol=1e-11)
    second = sg.grad(along_gradient(sg.grad, ours, np))(*args)
    np.testing.assert_allclose(second, jax.grad(along_gradient(jax.grad, theirs, jnp))(*args), rtol=1e-7, atol=1e-9)


def test_mapped_they_are_loops():
    for ours in (np.linalg.cholesky, np.linalg.det, lambda a: np.linalg.slogdet(a)[1], lambda a: np.linalg.qr(a)[1]):
        single = sg.trace(lambda a, ours=ours: ours(a))
        np.testing.assert_array_equal(sg.vmap(single)(DEFINITE), [single(a) for a in DEFINITE])
    mapped = sg.vmap(lambda a, b: snp.linalg.solve_triangular(a, b), in_axes=(None, 1))(PLAIN[0], SIDES)
    np.testing.assert_allclose(mapped, scipy.linalg.solve_triangular(PLAIN[0], SIDES).T, rtol=1e-12)


def test_decompositions_put_together_again():
    matrices = {
        "tall": TALL,
        "wide": TALL.mT,
        "square": FOUR,
        "one": np.ones((1, 1)),
        "zero": np.zeros((3, 2)),
        "none": np.zeros((2, 3, 0)),
    }
    matrices["of rank one"] = np.outer(FOUR[0], FOUR[1])
    matrices["huge"], matrices["float32"] = 1e100 * FOUR, FOUR.astype(np.float32)
    for name, a in matrices.items():
        u, s, v = sg.trace(lambda a: np.linalg.svd(a, full_matrices=False))(a)
        size, eps = np.abs(a).max(initial=1e-300), np.finfo(a.dtype).eps
        np.testing.assert_allclose(u @ (s[..., None] * v), a, atol=40 * eps * size, err_msg=name)
        np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-5 if eps > 1e-10 else 1e-11, atol=40 * eps * size)
        for turned in (u, v.mT):
            unit = np.broadcast_to(np.eye(s.shape[-1]), (*s.shape, s.shape[-1]))
            np.testing.assert_allclose(turned.mT @ turned, unit, atol=40 * eps, err_msg=name)
    noise = np.random.default_rng(3).normal(size=(30, 30))
    both = noise + noise.T
    values, vectors = sg.trace(lambda a: np.linalg.eigh(a))(both)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(both), atol=1e-12)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, both, atol=1e-12)
    np.testing.assert_array_equal(sg.vmap(lambda a: np.linalg.eigh(a)[0])(DEFINITE), [sg.trace(np.linalg.eigvalsh)(a) for a in DEFINITE])


def test_what_is_not_finite_leaves_the_others_alone():
    matrices = np.array([np.eye(2), [[np.nan, 0.0], [0.0, 1.0]], [[1.0, np.inf], [np.inf, 1.0]], np.eye(2)])
    for function in (np.linalg.eigvalsh, lambda a: np.linalg.svd(a)[1], np.linalg.pinv):
        found = sg.trace(lambda a, function=function: function(a))(matrices)
        np.testing.assert_array_equal(np.isnan(found.reshape(4, -1)).all(1), [False, True, True, False])


def test_least_squares_of_less_than_full_rank():
    matrix, right = np.column_stack([TALL[0], TALL[0][:, :2].sum(1)]), SIDES[[0, 1, 2, 0]]
    for a, b in ((matrix, right), (matrix, right[:, 0]), (matrix[:2], right[:2]), (np.vstack([matrix, matrix]), np.vstack([right, right]))):
        found, expected = sg.trace(lambda a, b: np.linalg.lstsq(a, b))(a, b), np.linalg.lstsq(a, b)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-12)
        assert found[2] == expected[2]
        np.testing.assert_allclose(found[3], expected[3], atol=1e-13)
    assert sg.trace(lambda a: np.linalg.matrix_rank(a))(matrix) == 3


def test_a_factor_solves_systems():
    def log_density(matrix, x):
        """Of a normal distribution, up to a constant."""
        factor = snp.linalg.cho_factor(matrix, lower=True)
        return -x @ snp.linalg.cho_solve(factor, x) / 2 - np.sum(np.log(np.diagonal(factor[0])))

    def by_inverse(matrix, x):
        return -x @ np.linalg.inv(matrix) @ x / 2 - np.linalg.slogdet(matrix)[1] / 2

    x = SIDES[:, 0]
    np.testing.assert_allclose(log_density(DEFINITE[0], x), by_inverse(DEFINITE[0], x), rtol=1e-12)
    for place in (0, 1):
        np.testing.assert_allclose(sg.grad(log_density, place)(DEFINITE[0], x), sg.grad(by_inverse, place)(DEFINITE[0], x), rtol=1e-9)
    upper = sg.trace(lambda a, b: snp.linalg.cho_solve(snp.linalg.cho_factor(a), b))
    np.testing.assert_allclose(upper(DEFINITE[0], SIDES), np.linalg.solve(DEFINITE[0], SIDES), rtol=1e-11)


def test_what_is_not_positive_definite_leaves_the_others_alone():
    matrices = np.array([np.eye(2), -np.eye(2), [[1.0, 2.0], [2.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]], 4 * np.eye(2)])
    found = sg.trace(lambda a: np.linalg.cholesky(a))(matrices)
    np.testing.assert_array_equal(np.isnan(found).all((1, 2)), [False, True, True, True, False])
    np.testing.assert_array_equal(found[[0, 4]], [np.eye(2), 2 * np.eye(2)])


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_determinants_of_singular_matrices(order):
    matrix = np.ones((order, order))
    matrix[-1] = 0
    both = sg.trace(lambda a: (np.linalg.det(a), *np.linalg.slogdet(a)))
    np.testing.assert_array_equal(both(matrix), (0, 0, -np.inf))
    exchanged = np.eye(order)[[1, 0, *range(2, order)]]
    np.testing.assert_array_equal(both(exchanged), (-1, -1, 0))


def cofactors(a):
    """By determinants of what is left without a row and a column."""
    n = len(a)
    left = [[np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) * (-1) ** (i + j) for j in range(n)] for i in range(n)]
    return np.array(left)


def test_the_determinant_of_a_singular_matrix_has_derivatives():
    """The cofactors, whichever pivot is 0, and 0 where the rank is less by more than one."""
    for order in (1, 2, 3, 4, 5, 7):
        matrices = [np.diag(np.arange(order) * 1.0), np.diag(np.arange(order)[::-1] * 1.0), np.zeros((order, order))]
        for less in range(1, min(order, 3)):
            left, right = NOISE.normal(size=(2, order, order - less))
            matrices.append(left @ right.T)
        matrices.append(NOISE.normal(size=(order, order)) * (np.arange(order) != order // 2))
        found = sg.vmap(sg.grad(lambda a: np.linalg.det(a)))(np.stack(matrices))
        moved = sg.jvp(lambda a: np.linalg.det(a), (np.stack(matrices),), (np.cos(np.stack(matrices)),))[1]
        for a, gradient, tangent in zip(matrices, found, moved, strict=True):
            np.testing.assert_allclose(gradient, cofactors(a), rtol=1e-8, atol=1e-9, err_msg=str(a))
            np.testing.assert_allclose(tangent, np.sum(cofactors(a) * np.cos(a)), rtol=1e-8, atol=1e-9, err_msg=str(a))


def test_what_is_smooth_where_eigenvalues_are_equal_has_derivatives():
    """Sums over all values, and the projection onto the vectors of equal ones, whichever vectors these are."""
    turn = np.linalg.qr(FOUR)[0]
    matrix = (turn * [1.0, 1.0, 1.0, 3.0]) @ turn.T
    slope = sg.grad(lambda a: np.sum(np.sin(np.linalg.eigh(a)[0])))
    np.testing.assert_allclose(slope(matrix), (turn * np.cos([1.0, 1.0, 1.0, 3.0])) @ turn.T, atol=1e-12)
    np.testing.assert_allclose(slope(np.eye(3)), np.cos(1.0) * np.eye(3), atol=1e-14)

    def projection(a):
        vectors = np.linalg.eigh(a)[1][:, :2]
        return vectors @ vectors.T

    exact = np.diag([1.0, 1.0, 3.0, 3.0])  # so that equal values are equal to the last bit
    moved = symmetric(NOISE.normal(size=(4, 4)))
    expected = np.zeros((4, 4))
    expected[:2, 2:] = -moved[:2, 2:] / 2
    np.testing.assert_allclose(sg.jvp(projection, (exact,), (moved,))[1], expected + expected.T, atol=1e-12)
    weights = np.cos(moved)
    expected = np.zeros((4, 4))
    expected[:2, 2:] = -(weights + weights.T)[:2, 2:] / 4
    np.testing.assert_allclose(sg.grad(lambda a: np.sum(weights * projection(a)))(exact), expected + expected.T, atol=1e-12)


def test_empty_small_strided_and_whole():
    empty = np.zeros((2, 0, 0))
    assert sg.trace(lambda a: np.linalg.cholesky(a))(empty).shape == (2, 0, 0)
    np.testing.assert_array_equal(sg.trace(lambda a: np.linalg.det(a))(empty), [1, 1])
    np.testing.assert_array_equal(sg.trace(lambda a: np.linalg.slogdet(a))(empty), np.linalg.slogdet(empty))
    assert [x.shape for x in sg.trace(lambda a: np.linalg.qr(a))(np.zeros((3, 0)))] == [(3, 0), (0, 0)]
    whole = sg.trace(lambda a: np.linalg.cholesky(a))(np.array([[4, 2], [2, 5]]))
    np.testing.assert_array_equal(whole, [[2, 0], [1, 2]])
    turned = sg.trace(lambda a: np.linalg.qr(a))(np.asfortranarray(TALL[0])[::-1, ::2])
    assert type(turned) is type(np.linalg.qr(FOUR))
    np.testing.assert_allclose(turned.Q @ turned.R, TALL[0][::-1, ::2], atol=1e-14)
    narrow = sg.trace(lambda a: np.linalg.slogdet(a))(FOUR.astype(np.float32))
    assert narrow.sign.dtype == narrow.logabsdet.dtype == np.float32
    np.testing.assert_allclose(narrow, np.linalg.slogdet(FOUR), rtol=1e-5)
    narrow = sg.trace(lambda a, b: np.linalg.solve(a, b))(FOUR.astype(np.float32), np.arange(4, dtype=np.uint8))
    assert narrow.dtype == np.linalg.solve(FOUR.astype(np.float32), np.arange(4, dtype=np.uint8)).dtype == np.float64
    wide = sg.trace(lambda a: np.linalg.qr(a, mode="complete"))(TALL[0].T)
    np.testing.assert_allclose(wide.Q @ wide.R, TALL[0].T, atol=1e-14)
    np.testing.assert_array_equal(snp.linalg.solve_triangular(PLAIN[0], SIDES), scipy.linalg.solve_triangular(PLAIN[0], SIDES))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ShapeError, r"np.linalg.cholesky: f64\[3,2\] does not hold square matrices", lambda a: np.linalg.cholesky(a)),
        (ShapeError, r"np.linalg.det: .*square", lambda a: np.linalg.det(a)),
        (ShapeError, r"np.linalg.qr: f64\[3\] does not hold matrices", lambda a: np.linalg.qr(a[:, 0])),
        (UnsupportedError, "mode='complete'", lambda a: np.linalg.qr(a, mode="complete")),
        (InvalidValueError, "UPLO='X'", lambda a: np.linalg.eigh(a[:2], UPLO="X")),
        (ShapeError, "matrix_power: .*square", lambda a: np.linalg.matrix_power(a, 2)),
        (ShapeError, "cond: .*with elements", lambda a: np.linalg.cond(a[:0])),
        (InvalidValueError, "multi_dot: expected at least two", lambda a: np.linalg.multi_dot([a])),
        (ShapeError, "multi_dot: .*must be matrices", lambda a: np.linalg.multi_dot([a, a[0], a])),
        (ShapeError, "tensorsolve: .*no square system", lambda a: np.linalg.tensorsolve(a, a[0])),
        (ShapeError, "tensorinv: .*no square matrix", lambda a: np.linalg.tensorinv(a, 1)),
        (InvalidValueError, "ind=0", lambda a: np.linalg.tensorinv(a, 0)),
        (ShapeError, "factors .*exchanged", lambda a: snp.linalg.lu_solve((a[:2], a[0, :1]), a[0])),
        (InvalidValueError, "lu_solve: trans='H'", lambda a: snp.linalg.lu_solve((a[:2], a[0]), a[0], trans="H")),
        (UnsupportedError, "full_matrices=False is", lambda a: np.linalg.svd(a)),
        (UnsupportedError, "rcond must be one number", lambda a: np.linalg.pinv(a, a[0, 0])),
        (ArgumentError, "two names", lambda a: np.linalg.pinv(a, 0.1, rtol=0.1)),
        (ShapeError, "no matrix of equations", lambda a: np.linalg.lstsq(a, a[:2])),
        (InvalidValueError, "trans=3", lambda a: snp.linalg.solve_triangular(a[:2], a[:2], trans=3)),
        (ShapeError, "2 equations", lambda a: snp.linalg.solve_triangular(a[:2], a)),
        (ArgumentError, "solve_triangular", lambda a: snp.linalg.solve_triangular(a[:2])),
    ],
)
def test_errors(error, words, call):
    with pytest.raises(error, match=f"(?s){words}"):
        sg.trace(call)(SIDES)
