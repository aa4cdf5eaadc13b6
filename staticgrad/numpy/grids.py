"""`r_` and `c_`: arrays from slices, numbers and traced arrays, written as an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import UnsupportedError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.context import tracing
from staticgrad.tracing.functions.creation import arange, holds_tracer
from staticgrad.tracing.functions.joining import np_column_stack, np_concatenate
from staticgrad.tracing.functions.shapes import np_atleast_1d


class _Rows:
    """`r_[0:3, x, 5.0]`: the parts one after the other; a slice is a range, one with an imaginary step a number of points."""

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not tracing() or not holds_tracer(list(parts)):
            return np.r_[key]
        return np_concatenate([np_atleast_1d(_part(part, "r_")) for part in parts], 0)


class _Columns:
    """`c_[x, y]`: the parts as columns of a matrix."""

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not tracing() or not holds_tracer(list(parts)):
            return np.c_[key]
        return np_column_stack([_part(part, "c_") for part in parts])


def _part(part: Any, name: str) -> Any:
    if isinstance(part, str):
        raise UnsupportedError(at_user_line(f"{name}[{part!r}, ...] with traced arrays: directives are not supported; use snp.concatenate"))
    if not isinstance(part, slice):
        return part
    if isinstance(part.step, complex):
        return np.r_[part]
    return arange(part.start or 0, part.stop, part.step or 1)


r_ = _Rows()
c_ = _Columns()
