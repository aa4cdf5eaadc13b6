"""Transforms of recorded functions: program in, program out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from staticgrad.ad.batch import batched
from staticgrad.ad.forward import tangents as push_forward
from staticgrad.ad.reverse import cotangents as pull_back
from staticgrad.errors import ArgumentError, AxisError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, full, new_input, zeros_like
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.ops.control import inline_calls
from staticgrad.ops.movement import transpose
from staticgrad.tracing.pytree import Signature, Tree, flatten, unflatten
from staticgrad.tracing.record import Program


class Source(Protocol):
    """What a transform is applied to: something that has a program for every signature."""

    name: str

    def program(self, signature: Signature) -> Program:
        """Return the program for a signature."""


class Transform(Hashable, Protocol):
    """A transform with its parameters; hashable, so that equal transforms of one function share their programs."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        """Return the transformed program."""


@dataclass(frozen=True)
class Grad:
    """The gradient of a scalar function, with or without its value."""

    argnums: int | tuple[int, ...]
    has_aux: bool
    with_value: bool

    @property
    def word(self) -> str:
        """The name users know it by."""
        return "value_and_grad" if self.with_value else "grad"

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, aux = _split_aux(result, self.has_aux, base.name, self.word)
        value = _scalar_output(head, graph.outputs, base.name, self.word)
        places, tree = selected(signature, self.argnums, base.name, self.word)
        inputs = [graph.inputs[k] for k in places]
        for k, v in zip(places, inputs, strict=True):
            if not is_float(v.dtype):
                label = graph.labels[k] or f"argument {k}"
                raise DTypeError(
                    at_user_line(
                        f"{self.word} of {base.name}: {label} has dtype {v.dtype}, which has no derivative; "
                        "pass floats (x.astype(float)), or choose other arguments with argnums"
                    )
                )
        seeds = [full((), 1, value.dtype)]
        found = pull_back([value], inputs, seeds)
        grads = [zeros_like(v) if g is None else g for g, v in zip(found, inputs, strict=True)]
        aux_leaves = flatten(aux)[0] if self.has_aux else []
        aux_values = [graph.outputs[k] for k in aux_leaves]
        slots = iter(range(1, 1 + len(grads)))
        grads_result = unflatten(tree, [next(slots) for _ in grads])
        aux_result = _renumber(aux, 1 + len(grads)) if self.has_aux else None
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


@dataclass(frozen=True)
class Jvp:
    """The value of a function and its derivative along tangents; called with (primals, tangents)."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        args, _ = unflatten(signature.tree, list(range(len(signature.avals))))
        primals, tangents = args
        primal_leaves, primal_tree = flatten((tuple(primals), {}))
        tangent_leaves, tangent_tree = flatten((tuple(tangents), {}))
        if primal_tree != tangent_tree:
            raise ArgumentError(at_user_line(f"jvp of {base.name}: primals have structure {primal_tree}, tangents {tangent_tree}"))
        inner = Signature(primal_tree, tuple(signature.avals[k] for k in primal_leaves), signature.static)
        program = base.program(inner)
        graph = inline_calls(program.graph)
        count = len(inner.avals)
        seeds: list[Value | None] = []
        extra: list[Value] = []
        for v, k in zip(graph.inputs[:count], tangent_leaves, strict=True):
            aval = signature.avals[k]
            tangent = new_input(aval, "tangent")
            extra.append(tangent)
            if aval.shape != v.shape:
                raise ShapeError(at_user_line(f"jvp of {base.name}: a primal is {v.aval}, its tangent {aval}"))
            if is_float(v.dtype) and not (is_float(aval.dtype) or aval.weak):
                raise DTypeError(at_user_line(f"jvp of {base.name}: a primal is {v.aval}, its tangent {aval}; tangents are floats"))
            seeds.append(cast(tangent, v.dtype) if is_float(v.dtype) else None)
        results, printed = graph.outputs[: program.results], graph.outputs[program.results :]
        found = push_forward(results, graph.inputs[:count], seeds)
        moved = [zeros_like(v) if t is None else t for t, v in zip(found, results, strict=True)]
        shape = unflatten(program.out_tree, list(range(len(moved))))
        shape_of_tangents = unflatten(program.out_tree, list(range(len(moved), 2 * len(moved))))
        out_tree = flatten((shape, shape_of_tangents))[1]
        order = dict(zip((*primal_leaves, *tangent_leaves), (*graph.inputs[:count], *extra), strict=True))
        inputs = (*(order[k] for k in range(len(signature.avals))), *program.captures)
        labels = (*(("tangent" if order[k] in extra else "") for k in range(len(signature.avals))), *("" for _ in program.captures))
        derived = Graph(inputs, (*results, *moved, *printed), tuple(graph.outputs), f"jvp({base.name})", labels)
        return Program(derived, signature, out_tree, program.guards, program.captures, program.prints)


@dataclass(frozen=True)
class Vjp:
    """A function together with its pullback: the graph takes the cotangents of all outputs as further inputs."""

    has_aux: bool = False

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, _ = _split_aux(result, self.has_aux, base.name, "vjp")
        heads = flatten(head)[0]
        count = len(signature.avals)
        seeds = [new_input(Aval(graph.outputs[k].shape, graph.outputs[k].dtype), "cotangent") for k in heads]
        wanted = [graph.inputs[k] for k in range(count)]
        usable = [s if is_float(s.dtype) else None for s in seeds]
        found = pull_back([graph.outputs[k] for k in heads], wanted, usable)
        grads = [zeros_like(v) if g is None else g for g, v in zip(found, wanted, strict=True)]
        inputs = (*graph.inputs[:count], *seeds, *program.captures)
        labels = (*graph.labels[:count], *("" for _ in seeds), *("" for _ in program.captures))
        derived = Graph(inputs, (*graph.outputs, *grads), tuple(graph.outputs), f"vjp({base.name})", labels)
        return Program(derived, signature, program.out_tree, program.guards, program.captures, program.prints)


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
        graph = inline_calls(program.graph, keep_rules=False)
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


def _split_aux(result: Any, has_aux: bool, name: str, word: str) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(at_user_line(f"{word} of {name} with has_aux=True: the function must return a pair (value, aux)"))
    return result


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


def selected(signature: Signature, argnums: int | tuple[int, ...], name: str, word: str) -> tuple[list[int], Tree]:
    """Return the leaves that `argnums` selects and the structure of the gradients: that of the argument, or a tuple of them."""
    args, _ = unflatten(signature.tree, list(range(len(signature.avals))))
    static = {int(place) for place, _ in signature.static if place.isdigit()}

    def pick(number: int) -> Any:
        if not -len(args) <= number < len(args):
            raise InvalidValueError(
                at_user_line(f"{word} of {name}: argnums={argnums}, but only {len(args)} positional arguments were given")
            )
        if number % len(args) in static:
            raise ArgumentError(at_user_line(f"{word} of {name}: argument {number} is static and has no derivative"))
        return args[number]

    chosen = pick(argnums) if isinstance(argnums, int) else tuple(pick(k) for k in argnums)
    return flatten(chosen)


def _renumber(tree: Any, start: int) -> Any:
    leaves, spec = flatten(tree)
    return unflatten(spec, list(range(start, start + len(leaves))))
