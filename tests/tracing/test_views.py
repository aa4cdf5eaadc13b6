"""Views and writes: what is written through one handle shows in all that NumPy would show it in, and nowhere else."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad.numpy as snp
from staticgrad.errors import (
    OverflowedError,
    ReadOnlyError,
    ShapeError,
    TraceError,
)
from tests.tracing.harness import check, fails, traced

X = np.arange(12.0).reshape(3, 4)
V = np.array([1.5, -2.0, 0.25])


def draw_index(data: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return a basic index: integers, slices of either direction, newaxis, ellipsis."""
    items: list[Any] = []
    for extent in shape[: data.draw(st.integers(0, len(shape)))]:
        kinds = ["slice", "slice", "all"] + (["int"] if extent else [])
        kind = data.draw(st.sampled_from(kinds))
        if kind == "int":
            items.append(data.draw(st.integers(-extent, extent - 1)))
        elif kind == "all":
            items.append(slice(None))
        else:
            bound = st.none() | st.integers(-extent - 1, extent + 1)
            items.append(slice(data.draw(bound), data.draw(bound), data.draw(st.sampled_from([None, 1, 2, 3, -1, -2]))))
    for _ in range(data.draw(st.sampled_from([0, 0, 1, 2]))):
        items.insert(data.draw(st.integers(0, len(items))), None)
    if data.draw(st.booleans()):
        whole = not any(isinstance(item, int) for item in items)
        items.insert(data.draw(st.integers(0, len(items))) if whole else len(items), Ellipsis)
    return tuple(items)


@settings(max_examples=150)
@given(data=st.data(), shape=st.lists(st.integers(0, 4), max_size=4).map(tuple))
def test_random_basic_indices(data: Any, shape: tuple[int, ...]) -> None:
    x = np.arange(float(np.prod(shape))).reshape(shape)
    index = draw_index(data, shape)

    def read_and_write(x: Any) -> Any:
        z = x.copy()
        z[index] = 7
        z[index] += 1.5
        return x[index], z

    check(read_and_write, x)


Step = Callable[[list[Any]], None]


def draw_view(data: Any, part: np.ndarray) -> Callable[[Any], Any]:
    """Return a function that gives a view (or NumPy's copy) of an array like `part`."""
    choices: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "index": lambda: operator.itemgetter(draw_index(data, part.shape)),
        "ravel": lambda: np.ravel,
        "reshape": lambda: operator.methodcaller("reshape", data.draw(st.permutations((*part.shape, 1)))),
        "merge": lambda: lambda x: x.reshape(-1, *x.shape[2:]) if x.ndim > 1 and x.size else x.reshape(x.shape),
        "split": lambda: lambda x: np.array_split(x, 2)[1] if x.ndim else x,
        "order": lambda: operator.methodcaller("transpose", tuple(data.draw(st.permutations(range(part.ndim))))),
        "T": lambda: lambda x: x.T,
        "squeeze": lambda: np.squeeze,
        "flip": lambda: np.flip,
        "expand": lambda: lambda x: np.expand_dims(x, -1) if x.ndim < 5 else x,
        "swap": lambda: lambda x: x.swapaxes(0, -1) if x.ndim else x,
        "diagonal": lambda: lambda x: np.einsum("...ii->...i", x) if x.ndim > 1 and x.shape[-1] == x.shape[-2] else x,
        "copy": lambda: lambda x: x.copy(),
        "compute": lambda: lambda x: np.add(x, 1, order="C"),
    }
    return choices[data.draw(st.sampled_from(sorted(choices)))]()


def draw_write(data: Any, parts: list[np.ndarray], place: int) -> Callable[[list[Any]], None]:
    """Return a statement that writes into `parts[place]`."""
    part = parts[place]
    index = draw_index(data, part.shape)
    sources = [k for k, p in enumerate(parts) if p.shape == part.shape]
    source = data.draw(st.sampled_from(sources))
    mask = np.arange(part.size).reshape(part.shape) % 2 == 0

    def add(x: list[Any]) -> None:
        x[place] += x[source]

    def at(x: list[Any]) -> None:
        np.add.at(x[place], index, 3.0)

    def out(x: list[Any]) -> None:
        np.multiply(x[source], 2, out=x[place])

    writes: dict[str, Callable[[list[Any]], None]] = {
        "set": lambda x: operator.setitem(x[place], index, 5.0),
        "assign": lambda x: operator.setitem(x[place], ..., x[source]),
        "reverse": lambda x: operator.setitem(x[place], ..., np.flip(x[source])),
        "fill": lambda x: x[place].fill(-1.0),
        "copyto": lambda x: np.copyto(x[place], x[source], where=mask),
        "out": out,
        "add": add,
        "at": at,
    }  # fmt: skip
    return writes[data.draw(st.sampled_from(sorted(writes)))]


@settings(max_examples=300)
@given(data=st.data(), shape=st.sampled_from([(2, 3), (3, 3), (2, 3, 2), (4,), (1, 3), (2, 2, 2), (), (3, 0)]))
def test_random_programs_of_views_and_writes(data: Any, shape: tuple[int, ...]) -> None:
    """The program is drawn while NumPy runs it; what it left in every array must be what tracing it gives."""
    start = np.arange(float(np.prod(shape))).reshape(shape)
    steps: list[Step] = []
    arrays: list[Any] = [start.copy()]
    for _ in range(data.draw(st.integers(2, 12))):
        place = data.draw(st.integers(0, len(arrays) - 1))
        if data.draw(st.booleans()):
            view = draw_view(data, arrays[place])
            if not isinstance(view(arrays[place]), np.ndarray):
                continue

            def step(x: list[Any], view: Any = view, place: int = place) -> None:
                x.append(view(x[place]))
        else:
            step = draw_write(data, arrays, place)
        step(arrays)
        steps.append(step)

    def program(x: Any) -> Any:
        parts = [x.copy() if x.shape else snp.array(x)]
        for step in steps:
            step(parts)
        return parts

    check(program, start)


def test_a_scalar_is_bound_anew_and_a_0d_array_is_written() -> None:
    def scalars(x: Any) -> Any:
        first, total = x[0, 0], x.sum()
        before, old = first, total
        first += 1
        total *= 2
        z = x.copy()
        corner = z[0, 0, ...]
        corner += 100
        kept = x.sum()
        cube = kept.reshape(1, 1)
        cube += 1
        zero = snp.zeros(())
        alias = zero
        alias += 5
        return first, before, total, old, z, zero, kept, cube

    check(scalars, X)


def test_copies_are_independent_and_aliases_are_not() -> None:
    def copies(x: Any) -> Any:
        z = x.copy()
        a, b, c, d = copy.copy(z), copy.deepcopy(z), z.astype(float), z.flatten()
        e, alias, whole = z.astype(float, copy=False), z, z.view()
        z[0] = -1
        return a, b, c, d, e, alias, whole, z

    check(copies, X)


def test_assignment_casts_and_drops_leading_axes() -> None:
    def assign(x: Any) -> Any:
        i, b, z = snp.zeros(4, np.int8), snp.zeros(4, bool), x.copy()
        i[:] = x[1]
        b[...] = x[0]
        z[0] = x[None, None, 1]
        z[:, 1] = [1, 2, 3]
        z[1:, 2:] = np.array([[7, 8]])
        return i, b, z

    check(assign, X)
    fails(lambda x: operator.setitem(x.copy(), 0, X), X, kind=ShapeError, match=r"f64\[3,4\].*\(4,\)")
    fails(lambda x: operator.setitem(snp.zeros(3, np.int8), 0, 300), X, kind=OverflowedError, match="300.*int8")


def test_reshape_of_a_transpose_is_a_copy_as_in_numpy() -> None:
    def program(x: Any) -> Any:
        z = x.copy()
        z.T.reshape(-1)[:] = -1
        z[:, :2].ravel()[0] = 50
        z[:2].reshape(-1)[0] = 9
        z[::2].reshape(2, 2, 2)[0, 0] = 3
        z[:, ::-1].ravel()[1] = 8
        return z

    check(program, X)


READ_ONLY: dict[str, Callable[[Any], Any]] = {
    "argument 'x0'": lambda x: operator.setitem(x, 0, 1),
    "argument .*copy": lambda x: x.T.fill(0),
    "argument 'x0' ": lambda x: operator.iadd(x[1:], 1),
    "broadcast_to": lambda x: operator.setitem(np.broadcast_to(x.copy(), (2, 3, 4)), 0, 1),
    "diagonal": lambda x: operator.setitem(np.diagonal(x.copy()), 0, 1),
    "np.copyto|argument": lambda x: np.copyto(x, 1),
}


@pytest.mark.parametrize("match", READ_ONLY)
def test_what_must_not_be_written_says_how_to_go_on(match: str) -> None:
    error = fails(READ_ONLY[match], X, kind=ReadOnlyError, match=f"{match}.*copy")
    assert isinstance(error, ValueError)


def test_a_broadcast_view_shows_later_writes() -> None:
    def program(x: Any) -> Any:
        z = x.copy()
        wide, diagonal = np.broadcast_to(z[0], (2, 4)), np.diagonal(z)
        z[0, 0] = 99
        return wide, diagonal, wide.reshape(-1)

    check(program, X)


def test_an_argument_bound_to_a_plain_number_can_be_updated() -> None:
    def update(s: Any) -> Any:
        s += 1
        s *= 2
        return s

    check(update, np.float64(3))


def test_writing_a_tracer_into_a_real_array_is_numpys_error_with_ours_as_its_cause() -> None:
    def write(x: Any) -> Any:
        real = np.zeros(3)
        real[0] = x[0, 0]
        return real

    with pytest.raises(ValueError, match="setting an array element") as raised:
        traced(write, X)
    assert isinstance(raised.value.__cause__, TraceError)
