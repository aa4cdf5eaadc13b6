"""Derivatives of what solvers find: those of the equation that it solves, not of the steps that led there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import staticgrad.numpy as snp
from staticgrad.implicit import custom_root
from staticgrad.jacobians import jacobian
from staticgrad.optim.normal_equations import Layout


def implicit_root(equations: Callable[[Any], Any], guess: Any, solve: Callable[[Any], tuple[Any, Any]], word: str) -> tuple[Any, Any]:
    """Return what `solve(guess)` returns: the root of `equations`, and anything else, which has no derivative.

    The root is a pytree like `guess`, and so is what the equations return of it.
    """
    layout = Layout(guess, word)

    def tangent_solve(linear: Callable[[Any], Any], right: Any) -> Any:
        """The x of linear(x) = right, from the matrix of the linear function."""

        def on_vectors(vector: Any) -> Any:
            return Layout(linear(layout.tree(vector)), word).vector

        matrix = jacobian(on_vectors)(np.zeros(layout.size))
        return layout.tree(snp.linalg.solve(matrix, Layout(right, word).vector))

    found: tuple[Any, Any] = custom_root(equations, guess, lambda _, start: solve(start), tangent_solve, has_aux=True)
    return found
