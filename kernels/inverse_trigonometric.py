"""arcsin, arccos, arctan and arctan2.

arctan of a quotient from 0 to 1 is arctan t or pi/4 + arctan t with |t| <= sqrt 2 - 1; arcsin and arccos use a polynomial up to 1/2 and
the half-angle formula beyond. float32 is computed in float64; in float64 what quotients, roots and sums round off is made good.
`tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, at_most, fast_two_sum, two_sum, with_sign_of
from staticgrad.kernels.polynomial import horner

# arctan t / t in t**2 for |t| <= sqrt 2 - 1, relative error 2**-30.6
SINGLE_ARCTAN = (
    0.9999999993959753, -0.3333330760989608, 0.19998216195303425, -0.14240069974596176, 0.10573386400444212, -0.06034555397099979,
)  # fmt: skip
# (arctan t - t) / t**3 there, relative error of arctan 2**-59.4
DOUBLE_ARCTAN = (
    -0.333333333333332, 0.19999999999953663, -0.14285714280198078, 0.11111110783402643, -0.0909089775457735, 0.07692060152988105,
    -0.06663103399018233, 0.058478854073625935, -0.05039291960137974, 0.038064374528154594, -0.017907164786163155,
)  # fmt: skip
# arcsin s / s in s**2 for |s| <= 1/2, relative error 2**-31.8
SINGLE_ARCSIN = (
    1.000000000255517, 0.1666665691772582, 0.07500605528681596, 0.04450281370142722, 0.031903132736886566, 0.01413041722379231,
    0.03789874201706418,
)  # fmt: skip
# (arcsin s - s) / s**3 there, relative error of arcsin 2**-59.7
DOUBLE_ARCSIN = (
    0.1666666666666673, 0.07499999999977061, 0.04464285716982161, 0.030381942900409027, 0.022372210305822343, 0.017351686046605818,
    0.01398002752138712, 0.011404776816378005, 0.010750274203378506, 0.0038104323646957075, 0.021473564828312624, -0.020691727211311146,
    0.03244943923040747,
)  # fmt: skip

PI_OVER_TWO = (1.5707963267948966, 6.123233995736766e-17)
PI_OVER_FOUR = (PI_OVER_TWO[0] / 2, PI_OVER_TWO[1] / 2)
HIGHEST_RATIO = math.sqrt(2) - 1


def arctan(b: Vocabulary, x: Value) -> Value:
    """Return the arc tangent for float32 (within 0.51 ULP) or float64 (0.7)."""
    wide = b.cast(x, DOUBLE.dtype)
    one = b.like(1, wide)
    magnitude = at_most(b, b.abs(wide), 2.0**60)
    swapped = b.lt(one, magnitude)
    y = _angle(b, b.select(swapped, one, magnitude), b.select(swapped, magnitude, one), swapped, None, single=x.dtype == SINGLE.dtype)
    return b.cast(with_sign_of(b, y, wide), x.dtype)


def arctan2(b: Vocabulary, y: Value, x: Value) -> Value:
    """Return the angle of the point (x, y) from -pi to pi for float32 (within 0.52 ULP) or float64 (1.5); the sign is that of y."""
    single = x.dtype == SINGLE.dtype
    wide_y, wide_x = b.cast(y, DOUBLE.dtype), b.cast(x, DOUBLE.dtype)
    zero, one, infinity = b.like(0, wide_x), b.like(1, wide_x), b.like(math.inf, wide_x)
    height, width = b.abs(wide_y), b.abs(wide_x)
    swapped = b.lt(width, height)
    small, large = b.select(swapped, width, height), b.select(swapped, height, width)
    if not single:
        scale = b.select(b.lt(b.like(2.0**1000, large), large), b.like(0.25, large), one)
        scale = b.select(b.lt(large, b.like(2.0**-500, large)), b.like(2.0**600, large), scale)
        small, large = b.mul(small, scale), b.mul(large, scale)
    # Points at infinity lie on an axis or a diagonal; the origin counts as one on the axis.
    is_infinite = b.eq(large, infinity)
    small = b.select(is_infinite, b.select(b.eq(small, infinity), one, b.mul(small, zero)), small)
    large = b.select(b.or_(is_infinite, b.eq(large, zero)), one, large)
    bits = b.bitcast(wide_x, DOUBLE.bits)
    left = b.ne(b.shr(bits, DOUBLE.width - 1), b.like(0, bits))
    angle = b.cast(with_sign_of(b, _angle(b, small, large, swapped, left, single), wide_y), x.dtype)
    return b.select(b.or_(b.is_nan(x), b.is_nan(y)), b.like(math.nan, x), angle)


def _angle(b: Vocabulary, small: Value, large: Value, swapped: Value, left: Value | None, single: bool) -> Value:
    """Return the angle of tangent small / large, from 0 to pi/4, mirrored at the diagonal (`swapped`) and at the vertical axis (`left`)."""
    zero, two, four = b.like(0, large), b.like(2, large), b.like(4, large)
    steep = b.lt(b.mul(large, b.like(HIGHEST_RATIO, large)), small)
    quarters = b.select(steep, b.like(1, large), zero)  # the angle is `quarters` times pi/4, and arctan t towards `sign`
    quarters = b.select(swapped, b.sub(two, quarters), quarters)
    mirrored = swapped
    if left is not None:
        quarters = b.select(left, b.sub(four, quarters), quarters)
        mirrored = b.xor(swapped, left)
    if single:
        t = b.div(b.select(steep, b.sub(small, large), small), b.select(steep, b.add(large, small), large))
        t = b.select(mirrored, b.neg(t), t)
        return b.fma(quarters, b.like(PI_OVER_FOUR[0], t), b.mul(t, horner(b, b.mul(t, t), SINGLE_ARCTAN)))
    (dividend, dividend_low), (divisor, divisor_low) = two_sum(b, small, b.neg(large)), fast_two_sum(b, large, small)
    dividend, divisor = b.select(steep, dividend, small), b.select(steep, divisor, large)
    dividend_low, divisor_low = b.select(steep, dividend_low, zero), b.select(steep, divisor_low, zero)
    inverse = b.div(b.like(1, large), divisor)
    t = b.mul(dividend, inverse)
    minus_t = b.neg(t)
    low = b.mul(b.fma(minus_t, divisor_low, b.add(b.fma(minus_t, divisor, dividend), dividend_low)), inverse)
    z = b.mul(t, t)
    tail = b.fma(b.mul(z, t), horner(b, z, DOUBLE_ARCTAN), b.fma(b.neg(z), low, low))
    t, tail = (b.select(mirrored, b.neg(part), part) for part in (t, tail))
    base = b.mul(quarters, b.like(PI_OVER_FOUR[0], t))
    base_low = b.fma(quarters, b.like(PI_OVER_FOUR[1], t), b.fma(quarters, b.like(PI_OVER_FOUR[0], t), b.neg(base)))
    total, lost = fast_two_sum(b, base, t)
    return b.add(total, b.add(lost, b.add(base_low, tail)))


def arcsin(b: Vocabulary, x: Value) -> Value:
    """Return the arc sine for float32 (within 0.51 ULP) or float64 (0.65); NaN outside of -1 to 1."""
    wide = b.cast(x, DOUBLE.dtype)
    magnitude = b.abs(wide)
    far, s, tail = _half_angle(b, magnitude, single=x.dtype == SINGLE.dtype)
    high, low = (b.like(part, s) for part in PI_OVER_TWO)
    total, lost = fast_two_sum(b, high, b.mul(s, b.like(-2, s)))
    outer = b.add(total, b.add(lost, b.fma(tail, b.like(-2, s), low)))
    return b.cast(with_sign_of(b, b.select(far, outer, b.add(s, tail)), wide), x.dtype)


def arccos(b: Vocabulary, x: Value) -> Value:
    """Return the arc cosine for float32 (within 0.51 ULP) or float64 (0.65); NaN outside of -1 to 1."""
    wide = b.cast(x, DOUBLE.dtype)
    far, s, tail = _half_angle(b, b.abs(wide), single=x.dtype == SINGLE.dtype)
    zero, two = b.like(0, s), b.like(2, s)
    negative = b.lt(wide, zero)
    # arccos x is pi/2 - arcsin x near 0, 2 arcsin s near 1 and pi - 2 arcsin s near -1.
    factor = b.select(far, b.select(negative, b.neg(two), two), b.select(negative, b.like(1, s), b.like(-1, s)))
    quarters = b.select(far, b.select(negative, two, zero), b.like(1, s))
    base, base_low = (b.mul(quarters, b.like(part, s)) for part in PI_OVER_TWO)
    total, lost = fast_two_sum(b, base, b.mul(factor, s))
    return b.cast(b.add(total, b.add(lost, b.fma(factor, tail, base_low))), x.dtype)


def _half_angle(b: Vocabulary, x: Value, single: bool) -> tuple[Value, Value, Value]:
    """Return (x > 1/2, s, tail) with arcsin s = s + tail, where s is x, or sqrt((1 - x) / 2) for the large x >= 0."""
    half, zero = b.like(0.5, x), b.like(0, x)
    far = b.lt(half, x)
    z = b.select(far, b.fma(b.neg(half), x, half), b.mul(x, x))
    root = b.sqrt(z)
    s = b.select(far, root, x)
    if single:
        return far, s, b.mul(s, b.sub(horner(b, z, SINGLE_ARCSIN), b.like(1, x)))
    rest = b.select(b.and_(far, b.lt(zero, z)), b.fma(b.neg(root), root, z), zero)
    root_low = b.div(b.mul(rest, half), b.select(far, b.add(root, b.like(2.0**-60, x)), b.like(1, x)))
    return far, s, b.fma(b.mul(z, s), horner(b, z, DOUBLE_ARCSIN), root_low)
