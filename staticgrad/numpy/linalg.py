"""numpy.linalg for traced code: the functions that work on traced arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.numpy import _dispatching
from staticgrad.tracing.functions import FUNCTIONS, closest

_NAMESPACE = {
    name: _dispatching(member)
    for name in np.linalg.__all__
    if callable(member := getattr(np.linalg, name)) and not isinstance(member, type) and member in FUNCTIONS
}
globals().update(_NAMESPACE)

__all__ = [*sorted(_NAMESPACE)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    kind = UnsupportedAttributeError if hasattr(np.linalg, name) else MissingAttributeError
    raise kind(at_user_line(f"staticgrad.numpy.linalg.{name} is not supported; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)
