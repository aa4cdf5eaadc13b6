"""`max_memory`: the same bits within fewer bytes, and what is too small is told."""

import re
import tracemalloc

import numpy as np
import optree
import pytest

import staticgrad as sg
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
    assert sg.grad(sg.trace(loss, max_memory=least)).lower(LAYERS, X).memory == least
    with pytest.raises(InvalidValueError, match=f"max_memory={least} or more"):
        sg.grad(sg.trace(loss, max_memory=least - 1)).lower(LAYERS, X).memory  # noqa: B018


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
    assert tight.lowered.plan.peak == least
    expected = run_uncompiled(graph, arrays, lowering=free)
    assert all(map(identical, run_uncompiled(graph, arrays, lowering=tight), expected))
