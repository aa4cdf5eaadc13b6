"""Run a Python function on tracers, interpret its graph, and compare with NumPy on the same function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from staticgrad.errors import StaticgradError
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.ir.verify import verify
from staticgrad.tracing.context import Trace
from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import Tracer, argument_tracer


def flat(result: Any) -> list[Any]:
    """Return the leaves of nested lists and tuples."""
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, (list, tuple)) else [result]


def traced(function: Callable[..., Any], *arrays: Any) -> list[Any]:
    """Return the leaves of `function(*arrays)`, traced and interpreted; leaves that are no tracers are returned as they are."""
    operands = [np.asarray(a) for a in arrays]
    with Trace("traced") as trace:
        inputs = tuple(new_input(Aval(a.shape, a.dtype), f"x{k}", trace) for k, a in enumerate(operands))
        leaves = flat(function(*(argument_tracer(v, trace, f"x{k}") for k, v in enumerate(inputs))))
        outputs = tuple(lift(leaf) for leaf in leaves if isinstance(leaf, Tracer))
    graph = Graph(inputs, outputs)
    verify(graph)
    results = iter(interpret(graph, operands))
    return [next(results) if isinstance(leaf, Tracer) else leaf for leaf in leaves]


def untraced(function: Callable[..., Any], *arrays: Any) -> list[Any]:
    """Return the leaves of what NumPy gives on copies of the arrays."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flat(function(*(a.copy() if isinstance(a, np.ndarray) else a for a in arrays)))


def check(function: Callable[..., Any], *arrays: Any, rtol: float = 1e-13, atol: float = 1e-14) -> None:
    """Assert that the traced function gives NumPy's values, shapes and dtypes."""
    found, expected = traced(function, *arrays), untraced(function, *arrays)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(theirs, (type(None), str, np.dtype)):
            assert ours == theirs
            continue
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.dtype == theirs.dtype, f"dtype {ours.dtype}, NumPy has {theirs.dtype}"
        assert ours.shape == theirs.shape, f"shape {ours.shape}, NumPy has {theirs.shape}"
        narrow = 1e7 if theirs.dtype == np.float32 else 1.0
        np.testing.assert_allclose(ours, theirs, rtol=rtol * narrow, atol=atol * narrow, equal_nan=True)


def fails(function: Callable[..., Any], *arrays: Any, kind: type[Exception], match: str) -> Exception:
    """Assert that tracing raises `kind`, naming the function's file and itself, with what `match` says in the message."""
    with pytest.raises(kind, match=f"(?s){match}") as raised:
        traced(function, *arrays)
    assert isinstance(raised.value, StaticgradError)
    assert f"{function.__code__.co_filename}:" in str(raised.value)
    assert f"in {function.__name__}" in str(raised.value)
    return raised.value
