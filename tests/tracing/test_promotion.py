"""Promotion: every universal function gives NumPy's dtypes (NEP 50) and NumPy's exceptions, for every pair of dtypes and Python scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import staticgrad.numpy as snp
from staticgrad.errors import (
    DTypeError,
    IntegerPowerError,
    OverflowedError,
    ShapeError,
    StaticgradError,
    TraceError,
    UnsupportedError,
)
from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.node import new_input
from staticgrad.tracing.context import Trace
from staticgrad.tracing.tracer import argument_tracer
from tests.tracing.harness import check, fails, traced

X = np.arange(12.0).reshape(3, 4)
V = np.array([1.5, -2.0, 0.25])

BINARY = [
    np.add, np.subtract, np.multiply, np.divide, np.power, np.maximum, np.minimum, np.less, np.less_equal, np.greater, np.greater_equal,
    np.equal, np.not_equal, np.logical_and, np.logical_or, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.float_power,
    np.fmax, np.fmin, np.floor_divide, np.remainder, np.fmod, np.copysign, np.heaviside, np.nextafter, np.hypot, np.arctan2, np.logaddexp,
    np.logaddexp2, np.left_shift, np.right_shift, np.gcd, np.lcm, np.ldexp,
]  # fmt: skip
UNARY = [
    np.negative, np.positive, np.absolute, np.fabs, np.sign, np.floor, np.sqrt, np.square, np.exp, np.expm1, np.log, np.log1p, np.sin,
    np.cos, np.tanh, np.logical_not, np.invert, np.isnan, np.isinf, np.isfinite, np.conjugate, np.reciprocal,
    np.ceil, np.trunc, np.rint, np.cbrt, np.exp2, np.log2, np.log10, np.tan, np.arcsin, np.arccos, np.arctan, np.sinh, np.cosh, np.arcsinh,
    np.arccosh, np.arctanh, np.signbit, np.deg2rad, np.rad2deg, np.degrees, np.radians,
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
        if (ufunc is np.power and isinstance(scalar, int) and abs(scalar) > 100) or (ufunc is np.ldexp and scalar == 2**40):
            continue
        same_outcome(ufunc, lambda x: (x, scalar), sample(dtype))
        if ufunc is not np.power or np.dtype(dtype).kind == "f":
            same_outcome(ufunc, lambda x: (scalar, x), sample(dtype))


@pytest.mark.parametrize("ufunc", UNARY, ids=lambda u: u.__name__)
def test_promotion_of_one_dtype_is_numpys(ufunc: Any) -> None:
    for dtype in DTYPES:
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
    check(lambda y: (y > -1, y == -1, y < 2**63, np.less(-1, y)), y)
    check(lambda u: (u < 300, u == 256, np.greater(256, u), u != -1), np.array([1, 255], np.uint8))


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
    check(lambda x: (X + x, x + X, X @ x.T, X[0] - x, x > X, 2**x, [1.0, 2, 3, 4] * x, X.tolist() @ x.T), X)

    def in_place(x: Any) -> Any:
        real = np.zeros((3, 4))
        real += x
        return real

    fails(in_place, X, kind=TraceError, match=r"real NumPy array.*snp\.zeros")
