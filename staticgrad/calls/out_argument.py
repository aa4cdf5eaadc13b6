"""The keyword `out` of a traced function: arrays that receive the results, in place of new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, ReadOnlyError, ShapeError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import Tree, flatten
from staticgrad.tracing.tracer import Tracer
from staticgrad.tracing.ufuncs import write_out


def receivers(out: Any, tree: Tree, name: str) -> list[Any]:
    """Return the arrays in `out`, which must have the structure of the result of the function `name`.

    Raises
    ------
    ArgumentError
        If the structure differs.
    """
    leaves, found = flatten(out)
    if found != tree:
        raise ArgumentError(at_user_line(f"{name}: out= has the structure {_shown(found)}, the result {_shown(tree)}"))
    return leaves


def _shown(tree: Tree) -> str:
    return "of one array" if tree.is_leaf() else str(tree).removeprefix("PyTreeSpec(").removesuffix(")")


def write_results(out: Any, results: Sequence[Any], tree: Tree, name: str) -> Any:
    """Write the results of a call into the arrays of `out` and return it.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, ReadOnlyError
        If an array is not one that can hold its result as it is; then none has been written.
    """
    arrays = receivers(out, tree, name)
    for array, result in zip(arrays, results, strict=True):
        if not isinstance(array, np.ndarray):
            raise ArgumentError(at_user_line(f"{name}: out= holds a {type(array).__name__}, not an array; for a number use np.empty(())"))
        if array.shape != np.shape(result):
            raise ShapeError(at_user_line(f"{name}: a result has shape {np.shape(result)}, its array in out= {array.shape}"))
        if array.dtype != result.dtype:
            raise DTypeError(at_user_line(f"{name}: a result has dtype {result.dtype}, its array in out= {array.dtype}"))
        if not array.flags.writeable:
            raise ReadOnlyError(at_user_line(f"{name}: an array in out= is read-only"))
    for array, result in zip(arrays, results, strict=True):
        array[...] = result
    return out


def write_traced_results(out: Any, results: Sequence[Tracer], tree: Tree, name: str) -> Any:
    """Write the results of a call inside of a trace into the traced arrays of `out` and return it."""
    for target, result in zip(receivers(out, tree, name), results, strict=True):
        write_out(name, target, result.value)
    return out
