"""Exponentials and logarithms, and the logistic functions made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ir.builder import Builder, Scalar
from staticgrad.ir.node import Value, full, zeros_like
from staticgrad.ops.comparison import equal, where
from staticgrad.ops.elementwise import FLOAT, Apply, elementwise

exp: Apply = elementwise("exp", np.exp, kernels.exp, lambda g, y, x: g * y, kinds=FLOAT, cost=15)
expm1: Apply = elementwise("expm1", np.expm1, kernels.expm1, lambda g, y, x: g * (y + 1), kinds=FLOAT, cost=25)
log: Apply = elementwise("log", np.log, kernels.log, lambda g, y, x: g / x, kinds=FLOAT, cost=20)
log1p: Apply = elementwise("log1p", np.log1p, kernels.log1p, lambda g, y, x: g / (x + 1), kinds=FLOAT, cost=25)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x >= 0, np.ones_like(x), small) / (1 + small)
    return result


def _softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


sigmoid: Apply = elementwise("sigmoid", _sigmoid, kernels.sigmoid, lambda g, y, x: g * (y * (1 - y)), kinds=FLOAT, cost=20)
softplus: Apply = elementwise("softplus", _softplus, kernels.softplus, lambda g, y, x: g * sigmoid(x), kinds=FLOAT, cost=40)


# ---- other bases, and sums of exponentials -----------------------------------------------------------------------------------

LN2, LN10 = math.log(2), math.log(10)

exp2: Apply = elementwise("exp2", np.exp2, kernels.exp2, lambda g, y, x: g * (y * LN2), kinds=FLOAT, cost=15)
log2: Apply = elementwise("log2", np.log2, kernels.log2, lambda g, y, x: g / (x * LN2), kinds=FLOAT, cost=40)
log10: Apply = elementwise("log10", np.log10, kernels.log10, lambda g, y, x: g / (x * LN10), kinds=FLOAT, cost=40)


def _emit_logaddexp(unit: float) -> Callable[..., Scalar]:
    """Return an emitter of the larger operand plus log(1 + e**-d), `unit` times d being their distance."""

    def emit(b: Builder, x: Scalar, y: Scalar) -> Scalar:
        distance = b.abs(b.sub(x, y))
        more = kernels.softplus(b, b.mul(distance, b.like(-unit, x)))
        more = more if unit == 1 else b.div(more, b.like(unit, x))
        same = b.eq(x, y)  # also where both are the same infinity
        return b.add(b.max(x, y), b.select(same, b.like(LN2 / unit, x), more))

    return emit


def _share(g: Value, x: Value, other: Value, unit: float) -> Value:
    """Return g times the share of the first exponential in the sum, one half where both operands are the same infinity."""
    same = equal(x, other)
    return g * where(same, full(x.shape, 0.5, x.dtype), sigmoid(where(same, zeros_like(x), x - other) * unit))


def _logaddexp(name: str, meaning: Callable[..., Any], unit: float) -> Apply:
    return elementwise(
        name, meaning, _emit_logaddexp(unit), lambda g, y, a, b: _share(g, a, b, unit), lambda g, y, a, b: _share(g, b, a, unit),
        arity=2, kinds=FLOAT, cost=50,
    )  # fmt: skip


logaddexp: Apply = _logaddexp("logaddexp", np.logaddexp, 1)
logaddexp2: Apply = _logaddexp("logaddexp2", np.logaddexp2, LN2)
