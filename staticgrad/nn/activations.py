"""Activations: functions of one number each, stable for large inputs."""

from __future__ import annotations

import math
from typing import Any

from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.ops import comparison, exponential, extrema, special
from staticgrad.tracing.functions.evaluate import evaluated
from staticgrad.tracing.lift import convert
from staticgrad.tracing.protocol import may_be_taken_over

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _as_float(x: Value) -> Value:
    return x if x.dtype.kind == "f" else convert(x, FLOAT64)


@may_be_taken_over
def relu(x: Any) -> Any:
    """Return max(x, 0); NaN stays NaN, and the derivative at 0 is 0.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers stay integers.

    Returns
    -------
    array
        Shape and dtype of `x`.

    Examples
    --------
    >>> relu([-1.0, 2.0])
    array([0., 2.])
    """
    return evaluated(lambda x: extrema.relu(x if x.dtype.kind in "iuf" else _as_float(x)), x)


@may_be_taken_over
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) without overflow.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`, values from 0 to 1.

    Examples
    --------
    >>> sigmoid([-800.0, 0.0, 800.0])
    array([0. , 0.5, 1. ])
    """
    return evaluated(lambda x: exponential.sigmoid(_as_float(x)), x)


@may_be_taken_over
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)) without overflow: a smooth relu.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`, values from 0 upwards.

    Examples
    --------
    >>> softplus([-800.0, 800.0])
    array([  0., 800.])
    """
    return evaluated(lambda x: exponential.softplus(_as_float(x)), x)


@may_be_taken_over
def log_sigmoid(x: Any) -> Any:
    """Return log(1 / (1 + exp(-x))) without overflow.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> log_sigmoid([-800.0, 800.0])
    array([-800.,   -0.])
    """
    return evaluated(lambda x: -exponential.softplus(-_as_float(x)), x)


@may_be_taken_over
def silu(x: Any) -> Any:
    """Return x / (1 + exp(-x)), also called swish.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> silu([-800.0, 0.0, 800.0])
    array([ -0.,   0., 800.])
    """
    return evaluated(lambda x: (v := _as_float(x)) * exponential.sigmoid(v), x)


@may_be_taken_over
def gelu(x: Any, approximate: bool = True) -> Any:
    """Return x times the probability that a standard normal number is below x.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.
    approximate : bool
        Whether to use the usual formula with tanh, which is off by up to 5e-4; otherwise the error function.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> gelu([-1.0, 0.0, 1.0], approximate=False)
    array([-0.15865525,  0.        ,  0.84134475])
    """
    return evaluated(lambda x: _gelu_by_tanh(_as_float(x)) if approximate else _gelu(_as_float(x)), x)


def _gelu(x: Value) -> Value:
    return x * 0.5 * special.erfc(x * -math.sqrt(0.5))


def _gelu_by_tanh(x: Value) -> Value:
    """x (1 + tanh u) / 2 = x sigmoid(2 u), which does not cancel for negative x; further out than 25 the sigmoid is 0 or 1."""
    near = extrema.clip(x, full(x.shape, -25, x.dtype), full(x.shape, 25, x.dtype))
    return x * exponential.sigmoid((near + near * near * near * 0.044715) * (2 * math.sqrt(2 / math.pi)))


@may_be_taken_over
def relu6(x: Any) -> Any:
    """Return x limited to 0 and 6; the derivative at both is 0.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> relu6([-1.0, 2.0, 7.0])
    array([0., 2., 6.])
    """
    return evaluated(lambda x: _relu6(_as_float(x)), x)


def _relu6(x: Value) -> Value:
    most = full(x.shape, 6, x.dtype)
    return comparison.where(comparison.less_equal(most, x), most, extrema.relu(x))


@may_be_taken_over
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """Return x where it is positive, a small multiple of it elsewhere; the derivative at 0 is 1.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.
    negative_slope : float
        The factor of negative numbers.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> leaky_relu([-1.0, 2.0], 0.1)
    array([-0.1,  2. ])
    """
    return evaluated(lambda x: _leaky_relu(_as_float(x), negative_slope), x)


def _leaky_relu(x: Value, slope: float) -> Value:
    return comparison.where(comparison.less(x, zeros_like(x)), x * slope, x)


@may_be_taken_over
def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where it is positive, alpha (exp(x) - 1) elsewhere; the derivative at 0 is alpha.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.
    alpha : float
        Minus the limit for very negative numbers.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> elu([-800.0, 2.0])
    array([-1.,  2.])
    """
    return evaluated(lambda x: _elu(_as_float(x), alpha), x)


def _elu(x: Value, alpha: float) -> Value:
    positive = comparison.less(zeros_like(x), x)
    return comparison.where(positive, x, exponential.expm1(comparison.where(positive, zeros_like(x), x)) * alpha)


@may_be_taken_over
def selu(x: Any) -> Any:
    """Return 1.0507 elu(x, 1.6733), which keeps the mean at 0 and the variance at 1 from layer to layer.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> selu([0.0, 1.0])
    array([0.        , 1.05070099])
    """
    return evaluated(lambda x: _elu(_as_float(x), SELU_ALPHA) * SELU_SCALE, x)


@may_be_taken_over
def hard_tanh(x: Any) -> Any:
    """Return x limited to -1 and 1; the derivative at both is 1.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> hard_tanh([-2.0, 0.5, 2.0])
    array([-1. ,  0.5,  1. ])
    """
    return evaluated(lambda x: _hard_tanh(_as_float(x)), x)


def _hard_tanh(x: Value) -> Value:
    one = full(x.shape, 1, x.dtype)
    return extrema.clip(x, -one, one)
