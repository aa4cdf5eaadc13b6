"""`sg.checkpoint`: a function of which the backward pass keeps nothing but what it started from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.checkpoint_policies import nothing_saveable
from staticgrad.custom.rules import name_of, with_prints
from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.graph import inline
from staticgrad.ir.node import apply
from staticgrad.ir.source import at_user_line
from staticgrad.ops.checkpoint import CheckpointStart, end_checkpoint
from staticgrad.ops.control import inline_calls
from staticgrad.tracing.bodies import record_body
from staticgrad.tracing.context import current_trace, tracing
from staticgrad.tracing.lift import lift
from staticgrad.tracing.protocol import taker
from staticgrad.tracing.pytree import flatten, unflatten
from staticgrad.tracing.record import called
from staticgrad.tracing.tracer import Tracer, tracer_of


def checkpoint(
    fun: Callable[..., Any], *, policy: Callable[[str], bool] | None = None, static_argnums: int | Sequence[int] = ()
) -> Callable[..., Any]:
    """Return `fun` as a function whose intermediate values are not kept for the backward pass, but computed anew there.

    It saves memory at the price of computing `fun` a second time, and changes no bit of any result. What it starts from is kept, and what
    it returns if the backward pass reads that; both its arguments and what it closes over. In the body of `sg.scan` or `sg.fori_loop`,
    the backward loop gets what each step started from, and nothing that a checkpointed function computed in it. Without derivatives,
    and in forward mode, it makes no difference. To let the compiler choose, see `max_memory` of `sg.trace`.

    Parameters
    ----------
    fun
        A function of arrays, numbers and containers of these. It may close over traced arrays, and other checkpointed functions may be
        called inside of it.
    policy
        Which values may be kept nevertheless: a function from the name of an operation, as in the printed graph, to a bool, such as
        those of `sg.checkpoint_policies`. By default `nothing_saveable`.
    static_argnums
        The positions of arguments that `fun` gets as they are: arrays that decide what it does. Numbers, texts and functions may stand
        anywhere.

    Raises
    ------
    ArgumentError
        When `fun` or `policy` is no function, or `static_argnums` no integers.
    InvalidValueError
        When a static argument is not given.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> @sg.checkpoint
    ... def layer(x, w):
    ...     return np.tanh(x @ w)
    >>> def loss(w, x):
    ...     for _ in range(8):
    ...         x = layer(x, w)
    ...     return np.sum(x)
    >>> sg.grad(loss)(np.eye(2), np.zeros((1, 2)))
    array([[0., 0.],
           [0., 0.]])
    """
    for what, given in (("the function", fun), *((("policy", policy),) if policy is not None else ())):
        if not callable(given):
            raise ArgumentError(at_user_line(f"checkpoint: {what} must be a function, not {type(given).__name__}"))

    numbers = tuple(static_argnums) if isinstance(static_argnums, Sequence) else (static_argnums,)
    if not all(isinstance(number, int) for number in numbers):
        raise ArgumentError(at_user_line(f"checkpoint: static_argnums must be integers, not {static_argnums!r}"))

    @functools.wraps(fun)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if numbers:
            bound, others = _bound(fun, numbers, args)
            return checkpoint(bound, policy=policy)(*others, **kwargs)
        if tracing():
            return _recorded(fun, policy or nothing_saveable, args, kwargs)
        takes = taker(args) or taker(kwargs)
        return called(fun, name_of(fun), *args, **kwargs) if takes is None else takes(traced(checkpointed), args, kwargs)

    return checkpointed


def _bound(fun: Callable[..., Any], numbers: Sequence[int], args: tuple[Any, ...]) -> tuple[Callable[..., Any], list[Any]]:
    """Return `fun` with its static arguments, and the others."""
    if any(not -len(args) <= number < len(args) for number in numbers):
        raise InvalidValueError(at_user_line(f"checkpoint: static_argnums={tuple(numbers)} of {len(args)} arguments"))
    static = {number % len(args) for number in numbers}

    @functools.wraps(fun)
    def bound(*others: Any, **kwargs: Any) -> Any:
        rest = iter(others)
        return fun(*(value if k in static else next(rest) for k, value in enumerate(args)), **kwargs)

    return bound, [value for k, value in enumerate(args) if k not in static]


def _recorded(fun: Callable[..., Any], policy: Callable[[str], bool], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what `fun` makes of these arguments in the trace under way, between marks."""
    leaves, tree = flatten((args, kwargs))
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, (Tracer, np.ndarray, np.generic))]

    def run(*arrays: Any) -> Any:
        filled = list(leaves)
        for k, array in zip(places, arrays, strict=True):
            filled[k] = array
        given, named = unflatten(tree, filled)
        return called(fun, name_of(fun), *given, **named)

    run.__name__ = name_of(fun)
    values = [lift(leaves[k]) for k in places]
    prints: list[tuple[str, int]] = []
    body = record_body(with_prints(run, prints), flatten(tuple(range(len(values))))[1], [v.aval for v in values], "the function")
    graph = inline_calls(body.graph)
    names = {node.op.name for node in graph.nodes}
    saveable = tuple(sorted(name for name in names if policy(name)))
    operands = (*body.captures, *values)
    if len(saveable) == len(names):
        results = list(inline(graph, operands))
    else:
        starts = [v if v.node.is_fixed else apply(CheckpointStart(), v) for v in operands]
        results = [end_checkpoint(v, starts, saveable) for v in inline(graph, starts)]
    at = len(results) - sum(count for _, count in prints)
    outcome, _ = body.result([*map(tracer_of, results[:at]), *range(len(results) - at)])
    for text, count in prints:
        current_trace().prints.append((text, tuple(results[at : at + count])))
        at += count
    return outcome
