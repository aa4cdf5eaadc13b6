"""The tape keeps nothing alive: no reference cycles, flat memory, a bounded number of recipes; leaves are copied and pickled."""

import contextlib
import copy
import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import eager
from staticgrad.eager import recipes
from tests.eager.garbage import cycles


class Square(sg.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


@sg.trace(backend="interp")
def layer(x, w):
    return np.tanh(x @ w)


@pytest.fixture
def collector_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def step(w, x):
    """Do a bit of everything and update the weights."""
    h = layer(x, w)
    buffer = eager.zeros(4, 3)
    buffer[1:] = h[:3]
    buffer[0].add_(h[3])
    buffer.register_hook(lambda g: g * 2)
    buffer.retain_grad()
    part = buffer.T[1:]
    part.mul_(0.5)
    loss = (Square.apply(buffer) + h.clone() ** 2).mean() + part.sum() * 0.1
    (slope,) = sg.autograd_grad(loss, w, create_graph=True)
    total = loss + (slope * slope).sum()
    total.backward()
    with sg.no_grad():
        w -= 0.01 * w.grad
    w.grad.zero_()
    return total


def test_no_reference_cycles(collector_off):
    w, x = sg.tensor(np.ones((2, 3), np.float32) * 0.1, requires_grad=True), sg.tensor(np.ones((4, 2), np.float32))
    for _ in range(3):
        total = step(w, x)
    reference = weakref.ref(total.grad_fn)
    del total
    assert reference() is None
    gc.collect()
    for _ in range(5):
        step(w, x)
    assert not cycles()


def test_results_die_with_their_last_name(collector_off):
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    view = y[0]
    z = Square.apply(y) + layer(x[None], eager.ones(2, 1)).sum()
    references = [weakref.ref(t) for t in (y, view, z)] + [weakref.ref(t.grad_fn) for t in (y, view, z)]
    del y, view
    z.sum().backward()
    del z
    assert [r() for r in references] == [None] * 6


def test_errors_keep_nothing(collector_off):
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    reference = weakref.ref(y)
    with contextlib.suppress(RuntimeError):
        y.backward()
    with contextlib.suppress(ValueError):
        y @ eager.ones(3)
    del y
    assert reference() is None


def test_leaves_die(collector_off):
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.register_hook(lambda g: g)
    reference, gradient = weakref.ref(x), weakref.ref(x.grad)
    del x
    assert reference() is None and gradient() is None


def growth(iterate, count):
    """Return how many bytes `count` iterations leave behind, which must not be reference cycles."""
    iterate(50)
    tracemalloc.start()
    iterate(50)
    gc.collect()  # free lists are emptied, too
    before, _ = tracemalloc.get_traced_memory()
    iterate(count)
    assert not cycles()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def test_memory_stays_flat(collector_off):
    w, x = sg.tensor([0.5, 0.25], requires_grad=True), sg.tensor([1.0, 2.0])

    def iterate(count):
        for k in range(count):
            y = w * x + k * 1e-6
            y[0] *= 1.5
            loss = (y * y).sum()
            loss.backward()
            with sg.no_grad():
                w.sub_(w.grad * 1e-6)
            w.grad = None

    assert growth(iterate, 600) < 600  # less than a byte an iteration


def test_memory_of_traced_calls_stays_flat(collector_off):
    w, x = sg.tensor(np.ones((2, 3)), requires_grad=True), sg.tensor(np.ones((4, 2)))

    def iterate(count):
        for _ in range(count):
            layer(x, w).sum().backward()
            w.grad = None

    assert growth(iterate, 300) < 30_000  # optree keeps some of its objects; a node would be ten times as much


def test_memory_of_gradients_of_gradients_stays_flat(collector_off):
    x = sg.tensor([0.5, 0.25], requires_grad=True)

    def iterate(count):
        for _ in range(count):
            (slope,) = sg.autograd_grad(Square.apply(x.sin()).sum(), x, create_graph=True)
            slope.exp().sum().backward()
            x.grad = None

    assert growth(iterate, 200) < 200


def test_recipes_are_bounded(monkeypatch):
    monkeypatch.setattr(recipes, "CAPACITY", 20)
    x = sg.tensor(np.arange(200.0), requires_grad=True)
    before = len(recipes._recipes)
    for k in range(30):
        x[k:].flip(0).sum().backward()
        assert len(recipes._recipes) <= max(20, before)
    assert x.grad[:31].tolist() == [*range(1, 31), 30]


def test_what_a_loop_repeats_is_recorded_once():
    x = sg.tensor([1.0, 2.0], requires_grad=True)

    def body():
        y = (x * 2 + 1).exp() * 1.0
        y[0] += 1
        (y.sum() / 3).backward()

    body()
    before = list(recipes._recipes)
    for _ in range(5):
        body()
    assert sorted(map(hash, recipes._recipes)) == sorted(map(hash, before))


# ---- copies


def test_copies_of_leaves():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf
    assert y.grad.tolist() == [2.0, 4.0]
    with sg.no_grad():
        y.zero_()
        y.grad.zero_()
    assert x.tolist() == [1.0, 2.0]
    assert x.grad.tolist() == [2.0, 4.0]
    shared = copy.deepcopy({"a": x, "b": [x]})
    assert shared["a"] is shared["b"][0]
    z = copy.copy(x)
    assert z.tolist() == [1.0, 2.0]


def test_pickles_of_leaves():
    for x in (sg.tensor([[1.5, 2.0]], requires_grad=True), sg.tensor(3), sg.tensor([True, False]), eager.zeros(0, 3)):
        y = pickle.loads(pickle.dumps(x))
        assert y.tolist() == x.tolist()
        assert y.dtype == x.dtype and y.shape == x.shape
        assert y.requires_grad == x.requires_grad
    view = sg.tensor([[1.0, 2.0], [3.0, 4.0]]).T
    assert pickle.loads(pickle.dumps(view)).tolist() == view.tolist()


def test_results_are_neither_copied_nor_pickled():
    y = sg.tensor([1.0], requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(y)
    with pytest.raises(RuntimeError, match="detach"):
        pickle.dumps(y)
    assert copy.deepcopy(y.detach()).tolist() == [2.0]
