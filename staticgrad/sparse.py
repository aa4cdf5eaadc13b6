"""`sparse_jacobian` and `sparse_hessian`: derivatives as SciPy's sparse matrices, computed in a few sweeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from staticgrad.api import checked_argnums
from staticgrad.calls.records import CacheInfo
from staticgrad.calls.traced import Traced, traced
from staticgrad.errors import InvalidValueError, TraceError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.context import tracing
from staticgrad.transforms.jacobian import MODES
from staticgrad.transforms.sparse import SparseHessian, SparseJacobian, SparseProgram, Sparsity

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from staticgrad.ad.coloring import Coloring
    from staticgrad.calls.lowered import LoweredFunction


class SparseDerivative:
    """A function that returns a matrix of derivatives in SciPy's CSR format; made by `sparse_jacobian` and `sparse_hessian`.

    Pattern and colours are found once a signature (structure, shapes and dtypes of the arguments) and kept, like the compiled program.
    """

    def __init__(self, sweeps: Traced, word: str, has_aux: bool = False) -> None:
        self._sweeps = sweeps
        self._word = word
        self._has_aux = has_aux

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the matrix at these arguments, those of the function itself: a `scipy.sparse.csr_array`, which is the caller's own.

        With `has_aux` it is a pair `(matrix, aux)`.
        """
        from scipy.sparse import csr_array

        known = self._sparsity(args, kwargs)
        result = self._sweeps(*args, **kwargs)
        sweeps, *aux = result if self._has_aux else (result,)
        pattern = known.pattern
        data = np.take(sweeps, known.places)
        matrix = csr_array((data, pattern.indices.copy(), pattern.indptr.copy()), shape=pattern.shape)
        return (matrix, *aux) if self._has_aux else matrix

    def pattern(self, *args: Any, **kwargs: Any) -> csr_array:
        """Return where the matrix may differ from 0, whatever the values of the arguments are: a CSR array of bool."""
        return self._sparsity(args, kwargs).pattern.copy()

    def coloring(self, *args: Any, **kwargs: Any) -> Coloring:
        """Return the colours for these arguments: `.count` of them, one a sweep; `.mode`; and `.colors` of columns or rows."""
        return self._sparsity(args, kwargs).coloring

    def lower(self, *args: Any, **kwargs: Any) -> LoweredFunction:
        """Return graph and source of the sweeps; see `Traced.lower`.

        They are an array (colours, rows), or (colours, columns) in reverse mode; in mode "both" these two one after the other, flat.
        """
        return self._sweeps.lower(*args, **kwargs)

    def cache_info(self) -> CacheInfo:
        """Return how often the function was traced, and the sweeps were compiled."""
        return self._sweeps.cache_info()

    def _sparsity(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sparsity:
        if tracing():
            raise TraceError(
                at_user_line(
                    f"{self._word} gives a SciPy matrix, which a traced function cannot hold: call it outside, or use "
                    f"sg.{self._word.removeprefix('sparse_')}, or products with vectors (sg.jvp, sg.vjp, sg.hvp)"
                )
            )
        program = self._sweeps.program(*args, **kwargs)
        assert isinstance(program, SparseProgram) and program.sparsity is not None
        return program.sparsity

    def __repr__(self) -> str:
        return f"<{self._word} of {self._sweeps.py_func.__name__}>"


def sparse_jacobian(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, mode: str = "auto", has_aux: bool = False
) -> SparseDerivative:
    """Return the function that gives the Jacobian of `f` as a sparse matrix.

    Where it may differ from 0 is read from the graph of `f`: through elementwise operations, broadcasts, slices, reshapes, reductions,
    products and all else that the graph knows, whatever the values are. Columns in which no row has two entries get one colour, and
    are computed as one: so a tridiagonal Jacobian takes 3 sweeps, however large it is. All sweeps are one batch in one program.

    Parameters
    ----------
    f
        A function of arrays that returns floats: an array of any shape, or a container of arrays (with `has_aux` a pair of it and
        anything else).
    argnums
        Which positional arguments to differentiate by: a number, or a tuple of them. Each may be an array or any pytree of arrays.
    mode
        `"forward"` pushes one tangent forward for each colour of the columns, `"reverse"` pulls one cotangent back for each colour of
        the rows; `"auto"` takes what needs fewer sweeps. That may be some of both: where there are long rows and long columns, as
        along the edges of an arrow's head, long rows are pulled back, and all other rows are pushed forward.
    has_aux
        Whether `f` returns `(value, aux)`; then `(matrix, aux)` is returned.

    Returns
    -------
    SparseDerivative
        A function with the arguments of `f` that returns a `scipy.sparse.csr_array` (so `@` is the matrix product, and `*` goes
        element by element). It has one row for each element of the result, leaf by leaf and each in C order, and likewise one column
        for each element of the chosen arguments. Its dtype is that of the arguments. It holds what `sg.jacobian` gives; each call
        stores the same entries in the same order, those that happen to be 0 as well (`.eliminate_zeros()` drops them).
        `.pattern(...)` gives the pattern and `.coloring(...)` the colours for arguments of these shapes.

    Raises
    ------
    DTypeError
        When an argument or the value is not of floats.
    InvalidValueError
        For a mode that does not exist, or when the pattern is not sparse and the matrix would be too large.
    TraceError
        Inside of a traced function, which cannot hold a SciPy matrix.

    Notes
    -----
    Constants are known when the graph is made, and so are arrays that the function closes over: which camera sees which point, where
    a matrix is 0, where a mask holds. Arguments are not: each element that is picked by indices among them depends on the whole axis.
    In `sg.scan` and `sg.fori_loop` each step is looked at by itself, and of what it carries along, `y[i] = ...`, only the elements that it
    reads and writes where indices are known. Where that would be too much, and in `sg.while_loop`, what any step does may have happened
    in each. Functions with rules of their own depend on what these rules say.

    SciPy takes the matrix as it is: `scipy.optimize.least_squares(f, x0, jac=sg.sparse_jacobian(f))`,
    `scipy.integrate.solve_ivp(f, span, y0, method="BDF", jac=sg.sparse_jacobian(f, 1))`, `scipy.sparse.linalg.spsolve`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def flow(u):
    ...     return np.diff(u[1:] ** 2) - np.diff(u[:-1])
    >>> jacobian = sg.sparse_jacobian(flow)
    >>> u = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> jacobian(u).toarray()
    array([[ 1., -5.,  6.,  0.,  0.],
           [ 0.,  1., -7.,  8.,  0.],
           [ 0.,  0.,  1., -9., 10.]])
    >>> jacobian.coloring(u)
    Coloring(mode='forward', count=3)

    An ordinary differential equation that is stiff, solved with its Jacobian:

    >>> from scipy.integrate import solve_ivp
    >>> @sg.trace
    ... def heat(t, u):
    ...     return 1e4 * np.diff(u, 2, prepend=0.0, append=0.0) - u**3
    >>> found = solve_ivp(heat, (0.0, 1.0), np.ones(100), method="Radau", jac=sg.sparse_jacobian(heat, 1))
    >>> found.success, found.njev < 20
    (True, True)

    References
    ----------
    A. H. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian? Graph coloring for computing derivatives" (SIAM Review 47,
    2005).
    """
    if mode not in MODES:
        raise InvalidValueError(at_user_line(f"sparse_jacobian: mode={mode!r}: expected one of {', '.join(MODES)}"))
    transform = SparseJacobian(checked_argnums(argnums), mode, has_aux)
    return SparseDerivative(traced(f).derive(transform, "sparse_jacobian"), "sparse_jacobian", has_aux)


def sparse_hessian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> SparseDerivative:
    """Return the function that gives the Hessian of the scalar function `f` as a sparse matrix.

    Its pattern is that of the Jacobian of the gradient: what enters linearly leaves no trace in it. Symmetry is made use of: columns
    get a star colouring, which leaves the head of an arrow and all of its shaft 2 sweeps. A sweep is the derivative of the gradient
    along the sum of the columns' directions, forward over reverse; all of them are one batch in one program. Entries (i, j) and (j, i)
    are read at one place, so the matrix is symmetric to the last bit. (A function with rules of its own need not have symmetric second
    derivatives; its Hessian is taken as the Jacobian of its gradient.)

    Parameters
    ----------
    f
        A function of arrays that returns one float (with `has_aux` a pair of it and anything else).
    argnums
        Which positional arguments to differentiate by: a number, or a tuple of them. Each may be an array or any pytree of arrays.
    has_aux
        Whether `f` returns `(value, aux)`; then `(matrix, aux)` is returned.

    Returns
    -------
    SparseDerivative
        A function with the arguments of `f` that returns a `scipy.sparse.csr_array` with one row and one column for each element of
        the chosen arguments, leaf by leaf and each in C order. `.pattern(...)` gives the pattern and `.coloring(...)` the colours for
        arguments of these shapes.

    Raises
    ------
    ShapeError, DTypeError
        When `f` does not return a float scalar, or an argument is not of floats.
    InvalidValueError
        When the pattern is not sparse and the matrix would be too large.
    TraceError
        Inside of a traced function, which cannot hold a SciPy matrix.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def energy(x):
    ...     return np.sum(x[0] * x[1:] ** 2)
    >>> hessian = sg.sparse_hessian(energy)
    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> hessian(x).toarray()
    array([[0., 4., 6., 8.],
           [4., 2., 0., 0.],
           [6., 0., 2., 0.],
           [8., 0., 0., 2.]])
    >>> hessian.coloring(x).colors
    array([0, 1, 1, 1], dtype=uint8)

    References
    ----------
    A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, "New acyclic and star coloring algorithms with application to computing
    Hessians" (SIAM Journal on Scientific Computing 29, 2007).
    """
    transform = SparseHessian(checked_argnums(argnums), has_aux)
    return SparseDerivative(traced(f).derive(transform, "sparse_hessian"), "sparse_hessian", has_aux)
