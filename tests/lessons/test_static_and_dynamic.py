"""Lesson L2, static against dynamic graphs: the same results whichever way, and what passes and fusion did. Times are not asserted."""

import numpy as np
import pytest

import staticgrad as sg
from tests.lessons.running import run


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l2_static_and_dynamic", tmp_path_factory.mktemp("pictures"))


def test_every_way_ends_at_the_same_parameters(lesson):
    ends = lesson["ends"]
    assert list(ends) == [
        "rebuilt by staticgrad, interpreted",
        "rebuilt by HIPS autograd",
        "rebuilt by eager tensors",
        "compiled once, loop in Python",
        "compiled once, loop compiled, too",
    ]
    assert lesson["loss"](lesson["reference"], lesson["x"], lesson["targets"]) == pytest.approx(0.211686, abs=1e-6)
    for found in ends.values():
        for name, value in lesson["reference"].items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)


def test_one_trace_serves_all_steps(lesson):
    info = lesson["info"]
    assert (info.traces, info.signatures) == (1, 1)


def test_passes_and_fusion_had_something_to_do(lesson):
    report = lesson["report"]
    assert report.passes[-1].after < report.passes[0].before
    assert lesson["fired"].keys() >= {"fold_constants", "divide_by_power_of_two"}
    assert 2 * report.backward_nests < report.backward_nests_unfused
    assert str(report) == str(lesson["compiled_gradient"].lower(lesson["start"], *lesson["batch"]).report)


def test_optimised_and_as_traced_are_the_same_function(lesson):
    optimised = lesson["compiled_gradient"](lesson["start"], *lesson["batch"])
    as_traced = sg.grad(sg.trace(lesson["loss"], backend="interp"))(lesson["start"], *lesson["batch"])
    for name, value in as_traced.items():
        np.testing.assert_allclose(optimised[name], value, rtol=1e-12, atol=1e-15)


def test_evaluating_emits_no_backward_kernel(lesson):
    assert "def backward(" in lesson["lowered"].source
    assert "def backward(" not in lesson["evaluation"].source
    assert lesson["evaluation"].memory < lesson["lowered"].memory


def test_tensors_record_a_tape_in_every_pass(lesson):
    """One node for each of the 15 operations and one for each of the four leaves."""
    names = sorted(node.name() for node in lesson["tape_of"](lesson["on_tensors"](lesson["start"], *lesson["batch"])[0]))
    assert len(names) == lesson["nodes_of_a_pass"] == 19 and names.count("AccumulateGrad") == 4
    assert {"MmBackward0", "TanhBackward0", "ExpBackward0", "LogBackward0", "MeanBackward0", "NegBackward0"} <= set(names)


def test_a_branch_in_python_works_on_tensors(lesson):
    assert lesson["branched"] == [6.0, -1.0]


def test_a_branch_on_a_value_is_an_error_that_says_where(lesson):
    assert "in steep" in lesson["refused"] and "if z > 0:" in lesson["refused"] and "np.where" in lesson["refused"]


def test_a_scan_is_the_unrolled_loop(lesson):
    """The graph of a scan does not grow with the sequence, that of a loop in Python does; the gradients are the same."""
    nodes = lesson["recurrent"]
    assert len(set(nodes["scanned"].values())) == 1
    assert nodes["unrolled"][100] - nodes["unrolled"][50] == 2 * (nodes["unrolled"][50] - nodes["unrolled"][25]) > 0
    unrolled = sg.grad(lesson["unrolled"])(lesson["weights"], lesson["sequence"])
    for name, value in unrolled.items():
        np.testing.assert_allclose(lesson["by_scan"][name], value, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(lesson["leaves"][name].grad.numpy(), value, rtol=1e-10, atol=1e-13)


def test_one_loop_takes_as_many_steps_as_each_number_needs(lesson):
    assert lesson["heron_steps"] == {2.0: 5, 1e6: 14}
    assert float(lesson["heron"](9.0)[0]) == pytest.approx(3.0, rel=1e-12)
    sg.check_grads(lambda a: lesson["heron"](a)[0], (7.0,), order=1)


def test_the_picture_shows_the_times(lesson):
    (axes,) = lesson["bars"].axes
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [1e4 * took for took in lesson["medians"].values()])
    assert [path.name for path in lesson["output"].iterdir()] == ["static_and_dynamic.png"]
