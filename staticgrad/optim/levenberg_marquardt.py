"""The Levenberg-Marquardt method with geodesic acceleration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.options import number
from staticgrad.ir.source import at_user_line
from staticgrad.optim.domain import step_within
from staticgrad.optim.normal_equations import Linearization, Residuals, chosen, length
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

MOST_ACCELERATION = 3 / 8
"""How long the second-order part of a step may be, as a part of the first-order one."""


@dataclass(frozen=True)
class LevenbergMarquardt(ResidualOptimizer):
    """Damped Gauss-Newton steps; see `levenberg_marquardt`."""

    damping: float = 1.0
    acceleration: bool = True
    sparse: bool = False

    word = "levenberg_marquardt"

    @property
    def equations(self) -> type[Residuals]:
        if not self.sparse:
            return Residuals
        from staticgrad.optim.sparse_equations import SparseResiduals

        return SparseResiduals

    @property
    def start(self) -> tuple[float, float]:
        return self.damping, 2.0

    def propose(self, linear: Linearization, state: ResidualState, room: Room, second: SecondDerivative) -> Proposal:
        velocity, inverse = step_within(linear, state.control * state.scale**2, room)
        predicted = predicted_fall(linear, velocity)
        if not self.acceleration:
            return Proposal(velocity, predicted)
        bend = linear.transposed @ second(velocity)
        bends = np.isfinite(bend).all()
        half = chosen(bends, -inverse(bend) / 2, np.zeros(len(bend)))
        sound = bends & (length(state.scale * half) <= MOST_ACCELERATION * length(state.scale * velocity))
        return Proposal(velocity + half, predicted, sound)

    def adapted(self, state: ResidualState, trial: Trial) -> tuple[Any, Any]:
        ratio = chosen(trial.fall < trial.predicted, trial.fall / trial.predicted, 1.0)
        smaller = state.control * np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
        return chosen(trial.accepted, (smaller, 2.0), (state.control * state.growth, 2 * state.growth))  # type: ignore[no-any-return]

    def rescaled(self, scale: Any, linear: Linearization, here: Any) -> Any:
        found = influences(linear, here)
        return found if scale is None else np.maximum(scale, found)


def levenberg_marquardt(damping: float = 1.0, acceleration: bool = True, sparse: bool = False) -> LevenbergMarquardt:
    """Return the Levenberg-Marquardt method: Gauss-Newton steps, damped until the cost falls.

    With the residuals r and their Jacobian J at the parameters p, the gradient of the cost r^T r / 2 is J^T r, and

        v = -(J^T J + damping D^2)^-1 J^T r
        a = -(J^T J + damping D^2)^-1 J^T r''(v, v) / 2
        p = p + v + a

    A step stays only if the cost falls. Then the damping becomes smaller the better the linear model foretold by how much (at most
    to a third), and the method is close to Gauss-Newton's; otherwise it is multiplied by 2, next time by 4, 8, ... and the step turns
    to the gradient's direction and becomes short. D is diagonal: for each parameter the greatest length that its column of J has had,
    or what would move the residuals by their rounding errors, if that is more; so units do not matter. The second-order part a, for
    which r'' is derived exactly, lets steps follow curved valleys; a step that bends more than it can correct (|D a| > 3/8 |D v|) is
    not tried.

    J^T J has the square of the number of parameters as its size, which rules the method out for millions of parameters, unless each
    residual depends on few of them: then J and J^T J are sparse.

    Parameters
    ----------
    damping : float
        The damping of the first step, more than 0. Less is bolder.
    acceleration : bool
        Whether steps have the second-order part (geodesic acceleration). It costs one more program, and about two evaluations of the
        residuals a step; narrow valleys take several times fewer steps.
    sparse : bool
        Whether J is computed as by `sg.sparse_jacobian`, and the normal equations are solved by a sparse factorisation, such as for
        bundle adjustment. The result's `jac` is a `scipy.sparse.csr_array` then.

    Returns
    -------
    LevenbergMarquardt
        `init(params, residuals, *args)` gives a state, `update(params, residuals, state, *args)` the next parameters and state;
        `state.last` says what came of the step. `sg.least_squares(residuals, x0)` repeats this to the end.

    Raises
    ------
    ArgumentError, InvalidValueError
        If the damping is not a number, or not more than 0.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import levenberg_marquardt
    >>> rosenbrock = lambda p: np.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
    >>> optimizer, params = levenberg_marquardt(), np.array([-1.2, 1.0])
    >>> state = optimizer.init(params, rosenbrock)
    >>> for _ in range(30):
    ...     params, state = optimizer.update(params, rosenbrock, state)
    >>> np.round(params, 9)
    array([1., 1.])

    References
    ----------
    K. Levenberg, "A method for the solution of certain non-linear problems in least squares" (Quarterly of Applied Mathematics 2, 1944).

    D. W. Marquardt, "An algorithm for least-squares estimation of nonlinear parameters" (SIAM Journal 11, 1963).

    For D: J. J. More, "The Levenberg-Marquardt algorithm: implementation and theory" (Lecture Notes in Mathematics 630, 1978).

    For the damping: H. B. Nielsen, "Damping parameter in Marquardt's method" (IMM-REP-1999-05, Technical University of Denmark, 1999).

    For the acceleration: M. K. Transtrum, J. P. Sethna, "Improvements to the Levenberg-Marquardt algorithm for nonlinear
    least-squares minimization" (arXiv:1201.5885, 2012).
    """
    made = LevenbergMarquardt(number("damping", damping), bool(acceleration), bool(sparse))
    if not made.damping:
        raise InvalidValueError(at_user_line("levenberg_marquardt: damping=0 would stay 0, which is gauss_newton(); expected more than 0"))
    return made
