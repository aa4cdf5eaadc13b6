"""What of numpy.fft works on real numbers: the order of frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.tracing.functions.arguments import as_tracer, axis_of
from staticgrad.tracing.functions.joining import np_roll
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.tracer import Tracer


def _shifted(x: Any, axes: Any, sign: int, name: str) -> Tracer:
    tracer = as_tracer(x)
    listed = range(tracer.ndim) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    places = tuple(axis_of(axis, tracer.ndim, name, "axes") for axis in listed)
    return np_roll(tracer, tuple(sign * (tracer.shape[place] // 2) for place in places), places)


@implements(np.fft.fftshift)
def np_fftshift(x: Any, axes: Any = None) -> Tracer:
    """Return x with the frequency 0, which stands first, moved to the middle."""
    return _shifted(x, axes, 1, "np.fft.fftshift")


@implements(np.fft.ifftshift)
def np_ifftshift(x: Any, axes: Any = None) -> Tracer:
    """Return x with the frequency 0, which stands in the middle, moved to the front."""
    return _shifted(x, axes, -1, "np.fft.ifftshift")
