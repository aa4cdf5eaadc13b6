"""What every optimiser shares: the two functions, and the checks of what users pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import is_float
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import Tree, flatten, leaf_aval, unflatten
from staticgrad.tracing.tracer import Tracer


@dataclass(frozen=True)
class Optimizer:
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
        raise NotImplementedError

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
        raise NotImplementedError


# ---- hyperparameters


def number(name: str, value: Any, *, below: float = math.inf) -> float:
    """Return a hyperparameter as a float: finite, at least 0 and less than `below`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(at_user_line(f"{name}={value!r}: expected a number, not {type(value).__name__}"))
    found = float(value)
    if not math.isfinite(found) or not 0 <= found < below:
        limit = f" and less than {below:g}" if below < math.inf else ""
        raise InvalidValueError(at_user_line(f"{name}={value!r}: expected a number of at least 0{limit}"))
    return found


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
