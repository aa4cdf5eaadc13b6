"""What can go wrong or happen beside a training: Ctrl-C, threads, failing steps, mistakes, the progress bar."""

import _thread
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from staticgrad.errors import (
    ArgumentError,
    DTypeError,
    IntegerPowerError,
    InvalidValueError,
    ShapeError,
    StaticgradError,
    StaticgradWarning,
)
from staticgrad.optim import adam, sgd
from staticgrad.runtime import training_loop
from staticgrad.runtime.training_loop import TrainingLoop
from staticgrad.train import Trainer
from tests.train import reference
from tests.train.reference import Network

NETWORK = Network(np.float64)
DATA = reference.data(np.float64)


def test_ctrl_c_returns_what_was_reached():
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    start = trainer.init(NETWORK.params)
    trainer.fit(start, DATA, 1, 16, progress=False)
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    begun = time.monotonic()
    state, history = trainer.fit(start, DATA, 10**9, 16, progress=False)
    timer.join()
    assert time.monotonic() - begun < 5
    assert history.interrupted
    assert state.epoch == len(history["loss"]) > 0
    assert state.step == 4 * state.epoch + state.position // 16
    again, _ = trainer.fit(start, DATA, state.epoch, 16, progress=False)
    if state.position == 0:
        np.testing.assert_array_equal(again.params["w1"], state.params["w1"])


def test_ctrl_c_in_a_callback():
    def interrupt(info):
        if info.epoch == 2:
            raise KeyboardInterrupt

    trainer = Trainer(NETWORK.loss, adam(0.01))
    state, history = trainer.fit(trainer.init(NETWORK.params), DATA, 9, 16, progress=False, callbacks=[interrupt])
    assert history.interrupted
    assert state.epoch == len(history["loss"]) == 2
    whole, expected = trainer.fit(trainer.init(NETWORK.params), DATA, 5, 16, progress=False)
    state, rest = trainer.fit(state, DATA, 3, 16, progress=False)
    assert not rest.interrupted
    assert history["loss"] + rest["loss"] == expected["loss"]
    np.testing.assert_array_equal(state.params["w1"], whole.params["w1"])


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5, 6, 9])
def test_ctrl_c_within_an_epoch(calls, monkeypatch):
    """The next fit goes through the rest of the epoch first, so nothing is trained twice."""
    trainer = Trainer(NETWORK.loss, adam(0.01))
    whole, expected = trainer.fit(trainer.init(NETWORK.params), DATA, 4, 16, seed=2, progress=False)
    monkeypatch.setattr(training_loop, "SECONDS_A_CALL", 1e-9)
    run, count = TrainingLoop.run, 0

    def interrupted(self, epochs):
        nonlocal count
        result = run(self, epochs)
        count += 1
        if count == calls:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(TrainingLoop, "run", interrupted)
    state, history = trainer.fit(trainer.init(NETWORK.params), DATA, 4, 16, seed=2, progress=False)
    assert history.interrupted
    assert (state.step, state.epoch, state.position) == (calls, calls // 4, calls % 4 * 16)
    assert history["loss"] == expected["loss"][: calls // 4]
    state, rest = trainer.fit(state, DATA, 4 - state.epoch, 16, seed=2, progress=False)
    assert state[2:] == (4, 16, 0)
    assert rest["loss"][1:] == expected["loss"][calls // 4 + 1 :]
    np.testing.assert_array_equal(state.params["w1"], whole.params["w1"])


def test_ctrl_c_in_a_validation(monkeypatch):
    trainer = Trainer(NETWORK.loss, sgd(0.1))

    def interrupted(self, other):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "borrow", interrupted)
    state, history = trainer.fit(trainer.init(NETWORK.params), DATA, 4, 16, validation=DATA, progress=False)
    assert history.interrupted
    assert state.epoch == len(history["loss"]) == 1
    assert np.isnan(history["val_loss"]).all()


def test_other_errors_of_callbacks_come_through():
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(trainer.init(NETWORK.params), DATA, 4, 16, progress=False, callbacks=[lambda info: 1 / 0])


def test_other_threads_run_on(monkeypatch):
    monkeypatch.setattr(training_loop, "SECONDS_A_CALL", 1.0)
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    state = trainer.init(NETWORK.params)
    trainer.fit(state, DATA, 1, 16, progress=False)
    ticks, calls, done = [], [], threading.Event()

    def tick():
        while not done.wait(0.002):
            ticks.append(time.perf_counter())

    run = TrainingLoop.run

    def timed(self, epochs):
        begun = time.perf_counter()
        result = run(self, epochs)
        calls.append((begun, time.perf_counter()))
        return result

    monkeypatch.setattr(TrainingLoop, "run", timed)
    monkeypatch.setattr(training_loop, "EPOCHS_A_CALL", 10**6)
    thread = threading.Thread(target=tick)
    thread.start()
    trainer.fit(state, DATA, 60_000, 16, progress=False)
    done.set()
    thread.join()
    begun, ended = max(calls, key=lambda call: call[1] - call[0])
    assert ended - begun > 0.1
    assert sum(begun < moment < ended for moment in ticks) > 5


def test_two_trainings_at_once():
    trainer, results = Trainer(NETWORK.loss, adam(0.01)), {}

    def train(seed):
        results[seed] = trainer.fit(trainer.init(NETWORK.params), DATA, 20, 16, seed=seed, progress=False)[1]["loss"]

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        found = results[seed]
        train(seed)
        assert results[seed] == found
    assert results[0] != results[1]


def test_a_loss_that_is_not_finite_is_reported_once():
    trainer = Trainer(lambda p, x: np.mean((p - x) ** 2), sgd(1e300))
    with pytest.warns(StaticgradWarning, match="epoch 1, batch 2 of 2: lower the learning rate") as caught:
        state, history = trainer.fit(trainer.init(1.0), np.arange(4.0), 5, 2, shuffle=False, progress=False, on_nonfinite="warn")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert state.epoch == 5
    assert not np.isfinite(history["loss"][-1])


def test_a_failing_step():
    trainer = Trainer(lambda p, x, k: p * np.mean(np.power(x, k)), sgd(0.1))
    state = trainer.init(1.0)
    good = np.arange(8), np.arange(8)
    trainer.fit(state, good, 1, 4, progress=False)
    with pytest.raises(IntegerPowerError):
        trainer.fit(state, (good[0], good[1] - 7), 1, 4, progress=False)
    _, history = trainer.fit(state, good, 1, 4, progress=False)
    assert np.isfinite(history["loss"][0])


def fit(loss=NETWORK.loss, data=DATA, epochs=1, batch=16, params=NETWORK.params, optimizer=None, **options):
    trainer = Trainer(loss, optimizer or sgd(0.1), metrics=options.pop("metrics", None))
    return trainer.fit(options.pop("state", None) or trainer.init(params), data, epochs, batch, progress=False, **options)


class Widening:
    def init(self, params):
        return ()

    def update(self, params, gradients, state):
        return {name: value.astype(np.float32) for name, value in params.items()}, state


class Restructuring(Widening):
    def update(self, params, gradients, state):
        return list(params.values()), state


X, Y = DATA
MISTAKES = {
    "batch larger than the data": (lambda: fit(batch=51), InvalidValueError, ["batch_size=51", "50 rows"]),
    "no batch": (lambda: fit(batch=0), InvalidValueError, ["batch_size=0"]),
    "half a batch": (lambda: fit(batch=0.5), ArgumentError, ["batch_size=0.5"]),
    "no epochs": (lambda: fit(epochs=0), InvalidValueError, ["epochs=0", "at least 1"]),
    "seed": (lambda: fit(seed=-1), InvalidValueError, ["seed=-1"]),
    "no rows": (lambda: fit(data=(X[:0], Y[:0])), InvalidValueError, ["no rows"]),
    "no arrays": (lambda: fit(data=()), InvalidValueError, ["no arrays"]),
    "lengths": (lambda: fit(data=(X, Y[:-1])), ShapeError, ["data[0] has 50", "data[1] has 49"]),
    "validation lengths": (lambda: fit(validation=(X, Y[:-1])), ShapeError, ["validation[1] has 49"]),
    "a number": (lambda: fit(data=(X, 3.0)), ShapeError, ["data[1]", "single number"]),
    "text": (lambda: fit(data=(X, "labels")), ArgumentError, ["str"]),
    "text in arrays": (lambda: fit(data=(X, np.array(["a"] * 50))), DTypeError, ["an argument"]),
    "missing data": (lambda: fit(data=X), ArgumentError, ["loss", "y"]),
    "names": (lambda: fit(data={"y": Y}), ArgumentError, ["y", "x"]),
    "loss of a shape": (lambda: fit(lambda p, x, y: x @ p["w1"]), ShapeError, ["shape (16, 8)", "np.mean"]),
    "loss of integers": (lambda: fit(lambda p, x, y: np.sum(x > 0)), DTypeError, ["int64"]),
    "loss in a list": (lambda: fit(lambda p, x, y: [np.sum(x)]), ArgumentError, ["must return a scalar", "['f64[]']"]),
    "no loss": (lambda: fit(lambda p, x, y: None), ArgumentError, ["must return a scalar"]),
    "metric of a shape": (lambda: fit(lambda p, x, y: (np.sum(x), {"all": x})), ShapeError, ["'all'", "(16, 5)"]),
    "metric's name": (lambda: fit(lambda p, x, y: (np.sum(x), {"seconds": 1.0})), InvalidValueError, ["'seconds'"]),
    "metric twice": (
        lambda: fit(lambda p, x, y: (np.sum(x), {"m": 1.0}), metrics={"m": NETWORK.loss}),
        InvalidValueError,
        ["'m'", "both"],
    ),
    "metric that is no function": (lambda: fit(metrics={"m": 1.0}), ArgumentError, ["metrics"]),
    "state": (lambda: fit(state=NETWORK.params), ArgumentError, ["dict", "trainer.init"]),
    "foreign state": (
        lambda: fit(optimizer=adam(), state=Trainer(NETWORK.loss, sgd(0.1)).init(NETWORK.params)),
        ArgumentError,
        ["SGDState"],
    ),
    "callback": (lambda: fit(callbacks=[1]), ArgumentError, ["callbacks"]),
    "loss is no function": (lambda: Trainer(3.0, sgd(0.1)), ArgumentError, ["float"]),
    "optimizer": (lambda: Trainer(NETWORK.loss, "sgd"), ArgumentError, ["sg.optim"]),
    "backend": (lambda: Trainer(NETWORK.loss, sgd(0.1), backend="gpu"), InvalidValueError, ["cpu"]),
    "optimizer that changes dtypes": (lambda: fit(optimizer=Widening()), DTypeError, ["f32[8]", "f64[8]"]),
    "optimizer that changes structures": (lambda: fit(optimizer=Restructuring()), ArgumentError, ["structure"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    make, kind, words = MISTAKES[name]
    with pytest.raises(kind) as caught:
        make()
    assert isinstance(caught.value, StaticgradError)
    for word in words:
        assert word in str(caught.value)
    assert "test_interrupts.py" in str(caught.value)


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    fit(epochs=3)
    assert capsys.readouterr().err == ""
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    _, history = trainer.fit(trainer.init(NETWORK.params), DATA, 3, 16)
    text = capsys.readouterr().err
    assert "epoch 3/3 100%" in text
    assert f"loss {history['loss'][-1]:.4g}" in text
    assert "samples/s" in text


def test_progress_without_tqdm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    trainer = Trainer(NETWORK.loss, sgd(0.1))
    trainer.fit(trainer.init(NETWORK.params), DATA, 3, 16)
    assert capsys.readouterr().err == ""  # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, history = trainer.fit(trainer.init(NETWORK.params), DATA, 3, 16)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith(f"epoch 3/3: loss {history['loss'][-1]:.4g}, ")
    assert last.endswith(" samples/s\033[K\n")


def test_history():
    _, history = fit(lambda p, x, y: (NETWORK.loss(p, x, y), {}), epochs=2)
    assert dict(history).keys() == {"loss", "seconds", "samples_per_second"}
    assert "2 epochs" in repr(history)
    with pytest.raises(KeyError, match="history holds loss"):
        history["accuracy"]


SCRIPT = """
import numpy as np
from tests.train import reference
from staticgrad.optim import sgd
from staticgrad.train import Loop, Trainer
network, data = reference.Network(np.float64), reference.data(np.float64, 18)
trainer = Trainer(network.loss, sgd(0.1))
state, history = trainer.fit(trainer.init(network.params), data, 2, 16, progress=False)
count, _ = Loop(lambda n: (n + 1, {"loss": np.where(n > 4, np.nan, 1.0)})).run(0, epochs=9)
"""


def test_uncompiled_loop():
    """Under NUMBA_DISABLE_JIT the driver and the steps run as plain Python, with the same results."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "STATICGRAD_CACHE": "off"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT + 'print(count, *history["loss"])']
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    compiled = {}
    with pytest.warns(StaticgradWarning, match="epoch 6, batch 1 of 1"):
        exec(SCRIPT, compiled)
    found = [float(word) for word in run.stdout.split()]
    np.testing.assert_allclose(found, [compiled["count"], *compiled["history"]["loss"]], rtol=1e-13)
    assert compiled["count"] == 4
