"""Gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from staticgrad.errors import InvalidValueError
from staticgrad.ir.options import number
from staticgrad.ir.source import at_user_line
from staticgrad.optim.optimizer import (
    Optimizer,
    Rate,
    counted,
    counter,
    factor,
    matching,
    number_or_schedule,
    parameters,
    rate_at,
    state_of,
    zeros,
)
from staticgrad.tracing.pytree import unflatten


class SGDState(NamedTuple):
    """What gradient descent remembers: the velocities (None without momentum), and the number of updates (None without a schedule)."""

    velocity: Any
    step: Any = None


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent; see `sgd`."""

    learning_rate: Rate
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def init(self, params: Any) -> SGDState:
        leaves, tree = parameters(params, "sgd")
        return SGDState(zeros(leaves, tree) if self.momentum else None, counter(self.learning_rate))

    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, SGDState]:
        leaves, tree = parameters(params, "sgd")
        slopes = matching(leaves, tree, gradients, "sgd", "the gradients")
        if self.weight_decay:
            slopes = [g + self.weight_decay * p for p, g in zip(leaves, slopes, strict=True)]
        velocity, done = state_of(SGDState, state, "sgd")
        rate = rate_at(self.learning_rate, done, "sgd")
        if self.momentum:
            old = matching(leaves, tree, velocity, "sgd", "the velocities")
            new = [self.momentum * v + g for v, g in zip(old, slopes, strict=True)]
            slopes = [g + self.momentum * v for v, g in zip(new, slopes, strict=True)] if self.nesterov else new
            velocity = unflatten(tree, new)
        moved = [p - factor(rate, p.dtype) * g for p, g in zip(leaves, slopes, strict=True)]
        return unflatten(tree, moved), SGDState(velocity, counted(self.learning_rate, done, "sgd"))


def sgd(learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> SGD:
    """Return stochastic gradient descent, with the formulas of `torch.optim.SGD`.

    For a gradient g, with weight decay first added to it (g += weight_decay * p):

        v = momentum * v + g
        p = p - learning_rate * (g + momentum * v if nesterov else v)

    Parameters
    ----------
    learning_rate : float or function
        The length of a step, at least 0; or a schedule, a function of the number of updates done before (see `sg.optim.schedules`).
    momentum : float
        How much of the velocity lasts to the next step, at least 0; with 0 the state holds none.
    nesterov : bool
        Whether to look ahead along the velocity (Nesterov's accelerated gradient); needs a momentum.
    weight_decay : float
        The L2 penalty, at least 0.

    Returns
    -------
    SGD
        An `Optimizer`.

    Raises
    ------
    ArgumentError, InvalidValueError
        If a hyperparameter is not a number, or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import sgd
    >>> optimizer = sgd(0.5, momentum=0.9)
    >>> params, state = np.array([1.0]), optimizer.init(np.array([1.0]))
    >>> for _ in range(2):
    ...     params, state = optimizer.update(params, np.array([1.0]), state)
    >>> params
    array([-0.45])

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning" (ICML, 2013).
    """
    made = SGD(number_or_schedule(learning_rate), number("momentum", momentum), bool(nesterov), number("weight_decay", weight_decay))
    if made.nesterov and not made.momentum:
        raise InvalidValueError(at_user_line("sgd: nesterov=True needs a momentum, for example momentum=0.9"))
    return made
