"""Pictures of a graph: the DOT language, and a self-contained SVG that needs neither Graphviz nor any package.

The SVG is a layered drawing (Sugiyama's method): longest-path layers, sweeps against crossings, least-squares coordinates.
Values that bypass layers run through dummy points; the longest of them become tags that name the value.
"""

from __future__ import annotations

import bisect
import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Constant, Input, Node, Value
from staticgrad.ir.printer import value_names

LIMIT = 500  # boxes in one picture; a larger graph is cut
_DUMMIES = 1000  # dummy points in one picture
_SORTING, _SETTLING = 6, 20  # sweeps

COLOURS = {  # what a box is: its fill, its outline, the colour of the edges that leave it
    "input": ("#e3f4e8", "#2f8a4c", "#8295b0"),
    "closed over": ("#f4f9ef", "#2f8a4c", "#8295b0"),
    "constant": ("#f0f0f2", "#8a8f98", "#8295b0"),
    "forward": ("#e7effb", "#3a6fb7", "#8295b0"),
    "backward": ("#fdeedd", "#cf7a22", "#d9a066"),
    "output": ("#33415c", "#33415c", ""),
    "gradient": ("#9a5210", "#9a5210", ""),
    "leaf": ("#e3f4e8", "#2f8a4c", "#8295b0"),
    "untracked": ("#f0f0f2", "#8a8f98", "#8295b0"),
    "result": ("#f1ecf9", "#6f4fa8", "#8295b0"),
}
READ = "#9b6fc0"  # edges from the forward to the backward part
_INK, _GREY, _WHITE = "#1d2433", "#5b6472", "#ffffff"
_DASH = 'stroke-dasharray="5 3"'
_STYLE = 'xmlns="http://www.w3.org/2000/svg" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"'


# ---- what is drawn, whatever the format --------------------------------------------------------------------------------


@dataclass
class Box:
    """What is drawn for a node: a rectangle with its text."""

    kind: str
    title: str
    detail: str  # smaller, one line or several
    tooltip: str
    ports: tuple[str, ...] = ()  # the text of each output
    slots: int = 0  # operands drawn as edges

    @property
    def width(self) -> float:
        return max(44.0, 7.3 * len(self.title) + 22, *(6.1 * len(line) + 18 for line in self.details))

    @property
    def height(self) -> float:
        return 26.0 + 14.0 * len(self.details)

    @property
    def details(self) -> list[str]:
        return self.detail.splitlines()

    def exit(self, port: int) -> float:  # from the centre, as `entry`
        widths = [*map(_label_width, self.ports)]
        return sum(widths[:port]) + (widths[port] - sum(widths)) / 2

    def entry(self, slot: int) -> float:
        return min((self.width - 12) / self.slots, 28.0) * (slot + 0.5 - self.slots / 2)


class Edge(NamedTuple):
    """A line between boxes: from an output of one to an operand of another, each by its number."""

    source: int
    port: int
    target: int
    slot: int
    colour: str


def _scene(graph: Graph, limit: int | None = None) -> tuple[list[Box], list[Edge], int]:
    """Return the boxes, operands first, the edges, and how many boxes there would be without the limit."""
    names, own, returned = value_names(graph), frozenset(v.node for v in graph.inputs), frozenset(graph.outputs)
    inlined = {v: text for node in graph.nodes for v, text in _inlined(node).items() if v not in returned}
    shown = [node for node in graph.nodes if node.outputs[0] not in inlined]
    boxes, edges, place = list[Box](), list[Edge](), dict[Node, int]()
    for node in shown if limit is None or len(shown) <= limit else _first(shown, limit):
        backward = node not in graph.forward_nodes
        box = _box(node, names, inlined, node in own, backward)
        for value in node.inputs:
            if value.node in place and value not in inlined:
                colour = READ if backward and value.node in graph.forward_nodes else COLOURS[boxes[place[value.node]].kind][2]
                edges.append(Edge(place[value.node], value.index, len(boxes), box.slots, colour))
                box.slots += 1
        place[node] = len(boxes)
        boxes.append(box)
    for number, value in enumerate(graph.outputs):
        if value.node in place:
            edges.append(Edge(place[value.node], value.index, len(boxes), 0, COLOURS[boxes[place[value.node]].kind][2]))
            kind = "output" if value.node in graph.forward_nodes else "gradient"
            boxes.append(Box(kind, f"output {number}", "", f"output {number}: {value.aval}", slots=1))
    return boxes, edges, len(shown)


def _inlined(node: Node) -> dict[Value, str]:
    """Return the text of a scalar constant, or of a view of one: it stands in the boxes that read it."""
    leaf = node.inputs[0].op if node.op.kind == "view" and len(node.inputs) == 1 else node.op
    if not isinstance(leaf, Constant) or leaf.bits.shape:
        return {}
    number = leaf.bits.array()[()]
    return dict.fromkeys(node.outputs, f"{number:.6g}" if number.dtype.kind == "f" else str(number))


def _first(nodes: Sequence[Node], limit: int) -> list[Node]:
    """Return `limit` nodes: the first operations, each after the leaves that it reads, then other leaves."""
    operations = [[*(v.node for v in node.inputs if v.op.kind == "leaf"), node] for node in nodes if node.op.kind != "leaf"]
    return list(dict.fromkeys([*itertools.chain(*operations), *nodes]))[:limit]


def _box(node: Node, names: dict[Value, str], inlined: dict[Value, str], own: bool, backward: bool) -> Box:
    kind, title, detail = "backward" if backward else "forward", node.op.name, ""
    ports = tuple(f"{names[v]}: {v.aval}" for v in node.outputs)
    tooltip = ", ".join(ports)
    if isinstance(node.op, Input):
        kind, title = ("input", names[node.outputs[0]]) if own else ("closed over", node.op.label or "closed over")
        ports = (str(node.op.aval),)
    elif isinstance(node.op, Constant):
        kind = "constant"
    else:
        signature = re.sub("[0-9a-f]{64}", "…", node.op.signature())  # without the digests of what it holds
        tooltip += " = " + _cut(signature, 400)
        detail = signature.partition("(")[2][:-1].replace(f"shape={node.outputs[0].shape}", "").removeprefix(", ")
    if any(v in inlined for v in node.inputs):
        detail = f"({', '.join(inlined.get(v, '·') for v in node.inputs)}) {detail}".rstrip()
    if node.line is not None:
        tooltip += "\n" + node.line.describe()
    return Box(kind, _cut(title, 28), _cut(detail, 44), tooltip, ports)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _printable(text: str) -> str:
    return re.sub("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


# ---- DOT ---------------------------------------------------------------------------------------------------------------


def graph_dot(graph: Graph) -> str:
    """Return the graph in the DOT language, for `dot -Tsvg` and the like."""
    boxes, edges, _ = _scene(graph)
    return scene_dot(graph.name, boxes, edges)


def scene_dot(name: str, boxes: Sequence[Box], edges: Sequence[Edge]) -> str:
    """Return boxes and edges in the DOT language."""
    lines = [
        f"digraph {_quoted(name)} {{",
        "  graph [rankdir=TB, nodesep=0.3, ranksep=0.4];",
        '  node [shape=box, style="rounded,filled", fontname="Courier", fontsize=11, height=0.3, margin="0.12,0.05"];',
        f'  edge [fontname="Courier", fontsize=9, fontcolor="{_GREY}", arrowsize=0.6];',
    ]
    for number, box in enumerate(boxes):
        fill, outline, _ = COLOURS[box.kind]
        label = "\n".join(filter(None, (box.title, box.detail)))
        colours = f'fillcolor="{fill}", color="{outline}", fontcolor="{_INK if box.ports else _WHITE}"'
        lines.append(f'  n{number} [label={_quoted(label)}, tooltip={_quoted(box.tooltip)}, class="{box.kind}", {colours}];')
    for source, port, target, _, colour in edges:
        style = f'color="{colour}"' + (", style=dashed" if colour == READ else "")
        lines.append(f"  n{source} -> n{target} [label={_quoted(boxes[source].ports[port])}, {style}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# ---- layers and coordinates --------------------------------------------------------------------------------------------


_Line = tuple[int, int, str]  # box, port, colour: the edges that are drawn as one line that branches


class _Link(NamedTuple):
    """A piece of an edge between neighbouring layers; `exit` and `entry` are where it leaves and enters, from the centres."""

    upper: int
    lower: int
    exit: float
    entry: float
    edge: Edge


def _label_width(text: str) -> float:
    return 5.5 * len(text) + 8


class Layout:
    """Vertices are the boxes, then the dummy points: the values that bypass a layer."""

    def __init__(self, boxes: Sequence[Box], edges: Sequence[Edge]) -> None:
        self.boxes, self.edges = boxes, edges
        self.widths = [max(box.width, sum(map(_label_width, box.ports))) for box in self.boxes]
        self.level = self._levels()
        self.tagged, self.chains = list[Edge](), dict[_Line, dict[int, int]]()  # chains: the dummy point in each layer
        self.links = self._links()
        self.near: dict[str, list[list[tuple[int, float]]]] = {side: [[] for _ in self.level] for side in ("above", "below")}
        for upper, lower, leave, enter, _ in self.links:  # each neighbour, and how far from its centre a straight line would end
            self.near["above"][lower].append((upper, leave - enter))
            self.near["below"][upper].append((lower, enter - leave))
        self.layers: list[list[int]] = [[] for _ in range(max(self.level, default=-1) + 1)]
        for vertex, layer in enumerate(self.level):
            self.layers[layer].append(vertex)
        self.x = [0.0] * len(self.level)
        self._place()

    def _levels(self) -> list[int]:
        """Return the layer of each box: below its operands; leaves and the backward part as late as their readers allow."""
        level = [0] * len(self.boxes)
        readers: list[list[int]] = [[] for _ in level]
        for edge in self.edges:  # in topological order of their targets
            level[edge.target] = max(level[edge.target], level[edge.source] + 1)
            readers[edge.source].append(edge.target)
        for number, box in reversed(list(enumerate(self.boxes))):
            if readers[number] and (box.slots <= 1 or box.kind == "backward"):
                level[number] = min(level[reader] for reader in readers[number]) - 1
        least = min(level, default=0)
        return [layer - least for layer in level]

    def _links(self) -> list[_Link]:
        """Return the edges cut at the layers; those of one line share their dummy points."""
        links: list[_Link] = []
        for edge in sorted(self.edges, key=lambda edge: self.level[edge.target] - self.level[edge.source]):
            passed = range(self.level[edge.source] + 1, self.level[edge.target])
            if len(self.level) - len(self.boxes) + len(passed) > _DUMMIES:
                self.tagged.append(edge)
                continue
            chain = self.chains.setdefault((edge.source, edge.port, edge.colour), {})
            upper, leaving = edge.source, self.boxes[edge.source].exit(edge.port)
            for layer in passed:
                if layer not in chain:
                    chain[layer] = len(self.level)
                    self.level.append(layer)
                    self.widths.append(4.0)
                    links.append(_Link(upper, chain[layer], leaving, 0.0, edge))
                upper, leaving = chain[layer], 0.0
            links.append(_Link(upper, edge.target, leaving, self.boxes[edge.target].entry(edge.slot), edge))
        return links

    def _place(self) -> None:
        found: list[tuple[int, int, list[list[int]]]] = []
        for mirrored in (False, True):  # two starts: the order of the graph and its mirror image
            for layer in self.layers:
                layer.sort(reverse=mirrored)
                for position, vertex in enumerate(layer):
                    self.x[vertex] = 100.0 * (position - len(layer) / 2)
            for number in range(_SORTING):
                self._sweep(down=number % 2 == 0, sort=True)
                found.append((self._crossings(), len(found), [list(layer) for layer in self.layers]))
        _, _, self.layers = min(found)
        self.x = [0.0] * len(self.x)
        for number in range(_SETTLING):
            self._sweep(down=number % 2 == 0, sort=False)

    def _sweep(self, down: bool, sort: bool) -> None:
        """Move each vertex to the mean of its neighbours: to sort the layers, of those just passed; to settle them, of all."""
        sides = [side for side, passed in (("above", down), ("below", not down)) if passed or not sort]
        straight: dict[int, float] = {}  # where the dummy points of a line would stand below each other
        for chain in () if sort else filter(None, self.chains.values()):
            straight |= dict.fromkeys(chain.values(), sum(self.x[v] for v in chain.values()) / len(chain))
        for layer in self.layers if down else reversed(self.layers):
            wish, weight = dict[int, float](), dict[int, float]()
            for vertex in layer:
                pulls = [x for side in sides for x in self._ends(side, vertex)]
                pulls += 10 * [straight[vertex]] if vertex in straight else []
                wish[vertex], weight[vertex] = (sum(pulls) / len(pulls), len(pulls)) if pulls else (self.x[vertex], 0.1)
            if sort:
                layer.sort(key=wish.__getitem__)
            apart = [0.0, *((self.widths[a] + self.widths[b]) / 2 + 16 for a, b in itertools.pairwise(layer))]
            for vertex, x in zip(layer, _spread([wish[v] for v in layer], [weight[v] for v in layer], apart)):
                self.x[vertex] = x
            for place in range(len(layer) - 1) if sort else ():
                left, right = layer[place : place + 2]
                if self._gain(left, right) > 0:
                    layer[place : place + 2] = right, left
                    self.x[left], self.x[right] = self.x[right], self.x[left]

    def _ends(self, side: str, vertex: int) -> list[float]:
        return sorted(self.x[other] + offset for other, offset in self.near[side][vertex])

    def _gain(self, left: int, right: int) -> int:
        """Return how many crossings fewer there are if two neighbours change places."""
        pairs = ((a, b) for side in self.near for a in self._ends(side, left) for b in self._ends(side, right))
        return sum((a > b) - (a < b) for a, b in pairs)

    def _crossings(self) -> int:
        count = 0
        for layer in self.layers:
            ends: list[float] = []
            for end in itertools.chain(*(self._ends("below", vertex) for vertex in layer)):
                count += len(ends) - bisect.bisect_right(ends, end)
                bisect.insort(ends, end)
        return count

    def bands(self) -> tuple[list[float], list[float]]:
        """Return where each layer begins and ends; the gap below grows with the sideways distance that its lines cover."""
        tops, bottoms, y = [], [], 84.0
        for layer in self.layers:
            tops.append(y)
            boxes = [self.boxes[vertex] for vertex in layer if vertex < len(self.boxes)]
            bottoms.append(y + max((box.height + 14 * bool(box.ports) for box in boxes), default=0.0))
            sideways = (abs(end - self.x[vertex]) for vertex in layer for end in self._ends("below", vertex))
            y = bottoms[-1] + min(30 + max(sideways, default=0.0) / 12, 70)
        return tops, bottoms


def _spread(wishes: Sequence[float], weights: Sequence[float], apart: Sequence[float]) -> list[float]:
    """Return the positions nearest to `wishes`, in their order and at least `apart` (least squares: pool adjacent violators)."""
    offsets = list(itertools.accumulate(apart))
    groups: list[tuple[float, float, int]] = []  # mean, weight, count
    for wish, weight, offset in zip(wishes, weights, offsets):
        mean, count = wish - offset, 1
        while groups and groups[-1][0] > mean:
            other, other_weight, other_count = groups.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        groups.append((mean, weight, count))
    return [mean + offset for mean, offset in zip((mean for mean, _, count in groups for _ in range(count)), offsets)]


# ---- SVG ---------------------------------------------------------------------------------------------------------------


def graph_svg(graph: Graph) -> str:
    """Return a picture of the graph as a self-contained SVG."""
    boxes, edges, total = _scene(graph, LIMIT)
    note = f"{total} nodes" + (f", {LIMIT} of them drawn: print the graph to see all" if total > LIMIT else "")
    return scene_svg(graph.name, note, boxes, edges)


def scene_svg(name: str, note: str, boxes: Sequence[Box], edges: Sequence[Edge]) -> str:
    """Return a picture of boxes and edges as a self-contained SVG; operands stand before what reads them."""
    layout = Layout(boxes, edges)
    tops, bottoms = layout.bands()
    header, header_width = _header(_cut(name, 60), note, boxes, edges)
    sides = [x + w * half for x, w in zip(layout.x, layout.widths) for half in (-0.5, 0.5)] or [0.0]
    width, height = max(max(sides) - min(sides), header_width) + 40, (bottoms or [70.0])[-1] + 20
    x = [position + (width - min(sides) - max(sides)) / 2 for position in layout.x]
    lines, arrows = dict[_Line, list[str]](), list[str]()
    for upper, lower, leave, enter, edge in layout.links:
        row, x0, x1 = layout.level[upper], x[upper] + leave, x[lower] + enter
        start, end = bottoms[row], tops[row + 1]
        top, middle = tops[row] + boxes[upper].height if upper < len(boxes) else start, (start + end) / 2
        finish = f"{end - 3:.1f}" if lower < len(boxes) else f"{end:.1f}V{bottoms[row + 1]:.1f}"  # the arrow head covers the rest
        path = f"M{x0:.1f} {top:.1f}V{start:.1f}C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {finish}"
        lines.setdefault((edge.source, edge.port, edge.colour), []).append(path)
        if lower < len(boxes):
            arrows.append(_arrow(x1, end, edge.colour))
    for edge in layout.tagged:
        at, y = x[edge.target] + boxes[edge.target].entry(edge.slot), tops[layout.level[edge.target]]
        name, numbered, _ = boxes[edge.source].ports[edge.port].partition(":")
        arrows += [_arrow(at, y, edge.colour), _label(at, y - 12, name if numbered else boxes[edge.source].title, edge.colour)]
    paths = [f'<path d="{"".join(d)}" stroke="{colour}" {_DASH if colour == READ else ""}/>' for (_, _, colour), d in lines.items()]
    drawn = [_box_svg(box, at, tops[level]) for box, at, level in zip(boxes, x, layout.level)]
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join([f"<svg {_STYLE} {size}>", header, '<g fill="none" stroke-width="1.3">', *paths, "</g>", *arrows, *drawn, "</svg>\n"])


def _header(name: str, note: str, boxes: Sequence[Box], edges: Sequence[Edge]) -> tuple[str, float]:
    """Return the title with the legend of what occurs, and their width."""
    x = 20.0
    frame = f'<rect width="100%" height="100%" rx="8" fill="{_WHITE}" stroke="#d9dde3"/>'
    parts = [frame, _text(20, 28, name, 14, _INK, "start"), _text(20, 44, note, 10, _GREY, "start")]
    for kind in COLOURS:
        if any(box.kind == kind for box in boxes):
            parts += [_rectangle(kind, x, 53, 14, 10, 3), _text(x + 19, 62, kind, 10, _GREY, "start")]
            x += 37 + 6.1 * len(kind)
    if any(edge.colour == READ for edge in edges):
        parts.append(f'<path d="M{x:.1f} 58h22" stroke="{READ}" stroke-width="1.3" {_DASH}/>')
        parts.append(_text(x + 27, 62, "forward value read by backward", 10, _GREY, "start"))
        x += 228
    return "".join(parts), max(x - 38, 8.5 * len(name), 6.1 * len(note))


def _box_svg(box: Box, x: float, y: float) -> str:
    w, h = box.width, box.height
    radius = 5 if box.kind in ("forward", "backward") or len(box.details) > 1 else h / 2
    body = _rectangle(box.kind, x - w / 2, y, w, h, radius) + _text(x, y + 17, box.title, 12, _INK if box.ports else _WHITE)
    detail = "".join(_text(x, y + 32 + 14 * k, line, 10, _GREY) for k, line in enumerate(box.details))
    labels = "".join(_label(x + box.exit(port), y + h + 8, text, _GREY) for port, text in enumerate(box.ports))
    return f"<g><title>{html.escape(_printable(box.tooltip))}</title>{body}{detail}{labels}</g>"


def _rectangle(kind: str, x: float, y: float, w: float, h: float, radius: float) -> str:
    fill, outline, _ = COLOURS[kind]
    dash = ' stroke-dasharray="4 2"' if kind == "closed over" else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:g}" fill="{fill}" stroke="{outline}"{dash}/>'


def _label(x: float, y: float, text: str, colour: str) -> str:
    """Return a text on a white ground that hides the line behind it."""
    w = _label_width(text) - 4
    return f'<rect x="{x - w / 2:.1f}" y="{y - 6:.1f}" width="{w:.1f}" height="12" fill="{_WHITE}"/>' + _text(x, y + 3, text, 9, colour)


def _text(x: float, y: float, text: str, size: int, colour: str, anchor: str = "middle") -> str:
    style = f'font-size="{size}" font-weight="{600 if size > 10 else 400}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(_printable(text))}</text>'


def _arrow(x: float, y: float, colour: str) -> str:
    return f'<path d="M{x - 3.2:.1f} {y - 6.5:.1f}h6.4L{x:.1f} {y:.1f}Z" fill="{colour}"/>'
