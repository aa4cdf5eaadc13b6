"""What the accuracy tests of all kernels share: sample points, exact values, and errors in units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath as mp
import numpy as np

from staticgrad import kernels

FORMATS = (np.float32, np.float64)
DOMAIN = {np.float32: (-104.0, 89.0), np.float64: (-746.0, 710.0)}  # where e**x is neither 0 nor infinite
EXTENDED = np.finfo(np.longdouble).nmant >= 63


@dataclass(frozen=True)
class Case:
    """A kernel of one operand: its exact value, NumPy's in extended precision, where to sample, and what is demanded.

    `bounds` are the largest errors in ULP, `instructions` the longest programs, for (float32, float64). The bounds come from all
    float32 numbers from 2**-16 to 2**8 (for sin and cos all there are) and at least 4 million float64 numbers a region.
    """

    kernel: Callable[..., Any]
    exact: Callable[[mp.mpf], mp.mpf]
    dense: Callable[[np.ndarray], np.ndarray]
    bounds: tuple[float, float]
    instructions: tuple[int, int]
    regions: tuple[tuple[float, float], ...]
    exponents: tuple[int, int] = (-1080, 3)
    keep: Callable[[np.ndarray], np.ndarray] = field(default=np.isfinite)
    hard: Callable[[type], list[float]] = field(default=lambda dtype: [])

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def points(self, dtype: type, count: int, seed: int) -> np.ndarray:
        """Return about `count` points: uniform in each region, uniform in the exponent, the hard ones and their neighbours."""
        rng = np.random.default_rng(seed)
        share = count // (len(self.regions) + 1)
        with np.errstate(all="ignore"):
            parts = [rng.uniform(low, high, share) for low, high in self.regions]
            parts.append(np.ldexp(rng.uniform(-2, 2, share), rng.integers(*self.exponents, share)))
            hard = np.array(self.hard(dtype), dtype)
            near = [np.nextafter(hard, dtype(s)) for s in (-np.inf, np.inf)]
            points = np.concatenate([*(part.astype(dtype) for part in parts), hard, *near])
        return points[np.isfinite(points) & self.keep(points)]


def ulp(magnitude: mp.mpf, dtype: type) -> mp.mpf:
    """Return the distance of neighbours of `dtype` at a magnitude, down to the subnormal ones."""
    form = np.finfo(dtype)
    exponent = max(mp.mag(magnitude) - 1, form.minexp) if magnitude else form.minexp
    return mp.mpf(2) ** (exponent - form.nmant)


def errors(y: np.ndarray, exact: list[mp.mpf]) -> np.ndarray:
    """Return the errors of `y` in ULP of the exact values; infinity counts as 2**(bias + 1)."""
    dtype = y.dtype.type
    limit = mp.mpf(2) ** np.finfo(dtype).maxexp
    result = []
    for value, reference in zip(y.tolist(), exact, strict=True):
        if mp.isnan(reference) or np.isnan(value):
            result.append(0.0 if mp.isnan(reference) and np.isnan(value) else np.inf)
            continue
        reference = max(min(reference, limit), -limit)
        value = mp.mpf(value) if np.isfinite(value) else mp.sign(value) * limit
        result.append(float(abs(value - reference) / ulp(min(abs(reference), limit / 2), dtype)))
    return np.array(result)


def dense_errors(y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the same for a reference in a wider NumPy format."""
    form = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        limit = np.ldexp(reference.dtype.type(1), form.maxexp)
        reference = np.clip(reference, -limit, limit)
        exponent = np.clip(np.frexp(np.abs(reference))[1] - 1, form.minexp, form.maxexp - 1)
        wide = np.where(np.isinf(y), np.sign(y) * limit, y.astype(reference.dtype))
        error = np.abs(wide - reference) / np.ldexp(reference.dtype.type(1), exponent - form.nmant)
        error = np.where(np.isnan(y) & np.isnan(reference), 0, error)
    return np.where(np.isnan(error), np.inf, error).astype(np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    z = np.exp(-np.abs(x))
    return np.where(x < 0, z, 1) / (1 + z)


def _between_multiples_of_ln2(dtype: type) -> list[float]:
    low, high = DOMAIN[dtype]
    steps = np.arange(np.ceil(low / np.log(2)), high / np.log(2))
    return [low, high, *(steps[::7] * np.log(2)), *((steps[::5] + 0.5) * np.log(2))]


def _near_multiples_of_half_pi(dtype: type) -> list[float]:
    multiples = [float(mp.mpf(k) * mp.pi / 2) for k in (*range(1, 60), 355, 10**6 + 3, 2**28 + 5, 10**9 + 7, 2**39 + 1)]
    between = [float(mp.mpf(2 * k + 1) * mp.pi / 4) for k in range(40)]
    # The arguments that come nearest to a multiple of pi/2 (J.-M. Muller, Elementary Functions), the bounds of the ranges
    nearest = [16367173.0 * 2.0**72] if dtype is np.float32 else [6381956970095103.0 * 2.0**797]
    return [*multiples, *between, *nearest, *(2.0**k for k in (27, 39, 40, 44, 63, 64, 65, 86, 107, 127))]


_finite_exp = {"keep": lambda x: (x > DOMAIN[x.dtype.type][0] - 5) & (x < DOMAIN[x.dtype.type][1] + 5)}
_wave: dict[str, Any] = {
    "regions": ((-1, 1), (-10, 10), (-1e3, 1e3), (-1e8, 1e8), (-1e12, 1e12)),
    "exponents": (-1074, 1023),
    "hard": _near_multiples_of_half_pi,
}

CASES = {
    case.name: case
    for case in (
        Case(
            kernels.exp, mp.exp, np.exp, (0.9, 0.9), (23, 28), ((-1, 1), (-20, 20), (-745, 710), (-105, 89)), **_finite_exp,
            hard=_between_multiples_of_ln2,
        ),
        Case(
            kernels.expm1, mp.expm1, np.expm1, (1.25, 1.5), (27, 33), ((-1, 1), (-0.36, -0.34), (-40, 40), (-105, 89)), **_finite_exp,
            hard=_between_multiples_of_ln2,
        ),
        Case(
            kernels.log, mp.log, np.log, (0.95, 0.9), (31, 37), ((0.5, 2), (0.6, 0.72), (1.3, 1.5), (0, 100)), (-1080, 1023),
            keep=lambda x: x > 0, hard=lambda dtype: [1.0, 2 / 3, 4 / 3, 0.5**0.5, 2**0.5, np.finfo(dtype).tiny, np.finfo(dtype).max],
        ),
        Case(
            kernels.log1p, mp.log1p, np.log1p, (1.2, 0.95), (44, 49), ((-0.99, 2), (0.33, 0.45), (-0.3, -0.28), (0, 100)), (-1080, 1023),
            keep=lambda x: x > -1, hard=lambda dtype: [-1.0, 1 / 3, -1 / 3, 2**0.5 - 1, np.finfo(dtype).max, 2.0**27, 2.0**56],
        ),
        Case(
            kernels.tanh, mp.tanh, np.tanh, (1.1, 1.05), (32, 45), ((-1, 1), (-22, 22), (0.68, 0.72), (-4, 4)), (-1080, 6),
            hard=lambda dtype: [0.7, 10.0, 20.0],
        ),
        Case(
            kernels.sigmoid, lambda x: 1 / (1 + mp.exp(-x)), _sigmoid, (1.5, 1.5), (34, 39),
            ((-1, 1), (-10, 10), (-745, 40), (-104, 20), (-4.86, -4.83)), **_finite_exp,
        ),
        Case(
            kernels.softplus, lambda x: mp.log1p(mp.exp(x)), lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), (1.67, 1.67),
            (43, 55), ((-1, 1), (-10, 10), (-745, 40), (-104, 20), (-0.45, -0.43)), **_finite_exp,
            hard=lambda dtype: [float(-np.log(2)), 0.0],
        ),
        Case(kernels.sin, mp.sin, np.sin, (0.51, 0.85), (48, 183), **_wave),
        Case(kernels.cos, mp.cos, np.cos, (0.51, 0.85), (43, 179), **_wave),
    )
}  # fmt: skip

POWER_BOUNDS = {np.float32: 0.55, np.float64: 1.0}
POWER_INSTRUCTIONS = {np.float32: 69, np.float64: 134}


def power_points(dtype: type, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y with x**y from the subnormal numbers to infinity: moderate, extreme and nearly 1 bases."""
    rng = np.random.default_rng(seed)
    share, digits = count // 4, np.finfo(dtype).nmant
    low, high = DOMAIN[dtype]
    bases = (
        np.exp(rng.uniform(-5, 5, share)),
        np.exp(rng.uniform(low + 2, high - 2, share)),
        1 + rng.standard_normal(share) * 2.0 ** -rng.integers(2, digits, share),
        rng.uniform(0.5, 2, share),
    )
    with np.errstate(all="ignore"):
        x = np.concatenate(bases).astype(dtype)
        x = x[(x > 0) & (x != 1) & np.isfinite(x)]
        y = (rng.uniform(low - 1, high + 1, x.size) / np.log(x.astype(np.longdouble))).astype(dtype)
    keep = np.isfinite(y)
    return x[keep], y[keep]
