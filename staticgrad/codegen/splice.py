"""A function's statements in place of a call of it, and numbers in registers in place of memory.

step(x=carry, y=next)      ->      next[0] = carry[0] * 2      ->      next = carry * 2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from staticgrad.ir.loops import (
    Assign,
    Block,
    Buffer,
    Declare,
    External,
    Function,
    Get,
    If,
    Index,
    Invoke,
    Load,
    Local,
    Loop,
    Scalar,
    Statement,
    Store,
    Variable,
    While,
    children,
    walk,
)

Places = Mapping[Buffer, tuple[Buffer, Index]]


def size_of(block: Block) -> int:
    """Return the number of statements in a block and in those inside of it."""
    return sum(1 for _ in walk(block))


def placed(block: Block, places: Places) -> Block:
    """Return the block with its buffers where `places` says; others are its own."""
    return Block([_placed(statement, places) for statement in block.statements])


def _placed(statement: Statement, places: Places) -> Statement:
    match statement:
        case Load(buffer=buffer, index=index) | Store(buffer=buffer, index=index) if buffer in places:
            to, start = places[buffer]
            return replace(statement, buffer=to, index=start + index)
        case Invoke(buffers=buffers) | External(buffers=buffers):
            found = ((*places.get(buffer, (buffer, Index())), index) for buffer, index in buffers)
            return replace(statement, buffers=tuple((to, start + index) for to, start, index in found))
        case _:
            return _inside(statement, lambda block: placed(block, places))


def each_place_once(function: Function, places: Sequence[tuple[Buffer, Index]]) -> tuple[Function, list[tuple[Buffer, Index]]]:
    """Return the function without parameters for memory that it is handed twice, and what it is handed then.

    f(x, x)      ->      g(x), of which it is known that nothing overlaps
    """
    first: dict[tuple[Buffer, Index], Buffer] = {}
    for buffer, place in zip(function.buffers, places, strict=True):
        known = first.setdefault(place, buffer)
        if buffer.size > known.size:
            first[place] = buffer
    if len(first) == len(places):
        return function, list(places)
    same = {buffer: (first[place], Index()) for buffer, place in zip(function.buffers, places, strict=True)}
    return replace(function, buffers=tuple(first.values()), body=placed(function.body, same)), list(first)


def in_registers(body: Block) -> Block:
    """Return a function's body in which small arrays of one number that is never handed over are mutable scalars.

    Each is declared where it is first stored, if that is sure to come before it is read. What is never read is gone.
    """
    handed_over = {buffer for statement in walk(body) if isinstance(statement, (Invoke, External)) for buffer, _ in statement.buffers}
    single = [s.buffer for s in body.statements if isinstance(s, Local) and s.buffer.size == 1 and s.buffer not in handed_over]
    # Their numbers go on where those of the function's other variables end.
    first = 1 + max((s.variable.number for s in walk(body) if isinstance(s, Declare)), default=0)
    read = {s.buffer for s in walk(body) if isinstance(s, Load)}
    body = _without(body, {buffer for buffer in single if buffer not in read})
    single = [buffer for buffer in single if buffer in read]
    variables = {buffer: Variable(first + k, buffer.dtype, 1, buffer.name) for k, buffer in enumerate(single)}
    begins = {id(begin) for buffer in single if (begin := _beginning(body, buffer)) is not None}
    return _registered(body, variables, begins)


def _without(block: Block, unread: Set[Buffer]) -> Block:
    """Return the block without small arrays that are written only."""
    kept = (s for s in block.statements if not (isinstance(s, (Local, Store)) and s.buffer in unread))
    return Block([_inside(s, lambda inner: _without(inner, unread)) for s in kept]) if unread else block


def _inside(statement: Statement, change: Callable[[Block], Block]) -> Statement:
    """Return the statement with its blocks changed."""
    match statement:
        case Loop():
            return replace(statement, body=change(statement.body))
        case If():
            return replace(statement, then=change(statement.then), otherwise=change(statement.otherwise))
        case While():
            return replace(statement, test=change(statement.test), body=change(statement.body))
        case _:
            return statement


def _beginning(block: Block, buffer: Buffer) -> Statement | None:
    """Return the store that comes before all else that uses `buffer`, its declaration where there is no such store."""
    declaration: Statement | None = None
    while True:
        using = [s for s in block.statements if _uses(s, buffer)]
        if using and isinstance(using[0], Local):
            declaration, *using = using
        if not using:
            return None
        inner = [child for child in children(using[0]) if any(_uses(s, buffer) for s in child.statements)]
        if isinstance(using[0], Store):
            return using[0]
        if len(using) > 1 or len(inner) != 1:
            return declaration
        block = inner[0]


def _uses(statement: Statement, buffer: Buffer) -> bool:
    own = isinstance(statement, (Load, Store, Local)) and statement.buffer is buffer
    return own or any(_uses(inner, buffer) for block in children(statement) for inner in block.statements)


def _registered(block: Block, variables: Mapping[Buffer, Variable], begins: Set[int]) -> Block:
    return Block([new for statement in block.statements for new in _in_register(statement, variables, begins)])


def _in_register(statement: Statement, variables: Mapping[Buffer, Variable], begins: Set[int]) -> list[Statement]:
    match statement:
        case Local(buffer) if buffer in variables:
            zero = Scalar(-1, buffer.dtype, 1, buffer.dtype.type(0))
            return [Declare(variables[buffer], zero)] if id(statement) in begins else []
        case Load(target, buffer) if buffer in variables:
            return [Get(target, variables[buffer])]
        case Store(buffer, value=value) if buffer in variables:
            return [Declare(variables[buffer], value) if id(statement) in begins else Assign(variables[buffer], value)]
        case _:
            return [_inside(statement, lambda block: _registered(block, variables, begins))]
