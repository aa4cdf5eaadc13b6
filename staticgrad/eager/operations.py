"""What tensors can do, by PyTorch's names: each operation is a function of traced arrays, and nothing else gives it a meaning.

`FUNCTIONS` are those of the namespace `staticgrad.eager`, `METHODS` those of tensors; a method that ends in `_` works in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from staticgrad import special
from staticgrad.eager.apply import Operation, apply
from staticgrad.eager.modes import get_default_dtype
from staticgrad.eager.names import clamp_name, contraction_name, difference_name, node_name, power_name
from staticgrad.eager.promotion import can_hold, needs_floats, result_type
from staticgrad.eager.shaping import SHAPING, SHAPING_IN_PLACE, SHAPING_PROPERTIES
from staticgrad.eager.summing import SUMMING
from staticgrad.eager.tensors import Tensor
from staticgrad.errors import DTypeError, InvalidValueError, ShapeError, UnsupportedError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.nn import activations
from staticgrad.tracing.functions.methods import METHODS as ARRAY_METHODS
from staticgrad.tracing.functions.table import FUNCTIONS as NUMPY_FUNCTIONS
from staticgrad.tracing.functions.table import call_numpy_function, name_of, unsupported
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.tracer import Tracer, tracer_of
from staticgrad.tracing.ufuncs import UFUNCS, apply_ufunc

# ---- element by element


def promoted(*operands: Any, floats: bool = False) -> list[Any]:
    """Return operands in the dtype that PyTorch promotes them to; Python numbers stay as they are."""
    values = [lift(x) for x in operands]
    dtype = result_type(values)
    if floats and dtype.kind != "f":
        dtype = FLOAT64 if all(v.aval.weak for v in values) else get_default_dtype()
    return [x if v.aval.weak and len(values) > 1 else _converted(x, v, dtype) for x, v in zip(operands, values, strict=True)]


def _converted(x: Any, value: Value, dtype: np.dtype) -> Any:
    return x if value.dtype == dtype and isinstance(x, Tracer) else tracer_of(convert(value, dtype))


def _elementwise(ufunc: np.ufunc, *operands: Any, **options: Any) -> Any:
    return apply_ufunc(ufunc, "__call__", tuple(promoted(*operands, floats=needs_floats(ufunc))), dict(options))


def _in_place(ufunc: np.ufunc, target: Tracer, *operands: Any) -> Any:
    return _write(target, _elementwise(ufunc, target, *operands))


def _write(target: Tracer, result: Any) -> Tracer:
    """Write a result into the tensor it was computed from."""
    value = lift(result)
    if not can_hold(target.dtype, value.dtype):
        raise DTypeError(at_user_line(f"a result of {value.dtype} cannot be written in place into a tensor of {target.dtype}"))
    if value.shape != target.shape:
        raise ShapeError(at_user_line(f"a result of shape {value.shape} cannot be written in place into a tensor of shape {target.shape}"))
    target.assign(value, "an in-place operation")
    return target


EXPONENT = {np.power, np.float_power}
"""Universal functions of which a number is an option: x ** 2 is another graph than x ** 3."""


@functools.cache
def elementwise(ufunc: np.ufunc, in_place: bool = False) -> Operation:
    """Return a universal function as an operation, or its in-place form."""
    if ufunc.signature is not None:  # products of matrices
        return Operation(functools.partial(_matrix_product, in_place=in_place), contraction_name)
    return Operation(functools.partial(_in_place if in_place else _elementwise, ufunc), ufunc_name(ufunc), ufunc not in EXPONENT)


NAMED_BY_OPERANDS: dict[Any, Any] = {np.subtract: difference_name, np.power: power_name}


def ufunc_name(ufunc: np.ufunc) -> Any:
    """Return what the tape calls a universal function, or what says so."""
    return NAMED_BY_OPERANDS.get(ufunc) or node_name(ufunc.__name__)


def _matrix_product(x: Any, y: Any, in_place: bool = False) -> Any:
    return np.matmul(x, y, out=(x,)) if in_place else np.matmul(x, y)


@functools.cache
def numpy_ufunc(ufunc: np.ufunc, method: str) -> Operation:
    """Return what `ufunc.method` does with tensors."""
    if method == "__call__" and ufunc in UFUNCS:
        return Operation(functools.partial(_elementwise, ufunc), ufunc_name(ufunc), ufunc not in EXPONENT)

    def call(*inputs: Any, **options: Any) -> Any:
        return apply_ufunc(ufunc, method, inputs, dict(options))

    named: Any = contraction_name if ufunc.signature is not None else node_name(ufunc.__name__)
    return Operation(call, named)


def numpy_function(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what one of NumPy's functions gives on tensors: the graph it has on tracers, or, where it has none, NumPy's own result."""
    if function in NUMPY_FUNCTIONS:
        return apply(_numpy_operation(function), args, kwargs)
    found = [x for x in _leaves([*args, *kwargs.values()]) if isinstance(x, Tensor)]
    if any(x.requires_grad for x in found):
        raise unsupported(name_of(function))
    result = function(*_arrays(args), **_arrays(kwargs))
    return Tensor._of(result) if isinstance(result, np.ndarray) else result


@functools.cache
def _numpy_operation(function: Callable[..., Any]) -> Operation:
    def call(*args: Any, **kwargs: Any) -> Any:
        return call_numpy_function(function, args, kwargs)

    return Operation(call, node_name(function.__name__))


def _leaves(obj: Any) -> list[Any]:
    return [leaf for part in obj for leaf in _leaves(part)] if isinstance(obj, (list, tuple)) else [obj]


def _arrays(obj: Any) -> Any:
    if isinstance(obj, (list, tuple)):
        return type(obj)([_arrays(part) for part in obj])
    if isinstance(obj, dict):
        return {name: _arrays(part) for name, part in obj.items()}
    return obj._array if isinstance(obj, Tensor) else obj


# ---- functions that are not NumPy's


def _scaled(ufunc: np.ufunc) -> Callable[..., Any]:
    """Return torch.add or torch.sub, whose second operand may have a factor."""

    def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
        scaled = other if isinstance(alpha, int) and alpha == 1 else _elementwise(np.multiply, other, alpha)
        return _elementwise(ufunc, input, scaled)

    return add


def _divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return _elementwise(np.divide, input, other)
    if rounding_mode == "floor":
        return _elementwise(np.floor_divide, input, other)
    if rounding_mode != "trunc":
        raise InvalidValueError(at_user_line(f"div: rounding_mode={rounding_mode!r}: expected None, 'trunc' or 'floor'"))
    x, y = promoted(input, other)
    quotient = np.trunc(np.divide(x, y))
    return quotient if quotient.dtype == x.dtype else quotient.astype(lift(x).dtype)


def _clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    if min is None and max is None:
        raise InvalidValueError(at_user_line("clamp: at least one of min and max must be given"))
    bounds = [bound for bound in (min, max) if bound is not None]
    x, *limits = promoted(input, *bounds)
    supply = iter(limits)
    return np.clip(x, *(None if bound is None else next(supply) for bound in (min, max)))


def _where(condition: Any, input: Any = None, other: Any = None) -> Any:
    if input is None or other is None:
        raise UnsupportedError(
            at_user_line("where(condition) alone has a shape that depends on values; use x[condition], or nonzero(condition)")
        )
    x, y = promoted(input, other)
    if lift(x).aval.weak and lift(y).aval.weak:
        x, y = (tracer_of(convert(lift(each), result_type([lift(x), lift(y)]))) for each in (x, y))
    return np.where(condition, x, y)


def _activation(function: Callable[..., Any]) -> Callable[..., Any]:
    def activation(input: Any, *args: Any, **kwargs: Any) -> Any:
        (x,) = promoted(input, floats=True)
        return function(x, *args, **kwargs)

    return activation


def _relu(input: Any) -> Any:
    return activations.relu(input)


def _round(input: Any, *, decimals: int = 0) -> Any:
    return np.round(input, decimals)


def _isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    return np.isclose(input, other, rtol, atol, equal_nan)


def _clamp_min(input: Any, min: Any) -> Any:
    return _clamp(input, min=min)


def _clamp_max(input: Any, max: Any) -> Any:
    return _clamp(input, max=max)


def _frac(input: Any) -> Any:
    return _elementwise(np.subtract, input, _elementwise(np.trunc, input))


def _clone(input: Any, *, memory_format: Any = None) -> Any:
    return np.copy(input)


def _rsqrt(input: Any) -> Any:
    return _elementwise(np.reciprocal, _elementwise(np.sqrt, input))


def _lerp(input: Any, end: Any, weight: Any) -> Any:
    return _elementwise(np.add, input, _elementwise(np.multiply, weight, _elementwise(np.subtract, end, input)))


def _addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    return _elementwise(np.add, input, _elementwise(np.multiply, _elementwise(np.multiply, tensor1, tensor2), value))


def _addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    return _elementwise(np.add, input, _elementwise(np.multiply, _elementwise(np.divide, tensor1, tensor2), value))


def _masked_fill(input: Any, mask: Any, value: Any) -> Any:
    return np.where(mask, _converted(value, lift(value), lift(input).dtype), input)


def _matrices(rank: int, name: str) -> Callable[..., Any]:
    """Return a product that takes operands of one rank alone."""

    def product(input: Any, mat2: Any) -> Any:
        ranks = len(lift(input).shape), len(lift(mat2).shape)
        wanted = {"mm": (2, 2), "mv": (2, 1), "dot": (1, 1), "bmm": (3, 3)}[name]
        if ranks != wanted:
            raise InvalidValueError(
                at_user_line(f"{name}: operands {lift(input).aval} and {lift(mat2).aval}; expected {wanted[0]} and {wanted[1]} axes")
            )
        return np.matmul(input, mat2)

    return product


def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = np.matmul(mat1, mat2)
    return (input if beta == 1 else input * beta) + (product if alpha == 1 else product * alpha)


def _outer(input: Any, vec2: Any) -> Any:
    return np.outer(input, vec2)


def _addmv(input: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return _addmm(input, mat, vec, beta=beta, alpha=alpha)


def _baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return _addmm(input, batch1, batch2, beta=beta, alpha=alpha)


def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    return np.tensordot(a, b, dims)


def _kron(input: Any, other: Any) -> Any:
    return np.kron(input, other)


def _inner(input: Any, other: Any) -> Any:
    return np.inner(input, other)


def _einsum(equation: str, *operands: Any) -> Any:
    return np.einsum(equation, *(operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands))


def _fill(input: Any, value: Any) -> Any:
    input[...] = value
    return input


def _zero(input: Any) -> Any:
    input[...] = 0
    return input


def _copy_into(input: Any, src: Any, non_blocking: bool = False) -> Any:
    input[...] = src
    return input


def _masked_fill_in_place(input: Any, mask: Any, value: Any) -> Any:
    input[...] = _masked_fill(input, mask, value)
    return input


UFUNC_NAMES = {
    "add": np.add, "sub": np.subtract, "subtract": np.subtract, "mul": np.multiply, "multiply": np.multiply, "div": np.divide,
    "divide": np.divide, "true_divide": np.divide, "floor_divide": np.floor_divide, "remainder": np.remainder, "fmod": np.fmod,
    "pow": np.power, "neg": np.negative, "negative": np.negative, "abs": np.absolute, "absolute": np.absolute, "sign": np.sign,
    "sgn": np.sign, "sqrt": np.sqrt, "square": np.square, "reciprocal": np.reciprocal, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "arcsin": np.arcsin,
    "acos": np.arccos, "arccos": np.arccos, "atan": np.arctan, "arctan": np.arctan, "atan2": np.arctan2, "arctan2": np.arctan2,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "arcsinh": np.arcsinh, "acosh": np.arccosh,
    "arccosh": np.arccosh, "atanh": np.arctanh, "arctanh": np.arctanh, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "fix": np.trunc, "maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin, "hypot": np.hypot,
    "copysign": np.copysign, "nextafter": np.nextafter, "eq": np.equal, "ne": np.not_equal, "not_equal": np.not_equal, "lt": np.less,
    "less": np.less, "le": np.less_equal, "less_equal": np.less_equal, "gt": np.greater, "greater": np.greater, "ge": np.greater_equal,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
    "logical_not": np.logical_not, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "bitwise_not": np.invert, "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "signbit": np.signbit,
    "deg2rad": np.deg2rad, "rad2deg": np.rad2deg, "gcd": np.gcd, "lcm": np.lcm, "positive": np.positive,
    "heaviside": np.heaviside, "float_power": np.float_power,
}  # fmt: skip
"""PyTorch's names of universal functions."""


def _named(name: str, function: Callable[..., Any], title: Any = None, numbers: bool = False) -> Operation:
    function.__name__ = name
    return Operation(function, title or node_name(name), numbers)


FUNCTIONS: dict[str, Operation] = {name: elementwise(ufunc) for name, ufunc in UFUNC_NAMES.items()} | {
    "add": _named("add", _scaled(np.add), numbers=True), "sub": _named("sub", _scaled(np.subtract), numbers=True),
    "subtract": _named("sub", _scaled(np.subtract), numbers=True), "div": _named("div", _divide, numbers=True),
    "divide": _named("div", _divide, numbers=True), "true_divide": _named("div", _divide, numbers=True),
    "clamp": _named("clamp", _clamp, clamp_name), "clip": _named("clamp", _clamp, clamp_name), "where": _named("where", _where),
    "relu": _named("relu", _relu), "sigmoid": _named("sigmoid", _activation(activations.sigmoid)),
    "softplus": _named("softplus", _activation(activations.softplus)), "clone": _named("clone", _clone),
    "rsqrt": _named("rsqrt", _rsqrt), "lerp": _named("lerp", _lerp, numbers=True), "addcmul": _named("addcmul", _addcmul),
    "addcdiv": _named("addcdiv", _addcdiv), "masked_fill": _named("masked_fill", _masked_fill),
    "matmul": elementwise(np.matmul), "addmm": _named("addmm", _addmm), "outer": _named("outer", _outer),
    "einsum": _named("einsum", _einsum), "erf": _named("erf", _activation(special.erf)),
    "erfc": _named("erfc", _activation(special.erfc)), "erfinv": _named("erfinv", _activation(special.erfinv)),
    "lgamma": _named("lgamma", _activation(special.gammaln)), "digamma": _named("digamma", _activation(special.psi)),
    "logit": _named("logit", _activation(special.logit)), "sinc": _named("sinc", _activation(np.sinc)),
    "selu": _named("selu", _activation(activations.selu)), "round": _named("round", _round), "isclose": _named("isclose", _isclose),
    "clamp_min": _named("clamp_min", _clamp_min), "clamp_max": _named("clamp_max", _clamp_max), "frac": _named("frac", _frac),
    "addmv": _named("addmv", _addmv), "baddbmm": _named("baddbmm", _baddbmm), "tensordot": _named("tensordot", _tensordot),
    "kron": _named("kron", _kron), "inner": _named("inner", _inner),
} | {name: _named(name, _matrices(0, name), contraction_name) for name in ("mm", "mv", "dot", "bmm")} | SHAPING | SUMMING  # fmt: skip

_NOT_METHODS = {
    "where",
    "stack",
    "cat",
    "concat",
    "concatenate",
    "hstack",
    "vstack",
    "column_stack",
    "einsum",
    "softplus",
    "selu",
    "tensordot",
}
_IN_PLACE: dict[str, Operation] = {
    "fill_": _named("fill", _fill), "zero_": _named("zero", _zero), "copy_": _named("copy", _copy_into),
    "masked_fill_": _named("masked_fill", _masked_fill_in_place),
}  # fmt: skip


def _assigning(operation: Operation) -> Operation:
    """Return the in-place form of an operation: x.add_(y) writes x.add(y) into x."""

    @functools.wraps(operation.function)
    def assign(input: Any, *args: Any, **kwargs: Any) -> Any:
        return _write(input, operation.function(input, *args, **kwargs))

    return Operation(assign, operation.name, operation.numbers)


PROPERTIES: dict[str, Operation] = SHAPING_PROPERTIES
"""Attributes that are parts of the tensor."""

METHODS: dict[str, Operation] = {name: operation for name, operation in FUNCTIONS.items() if name not in _NOT_METHODS}
METHODS |= {"where": _named("where", lambda input, condition, other: _where(condition, input, other))}
METHODS |= {
    f"{name}_": _assigning(METHODS[name])
    for name in (*UFUNC_NAMES, "clamp", "clip", "relu", "sigmoid", "rsqrt", "lerp", "addcmul", "addcdiv")
    if name not in ("eq", "ne", "isnan")
}
METHODS |= SHAPING_IN_PLACE | _IN_PLACE
ARRAY_OPERATIONS: dict[str, Operation] = {name: Operation(function, node_name(name)) for name, function in ARRAY_METHODS.items()}
"""The methods of NumPy's arrays, for code that is written for both."""
