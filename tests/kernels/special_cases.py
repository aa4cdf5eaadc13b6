"""The kernels of special functions: their exact values, where to sample them, and what is demanded; see `accuracy.Case`."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import scipy.special

from staticgrad import kernels
from tests.kernels.accuracy import CASES, Case

_bell = {"regions": ((-1, 1), (-6, 6), (-15, 15), (-28, 28)), "exponents": (-40, 3)}


def _log_ndtr(x: mp.mpf) -> mp.mpf:
    return mp.log1p(-mp.ncdf(-x)) if x > 0 else mp.log(mp.erfc(-x / mp.sqrt(2)) / 2)


SPECIAL_CASES = {
    case.name: case
    for case in (
        Case(kernels.erf, mp.erf, scipy.special.erf, (1.05, 1.05), (65, 88), ((-1, 1), (-2, 2), (0.9, 1.1), (-7, 7)), (-1080, 3)),
        Case(
            kernels.erfc, mp.erfc, scipy.special.erfc, (1.6, 1.6), (87, 110),
            ((-1, 1), (0.4, 0.6), (-6, 6), (0.5, 3), (3, 10.2), (9, 27.4)), (-60, 3),
            hard=lambda dtype: [0.5, -0.5, 1.0, -1.0, 10.1, 27.3, 26.5],
        ),
        Case(kernels.gaussian, lambda x: mp.exp(-x * x), lambda x: np.exp(-x * x), (0.8, 0.8), (37, 42), **_bell),
        Case(
            kernels.normal_density, mp.npdf, lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi), (1.6, 1.6), (39, 44),
            ((-40, 40), *_bell["regions"]), (-40, 4),
        ),
        Case(
            kernels.erfcx, lambda x: mp.exp(x * x) * mp.erfc(x), scipy.special.erfcx, (2.2, 2.2), (80, 100),
            ((0, 2), (-2, 0), (-9, 9), (-26, 5), (0, 100)), (-60, 30), hard=lambda dtype: [0.0, 2.0**30, -9.3],
        ),
        Case(
            kernels.ndtr, mp.ncdf, scipy.special.ndtr, (2.6, 2.6), (95, 120), ((-1, 1), (-0.75, -0.65), (-6, 6), (-14, -3), (-38.7, 5)),
            (-60, 5), hard=lambda dtype: [0.0, 0.5**0.5, -(0.5**0.5)],
        ),
        Case(
            kernels.log_ndtr, _log_ndtr, scipy.special.log_ndtr, (3.7, 3.7), (165, 195), ((-1, 1), (0, 6), (-10, 0), (-1e4, 13)), (-60, 9),
        ),
        Case(
            kernels.gammaln, lambda x: mp.log(abs(mp.gamma(x))) if x < 1 else mp.loggamma(x), scipy.special.gammaln,
            (0.51, 2.9), (175, 175),
            ((-0.5, 0.5), (0.5, 1.5), (0.99, 1.01), (1.5, 2.5), (1.99, 2.01), (2.5, 8), (7, 30), (10, 1e6)), (-1000, 120),
            keep=lambda x: (x >= -0.5) & (x != 0) & (x < 1e37), hard=lambda dtype: [1.25, 2.25, 7.25, -0.5],
        ),
        Case(
            kernels.gamma, mp.gamma, scipy.special.gamma, (0.51, 3.5), (225, 225),
            ((-0.5, 0.5), (0.5, 2.5), (2, 8), (7, 171), (-6, -0.5), (-160, -0.5)), (-900, 5),
            keep=lambda x: (x != np.floor(x)) & (x > -30 * x.dtype.itemsize), hard=lambda dtype: [1.25, 2.25, 7.25, -0.5],
        ),
        Case(
            kernels.digamma, mp.digamma, scipy.special.digamma, (0.51, 3.6), (165, 165),
            ((0, 1), (1, 2), (1.461, 1.462), (2, 3), (3, 8), (7, 100), (0, 1e6)), (-1000, 120),
            keep=lambda x: (x > 1e-37) & (x < 1e37), hard=lambda dtype: [1.0, 2.0, 3.0, 7.0, 1.4616321449683622],
        ),
    )
}  # fmt: skip
"""SciPy's functions in float64 are the dense reference for float32; for float64 there is none but mpmath."""

ALL_CASES = CASES | SPECIAL_CASES
