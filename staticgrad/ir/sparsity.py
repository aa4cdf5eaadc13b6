"""Sparsity patterns, read from a graph: which elements of its outputs have a derivative by which elements of its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import Aval, is_float, is_integer
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Links
from staticgrad.ir.node import Node, Value
from staticgrad.ir.source import at_user_line

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_ENTRIES = 100_000_000
"""How many entries a pattern may have; the derivatives of so many take 1.2 GB."""


def pattern_of(outputs: Sequence[Value], inputs: Sequence[Value], name: str) -> csr_array:
    """Return where the Jacobian may differ from 0, whatever the inputs are: one row an element of `outputs`, one column of `inputs`.

    Each value is given the elements of the inputs that each of its own elements depends on, by the op that makes it.
    """
    ends = np.cumsum([x.aval.size for x in inputs])
    columns = int(ends[-1])
    found: dict[Value, csr_array] = {}
    for x, end in zip(inputs, ends, strict=True):
        found[x] = _rows(np.arange(end - x.aval.size, end), np.arange(x.aval.size + 1), columns)
    order = topological(outputs, stop=inputs)
    uses = Counter(v for node in order for v in node.inputs)
    uses.update(outputs)
    for node in order:
        found.update(_through(node, found, name))
        uses.subtract(node.inputs)
        for v in node.inputs:
            if not uses[v]:
                found.pop(v, None)
    pattern = stacked([found.get(y) for y in outputs], [y.aval.size for y in outputs], columns)
    pattern.sort_indices()
    return pattern


def _through(node: Node, found: dict[Value, csr_array], name: str) -> dict[Value, csr_array]:
    """Return what the outputs of a node depend on."""
    if not any(v in found for v in node.inputs):
        return {}
    avals, known = [v.aval for v in node.inputs], [_known(v) for v in node.inputs]
    try:
        made = node.op.dependence([y.aval for y in node.outputs], avals, known, [found.get(v) for v in node.inputs])
    except _NotSparseError as error:
        raise InvalidValueError(
            at_user_line(
                f"{name}: {node.op.name} makes each of {node.outputs[0].aval.size} elements depend on so many arguments that the pattern "
                f"has {error.args[0]} entries (at most {MOST_ENTRIES}): it is not sparse; products with vectors need no matrix: sg.jvp, "
                "sg.vjp, sg.hvp",
                node.line,
            )
        ) from None
    return {y: each for y, each in zip(node.outputs, made, strict=True) if each is not None and is_float(y.dtype)}


class _NotSparseError(Exception):
    """A pattern has too many entries: the argument."""


def _check_entries(count: int) -> None:
    if count > MOST_ENTRIES:
        raise _NotSparseError(count)


def _known(x: Value) -> np.ndarray | None:
    """Return the array of an integer value that depends on no input."""
    return interpret(Graph((), (x,)), ())[0] if is_integer(x.dtype) and x.node.is_fixed else None


def relation_of(graph: Graph) -> csr_array:
    """Return the pattern of the outputs of a graph by those of its inputs that are floats."""
    inputs = [x for x in graph.inputs if is_float(x.dtype)]
    return pattern_of(graph.outputs, inputs, graph.name) if inputs else nothing(sum(y.aval.size for y in graph.outputs), 0)


def union(parts: Iterable[csr_array | None]) -> csr_array | None:
    """Return what is in one pattern or another; None for none."""
    there = list({id(part): part for part in parts if part is not None}.values())
    return sum(there[1:], there[0]) if there else None


def linked(links: Links, dependence: csr_array) -> csr_array:
    """Return what each element of a result depends on, from what each element of an operand does."""
    if links.groups is not None:
        order = np.argsort(links.groups, kind="stable")
        ends = np.cumsum(np.bincount(links.groups, minlength=links.count))
        dependence = _rows(order, np.append(0, ends), len(links.groups)) @ dependence
    if links.source is None:
        return dependence
    at = np.where(links.source < 0, dependence.shape[0], links.source)  # behind the last row is an empty one
    starts, lengths = dependence.indptr[at].astype(np.int64), np.append(np.diff(dependence.indptr), 0)[at]
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    _check_entries(total)
    places = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return _rows(dependence.indices[places], np.append(0, ends), dependence.shape[1])


def related(relation: csr_array, dependence: csr_array) -> csr_array:
    """Return what each element of a result depends on, from the elements of an operand that it depends on: a product of patterns."""
    rows = np.repeat(np.arange(relation.shape[0]), np.diff(relation.indptr))
    lengths = np.bincount(rows, np.diff(dependence.indptr)[relation.indices], relation.shape[0])
    _check_entries(int(np.minimum(lengths, dependence.shape[1]).sum()))
    return relation @ dependence


def stacked(parts: Sequence[csr_array | None], sizes: Sequence[int], columns: int) -> csr_array:
    """Return patterns one below the other; None is an empty one of so many rows."""
    from scipy.sparse import csr_array, vstack

    whole = [nothing(size, columns) if part is None else part for part, size in zip(parts, sizes, strict=True)]
    return csr_array(vstack(whole, format="csr")) if whole else nothing(0, columns)


def of_floats(avals: Sequence[Aval], found: Sequence[csr_array | None], columns: int) -> csr_array:
    """Return the patterns of those values that are floats, one below the other."""
    there = [(pattern, aval.size) for pattern, aval in zip(found, avals, strict=True) if is_float(aval.dtype)]
    return stacked([pattern for pattern, _ in there], [size for _, size in there], columns)


def divided(pattern: csr_array, sizes: Sequence[int]) -> list[csr_array]:
    """Return the parts of a pattern that have so many rows, one below the other."""
    return [pattern[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]


def width_of(found: Iterable[csr_array | None]) -> int:
    """Return how many columns patterns have, of which one is there."""
    return next(int(pattern.shape[1]) for pattern in found if pattern is not None)


def nothing(rows: int, columns: int) -> csr_array:
    """Return an empty pattern."""
    return _rows(np.zeros(0, np.int64), np.zeros(rows + 1, np.int64), columns)


def _rows(indices: np.ndarray, ends: np.ndarray, columns: int) -> csr_array:
    """Return a pattern from the columns of each row."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(indices), np.bool_), indices, ends), shape=(len(ends) - 1, columns))
