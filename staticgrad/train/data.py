"""What users train on, as arrays whose first axis counts the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError
from staticgrad.ir.aval import is_float
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.lift import as_array
from staticgrad.tracing.pytree import Tree, flatten, leaf_aval, prepared, unflatten
from staticgrad.tracing.record import parameter_names


@dataclass(frozen=True, eq=False)
class Rows:
    """Data: C-contiguous arrays of one length, and the structure that they are the leaves of."""

    leaves: list[np.ndarray]
    tree: Tree

    def __len__(self) -> int:
        return len(self.leaves[0])

    def batch(self, size: int) -> Any:
        """Return the first `size` rows."""
        return unflatten(self.tree, [leaf[:size] for leaf in self.leaves])


def rows_of(data: Any, what: str) -> Rows:
    """Return the rows of `data`, a pytree of arrays; nothing is copied that is contiguous and of a supported dtype.

    Parameters
    ----------
    data
        Arrays with the rows along their first axis.
    what
        How messages call the data.
    """
    leaves, tree = flatten(data)
    if not leaves:
        raise InvalidValueError(at_user_line(f"{what}: there are no arrays; pass an array, or a tuple or dict of arrays"))
    lengths = {}
    for path, leaf in zip(optree.treespec_paths(tree), leaves, strict=True):
        name = "".join(f"[{step!r}]" for step in path)
        shape = leaf_aval(leaf).shape
        if not shape:
            raise ShapeError(at_user_line(f"{what}{name} is a single number; every array needs a first axis that counts the rows"))
        lengths[name] = shape[0]
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{what}{name} has {length}" for name, length in lengths.items())
        raise ShapeError(at_user_line(f"the arrays differ in their numbers of rows: {listed}"))
    if not next(iter(lengths.values())):
        raise InvalidValueError(at_user_line(f"{what}: there are no rows; every array needs at least one"))
    return Rows([prepared(leaf, leaf_aval(leaf)) for leaf in leaves], tree)


def weights_of(weights: Any, rows: int, what: str) -> np.ndarray | None:
    """Return the weights of rows as floats; None stays None."""
    if weights is None:
        return None
    weights = as_array(weights)
    aval = leaf_aval(weights)
    if aval.shape != (rows,):
        raise ShapeError(at_user_line(f"{what} has shape {aval.shape}; expected one number for each of the {rows} rows"))
    found = prepared(weights, aval)
    found = found if is_float(aval.dtype) else found.astype(np.float64)
    if not np.all(np.isfinite(found) & (found >= 0)):
        raise InvalidValueError(at_user_line(f"{what}: weights must be finite and at least 0"))
    return found


def arguments_of(data: Any, loss: Callable[..., Any], what: str) -> tuple[Any, ...]:
    """Return what is passed to the loss function after the parameters.

    A tuple or list holds the arguments, a dict holds them by name; an array is the only one.
    """
    if isinstance(data, (tuple, list)):
        return tuple(data)
    if not isinstance(data, dict):
        return (data,)
    names = parameter_names(loss)[1:]
    if not set(data) <= set(names):
        return tuple(data.values())  # in the order in which they stand
    wanted = names[: len(data)]
    if set(data) != set(wanted):
        raise ArgumentError(
            at_user_line(f"{what} has entries {', '.join(map(str, data))}, but the loss function takes {', '.join(wanted)} first")
        )
    return tuple(data[name] for name in wanted)
