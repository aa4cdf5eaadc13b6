"""Loop IR as Python statements, shared by the printers that write Python.

An instruction that is used once becomes part of the expression that uses it; everything else gets a name:
`t1 = load x; t2 = mul t1, 2; store y, t2` -> `y[i] = x[i] * 2.0`.
"""

from __future__ import annotations

from collections.abc import Callable

from staticgrad.codegen.callees import Callees
from staticgrad.codegen.python_values import (
    COMPARE,
    INT64,
    NOT,
    OPERATORS,
    UINT64,
    WIDTH,
    Names,
    Text,
    Values,
    dtype_name,
    identifier,
    wrapped,
)
from staticgrad.errors import VerificationError
from staticgrad.ir.loops import (
    Assign,
    Block,
    Buffer,
    Comment,
    Declare,
    External,
    Fail,
    Failed,
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
    Statement,
    Store,
    Variable,
    While,
    children,
)

COUNTERS = "ijklmnpq"

NOUNS: dict[str, str] = {
    "add": "total", "sub": "difference", "mul": "product", "div": "ratio", "neg": "negative", "abs": "magnitude", "fma": "fused",
    "min": "least", "max": "greatest", "sqrt": "root", "floor": "below", "rint": "nearest", "trunc": "whole",
    "quotient": "quotient", "remainder": "rest", "mulhi": "high", "lt": "less", "le": "at_most", "eq": "equal", "ne": "unequal",
    "select": "chosen", "cast": "converted", "bitcast": "bits", "shl": "shifted", "shr": "shifted", "and": "both", "or": "either",
    "xor": "mixed", "not": "inverse", "splat": "copies", "extract": "lane", "any": "some",
}  # fmt: skip
"""What the result of an instruction is called."""


def operands(statement: Statement) -> tuple[Scalar, ...]:
    """Return the scalars that `statement` itself reads, blocks inside it left out."""
    indices: list[Index] = []
    values: list[Scalar] = []
    match statement:
        case Let():
            return statement.operands
        case Position(index=index) | Load(index=index):
            indices = [index]
        case Store(index=index, value=value, mask=mask):
            indices, values = [index], [value, *([] if mask is None else [mask])]
        case Declare(value=value) | Assign(value=value):
            values = [value]
        case Loop(start=start, stop=stop):
            indices = [start, stop]
        case If(condition=condition) | While(condition=condition):
            values = [condition]
        case Poll(work=work):
            indices = [work]
        case Fail(condition=condition, index=index):
            indices, values = [index], [condition]
        case Invoke(buffers=buffers, numbers=numbers) | External(buffers=buffers, numbers=numbers):
            indices = [*(index for _, index in buffers), *numbers]
    return (*(scalar for index in indices for scalar, _ in index.terms), *values)


class FunctionText(Values):
    """The text of one function's body."""

    def __init__(self, names: Names, callees: Callees, note: Callable[[str], str]) -> None:
        super().__init__(note)
        self.names = names
        self.callees = callees
        self.lines: list[str] = []
        self.buffers: dict[Buffer, str] = {}
        self.variables: dict[Variable, str] = {}
        self._level = 1
        self._counters: list[str] = []  # of the loops that are open
        self._counter_names: set[str] = set()
        self._lets: dict[Scalar, Let] = {}
        self._pending: dict[Scalar, tuple[Text, str]] = {}  # folded into the one statement that reads them, or named before it
        self._hints: dict[Scalar, str] = {}
        self._users: dict[Scalar, list[Statement]] = {}
        self._places: dict[int, tuple[Block, int, Statement | None]] = {}

    def body(self, block: Block) -> None:
        """Print the body of a function."""
        self._survey(block, None)
        self.block(block, 0)

    def _survey(self, block: Block, parent: Statement | None) -> None:
        """Note where each statement stands, who reads each scalar, and names for what is stored."""
        for position, statement in enumerate(block.statements):
            self._places[id(statement)] = (block, position, parent)
            for scalar in operands(statement):
                self._users.setdefault(scalar, []).append(statement)
            if isinstance(statement, Let):
                self._lets[statement.target] = statement
            elif isinstance(statement, Store):
                self._hints.setdefault(statement.value, statement.buffer.name)
            elif isinstance(statement, Assign) and statement.variable.hint:
                self._hints.setdefault(statement.value, statement.variable.hint)
            for inner in children(statement):
                self._survey(inner, statement)

    # ---- lines

    @property
    def indent(self) -> str:
        """The white space before a statement."""
        return "    " * self._level

    def line(self, text: str) -> None:
        """Append one line."""
        self.lines.append(f"{self.indent}{text}")

    def block(self, block: Block, deeper: int = 1) -> None:
        """Print the statements of `block`, `deeper` levels further in."""
        self._level += deeper
        start = len(self.lines)
        for position, statement in enumerate(block.statements):
            self._statement(statement, block, position)
            self._consume(statement)
        if len(self.lines) == start:
            self.line("pass")
        self._level -= deeper

    def buffer(self, buffer: Buffer) -> str:
        """Return the name of `buffer`."""
        if buffer not in self.buffers:
            raise VerificationError(f"buffer {buffer.name!r} is used in a function that it was not handed to")
        return self.buffers[buffer]

    def number(self, scalar: Scalar, name: str) -> None:
        """Make `scalar` known as an integer that Python may hold as a plain `int`."""
        self.scalars[scalar] = Text(name, loose=True)

    # ---- statements

    def _statement(self, statement: Statement, block: Block, position: int) -> None:
        match statement:
            case Let(target=target):
                self._fit(statement, lambda: self.expression(statement).text, 24)
                self._define(target, self.expression(statement), NOUNS[statement.opcode], block, position)
            case Position(target=target, index=index):
                self._fit(statement, lambda: self.index(index).text, 24)
                self._define(target, self.index(index), "position", block, position)
            case Load(target=target):
                self._define(target, self._load(statement), self.buffer(statement.buffer), block, position)
            case Get():
                self._get(statement, block, position)
            case Store():
                self._settle(statement, memory=True)
                self.line(self._fit(statement, lambda: self._store(statement)))
            case Declare(variable=variable, value=value):
                name = self.names.unique(variable.hint or "value")
                self.line(self._fit(statement, lambda: f"{name} = {self.value(value, typed=True).text}"))
                self.variables[variable] = name
            case Assign(variable=variable, value=value):
                self._settle(statement, variable=variable)
                name = self.variables[variable]
                self.line(self._fit(statement, lambda: self._assignment(name, value)))
            case Local(buffer=buffer):
                self.buffers[buffer] = self.names.unique(buffer.name)
                call = self.call("local_array", dtype_name(buffer.dtype), str(buffer.size))
                self.line(f"{self.buffers[buffer]} = {call.text}")
            case Loop():
                self._settle(statement, memory=True, compound=True)
                self._loop(statement)
            case If():
                self._settle(statement, memory=True, compound=True)
                self._if(statement)
            case While():
                self._settle(statement, memory=True, compound=True)
                self._while(statement)
            case Failed(target=target):
                self._define(target, Text("context[0] != 0", COMPARE, reads_memory=True), "failed", block, position)
            case Fail():
                self._settle(statement, memory=True)
                self._fail(statement)
            case Poll(target=target, work=work):
                self._settle(statement, memory=True)
                self._define(
                    target, Text(self.call("poll", "context", self.index(work).text).text, reads_memory=True), "goes_on", block, position
                )
            case Invoke():
                self._settle(statement, memory=True)
                self.lines += self.invocation(statement)
            case External():
                self._settle(statement, memory=True)
                self.lines += self._external(statement)
            case Comment(text=text):
                for row in text.splitlines():
                    self.line(f"# {row}".rstrip())

    def _load(self, load: Load) -> Text:
        buffer, index = self.buffer(load.buffer), self.index(load.index)
        text = f"{buffer}[{index.text}]"
        if load.target.lanes > 1:
            text = self.call("load_lanes", buffer, index.text, str(load.target.lanes)).text
        return Text(text, reads_memory=True, variables=index.variables)

    def _store(self, store: Store) -> str:
        buffer, index, value = self.buffer(store.buffer), self.index(store.index).text, self.value(store.value)
        if store.value.lanes > 1:
            mask = [] if store.mask is None else [self.value(store.mask).text]
            return self.call("store_lanes", buffer, index, value.text, *mask).text
        if store.mask is not None:
            raise VerificationError(f"a masked store of a single value into {store.buffer.name!r}")
        return f"{buffer}[{index}] = {value.text}"

    def _assignment(self, name: str, value: Scalar) -> str:
        """Return `name = value`, or `name += x` where the value is a folded `name + x`."""
        let = self._lets.get(value)
        in_place = value.lanes == 1 and (value.dtype.kind == "f" or value.dtype in (INT64, UINT64))  # lanes are arrays in Python
        if in_place and value in self._pending and let is not None and let.opcode in ("add", "sub", "mul"):
            first, second = let.operands
            if self.value(first).text == name:
                symbol, _ = OPERATORS[let.opcode]
                return f"{name} {symbol}= {self.value(second).text}"
        return f"{name} = {self.value(value, typed=True).text}"

    def _get(self, get: Get, block: Block, position: int) -> None:
        """Let the variable's name stand for its value while the variable keeps it."""
        name = Text(self.variables[get.variable], variables=frozenset({get.variable.number}))
        users = self._users.get(get.target, [])
        last = max((self._place_in(block, user) for user in users), default=position)
        between = block.statements[position + 1 : last]
        final = block.statements[last] if last < len(block.statements) else None
        changed = any(_assigns(statement, get.variable) for statement in between)
        reads_first = isinstance(final, Assign) or (isinstance(final, If) and len(users) == 1 and users[0] is final)
        if changed or (final is not None and not reads_first and _assigns(final, get.variable)):
            self._name(get.target, name, get.target.hint or get.variable.hint or "value")
        else:
            self.scalars[get.target] = name

    def _range(self, loop: Loop) -> str:
        start, stop = self.index(loop.start).text, self.index(loop.stop).text
        if loop.step != 1:
            return f"{start}, {stop}, {loop.step}"
        return stop if start == "0" else f"{start}, {stop}"

    def _loop(self, loop: Loop) -> None:
        counter = self._counter(loop.counter.hint)
        self.number(loop.counter, counter)
        self.line(f"for {counter} in range({self._range(loop)}):")
        self._consume(loop)
        self._counters.append(counter)
        self.block(loop.body)
        self._counters.pop()

    def _counter(self, hint: str) -> str:
        """Return a name for a counter that no enclosing loop has; loops side by side share names."""
        wishes: list[str] = [identifier(hint or "i"), *COUNTERS]
        for wish in wishes:
            if wish not in self._counters and (wish in self._counter_names or self.names.free(wish)):
                self.names.taken.add(wish)
                self._counter_names.add(wish)
                return wish
        return self.names.unique(hint or "i")

    def _if(self, statement: If) -> None:
        condition = self.value(statement.condition)
        then, otherwise = statement.then, statement.otherwise
        if not then.statements and otherwise.statements:
            condition, then, otherwise = Text(f"not {condition.within(NOT)}", NOT), otherwise, then
        self.line(f"if {condition.text}:")
        self._consume(statement)
        self.block(then)
        if otherwise.statements:
            self.line("else:")
            self.block(otherwise)

    def _while(self, statement: While) -> None:
        start = len(self.lines)
        self.line("while True:")
        self._level += 1
        for position, inner in enumerate(statement.test.statements):
            self._statement(inner, statement.test, position)
            self._consume(inner)
        self._level -= 1
        condition = self.value(statement.condition)
        self._pending.pop(statement.condition, None)
        if len(self.lines) == start + 1:
            self.lines[start] = f"{self.indent}while {condition.text}:"
        else:
            self.line(f"    if not {condition.within(NOT)}:")
            self.line("        break")
        self.block(statement.body)

    def _fail(self, statement: Fail) -> None:
        condition = self.value(statement.condition)
        call = self.call("fail", "context", str(statement.code), str(statement.node), self.index(statement.index).text)
        self.line(f"if {condition.text}:")
        self.line(f"    {call.text}")

    def invocation(self, statement: Invoke) -> list[str]:
        """Return the lines of a call of an internal function."""
        items = self._arguments(statement)
        if statement.blocks:
            table, task = self.names.unique("parts"), self.callees.tasks[statement.function]
            return [
                *wrapped(items, f"{table} = {self.note('pointers')}(", ")", self.indent),
                *wrapped([task, str(statement.blocks), table, "workspace", "context"], f"{self.note('parallel')}(", ")", self.indent),
            ]
        return wrapped([*items, *self.callees.behind(statement.function)], f"{self.callees.names[statement.function]}(", ")", self.indent)

    def _external(self, statement: External) -> list[str]:
        items = ["context", f'"{statement.symbol}"', *self._arguments(statement)]
        return wrapped(items, f"{self.note('call_external')}(", ")", self.indent)

    def _arguments(self, statement: Invoke | External) -> list[str]:
        return [*(self._pointer(*place) for place in statement.buffers), *(self.index(number).text for number in statement.numbers)]

    def _pointer(self, buffer: Buffer, index: Index) -> str:
        text = self.index(index).text
        return self.buffer(buffer) if text == "0" else self.call("offset", self.buffer(buffer), text).text

    # ---- folding

    def _place_in(self, block: Block, statement: Statement | None) -> int:
        """Return where in `block` the statement stands that is, or holds, `statement`."""
        while statement is not None:
            home, position, parent = self._places[id(statement)]
            if home is block:
                return position
            statement = parent
        return len(block.statements)

    def _define(self, target: Scalar, text: Text, noun: str, block: Block, position: int) -> None:
        """Keep `text` for the one statement that reads `target`, or give it a name."""
        users = self._users.get(target, [])
        if not users:
            return
        user = users[0]
        if len(users) > 1:
            folds = False
        elif isinstance(user, While) and user.test is block:
            folds = not text.reads_memory
        elif self._places[id(user)][0] is not block:
            folds = False
        elif isinstance(block.statements[position], Load):  # into the statement that follows, other loads apart
            folds = all(isinstance(between, Load) for between in block.statements[position + 1 : self._places[id(user)][1]])
        else:
            folds = True
        if folds:
            self.scalars[target] = text
            self._pending[target] = (text, noun)
        else:
            self._name(target, text, noun)

    def _consume(self, statement: Statement) -> None:
        """Forget what `statement` took into its own text."""
        for scalar in operands(statement):
            self._pending.pop(scalar, None)

    def _name(self, target: Scalar, text: Text, noun: str) -> None:
        """Write `name = text` and let the name stand for `target` from here on."""
        self._pending.pop(target, None)
        hint = "" if text.reads_memory and target not in self._lets else self._hints.get(target, "")  # loads: their buffer
        name = self.names.unique(target.hint) if target.hint else self.names.unique(hint or noun, 0)
        self.line(f"{name} = {text.text}")
        self.scalars[target] = Text(name, loose=text.loose)

    def _settle(self, statement: Statement, *, memory: bool = False, variable: Variable | None = None, compound: bool = False) -> None:
        """Name what would change its value if it were evaluated after `statement`."""
        read = operands(statement)
        for scalar, (text, noun) in list(self._pending.items()):
            changed = (memory and text.reads_memory) or (compound and text.variables)
            if scalar not in read and (changed or (variable is not None and variable.number in text.variables)):
                self._name(scalar, text, noun)

    def _fit(self, statement: Statement, make: Callable[[], str], reserve: int = 0) -> str:
        """Return the line that `make` writes, naming the longest operands until it is short enough."""
        text = make()
        while len(text) + len(self.indent) + reserve > WIDTH:
            folded = [scalar for scalar in operands(statement) if scalar in self._pending]
            if not folded:
                break
            longest = max(folded, key=lambda scalar: len(self._pending[scalar][0].text))
            self._name(longest, *self._pending[longest])
            text = make()
        return text


def _assigns(statement: Statement, variable: Variable) -> bool:
    """Return whether `statement`, or one inside it, changes `variable`."""
    if isinstance(statement, Assign):
        return statement.variable is variable
    return any(_assigns(inner, variable) for block in children(statement) for inner in block.statements)
