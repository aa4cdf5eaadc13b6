"""numpy.linalg for traced code: the functions that work on traced arrays, and a few of scipy.linalg."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.errors import MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.numpy import _dispatching
from staticgrad.tracing.context import tracing
from staticgrad.tracing.functions import FUNCTIONS, closest, systems
from staticgrad.tracing.functions.creation import holds_tracer
from staticgrad.tracing.functions.table import invoke
from staticgrad.tracing.protocol import taker

_NAMESPACE = {
    name: _dispatching(member)
    for name in np.linalg.__all__
    if callable(member := getattr(np.linalg, name)) and not isinstance(member, type) and member in FUNCTIONS
}


def _of_scipy(name: str, traced: Callable[..., Any]) -> Callable[..., Any]:
    """Return SciPy's function of that name, which works on traced arrays, too."""

    @functools.wraps(traced)
    def call(*args: Any, **kwargs: Any) -> Any:
        if tracing() and (holds_tracer(args) or holds_tracer(list(kwargs.values()))):
            return invoke(traced, f"snp.linalg.{name}", args, kwargs)
        import scipy.linalg

        takes = taker(args)
        return getattr(scipy.linalg, name)(*args, **kwargs) if takes is None else takes(traced, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call


_NAMESPACE |= {
    "solve_triangular": _of_scipy("solve_triangular", systems.solve_triangular_traced),
    "lu_factor": _of_scipy("lu_factor", systems.lu_factor_traced),
    "lu_solve": _of_scipy("lu_solve", systems.lu_solve_traced),
    "cho_factor": _of_scipy("cho_factor", systems.cho_factor_traced),
    "cho_solve": _of_scipy("cho_solve", systems.cho_solve_traced),
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
