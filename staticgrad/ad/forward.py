"""Forward mode: tangents flow from the inputs to the outputs, through each op's `jvp`."""

from __future__ import annotations

from collections.abc import Sequence

from staticgrad.errors import VerificationError
from staticgrad.ir.graph import topological
from staticgrad.ir.node import Value, at_line
from staticgrad.ops.control import Call
from staticgrad.ops.nested import TRANSFORMS


def tangents(outputs: Sequence[Value], inputs: Sequence[Value], seeds: Sequence[Value | None]) -> list[Value | None]:
    """Return the tangent of each output for the tangents `seeds` of the inputs; None stands for zero."""
    found: dict[Value, Value] = {value: seed for value, seed in zip(inputs, seeds, strict=True) if seed is not None}
    for node in topological(outputs, stop=inputs):
        incoming = [found.get(value) for value in node.inputs]
        if all(tangent is None for tangent in incoming):
            continue
        single = node.op.outputs == 1 and len(node.outputs) == 1 and not isinstance(node.op, Call)
        with at_line(node.line):
            made = node.op.jvp(incoming, node.outputs[0] if single else node.outputs, *node.inputs)
        for value, tangent in zip(node.outputs, (made,) if single else made, strict=True):
            if tangent is None:
                continue
            if tangent.shape != value.shape or tangent.dtype != value.dtype:
                raise VerificationError(f"the tangent {tangent.aval} does not fit {value!r}")
            found[value] = tangent
    return [found.get(value) for value in outputs]


TRANSFORMS["tangents"] = tangents
