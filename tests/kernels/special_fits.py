"""The minimax polynomials of the special functions: `python -m tests.kernels.special_fits` prints every table with its error."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

from tests.kernels.minimax import PRECISION, Fit, of_root

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
_ninth = (mp.mpf(0), mp.mpf(1) / 9 * mp.mpf("1.0001"))
_unit = (mp.mpf(0), mp.mpf(1))

SPECIAL_FITS = {
    fit.name: fit
    for fit in (
        Fit("erf32", _erf_tail, _erf_weight, 7, _unit, np.float32),
        Fit("erf64", _erf_tail, _erf_weight, 13, _unit, np.float64),
        Fit("erfc32", scaled_erfc(2), reciprocal(scaled_erfc(2)), 10, (centred(0.5, 2), centred(10.1, 2)), np.float32),
        Fit("erfc64", scaled_erfc(3.5), reciprocal(scaled_erfc(3.5)), 22, (centred(0.5, 3.5), centred(27.3, 3.5)), np.float64),
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
