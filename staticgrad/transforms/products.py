"""Products of the Jacobian with vectors, from either side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from staticgrad.ad.forward import tangents as push_forward
from staticgrad.ad.reverse import cotangents as pull_back
from staticgrad.errors import ArgumentError, ShapeError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, new_input, zeros_like
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.ops.control import inline_calls
from staticgrad.tracing.directions import check_direction
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import Source, renumber, split_aux


@dataclass(frozen=True)
class Jvp:
    """The value of a function and its derivative along tangents; called with (primals, tangents)."""

    word: str = "jvp"
    directions: str = "tangents"
    """What users call the tangents."""

    push: Callable[..., Sequence[Value | None]] = push_forward
    has_aux: bool = False

    def __call__(self, base: Source, signature: Signature) -> Program:
        args, _ = unflatten(signature.tree, list(range(len(signature.avals))))
        primals, tangents = args
        primal_leaves, primal_tree = flatten((tuple(primals), {}))
        tangent_leaves, tangent_tree = flatten((tuple(tangents), {}))
        if primal_tree != tangent_tree:
            raise ArgumentError(
                at_user_line(f"{self.word} of {base.name}: primals have structure {primal_tree}, {self.directions} {tangent_tree}")
            )
        inner = Signature(primal_tree, tuple(signature.avals[k] for k in primal_leaves), signature.static)
        program = base.program(inner)
        graph = inline_calls(program.graph)
        count = len(inner.avals)
        one = self.directions.removesuffix("s")
        seeds: list[Value | None] = []
        extra: list[Value] = []
        for v, k in zip(graph.inputs[:count], tangent_leaves, strict=True):
            aval = signature.avals[k]
            tangent = new_input(aval, "tangent")
            extra.append(tangent)
            if aval.shape != v.shape:
                raise ShapeError(at_user_line(f"{self.word} of {base.name}: a primal is {v.aval}, its {one} {aval}"))
            check_direction(aval, v.aval, f"{self.word} of {base.name}: a primal is {v.aval}, its {one} {aval}")
            seeds.append(cast(tangent, v.dtype) if is_float(v.dtype) else None)
        results, printed = graph.outputs[: program.results], graph.outputs[program.results :]
        head, aux = split_aux(unflatten(program.out_tree, list(range(program.results))), self.has_aux, base.name, self.word)
        heads = flatten(head)[0]
        found = self.push([results[k] for k in heads], graph.inputs[:count], seeds)
        moved = [zeros_like(results[k]) if t is None else t for t, k in zip(found, heads, strict=True)]
        tangent_of_head = renumber(head, len(results))
        out_tree = flatten((head, tangent_of_head, aux) if self.has_aux else (head, tangent_of_head))[1]
        order = dict(zip((*primal_leaves, *tangent_leaves), (*graph.inputs[:count], *extra), strict=True))
        inputs = (*(order[k] for k in range(len(signature.avals))), *program.captures)
        labels = (*(("tangent" if order[k] in extra else "") for k in range(len(signature.avals))), *("" for _ in program.captures))
        aux_values = [results[k] for k in flatten(aux)[0]] if self.has_aux else []
        outputs = (*(results[k] for k in heads), *moved, *aux_values, *printed)  # all in one go: the tangents are there from the start
        derived = Graph(inputs, outputs, outputs, f"{self.word}({base.name})", labels)
        return Program(derived, signature, out_tree, program.guards, program.captures, program.prints)


@dataclass(frozen=True)
class Linearize:
    """A function together with its pushforward: the graph takes the tangents of all arguments as further inputs."""

    has_aux: bool = False

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, _ = split_aux(result, self.has_aux, base.name, "linearize")
        heads = [graph.outputs[k] for k in flatten(head)[0]]
        primals = graph.inputs[: len(signature.avals)]
        seeds = [new_input(Aval(v.shape, v.dtype), "tangent") for v in primals]
        found = push_forward(heads, primals, [s if is_float(s.dtype) else None for s in seeds])
        moved = [zeros_like(v) if t is None else t for t, v in zip(found, heads, strict=True)]
        inputs = (*primals, *seeds, *program.captures)
        labels = (*graph.labels[: len(primals)], *("" for _ in seeds), *("" for _ in program.captures))
        derived = Graph(inputs, (*graph.outputs, *moved), tuple(graph.outputs), f"linearize({base.name})", labels)
        return Program(derived, signature, program.out_tree, program.guards, program.captures, program.prints)


@dataclass(frozen=True)
class Vjp:
    """A function together with its pullback: the graph takes the cotangents of all outputs as further inputs."""

    has_aux: bool = False
    wanted: tuple[int, ...] | None = None
    """The leaves of the arguments whose cotangents the pullback gives; None for all."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, _ = split_aux(result, self.has_aux, base.name, "vjp")
        heads = flatten(head)[0]
        count = len(signature.avals)
        seeds = [new_input(Aval(graph.outputs[k].shape, graph.outputs[k].dtype), "cotangent") for k in heads]
        wanted = [graph.inputs[k] for k in (range(count) if self.wanted is None else self.wanted)]
        usable = [s if is_float(s.dtype) else None for s in seeds]
        found = pull_back([graph.outputs[k] for k in heads], wanted, usable)
        grads = [zeros_like(v) if g is None else g for g, v in zip(found, wanted, strict=True)]
        inputs = (*graph.inputs[:count], *seeds, *program.captures)
        labels = (*graph.labels[:count], *("" for _ in seeds), *("" for _ in program.captures))
        derived = Graph(inputs, (*graph.outputs, *grads), tuple(graph.outputs), f"vjp({base.name})", labels)
        return Program(derived, signature, program.out_tree, program.guards, program.captures, program.prints)


@dataclass(frozen=True)
class Pullback:
    """The pullback alone: called with the arguments and a list of the outputs' cotangents, it gives a list of the arguments'."""

    wanted: tuple[int, ...]
    """The leaves of the arguments whose cotangents are given."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        args, kwargs = unflatten(signature.tree, list(range(len(signature.avals))))
        places, tree = flatten((args[:-1], kwargs))
        inner = Signature(tree, tuple(signature.avals[k] for k in places), signature.static)
        program = Vjp(wanted=self.wanted)(base, inner)
        graph, outputs = program.graph, program.graph.outputs[program.results + program.printed :]
        order = dict(zip((*places, *args[-1]), graph.inputs, strict=False))
        inputs = (*(order[k] for k in range(len(signature.avals))), *program.captures)
        derived = Graph(inputs, outputs, (), f"pullback({base.name})")
        return Program(derived, signature, flatten(list(range(len(outputs))))[1], program.guards, program.captures)
