"""The kernels of special functions: their exact values, where to sample them, and what is demanded; see `accuracy.Case`."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import scipy.special

from staticgrad import kernels
from tests.kernels.accuracy import CASES, Case

_bell = {"regions": ((-1, 1), (-6, 6), (-15, 15), (-28, 28)), "exponents": (-40, 3)}

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
    )
}  # fmt: skip
"""SciPy's functions in float64 are the dense reference for float32; for float64 there is none but mpmath."""

ALL_CASES = CASES | SPECIAL_CASES
