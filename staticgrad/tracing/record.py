"""Recording: run the user's function once on tracers and keep the graph."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, LeakedTracerError, RecursionTraceError, StaticgradError, TraceError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Input, Value, new_input
from staticgrad.ir.source import at_user_line, user_stack_level
from staticgrad.tracing.context import Trace, _stack
from staticgrad.tracing.guards import Guards
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import Signature, Tree, flatten, leaf_names, unflatten
from staticgrad.tracing.tracer import Tracer, argument_tracer


@dataclass(frozen=True, eq=False)
class Program:
    """A recorded function: its graph over the leaves of the arguments, and the structure of its result."""

    graph: Graph
    signature: Signature
    out_tree: Tree
    guards: Guards | None = None
    captures: tuple[Value, ...] = ()
    prints: tuple[tuple[str, int], ...] = ()
    """What `sg.debug.print` shows after a call: formats and their numbers of values, outputs behind the results."""

    @property
    def results(self) -> int:
        """How many outputs of the graph are results of the function."""
        return int(self.out_tree.num_leaves)

    @property
    def printed(self) -> int:
        """How many outputs, behind the results, are only printed."""
        return sum(count for _, count in self.prints)


def record(function: Callable[..., Any], signature: Signature, name: str) -> Program:
    """Return the program of `function` for a signature, by running it once.

    What it closes over of traces under way becomes `captures`: inputs of the graph behind those of the signature.
    """
    guards = Guards.collect(function)
    lock = threading.Lock()
    with lock, Trace(name, lock) as trace:
        names = leaf_names(signature.tree, parameter_names(function))
        inputs = tuple(new_input(aval, label, trace) for aval, label in zip(signature.avals, names, strict=True))
        tracers = [argument_tracer(v, trace, label) for v, label in zip(inputs, names, strict=True)]
        args, kwargs = arguments(signature, tracers)
        check_arguments(function, args, kwargs, name)
        result = run_traced(function, args, kwargs, name)
        leaves, out_tree = flatten(result)
        outputs = (*(output_value(leaf, name) for leaf in leaves), *(v for _, values in trace.prints for v in values))
        prints = tuple((text, len(values)) for text, values in trace.prints)
    guards.warn_about_side_effects(user_stack_level() + 1)
    guards.warn_about_random(user_stack_level() + 1)
    graph = Graph(inputs, outputs, (), name, tuple(names))
    captures = graph.free
    for value in captures:
        owner = value.op.owner if isinstance(value.op, Input) else None
        if not isinstance(owner, Trace) or owner not in _stack.traces:
            raise LeakedTracerError(at_user_line(f"{name} uses an array traced by another function that has ended"))
    if captures:
        graph = Graph((*inputs, *captures), outputs, (), name, (*graph.labels, *("" for _ in captures)))
    return Program(graph, signature, out_tree, guards, captures, prints)


def show(prints: Sequence[tuple[str, int]], values: Sequence[Any]) -> None:
    """Print the values that `sg.debug.print` asked for, in order."""
    at = 0
    for text, count in prints:
        print(text.format(*values[at : at + count]))
        at += count


def arguments(signature: Signature, leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of a signature, static values in place."""
    args, kwargs = unflatten(signature.tree, leaves)
    positional = list(args)
    named = dict(kwargs)
    for place, value in signature.static:
        if place.isdigit():
            positional[int(place)] = value
        else:
            named[place] = value
    return tuple(positional), named


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the positional parameters of a function."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def check_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
    """Raise `ArgumentError` where `function` cannot be called with these arguments."""
    try:
        known = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        known.bind(*args, **kwargs)
    except TypeError as error:
        plain = known.replace(parameters=[p.replace(annotation=p.empty) for p in known.parameters.values()], return_annotation=known.empty)
        raise ArgumentError(at_user_line(f"{name}{plain}: {error}")) from None


def called(function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    """Return what `function` returns; arguments that it cannot take are an `ArgumentError`."""
    try:
        return function(*args, **kwargs)
    except TypeError:
        check_arguments(function, args, kwargs, name)
        raise


def checked(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator for functions that users are handed under `name`: arguments that they cannot take are an `ArgumentError`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return called(function, name, *args, **kwargs)

        return run

    return decorate


def run_traced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """Return what `function` returns for tracers, or raise what a user should see of what went wrong."""
    try:
        return function(*args, **kwargs)
    except RecursionError as error:
        raise RecursionTraceError(
            f"{name} calls itself without end while it is traced: the depth cannot depend on a traced value"
        ) from error
    except StaticgradError:
        raise
    except Exception as error:
        if type(error).__module__.startswith("numba.") or "cannot determine Numba type" in str(error):
            raise TraceError(
                at_user_line(f"a Numba function was called on traced arrays while {name} is traced; wrap it with sg.njit_op, or inline it")
            ) from error
        cause = _cause(error)
        if cause is None:
            raise
        if isinstance(error, ValueError) and "setting an array element" in str(error):
            raise TraceError(
                f"a traced value was written into a real NumPy array, which cannot hold it; make the array with snp.zeros(...) "
                f"(staticgrad.numpy), np.zeros_like(x) of a traced x, or x.copy()\n  {cause}"
            ) from error
        raise cause from error


def _cause(error: BaseException) -> StaticgradError | None:
    """Return the staticgrad error that NumPy wrapped into `error`."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        if isinstance(step, StaticgradError):
            return step
        seen.add(id(step))
        step = step.__cause__ or step.__context__
    return None


def output_value(leaf: Any, name: str) -> Value:
    """Return a leaf of the result of a traced function as a value."""
    if isinstance(leaf, (Tracer, np.ndarray, np.generic, bool, int, float)) and not isinstance(leaf, np.str_):
        return lift(leaf)
    raise ArgumentError(
        at_user_line(
            f"{name} returned {type(leaf).__name__} ({str(leaf)[:60]!r}); a traced function returns arrays, numbers or containers of these"
        )
    )
