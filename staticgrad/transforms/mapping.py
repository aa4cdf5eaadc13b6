"""Functions mapped over an axis of their arguments."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import optree

from staticgrad.ad.batch import batched
from staticgrad.errors import ArgumentError, AxisError, InvalidValueError, ShapeError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, new_input
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.ops.movement import transpose
from staticgrad.ops.nested import in_front
from staticgrad.tracing.pytree import Signature, Tree, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import Source

Axis = int | None


class Axes(NamedTuple):
    """Which axes are mapped: integers and None, as a prefix of the structure of what they are for."""

    leaves: tuple[Axis, ...]
    tree: Tree

    @classmethod
    def of(cls, axes: Any, word: str) -> Axes:
        """Return axes as the user gives them, or the error that says what they can be."""
        leaves, tree = optree.tree_flatten(axes, none_is_leaf=True)
        try:
            return cls(tuple(None if axis is None else operator.index(axis) for axis in leaves), tree)
        except TypeError:
            raise ArgumentError(
                at_user_line(f"vmap: {word} holds integers and None, in containers like those they are for, not {axes!r}")
            ) from None

    def of_leaves(self, tree: Any, what: str) -> list[Axis]:
        """Return one axis for each leaf of `tree`."""
        axes = unflatten(self.tree, self.leaves)
        found = _of_leaves(axes, tree)
        if found is None:
            structure = optree.tree_structure(tree)
            raise InvalidValueError(at_user_line(f"{what} {axes!r} is no prefix of the structure {structure} that it is for"))
        return found


def _of_leaves(axes: Any, tree: Any) -> list[Axis] | None:
    if axes is None or isinstance(axes, int):
        return [axes] * len(flatten(tree)[0])
    one, other = _children(axes), _children(tree)
    if one.keys() != other.keys():
        return None
    parts = [_of_leaves(one[key], part) for key, part in other.items()]
    return None if any(part is None for part in parts) else [axis for part in parts for axis in part or ()]


def _children(tree: Any) -> Mapping[Hashable, Any]:
    """Return what a container holds, by key or place; a leaf is its own only content."""
    if optree.tree_is_leaf(tree):
        return {"": tree}
    children, _, entries, _ = optree.tree_flatten_one_level(tree)
    return dict(zip(entries, children, strict=True))


@dataclass(frozen=True)
class Vmap:
    """A function mapped over an axis of its arguments."""

    in_axes: Axes
    out_axes: Axes
    axis_size: int | None = None

    @classmethod
    def of(cls, in_axes: Any, out_axes: Any, axis_size: Any) -> Vmap:
        """Return the transform for what the user gave, or the error that says what can be given."""
        if not (in_axes is None or isinstance(in_axes, (tuple, list, SupportsIndex))):
            raise ArgumentError(
                at_user_line(f"vmap: in_axes is an integer, None or a tuple with an entry for each positional argument, not {in_axes!r}")
            )
        if axis_size is not None:
            if not isinstance(axis_size, SupportsIndex):
                raise ArgumentError(at_user_line(f"vmap: axis_size is an integer or None, not {axis_size!r}"))
            axis_size = operator.index(axis_size)
            if axis_size < 0:
                raise InvalidValueError(at_user_line(f"vmap: axis_size is {axis_size}, which is no length"))
        return cls(Axes.of(in_axes, "in_axes"), Axes.of(out_axes, "out_axes"), axis_size)

    def __call__(self, base: Source, signature: Signature) -> Program:
        what = f"vmap of {base.name}"
        axes = self._argument_axes(signature, what)
        size = self._size(signature, axes, what)
        inner = [aval if axis is None else aval.without((axis,)) for aval, axis in zip(signature.avals, axes, strict=True)]
        program = base.program(Signature(signature.tree, tuple(inner), signature.static))
        graph = inline_calls(program.graph)
        outer = [new_input(aval, label) for aval, label in zip(signature.avals, graph.labels, strict=False)]
        moved = [v if axis is None else _to_front(v, axis) for v, axis in zip(outer, axes, strict=True)]
        free = program.captures
        flags = [*(axis is not None for axis in axes), *(False for _ in free)]
        results, has = batched(graph.outputs, graph.inputs, [*moved, *free], flags, size)
        out_axes = self.out_axes.of_leaves(unflatten(program.out_tree, list(range(program.results))), f"{what}: out_axes")
        out_axes += [0] * program.printed
        outputs = [_result(v, mapped, axis, size, what) for v, mapped, axis in zip(results, has, out_axes, strict=True)]
        derived = Graph((*outer, *free), tuple(outputs), (), f"vmap({base.name})", graph.labels)
        return Program(derived, signature, program.out_tree, program.guards, program.captures, program.prints)

    def _argument_axes(self, signature: Signature, what: str) -> list[Axis]:
        """Return the axis of each argument that is mapped, counted from the front; keyword arguments are mapped along their first one."""
        args, kwargs = unflatten(signature.tree, list(range(len(signature.avals))))
        axes = self.in_axes.of_leaves(args, f"{what}: in_axes")
        axes += [0] * len(flatten(kwargs)[0])
        places = _places(signature)
        for k, (axis, aval) in enumerate(zip(axes, signature.avals, strict=True)):
            if axis is None:
                continue
            if not -aval.rank <= axis < aval.rank:
                way_out = (
                    "pass it by position, with None in in_axes" if k >= len(flatten(args)[0]) else "None in in_axes leaves it as it is"
                )
                raise AxisError(at_user_line(f"{what}: {places[k]} is {aval} and has no axis {axis} to be mapped; {way_out}"))
            axes[k] = axis % aval.rank
        return axes

    def _size(self, signature: Signature, axes: list[Axis], what: str) -> int:
        """Return the length of the mapped axes."""
        sizes = [None if axis is None else aval.shape[axis] for axis, aval in zip(axes, signature.avals, strict=True)]
        found = {size for size in (self.axis_size, *sizes) if size is not None}
        if not found:
            raise InvalidValueError(at_user_line(f"{what}: in_axes maps no argument; axis_size says how many results there shall be"))
        if len(found) > 1:
            listed = [
                f"{size} (axis {axis} of {place}, {aval})"
                for size, axis, place, aval in zip(sizes, axes, _places(signature), signature.avals, strict=True)
                if size is not None
            ]
            listed = [*([] if self.axis_size is None else [f"{self.axis_size} (axis_size)"]), *listed]
            raise ShapeError(at_user_line(f"{what}: the mapped axes differ in length: {', '.join(listed)}"))
        return found.pop()


def _places(signature: Signature) -> list[str]:
    """Return what each argument is called in messages: argument 0, argument 1["w"], argument x."""
    paths = optree.tree_paths(unflatten(signature.tree, list(range(len(signature.avals)))))
    return [f"argument {name}" + "".join(f"[{part!r}]" for part in rest) for _, name, *rest in paths]


def _result(x: Value, mapped: bool, axis: Axis, size: int, what: str) -> Value:
    """Return a result with its batch axis where it belongs."""
    if axis is None:
        if mapped:
            raise InvalidValueError(
                at_user_line(f"{what}: out_axes is None for a result that differs along the mapped axis, {x.aval} in all", x.node.line)
            )
        return x
    x = x if mapped else in_front(x, size)
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise AxisError(at_user_line(f"{what}: out_axes {axis} for a result of shape {x.shape}, mapped axis included"))
    order = list(range(1, rank))
    order.insert(axis % rank, 0)
    return transpose(x, tuple(order))


def _to_front(v: Value, axis: int) -> Value:
    return transpose(v, (axis, *(a for a in range(len(v.shape)) if a != axis)))
