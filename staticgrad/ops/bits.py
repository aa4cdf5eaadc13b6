"""Operations on the bits of integers and truth values."""

from __future__ import annotations

import numpy as np

from staticgrad.ops.elementwise import Apply, elementwise

bitwise_and: Apply = elementwise("bitwise_and", np.bitwise_and, lambda b, x, y: b.and_(x, y), None, None, arity=2, kinds="biu")
bitwise_or: Apply = elementwise("bitwise_or", np.bitwise_or, lambda b, x, y: b.or_(x, y), None, None, arity=2, kinds="biu")
bitwise_xor: Apply = elementwise("bitwise_xor", np.bitwise_xor, lambda b, x, y: b.xor(x, y), None, None, arity=2, kinds="biu")
invert: Apply = elementwise("invert", np.invert, lambda b, x: b.not_(x), None, kinds="biu")
