"""`Loop`: steps given by the user, against the same steps in Python."""

import sys
import time

import numpy as np
import pytest

from staticgrad import api
from staticgrad.errors import (
    ArgumentError,
    DTypeError,
    InvalidValueError,
    ShapeError,
    StaticgradError,
    StaticgradWarning,
    TraceError,
)
from staticgrad.optim import adam, chain, clip_by_global_norm, schedules, sgd
from staticgrad.runtime import training_loop
from staticgrad.train import EarlyStopping, Loop, Place, Trainer
from tests.train import reference
from tests.train.reference import Network

NETWORK = Network(np.float64)
DATA = reference.data(np.float64)


def same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


# ---- Trainer is one case of it


@pytest.mark.parametrize("options", [{"printer": "numba"}, {"printer": "llvm"}, {"backend": "interp"}], ids=str)
def test_a_step_of_ones_own_is_that_of_the_trainer(options):
    loss = api.trace(**options)(NETWORK.loss)
    optimizer = chain(clip_by_global_norm(0.5), adam(schedules.warmup_cosine(0.05, 3, 20)))

    @api.trace(**options)
    def step(carry, batch):
        params, state = carry
        value, gradients = api.value_and_grad(loss)(params, *batch)
        return optimizer.update(params, gradients, state), {
            "loss": value,
            "accuracy": NETWORK.accuracy(params, *batch),
            "rate": optimizer.rate(state),
        }

    @api.trace(**options)
    def evaluate(carry, batch):
        return {"loss": NETWORK.loss(carry[0], *batch), "accuracy": NETWORK.accuracy(carry[0], *batch)}

    rows = tuple(array[:48] for array in DATA)
    settings = {"epochs": 5, "batch_size": 16, "seed": 3, "validation": rows, "progress": False}
    trainer = Trainer(loss, optimizer, metrics={"accuracy": NETWORK.accuracy})
    state, expected = trainer.fit(trainer.init(NETWORK.params), rows, **settings)
    loop = Loop(step, evaluate)
    (params, optimizer_state), history = loop.run((NETWORK.params, optimizer.init(NETWORK.params)), rows, **settings)
    same(params, state.params)
    same(optimizer_state.mean, state.optimizer_state.mean)
    assert optimizer_state.step == state.optimizer_state.step == 15
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert history[name] == expected[name]
    assert history["rate"] == expected["learning_rate"]
    assert loop.evaluate((params, optimizer_state), rows, 16) == trainer.evaluate(state, rows, 16)


# ---- carry, batches, metrics


def running(carry, batch):
    """Sums and extremes of the rows, and what was seen last."""
    x, k = batch["x"], batch["more"][0]
    seen = {
        "sum": carry["sum"] + np.sum(x, axis=0),
        "largest": np.maximum(carry["largest"], np.max(k)),
        "last": x[-1],
        "steps": carry["steps"] + 1,
        "flag": np.logical_not(carry["flag"]),
        "fixed": carry["fixed"],
    }
    return seen, {"mean": np.mean(x), "rows": len(x), "any": np.any(k > 40)}


def start_of_running():
    return {"sum": np.zeros(2), "largest": np.array(-1), "last": np.zeros(2, np.float32), "steps": 0, "flag": False, "fixed": np.arange(3)}


@pytest.mark.parametrize("backend", ["cpu", "interp"])
@pytest.mark.parametrize("batch_size", [1, 16, 50])
def test_any_carry(batch_size, backend):
    rng = np.random.default_rng(5)
    data = {"x": rng.normal(size=(50, 2)).astype(np.float32), "more": [rng.integers(0, 50, 50)]}
    carry, history = Loop(running, backend=backend).run(start_of_running(), data, epochs=3, batch_size=batch_size, seed=4)
    expected, means = start_of_running(), []
    for epoch in range(3):
        order, total = reference.order_of(50, 4, epoch), np.zeros(3)
        for start in range(0, 50, batch_size):
            chosen = order[start : start + batch_size]
            expected, metrics = running(expected, {"x": data["x"][chosen], "more": [data["more"][0][chosen]]})
            total += len(chosen) * np.array([float(value) for value in metrics.values()])
        means.append(total / 50)
    assert carry.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(carry[name], value, rtol=1e-5)
    np.testing.assert_allclose(np.array([history[name] for name in ("mean", "rows", "any")]).T, means, rtol=1e-5, atol=1e-7)
    assert carry["last"].dtype == np.float32
    assert carry["flag"].dtype == bool
    assert history.place == Place(3, 0, 3 * -(-50 // batch_size))


def test_one_array_and_a_single_number_as_carry():
    total, history = Loop(lambda carry, x: (carry + np.sum(x), {})).run(1.0, np.arange(10.0))
    assert total == 46.0
    assert list(history) == ["seconds", "samples_per_second"]
    assert history.epochs == 1


def test_the_weight_of_a_batch():
    """The metric `weight` takes the place of the number of rows, and is not shown."""
    x = np.arange(10.0)
    loop = Loop(lambda carry, x: (carry, {"x": np.mean(x), "weight": x[0], "y": 1.0}))
    _, history = loop.run(0.0, x, epochs=2, batch_size=4, shuffle=False)
    assert history["x"] == pytest.approx([(0 * 1.5 + 4 * 5.5 + 8 * 8.5) / 12] * 2)
    assert history["y"] == [1.0, 1.0]
    assert list(history) == ["x", "y", "seconds", "samples_per_second"]
    _, history = loop.run(0.0, 0 * x, batch_size=4)
    assert np.isnan(history["x"]).all()


def test_what_is_carried_unchanged_is_not_copied():
    big = np.ones(1000)
    built = []
    loop = Loop(lambda carry: ((carry[0] + carry[1][0], carry[1]), {}))
    block = training_loop.TrainingLoop._block

    def counted(self, content):
        built.append(content.nbytes)
        return block(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop.TrainingLoop, "_block", counted)
        (total, same_array), _ = loop.run((0.0, big), epochs=7)
    assert total == 7.0
    assert max(built) == 8
    np.testing.assert_array_equal(same_array, big)
    assert not np.shares_memory(same_array, big)


def test_exchanged_values():
    (a, b), _ = Loop(lambda carry: ((carry[1], carry[0]), {})).run((np.zeros(3), np.ones(3)), epochs=5)
    np.testing.assert_array_equal(a, np.ones(3))
    np.testing.assert_array_equal(b, np.zeros(3))


def test_whole_data_keep_their_order():
    data = np.arange(6.0)
    for size in (None, 6):
        seen, _ = Loop(lambda carry, x: (x * 1.0, {})).run(np.zeros(6), data, batch_size=size, seed=1)
        np.testing.assert_array_equal(seen, data if size is None else reference.order_of(6, 1, 0))


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_nothing_to_carry_or_to_compute(backend):
    carry, history = Loop(lambda c, x: (c, {"mean": np.mean(x)}), backend=backend).run((), np.arange(4.0), batch_size=2)
    assert carry == ()
    assert history["mean"] == [1.5]
    assert Loop(lambda c: (c, {}), backend=backend).run(1.0, epochs=3)[0] == 1.0


# ---- without data


T_C = np.array([0.5, 14, 15, 28, 11, 8, 3, -4, 6, 13, 21], np.float32)
T_U = np.float32(0.1) * np.array([35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4], np.float32)


def line(params, x, y):
    return np.mean((params[0] * x + params[1] - y) ** 2)


def descend(params):
    value, slope = api.value_and_grad(line)(params, T_U, T_C)
    return params - 1e-2 * slope, {"loss": value}


def test_gradient_descent_on_fixed_arrays():
    """5000 updates; the losses are PyTorch's, which moves the last digit itself."""
    loop, start = Loop(descend), np.array([1.0, 0.0], np.float32)
    params, history = loop.run(start, epochs=5000)
    expected = [7.860116, 3.828538, 3.092191, 2.957697, 2.933134, 2.928648, 2.927830, 2.927679, 2.927652, 2.927647]
    np.testing.assert_allclose(history["loss"][499::500], expected, atol=1e-5)
    np.testing.assert_allclose(params, [5.3671, -17.3012], atol=1e-4)
    assert len(history["loss"]) == len(history["seconds"]) == 5000
    trainer = Trainer(line, sgd(1e-2))
    state, other = trainer.fit(trainer.init(start), (T_U, T_C), 5000, None, progress=False)
    np.testing.assert_array_equal(state.params, params)
    assert other["loss"] == history["loss"]


def test_many_steps_in_few_native_calls():
    """Once its pace is known, 5000 steps are one native call; a generous bound that no loop in Python keeps."""
    loop, start, times = Loop(descend), np.array([1.0, 0.0], np.float32), []
    loop.run(start, epochs=5000)
    calls, run = [], training_loop.TrainingLoop.run

    def counted(self, epochs):
        calls[-1] += 1
        return run(self, epochs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop.TrainingLoop, "run", counted)
        for _ in range(5):
            calls.append(0)
            begun = time.perf_counter()
            loop.run(start, epochs=5000)
            times.append(time.perf_counter() - begun)
    assert min(calls) == 1
    assert min(times) < 5e-3


def test_more_epochs_than_a_call_holds(monkeypatch):
    monkeypatch.setattr(training_loop, "EPOCHS_A_CALL", 7)
    count, history = Loop(lambda n: (n + 1, {"n": n})).run(0, epochs=50)
    assert count == 50
    assert history["n"] == list(range(50))
    assert len(history["seconds"]) == 50


def test_going_on():
    loop = Loop(running)
    data = {"x": np.arange(20.0, dtype=np.float32).reshape(10, 2), "more": [np.arange(10)]}
    whole, _ = loop.run(start_of_running(), data, epochs=5, batch_size=4, seed=9)
    carry, history = loop.run(start_of_running(), data, epochs=2, batch_size=4, seed=9)
    carry, history = loop.run(carry, data, epochs=3, batch_size=4, seed=9, start=history.place)
    same(carry, whole)
    assert history.place == Place(5, 0, 15)


def test_callbacks_and_early_stopping_without_data():
    seen = []

    def callback(info):
        seen.append((info.epoch, float(info.state), info["loss"], info.loss, info.place.step))

    loop = Loop(lambda x: (x + 1, {"loss": (x - 3.0) ** 2}))
    result = loop.run(0.0, epochs=100, callbacks=[callback], early_stopping=EarlyStopping("loss", patience=2))
    assert [epoch for epoch, *_ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[3] == (4, 4.0, 0.0, 0.0, 4)
    assert result.state == result.best_state == 4.0
    assert result.history.place == Place(4, 0, 4)
    assert result.history.ended_by == "early stopping"


def test_progress(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    Loop(lambda n: (n + 1, {"count": n})).run(0, epochs=5, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("epoch 5/5: count 4, ")
    assert last.endswith(" steps/s\033[K\n")
    Loop(lambda n, x: (n + 1, {})).run(0, np.zeros(8), batch_size=2, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("epoch 1/1: ")
    assert last.endswith(" samples/s\033[K\n")
    assert "," not in last
    Loop(descend).run(np.ones(2, np.float32), epochs=5)
    assert capsys.readouterr().err == ""


# ---- tracing


def test_the_step_runs_once_and_rebound_values_are_seen():
    factor = 2.0

    def step(carry, batch):
        return carry * factor, {}

    loop = Loop(step)
    assert loop.run(1.0, np.zeros(3), epochs=4)[0] == 16.0
    assert loop.cache_info()[:2] == (1, loop.cache_info().compiles)
    loop.run(2.0, np.ones(3), epochs=4)
    assert loop.cache_info().traces == loop.cache_info().signatures == 1
    factor = 3.0
    assert loop.run(1.0, np.zeros(3), epochs=2)[0] == 9.0
    assert loop.cache_info().traces == 2
    assert repr(loop) == "<loop of step>"


def test_a_rebound_value_of_a_schedule_is_seen():
    rate = 0.5

    def schedule(step):
        return rate / (1 + step)

    trainer = Trainer(lambda p, x: np.mean((p - x) ** 2), chain(lambda g: g, sgd(schedule)))
    for rate in (0.5, 0.25):
        state, history = trainer.fit(trainer.init(1.0), np.zeros(4), 1, 2, progress=False)
        assert state.params == pytest.approx((1 - 2 * rate) * (1 - rate))
        assert history["learning_rate"] == pytest.approx([rate * 0.75])


def test_printing_warns():
    from staticgrad import debug

    def step(carry):
        debug.print("{}", carry)
        return carry + 1, {}

    with pytest.warns(StaticgradWarning, match=r"debug.print in step prints nothing"):
        assert Loop(step).run(0, epochs=3)[0] == 3


X = np.arange(6.0)
MISTAKES = {
    "no function": (lambda: Loop(3), ArgumentError, ["step is a int"]),
    "evaluation that is no function": (lambda: Loop(descend, 3), ArgumentError, ["evaluate is a int"]),
    "backend": (lambda: Loop(descend, backend="gpu"), InvalidValueError, ["cpu"]),
    "no pair": (lambda: Loop(lambda c: c + 1).run(0.0), ArgumentError, ["must return (carry, metrics)", "'f64[]'"]),
    "no dict": (lambda: Loop(lambda c: (c, c)).run(0.0), ArgumentError, ["metrics a dict"]),
    "shape": (
        lambda: Loop(lambda c: ({"w": np.concatenate([c["w"], c["w"]])}, {})).run({"w": np.zeros(3)}),
        ShapeError,
        ["carry['w'] is f64[3] before the step and f64[6] after it"],
    ),
    "dtype": (
        lambda: Loop(lambda c, x: ((c[0], c[1] * np.mean(x)), {})).run((X, np.float32(1)), X),
        DTypeError,
        ["carry[1] is f32[] before the step and f64[] after it"],
    ),
    "structure": (
        lambda: Loop(lambda c: ([c["a"]], {})).run({"a": 1.0}),
        ArgumentError,
        ["PyTreeSpec({'a': *})", "PyTreeSpec([*])"],
    ),
    "metric of a shape": (lambda: Loop(lambda c, x: (c, {"x": x})).run(0.0, X), ShapeError, ["'x'", "shape (6,)"]),
    "metric in a list": (lambda: Loop(lambda c: (c, {"x": [c]})).run(0.0), ShapeError, ["'x'", "container"]),
    "metric's name": (lambda: Loop(lambda c: (c, {"val_x": c})).run(0.0), InvalidValueError, ["'val_x'"]),
    "evaluation of no dict": (
        lambda: Loop(lambda c, x: (c, {}), lambda c, x: c).run(0.0, X, validation=X),
        ArgumentError,
        ["must return a dict of numbers"],
    ),
    "metrics of another batch": (
        lambda: Loop(lambda c, x: (c, {"x": c} if len(x) > 2 else {})).run(0.0, X, batch_size=4),
        ArgumentError,
        ["metrics of a whole batch are x", "the smaller last one"],
    ),
    "no evaluation": (lambda: Loop(lambda c, x: (c, {})).run(0.0, X, validation=X), ArgumentError, ["Loop(step, evaluate)"]),
    "nothing to evaluate with": (lambda: Loop(lambda c, x: (c, {})).evaluate(0.0, X), ArgumentError, ["Loop(step, evaluate)"]),
    "batches of nothing": (lambda: Loop(descend).run(np.zeros(2), batch_size=3), InvalidValueError, ["there is no data"]),
    "a batch too large": (lambda: Loop(lambda c, x: (c, {})).run(0.0, X, batch_size=7), InvalidValueError, ["batch_size=7", "6 rows"]),
    "lengths": (
        lambda: Loop(lambda c, x: (c, {})).run(0.0, {"a": X, "b": [X[:2]]}),
        ShapeError,
        ["data['a'] has 6", "data['b'][0] has 2"],
    ),
    "empty data": (lambda: Loop(lambda c, x: (c, {})).run(0.0, X[:0]), InvalidValueError, ["no rows"]),
    "missing batch": (lambda: Loop(descend).run(np.zeros(2), X), ArgumentError, ["descend"]),
    "start": (lambda: Loop(descend).run(np.zeros(2), start=3), ArgumentError, ["history.place"]),
    "text": (lambda: Loop(descend).run("much"), ArgumentError, ["str"]),
    "no name": (
        lambda: Loop(descend).run(np.zeros(2), early_stopping=EarlyStopping("val_loss")),
        InvalidValueError,
        ["'val_loss'", "holds loss, seconds"],
    ),
    "inside of a trace": (lambda: api.trace(lambda x: Loop(descend).run(x)[0])(np.zeros(2)), TraceError, ["traced"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    make, kind, words = MISTAKES[name]
    with pytest.raises(kind) as caught:
        make()
    assert isinstance(caught.value, StaticgradError)
    for word in words:
        assert word in str(caught.value)
    assert "test_loop.py" in str(caught.value)
