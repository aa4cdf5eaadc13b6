"""Which inner loops can become vectors, and how wide ones: what differs between iterations, and whether they are independent."""

from __future__ import annotations

from dataclasses import dataclass, field

from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Block, Index, Let, Load, Loop, Scalar, Space, Statement, Store, Variable

VECTOR_BYTES = 64

SHORTEST = 4
"""Loops of fewer iterations are written out one by one."""

MOST_STRIDED = 16
"""The most lanes of a vector that is put together from elements here and there."""

LONGEST_PAIRED = 40
"""A body of more statements would need more registers for two vectors at a time than there are."""

TRIPS_PAIRED = 16
"""So many vectors make it worth while to compute two at a time."""


@dataclass
class Pattern:
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


def analysed(loop: Loop, disjoint: bool) -> Pattern | None:
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
        if not strided and pattern.trip >= TRIPS_PAIRED * most and _is_pairable(pattern):
            pattern.width = 2 * most
    return pattern


class _Analysis:
    """Walks through the body of a loop and notes what varies; raises where vectors cannot do the same."""

    def __init__(self, loop: Loop) -> None:
        start = loop.start.constant
        self.pattern = Pattern(loop, start, loop.stop.constant - start)
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
            case loops.While(test, condition, body):
                self.block(test, masked=True)
                self.block(body, masked=True)
                if condition not in varying or any(isinstance(inner, loops.Assign | loops.Declare) for inner in test.statements):
                    raise _Refused
            case loops.Comment():
                pass
            case _:
                raise _Refused

    def _note_width(self, *scalars: Scalar) -> None:
        self.widest = max([self.widest, *(scalar.dtype.itemsize for scalar in scalars if scalar.dtype != BOOL)])

    def _let(self, let: Let) -> None:
        if let.opcode in ("splat", "extract", "any") or any(scalar.lanes > 1 for scalar in (let.target, *let.operands)):
            raise _Refused
        if any(operand in self.pattern.varying for operand in let.operands):
            if _is_slow(let):
                raise _Refused
            self.pattern.varying.add(let.target)
            self._note_width(let.target, *(() if self._cuts_place(let) else let.operands))
            self.work += 1

    def _cuts_place(self, let: Let) -> bool:
        """Return whether an instruction takes the low bits of a sum of counters, which needs registers of its width for an instant."""
        (x, *_) = let.operands
        is_place = x is self.pattern.loop.counter or x in self.pattern.places
        return is_place and let.opcode == "cast" and let.target.dtype.kind in "iu"

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


def _is_pairable(pattern: Pattern) -> bool:
    """Return whether vectors of twice the width pay off: two chains of instructions, each of which waits for itself, side by side."""
    straight = all(isinstance(statement, Let | Load | Store | loops.Comment) for statement in pattern.loop.body.statements)
    return straight and pattern.size <= LONGEST_PAIRED and not pattern.reads_back


def _is_slow(let: Let) -> bool:
    """Return whether vectors of an instruction are made of single instructions, as no processor has it for vectors."""
    return let.opcode in ("quotient", "remainder") and (let.operands[1].literal is None or let.target.dtype.itemsize == 8)


def _independent(pattern: Pattern, stores: list[Store], loads: list[Load], disjoint: bool) -> bool:
    """Return whether no iteration touches what another one writes."""
    accesses: list[Store | Load] = [*stores, *loads]
    for store in stores:
        place = pattern.index(store.index)
        for other in accesses:
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
