"""Contractions into the form their kernels want: tiles read rows of the right operand; thin ones become fused sums.

What is summed over anyway is no axis of a contraction's result: the mean of the gradients of every example never holds all of them.

    sum(contract(x, g; out=(example, row, column)), axes=(0,))      ->      contract(x, g; out=(row, column))
"""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.ir.aval import is_float, product
from staticgrad.ir.graph import Graph, rebuild
from staticgrad.ir.node import Node, Value, apply, apply_all, at_line
from staticgrad.ops.arithmetic import multiply
from staticgrad.ops.contract import Contract, Labels, contract
from staticgrad.ops.control import Contiguous
from staticgrad.ops.movement import broadcast, reshape, transpose
from staticgrad.ops.reduce import Sum, sum_

SMALL = 256
"""A contraction of at most this many multiplications is not worth a tile."""


def sums_of_contractions(graph: Graph) -> Graph:
    """Return the graph with sums along axes that both operands of a contraction have as a part of it: products are rounded once."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        op = node.op
        if isinstance(op, Sum) and isinstance(inputs[0].op, Contract):
            with at_line(node.line):
                found = _summed(inputs[0], op.axes)
            if found is not None:
                return (found,)
        return apply_all(op, *inputs, line=node.line)

    return rebuild(graph, replace)


def _summed(x: Value, axes: tuple[int, ...]) -> Value | None:
    op = x.op
    assert isinstance(op, Contract)
    along = [axis for axis in axes if op.out[axis] in op.lhs and op.out[axis] in op.rhs]
    if not along or not is_float(x.dtype):
        return None
    kept = [axis for axis in range(len(op.out)) if axis not in along]
    left, right = x.node.inputs
    inner = contract(left, right, op.lhs, op.rhs, tuple(op.out[axis] for axis in kept))
    rest = tuple(kept.index(axis) for axis in axes if axis not in along)
    return sum_(inner, rest) if rest else inner


def thin_contractions_as_sums(graph: Graph) -> Graph:
    """Return the graph with vector-like, integer and tiny contractions as fused products and sums."""
    return _each_contract(graph, _as_sum)


def pack_operands(graph: Graph) -> Graph:
    """Return the graph with right operands of tiled contractions laid out in rows (a copy where they are not)."""
    return _each_contract(graph, _packed)


def _each_contract(graph: Graph, better: object) -> Graph:
    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(node.op, Contract):
            with at_line(node.line):
                found: Value | None = better(node.op, *inputs)  # type: ignore[operator]
            if found is not None:
                return (found,)
        return apply_all(node.op, *inputs, line=node.line)

    return rebuild(graph, replace)


def _as_sum(op: Contract, x: Value, y: Value) -> Value | None:
    extents = op.extents(x.aval, y.aval)
    _, left, right, inner = op.groups()
    rows, columns = (product(extents[k] for k in group) for group in (left, right))
    if is_float(x.dtype) and min(rows, columns) > 1 and product(extents.values()) > SMALL:
        return None
    order = _loop_order(op, rows, columns)
    shape = tuple(extents[k] for k in order)
    factors = [_spread(v, labels, order, shape) for v, labels in ((x, op.lhs), (y, op.rhs))]
    total = sum_(multiply(*factors), tuple(order.index(k) for k in inner))
    made = tuple(k for k in order if k not in inner)
    return transpose(total, tuple(made.index(k) for k in op.out))


def _loop_order(op: Contract, rows: int, columns: int) -> Labels:
    """Return the labels from the outermost to the innermost loop: the last axis in memory of the larger operand is innermost."""
    _, _, _, inner = op.groups()
    labels = op.rhs if columns >= rows else op.lhs
    innermost = labels[-1] if labels else None
    if innermost is None or innermost in inner:
        return (*(k for k in op.out), *inner)
    return (*(k for k in op.out if k != innermost), *inner, innermost)


def _spread(v: Value, labels: Labels, out: Labels, shape: tuple[int, ...]) -> Value:
    order = tuple(labels.index(label) for label in out if label in labels)
    return broadcast(transpose(v, order), shape, tuple(k for k, label in enumerate(out) if label not in labels))


def _packed(op: Contract, x: Value, y: Value) -> Value | None:
    """Bring a contraction to out = (batch..., left, right), lhs any order, rhs = (batch..., inner, right) in memory."""
    batch, left, right, inner = op.groups()
    if not op.out:
        return None
    if op.out == (*batch, *left, *right) and op.rhs == (*batch, *inner, *right) and max(map(len, (left, right, inner))) <= 1:
        return None
    if op.out[-1:] and op.out[-1] in left and op.out[-1] not in batch:
        op, x, y = Contract(op.rhs, op.lhs, op.out), y, x
        batch, left, right, inner = op.groups()
    extents = op.extents(x.aval, y.aval)
    sizes = {
        "left": product(extents[k] for k in left),
        "right": product(extents[k] for k in right),
        "inner": product(extents[k] for k in inner),
    }
    a = _merge(x, op.lhs, batch, (left, inner) if op.lhs and op.lhs[-1] in inner else (inner, left), extents)
    c = _laid_out(y, op.rhs, (*batch, *inner, *right))
    c = reshape(c, (*(extents[k] for k in batch), sizes["inner"], sizes["right"]))
    b_labels = tuple(range(len(batch)))
    m, n, k = len(batch), len(batch) + 1, len(batch) + 2
    a_labels = (*b_labels, m, k) if op.lhs and op.lhs[-1] in inner else (*b_labels, k, m)
    result = contract(a, c, a_labels, (*b_labels, k, n), (*b_labels, m, n))
    made = (*batch, *left, *right)
    result = reshape(result, tuple(extents[label] for label in made))
    return transpose(result, tuple(made.index(label) for label in op.out))


def _merge(v: Value, labels: Labels, batch: Labels, groups: tuple[Labels, Labels], extents: dict[int, int]) -> Value:
    """Return v with its axes as (batch..., first group, second group), each group one axis."""
    ordered = _laid_out(v, labels, (*batch, *groups[0], *groups[1]))
    return reshape(ordered, (*(extents[k] for k in batch), *(product(extents[k] for k in g) for g in groups)))


def _laid_out(v: Value, labels: Labels, wanted: Labels) -> Value:
    """Return v in the axis order `wanted`, copied if its memory is in another one."""
    if labels == wanted:
        return v
    return apply(Contiguous(), transpose(v, tuple(labels.index(label) for label in wanted)))
