"""How other kinds of arrays take over what staticgrad's functions do with them, as `__array_function__` lets them with NumPy's.

A type that defines `__staticgrad_function__(function, args, kwargs)`, a class method, is asked instead of the function when one of its
instances is among the arguments. The function works on traced arrays, so the type can record its graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

NAME = "__staticgrad_function__"


def taker(obj: Any) -> Callable[..., Any] | None:
    """Return what takes over because of an argument, or of something inside a list, tuple or dict of arguments."""
    if isinstance(obj, (list, tuple)):
        return next((found for part in obj if (found := taker(part)) is not None), None)
    if isinstance(obj, dict):
        return taker(list(obj.values()))
    return getattr(type(obj), NAME, None)


def may_be_taken_over(function: Function) -> Function:
    """Return a function of arrays that other kinds of arrays may take over."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        takes = taker(args) or taker(kwargs)
        return function(*args, **kwargs) if takes is None else takes(function, args, kwargs)

    return call  # type: ignore[return-value]
