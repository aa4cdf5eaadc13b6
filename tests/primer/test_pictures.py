"""Pictures of a network and its training: the data in them, and where they go."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import staticgrad as sg
from staticgrad.errors import ArgumentError, DependencyError, InvalidValueError
from staticgrad.primer.network import network_of
from staticgrad.primer.pictures import draw, draw_losses, network_picture, operator_picture

LESSON = ["xx=xa^2", "xy=ab*xx+ac*xa", "xz=bc*xx+xy", "xw=cd*xx+xz^3"]
TRUTH = {"ab": 1.0, "bc": 2.0, "cd": 3.0, "ac": 4.0}
OTHER = ["xb = -exp(k*xa) - 2*xa/(m + 1)", "xc = xb", "xd = xa*xb^-1 + xc", "xe = abs(xd)"]


def arrows_of(picture):
    return [(picture.boxes[arrow.source].title, picture.boxes[arrow.target].title, arrow.label) for arrow in picture.arrows]


def trained(**options):
    graph = sg.ExpressionGraph(LESSON, **({"dataset_size": 50, "display_vals_how_often": 20} | options))
    graph.parse_expressions()
    graph.gen_gt_dataset(TRUTH)
    return graph, graph.train_on_all_data("exact")


# ---- what is drawn


def test_the_network_of_the_lesson():
    picture = network_picture(network_of(LESSON, None))
    assert {box.title: box.kind for box in picture.boxes} == {
        "xa": "input", "xx": "forward", "xy": "forward", "xz": "forward", "xw": "output",
    }  # fmt: skip
    assert arrows_of(picture) == [
        ("xa", "xx", ""), ("xa", "xy", "ac"), ("xx", "xy", "ab"), ("xx", "xz", "bc"), ("xy", "xz", ""), ("xx", "xw", "cd"),
        ("xz", "xw", ""),
    ]  # fmt: skip
    heights = [y for _, y in picture.centres]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 5  # each vertex is one layer below what it reads


def test_constants_stand_at_the_summands_that_hold_them():
    network = network_of(["xb = k*(xa + m*xc) - exp(p*xa)/2 - (-q*xc + 3)", "xd = xc + r"], None)
    labels = {(source, target): label for source, target, label in arrows_of(network_picture(network))}
    assert labels == {("xa", "xb"): "k m p", ("xc", "xb"): "k m q", ("xc", "xd"): ""}


def test_operators_as_nodes():
    picture = operator_picture(network_of(LESSON, None))
    titles = [box.title for box in picture.boxes]
    assert titles == [
        "xa", "2", "^  xx", "ab", "*", "ac", "*", "+  xy", "bc", "*", "+  xz", "cd", "*", "3", "^", "+  xw",
    ]  # fmt: skip
    arrows = [(arrow.source, arrow.target) for arrow in picture.arrows]
    assert arrows == [
        (0, 2), (1, 2), (3, 4), (2, 4), (5, 6), (0, 6), (4, 7), (6, 7), (8, 9), (2, 9), (9, 10), (7, 10), (11, 12), (2, 12), (10, 14),
        (13, 14), (12, 15), (14, 15),
    ]  # fmt: skip
    assert [box.kind for box in picture.boxes if box.title in ("2", "ab", "+  xw")] == ["constant", "constant", "output"]


def test_operators_of_every_kind():
    picture = operator_picture(network_of(OTHER, None))
    found = arrows_of(picture)
    for arrow in [
        ("exp", "-", ""),
        ("-", "-  xb", ""),
        ("/", "-  xb", ""),
        ("-  xb", "=  xc", ""),
        ("1", "-", ""),
        ("+  xd", "abs  xe", ""),
    ]:
        assert arrow in found
    assert [box.title for box in picture.boxes].count("xa") == 1
    left, right = (arrow for arrow in picture.arrows if picture.boxes[arrow.target].title == "-  xb")
    assert left.points[-1][0] < right.points[-1][0]  # operands stand in their order


@pytest.mark.parametrize("view", [network_picture, operator_picture])
@pytest.mark.parametrize("expressions", [LESSON, OTHER], ids=["lesson", "other"])
def test_places(view, expressions):
    """Boxes do not overlap; arrows lead from the bottom of one box down to the top of another; the same each time."""
    picture = view(network_of(expressions, None))
    for number, (x, y) in enumerate(picture.centres):
        for other in range(number):
            apart = (picture.boxes[number].width + picture.boxes[other].width) / 2
            u, v = picture.centres[other]
            assert abs(x - u) >= apart or abs(y - v) > picture.boxes[number].height
    for arrow in picture.arrows:
        (x, y), (u, v) = picture.centres[arrow.source], picture.centres[arrow.target]
        assert arrow.points[0] == (x, y - picture.boxes[arrow.source].height / 2)
        assert arrow.points[-1][1] == v + picture.boxes[arrow.target].height / 2
        assert abs(arrow.points[-1][0] - u) < picture.boxes[arrow.target].width / 2
        heights = [height for _, height in arrow.points]
        assert heights == sorted(heights, reverse=True)
    assert view(network_of(expressions, None)) == picture


def test_arrows_into_a_vertex_do_not_cross():
    picture = network_picture(network_of(LESSON, None))
    for box in range(len(picture.boxes)):
        arriving = sorted((arrow.points[-2][0], arrow.points[-1][0]) for arrow in picture.arrows if arrow.target == box)
        ends = [end for _, end in arriving]
        assert ends == sorted(ends)
        assert len(set(ends)) == len(ends)


def test_what_matplotlib_is_given():
    picture, figure = network_picture(network_of(LESSON, None)), Figure()
    draw(picture, figure)
    (axes,) = figure.axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    places = {box.title: centre for box, centre in zip(picture.boxes, picture.centres, strict=True)}
    assert texts.items() >= places.items()
    assert texts.keys() - places.keys() == {"ab", "ac", "bc", "cd"}
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert [(box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2) for box in boxes] == list(picture.centres)
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert [arrow.get_gid() for arrow in arrows] == [f"{arrow.source} -> {arrow.target}" for arrow in picture.arrows]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for box, (x, y) in zip(picture.boxes, picture.centres, strict=True):
        assert left < x - box.width / 2 < x + box.width / 2 < right
        assert bottom < y - box.height / 2 < y + box.height / 2 < top


def test_losses():
    _, training = trained()
    figure = Figure()
    draw_losses(training, 20, figure)
    single, mean = figure.axes[0].lines
    np.testing.assert_array_equal(single.get_xdata(), np.arange(1, 51))
    np.testing.assert_array_equal(single.get_ydata(), training.losses)
    assert list(mean.get_xdata()) == [20, 40, 50]
    expected = [np.mean(training.losses[:20]), np.mean(training.losses[20:40]), np.mean(training.losses[40:])]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    assert figure.axes[0].get_yscale() == "log"


def test_losses_that_are_not_finite():
    _, training = trained(learning_rate=0.1)
    figure = Figure()
    draw_losses(training, 20, figure)
    line = figure.axes[0].lines[2]
    assert list(line.get_xdata()) == [training.first_nonfinite + 1] * 2
    assert "not finite" in line.get_label()
    figure.canvas.draw()


# ---- where they go


def test_without_a_screen_files_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph, _ = trained()
    assert graph.display_network() == graph.display_network2() == Path("network.png")
    assert graph.display_network(operators=True) == Path("operators.png")
    assert graph.plot_loss() == Path("loss.png")
    assert {path.name for path in tmp_path.iterdir()} == {"network.png", "operators.png", "loss.png"}
    for path in tmp_path.iterdir():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 200
        assert np.unique(pixels.reshape(-1, 4), axis=0).shape[0] > 10


def test_files_of_any_name(tmp_path):
    graph, _ = trained()
    path = tmp_path / "new" / "folder" / "picture.svg"
    assert graph.display_network(str(path)) == path
    assert graph.display_network(path, operators=True) == path
    assert "<svg" in path.read_text(encoding="utf-8")
    first = (graph.display_network(tmp_path / "first.png") or path).read_bytes()
    assert (graph.display_network2(tmp_path / "second.png") or path).read_bytes() == first


def test_on_a_screen_pictures_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))
    graph, training = trained()
    assert graph.display_network() is None
    assert graph.plot_loss() is None
    network, losses = shown
    assert {"xa", "xw"} <= {text.get_text() for text in network.axes[0].texts}
    np.testing.assert_array_equal(losses.axes[0].lines[0].get_ydata(), training.losses)
    pyplot.close("all")


MISTAKES = {
    "no path": (3, ArgumentError, "path=3: expected the name of a file"),
    "an empty path": ("", ArgumentError, "path=''"),
    "unknown kind": ("graph.xyz", InvalidValueError, "path='graph.xyz': expected the name of a picture, for example graph.png"),
    "no kind": ("graph", InvalidValueError, "for example graph.png"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case):
    path, kind, message = MISTAKES[case]
    graph, _ = trained()
    for show in (graph.display_network, graph.plot_loss):
        with pytest.raises(kind, match=message):
            show(path)


def test_without_matplotlib(monkeypatch):
    graph, _ = trained()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"pictures need matplotlib: pip install 'staticgrad\[plot\]'") as caught:
        graph.display_network()
    assert isinstance(caught.value, ImportError)
