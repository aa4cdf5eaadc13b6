"""Residuals made linear where few parameters matter to each of them: J and J^T J as SciPy's sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.source import at_user_line
from staticgrad.optim.normal_equations import Linearization, Residuals
from staticgrad.sparse import SparseDerivative
from staticgrad.tracing.pytree import flatten
from staticgrad.transforms.sparse import SparseJacobian


class SparseLinearization(Linearization):
    """A `Linearization` whose `transposed` and `gram` are sparse, in CSR format."""

    __slots__ = ()

    @property
    def jacobian(self) -> Any:
        return self.transposed.T.tocsr()

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.cost) and np.isfinite(self.gram.data).all() and np.isfinite(self.gradient).all())

    @property
    def wrong_parameters(self) -> np.ndarray:
        rows = np.repeat(np.arange(self.transposed.shape[0]), np.diff(self.transposed.indptr))
        return np.unique(rows[~np.isfinite(self.transposed.data)])

    def inverse(self, damping: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return sparse_damped_inverse(self.gram, damping)

    def restricted(self, free: np.ndarray) -> SparseLinearization:
        from scipy.sparse import diags_array

        mask = diags_array(free.astype(np.float64))
        return self._replace(gram=(mask @ self.gram @ mask).tocsr())


class SparseResiduals(Residuals):
    """A function of residuals whose Jacobian is computed as a sparse matrix, with as few sweeps as its pattern allows."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        transform = SparseJacobian(0, word="least_squares")
        self._jacobian = SparseDerivative(self._traced.derive(transform, "least_squares"), "least_squares")

    def linearize(self, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SparseLinearization:
        value = self(params, *args, **kwargs)
        leaves = [np.ravel(leaf) for leaf in flatten(value)[0]]
        jacobian = self._jacobian(params, *args, **kwargs)
        if not all(jacobian.shape):
            count, unknowns = jacobian.shape
            raise ShapeError(at_user_line(f"least_squares: there are {count} residuals and {unknowns} parameters; there must be some"))
        residuals, transposed = np.concatenate(leaves), jacobian.T.tocsr()
        wide, column = transposed.astype(np.float64), residuals.astype(np.float64)
        gram = (wide @ wide.T).tocsr()
        return SparseLinearization(
            value=value,
            residuals=residuals,
            transposed=transposed,
            gram=gram,
            gradient=wide @ column,
            columns=np.sqrt(gram.diagonal()),
            cost=np.asarray(column @ column / 2),
        )


def sparse_damped_inverse(gram: Any, damping: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of b that gives the x of (J^T J + diag(damping)) x = b, for a sparse J^T J; NaN where that is singular.

    The unknowns are first scaled so that the matrix has a diagonal of ones, so the units of the parameters do not matter, and
    ordered so that the factors stay sparse.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> sparse_damped_inverse(csr_array(np.diag([4.0, 1e18])), np.array([4.0, 0.0]))(np.array([8.0, 1e9]))
    array([1.e+00, 1.e-09])
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    diagonal = gram.diagonal() + damping
    if not np.isfinite(diagonal).all():  # too much damping for any step
        return np.zeros_like
    scale = np.sqrt(diagonal)
    scale[scale == 0] = 1  # a parameter without any influence
    shrink = diags_array(1 / scale)
    matrix = (shrink @ (gram + diags_array(damping)) @ shrink).tocsc()
    try:  # symmetric and positive definite, so the diagonal serves as pivots
        factors = splu(matrix, permc_spec=_ordering(matrix), diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:
        return lambda right: np.full(len(right), np.nan)
    return lambda right: factors.solve(right / scale) / scale


def _ordering(matrix: Any) -> str:
    """Return the name of the order in which SuperLU eliminates the unknowns of a symmetric matrix.

    Minimum degree on its graph leaves the fewest entries, but takes long where an unknown has very many neighbours, as cameras and
    other parameters of all residuals do; COLAMD puts these last. What is very many, AMD's authors say.
    """
    longest = np.max(np.diff(matrix.indptr), initial=0)
    return "COLAMD" if longest > 10 * np.sqrt(matrix.shape[0]) else "MMD_AT_PLUS_A"
