"""Indices with arrays: what NumPy reads and writes, for random indices, known while tracing or traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.errors import IndexingError, ReadOnlyError, UnsupportedError
from tests.tracing.harness import check, fails, traced

X = np.arange(24.0).reshape(2, 3, 4)
BROADCASTABLE = [(), (1,), (2,), (3,), (1, 2), (3, 1), (3, 2), (0,), (2, 0), (2, 1, 2)]


def draw_items(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the items of an index: slices, integers, new axes, an ellipsis, integer arrays and masks."""
    base = data.draw(st.sampled_from(BROADCASTABLE))
    items: list[Any] = []
    axis = 0
    while axis < len(shape) and data.draw(st.sampled_from([True, True, True, False])):
        extent = shape[axis]
        kinds = ["slice", "new", *(["int", "array", "array", "array"] if extent else ["empty"]), "mask"]
        kind = data.draw(st.sampled_from(kinds))
        used = 1
        if kind == "slice":
            bound = st.none() | st.integers(-extent - 1, extent + 1)
            items.append(slice(data.draw(bound), data.draw(bound), data.draw(st.sampled_from([None, 1, 2, -1, -2]))))
        elif kind == "new":
            items.append(None)
            used = 0
        elif kind == "int":
            items.append(data.draw(st.integers(-extent, extent - 1)))
        elif kind == "mask":
            used = data.draw(st.integers(1, 2)) if axis + 1 < len(shape) else 1
            extents = shape[axis : axis + used]
            flags = data.draw(st.lists(st.booleans(), min_size=int(np.prod(extents)), max_size=int(np.prod(extents))))
            items.append(np.array(flags, bool).reshape(extents))
        else:
            kept = tuple(1 if data.draw(st.integers(0, 3)) == 0 else n for n in base)
            kept = kept[data.draw(st.integers(0, len(kept))) :]
            count = int(np.prod(kept))
            numbers = data.draw(st.lists(st.integers(-extent, extent - 1), min_size=count, max_size=count)) if extent else []
            dtype = data.draw(st.sampled_from(["i8", "i4", "i1"]))
            items.append(np.array(numbers, dtype).reshape(kept) if extent or not count else np.zeros(0, int))
        axis += used
    if data.draw(st.booleans()):
        items.insert(data.draw(st.integers(0, len(items))), Ellipsis)
    return items


@settings(max_examples=400)
@given(data=st.data(), shape=st.lists(st.integers(0, 3), max_size=4).map(tuple), known=st.booleans())
def test_random_indices(data: Any, shape: tuple[int, ...], known: bool) -> None:
    x = np.arange(float(np.prod(shape))).reshape(shape)
    items = draw_items(data, shape)
    if Ellipsis in [item for item in items if not isinstance(item, np.ndarray)]:
        before = next(k for k, item in enumerate(items) if item is Ellipsis)
        if any(item is not None for item in items[before + 1 :]):
            items = items[: before + 1]  # what comes after would stand for other axes than it was drawn for
    arrays = [item for item in items if isinstance(item, np.ndarray) and item.dtype != bool]
    try:
        part = x[tuple(items)]
    except IndexError:  # the arrays do not broadcast
        with pytest.raises(IndexingError):
            traced(lambda x: x[tuple(items)], x)
        return
    new = np.arange(float(part.size)).reshape(part.shape) * 10

    def read_and_write(x: Any, new: Any, *traced_arrays: Any) -> Any:
        given = iter(traced_arrays)
        index = tuple(next(given) if traced_arrays and isinstance(i, np.ndarray) and i.dtype != bool else i for i in items)
        index = index[0] if len(index) == 1 else index
        z, a, c = x.copy(), x.copy(), x.copy()
        z[index] = new
        a[index] += new
        c[index] = 7
        picked = x[index]
        total = x.copy()
        np.add.at(total, index, new)
        np.subtract.at(total[...], index, 2.0)
        return picked, z, a, c, total

    check(read_and_write, x, new, *([] if known else arrays))


@given(data=st.data())
def test_masks_of_traced_values(data: Any) -> None:
    shape = data.draw(st.sampled_from([(2, 3, 4), (2, 3), (2,), ()]))
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=24, max_size=24)), bool)[: int(np.prod(shape))].reshape(shape)
    rest = X.shape[len(shape) :]
    new = np.arange(float(np.prod(rest))).reshape(rest)[(slice(None, 1),) * data.draw(st.integers(0, len(rest)))]

    def write(x: Any, mask: Any, new: Any) -> Any:
        z, y = x.copy(), x.copy()
        z[mask] = new
        y[mask] = -1
        y[(mask,)] = new[None]
        y.T[mask.T if len(shape) == 3 else Ellipsis] = 5
        return z, y

    check(write, X, flags, new)


def test_reading_a_traced_mask_is_an_error_that_names_the_way_out() -> None:
    fails(lambda x: x[x > 0], X, kind=UnsupportedError, match=r"shape .*not known while tracing.*np\.where")
    fails(lambda x: x.copy()[x > 0].sum(), X, kind=UnsupportedError, match=r"np\.where")
    fails(lambda x: x[0, x[0, :, 0] > 0], X, kind=UnsupportedError, match=r"np\.where")


def test_what_arrays_pick_is_a_copy() -> None:
    def function(x: Any, k: Any) -> Any:
        z = x.copy()
        picked, row, one = z[k], z[np.array(1)], z[k[0]]
        picked[:] = 1
        row[:] = 2
        one[:] = 3
        part = z[:, 1:]
        part[k] = 4
        part[k, 0] += part[k, 1]
        z.T[0][:, k] = 5
        z.reshape(-1)[k] = 6
        z[1:][[0], ..., k[1]] -= 1
        return z, picked, row, one, part

    check(function, X, np.array([1, 0]))


def test_the_last_of_several_writes_stays() -> None:
    def function(x: Any, k: Any, v: Any) -> Any:
        z, y = x.copy(), x.copy()
        z[k] = v
        y[k] += v
        return z, y

    check(function, np.zeros(3), np.array([0, 1, 0, 0, -1, -1]), np.arange(6.0))
    check(function, np.zeros((2, 3)), np.array([[0, 1], [0, 0]]), np.arange(12.0).reshape(2, 2, 3))


def test_arguments_cannot_be_written_by_arrays() -> None:
    fails(lambda x: x.__setitem__([0, 1], 1.0), X, kind=ReadOnlyError, match="argument")
    fails(lambda x: x.__setitem__(x > 0, 1.0), X, kind=ReadOnlyError, match="argument")
    fails(lambda x: np.add.at(x, [0, 1], 1.0), X, kind=ReadOnlyError, match="argument")
    fails(lambda x: np.put(x, [0, 1], 1.0), X, kind=ReadOnlyError, match="argument")
    fails(lambda x: x.sort(), X, kind=ReadOnlyError, match="argument")


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_out_of_bounds_at_run_time(backend: str) -> None:
    pick = sg.trace(lambda x, k: x[k] * 2, backend=backend)
    write = sg.trace(_written, backend=backend)
    x = np.arange(5.0)
    assert pick(x, np.array([4, -5])).tolist() == [8.0, 0.0]
    for k in ([0, 5], [-6, 0]):
        with pytest.raises(IndexingError, match=r"out of bounds.*size 5"):
            pick(x, np.array(k))
        with pytest.raises(IndexError, match=rf"{k[0] if k[0] < 0 else k[1]}"):
            write(x, np.array(k))
    assert pick(x, np.array([1, 2])).tolist() == [2.0, 4.0]
    assert write(x, np.array([0, 0])).tolist() == [2.0, 1.0, 2.0, 3.0, 4.0]


def _written(x: Any, k: Any) -> Any:
    z = x.copy()
    np.add.at(z, k, 1.0)
    return z
