"""SciPy's special functions, one element at a time; what each means is what `scipy.special` computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.node import Value, apply, full, zeros_like
from staticgrad.ir.op import op
from staticgrad.kernels.polynomial import horner
from staticgrad.ops.comparison import less, logical_and, where, where_zero
from staticgrad.ops.elementwise import FLOAT, Apply, Derivative, Elementwise, elementwise
from staticgrad.ops.exponential import exp

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


gaussian: Apply = elementwise(
    "gaussian", _gaussian, kernels.gaussian, lambda g, y, x: g * (y * (x * -2)), kinds=FLOAT, cost=20, notation="exp(-x**2)"
)
normal_density: Apply = elementwise(
    "normal_density",
    _normal_density,
    kernels.normal_density,
    lambda g, y, x: -(g * (y * x)),
    kinds=FLOAT,
    cost=20,
    notation="exp(-x**2/2)/sqrt(2*pi)",
)
erf: Apply = elementwise(
    "erf", scipy_function("erf"), kernels.erf, lambda g, y, x: g * (gaussian(x) * TWO_OVER_ROOT_PI), kinds=FLOAT, cost=50, notation="erf(x)"
)
erfc: Apply = elementwise(
    "erfc",
    scipy_function("erfc"),
    kernels.erfc,
    lambda g, y, x: g * (gaussian(x) * -TWO_OVER_ROOT_PI),
    kinds=FLOAT,
    cost=50,
    notation="erfc(x)",
)


def _erfinv(x: np.ndarray) -> np.ndarray:
    """SciPy's function, which loses the sign of -0."""
    result: np.ndarray = np.where(x == 0, x, scipy_function("erfinv")(x))
    return result


erfinv: Apply = elementwise(
    "erfinv",
    _erfinv,
    kernels.erfinv,
    lambda g, y, x: g * (exp(y * y) * (math.sqrt(math.pi) / 2)),
    kinds=FLOAT,
    cost=60,
    notation="erfinv(x)",
)


def _erfcx_slope(g: Value, y: Value, x: Value) -> Value:
    return g * (erfcx_integral(x, 1) * -2)


erfcx: Apply = elementwise(
    "erfcx", scipy_function("erfcx"), kernels.erfcx, _erfcx_slope, kinds=FLOAT, cost=60, notation="exp(x**2)*erfc(x)"
)


@op
class ErfcxIntegral(Elementwise):
    """e**x**2 times the `order`-fold integral of erfc from x on: all that the derivatives of erfcx are made of.

    They could be had from erfcx itself, but by differences of numbers that are nearly equal.
    """

    order: int
    kinds = FLOAT
    cost = 200

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(kernels.erfcx_integral(OnFloats(), x, self.order))

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        result: Scalar = kernels.erfcx_integral(b, x, self.order)
        return result

    def formula(self, *avals: Aval) -> str:
        """Return the recurrence, begun with the derivative of -erfc and with erfcx."""
        before, integral = "2/sqrt(pi)", "exp(x**2)*erfc(x)"
        for order in range(1, self.order + 1):
            before, integral = integral, f"(({before})/2 - x*({integral}))/{order}"
        return integral

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (g * (erfcx_integral(x, self.order + 1) * (-2 * (self.order + 1))),)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else self.vjp(tangents[0], y, x)[0]


def erfcx_integral(x: Value, order: int) -> Value:
    """Return e**x**2 times the `order`-fold integral of erfc from x on."""
    return apply(ErfcxIntegral(order), x)


ndtr: Apply = elementwise(
    "ndtr",
    scipy_function("ndtr"),
    kernels.ndtr,
    lambda g, y, x: g * normal_density(x),
    kinds=FLOAT,
    cost=60,
    notation="(1 + erf(x/sqrt(2)))/2",
)
log_ndtr: Apply = elementwise(
    "log_ndtr", scipy_function("log_ndtr"), kernels.log_ndtr,
    lambda g, y, x: g * (math.sqrt(2 / math.pi) / erfcx(x * -math.sqrt(0.5))), kinds=FLOAT, cost=120,
    notation="log((1 + erf(x/sqrt(2)))/2)",
)  # fmt: skip

# ---- the gamma function ----------------------------------------------------------------------------------------------------------


def _gammaln(x: np.ndarray) -> np.ndarray:
    """SciPy's function, but finite for subnormal numbers."""
    size = np.abs(x)
    subnormal = (size > 0) & (size < np.finfo(x.dtype).tiny)
    return np.where(subnormal, -np.log(size), scipy_function("gammaln")(x))


gamma: Apply = elementwise(
    "gamma", scipy_function("gamma"), kernels.gamma, lambda g, y, x: g * (y * digamma(x)), kinds=FLOAT, cost=150, notation="gamma(x)"
)
gammaln: Apply = elementwise(
    "gammaln", _gammaln, kernels.gammaln, lambda g, y, x: g * digamma(x), kinds=FLOAT, cost=120, notation="log(Abs(gamma(x)))"
)
digamma: Apply = elementwise(
    "digamma", scipy_function("digamma"), kernels.digamma, lambda g, y, x: g * polygamma(x, 1), kinds=FLOAT, cost=120, notation="digamma(x)"
)


def _cot_pi(x: np.ndarray) -> np.ndarray:
    r = x - np.rint(x)
    far = np.abs(r) > 0.25
    tangent = np.tan(np.pi * np.where(far, 0.5 - np.abs(r), np.abs(r)))
    result: np.ndarray = np.where(r < 0, -1.0, 1.0) * np.where(far, tangent, 1 / tangent)
    return result


@op
class Polygamma(Elementwise):
    """The derivative of digamma of an order known at tracing, from 1 on."""

    order: int
    kinds = FLOAT
    cost = 120

    def numpy(self, x: np.ndarray) -> np.ndarray:
        """SciPy's function above 0; its reflection below, where SciPy's own loses digits between the poles."""
        import scipy.special

        wide = x.astype(np.float64)
        negative = (wide < 0) & (wide != np.floor(wide))
        y = np.asarray(scipy.special.polygamma(self.order, np.where(negative, 1 - wide, wide)))
        derivative = np.pi ** (self.order + 1) * horner(OnFloats(), _cot_pi(wide), kernels.cotangent_derivative(self.order))
        return np.where(negative, (-1) ** self.order * y - derivative, y).astype(x.dtype)

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        result: Scalar = kernels.polygamma(b, x, self.order)
        return result

    def formula(self, *avals: Aval) -> str:
        return f"polygamma({self.order}, x)"

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value]:
        return (g * polygamma(x, self.order + 1),)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else self.vjp(tangents[0], y, x)[0]


def polygamma(x: Value, order: int) -> Value:
    """Return the derivative of digamma of that order; 0 is digamma itself."""
    return apply(Polygamma(order), x) if order else digamma(x)


betaln: Apply = elementwise(
    "betaln", scipy_function("betaln"), kernels.betaln,
    lambda g, z, x, y: g * (digamma(x) - digamma(x + y)), lambda g, z, x, y: g * (digamma(y) - digamma(x + y)),
    arity=2, kinds=FLOAT, cost=600, notation="log(Abs(gamma(x)*gamma(y)/gamma(x + y)))",
)  # fmt: skip

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
    result: np.ndarray = np.where(near, np.log1p(u), apart)
    return result


def _kl_div(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SciPy's function without its cancellation where x is nearly y (y u s (1 + (1 + s) (s / 3 + s**3 / 5 + ...))) and its underflow."""
    near, u, s = _near(x, y)
    odd = sum(s ** (2 * k + 1) / (2 * k + 3) for k in range(18))
    positive = np.where(near, y * u * s * (1 + (1 + s) * odd), x * _log_ratio(x, y) - x + y)
    return np.where((x > 0) & (y > 0), positive, scipy_function("kl_div")(x, y))


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
    "log_ratio",
    _log_ratio,
    kernels.log_ratio,
    lambda g, z, x, y: g / x,
    lambda g, z, x, y: -(g / y),
    arity=2,
    kinds=FLOAT,
    cost=100,
    notation="log(x/y)",
)
rel_entr: Apply = elementwise(
    "rel_entr", scipy_function("rel_entr"), kernels.rel_entr,
    _where_positive(lambda g, x, y: g * (log_ratio(x, y) + 1)), _where_positive(lambda g, x, y: -(g * (x / y))),
    arity=2, kinds=FLOAT, cost=110, notation="Piecewise((x*log(x/y), (x > 0) & (y > 0)), (0, Eq(x, 0) & (y >= 0)), (oo, True))",
)  # fmt: skip
kl_div: Apply = elementwise(
    "kl_div", _kl_div, kernels.kl_div,
    _where_positive(lambda g, x, y: g * log_ratio(x, y)), _where_positive(lambda g, x, y: g * ((y - x) / y)),
    arity=2, kinds=FLOAT, cost=110, notation="Piecewise((x*log(x/y) - x + y, (x > 0) & (y > 0)), (y, Eq(x, 0) & (y >= 0)), (oo, True))",
)  # fmt: skip
