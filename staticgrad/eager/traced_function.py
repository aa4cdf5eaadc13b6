"""A `Function` inside of a trace: one node of the graph, with `forward` and `backward` recorded as its rules."""

from __future__ import annotations

from typing import Any

from staticgrad.custom.modes import call_with_pullback
from staticgrad.custom.rules import CustomFunction
from staticgrad.eager.function import Function, FunctionContext, checked_gradients
from staticgrad.eager.tensors import Tensor
from staticgrad.ir.aval import is_float
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import flatten, tree_map, unflatten
from staticgrad.tracing.record import called
from staticgrad.tracing.tracer import Tracer, tracer_of


def apply_traced_function(cls: type[Function], args: tuple[Any, ...]) -> Any:
    """Return the result of `forward` in the trace under way; both methods are given tensors of traced arrays, as PyTorch's code expects."""
    places = [k for k, x in enumerate(args) if isinstance(x, (Tensor, Tracer))]
    avals = {k: lift(_unwrapped(args[k])).aval for k in places}
    arguments = [(avals[k].shape, avals[k].dtype) if k in avals else None for k in range(len(args))]
    contexts: list[FunctionContext] = []

    def run(arrays: tuple[Any, ...]) -> tuple[FunctionContext, Any]:
        given = list(args)
        for k, array in zip(places, arrays, strict=True):
            given[k] = wrapped(array)
        ctx = FunctionContext()
        ctx.needs_input_grad = tuple(k in avals and is_float(avals[k].dtype) for k in range(len(args)))
        return ctx, cls._run(ctx, tuple(given))

    def function(*arrays: Any) -> Any:
        return tree_map(_unwrapped, run(arrays)[1])

    def forward(*arrays: Any) -> Any:
        ctx, result = run(arrays)
        contexts[:] = [ctx]
        return tree_map(_unwrapped, (result, ctx._to_save))

    def backward(saved: Any, cotangent: Any) -> tuple[Any, ...]:
        (ctx,) = contexts
        ctx._to_save = tree_map(wrapped, saved)
        grads = [wrapped(g) for g in flatten(cotangent)[0]]
        found = checked_gradients(called(cls.backward, f"{cls.__name__}.backward", ctx, *grads), arguments, cls.__name__)
        return tuple(_unwrapped(found[k]) for k in places)

    function.__name__ = cls.__name__
    custom = CustomFunction(cls.__name__, function, cls, tuple(x for k, x in enumerate(args) if k not in avals))
    result = call_with_pullback(custom, forward, backward, tuple(_unwrapped(args[k]) for k in places))
    if not any(isinstance(x, Tensor) and isinstance(x._array, Tracer) for x in args):
        return result
    leaves, tree = flatten(result)
    return unflatten(tree, [wrapped(leaf) for leaf in leaves])


def wrapped(array: Any) -> Any:
    """Return a traced array as a tensor of the trace, so that code written for tensors works on it."""
    held: Any = array
    return Tensor._of(held) if isinstance(array, Tracer) else array


def _unwrapped(leaf: Any) -> Any:
    """Return the traced array of a tensor, and other tensors as constants of the trace."""
    if not isinstance(leaf, Tensor):
        return leaf
    array: Any = leaf._array
    return array if isinstance(array, Tracer) else tracer_of(lift(leaf.numpy()), array=True)
