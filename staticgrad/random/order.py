"""Random orders of things, and random choices among them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64, INT64, Shape, product
from staticgrad.ir.node import Value, apply, constant, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops.along import ArgSort, CumulativeSum, SearchSorted, along_last_axis, axis_last
from staticgrad.ops.arithmetic import multiply
from staticgrad.ops.exponential import log
from staticgrad.ops.extrema import minimum
from staticgrad.ops.index import Gather
from staticgrad.ops.movement import broadcast_to, reshape, slice_axis, transpose
from staticgrad.ops.random import UINT32
from staticgrad.random.continuous import gumbel_of
from staticgrad.random.keys import bits_of, drawn, two_keys
from staticgrad.random.uniform import fractions, randint_of
from staticgrad.tracing.functions.arguments import axis_of, shape_of
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.lift import convert

ROUNDS_EXPONENT = 3
"""Keys of 32 bits may be equal; with so many rounds of sorting the odds that some pair is equal in all of them are below 1 / size."""


def _shuffled(key: Value, x: Value, axis: int, name: str) -> Value:
    """Return x with each row along `axis` in an order of its own: sorted by random bits, several times."""
    order = axis_last(len(x.shape), axis)
    rounds = math.ceil(ROUNDS_EXPONENT * math.log(max(1, x.aval.size)) / math.log(2**32 - 1))
    for _ in range(rounds):
        key, once = two_keys(key, name)
        places = apply(ArgSort(len(order) - 1), transpose(bits_of(once, x.shape, UINT32, name), order))
        x = along_last_axis(transpose(x, order), places, order)
    return x


def _permuted(key: Value, x: Value, axis: int, independent: bool, name: str) -> Value:
    if independent or len(x.shape) == 1:
        return _shuffled(key, x, axis, name)
    return _taken(x, _shuffled(key, constant(np.arange(x.shape[axis])), 0, name), axis)


def _taken(x: Value, places: Value, axis: int) -> Value:
    return apply(Gather((axis,), axis), x, places)


def _population(a: Any, name: str) -> Any:
    """Return what is drawn from: an array, or the numbers below an integer."""
    if holds_tracer(a) or np.ndim(a):
        if not np.ndim(a):
            raise ArgumentError(at_user_line(f"{name}: a traced number cannot say how many there are; pass it in static_argnames"))
        return a
    if not isinstance(a, (int, np.integer)) or isinstance(a, bool):
        raise ArgumentError(at_user_line(f"{name} takes an array or an integer, not {a!r}"))
    if a < 0:
        raise InvalidValueError(at_user_line(f"{name}: a number of things must not be negative, got {a}"))
    return np.arange(a, dtype=INT64)


def permutation(key: Any, x: Any, axis: Any = 0, independent: bool = False) -> Any:
    """Return the elements of `x` along `axis` in a random order.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    x : array_like or int
        What to put in another order; an integer n stands for 0, 1, ..., n - 1.
    axis : int
        The axis along which elements change places.
    independent : bool
        Whether each row along `axis` gets an order of its own.

    Returns
    -------
    array
        Shape and dtype of `x`.

    Examples
    --------
    >>> permutation(np.array([0, 7], np.uint32), 5)
    array([4, 2, 3, 0, 1])
    """
    population = _population(x, "permutation")

    def draw(key: Value, x: Value) -> Value:
        return _permuted(key, x, axis_of(axis, len(x.shape), "permutation"), bool(independent), "permutation")

    return drawn(draw, key, population)


def _choice(key: Value, a: Value, p: Value | None, shape: Shape, replace: bool, axis: int) -> Value:
    count, wanted = product(shape), a.shape[axis]
    if not wanted and count:
        raise InvalidValueError(at_user_line("choice: there is nothing to choose from"))
    if not replace and count > wanted:
        raise InvalidValueError(at_user_line(f"choice: {count} different ones out of {wanted} cannot be had; pass replace=True"))
    if p is not None and p.shape != (wanted,):
        raise ShapeError(at_user_line(f"choice: p must have shape ({wanted},), one probability for each along the axis, not {p.aval}"))
    if p is None and not replace:
        return _parted(slice_axis(_permuted(key, a, axis, False, "choice"), axis, 0, count), shape, axis)
    if not count:
        return full((*a.shape[:axis], *shape, *a.shape[axis + 1 :]), 0, a.dtype)
    if p is None:
        low, high = (constant(np.int64(end)) for end in (0, wanted))
        places = randint_of(key, low, high, shape, INT64, "choice")
    elif replace:
        total = apply(CumulativeSum(0), p)
        last = broadcast_to(reshape(slice_axis(total, 0, wanted - 1, wanted), ()), shape)
        found = apply(SearchSorted("left"), total, multiply(last, 1 - fractions(key, shape, p.dtype, "choice")))
        places = minimum(found, full(shape, wanted - 1, INT64))
    else:
        noise = gumbel_of(key, (wanted,), p.dtype, "choice") + log(p)
        places = reshape(slice_axis(apply(ArgSort(0), -noise), 0, 0, count), shape)
    return _taken(a, places, axis)


def _parted(x: Value, shape: Shape, axis: int) -> Value:
    return reshape(x, (*x.shape[:axis], *shape, *x.shape[axis + 1 :]))


def choice(key: Any, a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: Any = 0) -> Any:
    """Return random elements of `a`.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    a : array_like or int
        What to choose from, along `axis`; an integer n stands for 0, 1, ..., n - 1.
    shape : int or tuple of int
        How many.
    replace : bool
        Whether an element can be chosen more than once.
    p : array_like of float, optional
        The probability of each; all are equally likely by default.
    axis : int
        The axis along which `a` is a list of things.

    Returns
    -------
    array
        `shape` in place of the axis of `a`.

    References
    ----------
    W. Kool, H. van Hoof, M. Welling, "Stochastic beams and where to find them" (ICML, 2019): the largest of log p plus Gumbel noise
    are a choice without replacement.

    Examples
    --------
    >>> choice(np.array([0, 7], np.uint32), np.array([10, 20, 30]), 4)
    array([30, 10, 30, 10])
    """
    extents, population = shape_of(shape, "choice"), _population(a, "choice")

    def draw(key: Value, a: Value, *p: Value) -> Value:
        chances = [v if v.dtype.kind == "f" else convert(v, FLOAT64) for v in p]
        return _choice(key, a, chances[0] if p else None, extents, bool(replace), axis_of(axis, len(a.shape), "choice"))

    return drawn(draw, key, population, *(() if p is None else (p,)))
