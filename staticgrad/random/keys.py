"""Keys, and the streams of random bits that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import DTypeError, OverflowedError, ShapeError
from staticgrad.ir.aval import Shape
from staticgrad.ir.node import Value, apply, constant, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops.bits import right_shift
from staticgrad.ops.casts import cast
from staticgrad.ops.movement import broadcast_to, concatenate, reshape, slice_axis
from staticgrad.ops.random import UINT32, UINT64, RandomBits
from staticgrad.tracing.context import tracing
from staticgrad.tracing.functions.arguments import as_tracer, shape_of
from staticgrad.tracing.functions.evaluate import evaluated
from staticgrad.tracing.lift import check_dtype_here


def drawn(function: Callable[..., Value], key: Any, *operands: Any) -> Any:
    """Return `function` of a key and operands; in a trace always a traced array, so that the numbers are drawn at each call."""
    return evaluated(function, as_tracer(key) if tracing() else key, *operands)


def words_of(key: Value, name: str) -> tuple[Value, Value]:
    """Return the two words of a key, or the error that names what is no key."""
    if key.dtype != UINT32:
        raise DTypeError(at_user_line(f"{name}: a key is a uint32 array of shape (2,), such as sg.random.key(0), not {key.aval}"))
    if key.shape != (2,):
        several = "; of several keys pick one, keys[0], or use sg.vmap" if len(key.shape) > 1 and key.shape[-1] == 2 else ""
        raise ShapeError(at_user_line(f"{name}: a key has shape (2,), not {key.aval}{several}"))
    first, second = (reshape(slice_axis(key, 0, k, k + 1), ()) for k in (0, 1))
    return first, second


def bits_of(key: Value, shape: Shape, dtype: np.dtype, name: str) -> Value:
    """Return the stream of a key as an array of unsigned integers."""
    first, second = (broadcast_to(word, shape) for word in words_of(key, name))
    wide = dtype if dtype == UINT64 else UINT32
    return cast(apply(RandomBits(wide, len(shape)), first, second, full(shape, 0, UINT64)), dtype)


def split_of(key: Value, shape: Shape, name: str) -> Value:
    """Return as many keys as `shape` has elements: their words are those of the stream."""
    return _pairs(bits_of(key, shape, UINT64, name))


def two_keys(key: Value, name: str) -> tuple[Value, Value]:
    """Return two new keys."""
    keys = split_of(key, (2,), name)
    first, second = (reshape(slice_axis(keys, 0, k, k + 1), (2,)) for k in (0, 1))
    return first, second


def _pairs(x: Value) -> Value:
    """Return the high and the low words of uint64 numbers along a new last axis."""
    words = right_shift(x, full(x.shape, 32, UINT64)), x
    return concatenate([reshape(cast(word, UINT32), (*x.shape, 1)) for word in words], len(x.shape))


def _key_of(seed: Value) -> Value:
    if seed.dtype.kind not in "iu":
        raise DTypeError(at_user_line(f"key: a seed is an integer, not {seed.aval}"))
    if seed.shape:
        raise ShapeError(at_user_line(f"key: a seed is one integer, not {seed.aval}; for several use sg.vmap"))
    return _pairs(cast(seed if seed.dtype.itemsize == 8 else cast(seed, UINT32), UINT64))


def _folded(key: Value, data: Value) -> Value:
    if data.dtype.kind not in "iu":
        raise DTypeError(at_user_line(f"fold_in: data is an integer, not {data.aval}"))
    if data.shape:
        raise ShapeError(at_user_line(f"fold_in: data is one integer, not {data.aval}; for several use sg.vmap"))
    place = cast(cast(data, UINT32), UINT64)
    return _pairs(apply(RandomBits(UINT64, 0), *words_of(key, "fold_in"), place))


def key(seed: Any) -> Any:
    """Return the key of a seed: what every function of this module draws its numbers from.

    Parameters
    ----------
    seed : int
        From -2**63 to 2**64 - 1. Equal seeds give equal keys.

    Returns
    -------
    array
        The key: uint32, shape (2,).

    Examples
    --------
    >>> key(7)
    array([0, 7], dtype=uint32)
    """
    return drawn(_key_of, seed)


PRNGKey = key


def split(key: Any, num: Any = 2) -> Any:
    """Return new keys, whose streams have nothing in common with each other or with that of `key`.

    Use a key once: either draw from it or split it.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    num : int or tuple of int
        How many keys.

    Returns
    -------
    array
        The keys along the first axis, or axes: uint32, shape (num, 2).

    Examples
    --------
    >>> split(np.array([0, 7], np.uint32))
    array([[3625411723, 1954958720],
           [ 195045567, 4062205631]], dtype=uint32)
    """
    shape = shape_of(num, "split")
    return drawn(lambda key: split_of(key, shape, "split"), key)


def fold_in(key: Any, data: Any) -> Any:
    """Return the key that belongs to a number, such as that of a step: `split(key, n)[data]` for any n > data.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    data : int
        A number below 2**32; of larger integer arrays the low 32 bits count.

    Returns
    -------
    array
        A key: uint32, shape (2,).

    Examples
    --------
    >>> fold_in(np.array([0, 7], np.uint32), 1)
    array([ 195045567, 4062205631], dtype=uint32)
    """
    if isinstance(data, int) and not 0 <= data < 2**32:
        raise OverflowedError(at_user_line(f"fold_in: data must lie between 0 and 2**32 - 1, not {data}"))
    return drawn(_folded, key, data)


def bits(key: Any, shape: Any = (), dtype: Any = UINT64) -> Any:
    """Return random bits as unsigned integers.

    Parameters
    ----------
    key : array
        A key: uint32, shape (2,).
    shape : int or tuple of int
        The shape of the result.
    dtype : dtype
        Any unsigned integer.

    Returns
    -------
    array
        All integers of the dtype are equally likely.

    Examples
    --------
    >>> bits(np.array([0, 7], np.uint32), 3, np.uint8)
    array([ 11,   0, 170], dtype=uint8)
    """
    extents, kind = shape_of(shape, "bits"), check_dtype_here(dtype, "dtype=")
    if kind.kind != "u":
        raise DTypeError(at_user_line(f"bits: dtype must be an unsigned integer, not {kind}"))
    return drawn(lambda key: bits_of(key, extents, kind, "bits"), key)


def number(x: float, dtype: np.dtype) -> Value:
    """Return a constant."""
    return constant(np.asarray(x).astype(dtype))
