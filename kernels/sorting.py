"""Sorting rows: runs of a few elements by insertion, then longer and longer runs by merging.

Bottom-up merge sort (Knuth, "The Art of Computer Programming", volume 3, section 5.2.4): stable, n log n whatever the order, and
without recursion. Keys take the places they came from with them. NaN comes after all numbers.
"""

from __future__ import annotations

import functools

import numpy as np

from staticgrad.ir.aval import INT64, is_float
from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Scalar, Space

RUN = 16
"""So many neighbours are sorted by insertion before the merging begins."""


def comes_before(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Return whether x belongs before y: it is less, or y alone is NaN."""
    less = b.lt(x, y)
    return b.or_(less, b.and_(b.is_nan(y), b.eq(x, x))) if is_float(x.dtype) else less


def _parameter(name: str, dtype: np.dtype) -> Buffer:
    return Buffer(name, dtype, -1, Space.PARAMETER)


def _number(place: int, name: str) -> Scalar:
    return Scalar(-2 - place, INT64, 1, None, name)


@functools.cache
def sort(dtype: np.dtype) -> Function:
    """Return a function that sorts n keys and their places; its other two buffers are room for as many."""
    b = Builder()
    keys, other_keys = (_parameter(name, dtype) for name in ("keys", "other_keys"))
    places, other_places = (_parameter(name, INT64) for name in ("places", "other_places"))
    n = _number(0, "n")
    here, there = ((keys, Index()), (places, Index())), ((other_keys, Index()), (other_places, Index()))
    b.invoke(sort_runs(dtype), here, (Index.of(n),))
    width = b.variable(b.literal(RUN, INT64), "width")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.lt(b.get(width), n))
        with parts.body():
            now = b.get(width)
            merge = merge_runs(dtype)
            b.invoke(merge, (*here, *there), (Index.of(n), Index.of(now)))
            b.invoke(merge, (*there, *here), (Index.of(n), Index.of(now) * 2))
            b.set(width, b.mul(now, b.literal(4, INT64)))
    title = "Sort the keys and take their places along; runs that are longer than all of it are copied"
    return Function(f"sort_{dtype.name}", (keys, places, other_keys, other_places), (n,), b.root, title)


@functools.cache
def sort_runs(dtype: np.dtype) -> Function:
    """Return a function that sorts each run of `RUN` keys, and their places, by insertion."""
    b = Builder()
    keys, places, n = _parameter("keys", dtype), _parameter("places", INT64), _number(0, "n")
    zero, one = b.literal(0, INT64), b.literal(1, INT64)
    with b.loop(n, hint="i") as i:
        start = b.variable(b.and_(b.position(i), b.literal(-RUN, INT64)), "start")
        key, place = b.load(keys, i, hint="key"), b.load(places, i, hint="place")
        at = b.variable(b.position(i), "at")
        with b.while_() as parts:
            with parts.test():
                here = b.get(at)
                before = b.load(keys, b.max(b.sub(here, one), zero), hint="before")
                parts.until(b.and_(b.lt(b.get(start), here), comes_before(b, key, before)))
            with parts.body():
                free = Index.of(b.get(at))
                b.store(keys, free, b.load(keys, free - 1))
                b.store(places, free, b.load(places, free - 1))
                b.set(at, b.position(free - 1))
        b.store(keys, b.get(at), key)
        b.store(places, b.get(at), place)
    title = f"Sort each run of {RUN} keys by insertion and take their places along"
    return Function(f"sort_runs_{dtype.name}", (keys, places), (n,), b.root, title)


@functools.cache
def merge_runs(dtype: np.dtype) -> Function:
    """Return a function that merges pairs of neighbouring runs of `width` sorted keys into other buffers; the left one wins ties."""
    b = Builder()
    keys, to_keys = (_parameter(name, dtype) for name in ("keys", "to_keys"))
    places, to_places = (_parameter(name, INT64) for name in ("places", "to_places"))
    n, width = _number(0, "n"), _number(1, "width")
    one = b.literal(1, INT64)
    last = b.variable(b.sub(n, one), "last")
    start = b.variable(b.literal(0, INT64), "start")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.lt(b.get(start), n))
        with parts.body():
            begin = b.get(start)
            middle = b.variable(b.min(b.add(begin, width), n), "middle")
            stop = b.variable(b.min(b.add(b.get(middle), width), n), "stop")
            left, right = b.variable(begin, "left"), b.variable(b.get(middle), "right")
            with b.loop(b.get(stop), begin, hint="k") as k:
                at_left, at_right = b.get(left), b.get(right)
                x = b.load(keys, b.min(at_left, b.get(last)), hint="x")
                y = b.load(keys, b.min(at_right, b.get(last)), hint="y")
                wins = b.or_(b.le(b.get(middle), at_left), comes_before(b, y, x))
                from_right = b.variable(b.and_(b.lt(at_right, b.get(stop)), wins), "from_right")
                b.store(to_keys, k, b.select(b.get(from_right), y, x))
                b.store(to_places, k, b.load(places, b.select(b.get(from_right), at_right, at_left)))
                taken = b.cast(b.get(from_right), INT64)
                b.set(left, b.add(at_left, b.sub(one, taken)))
                b.set(right, b.add(at_right, taken))
            b.set(start, b.get(stop))
    title = "Merge pairs of sorted runs; of equal keys the left one comes first"
    return Function(f"merge_runs_{dtype.name}", (keys, places, to_keys, to_places), (n, width), b.root, title)
