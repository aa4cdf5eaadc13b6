"""Batching: every node is replaced by its op's batching rule; the batch axis stands in front."""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.ir.graph import topological
from staticgrad.ir.node import Value, apply_all, at_line
from staticgrad.ops.movement import broadcast
from staticgrad.ops.nested import TRANSFORMS


def batched(outputs: Sequence[Value], inputs: Sequence[Value], arguments: Sequence[Value], axes: Sequence[bool], size: int) -> list[Value]:
    """Return the outputs for `arguments` that carry a batch axis of `size` in front where `axes` says so; all results carry it."""
    image = dict(zip(inputs, arguments, strict=True))
    has = dict(zip(inputs, axes, strict=True))
    for node in topological(outputs, stop=inputs):
        flags = [has[value] for value in node.inputs]
        operands = [image[value] for value in node.inputs]
        with at_line(node.line):
            if any(flags):
                made = node.op.batch(size, flags, *operands)
                made = made if isinstance(made, tuple) else (made,)
            else:
                made = apply_all(node.op, *operands)
        for value, result in zip(node.outputs, made, strict=True):
            image[value], has[value] = result, any(flags)
    return [image[v] if has[v] else broadcast(image[v], (size, *v.shape), (0,)) for v in outputs]


TRANSFORMS["batched"] = batched
