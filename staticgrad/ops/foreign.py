"""Calls of functions that another compiler makes: a user's own `@numba.njit` functions.

A graph knows such a function by a symbol. What the symbol means stands in `FUNCTIONS`, as long as the process lives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from staticgrad.errors import ExecutionError, MissingDerivativeError, ShapeError, VerificationError
from staticgrad.ir.aval import Aval, Shape, is_float
from staticgrad.ir.graph import Graph
from staticgrad.ir.links import Links, Reached, on_all_of_each
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import Op
from staticgrad.ir.source import at_user_line
from staticgrad.ir.sparsity import operands_like, relation_by_rule, spread, union

if TYPE_CHECKING:
    from scipy.sparse import csr_array

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Rule = Callable[..., Any]
"""`Op.jvp` or `Op.vjp` with the op ahead of the other arguments."""


class ResultShapeError(Exception):
    """A foreign function returned an array of another shape than expected: (shape, expected shape)."""

    def __str__(self) -> str:
        found, expected = self.args
        return f"its result has shape {tuple(map(int, found))}, not {tuple(map(int, expected))}; shape= tells the shape of results"


@dataclass(frozen=True, eq=False)
class ForeignFunction:
    """A pure function of arrays and numbers, for operands of certain dtypes and numbers of axes.

    `function` takes C-contiguous arrays, and NumPy scalars for operands without axes. If it `copies`, it may write into the arrays,
    which are copies then; otherwise they are read-only.
    """

    symbol: str
    name: str
    line: str
    """Where it is defined: model.py:12."""

    function: Callable[..., Any]
    operands: tuple[tuple[np.dtype, int], ...]
    parameters: tuple[str, ...]
    """What the function calls its operands."""

    result: np.dtype
    rank: int | None
    """The number of axes of the result, None where it is a number."""

    copies: bool = False
    jvp: Rule | None = None
    vjp: Rule | None = None

    def __call__(self, operands: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
        """Return the result as an array of `shape`.

        Raises
        ------
        ExecutionError
            If the function raises anything, or returns another shape.
        """
        try:
            result = np.asarray(self.function(*map(self._argument, operands)))
            if result.shape != shape:
                raise ResultShapeError(result.shape, shape)
        except Exception as error:
            raise self.failure(error) from error
        return result.astype(self.result, copy=False)

    def _argument(self, x: np.ndarray) -> Any:
        if not x.ndim:
            return x[()]
        if self.copies:
            return np.array(x, order="C")
        argument = np.ascontiguousarray(x).view()
        argument.flags.writeable = False
        return argument

    def failure(self, error: BaseException) -> ExecutionError:
        """Return what a caller gets to see of an exception that the function raised."""
        said = str(error) if isinstance(error, ResultShapeError) else f"it raised {type(error).__name__}: {error}"
        made = ExecutionError(f"{self.name} ({self.line}): {said}")
        made.__cause__ = error
        return made


FUNCTIONS: dict[str, ForeignFunction] = {}
"""Every foreign function of this process by its symbol."""


@dataclass(frozen=True)
class Foreign(Op):
    """What a foreign function makes of its operands: (f64[10], f64[]) -> f64[10].

    Mapped over leading axes of lengths `sizes` it is called for each index of these; `mapped` says for each axis which operands have it.
    """

    symbol: str
    shape: Shape
    dtype: np.dtype
    sizes: Shape = ()
    mapped: tuple[tuple[bool, ...], ...] = ()
    kind = "foreign"
    cost = 1000

    def may_fail(self, *avals: Aval) -> bool:
        return True

    @property
    def function(self) -> ForeignFunction:
        """The function."""
        return FUNCTIONS[self.symbol]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name that the user gave the function."""
        return self.function.name

    def levels(self, operand: int) -> tuple[bool, ...]:
        """Return which of the mapped axes an operand has."""
        return tuple(flags[operand] for flags in self.mapped)

    def own_shape(self, operand: int, shape: Shape) -> Shape:
        """Return the shape of an operand in a single call."""
        return shape[sum(self.levels(operand)) :]

    def infer(self, *avals: Aval) -> Aval:
        own = tuple((aval.dtype, len(self.own_shape(k, aval.shape))) for k, aval in enumerate(avals))
        if own != self.function.operands:
            raise VerificationError(f"{self.name}: operands {avals} do not fit {self.function.operands}")
        for k, aval in enumerate(avals):
            extents = [size for size, has in zip(self.sizes, self.levels(k), strict=True) if has]
            if aval.shape[: len(extents)] != tuple(extents):
                raise ShapeError(f"{self.name}: {aval} is not mapped over {extents}")
        return Aval((*self.sizes, *self.shape), self.dtype)

    def numpy(self, *arrays: np.ndarray) -> np.ndarray:
        result = np.empty((*self.sizes, *self.shape), self.dtype)
        for place in np.ndindex(self.sizes):
            parts = [x[tuple(i for i, has in zip(place, self.levels(k), strict=True) if has)] for k, x in enumerate(arrays)]
            result[place] = self.function([np.asarray(part) for part in parts], self.shape)
        return result

    def jvp(self, tangents: Sequence[Value | None], y: Value, *x: Value) -> Value | None:
        if not is_float(self.dtype):
            return None
        tangent: Value | None = self._rule("jvp", y)(self, tangents, y, *x)
        return tangent

    def vjp(self, g: Value, y: Value, *x: Value) -> tuple[Value | None, ...]:
        cotangents: tuple[Value | None, ...] = self._rule("vjp", y)(self, g, y, *x)
        return cotangents

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        return [on_all_of_each(x, y, self.sizes, self.levels(k)) for k, x in enumerate(avals)]

    def dependence(self, node: Reached) -> Sequence[csr_array | None]:
        """What the rules say, as the function itself cannot be looked into."""
        x = operands_like(node.avals, node.known)
        y = apply(self, *x)
        relations = []
        if self.function.jvp is not None:
            relations.append(relation_by_rule(lambda tangents: [self.jvp(tangents, y, *x)], x, [y], self.symbol))
        if self.function.vjp is not None:
            pulled = relation_by_rule(lambda g: [None for _ in x] if g[0] is None else self.vjp(g[0], y, *x), [y], x, self.symbol)
            relations.append(None if pulled is None else pulled.T.tocsr())
        if not relations or any(relation is None for relation in relations):
            return super().dependence(node)
        relation = union(relations)
        assert relation is not None
        return spread(relation, node)

    def _rule(self, mode: str, y: Value) -> Rule:
        rule: Rule | None = getattr(self.function, mode)
        if rule is None:
            word, other, arguments = ("reverse", "jvp", "g, y, *x") if mode == "vjp" else ("forward", "vjp", "tangents, y, *x")
            there = f"; it has {other}= only" if getattr(self.function, other) is not None else ""
            raise MissingDerivativeError(
                at_user_line(
                    f"{self.name} is compiled by Numba, which cannot differentiate it in {word} mode{there}: "
                    f"give a rule, sg.njit_op({self.name}, {mode}=lambda {arguments}: ...), or sg.stop_gradient the operands",
                    y.node.line,
                )
            )
        return rule

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        return apply(Foreign(self.symbol, self.shape, self.dtype, (size, *self.sizes), (tuple(batched), *self.mapped)), *x)


def call_flat(symbol: str, operands: Sequence[Any]) -> ExecutionError | None:
    """Call a foreign function as compiled code does: flat arrays that begin at the operands and the result, then their extents."""
    known = FUNCTIONS[symbol]
    count = len(known.operands)
    extents = iter(operands[count + 1 :])
    shapes = [tuple(next(extents) for _ in range(rank)) for _, rank in known.operands]
    shape = tuple(extents)
    arrays = [x[: math.prod(own)].reshape(own) for x, own in zip(operands, shapes, strict=False)]
    try:
        operands[count][: math.prod(shape)] = known(arrays, shape).reshape(-1)
    except ExecutionError as error:
        return error
    return None


def foreign_names(graph: Graph) -> list[str]:
    """Return the names of the foreign functions that a graph calls, those of graphs inside its ops included."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        if isinstance(node.op, Foreign):
            found[node.op.name] = None
        for inner in node.op.subgraphs:
            found |= dict.fromkeys(foreign_names(inner))
    return list(found)
