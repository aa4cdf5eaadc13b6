"""The coefficients in the kernels are what `minimax.py` and `special_fits.py` compute and have the error that the kernels state."""

from __future__ import annotations

import pytest

from staticgrad.kernels import (
    bases,
    entropy,
    error_function,
    exponential,
    gamma_function,
    hyperbolic,
    inverse_hyperbolic,
    inverse_trigonometric,
    logarithm,
    logistic,
    powers,
    roots,
    scaled_error_function,
    trigonometric,
)
from staticgrad.kernels.floating import DOUBLE, SINGLE
from tests.kernels.minimax import FITS
from tests.kernels.special_fits import SPECIAL_FITS

ALL_FITS = FITS | SPECIAL_FITS

# Coefficients and the binary logarithm of the stated error.
TABLES = {
    "exp32": (exponential.exp_coefficients(SINGLE)[2:], -28.2),
    "exp32_short": (exponential.SHORT_EXP[1:], -22.9),
    "exp64": (exponential.exp_coefficients(DOUBLE)[2:], -57.9),
    "expm1_32": (exponential.expm1_coefficients(SINGLE), -26.1),
    "expm1_64": (exponential.expm1_coefficients(DOUBLE), -61.6),
    "log32": (logarithm.TAIL[SINGLE], -27.6),
    "log64": (logarithm.TAIL[DOUBLE], -59.4),
    "softplus32": (logistic.TAIL[SINGLE], -27.5),
    "softplus64": (logistic.TAIL[DOUBLE], -62.6),
    "tanh32": (hyperbolic.COTH_TAIL, -25.4),
    "sin32": (trigonometric.SINGLE_SIN, -37.5),
    "cos32": (trigonometric.SINGLE_COS, -33.7),
    "sin64": (trigonometric.DOUBLE_SIN, -57.8),
    "cos64": (trigonometric.DOUBLE_COS, -63.9),
    "log2_32": (powers.LOG2_SERIES, -37.7),
    "exp2_32": (powers.EXP2_SERIES[1:], -28.9),
    "power_log64": (powers.LOG_SERIES, -73.4),
    "exp2_float32": (bases.EXP2_TAIL[SINGLE], -28.3),
    "exp2_float64": (bases.EXP2_TAIL[DOUBLE], -57.7),
    "sinh32": (hyperbolic.SINH_TAIL[SINGLE], -34.3),
    "sinh64": (hyperbolic.SINH_TAIL[DOUBLE], -61.6),
    "cosh32": (hyperbolic.COSH_TAIL[SINGLE], -33.2),
    "cosh64": (hyperbolic.COSH_TAIL[DOUBLE], -58.0),
    "arctan32": (inverse_trigonometric.SINGLE_ARCTAN, -30.6),
    "arctan64": (inverse_trigonometric.DOUBLE_ARCTAN, -59.4),
    "arcsin32": (inverse_trigonometric.SINGLE_ARCSIN, -31.8),
    "arcsin64": (inverse_trigonometric.DOUBLE_ARCSIN, -59.7),
    "arcsinh64": (inverse_hyperbolic.ARCSINH_TAIL, -60.4),
    "cbrt": (roots.INVERSE_ROOT, -20.0),
    "erf32": (error_function.CONSTANTS[SINGLE].small, -29.3),
    "erf64": (error_function.CONSTANTS[DOUBLE].small, -56.3),
    "erfc32": (error_function.CONSTANTS[SINGLE].tail, -27.2),
    "erfc64": (error_function.CONSTANTS[DOUBLE].tail, -56.6),
    "erfcx32": (scaled_error_function.SCALED[SINGLE], -27.2),
    "erfcx64": (scaled_error_function.SCALED[DOUBLE], -56.6),
    "log_gamma": (gamma_function.LOG_GAMMA, -56.2),
    "stirling": (gamma_function.STIRLING, -54.0),
    "digamma": (gamma_function.DIGAMMA, -53.3),
    "digamma_tail": (gamma_function.ASYMPTOTIC, -65.8),
    "sin_pi": (gamma_function.SIN_PI, -60.5),
    "sin_pi_of_quarter": (gamma_function.SIN_PI_OF_QUARTER, -57.9),
    "cos_pi": (gamma_function.COS_PI, -61.4),
    "entropy32": (entropy.ATANH_TAIL[SINGLE], -27.7),
    "entropy64": (entropy.ATANH_TAIL[DOUBLE], -59.4),
}


def test_every_fit_has_its_table() -> None:
    assert TABLES.keys() == ALL_FITS.keys()


@pytest.mark.parametrize("name", TABLES)
def test_stated_error(name: str) -> None:
    coefficients, stated = TABLES[name]
    assert len(coefficients) == ALL_FITS[name].terms
    found = ALL_FITS[name].log2_error(list(coefficients), points=60)
    print(f"{name}: 2**{found:.2f}")
    assert found <= stated + 0.05


@pytest.mark.parametrize("name", ["exp32", "exp32_short", "tanh32"])
def test_fit_anew(name: str) -> None:
    anew = FITS[name].solve()
    assert FITS[name].log2_error(anew) <= TABLES[name][1] + 0.05
    assert anew == pytest.approx(TABLES[name][0], rel=1e-3)
