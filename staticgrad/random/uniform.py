"""Numbers that are equally likely: floats of an interval, integers of a range, and choices between two."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import DTypeError
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64, Shape, is_integer
from staticgrad.ir.node import Value, constant_array, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops.arithmetic import add, multiply, subtract
from staticgrad.ops.bits import right_shift
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import equal, less, less_equal, logical_and, where
from staticgrad.ops.extrema import clip, maximum
from staticgrad.ops.random import UINT32, UINT64
from staticgrad.ops.remainders import remainder
from staticgrad.random.keys import bits_of, drawn, number, two_keys
from staticgrad.tracing.functions.arguments import shape_of
from staticgrad.tracing.lift import check_dtype_here, checked_broadcast, convert, together

INT32 = np.dtype(np.int32)

FRACTIONS: dict[np.dtype, tuple[np.dtype, int]] = {FLOAT32: (UINT32, 23), FLOAT64: (UINT64, 52)}
"""The bits drawn for a float, and how many of them count: the fractions are the multiples of 2**-23 and 2**-52."""


def float_dtype(dtype: Any, name: str) -> np.dtype:
    """Return a float dtype, or the error that names what it is not."""
    kind = check_dtype_here(dtype, "dtype=")
    if kind.kind != "f":
        raise DTypeError(at_user_line(f"{name}: dtype must be a float, not {kind}"))
    return kind


def fractions(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    """Return multiples of 2**-digits in [0, 1)."""
    wide, digits = FRACTIONS[dtype]
    drop = full(shape, 8 * wide.itemsize - digits, wide)
    whole = cast(right_shift(bits_of(key, shape, wide, name), drop), dtype)
    return multiply(whole, full(shape, 2.0**-digits, dtype))


def uniform_of(key: Value, shape: Shape, dtype: np.dtype, low: Value, high: Value, name: str) -> Value:
    """Return numbers in [low, high)."""
    u = fractions(key, shape, dtype, name)
    low, high = convert(low, dtype), convert(high, dtype)
    if _is(low, 0) and _is(high, 1):
        return u
    spread = subtract(*together([high, low], name))
    least = checked_broadcast(low, shape, f"{name}: minval")
    return maximum(least, add(multiply(u, checked_broadcast(spread, shape, f"{name}: maxval - minval")), least))


def between(key: Value, shape: Shape, dtype: np.dtype, low: float, high: float, name: str) -> Value:
    """Return numbers in [low, high)."""
    return uniform_of(key, shape, dtype, number(low, dtype), number(high, dtype), name)


def _is(x: Value, wanted: float) -> bool:
    known = constant_array(x)
    return known is not None and not known.shape and bool(known == wanted)


def uniform(key: Any, shape: Any = (), dtype: Any = FLOAT64, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Return numbers that are equally likely anywhere in [minval, maxval).

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        float64 or float32.
    minval, maxval : array_like
        The interval; arrays broadcast to `shape`. The result has derivatives by both.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> uniform(np.array([0, 7], np.uint32), 3)
    array([0.84410695, 0.04541259, 0.22498463])
    """
    extents, kind = shape_of(shape, "uniform"), float_dtype(dtype, "uniform")
    return drawn(lambda key, low, high: uniform_of(key, extents, kind, low, high, "uniform"), key, minval, maxval)


# ---- integers ------------------------------------------------------------------------------------------------------------------


def _limited(x: Value, dtype: np.dtype) -> Value:
    """Return an integer in another dtype, the nearest that it has."""
    own, other = np.iinfo(x.dtype), np.iinfo(dtype)
    low, high = max(own.min, other.min), min(own.max, other.max)
    return cast(clip(x, full(x.shape, low, x.dtype), full(x.shape, high, x.dtype)), dtype)


def _whole(x: Value, name: str) -> Value:
    if x.dtype == BOOL:
        raise DTypeError(at_user_line(f"{name} must be an integer, not {x.aval}"))
    return x if is_integer(x.dtype) else cast(x, INT64)


def _rest(x: Value, span: Value) -> Value:
    """Return x modulo span; x itself where span is 0, which stands for 2**32 or 2**64."""
    everything = equal(span, full(span.shape, 0, span.dtype))
    return where(everything, x, remainder(x, span))


def randint_of(key: Value, low: Value, high: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    """Return integers of a dtype of 32 or 64 bits: twice as many random bits as it has, modulo the length of the range."""
    ends = f"{name}: minval and maxval"
    wide = UINT64 if dtype.itemsize == 8 else UINT32
    top = full(high.shape, min(np.iinfo(dtype).max, np.iinfo(high.dtype).max), high.dtype)
    beyond, low, high = less(top, high), _limited(low, dtype), _limited(high, dtype)
    low, high, beyond = together([low, high, beyond], ends)
    one = full(low.shape, 1, wide)
    nothing = less_equal(high, low)
    span = cast(subtract(high, low), wide)
    span = where(nothing, one, add(span, cast(logical_and(beyond, less(low, high)), wide)))
    half = _rest(full(span.shape, 1 << (4 * wide.itemsize), wide), span)
    weight = _rest(multiply(half, half), span)
    low, span, weight = (checked_broadcast(v, shape, ends) for v in (low, span, weight))
    upper, lower = (bits_of(each, shape, wide, name) for each in two_keys(key, name))
    offset = _rest(add(multiply(_rest(upper, span), weight), _rest(lower, span)), span)
    return add(low, cast(offset, dtype))


def randint(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = INT64) -> Any:
    """Return integers from `minval` up to but not including `maxval`, all but equally likely.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    minval, maxval : array_like of int
        The range; arrays broadcast to `shape`. Where it is empty, the result is `minval`.
    dtype : dtype
        Any integer.

    Returns
    -------
    array
        Shape `shape`. Within a range of less than 2**32 numbers the probabilities of int64 differ by less than one part in 2**96,
        those of smaller dtypes, in a range of less than 2**16, by less than one in 2**48.

    Examples
    --------
    >>> randint(np.array([0, 7], np.uint32), 5, 1, 7)
    array([6, 4, 3, 4, 6])
    """
    extents, kind = shape_of(shape, "randint"), check_dtype_here(dtype, "dtype=")
    if not is_integer(kind):
        raise DTypeError(at_user_line(f"randint: dtype must be an integer, not {kind}"))
    work = kind if kind.itemsize > 2 else INT32

    def draw(key: Value, low: Value, high: Value) -> Value:
        low, high = _whole(low, "randint: minval"), _whole(high, "randint: maxval")
        if work != kind:
            info = np.iinfo(kind)
            low, high = (
                clip(x, full(x.shape, info.min, INT32), full(x.shape, top, INT32))
                for x, top in ((cast(low, INT32), info.max), (cast(high, INT32), info.max + 1))
            )
        return cast(randint_of(key, low, high, extents, work, "randint"), kind)

    return drawn(draw, key, minval, maxval)


# ---- choices between two -------------------------------------------------------------------------------------------------------


def bernoulli_of(key: Value, p: Value, shape: Shape | None, name: str) -> Value:
    """Return true with probability p."""
    if p.dtype.kind != "f":
        raise DTypeError(at_user_line(f"{name}: the probability must be a float, not {p.aval}"))
    wanted = p.shape if shape is None else shape
    return less(fractions(key, wanted, p.dtype, name), checked_broadcast(p, wanted, f"{name}: p"))


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Any:
    """Return true with probability `p`, otherwise false.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    p : array_like of float
        Probabilities.
    shape : int, tuple of int or None
        The shape of the result, to which `p` broadcasts; None for that of `p`.

    Returns
    -------
    array of bool

    Examples
    --------
    >>> bernoulli(np.array([0, 7], np.uint32), 0.7, 5)
    array([False,  True,  True,  True,  True])
    """
    extents = None if shape is None else shape_of(shape, "bernoulli")
    return drawn(lambda key, p: bernoulli_of(key, p, extents, "bernoulli"), key, p)


def rademacher(key: Any, shape: Any = (), dtype: Any = INT64) -> Any:
    """Return 1 or -1, equally likely.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        A signed integer or a float.

    Returns
    -------
    array
        Shape `shape`.

    Examples
    --------
    >>> rademacher(np.array([0, 7], np.uint32), 5)
    array([-1,  1,  1,  1,  1])
    """
    extents, kind = shape_of(shape, "rademacher"), check_dtype_here(dtype, "dtype=")
    if kind.kind not in "if":
        raise DTypeError(at_user_line(f"rademacher: dtype must have -1, unlike {kind}"))

    def draw(key: Value) -> Value:
        positive = bernoulli_of(key, number(0.5, FLOAT64), extents, "rademacher")
        return where(positive, full(extents, 1, kind), full(extents, -1, kind))

    return drawn(draw, key)
