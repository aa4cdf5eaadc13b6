"""Functions of np.linalg that are made of others: powers, chains of products, conditions, tensors as matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from staticgrad.errors import InvalidValueError, ShapeError
from staticgrad.ir.source import at_user_line
from staticgrad.ops.matrices import identity
from staticgrad.tracing.functions.arguments import as_tracer, whole_number
from staticgrad.tracing.functions.norms import np_norm, np_trace
from staticgrad.tracing.functions.shapes import np_diagonal
from staticgrad.tracing.functions.systems import np_inv, np_solve, np_svd
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.tracer import Tracer, tracer_of


@implements(np.linalg.matrix_power)
def np_matrix_power(a: Any, n: Any) -> Tracer:
    """Return the products of n times the same matrix, for n < 0 of its inverse."""
    x, count = as_tracer(a), whole_number(n, "np.linalg.matrix_power: n")
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(at_user_line(f"np.linalg.matrix_power: {x.aval} does not hold square matrices in its last two axes"))
    if count == 0:
        return tracer_of(identity(x.shape, x.dtype))
    square = x if count > 0 else np_inv(x)
    power: Tracer | None = None
    for bit in reversed(f"{abs(count):b}"):
        if bit == "1":
            power = square if power is None else power @ square
        square = square @ square
    assert power is not None
    return power


@implements(np.linalg.multi_dot)
def np_multi_dot(arrays: Sequence[Any], *, out: None = None) -> Tracer:
    """Return the product of several matrices, in the order that takes the fewest multiplications; the ends may be vectors."""
    factors = [as_tracer(x) for x in arrays]
    if len(factors) < 2:
        raise InvalidValueError(at_user_line("np.linalg.multi_dot: expected at least two arrays"))
    ends = len(factors) - 1
    if any(x.ndim != 2 and not (x.ndim == 1 and k in (0, ends)) for k, x in enumerate(factors)):
        avals = ", ".join(str(x.aval) for x in factors)
        raise ShapeError(at_user_line(f"np.linalg.multi_dot: {avals} must be matrices, but for vectors at the ends"))
    lengths = [1 if factors[0].ndim == 1 else factors[0].shape[0], *(x.shape[-1] if x.ndim == 2 else x.shape[0] for x in factors)]
    if factors[-1].ndim == 1:
        lengths[-2:] = [factors[-1].shape[0], 1]

    cheapest: dict[tuple[int, int], tuple[float, int]] = {(k, k): (0, k) for k in range(len(factors))}
    for count in range(1, len(factors)):
        for first in range(len(factors) - count):
            last = first + count
            costs = (
                (cheapest[first, k][0] + cheapest[k + 1, last][0] + math.prod((lengths[first], lengths[k + 1], lengths[last + 1])), k)
                for k in range(first, last)
            )
            cheapest[first, last] = min(costs)

    def multiplied(first: int, last: int) -> Tracer:
        if first == last:
            return factors[first]
        middle = cheapest[first, last][1]
        product: Tracer = multiplied(first, middle) @ multiplied(middle + 1, last)
        return product

    return multiplied(0, ends)


@implements(np.linalg.cond)
def np_cond(x: Any, p: Any = None) -> Tracer:
    """Return the condition numbers of matrices, by the norm `p`: of singular ones infinity."""
    matrices = as_tracer(x)
    if matrices.ndim < 2 or not math.prod(matrices.shape[-2:]):
        raise ShapeError(at_user_line(f"np.linalg.cond: {matrices.aval} does not hold matrices with elements in its last two axes"))
    if p in (None, 2, -2):
        values = np_svd(matrices, compute_uv=False)
        found = values[..., -1] / values[..., 0] if p == -2 else values[..., 0] / values[..., -1]
    else:
        found = np_norm(matrices, p, (-2, -1)) * np_norm(np_inv(matrices), p, (-2, -1))
    unknown = np.isnan(found) & ~np.any(np.isnan(matrices), axis=(-2, -1))
    return np.where(unknown, np.inf, found)  # type: ignore[return-value]


@implements(getattr(np.linalg, "svdvals", None))
def np_svdvals(x: Any, /) -> Tracer:
    """Return the singular values of matrices, the greatest one first."""
    values: Tracer = np_svd(x, compute_uv=False)
    return values


@implements(getattr(np.linalg, "trace", None))
def np_linalg_trace(x: Any, /, *, offset: Any = 0, dtype: Any = None) -> Tracer:
    """Return the sums along a diagonal of the matrices in the last two axes."""
    return np_trace(x, offset, -2, -1, dtype)


@implements(getattr(np.linalg, "diagonal", None))
def np_linalg_diagonal(x: Any, /, *, offset: Any = 0) -> Tracer:
    """Return a diagonal of the matrices in the last two axes."""
    return np_diagonal(x, offset, -2, -1)


@implements(np.linalg.tensorsolve)
def np_tensorsolve(a: Any, b: Any, axes: Any = None) -> Tracer:
    """Return the x of tensordot(a, x, x.ndim) = b; `axes` of a are moved to the end first."""
    x, right = as_tracer(a), as_tracer(b)
    if axes is not None:
        moved = [axis % x.ndim for axis in axes]
        x = np.transpose(x, [*(k for k in range(x.ndim) if k not in moved), *moved])  # type: ignore[assignment]
    shape = x.shape[right.ndim :]
    if math.prod(shape) != right.size or x.size != right.size**2:
        raise ShapeError(at_user_line(f"np.linalg.tensorsolve: {x.aval} holds no square system for {right.aval}"))
    found: Tracer = np_solve(x.reshape(right.size, right.size), right.reshape(-1)).reshape(shape)
    return found


@implements(np.linalg.tensorinv)
def np_tensorinv(a: Any, ind: Any = 2) -> Tracer:
    """Return the inverse for tensordot(..., ind): a as a matrix of its first `ind` axes and of the others."""
    x, first = as_tracer(a), whole_number(ind, "np.linalg.tensorinv: ind")
    if first <= 0:
        raise InvalidValueError(at_user_line(f"np.linalg.tensorinv: ind={first} must be positive"))
    before, after = x.shape[:first], x.shape[first:]
    if math.prod(before) != math.prod(after):
        raise ShapeError(at_user_line(f"np.linalg.tensorinv: {x.aval} is no square matrix of its first {first} axes and the others"))
    inverse: Tracer = np_inv(x.reshape(math.prod(before), -1)).reshape((*after, *before))
    return inverse
