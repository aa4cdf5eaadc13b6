"""What operations that hold sub-graphs have in common: how they are told apart, and what becomes of their sub-graphs.

The operands of such an op are `(first ones of its own..., constants..., others...)`; a sub-graph takes the same constants, at the same
place among its inputs. What a function closed over stands among the constants.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, rebuild, topological
from staticgrad.ir.node import Node, Value, apply_all, full, new_input, zeros_like
from staticgrad.ir.op import Op
from staticgrad.ops.movement import broadcast

TRANSFORMS: dict[str, Callable[..., Any]] = {}
"""What derivatives and batches of sub-graphs are made with: `tangents`, `cotangents`, `added` and `batched` of `staticgrad.ad`, which
stands above the ops; whoever asks an op for its derivative or its batch has imported the one in question."""


@dataclass(frozen=True, eq=False)
class Nested(Op):
    """An op with sub-graphs; two are equal where the contents of their sub-graphs are."""

    kind = "nested"
    outputs = 0
    own: ClassVar[int] = 0
    """The number of operands ahead of the constants."""
    inner: ClassVar[int] = 0
    """The number of inputs of a sub-graph ahead of the constants."""

    @functools.cached_property
    def _content(self) -> str:
        return self.signature()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Nested) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def may_fail(self, *avals: Aval) -> bool:
        return any(map(may_fail, self.subgraphs))

    @property
    def constants(self) -> int:
        """How many operands are handed to every sub-graph as they are."""
        raise VerificationError(f"{self.name} does not say which of its operands are constants")

    @property
    def starts(self) -> range:
        """Which operands are what a carry starts as: they are read once and written nowhere."""
        return range(0)

    def with_subgraphs(self, graphs: Sequence[Graph], constants: int) -> Nested:
        """Return the op of other sub-graphs that take so many constants."""
        raise VerificationError(f"{self.name} cannot take {len(graphs)} other sub-graphs with {constants} constants")

    def trimmed(self, read: Sequence[bool]) -> Trimmed:
        """Return the op without what nobody reads: `read` tells it of the outputs. With it, the operands and outputs that it keeps."""
        raise VerificationError(f"{self.name} with {len(read)} outputs cannot be trimmed")

    @functools.cached_property
    def _trimmed(self) -> dict[tuple[bool, ...], Trimmed]:
        return {}

    def trimmed_once(self, read: Sequence[bool]) -> Trimmed:
        """Return `trimmed`, which loops ask for again and again of what is inside of them, at every depth."""
        key = tuple(read)
        if key not in self._trimmed:
            self._trimmed[key] = self.trimmed(key)
        return self._trimmed[key]


Trimmed = tuple[Nested, list[int], list[int]]
"""An op, and which operands and outputs of the one that it stands for it has."""


def check_operands(name: str, graph: Graph, avals: Sequence[Aval]) -> None:
    """Raise unless a sub-graph is closed and takes operands of these shapes and dtypes."""
    if graph.free:
        raise VerificationError(f"{name}: what {graph.name} closes over must stand among its operands")
    expected = [value.aval for value in graph.inputs]
    if list(map(plain, expected)) != list(map(plain, avals)):
        raise VerificationError(f"{name}: {graph.name} takes {', '.join(map(str, expected))}, not {', '.join(map(str, avals))}")


def may_fail(graph: Graph) -> bool:
    """Return whether something in a graph may find elements of its operands to be an error."""
    return any(node.op.may_fail(*(v.aval for v in node.inputs)) for node in graph.nodes)


def plain(aval: Aval) -> Aval:
    """Return the aval without its mark of a Python number."""
    return Aval(aval.shape, aval.dtype)


def depends(graph: Graph, flags: Sequence[bool]) -> list[bool]:
    """Return which outputs depend on the inputs that are flagged."""
    has = dict(zip(graph.inputs, flags, strict=True))
    for node in topological(graph.outputs, stop=graph.inputs):
        reached = any(has[value] for value in node.inputs)
        has |= dict.fromkeys(node.outputs, reached)
    return [has[value] for value in graph.outputs]


def read_inputs(graph: Graph) -> list[bool]:
    """Return which inputs some output depends on; what ops with sub-graphs do not need of theirs does not count."""
    read, _ = _read_by_outputs(graph)
    return [value in read for value in graph.inputs]


def read_of_carry(body: Graph, read: Sequence[bool], first: int, carries: int) -> list[bool]:
    """Return which outputs of the body of a loop are needed: what is read, and the part of the carry that it depends on.

    The carry is the first of the outputs, and among the inputs it stands from `first` on.
    """
    needed = list(read)
    while True:
        used = read_inputs(body.with_outputs([v for v, flag in zip(body.outputs, needed, strict=True) if flag]))
        after = [flag or used[first + k] for k, flag in enumerate(needed[:carries])] + needed[carries:]
        if after == needed:
            return needed
        needed = after


def trim(graph: Graph) -> Graph:
    """Return the graph with outputs, carries and operands of its ops dropped that nobody reads, at any depth."""
    if not any(isinstance(node.op, Nested) for node in graph.nodes):
        return graph
    _, smaller = _read_by_outputs(graph)

    def found(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if node not in smaller:
            return node.outputs if isinstance(node.op, Nested) else apply_all(node.op, *inputs, line=node.line)
        op, operands, outputs = smaller[node]
        made = dict(zip(outputs, apply_all(op, *(inputs[k] for k in operands), line=node.line), strict=True))
        return [made[k] if k in made else zeros_like(value) for k, value in enumerate(node.outputs)]

    return rebuild(graph, found)


def _read_by_outputs(graph: Graph) -> tuple[set[Value], dict[Node, Trimmed]]:
    """Return all values that the outputs depend on, and what remains of the ops with sub-graphs."""
    read: set[Value] = {*graph.outputs, *graph.primals}
    smaller: dict[Node, Trimmed] = {}
    for node in reversed(graph.nodes):
        if not any(value in read for value in node.outputs):
            continue
        if not isinstance(node.op, Nested):
            read.update(node.inputs)
            continue
        smaller[node] = node.op.trimmed_once([value in read for value in node.outputs])
        read.update(node.inputs[k] for k in smaller[node][1])
    return read, smaller


def with_inputs(graph: Graph, places: Sequence[int]) -> Graph:
    """Return the graph with those of its inputs alone that stand at `places`; it reads no others."""
    labels = tuple(graph.labels[k] if k < len(graph.labels) else "" for k in places)
    return replace(graph, inputs=tuple(graph.inputs[k] for k in places), labels=labels)


def zeros(aval: Aval) -> Value:
    """Return zeros of a shape and dtype."""
    return full(aval.shape, 0, aval.dtype)


# ---- derivatives and batches of sub-graphs


def pushed(graph: Graph, flags: Sequence[bool]) -> tuple[list[Value], list[Value | None]]:
    """Return inputs for the tangents of the inputs that are flagged, and the tangents of the outputs."""
    seeds = [new_input(plain(value.aval), "tangent") if has else None for value, has in zip(graph.inputs, flags, strict=True)]
    found: list[Value | None] = TRANSFORMS["tangents"](graph.outputs, graph.inputs, seeds)
    return [seed for seed in seeds if seed is not None], found


def pulled(graph: Graph, flags: Sequence[bool]) -> tuple[list[Value], list[Value | None]]:
    """Return inputs for the cotangents of the outputs that are flagged, and the cotangents of the inputs."""
    seeds = [new_input(plain(value.aval), "cotangent") if has else None for value, has in zip(graph.outputs, flags, strict=True)]
    found: list[Value | None] = TRANSFORMS["cotangents"](graph.outputs, graph.inputs, seeds)
    return [seed for seed in seeds if seed is not None], found


def mapped(graph: Graph, flags: Sequence[bool], size: int, wanted: Sequence[bool]) -> tuple[list[Value], list[Value]]:
    """Return inputs that carry a batch axis of `size` in front where they are flagged, and the outputs, with one where it is wanted."""
    fresh = [
        new_input(Aval((size, *value.shape), value.dtype)) if has else new_input(plain(value.aval))
        for value, has in zip(graph.inputs, flags, strict=True)
    ]
    results: tuple[list[Value], list[bool]] = TRANSFORMS["batched"](graph.outputs, graph.inputs, fresh, list(flags), size)
    made = [in_front(v, size) if wants and not has else v for v, has, wants in zip(*results, wanted, strict=True)]
    return fresh, made


def in_front(x: Value, size: int) -> Value:
    """Return copies of `x` along a new first axis."""
    return broadcast(x, (size, *x.shape), (0,))


def is_active(value: Value, flag: bool) -> bool:
    """Return whether a flagged value has a derivative."""
    return flag and is_float(value.dtype)
