"""`fixed_point`: a point that a function maps to itself, with the derivatives of the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.control.flow import while_loop
from staticgrad.custom.implicit import check_like, custom_linear_solve, custom_root
from staticgrad.custom.rules import name_of
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError
from staticgrad.ir.aval import FLOAT64, is_float
from staticgrad.ir.source import at_user_line
from staticgrad.ops.casts import cast
from staticgrad.tracing.context import tracing
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import flatten, tree_map
from staticgrad.tracing.tracer import tracer_of


def fixed_point(f: Callable[..., Any], x0: Any, args: Sequence[Any] = (), xtol: float | None = None, maxiter: int = 500) -> Any:
    """Return an `x` with `x = f(x, *args)`, found by iterating `f` from `x0`.

    It is differentiated by `args` and by what `f` closes over, in both modes and to any order, without going back through the steps:
    the derivative is a fixed point itself. `f` must be a contraction near `x`. The signature is that of `scipy.optimize.fixed_point`.

    Parameters
    ----------
    f
        A function that returns what is like its first argument.
    x0
        Where to start: floats, or a container of them. The result does not depend on it.
    args
        Further arguments of `f`.
    xtol
        How much a step may still change, relative to 1 + the largest element. By default `eps ** (2 / 3)` of the least precise dtype:
        4e-11 for float64, 2e-5 for float32.
    maxiter
        The most steps to be taken, for the point and for each derivative.

    Returns
    -------
    Any
        The fixed point, in the structure of `x0`; NaN where `maxiter` steps were not enough.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        Where `f` does not return what is like `x0`, or that is not of floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def solution(a):  # x = cos(a x)
    ...     return sg.fixed_point(lambda x, a: np.cos(a * x), 0.5, args=(a,))
    >>> round(float(solution(1.0)), 9)
    0.739085133
    >>> x = solution(1.0)
    >>> abs(sg.grad(solution)(1.0) + x * np.sin(x) / (1 + np.sin(x))) < 1e-9
    np.True_
    """
    if not isinstance(args, (tuple, list)):
        raise ArgumentError(at_user_line(f"fixed_point: args must be a tuple, not {type(args).__name__}"))
    if isinstance(maxiter, bool) or not isinstance(maxiter, (int, np.integer)) or maxiter < 1:
        raise InvalidValueError(at_user_line(f"fixed_point: maxiter={maxiter!r}: expected a whole number of at least 1"))
    if xtol is not None and not xtol > 0:
        raise InvalidValueError(at_user_line(f"fixed_point: xtol={xtol!r}: expected a positive number"))
    if not tracing():
        return traced(lambda start, more: fixed_point(f, start, more, xtol, maxiter))(x0, tuple(args))
    start = tree_map(_as_float, x0)
    dtypes = [leaf.dtype for leaf in flatten(start)[0]]
    tolerance = xtol if xtol is not None else max((float(np.finfo(dtype).eps) for dtype in dtypes), default=1.0) ** (2 / 3)

    def iterated(step: Callable[[Any], Any], x: Any) -> Any:
        """Return the limit of steps that begin at x."""

        def next_state(state: Any) -> Any:
            count, before, _ = state
            after = step(before)
            return count + 1, after, _change(before, after)

        _, last, change = while_loop(lambda state: (state[2] > tolerance) & (state[0] < maxiter), next_state, (0, x, np.inf))
        return tree_map(lambda leaf: np.where(change <= tolerance, leaf, np.nan).astype(leaf.dtype), last)

    def step(x: Any) -> Any:
        found = f(x, *args)
        check_like(found, x, f"fixed_point: x0 is {{}}, {name_of(f)} returned {{}}")
        return found

    def neumann(linear: Callable[[Any], Any], right: Any) -> Any:
        """Solve v - J v = right, given v -> v - J v, by v <- right + J v."""
        return iterated(lambda v: tree_map(lambda y, each, moved: y + (each - moved), right, v, linear(v)), right)

    def residual(x: Any) -> Any:
        return tree_map(lambda before, after: before - after, x, step(x))

    return custom_root(
        residual, start, lambda _, x: iterated(step, x), lambda linear, right: custom_linear_solve(linear, right, neumann, neumann)
    )


def _as_float(leaf: Any) -> Any:
    value = lift(leaf)
    if value.aval.weak:
        value = cast(value, FLOAT64)
    if not is_float(value.dtype):
        raise DTypeError(at_user_line(f"fixed_point: x0 has dtype {value.dtype}; pass floats (x0.astype(float))"))
    return tracer_of(value)


def _change(before: Any, after: Any) -> Any:
    """Return the largest change of an element, relative to 1 + the largest element of its array."""
    changes = [
        np.max(np.abs(y - x)) / (1 + np.max(np.abs(y))) for x, y in zip(flatten(before)[0], flatten(after)[0], strict=True) if np.size(x)
    ]
    total = 0.0
    for change in changes:
        total = np.maximum(total, change)
    return total
