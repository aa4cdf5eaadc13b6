"""Lesson L2, the primer of computational graphs: what its script finds."""

import numpy as np
import pytest

from tests.lessons.running import run


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l2_expression_graph", tmp_path_factory.mktemp("pictures"))


def test_the_network(lesson):
    graph = lesson["graph"]
    assert len(graph.variables) == 5
    assert len(graph.learnable_params) == 4
    assert {name: set(found) for name, found in graph.depends_on.items()} == {
        "xx": {"xa"}, "xy": {"xa", "xx"}, "xz": {"xx", "xy"}, "xw": {"xx", "xz"},
    }  # fmt: skip
    assert {name: set(found) for name, found in graph.leads_to.items()} == {
        "xa": {"xx", "xy"}, "xx": {"xy", "xz", "xw"}, "xy": {"xz"}, "xz": {"xw"},
    }  # fmt: skip
    assert graph.independent_vars == ["xa"]


def test_errors_show_their_place(lesson):
    carets = [error.splitlines()[2].index("^") - 4 for error in lesson["errors"]]
    assert carets == [8, 8, 8]


def test_training(lesson):
    """Both slopes agree at every edge and sample, and both ways end at the same constants."""
    exact, measured = lesson["exact"], lesson["measured"]
    assert len(exact.losses) == len(measured.losses) == 10000
    for edge, slopes in exact.exact_partials.items():
        np.testing.assert_allclose(exact.measured_partials[edge], slopes, rtol=1e-3)
    assert measured.constants == pytest.approx(exact.constants, rel=1e-6)
    assert exact.mean_losses(1000).shape == (10,)


def test_the_gradient_of_the_whole_network(lesson):
    for name, gradient in lesson["whole"].items():
        np.testing.assert_allclose(lesson["exact"].constant_gradients[name], gradient, rtol=1e-9)


def test_the_best_delta_lies_between_truncation_and_rounding(lesson):
    differences = lesson["differences"]
    assert differences[1e-3] < 1e-3 < differences[0.1]
    assert differences[1e-3] / differences[1e-5] == pytest.approx(1e4, rel=0.1)  # quadratic while truncation rules
    assert differences[lesson["best"]] < 1e-2 * differences[1e-13]


def test_what_can_be_learned(lesson):
    np.testing.assert_allclose(lesson["sizes"][3] / lesson["sizes"][0], 0.0, atol=1e-12)
    assert lesson["recovered"] == pytest.approx({"ab + bc": 3.0, "ac": 4.0, "cd": 3.0}, rel=1e-9)
    assert abs(lesson["constants"]["ab"] - lesson["TRUTH"]["ab"]) > 0.1
    assert lesson["runs"][1e-3].first_nonfinite < 100


def test_pictures(lesson):
    assert [path.name for path in lesson["pictures"]] == ["network.png", "operators.png", "loss.png"]
    assert sorted(path.name for path in lesson["output"].iterdir()) == ["loss.png", "network.png", "operators.png"]
