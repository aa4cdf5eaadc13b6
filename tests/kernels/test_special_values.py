"""Zeros with their sign, infinities, NaN, subnormal numbers and the edges of the range, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.floats import OnFloats
from tests.kernels.accuracy import FORMATS
from tests.kernels.special_cases import ALL_CASES

pytestmark = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)
each_kernel = pytest.mark.parametrize("name", ALL_CASES)

INF, NAN = np.inf, np.nan
LN2, HALF_PI = 0.6931471805599453, np.pi / 2

# What each kernel returns at (0, -0, inf, -inf, nan).
AT_THE_ENDS = {
    "exp": (1, 1, INF, 0, NAN),
    "expm1": (0.0, -0.0, INF, -1, NAN),
    "log": (-INF, -INF, INF, NAN, NAN),
    "log1p": (0.0, -0.0, INF, NAN, NAN),
    "tanh": (0.0, -0.0, 1, -1, NAN),
    "sigmoid": (0.5, 0.5, 1, 0, NAN),
    "softplus": (LN2, LN2, INF, 0, NAN),
    "sin": (0.0, -0.0, NAN, NAN, NAN),
    "cos": (1, 1, NAN, NAN, NAN),
    "tan": (0.0, -0.0, NAN, NAN, NAN),
    "exp2": (1, 1, INF, 0, NAN),
    "log2": (-INF, -INF, INF, NAN, NAN),
    "log10": (-INF, -INF, INF, NAN, NAN),
    "sinh": (0.0, -0.0, INF, -INF, NAN),
    "cosh": (1, 1, INF, INF, NAN),
    "arcsinh": (0.0, -0.0, INF, -INF, NAN),
    "arccosh": (NAN, NAN, INF, NAN, NAN),
    "arctanh": (0.0, -0.0, NAN, NAN, NAN),
    "arcsin": (0.0, -0.0, NAN, NAN, NAN),
    "arccos": (HALF_PI, HALF_PI, NAN, NAN, NAN),
    "arctan": (0.0, -0.0, HALF_PI, -HALF_PI, NAN),
    "cbrt": (0.0, -0.0, INF, -INF, NAN),
    "erf": (0.0, -0.0, 1, -1, NAN),
    "erfc": (1, 1, 0, 2, NAN),
    "gaussian": (1, 1, 0, 0, NAN),
    "erfcx": (1, 1, 0, INF, NAN),
    "ndtr": (0.5, 0.5, 1, 0, NAN),
    "log_ndtr": (-LN2, -LN2, -0.0, -INF, NAN),
    "gamma": (INF, -INF, INF, NAN, NAN),
    "gammaln": (INF, INF, INF, -INF, NAN),
    "digamma": (-INF, INF, INF, NAN, NAN),
    "normal_density": (0.3989422804014327, 0.3989422804014327, 0, 0, NAN),
}
IDENTITY_NEAR_ZERO = ("expm1", "log1p", "tanh", "sin", "tan", "sinh", "arcsinh", "arctanh", "arcsin", "arctan")


def run(name: str, *operands: np.ndarray) -> np.ndarray:
    return getattr(kernels, name)(OnFloats(), *operands)


def assert_same(found: np.ndarray, expected: np.ndarray, *operands: np.ndarray) -> None:
    """Zeros compare with their sign, NaN equals NaN."""
    assert found.dtype == expected.dtype
    same = ((found == expected) & (np.signbit(found) == np.signbit(expected))) | (np.isnan(found) & np.isnan(expected))
    where = np.flatnonzero(~same)
    assert not where.size, [tuple(np.ravel(v)[i] for v in (*operands, found, expected)) for i in where[:10]]


@each_kernel
def test_ends_of_the_line(name: str, dtype: type) -> None:
    x = np.array([0.0, -0.0, INF, -INF, NAN], dtype)
    assert_same(run(name, x), np.array(AT_THE_ENDS[name], dtype), x)


@each_kernel
def test_scalars_give_scalars(name: str, dtype: type) -> None:
    y = run(name, dtype(0.75))
    assert isinstance(y, dtype)
    assert_same(y, run(name, np.array([0.75], dtype))[0], dtype(0.75))


@pytest.mark.parametrize("name", IDENTITY_NEAR_ZERO)
def test_subnormal_operands_come_back(name: str, dtype: type) -> None:
    least, tiny = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny
    x = np.array([least, 2 * least, 37 * least, tiny - least, tiny, tiny + least], dtype)
    x = np.concatenate([x, -x])
    assert_same(run(name, x), x, x)


def test_logarithm_of_subnormal_numbers(dtype: type) -> None:
    form = np.finfo(dtype)
    powers = np.arange(form.minexp - form.nmant, form.maxexp)
    x = np.ldexp(dtype(1), powers)
    np.testing.assert_array_max_ulp(run("log", x), (powers * np.log(np.longdouble(2))).astype(dtype), 1)


def test_logarithm_outside_its_domain(dtype: type) -> None:
    form = np.finfo(dtype)
    x = np.array([-form.smallest_subnormal, -form.tiny, -1, -form.max, -INF], dtype)
    assert np.isnan(run("log", x)).all()
    assert run("log", dtype(1)) == 0 and not np.signbit(run("log", dtype(1)))
    beyond = np.array([np.nextafter(dtype(-1), dtype(-2)), -2, -form.max], dtype)
    assert np.isnan(run("log1p", beyond)).all()
    assert run("log1p", dtype(-1)) == -INF


def test_exponential_leaves_the_range_where_it_must(dtype: type) -> None:
    form = np.finfo(dtype)
    last = {np.float32: np.float32(88.72283), np.float64: np.float64(709.782712893384)}[dtype]
    beyond = np.nextafter(last, dtype(INF))
    with np.errstate(over="ignore"):
        assert np.isfinite(np.exp(last)) and np.isinf(np.exp(beyond))
    for name in ("exp", "expm1"):
        assert 0.999 * form.max < run(name, last) < INF
        assert run(name, beyond) == INF
        assert run(name, form.max) == INF
    # The least subnormal number, and half of it, which still rounds up to it.
    lowest = {np.float32: np.float32(-103.97208), np.float64: np.float64(-745.1332191019411)}[dtype]
    for name in ("exp", "sigmoid", "softplus"):
        assert run(name, lowest) == form.smallest_subnormal
        assert run(name, np.nextafter(lowest, dtype(-INF))) == 0
        assert run(name, dtype(-form.max)) == 0
    below = np.array([-40, -100, -form.max], dtype)
    assert_same(run("expm1", below), np.full(3, -1, dtype), below)


def test_saturation(dtype: type) -> None:
    form = np.finfo(dtype)
    far = np.array([30, 100, 1e30, form.max], dtype)
    assert_same(run("tanh", far), np.ones(4, dtype), far)
    assert_same(run("tanh", -far), -np.ones(4, dtype), far)
    far = far[1:]
    assert_same(run("sigmoid", far), np.ones(3, dtype), far)
    assert_same(run("softplus", far), far, far)


def test_power_has_the_special_cases_of_numpy(dtype: type) -> None:
    form = np.finfo(dtype)
    digits = form.nmant + 1
    positive = [
        0.0, INF, NAN, 1, 2, 3, 0.5, 1.5, 1e-40, 1e30, form.tiny, form.max, form.smallest_subnormal, np.nextafter(dtype(1), dtype(2)),
        np.nextafter(dtype(1), dtype(0)), 2**digits - 1, 2**digits, 2**digits + 2, 2 ** (digits - 1) + 1, 1 / 3,
    ]  # fmt: skip
    values = np.array(positive, dtype)
    values = np.concatenate([values, -values])
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    found = run("power", x, y)
    exact = ~np.isfinite(expected) | (expected == 0) | (np.abs(x) == 1) | (y == 0)
    assert exact.sum() > 1000
    assert_same(found[exact], expected[exact], x[exact], y[exact])
    np.testing.assert_array_max_ulp(found[~exact], expected[~exact], 4)


def test_power_reaches_the_subnormal_numbers(dtype: type) -> None:
    form = np.finfo(dtype)
    k = np.arange(form.minexp - form.nmant - 2, form.maxexp + 1)
    with np.errstate(over="ignore"):
        expected = np.ldexp(dtype(1), k)
    assert_same(run("power", np.full(k.size, 2, dtype), k.astype(dtype)), expected, k)
    assert_same(run("power", np.full(k.size, 0.5, dtype), -k.astype(dtype)), expected, k)


@pytest.mark.parametrize("name", ["arctan2", "hypot"])
def test_pairs_have_the_special_cases_of_numpy(name: str, dtype: type) -> None:
    form = np.finfo(dtype)
    positive = [0.0, INF, NAN, 1, 2.5, 2**0.5 - 1, 1e-30, 1e30, form.tiny, form.max, form.smallest_subnormal]
    values = np.array([*positive, *(-v for v in positive)], dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    found = run(name, x, y)
    exact = ~np.isfinite(expected) | (expected == 0)
    assert exact.sum() > 100
    assert_same(found[exact], expected[exact], x[exact], y[exact])
    np.testing.assert_array_max_ulp(found[~exact], expected[~exact], 2)


def test_ends_of_the_domains(dtype: type) -> None:
    form = np.finfo(dtype)
    for name, points, values in (
        ("arcsin", (1, -1), (HALF_PI, -HALF_PI)),
        ("arccos", (1, -1), (0, np.pi)),
        ("arctanh", (1, -1), (INF, -INF)),
        ("arccosh", (1,), (0,)),
        ("tan", (0.0, -0.0), (0.0, -0.0)),
    ):
        x = np.array(points, dtype)
        assert_same(run(name, x), np.array(values, dtype), x)
    beyond = np.array([1 + form.eps, 2, form.max, -1 - form.eps, -2, -form.max], dtype)
    for name in ("arcsin", "arccos", "arctanh"):
        assert np.isnan(run(name, beyond)).all()
    assert np.isnan(run("arccosh", np.array([1 - form.epsneg, 0.5, -1, -3, -form.max], dtype))).all()


def test_hyperbolic_functions_leave_the_range_where_they_must(dtype: type) -> None:
    form = np.finfo(dtype)
    last = {np.float32: np.float32(89.415985), np.float64: np.float64(710.4758600739439)}[dtype]
    for name in ("sinh", "cosh"):
        assert 0.999 * form.max < run(name, last) < INF
        assert run(name, np.nextafter(last, dtype(INF))) == INF
        assert run(name, form.max) == INF
    assert run("sinh", -form.max) == -INF


def test_exp2_leaves_the_range_where_it_must(dtype: type) -> None:
    form = np.finfo(dtype)
    assert run("exp2", dtype(form.maxexp)) == INF
    assert run("exp2", np.nextafter(dtype(form.maxexp), dtype(0))) < INF
    lowest = form.minexp - form.nmant
    assert run("exp2", dtype(lowest)) == form.smallest_subnormal
    assert run("exp2", np.nextafter(dtype(lowest - 1), dtype(0))) == form.smallest_subnormal
    assert run("exp2", dtype(lowest - 1)) == 0
    assert run("exp2", dtype(-form.max)) == 0
