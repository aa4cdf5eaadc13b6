"""Searches whose result's shape depends on values: they give numbers of places, or new tensors, and belong to no graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.eager.tensors import Tensor
from staticgrad.errors import ArgumentError, TensorError
from staticgrad.ir.source import at_user_line


def _array(input: Any, name: str) -> np.ndarray:
    if not isinstance(input, Tensor):
        raise ArgumentError(at_user_line(f"{name}: expected a tensor, not {type(input).__name__}"))
    if not isinstance(input._array, np.ndarray):
        raise TensorError(at_user_line(f"{name}: the shape of its result depends on values, which are not known while tracing"))
    return input._array


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Return the places of the elements that are not zero.

    Parameters
    ----------
    input : Tensor
        Of any shape and dtype.
    as_tuple : bool
        Whether to return the int64 coordinates axis by axis, as an index.

    Returns
    -------
    Tensor or tuple of Tensor
        int64, of shape (number, axes), one place a row; or for each axis a tensor of its coordinates.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.nonzero(torch.tensor([0.0, 5.0, 7.0]))
    tensor([[1],
            [2]])
    """
    array = _array(input, "nonzero")
    if as_tuple:
        return tuple(Tensor._of(places) for places in np.nonzero(np.atleast_1d(array)))
    return Tensor._of(np.ascontiguousarray(np.argwhere(array)))


def argwhere(input: Tensor) -> Tensor:
    """Return the places of the elements that are not zero, int64 of shape (number, axes).

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.argwhere(torch.tensor([[0, 1], [1, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    return Tensor._of(np.ascontiguousarray(np.argwhere(_array(input, "argwhere"))))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Return the elements where `mask`, which broadcasts with `input`, is true, in one row; gradients pass.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.masked_select(x > 1.5)
    tensor([2., 3., 4.])
    """
    chosen = _array(mask, "masked_select")
    if chosen.dtype.kind != "b":
        raise TensorError(at_user_line(f"masked_select: the mask must be of bool, not {chosen.dtype}"))
    shape = np.broadcast_shapes(_array(input, "masked_select").shape, chosen.shape)
    return input.broadcast_to(shape)[Tensor._of(np.ascontiguousarray(np.broadcast_to(chosen, shape)))]  # type: ignore[no-any-return]


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    """Return the different elements in ascending order, without history.

    Parameters
    ----------
    input : Tensor
        Of any shape and dtype.
    sorted : bool
        The result is sorted in any case.
    return_inverse, return_counts : bool
        Whether to return, too, for each element of `input` its number in the result, and how often each one of the result occurs.
    dim : int, optional
        The axis whose different slices are wanted; by default all elements are compared.

    Returns
    -------
    Tensor or tuple of Tensor
        The elements, of `input`'s dtype, then what was asked for, int64.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.unique(torch.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    options: dict[str, Any] = {"return_inverse": return_inverse, "return_counts": return_counts, "axis": dim}
    found = np.unique(_array(input, "unique"), **options)
    return tuple(Tensor._of(part) for part in found) if isinstance(found, tuple) else Tensor._of(found)
