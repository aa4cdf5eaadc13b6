"""Choosing between computations: one of several sub-graphs runs, all of them on the same operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Reached
from staticgrad.ir.node import Value, apply, apply_all, constant, full
from staticgrad.ir.op import register
from staticgrad.ir.sparsity import divided, of_floats, related, relation_of, union, width_of
from staticgrad.ops.casts import cast
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.extrema import maximum, minimum
from staticgrad.ops.leaving_out import have_their_own, spread, taking_part
from staticgrad.ops.nested import (
    Nested,
    Trimmed,
    check_operands,
    in_front,
    is_active,
    mapped,
    may_fail,
    plain,
    pulled,
    pushed,
    read_inputs,
    trim,
    with_inputs,
    zeros,
)
from staticgrad.ops.reduce import Any_

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@register
@dataclass(frozen=True, eq=False)
class Switch(Nested):
    """What the branch of a number makes of the operands: (i64[], *x) -> branches[i](*x); numbers outside mean the first or last one.

    The derivative of a branch computes it anew: what the branches would have to save differs.
    """

    branches: tuple[Graph, ...]
    name = "switch"
    own = 1

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        return self.branches

    @property
    def constants(self) -> int:
        return len(self.branches[0].inputs)

    def with_subgraphs(self, graphs: Sequence[Graph], constants: int) -> Switch:
        return replace(self, branches=tuple(graphs))

    def infer(self, index: Aval, *avals: Aval) -> tuple[Aval, ...]:
        if plain(index) != Aval((), INT64):
            raise VerificationError(f"switch: the number of the branch is {index}")
        results = []
        for branch in self.branches:
            check_operands(self.name, branch, avals)
            results.append(tuple(plain(value.aval) for value in branch.outputs))
        if any(result != results[0] for result in results):
            raise VerificationError(f"switch: the branches give {results}")
        return results[0]

    def numpy(self, index: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(interpret(self.branches[min(max(int(index), 0), len(self.branches) - 1)], arrays))

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        given = of_floats(node.avals[1:], node.found[1:], width_of(node.found))
        number = node.known[0]
        branches = self.branches if number is None else [self.branches[int(np.clip(number, 0, len(self.branches) - 1))]]
        whole = union(related(relation_of(_with_known(branch, node.known[1:])), given) for branch in branches)
        assert whole is not None  # there is at least one branch
        return divided(whole, [y.size for y in node.outputs])

    def jvp(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        flags = [is_active(value, tangent is not None) for value, tangent in zip(x[1:], tangents[1:], strict=True)]
        moved = [pushed(branch, flags) for branch in self.branches]
        has = [any(found[k] is not None for _, found in moved) for k in range(len(y))]
        graphs = []
        for branch, (seeds, found) in zip(self.branches, moved, strict=True):
            made = [zeros(v.aval) if t is None else t for t, v, wanted in zip(found, branch.outputs, has, strict=True) if wanted]
            graphs.append(Graph((*branch.inputs, *seeds), tuple(made), (), f"tangent of {branch.name}", branch.labels))
        given = [tangent for tangent, flag in zip(tangents[1:], flags, strict=True) if flag and tangent is not None]
        results = iter(switch(x[0], graphs, *x[1:], *given) if any(has) else ())
        return tuple(next(results) if wanted else None for wanted in has)

    def vjp(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> tuple[Value | None, ...]:
        flags = [is_active(value, each is not None) for value, each in zip(y, g, strict=True)]
        pulls = [pulled(branch, flags) for branch in self.branches]
        has = [any(found[k] is not None for _, found in pulls) for k in range(len(x) - 1)]
        graphs = []
        for branch, (seeds, found) in zip(self.branches, pulls, strict=True):
            made = [zeros(v.aval) if c is None else c for c, v, wanted in zip(found, branch.inputs, has, strict=True) if wanted]
            graphs.append(Graph((*branch.inputs, *seeds), tuple(made), (), f"pullback of {branch.name}", branch.labels))
        given = [each for each, flag in zip(g, flags, strict=True) if flag and each is not None]
        results = iter(switch(x[0], graphs, *x[1:], *given) if any(has) else ())
        return (None, *(next(results) if wanted else None for wanted in has))

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> tuple[Value, ...]:
        """One branch runs where all take the same one; otherwise all of them do, and each element picks its own."""
        flags, everything = list(batched[1:]), [True] * len(self.branches[0].outputs)
        operands = list(x[1:])
        if batched[0]:
            own = have_their_own(flags, self.branches[0].inputs)
            operands = [in_front(v, size) if has and not had else v for v, has, had in zip(operands, own, flags, strict=True)]
            flags = own
        graphs = []
        for branch in self.branches:
            inputs, outputs = mapped(branch, flags, size, everything)
            graphs.append(Graph(tuple(inputs), tuple(outputs), (), branch.name, branch.labels))
        if not batched[0]:
            return switch(x[0], graphs, *operands)
        last = len(graphs) - 1
        numbers = minimum(maximum(x[0], full((size,), 0, INT64)), full((size,), last, INT64))
        chosen: list[Value] = []
        for number, graph in reversed(list(enumerate(graphs))):
            is_it = equal(numbers, full((size,), number, INT64))
            fails = may_fail(graph)
            given = taking_part(is_it, operands, flags, fails)
            result = _unless_nobody_does(is_it, graph, given) if fails else inline(graph, given)
            chosen = [where(spread(is_it, v), v, other) for v, other in zip(result, chosen, strict=True)] if chosen else list(result)
        return tuple(chosen)

    def trimmed(self, read: Sequence[bool]) -> Trimmed:
        kept = [k for k, flag in enumerate(read) if flag]
        graphs = [trim(branch.with_outputs([branch.outputs[k] for k in kept])) for branch in self.branches]
        needed = [any(flags) for flags in zip(*map(read_inputs, graphs), strict=True)]
        places = [k for k, flag in enumerate(needed) if flag]
        return replace(self, branches=tuple(with_inputs(g, places) for g in graphs)), [0, *(k + 1 for k in places)], kept


def switch(index: Value, branches: Sequence[Graph], *x: Value) -> tuple[Value, ...]:
    """Return the outputs of the branch of number `index` for the operands."""
    return apply_all(Switch(tuple(branches)), index, *x)


def _unless_nobody_does(active: Value, graph: Graph, x: Sequence[Value]) -> tuple[Value, ...]:
    """Return what a graph makes of a batch, anything where no element is active: it does not run then, and so it does not fail."""
    nothing = replace(graph, outputs=tuple(zeros(v.aval) for v in graph.outputs), name="nobody")
    return switch(cast(apply(Any_((0,)), active), INT64), [nothing, graph], *x)


def _with_known(branch: Graph, arrays: Sequence[np.ndarray | None]) -> Graph:
    """Return a branch with constants in place of the inputs that are known; it has them still."""
    values = [v if array is None else constant(array) for v, array in zip(branch.inputs, arrays, strict=True)]
    return branch.with_outputs(inline(branch, values))
