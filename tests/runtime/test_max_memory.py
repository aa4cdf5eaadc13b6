"""`max_memory`: the same bits within fewer bytes, and what is too small is told."""

import re
import time
import tracemalloc

import numpy as np
import optree
import pytest

import staticgrad as sg
from staticgrad.codegen.blocks import estimated_work
from staticgrad.codegen.budget import Budget
from staticgrad.codegen.order import in_frugal_order
from staticgrad.errors import InvalidValueError
from staticgrad.runtime.build import lower_graph
from tests.fuzz.programs import Program
from tests.fuzz.test_random_graphs import FINE, settings
from tests.ops.running import identical, run_uncompiled

X = np.random.default_rng(0).normal(size=(512, 16))
LAYERS = [(np.random.default_rng(k).normal(size=(16, 16)) / 4, np.zeros(16)) for k in range(16)]


def loss(layers, x):
    for w, b in layers:
        x = np.tanh(x @ w + b)
    return np.mean(x * x)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in optree.tree_leaves(tree)]


@pytest.mark.parametrize("printer", ["llvm", "numba"])
def test_gradients_within_a_budget_have_the_same_bits(printer):
    free = sg.value_and_grad(sg.trace(loss, printer=printer))
    peak = free.lower(LAYERS, X).memory
    tight = sg.value_and_grad(sg.trace(loss, printer=printer, max_memory=int(0.4 * peak)))
    lowered = tight.lower(LAYERS, X)
    assert lowered.memory <= 0.4 * peak
    assert any(nest.title.startswith("again") for nest in lowered.schedule.nests)
    assert bits(tight(LAYERS, X)) == bits(free(LAYERS, X))


def test_a_budget_that_is_no_limit_changes_nothing():
    lowered = sg.grad(sg.trace(loss, max_memory="1GB")).lower(LAYERS, X)
    assert lowered.source == sg.grad(loss).lower(LAYERS, X).source


def test_the_least_is_named_and_is_enough():
    with pytest.raises(ValueError, match="too small") as caught:
        sg.grad(sg.trace(loss, max_memory="1kB")).lower(LAYERS, X).memory  # noqa: B018
    least = int(re.search(r"pass max_memory=(\d+)", str(caught.value))[1])
    assert sg.grad(sg.trace(loss, max_memory=least)).lower(LAYERS, X).memory <= least
    with pytest.raises(InvalidValueError, match=f"max_memory={least} or more"):
        sg.grad(sg.trace(loss, max_memory=int(0.9 * least))).lower(LAYERS, X).memory  # noqa: B018


def test_the_interpreter_takes_no_notice():
    assert sg.trace(np.sum, backend="interp", max_memory=1)(X) == sg.trace(np.sum, backend="interp")(X)


@pytest.mark.parametrize("given", [True, 1.5, -1, 0, "64", "64 bytes", "MB", [1]])
def test_what_means_no_bytes_is_refused(given):
    with pytest.raises((ValueError, TypeError), match="max_memory"):
        sg.trace(loss, max_memory=given)


def test_texts_mean_bytes():
    for text, count in (("64MB", 64_000_000), ("1.5 KiB", 1536), ("2GB", 2_000_000_000)):
        assert sg.trace(loss, max_memory=text)._options.max_memory == count


def test_a_call_allocates_what_was_planned():
    for max_memory in (None, "900kB"):
        lowered = sg.grad(sg.trace(loss, max_memory=max_memory)).lower(LAYERS, X)
        executable = lowered.compile().executable
        arrays = optree.tree_leaves((LAYERS, X))
        tracemalloc.start()
        executable(arrays)
        _, allocated = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert abs(allocated - lowered.memory) <= 0.05 * lowered.memory


@pytest.mark.parametrize("seed", range(5000, 5008))
def test_random_gradients_within_the_least_memory(seed):
    program = Program(seed).grow(30)
    graph, arrays = program.gradient(), program.arrays
    with settings(verify=True, cache=None):
        free = lower_graph(graph, grain=FINE)
        with pytest.raises(InvalidValueError) as caught:
            lower_graph(graph, grain=FINE, max_memory=1)
        least = int(re.search(r"pass max_memory=(\d+)", str(caught.value))[1])
        tight = lower_graph(graph, grain=FINE, max_memory=least)
    assert tight.lowered.plan.peak <= least
    expected = run_uncompiled(graph, arrays, lowering=free)
    assert all(map(identical, run_uncompiled(graph, arrays, lowering=tight), expected))


def steps_of(length, reverse):
    """Return a function of a loop with a carry, stacked operands and stacked results."""
    w, xs = np.random.default_rng(0).normal(size=(8, 8)) / 3, np.random.default_rng(1).normal(size=(length, 64, 8))

    def f(w, xs, k):
        def step(c, x):
            h, i = c
            h = np.tanh(h @ w + x * np.sin(h)) + k * i
            return (h, i + 1.0), h[0] * 2

        (h, _), ys = sg.scan(step, (xs[0], 0.0), xs, reverse=reverse)
        return np.sum(h) + np.sum(ys**2)

    return f, (w, xs, 0.01)


@pytest.mark.parametrize(("length", "reverse", "part"), [(100, False, 0.45), (100, True, 0.45), (103, False, 0.65), (103, True, 0.65)])
def test_loops_go_in_segments(length, reverse, part):
    f, arguments = steps_of(length, reverse)
    free = sg.value_and_grad(f, argnums=(0, 1, 2))
    peak = free.lower(*arguments).memory
    tight = sg.value_and_grad(sg.trace(f, max_memory=int(part * peak)), argnums=(0, 1, 2))
    assert tight.lower(*arguments).memory <= part * peak
    assert bits(tight(*arguments)) == bits(free(*arguments))


def residual(x, w):
    for _ in range(16):
        x = x + np.tanh(np.maximum(x @ w, 0.1) @ w)
    return x


def window(x, w):
    for _ in range(16):
        x = np.concatenate([x[:, 4:], np.tanh(x @ w)[:, :4]], 1)
    return x


def stencil(x, w):
    for _ in range(24):
        x = x + w[0, 0] * (np.roll(x, 1) - 2 * x + np.roll(x, -1)) * np.cos(x)
    return x


def in_place(x, w):
    x = x.copy()
    for _ in range(12):
        x[1:-1] += w[0, 0] * (x[:-2] - 2 * x[1:-1] + x[2:]) * np.cos(x[1:-1])
    return x


def growing(x, w):
    """What each layer of a DenseNet makes is read by all that follow."""
    for k in range(8):
        x = np.concatenate([x, np.tanh(x @ np.concatenate([w] * (k + 1)))], 1)
    return x


def with_skips(x, w):
    """A U-Net: what is made first is read last."""
    skips = []
    for _ in range(4):
        for _ in range(3):
            x = np.tanh(x @ w)
        skips.append(x)
    for skip in reversed(skips):
        x = np.concatenate([skip, x], 1) @ np.concatenate([w, w])
        for _ in range(3):
            x = np.tanh(x @ w)
    return x


def attention(x, w):
    for _ in range(6):
        q, k, v = (h.reshape(4, 64, 32) for h in (x @ w, x @ w.T, x @ (w + 1)))
        s = np.exp(q @ k.transpose(0, 2, 1) / 6)
        x = x + np.tanh((s / s.sum(-1, keepdims=True) @ v).reshape(256, 32) @ w)
    return x


def recurrent(x, w):
    h = c = x[:, :8]
    for t in range(8):
        z = x[:, t : t + 1] + h @ w[:8]
        gates = [1 / (1 + np.exp(-z[:, 8 * k : 8 * k + 8])) for k in range(4)]
        c = gates[0] * c + gates[1] * np.tanh(gates[2])
        h = gates[3] * np.tanh(c)
    return h


@pytest.mark.parametrize(
    ("net", "part"),
    [
        (residual, 0.3),
        (window, 0.4),
        (stencil, 0.3),
        (in_place, 0.4),
        (growing, 0.5),
        (with_skips, 0.35),
        (attention, 0.3),
        (recurrent, 0.4),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_unrolled_steps_within_a_part_of_the_peak(net, part):
    x, w = np.random.default_rng(0).normal(size=(256, 32)), np.random.default_rng(1).normal(size=(32, 32)) / 8
    free = sg.value_and_grad(lambda x, w: np.sum(net(x, w) ** 2), argnums=(0, 1))
    lowered = free.lower(x, w)
    tight = sg.value_and_grad(sg.trace(lambda x, w: np.sum(net(x, w) ** 2), max_memory=int(part * lowered.memory)), argnums=(0, 1))
    within = tight.lower(x, w)
    assert within.memory <= part * lowered.memory
    work, less = (sum(map(estimated_work, each.schedule.nests)) for each in (lowered, within))
    assert less <= 2 * work
    assert bits(tight(x, w)) == bits(free(x, w))


def test_where_there_is_little_room_some_nests_run_several_times():
    lowered = sg.grad(sg.trace(lambda x: np.sum(deep(x)), max_memory="130kB")).lower(np.ones(1024))
    titles = [nest.title for nest in lowered.schedule.nests if nest.title.startswith("again")]
    assert lowered.memory <= 130_000
    assert len(titles) > 63
    expected = sg.grad(lambda x: np.sum(deep(x)))(np.ones(1024))
    assert sg.grad(sg.trace(lambda x: np.sum(deep(x)), max_memory="130kB"))(np.ones(1024)).tobytes() == expected.tobytes()


def deep(x):
    w = np.eye(32) * 0.9
    x = x.reshape(32, 32)
    for _ in range(64):
        x = np.tanh(x @ w)
    return x


def test_the_time_of_planning_grows_with_the_number_of_nodes():
    def seconds(depth):
        def f(x, w):
            for _ in range(depth):
                x = x + w[0, 0] * (np.roll(x, 1) - 2 * x + np.roll(x, -1)) * np.cos(x)
            return np.sum(x)

        x, w = np.ones((256, 32)), np.ones((1, 1))
        schedule = sg.grad(f).lower(x, w).schedule
        limit = sg.grad(f).lower(x, w).memory // 2
        start = time.process_time()
        assert Budget(in_frugal_order(schedule, tight=True), limit).fitting() is not None
        return time.process_time() - start

    seconds(10)
    short, long = seconds(40), seconds(160)
    assert long < 12 * short, f"{short:.3f} s for 40 steps, {long:.3f} s for 160"


def test_a_hessian_computes_anew_what_its_own_backward_pass_reads():
    def f(x):
        h = x.reshape(2, 12)
        for _ in range(12):
            h = np.tanh(h @ (np.eye(12) * 0.9))
        return np.sum(h * h)

    x = np.random.default_rng(0).normal(size=24)
    peak = sg.hessian(f).lower(x).memory
    tight = sg.hessian(sg.trace(f, max_memory=int(0.6 * peak)))
    assert tight.lower(x).memory <= 0.6 * peak
    assert tight(x).tobytes() == sg.hessian(f)(x).tobytes()
