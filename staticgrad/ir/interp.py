"""The NumPy interpreter: the specification that every printer is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Node, Value


def interpret(graph: Graph, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of `graph` for `arguments`, one NumPy operation a node."""
    values: dict[Value, np.ndarray] = dict(zip(graph.inputs, map(np.asarray, arguments), strict=True))
    remaining = _last_uses(graph)
    with np.errstate(all="ignore"):
        for position, node in enumerate(graph.nodes):
            if node.outputs[0] in values:
                continue
            results = node.op.numpy(*(values[v] for v in node.inputs))
            results = results if isinstance(results, tuple) else (results,)
            for value, result in zip(node.outputs, results, strict=True):
                values[value] = _checked(node, value, np.asarray(result))
            for dead in remaining.get(position, ()):
                values.pop(dead, None)
    return [np.array(values[v]) for v in graph.outputs]


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    last: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            last[value] = position
    for value in graph.outputs:
        last.pop(value, None)
    freed: dict[int, list[Value]] = {}
    for value, position in last.items():
        freed.setdefault(position, []).append(value)
    return freed


def _checked(node: Node, value: Value, result: np.ndarray) -> np.ndarray:
    if result.shape != value.shape or result.dtype != value.dtype:
        raise VerificationError(f"{node.op.signature()} gave {result.dtype}{list(result.shape)}, its rule says {value.aval}")
    return result
