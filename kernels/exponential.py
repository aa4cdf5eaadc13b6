"""exp and expm1.

x = n ln2 + r with |r| <= ln2 / 2 (Cody and Waite's reduction, by fused multiply-add), e**r by a minimax polynomial
(`tests/kernels/minimax.py` computes every coefficient here), and 2**n assembled from its bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from staticgrad.kernels.floating import DOUBLE, SINGLE, Format, Value, Vocabulary, at_least, at_most, fast_two_sum, format_of
from staticgrad.kernels.polynomial import horner

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Constants:
    """What differs between the formats. Below `lowest` and above `highest` the result does not change any more."""

    ln2: tuple[float, float]  # the sum of the two is ln 2
    lowest: float
    highest: float
    expm1_lowest: float
    exp: tuple[float, ...]  # e**r = 1 + r + r**2 * (...), relative error 2**-28.2 and 2**-57.9
    expm1: tuple[float, ...]  # the same with the error relative to e**r - 1, 2**-26.1 and 2**-61.6


_CONSTANTS = {
    SINGLE: Constants(
        ln2=(0.693147182464599609375, -1.904654299957767878541e-9),
        lowest=-104.0,
        highest=89.0,
        expm1_lowest=-18.0,
        exp=(0.4999999403953552, 0.1666652113199234, 0.04166826605796814, 0.008368683978915215, 0.001382095506414771),
        expm1=(0.4999999701976776, 0.1666654646396637, 0.04166743531823158, 0.00836626160889864, 0.0013870660914108157),
    ),
    DOUBLE: Constants(
        ln2=(0.693147180559945286226764, 2.319046813846299558417771e-17),
        lowest=-746.0,
        highest=710.0,
        expm1_lowest=-38.0,
        exp=(
            0.5000000000000011, 0.16666666666666458, 0.041666666666528275, 0.008333333333473353, 0.0013888888943891199,
            0.00019841269541993612, 2.4801492945057357e-05, 2.755756084392367e-06, 2.7630281908731545e-07, 2.5006789683200135e-08,
        ),
        expm1=(
            0.5, 0.16666666666666677, 0.041666666666666685, 0.00833333333332176, 0.0013888888888890993, 0.00019841269885428076,
            2.480158728667582e-05, 2.755724509002352e-06, 2.755732227496e-07, 2.5108700286480033e-08, 2.0896180374469803e-09,
        ),
    ),
}  # fmt: skip


# e**r, where the error counts in ULP: 1.07 of them; one term less than above makes exp a tenth faster, and leaves it within 2 ULP
SHORT_EXP = (1.0, 0.999999463558197, 0.49999144673347473, 0.16668173670768738, 0.04189854860305786, 0.008262647315859795)


def exp_coefficients(f: Format) -> tuple[float, ...]:
    """Return the polynomial of e**r for |r| <= ln2 / 2, constant term first."""
    return (1.0, 1.0, *_CONSTANTS[f].exp)


def expm1_coefficients(f: Format) -> tuple[float, ...]:
    """Return the polynomial of (e**r - 1 - r) / r**2 for |r| <= ln2 / 2, constant term first."""
    return _CONSTANTS[f].expm1


def ln2_parts(f: Format) -> tuple[float, float]:
    """Return ln 2 as a sum of two numbers, the first of which times a small whole number is exact in a fused multiply-add."""
    return _CONSTANTS[f].ln2


def exp(b: Vocabulary, x: Value) -> Value:
    """Return e**x for float32 (within 1.91 ULP) or float64 (0.9), subnormal results included."""
    f = format_of(x)
    coefficients = SHORT_EXP if f is SINGLE else exp_coefficients(f)
    return _exp(b, at_most(b, at_least(b, x, _CONSTANTS[f].lowest), _CONSTANTS[f].highest), coefficients)


def exp_of_negative(b: Vocabulary, x: Value) -> Value:
    """Return e**x for x <= 0 or NaN, within 0.9 ULP."""
    f = format_of(x)
    return _exp(b, at_least(b, x, _CONSTANTS[f].lowest), exp_coefficients(f))


def exp_of_sum(b: Vocabulary, x: Value, low: Value) -> Value:
    """Return e**(x + low) for |low| much smaller than |x| or 1; `low` is finite, also where x is not."""
    f = format_of(x)
    n, r, shifted = _reduced(b, at_most(b, at_least(b, x, _CONSTANTS[f].lowest), _CONSTANTS[f].highest))
    low = b.fma(n, b.like(-_CONSTANTS[f].ln2[1], x), low)
    rounded = b.add(r, low)
    tail = b.fma(b.mul(rounded, rounded), horner(b, rounded, _CONSTANTS[f].exp), low)
    head, lost = fast_two_sum(b, b.like(1, x), r)
    return times_power_of_two(b, b.add(head, b.add(lost, tail)), shifted)


def _exp(b: Vocabulary, x: Value, coefficients: tuple[float, ...]) -> Value:
    """Return e**x for x between the bounds, by a polynomial of e**r."""
    n, r, shifted = _reduced(b, x)
    r = b.fma(n, b.like(-_CONSTANTS[format_of(x)].ln2[1], x), r)
    return times_power_of_two(b, horner(b, r, coefficients), shifted)


def _reduced(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    """Return n, x - n ln2 without the low part of ln2, and a number whose low bits hold n + 2 bias."""
    f = format_of(x)
    shifter = b.like(f.shifter + 2 * f.bias, x)  # 2**n does not always exist: it will be halves of n, and both come out biased
    shifted = b.fma(x, b.like(LOG2_E, x), shifter)
    n = b.sub(shifted, shifter)
    return n, b.fma(n, b.like(-_CONSTANTS[f].ln2[0], x), x), shifted


def times_power_of_two(b: Vocabulary, y: Value, shifted: Value) -> Value:
    """Return y * 2**n, subnormal results included; the low bits of `shifted` hold n + 2 bias."""
    f = format_of(y)
    bits = b.bitcast(shifted, f.bits)
    half = b.shr(bits, 1)
    first, second = (b.bitcast(b.shl(part, f.fraction), f.dtype) for part in (half, b.sub(bits, half)))
    return b.mul(b.mul(y, first), second)


def expm1(b: Vocabulary, x: Value) -> Value:
    """Return e**x - 1 for float32 (within 1.25 ULP) or float64 (1.5): 2**n (e**r - 1) + (2**n - 1)."""
    f = format_of(x)
    inside = at_most(b, at_least(b, x, _CONSTANTS[f].expm1_lowest), _CONSTANTS[f].highest)
    head, tail, power = expm1_parts(b, inside)
    largest = b.like(2.0**f.bias, x)
    overflows = b.lt(largest, power)  # n = bias + 1: compute half of the result
    scale = b.select(overflows, largest, power)
    y = b.fma(scale, tail, b.fma(scale, head, b.sub(scale, b.like(1, x))))
    y = b.select(overflows, b.add(y, y), y)
    return b.select(b.eq(x, b.like(0, x)), x, y)


def expm1_parts(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    """Return (head, tail, 2**n) with e**x = 2**n (1 + head + tail), where -bias < n <= bias + 1; the head is x - n ln2, rounded."""
    f = format_of(x)
    high, low = _CONSTANTS[f].ln2
    shifter = b.like(f.shifter + f.bias, x)
    shifted = b.fma(x, b.like(LOG2_E, x), shifter)
    n = b.sub(shifted, shifter)
    head = b.fma(n, b.like(-high, x), x)
    rest = b.mul(n, b.like(-low, x))
    r = b.add(head, rest)
    tail = b.fma(b.mul(r, r), horner(b, r, expm1_coefficients(f)), rest)
    return head, tail, b.bitcast(b.shl(b.bitcast(shifted, f.bits), f.fraction), f.dtype)
