"""Weights of rows: as if rows were repeated."""

import numpy as np
import pytest

from staticgrad.errors import ArgumentError, InvalidValueError, ShapeError, StaticgradError
from staticgrad.optim import adam, sgd
from staticgrad.train import Trainer
from tests.train import reference
from tests.train.reference import Network

NETWORK = Network(np.float64)
X, Y = reference.data(np.float64)
COUNTS = np.random.default_rng(3).integers(0, 4, 50)


def losses(params, x, y):
    """The loss of each row."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    scores = hidden @ params["w2"] + params["b2"]
    scores = scores - np.max(scores, axis=1, keepdims=True)
    return np.log(np.sum(np.exp(scores), axis=1)) - np.sum(scores * y, axis=1)


def hits(params, x, y):
    """Whether each row is right."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    return np.argmax(hidden @ params["w2"] + params["b2"], axis=1) == np.argmax(y, axis=1)


def close(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [COUNTS, list(COUNTS / 7.0)], ids=["whole", "shares"])
def test_weights_are_repetitions(weights):
    """In one batch, the weighted loss is the mean over rows that are repeated."""
    plain = Trainer(NETWORK.loss, adam(0.05), metrics={"accuracy": NETWORK.accuracy})
    repeated = np.repeat(X, COUNTS, axis=0), np.repeat(Y, COUNTS, axis=0)
    expected, history = plain.fit(plain.init(NETWORK.params), repeated, 8, None, validation=repeated, progress=False)
    trainer = Trainer(losses, adam(0.05), metrics={"accuracy": hits})
    state, found = trainer.fit(
        trainer.init(NETWORK.params),
        (X, Y),
        8,
        None,
        validation=(X, Y),
        progress=False,
        sample_weight=weights,
        validation_sample_weight=weights,
    )
    close(state.params, expected.params)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(found[name], history[name], rtol=1e-9)
    assert list(found) == list(history)
    assert trainer.evaluate(state, (X, Y), sample_weight=weights) == pytest.approx(plain.evaluate(expected, repeated), rel=1e-9)


def test_batches_and_epochs_are_weighted():
    """Each batch by its own weights, the means of an epoch by the sums of these; a batch of no weight changes nothing."""
    weights = COUNTS.astype(float)
    weights[32:48] = 0
    trainer = Trainer(losses, sgd(0.3))
    state, history = trainer.fit(trainer.init(NETWORK.params), (X, Y), 3, 16, shuffle=False, progress=False, sample_weight=weights)
    params, means = NETWORK.params, []
    for _ in range(3):
        total = 0.0
        for start in range(0, 50, 16):
            x, y, w = X[start : start + 16], Y[start : start + 16], COUNTS[start : start + 16]
            if not weights[start : start + 16].any():
                continue
            total += np.sum(w * losses(params, x, y))
            slopes = NETWORK.gradient(params, np.repeat(x, w, axis=0), np.repeat(y, w, axis=0))
            params = {name: value - 0.3 * slopes[name] for name, value in params.items()}
        means.append(total / weights.sum())
    close(state.params, params)
    np.testing.assert_allclose(history["loss"], means, rtol=1e-10)
    assert state.step == 12


def test_equal_weights_and_a_loss_of_each_row():
    """A loss of each row without weights is their mean."""
    expected = None
    for loss, weights in ((NETWORK.loss, None), (losses, None), (losses, np.full(50, 3.0, np.float32))):
        trainer = Trainer(loss, sgd(0.1))
        state, history = trainer.fit(trainer.init(NETWORK.params), (X, Y), 3, 16, progress=False, sample_weight=weights, validation=(X, Y))
        expected = expected or (state, history)
        close(state.params, expected[0].params)
        np.testing.assert_allclose(history["val_loss"], expected[1]["val_loss"], rtol=1e-10)
        np.testing.assert_allclose(history["loss"], expected[1]["loss"], rtol=1e-10)


def test_weights_follow_the_order_of_the_rows():
    x = np.arange(20.0)
    trainer = Trainer(lambda p, x: p * x, sgd(0.0))
    _, history = trainer.fit(trainer.init(1.0), x, 2, 3, seed=4, progress=False, sample_weight=x)
    np.testing.assert_allclose(history["loss"], [np.sum(x * x) / np.sum(x)] * 2, rtol=1e-13)


def test_metrics_beside_the_loss():
    def loss(params, x, y):
        return losses(params, x, y), {"right": hits(params, x, y), "rows": len(x)}

    trainer = Trainer(loss, sgd(0.0))
    _, history = trainer.fit(trainer.init(NETWORK.params), (X, Y), 1, 50, progress=False, sample_weight=COUNTS)
    right = np.sum(COUNTS * hits(NETWORK.params, X, Y)) / np.sum(COUNTS)
    assert history["right"] == pytest.approx([right])
    assert history["rows"] == [50.0]


def test_interpreter():
    results = []
    for backend in ("cpu", "interp"):
        trainer = Trainer(losses, adam(0.05), backend=backend)
        state, history = trainer.fit(trainer.init(NETWORK.params), (X, Y), 2, 16, progress=False, sample_weight=COUNTS)
        results.append([*history["loss"], *state.params["b1"]])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10)


def fit(loss, weights, **options):
    trainer = Trainer(loss, sgd(0.1))
    return trainer.fit(trainer.init(NETWORK.params), (X, Y), 1, 16, progress=False, sample_weight=weights, **options)


MISTAKES = {
    "mean": (lambda: fit(NETWORK.loss, COUNTS), ShapeError, ["sample_weight", "shape (16,)", "leave the mean"]),
    "length": (lambda: fit(losses, COUNTS[1:]), ShapeError, ["sample_weight has shape (49,)", "50 rows"]),
    "shape": (lambda: fit(losses, COUNTS[:, None]), ShapeError, ["shape (50, 1)"]),
    "negative": (lambda: fit(losses, COUNTS - 1.0), InvalidValueError, ["at least 0"]),
    "infinite": (lambda: fit(losses, np.where(COUNTS > 0, np.nan, 1.0)), InvalidValueError, ["finite"]),
    "validation": (lambda: fit(losses, COUNTS, validation_sample_weight=COUNTS), ArgumentError, ["validation=..."]),
    "length of validation": (
        lambda: fit(losses, None, validation=(X[:9], Y[:9]), validation_sample_weight=COUNTS),
        ShapeError,
        ["validation_sample_weight", "9 rows"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    make, kind, words = MISTAKES[name]
    with pytest.raises(kind) as caught:
        make()
    assert isinstance(caught.value, StaticgradError)
    for word in words:
        assert word in str(caught.value)
    assert "test_weights.py" in str(caught.value)
