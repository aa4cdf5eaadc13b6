"""Samples of every operation on tensors, each beside what it means on NumPy's arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

RNG = np.random.default_rng(11)
Domain = Callable[..., np.ndarray]
"""Makes an operand of a shape."""


@dataclass(frozen=True)
class Sample:
    """One way of calling an operation.

    Attributes
    ----------
    call
        Of the operation and the operands: `lambda f, x: f(x, dim=1)`. The operation is a function or a method without its tensor.
    reference
        The same on NumPy's arrays.
    smooth
        Whether there is a derivative to be checked.
    elementwise
        Whether the operands may have any shape.
    """

    name: str
    call: Callable[..., Any]
    reference: Callable[..., Any]
    operands: tuple[np.ndarray, ...]
    smooth: bool = True
    elementwise: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}-{sum(each.name == self.name for each in SAMPLES[: SAMPLES.index(self)])}"


SAMPLES: list[Sample] = []


def mixed(*shape: int) -> np.ndarray:
    """Return numbers of both signs, far from each other, from 0 and from whole numbers."""
    count = int(np.prod(shape))
    return np.array(RNG.permutation((np.arange(count) - count // 2) * 0.5 + 0.23).reshape(shape))


def positive(*shape: int) -> np.ndarray:
    return np.abs(mixed(*shape)) + 0.3


def fractions(*shape: int) -> np.ndarray:
    """Return numbers between -1 and 1."""
    return mixed(*shape) / (np.prod(shape) + 1)


def beyond_one(*shape: int) -> np.ndarray:
    return positive(*shape) + 1


def steps(*shape: int) -> np.ndarray:
    """Return numbers by which `mixed` numbers have no nearly whole ratio."""
    return 0.3 + 0.002 * np.arange(np.prod(shape)).reshape(shape)


def whole(*shape: int) -> np.ndarray:
    return RNG.integers(1, 9, shape)


def truths(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape).astype(bool)


def add(name: str, call: Callable[..., Any], reference: Callable[..., Any], *operands: np.ndarray, smooth: bool = True) -> None:
    SAMPLES.append(Sample(name, call, reference, operands, smooth))


def unary(names: str, reference: Callable[..., Any], domain: Domain = mixed, smooth: bool = True) -> None:
    for name in names.split():
        SAMPLES.append(Sample(name, lambda f, x: f(x), reference, (domain(2, 3),), smooth, True))


def binary(names: str, reference: Callable[..., Any], domain: Domain = mixed, second: Domain | None = None, smooth: bool = True) -> None:
    for name in names.split():
        for shape in ((2, 3), (3,), (2, 1)):
            operands = domain(2, 3), (second or domain)(*shape)
            SAMPLES.append(Sample(name, lambda f, x, y: f(x, y), reference, operands, smooth, shape == (2, 3)))


# ---- element by element

unary("abs absolute", np.abs)
unary("neg negative", np.negative)
unary("positive clone contiguous cpu", lambda x: x)
unary("square", np.square)
unary("exp", np.exp)
unary("exp2", np.exp2)
unary("expm1", np.expm1)
unary("sin", np.sin)
unary("cos", np.cos)
unary("tan", np.tan, fractions)
unary("sinh", np.sinh)
unary("cosh", np.cosh)
unary("tanh", np.tanh)
unary("asin arcsin", np.arcsin, fractions)
unary("acos arccos", np.arccos, fractions)
unary("atan arctan", np.arctan)
unary("asinh arcsinh", np.arcsinh)
unary("acosh arccosh", np.arccosh, beyond_one)
unary("atanh arctanh", np.arctanh, fractions)
unary("sqrt", np.sqrt, positive)
unary("rsqrt", lambda x: 1 / np.sqrt(x), positive)
unary("reciprocal", lambda x: 1 / x)
unary("log", np.log, positive)
unary("log2", np.log2, positive)
unary("log10", np.log10, positive)
unary("log1p", np.log1p, fractions)
unary("deg2rad", np.deg2rad)
unary("rad2deg", np.rad2deg)
unary("relu", lambda x: np.where(x > 0, x, 0 * x))
unary("sigmoid", lambda x: 1 / (1 + np.exp(-x)))
unary("softplus", lambda x: np.log1p(np.exp(x)))
unary("sign sgn", np.sign)
unary("floor", np.floor)
unary("ceil", np.ceil)
unary("trunc fix", np.trunc)
unary("isnan", np.isnan, smooth=False)
unary("isinf", np.isinf, smooth=False)
unary("isfinite", np.isfinite, smooth=False)
unary("signbit", np.signbit, smooth=False)
unary("logical_not", np.logical_not, smooth=False)
unary("bitwise_not", np.invert, whole, smooth=False)

binary("add", np.add)
binary("sub subtract", np.subtract)
binary("mul multiply", np.multiply)
binary("div divide true_divide", np.divide, positive)
binary("floor_divide", np.floor_divide, mixed, steps)
binary("remainder", np.remainder, mixed, steps)
binary("fmod", np.fmod, mixed, steps)
binary("pow", np.power, positive)
binary("logaddexp", np.logaddexp)
binary("logaddexp2", np.logaddexp2)
binary("atan2 arctan2", np.arctan2)
binary("maximum", np.maximum, mixed, fractions)
binary("minimum", np.minimum, mixed, fractions)
binary("fmax", np.fmax, mixed, fractions)
binary("fmin", np.fmin, mixed, fractions)
binary("hypot", np.hypot)
binary("copysign", np.copysign)
binary("nextafter", np.nextafter, smooth=False)
binary("eq", np.equal, whole, smooth=False)
binary("ne not_equal", np.not_equal, whole, smooth=False)
binary("lt less", np.less, smooth=False)
binary("le less_equal", np.less_equal, smooth=False)
binary("gt greater", np.greater, smooth=False)
binary("ge greater_equal", np.greater_equal, smooth=False)
binary("logical_and", np.logical_and, truths, smooth=False)
binary("logical_or", np.logical_or, truths, smooth=False)
binary("logical_xor", np.logical_xor, truths, smooth=False)
binary("bitwise_and", np.bitwise_and, whole, smooth=False)
binary("bitwise_or", np.bitwise_or, whole, smooth=False)
binary("bitwise_xor", np.bitwise_xor, whole, smooth=False)
binary("gcd", np.gcd, whole, smooth=False)
binary("lcm", np.lcm, whole, smooth=False)

add("add", lambda f, x, y: f(x, y, alpha=3), lambda x, y: x + 3 * y, mixed(2, 3), mixed(3))
add("sub", lambda f, x, y: f(x, y, alpha=0.5), lambda x, y: x - y.dtype.type(0.5) * y, mixed(2, 3), mixed(3))
add("div", lambda f, x, y: f(x, y, rounding_mode="floor"), np.floor_divide, mixed(2, 3), steps(2, 3))
add("div", lambda f, x, y: f(x, y, rounding_mode="trunc"), lambda x, y: np.trunc(x / y), mixed(2, 3), steps(2, 3))
add(
    "div", lambda f, x, y: f(x, y, rounding_mode="trunc"), lambda x, y: np.trunc(x / y).astype(int), -whole(2, 3), whole(2, 3), smooth=False
)
add("pow", lambda f, x: f(x, 3), lambda x: x**3, mixed(2, 3))
add("pow", lambda f, x: f(x, -2), lambda x: 1 / x**2, mixed(2, 3))
add("pow", lambda f, x: f(x, 0.5), np.sqrt, positive(2, 3))
for _name in ("clamp", "clip"):
    add(_name, lambda f, x: f(x, -0.6, 0.4), lambda x: np.clip(x, -0.6, 0.4), mixed(2, 3))
    add(_name, lambda f, x: f(x, min=0.1), lambda x: np.maximum(x, x.dtype.type(0.1)), mixed(2, 3))
    add(_name, lambda f, x: f(x, max=0.1), lambda x: np.minimum(x, x.dtype.type(0.1)), mixed(2, 3))
    add(_name, lambda f, x, low, high: f(x, low, high), np.clip, mixed(2, 3), fractions(3) - 1, fractions(2, 1) + 1)
add("lerp", lambda f, x, y, w: f(x, y, w), lambda x, y, w: x + w * (y - x), mixed(2, 3), mixed(2, 3), mixed(3))
add("lerp", lambda f, x, y: f(x, y, 0.25), lambda x, y: x + x.dtype.type(0.25) * (y - x), mixed(2, 3), mixed(2, 3))
add("addcmul", lambda f, x, y, z: f(x, y, z, value=2), lambda x, y, z: x + 2 * y * z, mixed(2, 3), mixed(2, 3), mixed(3))
add("addcdiv", lambda f, x, y, z: f(x, y, z, value=2), lambda x, y, z: x + 2 * (y / z), mixed(2, 3), mixed(2, 3), positive(3))
add("masked_fill", lambda f, x, m: f(x, m, 7.0), lambda x, m: np.where(m, x.dtype.type(7), x), mixed(2, 3), truths(2, 3))
add("masked_fill", lambda f, x, m, v: f(x, m, v), lambda x, m, v: np.where(m, v, x), mixed(2, 3), truths(3), mixed())

# ---- products

for _name, _shapes in {"mm": ((2, 3), (3, 4)), "mv": ((2, 3), (3,)), "dot": ((3,), (3,)), "bmm": ((2, 2, 3), (2, 3, 2))}.items():
    add(_name, lambda f, x, y: f(x, y), np.matmul, *(mixed(*shape) for shape in _shapes))
for _shapes in (((2, 3), (3, 4)), ((2, 3), (3,)), ((3,), (3, 2)), ((3,), (3,)), ((2, 2, 3), (3, 2)), ((2, 1, 2, 3), (2, 3, 1))):
    add("matmul", lambda f, x, y: f(x, y), np.matmul, *(mixed(*shape) for shape in _shapes))
add("addmm", lambda f, x, y, z: f(x, y, z), lambda x, y, z: x + y @ z, mixed(4), mixed(2, 3), mixed(3, 4))
add("addmm", lambda f, x, y, z: f(x, y, z, beta=2, alpha=3), lambda x, y, z: 2 * x + 3 * (y @ z), mixed(4), mixed(2, 3), mixed(3, 4))
add("outer", lambda f, x, y: f(x, y), np.outer, mixed(2), mixed(3))

# ---- shapes and parts

for _name in ("reshape", "view"):
    add(_name, lambda f, x: f(x, 3, 2), lambda x: x.reshape(3, 2), mixed(2, 3))
    add(_name, lambda f, x: f(x, (-1,)), np.ravel, mixed(2, 3))
add("view_as", lambda f, x, y: f(x, y), lambda x, y: x.reshape(y.shape), mixed(2, 3), whole(3, 2))
for _name in ("transpose", "swapaxes", "swapdims"):
    add(_name, lambda f, x: f(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), mixed(2, 3, 2))
add("permute", lambda f, x: f(x, 2, 0, 1), lambda x: x.transpose(2, 0, 1), mixed(2, 3, 2))
add("permute", lambda f, x: f(x, (-1, 0, 1)), lambda x: x.transpose(-1, 0, 1), mixed(2, 3, 2))
add("t", lambda f, x: f(x), np.transpose, mixed(2, 3))
add("t", lambda f, x: f(x), np.transpose, mixed(3))
add("squeeze", lambda f, x: f(x), np.squeeze, mixed(1, 3, 1))
add("squeeze", lambda f, x: f(x, 0), lambda x: x[0], mixed(1, 3, 1))
add("squeeze", lambda f, x: f(x, (0, 1)), lambda x: x[0], mixed(1, 3, 1))
add("squeeze", lambda f, x: f(x, dim=-2), lambda x: x, mixed(1, 3, 1))
add("unsqueeze", lambda f, x: f(x, 1), lambda x: x[:, None], mixed(2, 3))
add("unsqueeze", lambda f, x: f(x, dim=-1), lambda x: x[..., None], mixed(2, 3))
add("flatten", lambda f, x: f(x), np.ravel, mixed(2, 3, 2))
add("flatten", lambda f, x: f(x, start_dim=1), lambda x: x.reshape(2, 6), mixed(2, 3, 2))
add("flatten", lambda f, x: f(x, 0, 1), lambda x: x.reshape(6, 2), mixed(2, 3, 2))
add("unflatten", lambda f, x: f(x, 1, (3, 2)), lambda x: x.reshape(2, 3, 2), mixed(2, 6))
add("expand", lambda f, x: f(x, 2, 3), lambda x: np.broadcast_to(x, (2, 3)), mixed(2, 1))
add("expand", lambda f, x: f(x, (4, -1, 3)), lambda x: np.broadcast_to(x, (4, 2, 3)), mixed(2, 1))
add("expand_as", lambda f, x, y: f(x, y), lambda x, y: np.broadcast_to(x, y.shape), mixed(3), whole(2, 3))
add("broadcast_to", lambda f, x: f(x, (2, 3)), lambda x: np.broadcast_to(x, (2, 3)), mixed(3))
for _name in ("repeat", "tile"):
    add(_name, lambda f, x: f(x, 2, 3), lambda x: np.tile(x, (2, 3)), mixed(2, 2))
    add(_name, lambda f, x: f(x, (2, 1, 2)), lambda x: np.tile(x, (2, 1, 2)), mixed(2, 2))
add("repeat_interleave", lambda f, x: f(x, 2), lambda x: np.repeat(x, 2), mixed(2, 3))
add("repeat_interleave", lambda f, x: f(x, 3, dim=1), lambda x: np.repeat(x, 3, axis=1), mixed(2, 3))
add("stack", lambda f, x, y: f([x, y]), lambda x, y: np.stack([x, y]), mixed(2, 3), mixed(2, 3))
add("stack", lambda f, x, y: f((x, y, x), dim=-1), lambda x, y: np.stack([x, y, x], -1), mixed(2, 3), mixed(2, 3))
for _name in ("cat", "concat", "concatenate"):
    add(_name, lambda f, x, y: f([x, y]), lambda x, y: np.concatenate([x, y]), mixed(2, 3), mixed(1, 3))
    add(_name, lambda f, x, y: f((x, y), dim=1), lambda x, y: np.concatenate([x, y], 1), mixed(2, 3), mixed(2, 1))
    add(_name, lambda f, x, y: f((x, y), axis=-1), lambda x, y: np.concatenate([x, y], 1), mixed(2, 3), mixed(2, 1))
add("hstack", lambda f, x, y: f((x, y)), lambda x, y: np.hstack([x, y]), mixed(2, 3), mixed(2, 1))
add("vstack", lambda f, x, y: f((x, y)), lambda x, y: np.vstack([x, y]), mixed(2, 3), mixed(3))
add("split", lambda f, x: f(x, 2), lambda x: (x[:2], x[2:4], x[4:]), mixed(5, 2))
add("split", lambda f, x: f(x, [1, 3], dim=1), lambda x: (x[:, :1], x[:, 1:]), mixed(2, 4))
add("chunk", lambda f, x: f(x, 2), lambda x: (x[:3], x[3:]), mixed(5, 2))
add("chunk", lambda f, x: f(x, 3, dim=-1), lambda x: (x[:, :2], x[:, 2:4], x[:, 4:]), mixed(2, 5))
add("unbind", lambda f, x: f(x), lambda x: tuple(x), mixed(2, 3))
add("unbind", lambda f, x: f(x, dim=1), lambda x: tuple(x.T), mixed(2, 3))
add("select", lambda f, x: f(x, 1, 2), lambda x: x[:, 2], mixed(2, 3))
add("select", lambda f, x: f(x, dim=0, index=-1), lambda x: x[-1], mixed(2, 3))
add("narrow", lambda f, x: f(x, 1, 1, 2), lambda x: x[:, 1:3], mixed(2, 4))
add("index_select", lambda f, x, k: f(x, 1, k), lambda x, k: x[:, k], mixed(2, 4), np.array([3, 0, 3]))
add("gather", lambda f, x, k: f(x, 1, k), lambda x, k: np.take_along_axis(x, k, 1), mixed(2, 4), np.array([[3, 0, 3], [1, 1, 2]]))
add("gather", lambda f, x, k: f(x, 0, k), lambda x, k: np.take_along_axis(x[:, :1], k, 0), mixed(2, 4), np.array([[1], [0], [1]]))
add("take_along_dim", lambda f, x, k: f(x, k, 1), lambda x, k: np.take_along_axis(x, k, 1), mixed(2, 4), np.array([[3, 0], [1, 1]]))
add("flip", lambda f, x: f(x, 0), np.flipud, mixed(2, 3))
add("flip", lambda f, x: f(x, (0, 1)), np.flip, mixed(2, 3))
add("roll", lambda f, x: f(x, 2), lambda x: np.roll(x, 2), mixed(2, 3))
add("roll", lambda f, x: f(x, (1, -1), (0, 1)), lambda x: np.roll(x, (1, -1), (0, 1)), mixed(2, 3))
add("tril", lambda f, x: f(x), np.tril, mixed(3, 3))
add("tril", lambda f, x: f(x, diagonal=1), lambda x: np.tril(x, 1), mixed(3, 3))
add("triu", lambda f, x: f(x), np.triu, mixed(3, 3))
add("triu", lambda f, x: f(x, -1), lambda x: np.triu(x, -1), mixed(3, 3))
add("diag", lambda f, x: f(x), np.diag, mixed(3))
add("diag", lambda f, x: f(x, 1), lambda x: np.diag(x, 1), mixed(3, 3))
add("diagonal", lambda f, x: f(x), np.diagonal, mixed(3, 4))
add("diagonal", lambda f, x: f(x, offset=-1, dim1=1, dim2=2), lambda x: np.diagonal(x, -1, 1, 2), mixed(2, 3, 3))
for _name in ("movedim", "moveaxis"):
    add(_name, lambda f, x: f(x, 0, 2), lambda x: np.moveaxis(x, 0, 2), mixed(2, 3, 2))
    add(_name, lambda f, x: f(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0)), mixed(2, 3, 2))


def _changed(x: np.ndarray, place: Any, new: Any, add: bool = False) -> np.ndarray:
    result = x.copy()
    if add:
        np.add.at(result, place, new)
    else:
        result[place] = new
    return result


_rows = np.array([2, 0])
add("index_add", lambda f, x, k, y: f(x, 0, k, y), lambda x, k, y: _changed(x, k, y, True), mixed(3, 2), np.array([2, 2]), mixed(2, 2))
add(
    "index_add",
    lambda f, x, k, y: f(x, 1, k, y, alpha=2),
    lambda x, k, y: _changed(x.T, k, 2 * y.T, True).T,
    mixed(2, 3),
    _rows,
    mixed(2, 2),
)
add("index_copy", lambda f, x, k, y: f(x, 0, k, y), lambda x, k, y: _changed(x, k, y), mixed(3, 2), _rows, mixed(2, 2))
add("index_fill", lambda f, x, k: f(x, 0, k, 5.0), lambda x, k: _changed(x, k, 5), mixed(3, 2), _rows)

# ---- dtypes

add("to", lambda f, x: f(x, np.float64), lambda x: x.astype(np.float64), mixed(2, 3))
add("to", lambda f, x: f(x, "cpu"), lambda x: x, mixed(2, 3))
add("to", lambda f, x, y: f(x, y), lambda x, y: x.astype(y.dtype), whole(2, 3), mixed(2))
add("to", lambda f, x: f(x, dtype=np.int32, copy=True), lambda x: x.astype(np.int32), mixed(2, 3), smooth=False)
add("type", lambda f, x: f(x, np.float64), lambda x: x.astype(np.float64), mixed(2, 3))
add("type_as", lambda f, x, y: f(x, y), lambda x, y: x.astype(y.dtype), whole(2, 3), mixed(2))
for _name, _dtype in {"float": "f4", "int": "i4", "long": "i8", "short": "i2", "char": "i1", "bool": "?"}.items():
    add(_name, lambda f, x: f(x), lambda x, dtype=_dtype: x.astype(dtype), mixed(2, 3), smooth=False)
add("byte", lambda f, x: f(x), lambda x: x.astype(np.uint8), whole(2, 3), smooth=False)
add("double", lambda f, x: f(x), lambda x: x.astype(np.float64), mixed(2, 3))

# ---- reductions

for _name, _reference in {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.max, "amin": np.min, "nansum": np.nansum, "nanmean": np.nanmean,
}.items():  # fmt: skip
    add(_name, lambda f, x: f(x), lambda x, g=_reference: g(x), mixed(2, 3))
    add(_name, lambda f, x: f(x, 1), lambda x, g=_reference: g(x, axis=1), mixed(2, 3))
    add(_name, lambda f, x: f(x, dim=(0, -1)), lambda x, g=_reference: g(x, axis=(0, -1)), mixed(2, 3, 2))
    add(_name, lambda f, x: f(x, -1, keepdim=True), lambda x, g=_reference: g(x, axis=-1, keepdims=True), mixed(2, 3))
    add(_name, lambda f, x: f(x, axis=0, keepdims=True), lambda x, g=_reference: g(x, axis=0, keepdims=True), mixed(2, 3))
    add(_name, lambda f, x: f(x, dtype=np.float64), lambda x, g=_reference: g(x.astype(np.float64)), mixed(2, 3))
for _name, _reference in {"var": np.var, "std": np.std}.items():
    add(_name, lambda f, x: f(x), lambda x, g=_reference: g(x, ddof=1), mixed(2, 3))
    add(_name, lambda f, x: f(x, False), lambda x, g=_reference: g(x), mixed(2, 3))
    add(_name, lambda f, x: f(x, unbiased=False), lambda x, g=_reference: g(x), mixed(2, 3))
    add(_name, lambda f, x: f(x, dim=1, correction=0), lambda x, g=_reference: g(x, axis=1), mixed(2, 3))
    add(_name, lambda f, x: f(x, 0, keepdim=True), lambda x, g=_reference: g(x, axis=0, ddof=1, keepdims=True), mixed(3, 2))
for _name, _value, _place, _pairwise in (("max", np.max, np.argmax, np.maximum), ("min", np.min, np.argmin, np.minimum)):
    add(_name, lambda f, x: f(x), lambda x, g=_value: g(x), mixed(2, 3))
    add(_name, lambda f, x: f(x, 1), lambda x, g=_value, h=_place: (g(x, 1), h(x, 1)), mixed(2, 3))
    add(
        _name, lambda f, x: f(x, dim=0, keepdim=True),
        lambda x, g=_value, h=_place: (g(x, 0, keepdims=True), h(x, 0, keepdims=True)), mixed(2, 3),
    )  # fmt: skip
    add(_name, lambda f, x, y: f(x, y), lambda x, y, g=_pairwise: g(x, y), mixed(2, 3), fractions(3))
    add(_name, lambda f, x: f(x, axis=(0, 1)), lambda x, g=_value: g(x), mixed(2, 3))
for _name, _reference in {"argmax": np.argmax, "argmin": np.argmin, "any": np.any, "all": np.all}.items():
    add(_name, lambda f, x: f(x), lambda x, g=_reference: g(x), mixed(2, 3), smooth=False)
    add(_name, lambda f, x: f(x, dim=0), lambda x, g=_reference: g(x, axis=0), whole(2, 3) % 3, smooth=False)
    add(_name, lambda f, x: f(x, -1, keepdim=True), lambda x, g=_reference: g(x, axis=-1, keepdims=True), mixed(2, 3), smooth=False)
add("count_nonzero", lambda f, x: f(x), np.count_nonzero, whole(2, 3) % 3, smooth=False)
add("count_nonzero", lambda f, x: f(x, dim=1), lambda x: np.count_nonzero(x, axis=1), whole(2, 3) % 3, smooth=False)
add("cumsum", lambda f, x: f(x, 1), lambda x: np.cumsum(x, 1), mixed(2, 3))
add("cumsum", lambda f, x: f(x, dim=0), lambda x: np.cumsum(x, 0), mixed(2, 3))


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - np.max(x, axis, keepdims=True))
    return e / np.sum(e, axis, keepdims=True)


for _axis in (0, -1):
    add("softmax", lambda f, x, k=_axis: f(x, k), lambda x, k=_axis: _softmax(x, k), mixed(2, 3))
    add("log_softmax", lambda f, x, k=_axis: f(x, dim=k), lambda x, k=_axis: np.log(_softmax(x, k)), mixed(2, 3))
    add("logsumexp", lambda f, x, k=_axis: f(x, k), lambda x, k=_axis: np.log(np.sum(np.exp(x), k)), mixed(2, 3))
add("logsumexp", lambda f, x: f(x, (0, 1), keepdim=True), lambda x: np.log(np.sum(np.exp(x), keepdims=True)), mixed(2, 3))
add("norm", lambda f, x: f(x), lambda x: np.sqrt(np.sum(x * x)), mixed(2, 3))
add("norm", lambda f, x: f(x, 1, dim=1), lambda x: np.sum(np.abs(x), 1), mixed(2, 3))
add("norm", lambda f, x: f(x, p=2, dim=0, keepdim=True), lambda x: np.sqrt(np.sum(x * x, 0, keepdims=True)), mixed(2, 3))
add("sort", lambda f, x: f(x), lambda x: (np.sort(x), np.argsort(x)), mixed(2, 3))
add("sort", lambda f, x: f(x, dim=0, descending=True), lambda x: (-np.sort(-x, 0), np.argsort(-x, 0)), mixed(3, 2))
add("argsort", lambda f, x: f(x, 1), lambda x: np.argsort(x, 1), mixed(2, 3), smooth=False)
add("argsort", lambda f, x: f(x, descending=True), lambda x: np.argsort(-x, 1, stable=True), whole(2, 5) % 3, smooth=False)

# ---- special functions, products and parts

for _name, _domain in {"erf": mixed, "erfc": mixed, "lgamma": positive, "digamma": positive, "erfinv": fractions, "sinc": positive}.items():
    _reference = {"erf": scipy.special.erf, "erfc": scipy.special.erfc, "lgamma": scipy.special.gammaln, "digamma": scipy.special.digamma}
    _reference |= {"erfinv": scipy.special.erfinv, "sinc": np.sinc}
    add(_name, lambda f, x: f(x), _reference[_name], _domain(2, 3))
add("logit", lambda f, x: f(x), scipy.special.logit, np.abs(fractions(2, 3)))
add("round", lambda f, x: f(x), np.round, mixed(2, 3), smooth=False)
add("round", lambda f, x: f(x, decimals=1), lambda x: np.round(x, 1), mixed(2, 3), smooth=False)
add("frac", lambda f, x: f(x), lambda x: x - np.trunc(x), mixed(2, 3))
add("heaviside", lambda f, x, y: f(x, y), np.heaviside, mixed(2, 3), mixed(3), smooth=False)
add("float_power", lambda f, x: f(x, 2.5), lambda x: np.float_power(x, 2.5), positive(2, 3))
add("isclose", lambda f, x, y: f(x, y), np.isclose, mixed(2, 3), mixed(2, 3), smooth=False)
add("isclose", lambda f, x, y: f(x, y, rtol=0.5, atol=0.1), lambda x, y: np.isclose(x, y, 0.5, 0.1), mixed(2, 3), mixed(3), smooth=False)
add("clamp_min", lambda f, x: f(x, 0.5), lambda x: np.maximum(x, 0.5), mixed(2, 3))
add("clamp_max", lambda f, x: f(x, 0.5), lambda x: np.minimum(x, 0.5), mixed(2, 3))
add("addmv", lambda f, x, a, v: f(x, a, v, alpha=2), lambda x, a, v: x + 2 * (a @ v), mixed(2), mixed(2, 3), mixed(3))
add("baddbmm", lambda f, x, a, b: f(x, a, b, beta=2), lambda x, a, b: 2 * x + a @ b, mixed(2, 2, 2), mixed(2, 2, 3), mixed(2, 3, 2))
add("kron", lambda f, x, y: f(x, y), np.kron, mixed(2, 3), mixed(2, 2))
add("inner", lambda f, x, y: f(x, y), np.inner, mixed(2, 3), mixed(4, 3))
add("ravel", lambda f, x: f(x), np.ravel, mixed(2, 3))
add("trace", lambda f, x: f(x), np.trace, mixed(3, 3))
add("diff", lambda f, x: f(x), np.diff, mixed(2, 4))
add("diff", lambda f, x: f(x, n=2, dim=0), lambda x: np.diff(x, 2, axis=0), mixed(4, 2))
add("rot90", lambda f, x: f(x), np.rot90, mixed(2, 3))
add("rot90", lambda f, x: f(x, 2, (1, 2)), lambda x: np.rot90(x, 2, (1, 2)), mixed(2, 3, 2))
add("topk", lambda f, x: f(x, 2), lambda x: (-np.sort(-x)[:, :2], np.argsort(-x)[:, :2]), mixed(2, 4))
add("topk", lambda f, x: f(x, 1, dim=0, largest=False), lambda x: (np.min(x, 0)[None], np.argmin(x, 0)[None]), mixed(3, 2))
add("median", lambda f, x: f(x), lambda x: np.sort(x, None)[2], mixed(2, 3))
add("median", lambda f, x: f(x, 1), lambda x: (np.sort(x)[:, 1], np.argsort(x)[:, 1]), mixed(2, 4))
add("median", lambda f, x: f(x, dim=0, keepdim=True), lambda x: (np.sort(x, 0)[1:2], np.argsort(x, 0)[1:2]), mixed(3, 2))

# ---- functions that are no methods, or have the tensor elsewhere

FUNCTIONS_ALONE: list[Sample] = [
    Sample("where", lambda f, c, x, y: f(c, x, y), np.where, (truths(2, 3), mixed(2, 3), mixed(3))),
    Sample("where", lambda f, c, x: f(c, x, 2.0), lambda c, x: np.where(c, x, x.dtype.type(2)), (truths(2, 3), mixed(2, 3))),
    Sample("einsum", lambda f, x, y: f("ij,jk->ki", x, y), lambda x, y: (x @ y).T, (mixed(2, 3), mixed(3, 2))),
    Sample("column_stack", lambda f, x, y: f((x, y)), lambda x, y: np.column_stack((x, y)), (mixed(2), mixed(2, 3))),
    Sample("tensordot", lambda f, x, y: f(x, y, dims=1), lambda x, y: np.tensordot(x, y, 1), (mixed(2, 3), mixed(3, 2))),
    Sample("tensordot", lambda f, x, y: f(x, y, ([0], [1])), lambda x, y: np.tensordot(x, y, ([0], [1])), (mixed(2, 3), mixed(3, 2))),
    Sample("selu", lambda f, x: f(x), lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)), (mixed(2, 3),)),
    Sample("einsum", lambda f, x, y: f("i,i->", [x, y]), np.dot, (mixed(3), mixed(3))),
]
METHODS_ALONE: list[Sample] = [
    Sample("where", lambda f, x, c, y: f(x, c, y), lambda x, c, y: np.where(c, x, y), (mixed(2, 3), truths(2, 3), mixed(3))),
    Sample("fill_", lambda f, x: f(x, 3.0), lambda x: np.full_like(x, 3), (mixed(2, 3),)),
    Sample("fill_", lambda f, x, v: f(x, v), np.full_like, (mixed(2, 3), mixed())),
    Sample("zero_", lambda f, x: f(x), np.zeros_like, (mixed(2, 3),)),
    Sample("copy_", lambda f, x, y: f(x, y), lambda x, y: np.broadcast_to(y, (2, 3)), (mixed(2, 3), mixed(3))),
]
SAMPLES += [*FUNCTIONS_ALONE, *METHODS_ALONE]
