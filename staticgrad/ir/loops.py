"""The loop IR: the small language between the array graph and every printer.

A `Unit` holds functions; a function holds statements over buffers (flat, typed memory) and scalars (single assignment, a dtype
and a number of lanes). Every instruction is total: its result is defined for every operand (see `OPCODES`).
Complex numbers and half floats do not exist here: they are split or converted where they are loaded and stored.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np


class Space(enum.Enum):
    """What a buffer's memory is."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    WORKSPACE = "workspace"  # scratch of one call, dead when the function returns
    SLOT = "slot workspace"  # scratch of one thread of a parallel loop
    RESIDUAL = "residual"  # written by forward, read by backward
    LOCAL = "local"  # a small array inside a function
    PARAMETER = "parameter"  # a pointer handed to an internal function


@dataclass(frozen=True, eq=False)
class Buffer:
    """Flat memory of `size` elements. In arguments it is found by `position`, in the workspace by the byte `offset`."""

    name: str
    dtype: np.dtype
    size: int
    space: Space
    position: int = -1
    offset: int = -1


OPCODES: dict[str, int] = {
    # arithmetic; integers wrap around
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "fma": 3, "min": 2, "max": 2,
    # floats only; rint rounds halves to even
    "sqrt": 1, "floor": 1, "rint": 1, "trunc": 1,
    # integers only: quotient and remainder toward zero, x/0 = 0 and INT_MIN/-1 = INT_MIN; the high half of a product
    "quotient": 2, "remainder": 2, "mulhi": 2,
    # comparisons give bool; with NaN all but `ne` are false
    "lt": 2, "le": 2, "eq": 2, "ne": 2,
    "select": 3,
    # a cast of a float to an integer truncates; out of range or NaN it gives the least int32 (int64 for wide types), narrowed
    "cast": 1, "bitcast": 1,
    # shifts by the width or more give 0 (-1 for a negative value shifted right)
    "shl": 2, "shr": 2, "and": 2, "or": 2, "xor": 2, "not": 1,
    # lanes: copies of a single value, one of the values, whether any flag holds
    "splat": 1, "extract": 2, "any": 1,
}  # fmt: skip
"""Every scalar instruction with its number of operands."""


@dataclass(frozen=True, eq=False, slots=True)
class Scalar:
    """A value in a register: assigned once; `literal` is set where it is known."""

    number: int
    dtype: np.dtype
    lanes: int = 1
    literal: np.generic | None = None
    hint: str = ""


@dataclass(frozen=True)
class Index:
    """An affine position: constant + sum of coefficient * integer scalar. Operators build sums and multiples."""

    constant: int = 0
    terms: tuple[tuple[Scalar, int], ...] = ()

    @staticmethod
    def of(value: Index | Scalar | int) -> Index:
        """Return `value` as an index."""
        if isinstance(value, Index):
            return value
        if isinstance(value, Scalar):
            return Index(int(value.literal)) if value.literal is not None else Index(0, ((value, 1),))
        return Index(int(value))

    def __add__(self, other: Index | Scalar | int) -> Index:
        right = Index.of(other)
        coefficients: dict[Scalar, int] = dict(self.terms)
        for scalar, coefficient in right.terms:
            coefficients[scalar] = coefficients.get(scalar, 0) + coefficient
        return Index(self.constant + right.constant, tuple((s, c) for s, c in coefficients.items() if c))

    def __mul__(self, factor: int) -> Index:
        return Index(self.constant * factor, tuple((s, c * factor) for s, c in self.terms if c * factor))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Index:
        return self * -1

    def __sub__(self, other: Index | Scalar | int) -> Index:
        return self + Index.of(other) * -1


# ---- statements --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Let:
    """target = opcode(operands)."""

    target: Scalar
    opcode: str
    operands: tuple[Scalar, ...]


@dataclass(frozen=True)
class Position:
    """target = an index as an int64 scalar."""

    target: Scalar
    index: Index


@dataclass(frozen=True)
class Load:
    """target = buffer[index], or `lanes` neighbours from there."""

    target: Scalar
    buffer: Buffer
    index: Index


@dataclass(frozen=True)
class Store:
    """buffer[index] = value; lanes go to neighbours; where `mask` (bool lanes) is false nothing is written."""

    buffer: Buffer
    index: Index
    value: Scalar
    mask: Scalar | None = None


@dataclass(frozen=True, eq=False)
class Variable:
    """A mutable scalar."""

    number: int
    dtype: np.dtype
    lanes: int = 1
    hint: str = ""


@dataclass(frozen=True)
class Declare:
    """Bring `variable` into being with its first value."""

    variable: Variable
    value: Scalar


@dataclass(frozen=True)
class Assign:
    """variable = value."""

    variable: Variable
    value: Scalar


@dataclass(frozen=True)
class Get:
    """target = the present value of `variable`."""

    target: Scalar
    variable: Variable


@dataclass(frozen=True)
class Loop:
    """For counter from start up to stop (exclusive) by step.

    `parallel` iterations are independent and may run in blocks of `block` iterations on any thread; `lanes` > 1 says that so many
    neighbouring iterations may run in lockstep.
    """

    counter: Scalar
    start: Index
    stop: Index
    step: int
    body: Block
    lanes: int = 1
    parallel: bool = False
    block: int = 0


@dataclass(frozen=True)
class If:
    """Run `then` where the condition holds, `otherwise` where it does not."""

    condition: Scalar
    then: Block
    otherwise: Block


@dataclass(frozen=True)
class While:
    """Run `test`, then, while `condition` (made by `test`) holds, `body` and `test` again."""

    test: Block
    condition: Scalar
    body: Block


@dataclass(frozen=True)
class Local:
    """A small array that lives as long as the function; its content is undefined at first."""

    buffer: Buffer


@dataclass(frozen=True)
class Invoke:
    """Call an internal function: buffers are handed over as pointers to `index`, numbers as int64.

    With `blocks` > 0 it is called so many times, with the number of the block as its last number; the calls are independent and may
    run on any thread.
    """

    function: Function
    buffers: tuple[tuple[Buffer, Index], ...]
    numbers: tuple[Index, ...] = ()
    blocks: int = 0


@dataclass(frozen=True)
class External:
    """Call `int64 symbol(pointers..., int64 numbers...)` of a library: large linear algebra, or a function of the user's own.

    It writes through the last `results` pointers only. What it returns, unless 0, is noted as a failure; it is not called once one is
    noted.
    """

    symbol: str
    library: str
    buffers: tuple[tuple[Buffer, Index], ...]
    numbers: tuple[Index, ...]
    needs_gil: bool = False
    thread_safe: bool = True
    exportable: bool = False
    results: int = 1

    @property
    def written(self) -> tuple[Buffer, ...]:
        """The buffers that it writes to."""
        return tuple(buffer for buffer, _ in self.buffers[len(self.buffers) - self.results :])


@dataclass(frozen=True)
class Fail:
    """Where `condition` holds, note the failure (the first one stays) and go on."""

    condition: Scalar
    code: int
    node: int
    index: Index


@dataclass(frozen=True)
class Failed:
    """target = whether a failure is noted."""

    target: Scalar


@dataclass(frozen=True)
class Poll:
    """target = whether to go on, so many nanoseconds of work later: no failure is noted.

    Each `WORK_BETWEEN_POLLS` of work, the `poll` of the context is called, where it has one: it notes a failure where the caller wants
    an end.
    """

    target: Scalar
    work: Index


@dataclass(frozen=True)
class Comment:
    """A remark for the reader of the emitted source."""

    text: str


Statement = (
    Let | Position | Load | Store | Declare | Assign | Get | Loop | If | While | Local | Invoke | External | Fail | Failed | Poll | Comment
)


@dataclass
class Block:
    """Statements in order."""

    statements: list[Statement] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Function:
    """An internal function: pointers and int64 numbers in, nothing out."""

    name: str
    buffers: tuple[Buffer, ...]
    numbers: tuple[Scalar, ...]
    body: Block
    title: str = ""


@dataclass(frozen=True, eq=False)
class Unit:
    """All functions of one graph. `forward` and `backward` list the functions that each stage runs, in order.

    `arguments` are the buffers of the pointer table in order (inputs, constants, outputs); `workspace` is the number of bytes
    the caller supplies, of which the first `residual` ones carry values from forward to backward.
    """

    name: str
    arguments: tuple[Buffer, ...]
    forward: tuple[Invoke, ...]
    backward: tuple[Invoke, ...] | None
    workspace: int
    residual: int
    functions: tuple[Function, ...]


def with_functions(unit: Unit, made: dict[Function, Function]) -> Unit:
    """Return the unit with other functions in place of its own."""

    def stage(calls: tuple[Invoke, ...]) -> tuple[Invoke, ...]:
        return tuple(replace(call, function=made[call.function]) for call in calls)

    backward = None if unit.backward is None else stage(unit.backward)
    return replace(unit, forward=stage(unit.forward), backward=backward, functions=tuple(made.values()))


def symbol(name: str, stage: str) -> str:
    """Return the exported symbol of a stage: sg_1a2b3c_forward."""
    return f"{name if name.startswith('sg_') else f'sg_{name}'}_{stage}"


def walk(block: Block) -> Iterator[Statement]:
    """Yield every statement of `block` and of the blocks inside it."""
    for statement in block.statements:
        yield statement
        for inner in children(statement):
            yield from walk(inner)


def children(statement: Statement) -> tuple[Block, ...]:
    """Return the blocks that `statement` holds."""
    match statement:
        case Loop(body=body):
            return (body,)
        case If(then=then, otherwise=otherwise):
            return (then, otherwise)
        case While(test=test, body=body):
            return (test, body)
        case _:
            return ()


def calls(unit: Unit) -> Iterator[Invoke]:
    """Yield all calls of internal functions, those of the stages and those of functions."""
    yield from (*unit.forward, *(unit.backward or ()))
    yield from (statement for function in unit.functions for statement in walk(function.body) if isinstance(statement, Invoke))


def can_fail(function: Function, known: dict[Function, bool] | None = None) -> bool:
    """Return whether `function`, or one that it calls, can note a failure or asks for one."""
    known = {} if known is None else known
    if function not in known:
        known[function] = notes_failures(function.body, known)
    return known[function]


def notes_failures(block: Block, known: dict[Function, bool] | None = None) -> bool:
    """Return whether a block, or a function that it calls, can note a failure or asks for one."""
    return any(
        isinstance(statement, (Fail, Failed, External, Poll)) or (isinstance(statement, Invoke) and can_fail(statement.function, known))
        for statement in walk(block)
    )


def external_symbols(unit: Unit) -> tuple[str, ...]:
    """Return the symbols outside of the unit that it calls."""
    statements = (statement for function in unit.functions for statement in walk(function.body))
    return tuple(dict.fromkeys(statement.symbol for statement in statements if isinstance(statement, External)))


WORK_BETWEEN_POLLS = 1_000_000
"""Nanoseconds, by estimates that are too low by a factor of twenty where a loop waits for each result."""


def polls(unit: Unit) -> bool:
    """Return whether a unit asks its caller whether to go on."""
    return any(isinstance(statement, Poll) for function in unit.functions for statement in walk(function.body))


NEGATIVE_POWER, OUT_OF_BOUNDS, EXTERNAL_FAILED, INTERRUPTED = 1, 2, 3, 4

FAILURES = {
    NEGATIVE_POWER: "an integer raised to a negative integer power",
    OUT_OF_BOUNDS: "an index is out of bounds",
    EXTERNAL_FAILED: "a function outside of the compiled code failed",
    INTERRUPTED: "the caller wanted it to end",
}
"""What the failure codes mean. An index out of bounds notes the length of the axis in place of a node, and the index; an external
function what it returned in place of the index."""
