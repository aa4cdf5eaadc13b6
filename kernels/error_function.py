"""The error function and its complement.

Near 0 erf x = x + x S(x**2). Further out erfc x = e**-x**2 P(t) / (1 + 2 x) with t = (x - c) / (x + c): the factor P varies slowly, as
Shepherd and Laframboise noticed (Chebyshev approximation of (1 + 2x) exp(x**2) erfc x, Mathematics of Computation 36, 1981).
`tests/kernels/special_fits.py` computes every coefficient here.
"""

from __future__ import annotations

from dataclasses import dataclass

from staticgrad.kernels.exponential import exp_of_negative, exp_of_sum
from staticgrad.kernels.floating import (
    DOUBLE,
    SINGLE,
    Value,
    Vocabulary,
    at_least,
    at_most,
    fast_two_sum,
    format_of,
    two_product,
    with_sign_of,
)
from staticgrad.kernels.polynomial import horner

NEAR = 0.5
"""From here on erfc comes from the tail."""


@dataclass(frozen=True)
class Constants:
    """What differs between the formats. At `highest` erfc is 0."""

    centre: float
    highest: float
    small: tuple[float, ...]  # (erf x - x) / x in x**2 for |x| <= 1, relative errors of erf 2**-29.3 and 2**-56.3
    tail: tuple[float, ...]  # (1 + 2 x) e**x**2 erfc x in t for 0.5 <= x <= `highest`, relative errors 2**-27.2 and 2**-56.6


CONSTANTS = {
    SINGLE: Constants(
        centre=2.0,
        highest=10.1,
        small=(
            0.12837916612625122, -0.3761262595653534, 0.11283578723669052, -0.026853347197175026, 0.005187162198126316,
            -0.0007997853099368513, 7.806903158780187e-05,
        ),
        tail=(
            1.2769783735275269, -0.09276382625102997, -0.16603033244609833, 0.16405005753040314, -0.05421622470021248,
            -0.008013652637600899, 0.008677137084305286, 0.0011637076968327165, -0.0012870939681306481, -0.00023601534485351294,
        ),
    ),
    DOUBLE: Constants(
        centre=3.5,
        highest=27.3,
        small=(
            0.1283791670955126, -0.37612638903184104, 0.1128379167097148, -0.026866170648119792, 0.005223977653698636,
            -0.0008548328601121647, 0.00012055388828586173, -1.4926950446202673e-05, 1.6482250445902373e-06, -1.657060875675445e-07,
            1.6109255111872688e-08, -1.6855476229217558e-09, 1.5035768025839837e-10,
        ),
        tail=(
            1.2423492448711544, -0.1400091801376194, -0.010555596332221964, 0.09751909515325592, -0.1150895981599817, 0.08798315382495563,
            -0.04882332583256123, 0.01909933094119293, -0.004215019855439003, -0.0003022678703394628, 0.0005643840804556766,
            -0.0001215124320364547, -4.2780910591073356e-05, 2.4260856400735146e-05, 2.325109678826882e-06, -3.813952291143863e-06,
            -3.9549289498290446e-08, 5.992020097791388e-07, -1.174096457340465e-08, -9.200877641261198e-08, 1.892233605319217e-09,
            9.974959337591394e-09,
        ),
    ),
}  # fmt: skip


def erf(b: Vocabulary, x: Value) -> Value:
    """Return the error function for float32 or float64 within 1.05 ULP."""
    constants = CONSTANTS[format_of(x)]
    one, two, c = b.like(1, x), b.like(2, x), b.like(constants.centre, x)
    magnitude = b.abs(x)
    inside = at_most(b, magnitude, constants.highest)
    # Both quotients from one division; where erfc is large enough to matter, x**2 has no rounding error to speak of.
    linear, above = b.fma(two, inside, one), b.add(inside, c)
    inverse = b.div(one, b.mul(linear, above))
    t = b.mul(b.mul(b.sub(inside, c), linear), inverse)
    quotient = b.mul(horner(b, t, constants.tail), b.mul(above, inverse))
    far = b.fma(b.neg(exp_of_negative(b, b.neg(b.mul(inside, inside)))), quotient, one)
    return b.select(b.lt(magnitude, one), erf_of_small(b, x), with_sign_of(b, far, x))


def erfc(b: Vocabulary, x: Value) -> Value:
    """Return 1 - erf x for float32 or float64 within 1.6 ULP, without cancellation, subnormal results included."""
    magnitude = b.abs(x)
    tail = erfc_of_large(b, magnitude)
    far = b.select(b.lt(x, b.like(0, x)), b.sub(b.like(2, x), tail), tail)
    return b.select(b.lt(magnitude, b.like(NEAR, x)), b.sub(b.like(1, x), erf_of_small(b, x)), far)


def erf_of_small(b: Vocabulary, x: Value) -> Value:
    """Return erf x for |x| <= 1."""
    inside = at_most(b, at_least(b, x, -1.0), 1.0)
    return b.fma(inside, horner(b, b.mul(inside, inside), CONSTANTS[format_of(x)].small), inside)


def erfc_of_large(b: Vocabulary, x: Value) -> Value:
    """Return erfc x for x >= 0.5, a number for any other; NaN stays."""
    constants = CONSTANTS[format_of(x)]
    inside = at_most(b, x, constants.highest)
    square, lost = two_product(b, inside, inside)
    power = exp_of_sum(b, b.neg(square), b.neg(lost))
    high, low = without_exponential(b, inside)
    return b.fma(power, high, b.mul(power, low))


def centred(b: Vocabulary, x: Value, centre: float) -> Value:
    """Return t = (x - centre) / (x + centre) for x >= 0, nearly rounded."""
    c, one = b.like(centre, x), b.like(1, x)
    inverse = b.div(one, b.add(x, c))
    t = b.mul(b.sub(x, c), inverse)
    rest = b.fma(b.neg(t), x, b.fma(b.add(t, one), b.neg(c), x))
    return b.fma(rest, inverse, t)


def without_exponential(b: Vocabulary, x: Value) -> tuple[Value, Value]:
    """Return e**x**2 erfc x = P(t) / (1 + 2 x) as a sum of two numbers."""
    constants = CONSTANTS[format_of(x)]
    t = centred(b, x, constants.centre)
    constant, *others = constants.tail
    numerator, lost = fast_two_sum(b, b.like(constant, x), b.mul(t, horner(b, t, others)))
    return over_linear(b, numerator, lost, x)


def over_linear(b: Vocabulary, y: Value, y_low: Value, x: Value) -> tuple[Value, Value]:
    """Return (y + y_low) / (1 + 2 x) for x >= 0 as a sum of two numbers."""
    minus_two, one = b.like(-2, x), b.like(1, x)
    inverse = b.div(one, b.fma(minus_two, b.neg(x), one))
    quotient = b.mul(y, inverse)
    rest = b.add(b.sub(b.fma(b.mul(quotient, minus_two), x, y), quotient), y_low)
    return quotient, b.mul(rest, inverse)
