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

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from staticgrad.codegen.overlap import disjoint_functions
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

VECTOR_BYTES = 64
SHORTEST = 4
"""Loops of fewer iterations are written out one by one."""

STRAIGHT = 2
"""So many vectors are written out; more of them become a loop."""

LONG_BODY = 40
"""A body of more statements is not repeated."""

MOST_STRIDED = 16
"""The most lanes of a vector that is put together from elements here and there."""


def widened(unit: Unit) -> Unit:
    """Return the unit with vectors in place of the inner loops whose iterations are independent."""
    disjoint = disjoint_functions(unit)
    made: dict[Function, Function] = {}
    for function in unit.functions:  # callees come before their callers
        widener = _Widener(function in disjoint, made)
        body = widener.block(function.body)
        body.statements[:0] = [Local(buffer) for buffer in widener.scratch.values()]
        made[function] = replace(function, body=body)

    def stage(calls: tuple[Invoke, ...]) -> tuple[Invoke, ...]:
        return tuple(replace(call, function=made[call.function]) for call in calls)

    backward = None if unit.backward is None else stage(unit.backward)
    return replace(unit, forward=stage(unit.forward), backward=backward, functions=tuple(made.values()))


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
                pattern = _analysed(statement, self.disjoint)
                if pattern is not None:
                    return list(self._vectors(pattern))
                return [replace(statement, body=self.block(statement.body))]
            case loops.If():
                return [replace(statement, then=self.block(statement.then), otherwise=self.block(statement.otherwise))]
            case loops.While():
                return [replace(statement, test=self.block(statement.test), body=self.block(statement.body))]
            case Invoke(function=function):
                return [replace(statement, function=self.functions[function])]
            case _:
                return [statement]

    def _vectors(self, pattern: _Pattern) -> Iterator[Statement]:
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

    def _clamped(self, pattern: _Pattern, counter: Scalar, last: int) -> list[Statement]:
        """Return the body of a loop over vectors, of which the last begins no later than at `last`."""
        place = Scalar(-1, INT64)
        first = Let(place, "min", (counter, Scalar(-1, INT64, 1, np.int64(last))))
        return [first, *self._copy(pattern, Index.of(place), pattern.width)]

    def _narrower(self, pattern: _Pattern, at: int) -> Iterator[Statement]:
        """Yield the elements from `at` on in ever narrower vectors."""
        lanes = pattern.width // 2
        while at < pattern.trip:
            if pattern.trip - at >= lanes:
                yield from self._copy(pattern, Index(pattern.start + at), lanes)
                at += lanes
            lanes //= 2

    def _copy(self, pattern: _Pattern, base: Index, lanes: int) -> list[Statement]:
        return _Copy(pattern, base, lanes, self.scratch).statements


def _counter(loop: Loop) -> Scalar:
    return Scalar(loop.counter.number, INT64, 1, None, loop.counter.hint)


# ---- which loops


@dataclass
class _Pattern:
    """A loop that may become vectors of `width` elements."""

    loop: Loop
    start: int
    trip: int
    varying: set[Scalar] = field(default_factory=set)  # what differs between iterations
    places: dict[Scalar, Index] = field(default_factory=dict)  # positions that are sums of counters
    variables: set[Variable] = field(default_factory=set)  # each iteration has its own
    width: int = 1
    size: int = 0
    reads_back: bool = False

    def index(self, index: Index) -> Index:
        """Return an index with positions replaced by what they stand for."""
        total = Index(index.constant)
        for scalar, coefficient in index.terms:
            total = total + self.places.get(scalar, Index.of(scalar)) * coefficient
        return total

    def step(self, index: Index) -> int:
        """Return how far an index moves from one iteration to the next."""
        return dict(index.terms).get(self.loop.counter, 0)

    def gathers(self, index: Index) -> bool:
        """Return whether an index moves in a way that is not known."""
        return any(scalar in self.varying and scalar is not self.loop.counter for scalar, _ in index.terms)


class _Refused(Exception):
    """A loop has to stay as it is."""


def _analysed(loop: Loop, disjoint: bool) -> _Pattern | None:
    """Return what a loop becomes; None if it has to stay."""
    if loop.step != 1 or loop.start.terms or loop.stop.terms or loop.stop.constant <= loop.start.constant:
        return None
    analysis = _Analysis(loop)
    try:
        analysis.block(loop.body, masked=False)
    except _Refused:
        return None
    pattern, strided = analysis.pattern, analysis.strided
    if strided and analysis.work < 4 * strided and pattern.trip >= SHORTEST:
        return None
    if loop.lanes < pattern.trip and not _independent(pattern, analysis.stores, analysis.loads, disjoint):
        return None
    pattern.reads_back = any(load.buffer in analysis.stored for load in analysis.loads)
    pattern.size = sum(1 for _ in loops.walk(loop.body))
    if pattern.trip >= SHORTEST:
        most = min(VECTOR_BYTES // analysis.widest, MOST_STRIDED) if strided else VECTOR_BYTES // analysis.widest
        pattern.width = min(most, 1 << (pattern.trip.bit_length() - 1))
    return pattern


class _Analysis:
    """Walks through the body of a loop and notes what varies; raises where vectors cannot do the same."""

    def __init__(self, loop: Loop) -> None:
        start = loop.start.constant
        self.pattern = _Pattern(loop, start, loop.stop.constant - start)
        self.pattern.varying.add(loop.counter)
        self.stored = {statement.buffer for statement in loops.walk(loop.body) if isinstance(statement, Store)}
        self.stores: list[Store] = []
        self.loads: list[Load] = []
        self.widest, self.strided, self.work = 1, 0, 0

    def block(self, block: Block, masked: bool) -> None:
        """Note the statements of a block; where it is `masked`, some iterations pass it over."""
        for statement in block.statements:
            self._statement(statement, masked)

    def _statement(self, statement: Statement, masked: bool) -> None:
        varying = self.pattern.varying
        match statement:
            case Let():
                self._let(statement)
            case loops.Position(target, index):
                index = self.pattern.index(index)
                if self.pattern.gathers(index):
                    raise _Refused
                self.pattern.places[target] = index
                if self.pattern.step(index):
                    varying.add(target)
            case Load() if not masked:
                self._load(statement)
            case Store() if not masked:
                self._store(statement)
            case loops.Declare(variable, value) if variable.lanes == value.lanes == 1:
                self.pattern.variables.add(variable)
                self._note_width(value)
            case loops.Assign(variable) if variable in self.pattern.variables:
                pass
            case loops.Get(target, variable) if target.lanes == 1:
                if variable in self.pattern.variables:
                    varying.add(target)
            case loops.If(condition, then, otherwise) if condition in varying:
                self.block(then, masked=True)
                self.block(otherwise, masked=True)
            case loops.Comment():
                pass
            case _:
                raise _Refused

    def _note_width(self, *scalars: Scalar) -> None:
        self.widest = max([self.widest, *(scalar.dtype.itemsize for scalar in scalars if scalar.dtype != BOOL)])

    def _let(self, let: Let) -> None:
        if let.opcode in ("splat", "extract") or any(scalar.lanes > 1 for scalar in (let.target, *let.operands)):
            raise _Refused
        if any(operand in self.pattern.varying for operand in let.operands):
            if _is_slow(let):
                raise _Refused
            self.pattern.varying.add(let.target)
            self._note_width(let.target, *let.operands)
            self.work += 1

    def _load(self, load: Load) -> None:
        index = self.pattern.index(load.index)
        gathers, step = self.pattern.gathers(index), self.pattern.step(index)
        if load.target.lanes > 1 or ((gathers or not step) and load.buffer in self.stored):
            raise _Refused
        self.loads.append(load)
        if gathers or step:
            self.pattern.varying.add(load.target)
            self.widest = max(self.widest, load.buffer.dtype.itemsize)
            self.strided += gathers or step != 1

    def _store(self, store: Store) -> None:
        index = self.pattern.index(store.index)
        if store.mask is not None or store.value.lanes > 1 or self.pattern.gathers(index) or not self.pattern.step(index):
            raise _Refused
        self.stores.append(store)
        self.widest = max(self.widest, store.buffer.dtype.itemsize)
        self.strided += self.pattern.step(index) != 1


def _is_slow(let: Let) -> bool:
    """Return whether vectors of an instruction are made of single instructions, as no processor has it for vectors."""
    return let.opcode in ("quotient", "remainder") and (let.operands[1].literal is None or let.target.dtype.itemsize == 8)


def _independent(pattern: _Pattern, stores: list[Store], loads: list[Load], disjoint: bool) -> bool:
    """Return whether no iteration touches what another one writes."""
    for store in stores:
        place = pattern.index(store.index)
        for other in (*stores, *loads):
            if other is store:
                continue
            if other.buffer is not store.buffer:
                if not disjoint and Space.LOCAL not in (other.buffer.space, store.buffer.space):
                    return False
                continue
            apart, step = pattern.index(other.index) - place, pattern.step(place)
            if apart.terms or (apart.constant and apart.constant % step == 0 and abs(apart.constant // step) < pattern.trip):
                return False
    return True


# ---- what they become


class _Copy:
    """The body of a loop for `lanes` iterations from `base` on."""

    def __init__(self, pattern: _Pattern, base: Index, lanes: int, scratch: dict[tuple[np.dtype, int], Buffer]) -> None:
        self.pattern, self.base, self.lanes = pattern, base, lanes
        self.scratch = scratch
        self.statements: list[Statement] = []
        self._scalars: dict[Scalar, Scalar] = {}
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

    def _index(self, index: Index, lane: int = 0) -> Index:
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
        self.statements.append(loops.Position(first, self._index(index)))
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
                self._load(target, buffer, index)
            case Store(buffer, index, value):
                x = self._spread(self._single(value))
                if self.pattern.step(self.pattern.index(index)) == 1:
                    self.statements.append(Store(buffer, self._index(index), x))
                else:
                    for lane in range(self.lanes):
                        self.statements.append(Store(buffer, self._index(index, lane), self._lane(x, lane)))
            case loops.Declare(variable, value):
                made = self._variables[variable] = Variable(variable.number, variable.dtype, self.lanes, variable.hint)
                self.statements.append(loops.Declare(made, self._spread(self._single(value))))
            case loops.Assign(variable, value):
                self._assign(self._variables[variable], self._spread(self._single(value)))
            case loops.Get(target, variable):
                self.statements.append(loops.Get(self._new(target), self._variables.get(variable, variable)))
            case loops.If():
                self._if(statement)
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
            taken = self._lane(mask, 0)
            for lane in range(1, self.lanes):
                taken = self._let("or", (taken, self._lane(mask, lane)), BOOL, 1)
            self.statements.append(loops.If(taken, self._inner(block, mask), Block()))

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
            at = self._index(index)
            self.statements.append(Load(self._new(target), buffer, at))
            return
        items = []
        for lane in range(self.lanes):
            at, item = self._index(index, lane), Scalar(-1, buffer.dtype)
            self.statements.append(Load(item, buffer, at))
            items.append(item)
        self._scalars[target] = self._vector_of(buffer.dtype, items)
