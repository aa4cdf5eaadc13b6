"""`OnFloats` against exact arithmetic: every instruction is total, and `fma` is rounded once."""

from __future__ import annotations

import inspect
import itertools
from fractions import Fraction

import numpy as np
import pytest

from staticgrad.errors import VerificationError
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats, exact_fma
from staticgrad.ir.loops import OPCODES

B = OnFloats()
FORMATS = (np.float32, np.float64)
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
by_format = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)
by_integer = pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: dtype.__name__)


# ---- fma


def rounded(value: Fraction, dtype: type) -> np.floating:
    """Return the nearest number of `dtype`, ties to even, by integer arithmetic alone."""
    form = np.finfo(dtype)
    if value == 0:
        return dtype(0)
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    unit = max(exponent, form.minexp) - form.nmant
    count = round(size / Fraction(2) ** unit)
    with np.errstate(over="ignore"):
        result = np.ldexp(dtype(count), unit) if count * Fraction(2) ** unit < Fraction(2) ** form.maxexp else dtype(np.inf)
    return -result if value < 0 else result


def reference_fma(x: np.floating, y: np.floating, z: np.floating) -> np.floating:
    dtype = type(x)
    if not (np.isfinite(x) and np.isfinite(y)):
        return x * y + z
    if not np.isfinite(z):
        return z
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    if exact == 0:
        product_sign = np.copysign(1, x) * np.copysign(1, y)
        negative = product_sign < 0 and np.signbit(z) and (x == 0 or y == 0)
        return dtype(-0.0 if negative else 0.0)
    return rounded(exact, dtype)


def assert_fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    found = exact_fma(x, y, z)
    with np.errstate(all="ignore"):
        expected = np.array([reference_fma(*operands) for operands in zip(x, y, z, strict=True)], x.dtype)
    same = (found == expected) & (np.signbit(found) == np.signbit(expected)) | np.isnan(found) & np.isnan(expected)
    wrong = np.flatnonzero(~same)
    assert not wrong.size, [(x[i], y[i], z[i], found[i], expected[i]) for i in wrong[:10]]


def scaled(rng: np.random.Generator, dtype: type, count: int, low: int, high: int, bits: int = 60) -> np.ndarray:
    """Return random numbers with `bits` random bits and exponents in a range."""
    form = np.finfo(dtype)
    bits = min(bits, form.nmant + 1)
    with np.errstate(over="ignore"):
        whole = rng.integers(2 ** (bits - 1), 2**bits, count).astype(dtype) * rng.choice([-1, 1], count).astype(dtype)
        return np.ldexp(whole, rng.integers(low, high, count) - bits)


@by_format
@pytest.mark.parametrize("bits", [60, 12])  # few bits make ties
def test_fma_of_random_numbers(dtype: type, bits: int) -> None:
    form, rng = np.finfo(dtype), np.random.default_rng(11)
    low, high = form.minexp - form.nmant, form.maxexp
    for reach in (3, form.nmant, 2 * form.nmant):
        x, y, z = (scaled(rng, dtype, 800, -reach, reach, bits) for _ in range(3))
        assert_fma(x, y, z)
        assert_fma(x, y, z * z)
    assert_fma(*(scaled(rng, dtype, 1500, low, high, bits) for _ in range(3)))


@by_format
def test_fma_that_cancels(dtype: type) -> None:
    form, rng = np.finfo(dtype), np.random.default_rng(12)
    for middle in (0, form.minexp // 2, form.minexp // 2 - form.nmant // 2, form.maxexp // 2 - 3):
        x, y = (scaled(rng, dtype, 800, middle - 2, middle + 2) for _ in range(2))
        z = -(x * y)
        assert_fma(x, y, z)
        assert_fma(x, y, np.nextafter(z, dtype(np.inf)))


@by_format
def test_fma_at_the_ends_of_the_range(dtype: type) -> None:
    form, rng = np.finfo(dtype), np.random.default_rng(13)
    low, high = form.minexp // 2, form.maxexp // 2
    for middle, spread in ((low, form.nmant), (low - form.nmant // 2, 4), (high, 3)):
        x, y = (scaled(rng, dtype, 600, middle - spread, middle + spread) for _ in range(2))
        z = scaled(rng, dtype, 600, 2 * middle - spread, min(2 * middle + spread, form.maxexp))
        assert_fma(x, y, z)
        assert_fma(x, y, np.zeros_like(z))


@by_format
def test_fma_of_special_values(dtype: type) -> None:
    form = np.finfo(dtype)
    positive = [0.0, np.inf, np.nan, 1, 0.5, 3, form.max, form.tiny, form.smallest_subnormal, 1 + form.eps, 1 - form.epsneg, form.tiny * 3]
    values = np.array([*positive, *(-v for v in positive)], dtype)
    assert_fma(*(grid.ravel() for grid in np.meshgrid(values, values, values)))


@by_format
def test_fma_broadcasts_and_keeps_scalars(dtype: type) -> None:
    assert isinstance(exact_fma(dtype(2), dtype(3), dtype(4)), dtype)
    found = exact_fma(np.arange(6, dtype=dtype).reshape(2, 3), dtype(2), np.ones(3, dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.arange(6).reshape(2, 3) * 2 + 1)


# ---- integers


def edges(dtype: type) -> np.ndarray:
    form = np.iinfo(dtype)
    wanted = {form.min, form.min + 1, form.max, form.max - 1, *range(-4, 5), form.max // 3, form.min // 3, 100, -100, 1 << (form.bits // 2)}
    return np.array([v for v in sorted(wanted) if form.min <= v <= form.max], dtype)


def wrapped(value: int, dtype: type) -> int:
    form = np.iinfo(dtype)
    return (value - form.min) % 2**form.bits + form.min


def quotient(x: int, y: int) -> int:
    return 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


MODELS = {
    "add": lambda x, y, width: x + y,
    "sub": lambda x, y, width: x - y,
    "mul": lambda x, y, width: x * y,
    "mulhi": lambda x, y, width: (x * y) >> width,
    "quotient": lambda x, y, width: quotient(x, y),
    "remainder": lambda x, y, width: x - y * quotient(x, y) if y else 0,
    "min": lambda x, y, width: min(x, y),
    "max": lambda x, y, width: max(x, y),
    "and_": lambda x, y, width: x & y,
    "or_": lambda x, y, width: x | y,
    "xor": lambda x, y, width: x ^ y,
    "shl": lambda x, y, width: x << y if 0 <= y < width else 0,
    "shr": lambda x, y, width: x >> y if 0 <= y < width else -(x < 0),
}


@by_integer
@pytest.mark.parametrize("name", MODELS)
def test_integer_instruction(name: str, dtype: type) -> None:
    width = np.iinfo(dtype).bits
    values = np.concatenate([edges(dtype), np.array([width - 1, width, width + 1], dtype)])
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    found = getattr(B, name)(x, y)
    assert found.dtype == dtype
    expected = [wrapped(MODELS[name](a, c, width), dtype) for a, c in zip(x.tolist(), y.tolist(), strict=True)]
    assert found.tolist() == expected
    assert getattr(B, name)(x[5], y[5]) == expected[5]


@by_integer
def test_integers_of_one_operand(dtype: type) -> None:
    x = edges(dtype)
    assert B.neg(x).tolist() == [wrapped(-v, dtype) for v in x.tolist()]
    assert B.abs(x).tolist() == [wrapped(abs(v), dtype) for v in x.tolist()]
    assert B.not_(x).tolist() == [wrapped(~v, dtype) for v in x.tolist()]
    assert not np.any(B.is_nan(x))
    assert B.shl(x, 3).tolist() == [wrapped(v << 3, dtype) for v in x.tolist()]


# ---- casts


@pytest.mark.parametrize("source", FORMATS, ids=lambda dtype: dtype.__name__)
@by_integer
def test_cast_of_floats_to_integers(dtype: type, source: type) -> None:
    powers = [2.0**k for k in (0, 7, 8, 15, 16, 31, 32, 52, 62, 63, 64, 100)]
    near = [value + step for value in powers for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    x = np.array([*near, *(-v for v in near), 0.0, -0.0, np.inf, -np.inf, np.nan, 300.75, -1.75], source)
    narrow = np.iinfo(dtype).bits < 32 or dtype is np.int32
    wide = np.int32 if narrow else np.int64

    def model(value: float) -> int:
        if dtype is np.uint64 and 2.0**63 <= value < 2.0**64:
            return int(value)
        form = np.iinfo(wide)
        inside = np.isfinite(value) and form.min <= int(value) <= form.max
        return wrapped(int(value) if inside else form.min, dtype)

    assert B.cast(x, np.dtype(dtype)).tolist() == [model(v) for v in x.tolist()]


@by_format
def test_other_casts(dtype: type) -> None:
    assert B.cast(np.array([0.0, -0.0, 0.25, np.nan], dtype), np.dtype(bool)).tolist() == [False, False, True, True]
    assert B.cast(np.array([False, True]), np.dtype(dtype)).tolist() == [0.0, 1.0]
    assert B.cast(np.int64(2**62 + 1), np.dtype(dtype)) == dtype(2**62)
    assert B.cast(np.float64(1e300), np.dtype(np.float32)) == np.inf
    assert B.cast(np.uint8(200), np.dtype(np.int8)) == -56
    assert B.bitcast(np.float32(1), np.dtype(np.uint32)) == 0x3F800000


# ---- floats


@by_format
def test_nan_in_comparisons_and_extremes(dtype: type) -> None:
    x, y = np.array([np.nan, 1, np.nan], dtype), np.array([1, np.nan, np.nan], dtype)
    for name in ("lt", "le", "eq", "gt", "ge"):
        assert not getattr(B, name)(x, y).any()
    assert B.ne(x, y).all()
    assert np.isnan(B.min(x, y)).all() and np.isnan(B.max(x, y)).all()
    assert B.is_nan(x).tolist() == [True, False, True]


@by_format
def test_rounding(dtype: type) -> None:
    x = np.array([-2.5, -1.5, -0.5, -0.25, 0.5, 1.5, 2.5, 3.7], dtype)
    assert B.rint(x).tolist() == [-2, -2, 0, 0, 0, 2, 2, 4]
    assert np.signbit(B.rint(x)[2:4]).all()
    assert B.floor(x).tolist() == [-3, -2, -1, -1, 0, 1, 2, 3]
    assert B.trunc(x).tolist() == [-2, -1, 0, 0, 0, 1, 2, 3]


def test_division_and_overflow_are_silent() -> None:
    one, zero, huge = np.float64(1), np.float64(0), np.float64(1e308)
    assert B.div(one, zero) == np.inf
    assert B.mul(huge, huge) == np.inf
    assert np.isnan(B.sqrt(-one))
    assert B.literal(1e300, np.dtype(np.float32)) == np.inf


# ---- the vocabulary as a whole


def test_vocabulary_is_the_builders() -> None:
    public = {name for name in dir(OnFloats) if not name.startswith("_")}
    assert {opcode if opcode not in ("and", "or", "not") else f"{opcode}_" for opcode in OPCODES} <= public
    for name in public:
        theirs, ours = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (Builder, OnFloats))
        assert theirs == ours, name


def test_operands_of_different_dtypes_are_refused() -> None:
    one = np.float32(1)
    for name, others in itertools.product(("add", "lt", "min"), (np.float64(1), np.int32(1))):
        with pytest.raises(VerificationError, match="float32"):
            getattr(B, name)(one, others)
    with pytest.raises(VerificationError):
        B.fma(one, one, np.float64(1))
    with pytest.raises(VerificationError):
        B.sqrt(np.int64(4))
    with pytest.raises(VerificationError):
        B.div(np.int64(4), np.int64(4))
    with pytest.raises(VerificationError):
        B.select(np.int64(1), one, one)
    with pytest.raises(VerificationError):
        B.bitcast(one, np.dtype(np.int64))


def test_branches_on_arrays_assign_where_the_condition_holds() -> None:
    b, x = OnFloats(), np.arange(6.0)
    variable = b.variable(x)
    with b.if_(b.lt(x, b.like(3, x))) as other:
        b.set(variable, b.like(-1, x))
        with b.if_(b.eq(x, b.like(1, x))):
            b.set(variable, b.like(-2, x))
    with b.otherwise(other):
        b.set(variable, b.add(b.get(variable), b.like(10, x)))
    assert b.get(variable).tolist() == [-1, -2, -1, 13, 14, 15]
    with pytest.raises(VerificationError):
        b.set(variable, np.float32(1))


def test_branches_on_scalars() -> None:
    for x, expected in ((1.0, -1.0), (5.0, 5.0)):
        b = OnFloats()
        variable = b.variable(np.float64(x))
        with b.if_(b.lt(np.float64(x), np.float64(3))):
            b.set(variable, np.float64(-1))
        assert b.get(variable) == expected
