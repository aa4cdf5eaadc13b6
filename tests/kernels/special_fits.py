"""The minimax polynomials of the special functions: `python -m tests.kernels.special_fits` prints every table with its error."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

from tests.kernels.minimax import PRECISION, TINY, Fit, of_root

Function = Callable[[mp.mpf], mp.mpf]

mp.mp.prec, _before = PRECISION, mp.mp.prec


def reciprocal(function: Function) -> Function:
    """Return x -> 1 / function(x): the weight of relative errors."""
    return lambda x: 1 / function(x)


def centred(x: float, centre: float) -> mp.mpf:
    """Return (x - centre) / (x + centre)."""
    return (mp.mpf(x) - centre) / (mp.mpf(x) + centre)


def scaled_erfc(centre: float) -> Function:
    """Return t -> (1 + 2 x) e**x**2 erfc x for t = (x - centre) / (x + centre)."""

    def of_t(t: mp.mpf) -> mp.mpf:
        x = centre * (1 + t) / (1 - t)
        return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)

    return of_t


_erf_tail = of_root(lambda x: (mp.erf(x) - x) / x, 2 / mp.sqrt(mp.pi) - 1)
_erf_weight = of_root(lambda x: x / mp.erf(x), mp.sqrt(mp.pi) / 2)
_atanh_tail = of_root(lambda s: (mp.atanh(s) - s) / s**3, mp.mpf(1) / 3)
_atanh_weight = of_root(lambda s: s**3 / mp.atanh(s), mp.mpf(0))
HALF = mp.mpf(1) / 2
DIGAMMA_ROOT = mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))
_quarter = (mp.mpf(0), mp.mpf(1) / 16 * mp.mpf("1.001"))
_sin_tail = of_root(lambda r: (mp.sin(mp.pi * r) - mp.pi * r) / r**3, -(mp.pi**3) / 6)
_sin_weight = of_root(lambda r: r**3 / mp.sin(mp.pi * r), mp.mpf(0))


def _log_gamma(t: mp.mpf) -> mp.mpf:
    return mp.loggamma(2 + t) / t if abs(t) > TINY else 1 - mp.euler


def _stirling(w: mp.mpf) -> mp.mpf:
    x = 1 / mp.sqrt(w)
    with mp.workprec(PRECISION + 100):
        return (mp.loggamma(x) - (x - HALF) * mp.log(x) + x - mp.log(2 * mp.pi) / 2) * x


def _digamma(u: mp.mpf) -> mp.mpf:
    distance = u + 3 * HALF - DIGAMMA_ROOT
    return mp.digamma(u + 3 * HALF) / distance if abs(distance) > TINY else mp.polygamma(1, DIGAMMA_ROOT)


def _digamma_tail(w: mp.mpf) -> mp.mpf:
    x = 1 / mp.sqrt(w)
    with mp.workprec(PRECISION + 100):
        return (mp.log(x) - 1 / (2 * x) - mp.digamma(x)) / w


_ninth = (mp.mpf(0), mp.mpf(1) / 9 * mp.mpf("1.0001"))
_unit = (mp.mpf(0), mp.mpf(1))

SPECIAL_FITS = {
    fit.name: fit
    for fit in (
        Fit("erf32", _erf_tail, _erf_weight, 7, _unit, np.float32),
        Fit("erf64", _erf_tail, _erf_weight, 13, _unit, np.float64),
        Fit("erfc32", scaled_erfc(2), reciprocal(scaled_erfc(2)), 10, (centred(0.5, 2), centred(10.1, 2)), np.float32),
        Fit("erfc64", scaled_erfc(3.5), reciprocal(scaled_erfc(3.5)), 22, (centred(0.5, 3.5), centred(27.3, 3.5)), np.float64),
        Fit("erfcx32", scaled_erfc(2), reciprocal(scaled_erfc(2)), 13, (mp.mpf(-1), mp.mpf(1)), np.float32),
        Fit("erfcx64", scaled_erfc(3.5), reciprocal(scaled_erfc(3.5)), 26, (mp.mpf(-1), mp.mpf(1)), np.float64),
        Fit("log_gamma", _log_gamma, reciprocal(_log_gamma), 20, (mp.mpf("-0.7501"), mp.mpf("0.2501")), np.float64),
        Fit("stirling", _stirling, lambda w: mp.mpf(12), 7, (mp.mpf(0), 1 / mp.mpf("7.25") ** 2), np.float64),
        Fit("digamma", _digamma, reciprocal(_digamma), 21, (-HALF, HALF), np.float64),
        Fit("digamma_tail", _digamma_tail, lambda w: 2 * w, 8, (mp.mpf(0), mp.mpf(1) / 49), np.float64),
        Fit("sin_pi", _sin_tail, _sin_weight, 8, (mp.mpf(0), mp.mpf(1) / 4), np.float64),
        Fit("sin_pi_of_quarter", _sin_tail, _sin_weight, 6, _quarter, np.float64),
        Fit(
            "cos_pi", of_root(lambda r: (mp.cos(mp.pi * r) - 1) / r**2, -(mp.pi**2) / 2),
            of_root(lambda r: r**2 / mp.cos(mp.pi * r), mp.mpf(0)), 7, _quarter, np.float64,
        ),
        Fit("entropy32", _atanh_tail, _atanh_weight, 4, _ninth, np.float32),
        Fit("entropy64", _atanh_tail, _atanh_weight, 10, _ninth, np.float64),
    )
}  # fmt: skip
mp.mp.prec = _before


if __name__ == "__main__":
    for fit in SPECIAL_FITS.values():
        found = fit.solve()
        print(f"{fit.name}: relative error 2**{fit.log2_error(found):.1f}")
        print(f"    {tuple(found)}")
