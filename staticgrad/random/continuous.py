"""Distributions of floats, each as a function of numbers that are equally likely; scaled and shifted, they have derivatives by both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.ir.aval import FLOAT64, Shape
from staticgrad.ir.node import Value, full
from staticgrad.ops.arithmetic import absolute, divide, multiply, sign, subtract
from staticgrad.ops.control import stop_gradient
from staticgrad.ops.exponential import log, log1p
from staticgrad.ops.extrema import clip
from staticgrad.ops.rounding import nextafter
from staticgrad.ops.special import erf, erfinv
from staticgrad.ops.trigonometric import tan
from staticgrad.random.keys import drawn
from staticgrad.random.uniform import between, float_dtype, fractions, uniform_of
from staticgrad.tracing.functions.arguments import shape_of
from staticgrad.tracing.lift import checked_broadcast, convert, together

Sampler = Callable[[Value, Shape, np.dtype, str], Value]


def _draw(name: str, sampler: Sampler, key: Any, shape: Any, dtype: Any) -> Any:
    extents, kind = shape_of(shape, name), float_dtype(dtype, name)
    return drawn(lambda key: sampler(key, extents, kind, name), key)


def _exponential(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    return -log1p(-fractions(key, shape, dtype, name))


def gumbel_of(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    """Return numbers of the standard Gumbel distribution."""
    return -log(-log(_above_zero(key, shape, dtype, name)))


def _above_zero(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    return between(key, shape, dtype, float(np.finfo(dtype).tiny), 1, name)


def _logistic(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    u = _above_zero(key, shape, dtype, name)
    return log(u) - log1p(-u)


def _laplace(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    u = between(key, shape, dtype, -1 + float(np.finfo(dtype).epsneg), 1, name)
    return multiply(sign(u), log1p(-absolute(u)))


def _cauchy(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    u = between(key, shape, dtype, float(np.finfo(dtype).eps), 1, name)
    return tan(multiply(full(shape, math.pi, dtype), subtract(u, full(shape, 0.5, dtype))))


def _normal(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    u = between(key, shape, dtype, float(np.nextafter(dtype.type(-1), dtype.type(0))), 1, name)
    return multiply(full(shape, math.sqrt(2), dtype), erfinv(u))


def _truncated(key: Value, lower: Value, upper: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    """Return numbers of the standard normal distribution between two bounds: what erf maps to numbers that are equally likely."""
    ends = [checked_broadcast(convert(v, dtype), shape, f"{name}: a bound") for v in (lower, upper)]
    root = full(shape, math.sqrt(2), dtype)
    low, high = (erf(divide(end, root)) for end in ends)
    x = multiply(root, erfinv(uniform_of(key, shape, dtype, low, high, name)))
    infinite = full(shape, np.inf, dtype)
    inside = (nextafter(stop_gradient(end), away) for end, away in zip(ends, (infinite, -infinite), strict=True))
    return clip(x, *inside)


def normal(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers of the standard normal distribution, with mean 0 and variance 1; times s plus m they have m and s**2.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> normal(np.array([0, 7], np.uint32), 3)
    array([ 1.01148134, -1.69106091, -0.75546629])
    """
    return _draw("normal", _normal, key, shape, dtype)


def truncated_normal(key: Any, lower: Any, upper: Any, shape: Any = None, dtype: Any = FLOAT64) -> Any:
    """Return numbers of the standard normal distribution that lie between two bounds.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    lower, upper : array_like
        The bounds, which may be infinite. The result has derivatives by both.
    shape : int, tuple of int or None
        The shape of the result, to which the bounds broadcast; None for theirs.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Numbers greater than `lower` and less than `upper`.

    Examples
    --------
    >>> truncated_normal(np.array([0, 7], np.uint32), 0.0, 1.0, 3)
    array([0.79995467, 0.0388659 , 0.19370694])
    """
    name = "truncated_normal"
    extents, kind = None if shape is None else shape_of(shape, name), float_dtype(dtype, name)

    def draw(key: Value, lower: Value, upper: Value) -> Value:
        common = together([lower, upper], f"{name}: lower and upper")[0].shape
        return _truncated(key, lower, upper, common if extents is None else extents, kind, name)

    return drawn(draw, key, lower, upper)


def exponential(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers with density exp(-x) for x >= 0; times s their mean is s.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> exponential(np.array([0, 7], np.uint32), 3)
    array([1.85858505, 0.04647606, 0.25487241])
    """
    return _draw("exponential", _exponential, key, shape, dtype)


def gumbel(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers with density exp(-x - exp(-x)): the index of the largest of logits plus these is distributed as their softmax.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> gumbel(np.array([0, 7], np.uint32), 3)
    array([ 1.77504348, -1.12880714, -0.39993197])
    """
    return _draw("gumbel", gumbel_of, key, shape, dtype)


def logistic(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers with density exp(-x) / (1 + exp(-x))**2.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> logistic(np.array([0, 7], np.uint32), 3)
    array([ 1.68910897, -3.04548995, -1.2368508 ])
    """
    return _draw("logistic", _logistic, key, shape, dtype)


def laplace(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers with density exp(-|x|) / 2.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> laplace(np.array([0, 7], np.uint32), 3)
    array([-1.16543787,  2.39881883,  0.79857603])
    """
    return _draw("laplace", _laplace, key, shape, dtype)


def cauchy(key: Any, shape: Any = (), dtype: Any = FLOAT64) -> Any:
    """Return numbers with density 1 / (pi (1 + x**2)), which has no mean.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> cauchy(np.array([0, 7], np.uint32), 3)
    array([ 1.87592538, -6.96166736, -1.17096409])
    """
    return _draw("cauchy", _cauchy, key, shape, dtype)
