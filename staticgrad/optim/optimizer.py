"""What every optimiser shares: the two functions, and the checks of what users pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from staticgrad.errors import ArgumentError, DTypeError, ShapeError
from staticgrad.ir.aval import FLOAT64, INT64, is_float
from staticgrad.ir.options import number
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import Tree, flatten, leaf_aval, unflatten
from staticgrad.tracing.tracer import Tracer

Rate = float | Callable[[Any], Any]
"""A learning rate: a number, or a schedule, a function of the number of updates done before."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """An update rule with its hyperparameters. It holds no parameters: what it has to remember is a state that users pass along.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import sgd
    >>> optimizer = sgd(0.1)
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> state = optimizer.init(params)
    >>> params, state = optimizer.update(params, {"w": np.array([1.0, -1.0])}, state)
    >>> params
    {'w': array([0.9, 2.1])}
    """

    @abstractmethod
    def init(self, params: Any) -> Any:
        """Return the state before the first update.

        Parameters
        ----------
        params
            A pytree of float arrays.

        Raises
        ------
        DTypeError
            If a leaf does not hold floats.
        """

    @abstractmethod
    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        """Return the parameters and the state after one step.

        Parameters
        ----------
        params
            A pytree of float arrays; every leaf keeps its dtype.
        gradients
            The derivatives of the loss, with the structure and the shapes of `params`.
        state
            What `init` or the previous `update` returned.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If the gradients or the state do not fit the parameters.
        """

    @property
    def schedule(self) -> Callable[[Any], Any] | None:
        """The learning rate as a function of the number of updates done before; None where it is one number."""
        rate: Rate | None = getattr(self, "learning_rate", None)
        return rate if callable(rate) else None

    def rate(self, state: Any) -> Any:
        """Return the learning rate of the next update.

        Parameters
        ----------
        state
            What `init` or the previous `update` returned.
        """
        word = type(self).__name__.lower()
        return rate_at(self.learning_rate, state.step, word)  # type: ignore[attr-defined]

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The functions that users gave: what they read from outside may change, and then the update does."""
        return () if self.schedule is None else (self.schedule,)


# ---- learning rates


def number_or_schedule(value: Any) -> Rate:
    """Return a learning rate, which is a number of at least 0 or a schedule."""
    return value if callable(value) else number("learning_rate", value)


def counter(rate: Rate) -> Any:
    """Return the number of updates as it stands in a new state; None where the learning rate does not ask for it."""
    return np.zeros((), INT64) if callable(rate) else None


def counted(rate: Rate, step: Any, word: str) -> Any:
    """Return the number of updates done before, as it stands in a state, plus 1; None where the learning rate does not ask for it."""
    return checked_counter(step, word) + 1 if callable(rate) else None


def checked_counter(step: Any, word: str) -> Any:
    """Return the number of updates in a state, which must be an int64."""
    if step is None:
        raise ArgumentError(at_user_line(f"{word}: the state counts no updates; a schedule needs one from this optimizer's init"))
    aval = leaf_aval(step)
    if aval.shape:
        raise ShapeError(at_user_line(f"{word}: the counter in the state has shape {aval.shape}; it is one number"))
    if aval.dtype != INT64:
        raise DTypeError(at_user_line(f"{word}: the counter in the state has dtype {aval.dtype}; expected int64"))
    return operand(step)


def rate_at(rate: Rate, done: Any, word: str) -> Any:
    """Return the learning rate of the update that follows `done` others: a float, or of a schedule one float64."""
    if not callable(rate):
        return rate
    found = rate(checked_counter(done, word))
    name = getattr(rate, "__name__", repr(rate))
    if isinstance(found, bool) or not isinstance(found, (Tracer, np.ndarray, np.generic, int, float)):
        raise ArgumentError(at_user_line(f"{word}: the schedule {name} returned {type(found).__name__}; it must return one number"))
    aval = leaf_aval(found)
    if aval.shape:
        raise ShapeError(at_user_line(f"{word}: the schedule {name} returned shape {aval.shape}; it must return one number"))
    if aval.dtype.kind not in "iuf":
        raise DTypeError(at_user_line(f"{word}: the schedule {name} returned {aval.dtype}; it must return a number"))
    return in_dtype(operand(found), FLOAT64)


def factor(rate: Any, dtype: np.dtype) -> Any:
    """Return a learning rate as a factor of arrays in `dtype`, which it does not widen."""
    return rate if type(rate) is float else in_dtype(rate, dtype)  # np.float64 is a float, too, but not weak


# ---- parameters, gradients, states


def parameters(params: Any, word: str) -> tuple[list[Any], Tree]:
    """Return the leaves of `params`, all of floats, and their structure."""
    leaves, tree = flatten(params)
    for path, leaf in zip(optree.treespec_paths(tree), leaves, strict=True):
        dtype = leaf_aval(leaf).dtype
        if not is_float(dtype):
            hint = "parameters are floats (x.astype(float)), all else is data"
            raise DTypeError(at_user_line(f"{word}: the parameter {label(path)} has dtype {dtype}; {hint}"))
    return [operand(leaf) for leaf in leaves], tree


def matching(params: list[Any], tree: Tree, others: Any, word: str, what: str) -> list[Any]:
    """Return the leaves of `others`, which must be like the parameters, in the parameters' dtypes."""
    leaves, found = flatten(others)
    if found != tree:
        raise ArgumentError(at_user_line(f"{word}: the parameters have structure {tree}, {what} {found}"))
    for path, parameter, leaf in zip(optree.treespec_paths(tree), params, leaves, strict=True):
        aval = leaf_aval(leaf)
        if aval.shape != parameter.shape:
            raise ShapeError(at_user_line(f"{word}: the parameter {label(path)} has shape {parameter.shape}, {what} {aval.shape}"))
        if not is_float(aval.dtype) and not aval.weak:
            raise DTypeError(at_user_line(f"{word}: of {what}, {label(path)} has dtype {aval.dtype}; expected {parameter.dtype}"))
    return [in_dtype(operand(leaf), parameter.dtype) for parameter, leaf in zip(params, leaves, strict=True)]


def state_of(kind: type, state: Any, word: str) -> Any:
    """Return a state, which must have come from the same kind of optimiser."""
    if not isinstance(state, kind):
        raise ArgumentError(at_user_line(f"{word}: the state is a {type(state).__name__}, not what {word}(...).init(params) returns"))
    return state


def zeros(leaves: list[Any], tree: Tree) -> Any:
    """Return zeros like the parameters."""
    return unflatten(tree, [np.zeros_like(leaf) for leaf in leaves])


def operand(leaf: Any) -> Any:
    """Return a leaf as something with shape, dtype and arithmetic."""
    return leaf if isinstance(leaf, Tracer) else np.asarray(leaf)


def in_dtype(x: Any, dtype: np.dtype) -> Any:
    """Return x in `dtype`; itself if it has it."""
    return x if x.dtype == dtype else x.astype(dtype)


def label(path: tuple[Any, ...]) -> str:
    """Return how a leaf is written: ("layers", 0) -> ["layers"][0]."""
    return "".join(f"[{step!r}]" for step in path) or "(the only one)"
