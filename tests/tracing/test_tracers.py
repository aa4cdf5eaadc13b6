"""Tracers: views that write through as NumPy's do, promotion, indexing, and what a value not yet known cannot do."""

from __future__ import annotations

import copy
import math
import operator
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad.numpy as snp
from staticgrad.errors import (
    DTypeError,
    IndexingError,
    IntegerPowerError,
    InvalidValueError,
    LeakedTracerError,
    MissingAttributeError,
    OverflowedError,
    ReadOnlyError,
    ShapeError,
    StaticgradError,
    TraceError,
    UnsupportedAttributeError,
    UnsupportedError,
)
from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.tracing.context import Trace
from staticgrad.tracing.tracer import argument_tracer, tracer_of
from tests.tracing.harness import check, traced

X = np.arange(12.0).reshape(3, 4)
V = np.array([1.5, -2.0, 0.25])


def fails(function: Callable[..., Any], *arrays: Any, kind: type[Exception], match: str) -> Exception:
    """Assert that tracing raises `kind`, with this file and function and what `match` says in the message."""
    with pytest.raises(kind, match=f"(?s){match}") as raised:
        traced(function, *arrays)
    assert isinstance(raised.value, StaticgradError)
    assert f"{__file__}:" in str(raised.value)
    assert "in <lambda>" in str(raised.value) or f"in {function.__name__}" in str(raised.value)
    return raised.value


# ---- promotion ------------------------------------------------------------------------------------------------------------

BINARY = [
    np.add, np.subtract, np.multiply, np.divide, np.power, np.maximum, np.minimum, np.less, np.less_equal, np.greater, np.greater_equal,
    np.equal, np.not_equal, np.logical_and, np.logical_or, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.float_power,
]  # fmt: skip
UNARY = [
    np.negative, np.positive, np.absolute, np.fabs, np.sign, np.floor, np.sqrt, np.square, np.exp, np.expm1, np.log, np.log1p, np.sin, np.cos,
    np.tanh, np.logical_not, np.invert, np.isnan, np.isinf, np.isfinite, np.conjugate, np.reciprocal,
]  # fmt: skip


def sample(dtype: Any) -> np.ndarray:
    kind = np.dtype(dtype).kind
    return np.array([True, False, True] if kind == "b" else [3, 1, 2] if kind == "u" else [3, 1, -2]).astype(dtype)


def outcome(ufunc: Any, *operands: Any) -> Any:
    """Return NumPy's result, or the exception it raises."""
    with np.errstate(all="ignore"):
        try:
            return ufunc(*operands)
        except (TypeError, ValueError, OverflowError) as error:
            return error


def same_outcome(ufunc: Any, make: Callable[..., Any], *arrays: np.ndarray) -> None:
    expected = outcome(lambda *x: ufunc(*make(*x)), *arrays)
    if isinstance(expected, Exception):
        builtin = next(kind for kind in type(expected).__mro__ if kind.__module__ == "builtins")
        with pytest.raises(builtin) as raised:
            traced(lambda *x: ufunc(*make(*x)), *arrays)
        assert isinstance(raised.value, StaticgradError)
    elif expected.dtype == np.float16:
        with pytest.raises(DTypeError, match="float16"):
            traced(lambda *x: ufunc(*make(*x)), *arrays)
    else:
        check(lambda *x: ufunc(*make(*x)), *arrays, rtol=1e-12)


@pytest.mark.parametrize("ufunc", BINARY, ids=lambda u: u.__name__)
def test_promotion_of_two_dtypes_is_numpys(ufunc: Any) -> None:
    for first in DTYPES:
        for second in DTYPES:
            if ufunc is np.power and np.dtype(second).kind == "i":
                continue  # negative exponents: below
            same_outcome(ufunc, lambda x, y: (x, y), sample(first), sample(second))


@pytest.mark.parametrize("ufunc", BINARY, ids=lambda u: u.__name__)
@pytest.mark.parametrize("scalar", [2, -1, 300, 2**40, 2.0, 0.5, True, np.float32(2), np.int8(2), np.uint64(7)], ids=repr)
def test_promotion_with_scalars_is_numpys(ufunc: Any, scalar: Any) -> None:
    for dtype in DTYPES:
        if ufunc is np.power and isinstance(scalar, int) and abs(scalar) > 100:
            continue
        same_outcome(ufunc, lambda x: (x, scalar), sample(dtype))
        if ufunc is not np.power or np.dtype(dtype).kind == "f":
            same_outcome(ufunc, lambda x: (scalar, x), sample(dtype))


@pytest.mark.parametrize("ufunc", UNARY, ids=lambda u: u.__name__)
def test_promotion_of_one_dtype_is_numpys(ufunc: Any) -> None:
    for dtype in DTYPES:
        if ufunc is np.reciprocal and np.dtype(dtype).kind != "f":
            continue
        same_outcome(ufunc, lambda x: (x,), sample(dtype))


def test_python_numbers_stay_weak_until_they_meet_numpy() -> None:
    single = np.ones(3, np.float32)

    def weak(x: Any, s: Any) -> Any:
        return x * s, x * (2 * s + 1), x * -abs(s), x * np.exp(s), x * np.sum(s), x * np.where(x > 0, s, 1.0), x * np.maximum(s, 0)

    with Trace("weak") as trace:
        inputs = (new_input(Aval((3,), np.dtype(np.float32))), new_input(Aval((), np.dtype(float), weak=True)))
        found = weak(*(argument_tracer(v, trace, "x") for v in inputs))
    assert [str(each.dtype) for each in weak(single, 0.5)] == [str(t._storage.value.dtype) for t in found]


def test_written_python_numbers_are_no_longer_weak() -> None:
    def fill(f: Any) -> Any:
        z = snp.zeros(3)
        z[:] = 1.0
        s = snp.zeros(())
        s[...] = 2
        return z * f, s * f, snp.full(3, 1.0) * f, snp.array(1.0) * f, np.full_like(f, 2) * f, np.broadcast_to(2.0, 3) * f

    check(fill, np.ones(3, np.float32))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, 10, -1, -2, 0.5, 1.5, -0.5, 64, 65])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i2", "u1"])
def test_powers(exponent: Any, dtype: str) -> None:
    x = np.array([1, 2, 3], dtype)
    if exponent < 0 and isinstance(exponent, int) and np.dtype(dtype).kind != "f":
        kind, match = (OverflowedError, "out of bounds for uint8") if dtype == "u1" else (IntegerPowerError, "negative integer powers")
        with pytest.raises(kind, match=match):
            traced(lambda x: x**exponent, x)
        return
    check(lambda x: x**exponent, x, rtol=1e-14)
    check(lambda x: np.power(x, np.float64(exponent)), x, rtol=1e-14)


def test_signed_and_unsigned_are_compared_exactly() -> None:
    x, y = np.array([-1, 2**62, 5, 0]), np.array([2**64 - 1, 2**62, 4, 0], np.uint64)
    for ufunc in (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal):
        check(ufunc, x, y)
        check(ufunc, y, x)
    check(lambda y: (y > -1, y == -1, y < 2**63, -1 < y), y)
    check(lambda u: (u < 300, u == 256, 256 > u, u != -1), np.array([1, 255], np.uint8))


def test_keywords_of_universal_functions() -> None:
    def keywords(x: Any, y: Any) -> Any:
        z = x.copy()
        np.add(x, y, out=z, where=x > 3)
        return z, np.add(x, 1, dtype=np.float32), np.multiply(x, y, order="C"), np.less(x, y), np.add(x, 2, casting="same_kind")

    check(keywords, X, X[::-1].copy())
    fails(lambda x: np.add(x, 1, where=x > 2), X, kind=StaticgradError, match="np.where")
    fails(lambda x: np.add(x, 1, dtype=int), X, kind=DTypeError, match="add.*f64.*int64")
    fails(lambda x: np.add(x, 1, signature="dd->d"), X, kind=UnsupportedError, match="signature")
    fails(lambda x: np.add(x, x, out=np.zeros(3)), X, kind=TraceError, match="snp.zeros")
    fails(lambda x: np.add(x, x, out=snp.zeros(4)), X, kind=ShapeError, match=r"f64\[3,4\].*\(4,\)")
    fails(lambda x: np.add(x, x, out=snp.zeros((3, 4), int)), X, kind=DTypeError, match="same_kind")


def test_real_arrays_on_either_side() -> None:
    check(lambda x: (X + x, x + X, X @ x.T, X[0] - x, X < x, 2**x, [1.0, 2, 3, 4] * x, X.tolist() @ x.T), X)

    def in_place(x: Any) -> Any:
        real = np.zeros((3, 4))
        real += x
        return real

    fails(in_place, X, kind=TraceError, match=r"real NumPy array.*snp\.zeros")


# ---- views and writes -----------------------------------------------------------------------------------------------------


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
        "reshape": lambda: lambda x, shape=tuple(data.draw(st.permutations((*part.shape, 1)))): x.reshape(shape),
        "merge": lambda: lambda x: x.reshape(-1, *x.shape[2:]) if x.ndim > 1 and x.size else x.reshape(x.shape),
        "split": lambda: lambda x: np.array_split(x, 2)[1] if x.ndim else x,
        "order": lambda: lambda x, order=tuple(data.draw(st.permutations(range(part.ndim)))): x.transpose(order),
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
        zero = snp.zeros(())
        alias = zero
        alias += 5
        return first, before, total, old, z, zero

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


# ---- indexing errors ------------------------------------------------------------------------------------------------------

BAD_INDICES: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: x[3], IndexingError, "index 3 .*axis 0 .*size 3"),
    (lambda x: x[0, -5], IndexingError, "index -5 .*axis 1 .*size 4"),
    (lambda x: x[0, 0, 0], IndexingError, r"too many.*\(3, 4\)"),
    (lambda x: x[..., ...], IndexingError, "single ellipsis"),
    (lambda x: x[1.0], IndexingError, "1.0"),
    (lambda x: x["a"], IndexingError, "'a'"),
    (lambda x: x[::0], InvalidValueError, "zero"),
    (lambda x: x[: x[0, 0]], TraceError, "integer"),
    (lambda x: x["a":], IndexingError, "slice"),  # type: ignore[misc]
    (lambda x: x[x > 0], UnsupportedError, "np.where"),
    (lambda x: x[x[0].astype(int)], UnsupportedError, r"i64\[4\]"),
    (lambda x: x[[0, 1]], UnsupportedError, "list"),
    (lambda x: x[np.array([0, 1])], UnsupportedError, "array"),
    (lambda x: x[True], UnsupportedError, "mask"),
]


@pytest.mark.parametrize(("function", "kind", "match"), BAD_INDICES)
def test_bad_indices(function: Callable[[Any], Any], kind: type[Exception], match: str) -> None:
    fails(function, X, kind=kind, match=match)


def test_integer_like_indices() -> None:
    check(lambda x: (x[np.int64(1)], x[np.array(1)], x[np.int8(-1), 2], x[()], x[..., None], x[1:2, ..., 0]), X)


# ---- what needs a value ---------------------------------------------------------------------------------------------------

NEEDS_VALUE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "if": (lambda x: 1 if x[0, 0] > 0 else 2, r"bool\[\].*np\.where"),
    "and": (lambda x: x[0, 0] and x, "np.where"),
    "while": (lambda x: next(iter(int, 1)) if not x.any() else x, "while_loop"),
    "float": (lambda x: float(x[0, 0]), r"float\(\).*f64\[\]"),
    "int": (lambda x: int(x[0, 0]), "static_argnames"),
    "complex": (lambda x: complex(x[0, 0]), "complex"),
    "range": (lambda x: range(x.astype(int)[0, 0]), "static_argnames"),
    "asarray": (lambda x: np.asarray(x), r"snp\.array.*f64\[3,4\]|f64\[3,4\].*snp\.array"),
    "array of list": (lambda x: np.array([x[0, 0], 1.0]), r"snp\.array"),
    "full": (lambda x: np.full(3, x[0, 0]), r"snp\.array"),
    "math": (lambda x: math.exp(x[0, 0]), "float"),
    "item": (lambda x: x[0, 0].item(), "item"),
    "tolist": (lambda x: x.tolist(), "tolist"),
    "tobytes": (lambda x: x.tobytes(), "tobytes"),
    "len": (lambda x: len(x[0, 0]), "len"),
    "iter": (lambda x: list(x[0, 0]), "iterated"),
    "in": (lambda x: 3.0 in x, "bool"),
    "axis": (lambda x: np.sum(x, axis=x[0, 0]), "integer"),
    "shape": (lambda x: x.reshape(x[0, 0].astype(int)), "integer"),
    "arange": (lambda x: snp.arange(x[0, 0]), "arange"),
    "where": (lambda x: np.where(x > 0), "not known"),
    "sum of list": (lambda x: np.sum([x[0, 0], 1.0]), r"snp"),
}


@pytest.mark.parametrize("name", NEEDS_VALUE)
def test_what_needs_a_value_says_the_way_out(name: str) -> None:
    function, match = NEEDS_VALUE[name]
    error = fails(function, X, kind=StaticgradError, match=match)
    assert isinstance(error, TypeError)


def test_operands_that_are_no_arrays_of_numbers() -> None:
    fails(lambda x: x + "a", X, kind=TypeError, match="static_argnames")
    fails(lambda x: x + None, X, kind=TypeError, match="NoneType")
    fails(lambda x: x * np.ma.masked_array([1.0], [True]), X, kind=TypeError, match="masked")
    fails(lambda x: x * 2**70, X, kind=OverflowError, match="64 bits")
    fails(lambda x: x * (1 + 2j), X, kind=TypeError, match="complex128")
    fails(lambda x: x * np.float16(2), X, kind=TypeError, match="float16")
    fails(lambda x: x + [[1.0], [1.0, 2.0]], X, kind=ValueError, match="list")
    fails(lambda x: snp.array([x, x[0]]), X, kind=ShapeError, match=r"\(3, 4\), \(4,\)")
    fails(lambda x: snp.array([[x[0, 0]], [x[0, 0], 1.0]]), X, kind=ShapeError, match=r"\(1,\), \(2,\)")


def test_pandas_objects_are_their_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    check(lambda x: x * np.asarray([1.0, 2.0, 3.0]), V)
    (found,) = traced(lambda x: x * pandas.Series([1.0, 2.0, 3.0]).to_numpy(), V)
    np.testing.assert_array_equal(found, V * [1, 2, 3])
    np.testing.assert_array_equal(traced(lambda x: np.add(x, pandas.Series([1.0, 2.0, 3.0])), V)[0], V + [1, 2, 3])


# ---- attributes -----------------------------------------------------------------------------------------------------------


def test_attributes_and_hasattr() -> None:
    with Trace("t") as trace:
        x = argument_tracer(new_input(Aval((3, 4), np.dtype(float)), "x", trace), trace, "x")
        assert hasattr(x, "sum")
        assert hasattr(x, "T")
        assert callable(x.mean)
        for name in ("sort", "cumsum", "flags", "strides", "ctypes", "base", "data", "put", "nonzero"):
            assert not hasattr(x, name)
            with pytest.raises(UnsupportedAttributeError, match=rf"(?s)\.{name} of a traced array.*test_tracers\.py"):
                getattr(x, name)
        for name in ("summ", "iloc", "_repr_html_", "to_numpy", "grad", "__array_interface__", "__cuda_array_interface__"):
            assert not hasattr(x, name)
            with pytest.raises(AttributeError):
                getattr(x, name)
        with pytest.raises(MissingAttributeError, match="'summ'.*sum"):
            x.summ  # noqa: B018
        with pytest.raises(UnsupportedError, match="ravel"):
            x.flat  # noqa: B018
        with pytest.raises(UnsupportedError, match="nonsense"):
            x.sum(nonsense=2)
        with pytest.raises(TypeError, match="unhashable"):
            hash(x)
        assert repr(x) == str(x) == f"{x}" == "Tracer<float64[3,4]>"
        assert x.sum.__name__
    assert "dead" in repr(x)


def test_conversion_methods() -> None:
    check(lambda x: (x.astype("f4"), x.astype(int), x.astype(np.dtype("u1")), x.real, x.imag, x.mT, x.T), X)
    fails(lambda x: x[0].mT, X, kind=UnsupportedError, match="mT")
    fails(lambda x: x.astype(complex), X, kind=DTypeError, match="complex128")


# ---- the life of a tracer ----------------------------------------------------------------------------------------------------


def test_leaked_tracers() -> None:
    kept: list[Any] = []
    traced(lambda x: kept.append(x) or x, X)
    for use in (lambda x: x + 1, lambda x: x.shape, lambda x: np.sum(x), lambda x: operator.setitem(x, 0, 1)):
        with pytest.raises(LeakedTracerError, match="traced.*Return it"):
            use(kept[0])
    with pytest.raises(LeakedTracerError):
        tracer_of(new_input(Aval((), np.dtype(float))))


def test_tracers_of_an_outer_trace_can_be_read_and_not_written() -> None:
    with Trace("outer") as outer:
        value = new_input(Aval((3,), np.dtype(float)), "x", outer)
        x = argument_tracer(value, outer, "x")
        z = x.copy()
        with Trace("inner"):
            y = x + z
            with pytest.raises(ReadOnlyError, match=r"'outer'.*'inner'"):
                z[0] = 1
        z[0] = 1
        graph = Graph((value,), (z.value,))
    np.testing.assert_array_equal(interpret(graph, [V])[0], [1, *V[1:]])
    with pytest.raises(LeakedTracerError):
        y + 1


def test_a_tracer_of_another_thread_is_an_error() -> None:
    raised: list[Exception] = []

    def use(x: Any) -> None:
        try:
            x + 1
        except LeakedTracerError as error:
            raised.append(error)

    with Trace("t") as trace:
        x = argument_tracer(new_input(Aval((), np.dtype(float)), "x", trace), trace, "x")
        thread = threading.Thread(target=use, args=(x,))
        thread.start()
        thread.join()
    assert "another thread" in str(raised[0])


def test_iteration_unpacks_rows() -> None:
    def unpack(x: Any) -> Any:
        first, *others = x
        z = x.copy()
        for row in z:
            row += 1
        return first, others, z, sum(x), [a + b for a, b in zip(*x[:2], strict=True)]

    check(unpack, X)


def test_universal_function_methods() -> None:
    check(lambda x: (np.add.reduce(x), np.maximum.reduce(x, axis=1), np.multiply.outer(x[0], x[:, 1]), np.add.reduce(x, keepdims=True)), X)
    fails(lambda x: np.add.accumulate(x), X, kind=UnsupportedError, match=r"np\.add\.accumulate.*reduce")
    fails(lambda x: np.add.reduceat(x, [0, 1]), X, kind=UnsupportedError, match="reduceat")
    fails(lambda x: np.add.at(np.zeros(3), 0, x[0, 0]), X, kind=TraceError, match=r"snp\.zeros")
    fails(lambda x: np.add.at(x.copy(), [0, 0], 1), X, kind=UnsupportedError, match="list")
    fails(lambda x: np.arctan2(x, x), X, kind=UnsupportedError, match=r"np\.arctan2.*tanh")
