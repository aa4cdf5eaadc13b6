"""Rules on reductions and contractions: exact, but for sums that are computed more accurately without adding."""

from __future__ import annotations

from staticgrad.ir.aval import product
from staticgrad.ir.node import Node, Value, full
from staticgrad.ops.arithmetic import multiply
from staticgrad.ops.contract import Contract, contract
from staticgrad.ops.movement import (
    Broadcast,
    Transpose,
    broadcast,
    inverse_order,
    reshape,
    transpose,
)
from staticgrad.ops.reduce import Max, Min, Prod, Sum, sum_
from staticgrad.passes.rewrite import rule


@rule(Prod, Max, Min)
def reduce_of_unit_axes(node: Node) -> Value | None:
    """A reduction over axes of length 1 alone -> a reshape."""
    return _without_unit_axes(node)


@rule(Sum, exact=False)
def sum_of_unit_axes(node: Node) -> Value | None:
    """A sum over axes of length 1 alone -> a reshape; -0 stays -0, where NumPy's sum starts from 0."""
    return _without_unit_axes(node)


def _without_unit_axes(node: Node) -> Value | None:
    x, y = node.inputs[0], node.outputs[0]
    axes = node.op.axes  # type: ignore[attr-defined]
    return reshape(x, y.shape) if all(x.shape[a] == 1 for a in axes) else None


@rule(Sum, exact=False)
def sum_of_broadcast(node: Node) -> Value | None:
    """The sum of n equal elements -> n times the element, rounded once instead of n times."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Sum) and isinstance(x.op, Broadcast)):
        return None
    both = [axis for axis in op.axes if axis in x.op.axes]
    if not both or product(x.shape) == 0:
        return None
    shape = x.shape
    count = product(shape[a] for a in both)
    kept = [a for a in range(len(shape)) if a not in both]
    inner = broadcast(x.node.inputs[0], tuple(shape[a] for a in kept), tuple(kept.index(a) for a in x.op.axes if a in kept))
    rest = sum_(inner, tuple(kept.index(a) for a in op.axes if a in kept))
    return rest * count


@rule(Sum)
def sum_of_nothing(node: Node) -> Value | None:
    """A sum over no elements -> 0."""
    x, y = node.inputs[0], node.outputs[0]
    return full(y.shape, 0, y.dtype) if x.aval.size == 0 else None


@rule(Contract)
def contract_of_transposes(node: Node) -> Value | None:
    """Transpositions of operands -> labels in another order."""
    op = node.op
    assert isinstance(op, Contract)
    operands, labels = list(node.inputs), [op.lhs, op.rhs]
    if not any(isinstance(v.op, Transpose) for v in operands):
        return None
    for k, v in enumerate(operands):
        if isinstance(v.op, Transpose):
            operands[k] = v.node.inputs[0]
            labels[k] = tuple(labels[k][position] for position in inverse_order(v.op.order))
    return contract(operands[0], operands[1], labels[0], labels[1], op.out)


@rule(Contract)
def contract_of_nothing(node: Node) -> Value | None:
    """A contraction over an empty axis -> 0."""
    op, y = node.op, node.outputs[0]
    assert isinstance(op, Contract)
    extents = op.extents(*(v.aval for v in node.inputs))
    return full(y.shape, 0, y.dtype) if any(extents[label] == 0 for label in op.groups()[3]) else None


@rule(Contract)
def contract_without_sum(node: Node) -> Value | None:
    """A contraction that sums over nothing -> a product of broadcasts, which fuses."""
    op, y = node.op, node.outputs[0]
    assert isinstance(op, Contract)
    if op.groups()[3]:
        return None
    return multiply(*(spread_labels(v, labels, op.out, y.shape) for v, labels in zip(node.inputs, (op.lhs, op.rhs), strict=True)))


def spread_labels(v: Value, labels: tuple[int, ...], out: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    """Return v, whose axes carry `labels`, in the axis order of `out`, broadcast to its shape."""
    order = tuple(labels.index(label) for label in out if label in labels)
    return broadcast(transpose(v, order), shape, tuple(k for k, label in enumerate(out) if label not in labels))
