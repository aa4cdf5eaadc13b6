"""Draws among classes."""

from __future__ import annotations

from typing import Any

from staticgrad.errors import InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64, Shape
from staticgrad.ir.node import Value, apply
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import broadcast_to
from staticgrad.ops.reduce import ArgMax
from staticgrad.random.continuous import gumbel_of
from staticgrad.random.keys import drawn
from staticgrad.tracing.functions.arguments import axis_of, shape_of
from staticgrad.tracing.lift import convert


def _categorical(key: Value, logits: Value, axis: Any, shape: Shape | None) -> Value:
    x = logits if logits.dtype.kind == "f" else convert(logits, FLOAT64)
    place = axis_of(axis, len(x.shape), "categorical")
    if not x.shape[place]:
        raise InvalidValueError(at_user_line(f"categorical: {logits.aval} has no classes along axis {place}"))
    single = x.aval.without((place,)).shape
    wanted = single if shape is None else shape
    ahead = len(wanted) - len(single)
    if wanted[ahead:] != single or ahead < 0:
        raise ShapeError(at_user_line(f"categorical: shape {wanted} must end with {single}, that of the logits without their classes"))
    drawn_shape = (*wanted[:ahead], *x.shape)
    noise = gumbel_of(key, drawn_shape, x.dtype, "categorical")
    return apply(ArgMax((ahead + place,)), noise + broadcast_to(x, drawn_shape))


def categorical(key: Any, logits: Any, axis: Any = -1, shape: Any = None) -> Any:
    """Return classes, each with the probability that the softmax of the logits gives it.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    logits : array_like
        Logarithms of probabilities, up to a constant for each distribution; -inf for what is never drawn.
    axis : int
        The axis of the classes.
    shape : int, tuple of int or None
        The shape of the result. It ends with that of the logits without `axis`; None for just that.

    Returns
    -------
    array of int

    References
    ----------
    C. J. Maddison, D. Tarlow, T. Minka, "A* sampling" (NeurIPS, 2014): the largest of logits plus Gumbel noise.

    Examples
    --------
    >>> import numpy as np
    >>> categorical(np.array([0, 7], np.uint32), np.log([0.2, 0.3, 0.5]), shape=8)
    array([0, 2, 2, 2, 0, 2, 2, 1])
    """
    extents = None if shape is None else shape_of(shape, "categorical")
    return drawn(lambda key, logits: _categorical(key, logits, axis, extents), key, logits)
