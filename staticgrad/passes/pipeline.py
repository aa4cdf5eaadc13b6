"""The ordered passes between differentiation and code generation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from staticgrad.config import config
from staticgrad.ir.graph import Graph
from staticgrad.ir.verify import verify
from staticgrad.ops.control import inline_calls
from staticgrad.ops.elimination import share_factors
from staticgrad.passes.fast import FAST_RULES
from staticgrad.passes.invariants import hoist_invariants
from staticgrad.passes.layout import pack_operands, sums_of_contractions, thin_contractions_as_sums
from staticgrad.passes.movement_rules import transpose_of_contract
from staticgrad.passes.reduction_rules import contract_of_transposes
from staticgrad.passes.rewrite import Rewriter, Rule
from staticgrad.passes.simplify import RULES
from staticgrad.passes.subgraphs import everywhere, lift_constants, merge_loops, tidy_subgraphs

log = logging.getLogger("staticgrad.pass")


@dataclass(frozen=True)
class PassResult:
    """What one pass did: its name and the number of nodes before and after."""

    name: str
    before: int
    after: int
    fired: dict[str, int] = field(default_factory=dict)


def simplify(graph: Graph, rules: Sequence[Rule] = RULES) -> tuple[Graph, dict[str, int]]:
    """Return the graph after all rewrite rules (dead code and common subexpressions fall away by construction)."""
    settings = config()
    rewriter = Rewriter(rules, settings.skip, settings.rewrite_limit)
    return rewriter(graph), dict(rewriter.fired)


def simplify_fast(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Return the graph after all rewrite rules, those included that change the last digits."""
    return simplify(graph, (*RULES, *FAST_RULES))


def simplify_packed(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Return the graph after all rules but those that would take packed contractions out of their form."""
    return simplify(graph, [rule for rule in RULES if rule not in (transpose_of_contract, contract_of_transposes)])


def _plain(function: Callable[[Graph], Graph]) -> Callable[[Graph], tuple[Graph, dict[str, int]]]:
    return lambda graph: (function(graph), {})


PIPELINE: tuple[tuple[str, Callable[[Graph], tuple[Graph, dict[str, int]]]], ...] = (
    ("inline calls", _plain(lambda graph: inline_calls(graph, keep_rules=False))),
    ("share factors", _plain(everywhere(share_factors))),
    ("merge loops", _plain(merge_loops)),
    ("tidy sub-graphs", _plain(tidy_subgraphs)),
    ("hoist invariants", _plain(hoist_invariants)),
    ("sums of contractions", _plain(everywhere(sums_of_contractions))),
    ("simplify", simplify),
    ("tidy sub-graphs again", _plain(tidy_subgraphs)),
    ("thin contractions as sums", _plain(everywhere(thin_contractions_as_sums))),
    ("pack operands", _plain(everywhere(pack_operands))),
    ("hoist invariants again", _plain(hoist_invariants)),
    ("simplify again", simplify_packed),
    ("lift constants", _plain(lift_constants)),
)
"""Every pass in order. `STATICGRAD_SKIP` leaves out passes and rules by name."""

REQUIRED = frozenset({"inline calls", "share factors", "thin contractions as sums", "pack operands", "lift constants"})
"""Passes that code generation relies on; they cannot be skipped."""


def optimize(graph: Graph, fastmath: bool = False) -> tuple[Graph, list[PassResult]]:
    """Return the optimised graph and what each pass did; with `fastmath`, rules may be used that change the last digits."""
    settings = config()
    results: list[PassResult] = []
    for name, exact in PIPELINE:
        function = simplify_fast if fastmath and exact is simplify else exact
        if name in settings.skip and name not in REQUIRED:
            continue
        before = len(graph.nodes)
        graph, fired = function(graph)
        results.append(PassResult(name, before, len(graph.nodes), fired))
        if settings.verify:
            verify(graph, after=name)
        if settings.dump is not None:
            settings.dump.mkdir(parents=True, exist_ok=True)
            path = settings.dump / f"{len(results):02d}-{name.replace(' ', '-')}-{graph.digest[:8]}.txt"
            path.write_text(str(graph) + "\n", encoding="utf-8")
        if "pass" in settings.log:
            log.info("%s: %d -> %d nodes %s", name, before, len(graph.nodes), fired or "")
    return graph, results
