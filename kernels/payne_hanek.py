"""Reduction of huge arguments modulo pi/2 in integer arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise

from staticgrad.kernels.floating import DOUBLE, Value, Vocabulary, fast_two_sum, lanes

# The bits of 2/pi after a word of zeros, 64 at a time.
WORDS = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561, 0xB7246E3A424DD2E0,
    0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41, 0x3991D639835339F4, 0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
)  # fmt: skip
PI_OVER_TWO = (1.5707963267948966, 6.123233995736766e-17)


def reduce_huge(b: Vocabulary, x: Value) -> tuple[Value, Value, Value]:
    """Return (n, r, low) with x = n pi/2 + r + low modulo 2 pi, |r| <= pi/4, for a float64 x >= 1; NaN for infinity.

    x = m 2**e with an integer m; m times 192 bits of 2/pi from where the products stop being multiples of 4 gives x / (pi/2)
    modulo 4 with an error below 2**-125; no float64 comes nearer than 2**-62 to a multiple of pi/2.

    References
    ----------
    M. Payne and R. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18 (1983).
    """
    bits = b.bitcast(x, DOUBLE.bits)

    def number(value: int) -> Value:
        return b.like(value, bits)

    exponent = b.shr(bits, DOUBLE.fraction)
    m = b.or_(b.and_(bits, number(2**DOUBLE.fraction - 1)), number(2**DOUBLE.fraction))
    position = b.sub(exponent, number(DOUBLE.bias + DOUBLE.fraction + 2 - 64))
    words = _window(b, position)
    products = [b.mul(m, word) for word in words[:2]]
    middle = b.add(products[1], b.mulhi(m, words[2]))
    carry = b.cast(b.lt(middle, products[1]), DOUBLE.bits)
    high = b.add(b.add(products[0], b.mulhi(m, words[1])), carry)
    # Units of pi/2: two bits, then a fraction, taken as a signed number.
    quadrant = b.shr(b.add(high, number(1 << 61)), 62)
    fraction = b.or_(b.shl(high, 2), b.shr(middle, 62)), b.shl(middle, 2)
    negative = b.sub(number(0), b.shr(fraction[0], 63))
    sign = b.and_(negative, number(DOUBLE.sign))
    y, low = _as_floats(b, [b.xor(part, negative) for part in fraction])
    y, low = (b.bitcast(b.xor(b.bitcast(part, DOUBLE.bits), sign), DOUBLE.dtype) for part in (y, low))
    y = b.select(b.lt(x, b.like(math.inf, x)), y, b.like(math.nan, x))
    pi_high, pi_low = (b.like(part, x) for part in PI_OVER_TWO)
    r = b.mul(y, pi_high)
    return quadrant, r, b.add(b.fma(y, pi_high, b.neg(r)), b.fma(y, pi_low, b.mul(low, pi_high)))


def _window(b: Vocabulary, position: Value) -> list[Value]:
    """Return the 192 bits of `WORDS` from bit `position` on."""
    words = [b.like(word, position) for word in WORDS]
    for level in (4, 3, 2, 1, 0):
        step, needed = 1 << level, 3 + (1 << level)
        taken = b.ne(b.and_(position, b.like(64 << level, position)), b.like(0, position))
        words = [b.select(taken, words[i + step], word) if i + step < len(words) else word for i, word in enumerate(words[:needed])]
    shift = b.and_(position, b.like(63, position))
    complement = b.sub(b.like(63, position), shift)
    return [b.or_(b.shl(word, shift), b.shr(b.shr(after, 1), complement)) for word, after in pairwise(words)]


def _as_floats(b: Vocabulary, words: list[Value]) -> tuple[Value, Value]:
    """Return the 128-bit fraction of two words as the sum of two float64 numbers, the first one nearly rounded."""
    parts = []
    for i, word in enumerate(words):
        for j, half in enumerate((b.shr(word, 32), b.and_(word, b.like(0xFFFFFFFF, word)))):
            # In the low bits of 2**(52 - k), 32 bits stand for the multiple 2**-k of what they say.
            unit = 2.0 ** (DOUBLE.fraction - 32 * (2 * i + j + 1))
            scaled = b.or_(half, b.bitcast(b.literal(unit, DOUBLE.dtype, lanes(word)), DOUBLE.bits))
            parts.append(b.sub(b.bitcast(scaled, DOUBLE.dtype), b.literal(unit, DOUBLE.dtype, lanes(word))))
    y, lost = fast_two_sum(b, parts[0], parts[1])
    return y, b.add(lost, b.add(parts[2], parts[3]))
