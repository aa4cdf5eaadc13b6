"""Exponentials and logarithms, and the logistic functions made of them."""

from __future__ import annotations

import math

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ir.node import Value, zeros_like
from staticgrad.ops.comparison import equal, isinf, logical_and, where
from staticgrad.ops.elementwise import FLOAT, Apply, Derivative, elementwise

exp: Apply = elementwise("exp", np.exp, kernels.exp, lambda g, y, x: g * y, kinds=FLOAT, cost=15, notation="exp(x)")
expm1: Apply = elementwise("expm1", np.expm1, kernels.expm1, lambda g, y, x: g * (y + 1), kinds=FLOAT, cost=25, notation="exp(x) - 1")
log: Apply = elementwise("log", np.log, kernels.log, lambda g, y, x: g / x, kinds=FLOAT, cost=20, notation="log(x)")
log1p: Apply = elementwise("log1p", np.log1p, kernels.log1p, lambda g, y, x: g / (x + 1), kinds=FLOAT, cost=25, notation="log(x + 1)")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x >= 0, np.ones_like(x), small) / (1 + small)
    return result


def _softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


sigmoid: Apply = elementwise(
    "sigmoid", _sigmoid, kernels.sigmoid, lambda g, y, x: g * (y * (1 - y)), kinds=FLOAT, cost=20, notation="1/(1 + exp(-x))"
)
softplus: Apply = elementwise(
    "softplus", _softplus, kernels.softplus, lambda g, y, x: g * sigmoid(x), kinds=FLOAT, cost=40, notation="log(1 + exp(x))"
)


# ---- other bases, and sums of exponentials -----------------------------------------------------------------------------------

LN2, LN10 = math.log(2), math.log(10)

exp2: Apply = elementwise("exp2", np.exp2, kernels.exp2, lambda g, y, x: g * (y * LN2), kinds=FLOAT, cost=15, notation="2**x")
log2: Apply = elementwise("log2", np.log2, kernels.log2, lambda g, y, x: g / (x * LN2), kinds=FLOAT, cost=40, notation="log(x)/log(2)")
log10: Apply = elementwise(
    "log10", np.log10, kernels.log10, lambda g, y, x: g / (x * LN10), kinds=FLOAT, cost=40, notation="log(x)/log(10)"
)


def _share(g: Value, x: Value, other: Value, unit: float) -> Value:
    """Return g times the share of the first exponential in the sum, one half where both operands are the same infinity."""
    infinite = logical_and(isinf(x), equal(x, other))
    return g * sigmoid(where(infinite, zeros_like(x), x - other) * unit)


def _derivatives(unit: float) -> tuple[Derivative, Derivative]:
    return (lambda g, y, a, b: _share(g, a, b, unit)), (lambda g, y, a, b: _share(g, b, a, unit))


logaddexp: Apply = elementwise(
    "logaddexp", np.logaddexp, kernels.logaddexp, *_derivatives(1), arity=2, kinds=FLOAT, cost=50, notation="log(exp(x) + exp(y))"
)
logaddexp2: Apply = elementwise(
    "logaddexp2", np.logaddexp2, kernels.logaddexp2, *_derivatives(LN2), arity=2, kinds=FLOAT, cost=50, notation="log(2**x + 2**y)/log(2)"
)
