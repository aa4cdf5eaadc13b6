"""The gamma function, the logarithms of it and of beta, and the digamma and polygamma functions, all computed in float64.

Near 1 and 2 polynomials about the zeros keep the relative accuracy, recurrences lead there from up to about 7, beyond that Stirling's
series takes over, and negative numbers are reflected. `tests/kernels/special_fits.py` computes every coefficient here.
"""

from __future__ import annotations

import math
from fractions import Fraction

from staticgrad.kernels.exponential import exp_of_sum
from staticgrad.kernels.floating import DOUBLE, Value, Vocabulary, at_most, fast_two_sum, two_product, two_sum
from staticgrad.kernels.logarithm import log, log1p
from staticgrad.kernels.polynomial import horner
from staticgrad.kernels.powers import log_of_two_parts

# log gamma(2 + t) / t for -3/4 <= t <= 1/4, relative error 2**-56.2
LOG_GAMMA = (
    0.42278433509846713, 0.3224670334241132, -0.06735230105319445, 0.02058080842779256, -0.007385551029112103, 0.002890510329625715,
    -0.001192753892020066, 0.0005096695860370775, -0.00022315517364186537, 9.945585827261794e-05, -4.492203353706857e-05,
    2.0532425896583015e-05, -9.447119650135478e-06, 4.1557119740499465e-06, -2.357327944605632e-06, 1.5639755896625674e-06,
    2.189690207048395e-06, 4.05603722566572e-06, 2.6685328657180426e-06, 9.197898985996037e-07,
)  # fmt: skip
STIRLING_FROM = 7.25
# x (log gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2) in 1 / x**2 for x >= 7.25, relative error 2**-54.0
STIRLING = (
    0.08333333333333333, -0.002777777777756172, 0.0007936507771588667, -0.000595233360088966, 0.0008410990717558558,
    -0.0018707674034865879, 0.004677434500621972,
)  # fmt: skip
# digamma(x) / (x - root) in x - 3/2 for 1 <= x <= 2, relative error 2**-53.3
DIGAMMA = (
    0.9510558760318328, -0.4236274212814584, 0.24054248424078922, -0.1484049230546812, 0.09498872445363975, -0.06192213320024747,
    0.04076083386588743, -0.026975799777388853, 0.01790725122172357, -0.011908150293020323, 0.007926961318880368, -0.005280868743291729,
    0.003518863736528792, -0.0023377450535696774, 0.001557399724618953, -0.0010770354692438856, 0.0007208014435950921,
    -0.00035598197047848713, 0.00023186408526851423, -0.00037742166128500366, 0.0002560563992834805,
)  # fmt: skip
DIGAMMA_ROOT = (1.4616321449683622, 9.549995429965697e-17)
ASYMPTOTIC_FROM = 7.0
# x**2 (log x - 1 / (2 x) - digamma(x)) in 1 / x**2 for x >= 7, error of digamma 2**-65.9
ASYMPTOTIC = (
    0.0833333333333333, -0.00833333333327803, 0.003968253936801553, -0.004166658078560128, 0.007574458109638902, -0.020977018232342094,
    0.07719084320270553, -0.2555302371267548,
)  # fmt: skip
# (sin(pi r) - pi r) / r**3 in r**2 for |r| <= 1/2, relative error of sin 2**-60.5; for |r| <= 1/4, 2**-57.9
SIN_PI = (
    -5.167712780049969, 2.550164039877269, -0.5992645293177656, 0.0821458865528071, -0.007370430321755503, 0.00046629890490631516,
    -2.190117140709618e-05, 7.673868484048755e-07,
)  # fmt: skip
SIN_PI_OF_QUARTER = (
    -5.167712780049959, 2.5501640398738683, -0.5992645289643141, 0.0821458697796384, -0.007370028568836821, 0.00046156303920418044,
)  # fmt: skip
# (cos(pi r) - 1) / r**2 in r**2 for |r| <= 1/4, relative error of cos 2**-61.4
COS_PI = (
    -4.934802200544679, 4.058712126416667, -1.3352627688435856, 0.2353306297942942, -0.025806876121888072, 0.0019293531202977739,
    -0.00010304718039724275,
)  # fmt: skip
PI = (math.pi, 1.2246467991473532e-16)
HALF_LOG_TWO_PI = 0.9189385332046728
LOG_PI = 1.1447298858494002


def gammaln(b: Vocabulary, x: Value) -> Value:
    """Return log |gamma(x)| for float32 or float64: within 0.51 and 2.9 ULP for x > -0.5, infinity at the poles.

    Below -0.5 the error stays within 4 ULP of the largest term of the reflection formula; the zeros between the poles have no
    relative accuracy. The result at -inf is -inf, as in SciPy.
    """
    wide = b.cast(x, DOUBLE.dtype)
    size = b.abs(wide)
    reflected = b.lt(wide, b.like(-0.5, wide))
    y = _log_gamma(b, b.select(reflected, size, wide))
    s = b.abs(sin_pi(b, size))
    y = b.select(reflected, b.sub(b.sub(b.like(LOG_PI, wide), log(b, b.mul(size, s))), y), y)
    y = b.select(b.eq(s, b.like(0, wide)), b.select(reflected, b.like(math.inf, wide), y), y)  # where gamma(-x) overflows as well
    return b.cast(b.select(b.eq(size, b.like(math.inf, wide)), wide, y), x.dtype)


def _log_gamma(b: Vocabulary, x: Value) -> Value:
    """Return log |gamma(x)| for finite x >= -0.5."""
    zero, one = b.like(0, x), b.like(1, x)
    inside = at_most(b, x, 8.0)
    n = b.floor(b.add(inside, b.like(0.75, x)))
    t = b.sub(inside, n)
    # gamma(x) is gamma(2 + t) times or, below 5/4, divided by a product of factors.
    is_less = b.lt(n, b.like(2, x))
    product = b.select(is_less, b.select(b.lt(n, one), b.mul(x, b.add(x, one)), x), one)
    for i in range(1, 6):
        taken = b.lt(b.like(i + 1.5, x), n)
        product = b.mul(product, b.select(taken, b.sub(x, b.like(i, x)), one))
    is_large = b.le(b.like(STIRLING_FROM, x), x)
    logarithm = log(b, b.select(is_large, x, b.abs(product)))
    small = b.fma(t, horner(b, t, LOG_GAMMA), b.select(is_less, b.neg(logarithm), b.select(b.eq(product, one), zero, logarithm)))
    inverse = b.div(one, x)
    rest = b.fma(inverse, horner(b, b.mul(inverse, inverse), STIRLING), b.like(HALF_LOG_TWO_PI, x))
    large = b.add(b.fma(b.sub(x, b.like(0.5, x)), logarithm, b.neg(x)), rest)
    return b.select(is_large, large, small)


def gamma(b: Vocabulary, x: Value) -> Value:
    """Return the gamma function for float32 (within 0.51 ULP) or float64 (3; below -0.5, 3.5): infinite at 0, NaN at the other poles."""
    wide = b.cast(x, DOUBLE.dtype)
    zero, one = b.like(0, wide), b.like(1, wide)
    size = b.abs(wide)
    reflected = b.lt(wide, b.like(-0.5, wide))
    y = _gamma(b, b.select(reflected, size, wide))
    # gamma(-a) = -pi / (a sin(pi a) gamma(a)); the sine changes its sign from one integer to the next.
    half = b.mul(b.rint(size), b.like(0.5, wide))
    sine = sin_pi(b, size)
    sine = b.select(b.eq(b.floor(half), half), b.neg(sine), sine)
    y = b.select(reflected, b.div(b.div(b.like(math.pi, wide), b.mul(size, sine)), y), y)
    y = b.select(b.and_(reflected, b.eq(b.floor(wide), wide)), b.like(math.nan, wide), y)
    return b.cast(b.select(b.eq(wide, zero), b.div(one, wide), y), x.dtype)


def _gamma(b: Vocabulary, x: Value) -> Value:
    """Return gamma(x) for x >= -0.5; from 7.25 on as a power of e whose exponent is a sum of two numbers."""
    one = b.like(1, x)
    inside = at_most(b, x, 180.0)
    n = b.floor(b.add(at_most(b, x, 8.0), b.like(0.75, x)))
    t = b.sub(at_most(b, x, 8.0), n)
    is_less = b.lt(n, b.like(2, x))
    product = b.select(is_less, b.select(b.lt(n, one), b.mul(x, b.add(x, one)), x), one)
    for i in range(1, 6):
        product = b.mul(product, b.select(b.lt(b.like(i + 1.5, x), n), b.sub(inside, b.like(i, x)), one))
    is_large = b.le(b.like(STIRLING_FROM, x), x)
    base = b.select(is_large, inside, b.like(STIRLING_FROM, x))
    high, low = log_of_two_parts(b, base)
    factor = b.sub(base, b.like(0.5, x))
    exponent, lost = two_product(b, factor, high)
    exponent, less = fast_two_sum(b, exponent, b.neg(base))
    exponent, least = two_sum(b, exponent, b.add(b.like(HALF_LOG_TWO_PI, x), _stirling_correction(b, base)))
    rest = b.add(b.fma(factor, low, lost), b.add(less, least))
    small = b.mul(t, horner(b, t, LOG_GAMMA))
    power = exp_of_sum(b, b.select(is_large, exponent, small), b.select(is_large, rest, b.like(0, x)))
    return b.select(is_large, power, b.select(is_less, b.div(power, product), b.mul(power, product)))


def sin_pi(b: Vocabulary, x: Value) -> Value:
    """Return sin(pi r) in float64, where r is what rounding x to an integer loses: the sine of pi x or its negative."""
    r = b.sub(x, b.rint(x))
    square = b.mul(r, r)
    return b.fma(r, b.like(PI[0], x), b.mul(r, b.fma(square, horner(b, square, SIN_PI), b.like(PI[1], x))))


def cot_pi(b: Vocabulary, x: Value) -> Value:
    """Return cos(pi x) / sin(pi x) in float64, infinite at the integers."""
    r = b.sub(x, b.rint(x))
    size = b.abs(r)
    far = b.lt(b.like(0.25, x), size)
    q = b.select(far, b.sub(b.like(0.5, x), size), size)
    square = b.mul(q, q)
    rest = b.fma(square, horner(b, square, SIN_PI_OF_QUARTER), b.like(PI[1], x))
    sine = b.fma(q, b.like(PI[0], x), b.mul(q, rest))
    cosine = b.fma(square, horner(b, square, COS_PI), b.like(1, x))
    y = b.div(b.select(far, sine, cosine), b.select(far, cosine, sine))
    return b.select(b.lt(r, b.like(0, x)), b.neg(y), y)


def digamma(b: Vocabulary, x: Value) -> Value:
    """Return the derivative of log gamma for float32 or float64: within 0.51 and 3.6 ULP for x >= 0, about its root as well.

    Below 0 the error stays within 3 ULP of the larger term of the reflection formula. The result is -inf at 0, inf at -0 and NaN at
    the other poles and at -inf, as in SciPy.
    """
    wide = b.cast(x, DOUBLE.dtype)
    zero, one = b.like(0, wide), b.like(1, wide)
    is_negative = b.lt(wide, zero)
    y = _digamma(b, b.select(is_negative, b.sub(one, wide), wide))
    y = b.select(is_negative, b.fma(b.like(-math.pi, wide), cot_pi(b, wide), y), y)
    is_pole = b.and_(is_negative, b.eq(b.floor(wide), wide))
    y = b.select(is_pole, b.like(math.nan, wide), b.select(b.eq(wide, zero), b.neg(b.div(one, wide)), y))
    return b.cast(y, x.dtype)


def _digamma(b: Vocabulary, x: Value) -> Value:
    """Return digamma(x) for x >= 0: from 1 to 2 a polynomial, up to 7 by recurrence, from there the asymptotic series."""
    zero, one = b.like(0, x), b.like(1, x)
    inside = at_most(b, x, 8.0)
    below = b.lt(x, one)
    z = b.select(below, b.add(inside, one), inside)
    # 1 / (x - 1) + 1 / (x - 2) + ... as one fraction
    numerator, denominator = zero, one
    for i in range(1, 6):
        taken = b.le(b.like(i + 1, x), x)
        factor = b.sub(inside, b.like(i, x))
        numerator = b.select(taken, b.fma(numerator, factor, denominator), numerator)
        denominator = b.select(taken, b.mul(denominator, factor), denominator)
        z = b.select(taken, factor, z)
    numerator, denominator = b.select(below, b.neg(one), numerator), b.select(below, x, denominator)
    high, low = (b.like(part, x) for part in DIGAMMA_ROOT)
    distance = b.sub(b.sub(z, high), low)
    series = horner(b, b.sub(z, b.like(1.5, x)), DIGAMMA)
    small = b.fma(distance, series, b.div(numerator, denominator))
    inverse = b.div(one, x)
    square = b.mul(inverse, inverse)
    rest = b.fma(square, horner(b, square, ASYMPTOTIC), b.mul(inverse, b.like(0.5, x)))
    large = b.sub(log(b, x), rest)
    return b.select(b.le(b.like(ASYMPTOTIC_FROM, x), x), large, small)


# ---- polygamma ----------------------------------------------------------------------------------------------------------------

SHIFT = 10
"""This many terms of the sum come before Euler and Maclaurin's formula."""

BERNOULLI = tuple(
    Fraction(*pair)
    for pair in ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330))
)  # fmt: skip
"""The Bernoulli numbers B2, B4, ..."""


def polygamma(b: Vocabulary, x: Value, order: int) -> Value:
    """Return the derivative of that order (from 1 on) of digamma for float32 or float64.

    For x > 0 within 0.51 and 5 ULP (order 1; a few more for each further one); below 0 that of the larger term of the
    reflection formula. At the poles it is infinite, with SciPy's sign.
    """
    wide = b.cast(x, DOUBLE.dtype)
    zero, one = b.like(0, wide), b.like(1, wide)
    is_negative = b.lt(wide, zero)
    sign = -1.0 if order % 2 == 0 else 1.0
    total = b.mul(b.like(float(math.factorial(order)), wide), _zeta(b, b.select(is_negative, b.sub(one, wide), wide), order + 1))
    cotangent = cot_pi(b, wide)
    derivative = b.mul(horner(b, cotangent, cotangent_derivative(order)), b.like(math.pi ** (order + 1), wide))
    reflected = b.sub(b.neg(derivative), total)
    y = b.select(is_negative, reflected, b.mul(total, b.like(sign, wide)))
    is_pole = b.and_(b.le(wide, zero), b.eq(b.floor(wide), wide))
    return b.cast(b.select(is_pole, b.like(sign * math.inf, wide), y), x.dtype)


def _zeta(b: Vocabulary, x: Value, s: int) -> Value:
    """Return the sum of (x + k)**-s over k >= 0 for x > 0: ten terms, and Euler and Maclaurin's formula for the others."""
    one = b.like(1, x)

    def to_power(base: Value, n: int) -> Value:
        result = base
        for _ in range(n - 1):
            result = b.mul(result, base)
        return result

    inverse = b.div(one, b.add(x, b.like(SHIFT, x)))
    square = b.mul(inverse, inverse)
    coefficients, rising = [], Fraction(s)
    for j, bernoulli in enumerate(BERNOULLI, 1):
        coefficients.append(float(bernoulli * rising / math.factorial(2 * j)))
        rising *= (s + 2 * j - 1) * (s + 2 * j)
    series = b.fma(horner(b, square, coefficients), inverse, b.like(0.5, x))
    total = b.mul(to_power(inverse, s - 1), b.fma(inverse, series, b.like(1 / (s - 1), x)))
    for k in reversed(range(SHIFT)):
        total = b.add(total, to_power(b.div(one, b.add(x, b.like(k, x)) if k else x), s))
    return total


def cotangent_derivative(order: int) -> tuple[float, ...]:
    """Return the polynomial in cot u that is the derivative of cot u, constant term first: -(1 + c**2) for the first one."""
    coefficients = [0, 1]
    for _ in range(order):
        derived = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [-(a + c) for a, c in zip([*derived, 0, 0], [0, 0, *derived], strict=True)]
    return tuple(map(float, coefficients))


# ---- the beta function -----------------------------------------------------------------------------------------------------------


def betaln(b: Vocabulary, x: Value, y: Value) -> Value:
    """Return log |gamma(x) gamma(y) / gamma(x + y)| for float32 or float64.

    For x, y > 0 within 9 units in the last place of 1 or of the result, whichever is more: where an operand is large, the leading
    terms of Stirling's formula are combined before they cancel (as in SLATEC's dlbeta). At the poles of the smaller operand it is
    infinite.
    """
    wide = [b.cast(v, DOUBLE.dtype) for v in (x, y)]
    is_less = b.lt(*wide)
    p, q = b.select(is_less, *wide), b.select(is_less, *reversed(wide))
    one, zero = b.like(1, p), b.like(0, p)
    total = b.add(p, q)
    large = b.le(b.like(STIRLING_FROM, p), b.min(q, total))
    both_large = b.le(b.like(STIRLING_FROM, p), p)
    share = b.select(large, b.div(p, total), zero)
    rest = log1p(b, b.neg(share))
    correction = b.sub(_stirling_correction(b, q), _stirling_correction(b, total))
    log_gamma_p = gammaln(b, p)
    one_large = b.add(b.add(log_gamma_p, correction), b.fma(b.sub(q, b.like(0.5, p)), rest, b.fma(b.neg(p), log(b, total), p)))
    half_log = b.fma(b.like(-0.5, p), log(b, q), b.like(HALF_LOG_TWO_PI, p))
    leading = b.fma(b.sub(p, b.like(0.5, p)), log(b, b.select(large, share, one)), b.mul(q, rest))
    two_large = b.add(b.add(half_log, b.add(correction, _stirling_correction(b, p))), leading)
    small = b.add(log_gamma_p, b.sub(gammaln(b, q), gammaln(b, total)))
    result = b.select(large, b.select(both_large, two_large, one_large), small)
    infinity = b.like(math.inf, p)
    result = b.select(b.and_(b.lt(zero, p), b.eq(q, infinity)), b.neg(infinity), result)
    is_pole = b.and_(b.le(p, zero), b.eq(log_gamma_p, infinity))
    return b.cast(b.select(b.and_(is_pole, b.eq(q, q)), infinity, result), x.dtype)


def _stirling_correction(b: Vocabulary, x: Value) -> Value:
    """Return what Stirling's formula lacks for x >= 7.25."""
    inverse = b.div(b.like(1, x), x)
    return b.mul(inverse, horner(b, b.mul(inverse, inverse), STIRLING))
