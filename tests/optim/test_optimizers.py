"""Optimisers against PyTorch's formulas, written out here a parameter at a time."""

import dataclasses
import math

import numpy as np
import pytest

from staticgrad import api
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError, StaticgradError
from staticgrad.optim import adagrad, adam, adamw, chain, clip_by_value, rmsprop, schedules, sgd

STEPS = 12


class TorchSGD:
    """torch.optim.SGD for one array, in float64."""

    def __init__(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.lr, self.momentum, self.nesterov, self.weight_decay, self.buffer = lr, momentum, nesterov, weight_decay, None

    def __call__(self, p, g):
        if self.weight_decay != 0:
            g = g + self.weight_decay * p
        if self.momentum != 0:
            self.buffer = g.copy() if self.buffer is None else self.momentum * self.buffer + g
            g = g + self.momentum * self.buffer if self.nesterov else self.buffer
        return p - self.lr * g


class TorchAdam:
    """torch.optim.Adam for one array, or AdamW where there is weight decay, in float64."""

    def __init__(self, lr, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
        self.lr, self.b1, self.b2, self.eps, self.weight_decay = lr, b1, b2, eps, weight_decay
        self.step, self.mean, self.square = 0, 0.0, 0.0

    def __call__(self, p, g):
        self.step += 1
        p = p * (1 - self.lr * self.weight_decay)
        self.mean = self.mean + (g - self.mean) * (1 - self.b1)
        self.square = self.b2 * self.square + (1 - self.b2) * g * g
        denominator = np.sqrt(self.square) / math.sqrt(1 - self.b2**self.step) + self.eps
        return p - self.lr / (1 - self.b1**self.step) * self.mean / denominator


class TorchRMSprop:
    """torch.optim.RMSprop for one array, in float64."""

    def __init__(self, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, weight_decay=0.0):
        self.lr, self.alpha, self.eps, self.momentum, self.centered, self.weight_decay = lr, alpha, eps, momentum, centered, weight_decay
        self.square, self.mean, self.buffer = 0.0, 0.0, 0.0

    def __call__(self, p, g):
        if self.weight_decay != 0:
            g = g + self.weight_decay * p
        self.square = self.square * self.alpha + (1 - self.alpha) * g * g
        if self.centered:
            self.mean = self.mean + (g - self.mean) * (1 - self.alpha)
            average = np.sqrt(self.square - self.mean * self.mean) + self.eps
        else:
            average = np.sqrt(self.square) + self.eps
        if self.momentum > 0:
            self.buffer = self.buffer * self.momentum + g / average
            return p - self.lr * self.buffer
        return p - self.lr * g / average


class TorchAdagrad:
    """torch.optim.Adagrad for one array, in float64."""

    def __init__(self, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial=0.0, eps=1e-10):
        self.lr, self.lr_decay, self.weight_decay, self.eps = lr, lr_decay, weight_decay, eps
        self.step, self.total = 0, initial

    def __call__(self, p, g):
        self.step += 1
        if self.weight_decay != 0:
            g = g + self.weight_decay * p
        self.total = self.total + g * g
        return p - self.lr / (1 + (self.step - 1) * self.lr_decay) * g / (np.sqrt(self.total) + self.eps)


class Scheduled:
    """A rule of the above whose learning rate is set before each step, as PyTorch's schedulers do."""

    def __init__(self, rule, rate):
        self.rule, self.rate, self.step = rule, rate, 0

    def __call__(self, p, g):
        self.rule.lr = self.rate(self.step)
        self.step += 1
        return self.rule(p, g)


def harmonic(step):
    return 0.1 / (1 + 0.5 * step)


def halving(step):
    return 0.2 * 0.5**step


CASES = {
    "sgd": (sgd(0.1), lambda: TorchSGD(0.1)),
    "momentum": (sgd(0.1, momentum=0.9), lambda: TorchSGD(0.1, 0.9)),
    "nesterov": (sgd(0.1, 0.8, nesterov=True), lambda: TorchSGD(0.1, 0.8, True)),
    "decay": (sgd(0.1, weight_decay=0.2), lambda: TorchSGD(0.1, weight_decay=0.2)),
    "all": (sgd(0.05, 0.9, True, 0.1), lambda: TorchSGD(0.05, 0.9, True, 0.1)),
    "adam": (adam(), lambda: TorchAdam(1e-3)),
    "adam, slow": (adam(0.02, 0.5, 0.9, 1e-3), lambda: TorchAdam(0.02, 0.5, 0.9, 1e-3)),
    "adam, no means": (adam(0.02, 0.0, 0.0), lambda: TorchAdam(0.02, 0.0, 0.0)),
    "adamw": (adamw(0.03), lambda: TorchAdam(0.03, weight_decay=1e-2)),
    "adamw, strong": (adamw(0.03, weight_decay=0.5), lambda: TorchAdam(0.03, weight_decay=0.5)),
    "rmsprop": (rmsprop(), TorchRMSprop),
    "rmsprop, centered": (rmsprop(0.02, 0.8, centered=True), lambda: TorchRMSprop(0.02, 0.8, centered=True)),
    "rmsprop, all": (rmsprop(0.02, 0.9, 1e-3, 0.8, True, 0.1), lambda: TorchRMSprop(0.02, 0.9, 1e-3, 0.8, True, 0.1)),
    "rmsprop, momentum": (rmsprop(0.02, momentum=0.9), lambda: TorchRMSprop(0.02, momentum=0.9)),
    "adagrad": (adagrad(0.1), lambda: TorchAdagrad(0.1)),
    "adagrad, all": (adagrad(0.1, 1e-3, 0.5, 0.1), lambda: TorchAdagrad(0.1, weight_decay=0.1, initial=0.5, eps=1e-3)),
    "adagrad, decay": (adagrad(harmonic), lambda: TorchAdagrad(0.1, lr_decay=0.5)),
    "sgd, schedule": (sgd(halving, 0.9, True, 0.1), lambda: Scheduled(TorchSGD(0, 0.9, True, 0.1), halving)),
    "adam, schedule": (adam(halving, 0.5, 0.9), lambda: Scheduled(TorchAdam(0, 0.5, 0.9), halving)),
    "adamw, schedule": (adamw(halving, weight_decay=0.5), lambda: Scheduled(TorchAdam(0, weight_decay=0.5), halving)),
    "rmsprop, schedule": (rmsprop(harmonic, momentum=0.5), lambda: Scheduled(TorchRMSprop(momentum=0.5), harmonic)),
}


def parameters(dtype):
    rng = np.random.default_rng(1)
    return {"layers": [rng.normal(size=(3, 2)).astype(dtype), rng.normal(size=2).astype(dtype)], "scale": np.array(0.7, dtype)}


def gradients(dtype):
    rng = np.random.default_rng(2)
    for _ in range(STEPS):
        w, b, s = (rng.normal(size=shape).astype(dtype) for shape in ((3, 2), (2,), ()))
        yield {"layers": [w, b], "scale": np.asarray(s)}


def leaves(tree):
    return [*tree["layers"], tree["scale"]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_formula(name, dtype):
    optimizer, reference = CASES[name]
    params = parameters(dtype)
    state = optimizer.init(params)
    references = [reference() for _ in range(3)]
    expected = [p.astype(np.float64) for p in leaves(params)]
    for grads in gradients(dtype):
        params, state = optimizer.update(params, grads, state)
        expected = [rule(p, g.astype(np.float64)) for rule, p, g in zip(references, expected, leaves(grads), strict=True)]
        for found, p in zip(leaves(params), expected, strict=True):
            assert found.dtype == dtype
            assert found.shape == p.shape
            np.testing.assert_allclose(found, p, rtol=1e-12 if dtype == np.float64 else 3e-6, atol=1e-14 if dtype == np.float64 else 3e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["all", "adam, slow", "adamw", "rmsprop, all", "adagrad, decay", "sgd, schedule", "adamw, schedule"])
def test_traced_update_is_the_same(name, dtype):
    optimizer, _ = CASES[name]
    update = api.trace(optimizer.update)
    before = update.cache_info().traces  # equal optimizers share a record
    params, state = parameters(dtype), optimizer.init(parameters(dtype))
    compiled, compiled_state = params, state
    for grads in gradients(dtype):
        params, state = optimizer.update(params, grads, state)
        compiled, compiled_state = update(compiled, grads, compiled_state)
        for found, expected in zip(leaves(compiled), leaves(params), strict=True):
            assert found.dtype == dtype
            np.testing.assert_allclose(
                found, expected, rtol=2e-6 if dtype == np.float32 else 1e-14, atol=1e-6 if dtype == np.float32 else 0
            )
    assert update.cache_info().traces == before + 1
    assert type(compiled_state) is type(state)


def test_init_inside_of_a_trace():
    def descend(start):
        optimizer = adam(0.1)
        params, state = {"x": start}, optimizer.init({"x": start})
        for _ in range(3):
            params, state = optimizer.update(params, {"x": 2 * params["x"]}, state)
        return params["x"]

    start = np.array([1.0, -3.0])
    np.testing.assert_allclose(api.trace(descend)(start), descend(start), rtol=1e-14)
    np.testing.assert_allclose(np.abs(start - descend(start)), 0.3, rtol=0.05)


def test_first_step_of_adam_has_the_length_of_the_learning_rate():
    params = np.array([1.0, 2.0, 3.0])
    moved, state = adam(0.01).update(params, np.array([1e-3, -5.0, 40.0]), adam(0.01).init(params))
    np.testing.assert_allclose(params - moved, [0.01, -0.01, 0.01], rtol=1e-4)
    assert state.step == 1


def test_arguments_stay_as_they_are():
    for optimizer, _ in CASES.values():
        params, grads = parameters(np.float64), next(gradients(np.float64))
        state = optimizer.init(params)
        before = [leaf.copy() for leaf in (*leaves(params), *leaves(grads))]
        _, after = optimizer.update(params, grads, state)
        optimizer.update(params, grads, after)
        for leaf, copy in zip((*leaves(params), *leaves(grads)), before, strict=True):
            np.testing.assert_array_equal(leaf, copy)


def test_precise_gradients_do_not_widen_parameters():
    params = {"w": np.ones(3, np.float32)}
    scheduled = [make(harmonic) for make in (sgd, adam, adamw, rmsprop, adagrad)]
    for optimizer in (sgd(0.1, 0.9, weight_decay=0.1), adamw(), rmsprop(centered=True, momentum=0.9), adagrad(), *scheduled):
        moved, state = optimizer.update(params, {"w": np.ones(3)}, optimizer.init(params))
        moved, state = optimizer.update(moved, {"w": np.ones(3)}, state)
        assert moved["w"].dtype == np.float32


def test_numbers_are_parameters_too():
    moved, _ = sgd(0.5).update({"x": 1.0}, {"x": 2.0}, sgd(0.5).init({"x": 1.0}))
    assert moved["x"] == 0.0


def test_optimizers_are_frozen_and_compare_by_value():
    assert sgd(0.1) == sgd(0.1) != sgd(0.2)
    assert hash(adam()) == hash(adam())
    assert repr(sgd(0.1, 0.9)) == "SGD(learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)"
    assert adam(schedules.cosine(0.1, 9)) == adam(schedules.cosine(0.1, 9)) != adam(schedules.cosine(0.1, 8))
    assert hash(rmsprop(schedules.step(0.1, 9))) == hash(rmsprop(schedules.step(0.1, 9)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        sgd(0.1).learning_rate = 1.0


@pytest.mark.parametrize("make", [sgd, adam, adamw, rmsprop, adagrad, lambda rate: chain(clip_by_value(1.0), sgd(rate))])
def test_rate_of_the_next_update(make):
    optimizer, params = make(halving), np.ones(2)
    state = optimizer.init(params)
    for step in range(3):
        assert optimizer.rate(state) == halving(step)
        params, state = optimizer.update(params, np.ones(2), state)
    assert state.step == 3
    assert optimizer.schedule is halving
    assert make(0.25).schedule is None
    assert make(0.25).rate(make(0.25).init(params)) == 0.25


def test_centered_rmsprop_stays_finite_with_equal_gradients():
    optimizer, params = rmsprop(0.1, alpha=0.1, centered=True), np.ones(1, np.float32)
    state = optimizer.init(params)
    for _ in range(40):
        params, state = optimizer.update(params, np.full(1, 0.3, np.float32), state)
    assert np.isfinite(params).all()


def update(optimizer):
    return optimizer.update(np.ones(2), np.ones(2), optimizer.init(np.ones(2)))


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: sgd(-0.1), InvalidValueError, "learning_rate=-0.1"),
        (lambda: sgd(math.nan), InvalidValueError, "learning_rate=nan"),
        (lambda: sgd(math.inf), InvalidValueError, "learning_rate=inf"),
        (lambda: sgd("fast"), ArgumentError, "learning_rate='fast'"),
        (lambda: sgd(np.ones(2)), ArgumentError, "learning_rate"),
        (lambda: sgd(True), ArgumentError, "learning_rate=True"),
        (lambda: sgd(0.1, momentum=-1), InvalidValueError, "momentum=-1"),
        (lambda: sgd(0.1, nesterov=True), InvalidValueError, "momentum"),
        (lambda: sgd(0.1, weight_decay=-1e-3), InvalidValueError, "weight_decay"),
        (lambda: adam(-1.0), InvalidValueError, "learning_rate"),
        (lambda: adam(b1=1.0), InvalidValueError, "less than 1"),
        (lambda: adam(b2=-0.1), InvalidValueError, "b2=-0.1"),
        (lambda: adam(eps=-1e-8), InvalidValueError, "eps"),
        (lambda: adamw(weight_decay=-1), InvalidValueError, "weight_decay"),
        (lambda: sgd(0.1).init({"k": np.arange(3)}), DTypeError, "['k'] has dtype int64"),
        (lambda: adam().init([np.ones(2), "name"]), ArgumentError, "str"),
        (lambda: sgd(0.1).update({"w": np.ones(2)}, {"v": np.ones(2)}, sgd(0.1).init({})), ArgumentError, "structure"),
        (lambda: sgd(0.1).update([np.ones(2)], [np.ones(3)], sgd(0.1).init([])), ShapeError, "[0] has shape (2,), the gradients (3,)"),
        (lambda: sgd(0.1).update(np.ones(2), np.arange(2), sgd(0.1).init([])), DTypeError, "int64"),
        (lambda: sgd(0.1, 0.9).update(np.ones(2), np.ones(2), sgd(0.1).init(np.ones(2))), ArgumentError, "velocities"),
        (lambda: adam().update(np.ones(2), np.ones(2), sgd(0.1).init(np.ones(2))), ArgumentError, "SGDState"),
        (lambda: adam().update(np.ones(2), np.ones(2), adam().init(np.ones(2))._replace(step=0.5)), DTypeError, "counter"),
        (lambda: sgd(halving).update(np.ones(2), np.ones(2), sgd(0.1).init(np.ones(2))), ArgumentError, "counts no updates"),
        (lambda: update(sgd(lambda step: np.ones(3))), ShapeError, "shape (3,)"),
        (lambda: update(sgd(lambda step: None)), ArgumentError, "NoneType"),
        (lambda: update(rmsprop(lambda step: step > 0)), DTypeError, "bool"),
        (lambda: rmsprop(alpha=1.0), InvalidValueError, "less than 1"),
        (lambda: rmsprop(momentum="much"), ArgumentError, "momentum"),
        (lambda: adagrad(start=-1.0), InvalidValueError, "start=-1.0"),
    ],
)
def test_errors(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert isinstance(caught.value, StaticgradError)
    assert "test_optimizers.py" in str(caught.value)
