"""Pictures of a graph: the DOT language, and a self-contained SVG that needs neither Graphviz nor any package.

The SVG is a layered drawing (Sugiyama's method): longest-path layers, barycentre sweeps against crossings, and least-squares
coordinates. Values that bypass layers run through dummy points; the longest of them become tags that name the value.
"""

from __future__ import annotations

import bisect
import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Constant, Input, Node, Value
from staticgrad.ir.op import Op
from staticgrad.ir.printer import value_names

LIMIT = 500
"""The number of boxes that a picture shows; a larger graph is cut."""
_DUMMIES = 1500  # dummy points in one picture
_LABEL, _DETAIL = 28, 44  # characters in a box

_COLOURS = {  # fill, outline
    "input": ("#e3f4e8", "#2f8a4c"),
    "closed over": ("#f4f9ef", "#2f8a4c"),
    "constant": ("#f0f0f2", "#8a8f98"),
    "forward": ("#e7effb", "#3a6fb7"),
    "backward": ("#fdeedd", "#cf7a22"),
    "output": ("#33415c", "#33415c"),
    "gradient": ("#a85a10", "#a85a10"),
}
_LIGHT = frozenset({"output", "gradient"})  # light text on a dark box
_EDGE, _EDGE_BACKWARD, _EDGE_READ = "#8295b0", "#d9a066", "#9b6fc0"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


# ---- what is drawn, whatever the format --------------------------------------------------------------------------------


@dataclass
class _Box:
    kind: str
    title: str
    detail: str = ""
    tooltip: str = ""
    ports: tuple[str, ...] = ()  # one text per output
    layer: int = 0
    x: float = 0.0

    @property
    def text_width(self) -> float:
        return max(44.0, 7.3 * len(self.title) + 22, 6.1 * len(self.detail) + 18)

    @property
    def height(self) -> float:
        return 40.0 if self.detail else 26.0


@dataclass(frozen=True)
class _Edge:
    source: int
    port: int
    target: int
    slot: int
    saved: bool  # read by the backward part, made by the forward part


@dataclass
class _Scene:
    boxes: list[_Box] = field(default_factory=list)
    edges: list[_Edge] = field(default_factory=list)
    names: dict[tuple[int, int], str] = field(default_factory=dict)
    total: int = 0


def _scene(graph: Graph, limit: int | None = None) -> _Scene:
    scene, names = _Scene(), value_names(graph)
    returned = set(graph.outputs)
    inlined = {v: text for node in graph.nodes for v, text in _inlined(node).items() if v not in returned}
    shown = [node for node in graph.nodes if node.outputs[0] not in inlined]
    scene.total = len(shown)
    forward, own = graph.forward_nodes, frozenset(v.node for v in graph.inputs)
    place: dict[Node, int] = {}
    for node in shown if limit is None or len(shown) <= limit else _first(shown, limit):
        position = place[node] = len(scene.boxes)
        scene.boxes.append(_box(node, names, inlined, own, backward=node not in forward))
        scene.names.update(((position, v.index), names[v]) for v in node.outputs)
        drawn = [v for v in node.inputs if v not in inlined and v.node in place]
        for slot, value in enumerate(drawn):
            saved = node not in forward and value.node in forward
            scene.edges.append(_Edge(place[value.node], value.index, position, slot, saved))
    for number, value in enumerate(graph.outputs):
        if value.node in place:
            kind = "output" if value.node in forward else "gradient"
            title = "output" if len(graph.outputs) == 1 else f"output {number}"
            scene.edges.append(_Edge(place[value.node], value.index, len(scene.boxes), 0, False))
            scene.boxes.append(_Box(kind, title, tooltip=f"output {number}: {value.aval}"))
    return scene


def _inlined(node: Node) -> dict[Value, str]:
    """Return the text of a scalar constant, or of a view of one: it stands in the boxes that read it."""
    leaf = node.inputs[0].op if node.op.kind == "view" and len(node.inputs) == 1 else node.op
    if not isinstance(leaf, Constant) or leaf.bits.shape:
        return {}
    return dict.fromkeys(node.outputs, _number(leaf.bits.array()[()]))


def _number(number: np.generic) -> str:
    return f"{number:.6g}" if number.dtype.kind == "f" else str(number)


def _first(nodes: Sequence[Node], limit: int) -> list[Node]:
    """Return the first `limit` nodes, each with the leaves that it reads."""
    chosen: dict[Node, None] = {}
    available = set(nodes)
    for node in sorted(nodes, key=lambda node: node.op.kind == "leaf"):
        leaves = [v.node for v in node.inputs if v.op.kind == "leaf" and v.node in available]
        chosen.update(dict.fromkeys([*leaves, node]))
        if len(chosen) >= limit:
            break
    return [node for node in nodes if node in chosen][:limit]


def _box(node: Node, names: dict[Value, str], inlined: dict[Value, str], own: frozenset[Node], backward: bool) -> _Box:
    kind = "backward" if backward else "forward"
    title, detail = node.op.name, _parameters(node.op)
    if isinstance(node.op, Input):
        kind = "input" if node in own else "closed over"
        title, detail = (names[node.outputs[0]] if node in own else node.op.label or "closed over"), ""
    elif isinstance(node.op, Constant):
        kind, detail = "constant", ""
    elif any(v in inlined for v in node.inputs):
        operands = ", ".join(inlined.get(v, "·") for v in node.inputs)
        detail = f"({operands})" + (f" {detail}" if detail else "")
    tooltip = ", ".join(f"{names[v]}: {v.aval}" for v in node.outputs)
    if kind in ("forward", "backward"):
        tooltip += " = " + _cut(node.op.signature(), 400)
    if node.line is not None:
        tooltip += "\n" + node.line.describe()
    ports = tuple(str(v.aval) if isinstance(node.op, Input) else f"{names[v]}: {v.aval}" for v in node.outputs)
    return _Box(kind, _cut(title, _LABEL), _cut(detail, _DETAIL), tooltip, ports)


def _parameters(op: Op) -> str:
    return ", ".join(f"{f.name}={_cut(_parameter(getattr(op, f.name)), 24)}" for f in dataclasses.fields(op))  # type: ignore[arg-type]


def _parameter(value: object) -> str:
    if isinstance(value, Graph):
        return f"<{value.name}: {len(value.nodes)} nodes>"
    if isinstance(value, tuple):
        return f"({', '.join(map(_parameter, value))}{',' if len(value) == 1 else ''})"
    return value.name if isinstance(value, np.dtype) else repr(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# ---- DOT ---------------------------------------------------------------------------------------------------------------


def graph_dot(graph: Graph) -> str:
    """Return the graph in the DOT language, for `dot -Tsvg` and the like."""
    scene = _scene(graph)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  graph [rankdir=TB, nodesep=0.3, ranksep=0.4, fontname="Helvetica"];',
        '  node [shape=box, style="rounded,filled", fontname="Courier", fontsize=11, height=0.3, margin="0.12,0.05"];',
        '  edge [fontname="Courier", fontsize=9, fontcolor="#5b6472", arrowsize=0.6];',
    ]
    for number, box in enumerate(scene.boxes):
        fill, outline = _COLOURS[box.kind]
        attributes = {
            "label": box.title + (f"\n{box.detail}" if box.detail else ""),
            "tooltip": box.tooltip,
            "fillcolor": fill,
            "color": outline,
            "fontcolor": "#ffffff" if box.kind in _LIGHT else "#1d2433",
            "style": "rounded,filled,dashed" if box.kind == "closed over" else "rounded,filled",
            "class": box.kind,
        }
        lines.append(f"  n{number} [{', '.join(f'{key}={_quoted(text)}' for key, text in attributes.items())}];")
    for edge in scene.edges:
        backward = scene.boxes[edge.source].kind == "backward"
        colour = _EDGE_READ if edge.saved else _EDGE_BACKWARD if backward else _EDGE
        label = scene.boxes[edge.source].ports[edge.port]
        style = ", style=dashed" if edge.saved else ""
        lines.append(f'  n{edge.source} -> n{edge.target} [label={_quoted(label)}, color="{colour}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _printable(text: str) -> str:
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


# ---- layers and order --------------------------------------------------------------------------------------------------


@dataclass
class _Link:
    """A piece of an edge between neighbouring layers, from vertex to vertex with the offsets of its ends from their centres."""

    upper: int
    lower: int
    exit: float
    entry: float


class _Layout:
    """Vertices are the boxes, then the dummy points of the values that bypass layers (one chain a value)."""

    def __init__(self, scene: _Scene) -> None:
        self.scene = scene
        self.widths = [max(b.text_width, sum(self.port_width(p) for p in b.ports)) for b in scene.boxes]
        self.slots = [0] * len(scene.boxes)
        for edge in scene.edges:
            self.slots[edge.target] = max(self.slots[edge.target], edge.slot + 1)
        self._assign_layers()
        self.level = [box.layer for box in scene.boxes]
        self.tagged = self._tagged()
        self.chains: dict[tuple[int, int, bool], dict[int, int]] = {}
        self.links: list[_Link] = []
        self.ends: list[tuple[tuple[int, int, bool], _Link]] = []
        self._connect()
        self.above: list[list[_Link]] = [[] for _ in self.level]
        self.below: list[list[_Link]] = [[] for _ in self.level]
        for link in self.links:
            self.above[link.lower].append(link)
            self.below[link.upper].append(link)
        self.layers: list[list[int]] = [[] for _ in range(max(self.level, default=-1) + 1)]
        for vertex, layer in enumerate(self.level):
            self.layers[layer].append(vertex)
        self._order()
        self.x = self._coordinates()

    @staticmethod
    def port_width(text: str) -> float:
        return 5.5 * len(text) + 10

    def exit(self, box: int, port: int) -> float:
        """Return where output `port` leaves the box, from its centre."""
        widths = [self.port_width(p) for p in self.scene.boxes[box].ports]
        return sum(widths[:port]) + widths[port] / 2 - sum(widths) / 2

    def entry(self, edge: _Edge) -> float:
        """Return where the operand enters the box, from its centre."""
        count = self.slots[edge.target]
        return (self.scene.boxes[edge.target].text_width - 16) * ((edge.slot + 0.5) / count - 0.5)

    def _assign_layers(self) -> None:
        boxes, edges = self.scene.boxes, self.scene.edges
        for edge in edges:  # in topological order of their targets
            boxes[edge.target].layer = max(boxes[edge.target].layer, boxes[edge.source].layer + 1)
        readers: list[list[int]] = [[] for _ in boxes]
        operands: list[set[tuple[int, int]]] = [set() for _ in boxes]
        for edge in edges:
            readers[edge.source].append(edge.target)
            operands[edge.target].add((edge.source, edge.port))
        for number in reversed(range(len(boxes))):  # leaves, and what has fewer operands than results, go next to their readers
            if readers[number] and len(operands[number]) <= len(boxes[number].ports):
                boxes[number].layer = min(boxes[reader].layer for reader in readers[number]) - 1
        lowest = min((box.layer for box in boxes), default=0)
        for box in boxes:
            box.layer -= lowest

    def _tagged(self) -> set[int]:
        """Return the edges drawn as tags: the longest, until the others need few enough dummy points."""
        boxes = self.scene.boxes
        spans = [boxes[e.target].layer - boxes[e.source].layer for e in self.scene.edges]
        allowed, tagged = _DUMMIES, set()
        for number in sorted(range(len(spans)), key=spans.__getitem__):
            allowed -= spans[number] - 1
            if allowed < 0:
                tagged.add(number)
        return tagged

    def _connect(self) -> None:
        for number, edge in enumerate(self.scene.edges):
            if number in self.tagged:
                continue
            key = (edge.source, edge.port, edge.saved)
            chain = self.chains.setdefault(key, {})
            upper, leaving = edge.source, self.exit(edge.source, edge.port)
            for layer in range(self.level[edge.source] + 1, self.level[edge.target]):
                if layer not in chain:
                    chain[layer] = len(self.level)
                    self.level.append(layer)
                    self.widths.append(6.0)
                    self.links.append(_Link(upper, chain[layer], leaving, 0.0))
                    self.ends.append((key, self.links[-1]))
                upper, leaving = chain[layer], 0.0
            self.links.append(_Link(upper, edge.target, leaving, self.entry(edge)))
            self.ends.append((key, self.links[-1]))

    def _order(self) -> None:
        """Sort each layer by the mean position of its neighbours, downwards and upwards in turn; keep the best order."""
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(10):
            if fewest == 0:
                break
            down = sweep % 2 == 0
            for layer in range(1, len(self.layers)) if down else range(len(self.layers) - 2, -1, -1):
                fixed = self.layers[layer - 1 if down else layer + 1]
                place = {vertex: float(position) for position, vertex in enumerate(fixed)}
                keys: dict[int, float] = {}
                for position, vertex in enumerate(self.layers[layer]):
                    if down:
                        near = [place[k.upper] + k.exit / 1000 - k.entry / 1000 for k in self.above[vertex]]
                    else:
                        near = [place[k.lower] + k.entry / 1000 - k.exit / 1000 for k in self.below[vertex]]
                    keys[vertex] = sum(near) / len(near) if near else position * len(fixed) / len(self.layers[layer])
                self.layers[layer].sort(key=keys.__getitem__)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _crossings(self) -> int:
        count = 0
        for upper, lower in zip(self.layers, self.layers[1:], strict=False):
            place = {vertex: position for position, vertex in enumerate(lower)}
            ends: list[float] = []
            for vertex in upper:
                for end in sorted(place[k.lower] + k.entry / 1000 for k in self.below[vertex]):
                    count += len(ends) - bisect.bisect_right(ends, end)
                    bisect.insort(ends, end)
        return count

    # ---- coordinates

    def _coordinates(self) -> list[float]:
        boxes = len(self.scene.boxes)
        x = [0.0] * len(self.level)
        apart = []  # the least distance between each vertex of a layer and the one before
        for layer in self.layers:
            steps = [(self.widths[a] + self.widths[b]) / 2 + 18 for a, b in zip(layer, layer[1:], strict=False)]
            apart.append([0.0, *steps])
            position = -sum(steps) / 2
            for vertex, step in zip(layer, apart[-1], strict=True):
                position += step
                x[vertex] = position
        rows = range(len(self.layers))
        for sweep in range(12):
            for row in rows if sweep % 2 == 0 else reversed(rows):
                wishes, weights = [], []
                for vertex in self.layers[row]:
                    total = moment = 0.0
                    for link in self.above[vertex]:
                        w = 8.0 if vertex >= boxes and link.upper >= boxes else 1.0
                        total, moment = total + w, moment + w * (x[link.upper] + link.exit - link.entry)
                    for link in self.below[vertex]:
                        w = 8.0 if vertex >= boxes and link.lower >= boxes else 1.0
                        total, moment = total + w, moment + w * (x[link.lower] + link.entry - link.exit)
                    wishes.append(moment / total if total else x[vertex])
                    weights.append(total or 0.1)
                for vertex, position in zip(self.layers[row], _spread(wishes, weights, apart[row]), strict=True):
                    x[vertex] = position
        return x


def _spread(wishes: Sequence[float], weights: Sequence[float], apart: Sequence[float]) -> list[float]:
    """Return the positions nearest to `wishes`, in their order and at least `apart` (least squares: pool adjacent violators)."""
    offsets, groups = [], list[tuple[float, float, int]]()  # (mean, weight, count)
    offset = 0.0
    for wish, weight, step in zip(wishes, weights, apart, strict=True):
        offset += step
        offsets.append(offset)
        mean, count = wish - offset, 1
        while groups and groups[-1][0] > mean:
            other, other_weight, other_count = groups.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        groups.append((mean, weight, count))
    means = [mean for mean, _, count in groups for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


# ---- SVG ---------------------------------------------------------------------------------------------------------------


def graph_svg(graph: Graph) -> str:
    """Return a picture of the graph as a self-contained SVG."""
    raise NotImplementedError
