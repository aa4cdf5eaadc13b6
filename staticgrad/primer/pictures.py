"""Pictures of a network and of its training: computed as data, drawn by matplotlib, shown on a screen or written to a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from staticgrad.errors import ArgumentError, DependencyError, InvalidValueError
from staticgrad.ir.draw import COLOURS, Box, Edge, Layout
from staticgrad.ir.source import at_user_line
from staticgrad.primer.grammar import Binary, Call, Name, Negative, Number, Tree
from staticgrad.primer.network import Network
from staticgrad.primer.training import ExpressionTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS_AN_INCH = 72.0
DOTS_AN_INCH = 150
WITHOUT_SCREEN = frozenset({"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"})
"""matplotlib's backends that only write files."""

_INK, _GREY, _WHITE = "#1d2433", "#5b6472", "#ffffff"

Point = tuple[float, float]


# ---- what is drawn


@dataclass(frozen=True)
class Arrow:
    """A line from box number `source` to box number `target`, through these points."""

    source: int
    target: int
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Picture:
    """Boxes with their centres, and arrows; in points, y upwards."""

    title: str
    boxes: tuple[Box, ...]
    centres: tuple[Point, ...]
    arrows: tuple[Arrow, ...]


class _Scene:
    """Boxes, each after those that it reads, and edges; these end in the order of operands where it is one."""

    def __init__(self, title: str, is_ordered: bool) -> None:
        self.title, self.is_ordered = title, is_ordered
        self.boxes: list[Box] = []
        self.edges: list[Edge] = []
        self.labels: list[str] = []

    def add(self, kind: str, title: str, operands: list[int], labels: list[str] | None = None) -> int:
        """Add a box that reads these; return its number."""
        for slot, source in enumerate(operands):
            self.edges.append(Edge(source, 0, len(self.boxes), slot, COLOURS[self.boxes[source].kind][2]))
        self.labels += labels or [""] * len(operands)
        self.boxes.append(Box(kind, title, "", title, ports=("",), slots=len(operands)))
        return len(self.boxes) - 1

    def picture(self) -> Picture:
        """Return the boxes and edges with their places."""
        layout = Layout(self.boxes, self.edges)
        tops, bottoms = layout.bands()
        middles = [-(top + bottom) / 2 for top, bottom in zip(tops, bottoms)]
        centres = [(layout.x[number], middles[layout.level[number]]) for number in range(len(self.boxes))]
        begun: list[list[Point]] = []
        for edge in self.edges:
            passed = layout.chains.get((edge.source, edge.port, edge.colour), {})
            between = range(layout.level[edge.source] + 1, layout.level[edge.target])
            x, y = centres[edge.source]
            points = [(x, y - self.boxes[edge.source].height / 2)]
            begun.append(points + [(layout.x[passed[level]], middles[level]) for level in between if level in passed])
        arrows = []
        for edge, label, points in zip(self.edges, self.labels, begun):
            slot, target, (x, y) = edge.slot, self.boxes[edge.target], centres[edge.target]
            if not self.is_ordered:  # from left to right, so that no two of them cross
                arriving = [other for other, each in enumerate(self.edges) if each.target == edge.target]
                slot = sum(begun[other][-1][0] < points[-1][0] for other in arriving)
            end = (x + target.entry(slot), y + target.height / 2)
            arrows.append(Arrow(edge.source, edge.target, label, (*points, end)))
        return Picture(self.title, tuple(self.boxes), tuple(centres), tuple(arrows))


def network_picture(network: Network) -> Picture:
    """Return the view in which vertices are the nodes; an edge is labelled with the constants beside its source."""
    scene, place, depends_on = _Scene("vertices", is_ordered=False), dict[str, int](), network.depends_on
    for name in (*network.inputs, *network.definitions):
        sources = depends_on.get(name, [])
        labels = [" ".join(network.constants_beside((source, name))) for source in sources]
        place[name] = scene.add(_kind(network, name), name, [place[source] for source in sources], labels)
    return scene.picture()


def operator_picture(network: Network) -> Picture:
    """Return the view in which operators are the nodes; the one that computes a vertex bears its name."""
    scene, place = _Scene("operators", is_ordered=True), dict[str, int]()
    for name in network.inputs:
        place[name] = scene.add("input", name, [])

    def add(tree: Tree, kind: str, named: str) -> int:
        match tree:
            case Number():
                return scene.add("constant", str(tree), [])
            case Name(name):
                if name not in place:
                    place[name] = scene.add("constant", name, [])
                return place[name]
            case Negative(operand):
                return scene.add(kind, f"-{named}", [add(operand, "forward", "")])
            case Call(function, argument):
                return scene.add(kind, f"{function}{named}", [add(argument, "forward", "")])
            case Binary(operator, left, right):
                return scene.add(kind, f"{operator}{named}", [add(left, "forward", ""), add(right, "forward", "")])

    for name, definition in network.definitions.items():
        kind = _kind(network, name)
        root = add(definition.tree, kind, f"  {name}")
        is_alias = isinstance(definition.tree, Name)
        place[name] = scene.add(kind, f"=  {name}", [root]) if is_alias else root
    return scene.picture()


def _kind(network: Network, name: str) -> str:
    return "output" if name in network.outputs else "forward" if name in network.definitions else "input"


# ---- drawing


def draw(picture: Picture, figure: Figure) -> None:
    """Draw boxes and arrows; a unit of the axes is a point on paper."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Line

    left = min(x - box.width / 2 for (x, _), box in zip(picture.centres, picture.boxes)) - 20
    right = max(x + box.width / 2 for (x, _), box in zip(picture.centres, picture.boxes)) + 20
    bottom, top = (edge + 30 * side for side, edge in ((-1, min(y for _, y in picture.centres)), (1, max(y for _, y in picture.centres))))
    figure.set_size_inches((right - left) / POINTS_AN_INCH, (top - bottom) / POINTS_AN_INCH)
    axes: Any = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for arrow in picture.arrows:
        colour = COLOURS[picture.boxes[arrow.source].kind][2]
        line: dict[str, Any] = {
            "arrowstyle": "-|>",
            "mutation_scale": 10,
            "color": colour,
            "linewidth": 1.3,
            "shrinkA": 0,
            "shrinkB": 0,
            "zorder": 1,
        }
        axes.add_patch(FancyArrowPatch(path=Line(arrow.points), gid=f"{arrow.source} -> {arrow.target}", **line))
        if arrow.label:
            (x0, y0), (x1, y1) = arrow.points[-2:]
            ground = {"facecolor": _WHITE, "edgecolor": "none", "pad": 1}
            axes.text((x0 + x1) / 2, (y0 + y1) / 2, arrow.label, size=8, color=_GREY, ha="center", va="center", bbox=ground, zorder=2)
    for box, (x, y) in zip(picture.boxes, picture.centres):
        fill, outline, _ = COLOURS[box.kind]
        corner = (x - box.width / 2, y - box.height / 2)
        shape = f"round,pad=0,rounding_size={5 if box.kind == 'forward' else box.height / 2}"
        axes.add_patch(FancyBboxPatch(corner, box.width, box.height, boxstyle=shape, facecolor=fill, edgecolor=outline, zorder=3))
        ink = _WHITE if box.kind == "output" else _INK
        axes.text(x, y, box.title, size=11, color=ink, ha="center", va="center", family="monospace", zorder=4)


def draw_losses(training: ExpressionTraining, every: int, figure: Figure) -> None:
    """Draw the loss of each sample, and the mean of every `every` samples at its last one."""
    axes: Any = figure.add_subplot()
    samples = np.arange(1, len(training.losses) + 1)
    axes.plot(samples, training.losses, color=COLOURS["forward"][2], linewidth=0.5, label="loss of a sample")
    ends = np.minimum(np.arange(every, len(samples) + every, every), len(samples))
    axes.plot(ends, training.mean_losses(every), color=COLOURS["backward"][1], marker="o", markersize=3, label=f"mean of {every} samples")
    axes.set(xlabel="samples", ylabel="squared error", title=f"partial derivatives: {training.partials}")
    if np.any(np.isfinite(training.losses) & (training.losses > 0)):
        axes.set_yscale("log")
    if training.first_nonfinite is not None:
        axes.axvline(training.first_nonfinite + 1, color=_GREY, linestyle="--", label="not finite from here on")
    axes.legend()


def present(drawing: Callable[[Figure], None], name: str, path: str | os.PathLike[str] | None) -> Path | None:
    """Show a figure on the screen; without one, or given a path, write it to a file and return where.

    Raises
    ------
    DependencyError
        Without matplotlib.
    """
    file = None if path is None else _file(path)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(at_user_line("pictures need matplotlib: pip install 'staticgrad[plot]'")) from error
    if file is None and matplotlib.get_backend().lower() not in WITHOUT_SCREEN:
        from matplotlib import pyplot

        drawing(pyplot.figure())
        pyplot.show()
        return None
    figure, file = Figure(), file or Path(f"{name}.png")
    kinds = figure.canvas.get_supported_filetypes()
    if file.suffix[1:].lower() not in kinds:
        raise InvalidValueError(at_user_line(f"path={str(file)!r}: expected the name of a picture, for example {file.with_suffix('.png')}"))
    drawing(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=DOTS_AN_INCH)
    return file


def _file(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ArgumentError(at_user_line(f"path={path!r}: expected the name of a file"))
    return Path(path)
