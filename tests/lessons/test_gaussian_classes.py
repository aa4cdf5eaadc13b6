"""Lesson L2, one hidden layer on two Gaussian classes: its numbers against those of PyTorch on the same data."""

import numpy as np
import pytest

import staticgrad as sg
from tests.lessons.running import run

# Made with PyTorch 2.13: losses of the epochs, of each 200 samples of the last one, and the sums of the weights' sizes at the end.
PYTORCH = {
    ("sample", "float32"): (
        [254369.528562, 45893.0902046, 18707.9611815, 11661.9482563, 8885.19251649],
        [956.342616, 854.669524, 903.262265, 888.009437, 972.234717, 788.911233, 808.039901, 943.999628, 930.252545, 839.470650],
        [11.4156256, 13.4558678],
    ),
    ("epoch", "float32"): (
        [659742.739809, 24091.9298855, 9263.37415636, 7574.44689994, 6787.64831644],
        [678.790273, 584.951180, 662.134729, 646.937320, 749.735843, 615.774943, 623.803738, 763.224592, 769.374912, 692.920787],
        [11.2130833, 13.1011352],
    ),
    ("sample", "float64"): (
        [254369.1752977088, 45893.02936647431, 18707.9222074594, 11661.893317637874, 8885.16273058048],
        [
            956.339371892272, 854.6656043291008, 903.2610827139368, 888.0075100936629, 972.2315116208864, 788.9084222681421,
            808.0364715119405, 943.9954737165215, 930.2485840903905, 839.4686983436258,
        ],
        [11.415623689478458, 13.455864311114643],
    ),
    ("epoch", "float64"): (
        [659742.7768912411, 24091.93503254796, 9263.359073456573, 7574.434849352317, 6787.6385446830345],
        [
            678.7893094008284, 584.950360985149, 662.1337968000839, 646.9363744375269, 749.7347559771139, 615.7740456926714,
            623.8027825525326, 763.2235399678922, 769.3737709634827, 692.919807905754,
        ],
        [11.213082004108841, 13.10113452031705],
    ),
}  # fmt: skip
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
"""PyTorch multiplies and adds in another order."""


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    return run("l2_gaussian_classes", tmp_path_factory.mktemp("pictures"))


def beginning(lesson, dtype):
    kind = np.dtype(dtype).type
    return lesson["initial"](lesson["weights_key"], kind), *lesson["samples"](lesson["data_key"], kind)


def test_data(lesson):
    _, x, y = beginning(lesson, "float64")
    assert x.shape == (2000, 2) and y.shape == (2000, 1)
    for label, mean in ((1, 3), (2, 5)):
        cloud = x[y[:, 0] == label]
        assert len(cloud) == 1000
        np.testing.assert_allclose(cloud.mean(axis=0), mean, atol=0.1)
        np.testing.assert_allclose(np.cov(cloud.T), np.eye(2), atol=0.1)
    assert 0 < np.count_nonzero(y[:200] == 1) < 200, "the classes are mixed"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way", ["per_sample_in_python", "per_sample_compiled", "per_epoch_in_python"])
def test_reported_losses_are_those_of_pytorch(lesson, way, dtype):
    params, report = lesson[way](*beginning(lesson, dtype))
    losses, last, sizes = PYTORCH[way.split("_")[1], dtype]
    assert report.shape == (5, 10)
    np.testing.assert_allclose(report.sum(axis=1), losses, rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(report[-1], last, rtol=TOLERANCE[dtype])
    assert params["w1"].dtype == params["w2"].dtype == dtype
    np.testing.assert_allclose([np.abs(params[name]).sum(dtype=np.float64) for name in ("w1", "w2")], sizes, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_trainer_is_the_accumulated_gradient(lesson, dtype):
    params, found = lesson["per_epoch_compiled"](*beginning(lesson, dtype))
    losses, _, sizes = PYTORCH["epoch", dtype]
    np.testing.assert_allclose(found, losses, rtol=TOLERANCE[dtype])
    np.testing.assert_allclose([np.abs(params[name]).sum(dtype=np.float64) for name in ("w1", "w2")], sizes, rtol=TOLERANCE[dtype])


def test_tensors_report_the_losses_of_pytorch(lesson):
    for way in ("sample", "epoch"):
        losses, last, sizes = PYTORCH[way, "float32"]
        params, report = lesson[f"eager_per_{way}"], lesson[f"eager_per_{way}_report"]
        np.testing.assert_allclose(report.sum(axis=1), losses, rtol=1e-5)
        np.testing.assert_allclose(report[-1], last, rtol=1e-5)
        np.testing.assert_allclose([np.abs(params[name]).sum(dtype=np.float64) for name in ("w1", "w2")], sizes, rtol=1e-5)


def test_tensors_accumulate_over_an_epoch_in_float64(lesson):
    params, report = lesson["on_tensors"](*beginning(lesson, "float64"), every_sample=False)
    losses, last, sizes = PYTORCH["epoch", "float64"]
    np.testing.assert_allclose(report.sum(axis=1), losses, rtol=1e-9)
    np.testing.assert_allclose(report[-1], last, rtol=1e-9)
    np.testing.assert_allclose([np.abs(params[name]).sum() for name in ("w1", "w2")], sizes, rtol=1e-9)


def test_gradients_by_hand_are_those_of_tensors(lesson):
    params, x, y = beginning(lesson, "float64")
    w1, w2 = (sg.tensor(params[name], requires_grad=True) for name in ("w1", "w2"))
    (sg.tensor(x).mm(w1).clamp(min=0).mm(w2) - sg.tensor(y)).pow(2).sum().backward()
    expected = lesson["gradient_by_hand"](params, x, y)
    for name, weights in (("w1", w1), ("w2", w2)):
        np.testing.assert_allclose(weights.grad.numpy(), expected[name], rtol=1e-11, atol=1e-11 * np.abs(expected[name]).max())


@pytest.mark.parametrize("rows", [1, 2, 200, 2000])
def test_gradients_by_hand_are_the_automatic_ones(lesson, rows):
    params, x, y = beginning(lesson, "float64")
    _, automatic = lesson["value_and_gradient"](params, x[:rows], y[:rows])
    expected = lesson["gradient_by_hand"](params, x[:rows], y[:rows])
    for name in params:
        np.testing.assert_allclose(automatic[name], expected[name], rtol=1e-11, atol=1e-11 * np.abs(expected[name]).max())
    sg.check_grads(lesson["loss"], (params, x[:2], y[:2]), order=1)


def test_a_preactivation_of_exactly_zero(lesson):
    """The first neuron sees 3 - 3: clamp(min=0) passes its gradient on, relu does not."""
    params, x, y = lesson["on_the_corner"], lesson["point"], lesson["label"]
    assert (x @ params["w1"]).tolist() == [[0.0, 3.0]]
    np.testing.assert_array_equal(sg.grad(lesson["loss"])(params, x, y)["w1"], [[24.0, 24.0], [24.0, 24.0]])

    def with_relu(params, x, y):
        return np.sum((sg.nn.relu(x @ params["w1"]) @ params["w2"] - y) ** 2)

    np.testing.assert_array_equal(sg.grad(with_relu)(params, x, y)["w1"], [[0.0, 24.0], [0.0, 24.0]])
    for activation, expected in (
        (lambda z: z.clamp(min=0), [[24.0, 24.0], [24.0, 24.0]]),
        (lambda z: z.relu(), [[0.0, 24.0], [0.0, 24.0]]),
    ):
        w1 = sg.tensor(params["w1"], requires_grad=True)
        ((activation(sg.tensor(x).mm(w1)).mm(sg.tensor(params["w2"])) - sg.tensor(y)) ** 2).sum().backward()
        assert w1.grad.tolist() == expected


def test_pictures_show_the_reports(lesson):
    points, losses = lesson["curves"].axes
    assert [len(cloud.get_offsets()) for cloud in points.collections] == [1000, 1000]
    per_sample, per_epoch = losses.lines
    np.testing.assert_array_equal(per_sample.get_xdata(), np.arange(200, 10001, 200))
    np.testing.assert_array_equal(per_sample.get_ydata(), lesson["per_sample_report"].ravel())
    np.testing.assert_array_equal(per_epoch.get_ydata(), lesson["per_epoch_report"].ravel())
    assert sorted(path.name for path in lesson["output"].iterdir()) == ["gaussian_classes.png", "gaussian_outputs.png"]
