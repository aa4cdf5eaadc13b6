"""Simplification: rules that are true for every float, zeros, infinities and NaN included.

`x + 0` is not among them (-0 + 0 is 0), nor `x * 0`, nor `x - x`.
"""

from __future__ import annotations

import numpy as np

from staticgrad.errors import StaticgradError
from staticgrad.ir.aval import is_float, is_integer, product
from staticgrad.ir.node import Node, Value, apply, constant, constant_array, full
from staticgrad.ir.op import REGISTRY, Op
from staticgrad.ops.arithmetic import multiply, negative
from staticgrad.ops.casts import Cast
from staticgrad.ops.comparison import Where
from staticgrad.ops.contract import Contract, contract
from staticgrad.ops.control import Contiguous, StopGradient
from staticgrad.ops.elementwise import Elementwise
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
    inverse_order,
    last_of,
    reshape,
    same_region,
    slice_,
    transpose,
)
from staticgrad.ops.powers import IntegerPower
from staticgrad.ops.reduce import Max, Min, Prod, Sum, sum_
from staticgrad.passes.rewrite import Rule, rule

MAX_FOLDED = 1 << 16
"""Constants are computed at compile time up to this many elements."""


def maps() -> tuple[type[Op], ...]:
    """Return every elementwise op that computes something: a copy has to stay where it is."""
    return tuple(cls for cls in REGISTRY.values() if issubclass(cls, Elementwise) and cls is not Contiguous)


def named(name: str) -> type[Op]:
    """Return the op class called `name`."""
    return REGISTRY[name]


def splat(x: Value) -> np.generic | None:
    """Return the number that every element of x is, if that is known."""
    while isinstance(x.op, (Broadcast, Reshape)):
        x = x.node.inputs[0]
    array = constant_array(x)
    number: np.generic | None = None if array is None or array.size != 1 else array.reshape(-1)[0]
    return number


def _is(x: Value, number: float) -> bool:
    """Return whether every element of x is `number`, sign of zero included."""
    known = splat(x)
    return known is not None and bool(known == number) and bool(np.signbit(known) == np.signbit(np.float64(number)))


# ---- arithmetic ----------------------------------------------------------------------------------------------------------


@rule(named("multiply"))
def multiply_by_one(node: Node) -> Value | None:
    """X * 1 -> x."""
    x, y = node.inputs
    if x.dtype.kind == "b":
        return None
    return x if _is(y, 1) else y if _is(x, 1) else None


@rule(named("multiply"))
def multiply_by_minus_one(node: Node) -> Value | None:
    """X * -1 -> -x."""
    x, y = node.inputs
    if not (is_float(x.dtype) or x.dtype.kind == "i"):
        return None
    return negative(x) if _is(y, -1) else negative(y) if _is(x, -1) else None


@rule(named("divide"))
def divide_by_one(node: Node) -> Value | None:
    """X / 1 -> x."""
    return node.inputs[0] if _is(node.inputs[1], 1) else None


@rule(named("divide"))
def divide_by_power_of_two(node: Node) -> Value | None:
    """X / 2**k -> x * 2**-k: both are exact, and the product is cheaper."""
    x, y = node.inputs
    known = splat(y)
    if known is None or splat(x) is not None or not np.isfinite(known) or known == 0:
        return None
    mantissa, exponent = np.frexp(np.float64(known))
    if abs(mantissa) != 0.5 or abs(exponent) > 120:
        return None
    return multiply(x, full(x.shape, 1.0 / float(known), x.dtype))


@rule(named("add"))
def add_negative_zero(node: Node) -> Value | None:
    """X + -0 -> x, and for integers x + 0 -> x."""
    x, y = node.inputs
    zero = 0.0 if is_integer(x.dtype) else -0.0
    if x.dtype.kind == "b":
        return None
    return x if _is(y, zero) else y if _is(x, zero) else None


@rule(named("subtract"))
def subtract_zero(node: Node) -> Value | None:
    """X - 0 -> x."""
    return node.inputs[0] if _is(node.inputs[1], 0) else None


@rule(named("add"))
def add_negative(node: Node) -> Value | None:
    """X + -y -> x - y."""
    x, y = node.inputs
    if isinstance(y.op, named("negative")):
        return x - y.node.inputs[0]
    return y - x.node.inputs[0] if isinstance(x.op, named("negative")) else None


@rule(named("subtract"))
def subtract_negative(node: Node) -> Value | None:
    """X - -y -> x + y."""
    x, y = node.inputs
    return x + y.node.inputs[0] if isinstance(y.op, named("negative")) else None


@rule(named("negative"))
def negative_of_negative(node: Node) -> Value | None:
    """--x -> x."""
    x = node.inputs[0]
    return x.node.inputs[0] if isinstance(x.op, named("negative")) else None


@rule(IntegerPower)
def first_power(node: Node) -> Value | None:
    """x**1 -> x, x**2 -> x*x."""
    x = node.inputs[0]
    exponent = node.op.exponent if isinstance(node.op, IntegerPower) else 0
    return x if exponent == 1 else multiply(x, x) if exponent == 2 else None


@rule(Where)
def where_same(node: Node) -> Value | None:
    """where(c, x, x) -> x."""
    _, x, y = node.inputs
    return x if x is y else None


@rule(Where)
def where_known(node: Node) -> Value | None:
    """where(True, x, y) -> x."""
    condition, x, y = node.inputs
    known = splat(condition)
    return None if known is None else x if known else y


@rule(named("logical_not"))
def not_of_not(node: Node) -> Value | None:
    """Not not x -> x."""
    x = node.inputs[0]
    return x.node.inputs[0] if isinstance(x.op, named("logical_not")) else None


@rule(Cast)
def cast_to_same(node: Node) -> Value | None:
    """A cast that changes nothing -> x."""
    x = node.inputs[0]
    return x if x.dtype == node.outputs[0].dtype else None


@rule(Cast)
def cast_there_and_back(node: Node) -> Value | None:
    """f32 -> f64 -> f32 is x, likewise for every widening that keeps all values."""
    x = node.inputs[0]
    if not isinstance(x.op, Cast):
        return None
    source = x.node.inputs[0]
    return source if source.dtype == node.outputs[0].dtype and _keeps_all_values(source.dtype, x.dtype) else None


def _keeps_all_values(narrow: np.dtype, wide: np.dtype) -> bool:
    """Return whether `wide` holds every value of `narrow`; NumPy calls int64 -> float64 safe, which rounds."""
    rounds = is_integer(narrow) and is_float(wide) and 8 * narrow.itemsize > np.finfo(wide).nmant
    return np.can_cast(narrow, wide, "safe") and not rounds


# ---- constants and marks -------------------------------------------------------------------------------------------------


@rule(
    *(
        cls
        for cls in REGISTRY.values()
        if cls.kind in ("map", "reduce", "alias", "contract", "view", "assemble", "row") and cls is not Broadcast
    )
)
def fold_constants(node: Node) -> Value | None:
    """op(constants) -> constant."""
    if not node.inputs or node.outputs[0].aval.size > MAX_FOLDED:
        return None
    arrays = [constant_array(v) for v in node.inputs]
    if any(array is None or array.size > MAX_FOLDED for array in arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            return constant(node.op.numpy(*arrays))
    except StaticgradError:  # an index out of bounds: that is an error where the node runs
        return None


@rule(StopGradient)
def drop_stop_gradient(node: Node) -> Value | None:
    """After differentiation the mark has done its work."""
    return node.inputs[0]


# ---- movement --------------------------------------------------------------------------------------------------------------


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


# ---- reductions and contractions -------------------------------------------------------------------------------------------


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


RULES: tuple[Rule, ...] = tuple(value for value in globals().values() if isinstance(value, Rule))
"""All rules, in the order in which they are tried."""
