"""`lbfgs`: minima of functions of any number of variables, with exact gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import staticgrad.numpy as snp
from staticgrad.api import grad, value_and_grad
from staticgrad.control.flow import while_loop
from staticgrad.control.scans import scan
from staticgrad.errors import ShapeError
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.optim.domain import FREE, Domain, domain_of
from staticgrad.optim.line_search import Trial, search
from staticgrad.optim.normal_equations import EPSILON, Layout, chosen, length
from staticgrad.optim.residual_optimizer import fall_of_cost
from staticgrad.optim.solvers import implicit_root, run, start
from staticgrad.tracing.pytree import leaf_aval


class LBFGSResult(NamedTuple):
    """What `lbfgs` found."""

    x: Any
    """The minimum, with the structure, shapes and dtypes of `x0`."""
    fun: Any
    """The function there."""
    grad: Any
    """Its gradient there, with the structure of `x`."""
    iterations: Any
    """How many steps were made."""
    evaluations: Any
    """How often the function and its gradient were computed."""
    status: Any
    """Why it ended: 0 steps ran out, 1 `gtol`, 2 `ftol`, -1 function or gradient not finite at `x0`, -2 no step lowers the function,
    or it has fallen out of the range of floats."""
    converged: Any
    """Whether it ended by a tolerance."""


class _Options(NamedTuple):
    history: int
    gtol: float | None
    ftol: float | None
    maxiter: int


class _Point(NamedTuple):
    x: Any
    cost: Any
    gradient: Any


class _History(NamedTuple):
    """The last steps and by how much the gradient changed along each, the newest last."""

    steps: Any
    changes: Any
    weights: Any
    """1 / (step change), 0 for none."""
    scale: Any
    """What stands for the inverse Hessian before any of them."""

    def restricted(self, free: Any) -> _History:
        """Return what is known of the Hessian of those variables alone that are free."""
        steps, changes = np.where(free, self.steps, 0), np.where(free, self.changes, 0)
        curvatures = np.sum(steps * changes, axis=1)
        curved = curvatures > EPSILON * np.sum(changes * changes, axis=1)
        return _History(steps, changes, np.where(curved, 1 / np.where(curved, curvatures, 1), 0), self.scale)


def lbfgs(
    f: Callable[..., Any],
    x0: Any,
    args: Sequence[Any] = (),
    *,
    history: int = 10,
    gtol: float | None = None,
    ftol: float | None = None,
    maxiter: int = 15000,
    bounds: Any = None,
) -> LBFGSResult:
    """Return a minimum of `f`, within bounds if there are any, by the limited-memory BFGS method.

    Gradients are exact; each step ends at a point that satisfies the strong Wolfe conditions. It works inside of traced functions, under
    `sg.vmap` and other transforms; the minimum is differentiated by what the function depends on (implicitly, as the root of the
    gradient, with the Hessian there), not by `x0`.

    Parameters
    ----------
    f
        A function `f(x, *args)`, written with NumPy, that returns one float.
    x0
        Where to start: an array of floats, a list or a tuple of numbers (taken as an array), or any other pytree of float arrays.
    args
        Further arguments of `f`.
    history : int
        How many steps are remembered for the curvature.
    gtol : float
        It ends where no element of the gradient is larger than this; with bounds, of the way that they leave for a step along it. By
        default the square root of the relative precision of the dtypes.
    ftol : float
        It ends after a step that lowered the function by at most `ftol` times its absolute value, or where no step lowers it and none
        is foretold to be worth more than rounding errors; by default the relative precision.
    maxiter : int
        The most steps to be made.
    bounds
        A pair (lower, upper) or a `scipy.optimize.Bounds`: for each, one number for all parameters, or numbers in the structure of
        `x0`; they may be infinite. The function is never computed outside. Parameters that the bounds hold up have the derivatives of
        these bounds.

    Returns
    -------
    LBFGSResult
        A tuple of arrays: `x`, `fun`, `grad`, `iterations`, `evaluations`, `status`, `converged`. Nothing is raised where there is no
        minimum or numbers are not finite: then `converged` is False, and `status` says why.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If the function does not return one float, or `x0` does not hold floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def rosenbrock(x, a):
    ...     return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> found = sg.lbfgs(rosenbrock, np.zeros(4), args=(1.0,))
    >>> np.round(found.x, 6), found.converged
    (array([1., 1., 1., 1.]), np.True_)

    References
    ----------
    J. Nocedal, "Updating quasi-Newton matrices with limited storage" (Mathematics of Computation 35, 1980).

    For steps within bounds: D. P. Bertsekas, "Projected Newton methods for optimization problems with simple constraints" (SIAM Journal on
    Control and Optimization 20, 1982).

    For the line search: J. J. More, D. J. Thuente, "Line search algorithms with guaranteed sufficient decrease" (ACM Transactions on
    Mathematical Software 20, 1994).
    """
    options = _Options(
        whole("history", history),
        None if gtol is None else number("gtol", gtol),
        None if ftol is None else number("ftol", ftol),
        whole("maxiter", maxiter, 0),
    )
    domain = FREE if bounds is None else domain_of(Layout(start(x0), "lbfgs"), bounds, None, "lbfgs")
    found: LBFGSResult = run(_lbfgs, f, x0, args, options, "lbfgs", (domain.lower, domain.upper) if domain.bounded else ())
    return found


def _lbfgs(f: Callable[..., Any], guess: Any, args: tuple[Any, ...], options: _Options, *bounds: Any) -> LBFGSResult:
    layout, domain = Layout(guess, "lbfgs"), Domain(*bounds)

    def of_tree(x: Any) -> Any:
        value = f(x, *args)
        aval = leaf_aval(value)
        if aval.shape:
            raise ShapeError(at_user_line(f"lbfgs: the function returned {aval}; it must return one number"))
        return value

    def of_vector(vector: Any) -> Any:
        return of_tree(layout.tree(vector))

    def solve(first: Any) -> tuple[Any, Any, Any]:
        point, iterations, evaluations, status = _solve(of_vector, Layout(first, "lbfgs").vector, layout.epsilon, options, domain)
        return layout.tree(point.x), status > 0, (iterations, evaluations, status)

    x, (converged, (iterations, evaluations, status)) = implicit_root(domain.equations(grad(of_tree), "lbfgs"), guess, solve, "lbfgs")
    fun, gradient = value_and_grad(of_tree)(x)
    return LBFGSResult(x, fun, gradient, iterations, evaluations, status, converged)


def _solve(f: Callable[[Any], Any], first: Any, epsilon: float, options: _Options, domain: Domain) -> tuple[Any, ...]:
    """Return the point where it ends, the numbers of steps and of evaluations, and the status."""
    gtol = epsilon**0.5 if options.gtol is None else options.gtol
    ftol = epsilon if options.ftol is None else options.ftol
    value_and_gradient = value_and_grad(f)

    nothing = np.zeros((options.history, len(first)))

    def forgotten(gradient: Any) -> _History:
        """No steps; the next one has the length of the gradient, at most 1."""
        return _History(nothing, nothing, np.zeros(options.history), 1 / np.maximum(1, length(gradient)))

    def at(x: Any) -> _Point:
        value, gradient = value_and_gradient(x)
        return _Point(x, value.astype(np.float64), gradient)

    def is_level(point: _Point) -> Any:
        way = domain.clip(point.x - point.gradient) - point.x if domain.bounded else point.gradient
        return np.all(np.abs(way) <= gtol)

    def goes_on(carry: Any) -> Any:
        *_, iterations, _, status = carry
        return (status == 0) & (iterations < options.maxiter)

    def body(carry: Any) -> Any:
        point, lowest, past, iterations, evaluations, _ = carry
        downhill = domain.blocked(point.x, -point.gradient)
        if domain.bounded:
            free = downhill != 0
            direction = domain.blocked(point.x, np.where(free, _times_inverse_hessian(past.restricted(free), downhill), 0))
        else:
            direction = _times_inverse_hessian(past, downhill)
        slope, noise = direction @ point.gradient, 8 * epsilon * np.abs(point.cost)
        (reached, fall, *_), falls, trials = _stepped(at, point, direction, lowest, noise, domain)
        level = is_level(reached)
        # A short step wins little anyway: the function is flat only if the whole one would not win much more.
        size = np.maximum(np.abs(point.cost), np.abs(np.where(falls, reached.cost, point.cost)))
        nearly = -slope <= max(ftol, epsilon**0.5) * size
        after = np.where(level, 1, np.where(nearly & (fall <= ftol * size), 2, 0))
        # Where nothing is won, what is remembered may mislead: then the gradient alone has a try.
        stuck = np.where(nearly, 2, np.where(np.all(past.weights == 0), -2, 0))
        later = _remembering(past, reached.x - point.x, reached.gradient - point.gradient, point.gradient)
        status = np.where(falls, after, stuck)
        point, past = chosen(falls, (reached, later), (point, forgotten(point.gradient)))
        return point, np.minimum(lowest, point.cost), past, iterations + 1, evaluations + trials, status

    point = at(first)
    finite = np.isfinite(point.cost) & np.all(np.isfinite(point.gradient))
    status = np.where(finite, np.where(is_level(point), 1, 0), -1)
    carry = point, point.cost, forgotten(point.gradient), np.int64(0), np.int64(1), status
    point, _, _, iterations, evaluations, status = while_loop(goes_on, body, carry)
    return point, iterations, evaluations, status


def _times_inverse_hessian(past: _History, gradient: Any) -> Any:
    """Return the approximate inverse Hessian times the gradient: from the newest step to the oldest, and back."""

    def backward(q: Any, each: Any) -> Any:
        step, change, weight = each
        amount = weight * (step @ q)
        return q - amount * change, amount

    def forward(q: Any, each: Any) -> Any:
        step, change, weight, amount = each
        return q + step * (amount - weight * (change @ q)), None

    q, amounts = scan(backward, gradient, (past.steps, past.changes, past.weights), reverse=True)
    return scan(forward, past.scale * q, (past.steps, past.changes, past.weights, amounts))[0]


def _remembering(past: _History, step: Any, change: Any, gradient: Any) -> _History:
    """Return the history with one more step, from where the gradient was that; without it if the gradient does not grow along it."""
    curvature = step @ change
    curved = curvature > 0
    weight = np.where(curved, 1 / np.where(curved, curvature, 1), 0)
    further = np.maximum(past.scale, length(step) / length(gradient))
    scale = np.where(curved, curvature / np.where(curved, change @ change, 1), further)
    steps, changes = (snp.concatenate([old[1:], new[None]]) for old, new in ((past.steps, step), (past.changes, change)))
    return _History(steps, changes, snp.concatenate([past.weights[1:], weight[None]]), scale)


def _stepped(at: Callable[[Any], _Point], point: _Point, direction: Any, lowest: Any, noise: Any, domain: Domain) -> tuple[Trial, Any, Any]:
    """Return where the search along a direction ends, whether the function falls enough there, and how many lengths were tried.

    Parameters stop at their bounds and the others go on: then the way bends.

    Where the function changes by less than its rounding errors slopes are believed, but only as long as it stays at its lowest.
    """

    def tried(t: Any) -> Trial:
        reached = at(domain.clip(point.x + t * direction))
        onward = domain.blocked(reached.x, direction)
        slope = reached.gradient @ onward
        finite = np.isfinite(reached.cost) & np.isfinite(slope) & np.all(np.isfinite(reached.gradient))
        by_slopes = fall_of_cost(point, reached, reached.x - point.x, noise)
        fall = np.where(reached.cost > lowest + noise, point.cost - reached.cost, by_slopes)
        return Trial(reached, np.where(finite, fall, np.nan), slope, np.any(onward != direction) if domain.bounded else False)

    return search(tried, direction @ point.gradient)
