"""Functions in NumPy's vocabulary, with points to differentiate them at; `np` is a parameter, so JAX and HIPS autograd run them too."""

from dataclasses import dataclass
from typing import Any

import numpy

RNG = numpy.random.default_rng(3)


@dataclass(frozen=True)
class Case:
    """A scalar function `f(np, *args)` and its arguments."""

    name: str
    function: Any
    args: tuple[Any, ...]


CASES: list[Case] = []


def case(*args):
    def register(function):
        CASES.append(Case(function.__name__, function, args))
        return function

    return register


def normal(*shape):
    return RNG.standard_normal(shape)


@case(normal(10))
def rosenbrock(np, x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@case(normal(5, 3), normal(3, 4), normal(4), normal(4, 2), normal(5, 2))
def network(np, x, w, b, v, y):
    return np.mean((np.tanh(x @ w + b) @ v - y) ** 2)


@case(normal(6, 4), normal(4, 3), numpy.array([0, 2, 1, 1, 0, 2]))
def cross_entropy(np, x, w, labels):
    logits = x @ w
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    logarithms = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(np.sum(logarithms * (labels[:, None] == np.arange(3)), axis=1))


@case(normal(4, 5))
def softmax_entropy(np, x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    p = e / np.sum(e, axis=1, keepdims=True)
    return -np.sum(p * np.log(p))


@case(abs(normal(7)) + 0.5, abs(normal(7)) + 0.5, 0.3)
def black_scholes_like(np, s, k, sigma):
    d = np.log(s / k) / sigma + sigma / 2
    return np.sum(s * np.tanh(d) - k * np.exp(-sigma) * np.tanh(d - sigma))


@case(normal(3, 4))
def powers(np, x):
    return np.sum(x**2 + x**3 - 0.1 * x**5 + np.abs(x) ** 1.5 + (x * x + 1.0) ** -0.5)


@case(normal(3, 4), normal(4))
def kinks(np, x, y):
    return np.sum(np.maximum(x, y) + np.minimum(x, 0.3 * y) + np.abs(x) + np.clip(x, -0.5, 0.7) * np.where(x > y, x, y * y))


@case(normal(3, 4))
def reductions(np, x):
    return np.sum(np.max(x, axis=0)) + np.min(x) + np.sum(np.prod(x, axis=1)) + np.mean(x, axis=0) @ np.arange(4.0) + np.var(x)


@case(normal(2, 3, 4))
def movements(np, x):
    y = np.transpose(x, (2, 0, 1)).reshape(4, 6)
    z = np.concatenate([y[::2], y[1::2] * 2.0], axis=0)
    return np.sum(z[1:3, ::-1] * z[0]) + np.sum(np.stack([x[0], x[1]], axis=1)[:, 0] ** 2)


@case(normal(3, 4), normal(4, 5), normal(5, 3))
def products(np, a, b, c):
    return np.trace(a @ b @ c) + np.sum(np.einsum("ij,jk->ki", a, b) ** 2) + np.dot(a[0], b[:, 0]) + np.sum(np.outer(a[0], c[0]))


@case(normal(2, 3, 4), normal(4, 2))
def batched_products(np, a, b):
    return np.sum(np.sin(a @ b)) + np.sum(np.tensordot(a, b, axes=([2], [0])) ** 2)


@case(normal(6))
def shared_subexpressions(np, x):
    y = np.sin(x)
    z = y * y + y
    return np.sum(z * z + y * z) + np.sum(z[2:4]) + np.sum(z[2:4]) + z[0] * z[0]


@case(normal(8))
def recurrence(np, x):
    state = 0.0
    for k in range(8):
        state = np.tanh(0.5 * state + x[k])
    return state * state


@case(numpy.array([0.5, 1.5, 2.5]))
def logarithms(np, x):
    return np.sum(np.log(x) * np.log1p(x) + np.expm1(-x) + np.sqrt(x) / x + np.exp(-x) * np.cos(x))


@case(normal(4, 4))
def one_row_and_one_column(np, x):
    return np.sum(x[1] * x[:, 2]) + x[0, 0] * x[3, 3] + np.sum(x[::2, 1:])


@case(normal(3, 1), normal(1, 4), normal(4), normal())
def broadcasts(np, column, row, vector, scalar):
    return np.sum((column + row) * vector * scalar) + np.mean(np.exp(column * row) + scalar)


@case(numpy.array([0.3, 0.7, -0.4]), numpy.array([1.2, -0.8, 2.0]))
def angles_and_lengths(np, x, y):
    angles = np.arctan2(x, y) + np.arcsin(x) * np.arccos(x) + np.arctan(y) * np.tan(x) + np.deg2rad(y) + np.arctanh(x)
    return np.sum(angles * np.hypot(x, y) + np.arcsinh(y) * np.sinh(x) - np.arccosh(np.cosh(y) + 1) + np.cbrt(y) + np.copysign(x, y))


@case(numpy.array([0.3, 1.7, 2.4, 5.0]), numpy.array([1.2, 0.8, 2.0, 4.9]))
def other_bases_and_sums(np, x, y):
    sums = np.logaddexp(x, y) * np.logaddexp2(x, -y)
    return np.sum(np.log2(x) * np.log10(y) + np.exp2(-x) + sums + np.float_power(x, 1.5) + np.fmax(x, 2 * y) - np.fmin(x, y))


@case(numpy.array([3.3, -1.7, 2.4, -5.0]), numpy.array([1.2, 0.8, -1.1, -0.7]))
def remainders_and_rounding(np, x, y):
    steps = np.floor(x) + np.ceil(y) + np.rint(x) + np.trunc(y) + np.round(x, 1) + x // y
    return np.sum(np.remainder(x, y) ** 2 + np.fmod(x, y) * y + x * steps + np.heaviside(x, 0.5) * y)


@case(normal(5), normal(5), normal(4, 3), normal(3))
def grids(np, x, y, z, w):
    fields = np.sum(np.gradient(z, axis=0) ** 2) + np.sum(np.gradient(x, 0.3) * y) + np.trapezoid(x * x, dx=0.5) + np.trapezoid(y, axis=0)
    curve = np.interp(x, np.array([-1.0, -0.2, 0.4, 1.5]), np.tanh(z[:, 0])) + np.polyval(w, y) + np.sinc(x)
    return fields + np.sum(curve**2) + np.sum(np.cross(z, w) ** 2) + np.sum(np.kron(x, w) ** 3)


@case(normal(4, 5))
def gaps(np, x):
    y = np.where(x > -0.5, x, np.nan)
    extremes = np.sum(np.nanmax(y, axis=0) - np.nanmin(y, axis=1, keepdims=True))
    return np.nansum(np.sin(y)) + np.sum(np.nanmean(y, axis=0) ** 2) + np.nanvar(y) + extremes + np.nansum(np.nanprod(y, axis=1))


@case(normal(3, 3), normal(3))
def choices(np, x, y):
    chosen = np.select([x > 0.5, x < -0.5], [x * y, np.exp(x)], 2.0 * x)
    return np.sum(chosen**2) + np.sum(np.block([[x, y[:, None]], [y, np.sum(y)]]) ** 3) + np.sum(np.tile(y, (2, 2)) * 0.5)


WITHOUT_AUTOGRAD = {
    "kinks",
    "reductions",
    "angles_and_lengths",
    "other_bases_and_sums",
    "remainders_and_rounding",
    "grids",
    "gaps",
    "choices",
}
"""Other conventions at ties, or functions that HIPS autograd does not have."""
