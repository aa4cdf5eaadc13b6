"""Exact rules on views and writes: one of them for two, none for a copy of what is there already."""

from __future__ import annotations

from staticgrad.ir.aval import product
from staticgrad.ir.node import Node, Value, apply
from staticgrad.ops.contract import Contract, contract
from staticgrad.ops.index import Gather, ScatterSet
from staticgrad.ops.movement import (
    Broadcast,
    Concatenate,
    Flip,
    Pad,
    Reshape,
    Slice,
    SliceSet,
    Transpose,
    apart,
    broadcast,
    flip,
    last_of,
    reshape,
    same_region,
    slice_,
    transpose,
)
from staticgrad.passes.matching import maps
from staticgrad.passes.rewrite import rule


@rule(Reshape)
def reshape_of_reshape(node: Node) -> Value | None:
    """Two reshapes -> one."""
    x = node.inputs[0]
    if x.shape == node.outputs[0].shape:
        return x
    return reshape(x.node.inputs[0], node.outputs[0].shape) if isinstance(x.op, Reshape) else None


@rule(Reshape)
def reshape_of_broadcast_scalar(node: Node) -> Value | None:
    """A reshaped splat -> a splat."""
    x = node.inputs[0]
    if isinstance(x.op, Broadcast) and not x.node.inputs[0].shape:
        shape = node.outputs[0].shape
        return broadcast(x.node.inputs[0], shape, tuple(range(len(shape))))
    return None


@rule(Transpose)
def transpose_of_transpose(node: Node) -> Value | None:
    """Two transpositions -> one."""
    x, op = node.inputs[0], node.op
    if isinstance(op, Transpose) and isinstance(x.op, Transpose):
        return transpose(x.node.inputs[0], tuple(x.op.order[k] for k in op.order))
    return None


@rule(Transpose)
def transpose_of_unit_axes(node: Node) -> Value | None:
    """A transposition that only moves axes of length 1 -> a reshape."""
    x, op = node.inputs[0], node.op
    assert isinstance(op, Transpose)
    long = [axis for axis in op.order if x.shape[axis] != 1]
    return reshape(x, node.outputs[0].shape) if long == sorted(long) else None


@rule(Transpose)
def transpose_of_contract(node: Node) -> Value | None:
    """A transposed product -> a product with its output labels in that order."""
    x, op = node.inputs[0], node.op
    if isinstance(op, Transpose) and isinstance(x.op, Contract):
        inner = x.op
        left, right = x.node.inputs
        return contract(left, right, inner.lhs, inner.rhs, tuple(inner.out[k] for k in op.order))
    return None


@rule(Broadcast)
def broadcast_of_broadcast(node: Node) -> Value | None:
    """Two broadcasts -> one."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Broadcast) and isinstance(x.op, Broadcast)):
        return None
    kept = [axis for axis in range(len(op.shape)) if axis not in op.axes]
    inner = tuple(kept[axis] for axis in x.op.axes)
    return broadcast(x.node.inputs[0], op.shape, tuple(sorted((*op.axes, *inner))))


@rule(Transpose)
def transpose_of_broadcast(node: Node) -> Value | None:
    """A transposed broadcast -> a broadcast along other axes."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Transpose) and isinstance(x.op, Broadcast)):
        return None
    axes = tuple(k for k, axis in enumerate(op.order) if axis in x.op.axes)
    kept = [axis for axis in range(len(x.shape)) if axis not in x.op.axes]
    order = tuple(kept.index(axis) for axis in op.order if axis not in x.op.axes)
    return broadcast(transpose(x.node.inputs[0], order), node.outputs[0].shape, axes)


@rule(Slice)
def slice_of_slice(node: Node) -> Value | None:
    """Two slices -> one."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Slice) and isinstance(x.op, Slice)):
        return None
    inner = x.op
    starts = tuple(s + a * d for s, a, d in zip(inner.starts, op.starts, inner.steps, strict=True))
    steps = tuple(d * k for d, k in zip(inner.steps, op.steps, strict=True))
    stops = tuple(s + (n - 1) * d + 1 if n else s for s, n, d in zip(starts, node.outputs[0].shape, steps, strict=True))
    return slice_(x.node.inputs[0], starts, stops, steps)


@rule(Slice)
def slice_of_broadcast(node: Node) -> Value | None:
    """A slice of a repeated scalar -> fewer repetitions."""
    x = node.inputs[0]
    if isinstance(x.op, Broadcast) and not x.node.inputs[0].shape:
        shape = node.outputs[0].shape
        return broadcast(x.node.inputs[0], shape, tuple(range(len(shape))))
    return None


@rule(Slice)
def slice_of_slice_set(node: Node) -> Value | None:
    """Reading what was just written -> the written value; reading beside it -> reading what was there before."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Slice) and isinstance(x.op, SliceSet)):
        return None
    shape, source = node.outputs[0].shape, x
    while isinstance(source.op, SliceSet):
        base, written = source.node.inputs
        region = source.op.slice.slices
        if same_region(op.slices, shape, region, written.shape):
            return written
        if not apart(op.slices, shape, region, written.shape):
            break
        source = base
    return None if source is x else apply(op, source)


@rule(Gather)
def gather_of_scatter_set(node: Node) -> Value | None:
    """Reading at the one place that was just written -> the written value."""
    x, *indices = node.inputs
    if not (isinstance(node.op, Gather) and isinstance(x.op, ScatterSet)) or x.op.gather != node.op:
        return None
    single = product(indices[0].shape[node.op.shared :]) == 1
    return x.node.inputs[1] if single and list(x.node.inputs[2:]) == indices else None


@rule(ScatterSet)
def scatter_set_of_scatter_set(node: Node) -> Value | None:
    """Two writes to the same places -> the second one."""
    x, y, *indices = node.inputs
    if x.op != node.op or list(x.node.inputs[2:]) != indices:
        return None
    return apply(node.op, x.node.inputs[0], y, *indices)


@rule(Slice)
def slice_of_concatenate(node: Node) -> Value | None:
    """A slice that lies within one operand -> a slice of that operand."""
    x, op = node.inputs[0], node.op
    if not (isinstance(op, Slice) and isinstance(x.op, Concatenate)) or not node.outputs[0].aval.size:
        return None
    axis = x.op.axis
    first, last = op.starts[axis], last_of(op.slices[axis], node.outputs[0].shape[axis])
    for part, offset in zip(x.node.inputs, x.op.offsets([v.shape for v in x.node.inputs]), strict=True):
        if offset <= first and last < offset + part.shape[axis]:
            starts = tuple(s - offset if k == axis else s for k, s in enumerate(op.starts))
            stops = tuple(last - offset + 1 if k == axis else s for k, s in enumerate(op.stops))
            return slice_(part, starts, stops, op.steps)
    return None


@rule(Slice)
def slice_of_pad(node: Node) -> Value | None:
    """A slice that undoes a padding -> what was padded; one that lies in the padding -> the fill value."""
    x, op, y = node.inputs[0], node.op, node.outputs[0]
    if not (isinstance(op, Slice) and isinstance(x.op, Pad)):
        return None
    inner, fill = x.node.inputs
    region = x.op.region(inner.shape)
    if same_region(op.slices, y.shape, region, inner.shape):
        return inner
    return broadcast(fill, y.shape, tuple(range(len(y.shape)))) if apart(op.slices, y.shape, region, inner.shape) else None


@rule(Flip)
def flip_of_flip(node: Node) -> Value | None:
    """Two flips -> one, of the axes that only one of them flips."""
    x, op = node.inputs[0], node.op
    if isinstance(op, Flip) and isinstance(x.op, Flip):
        return flip(x.node.inputs[0], tuple(set(op.axes) ^ set(x.op.axes)))
    return None


@rule(*maps())
def map_of_broadcasts(node: Node) -> Value | None:
    """map(broadcast x, broadcast y) -> broadcast(map(x, y)), where the axes agree or an operand is a splat."""
    spreads = [v for v in node.inputs if isinstance(v.op, Broadcast)]
    if len(spreads) != len(node.inputs) or not spreads:
        return None
    lead = next((v for v in spreads if v.node.inputs[0].shape), spreads[0])
    axes = lead.op.axes  # type: ignore[attr-defined]
    operands: list[Value] = []
    for v in spreads:
        source = v.node.inputs[0]
        if v.op.axes == axes:  # type: ignore[attr-defined]
            operands.append(source)
        elif not source.shape:
            inner = lead.node.inputs[0].shape
            operands.append(broadcast(source, inner, tuple(range(len(inner)))))
        else:
            return None
    return broadcast(apply(node.op, *operands), node.outputs[0].shape, axes)
