"""Functions of neural networks: stable for large inputs, on traced arrays and on NumPy arrays alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.nn.activations import elu, gelu, hard_tanh, leaky_relu, log_sigmoid, relu, relu6, selu, sigmoid, silu, softplus
from staticgrad.ops import arithmetic, comparison
from staticgrad.ops.reduce import sum_
from staticgrad.tracing.functions import creation, norms
from staticgrad.tracing.functions.arguments import whole_number
from staticgrad.tracing.functions.evaluate import evaluated
from staticgrad.tracing.lift import check_dtype_here, convert, promoted
from staticgrad.tracing.protocol import may_be_taken_over

__all__ = [
    "elu", "gelu", "hard_tanh", "leaky_relu", "log_sigmoid", "log_softmax", "logsumexp", "one_hot", "relu", "relu6", "selu", "sigmoid",
    "silu", "softmax", "softmax_cross_entropy", "softplus",
]  # fmt: skip


@may_be_taken_over
def softmax(x: Any, axis: Any = -1) -> Any:
    """Return exp(x) divided by its sum along `axis`, without overflow.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64. Entries may be -inf, which gives 0, as long as one of them is not.
    axis : int, tuple of int or None
        The axes along which the results add up to 1; None for all.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> softmax(np.array([800.0, 800.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return evaluated(lambda x: norms.softmax_of(x, axis), x)


@may_be_taken_over
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """Return the logarithm of `softmax(x)`, accurate where the softmax rounds to 0 or 1.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.
    axis : int, tuple of int or None
        The axes along which the softmax adds up to 1; None for all.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> log_softmax(np.array([0.0, -800.0]))
    array([   0., -800.])
    """
    return evaluated(lambda x: norms.log_softmax_of(x, axis), x)


@may_be_taken_over
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) along `axis`, without overflow.

    Its derivative is the softmax; where all entries are -inf the result is -inf and the derivative 0.

    Parameters
    ----------
    x : array_like
        Numbers of any shape; integers become float64.
    axis : int, tuple of int or None
        The axes to sum over; None for all.
    keepdims : bool
        Whether the summed axes stay, with length 1.

    Returns
    -------
    array
        Shape of `x` without `axis`.

    Examples
    --------
    >>> float(logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    return evaluated(lambda x: norms.logsumexp_of(x, axis, keepdims), x)


@may_be_taken_over
def one_hot(labels: Any, n: int, dtype: Any = FLOAT64) -> Any:
    """Return 1 where a new last axis stands at the label, 0 elsewhere.

    Parameters
    ----------
    labels : array_like of int
        Labels from 0 to n - 1; any other gives zeros.
    n : int
        The length of the new axis.
    dtype : dtype
        That of the result.

    Returns
    -------
    array
        Shape of `labels` with `n` behind it.

    Examples
    --------
    >>> one_hot(np.array([0, 2]), 3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    count, kind = whole_number(n, "one_hot: n"), check_dtype_here(dtype, "dtype=")
    if count < 0:
        raise InvalidValueError(at_user_line(f"one_hot: n must not be negative, got {count}"))
    return evaluated(lambda labels: creation.one_hot_of(_integers(labels, "one_hot"), count, kind), labels)


@may_be_taken_over
def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """Return the cross entropy between labels and `softmax(logits)`, one number an example.

    Parameters
    ----------
    logits : array_like
        Scores of any size, shape (..., classes).
    labels : array_like
        Either the class of each example, integers of shape (...); one outside of 0 to classes - 1 gives NaN. Or a
        distribution for each example, floats of shape (..., classes).

    Returns
    -------
    array
        Shape (...): -log(softmax(logits))[label]. Its mean is the usual loss.

    Raises
    ------
    ShapeError
        Labels whose shape fits neither form.

    Examples
    --------
    >>> softmax_cross_entropy(np.array([[0.0, 0.0], [0.0, -800.0]]), np.array([1, 1]))
    array([6.93147181e-01, 8.00000000e+02])
    """
    return evaluated(_cross_entropy, logits, labels)


def _integers(labels: Value, name: str) -> Value:
    if labels.dtype.kind not in "iu":
        raise ArgumentError(at_user_line(f"{name}: labels must be integers, not {labels.aval}"))
    return labels


def _cross_entropy(logits: Value, labels: Value) -> Value:
    if not logits.shape:
        raise ShapeError(at_user_line(f"softmax_cross_entropy: logits need an axis of classes, got {logits.aval}"))
    likelihood = norms.log_softmax_of(logits)
    zero = full(logits.shape, 0, likelihood.dtype)
    last = (len(logits.shape) - 1,)
    if labels.shape == logits.shape and labels.dtype.kind == "f":
        likelihood, labels = promoted(likelihood, labels)
        zero = convert(zero, labels.dtype)
        return arithmetic.negative(
            sum_(comparison.where(comparison.equal(labels, zero), zero, arithmetic.multiply(labels, likelihood)), last)
        )
    if labels.shape != logits.shape[:-1]:
        raise ShapeError(
            at_user_line(
                f"softmax_cross_entropy: labels {labels.aval} fit logits {logits.aval} neither as classes, integers of shape "
                f"{logits.shape[:-1]}, nor as distributions, floats of shape {logits.shape}"
            )
        )
    classes = logits.shape[-1]
    chosen = creation.one_hot_of(_integers(labels, "softmax_cross_entropy"), classes, np.dtype(bool))
    loss = arithmetic.negative(sum_(comparison.where(chosen, likelihood, zero), last))
    wide = convert(labels, np.dtype(np.int64))
    valid = comparison.logical_and(
        comparison.less_equal(full(wide.shape, 0, wide.dtype), wide), comparison.less(wide, full(wide.shape, classes, wide.dtype))
    )
    return comparison.where(valid, loss, full(loss.shape, np.nan, loss.dtype))
