"""From a call of a foreign function to the loop IR: pointers to whole arrays, then their extents, in loops where it is mapped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from staticgrad.codegen.elements import strides
from staticgrad.codegen.nest import Parameters
from staticgrad.codegen.schedule import Nest, Schedule
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.loops import Buffer, Function
from staticgrad.ir.node import Node, Value, constant_array
from staticgrad.ops.foreign import Foreign


def lower_foreign(nest: Nest, node: Node, schedule: Schedule, buffers: dict[Value, Buffer]) -> tuple[Function, tuple[Buffer, ...]]:
    """Return the function that makes the calls, and the buffers that it is called with."""
    op, result = node.op, node.outputs[0]
    assert isinstance(op, Foreign)
    b, parameters = Builder(), Parameters(schedule.memory, buffers)
    names = op.function.parameters
    pointers = [_pointer(b, *named, schedule.memory, parameters) for named in zip(node.inputs, names, strict=True)]
    pointers.append(parameters(schedule.memory[result]))
    own = [*(op.own_shape(k, operand.shape) for k, operand in enumerate(node.inputs)), op.shape]
    levels = [*map(op.levels, range(len(node.inputs))), (True,) * len(op.sizes)]
    shapes = [*(operand.shape for operand in node.inputs), result.shape]
    with contextlib.ExitStack() as stack:
        counters = [stack.enter_context(b.loop(size, hint="ijklmnpq"[min(k, 7)])) for k, size in enumerate(op.sizes)]
        places = [_place(counters, flags, shape) for flags, shape in zip(levels, shapes, strict=True)]
        extents = tuple(extent for shape in own for extent in shape)
        b.external(op.symbol, "numba", tuple(zip(pointers, places, strict=True)), extents)
    taken = parameters.taken
    return Function("", tuple(taken.values()), (), b.root, nest.title), tuple(taken)


def _pointer(b: Builder, operand: Value, name: str, memory: dict[Value, Value], parameters: Parameters) -> Buffer:
    """Return the memory that holds an operand; a number that is known gets some of the function's own."""
    while operand not in memory and operand.node.inputs:
        operand = operand.node.inputs[0]
    if operand in memory:
        return parameters(memory[operand])
    array = constant_array(operand)
    assert array is not None
    number = b.local(operand.dtype, 1, name)
    for element in array.flat:
        b.store(number, 0, b.literal(element, operand.dtype))
    return number


def _place(counters: Sequence[Index], levels: Sequence[bool], shape: Sequence[int]) -> Index:
    """Return where the part for the present index of the mapped axes begins."""
    mapped = [counter for counter, has in zip(counters, levels, strict=True) if has]
    total = Index()
    for counter, step in zip(mapped, strides(tuple(shape)), strict=False):
        total = total + counter * step
    return total
