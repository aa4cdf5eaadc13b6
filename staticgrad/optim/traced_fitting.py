"""`least_squares` inside of traced functions: the steps of the driver as the body of a loop, derivatives from the optimum alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from staticgrad.api import grad
from staticgrad.control.flow import while_loop
from staticgrad.optim.domain import Domain, optimality
from staticgrad.optim.normal_equations import Layout, Residuals
from staticgrad.optim.residual_optimizer import NOTHING_TRIED, ResidualOptimizer, ResidualState
from staticgrad.optim.solvers import implicit_root
from staticgrad.tracing.pytree import flatten


class LeastSquaresSolution(NamedTuple):
    """What `least_squares` finds in a traced function: arrays, in the order and by the names of `LeastSquaresResult`."""

    x: Any
    """The parameters, with the structure, shapes and dtypes of `x0`."""
    cost: Any
    """Half of the sum of the squares of the residuals."""
    fun: Any
    """What the function of the residuals returned at `x`."""
    jac: Any
    """The Jacobian at `x`, (m, n)."""
    grad: Any
    """The gradient of the cost, (n,)."""
    optimality: Any
    """The greatest element of the gradient."""
    active_mask: Any
    """For each parameter -1 at its lower bound, 1 at its upper one, 0 in between, (n,)."""
    nfev: Any
    """How often the residuals and their derivatives were computed until it ended."""
    status: Any
    """Why it ended: as that of `LeastSquaresResult`, or -1 where residuals or derivatives are not finite at `x0`."""
    success: Any
    """Whether it ended by a tolerance."""


def solve_in_trace(
    optimizer: ResidualOptimizer,
    function: Residuals,
    guess: Any,
    judge: Callable[[ResidualState], Callable[[ResidualState], Any]],
    most: int,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    domain: Domain,
    raw: Callable[..., Any] | None,
) -> LeastSquaresSolution:
    """Return the solution as traced arrays. The loop ends after `most` trials, or when the status of a state is not 0.

    `judge` returns, for the first state, the function that gives the status of each state; `raw` are the residuals as they are where
    `function` is a loss of them.
    """

    def gradient(x: Any) -> Any:
        return grad(lambda p: _cost(function(p, *args, **kwargs)))(x)

    def solve(start: Any) -> tuple[Any, Any, Any]:
        state = optimizer.first(start, function, args, kwargs, domain)
        status_of = judge(state)
        status = np.where(state.linear.finite, status_of(state), -1)
        # With dtypes of their own: a loop that starts with Python's numbers is recorded once more to find them.
        state = state._replace(last=NOTHING_TRIED, control=np.float64(state.control), growth=np.float64(state.growth))
        state = state._replace(evaluations=np.int64(state.evaluations))

        def goes_on(carry: Any) -> Any:
            _, _, status, trials = carry
            return (status == 0) & (trials < most)

        def body(carry: Any) -> Any:
            params, state, _, trials = carry
            params, state = optimizer.step(params, function, state, args, kwargs)
            return params, state, status_of(state), trials + 1

        x, state, status, _ = while_loop(goes_on, body, (start, state, status, 1))
        return x, status > 0, (state.evaluations, status)

    x, (success, (evaluations, status)) = implicit_root(domain.equations(gradient, "least_squares"), guess, solve, "least_squares")
    linear = function.linearize(x, args, kwargs)
    active = domain.active(Layout(x, "least_squares").vector)
    return LeastSquaresSolution(
        x=x,
        cost=linear.cost,
        fun=linear.value if raw is None else raw(x, *args, **kwargs),
        jac=linear.transposed.T,
        grad=linear.gradient,
        optimality=optimality(linear.gradient, active),
        active_mask=active,
        nfev=evaluations,
        status=status,
        success=success,
    )


def _cost(residuals: Any) -> Any:
    return sum(np.sum(leaf * leaf) for leaf in flatten(residuals)[0]) / 2
