"""Dtypes of results of tensors, by PyTorch's rules.

Tensors with axes outrank tensors without, and these outrank Python numbers: only a higher kind (float over integer over bool) of a
lower rank counts. Integers with floats give the float's dtype, and what has no integer result gives the default dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from staticgrad.eager.modes import get_default_dtype
from staticgrad.ir.aval import BOOL, INT64
from staticgrad.ir.node import Value


def _level(dtype: np.dtype) -> int:
    return {"b": 0, "i": 1, "u": 1, "f": 2}[dtype.kind]


def can_hold(target: np.dtype, result: np.dtype) -> bool:
    """Return whether a result may be written in place: into a dtype of its kind or of a higher one, of any size."""
    return _level(result) <= _level(target)


def promote_types(first: np.dtype, second: np.dtype) -> np.dtype:
    """Return the dtype that holds both: int64 and float32 give float32.

    Examples
    --------
    >>> promote_types(np.dtype(np.int64), np.dtype(np.float32))
    dtype('float32')
    """
    if _level(first) == _level(second):
        return np.promote_types(first, second)
    return first if _level(first) > _level(second) else second


def result_type(values: Sequence[Value]) -> np.dtype:
    """Return the dtype that operands promote to; those that are weak stand for Python numbers.

    Where all are, a function is traced with numbers for arguments, and these are what they are in every traced function: float64.
    """
    if values and all(value.aval.weak for value in values):
        return np.result_type(*(value.dtype for value in values))
    ranks: list[list[np.dtype]] = [[], [], []]
    for value in values:
        if value.aval.weak:
            ranks[2].append(get_default_dtype() if value.dtype.kind == "f" else value.dtype)
        else:
            ranks[0 if value.shape else 1].append(value.dtype)
    found: np.dtype | None = None
    for dtypes in ranks:
        if not dtypes:
            continue
        lower = functools.reduce(promote_types, dtypes)
        if found is None or _level(lower) > _level(found):
            found = lower if found is None else promote_types(found, lower)
    return BOOL if found is None else found


@functools.cache
def needs_floats(ufunc: np.ufunc) -> bool:
    """Return whether a universal function of integers gives floats."""
    if ufunc is np.reciprocal:  # NumPy's gives integers, which are 0 but for 1 and -1
        return True
    try:
        return bool(ufunc.resolve_dtypes((*(INT64,) * ufunc.nin, *(None,) * ufunc.nout))[0].kind == "f")
    except TypeError:
        return True  # those of SciPy that take floats alone
