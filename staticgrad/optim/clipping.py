"""Changes of gradients before the update: clipping, and the chain that puts them in front of an optimiser.

A change is a function of the gradients, gradients --f--> gradients, without a state of its own. So it can also be called by itself in
a loop of one's own, one's own function can stand beside it, and no optimiser needs arguments for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError
from staticgrad.ir.aval import FLOAT64, is_float
from staticgrad.ir.options import number
from staticgrad.ir.source import at_user_line
from staticgrad.optim.optimizer import Optimizer, in_dtype, label, operand
from staticgrad.tracing.pytree import Tree, flatten, leaf_aval, unflatten


@dataclass(frozen=True)
class ClipByGlobalNorm:
    """Gradients --> gradients; see `clip_by_global_norm`."""

    max_norm: float

    def __call__(self, gradients: Any) -> Any:
        leaves, tree = _slopes(gradients, "clip_by_global_norm")
        squares = [np.sum(np.square(in_dtype(leaf, FLOAT64))) for leaf in leaves]
        # Exactly 1 where the norm is small enough.
        scale = self.max_norm / np.maximum(np.sqrt(sum(squares)), self.max_norm)
        return unflatten(tree, [leaf * in_dtype(scale, leaf.dtype) for leaf in leaves])


@dataclass(frozen=True)
class ClipByValue:
    """Gradients --> gradients; see `clip_by_value`."""

    limit: float

    def __call__(self, gradients: Any) -> Any:
        leaves, tree = _slopes(gradients, "clip_by_value")
        return unflatten(tree, [np.clip(leaf, -self.limit, self.limit) for leaf in leaves])


@dataclass(frozen=True)
class Chain(Optimizer):
    """An optimiser of changed gradients; see `chain`."""

    changes: tuple[Callable[[Any], Any], ...]
    optimizer: Any

    def init(self, params: Any) -> Any:
        return self.optimizer.init(params)

    def update(self, params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        for change in self.changes:
            gradients = change(gradients)
        moved, remembered = self.optimizer.update(params, gradients, state)
        return moved, remembered

    @property
    def schedule(self) -> Callable[[Any], Any] | None:
        return getattr(self.optimizer, "schedule", None)

    def rate(self, state: Any) -> Any:
        return self.optimizer.rate(state)

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return (*self.changes, *getattr(self.optimizer, "functions", (self.optimizer.update,)))


def _slopes(gradients: Any, word: str) -> tuple[list[Any], Tree]:
    leaves, tree = flatten(gradients)
    for path, leaf in zip(tree.paths(), leaves, strict=True):
        if not is_float(leaf_aval(leaf).dtype):
            raise DTypeError(at_user_line(f"{word}: the gradient {label(path)} has dtype {leaf_aval(leaf).dtype}; gradients are floats"))
    return [operand(leaf) for leaf in leaves], tree


def clip_by_global_norm(max_norm: float) -> ClipByGlobalNorm:
    """Return a function that shortens gradients whose norm exceeds `max_norm` to that norm, and leaves all others as they are.

    The norm is that of all gradients as one vector, summed in float64; their direction stays:

        g = g * max_norm / max(norm, max_norm)

    Parameters
    ----------
    max_norm : float
        Greater than 0.

    Returns
    -------
    ClipByGlobalNorm
        A function of a pytree of float arrays. Put it in front of an optimiser with `chain`, or call it.

    Raises
    ------
    ArgumentError, InvalidValueError
        If `max_norm` is not a number, or not greater than 0.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import clip_by_global_norm
    >>> clip_by_global_norm(1.0)({"w": np.array([3.0]), "b": np.array([4.0])})
    {'w': array([0.6]), 'b': array([0.8])}

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks" (ICML, 2013).
    """
    return ClipByGlobalNorm(_positive("max_norm", max_norm))


def clip_by_value(limit: float) -> ClipByValue:
    """Return a function that clips every element of the gradients to [-limit, limit].

    Parameters
    ----------
    limit : float
        Greater than 0.

    Returns
    -------
    ClipByValue
        A function of a pytree of float arrays. Put it in front of an optimiser with `chain`, or call it.

    Raises
    ------
    ArgumentError, InvalidValueError
        If `limit` is not a number, or not greater than 0.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import clip_by_value
    >>> clip_by_value(0.5)(np.array([-3.0, 0.25, 1.0]))
    array([-0.5 ,  0.25,  0.5 ])
    """
    return ClipByValue(_positive("limit", limit))


def chain(*parts: Any) -> Chain:
    """Return an optimiser that first changes the gradients by each function in turn.

    Parameters
    ----------
    *parts
        Functions `gradients -> gradients`, such as `clip_by_global_norm(1.0)` or one's own, and last the optimiser.

    Returns
    -------
    Chain
        An `Optimizer` with the state of the last part.

    Raises
    ------
    ArgumentError
        If a part is not a function, or the last one is no optimiser.

    Examples
    --------
    >>> import numpy as np
    >>> from staticgrad.optim import chain, clip_by_global_norm, sgd
    >>> optimizer = chain(clip_by_global_norm(1.0), sgd(0.5))
    >>> params = np.array([1.0, 2.0])
    >>> optimizer.update(params, np.array([3.0, -4.0]), optimizer.init(params))[0]
    array([0.7, 2.4])
    """
    if not parts or not all(callable(getattr(parts[-1], name, None)) for name in ("init", "update")):
        found = f"{parts[-1]!r}" if parts else "nothing"
        raise ArgumentError(at_user_line(f"chain: the last part is {found}, no optimizer; for example chain(clip_by_value(1.0), adam())"))
    for part in parts[:-1]:
        if not callable(part):
            raise ArgumentError(at_user_line(f"chain: {part!r} stands before the optimizer and is not a function of the gradients"))
    return Chain(tuple(parts[:-1]), parts[-1])


def _positive(name: str, value: Any) -> float:
    found = number(name, value)
    if not found:
        raise InvalidValueError(at_user_line(f"{name}={value!r}: expected a number greater than 0"))
    return found
