"""Where parameters may be: bounds, and steps that stay within them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import staticgrad.numpy as snp
from staticgrad.control.flow import while_loop
from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.source import at_user_line
from staticgrad.optim.normal_equations import Layout, Linearization
from staticgrad.tracing.pytree import flatten
from staticgrad.tracing.tracer import Tracer

Inverse = Callable[[Any], Any]


class Domain(NamedTuple):
    """What is known of the parameters besides the residuals; None is nothing."""

    lower: Any = None
    upper: Any = None
    x_scale: Any = None
    """How large a step is large for each parameter; None: as large as its influence on the residuals says."""

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return self.lower is not None

    def clip(self, vector: Any) -> Any:
        """Return the parameters closest to these that are within the bounds."""
        return np.clip(vector, self.lower, self.upper) if self.bounded else vector

    def active(self, vector: Any) -> Any:
        """Return -1 for each parameter at its lower bound, 1 at its upper one, 0 in between."""
        if not self.bounded:
            return np.zeros(vector.shape, np.int64)
        return np.where(vector <= self.lower, -1, np.where(vector >= self.upper, 1, 0))

    def blocked(self, vector: Any, direction: Any) -> Any:
        """Return the direction, 0 for parameters that it would take out of the bounds that they are at."""
        return np.where(self.active(vector) * direction > 0, 0, direction) if self.bounded else direction

    def equations(self, gradient: Callable[[Any], Any], word: str) -> Callable[[Any], Any]:
        """Return what is 0 at a minimum: the gradient, or the way to its bound for a parameter that is held there, like the parameters."""
        if not self.bounded:
            return gradient

        def stationary(x: Any) -> Any:
            found = gradient(x)
            slope, layout = Layout(found, word).vector, Layout(x, word)
            here = layout.vector
            active = self.active(here)
            to_bound = here - np.where(active < 0, self.lower, self.upper)
            return layout.tree(np.where(pushed_out(active, slope), np.where(active == 0, 0.0, to_bound), slope))

        return stationary

    def room(self, vector: Any) -> tuple[Any, Any] | None:
        """Return how far each parameter may move down and up; None where there are no bounds."""
        return (self.lower - vector, self.upper - vector) if self.bounded else None


FREE = Domain()


def pushed_out(active: Any, gradient: Any) -> Any:
    """Return which parameters are at a bound that a step along the negative gradient would cross."""
    return active * gradient < 0


def optimality(gradient: Any, active: Any) -> Any:
    """Return the greatest element of the gradient, those that bounds hold up left out."""
    return np.max(np.abs(np.where(pushed_out(active, gradient), 0, gradient)))


def step_within(linear: Linearization, damping: Any, room: tuple[Any, Any] | None) -> tuple[Any, Inverse]:
    """Return the damped step that lowers the cost of the linear model most, and the inverse that gave it.

    Parameters that the step would take beyond their bounds end there, and the others' steps are found anew, until none does. The
    inverse is that of the matrix of the others, and 0 for those.
    """
    if room is None:
        inverse = linear.inverse(damping)
        return -inverse(linear.gradient), inverse
    down, up = room

    def solved(free: Any, fixed: Any) -> Any:
        within = linear.restricted(free).inverse(np.where(free, damping, 1))
        right = np.where(free, -(linear.gradient + linear.gram @ fixed), 0)
        return np.where(free, within(right), fixed)

    def crosses(carry: Any) -> Any:
        free, _, move = carry
        return np.any(free & ((move < down) | (move > up)))

    def shortened(carry: Any) -> Any:
        free, fixed, move = carry
        beyond = free & ((move < down) | (move > up))
        free, fixed = free & ~beyond, np.where(beyond, np.clip(move, down, up), fixed)
        return free, fixed, solved(free, fixed)

    free = ~(((down >= 0) & (linear.gradient > 0)) | ((up <= 0) & (linear.gradient < 0)))
    nothing = np.zeros(len(linear.gradient))
    carry = free, nothing, solved(free, nothing)
    if isinstance(carry[2], Tracer):
        carry = while_loop(crosses, shortened, carry)
    else:
        while crosses(carry):
            carry = shortened(carry)
    free, _, move = carry
    return move, lambda right: np.where(free, linear.restricted(free).inverse(np.where(free, damping, 1))(np.where(free, right, 0)), 0)


# ---- from what users pass


def domain_of(layout: Layout, bounds: Any, x_scale: Any, word: str) -> Domain:
    """Return bounds and scales of parameters as vectors."""
    scale = _scale(layout, x_scale, word)
    lower, upper = _pair(bounds, word)
    if _is_everything(lower, -np.inf) and _is_everything(upper, np.inf):
        return Domain(x_scale=scale)
    low, high = (_vector(layout, each, what, word) for each, what in ((lower, "lower bounds"), (upper, "upper bounds")))
    if not isinstance(low, Tracer) and not isinstance(high, Tracer) and not np.all(low < high):
        raise InvalidValueError(at_user_line(f"{word}: each lower bound must be less than the upper one of the same parameter"))
    here = layout.vector
    if not any(isinstance(v, Tracer) for v in (low, high, here)) and not np.all((low <= here) & (here <= high)):
        where = int(np.flatnonzero(~((low <= here) & (here <= high)))[0])
        raise InvalidValueError(
            at_user_line(f"{word}: x0 is not within the bounds: parameter {where} is {here[where]}, not in [{low[where]}, {high[where]}]")
        )
    return Domain(low, high, scale)


def _pair(bounds: Any, word: str) -> tuple[Any, Any]:
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):  # scipy.optimize.Bounds
        return bounds.lb, bounds.ub
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ArgumentError(at_user_line(f"{word}: bounds={bounds!r}: expected a pair (lower, upper), or a scipy.optimize.Bounds"))
    return bounds[0], bounds[1]


def _is_everything(bound: Any, infinity: float) -> bool:
    return not any(isinstance(leaf, Tracer) for leaf in flatten(bound)[0]) and all(np.all(leaf == infinity) for leaf in flatten(bound)[0])


def _vector(layout: Layout, value: Any, what: str, word: str) -> Any:
    """Return one number for all parameters, or an array or a container like them, as a vector of parameters."""
    if isinstance(value, (list, tuple)) and all(isinstance(x, (int, float, np.number)) for x in value):
        value = np.array(value, np.float64)
    leaves, tree = flatten(value)
    if len(leaves) == 1 and np.ndim(leaves[0]) == 0:
        leaves = leaves * len(layout.shapes)
    elif len(leaves) != len(layout.shapes) or (len(leaves) > 1 and tree != layout.structure):
        raise ArgumentError(at_user_line(f"{word}: the {what} are {tree}, the parameters {layout.structure}"))
    try:
        parts = [np.broadcast_to(snp.asarray(leaf, np.float64), shape).ravel() for leaf, shape in zip(leaves, layout.shapes, strict=True)]
    except ValueError:
        found = ", ".join(str(np.shape(leaf)) for leaf in leaves)
        wanted = ", ".join(map(str, layout.shapes))
        raise ShapeError(at_user_line(f"{word}: the {what} have shape {found}, the parameters {wanted}")) from None
    rounded = Layout(layout.tree(snp.concatenate(parts)), word)
    return rounded.vector


def _scale(layout: Layout, x_scale: Any, word: str) -> Any:
    if x_scale is None or (isinstance(x_scale, str) and x_scale == "jac"):
        return None
    if isinstance(x_scale, str):
        raise InvalidValueError(at_user_line(f"{word}: x_scale={x_scale!r}: expected 'jac' or numbers of more than 0"))
    scale = _vector(layout, x_scale, "scales x_scale", word)
    if not isinstance(scale, Tracer) and not (np.all(np.isfinite(scale)) and np.all(scale > 0)):
        raise InvalidValueError(at_user_line(f"{word}: x_scale={x_scale!r}: expected 'jac' or numbers of more than 0"))
    return scale
