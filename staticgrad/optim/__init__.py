"""Optimisers: how parameters follow their gradients. Pure functions in NumPy, on arrays and inside of traced functions alike."""

from staticgrad.optim import schedules
from staticgrad.optim.adaptive import Adagrad, AdagradState, Adam, AdamState, RMSProp, RMSPropState, adagrad, adam, adamw, rmsprop
from staticgrad.optim.clipping import Chain, ClipByGlobalNorm, ClipByValue, chain, clip_by_global_norm, clip_by_value
from staticgrad.optim.descent import SGD, SGDState, sgd
from staticgrad.optim.gauss_newton import GaussNewton, gauss_newton
from staticgrad.optim.levenberg_marquardt import LevenbergMarquardt, levenberg_marquardt
from staticgrad.optim.optimizer import Optimizer
from staticgrad.optim.residual_optimizer import ResidualOptimizer, ResidualState, Trial

__all__ = [
    "SGD",
    "Adagrad",
    "AdagradState",
    "Adam",
    "AdamState",
    "Chain",
    "ClipByGlobalNorm",
    "ClipByValue",
    "GaussNewton",
    "LevenbergMarquardt",
    "Optimizer",
    "RMSProp",
    "RMSPropState",
    "ResidualOptimizer",
    "ResidualState",
    "SGDState",
    "Trial",
    "adagrad",
    "adam",
    "adamw",
    "chain",
    "clip_by_global_norm",
    "clip_by_value",
    "gauss_newton",
    "levenberg_marquardt",
    "rmsprop",
    "schedules",
    "sgd",
]
