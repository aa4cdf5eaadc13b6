"""`Trainer.fit` against the same loop in NumPy."""

from collections import deque

import numpy as np
import pytest

from staticgrad import api
from staticgrad.errors import DTypeError
from staticgrad.optim import Optimizer, adagrad, adam, adamw, chain, clip_by_global_norm, clip_by_value, sgd
from staticgrad.runtime import training_loop
from staticgrad.train import Trainer
from tests.train import reference
from tests.train.reference import Network

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


def agree(found, expected, dtype):
    for name, value in expected.items():
        assert found[name].dtype == dtype
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4 if dtype == np.float32 else 1e-11, atol=1e-6 if dtype == np.float32 else 1e-13
        )


@pytest.mark.parametrize(
    "optimizer, dtype",
    [
        (sgd(0.1), np.float64),
        (sgd(0.1, 0.9, nesterov=True, weight_decay=1e-3), np.float32),
        (adam(0.01), np.float32),
        (adam(0.01), np.float64),
        (adamw(0.01), np.float64),
        (chain(clip_by_global_norm(0.2), clip_by_value(0.05), adagrad(lambda step: 0.2 / (1 + step))), np.float64),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Optimizer) else value.__name__,
)
def test_fit_is_the_loop_in_numpy(optimizer, dtype):
    network, rows = Network(dtype), reference.data(dtype)
    trainer = Trainer(network.loss, optimizer, metrics={"accuracy": network.accuracy})
    state, history = trainer.fit(trainer.init(network.params), rows, epochs=6, batch_size=16, seed=3, progress=False)
    params, expected = reference.fit(network, optimizer, rows, 6, 16, seed=3, metrics=[network.accuracy])
    np.testing.assert_allclose(history["loss"], expected[:, 0], rtol=TOLERANCE[dtype] * (3 if dtype == np.float32 else 1))
    np.testing.assert_allclose(history["accuracy"], expected[:, 1], rtol=1e-12)
    agree(state.params, params, dtype)
    assert (state.epoch, state.step, state.position) == (6, 24, 0)
    assert history["loss"][-1] < history["loss"][0]
    rates = ["learning_rate"] * (optimizer.schedule is not None)
    assert list(history) == ["loss", "accuracy", *rates, "seconds", "samples_per_second"]


@pytest.mark.parametrize("rows, batch", [(50, 1), (50, 50), (50, 49), (1, 1)])
def test_batches(rows, batch):
    network, data = Network(np.float64), reference.data(np.float64, rows)
    trainer = Trainer(network.loss, sgd(0.1))
    state, history = trainer.fit(trainer.init(network.params), data, epochs=3, batch_size=batch, progress=False)
    params, expected = reference.fit(network, sgd(0.1), data, 3, batch)
    np.testing.assert_allclose(history["loss"], expected[:, 0], rtol=1e-12)
    agree(state.params, params, np.float64)


def test_without_shuffling():
    network, data = Network(np.float64), reference.data(np.float64)
    trainer = Trainer(network.loss, sgd(0.1))
    state, history = trainer.fit(trainer.init(network.params), data, 3, 16, shuffle=False, progress=False)
    params, expected = reference.fit(network, sgd(0.1), data, 3, 16, seed=None)
    np.testing.assert_allclose(history["loss"], expected[:, 0], rtol=1e-12)
    agree(state.params, params, np.float64)


class Recorder:
    """An optimiser of a user's own, which changes nothing and remembers the latest gradients: here, the rows as they come."""

    def __init__(self, count):
        self.count = count

    def init(self, params):
        return np.zeros(self.count)

    def update(self, params, gradients, state):
        return params, np.concatenate([state[1:], np.reshape(gradients, (1,))])


def recorded(rows, seed, epochs=1, batch=1):
    trainer = Trainer(lambda p, x: p * np.sum(x), Recorder(rows * epochs))
    state, _ = trainer.fit(trainer.init(0.0), np.arange(float(rows)), epochs, batch, seed=seed, progress=False)
    return state.optimizer_state.reshape(epochs, rows).astype(int)


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_order_of_the_rows(seed):
    for epoch, found in enumerate(recorded(40, seed, epochs=3)):
        np.testing.assert_array_equal(found, reference.order_of(40, seed, epoch))
        np.testing.assert_array_equal(np.sort(found), np.arange(40))


def test_all_orders_are_equally_likely():
    found = recorded(4, seed=5, epochs=2400)
    _, counts = np.unique(found @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24
    assert np.sum((counts - 100.0) ** 2 / 100) < 49.7  # chi-square with 23 degrees of freedom exceeds it once in a thousand


def test_split_mix_is_the_published_one():
    # the first outputs of SplitMix64 from the state 1234567
    assert [reference.split_mix(1234567, k) for k in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seconds", [1e-9, 3e-5, 10.0])
def test_chunks_do_not_matter(seconds, monkeypatch):
    monkeypatch.setattr(training_loop, "SECONDS_A_CALL", seconds)
    network, data = Network(np.float64), reference.data(np.float64)
    trainer = Trainer(network.loss, adam(0.01))
    state, history = trainer.fit(trainer.init(network.params), data, epochs=5, batch_size=16, seed=1, progress=False)
    monkeypatch.undo()
    again, other = trainer.fit(trainer.init(network.params), data, epochs=5, batch_size=16, seed=1, progress=False)
    assert history["loss"] == other["loss"]
    for name, value in again.params.items():
        np.testing.assert_array_equal(state.params[name], value)
    assert len(history["seconds"]) == 5
    assert all(value > 0 for value in history["seconds"] + history["samples_per_second"])


def test_fit_goes_on_where_it_stopped():
    network, data = Network(np.float32), reference.data(np.float32)
    trainer = Trainer(network.loss, adam(0.01))
    whole, history = trainer.fit(trainer.init(network.params), data, epochs=7, batch_size=16, progress=False)
    state, losses = trainer.init(network.params), []
    for epochs in (3, 1, 3):
        state, part = trainer.fit(state, data, epochs=epochs, batch_size=16, progress=False)
        losses += part["loss"]
    assert losses == history["loss"]
    assert state[2:] == whole[2:] == (7, 28, 0)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(state.params[name], value)
    for found, value in zip(state.optimizer_state[1].values(), whole.optimizer_state[1].values(), strict=True):
        np.testing.assert_array_equal(found, value)


def test_the_users_function_runs_once_for_each_shape():
    calls = deque()  # not a list, whose content would be guarded
    network, data = Network(np.float64), reference.data(np.float64, 48)

    def loss(params, x, y):
        calls.append(len(x))
        return network.loss(params, x, y)

    trainer = Trainer(loss, sgd(0.1))
    state, _ = trainer.fit(trainer.init(network.params), data, epochs=20, batch_size=16, progress=False)
    assert list(calls) == [16]
    first = trainer.cache_info()
    assert (first.traces, first.signatures) == (1, 1)
    assert first.compiles + first.disk_hits + first.memory_hits == 1
    trainer.fit(state, data, epochs=20, batch_size=16, validation=data, progress=False)
    assert list(calls) == [16]
    assert trainer.cache_info().signatures == 2  # the evaluation
    trainer.fit(state, tuple(array[:18] for array in data), epochs=2, batch_size=16, progress=False)
    assert list(calls) == [16, 2]
    last = trainer.cache_info()
    trainer.fit(state, tuple(2 * array[:34] for array in data), epochs=2, batch_size=16, progress=False)
    assert trainer.cache_info() == last


def test_a_rebound_global_is_seen():
    scale = 1.0

    def loss(params, x):
        return scale * np.mean((params - x) ** 2)

    data = np.arange(8.0)
    trainer = Trainer(loss, sgd(0.0))
    state = trainer.init(np.array(0.0))
    _, first = trainer.fit(state, data, 1, 4, progress=False)
    scale = 3.0
    _, second = trainer.fit(state, data, 1, 4, progress=False)
    assert second["loss"][0] == pytest.approx(3 * first["loss"][0])
    assert trainer.cache_info().traces == 2


def test_metrics_beside_the_loss():
    network, data = Network(np.float64), reference.data(np.float64)

    def loss(params, x, y):
        penalty = sum(np.sum(p**2) for p in params.values())
        return network.loss(params, x, y) + 0.01 * penalty, {"penalty": penalty, "rows": len(x), "accurate": network.accuracy(params, x, y)}

    trainer = Trainer(loss, sgd(0.0), metrics={"entropy": network.loss})
    state, history = trainer.fit(trainer.init(network.params), data, 2, 16, validation=data, progress=False)
    penalty = sum(np.sum(p**2) for p in network.params.values())
    names = ["loss", "penalty", "rows", "accurate", "entropy"]
    assert list(history) == [*names, *(f"val_{name}" for name in names), "seconds", "samples_per_second"]
    expected = network.loss(network.params, *data)
    assert history["penalty"] == pytest.approx([penalty, penalty], rel=1e-12)
    assert history["entropy"] == pytest.approx([expected, expected], rel=1e-12)
    assert history["loss"] == pytest.approx([expected + 0.01 * penalty] * 2, rel=1e-12)
    assert history["accurate"] == history["val_accurate"] == pytest.approx([network.accuracy(network.params, *data)] * 2)
    assert history["rows"] == pytest.approx([(3 * 16 * 16 + 2 * 2) / 50] * 2)
    assert state.step == 8


def test_validation_sees_the_parameters_after_the_epoch():
    network, data, unseen = Network(np.float64), reference.data(np.float64), reference.data(np.float64, 18, seed=8)
    trainer = Trainer(network.loss, sgd(0.1), metrics={"accuracy": network.accuracy})
    states = []
    _, history = trainer.fit(
        trainer.init(network.params), data, 3, 16, validation=unseen, progress=False, callbacks=[lambda info: states.append(info.state)]
    )
    assert history["val_loss"] == pytest.approx([network.loss(s.params, *unseen) for s in states], rel=1e-12)
    assert history["val_accuracy"] == pytest.approx([network.accuracy(s.params, *unseen) for s in states], rel=1e-12)
    assert [s.epoch for s in states] == [1, 2, 3]
    for batch_size in (2, 16, 256):
        found = trainer.evaluate(states[-1], unseen, batch_size)
        assert found == pytest.approx({"loss": history["val_loss"][-1], "accuracy": history["val_accuracy"][-1]}, rel=1e-12)


def test_callbacks_end_the_training():
    network, data = Network(np.float32), reference.data(np.float32)
    trainer, seen = Trainer(network.loss, sgd(0.1)), []

    def stop(info):
        seen.append((info.epoch, info.loss, info["samples_per_second"]))
        return info.epoch == 3

    state, history = trainer.fit(trainer.init(network.params), data, 9, 16, progress=False, callbacks=[stop, lambda info: 1])
    assert state.epoch == len(history["loss"]) == 3
    assert [loss for _, loss, _ in seen] == history["loss"]
    assert not history.interrupted
    state, _ = trainer.fit(state, data, 9, 16, progress=False, callbacks=[stop, lambda info: np.True_])
    assert state.epoch == 4


def test_kinds_of_data():
    network, (x, y) = Network(np.float32), reference.data(np.float32)
    trainer = Trainer(network.loss, sgd(0.1))
    _, expected = trainer.fit(trainer.init(network.params), (x, y), 2, 16, progress=False)
    wide = np.zeros((50, 10), np.float32)
    wide[:, ::2] = x
    kept = wide.copy(), y.copy()
    variants = {
        "list": [x, y],
        "names": {"y": y, "x": x},
        "other names": {"images": x, "targets": y},
        "not contiguous": (wide[:, ::2], np.asfortranarray(y)),
        "foreign byte order": (x.astype(">f4"), y),
    }
    for name, variant in variants.items():
        _, history = trainer.fit(trainer.init(network.params), variant, 2, 16, progress=False)
        assert history["loss"] == expected["loss"], name
    swapped = trainer.init({key: np.asfortranarray(value.astype(">f4")) for key, value in network.params.items()})
    _, history = trainer.fit(swapped, (x, y), 2, 16, progress=False)
    assert history["loss"] == expected["loss"]
    np.testing.assert_array_equal(wide, kept[0])
    np.testing.assert_array_equal(y, kept[1])
    assert trainer.cache_info().signatures == 2

    nested = Trainer(lambda params, batch: network.loss(params, batch["x"], batch["y"]), sgd(0.1))
    _, history = nested.fit(nested.init(network.params), ({"x": x, "y": y},), 2, 16, progress=False)
    assert history["loss"] == expected["loss"]
    labels = np.argmax(y, axis=1).astype(np.uint8)
    whole = Trainer(lambda params, x, k: network.loss(params, x, (np.arange(3) == k[:, None]).astype(np.float32)), sgd(0.1))
    _, history = whole.fit(whole.init(network.params), (x, labels), 2, 16, progress=False)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)


def test_states_are_copies():
    network, data = Network(np.float64), reference.data(np.float64)
    kept = {name: value.copy() for name, value in network.params.items()}
    trainer = Trainer(network.loss, sgd(0.1, 0.9))
    start = trainer.init(network.params)
    state, _ = trainer.fit(start, data, 2, 16, progress=False)
    after = state.params["w1"].copy()
    trainer.fit(state, data, 2, 16, progress=False)
    np.testing.assert_array_equal(state.params["w1"], after)
    for name, value in kept.items():
        np.testing.assert_array_equal(network.params[name], value)
        np.testing.assert_array_equal(start.params[name], value)
        assert not np.shares_memory(start.params[name], network.params[name])


def test_values_that_end_up_equal_share_no_buffer():
    """Two parameters with one gradient: the compiled step has one result for both states."""

    def loss(params, x):
        return np.mean((params["a"] + params["b"] - x) ** 2)

    data = np.arange(12.0)
    trainer = Trainer(loss, sgd(0.1, 0.9))
    state, _ = trainer.fit(trainer.init({"a": np.array(1.0), "b": np.array(-2.0)}), data, 3, 4, progress=False, shuffle=False)
    a, b, u, v = 1.0, -2.0, 0.0, 0.0
    for start in (0, 4, 8) * 3:
        slope = np.mean(2 * (a + b - data[start : start + 4]))
        u, v = 0.9 * u + slope, 0.9 * v + slope
        a, b = a - 0.1 * u, b - 0.1 * v
    np.testing.assert_allclose([state.params["a"], state.params["b"]], [a, b], rtol=1e-13)


def test_parameters_without_a_gradient_stay():
    trainer = Trainer(lambda p, x: np.mean((p["used"] - x) ** 2), sgd(0.1, 0.9))
    params = {"used": np.array(0.0), "unused": np.arange(3.0), "none": np.zeros((0, 2))}
    state, _ = trainer.fit(trainer.init(params), np.arange(4.0), 5, 2, progress=False)
    np.testing.assert_array_equal(state.params["unused"], np.arange(3.0))
    assert state.params["none"].shape == (0, 2)
    assert state.params["used"] != 0


def test_a_traced_loss_keeps_its_backend():
    network, data = Network(np.float64), reference.data(np.float64)
    results = []
    for loss in (network.loss, api.trace(network.loss), api.trace(backend="interp")(network.loss)):
        trainer = Trainer(loss, adam(0.01))
        state, history = trainer.fit(trainer.init(network.params), data, 2, 16, validation=data, progress=False)
        results.append([*history["loss"], *history["val_loss"], *state.params["b1"]])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-10)


def test_an_embedding_learns_the_rows_that_are_picked():
    table, words, target = np.zeros((5, 2)), np.array([1, 3, 1, -1]), np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]])
    trainer = Trainer(lambda table, k, y: np.mean((table[k] - y) ** 2), sgd(0.5))
    state, _ = trainer.fit(trainer.init(table), (words, target), 200, 4, progress=False)
    np.testing.assert_allclose(state.params, [[0, 0], [1, 2], [0, 0], [3, 4], [5, 6]], atol=1e-6)
    with pytest.raises(IndexError, match="out of bounds: 5 for an axis with size 5"):
        trainer.fit(state, (words + 2, target), 1, 4, progress=False)


def test_precise_data_do_not_widen_parameters():
    network, (x, y) = Network(np.float32), reference.data(np.float64, 16)
    trainer = Trainer(network.loss, sgd(0.1))
    state, _ = trainer.fit(trainer.init(network.params), (x, y), 1, 16, progress=False)
    assert state.params["w1"].dtype == np.float32
    with pytest.raises(DTypeError, match="int64"):
        trainer.init({"w": np.arange(3)})
