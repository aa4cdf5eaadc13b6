"""Learning rates that depend on the number of updates done before: 0 for the first one.

A schedule is a function of that number in plain NumPy, so it becomes part of the compiled update, and so does one's own:
`sg.optim.sgd(lambda step: 0.1 / (1 + step))`. Those here hold their last value for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.optim.optimizer import Rate, number_or_schedule

__all__ = ["Schedule", "constant", "cosine", "exponential", "linear_warmup", "one_cycle", "piecewise", "step", "warmup_cosine"]


@dataclass(frozen=True)
class Schedule:
    """A function of the number of updates done before, with its parameters; equal ones compare equal."""

    name: str
    parameters: tuple[tuple[str, Any], ...]
    function: Callable[..., Any] = field(repr=False)

    def __call__(self, step: Any) -> Any:
        return self.function(step, **dict(self.parameters))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.parameters)})"


def _schedule(function: Callable[..., Any], **parameters: Any) -> Schedule:
    return Schedule(function.__name__.lstrip("_"), tuple(parameters.items()), function)


def constant(rate: float) -> Schedule:
    """Return a schedule that stays at `rate`; only useful where a schedule is asked for.

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> schedules.constant(0.1)(1000)
    np.float64(0.1)
    """
    return _schedule(_constant, rate=number("rate", rate))


def _constant(step: Any, rate: float) -> Any:
    return np.where(step >= 0, rate, rate)[()]


def step(rate: float, every: int, factor: float = 0.1) -> Schedule:
    """Return a schedule that multiplies the rate by `factor` after each `every` updates: rate * factor**(step // every).

    Parameters
    ----------
    rate : float
        The first rate, at least 0.
    every : int
        Updates between two changes.
    factor : float
        At least 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> [float(schedules.step(0.8, every=100, factor=0.5)(n)) for n in (0, 99, 100, 250)]
    [0.8, 0.8, 0.4, 0.2]
    """
    return _schedule(_step, rate=number("rate", rate), every=whole("every", every), factor=number("factor", factor))


def _step(step: Any, rate: float, every: int, factor: float) -> Any:
    return rate * factor ** np.floor(step / every)


def piecewise(rates: Sequence[float], boundaries: Sequence[int]) -> Schedule:
    """Return a schedule of constant pieces: `rates[0]` up to update `boundaries[0]`, from there on `rates[1]`, and so on.

    Parameters
    ----------
    rates : sequence of float
        One more than the boundaries, each at least 0.
    boundaries : sequence of int
        Numbers of updates, increasing.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> [float(schedules.piecewise([0.1, 0.01, 0.5], [100, 200])(n)) for n in (99, 100, 200)]
    [0.1, 0.01, 0.5]
    """
    found = tuple(number(f"rates[{k}]", rate) for k, rate in enumerate(rates))
    places = tuple(whole(f"boundaries[{k}]", place) for k, place in enumerate(boundaries))
    if len(found) != len(places) + 1 or any(a >= b for a, b in pairwise(places)):
        raise InvalidValueError(
            at_user_line(f"piecewise: {len(found)} rates and boundaries {places}; expected increasing ones, one less than the rates")
        )
    return _schedule(_piecewise, rates=found, boundaries=places)


def _piecewise(step: Any, rates: tuple[float, ...], boundaries: tuple[int, ...]) -> Any:
    rate = _constant(step, rates[0])
    for boundary, after in zip(boundaries, rates[1:], strict=True):
        rate = np.where(step >= boundary, after, rate)[()]
    return rate


def exponential(rate: float, factor: float, every: int = 1) -> Schedule:
    """Return a schedule that decays smoothly, by `factor` in `every` updates: rate * factor**(step / every).

    Parameters
    ----------
    rate : float
        The first rate, at least 0.
    factor : float
        At least 0.
    every : int
        In how many updates the rate is multiplied by `factor` once.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> [float(schedules.exponential(0.8, 0.25, every=100)(n)) for n in (0, 50, 100)]
    [0.8, 0.4, 0.2]
    """
    return _schedule(_exponential, rate=number("rate", rate), factor=number("factor", factor), every=whole("every", every))


def _exponential(step: Any, rate: float, factor: float, every: int) -> Any:
    return rate * factor ** (step / every)


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """Return a schedule that falls from `rate` to `final` in `steps` updates, along half a wave of the cosine.

    final + (rate - final) * (1 + cos(pi * min(step, steps) / steps)) / 2

    Parameters
    ----------
    rate, final : float
        The first and the last rate, at least 0.
    steps : int
        After how many updates `final` is reached.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> [round(float(schedules.cosine(0.1, 100)(n)), 6) for n in (0, 50, 100, 1000)]
    [0.1, 0.05, 0.0, 0.0]

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (ICLR, 2017).
    """
    return _schedule(_cosine, rate=number("rate", rate), steps=whole("steps", steps), final=number("final", final))


def _cosine(step: Any, rate: float, steps: int, final: float) -> Any:
    return _wave(np.minimum(step, steps) / steps, rate, final)


def _wave(share: Any, first: float, last: float) -> Any:
    """Return where half a wave of the cosine from `first` to `last` is after a share of its length."""
    return last + 0.5 * (first - last) * (1.0 + np.cos(np.pi * share))


def linear_warmup(after: Rate, steps: int, start: float = 0.0) -> Schedule:
    """Return a schedule that rises linearly in `steps` updates from `start` to the first rate of `after`, and goes on with that.

    Parameters
    ----------
    after : float or function
        A rate, or a schedule; its update 0 is update number `steps` of this one.
    steps : int
        The length of the rise.
    start : float
        The first rate, at least 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> warm = schedules.linear_warmup(schedules.exponential(0.8, 0.5), steps=4)
    >>> [float(warm(n)) for n in (0, 1, 4, 5)]
    [0.0, 0.2, 0.8, 0.4]
    """
    return _schedule(_linear_warmup, after=number_or_schedule(after), steps=whole("steps", steps), start=number("start", start))


def _linear_warmup(step: Any, after: Rate, steps: int, start: float) -> Any:
    later = after(np.maximum(step - steps, 0)) if callable(after) else after
    return np.where(step < steps, start + (later - start) * (step / steps), later)[()]


def warmup_cosine(peak: float, warmup: int, steps: int, start: float = 0.0, final: float = 0.0) -> Schedule:
    """Return a schedule that rises linearly from `start` to `peak` in `warmup` updates and falls to `final` up to update `steps`.

    Parameters
    ----------
    peak, start, final : float
        The greatest rate, the first and the last one, at least 0.
    warmup, steps : int
        The length of the rise, and of both together.

    Returns
    -------
    Schedule
        `linear_warmup(cosine(peak, steps - warmup, final), warmup, start)`.

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> rate = schedules.warmup_cosine(0.2, warmup=10, steps=110)
    >>> [round(float(rate(n)), 6) for n in (0, 5, 10, 60, 110)]
    [0.0, 0.1, 0.2, 0.1, 0.0]
    """
    warmup, steps = whole("warmup", warmup), whole("steps", steps)
    if warmup >= steps:
        raise InvalidValueError(at_user_line(f"warmup_cosine: warmup={warmup} must be less than steps={steps}, which counts both parts"))
    return linear_warmup(cosine(peak, steps - warmup, final), warmup, start)


def one_cycle(peak: float, steps: int, warmup: float = 0.3, divisor: float = 25.0, final_divisor: float = 1e4) -> Schedule:
    """Return a schedule that rises to `peak` and falls far below its first rate, both along half waves of the cosine.

    The rates are those of `torch.optim.lr_scheduler.OneCycleLR`: from peak / divisor in update 0 to `peak` in update
    warmup * steps - 1, and on to peak / divisor / final_divisor in update steps - 1.

    Parameters
    ----------
    peak : float
        The greatest rate, at least 0.
    steps : int
        The length of the cycle, at least 2.
    warmup : float
        The share of the rise, in [0, 1).
    divisor, final_divisor : float
        How far the first rate lies below the peak, and the last rate below the first.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from staticgrad.optim import schedules
    >>> rate = schedules.one_cycle(0.5, steps=100)
    >>> [round(float(rate(n)), 6) for n in (0, 29, 99)]
    [0.02, 0.5, 2e-06]

    References
    ----------
    L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning rates" (arXiv:1708.07120, 2017).
    """
    divisors = {name: number(name, value) for name, value in (("divisor", divisor), ("final_divisor", final_divisor))}
    for name, value in divisors.items():
        if value < 1:
            raise InvalidValueError(at_user_line(f"{name}={value!r}: expected a number of at least 1"))
    return _schedule(
        _one_cycle, peak=number("peak", peak), steps=whole("steps", steps, 2), warmup=number("warmup", warmup, below=1), **divisors
    )


def _one_cycle(step: Any, peak: float, steps: int, warmup: float, divisor: float, final_divisor: float) -> Any:
    turn = max(warmup * steps - 1.0, 0.0)
    rise = _wave(np.minimum(step / max(turn, 1.0), 1.0), peak / divisor, peak)
    fall = _wave(np.clip((step - turn) / (steps - 1.0 - turn), 0.0, 1.0), peak, peak / divisor / final_divisor)
    return np.where(step < turn, rise, fall)[()]
