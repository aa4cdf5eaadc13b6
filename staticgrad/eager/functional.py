"""`torch.autograd.functional` under this roof: Jacobians, Hessians and products with them, by backward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager.engine import autograd_grad
from staticgrad.eager.modes import enable_grad
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import ArgumentError
from staticgrad.ir.source import at_user_line

__all__ = ["hessian", "jacobian", "jvp", "vjp"]


def _called(func: Callable[..., Any], inputs: Any, name: str) -> tuple[list[Tensor], Tensor]:
    """Return the inputs as leaves of a graph of their own, or as they are if they are recorded, and what the function gives for them."""
    given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    for k, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise ArgumentError(at_user_line(f"{name}: input {k} is of type {type(x).__name__}; expected a tensor"))
    with enable_grad():
        varied = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in given]
        output = func(*varied)
    if not isinstance(output, Tensor):
        raise ArgumentError(at_user_line(f"{name}: the function returned {type(output).__name__}; expected one tensor"))
    return varied, output


def _like(inputs: Any, found: list[Any]) -> Any:
    """Return one result for each input: a tuple where the inputs are several."""
    return tuple(found) if isinstance(inputs, (tuple, list)) else found[0]


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False) -> Any:
    """Return the Jacobian of a function by one backward pass for each element of its result.

    Parameters
    ----------
    func : callable
        A function of tensors that returns one tensor.
    inputs : Tensor or sequence of Tensor
        Its arguments, of floats.
    create_graph : bool
        Whether the Jacobian can be differentiated again.

    Returns
    -------
    Tensor or tuple of Tensor
        For each input a tensor of the shape of the result followed by that of the input; zeros where the result does not depend on it.

    Raises
    ------
    ArgumentError
        Where an input, or the result, is no tensor.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.autograd.functional.jacobian(lambda x: x ** 2, torch.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    varied, output = _called(func, inputs, "jacobian")
    if not output.requires_grad:
        return _like(inputs, [Tensor._of(np.zeros((*output.shape, *x.shape), x.dtype)) for x in varied])
    count = output.numel()
    rows = Tensor._of(np.eye(count, dtype=output.dtype).reshape(count, *output.shape))
    found = autograd_grad(
        output, varied, rows, retain_graph=create_graph, create_graph=create_graph, is_grads_batched=True, materialize_grads=True
    )
    return _like(inputs, [g.reshape(*output.shape, *x.shape) for g, x in zip(found, varied, strict=True) if g is not None])


def hessian(func: Callable[..., Any], inputs: Tensor, create_graph: bool = False) -> Any:
    """Return the second derivatives of a function of one tensor whose result is a scalar.

    Parameters
    ----------
    func : callable
        A function of one tensor that returns a tensor of one element.
    inputs : Tensor
        Its argument.
    create_graph : bool
        Whether the Hessian can be differentiated again.

    Returns
    -------
    Tensor
        Of the shape of the input, twice.

    Raises
    ------
    BackwardError
        Where the function's result is no scalar.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.autograd.functional.hessian(lambda x: (x ** 3).sum(), torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def gradient(x: Tensor) -> Any:
        return autograd_grad(func(x), x, create_graph=True, materialize_grads=True)[0]

    return jacobian(gradient, inputs, create_graph)


def vjp(func: Callable[..., Any], inputs: Any, v: Tensor | None = None, create_graph: bool = False) -> tuple[Tensor, Any]:
    """Return what a function gives, and the product of `v` with its Jacobian.

    Parameters
    ----------
    func : callable
        A function of tensors that returns one tensor.
    inputs : Tensor or sequence of Tensor
        Its arguments, of floats.
    v : Tensor, optional
        Of the shape of the result; a scalar result needs none.
    create_graph : bool
        Whether both can be differentiated again.

    Returns
    -------
    tuple
        The result, and for each input a tensor of its shape and dtype.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.autograd.functional.vjp(lambda x: x ** 2, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 10.0]))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    varied, output = _called(func, inputs, "vjp")
    found = autograd_grad(output, varied, v, create_graph=create_graph, materialize_grads=True)
    return output if create_graph else output.detach(), _like(inputs, list(found))


def jvp(func: Callable[..., Any], inputs: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a function of one tensor gives, and the product of its Jacobian with `v`.

    The vector-Jacobian product is linear in its weights, so its own backward pass gives the other product.

    Parameters
    ----------
    func : callable
        A function of one tensor that returns one tensor.
    inputs : Tensor
        Its argument, of floats.
    v : Tensor
        Of the shape of the argument.

    Returns
    -------
    tuple of Tensor
        Both of the shape and dtype of the result.

    Examples
    --------
    >>> import staticgrad.eager as torch
    >>> torch.autograd.functional.jvp(lambda x: x ** 2, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 10.0]))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    varied, output = _called(func, inputs, "jvp")
    weights = Tensor._of(np.zeros(output.shape, output.dtype), requires=True)
    weighted = autograd_grad(output, varied, weights, create_graph=True, materialize_grads=True)
    if weighted[0] is None or not weighted[0].requires_grad:  # the result does not depend on the argument
        return output.detach(), weights.detach()
    (product,) = autograd_grad(weighted, weights, v)
    assert product is not None
    return output.detach(), product
