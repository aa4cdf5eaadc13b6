"""Which views can be read where they are: by a tile of a matrix product, whose kernels step forward and along rows, and as whole arrays."""

from __future__ import annotations

import numpy as np

from staticgrad.ir.node import Value, constant_array
from staticgrad.ops.movement import Broadcast, Flip, Reshape, Slice, Transpose, View, only_unit_axes_differ


def steps_forward(v: Value) -> bool:
    """Return whether no axis of `v` runs backwards through memory."""
    source: Value | None = v
    while source is not None:
        if isinstance(source.op, Flip):
            return False
        source = _viewed(source)
    return True


def in_rows(v: Value) -> bool:
    """Return whether neighbours along the last axis of `v` are neighbours in memory."""
    source, axis = v, len(v.shape) - 1
    while (below := _viewed(source)) is not None:
        op = source.op
        if (isinstance(op, Broadcast) and axis in op.axes) or (isinstance(op, Slice) and op.steps[axis] != 1):
            return False
        if isinstance(op, Broadcast):
            axis -= sum(new < axis for new in op.axes)
        elif isinstance(op, Transpose):
            axis = op.order[axis]
        elif isinstance(op, Reshape):
            place = sum(extent != 1 for extent in source.shape[:axis])
            axis = [k for k, extent in enumerate(below.shape) if extent != 1][place]
        source = below
    return all(extent == 1 for extent in source.shape[axis + 1 :])


def held_by(v: Value) -> Value:
    """Return the value that, in memory of its own, holds the elements of `v` in order."""
    while isinstance(v.op, Reshape):
        v = v.node.inputs[0]
    return v


def number_of(v: Value) -> np.generic | None:
    """Return the number that every element of `v` is, None where that is not known."""
    while isinstance(v.op, (Broadcast, Reshape)):
        v = v.node.inputs[0]
    array = constant_array(v)
    return array.reshape(-1)[0] if array is not None and array.size == 1 else None


def _viewed(v: Value) -> Value | None:
    """Return the value whose memory v is read from, None where v has memory of its own."""
    if not isinstance(v.op, View):
        return None
    below = v.node.inputs[0]
    return None if isinstance(v.op, Reshape) and not only_unit_axes_differ(below.shape, v.shape) else below
