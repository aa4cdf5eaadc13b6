"""SciPy's special functions, on traced arrays, NumPy arrays and numbers alike.

The universal functions of `scipy.special` work on traced arrays as they are; here they also take lists of traced numbers, and the
functions that are none (`logsumexp`, `softmax`, `polygamma`, ...) exist here only. On arrays and numbers all is SciPy's.

>>> import numpy as np
>>> import staticgrad as sg
>>> sg.grad(lambda x: sg.special.logsumexp(x))(np.zeros(4))
array([0.25, 0.25, 0.25, 0.25])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from staticgrad.errors import MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.special.functions import log_softmax, logsumexp, polygamma, softmax
from staticgrad.special.table import ENTRIES, Entry
from staticgrad.tracing.functions.arguments import as_tracer
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.functions.table import closest


def _function(entry: Entry) -> Callable[..., Any]:
    """Return SciPy's universal function, such that traced values inside of lists are found too."""

    def call(*operands: Any) -> Any:
        import scipy.special

        lifted = (as_tracer(x) if holds_tracer(x) else x for x in operands)
        return getattr(scipy.special, entry.name)(*lifted)

    call.__name__ = call.__qualname__ = entry.name
    call.__doc__ = entry.docstring
    call.__signature__ = entry.signature  # type: ignore[attr-defined]
    return call


_NAMESPACE: dict[str, Callable[..., Any]] = {entry.name: _function(entry) for entry in ENTRIES}
globals().update(_NAMESPACE)

__all__ = ["log_softmax", "logsumexp", "polygamma", "softmax", *sorted(_NAMESPACE)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    import scipy.special

    if hasattr(scipy.special, name):
        raise UnsupportedAttributeError(at_user_line(f"staticgrad.special.{name} is not supported; {closest(name, __all__)}"))
    raise MissingAttributeError(at_user_line(f"neither SciPy nor staticgrad.special has {name!r}; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)
