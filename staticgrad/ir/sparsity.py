"""Sparsity patterns, read from a graph: which elements of its outputs have a derivative by which elements of its inputs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.interp import interpret
from staticgrad.ir.links import Links, Reached
from staticgrad.ir.node import Node, Value, constant, constant_array, full, new_input
from staticgrad.ir.source import at_user_line

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LinearRule = Callable[[Sequence[Value | None]], Sequence[Value | None]]
"""The tangents of outputs for those of operands, or the cotangents of operands for those of outputs; None stands for zero."""

MOST_ENTRIES = 100_000_000
"""How many entries a pattern may have; the derivatives of so many take 1.2 GB."""


def pattern_of(outputs: Sequence[Value], inputs: Sequence[Value], name: str) -> csr_array:
    """Return where the Jacobian may differ from 0, whatever the inputs are: one row an element of `outputs`, one column of `inputs`.

    Raises
    ------
    InvalidValueError
        When it is not sparse; the message names the operation that makes it so.
    """
    try:
        return structure_of(outputs, inputs)
    except NotSparseError as error:
        node = error.node
        assert node is not None
        raise InvalidValueError(
            at_user_line(
                f"{name}: {node.op.name} makes each of {node.outputs[0].aval.size} elements depend on so many arguments that the pattern "
                f"has {error.count} entries (at most {MOST_ENTRIES}): it is not sparse; products with vectors need no matrix: sg.jvp, "
                "sg.vjp, sg.hvp",
                node.line,
            )
        ) from None


def structure_of(outputs: Sequence[Value], inputs: Sequence[Value]) -> csr_array:
    """Return the pattern of `outputs` by `inputs`, or raise `NotSparseError`.

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
        found.update(_through(node, found))
        uses.subtract(node.inputs)
        for v in node.inputs:
            if not uses[v]:
                found.pop(v, None)
    pattern = stacked([found.get(y) for y in outputs], [y.aval.size for y in outputs], columns)
    pattern.sort_indices()
    return pattern


def _through(node: Node, found: dict[Value, csr_array]) -> dict[Value, csr_array]:
    """Return what the outputs of a node depend on."""
    if not any(v in found for v in node.inputs):
        return {}
    avals = [v.aval for v in node.inputs]
    try:
        made = node.op.dependence(Reached([y.aval for y in node.outputs], avals, Known(node.inputs), [found.get(v) for v in node.inputs]))
    except NotSparseError as error:
        error.node = error.node or node
        raise
    return {y: each for y, each in zip(node.outputs, made, strict=True) if each is not None and is_float(y.dtype)}


class NotSparseError(Exception):
    """A pattern has too many entries: how many, and because of which operation."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.node: Node | None = None


class _Limit(threading.local):
    """How many entries a pattern may have in this thread, if it is less than `MOST_ENTRIES`."""

    entries: int | None = None


_limit = _Limit()


@contextmanager
def at_most(entries: int) -> Iterator[None]:
    """Raise `NotSparseError` for more entries than that."""
    before = _limit.entries
    _limit.entries = entries if before is None else min(before, entries)
    try:
        yield
    finally:
        _limit.entries = before


def check_entries(count: int) -> None:
    """Raise for more entries than a pattern may have."""
    if count > (MOST_ENTRIES if _limit.entries is None else _limit.entries):
        raise NotSparseError(count)


class Known(Sequence[np.ndarray | None]):
    """The arrays of those values that depend on no input, None for the others; computed when they are asked for."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = values
        self._arrays: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, k: int) -> np.ndarray | None: ...
    @overload
    def __getitem__(self, k: slice) -> Known: ...
    def __getitem__(self, k: int | slice) -> np.ndarray | Known | None:
        if isinstance(k, slice):
            return Known(self._values[k])
        value = self._values[k]
        if not value.node.is_fixed:
            return None
        if k not in self._arrays:
            array = constant_array(value)
            self._arrays[k] = interpret(Graph((), (value,)), ())[0] if array is None else array
        return self._arrays[k]


def relation_of(graph: Graph) -> csr_array:
    """Return the pattern of the outputs of a graph by those of its inputs that are floats."""
    inputs = [x for x in graph.inputs if is_float(x.dtype)]
    return structure_of(graph.outputs, inputs) if inputs else nothing(sum(y.aval.size for y in graph.outputs), 0)


def union(parts: Iterable[csr_array | None]) -> csr_array | None:
    """Return what is in one pattern or another; None for none."""
    there = list({id(part): part for part in parts if part is not None}.values())
    return sum(there[1:], there[0]) if there else None


def linked(links: Links, dependence: csr_array) -> csr_array:
    """Return what each element of a result depends on, from what each element of an operand does."""
    if links.relation is not None:
        return related(links.relation, dependence)
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
    check_entries(total)
    places = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return _rows(dependence.indices[places], np.append(0, ends), dependence.shape[1])


def related(relation: csr_array, dependence: csr_array) -> csr_array:
    """Return what each element of a result depends on, from the elements of an operand that it depends on: a product of patterns."""
    rows = np.repeat(np.arange(relation.shape[0]), np.diff(relation.indptr))
    lengths = np.bincount(rows, np.diff(dependence.indptr)[relation.indices], relation.shape[0])
    check_entries(int(np.minimum(lengths, dependence.shape[1]).sum()))
    return relation @ dependence


def spread(relation: csr_array, node: Reached) -> list[csr_array | None]:
    """Return what outputs depend on, from the pattern of all outputs by all operands; only those that are floats are in it."""
    columns = next(pattern.shape[1] for pattern in node.found if pattern is not None)
    floats = [(pattern, aval.size) for pattern, aval in zip(node.found, node.avals, strict=True) if is_float(aval.dtype)]
    whole = related(relation, stacked([pattern for pattern, _ in floats], [size for _, size in floats], columns))
    ends = np.cumsum([y.size if is_float(y.dtype) else 0 for y in node.outputs])
    return [whole[end - y.size : end] if is_float(y.dtype) else None for y, end in zip(node.outputs, ends, strict=True)]


class _UnderWay(threading.local):
    """The names of operations whose rules are being looked into."""

    def __init__(self) -> None:
        self.names: set[str] = set()


_under_way = _UnderWay()


def relation_by_rule(rule: LinearRule, sources: Sequence[Value], targets: Sequence[Value], name: str) -> csr_array | None:
    """Return the pattern of what a rule given by hand makes of tangents or cotangents: of `targets` by `sources`, the floats of both.

    None where the rule applies the operation itself to them, as that of a linear solver does: it tells nothing then.
    """
    if name in _under_way.names:
        return None
    seeds = [new_input(Aval(v.shape, v.dtype)) if is_float(v.dtype) else None for v in sources]
    _under_way.names.add(name)
    try:
        made = [full(v.shape, 0, v.dtype) if r is None else r for r, v in zip(rule(seeds), targets, strict=True) if is_float(v.dtype)]
        return relation_of(Graph(tuple(seed for seed in seeds if seed is not None), tuple(made), (), name))
    finally:
        _under_way.names.remove(name)


def operands_like(avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> list[Value]:
    """Return values that stand for operands: constants for what is known."""
    arrays = (known[k] for k in range(len(avals)))
    return [new_input(Aval(v.shape, v.dtype)) if x is None else constant(x) for v, x in zip(avals, arrays, strict=True)]


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


def with_small_indices(pattern: csr_array) -> csr_array:
    """Return the pattern with indices of 4 bytes if they fit: each call copies them, and SciPy's solvers want them so."""
    from scipy.sparse import csr_array, get_index_dtype

    kind = get_index_dtype(maxval=max(pattern.nnz, *pattern.shape))
    return csr_array((pattern.data, pattern.indices.astype(kind), pattern.indptr.astype(kind)), shape=pattern.shape)


def pattern_at(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Return the pattern with entries at these rows and columns."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=shape)


def _rows(indices: np.ndarray, ends: np.ndarray, columns: int) -> csr_array:
    """Return a pattern from the columns of each row."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(indices), np.bool_), indices, ends), shape=(len(ends) - 1, columns))
