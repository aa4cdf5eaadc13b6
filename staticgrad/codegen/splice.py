"""A function's statements in place of a call of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from staticgrad.ir.loops import Block, Buffer, External, If, Index, Invoke, Load, Loop, Statement, Store, While, walk

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
        case Loop():
            return replace(statement, body=placed(statement.body, places))
        case If():
            return replace(statement, then=placed(statement.then, places), otherwise=placed(statement.otherwise, places))
        case While():
            return replace(statement, test=placed(statement.test, places), body=placed(statement.body, places))
        case _:
            return statement
