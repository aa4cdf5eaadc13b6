"""The rewrite engine: small named rules, tried at every node, operands first, until none fires."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from staticgrad.config import config
from staticgrad.ir.graph import Graph, rebuild
from staticgrad.ir.node import Node, Value, apply_all, at_line
from staticgrad.ir.op import Op
from staticgrad.ops.nested import Nested

log = logging.getLogger("staticgrad.pass")

Apply = Callable[[Node], Value | None]


@dataclass(frozen=True)
class Rule:
    """A rewrite `before -> after`; `exact` rules keep every bit on +-0, inf and NaN, the others are at least as accurate."""

    name: str
    ops: tuple[type[Op], ...]
    apply: Apply
    exact: bool = True


def rule(*ops: type[Op], exact: bool = True) -> Callable[[Apply], Rule]:
    """Make a function on nodes a rule for nodes of `ops`; it returns the better value, or None."""

    def make(function: Apply) -> Rule:
        return Rule(function.__name__, ops, function, exact)

    return make


class Rewriter:
    """Applies rules to graphs and counts how often each fired."""

    def __init__(self, rules: Sequence[Rule], skip: frozenset[str] = frozenset(), limit: int | None = None) -> None:
        self.by_op: dict[type[Op], list[Rule]] = {}
        for each in rules:
            if each.name not in skip:
                for op in each.ops:
                    self.by_op.setdefault(op, []).append(each)
        self.fired: Counter[str] = Counter()
        self._limit = limit

    def __call__(self, graph: Graph) -> Graph:
        """Return the rewritten graph, those inside of its ops as well."""
        return rebuild(graph, self._replace)

    def _replace(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        op = node.op
        if isinstance(op, Nested):
            op = op.with_subgraphs([self(inner) for inner in op.subgraphs], op.constants)
        outputs = apply_all(op, *inputs, line=node.line)
        if len(outputs) != 1:
            return outputs
        value = outputs[0]
        with at_line(node.line):
            while (better := self._step(value)) is not None:
                value = better
        return (value,)

    def _step(self, value: Value) -> Value | None:
        for each in self.by_op.get(type(value.op), ()):
            better = each.apply(value.node)
            if better is None or better is value:
                continue
            count = sum(self.fired.values())
            if self._limit is not None and count >= self._limit:
                return None
            self.fired[each.name] += 1
            if "pass" in config().log:
                log.info("rewrite %d: %s at %r", count + 1, each.name, value.node)
            return better
        return None
