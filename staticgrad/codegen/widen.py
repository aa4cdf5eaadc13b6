"""Inner loops with independent iterations as vectors: what a compiler's loop vectoriser would do, in a fraction of its time.

    for i in 0..20:                     for i in 0..20 step 8:
      %1 = load x[i]                      %1 = min i, 12
      %2 = mul %1, 2.0           ->       %2: f64x8 = load x[%1]
      store y[i] <- %2                    %3 = mul %2, splat 2.0
                                          store y[%1] <- %3

Every element is computed by the same instructions as before, so nothing changes but the time it takes. What is left over at the end
is part of a last vector that overlaps the one before; where the loop reads what it writes, it becomes narrower vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from staticgrad.codegen.kept_rows import KeptRow, kept_row
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.widen_pattern import Pattern, analysed
from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL, INT64
from staticgrad.ir.loops import (
    Block,
    Buffer,
    Function,
    Index,
    Invoke,
    Let,
    Load,
    Local,
    Loop,
    Scalar,
    Space,
    Statement,
    Store,
    Unit,
    Variable,
)

STRAIGHT = 2
"""So many vectors are written out; more of them become a loop."""

LONG_BODY = 40
"""A body of more statements is not repeated."""


def widened(unit: Unit) -> Unit:
    """Return the unit with vectors in place of the inner loops whose iterations are independent."""
    disjoint = disjoint_functions(unit)
    made: dict[Function, Function] = {}
    for function in unit.functions:  # callees come before their callers
        widener = _Widener(function in disjoint, made)
        body = widener.block(function.body)
        body.statements[:0] = [Local(buffer) for buffer in widener.scratch.values()]
        made[function] = replace(function, body=body)
    return loops.with_functions(unit, made)


class _Widener:
    """Rewrites the blocks of one function."""

    def __init__(self, disjoint: bool, functions: dict[Function, Function]) -> None:
        self.disjoint = disjoint
        self.functions = functions
        self.scratch: dict[tuple[np.dtype, int], Buffer] = {}  # small arrays in which vectors are put together

    def block(self, block: Block) -> Block:
        """Return `block` rewritten."""
        return Block([new for statement in block.statements for new in self._rewritten(statement)])

    def _rewritten(self, statement: Statement) -> list[Statement]:
        match statement:
            case Loop():
                pattern = analysed(statement, self.disjoint)
                if pattern is not None:
                    return list(self._vectors(pattern))
                kept = kept_row(statement, self.disjoint)
                if kept is not None:
                    return list(self._with_kept_row(kept))
                return [replace(statement, body=self.block(statement.body))]
            case loops.If():
                return [replace(statement, then=self.block(statement.then), otherwise=self.block(statement.otherwise))]
            case loops.While():
                return [replace(statement, test=self.block(statement.test), body=self.block(statement.body))]
            case Invoke(function=function):
                return [replace(statement, function=self.functions[function])]
            case _:
                return [statement]

    def _vectors(self, pattern: Pattern) -> Iterator[Statement]:
        """Yield the vectors that stand for a loop; what is left over is described at the top."""
        start, trip, width, long = pattern.start, pattern.trip, pattern.width, pattern.size > LONG_BODY
        whole = trip - trip % width
        count = -(-trip // width) if not pattern.reads_back else trip // width
        end, overlaps = (trip, whole < trip) if not pattern.reads_back else (whole, False)
        if width > 1 and count > (1 if long else STRAIGHT):
            counter = _counter(pattern.loop)
            body = self._clamped(pattern, counter, start + trip - width) if overlaps else self._copy(pattern, Index.of(counter), width)
            yield Loop(counter, Index(start), Index(start + end), width, Block(body))
        else:
            for at in range(0, end, width):
                yield from self._copy(pattern, Index(start + min(at, trip - width)), width)
        if end < trip and long:
            counter = _counter(pattern.loop)
            yield Loop(counter, Index(start + end), Index(start + trip), 1, Block(self._copy(pattern, Index.of(counter), 1)))
        elif end < trip:
            yield from self._narrower(pattern, end)

    def _with_kept_row(self, kept: KeptRow) -> Iterator[Statement]:
        """Yield the loads of a row's vectors, and the loop in which they stand for the inner one."""
        outer, pattern, copies = kept.outer, kept.pattern, []
        for place in kept.places:
            known = {load.target: Scalar(-1, load.buffer.dtype, pattern.width, None, load.target.hint) for load in kept.loads}
            copy = _Copy(pattern, Index(place), pattern.width, self.scratch, known)
            yield from (Load(known[load.target], load.buffer, copy.index(load.index)) for load in kept.loads)
            copies += copy.statements
        body = [new for statement in outer.body.statements for new in (copies if statement is pattern.loop else [statement])]
        yield replace(outer, body=Block(body))

    def _clamped(self, pattern: Pattern, counter: Scalar, last: int) -> list[Statement]:
        """Return the body of a loop over vectors, of which the last begins no later than at `last`."""
        place = Scalar(-1, INT64)
        first = Let(place, "min", (counter, Scalar(-1, INT64, 1, np.int64(last))))
        return [first, *self._copy(pattern, Index.of(place), pattern.width)]

    def _narrower(self, pattern: Pattern, at: int) -> Iterator[Statement]:
        """Yield the elements from `at` on in ever narrower vectors."""
        lanes = pattern.width // 2
        while at < pattern.trip:
            if pattern.trip - at >= lanes:
                yield from self._copy(pattern, Index(pattern.start + at), lanes)
                at += lanes
            lanes //= 2

    def _copy(self, pattern: Pattern, base: Index, lanes: int) -> list[Statement]:
        return _Copy(pattern, base, lanes, self.scratch).statements


def _counter(loop: Loop) -> Scalar:
    return Scalar(loop.counter.number, INT64, 1, None, loop.counter.hint)


class _Copy:
    """The body of a loop for `lanes` iterations from `base` on."""

    def __init__(
        self,
        pattern: Pattern,
        base: Index,
        lanes: int,
        scratch: dict[tuple[np.dtype, int], Buffer],
        loaded: Mapping[Scalar, Scalar] = MappingProxyType({}),
    ) -> None:
        self.pattern, self.base, self.lanes = pattern, base, lanes
        self.scratch = scratch
        self.statements: list[Statement] = []
        self._loaded = loaded  # what the caller loads
        self._scalars = dict(loaded)
        self._splats: dict[object, Scalar] = {}
        self._variables: dict[Variable, Variable] = {}
        self._mask: Scalar | None = None  # the lanes that are not passed over
        self._block(pattern.loop.body)

    def _block(self, block: Block) -> None:
        for statement in block.statements:
            self._statement(statement)

    def _new(self, scalar: Scalar) -> Scalar:
        """Return what stands for a scalar of the body: all lanes of it if it varies."""
        lanes = self.lanes if scalar in self.pattern.varying else 1
        made = self._scalars[scalar] = Scalar(scalar.number, scalar.dtype, lanes, None, scalar.hint)
        return made

    def _let(self, opcode: str, operands: tuple[Scalar, ...], dtype: np.dtype, lanes: int) -> Scalar:
        made = Scalar(-1, dtype, lanes)
        self.statements.append(Let(made, opcode, operands))
        return made

    def index(self, index: Index, lane: int = 0) -> Index:
        """Return where the given lane finds an index of the body."""
        resolved = self.pattern.index(index)
        total = Index(resolved.constant)
        for scalar, coefficient in resolved.terms:
            term: Index | Scalar = self.base + lane if scalar is self.pattern.loop.counter else self._scalars.get(scalar, scalar)
            if isinstance(term, Scalar) and term.lanes > 1:
                term = self._lane(term, lane)
            total = total + Index.of(term) * coefficient
        return total

    def _lane(self, scalar: Scalar, lane: int) -> Scalar:
        if scalar.lanes == 1:
            return scalar
        return self._let("extract", (scalar, Scalar(-1, INT64, 1, np.int64(lane))), scalar.dtype, 1)

    def _single(self, scalar: Scalar) -> Scalar:
        """Return what stands for a scalar, computing a position that is asked for as a number."""
        if scalar.literal is not None:
            return scalar
        if scalar is self.pattern.loop.counter or scalar in self.pattern.places:
            return self._positions(scalar)
        return self._scalars.get(scalar, scalar)

    def _positions(self, scalar: Scalar) -> Scalar:
        if scalar in self._scalars:
            return self._scalars[scalar]
        index = self.pattern.places.get(scalar, Index.of(scalar))
        step = self.pattern.step(index)
        first = Scalar(-1, INT64)
        self.statements.append(loops.Position(first, self.index(index)))
        if self.lanes > 1 and step:
            steps = self._vector_of(INT64, [Scalar(-1, INT64, 1, np.int64(step * lane)) for lane in range(self.lanes)])
            first = self._let("add", (self._spread(first), steps), INT64, self.lanes)
        self._scalars[scalar] = first
        return first

    def _spread(self, scalar: Scalar) -> Scalar:
        """Return a scalar in all lanes."""
        if scalar.lanes > 1 or self.lanes == 1:
            return scalar
        key: object = scalar if scalar.literal is None else (scalar.dtype, scalar.literal.tobytes())
        if key not in self._splats:
            self._splats[key] = self._let("splat", (scalar,), scalar.dtype, self.lanes)
        return self._splats[key]

    def _vector_of(self, dtype: np.dtype, items: list[Scalar]) -> Scalar:
        """Return a vector of single scalars, put together in memory that becomes registers."""
        array = self.scratch.setdefault((dtype, self.lanes), Buffer(f"lanes_{dtype.name}x{self.lanes}", dtype, self.lanes, Space.LOCAL))
        self.statements += [Store(array, Index(lane), item) for lane, item in enumerate(items)]
        made = Scalar(-1, dtype, self.lanes)
        self.statements.append(Load(made, array, Index()))
        return made

    def _statement(self, statement: Statement) -> None:
        match statement:
            case Let(target, opcode, operands):
                found = tuple(map(self._single, operands))
                if target in self.pattern.varying:
                    found = tuple(map(self._spread, found))
                self.statements.append(Let(self._new(target), opcode, found))
            case Load(target, buffer, index):
                if target not in self._loaded:
                    self._load(target, buffer, index)
            case Store(buffer, index, value):
                x = self._spread(self._single(value))
                if self.pattern.step(self.pattern.index(index)) == 1:
                    self.statements.append(Store(buffer, self.index(index), x))
                else:
                    for lane in range(self.lanes):
                        self.statements.append(Store(buffer, self.index(index, lane), self._lane(x, lane)))
            case loops.Declare(variable, value):
                made = self._variables[variable] = Variable(variable.number, variable.dtype, self.lanes, variable.hint)
                self.statements.append(loops.Declare(made, self._spread(self._single(value))))
            case loops.Assign(variable, value):
                self._assign(self._variables[variable], self._spread(self._single(value)))
            case loops.Get(target, variable):
                self.statements.append(loops.Get(self._new(target), self._variables.get(variable, variable)))
            case loops.If():
                self._if(statement)
            case loops.While():
                self._while(statement)
            case loops.Comment():
                self.statements.append(statement)

    def _assign(self, variable: Variable, x: Scalar) -> None:
        if self._mask is not None:
            before = Scalar(-1, variable.dtype, variable.lanes)
            self.statements.append(loops.Get(before, variable))
            x = self._let("select", (self._mask, x, before), variable.dtype, variable.lanes)
        self.statements.append(loops.Assign(variable, x))

    def _if(self, statement: loops.If) -> None:
        """Emit a branch: it is taken where any lane takes it, and changes the variables of those that do."""
        condition = self._single(statement.condition)
        if self.lanes == 1:
            self.statements.append(loops.If(condition, self._inner(statement.then, None), self._inner(statement.otherwise, None)))
            return
        for block, negated in ((statement.then, False), (statement.otherwise, True)):
            if not block.statements:
                continue
            mask = self._let("not", (condition,), BOOL, self.lanes) if negated else condition
            if self._mask is not None:
                mask = self._let("and", (mask, self._mask), BOOL, self.lanes)
            taken = self._let("any", (mask,), BOOL, 1)
            self.statements.append(loops.If(taken, self._inner(block, mask), Block()))

    def _while(self, statement: loops.While) -> None:
        """Emit a loop: it goes on while any lane does, and changes the variables of those that do."""
        kept = self.statements, self._mask, dict(self._scalars), dict(self._splats)
        self.statements = []
        self._block(statement.test)
        going = mask = self._single(statement.condition)
        if self.lanes > 1:
            if self._mask is not None:
                mask = self._let("and", (mask, self._mask), BOOL, self.lanes)
            going = self._let("any", (mask,), BOOL, 1)
        test = Block(self.statements)
        self.statements, self._mask = [], mask if self.lanes > 1 else None
        self._block(statement.body)
        body = Block(self.statements)
        self.statements, self._mask, self._scalars, self._splats = kept
        self.statements.append(loops.While(test, going, body))

    def _inner(self, block: Block, mask: Scalar | None) -> Block:
        """Return a block inside this one; what it makes is known in it alone."""
        kept = self.statements, self._mask, dict(self._scalars), dict(self._splats)
        self.statements, self._mask = [], mask
        self._block(block)
        made = Block(self.statements)
        self.statements, self._mask, self._scalars, self._splats = kept
        return made

    def _load(self, target: Scalar, buffer: Buffer, index: Index) -> None:
        resolved = self.pattern.index(index)
        gathers = self.pattern.gathers(resolved)
        if self.lanes == 1 or (not gathers and self.pattern.step(resolved) in (0, 1)):
            at = self.index(index)
            self.statements.append(Load(self._new(target), buffer, at))
            return
        items = []
        for lane in range(self.lanes):
            at, item = self.index(index, lane), Scalar(-1, buffer.dtype)
            self.statements.append(Load(item, buffer, at))
            items.append(item)
        self._scalars[target] = self._vector_of(buffer.dtype, items)
