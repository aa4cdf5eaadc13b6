"""Optimisers with a step length of its own for every parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import INT64
from staticgrad.ir.source import at_user_line
from staticgrad.optim.optimizer import Optimizer, in_dtype, matching, number, operand, parameters, state_of, zeros
from staticgrad.tracing.pytree import leaf_aval, unflatten


class AdamState(NamedTuple):
    """What Adam remembers: the number of updates, and running means of the gradients and of their squares."""

    step: Any
    mean: Any
    square: Any


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam and AdamW; see `adam` and `adamw`."""

    learning_rate: float = 1e-3
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
        step = _counter(state.step) + 1
        # The running means start at 0: dividing by 1 - b**step takes the bias out. In float64, whatever the parameters are.
        length = self.learning_rate / (1.0 - self.b1**step)
        scale = 1.0 / np.sqrt(1.0 - self.b2**step)
        means = [self.b1 * m + (1.0 - self.b1) * g for m, g in zip(means, slopes, strict=True)]
        squares = [self.b2 * v + (1.0 - self.b2) * (g * g) for v, g in zip(squares, slopes, strict=True)]
        moved = []
        for p, m, v in zip(leaves, means, squares, strict=True):
            kept = p * (1.0 - self.learning_rate * self.weight_decay) if self.weight_decay else p
            moved.append(kept - in_dtype(length, p.dtype) * m / (np.sqrt(v) * in_dtype(scale, p.dtype) + self.eps))
        return unflatten(tree, moved), AdamState(step, unflatten(tree, means), unflatten(tree, squares))


def _counter(step: Any) -> Any:
    aval = leaf_aval(step)
    if aval.shape:
        raise ShapeError(at_user_line(f"adam: the counter in the state has shape {aval.shape}; it is one number"))
    if aval.dtype != INT64:
        raise DTypeError(at_user_line(f"adam: the counter in the state has dtype {aval.dtype}; expected int64"))
    return operand(step)


def adam(learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Adam:
    """Return Adam, with the formulas of `torch.optim.Adam`.

    For a gradient g in update number t:

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)

    Parameters
    ----------
    learning_rate : float
        About the largest step of a parameter, at least 0.
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
    return Adam(number("learning_rate", learning_rate), number("b1", b1, below=1), number("b2", b2, below=1), number("eps", eps))


def adamw(learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2) -> Adam:
    """Return Adam with decoupled weight decay, with the formulas of `torch.optim.AdamW`.

    Each update first shrinks the parameters, p = p * (1 - learning_rate * weight_decay), and then does what `adam` does.

    Parameters
    ----------
    learning_rate, b1, b2, eps : float
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
