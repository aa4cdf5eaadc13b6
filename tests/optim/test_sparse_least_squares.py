"""Levenberg-Marquardt through sparse normal equations: the same steps as through dense ones, for many more parameters."""

import numpy as np
import pytest
from scipy.sparse import block_array, csr_array, diags_array, eye_array, random_array

import staticgrad as sg
from staticgrad.errors import DTypeError, InvalidValueError, ShapeError
from staticgrad.optim.normal_equations import damped_inverse
from staticgrad.optim.sparse_equations import sparse_damped_inverse


def sparse(**options):
    return sg.optim.levenberg_marquardt(sparse=True, **options)


def chain(x):
    return np.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def smooth(params, y):
    """A curve close to data, with little curvature; its parts have scales of their own."""
    data = params["curve"] * np.exp(params["logarithm"]) - y
    return {"data": data, "bend": 3 * np.diff(params["curve"], 2), "prior": params["logarithm"] - 0.3}


def test_steps_are_those_of_the_dense_method():
    y = np.sin(np.arange(12.0)) + 2
    start = {"curve": np.ones(12), "logarithm": np.zeros(())}
    for acceleration in (True, False):
        methods = [sg.optim.levenberg_marquardt(acceleration=acceleration), sparse(acceleration=acceleration)]
        dense, found = (sg.least_squares(smooth, start, method=method, args=(y,)) for method in methods)
        assert found.success
        assert len(found.history) == len(dense.history)
        for ours, theirs in zip(found.history[:6], dense.history[:6], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        np.testing.assert_allclose(found.x["curve"], dense.x["curve"], rtol=1e-8)
        assert isinstance(found.jac, csr_array)
        assert found.jac.shape == (23, 13)
        np.testing.assert_allclose(found.jac.toarray(), dense.jac, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.grad, dense.grad, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.standard_errors["curve"], dense.standard_errors["curve"], rtol=1e-6)
        assert found.fun["data"].shape == (12,)


def test_more_parameters_than_a_dense_method_takes():
    n = 30_000
    x0 = np.full(n, 0.9)
    with pytest.raises(InvalidValueError, match=r"30000 parameters.*sparse=True"):
        sg.least_squares(chain, x0)
    found = sg.least_squares(chain, x0, method=sparse())
    assert found.success
    assert found.jac.nnz == 3 * (n - 1)
    np.testing.assert_allclose(found.x, np.ones(n), rtol=1e-12)


def test_one_step_at_a_time():
    optimizer, params = sparse(), np.array([-1.2, 1.0, 0.5])
    state = optimizer.init(params, chain)
    for _ in range(60):
        params, state = optimizer.update(params, chain, state)
    np.testing.assert_allclose(params, np.ones(3), rtol=1e-12)


def test_single_precision_and_a_parameter_without_influence():
    found = sg.least_squares(lambda x: chain(x[:5]), np.full(6, 0.5, np.float32), method=sparse())
    assert found.success
    assert found.x.dtype == found.jac.dtype == np.float32
    np.testing.assert_allclose(found.x, [1, 1, 1, 1, 1, 0.5], rtol=1e-5)


def test_what_residuals_do_not_determine_keeps_its_size():
    """A singular J^T J is damped; of all solutions one is found."""
    found = sg.least_squares(lambda x: x[1:] + x[:-1] - 2.0, np.zeros(4), method=sparse())
    assert found.success
    np.testing.assert_allclose(found.fun, 0, atol=1e-10)
    assert np.all(np.isinf(found.covariance))


def test_errors_are_those_of_the_dense_method():
    with pytest.raises(InvalidValueError, match="derivative of the residuals by parameter 1 is not finite"):
        sg.least_squares(lambda x: np.sqrt(x), np.array([1.0, 0.0]), method=sparse())
    with pytest.raises(InvalidValueError, match="residual 1 is nan"):
        sg.least_squares(lambda x: np.log(x), np.array([1.0, -1.0]), method=sparse())
    with pytest.raises(ShapeError, match="0 residuals and 2 parameters"):
        sg.least_squares(lambda x: x[:0], np.ones(2), method=sparse())
    with pytest.raises(DTypeError, match=r"least_squares of .*returned"):
        sg.least_squares(lambda x: np.argsort(x), np.ones(2), method=sparse())


@pytest.mark.parametrize("seed", range(5))
def test_the_sparse_solution_of_damped_equations_is_the_dense_one(seed):
    rng = np.random.default_rng(seed)
    jacobian = random_array((30, 12), density=0.2, rng=rng) * 10.0 ** rng.integers(-4, 4, 12)
    gram = csr_array(jacobian.T @ jacobian)
    damping = gram.diagonal() * 1e-3 + (gram.diagonal() == 0)
    right = rng.standard_normal(12) * np.sqrt(gram.diagonal() + damping)
    expected = damped_inverse(gram.toarray(), damping)(right)
    np.testing.assert_allclose(sparse_damped_inverse(gram, damping)(right), expected, rtol=1e-9)


def test_unknowns_that_meet_all_others():
    """A band and an arrow's head of 3, too large for a dense method; they are eliminated in another order."""
    n = 5000
    band = diags_array([-1.0, 4.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    head = csr_array(np.random.default_rng(0).random((n, 3)) / n)
    gram = block_array([[band, head], [head.T, eye_array(3)]], format="csr")
    damping, expected = np.full(n + 3, 0.5), np.linspace(1, 2, n + 3)
    for matrix, sizes in ((gram, damping), (csr_array(band), damping[:n])):
        right = matrix @ expected[: len(sizes)] + sizes * expected[: len(sizes)]
        np.testing.assert_allclose(sparse_damped_inverse(matrix, sizes)(right), expected[: len(sizes)], rtol=1e-12)


def test_a_singular_matrix_gives_nan():
    found = sparse_damped_inverse(csr_array(np.ones((2, 2))), np.zeros(2))(np.ones(2))
    assert np.all(np.isnan(found))
    np.testing.assert_array_equal(sparse_damped_inverse(csr_array(np.eye(2)), np.full(2, np.inf))(np.ones(2)), [0, 0])
