"""Comparisons of whole tensors, which give one truth value."""

from __future__ import annotations

import numpy as np

from staticgrad.eager.tensors import Tensor
from staticgrad.errors import ArgumentError
from staticgrad.ir.source import at_user_line


def _arrays(input: Tensor, other: Tensor, name: str) -> tuple[np.ndarray, np.ndarray]:
    for x in (input, other):
        if not isinstance(x, Tensor):
            raise ArgumentError(at_user_line(f"{name}: expected two tensors, not {type(x).__name__}"))
    return input._array, other._array


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Return whether all elements agree: |input - other| <= atol + rtol |other|.

    Parameters
    ----------
    input, other : Tensor
        Tensors that broadcast.
    rtol, atol : float
        How far elements may be apart.
    equal_nan : bool
        Whether NaN agrees with NaN.

    Returns
    -------
    bool

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.allclose(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.00001]))
    True
    """
    return bool(np.allclose(*_arrays(input, other, "allclose"), rtol, atol, equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape and elements.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.equal(torch.tensor([1.0, 2.0]), torch.tensor([1.0]))
    False
    """
    return bool(np.array_equal(*_arrays(input, other, "equal")))
