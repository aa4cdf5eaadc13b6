"""`torch.autograd` under this roof: Function, grad, backward, gradcheck, and the transforms that PyTorch has there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager import functional
from staticgrad.eager.engine import autograd_grad as grad
from staticgrad.eager.engine import backward
from staticgrad.eager.function import Function
from staticgrad.eager.modes import enable_grad, no_grad, set_grad_enabled
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import GradientCheckError, InvalidValueError
from staticgrad.gradient_check import derivative_at_zero
from staticgrad.ir.aval import FLOAT64, is_float
from staticgrad.ir.source import at_user_line

__all__ = ["Function", "backward", "enable_grad", "functional", "grad", "gradcheck", "gradgradcheck", "no_grad", "set_grad_enabled"]


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Return whether gradients by `backward` agree with those by differences.

    Parameters
    ----------
    func : callable
        A function of tensors that returns a tensor or several.
    inputs : Tensor or sequence
        Its arguments; those that require gradients are varied. Take float64: differences of float32 are rough.
    eps : float
        The first step is at least this; smaller ones follow, and what they show is extrapolated to step 0.
    atol, rtol : float
        How far both may be apart: |a - n| <= atol + rtol |n|.
    raise_exception : bool
        Whether to raise where they are not equal, and not only to return False.

    Raises
    ------
    GradientCheckError
        Naming the result and the argument, with both derivatives.

    Examples
    --------
    >>> import staticgrad as sg
    >>> x = sg.tensor([0.5, 2.0], dtype=float, requires_grad=True)
    >>> gradcheck(lambda x: x.exp(), (x,))
    True
    """
    arguments = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    varied = [k for k, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not varied:
        raise InvalidValueError(at_user_line("gradcheck: no argument requires gradients: make one with requires_grad=True"))
    for number, output in enumerate(_outputs(func(*arguments))):
        if not is_float(output.dtype) or not output.requires_grad:
            continue
        analytical = _by_backward(output, [arguments[k] for k in varied])
        for k, found in zip(varied, analytical, strict=True):
            numeric = _by_differences(func, arguments, k, number, eps)
            if np.all(np.abs(found - numeric) <= atol + rtol * np.abs(numeric)):
                continue
            if not raise_exception:
                return False
            raise GradientCheckError(
                at_user_line(
                    f"gradcheck: the derivatives of result {number} (rows) with respect to argument {k} (columns) are by backward\n"
                    f"{found}\nbut by differences\n{numeric}"
                )
            )
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Any, **options: Any) -> bool:
    """Return whether gradients of gradients agree with those by differences; arguments are those of `gradcheck`."""
    arguments = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    varied = [k for k, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        outputs = [x for x in _outputs(func(*args)) if x.requires_grad]
        weights = [Tensor._of(np.cos(np.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)) for x in outputs]
        found = grad(outputs, [args[k] for k in varied], weights, create_graph=True, allow_unused=True, materialize_grads=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(gradients, arguments, **options)


def _outputs(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _by_backward(output: Tensor, inputs: list[Tensor]) -> list[np.ndarray]:
    """Return the Jacobian of a result with respect to each argument: a row for each element of the result."""
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for place in range(output.numel()):
        seed = np.zeros(output.numel(), output.dtype)
        seed[place] = 1
        found = grad(output, inputs, Tensor._of(seed.reshape(output.shape)), retain_graph=True, materialize_grads=True)
        for row, g in zip(rows, found, strict=True):
            row.append(np.ravel(g.detach().numpy()) if g is not None else np.zeros(0))
    return [np.array(row, FLOAT64).reshape(output.numel(), x.numel()) for row, x in zip(rows, inputs, strict=True)]


def _by_differences(func: Callable[..., Any], arguments: list[Any], number: int, output: int, step: float) -> np.ndarray:
    """Return the same Jacobian by differences."""
    x = arguments[number]
    columns = []
    for index in np.ndindex(x.shape):

        def along(distance: float, index: tuple[int, ...] = index) -> np.ndarray:
            moved = x._array.copy()
            moved[index] += distance
            changed = [Tensor._of(moved, requires=True) if k == number else each for k, each in enumerate(arguments)]
            return np.asarray(np.ravel(_outputs(func(*changed))[output]._array), FLOAT64)

        columns.append(derivative_at_zero(along, max(step, 1e-3 * max(1.0, abs(float(x._array[index]))))))
    return np.array(columns, FLOAT64).reshape(x.numel(), -1).T
