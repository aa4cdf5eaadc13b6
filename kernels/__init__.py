"""Kernels in the loop-IR builder's vocabulary: functions of a builder (or `OnFloats`) and its scalars.

Each is branch-free and touches no memory, so that a loop over it is vectorised; `sin`, `cos` and `tan` of float64 are the exception:
huge arguments are reduced inside an `if_`. Each states its largest error over its whole domain; `tests/kernels` holds it to that.
"""

from staticgrad.kernels.bases import exp2, log2, log10
from staticgrad.kernels.entropy import kl_div, log_ratio, rel_entr
from staticgrad.kernels.error_function import erf, erfc
from staticgrad.kernels.exponential import exp, expm1
from staticgrad.kernels.gamma_function import betaln, cotangent_derivative, digamma, gamma, gammaln, polygamma
from staticgrad.kernels.gaussian import gaussian, normal_density
from staticgrad.kernels.hyperbolic import cosh, sinh, tanh
from staticgrad.kernels.inverse_error_function import erfinv
from staticgrad.kernels.inverse_hyperbolic import arccosh, arcsinh, arctanh
from staticgrad.kernels.inverse_trigonometric import arccos, arcsin, arctan, arctan2
from staticgrad.kernels.logarithm import log, log1p
from staticgrad.kernels.logistic import logaddexp, logaddexp2, sigmoid, softplus
from staticgrad.kernels.powers import power
from staticgrad.kernels.roots import cbrt, hypot
from staticgrad.kernels.scaled_error_function import erfcx, erfcx_integral, log_ndtr, ndtr
from staticgrad.kernels.threefry import threefry
from staticgrad.kernels.trigonometric import cos, sin, tan

__all__ = [
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "betaln",
    "cbrt",
    "cos",
    "cosh",
    "cotangent_derivative",
    "digamma",
    "erf",
    "erfc",
    "erfcx",
    "erfcx_integral",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "gamma",
    "gammaln",
    "gaussian",
    "hypot",
    "kl_div",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_ndtr",
    "log_ratio",
    "logaddexp",
    "logaddexp2",
    "ndtr",
    "normal_density",
    "polygamma",
    "power",
    "rel_entr",
    "sigmoid",
    "sin",
    "sinh",
    "softplus",
    "tan",
    "tanh",
    "threefry",
]  # fmt: skip
