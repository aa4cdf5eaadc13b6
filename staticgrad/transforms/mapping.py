"""Functions mapped over an axis of their arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from staticgrad.ad.batch import batched
from staticgrad.errors import ArgumentError, AxisError, InvalidValueError, ShapeError
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.ops.movement import transpose
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import Source


@dataclass(frozen=True)
class Vmap:
    """A function mapped over an axis of its arguments."""

    in_axes: Any
    out_axes: Any

    def __call__(self, base: Source, signature: Signature) -> Program:
        args, kwargs = unflatten(signature.tree, list(range(len(signature.avals))))
        axes = _leaf_axes(self.in_axes, args, base.name)
        places = flatten(args)[0]
        axis_of: dict[int, int | None] = {k: (0 if signature.avals[k].rank else None) for k in flatten(kwargs)[0]}
        axis_of |= dict(zip(places, axes, strict=True))
        size: int | None = None
        inner: list[Aval] = []
        for k, aval in enumerate(signature.avals):
            axis = axis_of[k]
            if axis is None:
                inner.append(aval)
                continue
            if not -aval.rank <= axis < aval.rank:
                raise AxisError(at_user_line(f"vmap of {base.name}: axis {axis} of an argument of shape {aval.shape}"))
            axis_of[k] = axis = axis % aval.rank
            if size is not None and aval.shape[axis] != size:
                raise ShapeError(at_user_line(f"vmap of {base.name}: mapped axes differ in size ({size} and {aval.shape[axis]})"))
            size = aval.shape[axis]
            inner.append(aval.without((axis,)))
        if size is None:
            raise InvalidValueError(at_user_line(f"vmap of {base.name}: in_axes maps no argument"))
        program = base.program(Signature(signature.tree, tuple(inner), signature.static))
        graph = inline_calls(program.graph)
        outer = [new_input(aval, label) for aval, label in zip(signature.avals, graph.labels, strict=False)]
        moved = [v if axis_of[k] is None else _to_front(v, axis_of[k] or 0) for k, v in enumerate(outer)]
        flags = [axis_of[k] is not None for k in range(len(outer))]
        free = list(program.captures)
        results = batched(graph.outputs, graph.inputs, [*moved, *free], [*flags, *(False for _ in free)], size)
        tree_of_results = unflatten(program.out_tree, list(range(program.results)))
        out_axes = _leaf_axes(self.out_axes, tree_of_results, base.name)
        outputs = []
        for v, axis in zip(results[: program.results], out_axes, strict=True):
            if axis is None or not -len(v.shape) <= axis < len(v.shape):
                raise AxisError(at_user_line(f"vmap of {base.name}: out_axes {axis} for a result of shape {v.shape}"))
            outputs.append(_from_front(v, axis % len(v.shape)))
        derived = Graph((*outer, *free), (*outputs, *results[program.results :]), (), f"vmap({base.name})", graph.labels)
        return Program(derived, signature, program.out_tree, program.guards, program.captures, program.prints)


def _to_front(v: Value, axis: int) -> Value:
    return transpose(v, (axis, *(a for a in range(len(v.shape)) if a != axis)))


def _from_front(v: Value, axis: int) -> Value:
    order = list(range(1, len(v.shape)))
    order.insert(axis, 0)
    return transpose(v, tuple(order))


def _leaf_axes(axes: Any, tree: Any, name: str) -> list[int | None]:
    """Return one axis a leaf of `tree` from an axis specification that is a prefix of it."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(flatten(tree)[0])
    if isinstance(axes, (tuple, list)) and isinstance(tree, (tuple, list)) and len(axes) == len(tree):
        return [axis for a, t in zip(axes, tree, strict=True) for axis in _leaf_axes(a, t, name)]
    if isinstance(axes, dict) and isinstance(tree, dict) and axes.keys() == tree.keys():
        return [axis for key in sorted(tree) for axis in _leaf_axes(axes[key], tree[key], name)]
    raise ArgumentError(at_user_line(f"vmap of {name}: the axes {axes!r} do not match the structure of what they are for"))
