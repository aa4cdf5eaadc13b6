"""All operations: importing this package fills the registry."""

from staticgrad.ops import (
    arithmetic,
    bits,
    casts,
    comparison,
    contract,
    control,
    elementwise,
    exponential,
    extrema,
    movement,
    powers,
    reduce,
    remainders,
    rounding,
    special,
    trigonometric,
)

__all__ = [
    "arithmetic",
    "bits",
    "casts",
    "comparison",
    "contract",
    "control",
    "elementwise",
    "exponential",
    "extrema",
    "movement",
    "powers",
    "reduce",
    "remainders",
    "rounding",
    "special",
    "trigonometric",
]
