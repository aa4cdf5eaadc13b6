"""The inverse of the error function.

With w = -log(1 - x**2), erfinv x = x P(w), and the factor P varies slowly, as Giles noticed (Approximating the erfinv function, GPU
Computing Gems, Jade Edition, 2011): one polynomial in w near 0, another one in sqrt(w) further out. Both are written around points
at which the first two coefficients need next to no rounding. `tests/kernels/inverse_fits.py` computes every coefficient here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from staticgrad.kernels.floating import DOUBLE, SINGLE, Value, Vocabulary, format_of, with_sign_of
from staticgrad.kernels.logarithm import log
from staticgrad.kernels.polynomial import horner


@dataclass(frozen=True)
class Constants:
    """What differs between the formats: the polynomials, the points they are written around, and the w at which the tail begins."""

    middle: float
    centre: tuple[float, ...]  # erfinv(x) / x in w - `middle`, relative errors 2**-27.1 and 2**-58.1
    start: float
    tail_middle: float
    tail: tuple[float, ...]  # erfinv(x) / x in sqrt(w) - `tail_middle`, relative errors 2**-27.1 and 2**-55.2


CONSTANTS = {
    SINGLE: Constants(
        middle=2.5003366470336914,
        centre=(
            1.5014923810958862, 0.2466374635696411, -0.004178628325462341, -0.001252433517947793, 0.000218321118154563,
            -4.97717928737984e-06, -3.458239916653838e-06, 4.6752620619372465e-07, 2.295857015610636e-08, -8.875534085461823e-09,
        ),
        start=5.0,
        tail_middle=3.1002867221832275,
        tail=(
            2.9335193634033203, 1.003360390663147, 0.007455815095454454, -0.0056912535801529884, 0.004107934422791004,
            -0.0027169056702405214, 0.0013585803098976612, -0.00028974461019970477, -0.00019950993009842932, 0.00013122781820129603,
        ),
    ),
    DOUBLE: Constants(
        middle=3.125000000000539,
        centre=(
            1.6536545626832322, 0.24015818242558182, -0.006033670871428137, -0.0007407025341540976, 0.00018673420802030699,
            -1.3882523394315129e-05, -1.365469176999578e-06, 4.234788172406265e-07, -2.9070390100942243e-08,
            -4.112660717216459e-09, 1.0512226652323509e-09, -5.414291738391056e-11, -1.2978534794091954e-11,
            2.6304961229548524e-12, -8.078652084944716e-14, -4.001466264169502e-14, 6.532438078617679e-15,
            -4.0014811454351674e-17, -1.2336345768571806e-16, 1.55547750912029e-17, 6.905199716279539e-19,
            -3.491486771416668e-19, 1.6718782734936814e-20, 3.2260819519664014e-21, -3.0291483275554805e-22,
        ),
        start=6.25,
        tail_middle=4.250000000000289,
        tail=(
            4.092223423668421, 1.0099782771612549, 0.0007127499726580286, -0.0006078940274240521, 0.0002121767132851786,
            -6.441975114526488e-05, 2.198012826218065e-05, -1.019766312943089e-05, 5.807267188857774e-06,
            -3.211132670724611e-06, 1.4901795217222613e-06, -5.152539463993728e-07, 9.328050662027489e-08,
            2.560538185747461e-08, -3.0128179100211447e-08, 1.344243158780527e-08, -3.080201856855456e-09,
            -1.9224968452926878e-10, 4.70816973198667e-10, -1.8570416872399137e-10, 3.032266277877795e-11,
            2.1087813395820546e-12, -3.03295331037384e-12, 1.7512484472740806e-12, -5.126266406456551e-13,
            -5.332839290485234e-14, 5.597460637338505e-14, -4.495473926564862e-15, -1.0326310504952271e-15,
        ),
    ),
}  # fmt: skip


def erfinv(b: Vocabulary, x: Value) -> Value:
    """Return the inverse error function for float32 or float64 within 2.4 ULP (float32: 2.1): infinite at -1 and 1, NaN beyond."""
    constants = CONSTANTS[format_of(x)]
    one, magnitude = b.like(1, x), b.abs(x)
    w = b.neg(log(b, b.fma(b.neg(magnitude), magnitude, one)))
    centre = horner(b, b.sub(w, b.like(constants.middle, x)), constants.centre)
    tail = horner(b, b.sub(b.sqrt(w), b.like(constants.tail_middle, x)), constants.tail)
    inside = b.mul(x, b.select(b.lt(w, b.like(constants.start, x)), centre, tail))
    return b.select(b.eq(magnitude, one), with_sign_of(b, b.like(math.inf, x), x), inside)
