"""Operations on one element at a time: each is one statement below, with its derivatives beside it.

All operands have the same shape (broadcasts and casts are nodes of their own). A derivative is a function of `g, y, *x`: it serves
as the cotangent rule and, with a tangent for `g`, as the tangent rule, because the Jacobian is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

import staticgrad.kernels as kernels
from staticgrad.errors import DTypeError, IntegerPowerError, ShapeError
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64, Aval, is_float, is_integer
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.node import Value, apply, zeros_like
from staticgrad.ir.op import Op, Read, op, register

Derivative = Callable[..., Value]
Apply = Callable[..., Value]

ANY, NUMBER, INTEGER, FLOAT = "biuf", "iuf", "iu", "f"


class Elementwise(Op):
    """Base of the ops whose output element depends on the operands' elements at the same place alone."""

    kind = "map"
    arity: ClassVar[int] = 1
    kinds: ClassVar[str] = ANY
    """The dtype kinds it takes."""
    derivatives: ClassVar[tuple[Derivative | None, ...] | None] = None
    """One rule an operand; None where the derivative is zero."""

    def result(self, dtype: np.dtype) -> np.dtype:
        """Return the output's dtype for operands of `dtype`."""
        return dtype

    def infer(self, *avals: Aval) -> Aval:
        if len(avals) != self.arity:
            raise ShapeError(f"{self.name} takes {self.arity} operands, not {len(avals)}")
        first = self.operand_avals(avals)[0]
        for aval in self.operand_avals(avals):
            if aval.shape != avals[0].shape or aval.dtype != first.dtype:
                raise ShapeError(f"{self.name}: operands {', '.join(map(str, avals))} must agree (casts and broadcasts are nodes)")
        if first.dtype.kind not in self.kinds:
            raise DTypeError(f"{self.name} is not defined for {first.dtype}")
        dtype = self.result(first.dtype)
        return Aval(first.shape, dtype, dtype != BOOL and all(a.weak for a in avals))

    def operand_avals(self, avals: Sequence[Aval]) -> Sequence[Aval]:
        """Return the avals that must agree in dtype."""
        return avals

    def scalar(self, *args: Any, **_: Any) -> Any:
        """Emit the operation on scalars: (builder, *x)."""
        raise DTypeError(f"{self.name} has no scalar form")

    def element(self, b: Builder, read: Read, index: tuple[Index, ...], avals: Sequence[Aval]) -> Scalar:
        result: Scalar = self.scalar(b, *(read(k, index) for k in range(len(avals))))
        return result

    def jvp(self, *args: Any, **_: Any) -> Any:
        tangents, y, *x = args
        total: Value | None = None
        for tangent, rule in zip(tangents, self.derivatives or (None,) * len(x), strict=True):
            if tangent is None or rule is None:
                continue
            term = rule(tangent, y, *x)
            total = term if total is None else total + term
        return total

    def vjp(self, *args: Any, **_: Any) -> Any:
        g, y, *x = args
        rules = self.derivatives or (None,) * len(x)
        return tuple(None if rule is None or not is_float(v.dtype) else rule(g, y, *x) for rule, v in zip(rules, x, strict=True))

    def batch(self, size: int, batched: Sequence[bool], *x: Value) -> Value:
        from staticgrad.ops.movement import broadcast

        full = (v if has else broadcast(v, (size, *v.shape), (0,)) for v, has in zip(x, batched, strict=True))
        return apply(self, *full)


def elementwise(
    name: str,
    meaning: Callable[..., Any],
    emit: Callable[..., Scalar],
    *derivatives: Derivative | None,
    kinds: str = ANY,
    arity: int = 1,
    result: np.dtype | None = None,
    cost: int = 1,
    linear: bool = False,
) -> Callable[..., Value]:
    """Define an elementwise op and return the function that applies it."""

    def numpy(self: Elementwise, *arrays: np.ndarray) -> np.ndarray:
        return np.asarray(meaning(*arrays))

    def scalar(self: Elementwise, b: Builder, *x: Scalar) -> Scalar:
        return emit(b, *x)

    members: dict[str, Any] = {
        "__doc__": f"Elementwise {name}.", "__module__": __name__, "name": name, "numpy": numpy, "scalar": scalar, "kinds": kinds,
        "arity": arity, "cost": cost, "linear": linear, "derivatives": derivatives or None,
    }  # fmt: skip
    if result is not None:
        members["result"] = lambda self, dtype: result
    cls = op(type(name, (Elementwise,), members))
    instance = cls()
    return lambda *x: apply(instance, *x)


def where_zero(condition: Value, x: Value) -> Value:
    """Return x where the condition holds, 0 elsewhere."""
    return where(condition, x, zeros_like(x))


# ---- comparison and logic ----------------------------------------------------------------------------------------------------


def _comparison(name: str, meaning: Callable[..., Any], emit: Callable[..., Scalar]) -> Callable[..., Value]:
    return elementwise(name, meaning, emit, None, None, arity=2, result=BOOL)


less: Apply = _comparison("less", np.less, lambda b, x, y: b.lt(x, y))
less_equal: Apply = _comparison("less_equal", np.less_equal, lambda b, x, y: b.le(x, y))
greater: Apply = _comparison("greater", np.greater, lambda b, x, y: b.lt(y, x))
greater_equal: Apply = _comparison("greater_equal", np.greater_equal, lambda b, x, y: b.le(y, x))
equal: Apply = _comparison("equal", np.equal, lambda b, x, y: b.eq(x, y))
not_equal: Apply = _comparison("not_equal", np.not_equal, lambda b, x, y: b.ne(x, y))
logical_and: Apply = elementwise("logical_and", np.logical_and, lambda b, x, y: b.and_(x, y), None, None, arity=2, kinds="b")
logical_or: Apply = elementwise("logical_or", np.logical_or, lambda b, x, y: b.or_(x, y), None, None, arity=2, kinds="b")
logical_xor: Apply = elementwise("logical_xor", np.logical_xor, lambda b, x, y: b.xor(x, y), None, None, arity=2, kinds="b")
logical_not: Apply = elementwise("logical_not", np.logical_not, lambda b, x: b.not_(x), None, kinds="b")
bitwise_and: Apply = elementwise("bitwise_and", np.bitwise_and, lambda b, x, y: b.and_(x, y), None, None, arity=2, kinds="biu")
bitwise_or: Apply = elementwise("bitwise_or", np.bitwise_or, lambda b, x, y: b.or_(x, y), None, None, arity=2, kinds="biu")
bitwise_xor: Apply = elementwise("bitwise_xor", np.bitwise_xor, lambda b, x, y: b.xor(x, y), None, None, arity=2, kinds="biu")
invert: Apply = elementwise("invert", np.invert, lambda b, x: b.not_(x), None, kinds="biu")


def _emit_finite(b: Builder, x: Scalar) -> Scalar:
    return b.lt(b.abs(x), b.like(np.inf, x))


isnan: Apply = elementwise("isnan", np.isnan, lambda b, x: b.ne(x, x), None, kinds=FLOAT, result=BOOL)
isinf: Apply = elementwise("isinf", np.isinf, lambda b, x: b.eq(b.abs(x), b.like(np.inf, x)), None, kinds=FLOAT, result=BOOL)
isfinite: Apply = elementwise("isfinite", np.isfinite, _emit_finite, None, kinds=FLOAT, result=BOOL)

# ---- arithmetic -----------------------------------------------------------------------------------------------------------


def _logical(opcode: str, otherwise: str) -> Callable[..., Scalar]:
    """Return an emitter that uses `opcode` for bool and `otherwise` for numbers, as NumPy does."""
    return lambda b, *x: getattr(b, opcode if x[0].dtype == BOOL else otherwise)(*x)


add: Apply = elementwise("add", np.add, _logical("or_", "add"), lambda g, y, a, b: g, lambda g, y, a, b: g, arity=2, linear=True)
subtract: Apply = elementwise(
    "subtract", np.subtract, lambda b, x, y: b.sub(x, y), lambda g, y, a, b: g, lambda g, y, a, b: -g,
    arity=2, kinds=NUMBER, linear=True,
)  # fmt: skip
multiply: Apply = elementwise("multiply", np.multiply, _logical("and_", "mul"), lambda g, y, a, b: g * b, lambda g, y, a, b: a * g, arity=2)
divide: Apply = elementwise(
    "divide", np.divide, lambda b, x, y: b.div(x, y), lambda g, y, a, b: g / b, lambda g, y, a, b: -(g * y) / b,
    arity=2, kinds=FLOAT, cost=4,
)  # fmt: skip
negative: Apply = elementwise("negative", np.negative, lambda b, x: b.neg(x), lambda g, y, x: -g, kinds=NUMBER, linear=True)
absolute: Apply = elementwise("absolute", np.absolute, lambda b, x: x if x.dtype.kind in "bu" else b.abs(x), lambda g, y, x: g * sign(x))


def _emit_sign(b: Builder, x: Scalar) -> Scalar:
    one, zero = b.like(1, x), b.like(0, x)
    if x.dtype.kind == "u":
        return b.select(b.eq(x, zero), zero, one)
    signed = b.select(b.lt(zero, x), one, b.select(b.lt(x, zero), b.like(-1, x), zero))
    return b.select(b.is_nan(x), x, signed) if is_float(x.dtype) else signed


sign: Apply = elementwise("sign", np.sign, _emit_sign, None, kinds=NUMBER, cost=3)
floor: Apply = elementwise("floor", np.floor, lambda b, x: b.floor(x), None, kinds=FLOAT)
sqrt: Apply = elementwise("sqrt", np.sqrt, lambda b, x: b.sqrt(x), lambda g, y, x: g / (y + y), kinds=FLOAT, cost=6)


def _emit_extremum(opcode: str, for_bool: str) -> Callable[..., Scalar]:
    return lambda b, x, y: getattr(b, for_bool if x.dtype == BOOL else opcode)(x, y)


def _winner(better: Callable[..., Value]) -> tuple[Derivative, Derivative]:
    """Return the derivatives of an extremum: g to the winner, one half each at a tie."""

    def share(g: Value, x: Value, other: Value) -> Value:
        return where(equal(x, other), g * 0.5, where_zero(better(x, other), g))

    return (lambda g, y, a, b: share(g, a, b)), (lambda g, y, a, b: share(g, b, a))


maximum: Apply = elementwise("maximum", np.maximum, _emit_extremum("max", "or_"), *_winner(greater), arity=2, cost=2)
minimum: Apply = elementwise("minimum", np.minimum, _emit_extremum("min", "and_"), *_winner(less), arity=2, cost=2)
clip: Apply = elementwise(
    "clip",
    lambda x, low, high: np.minimum(np.maximum(x, low), high),
    lambda b, x, low, high: b.min(b.max(x, low), high),
    lambda g, y, x, low, high: where_zero(logical_and(less_equal(low, x), less_equal(x, high)), g),
    lambda g, y, x, low, high: where_zero(logical_and(less(x, low), less_equal(low, high)), g),
    lambda g, y, x, low, high: where_zero(logical_or(less(high, x), less(high, low)), g),
    arity=3, kinds=NUMBER, cost=4,
)  # fmt: skip

# ---- exponentials, logarithms, circular and hyperbolic functions -------------------------------------------------------------

exp: Apply = elementwise("exp", np.exp, kernels.exp, lambda g, y, x: g * y, kinds=FLOAT, cost=15)
expm1: Apply = elementwise("expm1", np.expm1, kernels.expm1, lambda g, y, x: g * (y + 1), kinds=FLOAT, cost=25)
log: Apply = elementwise("log", np.log, kernels.log, lambda g, y, x: g / x, kinds=FLOAT, cost=20)
log1p: Apply = elementwise("log1p", np.log1p, kernels.log1p, lambda g, y, x: g / (x + 1), kinds=FLOAT, cost=25)
sin: Apply = elementwise("sin", np.sin, kernels.sin, lambda g, y, x: g * cos(x), kinds=FLOAT, cost=25)
cos: Apply = elementwise("cos", np.cos, kernels.cos, lambda g, y, x: -(g * sin(x)), kinds=FLOAT, cost=25)
tanh: Apply = elementwise("tanh", np.tanh, kernels.tanh, lambda g, y, x: g * ((1 - y) * (1 + y)), kinds=FLOAT, cost=20)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x >= 0, np.ones_like(x), small) / (1 + small)
    return result


def _softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


sigmoid: Apply = elementwise("sigmoid", _sigmoid, kernels.sigmoid, lambda g, y, x: g * (y * (1 - y)), kinds=FLOAT, cost=20)
softplus: Apply = elementwise("softplus", _softplus, kernels.softplus, lambda g, y, x: g * sigmoid(x), kinds=FLOAT, cost=40)
relu: Apply = elementwise(
    "relu", lambda x: np.where(x < 0, np.zeros_like(x), x),
    lambda b, x: b.select(b.lt(x, b.like(0, x)), b.like(0, x), x),
    lambda g, y, x: where_zero(greater(x, zeros_like(x)), g), kinds=NUMBER, cost=2,
)  # fmt: skip

# ---- powers ------------------------------------------------------------------------------------------------------------------


def integer_power_by_multiplication(x: Any, n: int, times: Callable[[Any, Any], Any]) -> Any:
    """Return x**n for n >= 1 by repeated squaring: the one meaning of small integer powers, here and in kernels."""
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else times(result, square)
        n >>= 1
        if n:
            square = times(square, square)
    return result


@op
class IntegerPower(Elementwise):
    """x**n for a whole number n known at tracing, by repeated multiplication."""

    exponent: int
    kinds = NUMBER
    cost = 4

    def numpy(self, x: np.ndarray) -> np.ndarray:
        if self.exponent == 0:
            return np.ones_like(x)
        power = integer_power_by_multiplication(x, abs(self.exponent), np.multiply)
        return np.asarray(power if self.exponent > 0 else np.divide(np.ones_like(x), power))

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        if self.exponent == 0:
            return b.like(1, x)
        power: Scalar = integer_power_by_multiplication(x, abs(self.exponent), b.mul)
        return power if self.exponent > 0 else b.div(b.like(1, x), power)

    derivatives = ()

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        if not is_float(x.dtype) or self.exponent == 0:
            return (None,)
        return (g * (integer_power(x, self.exponent - 1) * self.exponent),)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None else self.vjp(tangents[0], y, x)[0]


def integer_power(x: Value, exponent: int) -> Value:
    """Return x**exponent; 1 gives x itself."""
    return x if exponent == 1 else apply(IntegerPower(exponent), x)


def _power_of_integers(b: Builder, x: Scalar, p: Scalar) -> Scalar:
    """Integer x**p by repeated squaring; a negative exponent is a failure, as in NumPy."""
    if p.dtype.kind == "i":
        b.fail_if(b.lt(p, b.like(0, p)), 1, 0)
    zero, one = b.like(0, p), b.like(1, p)
    result, square, left = b.variable(b.like(1, x), "result"), b.variable(x, "square"), b.variable(p, "left")
    with b.while_() as parts:
        with parts.test():
            parts.until(b.lt(zero, b.get(left)))
        with parts.body():
            odd = b.eq(b.and_(b.get(left), one), one)
            b.set(result, b.select(odd, b.mul(b.get(result), b.get(square)), b.get(result)))
            b.set(square, b.mul(b.get(square), b.get(square)))
            b.set(left, b.shr(b.get(left), 1))
    return b.get(result)


def _power(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    if is_integer(p.dtype) and np.any(p < 0):
        raise IntegerPowerError("integers to negative integer powers are not allowed; make the base or the exponent a float")
    return np.asarray(np.power(x, p))


def _power_base(g: Value, y: Value, x: Value, p: Value) -> Value:
    nothing = equal(p, zeros_like(p))
    return g * where_zero(logical_not(nothing), p * power(x, where(nothing, p + 1, p - 1)))


def _power_exponent(g: Value, y: Value, x: Value, p: Value) -> Value:
    nothing = logical_and(equal(x, zeros_like(x)), less_equal(zeros_like(p), p))
    return g * where_zero(logical_not(nothing), y * log(where(nothing, x + 1, x)))


power: Apply = elementwise(
    "power", _power, lambda b, x, p: kernels.power(b, x, p) if is_float(x.dtype) else _power_of_integers(b, x, p),
    _power_base, _power_exponent, arity=2, kinds=NUMBER, cost=60,
)  # fmt: skip

# ---- choice ----------------------------------------------------------------------------------------------------


@register
class Where(Elementwise):
    """x where the condition holds, otherwise y."""

    name = "where"
    arity = 3
    derivatives = (None, lambda g, y, c, a, b: where_zero(c, g), lambda g, y, c, a, b: where(c, zeros_like(g), g))

    def operand_avals(self, avals: Sequence[Aval]) -> Sequence[Aval]:
        return avals[1:]

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        if avals[0].dtype != BOOL:
            raise DTypeError(f"where: the condition must be bool, not {avals[0].dtype}")
        return Aval(found.shape, found.dtype, all(a.weak for a in avals[1:]))

    def numpy(self, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(condition, x, y)

    def scalar(self, b: Builder, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
        return b.select(condition, x, y)

    def __eq__(self, other: object) -> bool:
        return type(other) is Where

    def __hash__(self) -> int:
        return hash("where")

    def signature(self) -> str:
        return "where"


def where(condition: Value, x: Value, y: Value) -> Value:
    """Return x where the condition holds, otherwise y."""
    return apply(Where(), condition, x, y)


# ---- casts -------------------------------------------------------------------------------------------------------------------


@op
class Cast(Elementwise):
    """Conversion to another dtype; a float becomes an integer by truncation, narrowed modulo its width."""

    dtype: np.dtype
    linear = True

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        return Aval(x.shape, self.dtype)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        if is_float(x.dtype) and is_integer(self.dtype):
            return float_to_integer(x, self.dtype)
        return x.astype(self.dtype)

    def scalar(self, b: Builder, x: Scalar) -> Scalar:
        if self.dtype == BOOL:
            return b.ne(x, b.like(0, x)) if x.dtype != BOOL else x
        return b.cast(x, self.dtype)

    def vjp(self, g: Value, y: Value, x: Value) -> tuple[Value | None]:
        return (cast(g, x.dtype) if is_float(x.dtype) and is_float(self.dtype) else None,)

    def jvp(self, tangents: Sequence[Value | None], y: Value, x: Value) -> Value | None:
        return None if tangents[0] is None or not is_float(self.dtype) else cast(tangents[0], self.dtype)


def float_to_integer(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `x` truncated to integers of `dtype`, defined for every float.

    As x86 does it: through int32 for the dtypes up to its width and through int64 for the wider ones, where anything out of range
    (or NaN) becomes the least value; then the low bits are kept.
    """
    wide = INT64 if dtype.itemsize == 8 or dtype == np.uint32 else np.dtype(np.int32)
    limit = x.dtype.type(2.0 ** (8 * wide.itemsize - 1))
    truncated = np.trunc(x)
    inside = (truncated >= -limit) & (truncated < limit)
    result = np.where(inside, truncated, 0).astype(wide)
    result = np.where(inside, result, np.iinfo(wide).min)
    if dtype == np.uint64:
        above = (truncated >= limit) & (truncated < 2 * limit)
        shifted = np.where(above, truncated - limit, 0).astype(np.int64) ^ np.iinfo(np.int64).min
        result = np.where(above, shifted, result)
    return np.asarray(result).astype(dtype)


def cast(x: Value, dtype: np.dtype) -> Value:
    """Return x converted to `dtype`; x itself if it has it (and is not weak)."""
    if x.dtype == dtype and not x.aval.weak:
        return x
    return apply(Cast(dtype), x)


FLOAT_DTYPES = (FLOAT32, FLOAT64)
