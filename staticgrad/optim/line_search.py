"""How far to go along a direction: to a length where the strong Wolfe conditions hold, found by interpolation. All of it is traced.

Along a direction the function is phi(t), and what has to become at most 0 is the *excess*

    psi(t) = phi(t) - phi(0) - DECREASE t phi'(0)

A length is done that has an excess of at most 0 and a slope |phi'(t)| <= CURVATURE |phi'(0)|. Where psi is least, both hold, so the
search is for that: `low` is the best length so far, and once `low` and `high` are on both sides of a least one, they close in on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from staticgrad.control.flow import while_loop
from staticgrad.optim.normal_equations import chosen

DECREASE, CURVATURE = 1e-4, 0.9
"""A step stays that lowers the function by at least this part of what its slope foretells, and leaves at most this part of the slope."""

MOST_TRIALS = 40
"""So many lengths of a step are tried at most."""

NARROW = 0.1
"""Where the two ends are as close as this, relative to the further one, the better one will do: the function has a kink in between."""

RETREAT = 0.1
"""From a length where the function is not finite, the next one goes back to this part of the way."""


class Trial(NamedTuple):
    """A length that was tried."""

    point: Any
    """What is there."""
    fall: Any
    """By how much the function falls; NaN where it, or a slope, is not finite."""
    slope: Any
    """phi'(t)."""
    bends: Any = False
    """Whether the way has come to a bound, and bends: what slopes foretell does not hold there, so it is done if the function falls."""


class _End(NamedTuple):
    length: Any
    excess: Any
    slope: Any
    """psi'(t)."""


class _Search(NamedTuple):
    low: _End
    high: _End
    """At an infinite length until a least one is known to be in between; with an infinite excess where nothing is finite."""
    width: Any
    """How far the ends were apart two trials before."""
    later_width: Any
    """And one trial before."""


def search(at: Callable[[Any], Trial], slope: Any) -> tuple[Trial, Any, Any]:
    """Return the last trial, whether the function falls enough there, and how many there were.

    Parameters
    ----------
    at
        Tries a length.
    slope
        phi'(0), which is less than 0. The first length is 1.

    References
    ----------
    J. J. More, D. J. Thuente, "Line search algorithms with guaranteed sufficient decrease" (ACM Transactions on Mathematical Software
    20, 1994). Here a function that is not finite is one that is too large, and psi is not given up for phi on the way.
    """

    def judged(t: Any, settled: Any) -> tuple[Trial, _End, Any, Any]:
        """Return a trial as such and as an end, whether the function falls enough there, and whether the search is over."""
        trial = at(t)
        finite = np.isfinite(trial.fall)
        end = _End(t, np.where(finite, -trial.fall - DECREASE * t * slope, np.inf), trial.slope - DECREASE * slope)
        falls = end.excess <= 0
        return trial, end, falls, settled | (falls & (trial.bends | (np.abs(trial.slope) <= -CURVATURE * slope)))

    def goes_on(carry: Any) -> Any:
        _, (_, _, _, over), trials = carry
        return ~over & (trials < MOST_TRIALS)

    def body(carry: Any) -> Any:
        ends, (_, here, _, _), trials = carry
        t, ends = _closer(ends, here)
        narrow = ends.later_width < NARROW * np.maximum(ends.low.length, ends.high.length)
        settled = (narrow | (trials == MOST_TRIALS - 1)) & (ends.low.length > 0)
        return ends, judged(np.where(settled, ends.low.length, t), settled), trials + 1

    # With dtypes of their own: a loop that starts with Python's numbers is recorded once more to find them.
    nothing, infinity = np.float64(0), np.float64(np.inf)
    start, beyond = _End(nothing, nothing, (1 - DECREASE) * slope), _End(infinity, infinity, nothing)
    ends = _Search(start, beyond, infinity, infinity)
    _, (trial, _, falls, _), trials = while_loop(goes_on, body, (ends, judged(np.float64(1), False), np.int64(1)))
    return trial, falls, trials


def _closer(ends: _Search, here: _End) -> tuple[Any, _Search]:
    """Return the next length, and the ends after `here`, which lay between them, or beyond `low` as long as `high` is infinite."""
    low, high = ends.low, ends.high
    higher = ~(here.excess <= low.excess)
    turned = ~higher & (here.slope * low.slope < 0)
    new_high = chosen(higher, here, chosen(turned, low, high))
    new_low = chosen(higher, low, here)
    bracketed = np.isfinite(new_high.length)

    cubic, secant = _least_of_cubic(low, here), _zero_of_slope(low, here)
    cubic_nearer = np.abs(cubic - here.length) < np.abs(secant - here.length)
    # Where the function is higher, the ends hold a least one, at which the cubic through them is right, or the parabola without `here`.
    parabola = low.length + (here.length - low.length) / (1 + (here.excess - low.excess) / ((low.length - here.length) * low.slope)) / 2
    nearer_low = np.abs(cubic - low.length) < np.abs(parabola - low.length)
    if_higher = np.where(nearer_low, cubic, (cubic + parabola) / 2)
    if_higher = np.where(np.isinf(here.excess), low.length + RETREAT * (here.length - low.length), if_higher)
    # Where the slope has turned, the one of cubic and secant that is further from `here`.
    if_turned = np.where(cubic_nearer, secant, cubic)
    # Where it falls on, but less steeply: before `high` the nearer one of both, otherwise the further one.
    ahead = (cubic - here.length) * (here.length - low.length) > 0
    near = np.where(ahead & cubic_nearer, cubic, secant)
    limit = here.length + 0.66 * (high.length - here.length)
    near = np.where(here.length > low.length, np.minimum(near, limit), np.maximum(near, limit))
    far = np.where(ahead, np.where(cubic_nearer, secant, cubic), np.inf)
    if_flatter = np.where(bracketed, near, far)
    # Where it falls on at least as steeply, what `high` says.
    if_steeper = np.where(bracketed, _least_of_cubic(here, high), np.inf)

    flatter = np.abs(here.slope) < np.abs(low.slope)
    t = np.where(higher, if_higher, np.where(turned, if_turned, np.where(flatter, if_flatter, if_steeper)))
    first, last = np.minimum(new_low.length, new_high.length), np.maximum(new_low.length, new_high.length)
    width = last - first
    slow = width >= 0.66 * ends.width
    inside = (t > first) & (t < last) & ~(slow & np.isfinite(new_high.excess))
    within = np.where(inside, t, (new_low.length + new_high.length) / 2)
    beyond = np.clip(t, here.length + 1.1 * (here.length - low.length), here.length + 4 * (here.length - low.length))
    return np.where(bracketed, within, beyond), _Search(new_low, new_high, ends.later_width, width)


def _least_of_cubic(one: _End, other: _End) -> Any:
    """Return where the cubic with the values and slopes of two ends is least; NaN where it falls on for ever."""
    step = other.length - one.length
    theta = 3 * (one.excess - other.excess) / step + one.slope + other.slope
    size = np.maximum(np.maximum(np.abs(theta), np.abs(one.slope)), np.abs(other.slope))
    root = size * np.sqrt((theta / size) ** 2 - (one.slope / size) * (other.slope / size))
    root = np.where(step > 0, root, -root)
    return one.length + step * (root - one.slope + theta) / (2 * root - one.slope + other.slope)


def _zero_of_slope(one: _End, other: _End) -> Any:
    """Return where the slope is 0 if it changes evenly from one end to the other."""
    return other.length + other.slope / (other.slope - one.slope) * (one.length - other.length)
