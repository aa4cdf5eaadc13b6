"""The builder of the loop IR: the vocabulary in which kernels and lowerings are written.

The same kernel source runs on plain floats (`OnFloats`, the test of the kernel itself) and on a `Builder` (every printer).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir.aval import BOOL, INT64, is_float
from staticgrad.ir.loops import (
    OPCODES,
    Assign,
    Block,
    Buffer,
    Comment,
    Declare,
    External,
    Fail,
    Failed,
    Function,
    Get,
    If,
    Index,
    Invoke,
    Let,
    Load,
    Local,
    Loop,
    Poll,
    Position,
    Scalar,
    Space,
    Statement,
    Store,
    Variable,
    While,
)

__all__ = ["Buffer", "Builder", "Index", "Scalar", "Variable"]

INT32 = np.dtype(np.int32)


class Builder:
    """Appends statements to the innermost open block; equal instructions in scope are emitted once."""

    def __init__(self) -> None:
        self.root = Block()
        self._blocks: list[Block] = [self.root]
        self._known: list[dict[tuple[Any, ...], Scalar]] = [{}]
        self._barriers: list[int] = [1]
        self._levels: dict[Scalar, int] = {}  # the number of open blocks around what makes it
        self._ranges: dict[Scalar, tuple[int, int]] = {}  # of counters whose loops have known ends
        self._count = 0
        self.locals: list[Buffer] = []

    # ---- plumbing

    def _emit(self, statement: Statement) -> None:
        self._blocks[-1].statements.append(statement)

    def _new(self, dtype: np.dtype, lanes: int = 1, hint: str = "") -> Scalar:
        self._count += 1
        made = Scalar(self._count, dtype, lanes, None, hint)
        self._levels[made] = len(self._blocks)
        return made

    def _lookup(self, key: tuple[Any, ...]) -> Scalar | None:
        found = (scope.get(key) for scope in reversed(self._known))
        return next((scalar for scalar in found if scalar is not None), None)

    def instruction(self, opcode: str, *operands: Scalar, dtype: np.dtype | None = None, lanes: int | None = None) -> Scalar:
        """Return the result of `opcode`, reusing an equal instruction that is in scope."""
        if OPCODES[opcode] != len(operands):
            raise VerificationError(f"{opcode} takes {OPCODES[opcode]} operands, not {len(operands)}")
        result_dtype = dtype or operands[0].dtype
        result_lanes = operands[0].lanes if lanes is None else lanes
        key = (opcode, result_dtype, result_lanes, *map(_identity, operands))
        found = self._lookup(key)
        if found is None:
            found = self._known[-1][key] = self._new(result_dtype, result_lanes)
            self._emit(Let(found, opcode, operands))
        return found

    @contextlib.contextmanager
    def _inside(self, block: Block, barrier: bool = True) -> Iterator[None]:
        self._blocks.append(block)
        self._known.append({})
        self._barriers.append(len(self._blocks) if barrier else self._barriers[-1])
        try:
            yield
        finally:
            self._blocks.pop()
            self._known.pop()
            self._barriers.pop()

    # ---- memory of what stands in scope, for lowerings

    def recall(self, key: Any) -> Scalar | None:
        """Return what `remember` noted under `key` in a block that is still open."""
        return self._lookup(("noted", key))

    def remember(self, key: Any, scalar: Scalar) -> None:
        """Note `scalar` under `key` until the innermost open block closes."""
        self._known[-1]["noted", key] = scalar

    def level(self, index: Index) -> int:
        """Return the number of open blocks within which `index` is known: 1 is the function's own block."""
        levels = [1]
        for scalar, _ in index.terms:
            levels.append(self._levels.get(scalar, len(self._blocks)))
        return max(levels)

    @contextlib.contextmanager
    def hoisted(self, level: int) -> Iterator[None]:
        """Emit before the loop that block `level` is waiting for: what does not depend on inner counters is computed once.

        Inside a branch nothing is hoisted, as it may be valid there only.
        """
        level = max(level, self._barriers[-1])
        if level >= len(self._blocks):
            yield
            return
        blocks, known, barriers = self._blocks[level:], self._known[level:], self._barriers[level:]
        del self._blocks[level:], self._known[level:], self._barriers[level:]
        waiting = self._blocks[-1].statements.pop()
        try:
            yield
        finally:
            self._blocks[-1].statements.append(waiting)
            self._blocks += blocks
            self._known += known
            self._barriers += barriers

    # ---- scalars

    def literal(self, value: Any, dtype: np.dtype, lanes: int = 1) -> Scalar:
        """Return a known scalar."""
        with np.errstate(all="ignore"):
            known: np.generic = np.asarray(value).astype(dtype).reshape(-1)[0]
        scalar = Scalar(-1, dtype, 1, known)
        return scalar if lanes == 1 else self.instruction("splat", scalar, lanes=lanes)

    def like(self, value: Any, x: Scalar) -> Scalar:
        """Return a known scalar of the dtype and lanes of `x`."""
        return self.literal(value, x.dtype, x.lanes)

    def add(self, x: Scalar, y: Scalar) -> Scalar:
        """X + y."""
        return self.instruction("add", x, y)

    def sub(self, x: Scalar, y: Scalar) -> Scalar:
        """X - y."""
        return self.instruction("sub", x, y)

    def mul(self, x: Scalar, y: Scalar) -> Scalar:
        """X * y."""
        return self.instruction("mul", x, y)

    def div(self, x: Scalar, y: Scalar) -> Scalar:
        """X / y for floats."""
        return self.instruction("div", x, y)

    def quotient(self, x: Scalar, y: Scalar) -> Scalar:
        """Integer x / y toward zero, 0 where y is 0."""
        return self.instruction("quotient", x, y)

    def remainder(self, x: Scalar, y: Scalar) -> Scalar:
        """Integer x - y * quotient(x, y), 0 where y is 0."""
        return self.instruction("remainder", x, y)

    def mulhi(self, x: Scalar, y: Scalar) -> Scalar:
        """Return the high half of the double-width integer product."""
        return self.instruction("mulhi", x, y)

    def neg(self, x: Scalar) -> Scalar:
        """-x."""
        return self.instruction("neg", x)

    def abs(self, x: Scalar) -> Scalar:
        """|x|; the least integer stays itself."""
        return self.instruction("abs", x)

    def fma(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """X * y + z, rounded once."""
        return self.instruction("fma", x, y, z)

    def min(self, x: Scalar, y: Scalar) -> Scalar:
        """Return the smaller of x and y; NaN if one of them is."""
        return self.instruction("min", x, y)

    def max(self, x: Scalar, y: Scalar) -> Scalar:
        """Return the larger of x and y; NaN if one of them is."""
        return self.instruction("max", x, y)

    def sqrt(self, x: Scalar) -> Scalar:
        """Square root, correctly rounded."""
        return self.instruction("sqrt", x)

    def floor(self, x: Scalar) -> Scalar:
        """Round toward minus infinity."""
        return self.instruction("floor", x)

    def rint(self, x: Scalar) -> Scalar:
        """Round to the nearest integer, halves to even."""
        return self.instruction("rint", x)

    def trunc(self, x: Scalar) -> Scalar:
        """Round toward zero."""
        return self.instruction("trunc", x)

    def lt(self, x: Scalar, y: Scalar) -> Scalar:
        """X < y."""
        return self.instruction("lt", x, y, dtype=BOOL)

    def le(self, x: Scalar, y: Scalar) -> Scalar:
        """X <= y."""
        return self.instruction("le", x, y, dtype=BOOL)

    def eq(self, x: Scalar, y: Scalar) -> Scalar:
        """X == y."""
        return self.instruction("eq", x, y, dtype=BOOL)

    def ne(self, x: Scalar, y: Scalar) -> Scalar:
        """X != y, true if one of them is NaN."""
        return self.instruction("ne", x, y, dtype=BOOL)

    def select(self, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
        """X where the condition holds, otherwise y; both are computed."""
        return self.instruction("select", condition, x, y, dtype=x.dtype, lanes=x.lanes)

    def cast(self, x: Scalar, dtype: np.dtype) -> Scalar:
        """X converted to `dtype` (see `OPCODES` for what is out of range)."""
        return x if x.dtype == dtype else self.instruction("cast", x, dtype=dtype)

    def bitcast(self, x: Scalar, dtype: np.dtype) -> Scalar:
        """Return the bits of x read as `dtype` of the same width."""
        return self.instruction("bitcast", x, dtype=dtype)

    def shl(self, x: Scalar, count: Scalar | int) -> Scalar:
        """X << count, 0 from the width on."""
        return self.instruction("shl", x, self._count_operand(x, count))

    def shr(self, x: Scalar, count: Scalar | int) -> Scalar:
        """X >> count with the sign carried in; from the width on 0, or -1 for negative x."""
        return self.instruction("shr", x, self._count_operand(x, count))

    def _count_operand(self, x: Scalar, count: Scalar | int) -> Scalar:
        return self.like(count, x) if isinstance(count, int) else count

    def and_(self, x: Scalar, y: Scalar) -> Scalar:
        """Bitwise (bool: logical) and."""
        return self.instruction("and", x, y)

    def or_(self, x: Scalar, y: Scalar) -> Scalar:
        """Bitwise (bool: logical) or."""
        return self.instruction("or", x, y)

    def xor(self, x: Scalar, y: Scalar) -> Scalar:
        """Bitwise (bool: logical) exclusive or."""
        return self.instruction("xor", x, y)

    def not_(self, x: Scalar) -> Scalar:
        """Bitwise (bool: logical) complement."""
        return self.instruction("not", x)

    def splat(self, x: Scalar, lanes: int) -> Scalar:
        """Return `lanes` copies of x."""
        return x if lanes == 1 else self.instruction("splat", x, lanes=lanes)

    def extract(self, x: Scalar, lane: int) -> Scalar:
        """Return one lane of x."""
        return x if x.lanes == 1 else self.instruction("extract", x, self.literal(lane, INT32), lanes=1)

    def any(self, x: Scalar) -> Scalar:
        """Return whether the flag holds in any lane."""
        return x if x.lanes == 1 else self.instruction("any", x, lanes=1)

    # ---- memory

    def load(self, buffer: Buffer, index: Index | Scalar | int, lanes: int = 1, hint: str = "") -> Scalar:
        """Return buffer[index], or `lanes` neighbours from there; `hint` is a name for the reader of the emitted source."""
        target = self._new(buffer.dtype, lanes, hint)
        self._emit(Load(target, buffer, Index.of(index)))
        return target

    def store(self, buffer: Buffer, index: Index | Scalar | int, value: Scalar, mask: Scalar | None = None) -> None:
        """Write value to buffer[index], lanes to neighbours, nothing where the mask is false."""
        if value.dtype != buffer.dtype:
            raise VerificationError(f"{value.dtype} stored into {buffer.name} of {buffer.dtype}")
        self._emit(Store(buffer, Index.of(index), value, mask))

    def local(self, dtype: np.dtype, size: int, hint: str = "local") -> Buffer:
        """Return a small array of the function."""
        buffer = Buffer(f"{hint}{len(self.locals)}", dtype, size, Space.LOCAL)
        self.locals.append(buffer)
        self.root.statements.insert(len(self.locals) - 1, Local(buffer))
        return buffer

    def position(self, index: Index | int) -> Scalar:
        """Return an index as an int64 scalar."""
        index = Index.of(index)
        if not index.terms:
            return self.literal(index.constant, INT64)
        if index.constant == 0 and len(index.terms) == 1 and index.terms[0][1] == 1:
            return index.terms[0][0]
        key = ("position", index)
        found = self._lookup(key)
        if found is None:
            found = self._known[-1][key] = self._new(INT64)
            self._emit(Position(found, index))
        return found

    def bounds(self, index: Index) -> tuple[float, float]:
        """Return bounds of the values that `index` takes in the open loops; infinite ones where nothing is known."""
        least = greatest = float(index.constant)
        for scalar, coefficient in index.terms:
            low, high = self._ranges.get(scalar, (-np.inf, np.inf))
            least += min(low * coefficient, high * coefficient)
            greatest += max(low * coefficient, high * coefficient)
        return least, greatest

    # ---- mutable scalars and control

    def number(self, count: int, hint: str) -> Scalar:
        """Return a number that the function is called with, one of 0 up to `count` (exclusive)."""
        number = self._new(INT64, hint=hint)
        self._levels[number] = 1
        self._ranges[number] = 0, count - 1
        return number

    def variable(self, value: Scalar, hint: str = "acc") -> Variable:
        """Return a new mutable scalar that starts as `value`."""
        self._count += 1
        variable = Variable(self._count, value.dtype, value.lanes, hint)
        self._emit(Declare(variable, value))
        return variable

    def get(self, variable: Variable) -> Scalar:
        """Return the present value of a variable."""
        target = self._new(variable.dtype, variable.lanes)
        self._emit(Get(target, variable))
        return target

    def set(self, variable: Variable, value: Scalar) -> None:
        """Give a variable a new value."""
        if value.dtype != variable.dtype or value.lanes != variable.lanes:
            raise VerificationError(f"{value.dtype} x {value.lanes} assigned to a variable of {variable.dtype} x {variable.lanes}")
        self._emit(Assign(variable, value))

    @contextlib.contextmanager
    def loop(
        self,
        stop: Index | Scalar | int,
        start: Index | Scalar | int = 0,
        step: int = 1,
        *,
        lanes: int = 1,
        parallel: bool = False,
        block: int = 0,
        hint: str = "i",
    ) -> Iterator[Index]:
        """Open a counted loop; yields its counter."""
        counter = self._new(INT64, hint=hint)
        body = Block()
        self._emit(Loop(counter, Index.of(start), Index.of(stop), step, body, lanes, parallel, block))
        with self._inside(body, barrier=False):
            self._levels[counter] = len(self._blocks)
            first, end = Index.of(start), Index.of(stop)
            if not first.terms and not end.terms:
                self._ranges[counter] = first.constant, max(end.constant - 1, first.constant)
            yield Index.of(counter)

    @contextlib.contextmanager
    def if_(self, condition: Scalar) -> Iterator[Block]:
        """Open a branch; yields the block of the other branch for `otherwise`."""
        then, otherwise = Block(), Block()
        self._emit(If(condition, then, otherwise))
        with self._inside(then):
            yield otherwise

    @contextlib.contextmanager
    def otherwise(self, block: Block) -> Iterator[None]:
        """Open the other branch of an `if_`."""
        with self._inside(block):
            yield

    @contextlib.contextmanager
    def while_(self) -> Iterator[_WhileParts]:
        """Open a loop on a condition: `with b.while_() as parts: with parts.test(): parts.until(cond)`, then the body."""
        parts = _WhileParts(self)
        yield parts
        if parts.condition is None:
            raise VerificationError("a while loop without a condition")
        self._emit(While(parts.test_block, parts.condition, parts.body_block))

    def splice(self, block: Block) -> None:
        """Append the statements of a block that another builder made; its small arrays are declared by the function."""
        for statement in block.statements:
            if isinstance(statement, Local):
                self.locals.append(statement.buffer)
                self.root.statements.insert(len(self.locals) - 1, statement)
            else:
                self._emit(statement)

    def invoke(
        self, function: Function, buffers: tuple[tuple[Buffer, Index], ...], numbers: tuple[Index | int, ...] = (), blocks: int = 0
    ) -> None:
        """Call an internal function, once or for every block."""
        self._emit(Invoke(function, buffers, tuple(Index.of(n) for n in numbers), blocks))

    def external(self, symbol: str, library: str, buffers: tuple[tuple[Buffer, Index], ...], numbers: tuple[Index | int, ...] = ()) -> None:
        """Call a symbol outside of the unit that any thread may call."""
        self._emit(External(symbol, library, buffers, tuple(Index.of(n) for n in numbers)))

    def fail_if(self, condition: Scalar, code: int, node: int, index: Index | int = 0) -> None:
        """Note a failure where the condition holds, and go on."""
        self._emit(Fail(condition, code, node, Index.of(index)))

    def failed(self) -> Scalar:
        """Return whether a failure is noted."""
        target = self._new(BOOL, hint="failed")
        self._emit(Failed(target))
        return target

    def poll(self, work: Index | int) -> Scalar:
        """Return whether the caller lets the unit go on, so many nanoseconds of work later; a failure is noted if not."""
        target = self._new(BOOL, hint="goes_on")
        self._emit(Poll(target, Index.of(work)))
        return target

    def comment(self, text: str) -> None:
        """Leave a remark in the emitted source."""
        self._emit(Comment(text))

    # ---- small composites that every kernel needs

    def gt(self, x: Scalar, y: Scalar) -> Scalar:
        """X > y."""
        return self.lt(y, x)

    def ge(self, x: Scalar, y: Scalar) -> Scalar:
        """X >= y."""
        return self.le(y, x)

    def is_nan(self, x: Scalar) -> Scalar:
        """Whether x is NaN (never for integers)."""
        return self.ne(x, x) if is_float(x.dtype) else self.literal(False, BOOL, x.lanes)


class _WhileParts:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self.test_block, self.body_block = Block(), Block()
        self.condition: Scalar | None = None

    @contextlib.contextmanager
    def test(self) -> Iterator[None]:
        with self._builder._inside(self.test_block):
            yield

    def until(self, condition: Scalar) -> None:
        """Go on while `condition` holds."""
        self.condition = condition

    @contextlib.contextmanager
    def body(self) -> Iterator[None]:
        with self._builder._inside(self.body_block):
            yield


def _identity(scalar: Scalar) -> Any:
    if scalar.literal is None:
        return scalar.number
    return (scalar.literal.dtype, scalar.literal.tobytes())
