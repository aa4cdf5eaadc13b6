"""Pictures of graphs: what is drawn, that it is well-formed whatever the labels, and that nothing overlaps."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pytest

from staticgrad.ir.aval import FLOAT32, FLOAT64, INT64, Aval
from staticgrad.ir.draw import _DUMMIES, LIMIT, Layout, _scene, _spread, graph_dot, graph_svg
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Value, apply, apply_all, at_line, constant, new_input
from staticgrad.ir.op import Op
from staticgrad.ir.source import SourceLine

VECTOR = Aval((4,), FLOAT64)
LINE = SourceLine("model.py", 7, "loss")


@dataclass(frozen=True)
class Join(Op):  # not registered: the registry holds the real ops only
    """x + y."""

    name = "zz_join"

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]


@dataclass(frozen=True)
class Turn(Op):
    """A function of one vector."""

    axes: tuple[int, ...] = ()
    note: str = ""
    name = "zz_turn"

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]


@dataclass(frozen=True)
class Spread(Op):
    """A scalar, everywhere."""

    shape: tuple[int, ...]
    name = "zz_spread"
    kind = "view"

    def infer(self, *avals: Aval) -> Aval:
        return avals[0].with_shape(self.shape)


@dataclass(frozen=True)
class Split(Op):
    """Half of a vector, and its length."""

    name = "zz_split"
    outputs = 2

    def infer(self, *avals: Aval) -> tuple[Aval, Aval]:
        return avals[0].with_shape((avals[0].size // 2,)), Aval((), INT64)


@dataclass(frozen=True)
class Hold(Op):
    """An op with a graph inside."""

    body: Graph
    name = "zz_hold"

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]


def vector(label: str = "x") -> Value:
    return new_input(VECTOR, label)


def join(*values: Value) -> Value:
    return apply(Join(), *values, line=LINE)


def turn(value: Value, axes: tuple[int, ...] = (), note: str = "") -> Value:
    return apply(Turn(axes, note), value, line=LINE)


def gradient() -> Graph:
    """Return x, y -> turn(2 x + y), and its gradient."""
    x, y = vector("x"), vector("y")
    doubled = join(x, apply(Spread((4,)), constant(2.0)))
    out = turn(join(doubled, y), axes=(1,))
    back = join(turn(doubled), out)
    return Graph((x, y), (out, back), (out,), "loss", ("x", "y"))


def chain(length: int) -> Graph:
    """Return a chain whose backward part reads every value of the forward part, the last one first."""
    values = [vector()]
    with at_line(LINE):
        for _ in range(length):
            values.append(turn(values[-1]))
        back = values[-1]
        for value in reversed(values[:-1]):
            back = join(back, value)
    return Graph((values[0],), (values[-1], back), (values[-1],))


def random_graph(count: int, seed: int, reach: float = 10) -> Graph:
    draw = np.random.default_rng(seed)
    values = inputs = [vector(f"x{k}") for k in range(5)]
    with at_line(LINE):
        while len(values) < count:
            first, second = (values[max(0, len(values) - 1 - int(draw.exponential(reach)))] for _ in range(2))
            values = [*values, join(first, second) if draw.random() < 0.6 else turn(first, (len(values),))]
    return Graph(tuple(inputs), tuple(values[-3:]))


def wide(count: int) -> Graph:
    inputs = tuple(vector(f"x{k}") for k in range(count))
    return Graph(inputs, (join(*inputs),))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def tooltips(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("title")]


# ---- what is drawn


def test_svg_shows_ops_values_and_legend():
    found = texts(graph_svg(gradient()))
    assert found[:2] == ["loss", "7 nodes"]
    for text in ("input", "forward", "backward", "output", "gradient", "forward value read by backward"):
        assert found.count(text) == 1, text
    for text in ("x", "y", "zz_turn", "axes=(1,), note=''", "(·, 2)", "%1: f64[4]", "output 0", "output 1"):
        assert text in found, text
    assert "zz_spread" not in found
    assert "constant" not in found


def test_legend_shows_only_what_occurs():
    found = texts(graph_svg(Graph((x := vector(),), (turn(x),))))
    assert "forward" in found
    assert not {"backward", "gradient", "constant", "closed over", "forward value read by backward"} & set(found)


def test_tooltips_name_the_operation_and_the_line():
    found = tooltips(graph_svg(gradient()))
    assert any("zz_turn(axes=(1,), note='')" in text and "model.py:7, in loss" in text for text in found)
    assert "x: f64[4]" in found[0]


def test_kinds_of_boxes():
    x, closed = vector("x"), vector("w")
    out = join(join(x, closed), constant([1.0, 2.0, 3.0, 4.0]))
    boxes, edges, total = _scene(Graph((x,), (out, constant(3.0)), (), "g", ("x",)))
    assert [box.kind for box in boxes] == ["input", "closed over", "forward", "constant", "forward", "constant", "output", "output"]
    assert [box.title for box in boxes[:2]] == ["x", "w"]
    assert (len(edges), total) == (6, 6)


def test_kinds_of_edges():
    boxes, edges, _ = _scene(gradient())
    read = [edge for edge in edges if edge.colour == "#9b6fc0"]
    assert [(boxes[e.source].kind, boxes[e.target].kind) for e in read] == [("forward", "backward")] * 2
    assert all(boxes[e.target].kind in ("backward", "gradient") for e in edges if boxes[e.source].kind == "backward")


def test_several_outputs_leave_from_their_own_places():
    x = vector()
    half, length = apply_all(Split(), x, line=LINE)
    graph = Graph((x,), (length, turn(half)))
    boxes, edges, _ = _scene(graph)
    assert boxes[1].ports == ("%0: f64[2]", "%1: i64[]")
    assert boxes[1].exit(0) < 0 < boxes[1].exit(1)
    assert {edge.port for edge in edges if edge.source == 1} == {0, 1}
    assert {"%0: f64[2]", "%1: i64[]"} <= set(texts(graph_svg(graph)))


def test_held_graphs_show_no_digest():
    x = vector()
    graph = Graph((x,), (apply(Hold(gradient()), x),))
    assert "body=…" in texts(graph_svg(graph))
    assert not re.search("[0-9a-f]{64}", graph_svg(graph) + graph_dot(graph))


def test_long_labels_are_cut():
    graph = Graph((vector("a" * 100),), (turn(vector(), note="b" * 1000),), labels=("a" * 100,))
    assert max(map(len, texts(graph_svg(graph)))) <= 60
    assert max(map(len, tooltips(graph_svg(graph)))) < 600


def test_dot():
    dot = graph_dot(gradient())
    assert dot.startswith('digraph "loss" {\n')
    assert dot.endswith("}\n")
    assert '  n0 [label="x", tooltip="x: f64[4]' in dot
    assert r'label="zz_turn\naxes=(1,), note=' in dot
    assert dot.count('class="backward"') == 2
    assert dot.count(' -> n4 [label="') == 1
    assert dot.count("style=dashed") == 2
    assert 'label="%1: f64[4]"' in dot


# ---- well-formed, whatever the user calls things

HOSTILE = [
    "<script>alert('x')</script>",
    'a"b',
    "a\\",
    "a\\nb",
    "line\nbreak",
    "&amp;",
    "\x00\x1b[0m",
    "\ud800",
    "%",
    "π",
    "]]>",
    "x -> y; }",
    "",
]


@pytest.mark.parametrize("label", HOSTILE, ids=ascii)
def test_hostile_names(label):
    x = vector(label)
    with at_line(SourceLine(re.sub("[\0\ud800]", "", label) + ".py", 3, label)):
        out = apply(Join(), turn(x, note=label), vector(label))
    graph = Graph((x,), (out,), (), label, (label,))
    svg = graph_svg(graph)
    ElementTree.fromstring(svg.encode())
    assert "<script" not in svg
    dot = graph_dot(graph)
    dot.encode()
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "S", dot, flags=re.DOTALL)  # a quoted string ends at the first quote that is not escaped
    assert '"' not in bare
    assert re.fullmatch(r"digraph S \{\n(  (graph|node|edge) \[.*\];\n){3}(  n\d+( -> n\d+)? \[[\w=S#, ]*\];\n)+\}\n", bare)
    assert all(len(line) < 2000 for line in dot.splitlines())


def test_the_svg_is_self_contained():
    root = ElementTree.fromstring(graph_svg(gradient()))
    assert {element.tag.partition("}")[2] for element in root.iter()} == {"svg", "g", "rect", "path", "text", "title"}
    assert not any(attribute in ("id", "class", "href", "style", "onload") for element in root.iter() for attribute in element.attrib)


# ---- layout

GRAPHS = {
    "nothing": lambda: Graph((), ()),
    "one input": lambda: Graph((x := vector(),), (x,)),
    "unused": lambda: Graph((vector(), vector()), ()),
    "gradient": gradient,
    "random": lambda: random_graph(60, 0),
    "far": lambda: random_graph(200, 1, 80),
    "wide": lambda: wide(100),
    "chain": lambda: chain(100),
}


def overlaps(ranges: list[tuple[float, float]]) -> bool:
    return any(a[1] > b[0] + 1e-6 for a, b in itertools.pairwise(sorted(ranges)))


@pytest.mark.parametrize("name", GRAPHS)
def test_boxes_do_not_overlap(name):
    boxes, edges, _ = _scene(GRAPHS[name](), LIMIT)
    layout = Layout(boxes, edges)
    tops, bottoms = layout.bands()
    assert not overlaps(list(zip(tops, bottoms, strict=True)))
    assert sorted(vertex for layer in layout.layers for vertex in layer) == list(range(len(layout.level)))
    for layer in layout.layers:
        assert not overlaps([(layout.x[v] - layout.widths[v] / 2, layout.x[v] + layout.widths[v] / 2) for v in layer])
    assert all(layout.level[edge.source] < layout.level[edge.target] for edge in edges)
    assert len(layout.level) - len(boxes) <= _DUMMIES
    svg = graph_svg(GRAPHS[name]())
    width, height = (float(size) for size in re.findall(r'(?:width|height)="(\d+)"', svg)[:2])
    coordinates = [float(number) for number in re.findall(r' x="([\d.-]+)"', svg)]
    assert all(0 <= x <= width for x in coordinates)
    assert max([float(number) for number in re.findall(r' y="([\d.-]+)"', svg)], default=0) <= height


def test_pictures_are_deterministic():
    assert graph_svg(random_graph(80, 3)) == graph_svg(random_graph(80, 3))
    assert graph_dot(random_graph(80, 3)) == graph_dot(random_graph(80, 3))


def test_sweeps_untangle():
    left, right = [vector(f"a{k}") for k in range(6)], [vector(f"b{k}") for k in range(6)]
    pairs = [turn(join(a, b), (k,)) for k, (a, b) in enumerate(zip(left, reversed(right), strict=True))]
    layout = Layout(*_scene(Graph((*left, *right), tuple(pairs)))[:2])
    assert layout._crossings() == 0


def test_spread_is_the_nearest_order_preserving_placement():
    assert _spread([0.0, 0.0, 10.0], [1, 1, 1], [0.0, 2.0, 2.0]) == [-1.0, 1.0, 10.0]
    assert _spread([5.0, 0.0], [3, 1], [0.0, 1.0]) == [3.5, 4.5]
    assert _spread([], [], []) == []


def test_long_edges_become_tags():
    graph = chain(150)
    boxes, edges, _ = _scene(graph, LIMIT)
    layout = Layout(boxes, edges)
    assert layout.tagged
    spans = {edge: layout.level[edge.target] - layout.level[edge.source] for edge in edges}
    assert min(spans[edge] for edge in layout.tagged) >= max(spans[link.edge] for link in layout.links)
    assert "%3" in texts(graph_svg(graph))


# ---- size


LARGE = {
    "chain": lambda: chain(160),
    "near": lambda: random_graph(480, 4, 5),
    "far": lambda: random_graph(480, 5, 200),
    "wide": lambda: wide(480),
}


@pytest.mark.parametrize("name", LARGE)
def test_time_at_the_limit(name):
    graph = LARGE[name]()
    started = time.process_time()
    svg = graph_svg(graph)
    assert time.process_time() - started < 2.0  # about 0.3 s on the development machine
    assert "drawn" not in texts(svg)[1]


def test_large_graphs_are_cut():
    graph = random_graph(5000, 6)
    svg = graph_svg(graph)
    assert re.fullmatch(rf"\d{{4}} nodes, {LIMIT} of them drawn: print the graph to see all", texts(svg)[1])
    assert LIMIT <= len(tooltips(svg)) <= LIMIT + len(graph.outputs)
    assert graph_dot(graph).count("tooltip") > 2000
    many = wide(2 * LIMIT)
    shown, _, total = _scene(many, LIMIT)
    assert (len(shown), total) == (LIMIT, 2 * LIMIT + 1)


def test_operations_come_before_leaves_in_a_cut_graph():
    inputs = tuple(vector(f"x{k}") for k in range(2 * LIMIT))
    value = inputs[-1]
    for k in range(10):
        value = turn(value, (k,))
    shown, edges, _ = _scene(Graph(inputs, (value,)), 20)
    assert [box.title for box in shown].count("zz_turn") == 10
    assert len(edges) == 11


def test_graphs_of_single_precision_name_it():
    x = new_input(Aval((2, 3), FLOAT32), "x")
    assert "f32[2,3]" in texts(Graph((x,), (x,))._repr_svg_())
    assert 'label="f32[2,3]"' in Graph((x,), (x,)).to_dot()
