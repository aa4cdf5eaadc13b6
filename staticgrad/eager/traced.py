"""Tensors where functions are traced: operations that meet traced arrays, and traced functions that are given tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from staticgrad.eager.tensor import Tensor
from staticgrad.tracing.pytree import tree_map
from staticgrad.tracing.tracer import Tracer


def apply_traced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation gives where traced arrays are among its arguments: it becomes part of their trace."""
    wrapped = False

    def unwrapped(leaf: Any) -> Any:
        nonlocal wrapped
        if isinstance(leaf, Tensor):
            wrapped = wrapped or isinstance(leaf._array, Tracer)
            return leaf._array if isinstance(leaf._array, Tracer) else leaf.numpy()
        return leaf

    found_args, found_kwargs = tree_map(unwrapped, (args, kwargs))
    result = function(*found_args, **found_kwargs)
    return tree_map(lambda leaf: Tensor._of(leaf) if isinstance(leaf, Tracer) else leaf, result) if wrapped else result
