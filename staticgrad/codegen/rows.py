"""From an operation on rows to the loop IR: the op's own work on each row, out of the operand and into the result, with room to work in."""

from __future__ import annotations

import contextlib

from staticgrad.codegen.elements import Position, Reader, expanded, flat_index
from staticgrad.codegen.memory import Scratch
from staticgrad.codegen.nest import Parameters
from staticgrad.codegen.schedule import Item, Nest, Schedule
from staticgrad.ir.builder import Builder, Index, Scalar
from staticgrad.ir.loops import Buffer, Function
from staticgrad.ir.node import Value
from staticgrad.ops.along import Along, Room


def lower_rows(nest: Nest, schedule: Schedule, buffers: dict[Value, Buffer], scratch: Scratch) -> tuple[Function, tuple[Buffer, ...]]:
    """Return the function of a nest of rows for CPUs, one row after the other in the same room, and the buffers it is called with."""
    (item,) = nest.items
    b, parameters = Builder(), Parameters(schedule.memory, buffers)
    reader = Reader(b, schedule.memory, parameters, frozenset())
    room = room_for(item, parameters, scratch)
    index = [Index()] * len(nest.domain)
    with contextlib.ExitStack() as stack:
        for axis, extent in enumerate(nest.domain):
            if axis not in item.in_order:
                index[axis] = stack.enter_context(b.loop(extent))
        emit_row(b, item, tuple(index), reader, parameters, room)
    taken = parameters.taken
    return Function("", tuple(taken.values()), (), b.root, nest.title), tuple(taken)


def room_for(item: Item, parameters: Parameters, scratch: Scratch, count: int = 1, number: Index | None = None) -> Room:
    """Return the scratch memory of row `number` of `count` that are worked on at the same time."""
    op = item.target.op
    assert isinstance(op, Along)
    needed = op.room(*(v.aval for v in item.target.node.inputs))
    arrays = {name: (scratch.take(name, dtype, length * count), length) for name, (dtype, length) in needed.items()}
    return {name: (parameters.take(buffer), Index() if number is None else number * length) for name, (buffer, length) in arrays.items()}


def emit_row(b: Builder, item: Item, index: Position, reader: Reader, parameters: Parameters, room: Room) -> None:
    """Emit the work on the row at `index` of the domain; the index along the row itself does not matter."""
    op, operands = item.target.op, item.target.node.inputs
    assert isinstance(op, Along)
    start = expanded(index, item.value.shape)

    def at(place: Index) -> Position:
        return (*start[: op.axis], place, *start[op.axis + 1 :])

    def write(place: Index, x: Scalar) -> None:
        b.store(parameters(parameters.memory[item.target]), flat_index(at(place), item.target.shape), x)

    op.row(b, lambda operand, place: reader.read(operands[operand], at(place)), write, [v.aval for v in operands], room)
