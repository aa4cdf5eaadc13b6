"""Addresses: memory that is known by its address, and machine code that is called by it. For drivers of compiled units.

An address is an int64. In plain Python a pointer is a flat array, as everywhere in the vocabulary.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

UNBOUNDED = 2**40
"""The number of bytes that an array over a bare address claims; nothing but what is used is touched."""


def pointer(address: int, dtype: Any) -> np.ndarray:
    """Return the memory at an address as values of `dtype`."""
    memory: Any = (ctypes.c_uint8 * UNBOUNDED).from_address(int(address))
    return np.frombuffer(memory, np.uint8).view(dtype)


def copy_bytes(target: int, source: int, size: int) -> None:
    """Copy `size` bytes between addresses; the two ranges do not overlap."""
    ctypes.memmove(int(target), int(source), int(size))


def call_stage(address: int, table: int, workspace: np.ndarray, context: np.ndarray) -> int:
    """Call the stage of a unit at an address with the argument table at another one; return its failure code."""
    stage = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(int(address))
    return int(stage(int(table), workspace.ctypes.data, context.ctypes.data))
