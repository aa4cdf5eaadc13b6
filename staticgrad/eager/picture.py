"""The graph behind a tensor: what was computed from what, and the way that gradients will go back; as data, text, DOT and SVG.

`c = a * b` -> tensors `a b c`, the operation `Mul`, and backward `c.backward() -> MulBackward0 -> a.grad, b.grad`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from staticgrad.eager.tape import AccumulateGrad, Edge, Node
from staticgrad.eager.tensors import Tensor, aval_of
from staticgrad.errors import ArgumentError
from staticgrad.ir import draw
from staticgrad.ir.aval import Aval
from staticgrad.ir.source import SourceLine, at_user_line

_WIDTH = 40  # characters of a value


@dataclass(frozen=True, eq=False)
class Fields:
    """The five fields of a tensor, as they were when the graph was drawn: `data` and `grad` are copies."""

    data: Tensor
    grad: Tensor | None
    grad_fn: str | None
    is_leaf: bool
    requires_grad: bool

    @classmethod
    def of(cls, x: Tensor) -> Fields:
        """Return the fields of a tensor."""
        node, grad = x.grad_fn, x._grad
        copy = None if grad is None else Tensor._of(grad._array.copy())
        return cls(Tensor._of(x._array.copy()), copy, None if node is None else node.name(), x.is_leaf, x.requires_grad)

    def lines(self) -> list[str]:
        """Return one line a field."""
        shown = {
            "data": _value_text(self.data),
            "grad": "None" if self.grad is None else _value_text(self.grad),
            "grad_fn": "None" if self.grad_fn is None else f"<{self.grad_fn}>",
            "is_leaf": str(self.is_leaf),
            "requires_grad": str(self.requires_grad),
        }
        return [f"{name} {text}" for name, text in shown.items()]


def _value_text(x: Tensor) -> str:
    text = " ".join(repr(x).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


@dataclass(frozen=True, eq=False)
class GraphTensor:
    """A tensor of the graph.

    Attributes
    ----------
    name : str
        The name it was given; otherwise `leaf 1`, `untracked 1`, of results `%1`, and of a Python number the number itself.
    kind : {"leaf", "untracked", "number", "result"}
        A leaf that requires gradients, an operand without gradient, a Python number, or what an operation computed.
    aval : Aval
        Shape and dtype.
    fields : Fields or None
        Its five fields; None of results that were not named and of operands that are gone: the tape does not keep tensors.
    """

    name: str
    kind: str
    aval: Aval
    fields: Fields | None


@dataclass(frozen=True, eq=False)
class GraphOperation:
    """An operation of the graph. Tensors are told by their places in `BackwardGraph.tensors`.

    Attributes
    ----------
    name, backward : str
        What it and its node of the backward pass are called: `Mul` and `MulBackward0`; a number sign tells those of equal name apart.
    operands, results : tuple of int
        What it read and computed.
    gradients : tuple of int
        The operands that its backward pass gives a gradient to.
    reads : tuple of int
        The operands and results whose values its backward pass needs.
    line : SourceLine or None
        The user's line.
    """

    name: str
    backward: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    gradients: tuple[int, ...]
    reads: tuple[int, ...]
    line: SourceLine | None


@dataclass(frozen=True, eq=False)
class BackwardGraph:
    """What some tensors were computed from, and where their gradients go. It holds copies and no part of the tape.

    It prints as text; a notebook shows its picture.

    Attributes
    ----------
    tensors : tuple of GraphTensor
        Operands stand before what was computed from them.
    operations : tuple of GraphOperation
        In the order in which they were recorded; the backward pass takes them from the last to the first.
    outputs : tuple of int
        The places of the tensors that the graph was made for.
    """

    tensors: tuple[GraphTensor, ...]
    operations: tuple[GraphOperation, ...]
    outputs: tuple[int, ...]

    def __getitem__(self, name: str) -> GraphTensor:
        """Return the tensor of this name."""
        found = next((x for x in self.tensors if x.name == name), None)
        if found is None:
            raise KeyError(f"{name!r}; the graph has {', '.join(x.name for x in self.tensors)}")
        return found

    @property
    def forward_arrows(self) -> list[tuple[str, str]]:
        """From each operand to its operation, and from each operation to its results."""
        found = []
        for operation in self.operations:
            found += [(self.tensors[k].name, operation.name) for k in operation.operands]
            found += [(operation.name, self.tensors[k].name) for k in operation.results]
        return found

    @property
    def backward_arrows(self) -> list[tuple[str, str]]:
        """The ways of gradients: from `c.backward()` through the nodes of the backward pass to `a.grad`."""
        makers = self._makers()
        starts = [(f"{self.tensors[k].name}.backward()", self._receiver(k, makers)) for k in self.outputs if self._has_gradient(k)]
        return starts + [
            (operation.backward, self._receiver(k, makers)) for operation in reversed(self.operations) for k in operation.gradients
        ]

    def _has_gradient(self, tensor: int) -> bool:
        return self.tensors[tensor].kind != "untracked"

    def _makers(self) -> dict[int, GraphOperation]:
        return {k: operation for operation in self.operations for k in operation.results}

    def _receiver(self, tensor: int, makers: dict[int, GraphOperation]) -> str:
        """Return where the gradient of a tensor goes."""
        return makers[tensor].backward if tensor in makers else f"{self.tensors[tensor].name}.grad"

    # ---- text

    def __str__(self) -> str:
        lines = ["tensors"]
        for x in (x for x in self.tensors if x.kind != "number"):
            lines.append(f"  {x.name}: {x.aval}" + ("" if x.fields is None else ": " + ", ".join(x.fields.lines())))
        lines.append("forward")
        for operation in self.operations:
            operands, results = ([self.tensors[k].name for k in side] for side in (operation.operands, operation.results))
            lines.append(f"  {', '.join(results)} = {operation.name}({', '.join(operands)})")
        lines.append("backward")
        targets: dict[str, list[str]] = {}
        for source, target in self.backward_arrows:
            targets.setdefault(source, []).append(target)
        lines += [f"  {source} -> {', '.join(reached)}" for source, reached in targets.items()]
        return "\n".join(lines)

    __repr__ = __str__

    # ---- pictures

    def to_svg(self) -> str:
        """Return a picture as a self-contained SVG: forward above, backward below, dashed the values that backward needs."""
        boxes, edges = self._scene(draw.LIMIT // 4)  # two boxes an operation, and those of tensors
        left_out = len(self.operations) - draw.LIMIT // 4
        note = f"{len(self.operations)} operations" + (f", the last {draw.LIMIT // 4} of them drawn" if left_out > 0 else "")
        return draw.scene_svg(self._title(), note, boxes, edges)

    def to_dot(self) -> str:
        """Return the picture in the DOT language, for `dot -Tsvg` and the like."""
        return draw.scene_dot(self._title(), *self._scene(len(self.operations)))

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def _title(self) -> str:
        return ", ".join(self.tensors[k].name for k in self.outputs)

    def _scene(self, limit: int) -> tuple[list[draw.Box], list[draw.Edge]]:
        """Return boxes and edges: those of the forward pass, then those of the backward pass."""
        scene = _Scene(self)
        operations = self.operations[max(len(self.operations) - limit, 0) :]
        if len(operations) == len(self.operations):
            for k, x in enumerate(self.tensors):  # named ones that took no part stand alone
                if x.kind != "result":
                    scene.place(k)
        for operation in operations:
            scene.add_forward(operation)
        for k in self.outputs:
            scene.start(k)
        for operation in reversed(operations):
            scene.add_backward(operation)
        scene.end()
        return scene.boxes, scene.edges


class _Scene:
    """Boxes and edges as they are placed."""

    def __init__(self, graph: BackwardGraph) -> None:
        self.graph = graph
        self.boxes: list[draw.Box] = []
        self.edges: list[draw.Edge] = []
        self._sources: dict[int, tuple[int, int]] = {}  # where the value of a tensor leaves from: a box and its port
        self._gradients: dict[int, list[tuple[int, int]]] = {}  # where parts of its gradient leave from

    def _connect(self, source: tuple[int, int], colour: str = "") -> None:
        """Draw a line to the newest box."""
        target = len(self.boxes) - 1
        kind = self.boxes[source[0]].kind
        self.edges.append(draw.Edge(*source, target, self.boxes[target].slots, colour or draw.COLOURS[kind][2]))
        self.boxes[target].slots += 1

    def place(self, tensor: int) -> tuple[int, int]:
        """Return where the value of a tensor leaves from; its box is made where it is first wanted."""
        if tensor not in self._sources:
            x = self.graph.tensors[tensor]
            detail = "" if x.fields is None else "\n".join(x.fields.lines())
            kind = "constant" if x.kind == "number" else x.kind
            self.boxes.append(draw.Box(kind, x.name, detail, f"{x.name}: {x.aval}", (str(x.aval),)))
            self._sources[tensor] = len(self.boxes) - 1, 0
        return self._sources[tensor]

    def add_forward(self, operation: GraphOperation) -> None:
        sources = [self.place(k) for k in operation.operands]
        avals = tuple(str(self.graph.tensors[k].aval) for k in operation.results)
        line = "" if operation.line is None else "\n" + operation.line.describe()
        self.boxes.append(draw.Box("forward", operation.name, "", operation.name + line, avals))
        made = len(self.boxes) - 1
        for source in sources:
            self._connect(source)
        for port, k in enumerate(operation.results):
            self._sources[k] = made, port
            if self.graph.tensors[k].fields is not None:
                del self._sources[k]
                self.place(k)
                self._connect((made, port))

    def start(self, tensor: int) -> None:
        """Begin the backward pass at an output."""
        x = self.graph.tensors[tensor]
        if x.kind == "untracked":
            return
        source = self.place(tensor)
        self.boxes.append(draw.Box("backward", f"{x.name}.backward()", "", f"the gradient of {x.name} by itself", (str(x.aval),)))
        self._connect(source)
        self._gradients.setdefault(tensor, []).append((len(self.boxes) - 1, 0))

    def add_backward(self, operation: GraphOperation) -> None:
        arriving = [part for k in operation.results for part in self._gradients.pop(k, [])]
        avals = tuple(str(self.graph.tensors[k].aval) for k in operation.gradients)
        self.boxes.append(draw.Box("backward", operation.backward, "", operation.backward, avals))
        made = len(self.boxes) - 1
        for part in arriving:
            self._connect(part)
        for k in operation.reads:
            self._connect(self._sources[k], draw.READ)
        for port, k in enumerate(operation.gradients):
            self._gradients.setdefault(k, []).append((made, port))

    def end(self) -> None:
        """Let the gradients that are left arrive at the leaves."""
        for k, parts in self._gradients.items():
            x = self.graph.tensors[k]
            if x.kind == "leaf":
                self.boxes.append(draw.Box("gradient", f"{x.name}.grad", "", "AccumulateGrad: what arrives is added to .grad"))
                for part in parts:
                    self._connect(part)


# ---- from the tape


def backward_graph(*outputs: Tensor, **tensors: Tensor) -> BackwardGraph:
    """Return the graph behind some tensors, to be printed, drawn or looked through.

    Parameters
    ----------
    *outputs : Tensor
        The tensors whose history is wanted.
    **tensors : Tensor
        Names for tensors in the graph, which then appear with their five fields `data grad grad_fn is_leaf requires_grad`, also in the
        middle of the graph, where the tape itself does not keep them. One that took no part stands alone in the picture.

    Returns
    -------
    BackwardGraph

    Raises
    ------
    ArgumentError
        If there is no output, or something is no tensor.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> a = torch.tensor(3.0, requires_grad=True)
    >>> b = torch.tensor(2.0)
    >>> c = a * b
    >>> c.backward()
    >>> torch.backward_graph(c, a=a, b=b, c=c)
    tensors
      a: f32[]: data tensor(3.), grad tensor(2.), grad_fn None, is_leaf True, requires_grad True
      b: f32[]: data tensor(2.), grad None, grad_fn None, is_leaf True, requires_grad False
      c: f32[]: data tensor(6.), grad None, grad_fn <MulBackward0>, is_leaf False, requires_grad True
    forward
      c = Mul(a, b)
    backward
      c.backward() -> MulBackward0
      MulBackward0 -> a.grad
    """
    if not outputs:
        raise ArgumentError(at_user_line("backward_graph: give the tensor whose graph is wanted, backward_graph(loss, w=w)"))
    for name, x in [*((str(k), x) for k, x in enumerate(outputs)), *tensors.items()]:
        if not isinstance(x, Tensor):
            raise ArgumentError(at_user_line(f"backward_graph: {name} is of type {type(x).__name__}, not a tensor"))
    return _Reader(outputs, tensors).graph()


_Key = Edge | int
"""What a tensor is told by: its place on the tape or, without one, its identity."""


def _key(x: Tensor) -> _Key:
    edge = x._gradient_edge()
    return id(x) if edge[0] is None else edge


class _Reader:
    """Reads the tape behind tensors."""

    def __init__(self, outputs: Sequence[Tensor], names: dict[str, Tensor]) -> None:
        self._given = {_key(x): (name, x) for name, x in names.items()}
        self._named = list(names.values())
        self._outputs = outputs
        self._tensors: list[GraphTensor] = []
        self._places: dict[_Key, int] = {}
        self._alive: list[Tensor] = []  # so that identities stay theirs
        self._counts: Counter[str] = Counter()

    def graph(self) -> BackwardGraph:
        operations: list[GraphOperation] = []
        seen: Counter[str] = Counter()
        for node in _recorded([x._gradient_edge()[0] for x in self._outputs]):
            operands, gradients = [], []
            numbers: dict[int, int] = {}
            for k, edge in enumerate(node.next_functions):
                place = self._untracked(node, k) if edge[0] is None else self._tracked(edge)
                if place is not None:
                    numbers[k] = place
                    operands.append(place)
                    gradients += [place] if edge[0] is not None else []
            results = [self._tracked((node, k)) for k in range(len(node.results))]
            needed, kept = node.reads()
            reads = dict.fromkeys([*(numbers[k] for k in needed), *(results[k] for k in kept)])
            name = node.name().removesuffix("0").removesuffix("Backward")
            seen[node.name()] += 1
            number = f" #{seen[node.name()]}" if seen[node.name()] > 1 else ""
            operations.append(
                GraphOperation(
                    name + number, node.name() + number, tuple(operands), tuple(results), tuple(gradients), tuple(reads), node.line
                )
            )
        outputs = tuple(self._place(x, f"output {k}" if k else "output") for k, x in enumerate(self._outputs))
        for x in self._named:
            self._place(x, "")
        return BackwardGraph(tuple(self._tensors), tuple(operations), outputs)

    def _add(self, key: _Key, name: str, kind: str, aval: Aval, x: Tensor | None) -> int:
        if key in self._given:
            name, x = self._given[key]
        self._places[key] = len(self._tensors)
        self._tensors.append(GraphTensor(name, kind, aval, None if x is None else Fields.of(x)))
        return self._places[key]

    def _counted(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"{kind}{self._counts[kind]}"

    def _tracked(self, edge: Edge) -> int:
        """Return the place of a leaf or a result."""
        if edge in self._places:
            return self._places[edge]
        node, number = edge
        assert node is not None
        if isinstance(node, AccumulateGrad):
            name = "" if edge in self._given else self._counted("leaf ")
            return self._add(edge, name, "leaf", aval_of(node.variable), node.variable)
        shown = next(((f"output {k}" if k else "output", x) for k, x in enumerate(self._outputs) if _key(x) == edge), None)
        name, x = shown if shown is not None else ("" if edge in self._given else self._counted("%"), None)
        return self._add(edge, name, "result", Aval(*node.results[number]), x)

    def _untracked(self, node: Node, operand: int) -> int | None:
        """Return the place of an operand without gradient; None where the operation has no tensor there."""
        x = node.untracked(operand)
        if x is None:
            return None
        if isinstance(x, Aval):
            self._tensors.append(GraphTensor(self._counted("untracked "), "untracked", x, None))
            return len(self._tensors) - 1
        if not isinstance(x, Tensor):
            self._tensors.append(GraphTensor(str(x), "number", Aval((), np.asarray(x).dtype, weak=True), None))
            return len(self._tensors) - 1
        if id(x) in self._places:
            return self._places[id(x)]
        self._alive.append(x)
        return self._place(x, "")

    def _place(self, x: Tensor, title: str) -> int:
        key = _key(x)
        if key in self._places:
            return self._places[key]
        if not isinstance(key, int):
            return self._tracked(key)
        return self._add(key, "" if key in self._given else title or self._counted("untracked "), "untracked", aval_of(x), x)


def _recorded(roots: Sequence[Node | None]) -> list[Node]:
    """Return the operations behind some nodes, in the order in which they were recorded."""
    found: dict[Node, None] = dict.fromkeys(node for node in roots if node is not None)
    stack = list(found)
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in found:
                found[node] = None
                stack.append(node)
    return sorted((node for node in found if not isinstance(node, AccumulateGrad)), key=lambda node: node.serial)
