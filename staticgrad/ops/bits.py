"""Operations on the bits of integers and truth values; a shift by the width or more, or by less than 0, leaves the sign alone."""

from __future__ import annotations

import numpy as np

from staticgrad.ops.elementwise import INTEGER, Apply, elementwise

bitwise_and: Apply = elementwise(
    "bitwise_and", np.bitwise_and, lambda b, x, y: b.and_(x, y), None, None, arity=2, kinds="biu", logic="x & y"
)
bitwise_or: Apply = elementwise("bitwise_or", np.bitwise_or, lambda b, x, y: b.or_(x, y), None, None, arity=2, kinds="biu", logic="x | y")
bitwise_xor: Apply = elementwise(
    "bitwise_xor", np.bitwise_xor, lambda b, x, y: b.xor(x, y), None, None, arity=2, kinds="biu", logic="x ^ y"
)
invert: Apply = elementwise("invert", np.invert, lambda b, x: b.not_(x), None, kinds="biu", logic="~x")
left_shift: Apply = elementwise("left_shift", np.left_shift, lambda b, x, n: b.shl(x, n), None, None, arity=2, kinds=INTEGER, cost=2)
right_shift: Apply = elementwise("right_shift", np.right_shift, lambda b, x, n: b.shr(x, n), None, None, arity=2, kinds=INTEGER, cost=2)
