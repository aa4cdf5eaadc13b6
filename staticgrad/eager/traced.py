"""Tensors where functions are traced: operations that meet traced arrays, and traced functions that are given tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.linear_part import LinearPart
from staticgrad.calls.traced import Traced
from staticgrad.eager.modes import modes
from staticgrad.eager.names import node_name
from staticgrad.eager.nodes import FREED, or_zeros
from staticgrad.eager.tape import Node
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import BackwardError
from staticgrad.ir.aval import is_float
from staticgrad.ir.source import at_user_line, user_line
from staticgrad.tracing.pytree import flatten, tree_map, unflatten
from staticgrad.tracing.record import arguments
from staticgrad.tracing.tracer import Tracer
from staticgrad.transforms import Pullback, Vjp


def apply_traced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation gives where traced arrays are among its arguments: it becomes part of their trace."""
    wrapped = False

    def unwrapped(leaf: Any) -> Any:
        nonlocal wrapped
        if not isinstance(leaf, Tensor):
            return leaf
        wrapped = wrapped or isinstance(leaf._array, Tracer)
        return leaf._array if isinstance(leaf._array, Tracer) else leaf.numpy()

    found_args, found_kwargs = tree_map(unwrapped, (args, kwargs))
    result = function(*found_args, **found_kwargs)
    return tree_map(_wrapped, result) if wrapped else result


def _wrapped(leaf: Any) -> Any:
    array: Any = leaf
    return Tensor._of(array) if isinstance(leaf, Tracer) else leaf


def call_traced(function: Traced, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a traced function gives on tensors: one node of the tape, whose forward and backward are compiled kernels."""
    leaves = function._split(args, kwargs)[0]
    if any(isinstance(leaf, Tensor) and isinstance(leaf._array, Tracer) for leaf in leaves):
        return apply_traced(function, args, kwargs)
    recording = modes.records
    wanted = tuple(k for k, leaf in enumerate(leaves) if recording and isinstance(leaf, Tensor) and leaf.requires_grad)
    plain_args, plain_kwargs = tree_map(lambda leaf: leaf._array if isinstance(leaf, Tensor) else leaf, (args, kwargs))
    if not wanted:
        result = function(*plain_args, **plain_kwargs)
        return tree_map(lambda leaf: Tensor._of(np.asarray(leaf)), result)
    linear = LinearPart(function.derive(Vjp(wanted=wanted), "vjp"), plain_args, plain_kwargs)
    outputs, tree = flatten(linear.result)
    tensors = [Tensor._of(np.asarray(output)) for output in outputs]
    node = TracedNode(function, linear, wanted, leaves, tensors)
    for k, x in enumerate(tensors):
        if is_float(x._array.dtype):
            x._edge = (node, k)
    return unflatten(tree, tensors)


class TracedNode(Node):
    """A call of a traced function. Its arguments were copied, so that changing them afterwards does no harm."""

    __slots__ = ("_function", "_leaves", "_linear", "_wanted")

    def __init__(
        self, function: Traced, linear: LinearPart, wanted: tuple[int, ...], leaves: Sequence[Any], results: Sequence[Tensor]
    ) -> None:
        name = "".join(c if c.isalnum() else "_" for c in function._record.name)
        edges = tuple(leaves[k]._gradient_edge() for k in wanted)
        super().__init__(f"{node_name(name)}Backward", edges, [(x._array.shape, x._array.dtype) for x in results], user_line())
        self._function = function
        self._wanted = wanted
        self._linear: LinearPart | None = linear
        numbers = (int, float)  # which are weak: their copies are not
        self._leaves = [leaf if isinstance(leaf, numbers) else own for leaf, own in zip(leaves, linear.leaves, strict=True)]

    def cotangents(self, grads: list[Tensor | None], recording: bool) -> Sequence[Tensor | None]:
        linear = self._linear
        if linear is None:
            raise BackwardError(at_user_line(FREED.format(self.name())))
        seeds = [or_zeros(grad, *result) for grad, result in zip(grads, self.results, strict=True)]
        if not recording:
            found = linear([seed._array for seed in seeds], f"{self.name()}: a result is {{}}, its cotangent {{}}")
            return [Tensor._of(np.asarray(g)) for g in found]
        leaves: list[Any] = list(self._leaves)
        for k, edge in zip(self._wanted, self.next_functions, strict=True):
            leaves[k] = Tensor._of(leaves[k], edge=edge)
        args, kwargs = arguments(linear.signature, leaves)
        pullback = self._function.derive(Pullback(self._wanted), "pullback")
        result: Sequence[Tensor] = pullback(*args, seeds, **kwargs)
        return result

    def release(self) -> None:
        self._linear, self._leaves = None, []
