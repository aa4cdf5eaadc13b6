"""Pointers: out of the argument table, into the workspace, moved on, and small arrays of a function.

In plain Python a pointer is a flat array: `arguments` is a list of them, `workspace` one of bytes, `context` one of int64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.ir.context import CODE, INDEX, NODE, POLL, WORK_LEFT
from staticgrad.ir.loops import EXTERNAL_FAILED, WORK_BETWEEN_POLLS


def argument(arguments: Sequence[np.ndarray], position: int, dtype: Any) -> np.ndarray:
    """Return the pointer at `position` of the argument table."""
    return arguments[position].view(dtype)


def scratch(workspace: np.ndarray, start: int, dtype: Any) -> np.ndarray:
    """Return the workspace from byte `start` on as values of `dtype`."""
    rest = workspace[start:]
    return rest[: rest.size - rest.size % np.dtype(dtype).itemsize].view(dtype)


def offset(x: np.ndarray, index: int) -> np.ndarray:
    """Return the pointer to element `index` of x."""
    return x[index:]


def pointers(*places: np.ndarray) -> Sequence[np.ndarray]:
    """Return a table of pointers, which lives as long as the function."""
    return places


def local_array(dtype: Any, size: int) -> np.ndarray:
    """Return a small array that lives as long as the function, its content undefined."""
    return np.empty(size, dtype)


def fail(context: np.ndarray, code: int, node: int, index: int) -> None:
    """Note a failure, unless an earlier one is noted."""
    if context[CODE] == 0:
        context[CODE], context[NODE], context[INDEX] = code, node, index


def call_external(context: np.ndarray, symbol: str, *operands: Any) -> None:
    """Call a function outside of the unit with pointers, then numbers, unless a failure is noted; what it returns but 0 is one."""
    if context[CODE] == 0:
        from staticgrad.runtime.foreign import call_in_python

        number = call_in_python(symbol, operands)
        if number:
            fail(context, EXTERNAL_FAILED, 0, number)


def poll(context: np.ndarray, work: int) -> bool:
    """Return whether to go on, so many nanoseconds of work later: no failure is noted, and the poll of the context, if due, notes none."""
    context[WORK_LEFT] -= work
    if context[WORK_LEFT] < 0:
        context[WORK_LEFT] = WORK_BETWEEN_POLLS
        if context[POLL]:
            ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(int(context[POLL]))(context.ctypes.data)
    return bool(context[CODE] == 0)


def parallel(task: Callable[..., None], blocks: int, arguments: Any, workspace: np.ndarray, context: np.ndarray) -> None:
    """Run `task` for each block: on several threads where the context has a `parallel_for`, otherwise in order."""
    for block in range(blocks):
        task(arguments, workspace, context, block)
