"""Indices of tensors: which are parts of the same memory, and masks as the places where they hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.eager.tensors import Tensor
from staticgrad.tracing.views import IndexView, parse_index


def ready_index(index: Any) -> Any:
    """Return an index with whole numbers for tensors of one, and with places for masks: x[mask] has as many elements as hold."""
    if isinstance(index, tuple):
        return tuple([part for item in index for part in _ready(item)])
    if isinstance(index, int) or index is None or isinstance(index, slice):
        return index
    parts = _ready(index)
    return parts[0] if len(parts) == 1 else parts


def _ready(item: Any) -> tuple[Any, ...]:
    if isinstance(item, slice):
        return (slice(*(int(part) if isinstance(part, Tensor) else part for part in (item.start, item.stop, item.step))),)
    if isinstance(item, (list, tuple)) and any(isinstance(part, Tensor) for part in item):
        item = np.asarray([part._array if isinstance(part, Tensor) else part for part in item])
    if isinstance(item, list) and item and not isinstance(item[0], list):
        item = np.asarray(item)
    array = item._array if isinstance(item, Tensor) else item
    if isinstance(array, (np.ndarray, np.generic)):
        if array.dtype == np.bool_:
            return tuple(np.nonzero(array)) if array.ndim else (None, np.zeros(int(array), np.int64))
        if not array.ndim and array.dtype.kind in "iu":
            return (int(array),)
    return (item,)


def basic_view(index: Any, shape: tuple[int, ...]) -> IndexView | None:
    """Return the view of an index of integers, slices and new axes; None for an index with arrays."""
    items = index if isinstance(index, tuple) else (index,)
    for item in items:
        if not (isinstance(item, (int, slice)) or item is None or item is Ellipsis) or isinstance(item, bool):
            return None
    return parse_index(index, shape)[0]
