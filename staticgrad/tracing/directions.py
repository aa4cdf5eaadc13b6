"""Tangents and cotangents as users give them, one for each leaf of what they belong to.

Integers and truth values have no direction to move in: None, or JAX's array of dtype float0, says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from staticgrad.errors import DTypeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import Tree, flatten, unflatten


def aligned(model: Any, found: Any) -> list[Any]:
    """Return the leaves of `found`, one for each leaf of `model`; None in place of a part of it stands for None at all its leaves.

    Raises
    ------
    ValueError
        Where the structures differ.
    """
    if found is None:
        return [None] * len(flatten(model)[0])
    if optree.tree_is_leaf(model):
        if not optree.tree_is_leaf(found):
            raise ValueError
        return [found]
    own, other = (optree.tree_flatten_one_level(tree, none_is_leaf=True) for tree in (model, found))
    if type(model) is not type(found) or own[1] != other[1] or len(own[0]) != len(other[0]):
        raise ValueError
    return [leaf for a, b in zip(own[0], other[0], strict=True) for leaf in aligned(a, b)]


def check_direction(found: Aval, aval: Aval, both: str) -> None:
    """Raise `DTypeError` unless a tangent or cotangent has the dtype of what it belongs to; `both` names the two."""
    if is_float(aval.dtype):
        if found.dtype != aval.dtype and not found.weak:
            raise DTypeError(at_user_line(f"{both}; they must have one dtype"))
    elif is_float(found.dtype):
        raise DTypeError(at_user_line(f"{both}; integers and truth values have none: pass None for it, or floats (x.astype(float))"))


def with_zeros(given: Any, tree: Tree, avals: Callable[[], Sequence[Aval]], what: str) -> Any:
    """Return what was given for leaves of a structure, with zeros for those integers and truth values that it has no direction for.

    Where the structure is another one it is returned as it is: whoever takes it says so. `what` was given, for messages.
    """
    if all(leaf is not None and not _is_float0(leaf) for leaf in optree.tree_leaves(given, none_is_leaf=True)):
        return given
    try:
        leaves = aligned(unflatten(tree, list(range(tree.num_leaves))), given)
    except ValueError:
        return given
    pairs = list(zip(leaves, avals(), strict=True))
    if any(leaf is None and is_float(aval.dtype) for leaf, aval in pairs):
        return given
    return unflatten(tree, [_with_zeros(leaf, aval, what) for leaf, aval in pairs])


def _with_zeros(leaf: Any, aval: Aval, what: str) -> Any:
    if leaf is not None and not _is_float0(leaf):
        return leaf
    if is_float(aval.dtype):
        raise DTypeError(at_user_line(f"{what} for {Aval(aval.shape, aval.dtype)} has dtype float0; where nothing changes pass zeros"))
    return np.zeros(aval.shape if leaf is None else leaf.shape, aval.dtype)


def _is_float0(leaf: Any) -> bool:
    """Return whether a leaf has the dtype that JAX gives to tangents of integers: no bytes under the name float0."""
    return getattr(getattr(leaf, "dtype", None), "names", None) == ("float0",)
