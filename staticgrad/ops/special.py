"""SciPy's special functions, one element at a time; what each means is what `scipy.special` computes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.ops.comparison import less, logical_and, where, where_zero
from staticgrad.ops.elementwise import FLOAT, Apply, Derivative, elementwise

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
    result: np.ndarray = _exp_of_minus_square(x, 0.5) * x.dtype.type(1 / math.sqrt(2 * math.pi))
    return result


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

# ---- divergences ---------------------------------------------------------------------------------------------------------------


def _near(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where x / y is nearly 1, with u = (x - y) / y there, and s = (x - y) / (x + y)."""
    ratio = x / y
    near = (ratio > 0.5) & (ratio < 2)
    u = np.where(near, (x - y) / y, np.zeros_like(x))
    return near, u, u / (2 + u)


def _log_ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    near, u, _ = _near(x, y)
    ratio = x / y
    inside = (ratio >= np.finfo(x.dtype).tiny) & (ratio < np.inf)
    apart = np.log(np.where(inside, ratio, x)) - np.log(np.where(inside, np.ones_like(y), y))
    return np.where(near, np.log1p(u), apart)


def _kl_div(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SciPy's function, but without the cancellation where x is nearly y: y u s (1 + (1 + s) (s / 3 + s**3 / 5 + ...))."""
    near, u, s = _near(x, y)
    odd = sum(s ** (2 * k + 1) / (2 * k + 3) for k in range(18))
    return np.where(near, y * u * s * (1 + (1 + s) * odd), scipy_function("kl_div")(x, y))


def _both_positive(x: Value, y: Value) -> Value:
    zero = zeros_like(x)
    return logical_and(less(zero, x), less(zero, y))


def _where_positive(rule: Callable[[Value, Value, Value], Value]) -> Derivative:
    """Return the derivative `rule(g, x, y)` where x and y are positive, 0 elsewhere."""

    def derivative(g: Value, _: Value, x: Value, y: Value) -> Value:
        both = _both_positive(x, y)
        one = full(x.shape, 1, x.dtype)
        return where_zero(both, rule(g, where(both, x, one), where(both, y, one)))

    return derivative


log_ratio: Apply = elementwise(
    "log_ratio", _log_ratio, kernels.log_ratio, lambda g, z, x, y: g / x, lambda g, z, x, y: -(g / y), arity=2, kinds=FLOAT, cost=100
)
rel_entr: Apply = elementwise(
    "rel_entr", scipy_function("rel_entr"), kernels.rel_entr,
    _where_positive(lambda g, x, y: g * (log_ratio(x, y) + 1)), _where_positive(lambda g, x, y: -(g * (x / y))),
    arity=2, kinds=FLOAT, cost=110,
)  # fmt: skip
kl_div: Apply = elementwise(
    "kl_div", _kl_div, kernels.kl_div,
    _where_positive(lambda g, x, y: g * log_ratio(x, y)), _where_positive(lambda g, x, y: g * ((y - x) / y)),
    arity=2, kinds=FLOAT, cost=110,
)  # fmt: skip
