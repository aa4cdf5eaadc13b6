"""Nodes of the array graph: frozen, hash-consed, each aware of the user's line.

An edge is a `Value`: a node and the number of one of its outputs. Two applications of an equal op to the same values *are* the
same node, so common subexpressions never exist twice, and identity is equality.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, Aval, Shape, check_dtype
from staticgrad.ir.op import REGISTRY, Op
from staticgrad.ir.source import SourceLine, user_line

_serials = itertools.count()


class Node:
    """An op applied to values. Made by `apply` only."""

    __slots__ = ("__weakref__", "inputs", "is_fixed", "line", "op", "outputs", "serial")

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    line: SourceLine | None
    serial: int
    is_fixed: bool
    """Whether it depends on no graph's input; such nodes are shared by all graphs and belong to no line."""

    def __init__(self, op: Op, inputs: tuple[Value, ...], avals: tuple[Aval, ...], line: SourceLine | None) -> None:
        set_ = object.__setattr__
        set_(self, "op", op)
        set_(self, "inputs", inputs)
        set_(self, "is_fixed", not isinstance(op, Input) and all(value.node.is_fixed for value in inputs))
        set_(self, "line", None if self.is_fixed else line)
        set_(self, "serial", next(_serials))
        set_(self, "outputs", tuple(Value(self, index, aval) for index, aval in enumerate(avals)))

    def __setattr__(self, name: str, value: object) -> None:
        raise VerificationError("nodes are frozen")

    def __repr__(self) -> str:
        return f"<{self.op.signature()} -> {', '.join(str(v.aval) for v in self.outputs)}>"


class Value:
    """One output of a node. Arithmetic on values builds nodes; Python scalars take the value's dtype and shape."""

    __slots__ = ("__weakref__", "aval", "index", "node")

    def __init__(self, node: Node, index: int, aval: Aval) -> None:
        self.node = node
        self.index = index
        self.aval = aval

    @property
    def shape(self) -> Shape:
        """The shape of the value."""
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the value."""
        return self.aval.dtype

    @property
    def op(self) -> Op:
        """The op that makes the value."""
        return self.node.op

    def __repr__(self) -> str:
        return f"<Value {self.node.op.name}.{self.index} {self.aval}>"

    def _binary(self, name: str, other: Value | float, swap: bool = False) -> Value:
        lifted = other if isinstance(other, Value) else full(self.shape, other, self.dtype)
        pair = (lifted, self) if swap else (self, lifted)
        return apply(REGISTRY[name](), *pair)

    def __add__(self, other: Value | float) -> Value:
        return self._binary("add", other)

    def __radd__(self, other: float) -> Value:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("subtract", other)

    def __rsub__(self, other: float) -> Value:
        return self._binary("subtract", other, swap=True)

    def __mul__(self, other: Value | float) -> Value:
        return self._binary("multiply", other)

    def __rmul__(self, other: float) -> Value:
        return self._binary("multiply", other, swap=True)

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary("divide", other)

    def __rtruediv__(self, other: float) -> Value:
        return self._binary("divide", other, swap=True)

    def __neg__(self) -> Value:
        return apply(REGISTRY["negative"](), self)


# ---- making nodes ------------------------------------------------------------------------------------------------------

_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def apply_all(op: Op, *inputs: Value, line: SourceLine | None = None) -> tuple[Value, ...]:
    """Return the outputs of `op` applied to `inputs`: the existing node if there is one, otherwise a new one."""
    key = (op, *((v.node.serial, v.index) for v in inputs))  # not the values: a key must not keep its node's operands alive
    node = _interned.get(key)
    if node is None:
        avals = op.infer(*(v.aval for v in inputs))  # outside of the lock: a shape rule may build nodes
        made = Node(op, inputs, avals if isinstance(avals, tuple) else (avals,), line or _ambient() or user_line())
        with _lock:
            node = _interned.setdefault(key, made)
    return node.outputs


def apply(op: Op, *inputs: Value, line: SourceLine | None = None) -> Value:
    """Return the single output of `op` applied to `inputs`."""
    return apply_all(op, *inputs, line=line)[0]


class _Ambient(threading.local):
    line: SourceLine | None = None


_ambient_line = _Ambient()


def _ambient() -> SourceLine | None:
    return _ambient_line.line


class at_line:
    """Context manager: nodes made inside belong to the user's `line`, such as those of a derivative to the line it is of."""

    def __init__(self, line: SourceLine | None) -> None:
        self._line = line

    def __enter__(self) -> None:
        self._before = _ambient_line.line
        _ambient_line.line = self._line

    def __exit__(self, *_: object) -> None:
        _ambient_line.line = self._before


# ---- the leaves --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bits:
    """An array as a dictionary key: dtype, shape and bits, so 0.0 is not -0.0 and NaN equals itself."""

    data: bytes = field(repr=False)
    shape: Shape
    dtype: np.dtype

    @classmethod
    def of(cls, array: np.ndarray) -> Bits:
        """Return the bits of `array`."""
        return cls(array.tobytes(), array.shape, array.dtype)

    def array(self) -> np.ndarray:
        """Return a read-only array of these bits."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)

    def __repr__(self) -> str:
        import hashlib

        if not self.shape:
            return f"{self.array()[()]!r}:{self.data.hex()}"
        return f"{self.dtype.name}{list(self.shape)}:{hashlib.sha256(self.data).hexdigest()}"


@dataclass(frozen=True)
class Constant(Op):
    """A value known at tracing."""

    bits: Bits
    weak: bool = False
    name = "constant"
    kind = "leaf"

    def infer(self, *avals: Aval) -> Aval:
        return Aval(self.bits.shape, self.bits.dtype, self.weak)

    def numpy(self, *arrays: np.ndarray) -> np.ndarray:
        return self.bits.array()

    def jvp(self, tangents: Sequence[Value | None], y: Value, *operands: Value) -> None:
        return None

    def vjp(self, g: Value, y: Value, *operands: Value) -> tuple[()]:
        return ()


@dataclass(frozen=True, eq=False)
class Input(Op):
    """A parameter of a graph: every instance is another one. `owner` is the trace that made it, for telling leaks."""

    aval: Aval
    label: str = ""
    owner: object = None
    name = "input"
    kind = "leaf"

    def infer(self, *avals: Aval) -> Aval:
        return self.aval


def constant(array: Any, dtype: np.dtype | None = None, weak: bool = False) -> Value:
    """Return a constant node holding a copy of `array`."""
    copied = np.array(array, dtype=dtype, order="C")
    native = copied.astype(check_dtype(copied.dtype, "a constant"), copy=False)
    return apply(Constant(Bits.of(native), weak))


def full(shape: Shape, value: complex, dtype: np.dtype) -> Value:
    """Return `value` as a scalar constant of `dtype`, broadcast to `shape`."""
    scalar = constant(np.asarray(value).astype(dtype))
    spread: Any = REGISTRY["broadcast"]
    return apply(spread(tuple(shape), tuple(range(len(shape)))), scalar) if shape else scalar


def zeros_like(x: Value) -> Value:
    """Return zeros of the shape and dtype of `x`."""
    return full(x.shape, False if x.dtype == BOOL else 0, x.dtype)


def new_input(aval: Aval, label: str = "", owner: object = None) -> Value:
    """Return a fresh graph parameter."""
    return apply(Input(aval, label, owner))


def constant_array(x: Value) -> np.ndarray | None:
    """Return the array of a constant, None for any other value."""
    return x.op.bits.array() if isinstance(x.op, Constant) else None
