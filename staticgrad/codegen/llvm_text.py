"""The body of a function of the loop IR as LLVM IR: memory, variables, branches, loops and calls.

```llvm
entry:
  br label %loop_i
loop_i:
  %i = phi i64 [ 0, %entry ], [ %i_next, %loop_i ]
  ...
  %i_next = add nuw nsw i64 %i, 1
  %i_more = icmp slt i64 %i_next, 128
  br i1 %i_more, label %loop_i, label %done_i
done_i:
```
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from staticgrad.codegen.callees import Callees
from staticgrad.codegen.llvm_facts import ALIGNMENT
from staticgrad.codegen.llvm_opcodes import instruction
from staticgrad.codegen.llvm_values import Values, memory_type, register_type, type_suffix
from staticgrad.errors import VerificationError
from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Block, Buffer, Index, Invoke, Loop, Statement, Store, Variable, walk

SHORTEST_PLAIN = 8
"""A loop of fewer iterations is not worth the vectoriser's time."""


class FunctionText(Values):
    """The text of one function's body. Mutable scalars are slots on the stack, which LLVM turns into registers."""

    def __init__(self, declared: dict[str, str], callees: Callees) -> None:
        super().__init__(declared)
        self.callees = callees
        self.buffers: dict[Buffer, str] = {}
        self.variables: dict[Variable, str] = {}
        self.plain_loops = False  # whether the loop vectoriser has something to do
        self._slots: list[str] = []
        self._label = self.names.unique("entry")

    def text(self) -> list[str]:
        """Return the lines of the function: slots of the stack first."""
        return ["entry:", *self._slots, *self.lines]

    def body(self, block: Block) -> None:
        """Print the body of a function."""
        for statement in walk(block):
            if isinstance(statement, Store):
                self.hints.setdefault(statement.value, statement.buffer.name)
            elif isinstance(statement, loops.Assign) and statement.variable.hint:
                self.hints.setdefault(statement.value, statement.variable.hint)
        self.block(block)

    def block(self, block: Block) -> None:
        """Print the statements of `block`; indices that it computes are known inside it only."""
        with self._scope():
            for statement in block.statements:
                self._statement(statement)

    @contextmanager
    def _scope(self) -> Iterator[None]:
        self.indices.append({})
        yield
        self.indices.pop()

    # ---- labels

    def _begin(self, label: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{label}:")
        self._label = label

    def _jump(self, label: str) -> None:
        self.line(f"br label %{label}")

    def _branch(self, condition: str, then: str, otherwise: str) -> None:
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}")

    # ---- memory

    def buffer(self, buffer: Buffer) -> str:
        """Return the pointer to the first element of `buffer`."""
        if buffer not in self.buffers:
            raise VerificationError(f"buffer {buffer.name!r} is used in a function that it was not handed to")
        return self.buffers[buffer]

    def place(self, buffer: Buffer, index: Index, inbounds: bool = False) -> str:
        """Return the pointer to an element. `inbounds` says that all that lies there is accessed, as LLVM may assume then."""
        base, at = self.buffer(buffer), self.index(index)
        if at == "0":
            return base
        flag = " inbounds" if inbounds else ""
        return self.assign(f"{base[1:]}_at", f"getelementptr{flag} {memory_type(buffer.dtype)}, ptr {base}, i64 {at}")

    def _load(self, load: loops.Load) -> None:
        target, dtype = load.target, load.buffer.dtype
        place = self.place(load.buffer, load.index, inbounds=True)
        kind = memory_type(dtype, target.lanes)
        name = target.hint or self.buffers[load.buffer][1:]
        value = self.assign(name, f"load {kind}, ptr {place}, align {dtype.itemsize}")
        if dtype == BOOL:
            value = self.assign(name, f"icmp ne {kind} {value}, {'0' if target.lanes == 1 else 'zeroinitializer'}")
        self.scalars[target] = value

    def _store(self, store: Store) -> None:
        dtype, lanes = store.buffer.dtype, store.value.lanes
        if store.mask is not None and lanes == 1:
            raise VerificationError(f"a masked store of a single value into {store.buffer.name!r}")
        place, value, kind = self.place(store.buffer, store.index, inbounds=store.mask is None), self.typed(store.value), None
        if dtype == BOOL:
            kind = memory_type(dtype, lanes)
            value = f"{kind} {self.assign('byte', f'zext {value} to {kind}')}"
        if store.mask is None:
            self.line(f"store {value}, ptr {place}, align {dtype.itemsize}")
            return
        kind, flags = kind or register_type(dtype, lanes), register_type(BOOL, lanes)
        name = f"llvm.masked.store.{type_suffix(dtype, lanes) if dtype != BOOL else f'v{lanes}i8'}.p0"
        self.declared[name] = f"declare void @{name}({kind}, ptr, i32, {flags})"
        self.line(f"call void @{name}({value}, ptr {place}, i32 {dtype.itemsize}, {self.typed(store.mask)})")

    # ---- statements

    def _statement(self, statement: Statement) -> None:
        match statement:
            case loops.Let():
                self.scalars[statement.target] = instruction(self, statement)
            case loops.Position(target, index):
                self.scalars[target] = self.index(index)
            case loops.Load():
                self._load(statement)
            case Store():
                self._store(statement)
            case loops.Declare(variable, value):
                slot = self.variables[variable] = f"%{self.names.unique((variable.hint or 'value') + '_slot')}"
                self._slots.append(f"  {slot} = alloca {register_type(variable.dtype, variable.lanes)}")
                self.line(f"store {self.typed(value)}, ptr {slot}")
            case loops.Assign(variable, value):
                self.line(f"store {self.typed(value)}, ptr {self.variables[variable]}")
            case loops.Get(target, variable):
                kind, hint = register_type(variable.dtype, variable.lanes), target.hint or variable.hint or "value"
                self.scalars[target] = self.assign(hint, f"load {kind}, ptr {self.variables[variable]}")
            case loops.Local(buffer):
                name = self.buffers[buffer] = f"%{self.names.unique(buffer.name)}"
                self._slots.append(f"  {name} = alloca [{buffer.size} x {memory_type(buffer.dtype)}], align {ALIGNMENT}")
            case Loop():
                self._loop(statement)
            case loops.If():
                self._if(statement)
            case loops.While():
                self._while(statement)
            case loops.Fail(condition, code, node, index):
                fails, on = self.names.unique("fails"), self.names.unique("on")
                self._branch(self.value(condition), fails, on)
                self._begin(fails)
                with self._scope():
                    self._note_failure(code, node, self.index(index))
                self._jump(on)
                self._begin(on)
            case loops.Failed(target):
                noted = self.assign("noted", "load i64, ptr %context, align 8")
                self.scalars[target] = self.assign("failed", f"icmp ne i64 {noted}, 0")
            case loops.Poll(target, work):
                self.scalars[target] = self.assign("goes_on", f"call i1 @poll(ptr %context, i64 {self.index(work)})")
            case Invoke():
                self.invocation(statement)
            case loops.External():
                self._external(statement)
            case loops.Comment(text):
                self.lines += [f"  ; {row}".rstrip() for row in text.splitlines()]

    def _loop(self, loop: Loop) -> None:
        """Print a loop whose test stands at its end, with another one ahead of it unless it is certain to run."""
        trip = loop.stop - loop.start
        if not trip.terms and trip.constant <= 0:
            return
        self.plain_loops |= (bool(trip.terms) or trip.constant >= SHORTEST_PLAIN * loop.step) and _is_plain(loop.body)
        start, stop = self.index(loop.start), self.index(loop.stop)
        hint = loop.counter.hint or "i"
        counter = self.names.unique(hint)
        top, done = self.names.unique(f"loop_{counter}"), self.names.unique(f"done_{counter}")
        following, more = self.names.unique(f"{counter}_next"), self.names.unique(f"{counter}_more")
        if trip.terms:
            self._branch(self.assign("some", f"icmp slt i64 {start}, {stop}"), top, done)
        else:
            self._jump(top)
        before = self._label
        self._begin(top)
        place = len(self.lines)
        self.scalars[loop.counter] = f"%{counter}"
        self.block(loop.body)
        flags = _counter_flags(loop)
        self.line(f"%{following} = add{flags} i64 %{counter}, {loop.step}")
        self.line(f"%{more} = icmp slt i64 %{following}, {stop}")
        self.lines.insert(place, f"  %{counter} = phi i64 [ {start}, %{before} ], [ %{following}, %{self._label} ]")
        self._branch(f"%{more}", top, done)
        self._begin(done)

    def _if(self, statement: loops.If) -> None:
        then, on = self.names.unique("then"), self.names.unique("on")
        otherwise = self.names.unique("otherwise") if statement.otherwise.statements else on
        self._branch(self.value(statement.condition), then, otherwise)
        self._begin(then)
        self.block(statement.then)
        self._jump(on)
        if otherwise != on:
            self._begin(otherwise)
            self.block(statement.otherwise)
            self._jump(on)
        self._begin(on)

    def _while(self, statement: loops.While) -> None:
        test, body, done = (self.names.unique(label) for label in ("test", "body", "done"))
        self._jump(test)
        self._begin(test)
        with self._scope():
            for inner in statement.test.statements:
                self._statement(inner)
            self._branch(self.value(statement.condition), body, done)
            self._begin(body)
            self.block(statement.body)
        self._jump(test)
        self._begin(done)

    def invocation(self, statement: Invoke) -> None:
        """Print a call of an internal function."""
        items = self._arguments(statement)
        if statement.blocks:
            self._in_blocks(statement, items)
            return
        items += [f"ptr %{name}" for name in self.callees.behind(statement.function)]
        self.line(f"call void {self.callees.names[statement.function]}({', '.join(items)})")

    def _in_blocks(self, statement: Invoke, places: list[str]) -> None:
        """Print the call of a function for every block: what runs one finds its pointers in a table."""
        table = f"%{self.names.unique('parts')}"
        self._slots.append(f"  {table} = alloca [{len(places)} x ptr], align {ALIGNMENT}")
        for number, place in enumerate(places):
            slot = self.assign("part", f"getelementptr inbounds ptr, ptr {table}, i64 {number}")
            self.line(f"store {place}, ptr {slot}, align 8")
        task = self.callees.tasks[statement.function]
        self.line(f"call void @parallel(ptr {task}, i64 {statement.blocks}, ptr {table}, ptr %workspace, ptr %context)")

    def _external(self, call: loops.External) -> None:
        """Print a call of a symbol outside of the unit, which is left out once a failure is noted."""
        kinds = ", ".join([*("ptr nocapture" for _ in call.buffers), *("i64" for _ in call.numbers)])
        self.declared[call.symbol] = f"declare i64 @{call.symbol}({kinds}) nounwind"
        goes, fails, on = (self.names.unique(label) for label in ("goes", "fails", "on"))
        noted = self.assign("noted", "load i64, ptr %context, align 8")
        self._branch(self.assign("well", f"icmp eq i64 {noted}, 0"), goes, on)
        self._begin(goes)
        with self._scope():
            code = self.assign("code", f"call i64 @{call.symbol}({', '.join(self._arguments(call))})")
            self._branch(self.assign("failed", f"icmp ne i64 {code}, 0"), fails, on)
            self._begin(fails)
            self._note_failure(loops.EXTERNAL_FAILED, 0, code)
        self._jump(on)
        self._begin(on)

    def _arguments(self, call: Invoke | loops.External) -> list[str]:
        places = [f"ptr {self.place(buffer, index)}" for buffer, index in call.buffers]
        return places + [f"i64 {self.index(number)}" for number in call.numbers]

    def _note_failure(self, code: int, node: int, index: str) -> None:
        self.line(f"call void @fail(ptr %context, i64 {code}, i64 {node}, i64 {index})")


def _is_plain(body: Block) -> bool:
    """Return whether a loop with this body is left to the vectoriser: an inner loop over single values that carries none along."""
    stores = 0
    for statement in walk(body):
        stores += isinstance(statement, Store)
        match statement:
            case Loop() | loops.While() | Invoke() | loops.External() | loops.Fail() | loops.Failed() | loops.Poll():
                return False
            case loops.Load(target=scalar) | loops.Let(target=scalar) if scalar.lanes > 1:
                return False
            case loops.Assign(variable=variable):
                if not any(isinstance(s, loops.Declare) and s.variable is variable for s in body.statements):
                    return False
    return stores > 0


def _counter_flags(loop: Loop) -> str:
    """Return what is certain of the counter's step: it wraps around neither way where all bounds are small numbers."""
    if loop.start.terms or loop.stop.terms:
        return " nsw" if loop.step == 1 else ""  # below `stop`, so one more is no overflow
    if loop.stop.constant + loop.step >= 2**63:
        return ""
    return " nuw nsw" if loop.start.constant >= 0 else " nsw"
