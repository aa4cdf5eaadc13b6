"""Products and sums in one rounding, for `fastmath`: what a compiler would do where it may contract.

    %3 = mul x, y
    %4 = add %3, z      ->      %4 = fma x, y, z

A product is fused where the sum is all that reads it. As it happens here, every printer gives the same bits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from staticgrad.codegen.python_text import operands
from staticgrad.ir import loops
from staticgrad.ir.loops import Block, Function, Let, Scalar, Statement, Unit, children, walk


def with_fused_products(unit: Unit) -> Unit:
    """Return the unit with `fma` in place of products that are added or subtracted."""
    made: dict[Function, Function] = {}
    for function in unit.functions:  # callees come before their callers
        made[function] = replace(function, body=_Fusion(function, made).block(function.body))
    return loops.with_functions(unit, made)


class _Fusion:
    """Rewrites the blocks of one function."""

    def __init__(self, function: Function, made: dict[Function, Function]) -> None:
        self.made = made
        self.products: dict[Scalar, Let] = {}
        self.fused: set[Scalar] = set()
        uses = Counter(scalar for statement in walk(function.body) for scalar in operands(statement))
        for statement in walk(function.body):
            if isinstance(statement, Let) and statement.target.dtype.kind == "f":
                if statement.opcode == "mul" and uses[statement.target] == 1:
                    self.products[statement.target] = statement
                elif statement.opcode in ("add", "sub"):
                    self.fused.update([scalar for scalar in statement.operands if scalar in self.products][:1])

    def block(self, block: Block) -> Block:
        """Return `block` rewritten."""
        return Block([new for statement in block.statements for new in self._rewritten(statement)])

    def _rewritten(self, statement: Statement) -> list[Statement]:
        match statement:
            case Let(target=target) if target in self.fused:
                return []
            case Let() if any(scalar in self.fused for scalar in statement.operands):
                return self._sum(statement)
            case loops.Loop():
                return [replace(statement, body=self.block(statement.body))]
            case loops.If():
                return [replace(statement, then=self.block(statement.then), otherwise=self.block(statement.otherwise))]
            case loops.While():
                return [replace(statement, test=self.block(statement.test), body=self.block(statement.body))]
            case loops.Invoke(function=function):
                return [replace(statement, function=self.made[function])]
            case _:
                assert not children(statement)
                return [statement]

    def _sum(self, let: Let) -> list[Statement]:
        first, second = let.operands
        product, other = (first, second) if first in self.fused else (second, first)
        x, y = self.products[product].operands
        found: list[Statement] = []
        if let.opcode == "sub" and product is first:
            other = _negative(other, found)
        elif let.opcode == "sub":
            x = _negative(x, found)
        return [*found, Let(let.target, "fma", (x, y, other))]


def _negative(x: Scalar, found: list[Statement]) -> Scalar:
    if x.literal is not None:
        literal: np.generic = np.negative(x.literal)
        return replace(x, literal=literal)
    negative = Scalar(-1, x.dtype, x.lanes)
    found.append(Let(negative, "neg", (x,)))
    return negative
