"""numpy.fft for traced code: the order of frequencies; transforms work on real arrays alone, as traced ones are never complex.

>>> import numpy as np
>>> fftshift(fftfreq(4))
array([-0.5 , -0.25,  0.  ,  0.25])
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import MissingAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.numpy import _dispatching
from staticgrad.tracing.context import tracing
from staticgrad.tracing.functions import closest, creation
from staticgrad.tracing.functions.arguments import whole_number
from staticgrad.tracing.functions.table import invoke


def _frequencies(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes frequencies, as a traced array while a function is traced."""
    name = f"snp.fft.{function.__name__}"

    def traced(n: Any, d: Any = 1.0) -> Any:
        return creation.array(function(whole_number(n, f"{name}: n"), d))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return invoke(traced, name, args, kwargs) if tracing() else function(*args, **kwargs)

    return call


_NAMESPACE = {name: _dispatching(getattr(np.fft, name)) for name in np.fft.__all__} | {
    name: _frequencies(getattr(np.fft, name)) for name in ("fftfreq", "rfftfreq")
}
globals().update(_NAMESPACE)

__all__ = [*sorted(_NAMESPACE)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise MissingAttributeError(at_user_line(f"neither NumPy nor staticgrad.numpy has fft.{name}; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)
