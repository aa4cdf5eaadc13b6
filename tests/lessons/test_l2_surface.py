"""Lesson L2, the loss surface: gradients through the Jacobian, three troubles, mini-batches, and jumps."""

import itertools

import numpy as np
import pytest

import staticgrad as sg
from tests.lessons.running import run


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l2_loss_surface", tmp_path_factory.mktemp("pictures"))


# ---- the gradient through the Jacobian ---------------------------------------------------------------------------------------


def test_the_jacobian_has_a_row_a_prediction_and_a_column_a_parameter(lesson):
    p, x = lesson["p"], lesson["x"]
    by_hand = np.stack([np.cos(p[0] * x + p[1]) * x, np.cos(p[0] * x + p[1])], axis=1)
    np.testing.assert_allclose(lesson["jacobian"], by_hand, rtol=1e-13, atol=1e-15)


def test_the_step_with_the_jacobian_is_the_step_with_grad(lesson):
    p, x, y, jacobian = lesson["p"], lesson["x"], lesson["y"], lesson["jacobian"]
    errors = y - np.sin(p[0] * x + p[1])
    gradient = sg.grad(lesson["squared_error"])(p, x, y)
    np.testing.assert_allclose(gradient, -2 * jacobian.T @ errors, rtol=1e-12)
    of_errors = sg.jacobian(lambda p: y - lesson["wave"](p, x))(p)
    np.testing.assert_allclose(gradient, 2 * of_errors.T @ errors, rtol=1e-12)
    np.testing.assert_allclose(lesson["by_jacobian"], lesson["by_gradient"], rtol=1e-13)


def test_without_the_transpose_the_shapes_do_not_fit(lesson):
    with pytest.raises(ValueError, match="matmul"):
        lesson["jacobian"] @ lesson["errors"]


def test_one_hot_targets_are_stacked_into_one_vector(lesson):
    jacobian, errors, points = lesson["stacked_jacobian"], lesson["stacked_errors"], lesson["points"]
    assert jacobian.shape == (36, 9) and errors.shape == lesson["one_hot"].shape == (36,)
    assert (lesson["one_hot"].reshape(12, 3).sum(axis=1) == 1).all()
    np.testing.assert_allclose(lesson["stacked_step"], lesson["gradient_step"], rtol=1e-13)
    step = 1e-6
    for k in range(9):
        moved = [lesson["probabilities"](lesson["p9"] + sign * step * np.eye(9)[k], points) for sign in (1, -1)]
        np.testing.assert_allclose(jacobian[:, k], (moved[0] - moved[1]) / (2 * step), atol=1e-9)


# ---- three troubles ------------------------------------------------------------------------------------------------------------


def in_numpy(slope, start, rate, steps):
    path = [start]
    for _ in range(steps):
        path.append(path[-1] - rate * slope(path[-1]))
    return np.array(path)


def test_slow_near_the_optimum(lesson):
    path = lesson["slow_path"]
    np.testing.assert_allclose(path[:200], in_numpy(lambda p: 4 * (p @ p) * p, path[0], 0.01, 199), rtol=1e-10)
    distances = np.linalg.norm(path, axis=1)
    gains = distances[:-1] - distances[1:]
    assert gains[0] > 1e5 * gains[-1] > 0
    assert np.allclose(np.diff(lesson["halved"])[1:] / np.diff(lesson["halved"])[:-1], 4, atol=0.2)


def test_caught_in_a_local_minimum(lesson):
    caught, lucky = (lesson["wave_paths"][name][-1] for name in ("caught", "lucky"))
    loss = lesson["wave_loss"]
    assert np.linalg.norm(sg.grad(loss)(caught)) < 1e-6, "no slope leads away"
    around = caught + 0.05 * np.stack([np.cos(np.linspace(0, 6.2, 16)), np.sin(np.linspace(0, 6.2, 16))], axis=1)
    assert min(loss(p) for p in around) > loss(caught) > 0.7
    assert loss(lucky) < 1e-12


def test_zig_zag_in_a_narrow_valley(lesson):
    path = lesson["zigzag"]
    np.testing.assert_allclose(path, in_numpy(lambda p: p * [1, 30], path[0], 0.95 * 2 / 30, 300), rtol=1e-9, atol=1e-15)
    assert lesson["crossings"] == 40
    gradients = path * [1, 30]
    angles = np.sum(gradients[:10] * gradients[1:11], axis=1)
    assert (angles < 0).all(), "each step goes back across the valley"
    assert lesson["needed"]["narrow"] > 30 * lesson["needed"]["round"]


def test_the_picture_of_the_troubles(lesson):
    axes = lesson["figure_of_troubles"].axes
    drawn = [[line.get_xydata() for line in axis.get_lines() if len(line.get_xdata()) > 1] for axis in axes]
    np.testing.assert_array_equal(drawn[0][0], lesson["slow_path"][::50])
    np.testing.assert_array_equal(drawn[1], list(lesson["wave_paths"].values()))
    np.testing.assert_array_equal(drawn[2][0], lesson["zigzag"])
    assert all(axis.collections for axis in axes), "each over the contours of its surface"


# ---- mini-batches ---------------------------------------------------------------------------------------------------------------


def test_paths_with_batches_of_1_4_5_and_all(lesson):
    paths = lesson["batch_paths"]
    assert {size: len(path) - 1 for size, path in paths.items()} == {1: 4000, 4: 1000, 5: 800, 20: 200}
    x, y = lesson["inputs"], lesson["targets"]

    def slope(p):
        return np.array([np.mean(2 * (p[0] * x + p[1] - y) * x), np.mean(2 * (p[0] * x + p[1] - y))])

    np.testing.assert_allclose(paths[20], in_numpy(slope, lesson["line_start"], 0.06, 200), rtol=1e-9)
    scatter = lesson["scatter"]
    assert scatter[1] > 1.5 * scatter[4] > 1.5 * 10 * scatter[20]


def test_an_epoch_in_batches_takes_the_steps_of_those_batches(lesson):
    x, y = lesson["inputs"], lesson["targets"]
    rows = np.random.default_rng(4).permutation(20).reshape(5, 4)
    p = lesson["line_start"]
    for batch, found in zip(rows, lesson["batch_paths"][4][1:6], strict=True):
        error = p[0] * x[batch] + p[1] - y[batch]
        p = p - 0.06 * np.array([np.mean(2 * error * x[batch]), np.mean(2 * error)])
        np.testing.assert_allclose(found, p, rtol=1e-12)


def test_the_variance_of_a_step_by_the_size_of_the_batch(lesson):
    """Drawn without replacement, the mean of b of N numbers has their variance over b, times (N - b) / (N - 1)."""
    each, variance = lesson["each"], lesson["variance"]
    x, y, p = lesson["inputs"], lesson["targets"], lesson["line_start"]
    error = p[0] * x + p[1] - y
    np.testing.assert_allclose(each, np.stack([2 * error * x, 2 * error], axis=1), rtol=1e-12)
    single = 0.06**2 * np.sum(np.var(each, axis=0))
    assert variance[20] < 1e-25
    for size in (1, 4, 5):
        np.testing.assert_allclose(variance[size], single / size * (20 - size) / 19, rtol=0.1)


def test_the_surface_of_one_batch_beside_that_of_another(lesson):
    first, second = lesson["first"], lesson["second"]
    for surface, part in zip(lesson["part_surfaces"], lesson["parts"], strict=True):
        x, y = lesson["inputs"][part], lesson["targets"][part]
        by_hand = np.mean((first[None, :, None] * x + second[:, None, None] - y) ** 2, axis=-1)
        np.testing.assert_allclose(surface, by_hand, rtol=1e-10)
    np.testing.assert_allclose(np.mean(lesson["part_surfaces"], axis=0), lesson["whole"], rtol=1e-12)
    minima = lesson["part_minima"]
    assert np.linalg.norm(minima[0] - minima[1]) > 0.2


def test_the_picture_of_batches(lesson):
    left, middle, right = lesson["figure_of_batches"].axes
    for axis, minimum in ((left, lesson["part_minima"][0]), (middle, lesson["part_minima"][1]), (right, lesson["line"])):
        np.testing.assert_array_equal(axis.get_lines()[0].get_xydata()[0], minimum)
    for line, path in zip(right.get_lines()[1:], lesson["batch_paths"].values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path[:200])
    assert [line.get_label() for line in right.get_lines()[1:]] == ["batches of 1", "batches of 4", "batches of 5", "all"]


def test_the_surface_in_three_dimensions(lesson):
    (axis,) = lesson["figure_in_space"].axes
    assert axis.name == "3d"
    frequency, phase = lesson["frequencies"][30], lesson["phases"][40]
    expected = np.mean((lesson["y"] - np.sin(frequency * lesson["x"] + phase)) ** 2)
    np.testing.assert_allclose(lesson["wave_surface"][40, 30], expected, rtol=1e-12)
    heights = [np.asarray(line.get_data_3d()[2]) for line in axis.get_lines()]
    for found, path in zip(heights, lesson["wave_paths"].values(), strict=True):
        np.testing.assert_allclose(found, [lesson["wave_loss"](p) for p in path], rtol=1e-9, atol=1e-14)


# ---- jumps ------------------------------------------------------------------------------------------------------------------------


def test_gauss_newton_and_levenberg_marquardt_arrive_where_descent_crawls(lesson):
    assert np.linalg.norm(lesson["crawled"][-1] - 1) > 0.05
    for result in lesson["jumps"].values():
        np.testing.assert_allclose(result.x, [1.0, 1.0], rtol=1e-8)
        assert result.success and len(result.history) < 50


def test_a_step_stays_only_if_the_norm_of_the_errors_falls_and_the_damping_follows(lesson):
    history = lesson["jumps"]["Levenberg-Marquardt"].history
    assert not all(trial.accepted for trial in history) and any(trial.accepted for trial in history)
    cost = lesson["costs"][0]
    for trial, following in itertools.pairwise(history):
        assert trial.accepted == (trial.cost < cost)
        cost = trial.cost if trial.accepted else cost
        assert trial.accepted or following.control > trial.control
