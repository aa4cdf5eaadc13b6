"""Which elements of an operand the elements of a result depend on: the steps by which sparsity patterns spread through a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from staticgrad.ir.aval import Aval, Shape, product

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Links:
    """The elements of one operand that each element of the result depends on; elements are counted in C order.

    The elements of the operand form groups, and an element of the result depends on all elements of one group, or on none. So a sum
    over rows is rows as groups; a broadcast is groups of one element, read many times; a matrix product is both. What is neither, such
    as the product with a known matrix that is mostly 0, is a relation.
    """

    groups: np.ndarray | None = None
    """The group of each element of the operand; None where each is a group by itself."""
    count: int = 0
    """How many groups there are, where `groups` says which."""
    source: np.ndarray | None = None
    """The group of each element of the result, less than 0 for none; None where element k depends on group k."""
    relation: csr_array | None = None
    """In place of groups: a pattern with a row an element of the result and a column an element of the operand."""


class Reached(NamedTuple):
    """A node on the way of patterns through a graph: what it is like, and what of the graph's inputs reaches it."""

    outputs: Sequence[Aval]
    avals: Sequence[Aval]
    """Those of the operands."""
    known: Sequence[np.ndarray | None]
    """The arrays of operands that depend on no input, None for others; each is computed when it is asked for."""
    found: Sequence[csr_array | None]
    """On which inputs of the graph each operand depends: patterns with a row an element, None for an empty one."""


EACH = Links()
"""Each element depends on the one at the same place."""


def except_where(gone: np.ndarray) -> Links:
    """Return the links of elements that depend on the one at the same place, except where `gone` says that they do not."""
    gone = gone.reshape(-1)
    return Links(source=np.where(gone, -1, np.arange(gone.size))) if gone.any() else EACH


def on_all(x: Aval, y: Aval) -> Links:
    """Return the links of a result `y` each of whose elements depends on all of the operand `x`."""
    return Links(np.zeros(x.size, np.int64), 1, np.zeros(y.size, np.int64))


def on_all_of_each(x: Aval, y: Aval, sizes: Shape, has: Sequence[bool]) -> Links:
    """Return the links of what is mapped over leading axes: each result depends on all of the operand at the same place.

    The result `y` has axes of these `sizes`, the operand those that it `has`.
    """
    alike = [size if flag else 1 for size, flag in zip(sizes, has, strict=True)]
    count = product(alike)
    if not x.size or not y.size:
        return on_all(x, y)
    places = np.broadcast_to(np.arange(count).reshape(alike), sizes).reshape(-1)
    return Links(np.repeat(np.arange(count), x.size // count), count, np.repeat(places, y.size // len(places)))


def moved(move: Callable[..., np.ndarray], avals: Sequence[Aval]) -> list[Links]:
    """Return the links of what only moves elements, from where it puts their numbers.

    Examples
    --------
    >>> import numpy as np
    >>> pair, single = moved(lambda x, y: np.concatenate([y, x[::-1]]), [Aval((2,), np.dtype(float)), Aval((1,), np.dtype(float))])
    >>> pair.source, single.source
    (array([-1,  1,  0]), array([ 0, -1, -1]))
    """
    ends = np.cumsum([aval.size for aval in avals])
    parts = [(end - aval.size, end) for aval, end in zip(avals, ends, strict=True)]
    numbers = [np.arange(*part).reshape(aval.shape) for aval, part in zip(avals, parts, strict=True)]
    found = move(*numbers).reshape(-1)
    if len(parts) == 1:
        return [Links(source=found)]
    return [Links(source=np.where((start <= found) & (found < end), found - start, -1)) for start, end in parts]


def numbers_without(shape: Shape, axes: Iterable[int]) -> tuple[np.ndarray, int]:
    """Return numbers for the elements of `shape`, one for all that differ along `axes` only, and how many numbers there are.

    Examples
    --------
    >>> numbers_without((2, 3), (1,))
    (array([[0, 0, 0],
           [1, 1, 1]]), 2)
    """
    gone = frozenset(axes)
    kept = tuple(1 if axis in gone else extent for axis, extent in enumerate(shape))
    return np.broadcast_to(np.arange(product(kept)).reshape(kept), shape), product(kept)
