"""The NumPy interpreter: the specification that every printer is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Node, Value


class Interpreter:
    """A graph made ready to be run many times, one NumPy operation a node; every value has a place in one list.

    What depends on no input is computed once. Results may be views of the arguments, of each other and of these fixed values.
    """

    def __init__(self, graph: Graph) -> None:
        place: dict[Value, int] = {value: k for k, value in enumerate(graph.inputs)}
        self._arguments = len(graph.inputs)
        self._fixed: list[np.ndarray] = []
        steps = [node for node in graph.nodes if node.outputs[0] not in place]
        with np.errstate(all="ignore"):
            for node in steps:
                if not node.is_fixed:
                    continue
                results = _results(node, [self._fixed[place[v] - self._arguments] for v in node.inputs])
                for result in results:
                    result.setflags(write=False)
                place.update((value, self._arguments + len(self._fixed) + k) for k, value in enumerate(node.outputs))
                self._fixed += results
        self._steps: list[tuple[Node, list[int], list[int]]] = []
        kept = {place[v] for v in graph.outputs if v in place} | set(range(self._arguments, len(place)))
        self._places = len(place)
        for node in steps:
            if node.is_fixed:
                continue
            first = self._places
            place.update((value, first + k) for k, value in enumerate(node.outputs))
            self._places += len(node.outputs)
            self._steps.append((node, [place[v] for v in node.inputs], []))
        self._outputs = [place[v] for v in graph.outputs]
        kept.update(self._outputs)
        for _, inputs, freed in reversed(self._steps):
            freed += [k for k in set(inputs) if k not in kept]
            kept.update(freed)

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for arrays of the shapes and dtypes of the inputs."""
        values: list[np.ndarray | None] = [*arguments, *self._fixed]
        with np.errstate(all="ignore"):
            for node, inputs, freed in self._steps:
                values += _results(node, [values[k] for k in inputs])
                for k in freed:
                    values[k] = None
        return [values[k] for k in self._outputs]  # type: ignore[misc]  # outputs are never freed


def interpret(graph: Graph, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of `graph` for `arguments`, each an array of its own."""
    return [np.array(array) for array in Interpreter(graph)([np.asarray(argument) for argument in arguments])]


def _results(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Return the results of one node, held against its shape rule."""
    results = node.op.numpy(*arrays)
    found = [np.asarray(result) for result in (results if isinstance(results, tuple) else (results,))]
    for value, result in zip(node.outputs, found, strict=True):
        if result.shape != value.shape or result.dtype != value.dtype:
            raise VerificationError(f"{node.op.signature()} gave {result.dtype}{list(result.shape)}, its rule says {value.aval}")
    return found
