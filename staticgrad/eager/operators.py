"""What can be done with tensors: operators, parts, methods and NumPy's protocols, put on the class here.

`tensor.py` says what a tensor is and `apply.py` how operations run; this is the table in between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from staticgrad.calls.traced import Traced
from staticgrad.eager.apply import Operation, apply, view_of
from staticgrad.eager.comparing import allclose, equal
from staticgrad.eager.indexing import basic_view, ready_index
from staticgrad.eager.names import WRITTEN, node_name
from staticgrad.eager.operations import ARRAY_OPERATIONS, METHODS, PROPERTIES, elementwise, numpy_function, numpy_ufunc
from staticgrad.eager.searching import argwhere, masked_select, nonzero, unique
from staticgrad.eager.tensors import Tensor
from staticgrad.eager.traced import call_traced
from staticgrad.errors import ArgumentError, MissingAttributeError, TensorError
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.functions.table import closest
from staticgrad.tracing.tracer import Tracer


def _picked(x: Tracer, index: Any) -> Any:
    return x[index]


def _written(x: Tracer, index: Any, new: Any) -> None:
    x[index] = new


def _writing_name(x: Tracer, index: Any, new: Any) -> str:
    """Return what the tape calls a write: of a part of the memory, or of elements here and there."""
    items = index if isinstance(index, tuple) else (index,)
    return WRITTEN if all(item is None or item is Ellipsis or isinstance(item, (int, slice)) for item in items) else "IndexPut"


_PICKED, _WRITTEN = Operation(_picked, "Index"), Operation(_written, _writing_name)


def _get_item(self: Tensor, index: Any) -> Tensor:
    """Return a part: of a basic index a view, of arrays and masks a copy."""
    if isinstance(self._array, Tracer):
        return apply(_PICKED, (self, index))
    index = ready_index(index, self._array.shape)
    view = basic_view(index, self._array.shape)
    if view is None:
        return apply(_PICKED, (self, index))  # type: ignore[no-any-return]
    chosen = index if isinstance(index, tuple) else (index,)
    name = "Select" if any(isinstance(item, int) for item in chosen) else "Slice"
    part = self._array[chosen if Ellipsis in chosen else (*chosen, ...)]  # the ellipsis: an array, also of a single element
    return view_of(self, (view,), name, part)


def _set_item(self: Tensor, index: Any, new: Any) -> None:
    """Write a part in place."""
    apply(_WRITTEN, (self, ready_index(index, self._array.shape), new))


def _iterate(self: Tensor) -> Iterator[Tensor]:
    if not self._array.ndim:
        raise ArgumentError(at_user_line("a tensor without axes cannot be iterated over"))
    return (self[k] for k in range(len(self._array)))


def _attribute(self: Tensor, name: str) -> Any:
    """Return a method of PyTorch's tensors, or one of NumPy's arrays."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name in PROPERTIES:
        return apply(PROPERTIES[name], (self,))
    operation = METHODS.get(name) or ARRAY_OPERATIONS.get(name)
    if operation is None:
        names = [*METHODS, *PROPERTIES, *ARRAY_OPERATIONS, *(n for n in vars(Tensor) if not n.startswith("_"))]
        raise MissingAttributeError(at_user_line(f"a tensor has no attribute {name!r}; {closest(name, names)}"))
    return functools.partial(_call_method, operation, self)


def _call_method(operation: Operation, self: Tensor, *args: Any, **kwargs: Any) -> Any:
    return apply(operation, (self, *args), kwargs)


def _sharing(name: str) -> Callable[..., Tensor]:
    """Return the method that gives the same memory in another shape, and refuses where only a copy could have that shape."""

    def view(self: Tensor, *shape: Any) -> Tensor:
        result: Tensor = apply(METHODS[name], (self, *shape))
        if isinstance(self._array, np.ndarray) and result._array.size and not np.may_share_memory(result._array, self._array):
            raise TensorError(
                at_user_line(
                    f"{name}: the elements of this tensor of shape {self.shape} do not stand in memory in an order that gives shape "
                    f"{result.shape}; use .reshape(), which copies them where it must"
                )
            )
        return result

    view.__name__, view.__doc__ = name, "Return the same memory in another shape."
    return view


def _contiguous(self: Tensor) -> Tensor:
    """Return the tensor itself if its elements stand in memory one after the other, and a copy of which that holds if not."""
    return self if isinstance(self._array, np.ndarray) and self.is_contiguous() else apply(METHODS["contiguous"], (self,))


def _names(self: Tensor) -> list[str]:
    return sorted({*object.__dir__(self), *METHODS, *PROPERTIES, *ARRAY_OPERATIONS})


def _array_ufunc(self: Tensor, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    return apply(numpy_ufunc(ufunc, method), inputs, options)


def _array_function(self: Tensor, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return numpy_function(function, args, kwargs)


def _take_over(cls: type[Tensor], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a function of staticgrad's gives on tensors."""
    if isinstance(function, Traced):
        return call_traced(function, args, kwargs)
    return apply(_operation_of(function), args, kwargs)


@functools.lru_cache(1024)
def _operation_of(function: Callable[..., Any]) -> Operation:
    return Operation(function, node_name(getattr(function, "__name__", "call").removeprefix("np_")))


def _copy(self: Tensor) -> Tensor:
    return apply(METHODS["clone"], (self,))  # type: ignore[no-any-return]


OPERANDS = (Tensor, float, int, np.ndarray, np.generic, list)
"""What operators take beside a tensor."""


def _binary(name: str, operation: Operation, swapped: bool = False) -> Callable[[Any, Any], Any]:
    def operate(self: Tensor, other: Any) -> Any:
        if not isinstance(other, OPERANDS):
            return NotImplemented
        return apply(operation, (other, self) if swapped else (self, other))

    operate.__name__ = name
    return operate


def _unary(operation: Operation) -> Callable[[Any], Any]:
    return lambda self: apply(operation, (self,))


ARITHMETIC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "floordiv": np.floor_divide, "mod": np.remainder,
    "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "matmul": np.matmul,
    "lshift": np.left_shift, "rshift": np.right_shift,
}  # fmt: skip
COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal}
UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}


def _install() -> None:
    members: dict[str, Any] = {
        "getitem": _get_item, "setitem": _set_item, "iter": _iterate, "getattr": _attribute, "dir": _names, "copy": _copy,
        "array_ufunc": _array_ufunc, "array_function": _array_function, "staticgrad_function": classmethod(_take_over),
    }  # fmt: skip
    for name, ufunc in ARITHMETIC.items():
        members[name] = _binary(name, elementwise(ufunc))
        members[f"r{name}"] = _binary(f"r{name}", elementwise(ufunc), swapped=True)
        members[f"i{name}"] = _binary(f"i{name}", elementwise(ufunc, in_place=True))
    members |= {name: _binary(name, elementwise(ufunc)) for name, ufunc in COMPARISONS.items()}
    members |= {name: _unary(elementwise(ufunc)) for name, ufunc in UNARY.items()}
    methods = {f"__{name}__": member for name, member in members.items()} | {name: _sharing(name) for name in ("view", "view_as")}
    methods |= {"allclose": allclose, "equal": equal, "contiguous": _contiguous}
    methods |= {"argwhere": argwhere, "masked_select": masked_select, "nonzero": nonzero, "unique": unique}
    for name, method in methods.items():
        setattr(Tensor, name, method)


_install()
