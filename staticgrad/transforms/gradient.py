"""Gradients of scalar functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.ad.reverse import cotangents as pull_back
from staticgrad.errors import ArgumentError, DTypeError, ShapeError
from staticgrad.ir.aval import is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import Source, check_floats, renumber, selected, split_aux


@dataclass(frozen=True)
class Grad:
    """The gradient of a scalar function, with or without its value."""

    argnums: int | tuple[int, ...]
    has_aux: bool
    with_value: bool
    word: str
    """The name users know it by."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, aux = split_aux(result, self.has_aux, base.name, self.word)
        value = _scalar_output(head, graph.outputs, base.name, self.word)
        places, tree = selected(signature, self.argnums, base.name, self.word)
        inputs = [graph.inputs[k] for k in places]
        check_floats(graph, places, base.name, self.word)
        seeds = [full((), 1, value.dtype)]
        found = pull_back([value], inputs, seeds)
        grads = [zeros_like(v) if g is None else g for g, v in zip(found, inputs, strict=True)]
        aux_leaves = flatten(aux)[0] if self.has_aux else []
        aux_values = [graph.outputs[k] for k in aux_leaves]
        slots = iter(range(1, 1 + len(grads)))
        grads_result = unflatten(tree, [next(slots) for _ in grads])
        aux_result = renumber(aux, 1 + len(grads)) if self.has_aux else None
        outputs = [value, *grads, *aux_values]
        if self.with_value:
            shape: Any = ((0, aux_result), grads_result) if self.has_aux else (0, grads_result)
        else:
            shape = (grads_result, aux_result) if self.has_aux else grads_result
        kept, out_tree = flatten(shape)
        name = f"{self.word}({base.name})"
        printed = graph.outputs[program.results :]
        primals = (value, *aux_values, *printed)
        derived = Graph(graph.inputs, (*(outputs[k] for k in kept), *printed), primals, name, graph.labels)
        return Program(derived, signature, out_tree, program.guards, program.captures, program.prints)


def _scalar_output(head: Any, outputs: Sequence[Value], name: str, word: str) -> Value:
    leaves = flatten(head)[0]
    if len(leaves) != 1 or not isinstance(head, int):
        raise ArgumentError(
            at_user_line(
                f"{word} of {name}: the function must return one scalar, not a container of {len(leaves)} arrays; "
                "for (value, aux) pass has_aux=True, for more outputs use sg.vjp"
            )
        )
    value: Value = outputs[leaves[0]]
    if value.shape:
        raise ShapeError(
            at_user_line(f"{word} of {name}: the function returned shape {value.shape}; sum it to a scalar, or use sg.jacobian or sg.vjp")
        )
    if not is_float(value.dtype):
        raise DTypeError(at_user_line(f"{word} of {name}: the function returned {value.dtype}, which has no derivative; return a float"))
    return value
