"""Writes go into the memory of what they write to wherever nothing reads that afterwards, and nowhere else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.calls.traced import Traced
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.tracing.pytree import flatten
from tests.ops.running import run_uncompiled

LARGE, SMALL, TURNS = 1000, 3, 12


def scatter(x: Any, i: Any, v: Any) -> Any:
    y = x.copy()
    for k in range(TURNS):
        y[i[k]] = v[k]
    return y


def add_at(x: Any, i: Any, v: Any) -> Any:
    y = x.copy()
    for k in range(TURNS):
        np.add.at(y, i[k], v[k])
    return y


def buffered(x: Any, i: Any, v: Any) -> Any:
    y = x.copy()
    for k in range(TURNS):
        y[i[k]] += v[k]
    return y


def single(x: Any, i: Any, v: Any) -> Any:
    y = x.copy()
    for k in range(TURNS):
        y[i[k, 0]] = 2 * y[i[k, 1]] + v[k, 0]
    return y


def read_between(x: Any, i: Any, v: Any) -> Any:
    y, found = x.copy(), []
    for k in range(TURNS):
        found.append(np.sum(y[i[k]]) * y[k])
        y[i[k]] = v[k]
    return y, found


def slices(x: Any, i: Any, v: Any) -> Any:
    y = x.copy()
    for k in range(TURNS):
        y[k : k + SMALL] += v[k] * y[k + 1 : k + 1 + SMALL]
    return y


def under_another_shape(x: Any, i: Any, v: Any) -> Any:
    y = x.copy().reshape(10, -1)
    for k in range(TURNS):
        y.reshape(-1)[i[k]] += v[k]
        y[k % 10, :SMALL] = v[k]
    return y


FUNCTIONS = (scatter, add_at, buffered, single, read_between, slices, under_another_shape)


def arguments() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return rng.normal(size=LARGE), rng.integers(-6, 6, (TURNS, SMALL)), rng.normal(size=(TURNS, SMALL))


def work(function: Traced, *arrays: Any) -> int:
    """Return how many elements the loops of both stages run over."""
    return sum(int(np.prod(nest.domain)) for nest in function.lower(*arrays).schedule.nests)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_loop_of_writes_copies_once(function: Callable[..., Any]) -> None:
    arrays = arguments()
    assert work(sg.trace(function), *arrays) < 1.5 * LARGE
    for found, expected in zip(flatten(sg.trace(function)(*arrays))[0], flatten(function(*arrays))[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("function", [scatter, add_at, single, read_between])
def test_the_gradient_of_a_loop_of_writes_copies_a_few_times(function: Callable[..., Any]) -> None:
    gradient = sg.grad(lambda x, i, v: sum(np.sum(leaf**2) for leaf in flatten(function(x, i, v))[0]), argnums=(0, 2))
    assert work(gradient, *arguments()) < 6 * LARGE


# ---- random programs of reads and writes


def _index(data: Any, rows: int, i: Any, v: Any) -> Any:
    """Return an index of three of `rows` rows."""
    kind = data.draw(st.sampled_from(["slice", "step", "array", "known", "mixed"]))
    start = data.draw(st.integers(0, rows - 5))
    turn = data.draw(st.integers(0, TURNS - 1))
    return {
        "slice": slice(start, start + 3),
        "step": slice(start + 4, start - 1 if start else None, -2),
        "array": i[turn],
        "known": np.array([start, start, start + 1]),
        "mixed": i[turn][::-1],
    }[kind]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), fuse=st.booleans(), gradient=st.booleans())
def test_random_reads_and_writes(data: Any, fuse: bool, gradient: bool) -> None:
    def program(x: Any, i: Any, v: Any) -> Any:
        arrays, kept = [x.copy(), x * 2], []
        for _ in range(data.draw(st.integers(1, 8))):
            z = arrays[data.draw(st.integers(0, 1))]
            other = arrays[data.draw(st.integers(0, 1))]
            kind = data.draw(st.sampled_from(["plain", "flip", "shape"]))
            view = {"plain": z, "flip": z[::-1], "shape": z.reshape(4, 6).reshape(-1)}[kind]
            at, source = (_index(data, 24, i, v) for _ in range(2))
            what, part = data.draw(st.sampled_from(["value", "part", "computed", "number"])), other[source]
            new = {"value": v[0], "part": part, "computed": np.sin(part) * 0.5 + v[1], "number": 0.25}[what]
            how = data.draw(st.sampled_from(["set", "add", "at", "keep", "sum"]))
            if how == "set":
                view[at] = new
            elif how == "add":
                view[at] += new
            elif how == "at":
                np.add.at(view, at, new)
            elif how == "keep":
                kept.append(other[source] * 2)
            else:
                kept.append(np.sum(np.cos(z)))
        return [arrays[1], *kept, arrays[0]]

    rng = np.random.default_rng(1)
    arrays = (rng.normal(size=24), rng.integers(-24, 24, (TURNS, 3)), rng.normal(size=(TURNS, 3)))
    if gradient:
        traced = sg.value_and_grad(lambda *a: sum(np.sum(leaf * leaf) for leaf in program(*a)), argnums=(0, 2))
    else:
        traced = sg.trace(program)
    graph: Graph = traced.program(*arrays).graph
    for found, expected in zip(run_uncompiled(graph, arrays, fuse), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
