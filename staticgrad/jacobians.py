"""`jacobian`, `hessian` and `hvp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from staticgrad.api import check_no_static, check_tuple, checked_argnums
from staticgrad.calls.traced import Traced, traced
from staticgrad.errors import InvalidValueError
from staticgrad.ir.source import at_user_line
from staticgrad.transforms.jacobian import MODES, Hessian, Hvp, Jacobian


def jacobian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, mode: str = "auto", has_aux: bool = False) -> Traced:
    """Return the function that gives the Jacobian of `f`: the derivative of every output by every element of its arguments.

    Parameters
    ----------
    f
        A function of arrays that returns floats: one array, or a container of them (with `has_aux` a pair of it and anything else).
    argnums
        Which positional arguments to differentiate by: a number, or a tuple for a tuple of Jacobians.
    mode
        `"reverse"` makes one pullback for each element of the result, `"forward"` one pushforward for each element of the arguments;
        `"auto"` takes what needs fewer of them. All of them are one batch, which is fused like any other graph.
    has_aux
        Whether `f` returns `(value, aux)`; then `(jacobian, aux)` is returned.

    Returns
    -------
    Traced
        A function with the arguments of `f`. Its result has the structure of the value of `f` with, for each array, the structure
        of the argument; the block of an output `y` and an argument `x` has the shape `y.shape + x.shape` and the dtype of `x`.

    Raises
    ------
    DTypeError
        When an argument or the value is not of floats.
    InvalidValueError
        For a mode that does not exist, or an argument that does not.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.jacobian(lambda x: np.array([1.0, 2.0]) * x[0] * x)(np.array([3.0, 5.0]))
    array([[ 6.,  0.],
           [10.,  6.]])
    """
    if mode not in MODES:
        raise InvalidValueError(at_user_line(f"jacobian: mode={mode!r}: expected one of {', '.join(MODES)}"))
    return traced(f).derive(Jacobian(checked_argnums(argnums), mode, has_aux), "jacobian")


def hessian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Traced:
    """Return the function that gives the Hessian of `f`, all its second derivatives: forward mode over reverse mode.

    Parameters
    ----------
    f
        A function that returns a float, or arrays of them (with `has_aux` a pair of it and anything else).
    argnums
        Which positional arguments to differentiate by: a number, or a tuple for a tuple of tuples of blocks.
    has_aux
        Whether `f` returns `(value, aux)`; then `(hessian, aux)` is returned.

    Returns
    -------
    Traced
        A function with the arguments of `f`. Its result has the structure of the value of `f` with, for each array, the structure
        of the argument twice over; a block has the shape `y.shape + x1.shape + x2.shape`.

    Raises
    ------
    DTypeError
        When an argument or the value is not of floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.hessian(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    return traced(f).derive(Hessian(checked_argnums(argnums), has_aux), "hessian")


def hvp(f: Callable[..., Any], primals: Sequence[Any], vectors: Sequence[Any]) -> Any:
    """Return the product of the Hessian of `f` with `vectors`; the Hessian itself is never formed.

    It is the derivative of the gradient along the vectors, at a few times the cost of `f`.

    Parameters
    ----------
    f
        A function that returns one float.
    primals, vectors
        Two tuples of one structure: the arguments, and a vector for each of them.

    Returns
    -------
    Any
        The product, with the structure of the argument; for several arguments a tuple, one product with the whole Hessian.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When `f` does not return a float scalar, an argument is not of floats, or a vector does not fit its argument.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> sg.hvp(lambda x: x[0] ** 2 * x[1], (np.array([3.0, 5.0]),), (np.array([1.0, 0.0]),))
    array([10.,  6.])
    """
    for name, given in (("primals", primals), ("vectors", vectors)):
        check_tuple("hvp", name, given)
    function = traced(f)
    check_no_static("hvp", function)
    return function.derive(Hvp(len(primals)), "hvp")(tuple(primals), tuple(vectors))
