"""The functions of `scipy.special` that are no universal functions."""

from __future__ import annotations

from typing import Any

from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.source import at_user_line
from staticgrad.ops import special
from staticgrad.tracing.functions import norms
from staticgrad.tracing.functions.arguments import operand, whole_number
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.functions.special import nan_where_negative, signed_logsumexp, weighted_logsumexp
from staticgrad.tracing.lift import convert
from staticgrad.tracing.protocol import may_be_taken_over
from staticgrad.tracing.tracer import tracer_of


@may_be_taken_over
def logsumexp(a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False) -> Any:
    """Return log(sum(b * exp(a))) along `axis`, without overflow.

    Its derivative is the softmax; where all entries are -inf the result is -inf and the derivative 0.

    Parameters
    ----------
    a : array_like
        Real numbers of any shape.
    axis : int, tuple of int or None
        The axes to sum over; None for all.
    b : array_like, optional
        Weights of a shape that broadcasts with that of `a`; they may be negative.
    keepdims : bool
        Whether the summed axes stay, with length 1.
    return_sign : bool
        Whether to return the logarithm of the absolute value and the sign, as a pair.

    Returns
    -------
    array or tuple of two arrays
        Shape of `a` without `axis`; NaN where the sum is negative and no sign is asked for.

    Examples
    --------
    >>> float(logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    """
    if not holds_tracer([a, b]):
        import scipy.special

        return scipy.special.logsumexp(a, axis=axis, b=b, keepdims=keepdims, return_sign=return_sign)
    if b is not None:
        result, sign = weighted_logsumexp(operand(a), operand(b), axis, keepdims)
    elif return_sign:
        result, sign = signed_logsumexp(operand(a), axis, keepdims)
    else:
        return tracer_of(norms.logsumexp_of(operand(a), axis, keepdims))
    if return_sign:
        return tracer_of(result), tracer_of(sign)
    return tracer_of(nan_where_negative(result, sign))


@may_be_taken_over
def softmax(x: Any, axis: Any = None) -> Any:
    """Return exp(x) divided by its sum along `axis`, without overflow.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    axis : int, tuple of int or None
        The axes along which the results add up to 1; None for all, which is SciPy's default (that of `sg.nn.softmax` is the last).

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> softmax([800.0, 800.0])
    array([0.5, 0.5])
    """
    if holds_tracer(x):
        return tracer_of(norms.softmax_of(operand(x), axis))
    import scipy.special

    return scipy.special.softmax(x, axis=axis)


@may_be_taken_over
def log_softmax(x: Any, axis: Any = None) -> Any:
    """Return the logarithm of `softmax(x, axis)`, accurate where the softmax rounds to 0 or 1.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    axis : int, tuple of int or None
        The axes along which the softmax adds up to 1; None for all, which is SciPy's default.

    Returns
    -------
    array
        Shape of `x`.

    Examples
    --------
    >>> log_softmax([0.0, -800.0])
    array([   0., -800.])
    """
    if holds_tracer(x):
        return tracer_of(norms.log_softmax_of(operand(x), axis))
    import scipy.special

    return scipy.special.log_softmax(x, axis=axis)


@may_be_taken_over
def polygamma(n: Any, x: Any) -> Any:
    """Return the n-th derivative of `digamma`.

    Parameters
    ----------
    n : int
        The order, from 0 on; on traced arrays one number that is known at tracing.
    x : array_like
        Real numbers of any shape.

    Returns
    -------
    array
        Shape of `x`.

    Raises
    ------
    InvalidValueError
        A negative order on a traced array.

    Examples
    --------
    >>> round(float(polygamma(1, 1.0)), 6)
    1.644934
    """
    if not holds_tracer([n, x]):
        import scipy.special

        return scipy.special.polygamma(n, x)
    order = whole_number(n, "polygamma: n")
    if order < 0:
        raise InvalidValueError(at_user_line(f"polygamma: the order must not be negative, got {order}"))
    value = operand(x)
    return tracer_of(special.polygamma(value if value.dtype.kind == "f" else convert(value, FLOAT64), order))
