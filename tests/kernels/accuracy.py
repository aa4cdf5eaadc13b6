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


def errors(y: np.ndarray, exact: list[mp.mpf], scales: np.ndarray | None = None) -> np.ndarray:
    """Return the errors of `y` in ULP of the exact values, or of the scales where they are larger; infinity counts as 2**(bias + 1)."""
    dtype = y.dtype.type
    limit = mp.mpf(2) ** np.finfo(dtype).maxexp
    result = []
    least = np.zeros(y.size) if scales is None else scales
    for value, reference, scale in zip(y.tolist(), exact, least.tolist(), strict=True):
        if mp.isnan(reference) or np.isnan(value):
            result.append(0.0 if mp.isnan(reference) and np.isnan(value) else np.inf)
            continue
        reference = max(min(reference, limit), -limit)
        value = mp.mpf(value) if np.isfinite(value) else mp.sign(value) * limit
        result.append(float(abs(value - reference) / ulp(min(max(abs(reference), mp.mpf(scale)), limit / 2), dtype)))
    return np.array(result)


def dense_errors(y: np.ndarray, reference: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
    """Return the same for a reference in a wider NumPy format."""
    form = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        limit = np.ldexp(reference.dtype.type(1), form.maxexp)
        reference = np.clip(reference, -limit, limit)
        exponent = np.clip(np.frexp(np.maximum(np.abs(reference), 0 if scales is None else scales))[1] - 1, form.minexp, form.maxexp - 1)
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
_logarithm: dict[str, Any] = {
    "regions": ((0.5, 2), (0.6, 0.72), (1.3, 1.5), (0, 100)),
    "exponents": (-1080, 1023),
    "keep": lambda x: x > 0,
    "hard": lambda dtype: [1.0, 2 / 3, 4 / 3, 0.5**0.5, 2**0.5, 10.0, np.finfo(dtype).tiny, np.finfo(dtype).max],
}
_growing: dict[str, Any] = {
    "regions": ((-1, 1), (-22, 22), (-0.36, 0.36), (-710.4, 710.4), (-89.4, 89.4)),
    "exponents": (-1080, 4),
    "hard": lambda dtype: [*(abs(v) for v in _between_multiples_of_ln2(dtype)), 40.0, *((89.4,) if dtype is np.float32 else (710.4,))],
}
_ratio: dict[str, Any] = {
    "regions": ((-1, 1), (0.45, 0.55), (-0.55, -0.45), (0.99, 1)),
    "exponents": (-1080, 0),
    "keep": lambda x: np.abs(x) <= 1,
    "hard": lambda dtype: [0.5, -0.5, 1.0, -1.0, float(np.finfo(dtype).tiny)],
}

CASES = {
    case.name: case
    for case in (
        Case(
            kernels.exp, mp.exp, np.exp, (1.91, 0.9), (22, 28), ((-1, 1), (-20, 20), (-745, 710), (-105, 89)), **_finite_exp,
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
            kernels.tanh, mp.tanh, np.tanh, (1.85, 1.05), (25, 45), ((-1, 1), (-22, 22), (0.2, 0.3), (-4, 4)), (-1080, 6),
            hard=lambda dtype: [0.2558, 0.6024, 9.5, 20.0],
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
        Case(kernels.tan, mp.tan, np.tan, (0.51, 0.95), (46, 194), **_wave),
        Case(
            kernels.exp2, lambda x: mp.mpf(2) ** x, np.exp2, (0.9, 0.85), (22, 27), ((-1, 1), (-20, 20), (-1075, 1024), (-150, 128)),
            hard=lambda dtype: [0.5, -0.5, 1.5, -1.5, -126.5, -1022.5],
        ),
        Case(kernels.log2, lambda x: mp.log(x, 2), np.log2, (0.51, 0.51), (27, 77), **_logarithm),
        Case(kernels.log10, mp.log10, np.log10, (0.51, 0.51), (28, 77), **_logarithm),
        Case(kernels.sinh, mp.sinh, np.sinh, (0.9, 0.9), (43, 47), **_growing),
        Case(kernels.cosh, mp.cosh, np.cosh, (0.9, 0.9), (35, 39), **_growing),
        Case(
            kernels.arcsinh, mp.asinh, np.arcsinh, (0.51, 0.85), (65, 94), ((-1, 1), (-3, 3), (0.49, 0.53), (-100, 100)), (-1080, 1023),
            hard=lambda dtype: [0.5, 1.0, 2.0**60, np.finfo(dtype).max],
        ),
        Case(
            kernels.arccosh, mp.acosh, np.arccosh, (0.51, 0.9), (58, 84), ((1, 1.01), (1, 3), (1, 100)), (0, 1023), keep=lambda x: x >= 1,
            hard=lambda dtype: [1.0, 1 + float(np.finfo(dtype).eps), 2.0**60, np.finfo(dtype).max],
        ),
        Case(
            kernels.arctanh, mp.atanh, np.arctanh, (0.51, 1.0), (61, 75), ((-1, 1), (-0.2, 0.2), (0.99, 1)), (-1080, 0),
            keep=lambda x: np.abs(x) < 1, hard=lambda dtype: [2.0**-30, 1 / 3, 1 - float(np.finfo(dtype).epsneg)],
        ),
        Case(kernels.arcsin, mp.asin, np.arcsin, (0.51, 0.65), (32, 45), **_ratio),
        Case(kernels.arccos, mp.acos, np.arccos, (0.51, 0.65), (34, 47), **_ratio),
        Case(
            kernels.arctan, mp.atan, np.arctan, (0.51, 0.7), (33, 65), ((-1, 1), (-4, 4), (0.4, 0.43), (2.3, 2.5), (-100, 100)),
            (-1080, 1023), hard=lambda dtype: [2**0.5 - 1, 2**0.5 + 1, 1.0, 2.0**60, np.finfo(dtype).max],
        ),
        Case(
            kernels.cbrt, lambda x: mp.sign(x) * mp.cbrt(abs(x)), np.cbrt, (0.51, 0.51), (52, 62), ((-1, 1), (0.1, 10), (-100, 100)),
            (-1080, 1023), hard=lambda dtype: [8**0.5, 8**-0.5, 2**0.5, 0.5**0.5, 1.0, 27.0, np.finfo(dtype).max],
        ),
    )
}  # fmt: skip


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


def point_pairs(dtype: type, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the plane: of moderate size, of every size, nearly on a diagonal, and at the border of the subnormal numbers."""
    rng, form = np.random.default_rng(seed), np.finfo(dtype)
    share = count // 4

    def any_size(low: int, high: int) -> np.ndarray:
        return np.ldexp(rng.uniform(-2, 2, share), rng.integers(low, high, share))

    with np.errstate(all="ignore"):
        first = [rng.uniform(-1, 1, share), any_size(form.minexp - form.nmant, form.maxexp - 2), any_size(-3, 3)]
        second = [rng.uniform(-1, 1, share), any_size(form.minexp - form.nmant, form.maxexp - 2), first[2] * rng.uniform(0.4, 0.6, share)]
        edge = [any_size(form.minexp - 12, form.minexp + 3) for _ in range(2)]
        x, y = (np.concatenate([*part, border]).astype(dtype) for part, border in ((first, edge[0]), (second, edge[1])))
    return x, y


@dataclass(frozen=True)
class PairCase:
    """A kernel of two operands; see `Case`."""

    kernel: Callable[..., Any]
    exact: Callable[[mp.mpf, mp.mpf], mp.mpf]
    dense: Callable[[np.ndarray, np.ndarray], np.ndarray]
    bounds: tuple[float, float]
    instructions: tuple[int, int]
    points: Callable[[type, int, int], tuple[np.ndarray, np.ndarray]]
    scales: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(default=lambda x, y: np.zeros(x.shape))


def exponent_pairs(dtype: type, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return exponents near each other, far apart, and of every size."""
    rng = np.random.default_rng(seed)
    share = count // 4
    x = np.concatenate([rng.uniform(-3, 3, share), rng.uniform(-700, 700, share), *(rng.standard_normal(share) * 1e30 for _ in range(2))])
    apart = [rng.uniform(-3, 3, share), rng.uniform(-60, 60, share), np.zeros(share), rng.standard_normal(share) * 1e30]
    return x.astype(dtype), (x + np.concatenate(apart)).astype(dtype)


def _larger_or_one(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum of a large number and a logarithm cannot be more accurate than the number."""
    return np.maximum(np.maximum(np.abs(x), np.abs(y)), 1).astype(np.float64)


def _logaddexp(x: mp.mpf, y: mp.mpf) -> mp.mpf:
    return max(x, y) + mp.log1p(mp.exp(-abs(x - y)))


def _logaddexp2(x: mp.mpf, y: mp.mpf) -> mp.mpf:
    return max(x, y) + mp.log1p(mp.mpf(2) ** -abs(x - y)) / mp.log(2)


PAIR_CASES = {
    "power": PairCase(kernels.power, mp.power, np.power, (0.55, 1.0), (69, 134), power_points),
    "arctan2": PairCase(kernels.arctan2, mp.atan2, np.arctan2, (0.52, 1.5), (51, 88), point_pairs),
    "logaddexp": PairCase(kernels.logaddexp, _logaddexp, np.logaddexp, (1.1, 1.0), (45, 57), exponent_pairs, _larger_or_one),
    "logaddexp2": PairCase(kernels.logaddexp2, _logaddexp2, np.logaddexp2, (1.5, 1.4), (47, 59), exponent_pairs, _larger_or_one),
    "hypot": PairCase(kernels.hypot, mp.hypot, np.hypot, (0.51, 1.0), (12, 38), point_pairs),
}
