"""Circular and hyperbolic functions."""

from __future__ import annotations

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.elementwise import FLOAT, Apply, elementwise
from staticgrad.ops.powers import hypot, sqrt

sin: Apply = elementwise("sin", np.sin, kernels.sin, lambda g, y, x: g * cos(x), kinds=FLOAT, cost=25, notation="sin(x)")
cos: Apply = elementwise("cos", np.cos, kernels.cos, lambda g, y, x: -(g * sin(x)), kinds=FLOAT, cost=25, notation="cos(x)")
tanh: Apply = elementwise("tanh", np.tanh, kernels.tanh, lambda g, y, x: g * ((1 - y) * (1 + y)), kinds=FLOAT, cost=20, notation="tanh(x)")
tan: Apply = elementwise("tan", np.tan, kernels.tan, lambda g, y, x: g * (y * y + 1), kinds=FLOAT, cost=35, notation="tan(x)")
sinh: Apply = elementwise("sinh", np.sinh, kernels.sinh, lambda g, y, x: g * cosh(x), kinds=FLOAT, cost=35, notation="sinh(x)")
cosh: Apply = elementwise("cosh", np.cosh, kernels.cosh, lambda g, y, x: g * sinh(x), kinds=FLOAT, cost=35, notation="cosh(x)")

# ---- inverses: derivatives as products of roots, which neither cancel at the ends of the domain nor overflow ------------------


def _root_of_one_minus_square(x: Value) -> Value:
    return sqrt((1 - x) * (1 + x))


arcsin: Apply = elementwise(
    "arcsin", np.arcsin, kernels.arcsin, lambda g, y, x: g / _root_of_one_minus_square(x), kinds=FLOAT, cost=40, notation="asin(x)"
)
arccos: Apply = elementwise(
    "arccos", np.arccos, kernels.arccos, lambda g, y, x: -g / _root_of_one_minus_square(x), kinds=FLOAT, cost=40, notation="acos(x)"
)
arctan: Apply = elementwise("arctan", np.arctan, kernels.arctan, lambda g, y, x: g / (x * x + 1), kinds=FLOAT, cost=40, notation="atan(x)")


def _over_square_of_length(g: Value, part: Value, y: Value, x: Value) -> Value:
    """Return g * part / (x**2 + y**2) without overflow; 0 at the origin."""
    length = hypot(y, x)
    nothing = equal(length, zeros_like(length))
    length = where(nothing, full(length.shape, 1, length.dtype), length)
    return g * (part / length / length)


arctan2: Apply = elementwise(
    "arctan2", np.arctan2, kernels.arctan2,
    lambda g, z, y, x: _over_square_of_length(g, x, y, x), lambda g, z, y, x: _over_square_of_length(-g, y, y, x),
    arity=2, kinds=FLOAT, cost=60, notation="atan2(x, y)",
)  # fmt: skip
arcsinh: Apply = elementwise(
    "arcsinh",
    np.arcsinh,
    kernels.arcsinh,
    lambda g, y, x: g / hypot(x, full(x.shape, 1, x.dtype)),
    kinds=FLOAT,
    cost=70,
    notation="asinh(x)",
)
arccosh: Apply = elementwise(
    "arccosh", np.arccosh, kernels.arccosh, lambda g, y, x: g / (sqrt(x - 1) * sqrt(x + 1)), kinds=FLOAT, cost=70, notation="acosh(x)"
)
arctanh: Apply = elementwise(
    "arctanh", np.arctanh, kernels.arctanh, lambda g, y, x: g / ((1 - x) * (1 + x)), kinds=FLOAT, cost=60, notation="atanh(x)"
)
