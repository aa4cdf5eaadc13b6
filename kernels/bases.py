"""exp2, log2 and log10: exponentials and logarithms to other bases, exact where the result is a whole number.

x = n + r with |r| <= 1/2 for exp2. The logarithms are computed with more digits than the format has (in float64, or as a sum of two
numbers) and multiplied by a constant. `tests/kernels/minimax.py` computes every coefficient here.
"""

from __future__ import annotations

import math

from staticgrad.kernels.exponential import times_power_of_two
from staticgrad.kernels.floating import (
    DOUBLE,
    SINGLE,
    Format,
    Value,
    Vocabulary,
    at_least,
    at_most,
    format_of,
    two_product,
)
from staticgrad.kernels.logarithm import split, with_logarithms_limits
from staticgrad.kernels.polynomial import horner
from staticgrad.kernels.powers import LOG2_SERIES, log_of_two_parts

# (2**r - 1) / r for |r| <= 1/2, relative error of 2**r 2**-28.3 and 2**-57.8
EXP2_TAIL: dict[Format, tuple[float, ...]] = {
    SINGLE: (
        0.6931471824645996, 0.24022647738456726, 0.05550359934568405, 0.009618505835533142, 0.0013390806270763278,
        0.00015326465654652566,
    ),
    DOUBLE: (
        0.6931471805599453, 0.24022650695910108, 0.05550410866482172, 0.009618129107601608, 0.001333355814654635,
        0.00015403530449030684, 1.5252733633956347e-05, 1.3215438839101289e-06, 1.017816004630375e-07, 7.073232449161583e-09,
        4.4388633872950604e-10,
    ),
}  # fmt: skip

PER_LN = {2: (1.4426950408889634, 2.0355273740931033e-17), 10: (0.4342944819032518, 1.098319650216765e-17)}
"""1 / ln(base) as a sum of two numbers."""


def exp2(b: Vocabulary, x: Value) -> Value:
    """Return 2**x for float32 (within 0.9 ULP) or float64 (0.85), subnormal results included; exact for whole x."""
    f = format_of(x)
    inside = at_most(b, at_least(b, x, -f.bias - f.fraction - 2.0), f.bias + 2.0)
    shifter = b.like(f.shifter + 2 * f.bias, x)
    shifted = b.add(inside, shifter)
    r = b.sub(inside, b.sub(shifted, shifter))
    return times_power_of_two(b, b.fma(horner(b, r, EXP2_TAIL[f]), r, b.like(1, x)), shifted)


def log2(b: Vocabulary, x: Value) -> Value:
    """Return the logarithm to base 2 for float32 or float64 within 0.51 ULP: -inf at 0, NaN below."""
    return _log_to(b, x, 2)


def log10(b: Vocabulary, x: Value) -> Value:
    """Return the logarithm to base 10 for float32 or float64 within 0.51 ULP: -inf at 0, NaN below."""
    return _log_to(b, x, 10)


def _log_to(b: Vocabulary, x: Value, base: int) -> Value:
    y = _single(b, x, base) if format_of(x) is SINGLE else _double(b, x, base)
    return with_logarithms_limits(b, y, x)


def _single(b: Vocabulary, x: Value, base: int) -> Value:
    wide = b.cast(x, DOUBLE.dtype)
    fraction, minus_k = split(b, wide)
    f = b.sub(fraction, b.like(1, wide))
    s = b.div(f, b.add(b.like(2, wide), f))
    y = b.sub(b.mul(s, horner(b, b.mul(s, s), LOG2_SERIES)), minus_k)
    return b.cast(y if base == 2 else b.mul(y, b.like(math.log10(2), y)), SINGLE.dtype)


def _double(b: Vocabulary, x: Value, base: int) -> Value:
    high, low = log_of_two_parts(b, x)
    factor, factor_low = (b.like(part, x) for part in PER_LN[base])
    product, lost = two_product(b, high, factor)
    return b.add(product, b.add(b.fma(high, factor_low, lost), b.mul(low, factor)))
