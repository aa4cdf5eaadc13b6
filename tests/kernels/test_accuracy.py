"""The largest error of every kernel over its whole domain, against mpmath and, densely, against NumPy in a wider format."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.floats import OnFloats
from tests.kernels.accuracy import CASES, EXTENDED, FORMATS, PAIR_CASES, Case, dense_errors, errors

pytestmark = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)
each_pair_case = pytest.mark.parametrize("name", PAIR_CASES)
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def report(name: str, dtype: type, found: np.ndarray, bound: float, *points: np.ndarray) -> None:
    worst = int(np.argmax(found))
    where = ", ".join(repr(p[worst].item()) for p in points)
    print(f"{name} {dtype.__name__}: at most {found[worst]:.4f} ULP at {where} ({found.size} points, bound {bound})")
    assert found[worst] <= bound, f"{name}({where}) is wrong by {found[worst]:.4f} ULP"


@each_case
def test_against_mpmath(case: Case, dtype: type) -> None:
    x = case.points(dtype, 4000, seed=1)
    with mp.workprec(150):
        found = errors(case.kernel(OnFloats(), x), [case.exact(mp.mpf(v)) for v in x.tolist()])
    report(case.name, dtype, found, case.bounds[FORMATS.index(dtype)], x)


@each_case
def test_densely(case: Case, dtype: type) -> None:
    if dtype is np.float64 and not EXTENDED:
        pytest.skip("long double is not wider than double here")
    x = case.points(dtype, 400_000 if dtype is np.float32 else 150_000, seed=2)
    wide = np.float64 if dtype is np.float32 else np.longdouble
    if dtype is np.float64 and case.name in ("sin", "cos", "tan"):
        x = x[np.abs(x) < 2.0**60]  # the C library's long double gives up there
    with np.errstate(all="ignore"):
        reference = case.dense(x.astype(wide))
    report(case.name, dtype, dense_errors(case.kernel(OnFloats(), x), reference), case.bounds[FORMATS.index(dtype)], x)


@each_pair_case
def test_pairs_against_mpmath(name: str, dtype: type) -> None:
    case = PAIR_CASES[name]
    x, y = case.points(dtype, 4000, 3)
    with mp.workprec(200):
        exact = [case.exact(mp.mpf(a), mp.mpf(c)) for a, c in zip(x.tolist(), y.tolist(), strict=True)]
        found = errors(case.kernel(OnFloats(), x, y), exact, case.scales(x, y))
    report(name, dtype, found, case.bounds[FORMATS.index(dtype)], x, y)


@each_pair_case
def test_pairs_densely(name: str, dtype: type) -> None:
    if dtype is np.float64 and not EXTENDED:
        pytest.skip("long double is not wider than double here")
    case = PAIR_CASES[name]
    x, y = case.points(dtype, 200_000 if dtype is np.float32 else 100_000, 4)
    wide = np.float64 if dtype is np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        reference = case.dense(x.astype(wide), y.astype(wide))
    report(name, dtype, dense_errors(case.kernel(OnFloats(), x, y), reference, case.scales(x, y)), case.bounds[FORMATS.index(dtype)], x, y)


def test_whole_powers_and_logarithms_are_exact(dtype: type) -> None:
    form = np.finfo(dtype)
    k = np.arange(form.minexp - form.nmant, form.maxexp)
    powers = np.ldexp(dtype(1), k)
    np.testing.assert_array_equal(kernels.exp2(OnFloats(), k.astype(dtype)), powers)
    np.testing.assert_array_equal(kernels.log2(OnFloats(), powers), k.astype(dtype))
    tens = np.arange(11 if dtype is np.float32 else 23)
    np.testing.assert_array_equal(kernels.log10(OnFloats(), np.array([float(10**n) for n in tens.tolist()], dtype)), tens.astype(dtype))
    cubes = np.arange(-200, 201).astype(dtype)
    np.testing.assert_array_equal(kernels.cbrt(OnFloats(), cubes**3), cubes)


def test_power_of_integers_is_exact(dtype: type) -> None:
    limit = 2 ** (np.finfo(dtype).nmant + 1)
    table = [(base, k) for base in range(2, 200) for k in range(1, 54) if base**k <= limit]
    x, y = (np.array(column, dtype) for column in zip(*table, strict=True))
    exact = np.array([float(base**k) for base, k in table], dtype)
    np.testing.assert_array_equal(kernels.power(OnFloats(), x, y), exact)
    np.testing.assert_array_equal(kernels.power(OnFloats(), -x, y), np.where(y % 2 == 0, exact, -exact))
