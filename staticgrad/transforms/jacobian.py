"""Jacobians, Hessians, and products with Hessians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from staticgrad.ad.jacobian import blocks_by_pullback, blocks_by_pushforward
from staticgrad.ad.reverse import tangents_by_pullback
from staticgrad.errors import MissingDerivativeError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value
from staticgrad.ops.control import inline_calls
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import WAY_OUT, Derived, Source, check_float_results, check_floats, renumber, selected, split_aux
from staticgrad.transforms.gradient import Grad
from staticgrad.transforms.products import Jvp

MODES = ("auto", "reverse", "forward")


@dataclass(frozen=True)
class Jacobian:
    """The derivative of every output by every input: for each leaf of the result the structure of the chosen arguments."""

    argnums: int | tuple[int, ...]
    mode: str = "auto"
    has_aux: bool = False
    word: str = "jacobian"

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, aux = split_aux(result, self.has_aux, base.name, self.word)
        heads, head_tree = flatten(head)
        places, tree = selected(signature, self.argnums, base.name, self.word)
        outputs, inputs = [graph.outputs[k] for k in heads], [graph.inputs[k] for k in places]
        check_floats(graph, places, base.name, self.word)
        check_float_results(outputs, base.name, self.word, WAY_OUT)
        blocks = self._blocks(outputs, inputs)
        slots = iter(range(len(blocks)))
        jacobian = unflatten(head_tree, [unflatten(tree, [next(slots) for _ in inputs]) for _ in outputs])
        aux_values = [graph.outputs[k] for k in flatten(aux)[0]] if self.has_aux else []
        shape = (jacobian, renumber(aux, len(blocks))) if self.has_aux else jacobian
        printed = graph.outputs[program.results :]
        name = f"{self.word}({base.name})"
        derived = Graph(graph.inputs, (*blocks, *aux_values, *printed), tuple(graph.outputs), name, graph.labels)
        return Program(derived, signature, flatten(shape)[1], program.guards, program.captures, program.prints)

    def _blocks(self, outputs: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        """Return the blocks, output by output; mode auto takes what needs fewer passes and has rules."""
        if self.mode != "auto":
            return _MAKERS[self.mode](outputs, inputs)
        rows, columns = (sum(v.aval.size for v in values) for values in (outputs, inputs))
        first, second = ("reverse", "forward") if rows <= columns else ("forward", "reverse")
        try:
            return _MAKERS[first](outputs, inputs)
        except MissingDerivativeError as missing:
            try:
                return _MAKERS[second](outputs, inputs)
            except MissingDerivativeError:
                raise missing from None


def _by_reverse(outputs: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    return [block for y in outputs for block in blocks_by_pullback(y, inputs)]


def _by_forward(outputs: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    columns = [blocks_by_pushforward(outputs, x) for x in inputs]
    return [column[k] for k in range(len(outputs)) for column in columns]


_MAKERS = {"reverse": _by_reverse, "forward": _by_forward}


@dataclass(frozen=True)
class Hessian:
    """The second derivatives: forward over reverse, or reverse over reverse where there are rules for that mode alone."""

    argnums: int | tuple[int, ...]
    has_aux: bool = False

    def __call__(self, base: Source, signature: Signature) -> Program:
        first = Derived(base, Jacobian(self.argnums, "reverse", self.has_aux, "hessian"))
        try:
            return Jacobian(self.argnums, "forward", self.has_aux, "hessian")(first, signature)
        except MissingDerivativeError as missing:
            try:
                return Jacobian(self.argnums, "reverse", self.has_aux, "hessian")(first, signature)
            except MissingDerivativeError:
                raise missing from None


@dataclass(frozen=True)
class Hvp:
    """The product of the Hessian of a scalar function with vectors; called with (primals, vectors).

    That is forward over reverse, or two pullbacks of the gradient where there are rules for reverse mode alone.
    """

    count: int
    """How many primals there are: a single one has a product of its own structure, several have a tuple."""

    def __call__(self, base: Source, signature: Signature) -> Program:
        argnums = 0 if self.count == 1 else tuple(range(self.count))
        gradient = Derived(base, Grad(argnums, False, False, "hvp"))
        try:
            program = Jvp("hvp", "vectors")(gradient, signature)
        except MissingDerivativeError as missing:
            try:
                program = Jvp("hvp", "vectors", tangents_by_pullback)(gradient, signature)
            except MissingDerivativeError:
                raise missing from None
        _, tree = program.out_tree.children()
        moved = program.graph.outputs[tree.num_leaves :]
        graph = program.graph.with_outputs(moved, program.graph.primals)
        return Program(graph, signature, tree, program.guards, program.captures, program.prints)
