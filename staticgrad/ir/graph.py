"""A graph: inputs, outputs and all that lies between, in topological order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from staticgrad.ir.node import Constant, Input, Node, Value, apply_all


def topological(roots: Iterable[Value], stop: Iterable[Value] = ()) -> list[Node]:
    """Return every node that `roots` need, operands first; nodes of `stop` are not entered. Iterative: depth is no limit."""
    done: set[Node] = {value.node for value in stop}
    order: list[Node] = []
    stack: list[tuple[Node, bool]] = [(root.node, False) for root in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((value.node, False) for value in reversed(node.inputs) if value.node not in done)
    return order


@dataclass(frozen=True, eq=False)
class Graph:
    """A program on arrays.

    `primals` are the values of the function before differentiation: what they need is computed by the forward kernel, the rest
    of the outputs by the backward kernel. A graph that was never differentiated has its outputs as primals.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    primals: tuple[Value, ...] = ()
    name: str = "graph"
    labels: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, operands first; the inputs (used or not) come first."""
        inputs = tuple(dict.fromkeys(value.node for value in self.inputs))
        order = topological(self.outputs, stop=self.inputs)
        return inputs + tuple(order)

    @cached_property
    def free(self) -> tuple[Value, ...]:
        """Inputs of other graphs that this one reads: what its function closed over."""
        own = {value.node for value in self.inputs}
        return tuple(n.outputs[0] for n in self.nodes if isinstance(n.op, Input) and n not in own)

    @cached_property
    def forward_nodes(self) -> frozenset[Node]:
        """The nodes that the primal computation needs."""
        if not self.primals:
            return frozenset(self.nodes)
        return frozenset(topological(self.primals)) | {value.node for value in self.inputs}

    @property
    def differentiated(self) -> bool:
        """Whether some output is computed by the backward kernel."""
        return any(self.is_backward(output) for output in self.outputs)

    def is_backward(self, output: Value) -> bool:
        """Return whether an output is computed by the backward kernel, or is an input that only that one is given (a cotangent)."""
        passed_on = isinstance(output.op, Input) and self.primals and output not in self.primals
        return bool(passed_on) or output.node not in self.forward_nodes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: equal for equal programs, wherever and whenever they were traced."""
        number: dict[Node, int] = {}
        sha = hashlib.sha256()
        for node in self.nodes:
            number[node] = len(number)
            text = node.op.aval.__str__() if isinstance(node.op, Input) else node.op.signature()
            sha.update(f"{text}({','.join(f'{number[v.node]}.{v.index}' for v in node.inputs)})\n".encode())
        sha.update(f"({','.join(f'{number[v.node]}.{v.index}' for v in self.inputs)})".encode())
        for value in self.outputs:
            sha.update(f"{number[value.node]}.{value.index}{'b' if self.is_backward(value) else ''};".encode())
        return sha.hexdigest()

    def with_outputs(self, outputs: Sequence[Value], primals: Sequence[Value] = ()) -> Graph:
        """Return the graph of the same inputs with other outputs."""
        return Graph(self.inputs, tuple(outputs), tuple(primals), self.name, self.labels)

    def __str__(self) -> str:
        from staticgrad.ir.printer import graph_text

        return graph_text(self)

    def _repr_svg_(self) -> str:
        from staticgrad.ir.draw import graph_svg

        return graph_svg(self)

    def to_dot(self) -> str:
        """Return the graph in the DOT language."""
        from staticgrad.ir.draw import graph_dot

        return graph_dot(self)


Replace = Callable[[Node, tuple[Value, ...]], Sequence[Value]]


def rebuild(graph: Graph, replace: Replace, known: Mapping[Value, Value] | None = None) -> Graph:
    """Return `graph` with every node passed through `replace(node, new_inputs) -> new outputs`, operands first."""
    image = substitution((*graph.outputs, *graph.primals), {**{v: v for v in graph.inputs}, **(known or {})}, replace)
    return graph.with_outputs([image[v] for v in graph.outputs], [image[v] for v in graph.primals])


def substitution(roots: Sequence[Value], known: Mapping[Value, Value], replace: Replace | None = None) -> dict[Value, Value]:
    """Return the image of all values under `roots` when those of `known` are replaced."""
    image: dict[Value, Value] = dict(known)
    whole = [value for value in known if all(sibling in known for sibling in value.node.outputs)]
    for node in topological(roots, stop=whole):
        inputs = tuple(image[v] for v in node.inputs)
        if replace is not None:
            outputs = replace(node, inputs)
        elif inputs == node.inputs or isinstance(node.op, Constant):
            outputs = node.outputs
        else:
            outputs = apply_all(node.op, *inputs, line=node.line)
        image.update((old, new) for old, new in zip(node.outputs, outputs, strict=True) if old not in known)
    return image


def inline(graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """Return the outputs of `graph` for `arguments` in place of its inputs."""
    image = substitution(graph.outputs, dict(zip(graph.inputs, arguments, strict=True)))
    return tuple(image[v] for v in graph.outputs)
