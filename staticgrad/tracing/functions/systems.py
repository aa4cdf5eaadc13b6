"""Linear algebra on small matrices: the functions of np.linalg that solve systems and factor matrices, and those of scipy.linalg."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError, UnsupportedError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops.determinants import determinant, sign_and_log_determinant
from staticgrad.ops.elimination import lu, solve, solve_factored
from staticgrad.ops.factorizations import cholesky, qr
from staticgrad.ops.matrices import identity, transposed
from staticgrad.ops.movement import broadcast_to, reshape
from staticgrad.ops.singular_values import pseudo_inverse, singular_values
from staticgrad.ops.spectra import eigen
from staticgrad.ops.triangular import solve_triangular
from staticgrad.tracing.functions.arguments import operand
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, promoted
from staticgrad.tracing.tracer import Tracer, tracer_of


def _matrices(a: Any, name: str, square: bool = True) -> Value:
    """Return matrices of floats."""
    value = _floats(a)
    if len(value.shape) < 2 or (square and value.shape[-1] != value.shape[-2]):
        kind = "square matrices" if square else "matrices"
        raise ShapeError(at_user_line(f"{name}: {value.aval} does not hold {kind} in its last two axes"))
    return value


def _floats(x: Any) -> Value:
    """Return an operand as floats, as NumPy's linear algebra does: whole numbers of any size as doubles."""
    value = operand(x)
    return value if value.dtype.kind == "f" else convert(value, FLOAT64)


def _known_number(x: Any, what: str) -> float:
    """Return an option that must be a number while tracing."""
    if isinstance(x, Tracer) or np.ndim(x):
        raise UnsupportedError(at_user_line(f"{what} must be one number that is known while tracing"))
    return float(x)


def _system(a: Any, b: Any, name: str) -> tuple[Value, Value, bool]:
    """Return matrices, right-hand sides along whose leading axes they are repeated, and whether the sides were a vector."""
    matrices, right = promoted(_matrices(a, name), _floats(b))
    order = matrices.shape[-1]
    is_vector = len(right.shape) == 1
    columns = reshape(right, (*right.shape, 1)) if is_vector else right
    if len(columns.shape) < 2 or columns.shape[-2] != order:
        raise ShapeError(at_user_line(f"{name}: {order} equations in {matrices.aval}, but right-hand sides {right.aval}"))
    try:
        leading = np.broadcast_shapes(matrices.shape[:-2], columns.shape[:-2])
    except ValueError:
        raise ShapeError(at_user_line(f"{name}: the leading axes of {matrices.aval} and {right.aval} do not broadcast")) from None
    return matrices, broadcast_to(columns, (*leading, *columns.shape[-2:])), is_vector


def _without_column(x: Value, is_vector: bool) -> Tracer:
    return tracer_of(reshape(x, x.shape[:-1]) if is_vector else x)


@implements(np.linalg.solve)
def np_solve(a: Any, b: Any) -> Tracer:
    """Return the x of a x = b; where a is singular, x holds infinities or NaN, as a traced program cannot raise LinAlgError."""
    matrices, right, is_vector = _system(a, b, "np.linalg.solve")
    return _without_column(solve(matrices, right), is_vector)


@implements(np.linalg.inv)
def np_inv(a: Any) -> Tracer:
    """Return the inverses of matrices; where one is singular, it holds infinities or NaN."""
    matrices = _matrices(a, "np.linalg.inv")
    return tracer_of(solve(matrices, identity(matrices.shape, matrices.dtype)))


@implements(np.linalg.cholesky)
def np_cholesky(a: Any, /, *, upper: Any = False) -> Tracer:
    """Return L with a = L L^T, or its transpose; NaN where a is not positive definite, as a traced program cannot raise LinAlgError.

    Symmetric matrices are what is meant: of others the symmetric part is factored, so that derivatives are symmetric, too.
    """
    matrices = _matrices(a, "np.linalg.cholesky")
    lower = cholesky((matrices + transposed(matrices)) * 0.5)
    return tracer_of(transposed(lower) if upper else lower)


@implements(np.linalg.det)
def np_det(a: Any) -> Tracer:
    """Return the determinants of matrices; up to three rows by Leibniz's formula, whose derivative is right for singular ones, too."""
    matrices = _matrices(a, "np.linalg.det")
    order = matrices.shape[-1]
    if order > len(PERMUTATIONS):
        return tracer_of(determinant(matrices))
    x, total = tracer_of(matrices), None
    for sign, columns in PERMUTATIONS.get(order, ((1, ()),)):
        term = functools.reduce(operator.mul, (x[..., row, column] for row, column in enumerate(columns)), 1.0)
        total = term if total is None else total + sign * term
    return total if order else tracer_of(full(matrices.shape[:-2], 1, matrices.dtype))  # type: ignore[return-value]


PERMUTATIONS = {
    1: ((1, (0,)),),
    2: ((1, (0, 1)), (-1, (1, 0))),
    3: ((1, (0, 1, 2)), (-1, (0, 2, 1)), (-1, (1, 0, 2)), (1, (1, 2, 0)), (1, (2, 0, 1)), (-1, (2, 1, 0))),
}
"""All permutations of a few columns, with their signs."""

_SLOGDET: Any = type(np.linalg.slogdet(np.ones((1, 1))))
_EIGH: Any = type(np.linalg.eigh(np.ones((1, 1))))
_SVD: Any = type(np.linalg.svd(np.ones((1, 1))))
_QR: Any = type(np.linalg.qr(np.ones((1, 1))))


@implements(np.linalg.slogdet)
def np_slogdet(a: Any) -> Any:
    """Return the signs of the determinants of matrices, and the logarithms of their absolute values; 0 and -inf where one is 0."""
    matrices = _matrices(a, "np.linalg.slogdet")
    if not matrices.shape[-1]:
        return _SLOGDET(*(tracer_of(full(matrices.shape[:-2], number, matrices.dtype)) for number in (1, 0)))
    return _SLOGDET(*map(tracer_of, sign_and_log_determinant(matrices)))


@implements(np.linalg.qr)
def np_qr(a: Any, mode: Any = "reduced") -> Any:
    """Return Q, whose columns are at right angles and of length 1, and the upper triangular R with a = Q R; R alone for mode "r"."""
    matrices = _matrices(a, "np.linalg.qr", square=False)
    if mode not in ("reduced", "r") and not (mode == "complete" and matrices.shape[-2] <= matrices.shape[-1]):
        raise UnsupportedError(at_user_line(f"np.linalg.qr: mode={mode!r} of {matrices.aval} is not there; 'reduced' and 'r' are"))
    q, r = qr(matrices)
    return tracer_of(r) if mode == "r" else _QR(tracer_of(q), tracer_of(r))


@implements(np.linalg.eigh)
def np_eigh(a: Any, UPLO: Any = "L") -> Any:
    """Return the eigenvalues, the least one first, and the eigenvectors of symmetric matrices; of others those of the symmetric part.

    Between vectors of equal values, of which any turned ones would do as well, derivatives are taken as 0. So sums of any function of the
    values, and projections onto all vectors of equal values, have the right derivative there; V f(w) V^T has not. `UPLO` changes nothing.
    """
    if UPLO not in ("L", "U", "l", "u"):
        raise InvalidValueError(at_user_line(f"np.linalg.eigh: UPLO={UPLO!r}: expected 'L' or 'U'"))
    matrices = _matrices(a, "np.linalg.eigh")
    return _EIGH(*map(tracer_of, eigen((matrices + transposed(matrices)) * 0.5)))


@implements(np.linalg.eigvalsh)
def np_eigvalsh(a: Any, UPLO: Any = "L") -> Tracer:
    """Return the eigenvalues of symmetric matrices, the least one first."""
    values: Tracer = np_eigh(a, UPLO)[0]
    return values


@implements(np.linalg.svd)
def np_svd(a: Any, full_matrices: Any = True, compute_uv: Any = True, hermitian: Any = False) -> Any:
    """Return U, the singular values, the greatest one first, and V^T, or the values alone; vectors have derivatives where values differ."""
    matrices = _matrices(a, "np.linalg.svd", square=False)
    if compute_uv and full_matrices and matrices.shape[-2] != matrices.shape[-1]:
        raise UnsupportedError(
            at_user_line(f"np.linalg.svd: {matrices.aval} is not square, and full_matrices=True is not there; full_matrices=False is")
        )
    u, s, v = singular_values(matrices)
    return _SVD(tracer_of(u), tracer_of(s), tracer_of(transposed(v))) if compute_uv else tracer_of(s)


@implements(np.linalg.pinv)
def np_pinv(a: Any, rcond: Any = None, hermitian: Any = False, *, rtol: Any = None) -> Tracer:
    """Return the pseudo-inverses of matrices; singular values of at most `rcond` (1e-15), or `rtol`, times the greatest are taken as 0."""
    if rcond is not None and rtol is not None:
        raise ArgumentError(at_user_line("np.linalg.pinv: rcond and rtol are two names of one thing; give one of them"))
    limit = 1e-15 if rcond is None and rtol is None else rtol if rcond is None else rcond
    return tracer_of(pseudo_inverse(_matrices(a, "np.linalg.pinv", square=False), _known_number(limit, "np.linalg.pinv: rcond")))


@implements(np.linalg.matrix_rank)
def np_matrix_rank(A: Any, tol: Any = None, hermitian: Any = False, *, rtol: Any = None) -> Tracer:
    """Return how many singular values are more than `tol`, or than `rtol` (the greatest size times the precision) times the greatest."""
    if np.ndim(A) < 2:
        return np.any(A).astype(np.int64)  # type: ignore[return-value]
    matrices = _matrices(A, "np.linalg.matrix_rank", square=False)
    s = tracer_of(singular_values(matrices)[1])
    relative = max(matrices.shape[-2:]) * np.finfo(matrices.dtype).eps if rtol is None else rtol
    limit = relative * np.max(s, axis=-1, keepdims=True, initial=0.0) if tol is None else np.asarray(tol)[..., None]
    return np.sum(s > limit, axis=-1)  # type: ignore[no-any-return]


@implements(np.linalg.lstsq)
def np_lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Tracer, Tracer, Tracer, Tracer]:
    """Return the shortest x of those with the least |a x - b|, the sums of squares of a x - b, the rank and the singular values of a.

    The sums of squares are there for every rank, as what decides it is not known while tracing.
    """
    matrix, right = promoted(_matrices(a, "np.linalg.lstsq", square=False), _floats(b))
    if len(matrix.shape) != 2 or len(right.shape) not in (1, 2) or right.shape[0] != matrix.shape[0]:
        raise ShapeError(at_user_line(f"np.linalg.lstsq: {matrix.aval} is no matrix of equations for right-hand sides {right.aval}"))
    limit = max(matrix.shape) * np.finfo(matrix.dtype).eps if rcond is None else _known_number(rcond, "np.linalg.lstsq: rcond")
    s = tracer_of(singular_values(matrix)[1])
    x = tracer_of(pseudo_inverse(matrix, limit)) @ tracer_of(right)
    rest = tracer_of(matrix) @ x - tracer_of(right)
    squares = np.sum(rest * rest, axis=0).reshape(-1)
    return x, squares if matrix.shape[0] > matrix.shape[1] else squares[:0], np.sum(s > limit * np.max(s, initial=0.0)).astype(np.int32), s


# ---- those of scipy.linalg, by its names and arguments


def _turned(trans: Any, name: str) -> bool:
    """Return whether the transpose is meant."""
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise InvalidValueError(at_user_line(f"{name}: trans={trans!r}: expected 0, 1, 2, 'N', 'T' or 'C'"))
    return trans not in (0, "N")


def solve_triangular_traced(
    a: Any,
    b: Any,
    trans: Any = 0,
    lower: Any = False,
    unit_diagonal: Any = False,
    overwrite_b: Any = False,
    check_finite: Any = True,
) -> Tracer:
    """Return the x of a x = b for triangular a, or of a^T x = b for `trans` 1 or "T"."""
    matrices, right, is_vector = _system(a, b, "solve_triangular")
    turned = _turned(trans, "solve_triangular")
    x = solve_triangular(transposed(matrices) if turned else matrices, right, bool(lower) != turned, bool(unit_diagonal))
    return _without_column(x, is_vector)


def cho_factor_traced(a: Any, lower: Any = False, overwrite_a: Any = False, check_finite: Any = True) -> tuple[Tracer, bool]:
    """Return the factor of a positive definite matrix as `cho_solve` takes it; its other triangle is 0."""
    return np_cholesky(a, upper=not lower), bool(lower)


def cho_solve_traced(c_and_lower: Any, b: Any, overwrite_b: Any = False, check_finite: Any = True) -> Tracer:
    """Return the x of a x = b, given the factor of a that `cho_factor` returned."""
    factor, lower = c_and_lower
    once = solve_triangular_traced(factor, b, 0 if lower else 1, lower)
    return solve_triangular_traced(factor, once, 1 if lower else 0, lower)


def lu_factor_traced(a: Any, overwrite_a: Any = False, check_finite: Any = True) -> tuple[Tracer, Tracer]:
    """Return L and U in one matrix, and with which row each row was exchanged, as `lu_solve` takes them."""
    factors, exchanges = lu(_matrices(a, "lu_factor"))
    return tracer_of(factors), tracer_of(convert(exchanges, np.dtype(np.int32)))


def lu_solve_traced(lu_and_piv: Any, b: Any, trans: Any = 0, overwrite_b: Any = False, check_finite: Any = True) -> Tracer:
    """Return the x of a x = b, or of a^T x = b for `trans` 1 or "T", given the factors of a that `lu_factor` returned."""
    factors, exchanges = lu_and_piv
    matrices, right, is_vector = _system(factors, b, "lu_solve")
    places = operand(exchanges)
    if places.shape != matrices.shape[:-1]:
        raise ShapeError(at_user_line(f"lu_solve: factors {matrices.aval}, but rows with which others were exchanged {places.aval}"))
    return _without_column(solve_factored(matrices, convert(places, matrices.dtype), right, _turned(trans, "lu_solve")), is_vector)
