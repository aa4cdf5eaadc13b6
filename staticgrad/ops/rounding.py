"""Rounding to integers, and the neighbouring float; none has a derivative."""

from __future__ import annotations

import numpy as np

from staticgrad.ir.builder import Builder, Scalar
from staticgrad.kernels.floating import format_of, with_sign_of
from staticgrad.ops.elementwise import FLOAT, Apply, elementwise

floor: Apply = elementwise("floor", np.floor, lambda b, x: b.floor(x), None, kinds=FLOAT, notation="floor(x)")
ceil: Apply = elementwise("ceil", np.ceil, lambda b, x: b.neg(b.floor(b.neg(x))), None, kinds=FLOAT, notation="ceiling(x)")
trunc: Apply = elementwise("trunc", np.trunc, lambda b, x: b.trunc(x), None, kinds=FLOAT, notation="sign(x)*floor(Abs(x))")
rint: Apply = elementwise("rint", np.rint, lambda b, x: b.rint(x), None, kinds=FLOAT, notation="floor(x/2 + 1/4) + ceiling(x/2 - 1/4)")


def _emit_nextafter(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Count the bits of x up or down by one, away from 0 or towards it."""
    f = format_of(x)
    bits = b.bitcast(x, f.bits)
    one = b.like(1, bits)
    zero = b.like(0, x)
    grows = b.xor(b.lt(x, y), b.lt(x, zero))
    stepped = b.bitcast(b.select(grows, b.add(bits, one), b.sub(bits, one)), f.dtype)
    stepped = b.select(b.eq(x, zero), with_sign_of(b, b.bitcast(one, f.dtype), y), stepped)
    result = b.select(b.eq(x, y), y, stepped)
    return b.select(b.or_(b.is_nan(x), b.is_nan(y)), b.like(np.nan, x), result)


nextafter: Apply = elementwise("nextafter", np.nextafter, _emit_nextafter, None, None, arity=2, kinds=FLOAT, cost=8)
