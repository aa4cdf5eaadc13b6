"""What Gauss-Newton and Levenberg-Marquardt share: a step is tried, and stays only if the norm of the residuals falls.

A step is plain NumPy. On arrays it is run once a call of `update`; on traced arrays it is the body of a loop (`traced_fitting`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, TraceError
from staticgrad.ir.source import at_user_line
from staticgrad.optim.domain import FREE, Domain
from staticgrad.optim.normal_equations import EPSILON, Layout, Linearization, Residuals, chosen, length
from staticgrad.tracing.context import tracing
from staticgrad.tracing.tracer import Tracer

TINY = float(np.finfo(np.float64).tiny)

Room = tuple[Any, Any] | None
"""How far each parameter may move down and up, (n,) each; None where there are no bounds."""

SecondDerivative = Callable[[Any], Any]
"""The second derivative of the residuals along a direction, (n,) -> (m,)."""


class Proposal(NamedTuple):
    """A step before it is tried."""

    move: Any
    """What is added to the parameters, (n,)."""
    predicted: Any
    """By how much the cost of the linear model falls."""
    sound: Any = True
    """Whether the linear model holds well enough for the step to be tried."""


class Trial(NamedTuple):
    """What came of one step."""

    accepted: bool
    """Whether it stayed."""
    control: float
    """The damping it was found with (Levenberg-Marquardt); the part of the whole jump that it was (Gauss-Newton)."""
    cost: float
    """The cost at its end; NaN where that was not computed, because the residuals bend too much along the step."""
    fall: float
    """By how much the cost falls; NaN where it was not computed, or is not finite."""
    predicted: float
    """By how much the cost of the linear model falls."""
    length: float
    """Its length as a part of that of the parameters, each measured by its influence on the residuals."""
    resolved: bool
    """Whether it would change the residuals by more than their rounding errors."""


_NAN = np.float64(np.nan)

NOTHING_TRIED = Trial(True, _NAN, _NAN, _NAN, _NAN, _NAN, True)
"""What stands for the last step before the first one."""


class ResidualState(NamedTuple):
    """What an optimiser of residuals remembers."""

    linear: Linearization
    """The residuals at the parameters, with their derivatives."""
    scale: Any
    """By what each parameter is multiplied before steps are measured, (n,)."""
    control: float
    """The damping of the next step (Levenberg-Marquardt), or what part of the whole jump it is (Gauss-Newton)."""
    growth: float
    """By what the damping is multiplied if the next step does not stay."""
    evaluations: Any
    """How often the residuals and their derivatives were computed."""
    last: Trial | None
    """What came of the last step."""
    active: Any
    """For each parameter -1 at its lower bound, 1 at its upper one, 0 in between, (n,)."""
    domain: Domain
    """Where the parameters may be."""


class ResidualOptimizer(ABC):
    """A rule for steps that lower the norm of residuals. It holds no parameters: what it has to remember is a state.

    All methods are given the function of the residuals and its further arguments, which must be the same in each call.
    """

    word: str
    """The name users know it by."""
    of_residuals = True
    """Told from optimisers that are given gradients."""

    def init(self, params: Any, residuals: Callable[..., Any], *args: Any, **kwargs: Any) -> ResidualState:
        """Return the state before the first step.

        Parameters
        ----------
        params
            A pytree of float arrays.
        residuals
            A function `residuals(params, *args, **kwargs)` that returns any number of floats: an array, or a container of arrays.
        *args, **kwargs
            Its further arguments.

        Raises
        ------
        InvalidValueError
            If the residuals or their derivatives are not finite.
        ShapeError, DTypeError
            If there are no residuals or no parameters, or if they are not floats.
        """
        return self.begin(params, self.equations.of(residuals), args, kwargs, FREE)

    def begin(self, params: Any, function: Residuals, args: Sequence[Any], kwargs: Mapping[str, Any], domain: Domain) -> ResidualState:
        """Return the state before the first step, with an error where the residuals are not finite."""
        self._layout(params)
        with np.errstate(all="ignore"):
            state = self.first(params, function, args, kwargs, domain)
        if not state.linear.finite:
            raise InvalidValueError(at_user_line(f"{self.word}: {_not_finite(state.linear)} at the first parameters; start elsewhere"))
        return state

    def update(
        self, params: Any, residuals: Callable[..., Any], state: ResidualState, *args: Any, **kwargs: Any
    ) -> tuple[Any, ResidualState]:
        """Return parameters and state after one step was tried; `state.last` says what came of it.

        Parameters
        ----------
        params
            A pytree of float arrays; every leaf keeps its dtype.
        residuals, *args, **kwargs
            What `init` was given.
        state
            What `init` or the previous `update` returned.
        """
        size, function = self._layout(params).size, self.equations.of(residuals)
        if not isinstance(state, ResidualState) or len(state.scale) != size:
            raise ArgumentError(at_user_line(f"{self.word}: the state is not what {self.word}().init(params, residuals) returned"))
        params, (linear, scale, control, growth, evaluations, trial, active, domain) = self.step(params, function, state, args, kwargs)
        assert trial is not None
        control_then, cost, fall, predicted, relative = map(float, (trial.control, trial.cost, trial.fall, trial.predicted, trial.length))
        trial = Trial(bool(trial.accepted), control_then, cost, fall, predicted, relative, bool(trial.resolved))
        return params, ResidualState(linear, scale, float(control), float(growth), int(evaluations), trial, active, domain)

    def first(self, params: Any, function: Residuals, args: Sequence[Any], kwargs: Mapping[str, Any], domain: Domain) -> ResidualState:
        """Return the state before the first step, whatever the residuals are."""
        layout = Layout(params, self.word)
        here = layout.vector
        linear = function.linearize(layout.tree(here), args, kwargs)
        scale = self.rescaled(None, linear, here) if domain.x_scale is None else 1 / domain.x_scale
        return ResidualState(linear, scale, *self.start, 1, None, domain.active(here), domain)

    def step(
        self, params: Any, function: Residuals, state: ResidualState, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ResidualState]:
        """Return parameters and state after one step was tried; all of them may be traced."""
        layout = Layout(params, self.word)
        linear, here, domain = state.linear, layout.vector, state.domain
        epsilon = max(layout.epsilon, float(np.finfo(linear.residuals.dtype).eps))
        terms = size_of_terms(linear, here)
        with np.errstate(all="ignore"):  # a step that overflows does not stay
            proposal = self.propose(
                linear, state, domain.room(here), lambda direction: function.second_derivative(params, layout.tree(direction), args, kwargs)
            )
            tried = layout.tree(domain.clip(here + proposal.move))
            move = Layout(tried, self.word).vector - here  # as the dtypes of the parameters round it
            computed = np.isfinite(move).all() & proposal.sound
            there = function.linearize(tried, args, kwargs) if isinstance(computed, Tracer) or computed else linear
            noise = 8 * epsilon * terms * linear.norm
            fall: Any = chosen(computed & there.finite, fall_of_cost(linear, there, move, noise), np.nan)
            cost: Any = chosen(computed, there.cost, np.nan)
            trial = Trial(
                accepted=fall > 0,
                control=state.control,
                cost=cost,
                fall=fall,
                predicted=proposal.predicted,
                length=length(state.scale * move) / (length(state.scale * here) + TINY),
                # NaN is not; bounds that hold up a part of a step may make it go up on the whole.
                resolved=np.logical_not(np.abs(2 * proposal.predicted) <= (epsilon * terms) ** 2),
            )
            control, growth = self.adapted(state, trial)
            kept = params, linear, state.scale, state.active
            scale = self.rescaled(state.scale, there, here + move) if domain.x_scale is None else state.scale
            moved = tried, there, scale, domain.active(here + move)
        params, linear, scale, active = chosen(trial.accepted, moved, kept)
        return params, ResidualState(linear, scale, control, growth, state.evaluations + computed, trial, active, domain)

    @property
    def equations(self) -> type[Residuals]:
        """How residuals are made linear."""
        return Residuals

    @property
    @abstractmethod
    def start(self) -> tuple[float, float]:
        """The first `control` and `growth`."""

    @abstractmethod
    def propose(self, linear: Linearization, state: ResidualState, room: Room, second: SecondDerivative) -> Proposal:
        """Return the step to try, which must not leave the room that bounds leave."""

    @abstractmethod
    def adapted(self, state: ResidualState, trial: Trial) -> tuple[Any, Any]:
        """Return `control` and `growth` after a step was tried."""

    @abstractmethod
    def rescaled(self, scale: Any, linear: Linearization, here: Any) -> Any:
        """Return by what each parameter is multiplied before steps are measured; `scale` is what it was before, None at first."""

    def _layout(self, params: Any) -> Layout:
        if tracing():
            raise TraceError(at_user_line(f"{self.word}: single steps cannot be traced; sg.least_squares(residuals, x0, method=...) can"))
        return Layout(params, self.word)


def fall_of_cost(before: Any, after: Any, move: Any, noise: Any) -> Any:
    """Return by how much the cost falls along a step, from the `cost` and the `gradient` at both ends.

    Where the costs differ by less than their rounding errors, `noise`, the slopes at both ends tell: they are right to the precision
    of the residuals, not to that of their squares, so that parameters get all their digits, not half of them.

    References
    ----------
    W. W. Hager, H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search" (SIAM Journal on
    Optimization 16, 2005), for the idea.
    """
    fall = before.cost - after.cost
    return chosen(abs(fall) > noise, fall, -((before.gradient + after.gradient) @ move) / 2)


def size_of_terms(linear: Linearization, here: Any) -> Any:
    """Return how large the numbers are that residuals are made of: their rounding errors are this times the precision."""
    return linear.norm + length(linear.columns * here)


def influences(linear: Linearization, here: Any) -> Any:
    """Return how much each parameter moves the residuals: the lengths of the columns of the Jacobian.

    One that does not even move them by their rounding errors when it is doubled gets the influence that would; 1 at 0.
    """
    least = EPSILON * size_of_terms(linear, here) / np.where(here == 0, np.inf, np.abs(here))
    raised = np.maximum(linear.columns, least)
    return np.where(raised > 0, raised, 1)


def predicted_fall(linear: Linearization, move: Any) -> Any:
    """Return by how much the cost of the linear model falls."""
    return -(linear.gradient @ move + move @ linear.gram @ move / 2)


def _not_finite(linear: Linearization) -> str:
    """Return what of a linearization is not finite."""
    wrong = np.flatnonzero(~np.isfinite(linear.residuals))
    if len(wrong):
        return f"residual {wrong[0]} is {linear.residuals[wrong[0]]} ({len(wrong)} of {len(linear.residuals)} are not finite)"
    parameters = linear.wrong_parameters
    if len(parameters):
        return f"the derivative of the residuals by parameter {parameters[0]} is not finite"
    return "the squares of the residuals or of their derivatives overflow"
