"""The builder's vocabulary on NumPy scalars and arrays: a kernel runs at once, on one point or on millions.

`OnFloats` has the scalar vocabulary of `Builder` with the same total semantics (see `loops.OPCODES`), so what it computes is what
every printed kernel has to compute, bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, FLOAT32, FLOAT64, INT64, is_float

INT32 = np.dtype(np.int32)
UINT64 = np.dtype(np.uint64)

_quiet = np.errstate(all="ignore")


@dataclass(eq=False)
class _Cell:
    """A mutable scalar."""

    value: Any
    dtype: np.dtype
    lanes: int = 1


class OnFloats:
    """The scalar vocabulary of `Builder`, computed at once and elementwise.

    Examples
    --------
    >>> b, x = OnFloats(), np.float32([1.0, 4.0])
    >>> b.sqrt(b.add(x, b.like(0, x)))
    array([1., 2.], dtype=float32)
    """

    def __init__(self) -> None:
        self._masks: list[Any] = []

    # ---- scalars

    def literal(self, value: Any, dtype: np.dtype, lanes: int = 1) -> Any:
        """Return a scalar of `dtype`; it broadcasts, so `lanes` does not matter."""
        with np.errstate(all="ignore"):
            return np.asarray(value).astype(dtype)[()]

    def like(self, value: Any, x: Any) -> Any:
        """Return a scalar of the dtype of `x`."""
        return self.literal(value, x.dtype)

    @_quiet
    def add(self, x: Any, y: Any) -> Any:
        """X + y."""
        return np.add(*_alike(x, y))

    @_quiet
    def sub(self, x: Any, y: Any) -> Any:
        """X - y."""
        return np.subtract(*_alike(x, y))

    @_quiet
    def mul(self, x: Any, y: Any) -> Any:
        """X * y."""
        return np.multiply(*_alike(x, y))

    @_quiet
    def div(self, x: Any, y: Any) -> Any:
        """X / y for floats."""
        return np.divide(*_floats(x, y))

    @_quiet
    def quotient(self, x: Any, y: Any) -> Any:
        """Integer x / y toward zero, 0 where y is 0."""
        x, y = _alike(x, y)
        below = np.floor_divide(x, y)
        inexact = (np.fmod(x, y) != 0) & ((x < 0) != (y < 0))
        return np.add(below, inexact.astype(x.dtype))

    @_quiet
    def remainder(self, x: Any, y: Any) -> Any:
        """Integer x - y * quotient(x, y), 0 where y is 0."""
        return np.fmod(*_alike(x, y))

    @_quiet
    def mulhi(self, x: Any, y: Any) -> Any:
        """Return the high half of the double-width integer product."""
        x, y = _alike(x, y)
        dtype = x.dtype
        if dtype.itemsize < 8:
            wide = INT64 if dtype.kind == "i" else UINT64
            return ((x.astype(wide) * y.astype(wide)) >> wide.type(8 * dtype.itemsize)).astype(dtype)
        half, low_bits = dtype.type(32), dtype.type(0xFFFFFFFF)
        xh, xl, yh, yl = x >> half, x & low_bits, y >> half, y & low_bits
        low = (xl.astype(UINT64) * yl.astype(UINT64) >> np.uint64(32)).astype(dtype)
        first = xh * yl + low
        second = xl * yh + (first & low_bits)
        return xh * yh + (first >> half) + (second >> half)

    @_quiet
    def neg(self, x: Any) -> Any:
        """-x."""
        return np.negative(x)

    @_quiet
    def abs(self, x: Any) -> Any:
        """|x|; the least integer stays itself."""
        return np.absolute(x)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """X * y + z, rounded once."""
        return exact_fma(*_floats(x, y, z))

    @_quiet
    def min(self, x: Any, y: Any) -> Any:
        """Return the smaller of x and y; NaN if one of them is."""
        return np.minimum(*_alike(x, y))

    @_quiet
    def max(self, x: Any, y: Any) -> Any:
        """Return the larger of x and y; NaN if one of them is."""
        return np.maximum(*_alike(x, y))

    @_quiet
    def sqrt(self, x: Any) -> Any:
        """Square root, correctly rounded."""
        return np.sqrt(*_floats(x))

    @_quiet
    def floor(self, x: Any) -> Any:
        """Round toward minus infinity."""
        return np.floor(*_floats(x))

    @_quiet
    def rint(self, x: Any) -> Any:
        """Round to the nearest integer, halves to even."""
        return np.rint(*_floats(x))

    @_quiet
    def trunc(self, x: Any) -> Any:
        """Round toward zero."""
        return np.trunc(*_floats(x))

    # ---- conditions

    @_quiet
    def lt(self, x: Any, y: Any) -> Any:
        """X < y."""
        return np.less(*_alike(x, y))

    @_quiet
    def le(self, x: Any, y: Any) -> Any:
        """X <= y."""
        return np.less_equal(*_alike(x, y))

    @_quiet
    def eq(self, x: Any, y: Any) -> Any:
        """X == y."""
        return np.equal(*_alike(x, y))

    @_quiet
    def ne(self, x: Any, y: Any) -> Any:
        """X != y, true if one of them is NaN."""
        return np.not_equal(*_alike(x, y))

    def gt(self, x: Any, y: Any) -> Any:
        """X > y."""
        return self.lt(y, x)

    def ge(self, x: Any, y: Any) -> Any:
        """X >= y."""
        return self.le(y, x)

    def is_nan(self, x: Any) -> Any:
        """Whether x is NaN (never for integers)."""
        return self.ne(x, x) if is_float(x.dtype) else self.literal(False, BOOL)

    def select(self, condition: Any, x: Any, y: Any) -> Any:
        """X where the condition holds, otherwise y; both are computed."""
        if condition.dtype != BOOL:
            raise VerificationError(f"select on a condition of {condition.dtype}")
        return np.where(condition, *_alike(x, y))[()]

    # ---- bits

    @_quiet
    def cast(self, x: Any, dtype: np.dtype) -> Any:
        """X converted to `dtype` (see `OPCODES` for what is out of range)."""
        if x.dtype.kind != "f" or dtype.kind not in "iu":
            return x.astype(dtype)
        wide = INT32 if dtype.itemsize < 4 or dtype == INT32 else INT64
        bound = 2.0 ** (8 * wide.itemsize - 1)
        whole = np.trunc(x).astype(FLOAT64)
        inside = (whole >= -bound) & (whole < bound)
        result = np.where(inside, np.where(inside, whole, 0).astype(wide), np.iinfo(wide).min).astype(dtype)
        if dtype == UINT64:
            upper = (whole >= bound) & (whole < 2 * bound)
            result = np.where(upper, np.where(upper, whole, 0).astype(UINT64), result)
        return result[()]

    def bitcast(self, x: Any, dtype: np.dtype) -> Any:
        """Return the bits of x read as `dtype` of the same width."""
        if x.dtype.itemsize != dtype.itemsize:
            raise VerificationError(f"bitcast of {x.dtype} to {dtype}")
        return x.view(dtype)

    def shl(self, x: Any, count: Any) -> Any:
        """X << count, 0 from the width on."""
        return np.left_shift(*_alike(x, self.like(count, x) if isinstance(count, int) else count))

    def shr(self, x: Any, count: Any) -> Any:
        """X >> count with the sign carried in; from the width on 0, or -1 for negative x."""
        return np.right_shift(*_alike(x, self.like(count, x) if isinstance(count, int) else count))

    def and_(self, x: Any, y: Any) -> Any:
        """Bitwise (bool: logical) and."""
        return np.bitwise_and(*_alike(x, y))

    def or_(self, x: Any, y: Any) -> Any:
        """Bitwise (bool: logical) or."""
        return np.bitwise_or(*_alike(x, y))

    def xor(self, x: Any, y: Any) -> Any:
        """Bitwise (bool: logical) exclusive or."""
        return np.bitwise_xor(*_alike(x, y))

    def not_(self, x: Any) -> Any:
        """Bitwise (bool: logical) complement."""
        return np.invert(x)

    # ---- lanes: every element is a lane of its own

    def splat(self, x: Any, lanes: int) -> Any:
        """Return x."""
        return x

    def extract(self, x: Any, lane: int) -> Any:
        """Return x."""
        return x

    def any(self, x: Any) -> Any:
        """Return x."""
        return x

    # ---- mutable scalars and branches: on arrays both branches run and assign where their condition holds

    def variable(self, value: Any, hint: str = "acc") -> Any:
        """Return a new mutable scalar that starts as `value`."""
        return _Cell(value, value.dtype)

    def get(self, variable: Any) -> Any:
        """Return the present value of a variable."""
        return variable.value

    def set(self, variable: Any, value: Any) -> None:
        """Give a variable a new value."""
        if value.dtype != variable.dtype:
            raise VerificationError(f"{value.dtype} assigned to a variable of {variable.dtype}")
        for mask in self._masks:
            value = self.select(mask, value, variable.value)
        variable.value = value

    @contextlib.contextmanager
    def if_(self, condition: Any) -> Iterator[Any]:
        """Open a branch; yields what `otherwise` takes."""
        self._masks.append(condition)
        try:
            yield condition
        finally:
            self._masks.pop()

    @contextlib.contextmanager
    def otherwise(self, block: Any) -> Iterator[None]:
        """Open the other branch of an `if_`."""
        with self.if_(self.not_(block)):
            yield

    def comment(self, text: str) -> None:
        """Do nothing: there is no emitted source."""


def _alike(*operands: Any) -> tuple[Any, ...]:
    first = operands[0].dtype
    if any(operand.dtype != first for operand in operands):
        raise VerificationError(f"operands of different dtypes: {', '.join(str(operand.dtype) for operand in operands)}")
    return operands


def _floats(*operands: Any) -> tuple[Any, ...]:
    if not is_float(operands[0].dtype):
        raise VerificationError(f"an instruction for floats on {operands[0].dtype}")
    return _alike(*operands)


# ---- x * y + z with one rounding ---------------------------------------------------------------------------------------


def exact_fma(x: Any, y: Any, z: Any) -> Any:
    """Return x * y + z rounded once, for float32 or float64 scalars and arrays that broadcast.

    References
    ----------
    S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
    IEEE Transactions on Computers 57 (2008).

    Examples
    --------
    >>> x = np.float64(1 + 2**-30)
    >>> float(exact_fma(x, x, -x * x)) == 2.0**-60
    True
    """
    x, y, z = np.broadcast_arrays(x, y, z)
    with np.errstate(all="ignore"):
        if x.dtype == FLOAT32:
            product = x.astype(FLOAT64) * y.astype(FLOAT64)  # exact: 48 bits
            return _odd_sum(product, z.astype(FLOAT64)).astype(FLOAT32)[()]
        if x.dtype != FLOAT64:
            raise VerificationError(f"fma of {x.dtype}")
        result = _fma64(np.ravel(x), np.ravel(y), np.ravel(z))
    return result.reshape(x.shape)[()]


def _fma64(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    product = x * y
    size = np.abs(product)
    moderate = (size > 2.0**-960) & (size < 2.0**1020) & (np.abs(z) < 2.0**1020)
    moderate &= (np.abs(x) < 2.0**990) & (np.abs(y) < 2.0**990)
    result = _fma64_moderate(x, y, z)
    if moderate.all():
        return result
    other = np.flatnonzero(~moderate)
    x, y, z, product = x[other], y[other], z[other], product[other]
    exact_product = (x == 0) | (y == 0) | ~np.isfinite(x) | ~np.isfinite(y)
    easy = np.where(exact_product, product + z, np.where(z == 0, product, z))  # the last one where z is not finite
    hard = np.flatnonzero(~exact_product & (z != 0) & np.isfinite(z))
    easy[hard] = _fma64_scaled(x[hard], y[hard], z[hard])
    result[other] = easy
    return result


def _fma64_moderate(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Neither the product nor its rounding error may leave the range of normal numbers."""
    high, low = _two_product(x, y)
    low_sum, low_error = _two_sum(z, low)
    top, top_error = _two_sum(high, low_sum)
    result: np.ndarray = top + _odd_sum(top_error, low_error)
    return result


def _fma64_scaled(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """All operands are finite and not 0: bring the product near 1, and z as near as its influence on the rounding allows."""
    (x_part, x_exponent), (y_part, y_exponent), (z_part, z_exponent) = np.frexp(x), np.frexp(y), np.frexp(z)
    shift = z_exponent - x_exponent - y_exponent
    near = np.clip(shift, -200, 200)
    scale = np.where(shift > 200, z_exponent - 200, x_exponent + y_exponent)
    unscaled = _fma64_moderate(x_part, y_part, np.ldexp(z_part, near))
    result: np.ndarray = np.ldexp(unscaled, scale)
    subnormal = (np.abs(result) < 2.0**-1021) & (unscaled != 0)  # rounded a second time
    for i in np.flatnonzero(subnormal):
        result[i] = float(Fraction(float(x[i])) * Fraction(float(y[i])) + Fraction(float(z[i])))
    return result


def _two_sum(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x + y as the rounded sum and its error (Knuth)."""
    total: np.ndarray = x + y
    y_part = total - x
    return total, (x - (total - y_part)) + (y - y_part)


def _two_product(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x * y as the rounded product and its error (Veltkamp, Dekker)."""
    (x_high, x_low), (y_high, y_low) = _halves(x), _halves(y)
    product = x * y
    return product, ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def _halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = x * 134217729.0  # 2**27 + 1
    high = spread - (spread - x)
    return high, x - high


def _odd_sum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x + y rounded to odd: an inexact sum ends in a 1 bit, so that a second, coarser rounding is right."""
    total, error = _two_sum(x, y)
    bits = np.atleast_1d(total).view(INT64)
    even = (error != 0) & np.isfinite(error) & (bits.reshape(total.shape) & 1 == 0)
    step = np.where(even, np.where((error > 0) == (total > 0), 1, -1), 0)
    return (bits.reshape(total.shape) + step).view(FLOAT64)
