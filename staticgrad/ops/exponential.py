"""Exponentials and logarithms, and the logistic functions made of them."""

from __future__ import annotations

import numpy as np

import staticgrad.kernels as kernels
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
