"""sin, cos and tan over the whole domain.

x = n pi/2 + r with |r| <= pi/4, a minimax polynomial for sin r or cos r (`tests/kernels/minimax.py` computes them), and a sign; the
tangent is their quotient.
float32 is computed in float64. Neither format loses accuracy for huge arguments; see `reduce_single` and `reduce_double`.
"""

from __future__ import annotations

import math

from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, fast_two_sum, format_of, lanes, two_product, two_sum
from staticgrad.kernels.payne_hanek import reduce_huge
from staticgrad.kernels.polynomial import horner

# sin(y pi/2) / y and (cos(y pi/2) - 1) / y**2 in y**2 for |y| <= 0.504, relative errors of sin and cos 2**-37.5 and 2**-33.7
SINGLE_SIN = (1.570796326787073, -0.6459640959977891, 0.07969257939077908, -0.004681242667610046, 0.00015815469822680822)
SINGLE_COS = (-1.233700542026116, 0.2536692101552035, -0.0208600428182305, 0.000903484806154099)
# (sin r - r) / r**3 and (cos r - 1 + r**2 / 2) / r**4 in r**2 for |r| <= pi/4, relative errors of sin and cos 2**-57.9 and 2**-63.9
DOUBLE_SIN = (
    -0.1666666666666663, 0.008333333333321842, -0.00019841269829361268, 2.7557313539954092e-06, -2.505073469891381e-08,
    1.5895456761133374e-10,
)  # fmt: skip
DOUBLE_COS = (
    0.041666666666666595, -0.0013888888888873325, 2.4801587288983658e-05, -2.7557314210065815e-07, 2.0875704269887575e-09,
    -1.1358683301505807e-11,
)  # fmt: skip

# From each power of two on, 2/pi without the bits that make a multiple of 4 with any float32 there, as a sum of two numbers.
SINGLE_RANGES = (
    (2.0**44, 2.0449648759307553e-07, 6.074026489649846e-24),
    (2.0**65, 2.418782397124712e-13, 2.471138875912043e-29),
    (2.0**86, 1.0760572810738749e-19, -1.690193447800753e-36),
    (2.0**107, 7.696704864039572e-26, 4.420676015940119e-42),
)
TWO_OVER_PI = (0.6366197723675814, -3.935735335036497e-17)

PI_OVER_TWO = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
HUGE = 2.0**40
"""From here on float64 arguments are reduced by `reduce_huge`."""


def sin(b: Vocabulary, x: Value) -> Value:
    """Return the sine for float32 (within 0.51 ULP) or float64 (0.85); NaN for infinities."""
    wide = b.cast(x, DOUBLE.dtype)
    y = _with_quadrant(b, x, 0)
    bits = b.bitcast(wide, DOUBLE.bits)
    sign = b.and_(bits, b.like(DOUBLE.sign, bits))
    return b.cast(b.bitcast(b.xor(b.bitcast(y, DOUBLE.bits), sign), DOUBLE.dtype), x.dtype)


def cos(b: Vocabulary, x: Value) -> Value:
    """Return the cosine for float32 (within 0.51 ULP) or float64 (0.85); NaN for infinities."""
    return b.cast(_with_quadrant(b, x, 1), x.dtype)


def tan(b: Vocabulary, x: Value) -> Value:
    """Return the tangent for float32 (within 0.51 ULP) or float64 (0.95); NaN for infinities."""
    wide = b.cast(x, DOUBLE.dtype)
    magnitude = b.abs(wide)
    if format_of(x) is SINGLE:
        quadrant, sine, cosine = _single(b, magnitude)
        odd = b.ne(b.and_(quadrant, b.like(1, quadrant)), b.like(0, quadrant))
        y = b.div(b.select(odd, cosine, sine), b.select(odd, sine, cosine))
    else:
        quadrant, sines, cosines = _double_parts(b, magnitude)
        odd = b.ne(b.and_(quadrant, b.like(1, quadrant)), b.like(0, quadrant))
        (sine, sine_low), (cosine, cosine_low) = fast_two_sum(b, *sines), fast_two_sum(b, *cosines)
        divisor, divisor_low = b.select(odd, sine, cosine), b.select(odd, sine_low, cosine_low)
        dividend, dividend_low = b.select(odd, cosine, sine), b.select(odd, cosine_low, sine_low)
        inverse = b.div(b.like(1, x), divisor)
        y = b.mul(dividend, inverse)
        minus_y = b.neg(y)
        rest = b.fma(minus_y, divisor_low, b.add(b.fma(minus_y, divisor, dividend), dividend_low))
        y = b.fma(rest, inverse, y)
    sign = b.xor(b.bitcast(wide, DOUBLE.bits), b.shl(quadrant, DOUBLE.width - 1))
    sign = b.and_(sign, b.like(DOUBLE.sign, sign))
    return b.cast(b.bitcast(b.xor(b.bitcast(y, DOUBLE.bits), sign), DOUBLE.dtype), x.dtype)


def _with_quadrant(b: Vocabulary, x: Value, start: int) -> Value:
    """Return sin(|x| + start pi/2) in float64."""
    if format_of(x) is SINGLE:
        quadrant, sine, cosine = _single(b, b.cast(b.abs(x), DOUBLE.dtype))
    else:
        quadrant, sine, cosine = _double(b, b.abs(x))
    if start:
        quadrant = b.add(quadrant, b.like(start, quadrant))
    odd = b.ne(b.and_(quadrant, b.like(1, quadrant)), b.like(0, quadrant))
    sign = b.shl(b.and_(quadrant, b.like(2, quadrant)), DOUBLE.width - 2)
    return b.bitcast(b.xor(b.bitcast(b.select(odd, cosine, sine), DOUBLE.bits), sign), DOUBLE.dtype)


def _single(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    quadrant, y = reduce_single(b, x)
    z = b.mul(y, y)
    return quadrant, b.mul(y, horner(b, z, SINGLE_SIN)), horner(b, z, (1.0, *SINGLE_COS))


def _double(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    quadrant, sine, cosine = _double_parts(b, x)
    return quadrant, b.add(*sine), b.add(*cosine)


def _double_parts(b: Vocabulary, x: Value) -> tuple[Value, tuple[Value, Value], tuple[Value, Value]]:
    """Return the quadrant, and sine and cosine of what is left as sums of two numbers, the first one the larger."""
    quadrant, r, low = reduce_double(b, x)
    z = b.mul(r, r)
    half = b.mul(z, b.like(-0.5, z))
    tail = b.fma(b.mul(z, r), horner(b, z, DOUBLE_SIN), b.fma(half, low, low))
    one = b.like(1, z)
    head = b.add(one, half)
    lost = b.add(b.sub(one, head), half)
    return quadrant, (r, tail), (head, b.fma(b.mul(z, z), horner(b, z, DOUBLE_COS), b.fma(b.neg(r), low, lost)))


def reduce_single(b: Vocabulary, x: Value) -> tuple[Value, Value]:
    """Return (n, y) with x = (n + y) pi/2 modulo 2 pi, for a float32 x >= 0 given in float64; n counts in the low two bits of a uint64.

    x * 2/pi is exact as a sum of two float64 numbers up to an error that is always small, because bits of 2/pi that contribute
    multiples of 4 are left out: Payne and Hanek's idea with five ranges of x. n is rounded from the first number alone: |y| <= 0.504.
    """
    high, low = (b.like(c, x) for c in TWO_OVER_PI)
    for start, range_high, range_low in SINGLE_RANGES:
        inside = b.le(b.like(start, x), x)
        high = b.select(inside, b.like(range_high, x), high)
        low = b.select(inside, b.like(range_low, x), low)
    product, error = two_product(b, x, high)
    shifter = b.like(DOUBLE.shifter, x)
    shifted = b.add(product, shifter)
    y = b.fma(x, low, b.add(b.sub(product, b.sub(shifted, shifter)), error))
    return b.bitcast(shifted, DOUBLE.bits), y


def reduce_double(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    """Return (n, r, low) with x = n pi/2 + r + low modulo 2 pi, for a float64 x >= 0; n counts in the low two bits of a uint64.

    Cody and Waite's reduction by a pi/2 of three parts, in which only the last product is rounded. From `HUGE` on Payne and Hanek's,
    inside an `if_`; where x has several lanes both are computed.
    """
    shifter = b.like(DOUBLE.shifter, x)
    shifted = b.fma(x, b.like(2 / math.pi, x), shifter)
    n = b.sub(shifted, shifter)
    high, middle, last = (b.like(-part, x) for part in PI_OVER_TWO)
    product, error = two_product(b, n, middle)
    r, lost = two_sum(b, b.fma(n, high, x), product)
    usual = b.bitcast(shifted, DOUBLE.bits), r, b.fma(n, last, b.add(lost, error))
    is_huge = b.le(b.like(HUGE, x), x)
    if lanes(x) > 1:
        quadrant, r, low = (b.select(is_huge, *pair) for pair in zip(reduce_huge(b, x), usual, strict=True))
        return quadrant, r, low
    variables = tuple(b.variable(value) for value in usual)
    with b.if_(is_huge):
        for variable, value in zip(variables, reduce_huge(b, x), strict=True):
            b.set(variable, value)
    quadrant, r, low = map(b.get, variables)
    return quadrant, r, low
