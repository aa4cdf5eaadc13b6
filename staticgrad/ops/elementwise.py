"""Operations on one element at a time: each is one statement in a file named after its kind, with its derivatives beside it.

All operands have the same shape (broadcasts and casts are nodes of their own). A derivative is a function of `g, y, *x`: it serves
as the cotangent rule and, with a tangent for `g`, as the tangent rule, because the Jacobian is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from staticgrad.errors import DTypeError, ShapeError
from staticgrad.ir.aval import BOOL, Aval, is_float
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.links import EACH, Links, except_where
from staticgrad.ir.node import Value, apply
from staticgrad.ir.op import Op, Read, op

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
    logic: ClassVar[str | None] = None
    """The notation for operands that are truth values."""
    fails_on: ClassVar[str] = ""
    """The dtype kinds of operands whose elements may be an error."""

    def may_fail(self, *avals: Aval) -> bool:
        return any(aval.dtype.kind in self.fails_on for aval in avals)

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

    def formula(self, *avals: Aval) -> str | None:
        return self.logic if self.operand_avals(avals)[0].dtype == BOOL else self.notation

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

    def links(self, y: Aval, avals: Sequence[Aval], known: Sequence[np.ndarray | None]) -> Sequence[Links | None]:
        flat = self.flat(known) or (None,) * len(avals)
        rules = self.derivatives or (EACH,) * len(avals)
        return [None if rule is None else EACH if gone is None else except_where(gone) for rule, gone in zip(rules, flat, strict=True)]

    def flat(self, known: Sequence[np.ndarray | None]) -> Sequence[np.ndarray | None] | None:
        """Return where the derivative by each operand is 0 because of what is known of the others; None for nowhere, or not known."""
        return None

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
    notation: str | None = None,
    logic: str | None = None,
    fails_on: str = "",
    flat: Callable[..., Sequence[np.ndarray | None]] | None = None,
) -> Callable[..., Value]:
    """Define an elementwise op and return the function that applies it."""

    def numpy(self: Elementwise, *arrays: np.ndarray) -> np.ndarray:
        return np.asarray(meaning(*arrays))

    def scalar(self: Elementwise, b: Builder, *x: Scalar) -> Scalar:
        return emit(b, *x)

    members: dict[str, Any] = {
        "__doc__": f"Elementwise {name}.", "__module__": __name__, "name": name, "numpy": numpy, "scalar": scalar, "kinds": kinds,
        "arity": arity, "cost": cost, "linear": linear, "derivatives": derivatives or None, "notation": notation, "logic": logic,
        "fails_on": fails_on,
    }  # fmt: skip
    if result is not None:
        members["result"] = lambda self, dtype: result
    if flat is not None:
        members["flat"] = lambda self, known: flat(*known)
    cls = op(type(name, (Elementwise,), members))
    instance = cls()
    return lambda *x: apply(instance, *x)
