"""Recording a function that is a part of the trace under way, such as the body of a loop: a sub-graph.

    def body(carry, x): return carry + a * x, carry      ->      body(a, carry, x): carry + a * x, carry

What the function closes over of the traces around it becomes operands: values that were there before it was called are not computed
again inside of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.errors import ArgumentError, UnsupportedError
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph, substitution
from staticgrad.ir.node import Constant, Input, Value, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.movement import Broadcast
from staticgrad.tracing.context import Trace
from staticgrad.tracing.pytree import Tree, flatten, leaf_names, unflatten
from staticgrad.tracing.record import check_arguments, output_value, parameter_names, run_traced
from staticgrad.tracing.tracer import argument_tracer


@dataclass(frozen=True, eq=False)
class Body:
    """A recorded function: `graph` takes (*captures, *arguments)."""

    graph: Graph
    captures: tuple[Value, ...]
    out_tree: Tree

    def result(self, leaves: Sequence[Any]) -> Any:
        """Return leaves in the structure of the function's result."""
        return unflatten(self.out_tree, list(leaves))

    @property
    def avals(self) -> list[Aval]:
        """Those of the leaves of the result."""
        return [value.aval for value in self.graph.outputs]


def record_body(function: Callable[..., Any], tree: Tree, avals: Sequence[Aval], what: str) -> Body:
    """Return what `function` does with arguments of these avals, which make up the tuple of structure `tree`; `what` it is for messages."""
    check_callable(function, what)
    name = getattr(function, "__name__", type(function).__name__)
    lock = threading.Lock()
    with lock, Trace(f"{what} {name}", lock) as trace:
        args_tree = flatten((unflatten(tree, list(range(len(avals)))), {}))[1]
        labels = leaf_names(args_tree, parameter_names(function))
        inputs = [new_input(aval, label, trace) for aval, label in zip(avals, labels, strict=True)]
        args = unflatten(tree, [argument_tracer(v, trace, label) for v, label in zip(inputs, labels, strict=True)])
        check_arguments(function, args, {}, f"{what} {name}")
        leaves, out_tree = flatten(run_traced(function, args, {}, name))
        outputs = [output_value(leaf, f"{what} {name}") for leaf in leaves]
    if trace.prints:
        raise UnsupportedError(
            at_user_line(
                f"sg.debug.print in {what} {name}: values are printed when all kernels have finished, so it cannot show every step or "
                "branch; return the values (of a loop: stacked by sg.scan) and print them outside"
            )
        )
    captures = _captured(outputs, inputs, trace.captures)
    fresh = [new_input(v.aval) for v in captures]
    image = substitution(outputs, dict(zip(captures, fresh, strict=True)))
    known = [v.op.label if isinstance(v.op, Input) else "" for v in captures]
    graph = Graph((*fresh, *inputs), tuple(image[v] for v in outputs), (), name, (*known, *labels))
    return Body(graph, tuple(captures), out_tree)


def check_callable(function: Any, what: str) -> None:
    """Raise unless `function` can be called."""
    if not callable(function):
        raise ArgumentError(
            at_user_line(f"{what} has to be a function, and {type(function).__name__} {str(function)[:60]!r} is not callable")
        )


def _captured(outputs: Sequence[Value], inputs: Sequence[Value], read: Collection[Value]) -> list[Value]:
    """Return what `outputs` are computed from besides `inputs`: values `read` in enclosing traces, and what constants alone give.

    An enclosing trace may have an equal value that was not read: what a branch computes is not to be computed whatever is chosen.
    """
    found: dict[Value, None] = {}
    seen = {value.node for value in inputs}
    stack = list(reversed(outputs))
    while stack:
        value = stack.pop()
        if value.node.is_fixed:
            if not _is_plain(value):
                found[value] = None
        elif value in read or (isinstance(value.op, Input) and value.node not in seen):
            found[value] = None
        elif value.node not in seen:
            seen.add(value.node)
            stack.extend(reversed(value.node.inputs))
    return list(found)


def _is_plain(value: Value) -> bool:
    """Return whether nothing is computed: a constant array, or a number everywhere."""
    while isinstance(value.op, Broadcast):
        value = value.node.inputs[0]
    return isinstance(value.op, Constant)
