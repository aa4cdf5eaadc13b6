"""SciPy's special functions, one element at a time; what each means is what `scipy.special` computes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ops.elementwise import FLOAT, Apply, elementwise

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)


def scipy_function(name: str) -> Callable[..., np.ndarray]:
    """Return the function of `scipy.special` called `name`; SciPy is imported when it first computes something."""

    def meaning(*x: np.ndarray) -> np.ndarray:
        import scipy.special

        result: np.ndarray = getattr(scipy.special, name)(*x)
        return result

    return meaning


# ---- the error function and the bells ----------------------------------------------------------------------------------------


def _exp_of_minus_square(x: np.ndarray, scale: float) -> np.ndarray:
    """Return e**(-scale x**2); the square comes in two parts, since its rounding error counts as much as its size."""
    if x.dtype == np.float32:
        return np.asarray(np.exp(-scale * np.square(x.astype(np.float64)))).astype(np.float32)
    x = np.minimum(np.abs(x), 40.0)
    head = np.rint(x * 2.0**20) * 2.0**-20
    result: np.ndarray = np.exp(-scale * head * head) * np.exp(-scale * (x - head) * (x + head))
    return result


def _gaussian(x: np.ndarray) -> np.ndarray:
    return _exp_of_minus_square(x, 1.0)


def _normal_density(x: np.ndarray) -> np.ndarray:
    return _exp_of_minus_square(x, 0.5) * x.dtype.type(1 / math.sqrt(2 * math.pi))


gaussian: Apply = elementwise("gaussian", _gaussian, kernels.gaussian, lambda g, y, x: g * (y * (x * -2)), kinds=FLOAT, cost=20)
normal_density: Apply = elementwise(
    "normal_density", _normal_density, kernels.normal_density, lambda g, y, x: -(g * (y * x)), kinds=FLOAT, cost=20
)
erf: Apply = elementwise(
    "erf", scipy_function("erf"), kernels.erf, lambda g, y, x: g * (gaussian(x) * TWO_OVER_ROOT_PI), kinds=FLOAT, cost=50
)
erfc: Apply = elementwise(
    "erfc", scipy_function("erfc"), kernels.erfc, lambda g, y, x: g * (gaussian(x) * -TWO_OVER_ROOT_PI), kinds=FLOAT, cost=50
)
