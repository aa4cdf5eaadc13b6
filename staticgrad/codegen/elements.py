"""How the elements of values are read inside a nest: from memory where there is one, computed on the spot where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from staticgrad.codegen.schedule import is_view
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import Shape
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.loops import Buffer
from staticgrad.ir.node import Value, constant_array
from staticgrad.ops.movement import Reshape, unit_axes_source

Position = tuple[Index, ...]


def strides(shape: Shape) -> tuple[int, ...]:
    """Return the strides of a contiguous array, in elements: (2, 3) -> (3, 1)."""
    steps: list[int] = []
    step = 1
    for extent in reversed(shape):
        steps.append(step)
        step *= extent
    return tuple(reversed(steps))


def flat_index(index: Position, shape: Shape) -> Index:
    """Return the position of `index` in contiguous memory; axes of length 1 do not count."""
    total = Index()
    for i, step, extent in zip(index, strides(shape), shape, strict=True):
        if extent != 1:
            total = total + i * step
    return total


def expanded(index: Position, shape: Shape) -> Position:
    """Return an index into `shape` from one that leaves out its axes of length 1."""
    long = iter(index)
    return tuple(next(long) if extent != 1 else Index() for extent in shape)


class Reader:
    """Reads elements of values through a builder."""

    def __init__(self, b: Builder, memory: dict[Value, Value], buffer_of: Callable[[Value], Buffer], own: frozenset[Value]) -> None:
        self.b = b
        self._memory = memory
        self._buffer_of = buffer_of
        self._own = own
        self.domain_index: Position = ()

    def read(self, value: Value, index: Position) -> Scalar:
        """Return the element of `value` at `index`, emitted as far out as its index allows."""
        for pending in self._pending(value, index):
            self._read_one(pending, index)
        return self._read_one(value, index)

    def _pending(self, value: Value, index: Position) -> Sequence[Value]:
        """Return the elementwise values below `value` at the same index, operands first: long chains need no deep recursion."""
        order: list[Value] = []
        seen: set[Value] = set()
        stack: list[tuple[Value, bool]] = [(value, False)]
        while stack:
            v, expanded = stack.pop()
            if expanded:
                order.append(v)
                continue
            if v in seen or v.op.kind != "map" or self._in_memory(v, index) or self.b.recall((v, index)) is not None:
                continue
            seen.add(v)
            stack.append((v, True))
            stack.extend((operand, False) for operand in v.node.inputs if operand.shape == v.shape)
        return order

    def _in_memory(self, value: Value, index: Position) -> bool:
        return value in self._memory and not (value in self._own and index == expanded(self.domain_index, value.shape))

    def _read_one(self, value: Value, index: Position) -> Scalar:
        known = self.b.recall((value, index))
        if known is not None:
            return known
        scalar = constant_array(value)
        if scalar is not None and scalar.size == 1:
            return self.b.literal(scalar.reshape(())[()], value.dtype)
        level = max((self.b.level(i) for i in index), default=1)
        with self.b.hoisted(level):
            known = self._load(value, index) if self._in_memory(value, index) else self._compute(value, index)
            self.b.remember((value, index), known)
        return known

    def _load(self, value: Value, index: Position) -> Scalar:
        return self.b.load(self._buffer_of(self._memory[value]), flat_index(index, value.shape))

    def _compute(self, value: Value, index: Position) -> Scalar:
        op, inputs = value.op, value.node.inputs
        if isinstance(op, Reshape):
            if not is_view(value):
                raise VerificationError(f"{value!r} has no memory and is no view")
            return self._read_one(inputs[0], unit_axes_source(index, value.shape, inputs[0].shape))
        return op.element(self.b, lambda k, at: self.read(inputs[k], at), index, [v.aval for v in inputs])
