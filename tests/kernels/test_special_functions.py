"""Special functions of two operands or with an order, and where negative numbers are reflected: against mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.floats import OnFloats
from tests.kernels.accuracy import FORMATS, errors
from tests.kernels.test_accuracy import report

B = OnFloats()
by_format = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)


def pairs(dtype: type) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positive numbers of any size, moderate ones, nearly equal ones, and ratios near 2 and 1/2."""
    rng = np.random.default_rng(41)
    x = rng.uniform(0.01, 3, 600)
    apart = rng.choice([0.5, 2], 600) * (1 + 0.01 * rng.normal(size=600))
    made = [
        (np.exp(rng.uniform(-60, 60, 600)), np.exp(rng.uniform(-60, 60, 600))), (x, rng.uniform(0.01, 3, 600)),
        (x, x * (1 + rng.normal(size=600) * 10.0 ** rng.uniform(-15, -1, 600))), (x, x * apart),
    ]  # fmt: skip
    return [(a.astype(dtype), c.astype(dtype)) for a, c in made]


@by_format
@pytest.mark.parametrize(
    ("name", "exact", "bound"),
    [
        ("log_ratio", lambda x, y: mp.log(x / y), 3.0),
        ("rel_entr", lambda x, y: x * mp.log(x / y), 4.0),
        ("kl_div", lambda x, y: x * mp.log(x / y) - x + y, 8.0),
    ],
)
def test_divergences(name: str, exact: Callable[..., Any], bound: float, dtype: type) -> None:
    for x, y in pairs(dtype):
        with mp.workprec(250):
            found = errors(
                getattr(kernels, name)(B, x, y), [exact(mp.mpf(a), mp.mpf(c)) for a, c in zip(x.tolist(), y.tolist(), strict=True)]
            )
        report(name, dtype, found, bound, x, y)


def test_ratios_out_of_range() -> None:
    x, y = np.array([1e300, 1e-300, 5e-324, 1e308]), np.array([1e-300, 1e300, 1e10, 1e308])
    np.testing.assert_allclose(kernels.log_ratio(B, x, y), np.log(x) - np.log(y), rtol=1e-15)


def test_logarithm_of_beta() -> None:
    rng = np.random.default_rng(42)
    x = np.concatenate([rng.uniform(0, 8, 400), 10 ** rng.uniform(-20, 1, 400), 10 ** rng.uniform(1, 9, 400)])
    y = np.concatenate(
        [rng.uniform(0, 8, 200), 10 ** rng.uniform(1, 12, 200), 10 ** rng.uniform(-20, 10, 400), 10 ** rng.uniform(1, 9, 400)]
    )
    for p, q in ((x, y), (y, x)):
        with mp.workprec(300):
            exact = [mp.loggamma(a) + mp.loggamma(c) - mp.loggamma(mp.mpf(a) + c) for a, c in zip(p.tolist(), q.tolist(), strict=True)]
            found = [abs(v - e) / max(1, abs(e)) for v, e in zip(kernels.betaln(B, p, q).tolist(), exact, strict=True)]
        assert max(found) <= 9 * 2.0**-52
    single = kernels.betaln(B, x[:400].astype(np.float32), y[:400].astype(np.float32))
    np.testing.assert_allclose(
        single, kernels.betaln(B, x[:400].astype(np.float32).astype(float), y[:400].astype(np.float32).astype(float)), rtol=1e-7
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_polygamma(order: int) -> None:
    rng = np.random.default_rng(43)
    x = np.concatenate([rng.uniform(0, 1, 100), rng.uniform(1, 12, 100), 10 ** rng.uniform(1, 6, 60)])
    with mp.workprec(200):
        found = errors(kernels.polygamma(B, x, order), [mp.polygamma(order, mp.mpf(v)) for v in x.tolist()])
    report(f"polygamma {order}", np.float64, found, 3 + 1.5 * order, x)


def from_above(order: int, x: float) -> tuple[mp.mpf, mp.mpf]:
    """Return polygamma, and the larger of the two terms that the reflection formula adds up."""
    value = mp.polygamma(order, mp.mpf(x))
    return value, max(abs(value), abs(mp.polygamma(order, 1 - mp.mpf(x))))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_reflection(order: int) -> None:
    x = np.random.default_rng(44).uniform(-9, 0, 200)
    y = kernels.digamma(B, x) if order == 0 else kernels.polygamma(B, x, order)
    with mp.workprec(200):
        for point, found in zip(x.tolist(), y.tolist(), strict=True):
            exact, scale = from_above(order, point)
            assert abs(found - exact) <= 16 * scale * mp.mpf(2) ** -52


def test_reflection_of_the_logarithm_of_gamma() -> None:
    x = np.random.default_rng(45).uniform(-30, -0.5, 500)
    with mp.workprec(200):
        for point, found in zip(x.tolist(), kernels.gammaln(B, x).tolist(), strict=True):
            exact = mp.log(abs(mp.gamma(mp.mpf(point))))
            assert abs(found - exact) <= 4 * max(1, mp.loggamma(-mp.mpf(point)), abs(exact)) * mp.mpf(2) ** -52


@pytest.mark.parametrize(("order", "bound"), [(1, 12.0), (2, 60.0), (3, 300.0)])
def test_integrals_of_the_error_function(order: int, bound: float) -> None:
    rng = np.random.default_rng(46)
    for low, high, limit in ((-3, 0, 3.0), (0, 2, bound), (2, 4, 30.0), (4, 30, 4.0), (30, 1e4, 4.0)):
        x = rng.uniform(low, high, 100)
        exact = []
        with mp.workprec(300):
            for v in x.tolist():
                before, value = 2 / mp.sqrt(mp.pi), mp.exp(mp.mpf(v) ** 2) * mp.erfc(mp.mpf(v))
                for n in range(1, order + 1):
                    before, value = value, (before - 2 * mp.mpf(v) * value) / (2 * n)
                exact.append(value)
            found = errors(kernels.erfcx_integral(B, x, order), exact)
        report(f"erfcx integral {order}", np.float64, found, limit, x)
