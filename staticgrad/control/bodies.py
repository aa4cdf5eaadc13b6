"""The functions that control flow is given, as graphs that fit together: equal operands, equal results, a carry that stays what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, substitution
from staticgrad.ir.node import Value, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.bodies import Body, record_body
from staticgrad.tracing.functions.arguments import whole_number
from staticgrad.tracing.lift import convert, lift, strong
from staticgrad.tracing.pytree import Tree, argument_array, flatten, unflatten
from staticgrad.tracing.tracer import Tracer


def names_of(functions: Sequence[Callable[..., Any]]) -> list[str]:
    """Return what to call functions in messages: by name, or by place where names do not tell them apart."""
    names = [getattr(function, "__name__", type(function).__name__) for function in functions]
    return [name if names.count(name) == 1 else f"{name} (number {k})" for k, name in enumerate(names)]


def operand(leaf: Any, what: str) -> Value:
    """Return a leaf of the arguments as a value."""
    if not isinstance(leaf, Tracer):
        try:
            argument_array(leaf)
        except ArgumentError as error:
            raise ArgumentError(f"{what}: {error}") from None
    return lift(leaf)


def joined(bodies: Sequence[Body]) -> tuple[list[Value], list[Graph]]:
    """Return what several functions close over, each value once, and their graphs, which take all of it ahead of their arguments."""
    captures = list(dict.fromkeys(v for body in bodies for v in body.captures))
    if len(bodies) == 1:
        return captures, [bodies[0].graph]
    graphs = []
    for body in bodies:
        known = dict(zip(body.captures, body.graph.inputs, strict=False))
        own = [known[v] if v in known else new_input(v.aval) for v in captures]
        rest = len(body.captures)
        labels = ("",) * len(captures) + body.graph.labels[rest:]
        graphs.append(replace(body.graph, inputs=(*own, *body.graph.inputs[rest:]), labels=labels))
    return captures, graphs


def converted(graph: Graph, dtypes: Sequence[np.dtype]) -> Graph:
    """Return the graph with its outputs in these dtypes."""
    return graph.with_outputs([convert(v, dtype) for v, dtype in zip(graph.outputs, dtypes, strict=True)])


def without_step(graph: Graph, first: int) -> Graph:
    """Return the graph whose first input, a number from `first` on, is counted from 0."""
    if not first:
        return graph
    step = new_input(Aval((), INT64), "step")
    made = substitution(graph.outputs, {graph.inputs[0]: step + first, **{v: v for v in graph.inputs[1:]}})
    return Graph((step, *graph.inputs[1:]), tuple(made[v] for v in graph.outputs), (), graph.name)


def carried(
    what: str,
    function: Callable[..., Any],
    tree: Tree,
    leaves: Sequence[Any],
    ahead: Sequence[Aval] = (),
    behind: tuple[Sequence[Aval], Any] | None = None,
) -> tuple[list[Value], Body]:
    """Return what a carry starts as, and the function that takes it from one step to the next.

    It takes (*ahead, carry), and x of the avals and the structure `behind`, with which it returns the pair of the carry and the rest.
    Python numbers become what the function makes of them.
    """
    values = [operand(leaf, f"{what}: a part of the initial value") for leaf in leaves]
    start = len(ahead)
    carry = unflatten(tree, list(range(start, start + len(values))))
    more, x = behind if behind is not None else ((), None)
    after = unflatten(flatten(x)[1], list(range(start + len(values), start + len(values) + len(more))))
    arguments = (*range(start), carry) if behind is None else (*range(start), carry, after)
    args_tree = flatten(arguments)[1]
    name = getattr(function, "__name__", type(function).__name__)
    while True:
        body = record_body(function, args_tree, [*ahead, *(v.aval for v in values), *more], f"the body of {what}")
        returned = body.result(range(len(body.avals)))
        if behind is not None:
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise ArgumentError(at_user_line(f"{what}: {name} has to return a pair, (carry, y), not {_shown(returned, body)}"))
            returned = returned[0]
        places, found_tree = flatten(returned)
        if found_tree != tree:
            raise ArgumentError(at_user_line(f"{what}: the initial value has structure {tree}, {name} returns {found_tree}"))
        made = [body.avals[k] for k in places]
        settled = [_settled(v, aval, k, what, name) for k, (v, aval) in enumerate(zip(values, made, strict=True))]
        if all(new is old for new, old in zip(settled, values, strict=True)):
            break
        values = settled
    dtypes = [aval.dtype for aval in body.avals]
    for place, v in zip(places, values, strict=True):
        dtypes[place] = v.dtype
    return values, replace(body, graph=converted(body.graph, dtypes))


def _settled(value: Value, after: Aval, number: int, what: str, name: str) -> Value:
    """Return what a part of the carry has to start as so that a step keeps its shape and dtype."""
    before = value.aval
    if before.shape != after.shape:
        raise ShapeError(at_user_line(f"{what}: part {number} of the carry starts as {before}, and {name} makes it {after}"))
    if before.dtype == after.dtype:
        return strong(value) if before.weak and not after.weak else value
    if before.weak and gives_way(before.dtype, after.dtype):
        return convert(value, after.dtype)
    if after.weak and gives_way(after.dtype, before.dtype):
        return value
    raise DTypeError(
        at_user_line(
            f"{what}: part {number} of the carry starts as {before}, and {name} makes it {after}: "
            f"start with {after.dtype}, or return it .astype(np.{before.dtype})"
        )
    )


def gives_way(number: np.dtype, dtype: np.dtype) -> bool:
    """Return whether a Python number takes on a dtype beside it: 1 any but bool, 1.5 that of floats alone."""
    return dtype.kind == "f" or (number.kind == "i" and dtype.kind in "iu")


def _shown(result: Any, body: Body) -> str:
    """Return what a result is, whose leaves are numbers of values."""
    if isinstance(result, int):
        return f"an array ({body.avals[result]})"
    return type(result).__name__ + (f" of {len(result)}" if isinstance(result, (tuple, list)) else "")


def known_number(number: Any, what: str) -> int:
    """Return a whole number that is known when the function is traced, or raise for what is none."""
    if isinstance(number, Tracer):
        raise ArgumentError(
            at_user_line(f"{what} has to be known when the function is traced; for a number that is not, use sg.while_loop")
        )
    return whole_number(number, what)


def unrolled(unroll: Any, what: str) -> None:
    """Raise unless `unroll` is what `jax.lax` takes: None, a bool, or how many steps to write out in a row.

    It changes no result. Loops are left as they are here: LLVM unrolls short ones by itself, and a long body takes long to compile.
    """
    if unroll is not None and not isinstance(unroll, (bool, np.bool_)) and known_number(unroll, f"{what}: unroll") < 1:
        raise InvalidValueError(at_user_line(f"{what}: unroll={unroll}: give a number from 1 on, or True for all steps"))


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function under a name for messages."""
    function.__name__ = name
    return function
