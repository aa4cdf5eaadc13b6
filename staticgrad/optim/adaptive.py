"""Optimisers with a step length of its own for every parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from staticgrad.ir.aval import INT64
from staticgrad.ir.options import number
from staticgrad.optim.optimizer import (
    Optimizer,
    Rate,
    checked_counter,
    counted,
    counter,
    factor,
    in_dtype,
    matching,
    number_or_schedule,
    parameters,
    rate_at,
    state_of,
    zeros,
)
from staticgrad.tracing.pytree import unflatten


class AdamState(NamedTuple):
    """What Adam remembers: the number of updates, and running means of the gradients and of their squares."""

    step: Any
    mean: Any
    square: Any


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam and AdamW; see `adam` and `adamw`."""

    learning_rate: Rate = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def init(self, params: Any) -> AdamState:
        leaves, tree = parameters(params, "adam")
        return AdamState(np.zeros((), INT64), zeros(leaves, tree), zeros(leaves, tree))

    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, AdamState]:
        leaves, tree = parameters(params, "adam")
        slopes = matching(leaves, tree, gradients, "adam", "the gradients")
        state = state_of(AdamState, state, "adam")
        means = matching(leaves, tree, state.mean, "adam", "the running means")
        squares = matching(leaves, tree, state.square, "adam", "the running means of squares")
        rate = rate_at(self.learning_rate, state.step, "adam")
        step = checked_counter(state.step, "adam") + 1
        # The running means start at 0: dividing by 1 - b**step takes the bias out. In float64, whatever the parameters are.
        length = rate / (1.0 - self.b1**step)
        scale = 1.0 / np.sqrt(1.0 - self.b2**step)
        means = [self.b1 * m + (1.0 - self.b1) * g for m, g in zip(means, slopes, strict=True)]
        squares = [self.b2 * v + (1.0 - self.b2) * (g * g) for v, g in zip(squares, slopes, strict=True)]
        moved = []
        for p, m, v in zip(leaves, means, squares, strict=True):
            kept = p * factor(1.0 - rate * self.weight_decay, p.dtype) if self.weight_decay else p
            moved.append(kept - in_dtype(length, p.dtype) * m / (np.sqrt(v) * in_dtype(scale, p.dtype) + self.eps))
        return unflatten(tree, moved), AdamState(step, unflatten(tree, means), unflatten(tree, squares))


def adam(learning_rate: Rate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Adam:
    """Return Adam, with the formulas of `torch.optim.Adam`.

    For a gradient g in update number t:

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)

    Parameters
    ----------
    learning_rate : float or function
        About the largest step of a parameter, at least 0; or a schedule, a function of the number of updates done before (see
        `sg.optim.schedules`).
    b1, b2 : float
        How much of the running means of the gradients and of their squares lasts, both in [0, 1).
    eps : float
        Keeps the division finite, at least 0.

    Returns
    -------
    Adam
        An `Optimizer`; its state holds an int64 counter and two arrays for each parameter.

    Raises
    ------
    ArgumentError, InvalidValueError
        If a hyperparameter is not a number, or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import adam
    >>> optimizer = adam(0.1)
    >>> params = np.array([1.0, 2.0])
    >>> optimizer.update(params, np.array([3.0, -4.0]), optimizer.init(params))[0]
    array([0.9, 2.1])

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization" (ICLR, 2015).
    """
    return Adam(number_or_schedule(learning_rate), number("b1", b1, below=1), number("b2", b2, below=1), number("eps", eps))


def adamw(learning_rate: Rate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2) -> Adam:
    """Return Adam with decoupled weight decay, with the formulas of `torch.optim.AdamW`.

    Each update first shrinks the parameters, p = p * (1 - learning_rate * weight_decay), and then does what `adam` does.

    Parameters
    ----------
    learning_rate, b1, b2, eps
        As for `adam`.
    weight_decay : float
        The share of a parameter, times the learning rate, that every step takes away; at least 0.

    Returns
    -------
    Adam
        An `Optimizer`.

    Raises
    ------
    ArgumentError, InvalidValueError
        If a hyperparameter is not a number, or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import adamw
    >>> optimizer = adamw(0.1, weight_decay=0.5)
    >>> params = np.array([1.0, 2.0])
    >>> optimizer.update(params, np.array([3.0, -4.0]), optimizer.init(params))[0]
    array([0.85, 2.  ])

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization" (ICLR, 2019).
    """
    plain = adam(learning_rate, b1, b2, eps)
    return Adam(plain.learning_rate, plain.b1, plain.b2, plain.eps, number("weight_decay", weight_decay))


class RMSPropState(NamedTuple):
    """What RMSprop remembers: running means of the squares, and where they are asked for, of the gradients, the velocities, a counter."""

    square: Any
    mean: Any = None
    velocity: Any = None
    step: Any = None


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """RMSprop; see `rmsprop`."""

    learning_rate: Rate = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    def init(self, params: Any) -> RMSPropState:
        leaves, tree = parameters(params, "rmsprop")
        mean, velocity = (zeros(leaves, tree) if wanted else None for wanted in (self.centered, self.momentum))
        return RMSPropState(zeros(leaves, tree), mean, velocity, counter(self.learning_rate))

    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, RMSPropState]:
        leaves, tree = parameters(params, "rmsprop")
        slopes = matching(leaves, tree, gradients, "rmsprop", "the gradients")
        if self.weight_decay:
            slopes = [g + self.weight_decay * p for p, g in zip(leaves, slopes, strict=True)]
        state = state_of(RMSPropState, state, "rmsprop")
        rate = rate_at(self.learning_rate, state.step, "rmsprop")
        squares = matching(leaves, tree, state.square, "rmsprop", "the running means of squares")
        squares = [self.alpha * v + (1.0 - self.alpha) * (g * g) for v, g in zip(squares, slopes, strict=True)]
        mean, velocity, variances = state.mean, state.velocity, squares
        if self.centered:
            old = matching(leaves, tree, mean, "rmsprop", "the running means")
            means = [self.alpha * m + (1.0 - self.alpha) * g for m, g in zip(old, slopes, strict=True)]
            # Where all gradients were equal, rounding could make the difference negative.
            variances = [np.maximum(v - m * m, 0.0) for v, m in zip(squares, means, strict=True)]
            mean = unflatten(tree, means)
        steps = [g / (np.sqrt(v) + self.eps) for g, v in zip(slopes, variances, strict=True)]
        if self.momentum:
            old = matching(leaves, tree, velocity, "rmsprop", "the velocities")
            steps = [self.momentum * u + s for u, s in zip(old, steps, strict=True)]
            velocity = unflatten(tree, steps)
        moved = [p - factor(rate, p.dtype) * s for p, s in zip(leaves, steps, strict=True)]
        remembered = RMSPropState(unflatten(tree, squares), mean, velocity, counted(self.learning_rate, state.step, "rmsprop"))
        return unflatten(tree, moved), remembered


def rmsprop(
    learning_rate: Rate = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> RMSProp:
    """Return RMSprop, with the formulas of `torch.optim.RMSprop`.

    For a gradient g, with weight decay first added to it (g += weight_decay * p):

        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g                      (centered; otherwise m = 0)
        u = momentum * u + g / (sqrt(v - m**2) + eps)
        p = p - learning_rate * u

    Parameters
    ----------
    learning_rate : float or function
        At least 0; or a schedule, a function of the number of updates done before (see `sg.optim.schedules`).
    alpha : float
        How much of the running means lasts, in [0, 1).
    eps : float
        Keeps the division finite, at least 0.
    momentum : float
        How much of the velocity u lasts to the next step, at least 0.
    centered : bool
        Whether to divide by an estimate of the standard deviation rather than of the root mean square.
    weight_decay : float
        The L2 penalty, at least 0.

    Returns
    -------
    RMSProp
        An `Optimizer`.

    Raises
    ------
    ArgumentError, InvalidValueError
        If a hyperparameter is not a number, or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import rmsprop
    >>> optimizer = rmsprop(0.1, alpha=0.75)
    >>> params = np.array([1.0, 2.0])
    >>> optimizer.update(params, np.array([3.0, -4.0]), optimizer.init(params))[0]
    array([0.8, 2.2])

    References
    ----------
    T. Tieleman, G. Hinton, "Lecture 6.5: RMSProp" (Coursera: Neural Networks for Machine Learning, 2012); centered: A. Graves,
    "Generating sequences with recurrent neural networks" (arXiv:1308.0850, 2013).
    """
    return RMSProp(
        number_or_schedule(learning_rate),
        number("alpha", alpha, below=1),
        number("eps", eps),
        number("momentum", momentum),
        bool(centered),
        number("weight_decay", weight_decay),
    )


class AdagradState(NamedTuple):
    """What Adagrad remembers: the sums of the squared gradients, and the number of updates (None without a schedule)."""

    total: Any
    step: Any = None


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad; see `adagrad`."""

    learning_rate: Rate = 1e-2
    eps: float = 1e-10
    start: float = 0.0
    weight_decay: float = 0.0

    def init(self, params: Any) -> AdagradState:
        leaves, tree = parameters(params, "adagrad")
        return AdagradState(unflatten(tree, [np.full_like(leaf, self.start) for leaf in leaves]), counter(self.learning_rate))

    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, AdagradState]:
        leaves, tree = parameters(params, "adagrad")
        slopes = matching(leaves, tree, gradients, "adagrad", "the gradients")
        if self.weight_decay:
            slopes = [g + self.weight_decay * p for p, g in zip(leaves, slopes, strict=True)]
        state = state_of(AdagradState, state, "adagrad")
        rate = rate_at(self.learning_rate, state.step, "adagrad")
        totals = matching(leaves, tree, state.total, "adagrad", "the sums of squares")
        totals = [s + g * g for s, g in zip(totals, slopes, strict=True)]
        moved = [p - factor(rate, p.dtype) * (g / (np.sqrt(s) + self.eps)) for p, g, s in zip(leaves, slopes, totals, strict=True)]
        return unflatten(tree, moved), AdagradState(unflatten(tree, totals), counted(self.learning_rate, state.step, "adagrad"))


def adagrad(learning_rate: Rate = 1e-2, eps: float = 1e-10, start: float = 0.0, weight_decay: float = 0.0) -> Adagrad:
    """Return Adagrad, with the formulas of `torch.optim.Adagrad`.

    For a gradient g, with weight decay first added to it (g += weight_decay * p):

        s = s + g**2
        p = p - learning_rate * g / (sqrt(s) + eps)

    Parameters
    ----------
    learning_rate : float or function
        At least 0; or a schedule, a function of the number of updates done before (see `sg.optim.schedules`). PyTorch's `lr_decay`
        is the schedule `lambda step: rate / (1 + step * lr_decay)`.
    eps : float
        Keeps the division finite, at least 0.
    start : float
        What the sums start from, at least 0 (`initial_accumulator_value`).
    weight_decay : float
        The L2 penalty, at least 0.

    Returns
    -------
    Adagrad
        An `Optimizer`.

    Raises
    ------
    ArgumentError, InvalidValueError
        If a hyperparameter is not a number, or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import adagrad
    >>> optimizer = adagrad(0.5)
    >>> params = np.array([1.0, 2.0])
    >>> optimizer.update(params, np.array([3.0, -4.0]), optimizer.init(params))[0]
    array([0.5, 2.5])

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization" (JMLR 12, 2011).
    """
    return Adagrad(number_or_schedule(learning_rate), number("eps", eps), number("start", start), number("weight_decay", weight_decay))
