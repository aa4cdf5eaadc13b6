"""Lesson L2, bundle adjustment: a scene is recovered through sparse normal equations."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from scipy.spatial.transform import Rotation

from tests.lessons.running import run


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def lesson(output):
    return run("l2_bundle_adjustment", output)


def test_the_camera_is_what_scipy_rotates(lesson):
    rng = np.random.default_rng(0)
    w, p = rng.standard_normal((20, 3)), rng.standard_normal((20, 3))
    np.testing.assert_allclose(lesson["rotated"](w, p), Rotation.from_rotvec(w).apply(p), rtol=1e-12, atol=1e-14)


def test_the_size_of_the_problem(lesson):
    cameras, points = lesson["truth"]["cameras"], lesson["truth"]["points"]
    assert len(cameras) >= 5
    assert len(points) >= 200
    assert lesson["NOISE"] > 0
    assert np.bincount(lesson["point_of"]).min() >= 2


def test_the_jacobian_takes_eight_sweeps(lesson):
    assert lesson["coloring"].count == 8
    assert lesson["J"].nnz == 8 * lesson["J"].shape[0]
    np.testing.assert_allclose(lesson["J"].toarray(), lesson["whole"], rtol=1e-12, atol=1e-9)


def test_steps_stay_only_if_the_cost_falls(lesson):
    history = lesson["found"].history
    stayed = [trial.cost for trial in history if trial.accepted]
    assert all(trial.accepted == (trial.fall > 0) for trial in history)
    assert np.all(np.diff(stayed) <= 1e-9 * np.array(stayed[:-1]))
    assert not history[0].accepted
    for trial, following in itertools.pairwise(history):
        assert trial.accepted or following.control > trial.control


def test_the_scene_is_recovered_to_the_noise(lesson):
    found = lesson["found"]
    assert found.success
    assert lesson["root_mean_square"](lesson["start"]) > 100
    assert lesson["root_mean_square"](found.x) == pytest.approx(lesson["expected"], rel=0.05)
    assert lesson["point_errors"][0] > 1
    assert lesson["point_errors"][1] < 0.01
    assert lesson["camera_errors"][1] < 0.02
    np.testing.assert_allclose(lesson["dense"].cost, found.cost, rtol=1e-9)


def test_scipy_finds_no_less(lesson):
    """From the scene that was found, SciPy's solver with its own differences goes nowhere."""
    found, pixels = lesson["found"].x, lesson["pixels"]
    shapes = [found[name].shape for name in ("cameras", "points")]

    def residuals(vector):
        cameras, points = np.split(vector, [np.prod(shapes[0])])
        at = cameras.reshape(shapes[0])[lesson["camera_of"]], points.reshape(shapes[1])[lesson["point_of"]]
        return np.ravel(lesson["seen"](*at) - pixels)

    x0 = np.concatenate([found["cameras"].ravel(), found["points"].ravel()])
    theirs = scipy.optimize.least_squares(residuals, x0, jac_sparsity=lesson["J"] != 0, x_scale="jac", max_nfev=5)
    assert theirs.cost == pytest.approx(lesson["found"].cost, rel=1e-9)


def test_pictures(lesson, output):
    assert sorted(path.name for path in output.iterdir()) == ["l2_bundle_adjustment.png", "l2_bundle_adjustment_sparsity.png"]
    assert all(path.stat().st_size > 20_000 for path in output.iterdir())
