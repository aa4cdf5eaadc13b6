"""Simplification: rules that are true for every float, zeros, infinities and NaN included, in the order in which they are tried."""

from __future__ import annotations

from types import ModuleType

from staticgrad.passes import arithmetic_rules, constant_rules, movement_rules, reduction_rules
from staticgrad.passes.rewrite import Rule


def rules_of(module: ModuleType) -> tuple[Rule, ...]:
    """Return the rules that a module defines, in order."""
    return tuple(value for value in vars(module).values() if isinstance(value, Rule))


RULES: tuple[Rule, ...] = tuple(
    each for module in (arithmetic_rules, constant_rules, movement_rules, reduction_rules) for each in rules_of(module)
)
