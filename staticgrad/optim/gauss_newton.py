"""The Gauss-Newton method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.optim.normal_equations import Linearization, chosen
from staticgrad.optim.residual_optimizer import (
    Proposal,
    ResidualOptimizer,
    ResidualState,
    Room,
    SecondDerivative,
    Trial,
    influences,
    predicted_fall,
)


@dataclass(frozen=True)
class GaussNewton(ResidualOptimizer):
    """Jumps to the minimum of the linear model; see `gauss_newton`."""

    word = "gauss_newton"

    @property
    def start(self) -> tuple[float, float]:
        return 1.0, 1.0

    def propose(self, linear: Linearization, state: ResidualState, room: Room, second: SecondDerivative) -> Proposal:
        move = -state.control * linear.inverse(np.zeros(len(linear.gradient)))(linear.gradient)
        return Proposal(move, predicted_fall(linear, move))

    def adapted(self, state: ResidualState, trial: Trial) -> tuple[Any, Any]:
        return chosen(trial.accepted, 1.0, state.control / 2), state.growth

    def rescaled(self, scale: Any, linear: Linearization, here: Any) -> Any:
        return influences(linear, here)


def gauss_newton() -> GaussNewton:
    """Return the Gauss-Newton method: each step jumps to where the residuals would be least if they were linear.

    With the residuals r and their Jacobian J at the parameters p, the gradient of the cost r^T r / 2 is J^T r, and

        p = p - t (J^T J)^-1 J^T r

    where t is 1, and is halved until the cost falls. Where J^T J is singular the jump is the shortest of those that do best.

    It takes the fewest steps close to a minimum with small residuals. Far from one a jump may lead astray: `levenberg_marquardt` is
    for that. J^T J has the square of the number of parameters as its size, which rules both out for millions of parameters.

    Returns
    -------
    GaussNewton
        `init(params, residuals, *args)` gives a state, `update(params, residuals, state, *args)` the next parameters and state;
        `state.last` says whether the step stayed. `sg.least_squares(residuals, x0, method="gauss-newton")` repeats this to the end.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import gauss_newton
    >>> x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])
    >>> line = lambda params, x, y: params["slope"] * x + params["offset"] - y
    >>> optimizer, params = gauss_newton(), {"slope": 0.0, "offset": 0.0}
    >>> state = optimizer.init(params, line, x, y)
    >>> params, state = optimizer.update(params, line, state, x, y)
    >>> print({name: round(float(value), 9) for name, value in params.items()}, state.last.accepted)
    {'slope': 2.0, 'offset': 1.0} True

    References
    ----------
    A. Bjorck, "Numerical methods for least squares problems" (SIAM, 1996), section 9.2.
    """
    return GaussNewton()
