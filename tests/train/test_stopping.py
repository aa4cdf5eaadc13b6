"""When a training ends: early stopping, the best state, losses that are not finite, schedules over interruptions."""

import numpy as np
import pytest

from staticgrad.errors import ArgumentError, InvalidValueError, NonFiniteLossError, StaticgradWarning
from staticgrad.optim import adam, rmsprop, schedules, sgd
from staticgrad.runtime import training_loop
from staticgrad.train import EarlyStopping, Loop, Trainer
from tests.train import reference
from tests.train.reference import Network

NETWORK = Network(np.float64)
DATA = reference.data(np.float64)


# ---- early stopping on curves of one's own


def along(curve, stopping, name="loss", **options):
    """A loop in which a metric takes the values of `curve`, and which carries how many steps were done."""
    values = np.asarray(curve, float)

    def step(n):
        return n + 1, {name: np.sum(np.where(np.arange(len(values)) == n, values, 0.0))}

    return Loop(step).run(0, epochs=len(values), early_stopping=stopping, **options)


CURVES = {
    "patience 1": ([5, 4, 3, 3.5, 1], EarlyStopping("loss", 1), 4, 3),
    "patience 2": ([5, 4, 3, 3.5, 3.2, 1], EarlyStopping("loss", 2), 5, 3),
    "patience is for epochs in a row": ([5, 4, 4.5, 3, 3.5, 2, 2.5, 2.6], EarlyStopping("loss", 2), 8, 6),
    "equal is not better": ([5, 5, 5, 4], EarlyStopping("loss", 2), 3, 1),
    "min_delta": ([5, 4.9, 4.8, 4.7, 4.4, 4.3, 4.2], EarlyStopping("loss", 3, min_delta=0.5), 4, 1),
    "min_delta, slow": ([5, 4.9, 4.8, 4.4, 4.3, 4.2, 4.1, 3], EarlyStopping("loss", 3, min_delta=0.5), 7, 4),
    "max": ([1, 2, 3, 2.5, 2.9, 3.0, 4], EarlyStopping("loss", 3, mode="max"), 6, 3),
    "max, min_delta": ([1, 1.4, 1.6, 2, 2.1, 3], EarlyStopping("loss", 2, 0.5, "max"), 5, 3),
    "never": ([5, 4, 3, 2, 1], EarlyStopping("loss", 1), 5, 5),
    "not reached": ([5, 4, 3, 9, 9], EarlyStopping("loss", 3), 5, 3),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping(name, restore):
    curve, stopping, last, best = CURVES[name]
    stopping = EarlyStopping(stopping.monitor, stopping.patience, stopping.min_delta, stopping.mode, restore)
    result = along(curve, stopping)
    history = result.history
    assert history["loss"] == curve[:last]
    assert (history.best.epoch, history.best.value, int(result.best_state)) == (best, curve[best - 1], best)
    assert result.state == (best if restore else last)
    assert history.place.epoch == (best if restore else last)
    assert history.ended_by == ("early stopping" if last < len(curve) or name == "patience is for epochs in a row" else "epochs")


def test_not_a_number_is_never_better():
    result = along([np.nan, 5, np.nan, 4, np.nan, np.nan, np.inf, 1], EarlyStopping("score", 3), "score")
    assert len(result.history["score"]) == 7
    assert result.state == 4


def test_best_state_of_a_validation():
    """Without early stopping, too, the state with the least validation loss is kept."""
    unseen = reference.data(np.float64, 30, seed=8)
    trainer = Trainer(NETWORK.loss, sgd(3.0))
    states = []
    result = trainer.fit(
        trainer.init(NETWORK.params), DATA, 12, 10, validation=unseen, progress=False, callbacks=[lambda info: states.append(info.state)]
    )
    best = int(np.argmin(result.history["val_loss"]))
    assert result.history.best.epoch == best + 1 < 12
    assert result.history.best.value == result.history["val_loss"][best]
    np.testing.assert_array_equal(result.best_state.params["w1"], states[best].params["w1"])
    assert result.best_state[2:] == states[best][2:]
    np.testing.assert_array_equal(result.state.params["w1"], states[-1].params["w1"])
    assert result.state.epoch == 12


def test_early_stopping_of_a_trainer_and_going_on():
    unseen = reference.data(np.float64, 30, seed=8)
    trainer = Trainer(NETWORK.loss, sgd(3.0), metrics={"accuracy": NETWORK.accuracy})
    stopping = EarlyStopping("val_accuracy", 3, mode="max")
    settings = {"batch_size": 10, "validation": unseen, "progress": False}
    state, history = trainer.fit(trainer.init(NETWORK.params), DATA, 60, early_stopping=stopping, **settings)
    assert history.ended_by == "early stopping"
    assert state.epoch == history.best.epoch == int(np.argmax(history["val_accuracy"])) + 1 == history.epochs - 3
    assert state.step == 5 * state.epoch
    assert trainer.evaluate(state, unseen)["accuracy"] == pytest.approx(history.best.value)
    again, _ = trainer.fit(trainer.init(NETWORK.params), DATA, state.epoch, **settings)
    np.testing.assert_array_equal(again.params["w1"], state.params["w1"])
    on, _ = trainer.fit(state, DATA, 2, **settings)
    whole, _ = trainer.fit(again, DATA, 2, **settings)
    np.testing.assert_array_equal(on.params["w1"], whole.params["w1"])


def test_ctrl_c_returns_the_last_state_beside_the_best():
    def interrupt(info):
        if info.epoch == 5:
            raise KeyboardInterrupt

    result = along([5, 4, 3, 4, 4, 4], EarlyStopping("loss", 5), callbacks=[interrupt])
    assert result.history.ended_by == "Ctrl-C"
    assert result.state == 5
    assert result.best_state == 3


def test_no_best_state():
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    result = trainer.fit(trainer.init(NETWORK.params), DATA, 1, 16, progress=False)
    with pytest.raises(InvalidValueError, match="pass validation"):
        result.best_state  # noqa: B018
    assert result.history.best is None


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: EarlyStopping(3), ArgumentError, "monitor=3"),
        (lambda: EarlyStopping("loss", 0), InvalidValueError, "patience=0"),
        (lambda: EarlyStopping("loss", 1.5), ArgumentError, "patience=1.5"),
        (lambda: EarlyStopping("loss", min_delta=-1), InvalidValueError, "min_delta=-1"),
        (lambda: EarlyStopping("loss", mode="least"), InvalidValueError, "'min' or 'max'"),
        (lambda: along([1, 2], "loss"), ArgumentError, "sg.EarlyStopping"),
        (lambda: along([1, 2], EarlyStopping("accuracy")), InvalidValueError, "no 'accuracy' to monitor; the history holds loss, seconds"),
        (lambda: along([1, 2], None, on_nonfinite="ignore"), InvalidValueError, "stop, raise, warn"),
    ],
)
def test_mistakes(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert "test_stopping.py" in str(caught.value)


# ---- losses that are not finite


def spoilt(row, value=np.nan):
    x, y = DATA
    x = x.copy()
    x[row, 2] = value
    return x, y


OPTIMIZERS = [sgd(0.1), adam(schedules.cosine(0.05, 100)), rmsprop(0.01, momentum=0.9)]


@pytest.mark.parametrize("backend", ["cpu", "interp"])
@pytest.mark.parametrize("seconds", [1e-9, 0.1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("row", [3, 17, 35, 49])
def test_stop_with_the_last_good_state(row, optimizer, seconds, backend, monkeypatch):
    """Rows 0 to 15 are batch 1; the last batch is a smaller one. The state is that before the update before the bad batch."""
    trainer = Trainer(NETWORK.loss, optimizer, backend=backend)
    start = trainer.init(NETWORK.params)
    monkeypatch.setattr(training_loop, "SECONDS_A_CALL", seconds)
    batch = row // 16 + 1
    with pytest.warns(StaticgradWarning, match=f"epoch 1, batch {batch} of 4: .* the state is the one before the update") as caught:
        state, history = trainer.fit(start, spoilt(row), 3, 16, shuffle=False, progress=False)
    assert caught[0].filename == __file__
    assert history.ended_by == "non-finite loss"
    assert history["loss"] == []
    good = max(batch - 2, 0)
    assert state[2:] == (0, good, 16 * (batch - 1))
    expected = start
    if good:
        expected, _ = trainer.fit(start, tuple(array[: 16 * good] for array in DATA), 1, 16, shuffle=False, progress=False)
    for name, value in expected.params.items():
        np.testing.assert_array_equal(state.params[name], value)
    found, wanted = (getattr(each.optimizer_state, "step", None) for each in (state, expected))
    assert found == wanted


def test_stop_in_a_later_epoch():
    """The bad batch is the first one of the epoch that follows the update that spoilt the parameters."""

    def step(carry, x):
        value = np.sum(np.where(carry >= 8, np.nan, carry + 0.0 * x[0]))
        return carry + 1, {"loss": value}

    with pytest.warns(StaticgradWarning, match="epoch 3, batch 1 of 4"):
        carry, history = Loop(step).run(0, np.zeros(8), epochs=5, batch_size=2)
    assert carry == 7
    assert history["loss"] == [1.5, 5.5]
    assert (history.place.epoch, history.place.position, history.place.step) == (2, 0, 7)


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_values_that_the_loss_reads_are_taken_back_too(backend):
    """What the forward stage writes, the loss's own chain: three buffers take turns."""

    def step(carry, x):
        a, b = carry
        a = a + x[0]
        b = np.tanh(b) + a
        return (a, b), {"loss": np.where(a > 9, np.inf, a) + 0 * np.sum(b)}

    rows, start = np.arange(8.0), (np.array(0.0), np.ones(3))
    expected = start
    for x in rows[:3]:
        expected, _ = step(expected, rows[int(x) : int(x) + 1])
    with pytest.warns(StaticgradWarning, match="batch 5 of 8"):
        (a, b), history = Loop(step, backend=backend).run(start, rows, batch_size=1, shuffle=False)
    assert history.place.step == 3
    # a is 0, 0, 1, 3, 6, 10: the fifth loss is infinite, and the fourth update, to 6, is taken back
    assert a == expected[0] == 3
    np.testing.assert_allclose(b, expected[1], rtol=1e-14)


def test_raise_with_the_state():
    """An infinite row leaves the loss finite (tanh) but not the gradient: the update that this spoils is taken back."""
    trainer = Trainer(NETWORK.loss, adam(0.01))
    start = trainer.init(NETWORK.params)
    with pytest.raises(NonFiniteLossError, match="epoch 1, batch 4 of 4") as caught:
        trainer.fit(start, spoilt(40, np.inf), 3, 16, shuffle=False, progress=False, on_nonfinite="raise")
    error = caught.value
    assert isinstance(error, FloatingPointError)
    assert "test_stopping.py" in str(error)
    assert (error.epoch, error.batch) == (1, 4)
    assert error.history.ended_by == "non-finite loss"
    expected, _ = trainer.fit(start, tuple(array[:32] for array in DATA), 1, 16, shuffle=False, progress=False)
    np.testing.assert_array_equal(error.state.params["w2"], expected.params["w2"])
    assert error.state.step == expected.step == 2


def test_the_best_state_of_a_training_that_failed():
    def spoil(params, x):
        return np.where(params < 0.3, np.nan, np.mean(params + 0 * x))

    trainer = Trainer(spoil, sgd(0.25))
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(trainer.init(1.0), np.zeros(4), 9, 4, progress=False, on_nonfinite="raise", early_stopping=EarlyStopping("loss", 3))
    error = caught.value
    assert error.history.best.state[2:] == (3, 3, 0)
    assert error.history.best.state.params == 0.25
    assert (error.state.params, error.state.step) == (0.5, 2)


def test_a_shuffled_bad_row_is_found_where_it_is():
    place = int(np.flatnonzero(reference.order_of(50, 5, 0) == 20)[0])
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(trainer.init(NETWORK.params), spoilt(20), 1, 4, seed=5, progress=False, on_nonfinite="raise")
    assert caught.value.batch == place // 4 + 1


# ---- schedules


def test_fit_with_a_schedule_is_the_loop_in_numpy():
    rate = schedules.one_cycle(0.5, 24)
    trainer = Trainer(NETWORK.loss, sgd(rate, 0.9))
    state, history = trainer.fit(trainer.init(NETWORK.params), DATA, 6, 16, seed=3, progress=False)
    params, expected = reference.fit(NETWORK, sgd(rate, 0.9), DATA, 6, 16, seed=3)
    np.testing.assert_allclose(history["loss"], expected[:, 0], rtol=1e-11)
    np.testing.assert_allclose(state.params["w1"], params["w1"], rtol=1e-10)
    sizes = np.array([16, 16, 16, 2])
    rates = np.array([float(rate(n)) for n in range(24)]).reshape(6, 4)
    np.testing.assert_allclose(history["learning_rate"], rates @ sizes / 50, rtol=1e-13)
    assert list(history) == ["loss", "learning_rate", "seconds", "samples_per_second"]


@pytest.mark.parametrize("make", [lambda rate: adam(rate), lambda rate: sgd(rate, 0.9), lambda rate: rmsprop(rate)])
def test_resuming_with_a_schedule_is_exact(make):
    trainer = Trainer(NETWORK.loss, make(schedules.warmup_cosine(0.1, 5, 28)))
    whole, history = trainer.fit(trainer.init(NETWORK.params), DATA, 7, 16, progress=False)
    state, losses, rates = trainer.init(NETWORK.params), [], []
    for epochs in (3, 1, 3):
        state, part = trainer.fit(state, DATA, epochs, 16, progress=False)
        losses += part["loss"]
        rates += part["learning_rate"]
    assert losses == history["loss"]
    assert rates == history["learning_rate"]
    for name, value in whole.params.items():
        np.testing.assert_array_equal(state.params[name], value)
    assert state.optimizer_state.step == whole.optimizer_state.step == 28
