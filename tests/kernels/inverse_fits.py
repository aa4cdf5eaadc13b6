"""The minimax polynomials of the inverse error function: `python -m tests.kernels.inverse_fits` prints them with their errors."""

from __future__ import annotations

import functools

import mpmath as mp
import numpy as np
import scipy.special

from tests.kernels.minimax import PRECISION, TINY, Fit

mp.mp.prec, _before = PRECISION, mp.mp.prec


@functools.cache
def ratio(w: mp.mpf) -> mp.mpf:
    """Return erfinv(x) / x for x = sqrt(1 - exp(-w)) > 0."""
    if w < TINY:
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(-mp.expm1(-w))
    rest = mp.exp(-w) / (1 + x)  # 1 - x
    y = mp.mpf(float(scipy.special.erfcinv(float(rest)) if rest < 0.5 else scipy.special.erfinv(float(x))))
    for _ in range(3):  # Halley's method: each step makes the digits three times as many
        step = (rest - mp.erfc(y) if rest < 0.5 else mp.erf(y) - x) * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        y -= step / (1 + y * step)
    return y / x


def _centre(name: str, terms: int, middle: float, dtype: type) -> Fit:
    """Return the fit for 0 <= w <= 2 * middle in w - middle."""
    half = mp.mpf(middle)
    return Fit(name, lambda u: ratio(u + half), lambda u: 1 / ratio(u + half), terms, (-half, half), dtype)


def _tail(name: str, terms: int, start: float, middle: float, dtype: type) -> Fit:
    """Return the fit for start <= w, up to where x is 1 - half an epsilon, in sqrt(w) - middle."""
    end = mp.sqrt(-mp.log(2 * mp.mpf(float(np.finfo(dtype).epsneg)))) * mp.mpf("1.0001")
    low = mp.sqrt(mp.mpf(start))
    return Fit(
        name, lambda u: ratio((u + middle) ** 2), lambda u: 1 / ratio((u + middle) ** 2), terms, (low - middle, end - middle), dtype
    )  # fmt: skip


INVERSE_FITS = {
    fit.name: fit
    for fit in (
        _centre("erfinv32", 10, 2.5003366470336914, np.float32),
        _tail("erfinv_tail32", 10, 5.0, 3.1002867221832275, np.float32),
        _centre("erfinv64", 25, 3.125000000000539, np.float64),
        _tail("erfinv_tail64", 29, 6.25, 4.250000000000289, np.float64),
    )
}
mp.mp.prec = _before


if __name__ == "__main__":
    for fit in INVERSE_FITS.values():
        found = fit.solve()
        print(f"{fit.name}: relative error 2**{fit.log2_error(found):.1f}")
        print(f"    {tuple(found)}", flush=True)
