"""Applying operations to tensors: find the recipe, run it, record it on the tape, write what is written in place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from staticgrad.eager.modes import get_default_dtype, modes
from staticgrad.eager.nodes import RecipeNode
from staticgrad.eager.recipes import Computed, Path, Recipe, Viewed, kept, reading, recorded
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import ArgumentError, OverflowedError, StaticgradError
from staticgrad.ir.aval import FLOAT64, INT64, Aval, is_float
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.pytree import unflatten
from staticgrad.tracing.tracer import Tracer

Name = str | Callable[..., str]


@dataclass(frozen=True, eq=False)
class Operation:
    """Something that can be done with tensors.

    Attributes
    ----------
    function
        Its meaning, on tracers.
    name
        What the tape calls it, or what says so of the tracers it was given.
    numbers
        Whether Python numbers are operands, as in x * 2, and not options, as in x.sum(0): a new number is no new recipe then.
    """

    function: Callable[..., Any]
    name: Name
    numbers: bool = False


class _TracedOperand(Exception):
    """A traced array among the operands: the operation becomes part of its trace."""


class _Operand(NamedTuple):
    """The place of an operand in the arguments."""

    dtype: np.dtype
    shape: tuple[int, ...]
    weak: bool = False


def apply(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
    """Return what an operation gives on tensors, or, if a traced array is among its arguments, on traced arrays."""
    operands: list[Tensor] = []
    try:
        form = _frozen(args, operands, operation.numbers), _frozen(kwargs or {}, operands, operation.numbers)
    except _TracedOperand:
        from staticgrad.eager.traced import apply_traced

        return apply_traced(operation.function, args, kwargs or {})
    key = (operation, form, get_default_dtype())

    def make() -> Recipe:
        avals = [Aval(x._array.shape, x._array.dtype, spec.weak) for x, spec in zip(operands, _specs(form), strict=True)]

        def on_tracers(*tracers: Tracer) -> Any:
            supply = iter(tracers)
            return operation.function(*_thawed(form[0], supply), **_thawed(form[1], supply))

        def name(*tracers: Tracer) -> str:
            supply = iter(tracers)
            if isinstance(operation.name, str):
                return operation.name
            return operation.name(*_thawed(form[0], supply), **_thawed(form[1], supply))

        try:
            return recorded(on_tracers, avals, name)
        except StaticgradError as error:
            if isinstance(error, RuntimeError):
                raise
            kind: Any = type(error)
            raise _also_runtime_error(kind)(*error.args) from error.__cause__
        except TypeError:
            _check_call(operation, args, kwargs or {})
            raise

    return run(kept(key, make), operands)


def _check_call(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if the operation has other parameters."""
    signature, name = inspect.signature(operation.function), getattr(operation.function, "__name__", "this operation")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(at_user_line(f"{name}: {error}; its parameters are {signature}")) from None


@functools.cache
def _also_runtime_error(kind: Any) -> Any:
    """Return the kind of error that is also what PyTorch raises where NumPy raises ValueError or TypeError."""
    return type(kind.__name__, (kind, RuntimeError), {"__doc__": kind.__doc__, "__module__": kind.__module__})


def _frozen(obj: Any, operands: list[Tensor], numbers: bool) -> Hashable:
    """Return arguments as a key: operands are taken out and leave their shapes and dtypes."""
    if numbers and isinstance(obj, np.generic):  # a number like Python's: it does not decide the dtype
        obj = obj.item()
    kind = type(obj)
    if isinstance(obj, Tensor):
        array = obj._array
        if isinstance(array, Tracer):
            raise _TracedOperand
        operands.append(obj)
        return _Operand(array.dtype, array.shape)
    if kind is float or kind is int:
        if numbers:
            operands.append(Tensor._of(_number(obj)))
            return _Operand(operands[-1]._array.dtype, (), True)
        return kind, obj.hex() if kind is float else obj
    if kind is tuple or kind is list:
        return kind, tuple([_frozen(part, operands, numbers) for part in obj])
    if kind is dict:
        return kind, tuple([(name, _frozen(part, operands, numbers)) for name, part in obj.items()])
    if kind is slice:
        return kind, tuple([_frozen(part, operands, False) for part in (obj.start, obj.stop, obj.step)])
    if isinstance(obj, Tracer):
        raise _TracedOperand
    if isinstance(obj, (np.ndarray, np.generic)):
        operands.append(Tensor._of(np.asarray(obj)))
        return _Operand(operands[-1]._array.dtype, operands[-1]._array.shape)
    if isinstance(obj, tuple):  # a named one
        return kind, tuple([_frozen(part, operands, numbers) for part in obj])
    try:
        hash(obj)
    except TypeError:
        raise ArgumentError(at_user_line(f"an argument of type {kind.__name__} ({str(obj)[:60]}) is no tensor, number or option")) from None
    return kind, obj


def _number(x: int | float) -> np.ndarray:
    """Return a Python number as an array."""
    try:
        return np.array(x, FLOAT64 if type(x) is float else INT64)
    except OverflowError:
        kind = _also_runtime_error(OverflowedError)
        raise kind(at_user_line(f"the Python integer {x} does not fit into 64 bits; write it as a float")) from None


def _specs(form: Any) -> list[_Operand]:
    if isinstance(form, _Operand):
        return [form]
    return [spec for part in form for spec in _specs(part)] if isinstance(form, tuple) else []


def _thawed(form: Any, tracers: Any) -> Any:
    """Return the arguments of a key, with tracers in the operands' places."""
    if isinstance(form, _Operand):
        return next(tracers)
    kind, content = form
    if kind is float:
        return float.fromhex(content)
    if kind is dict:
        return {name: _thawed(part, tracers) for name, part in content}
    if kind is slice:
        return slice(*(_thawed(part, tracers) for part in content))
    if kind in (tuple, list):
        return kind(_thawed(part, tracers) for part in content)
    if issubclass(kind, tuple):
        return kind(*(_thawed(part, tracers) for part in content))
    return content


def run(recipe: Recipe, operands: Sequence[Tensor]) -> Any:
    """Return the result of a recipe in the structure of its function."""
    for k in recipe.writes:
        operands[k]._check_writable()
    found = run_recipe(recipe, operands)
    first = len(found) - len(recipe.writes)
    for k, new in zip(recipe.writes, found[first:], strict=True):
        operands[k]._write(new)
    assert recipe.tree is not None
    leaves = [
        found[each.place]
        if isinstance(each, Computed)
        else view_of(operands[each.operand], each.path, recipe.name)
        if isinstance(each, Viewed)
        else each.value
        for each in recipe.results
    ]
    return unflatten(recipe.tree, leaves)


def run_recipe(recipe: Recipe, operands: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of a recipe's graph, recorded if anything requires gradients."""
    arrays = [x._array for x in operands]
    own: list[np.ndarray] = []
    for array in recipe.run(arrays):
        own.append(array.copy() if _is_shared(array, arrays, own) else array)
    found = [Tensor._of(array) for array in own]
    if modes.records and found and True in [x.requires_grad for x in operands]:
        differentiable = [k for k, x in enumerate(found) if is_float(x._array.dtype)]
        if differentiable:
            written = [operands[k]._writes for k in recipe.writes]
            overwritten = frozenset(k for k, x in enumerate(operands) if x._writes in written) if written else frozenset()
            node = RecipeNode(recipe, operands, found, overwritten)
            for k in differentiable:
                found[k]._edge = (node, k)
    return found


def _is_shared(array: np.ndarray, operands: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> bool:
    """Return whether a result needs a copy: the interpreter may give parts of operands, one array twice, one element repeated."""
    flags = array.flags
    if not flags.writeable or not flags.c_contiguous:  # a result can be viewed in any shape
        return True
    borrowed = not flags.owndata
    for x in operands:
        if array is x or (borrowed and np.may_share_memory(array, x)):
            return True
    return any(np.may_share_memory(array, x) for x in results)


def view_of(x: Tensor, path: Path, name: str, part: np.ndarray | None = None) -> Tensor:
    """Return the tensor of a part of another one's memory; `part` is the array if it is there already."""
    if not path:
        return x
    aval = Aval(x._array.shape, x._array.dtype)
    if part is None:
        part = reading(aval, path, name).run([x._array])[0]
    shares = np.may_share_memory(part, x._array) or not part.size
    result = Tensor._of(part if shares else part.copy(), version=x._writes if shares else None)
    if modes.records and x.requires_grad:
        result._edge = (RecipeNode(reading(aval, path, name), [x], [result]), 0)
    if shares:
        base = x if x._base is None else x._base
        result._base, result._path, result._history = base, (*x._path, *path), base._history
    return result
