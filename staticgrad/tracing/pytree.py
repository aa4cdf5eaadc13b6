"""Arguments as leaves: pytrees by optree, the avals of their leaves, the signature they make up."""

from __future__ import annotations

import keyword as keywords
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree

from staticgrad.errors import ArgumentError, DTypeError
from staticgrad.ir.aval import FLOAT64, INT64, NATIVE, Aval, check_dtype
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.lift import as_array
from staticgrad.tracing.tracer import Tracer

Tree = optree.PyTreeSpec


class Signature(NamedTuple):
    """What a compiled function is specialised to: the structure of the arguments, their avals, and the static values."""

    tree: Tree
    avals: tuple[Aval, ...]
    static: tuple[tuple[str, Hashable], ...] = ()


def flatten(tree: Any) -> tuple[list[Any], Tree]:
    """Return the leaves of a pytree and its structure."""
    return optree.tree_flatten(tree)


def unflatten(tree: Tree, leaves: Any) -> Any:
    """Return the pytree of a structure and its leaves."""
    return optree.tree_unflatten(tree, leaves)


def leaf_names(tree: Tree, parameters: Sequence[str]) -> list[str]:
    """Return a distinct identifier for each leaf of (args, kwargs): x -> x, params["w"] -> w, pair[1] -> pair_1.

    `parameters` are the names of the positional arguments.
    """
    names: list[str] = []
    for path in optree.tree_paths(unflatten(tree, list(range(tree.num_leaves)))):
        keyword, head, *rest = path
        whole = [head if keyword else parameters[head] if head < len(parameters) else f"x{head}", *rest]
        words = ["".join(c if c.isalnum() or c == "_" else "_" for c in str(word)).strip("_") for word in whole]
        name = words[-1]
        if not name.isidentifier() or name in names:
            name = "_".join(words)
        while not name.isidentifier() or keywords.iskeyword(name) or name in names:
            name = f"{name}_{len(names)}" if name[:1].isalpha() else f"x{len(names)}"
        names.append(name)
    return names


def leaf_aval(x: Any) -> Aval:
    """Return shape and dtype of an argument; Python numbers are weak.

    Raises
    ------
    ArgumentError
        For a string, a callable or any other object that is no array; the message names `static_argnames`.
    """
    kind = type(x)
    if kind is np.ndarray:
        native = NATIVE.get(x.dtype)
        return Aval(x.shape, native if native is not None else _argument_dtype(x.dtype))
    if kind is float:
        return Aval((), FLOAT64, True)
    if kind is int:
        return Aval((), INT64, True)
    if isinstance(x, Tracer):
        return x.aval
    array = argument_array(x)
    return Aval(array.shape, _argument_dtype(array.dtype))


def _argument_dtype(dtype: np.dtype) -> np.dtype:
    try:
        return check_dtype(dtype, "an argument")
    except DTypeError as error:
        raise DTypeError(at_user_line(str(error))) from None


def argument_array(x: Any) -> np.ndarray:
    """Return an argument as an array, or an error that says what can be passed."""
    if isinstance(x, (np.ndarray, np.generic, bool, int, float)) and not isinstance(x, (np.str_, np.bytes_, np.void)):
        if isinstance(x, int) and not isinstance(x, bool) and not -(2**63) <= x < 2**63:
            raise ArgumentError(at_user_line(f"the Python integer {x} does not fit into 64 bits"))
        return as_array(x)
    if isinstance(x, complex):
        return np.asarray(x)
    if (
        isinstance(x, (str, bytes))
        or callable(x)
        or not (hasattr(x, "__array__") or hasattr(x, "to_numpy") or hasattr(x, "__array_interface__"))
    ):
        raise ArgumentError(
            at_user_line(
                f"an argument of type {type(x).__name__} ({str(x)[:60]!r}) is no array, number or container of these; "
                "if it is an option, name it in static_argnames"
            )
        )
    return as_array(x)


def prepared(x: Any, aval: Aval) -> np.ndarray:
    """Return an argument as a contiguous, aligned array of the native dtype of `aval`; itself if it is one."""
    if type(x) is np.ndarray and x.dtype is aval.dtype and x.flags.c_contiguous and x.flags.aligned:
        return x
    array = x if isinstance(x, np.ndarray) else argument_array(x)
    return np.require(np.asarray(array).astype(aval.dtype, copy=False), requirements=("C", "A")).reshape(aval.shape)


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Return the pytree of `function` applied to the leaves of `trees`."""
    return optree.tree_map(function, *trees)
