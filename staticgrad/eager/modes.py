"""What holds for all eager code of a thread: whether operations are recorded; and the default dtype."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from staticgrad.errors import ArgumentError
from staticgrad.ir.aval import FLOAT32, FLOAT64
from staticgrad.ir.source import at_user_line

Function = TypeVar("Function", bound=Callable[..., Any])


class _Modes(threading.local):
    records: bool = True


modes = _Modes()
"""`modes.records`: whether operations of this thread are recorded for a backward pass."""

_default = FLOAT32


def is_grad_enabled() -> bool:
    """Return whether operations on tensors are recorded for a backward pass, in this thread.

    Examples
    --------
    >>> import staticgrad as sg
    >>> with sg.no_grad():
    ...     sg.is_grad_enabled()
    False
    """
    return modes.records


class set_grad_enabled:
    """Set whether operations are recorded: at once and for good, or within `with`, or within a decorated function.

    Examples
    --------
    >>> from staticgrad.eager import is_grad_enabled, set_grad_enabled
    >>> with set_grad_enabled(False):
    ...     is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._before = [modes.records]
        modes.records = self._mode

    def __enter__(self) -> None:
        modes.records = self._mode

    def __exit__(self, *_: object) -> None:
        modes.records = self._before[-1]

    def __call__(self, function: Function) -> Any:
        modes.records = self._before[-1]  # a decorator sets nothing where it stands
        return _decorated(function, self._mode)


class _Mode:
    """A grad mode for a block or a function. Reentrant, as it is entered and left like a stack."""

    mode: bool

    def __new__(cls, function: Any = None) -> Any:
        """Return the context manager, or the function when it is used as a decorator without parentheses."""
        if function is None:
            return super().__new__(cls)
        if not callable(function):
            raise ArgumentError(at_user_line(f"{cls.__name__} takes no argument but the function that it decorates, not {function!r}"))
        return _decorated(function, cls.mode)

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(modes.records)
        modes.records = self.mode

    def __exit__(self, *_: object) -> None:
        modes.records = self._before.pop()

    def __call__(self, function: Function) -> Any:
        return _decorated(function, self.mode)


class no_grad(_Mode):
    """Context manager and decorator: operations inside are not recorded, and their results do not require gradients.

    Examples
    --------
    >>> import staticgrad as sg
    >>> x = sg.tensor(2.0, requires_grad=True)
    >>> with sg.no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """

    mode = False


class enable_grad(_Mode):
    """Context manager and decorator: operations inside are recorded, also inside of `no_grad`.

    Examples
    --------
    >>> import staticgrad as sg
    >>> x = sg.tensor(2.0, requires_grad=True)
    >>> with sg.no_grad(), sg.enable_grad():
    ...     y = x * x
    >>> y.requires_grad
    True
    """

    mode = True


def _decorated(function: Any, mode: bool) -> Any:
    enter = enable_grad if mode else no_grad
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Any:
            """Run each step of the generator in the mode; who consumes it keeps its own."""
            steps = function(*args, **kwargs)
            proceed = functools.partial(steps.send, None)
            while True:
                try:
                    with enter():
                        value = proceed()
                except StopIteration as end:
                    return end.value
                try:
                    proceed = functools.partial(steps.send, (yield value))
                except GeneratorExit:
                    with enter():
                        steps.close()
                    raise
                except BaseException as error:
                    proceed = functools.partial(steps.throw, error)

        return generate

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with enter():
            return function(*args, **kwargs)

    return call


def get_default_dtype() -> np.dtype:
    """Return the dtype of tensors made of Python floats.

    Examples
    --------
    >>> from staticgrad.eager import get_default_dtype
    >>> get_default_dtype()
    dtype('float32')
    """
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype of tensors made of Python floats, for all threads: float32 (as at the start) or float64.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.set_default_dtype(np.float64)
    >>> sg.tensor(1.0).dtype
    dtype('float64')
    >>> sg.set_default_dtype(np.float32)
    """
    global _default
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (FLOAT32, FLOAT64):
        raise ArgumentError(at_user_line(f"set_default_dtype({dtype!r}): expected float32 or float64"))
    _default = found
