"""Checks of the numbers that users pass as options."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.source import at_user_line


def number(name: str, value: Any, *, below: float = math.inf) -> float:
    """Return an option as a float: finite, at least 0 and less than `below`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(at_user_line(f"{name}={value!r}: expected a number, not {type(value).__name__}"))
    found = float(value)
    if not math.isfinite(found) or not 0 <= found < below:
        limit = f" and less than {below:g}" if below < math.inf else ""
        raise InvalidValueError(at_user_line(f"{name}={value!r}: expected a number of at least 0{limit}"))
    return found


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return an option as a whole number of at least `least`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(at_user_line(f"{name}={value!r}: expected a whole number"))
    if value < least:
        raise InvalidValueError(at_user_line(f"{name}={value!r}: expected at least {least}"))
    return int(value)


def positions(name: str, value: Any) -> tuple[int, ...]:
    """Return an option that is a position, or several, as a tuple of them; negative ones count from the end."""
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)) for k in numbers):
        raise ArgumentError(at_user_line(f"{name}={value!r}: expected a whole number or a tuple of them"))
    return tuple(map(int, numbers))
