"""Jacobians and Hessians as the few sweeps that their sparsity leaves, and where in them each entry stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.ad.coloring import Coloring, color_jacobian, color_symmetric, least_colors
from staticgrad.ad.jacobian import sums_by_pullback, sums_by_pushforward
from staticgrad.errors import ArgumentError, InvalidValueError, MissingDerivativeError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ir.sparsity import pattern_of, with_small_indices
from staticgrad.ops.casts import cast
from staticgrad.ops.control import Call, inline_calls
from staticgrad.ops.movement import concatenate, reshape
from staticgrad.passes.subgraphs import tidy_subgraphs
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program
from staticgrad.transforms.base import WAY_OUT, Derived, Source, check_float_results, check_floats, renumber, selected, split_aux
from staticgrad.transforms.gradient import Grad

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_ELEMENTS = 500_000_000
"""How many numbers all sweeps together may give."""


@dataclass(frozen=True, eq=False)
class Sparsity:
    """Where a matrix of derivatives may differ from 0, and how it is computed."""

    pattern: csr_array
    coloring: Coloring
    places: np.ndarray
    """Where in the sweeps each entry stands."""


@dataclass(frozen=True, eq=False)
class SparseProgram(Program):
    """A program that gives the sweeps (with `has_aux` a pair of them and aux), together with what they mean.

    They are an array (colours, rows), or (colours, columns) in reverse mode; in mode "both" the two one after the other, flat.
    """

    sparsity: Sparsity | None = None


@dataclass(frozen=True)
class SparseJacobian:
    """The derivatives of all elements of the result by all elements of the chosen arguments, as sweeps."""

    argnums: int | tuple[int, ...]
    mode: str = "auto"
    """`"forward"`, `"reverse"`, `"auto"`, or, where the matrix is known to be symmetric, `"symmetric"`."""
    has_aux: bool = False
    word: str = "sparse_jacobian"

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)
        graph = inline_calls(program.graph)
        places, _ = selected(signature, self.argnums, base.name, self.word)
        result = unflatten(program.out_tree, list(range(program.results)))
        head, aux = split_aux(result, self.has_aux, base.name, self.word)
        outputs, inputs = [graph.outputs[k] for k in flatten(head)[0]], [graph.inputs[k] for k in places]
        what = f"{self.word} of {base.name}"
        if not inputs or not outputs or len(set(places)) < len(places):
            reason = "an argument is chosen twice" if inputs and outputs else "there are no arrays to differentiate"
            raise ArgumentError(at_user_line(f"{what}: argnums={self.argnums}: {reason}"))
        check_floats(graph, places, base.name, self.word)
        check_float_results(outputs, base.name, self.word, WAY_OUT)
        pattern = self._pattern(graph, outputs, places, what)
        dtype = np.result_type(*(x.dtype for x in inputs))
        coloring, sweeps = self._sweeps(pattern, outputs, inputs, dtype, what)
        aux_values = [graph.outputs[k] for k in flatten(aux)[0]] if self.has_aux else []
        tree = flatten((0, renumber(aux, 1)) if self.has_aux else 0)[1]
        printed = graph.outputs[program.results :]
        derived = Graph(
            graph.inputs, (cast(sweeps, dtype), *aux_values, *printed), tuple(graph.outputs), f"{self.word}({base.name})", graph.labels
        )
        sparsity = Sparsity(pattern, coloring, coloring.places(pattern))
        return SparseProgram(derived, signature, tree, program.guards, program.captures, program.prints, sparsity)

    def _pattern(self, graph: Graph, outputs: Sequence[Value], places: Sequence[int], what: str) -> csr_array:
        """Return where the matrix may differ from 0: loops say less of what they do when they do nothing in vain."""
        tidied = tidy_subgraphs(graph.with_outputs(outputs))
        pattern = pattern_of(tidied.outputs, [tidied.inputs[k] for k in places], what)
        if self.mode == "symmetric":  # what is 0 on one side of the diagonal is so on the other
            pattern = pattern.multiply(pattern.T).tocsr()
            pattern.sort_indices()
        return with_small_indices(pattern)

    def _sweeps(
        self, pattern: csr_array, outputs: Sequence[Value], inputs: Sequence[Value], dtype: np.dtype, what: str
    ) -> tuple[Coloring, Value]:
        """Return a colouring and its sweeps; mode auto takes what needs fewer of them and has rules."""
        rows, columns = pattern.shape

        def check(count: int, elements: int) -> None:
            if elements > MOST_ELEMENTS:
                raise InvalidValueError(
                    at_user_line(
                        f"{what}: with {count} colours, {count} sweeps of {elements // count} elements each, it would take "
                        f"{8e-9 * elements:.3g} GB; products with vectors need no matrix: sg.jvp, sg.vjp, sg.hvp"
                    )
                )

        def made(coloring: Coloring) -> tuple[Coloring, Value]:
            (by_column, forward), (by_row, reverse) = coloring.sides(columns)
            check(coloring.count, forward * rows + reverse * columns)
            if not reverse:
                return coloring, sums_by_pushforward(outputs, inputs, by_column, forward)
            pulled = sums_by_pullback(outputs, inputs, by_row, reverse)
            if not forward:
                return coloring, pulled
            pushed = sums_by_pushforward(outputs, inputs, by_column, forward)
            return coloring, concatenate([reshape(cast(each, dtype), (each.aval.size,)) for each in (pushed, pulled)], 0)

        if self.mode == "symmetric":
            return made(color_symmetric(pattern))
        least = least_colors(pattern)
        sizes = {"forward": rows, "reverse": columns, "both": min(rows, columns)}
        check(*min((least[mode], least[mode] * sizes[mode]) for mode in (least if self.mode == "auto" else [self.mode])))
        coloring = color_jacobian(pattern, self.mode)
        others = [mode for mode in ("forward", "reverse") if self.mode == "auto" and mode != coloring.mode]
        while True:
            try:
                return made(coloring)
            except MissingDerivativeError:
                if not others:
                    raise
                coloring = color_jacobian(pattern, others.pop())


@dataclass(frozen=True)
class SparseHessian:
    """The second derivatives of a scalar function, as sweeps of its gradient."""

    argnums: int | tuple[int, ...]
    has_aux: bool = False
    word: str = "sparse_hessian"

    def __call__(self, base: Source, signature: Signature) -> Program:
        mode = "auto" if _has_rules_by_hand(inline_calls(base.program(signature).graph)) else "symmetric"
        first = Derived(base, Grad(self.argnums, self.has_aux, False, self.word))
        return SparseJacobian(self.argnums, mode, self.has_aux, self.word)(first, signature)


def _has_rules_by_hand(graph: Graph) -> bool:
    """Return whether some derivatives need not be those of any function, so that second ones need not be symmetric."""
    ops = [node.op for node in graph.nodes]
    return any(isinstance(op, Call) or op.kind == "foreign" or any(map(_has_rules_by_hand, op.subgraphs)) for op in ops)
