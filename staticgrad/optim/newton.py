"""`newton`: roots of systems of equations, with exact Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import staticgrad.numpy as snp
from staticgrad.control.flow import while_loop
from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import is_float
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.jacobians import jacobian
from staticgrad.optim.normal_equations import Layout, length
from staticgrad.optim.solvers import implicit_root, run
from staticgrad.tracing.pytree import flatten, leaf_aval

DECREASE = 1e-4
"""A step stays that lowers the length of the residuals by at least this part of what it would if they were linear."""

SHORTEST = 2.0**-30
"""A part of a Newton step as short as this is not tried any more."""


class NewtonResult(NamedTuple):
    """What `newton` found."""

    x: Any
    """The root, with the structure, shapes and dtypes of `x0`."""
    fun: Any
    """What the function returned there."""
    residual: Any
    """The greatest absolute value of it."""
    iterations: Any
    """How many steps were made."""
    converged: Any
    """Whether it ended at a root, and not for want of steps, of a step that does any good, or of finite numbers."""


class _Options(NamedTuple):
    xtol: float | None
    ftol: float
    maxiter: int


def newton(
    f: Callable[..., Any], x0: Any, args: Sequence[Any] = (), *, xtol: float | None = None, ftol: float = 0.0, maxiter: int = 50
) -> NewtonResult:
    """Return a root of `f`, a system of as many equations as unknowns, by Newton's method.

    Jacobians are exact. A step is halved until it shortens the vector of residuals. It works inside of traced functions, under
    `sg.vmap` and other transforms; the root is differentiated by what the equations depend on (implicitly), not by `x0`.

    Parameters
    ----------
    f
        A function `f(x, *args)`, written with NumPy, that returns floats: an array or a container of arrays.
    x0
        Where to start: an array of floats, a list or a tuple of numbers (taken as an array), or any other pytree of float arrays.
    args
        Further arguments of `f`.
    xtol : float
        It ends at a step that is at most `xtol` times as long as `x`; by default 64 times the relative precision of the dtypes. Or
        where the residuals have fallen to the third power of that precision, beside those at `x0`.
    ftol : float
        It ends where no residual is larger than this.
    maxiter : int
        The most steps to be made.

    Returns
    -------
    NewtonResult
        A tuple of arrays: `x`, `fun`, `residual`, `iterations`, `converged`. Nothing is raised where there is no root, no step does
        any good (at a singular Jacobian, for example), or numbers are not finite: then `converged` is False.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If there are not as many equations as unknowns, or they are not floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def on_circle(p, radius):
    ...     return np.stack([p[0] ** 2 + p[1] ** 2 - radius**2, p[0] - p[1]])
    >>> found = sg.newton(on_circle, [1.0, 0.5], args=(2.0,))
    >>> np.round(found.x, 12), found.converged
    (array([1.41421356, 1.41421356]), np.True_)
    >>> sg.grad(lambda radius: sg.newton(on_circle, [1.0, 0.5], args=(radius,)).x[0])(2.0)
    np.float64(0.7071067811865476)

    References
    ----------
    For the steps that are halved: J. E. Dennis, R. B. Schnabel, "Numerical Methods for Unconstrained Optimization and Nonlinear
    Equations" (SIAM, 1996), section 6.3.
    """
    options = _Options(None if xtol is None else number("xtol", xtol), number("ftol", ftol), whole("maxiter", maxiter, 0))
    found: NewtonResult = run(_newton, f, x0, args, options, "newton")
    return found


def _newton(f: Callable[..., Any], guess: Any, args: tuple[Any, ...], options: _Options) -> NewtonResult:
    layout = Layout(guess, "newton")

    def residuals(vector: Any) -> Any:
        return _vector(f(layout.tree(vector), *args), layout.size)

    def equations(x: Any) -> Any:
        return layout.tree(_vector(f(x, *args), layout.size))

    def solve(first: Any) -> tuple[Any, Any, Any]:
        vector, iterations, converged = _solve(residuals, Layout(first, "newton").vector, layout.epsilon, options)
        return layout.tree(vector), converged, iterations

    x, (converged, iterations) = implicit_root(equations, guess, solve, "newton")
    fun = f(x, *args)
    return NewtonResult(x, fun, np.max(np.abs(_vector(fun, layout.size)), initial=0.0), iterations, converged)


def _solve(residuals: Callable[[Any], Any], first: Any, epsilon: float, options: _Options) -> tuple[Any, Any, Any]:
    """Return the root as a vector, the number of steps, and whether it is one."""
    xtol = 64 * epsilon if options.xtol is None else options.xtol
    derivative = jacobian(residuals)

    def goes_on(carry: Any) -> Any:
        _, _, iterations, ended, _ = carry
        return (iterations < options.maxiter) & ~ended

    def body(carry: Any) -> Any:
        x, values, iterations, _, _ = carry
        step = snp.linalg.solve(derivative(x), -values)
        part, reached = _shortened(residuals, x, values, step)
        relative = length(step) / (length(x) + np.finfo(np.float64).tiny)
        moved = part > SHORTEST
        # Where rounding errors hide by how much a step shortens the residuals, a short one is at the root.
        close = (relative <= np.where(moved, xtol, max(xtol, epsilon**0.5))) | _small(reached, options)
        # A root at 0 has no size of its own: there a step is short beside the start, or nothing is left of the residuals.
        close = close | (~moved & (length(step) <= xtol * length(first))) | (length(reached) <= epsilon**3 * length(values_at_first))
        return np.where(moved, x + part * step, x), np.where(moved, reached, values), iterations + 1, close | ~moved, close

    values_at_first = residuals(first)
    small = _small(values_at_first, options)
    x, _, iterations, _, converged = while_loop(goes_on, body, (first, values_at_first, 0, small, small))
    return x, iterations, converged


def _small(values: Any, options: _Options) -> Any:
    return np.all(np.abs(values) <= options.ftol)


def _shortened(residuals: Callable[[Any], Any], x: Any, values: Any, step: Any) -> tuple[Any, Any]:
    """Return the part of the step that shortens the residuals, and these; at most `SHORTEST` where none does."""
    before = length(values)

    def too_long(carry: Any) -> Any:
        part, reached = carry
        return (part > SHORTEST) & ~(length(reached) <= (1 - DECREASE * part) * before)

    def halved(carry: Any) -> Any:
        part = carry[0] / 2
        return part, residuals(x + part * step)

    found: tuple[Any, Any] = while_loop(too_long, halved, (1.0, residuals(x + step)))
    return found


def _vector(values: Any, unknowns: int) -> Any:
    leaves = flatten(values)[0]
    for leaf in leaves:
        aval = leaf_aval(leaf)
        if not is_float(aval.dtype):
            raise DTypeError(at_user_line(f"newton: the function returned {aval}, which has no derivative; equations are floats"))
    found = Layout(values, "newton")
    if found.size != unknowns:
        raise ShapeError(at_user_line(f"newton: {found.size} equations for {unknowns} unknowns; there must be as many of each"))
    return found.vector
