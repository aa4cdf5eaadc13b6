"""Systems of linear equations: the functions of np.linalg that solve them."""

from __future__ import annotations

from typing import Any

import numpy as np

from staticgrad.errors import ShapeError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.linalg import solve
from staticgrad.ops.movement import broadcast_to, reshape
from staticgrad.tracing.functions.arguments import operand
from staticgrad.tracing.functions.table import implements
from staticgrad.tracing.lift import convert, lift, promoted
from staticgrad.tracing.tracer import Tracer, tracer_of


def _matrices(a: Any, name: str) -> Value:
    """Return square matrices of floats."""
    value = operand(a)
    if len(value.shape) < 2 or value.shape[-1] != value.shape[-2]:
        raise ShapeError(at_user_line(f"{name}: {value.aval} does not hold square matrices in its last two axes"))
    return value if value.dtype.kind == "f" else convert(value, FLOAT64)


@implements(np.linalg.solve)
def np_solve(a: Any, b: Any) -> Tracer:
    """Return the x of a x = b; where a is singular, x holds infinities or NaN, as a traced program cannot raise LinAlgError."""
    name = "np.linalg.solve"
    matrices, right = promoted(_matrices(a, name), operand(b))
    order = matrices.shape[-1]
    is_vector = len(right.shape) == 1
    columns = reshape(right, (*right.shape, 1)) if is_vector else right
    if len(columns.shape) < 2 or columns.shape[-2] != order:
        raise ShapeError(at_user_line(f"{name}: {order} equations in {matrices.aval}, but right-hand sides {right.aval}"))
    try:
        leading = np.broadcast_shapes(matrices.shape[:-2], columns.shape[:-2])
    except ValueError:
        raise ShapeError(at_user_line(f"{name}: the leading axes of {matrices.aval} and {right.aval} do not broadcast")) from None
    x = solve(broadcast_to(matrices, (*leading, order, order)), broadcast_to(columns, (*leading, *columns.shape[-2:])))
    return tracer_of(reshape(x, x.shape[:-1]) if is_vector else x)


@implements(np.linalg.inv)
def np_inv(a: Any) -> Tracer:
    """Return the inverses of matrices; where one is singular, it holds infinities or NaN."""
    matrices = _matrices(a, "np.linalg.inv")
    unit = lift(np.eye(matrices.shape[-1], dtype=matrices.dtype))
    return tracer_of(solve(matrices, broadcast_to(unit, matrices.shape)))
