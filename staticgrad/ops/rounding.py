"""Rounding to integers."""

from __future__ import annotations

import numpy as np

from staticgrad.ops.elementwise import FLOAT, Apply, elementwise

floor: Apply = elementwise("floor", np.floor, lambda b, x: b.floor(x), None, kinds=FLOAT)
