"""Losses that outliers move less than squares do, as changes of the residuals themselves.

A loss rho stands for the cost sum(rho(r^2)) / 2. That is the sum of the squares of r sqrt(rho(z) / z) with z = r^2, so a problem of
least squares remains, with all that belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.graph import inline
from staticgrad.ir.options import number
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import Signature, flatten, tree_map, unflatten
from staticgrad.tracing.record import Program, record
from staticgrad.tracing.tracer import tracer_of
from staticgrad.transforms import Source

TINY = 1e-30
"""Where the square of a residual is smaller, rho(z) / z is rho'(0), which is 1 for the losses here."""


def _soft_l1(z: Any) -> Any:
    return 2 / (np.sqrt(1 + z) + 1)


def _huber(z: Any) -> Any:
    beyond = np.where(z > 1, z, 1)
    return np.where(z > 1, (2 * np.sqrt(beyond) - 1) / beyond, 1)


def _cauchy(z: Any) -> Any:
    apart = np.where(z > TINY, z, 1)
    return np.where(z > TINY, np.log1p(apart) / apart, 1)


def _arctan(z: Any) -> Any:
    apart = np.where(z > TINY, z, 1)
    return np.where(z > TINY, np.arctan(apart) / apart, 1)


LOSSES: dict[str, Callable[[Any], Any]] = {"soft_l1": _soft_l1, "huber": _huber, "cauchy": _cauchy, "arctan": _arctan}
"""rho(z) / z by SciPy's names."""


@dataclass(frozen=True)
class RobustResiduals:
    """A function of residuals as the one whose squares are a loss of them."""

    loss: str | Callable[[Any], Any]
    f_scale: float

    def __call__(self, base: Source, signature: Signature) -> Program:
        program = base.program(signature)

        def robust(*args: Any, **kwargs: Any) -> Any:
            outputs = inline(program.graph, [lift(leaf) for leaf in flatten((args, kwargs))[0]])
            value = unflatten(program.out_tree, [tracer_of(v) for v in outputs[: program.results]])
            return tree_map(self._shrunk, value)

        made = record(robust, signature, base.name)
        return Program(made.graph, signature, made.out_tree, program.guards, made.captures, made.prints)

    def _shrunk(self, residuals: Any) -> Any:
        """Return residuals whose squares are the loss."""
        z = (residuals / self.f_scale) ** 2
        return residuals * np.sqrt(LOSSES[self.loss](z) if isinstance(self.loss, str) else self._of_function(z)).astype(residuals.dtype)

    def _of_function(self, z: Any) -> Any:
        """Return rho(z) / z for a function that returns rho and its derivatives, as SciPy wants it."""
        assert callable(self.loss)
        apart = z > TINY
        rho = self.loss(z.reshape(-1))
        rho, slope = (part.reshape(z.shape) for part in (rho[0], rho[1]))
        return np.where(apart, rho / np.where(apart, z, 1), slope)


def loss_of(loss: Any, f_scale: Any) -> RobustResiduals | None:
    """Return the change of residuals that a loss is; None for squares."""
    scale = number("f_scale", f_scale)
    if not scale:
        raise InvalidValueError(at_user_line("least_squares: f_scale=0: expected a number of more than 0"))
    if isinstance(loss, str):
        if loss != "linear" and loss not in LOSSES:
            known = ", ".join(map(repr, ("linear", *LOSSES)))
            raise InvalidValueError(at_user_line(f"least_squares: loss={loss!r}: expected one of {known}, or a function"))
        return None if loss == "linear" else RobustResiduals(loss, scale)
    if not callable(loss):
        raise ArgumentError(at_user_line(f"least_squares: loss={loss!r}: expected a name or a function, not {type(loss).__name__}"))
    return RobustResiduals(loss, scale)
