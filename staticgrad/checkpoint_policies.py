"""Policies of `sg.checkpoint`: which of the values that a function computes may be kept for the backward pass nevertheless.

A policy is asked for the name of each operation, as the printed graph has it, and returns whether its results may be kept. Any function
of a name is one: `lambda name: name in ("exp", "sum")`. The names of these are JAX's.

    >>> import numpy as np, staticgrad as sg
    >>> layer = sg.checkpoint(lambda x, w: np.tanh(x @ w), policy=sg.checkpoint_policies.dots_saveable)
    >>> sg.grad(lambda x, w: np.sum(layer(x, w)))(np.zeros((1, 2)), np.eye(2))
    array([[1., 1.]])
"""

from collections.abc import Callable

__all__ = ["checkpoint_dots", "dots_saveable", "everything_saveable", "nothing_saveable", "save_from_both_policies"]


def nothing_saveable(name: str) -> bool:
    """Return False: everything is computed anew."""
    return False


def everything_saveable(name: str) -> bool:
    """Return True: as if there were no checkpoint."""
    return True


def dots_saveable(name: str) -> bool:
    """Return whether an operation is a matrix product, which takes long to compute anew; `einsum` and `dot` are such, too."""
    return name == "contract"


checkpoint_dots = dots_saveable


def save_from_both_policies(policy_1: Callable[[str], bool], policy_2: Callable[[str], bool]) -> Callable[[str], bool]:
    """Return the policy that keeps what one of two policies keeps.

    >>> from staticgrad.checkpoint_policies import dots_saveable, save_from_both_policies
    >>> save_from_both_policies(dots_saveable, lambda name: name == "exp")("exp")
    True
    """
    return lambda name: policy_1(name) or policy_2(name)
