"""Operations on whole computations: calls of sub-graphs and marks that transforms and passes read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from staticgrad.errors import MissingDerivativeError, StaticgradError, VerificationError
from staticgrad.ir.aval import Aval, Shape, is_float
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.graph import Graph, inline, rebuild
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Links, Reached, on_all_of_each
from staticgrad.ir.node import Node, Value, apply, apply_all
from staticgrad.ir.op import Op, op
from staticgrad.ir.sparsity import operands_like, relation_by_rule, relation_of, spread
from staticgrad.ops.elementwise import Elementwise
from staticgrad.ops.nested import Nested

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@op
class StopGradient(Elementwise):
    """x itself, constant to every derivative; removed after differentiation."""

    derivatives = (None,)
    notation = logic = "x"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x

    def scalar(self, b: Builder, *x: Scalar) -> Scalar:
        return x[0]


def stop_gradient(x: Value) -> Value:
    """Return x as a constant to every derivative."""
    return apply(StopGradient(), x)


@dataclass(frozen=True)
class NoDerivative:
    """In place of the cotangent of an operand that a rule knows nothing of: an error where that operand is differentiated by."""

    error: StaticgradError


@dataclass(frozen=True)
class Rules:
    """Derivatives given by hand for a sub-graph: functions on values with the signatures of `Op.jvp` and `Op.vjp`.

    The operands and results are always tuples. A cotangent may be a `NoDerivative`. `name` and `key` tell two sets of rules apart,
    as the functions themselves cannot be hashed by content. Rules of a call that is mapped know over which leading axes it is, and for
    each of them which operands have it.
    """

    name: str
    key: str = ""
    jvp: Callable[..., Any] | None = None
    vjp: Callable[..., Any] | None = None
    sizes: Shape = ()
    mapped: tuple[tuple[bool, ...], ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}:{self.key}"


@dataclass(frozen=True)
class Call(Op):
    """A sub-graph as one node, so that rules and marks can hold on to it; without rules it is inlined before differentiation.

    What the sub-graph's function closed over stands among its operands.
    """

    graph: Graph
    rules: Rules | None = None
    name = "call"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.graph.digest == other.graph.digest and self.rules == other.rules

    def __hash__(self) -> int:
        return hash((self.graph.digest, self.rules))

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        return (self.graph,)

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        if self.graph.free:
            raise VerificationError(f"call of {self.graph.name}: what it closes over must stand among its operands")
        expected = [(value.shape, value.dtype) for value in self.graph.inputs]
        if expected != [(aval.shape, aval.dtype) for aval in avals]:
            raise VerificationError(f"call of {self.graph.name}: operands {avals}, parameters {expected}")
        return tuple(value.aval for value in self.graph.outputs)

    def numpy(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(interpret(self.graph, arrays))

    def jvp(self, tangents: Sequence[Value | None], y: Any, *x: Value) -> Any:
        if self.rules is None or self.rules.jvp is None:
            raise VerificationError(f"call of {self.graph.name} without a tangent rule was not inlined")
        return self.rules.jvp(tangents, y, *x)

    def vjp(self, g: Any, y: Any, *x: Value) -> tuple[Value | NoDerivative | None, ...]:
        if self.rules is None or self.rules.vjp is None:
            raise VerificationError(f"call of {self.graph.name} without a cotangent rule was not inlined")
        return tuple(self.rules.vjp(g, y, *x))

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        sizes, mapped = ((), ()) if self.rules is None else (self.rules.sizes, self.rules.mapped)
        return [on_all_of_each(x, y, sizes, [flags[k] for flags in mapped]) for k, x in enumerate(avals)]

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        """What the rules say, whatever the graph does."""
        if self.rules is None:
            floats = self.graph.with_outputs([v for v in self.graph.outputs if is_float(v.dtype)])
            return spread(relation_of(floats), node)
        x = operands_like(node.avals, node.known)
        y = apply_all(self, *x)
        relation = self._by_tangents(y, x)
        if relation is None:
            relation = relation_by_rule(lambda g: list(map(_or_zero, self.vjp(g, y, *x))), y, x, self.rules.name)
            relation = None if relation is None else relation.T.tocsr()
        return super().dependence(node) if relation is None else spread(relation, node)

    def _by_tangents(self, y: Sequence[Value], x: Sequence[Value]) -> csr_array | None:
        """Return the pattern that the rule for tangents tells of, None where there is none."""
        if self.rules is None or self.rules.jvp is None:
            return None
        try:
            return relation_by_rule(lambda tangents: self.jvp(tangents, y, *x), x, y, self.rules.name)
        except MissingDerivativeError:
            return None

    def inlined(self, *x: Value) -> tuple[Value, ...]:
        """Return the outputs as the sub-graph's own nodes."""
        return inline(self.graph, x)


def _or_zero(cotangent: Value | NoDerivative | None) -> Value | None:
    return None if isinstance(cotangent, NoDerivative) else cotangent


def call(graph: Graph, *x: Value, rules: Rules | None = None) -> tuple[Value, ...]:
    """Return the outputs of `graph` as one node."""
    return apply_all(Call(graph, rules), *x)


def has_calls(graph: Graph) -> bool:
    """Return whether a graph, or one inside of its ops, calls another."""
    return any(isinstance(n.op, Call) or any(map(has_calls, n.op.subgraphs)) for n in graph.nodes)


def inline_calls(graph: Graph, keep_rules: bool = True) -> Graph:
    """Return `graph` with its calls replaced by their bodies, except (if asked) those with rules of their own."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(node.op, Call) and not (keep_rules and node.op.rules is not None):
            return inlined(node.op, inputs)
        op = node.op
        if isinstance(op, Nested):
            op = op.with_subgraphs([inline_calls(inner, keep_rules) for inner in op.subgraphs], op.constants)
        return apply_all(op, *inputs, line=node.line)

    def inlined(call: Call, inputs: tuple[Value, ...]) -> Sequence[Value]:
        body = inline_calls(call.graph, keep_rules)
        return inline(body, inputs)

    return rebuild(graph, replace) if has_calls(graph) else graph


@op
class Contiguous(Elementwise):
    """x itself, in memory of its own: put in by passes where a kernel wants another layout than the one at hand."""

    linear = True
    notation = logic = "x"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x).reshape(x.shape)

    def scalar(self, b: Builder, *x: Scalar) -> Scalar:
        return x[0]

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        return tangents[0]

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[Value]:
        return (g,)


@op
class Again(Contiguous):
    """x itself, computed once more, the `run`-th time: the name, in schedules, of what is not kept for those that read it late."""

    run: int = 1
