"""Calling traced functions: which path a call takes, and whether two results are the same."""

import contextlib
from typing import Any
from unittest import mock

import numpy as np

from staticgrad.calls.traced import Traced


@contextlib.contextmanager
def counting():
    """Count the calls that take the slow path."""
    seen = []
    slow = Traced._slow_call

    def counted(self: Traced, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return slow(self, *args, **kwargs)

    with mock.patch.object(Traced, "_slow_call", counted):
        yield seen


def assert_same(found: Any, expected: Any) -> None:
    """Assert that two results are of the same types and bits throughout."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for mine, other in zip(found, expected):
            assert_same(mine, other)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
        if isinstance(expected, np.ndarray):
            assert found.flags.c_contiguous and found.flags.writeable
    else:
        assert found == expected


def warm(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function until such calls go to machine code, and return what the slow path gives."""
    expected = function._slow_call(*args, **kwargs)
    function(*args, **kwargs)
    function(*args, **kwargs)
    return expected


def assert_fast(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Assert that a call goes to machine code, with the result of the slow path."""
    expected = warm(function, *args, **kwargs)
    with counting() as slow:
        found = function(*args, **kwargs)
    assert not slow
    assert_same(found, expected)
    return found


def assert_slow(function: Any, *args: Any, **kwargs: Any) -> None:
    """Assert that a call takes the slow path again and again."""
    expected = warm(function, *args, **kwargs)
    with counting() as slow:
        found = function(*args, **kwargs)
    assert slow
    assert_same(found, expected)
