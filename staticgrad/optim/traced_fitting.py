"""`least_squares` inside of traced functions: the steps of the driver as the body of a loop, derivatives from the optimum alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from staticgrad.api import grad
from staticgrad.control_flow import while_loop
from staticgrad.optim.normal_equations import Residuals
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
) -> LeastSquaresSolution:
    """Return the solution as traced arrays. The loop ends after `most` trials, or when the status of a state is not 0.

    `judge` returns, for the first state, the function that gives the status of each state.
    """

    def gradient(x: Any) -> Any:
        """The gradient of the cost, which is 0 at the optimum."""
        return grad(lambda p: _cost(function(p, *args, **kwargs)))(x)

    def solve(start: Any) -> tuple[Any, Any]:
        state = optimizer.first(start, function, args, kwargs)
        status_of = judge(state)
        status = np.where(state.linear.finite, status_of(state), -1)
        state = state._replace(last=NOTHING_TRIED)

        def goes_on(carry: Any) -> Any:
            _, _, status, trials = carry
            return (status == 0) & (trials < most)

        def body(carry: Any) -> Any:
            params, state, _, trials = carry
            params, state = optimizer.step(params, function, state, args, kwargs)
            return params, state, status_of(state), trials + 1

        x, state, status, _ = while_loop(goes_on, body, (start, state, status, 1))
        return x, (state.evaluations, status)

    x, (evaluations, status) = implicit_root(gradient, guess, solve, "least_squares")
    linear = function.linearize(x, args, kwargs)
    return LeastSquaresSolution(
        x=x,
        cost=linear.cost,
        fun=linear.value,
        jac=linear.transposed.T,
        grad=linear.gradient,
        optimality=np.max(np.abs(linear.gradient)),
        nfev=evaluations,
        status=status,
        success=status > 0,
    )


def _cost(residuals: Any) -> Any:
    return sum(np.sum(leaf * leaf) for leaf in flatten(residuals)[0]) / 2
