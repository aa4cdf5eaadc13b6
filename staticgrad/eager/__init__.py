"""Tensors with a tape, under PyTorch's names: `import staticgrad.eager as torch` runs most introductory code unchanged.

Operations are recorded as they run, and `backward` gives gradients. They are those of `@sg.trace`: every operation means what its
graph means. A traced function that is given tensors is one step of the tape whose forward and backward are compiled kernels.

>>> import staticgrad.eager as torch
>>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> loss = torch.mean(x ** 2)
>>> loss.backward()
>>> x.grad
tensor([0.6667, 1.3333, 2.0000])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad.eager import (
    autograd,
    cuda,
    operators,  # noqa: F401  (gives tensors their operators)
)
from staticgrad.eager.apply import Operation, apply
from staticgrad.eager.comparing import allclose, equal
from staticgrad.eager.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    logspace,
    manual_seed,
    normal,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from staticgrad.eager.cuda import device
from staticgrad.eager.function import Function
from staticgrad.eager.modes import enable_grad, get_default_dtype, is_grad_enabled, no_grad, set_default_dtype, set_grad_enabled
from staticgrad.eager.operations import FUNCTIONS
from staticgrad.eager.picture import backward_graph
from staticgrad.eager.promotion import promote_types
from staticgrad.eager.searching import argwhere, masked_select, nonzero, unique
from staticgrad.eager.tensors import Tensor
from staticgrad.eager.text import set_printoptions
from staticgrad.errors import MissingAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions.table import closest

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
inference_mode = no_grad
finfo, iinfo = np.finfo, np.iinfo


def is_tensor(obj: object) -> bool:
    """Return whether an object is a tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> int:
    """Return the number of elements."""
    return input.numel()


def _function(name: str, operation: Operation) -> Callable[..., Any]:
    """Return an operation as a function of tensors and, inside of a trace, of traced arrays."""

    @functools.wraps(operation.function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(operation, args, kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = operation.function.__doc__ or f"Return what the method `{name}` of a tensor does."
    return call


_NAMESPACE: dict[str, Any] = {name: _function(name, operation) for name, operation in FUNCTIONS.items()} | {
    "float32": np.dtype("float32"), "float": np.dtype("float32"), "float64": np.dtype("float64"), "double": np.dtype("float64"),
    "int8": np.dtype("int8"), "int16": np.dtype("int16"), "short": np.dtype("int16"), "int32": np.dtype("int32"),
    "int": np.dtype("int32"), "int64": np.dtype("int64"), "long": np.dtype("int64"), "uint8": np.dtype("uint8"),
    "bool": np.dtype("bool"), "dtype": np.dtype, "newaxis": None,
}  # fmt: skip
"""The operations and dtypes; `float` and its like are dtypes here, as in PyTorch, so they are put in at the end."""

__all__ = [  # noqa: PLE0604
    "Function", "Tensor", "allclose", "arange", "argwhere", "as_tensor", "autograd", "backward_graph", "cuda", "device", "e", "empty",
    "empty_like", "enable_grad", "equal", "eye", "finfo", "from_dlpack", "from_numpy", "full", "full_like", "get_default_dtype",
    "iinfo", "inf", "inference_mode", "is_grad_enabled", "is_tensor", "linspace", "logspace", "manual_seed", "masked_select", "nan",
    "no_grad", "nonzero", "normal", "numel", "ones", "ones_like", "pi", "promote_types", "rand", "rand_like", "randint", "randn",
    "randn_like", "randperm", "set_default_dtype", "set_grad_enabled", "set_printoptions", "tensor", "unique", "zeros", "zeros_like",
    *sorted(_NAMESPACE),
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise MissingAttributeError(at_user_line(f"staticgrad.eager has no {name!r}; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)


globals().update(_NAMESPACE)
