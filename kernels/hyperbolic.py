"""sinh, cosh and tanh.

sinh and cosh reduce x to r = x - n ln2 and use the addition theorems with sinh r and cosh r, so that no quotient is needed.
`tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

from staticgrad.kernels.exponential import LOG2_E, expm1_parts, ln2_parts
from staticgrad.kernels.floating import DOUBLE, SINGLE, Format, Value, Vocabulary, at_most, fast_two_sum, format_of, with_sign_of
from staticgrad.kernels.polynomial import horner

OFF_CENTRE = 0.0825
# (r / tanh r - 1) / r**2 in r**2 for |r| <= ln2 / 4 + 0.0825, relative error of tanh 2**-25.4
COTH_TAIL = (0.3333294689655304, -0.022030722349882126)


def tanh(b: Vocabulary, x: Value) -> Value:
    """Return the hyperbolic tangent for float32 (within 1.85 ULP) or float64 (1.05)."""
    magnitude = b.abs(x)
    y = _tanh_single(b, magnitude) if format_of(x) is SINGLE else _tanh_double(b, magnitude)
    return with_sign_of(b, y, x)


def _tanh_single(b: Vocabulary, x: Value) -> Value:
    """Return tanh x for x >= 0: with x = n ln2 / 2 + r and a = r / tanh r it is t / (t + a - r), t = (2**n - 1) / 2 (a + r) + r.

    The numerator's rounding is in the denominator too, where it matters most, next to 1. For n = 0 the numerator is x itself; n is
    rounded off-centre, so that this holds up to tanh x = 1/4.
    """
    inside = at_most(b, x, 9.5)
    shifter = b.like(SINGLE.shifter + SINGLE.bias - 1, x)
    shifted = b.fma(b.sub(inside, b.like(OFF_CENTRE, x)), b.like(2 * LOG2_E, x), shifter)
    n = b.sub(shifted, shifter)
    r = b.fma(n, b.like(-0.5 * math.log(2), x), inside)
    half_power = b.bitcast(b.shl(b.bitcast(shifted, SINGLE.bits), SINGLE.fraction), SINGLE.dtype)
    a = horner(b, b.mul(r, r), (1.0, *COTH_TAIL))
    numerator = b.fma(b.sub(half_power, b.like(0.5, x)), b.add(a, r), r)
    return b.div(numerator, b.add(numerator, b.sub(a, r)))


def _tanh_double(b: Vocabulary, x: Value) -> Value:
    """Return tanh x for x >= 0: z / (z + 2) with z = e**2x - 1, where z, the sum and the quotient keep what rounding lost."""
    one, two = b.like(1, x), b.like(2, x)
    head, tail, power = expm1_parts(b, b.mul(at_most(b, x, 20.0), two))
    base = b.fma(power, head, b.sub(power, one))
    z = b.fma(power, tail, base)
    z_low = b.fma(power, tail, b.sub(base, z))
    total, lost = fast_two_sum(b, two, z)  # exact for z > 2 as well: total - 2 is a multiple of the last bit of `total`
    inverse = b.div(one, total)
    y = b.mul(z, inverse)
    minus_y = b.neg(y)
    rest = b.fma(minus_y, b.add(lost, z_low), b.add(b.fma(minus_y, total, z), z_low))
    return b.fma(rest, inverse, y)


# (sinh r - r) / r**3 and (cosh r - 1) / r**2 in r**2 for |r| <= ln2 / 2, relative errors of sinh 2**-34.3 and 2**-61.6, of cosh 2**-33.2
# and 2**-58.0
SINH_TAIL: dict[Format, tuple[float, ...]] = {
    SINGLE: (0.1666666716337204, 0.00833317544311285, 0.00019974089809693396),
    DOUBLE: (0.16666666666666677, 0.008333333333321376, 0.00019841269886867175, 2.7557243376510674e-06, 2.5109354984262423e-08),
}
COSH_TAIL: dict[Format, tuple[float, ...]] = {
    SINGLE: (0.5, 0.041666459292173386, 0.0013935453025624156),
    DOUBLE: (0.5000000000000012, 0.0416666666665191, 0.0013888888946176946, 2.480149071373832e-05, 2.7631032547312733e-07),
}
HIGHEST = {SINGLE: 89.6, DOUBLE: 710.6}
"""From here on sinh and cosh are infinite."""


def sinh(b: Vocabulary, x: Value) -> Value:
    """Return the hyperbolic sine for float32 or float64 within 0.9 ULP."""
    magnitude = b.abs(x)
    power, inverse, *parts = _reduced(b, magnitude)
    y = _combined(b, fast_two_sum(b, power, b.neg(inverse)), b.add(power, inverse), *parts)
    tiny = b.lt(magnitude, b.like(2.0**-30, x))  # halves of subnormal numbers are not exact
    return with_sign_of(b, b.select(tiny, magnitude, y), x)


def cosh(b: Vocabulary, x: Value) -> Value:
    """Return the hyperbolic cosine for float32 or float64 within 0.9 ULP."""
    power, inverse, *parts = _reduced(b, b.abs(x))
    return _combined(b, fast_two_sum(b, power, inverse), b.sub(power, inverse), *parts)


def _reduced(b: Vocabulary, x: Value) -> tuple[Value, Value, Value, Value, Value]:
    """Return 2**n / 4 and 2**-n / 4 with n ln2 next to x >= 0; of r = x - n ln2 the head, sinh r - head and cosh r - 1."""
    f = format_of(x)
    inside = at_most(b, x, HIGHEST[f])
    high, low = ln2_parts(f)
    shifter = b.like(f.shifter + f.bias - 2, x)
    shifted = b.fma(inside, b.like(LOG2_E, x), shifter)
    n = b.sub(shifted, shifter)
    head = b.fma(n, b.like(-high, x), inside)
    rest = b.mul(n, b.like(-low, x))
    r = b.add(head, rest)
    z = b.mul(r, r)
    sinh_tail = b.fma(b.mul(z, r), horner(b, z, SINH_TAIL[f]), rest)
    cosh_tail = b.mul(z, horner(b, z, COSH_TAIL[f]))
    bits = b.shl(b.bitcast(shifted, f.bits), f.fraction)
    inverse = b.bitcast(b.sub(b.like((2 * f.bias - 4) << f.fraction, bits), bits), f.dtype)
    inverse = b.select(b.lt(inside, b.like(40.0, x)), inverse, b.like(0, x))  # further out it adds nothing, and leaves the range
    return b.bitcast(bits, f.dtype), inverse, head, sinh_tail, cosh_tail


def _combined(b: Vocabulary, even: tuple[Value, Value], odd: Value, head: Value, sinh_tail: Value, cosh_tail: Value) -> Value:
    """Return 2 (even cosh r + odd sinh r), as the addition theorems have it, where `even` is a sum of two numbers.

    What the largest sum rounds off is kept.
    """
    high, low = even
    total = b.fma(odd, head, high)
    lost = b.add(b.fma(odd, head, b.sub(high, total)), low)
    y = b.add(total, b.fma(odd, sinh_tail, b.fma(high, cosh_tail, lost)))
    return b.add(y, y)
