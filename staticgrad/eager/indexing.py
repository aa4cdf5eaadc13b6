"""Indices of tensors: which are parts of the same memory, and masks as the places where they hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.eager.tensors import Tensor
from staticgrad.errors import IndexingError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.views import IndexView, parse_index


def ready_index(index: Any, shape: tuple[int, ...]) -> Any:
    """Return an index with whole numbers for tensors of one, and with places for masks: x[mask] has as many elements as hold."""
    if isinstance(index, int) or index is None or isinstance(index, slice):
        return index
    items = [_as_array(item) for item in (index if isinstance(index, tuple) else (index,))]
    axis, parts, open_axes = 0, [], len(shape) - sum(map(_axes, items))
    for item in items:
        if isinstance(item, (np.ndarray, np.generic)) and item.dtype == np.bool_:
            parts += _places(np.asarray(item), axis, shape)
        else:
            parts.append(item)
        axis += max(open_axes, 0) if item is Ellipsis else _axes(item)
    return tuple(parts) if len(parts) != 1 or isinstance(index, tuple) else parts[0]


def _as_array(item: Any) -> Any:
    """Return a part of an index without tensors: as an array, a whole number, or as it is."""
    if isinstance(item, slice):
        return slice(*(int(part) if isinstance(part, Tensor) else part for part in (item.start, item.stop, item.step)))
    if isinstance(item, (list, tuple)) and any(isinstance(part, Tensor) for part in item):
        item = np.asarray([part._array if isinstance(part, Tensor) else part for part in item])
    if isinstance(item, list) and item and not isinstance(item[0], list):
        item = np.asarray(item)
    array = item._array if isinstance(item, Tensor) else item
    if isinstance(array, (np.ndarray, np.generic)):
        return int(array) if not array.ndim and array.dtype.kind in "iu" else array
    return item


def _axes(item: Any) -> int:
    """Return how many axes of the tensor a part of an index is for."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.ndim if isinstance(item, (np.ndarray, np.generic)) and item.dtype == np.bool_ else 1


def _places(mask: np.ndarray, axis: int, shape: tuple[int, ...]) -> list[Any]:
    """Return where a mask holds, as indices of the axes from `axis` on."""
    if not mask.ndim:
        return [bool(mask)]
    if mask.shape != shape[axis : axis + mask.ndim]:
        raise IndexingError(
            at_user_line(f"a mask of shape {mask.shape} does not fit a tensor of shape {shape} from axis {axis} on: lengths must be equal")
        )
    return list(np.nonzero(mask))


def basic_view(index: Any, shape: tuple[int, ...]) -> IndexView | None:
    """Return the view of an index of integers, slices and new axes; None for an index with arrays."""
    items = index if isinstance(index, tuple) else (index,)
    for item in items:
        if not (isinstance(item, (int, slice)) or item is None or item is Ellipsis) or isinstance(item, bool):
            return None
    return parse_index(index, shape)[0]
