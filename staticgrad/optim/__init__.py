"""Optimisers: how parameters follow their gradients. Pure functions in NumPy, on arrays and inside of traced functions alike."""

from staticgrad.optim.adaptive import Adam, AdamState, adam, adamw
from staticgrad.optim.descent import SGD, SGDState, sgd
from staticgrad.optim.optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamState", "Optimizer", "SGDState", "adam", "adamw", "sgd"]
