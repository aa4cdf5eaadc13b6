"""Sparsity patterns, read from a graph: which elements of its outputs have a derivative by which elements of its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import is_float, is_integer
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

    Each value is given the elements of the inputs that each of its own elements depends on, by the links of the op that makes it.
    """
    from scipy.sparse import csr_array, vstack

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
    nothing = np.zeros(0, np.int64)
    parts = [found[y] if y in found else _rows(nothing, np.zeros(y.aval.size + 1, np.int64), columns) for y in outputs]
    pattern = csr_array(vstack(parts, format="csr"))
    pattern.sort_indices()
    return pattern


def _through(node: Node, found: dict[Value, csr_array], name: str) -> dict[Value, csr_array]:
    """Return what the outputs of a node depend on."""
    if not any(v in found for v in node.inputs):
        return {}
    avals = [v.aval for v in node.inputs]
    known = [_known(v) for v in node.inputs]
    made = {}
    for y in node.outputs:
        if not is_float(y.dtype):
            continue
        links = node.op.links(y.aval, avals, known)
        pairs = {(id(found[v]), id(link)): (found[v], link) for v, link in zip(node.inputs, links, strict=True) if v in found and link}
        parts = [_spread(dependence, link, node, name) for dependence, link in pairs.values()]
        if parts:
            made[y] = parts[0] if len(parts) == 1 else sum(parts[1:], parts[0])
    return made


def _known(x: Value) -> np.ndarray | None:
    """Return the array of an integer value that depends on no input."""
    return interpret(Graph((), (x,)), ())[0] if is_integer(x.dtype) and x.node.is_fixed else None


def _spread(dependence: csr_array, links: Links, node: Node, name: str) -> csr_array:
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
    if total > MOST_ENTRIES:
        raise InvalidValueError(
            at_user_line(
                f"{name}: {node.op.name} makes each of {node.outputs[0].aval.size} elements depend on so many arguments that the pattern "
                f"has {total} entries (at most {MOST_ENTRIES}): it is not sparse; products with vectors need no matrix: sg.jvp, sg.vjp, "
                "sg.hvp",
                node.line,
            )
        )
    places = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return _rows(dependence.indices[places], np.append(0, ends), dependence.shape[1])


def _rows(indices: np.ndarray, ends: np.ndarray, columns: int) -> csr_array:
    """Return a pattern from the columns of each row."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(indices), np.bool_), indices, ends), shape=(len(ends) - 1, columns))
