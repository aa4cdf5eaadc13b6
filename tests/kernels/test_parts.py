"""The parts that several kernels are built of: sums of two numbers, reductions, and the logarithm in two parts."""

from __future__ import annotations

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest

from staticgrad.ir.floats import OnFloats
from staticgrad.kernels.floating import DOUBLE, SINGLE, fast_two_sum, format_of, two_product, two_sum, with_sign_of
from staticgrad.kernels.logarithm import split
from staticgrad.kernels.payne_hanek import WORDS, reduce_huge
from staticgrad.kernels.polynomial import horner
from staticgrad.kernels.powers import log_of_two_parts
from staticgrad.kernels.trigonometric import HUGE, SINGLE_RANGES, TWO_OVER_PI, reduce_double, reduce_single
from tests.kernels.accuracy import FORMATS

B = OnFloats()
by_format = pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)


def sample(dtype: type, low: int, high: int, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(31)
    return np.ldexp(rng.uniform(1, 2, count), rng.integers(low, high, count)).astype(dtype)


@by_format
def test_sums_and_products_of_two_parts_are_exact(dtype: type) -> None:
    rng = np.random.default_rng(32)
    x, y = (sample(dtype, -20, 20) * rng.choice([-1, 1], 300).astype(dtype) for _ in range(2))
    y = rng.permutation(y)
    larger, smaller = np.where(np.abs(x) >= np.abs(y), (x, y), (y, x))
    for function, a, c, exact in (
        (two_sum, x, y, lambda p, q: p + q),
        (fast_two_sum, larger, smaller, lambda p, q: p + q),
        (two_product, x, y, lambda p, q: p * q),
    ):
        for p, q, head, rest in zip(a, c, *function(B, a, c), strict=True):
            assert Fraction(float(head)) + Fraction(float(rest)) == exact(Fraction(float(p)), Fraction(float(q)))


@by_format
def test_sign_and_horner(dtype: type) -> None:
    magnitude, x = np.array([0, 1, 2, np.inf], dtype), np.array([-0.0, -3, 3, -np.inf], dtype)
    np.testing.assert_array_equal(np.signbit(with_sign_of(B, magnitude, x)), [True, True, False, True])
    assert horner(B, dtype(2), (1, 3, 5)) == 1 + 3 * 2 + 5 * 4
    assert horner(B, dtype(2), (7,)) == 7


@by_format
def test_split_gives_fraction_and_exponent(dtype: type) -> None:
    form = np.finfo(dtype)
    x = np.concatenate([sample(dtype, form.minexp - form.nmant, form.maxexp - 1), np.array([form.max, form.smallest_subnormal], dtype)])
    fraction, minus_k = split(B, x, subnormals=True)
    np.testing.assert_array_equal(np.ldexp(fraction.astype(np.longdouble), -minus_k.astype(int)).astype(dtype), x)
    low, high = (2 / 3, 4 / 3) if format_of(x) is SINGLE else (0.5**0.5, 2**0.5)
    assert (fraction >= low - form.eps).all() and (fraction <= high + form.eps).all()
    assert not np.signbit(split(B, dtype(1))[1])


def remainder_error(x: float, quadrant: int, *parts: float) -> mp.mpf:
    """Return how far n pi/2 + r is from x, modulo 2 pi, in units of pi/2."""
    units = mp.mpf(x) / (mp.pi / 2) - int(quadrant) - mp.fsum(map(mp.mpf, map(float, parts))) / (mp.pi / 2)
    return abs(units - 4 * mp.nint(units / 4))


@pytest.mark.parametrize(("reduce", "low", "high"), [(reduce_double, -3, 40), (reduce_huge, 0, 1023), (reduce_huge, 1000, 1023)])
def test_reduction_of_float64(reduce, low: int, high: int) -> None:
    x = np.concatenate([sample(np.float64, low, high), [np.float64(2.0**k) for k in range(max(low, 0), high)]])
    if high == 1023:
        carrying = map(
            float.fromhex, ("0x1.4af375b9c2a63p+494", "0x1.b2f76e68fc600p+207", "0x1.3df8a8dcd1e7bp+470", "0x1.f9922793fd3e9p+175")
        )
        x = np.append(x, [6381956970095103.0 * 2.0**797, np.finfo(np.float64).max, *carrying])
    quadrant, r, rest = reduce(B, x)
    assert (np.abs(r) < np.pi / 4 * 1.0001).all()
    with mp.workprec(1300):
        for number, n, *parts in zip(x.tolist(), (quadrant & 3).tolist(), r, rest, strict=True):
            assert remainder_error(number, n, *parts) <= abs(parts[0]) * mp.mpf(2) ** -80 + mp.mpf(2) ** -118


def test_reduction_of_float32() -> None:
    starts = [float(np.nextafter(np.float32(start), np.float32(toward))) for start, _, _ in SINGLE_RANGES for toward in (0, np.inf)]
    x = np.concatenate([sample(np.float32, -3, 127).astype(np.float64), [16367173.0 * 2.0**72, *starts]])
    quadrant, y = reduce_single(B, x)
    assert (np.abs(y) <= 0.504).all()
    with mp.workprec(400):
        for number, n, part in zip(x.tolist(), (quadrant & 3).tolist(), y, strict=True):
            assert remainder_error(number, n, float(part) * (mp.pi / 2)) <= abs(float(part)) * mp.mpf(2) ** -52 + mp.mpf(2) ** -57


def test_the_bits_of_two_over_pi() -> None:
    with mp.workprec(64 * len(WORDS)):
        two_over_pi = 2 / mp.pi
        bits = int(mp.floor(mp.ldexp(two_over_pi, 64 * (len(WORDS) - 1))))
        assert [int(word) for word in WORDS] == [bits >> (64 * k) & (2**64 - 1) for k in reversed(range(len(WORDS)))]
        for start, high, low in ((None, *TWO_OVER_PI), *SINGLE_RANGES):
            # A float32 from `start` on is a multiple of start / 2**23.
            unit = mp.mpf(4) if start is None else mp.mpf(2) ** 25 / mp.mpf(start)
            kept = two_over_pi - unit * mp.floor(two_over_pi / unit)
            assert abs(mp.mpf(high) + mp.mpf(low) - kept) <= abs(mp.mpf(low)) * mp.mpf(2) ** -53
    assert HUGE >= 2.0**26


def test_logarithm_in_two_parts() -> None:
    rng = np.random.default_rng(33)
    near_one = 1 + rng.standard_normal(300) * 2.0 ** -rng.integers(2, 50, 300)
    x = np.concatenate([sample(np.float64, -1074, 1023), near_one[near_one != 1], rng.uniform(0.5, 2, 300)])
    high, low = log_of_two_parts(B, x)
    with mp.workprec(200):
        worst = max(
            abs((mp.mpf(h) + mp.mpf(rest)) / mp.log(mp.mpf(v)) - 1)
            for v, h, rest in zip(x.tolist(), high.tolist(), low.tolist(), strict=True)
        )
    print(f"log in two parts: relative error 2**{float(mp.log(worst, 2)):.1f}")
    assert worst < mp.mpf(2) ** -63
    assert format_of(x) is DOUBLE
