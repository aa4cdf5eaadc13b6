"""The minimax polynomials of the kernels: `python tests/kernels/minimax.py` prints every table of coefficients with its error.

A fit minimises the largest weighted error on a fine grid by linear programming. Coefficients are rounded to the format one after the
other, from the constant term up, and after each rounding the ones that are left are fitted again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np
from scipy.optimize import linprog

PRECISION = 300
TINY = mp.mpf("1e-40")


@dataclass(frozen=True)
class Fit:
    """A polynomial with `terms` coefficients that stands for `function` on an interval; the error counts times `weight`."""

    name: str
    function: Callable[[mp.mpf], mp.mpf]
    weight: Callable[[mp.mpf], mp.mpf]
    terms: int
    interval: tuple[mp.mpf, mp.mpf]
    dtype: type

    def grid(self, points: int) -> list[mp.mpf]:
        """Return Chebyshev points of the interval."""
        low, high = self.interval
        return [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mp.mpf("0.5")) / points) for i in range(points)]

    def errors(self, coefficients: list[mp.mpf], points: int = 400) -> list[mp.mpf]:
        """Return the weighted errors on a grid."""
        with mp.workprec(PRECISION):
            powers = list(reversed([mp.mpf(c) for c in coefficients]))
            return [self.weight(x) * (mp.polyval(powers, x) - self.function(x)) for x in self.grid(points)]

    def log2_error(self, coefficients: list[mp.mpf], points: int = 400) -> float:
        """Return the binary logarithm of the largest weighted error."""
        return float(mp.log(max(map(abs, self.errors(coefficients, points))), 2))

    def solve(self) -> list[float]:
        """Return the rounded coefficients, constant term first."""
        with mp.workprec(PRECISION):
            nodes = self.grid(self.terms)
            matrix = mp.matrix([[x**k for k in range(self.terms)] for x in nodes])
            coefficients = list(mp.lu_solve(matrix, mp.matrix([self.function(x) for x in nodes])))
            for first in (0, 0, 0, *range(1, self.terms + 1)):
                if first:
                    coefficients[first - 1] = mp.mpf(float(self.dtype(float(coefficients[first - 1]))))
                self._refine(coefficients, first)
            return [float(c) for c in coefficients]

    def _refine(self, coefficients: list[mp.mpf], first: int) -> None:
        """Move the coefficients from `first` on to where the largest error is least."""
        if first == self.terms:
            return
        points = 40 * self.terms
        errors = self.errors(coefficients, points)
        scale, reach = max(map(abs, errors)), max(map(abs, self.interval))
        columns = np.array([[float(self.weight(x) * (x / reach) ** k) for k in range(first, self.terms)] for x in self.grid(points)])
        target, bound = np.array([float(e / scale) for e in errors]), np.ones((points, 1))
        found = linprog(
            np.r_[np.zeros(self.terms - first), 1.0],
            A_ub=np.block([[columns, -bound], [-columns, -bound]]),
            b_ub=np.r_[-target, target],
            bounds=[(None, None)] * (self.terms - first) + [(0, None)],
        )
        for k, step in enumerate(found.x[:-1], first):
            coefficients[k] += mp.mpf(step) * scale / reach**k


def from_series(function: Callable[[mp.mpf], mp.mpf], at_zero: mp.mpf) -> Callable[[mp.mpf], mp.mpf]:
    """Return `function` with its limit at 0."""
    return lambda x: function(x) if abs(x) > TINY else at_zero


def of_root(function: Callable[[mp.mpf], mp.mpf], at_zero: mp.mpf) -> Callable[[mp.mpf], mp.mpf]:
    """Return z -> function(sqrt(z)) with its limit at 0."""
    return from_series(lambda z: function(mp.sqrt(z)), at_zero)


def ratio_to_argument(function: Callable[[mp.mpf], mp.mpf]) -> tuple[Callable[[mp.mpf], mp.mpf], Callable[[mp.mpf], mp.mpf]]:
    """Return function(x) / x in x**2, where it is 1 at 0, with the weight of a relative error."""
    return of_root(lambda x: function(x) / x, mp.mpf(1)), of_root(lambda x: x / function(x), mp.mpf(1))


def tail_after_argument(
    function: Callable[[mp.mpf], mp.mpf], at_zero: mp.mpf
) -> tuple[Callable[[mp.mpf], mp.mpf], Callable[[mp.mpf], mp.mpf]]:
    """Return (function(x) - x) / x**3 in x**2, with the weight of a relative error of the function."""
    return of_root(lambda x: (function(x) - x) / x**3, at_zero), of_root(lambda x: x**3 / function(x), mp.mpf(0))


def two_atanh(s: mp.mpf) -> mp.mpf:
    """Return log((1 + s) / (1 - s))."""
    return 2 * mp.atanh(s)


mp.mp.prec, _before = PRECISION, mp.mp.prec
HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.0005")
OFF_CENTRE_QUARTER_LN2 = (mp.log(2) / 4 + mp.mpf("0.0825")) * mp.mpf("1.0005")
THIRD = mp.mpf(1) / 3
SQRT2_SQUARE = (3 - 2 * mp.sqrt(2)) ** 2 * mp.mpf("1.0001")
QUARTER_PI_SQUARE = (mp.pi / 4) ** 2 * mp.mpf("1.001")

_exp_tail = from_series(lambda r: (mp.expm1(r) - r) / r**2, mp.mpf(1) / 2)
_exp_slope = from_series(lambda r: mp.expm1(r) / r, mp.mpf(1))
_log_tail = from_series(lambda f: (mp.log1p(f) - f) / f**2, -mp.mpf(1) / 2)
_log_weight = from_series(lambda f: f**2 / abs(mp.log1p(f)), mp.mpf(0))
_atanh_tail = of_root(lambda s: (two_atanh(s) - 2 * s) / s**3, mp.mpf(2) / 3)
_atanh_weight = of_root(lambda s: s**3 / two_atanh(s), mp.mpf(0))
HALF = mp.mpf(1) / 2
SLACK = mp.mpf("0.0001")
ARCTAN_SQUARE = (mp.sqrt(2) - 1) ** 2 * (1 + SLACK)
QUARTER = (1 + 4 * SLACK) / 4
_exp2_tail = from_series(lambda r: (mp.mpf(2) ** r - 1) / r, mp.log(2))
_sinh_tail, _sinh_weight = tail_after_argument(mp.sinh, THIRD / 2)
_cosh_tail = of_root(lambda r: (mp.cosh(r) - 1) / r**2, HALF)
_cosh_weight = of_root(lambda r: r**2 / mp.cosh(r), mp.mpf(0))

FITS = {
    fit.name: fit
    for fit in (
        Fit("exp32", _exp_tail, lambda r: r**2 / mp.exp(r), 5, (-HALF_LN2, HALF_LN2), np.float32),
        Fit("exp32_short", _exp_slope, lambda r: abs(r) / (1 if r >= 0 else HALF), 5, (-HALF_LN2, HALF_LN2), np.float32),
        Fit("exp64", _exp_tail, lambda r: r**2 / mp.exp(r), 10, (-HALF_LN2, HALF_LN2), np.float64),
        Fit("expm1_32", _exp_tail, lambda r: r**2 / abs(mp.expm1(r)) if r else r, 5, (-HALF_LN2, HALF_LN2), np.float32),
        Fit("expm1_64", _exp_tail, lambda r: r**2 / abs(mp.expm1(r)) if r else r, 11, (-HALF_LN2, HALF_LN2), np.float64),
        Fit("log32", _log_tail, _log_weight, 9, (-THIRD, THIRD), np.float32),
        Fit("log64", _atanh_tail, _atanh_weight, 7, (mp.mpf(0), SQRT2_SQUARE), np.float64),
        Fit("softplus32", _log_tail, _log_weight, 9, (mp.mpf(-1) / 4, mp.mpf(1) / 2), np.float32),
        Fit("softplus64", _atanh_tail, _atanh_weight, 8, (mp.mpf(0), mp.mpf(1) / 25), np.float64),
        Fit(
            "tanh32", of_root(lambda r: (r / mp.tanh(r) - 1) / r**2, THIRD), of_root(lambda r: r * mp.tanh(r), mp.mpf(0)),
            2, (mp.mpf(0), OFF_CENTRE_QUARTER_LN2**2), np.float32,
        ),
        Fit(
            "sin32", of_root(lambda y: mp.sin(mp.pi / 2 * y) / y, mp.pi / 2), of_root(lambda y: y / mp.sin(mp.pi / 2 * y), 2 / mp.pi),
            5, (mp.mpf(0), mp.mpf("0.2545")), np.float64,
        ),
        Fit(
            "cos32", of_root(lambda y: (mp.cos(mp.pi / 2 * y) - 1) / y**2, -mp.pi**2 / 8),
            of_root(lambda y: y**2 / mp.cos(mp.pi / 2 * y), mp.mpf(0)), 4, (mp.mpf(0), mp.mpf("0.2545")), np.float64,
        ),
        Fit(
            "sin64", of_root(lambda r: (mp.sin(r) - r) / r**3, -mp.mpf(1) / 6), of_root(lambda r: r**3 / mp.sin(r), mp.mpf(0)),
            6, (mp.mpf(0), QUARTER_PI_SQUARE), np.float64,
        ),
        Fit(
            "cos64", of_root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4, mp.mpf(1) / 24), of_root(lambda r: r**4 / mp.cos(r), mp.mpf(0)),
            6, (mp.mpf(0), QUARTER_PI_SQUARE), np.float64,
        ),
        Fit(
            "log2_32", of_root(lambda s: two_atanh(s) / s / mp.log(2), 2 / mp.log(2)),
            of_root(lambda s: s * mp.log(2) / two_atanh(s), mp.log(2) / 2), 5, (mp.mpf(0), SQRT2_SQUARE), np.float64,
        ),
        Fit(
            "exp2_32", from_series(lambda r: (mp.mpf(2) ** r - 1) / r, mp.log(2)), lambda r: abs(r) / mp.mpf(2) ** r,
            6, (mp.mpf(-1) / 2, mp.mpf(1) / 2), np.float64,
        ),
        Fit(
            "power_log64", of_root(lambda s: ((two_atanh(s) - 2 * s) / s**3 - mp.mpf(2) / 3) / s**2, mp.mpf(2) / 5),
            of_root(lambda s: s**5 / two_atanh(s), mp.mpf(0)), 8, (mp.mpf(0), SQRT2_SQUARE), np.float64,
        ),
        Fit("exp2_float32", _exp2_tail, lambda r: abs(r) / mp.mpf(2) ** r, 6, (-HALF, HALF), np.float32),
        Fit("exp2_float64", _exp2_tail, lambda r: abs(r) / mp.mpf(2) ** r, 11, (-HALF, HALF), np.float64),
        Fit("sinh32", _sinh_tail, _sinh_weight, 3, (mp.mpf(0), HALF_LN2**2), np.float32),
        Fit("sinh64", _sinh_tail, _sinh_weight, 5, (mp.mpf(0), HALF_LN2**2), np.float64),
        Fit("cosh32", _cosh_tail, _cosh_weight, 3, (mp.mpf(0), HALF_LN2**2), np.float32),
        Fit("cosh64", _cosh_tail, _cosh_weight, 5, (mp.mpf(0), HALF_LN2**2), np.float64),
        Fit("arctan32", *ratio_to_argument(mp.atan), 6, (mp.mpf(0), ARCTAN_SQUARE), np.float64),
        Fit("arctan64", *tail_after_argument(mp.atan, -THIRD), 11, (mp.mpf(0), ARCTAN_SQUARE), np.float64),
        Fit("arcsin32", *ratio_to_argument(mp.asin), 7, (mp.mpf(0), QUARTER), np.float64),
        Fit("arcsin64", *tail_after_argument(mp.asin, THIRD / 2), 13, (mp.mpf(0), QUARTER), np.float64),
        Fit("arcsinh64", *tail_after_argument(mp.asinh, -THIRD / 2), 12, (mp.mpf(0), QUARTER), np.float64),
        Fit("cbrt", lambda f: f ** (-THIRD), lambda f: f**THIRD, 7, (mp.sqrt(HALF) * (1 - SLACK), mp.sqrt(2) * (1 + SLACK)), np.float64),
    )
}  # fmt: skip
mp.mp.prec = _before


if __name__ == "__main__":
    for fit in FITS.values():
        coefficients = fit.solve()
        print(f"{fit.name}: relative error 2**{fit.log2_error(coefficients):.1f}")
        print(f"    {tuple(coefficients)}")
