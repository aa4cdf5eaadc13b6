"""Kernels in the loop-IR builder's vocabulary: functions of a builder (or `OnFloats`) and its scalars.

Each is branch-free and touches no memory, so that a loop over it is vectorised; `sin` and `cos` of float64 are the exception: huge
arguments are reduced inside an `if_`. Each states its largest error over its whole domain; `tests/kernels` holds it to that.
"""

from staticgrad.kernels.entropy import kl_div, log_ratio, rel_entr
from staticgrad.kernels.error_function import erf, erfc
from staticgrad.kernels.exponential import exp, expm1
from staticgrad.kernels.gamma_function import betaln, cotangent_derivative, digamma, gamma, gammaln, polygamma
from staticgrad.kernels.gaussian import gaussian, normal_density
from staticgrad.kernels.hyperbolic import tanh
from staticgrad.kernels.logarithm import log, log1p
from staticgrad.kernels.logistic import sigmoid, softplus
from staticgrad.kernels.powers import power
from staticgrad.kernels.scaled_error_function import erfcx, erfcx_integral, log_ndtr, ndtr
from staticgrad.kernels.trigonometric import cos, sin

__all__ = [
    "betaln", "cos", "cotangent_derivative", "digamma", "erf", "erfc", "erfcx", "erfcx_integral", "exp", "expm1", "gamma", "gammaln",
    "gaussian", "kl_div", "log", "log1p", "log_ndtr", "log_ratio", "ndtr", "normal_density", "polygamma", "power", "rel_entr", "sigmoid",
    "sin", "softplus", "tanh",
]  # fmt: skip
