"""The inverse error function: errors against mpmath and SciPy, exact ends, its polynomials, and what it is as a loop program."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.special

from staticgrad import kernels
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Let, walk
from staticgrad.kernels.floating import DOUBLE, SINGLE
from staticgrad.kernels.inverse_error_function import CONSTANTS
from tests.kernels.accuracy import FORMATS, dense_errors, errors
from tests.kernels.inverse_fits import INVERSE_FITS, ratio
from tests.kernels.test_accuracy import report
from tests.kernels.test_instructions import replay

BOUNDS = {np.float32: 2.1, np.float64: 2.4}
INSTRUCTIONS = {np.float32: 66, np.float64: 108}
TABLES = {
    "erfinv32": (CONSTANTS[SINGLE].centre, CONSTANTS[SINGLE].middle, -27.1),
    "erfinv_tail32": (CONSTANTS[SINGLE].tail, CONSTANTS[SINGLE].tail_middle, -27.1),
    "erfinv64": (CONSTANTS[DOUBLE].centre, CONSTANTS[DOUBLE].middle, -58.1),
    "erfinv_tail64": (CONSTANTS[DOUBLE].tail, CONSTANTS[DOUBLE].tail_middle, -55.2),
}
each_format = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)


def points(dtype: type, count: int, seed: int) -> np.ndarray:
    """Return numbers in (-1, 1): anywhere, near the ends, near 0, and on both sides of the place where the polynomials meet."""
    rng = np.random.default_rng(seed)
    seam = np.sqrt(-np.expm1(-CONSTANTS[SINGLE if dtype == np.float32 else DOUBLE].start))
    bits = 24 if dtype == np.float32 else 53
    parts = [
        rng.uniform(-1, 1, count), 1 - np.ldexp(rng.uniform(1, 2, count), -rng.integers(2, bits + 1, count)),
        np.ldexp(rng.uniform(-1, 1, count), -rng.integers(0, 120, count)), seam * (1 + 1e-3 * rng.uniform(-1, 1, count)),
    ]  # fmt: skip
    x = np.concatenate(parts).astype(dtype)
    return x[np.abs(x) < 1]


def exact(x: float) -> mp.mpf:
    with mp.workprec(300):
        v = mp.mpf(x)
        return v * ratio(-mp.log((1 - v) * (1 + v))) if v else v


@each_format
def test_against_mpmath(dtype: type) -> None:
    x = points(dtype, 500, seed=1)
    found = errors(kernels.erfinv(OnFloats(), x), [exact(v) for v in x.tolist()])
    report("erfinv", dtype, found, BOUNDS[dtype], x)


def test_densely() -> None:
    x = points(np.float32, 100_000, seed=2)
    found = dense_errors(kernels.erfinv(OnFloats(), x), scipy.special.erfinv(x.astype(np.float64)))
    report("erfinv", np.float32, found, BOUNDS[np.float32], x)


@each_format
def test_ends_and_symmetry(dtype: type) -> None:
    b = OnFloats()
    ends = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1.5, -2], dtype)
    expected = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan, np.nan], dtype)
    found = kernels.erfinv(b, ends)
    np.testing.assert_array_equal(found, expected)
    assert np.signbit(found[1]) and not np.signbit(found[0])
    x = points(dtype, 1000, seed=3)
    np.testing.assert_array_equal(kernels.erfinv(b, -x), -kernels.erfinv(b, x))
    small = np.array([np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal * 8], dtype)
    np.testing.assert_allclose(kernels.erfinv(b, small), small * (np.sqrt(np.pi) / 2), rtol=0.1)


@each_format
def test_undoes_erf(dtype: type) -> None:
    x = np.linspace(-0.9, 0.9, 1001).astype(dtype)
    np.testing.assert_allclose(kernels.erf(OnFloats(), kernels.erfinv(OnFloats(), x)), x, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", TABLES)
def test_stated_errors_of_polynomials(name: str) -> None:
    coefficients, middle, stated = TABLES[name]
    fit = INVERSE_FITS[name]
    assert len(coefficients) == fit.terms
    assert fit.function(mp.mpf(0)) == pytest.approx(ratio(mp.mpf(middle) ** (2 if "tail" in name else 1)))
    assert fit.log2_error(list(coefficients), points=60) <= stated + 0.05


@each_format
@pytest.mark.parametrize("lanes", [1, 8])
def test_program(dtype: type, lanes: int) -> None:
    b = Builder()
    operand = b._new(np.dtype(dtype), lanes)
    result = kernels.erfinv(b, operand)
    statements = list(walk(b.root))
    assert {type(statement) for statement in statements} == {Let}, "no branches"
    counted = [statement for statement in statements if statement.opcode != "splat"]
    print(f"erfinv {dtype.__name__}: {len(counted)} instructions")
    assert len(counted) <= INSTRUCTIONS[dtype]
    x = points(dtype, 100, seed=4)
    known = {operand: x}
    replay(b.root, known, OnFloats())
    np.testing.assert_array_equal(known[result], kernels.erfinv(OnFloats(), x))
