"""What functions hold on to, without running them."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import numpy as np

from staticgrad.tracing.snapshots import is_user_class, namespace, py_func, slots
from staticgrad.tracing.tracer import Tracer

MOST = 10_000
"""So many objects are looked at."""


def holds_tracers(*objects: Any) -> bool:
    """Return whether functions close over traced arrays: in cells, default values, bound objects, partial arguments or containers."""
    seen: dict[int, Any] = {}
    stack = list(objects)
    while stack:
        found = stack.pop()
        if isinstance(found, Tracer):
            return True
        if id(found) in seen or isinstance(found, (type, types.ModuleType, np.ndarray, np.generic, str, bytes, int, float)):
            continue
        seen[id(found)] = found
        if len(seen) > MOST:
            return False
        stack.extend(_parts(found))
    return False


def _parts(found: Any) -> Sequence[Any]:
    if isinstance(found, types.FunctionType):
        filled = [value for cell in found.__closure__ or () for value in _contents(cell)]
        return [*filled, *(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values()]
    if isinstance(found, types.MethodType):
        return [found.__func__, found.__self__]
    if isinstance(found, partial):
        return [found.func, *found.args, *found.keywords.values()]
    if isinstance(found, Mapping):
        return list(found.values())
    if isinstance(found, (list, tuple, AbstractSet)):
        return list(found)
    held = [*(namespace(found) or {}).values(), *(read() for read in slots(found).values())]
    if is_user_class(type(found)):
        return held
    function = py_func(found)  # of staticgrad's and other libraries' objects, the functions alone: they hold much that nobody reads
    return [value for value in (*held, function) if callable(value) or isinstance(value, Tracer)]


def _contents(cell: types.CellType) -> Sequence[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing was bound yet
        return []
