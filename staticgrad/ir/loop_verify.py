"""The type checker of the loop IR: what every printer may rely on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NoReturn

import numpy as np

from staticgrad.errors import VerificationError
from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL, DTYPES, INT64, is_integer
from staticgrad.ir.loop_text import COMPARISONS, FunctionText, Names, result_type, type_text
from staticgrad.ir.loops import FAILURES, OPCODES, Block, Buffer, Function, Index, Invoke, Scalar, Space, Statement, Unit, Variable

ALIGNMENT = 64
"""Every buffer of the workspace begins at a multiple of so many bytes."""

_TABLE = (Space.INPUT, Space.CONSTANT, Space.OUTPUT)
_READ_ONLY = (Space.INPUT, Space.CONSTANT)
_WORKSPACE = (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL)

_KINDS: dict[str, str] = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "abs", "min", "max", "bitcast"), "iuf"),
    **dict.fromkeys(("div", "fma", "sqrt", "floor", "rint", "trunc"), "f"),
    **dict.fromkeys(("quotient", "remainder", "mulhi", "shl", "shr"), "iu"),
    **dict.fromkeys(("and", "or", "xor", "not"), "biu"),
    **dict.fromkeys((*COMPARISONS, "select", "cast", "splat", "extract"), "biuf"),
    "any": "b",
}
"""The dtype kinds that each instruction takes."""


def verify_unit(unit: Unit, after: str = "lowering") -> None:
    """Check that a unit keeps the rules of the loop IR.

    Scalars are assigned once and defined before they are used, types agree, affine indices stay inside their buffers wherever
    their bounds are constant, calls fit the functions they call, and the memory of the unit is laid out as its calls need it.

    Raises
    ------
    VerificationError
        Naming the pass `after` which the unit is broken, the function and the statement.
    """
    _verify_memory(unit, after)
    functions = frozenset(unit.functions)
    if len({function.name for function in functions}) != len(unit.functions):
        raise VerificationError(f"after {after}: unit {unit.name}: two functions have the same name")
    blocks: dict[Function, int] = {}
    for call in loops.calls(unit):
        blocks[call.function] = max(call.blocks, blocks.get(call.function, 0))
    for function in unit.functions:
        _FunctionVerifier(function, functions, after, blocks.get(function, 0)).run()
    written: dict[Function, frozenset[Buffer]] = {}
    for function in unit.functions:
        _find_written(function, written, (), after)
    for stage, calls in (("forward", unit.forward), ("backward", unit.backward or ())):
        for call in calls:
            _verify_stage_call(unit, call, functions, written, f"after {after}: unit {unit.name}, {stage}, `{Names().call(call)}`")


# ---- the unit ----------------------------------------------------------------------------------------------------------


def _verify_memory(unit: Unit, after: str) -> None:
    for place, buffer in enumerate(unit.arguments):
        if buffer.space not in _TABLE or buffer.position != place or buffer.size < 0:
            found = f"{buffer.name!r}, {buffer.space.value} of {buffer.size} elements at position {buffer.position}"
            raise VerificationError(f"after {after}: unit {unit.name}: argument {place} is {found}")
    if not 0 <= unit.residual <= unit.workspace:
        raise VerificationError(f"after {after}: unit {unit.name}: {unit.residual} residual bytes of a workspace of {unit.workspace}")


def _verify_stage_call(
    unit: Unit, call: Invoke, functions: frozenset[Function], written: dict[Function, frozenset[Buffer]], where: str
) -> None:
    problem = _call_problem(call, functions)
    if any(number.terms for number in call.numbers) or any(index.terms for _, index in call.buffers):
        problem = problem or "a call of a stage has constant numbers and positions"
    for (buffer, index), parameter in zip(call.buffers, call.function.buffers, strict=False):
        limit = unit.residual if buffer.space is Space.RESIDUAL else unit.workspace
        end = buffer.offset + buffer.size * buffer.dtype.itemsize
        reach = index.constant + max(parameter.size, 0)
        if problem:
            break
        if buffer.space in _TABLE and buffer not in unit.arguments:
            problem = f"{buffer.name!r} is no argument of the unit"
        elif buffer.space not in (*_TABLE, *_WORKSPACE):
            problem = f"{buffer.name!r} is a {buffer.space.value}: it belongs to a function"
        elif buffer.space in _WORKSPACE and (buffer.offset < 0 or buffer.offset % ALIGNMENT):
            problem = f"{buffer.name!r} begins at byte {buffer.offset}, not at a multiple of {ALIGNMENT}"
        elif buffer.space in _WORKSPACE and (buffer.size < 0 or end > limit):
            problem = f"{buffer.name!r} ends at byte {end} of {limit} in the {buffer.space.value}"
        elif index.constant < 0 or reach > buffer.size:
            problem = f"{buffer.name!r} has {buffer.size} elements, {index.constant} to {reach} are handed over"
        elif buffer.space in _READ_ONLY and parameter in written[call.function]:
            problem = f"the {buffer.space.value} {buffer.name!r} is written to"
    if problem:
        raise VerificationError(f"{where}: {problem}")


def _call_problem(call: Invoke, functions: frozenset[Function]) -> str:
    """Return what is wrong with a call whatever surrounds it; empty if nothing is."""
    function = call.function
    if function not in functions:
        return f"the unit has no function {function.name}"
    taken = len(function.buffers), len(function.numbers)
    given = len(call.buffers), len(call.numbers) + (call.blocks > 0)
    if taken != given:
        return f"{function.name} takes {taken[0]} buffers and {taken[1]} numbers, not {given[0]} and {given[1]}"
    if call.blocks < 0:
        return f"{call.blocks} blocks"
    for (buffer, _), parameter in zip(call.buffers, function.buffers, strict=True):
        if buffer.dtype != parameter.dtype:
            return f"{buffer.name!r} of {buffer.dtype} is handed over as {parameter.name!r} of {parameter.dtype}"
    return ""


def _find_written(
    function: Function, known: dict[Function, frozenset[Buffer]], callers: tuple[Function, ...], after: str
) -> frozenset[Buffer]:
    """Return the parameters that `function`, or what it calls, writes to."""
    if function in callers:
        raise VerificationError(f"after {after}: function {function.name} calls itself")
    if function not in known:
        found: set[Buffer] = set()
        for statement in loops.walk(function.body):
            if isinstance(statement, loops.Store):
                found.add(statement.buffer)
            elif isinstance(statement, loops.External):
                found.update(statement.written)
            elif isinstance(statement, Invoke):
                inner = _find_written(statement.function, known, (*callers, function), after)
                pairs = zip(statement.buffers, statement.function.buffers, strict=True)
                found.update(buffer for (buffer, _), parameter in pairs if parameter in inner)
        known[function] = frozenset(found)
    return known[function]


# ---- a function --------------------------------------------------------------------------------------------------------


class _FunctionVerifier:
    """Walks through a function with what is in scope.

    `_guards` counts the enclosing branches and loops that may not run: inside them an index is wrong only if it is out of bounds
    whatever its counters are. `_bounds` holds the least and greatest value of counters and positions, by what is defined before.
    """

    def __init__(self, function: Function, functions: frozenset[Function], after: str, blocks: int = 0) -> None:
        self._function = function
        self._functions = functions
        self._blocks = blocks
        self._after = after
        self._assigned: set[Scalar | Variable] = set()
        self._scope: dict[Scalar | Variable | Buffer, int] = {}  # with the number of parallel loops around the definition
        self._bounds: dict[Scalar, tuple[Index, Index]] = {}
        self._order: dict[Scalar, int] = {}
        self._guards = 0
        self._dead = 0
        self._parallel = 0

    @cached_property
    def _text(self) -> FunctionText:
        return FunctionText(self._function)

    def _fail(self, statement: Statement | None, problem: str) -> NoReturn:
        line = f", `{self._text.line_of[id(statement)]}`" if statement is not None else ""
        raise VerificationError(f"after {self._after}: in function {self._function.name}{line}: {problem}")

    def run(self) -> None:
        """Check the whole function."""
        for buffer in self._function.buffers:
            if buffer in self._scope or buffer.dtype.name not in DTYPES:
                self._fail(None, f"the parameter {buffer.name!r} of {buffer.dtype} occurs twice or has a dtype that cannot be")
            self._scope[buffer] = 0
        for number in self._function.numbers:
            if number in self._scope or number.literal is not None or (number.dtype, number.lanes) != (INT64, 1):
                self._fail(None, "its numbers are distinct int64 scalars")
            self._assigned.add(number)
            self._scope[number] = 0
        if self._blocks and self._function.numbers:
            self._note_bounds(self._function.numbers[-1], Index(), Index(self._blocks - 1))
        self._block(self._function.body)

    def _block(self, block: Block) -> None:
        with self._inner_scope():
            for statement in block.statements:
                self._statement(statement)

    @contextmanager
    def _inner_scope(self) -> Iterator[None]:
        count = len(self._scope)
        yield
        while len(self._scope) > count:
            self._scope.popitem()

    # ---- what is in scope

    def _define(self, statement: Statement, target: Scalar | Variable) -> None:
        if target in self._assigned or (isinstance(target, Scalar) and target.literal is not None):
            self._fail(statement, "its target is a literal, or assigned a second time")
        if target.dtype.name not in DTYPES or target.lanes < 1:
            self._fail(statement, f"there are no scalars of {target.dtype} x {target.lanes}")
        self._assigned.add(target)
        self._scope[target] = self._parallel

    def _scalar(self, statement: Statement, scalar: Scalar) -> None:
        if scalar.literal is not None:
            if scalar.literal.dtype != scalar.dtype or scalar.lanes != 1:
                self._fail(statement, f"the literal {self._text.names.scalar(scalar)} is declared {type_text(scalar.dtype, scalar.lanes)}")
        elif scalar not in self._scope:
            what = "used outside the block that defines it" if scalar in self._assigned else "used before it is defined"
            self._fail(statement, f"{self._text.names.scalar(scalar)} is {what}")

    def _index(self, statement: Statement, *indices: Index) -> None:
        for scalar, _ in (term for index in indices for term in index.terms):
            self._scalar(statement, scalar)
            if not is_integer(scalar.dtype) or scalar.lanes != 1:
                found = type_text(scalar.dtype, scalar.lanes)
                self._fail(statement, f"an index is made of single integers, {self._text.names.scalar(scalar)} is {found}")

    def _buffer(self, statement: Statement, buffer: Buffer) -> None:
        if buffer not in self._scope:
            where = "declared before" if buffer.space is Space.LOCAL else "a parameter of the function"
            self._fail(statement, f"{buffer.name!r} is not {where}")

    def _variable(self, statement: Statement, variable: Variable, scalar: Scalar) -> None:
        if variable not in self._scope:
            self._fail(statement, f"{self._text.names.variable(variable)} is used before it is declared, or outside its block")
        self._typed(statement, scalar, variable.dtype, variable.lanes)

    def _typed(self, statement: Statement, scalar: Scalar, dtype: np.dtype, lanes: int) -> None:
        if (scalar.dtype, scalar.lanes) != (dtype, lanes):
            found, expected = type_text(scalar.dtype, scalar.lanes), type_text(dtype, lanes)
            self._fail(statement, f"{self._text.names.scalar(scalar)} is {found} where {expected} is needed")

    # ---- statements

    def _statement(self, statement: Statement) -> None:
        match statement:
            case loops.Let():
                self._let(statement)
            case loops.Position(target, index):
                self._index(statement, index)
                self._typed(statement, target, INT64, 1)
                self._define(statement, target)
                self._note_bounds(target, index, index)
            case loops.Load(target, buffer, index):
                self._typed(statement, target, buffer.dtype, target.lanes)
                self._access(statement, buffer, index, target.lanes)
                self._define(statement, target)
            case loops.Store(buffer, index, value, mask):
                self._scalar(statement, value)
                self._typed(statement, value, buffer.dtype, value.lanes)
                if mask is not None:
                    self._scalar(statement, mask)
                    self._typed(statement, mask, BOOL, value.lanes)
                self._access(statement, buffer, index, value.lanes, masked=mask is not None)
            case loops.Declare(variable, value):
                self._scalar(statement, value)
                self._define(statement, variable)
                self._typed(statement, value, variable.dtype, variable.lanes)
            case loops.Assign(variable, value):
                self._scalar(statement, value)
                self._variable(statement, variable, value)
                if self._scope[variable] < self._parallel:
                    self._fail(statement, "iterations of a parallel loop assign to a variable that they share")
            case loops.Get(target, variable):
                self._variable(statement, variable, target)
                self._define(statement, target)
            case loops.Loop():
                self._loop(statement)
            case loops.If(condition, then, otherwise):
                self._scalar(statement, condition)
                self._typed(statement, condition, BOOL, 1)
                self._guarded(then)
                self._guarded(otherwise)
            case loops.While():
                self._while(statement)
            case loops.Local(buffer):
                if buffer.space is not Space.LOCAL or buffer.size < 0 or buffer.dtype.name not in DTYPES or buffer in self._scope:
                    self._fail(statement, "a local array is declared once, with its size")
                self._scope[buffer] = self._parallel
            case Invoke():
                self._invoke(statement)
            case loops.External(symbol, _, buffers, numbers, results=results):
                if not symbol.isidentifier() or not 0 <= results <= len(buffers):
                    self._fail(statement, f"{symbol!r} with {results} results of {len(buffers)} pointers cannot be called")
                for buffer, index in buffers:
                    self._access(statement, buffer, index, 0)
                self._index(statement, *numbers)
            case loops.Failed(target):
                self._typed(statement, target, BOOL, 1)
                self._define(statement, target)
            case loops.Poll(target, work):
                self._index(statement, work)
                self._typed(statement, target, BOOL, 1)
                self._define(statement, target)
            case loops.Fail(condition, code, _, index):
                self._scalar(statement, condition)
                self._typed(statement, condition, BOOL, 1)
                self._index(statement, index)
                if code not in FAILURES:
                    self._fail(statement, f"nothing says what failure {code} means")

    def _let(self, statement: loops.Let) -> None:
        target, opcode, operands = statement.target, statement.opcode, statement.operands
        if OPCODES.get(opcode) != len(operands):
            self._fail(statement, f"{opcode} takes {OPCODES.get(opcode, 'no')} operands")
        for operand in operands:
            self._scalar(statement, operand)
        first = operands[0]
        if any(operand.dtype.kind not in _KINDS[opcode] for operand in operands):
            self._fail(statement, f"{opcode} is not defined for {', '.join(type_text(o.dtype, o.lanes) for o in operands)}")
        dtype, lanes = result_type(opcode, operands)
        same: Sequence[Scalar] = operands
        match opcode:
            case "select":
                self._typed(statement, first, BOOL, lanes)
                same = operands[1:]
            case "cast":
                dtype = target.dtype
            case "bitcast":
                dtype = target.dtype
                if target.dtype.kind not in _KINDS[opcode] or target.dtype.itemsize != first.dtype.itemsize:
                    self._fail(statement, f"{type_text(first.dtype)} and {type_text(target.dtype)} are not of the same width")
            case "splat":
                lanes = target.lanes
                if first.lanes != 1 or lanes < 2:
                    self._fail(statement, "splat makes several lanes of one")
            case "extract":
                lanes, same = 1, operands[:1]
                lane = operands[1].literal
                if lane is None or not is_integer(lane.dtype) or not 0 <= int(lane) < first.lanes:
                    self._fail(statement, f"extract takes a known lane of {first.lanes}")
        for operand in same[1:]:
            self._typed(statement, operand, same[0].dtype, same[0].lanes)
        self._typed(statement, target, dtype, lanes)
        self._define(statement, target)

    def _loop(self, statement: loops.Loop) -> None:
        start, stop, step, counter = statement.start, statement.stop, statement.step, statement.counter
        self._index(statement, start, stop)
        self._typed(statement, counter, INT64, 1)
        if step < 1 or statement.lanes < 1 or statement.block < 0:
            self._fail(statement, "step and lanes of a loop are positive, its block is not negative")
        trip = stop - start
        fewest, most = self._extreme(trip, -1), self._extreme(trip, 1)
        empty, certain = most is not None and most <= 0, fewest is not None and fewest > 0
        with self._inner_scope():
            self._parallel += statement.parallel
            self._dead += empty
            self._define(statement, counter)
            if not trip.terms:
                self._note_bounds(counter, start, start + step * (max(trip.constant - 1, 0) // step))
            elif step == 1:
                self._note_bounds(counter, start, stop - 1)
            (self._block if certain else self._guarded)(statement.body)
            self._dead -= empty
            self._parallel -= statement.parallel

    def _while(self, statement: loops.While) -> None:
        with self._inner_scope():
            for inner in statement.test.statements:
                self._statement(inner)
            self._scalar(statement, statement.condition)
            self._typed(statement, statement.condition, BOOL, 1)
            self._guarded(statement.body)

    def _guarded(self, block: Block) -> None:
        self._guards += 1
        self._block(block)
        self._guards -= 1

    def _invoke(self, statement: Invoke) -> None:
        problem = _call_problem(statement, self._functions)
        if statement.blocks and statement.numbers:
            problem = problem or "what a function runs in blocks takes no number but that of the block"
        if problem:
            self._fail(statement, problem)
        self._index(statement, *statement.numbers)
        for (buffer, index), parameter in zip(statement.buffers, statement.function.buffers, strict=True):
            self._access(statement, buffer, index, parameter.size if parameter.size >= 0 else min(buffer.size, 1))

    # ---- bounds

    def _note_bounds(self, scalar: Scalar, least: Index, greatest: Index) -> None:
        self._order[scalar] = len(self._order)
        self._bounds[scalar] = (least, greatest)

    def _extreme(self, index: Index, sign: int) -> int | None:
        """Return the greatest (sign 1) or least (sign -1) value of an affine index; None if it depends on run-time numbers.

        Counters are replaced by their bounds, the innermost first: those may depend on the counters around them.
        """
        while bounded := [scalar for scalar, _ in index.terms if scalar in self._bounds]:
            innermost = max(bounded, key=self._order.__getitem__)
            coefficient = dict(index.terms)[innermost]
            least, greatest = self._bounds[innermost]
            index = index + (greatest if coefficient * sign > 0 else least) * coefficient - Index(0, ((innermost, coefficient),))
        return None if index.terms else index.constant

    def _access(self, statement: Statement, buffer: Buffer, index: Index, count: int, masked: bool = False) -> None:
        """Check that `count` elements from `index` on lie in the buffer."""
        self._buffer(statement, buffer)
        self._index(statement, index)
        if buffer.size < 0 or count < 1 or self._dead:
            return
        least, greatest = self._extreme(index, -1), self._extreme(index, 1)
        if least is None or greatest is None:
            return
        if masked:
            wrong = least >= buffer.size or greatest + count <= 0
        elif self._guards:
            wrong = least + count > buffer.size or greatest < 0
        else:
            wrong = least < 0 or greatest + count > buffer.size
        if wrong:
            self._fail(statement, f"{buffer.name!r} has {buffer.size} elements, {least} to {greatest + count - 1} are accessed")
