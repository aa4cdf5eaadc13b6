"""Vectors of a fixed number of lanes; arrays in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np


def load_lanes(x: np.ndarray, index: int, count: int) -> np.ndarray:
    """Return `count` neighbours from x[index] on."""
    return x[index : index + count].copy()


def store_lanes(x: np.ndarray, index: int, value: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Write `value` to x[index] and the neighbours, where `mask` holds if there is one."""
    if mask is None:
        x[index : index + value.size] = value
    else:
        for lane in np.flatnonzero(mask):
            x[index + lane] = value[lane]


def splat(x: Any, count: int) -> np.ndarray:
    """Return `count` copies of x."""
    return np.full(count, x)


def extract(x: np.ndarray, lane: int) -> Any:
    """Return one lane."""
    return x[lane]


def any_lane(x: np.ndarray) -> np.bool_:
    """Return whether the flag holds in any lane."""
    return np.bool_(np.any(x))


def convert(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the lanes converted to `dtype` (floats to integers: `to_integer`)."""
    return x.astype(dtype)
