"""Tracers: indexing, what a value not yet known cannot do, attributes, and what happens after their trace."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import staticgrad.numpy as snp
from staticgrad.errors import (
    DTypeError,
    IndexingError,
    InvalidValueError,
    LeakedTracerError,
    MissingAttributeError,
    ReadOnlyError,
    ShapeError,
    StaticgradError,
    TraceError,
    UnsupportedAttributeError,
    UnsupportedError,
)
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.tracing.context import Trace
from staticgrad.tracing.tracer import argument_tracer, tracer_of
from tests.tracing.harness import check, fails, traced

X = np.arange(12.0).reshape(3, 4)
V = np.array([1.5, -2.0, 0.25])

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
    (lambda x: x[[0, 3]], IndexingError, "index 3 .*axis 0 .*size 3"),
    (lambda x: x[0, np.array([1, -5])], IndexingError, "index -5 .*axis 1 .*size 4"),
    (lambda x: x[x[0]], IndexingError, r"integer.*f64\[4\]"),
    (lambda x: x[[0, 1], [0, 1, 2]], IndexingError, r"\(2,\) \(3,\)"),
    (lambda x: x[[True, False]], IndexingError, "axis 0; size of axis is 3 .*axis is 2"),
    (lambda x: x[..., [0], ...], IndexingError, "single ellipsis"),
    (lambda x: x[[0], 0, 0], IndexingError, r"too many.*\(3, 4\)"),
    (lambda x: x[0:0][x[0].astype(int)], IndexingError, r"i64\[4\].*axis 0 with size 0"),
    (lambda x: x.copy().__setitem__(x[0] > 0, 1.0), IndexingError, "axis 0; size of axis is 3 .*axis is 4"),
    (lambda x: x.copy().__setitem__(x > 0, np.ones(5)), ShapeError, r"np\.where"),
    (lambda x: np.arange(9)[x[0, 0].astype(int)], TraceError, r"snp\.take"),
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
    "float": (lambda x: float(x[0, 0]), r"float\(\).*f64\[\].*np\.exp"),
    "int": (lambda x: int(x[0, 0]), "static_argnames"),
    "complex": (lambda x: complex(x[0, 0]), "complex"),
    "range": (lambda x: range(x.astype(int)[0, 0]), "static_argnames"),
    "asarray": (lambda x: np.asarray(x, float), r"snp\.array.*f64\[3,4\]|f64\[3,4\].*snp\.array"),
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


def scipy_softmax(x: Any) -> Any:
    return scipy.special.softmax(x, axis=0)


def test_operands_that_are_no_arrays_of_numbers() -> None:
    fails(lambda x: x + "a", X, kind=TypeError, match="static_argnames")
    fails(lambda x: x + None, X, kind=TypeError, match="NoneType")
    fails(lambda x: x * np.ma.masked_array([1.0], [True]), X, kind=TypeError, match="masked")
    fails(lambda x: x * 2**70, X, kind=OverflowError, match="64 bits")
    fails(lambda x: x * (1 + 2j), X, kind=TypeError, match="complex128")
    fails(lambda x: x * np.float16(2), X, kind=TypeError, match="float16")
    fails(lambda x: x * [[1.0], [1.0, 2.0]], X, kind=ValueError, match="list")
    fails(lambda x: snp.array([x, x[0]]), X, kind=ShapeError, match=r"\(3, 4\), \(4,\)")
    fails(lambda x: snp.array([[x[0, 0]], [x[0, 0], 1.0]]), X, kind=ShapeError, match=r"\(1,\), \(2,\)")


def test_pandas_objects_are_their_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    check(lambda x: x * np.asarray([1.0, 2.0, 3.0]), V)
    series, frame = pandas.Series([1.0, 2.0, 3.0]), pandas.DataFrame(np.eye(3) * 2)
    found = traced(lambda x: (x * series, series * x, np.add(x, series), x @ frame, series - x), V)
    for ours, theirs in zip(found, (V * [1, 2, 3], V * [1, 2, 3], V + np.arange(1, 4), 2 * V, np.arange(1, 4) - V), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_functions_of_scipy_that_do_not_arrive_name_what_to_use() -> None:
    fails(scipy_softmax, X, kind=TraceError, match=r"SciPy's softmax.*sg\.nn\.softmax")
    fails(lambda x: scipy.special.polygamma(1, x), X, kind=TraceError, match="SciPy's polygamma.*NumPy's functions")


# ---- attributes -----------------------------------------------------------------------------------------------------------


def test_attributes_and_hasattr() -> None:
    with Trace("t") as trace:
        x = argument_tracer(new_input(Aval((3, 4), np.dtype(float)), "x", trace), trace, "x")
        assert hasattr(x, "sum")
        assert hasattr(x, "T")
        assert callable(x.mean)
        for name in ("cumprod", "flags", "strides", "ctypes", "base", "data", "nonzero"):
            assert not hasattr(x, name)
            with pytest.raises(UnsupportedAttributeError, match=rf"(?s)\.{name} of a traced array.*test_tracers\.py"):
                getattr(x, name)
        for name in ("summ", "iloc", "_repr_html_", "to_numpy", "grad", "__array_interface__", "__cuda_array_interface__"):
            assert not hasattr(x, name)
            with pytest.raises(AttributeError):
                getattr(x, name)
        with pytest.raises(MissingAttributeError, match=r"'summ'.*sum"):
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
    fails(lambda x: setattr(x, "shape", (12,)), X, kind=UnsupportedAttributeError, match=r"x\.reshape\(\(12,\)\)")
    fails(lambda x: x.astype(complex), X, kind=DTypeError, match="complex128")


def test_rounding_by_python() -> None:
    check(lambda x: (round(x[0, 0]), round(x[1, 1], 1), math.floor(x[0, 1]), math.ceil(x[0, 1]), math.trunc(-x[0, 2])), X + 0.25)
    check(lambda i: (round(i[0]), math.floor(i[1]), round(i[1], 1)), np.array([2**62 + 1, -3]))
    fails(lambda x: round(x), X, kind=UnsupportedError, match=r"round\(\) of .*f64\[3,4\].*np\.round")
    fails(lambda x: math.floor(x), X, kind=UnsupportedError, match=r"math\.floor\(\).*np\.floor")


def test_integer_operators_in_place() -> None:
    def change(x: Any, i: Any) -> Any:
        z, k = x.copy(), i.copy()
        z %= 0.75
        z //= 0.25
        k <<= 2
        k >>= 1
        k %= 5
        quotient, rest = np.zeros_like(x), np.zeros_like(x)
        np.divmod(x, 0.5, out=(quotient, rest))
        return z, k, quotient, rest, *divmod(i, 3), divmod(7.0, x), 7 // i, 2 << i, abs(x)

    check(change, X + 0.125, np.arange(1, 13).reshape(3, 4))


def test_functions_of_math_are_named_with_numpys() -> None:
    fails(lambda x: math.exp(x[0, 0]), X, kind=TraceError, match=r"math\.exp.*np\.exp instead of math\.exp")
    fails(lambda x: math.atan2(x[0, 0], 1.0), X, kind=TraceError, match=r"np\.arctan2 instead of math\.atan2")
    fails(lambda x: math.lgamma(x[0, 0]), X, kind=TraceError, match=r"sg\.special\.gammaln instead of math\.lgamma")
    fails(lambda x: float(x[0, 0]), X, kind=TraceError, match=r"float\(\).*np\.exp instead of math\.exp")


# ---- the life of a tracer ----------------------------------------------------------------------------------------------------


def test_leaked_tracers() -> None:
    kept: list[Any] = []
    traced(lambda x: kept.append(x) or x, X)
    for use in (lambda x: x + 1, lambda x: x.shape, np.sum, lambda x: operator.setitem(x, 0, 1)):
        with pytest.raises(LeakedTracerError, match=r"traced.*Return it"):
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
    fails(lambda x: np.multiply.accumulate(x, axis=0), X, kind=UnsupportedError, match=r"np\.multiply\.accumulate.*reduce")
    fails(lambda x: np.add.reduceat(x, [0, 1]), X, kind=UnsupportedError, match="reduceat")
    fails(lambda x: np.add.at(np.zeros(3), 0, x[0, 0]), X, kind=TraceError, match=r"snp\.zeros")
    fails(lambda x: np.maximum.at(x.copy(), x[0].astype(int), 1), X, kind=UnsupportedError, match=r"np\.maximum\.at.*np\.add\.at")
    fails(lambda x: np.modf(x), X, kind=UnsupportedError, match=r"np\.modf.*trunc")
