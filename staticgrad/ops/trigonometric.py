"""Circular and hyperbolic functions."""

from __future__ import annotations

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.ops.elementwise import FLOAT, Apply, elementwise

sin: Apply = elementwise("sin", np.sin, kernels.sin, lambda g, y, x: g * cos(x), kinds=FLOAT, cost=25)
cos: Apply = elementwise("cos", np.cos, kernels.cos, lambda g, y, x: -(g * sin(x)), kinds=FLOAT, cost=25)
tanh: Apply = elementwise("tanh", np.tanh, kernels.tanh, lambda g, y, x: g * ((1 - y) * (1 + y)), kinds=FLOAT, cost=20)
