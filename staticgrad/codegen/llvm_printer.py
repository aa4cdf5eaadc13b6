"""The LLVM printer: a unit as LLVM IR text, with the C ABI of every unit.

```llvm
; double of `x` (model.py:12)
define internal void @nest_0(ptr noalias nocapture readonly align 4 %x, ptr noalias nocapture writeonly align 64 %y) #0 {
entry:
  br label %loop_i
loop_i:
  %i = phi i64 [ 0, %entry ], [ %i_next, %loop_i ]
  %x_at0 = getelementptr inbounds float, ptr %x, i64 %i
  ...
```
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from staticgrad.codegen.llvm_facts import ALIGNMENT, PointerFacts, pointer_facts
from staticgrad.codegen.llvm_values import LocalNames, Values, memory_type, register_type, type_suffix
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.python_text import can_fail
from staticgrad.errors import VerificationError
from staticgrad.ir import loops
from staticgrad.ir.aval import BOOL
from staticgrad.ir.loops import Block, Buffer, Function, Index, Invoke, Loop, Space, Statement, Store, Unit, Variable, walk

FAIL = """\
; note a failure, unless an earlier one is noted
define internal void @fail(ptr %context, i64 %code, i64 %node, i64 %index) #1 {
entry:
  %noted = load i64, ptr %context, align 8
  %first = icmp eq i64 %noted, 0
  br i1 %first, label %note, label %done
note:
  store i64 %code, ptr %context, align 8
  %node_at = getelementptr inbounds i64, ptr %context, i64 1
  store i64 %node, ptr %node_at, align 8
  %index_at = getelementptr inbounds i64, ptr %context, i64 2
  store i64 %index, ptr %index_at, align 8
  br label %done
done:
  ret void
}"""

STAGE_PARAMETERS = "ptr %arguments, ptr %workspace, ptr %context"

MOST_CALLS, MOST_STATEMENTS = 20, 300
"""What a function holds at most that others become a part of: the time that LLVM takes for one grows faster than linearly."""

ATTRIBUTES = """\
attributes #0 = {{ nounwind noinline }}
attributes #1 = {{ nounwind noinline cold }}
attributes #2 = {{ nounwind }}
attributes #3 = {{ nounwind {} }}"""

PLAIN_LOOPS = """\
; some loops are left to LLVM's loop vectoriser
!staticgrad.plain_loops = !{!0}
!0 = !{}"""

SHORTEST_PLAIN = 8
"""A loop of fewer iterations is not worth the vectoriser's time."""


def symbol(name: str, stage: str) -> str:
    """Return the exported symbol of a stage: sg_1a2b3c_forward."""
    return f"{name if name.startswith('sg_') else f'sg_{name}'}_{stage}"


def print_llvm(unit: Unit, name: str) -> str:
    """Return the unit as LLVM IR that exports `sg_<name>_forward` and, where it has one, `sg_<name>_backward`.

    Parameters
    ----------
    unit
        A verified unit.
    name
        The name of the symbols; it should hold a hash of the unit's content.

    Raises
    ------
    VerificationError
        If the unit calls a symbol of a library, which this printer cannot do yet, or breaks a rule that it relies on.
    """
    return _UnitText(unit, name).text()


def named_text(unit: Unit) -> tuple[str, str]:
    """Return a name that holds a hash of the unit's text, remarks left out, and the text under that name."""
    text = print_llvm(unit, "unit")
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(";"))
    name = f"sg_{hashlib.sha256(code.encode()).hexdigest()[:24]}"
    for stage in ("forward", "backward"):
        text = text.replace(f"@{symbol('unit', stage)}(", f"@{symbol(name, stage)}(")
    return name, text


class _UnitText:
    def __init__(self, unit: Unit, name: str) -> None:
        self.unit = unit
        self.name = name
        self.declared: dict[str, str] = {}
        self.module = LocalNames()
        self.functions: dict[Function, str] = {}
        self.failing = {function for function in unit.functions if can_fail(function)}
        self.disjoint = disjoint_functions(unit)
        self.facts = pointer_facts(unit)
        self.sizes = {function: sum(1 for _ in walk(function.body)) for function in unit.functions}
        self.called_once = _called_once(unit)
        self.plain_loops = False

    def text(self) -> str:
        """Return the whole module."""
        stages = {"forward": self.unit.forward, "backward": self.unit.backward}
        for reserved in ("fail", *(symbol(self.name, stage) for stage in stages)):
            self.module.unique(reserved)
        parts = [self._function(function) for function in self.unit.functions]
        for stage, calls in stages.items():
            if calls is not None:
                parts += self._stage(stage, calls)
        if self.failing:
            parts.insert(0, FAIL)
        head = f"; {self.unit.name}: {'forward' if self.unit.backward is None else 'forward and backward'} kernels"
        declarations = "\n".join(self.declared[name] for name in sorted(self.declared))
        # What a stage calls once becomes a part of it, but not where the vectoriser wants to know that pointers are disjoint.
        attributes = ATTRIBUTES.format("noinline" if self.plain_loops else "alwaysinline")
        tail = [declarations, attributes, PLAIN_LOOPS if self.plain_loops else ""]
        return "\n\n".join(part for part in (head, *parts, *tail) if part) + "\n"

    def _function(self, function: Function) -> str:
        body = FunctionText(self.declared, self.functions, self.failing)
        parameters = []
        for buffer, fact in zip(function.buffers, self.facts[function]):
            body.buffers[buffer] = f"%{body.names.unique(buffer.name)}"
            parameters.append(f"{self._pointer(function, buffer, fact)} {body.buffers[buffer]}")
        for scalar in function.numbers:
            body.scalars[scalar] = f"%{body.names.unique(scalar.hint or 'n')}"
            parameters.append(f"i64 {body.scalars[scalar]}")
        if function in self.failing:
            parameters.append("ptr %context")
            body.names.unique("context")
        name = self.functions[function] = f"@{self.module.unique(function.name)}"
        body.body(function.body)
        title = [f"; {' '.join(function.title.split())}"] if function.title else []
        self.plain_loops |= body.plain_loops
        head = f"define internal void {name}({', '.join(parameters)}) #{3 if function in self.called_once else 0} {{"
        return "\n".join([*title, head, *body.text(), "  ret void", "}"])

    def _pointer(self, function: Function, buffer: Buffer, fact: PointerFacts) -> str:
        """Return the type of a parameter with all that is known of it."""
        words = ["ptr"]
        if function in self.disjoint:
            words.append("noalias")
        words.append("nocapture")
        if not (fact.reads and fact.writes):
            words.append("readonly" if fact.reads else "writeonly" if fact.writes else "readnone")
        words.append(f"align {fact.alignment}")
        if fact.elements:
            words.append(f"dereferenceable({fact.elements * buffer.dtype.itemsize})")
        return " ".join(words)

    def _stage(self, stage: str, calls: tuple[Invoke, ...]) -> list[str]:
        """Return a stage: pointers out of the table and the workspace, then the calls in order; a long one in several functions."""
        exported = f"@{symbol(self.name, stage)}"
        title = f"; run the {stage} kernels"
        groups = self._groups(calls)
        if len(groups) == 1:
            return [self._part(f"define i64 {exported}({STAGE_PARAMETERS}) #2 {{", calls, title, entry=True)]
        parts, names = [], []
        for group in groups:
            names.append(f"@{self.module.numbered(f'{stage}_part')}")
            head = f"define internal void {names[-1]}({STAGE_PARAMETERS}) #0 {{"
            parts.append(self._part(head, group, f"; run a part of the {stage} kernels"))
        lines = [f"  call void {name}({STAGE_PARAMETERS})" for name in names]
        return [*parts, "\n".join([title, f"define i64 {exported}({STAGE_PARAMETERS}) #2 {{", "entry:", *lines, *_CODE, "}"])]

    def _groups(self, calls: Sequence[Invoke]) -> list[list[Invoke]]:
        """Return the calls of a stage, each group small enough for a function."""
        groups: list[list[Invoke]] = [[]]
        size = 0
        for call in calls:
            more = self.sizes[call.function] if call.function in self.called_once else 1
            if groups[-1] and (size + more > MOST_STATEMENTS or len(groups[-1]) == MOST_CALLS):
                groups.append([])
                size = 0
            groups[-1].append(call)
            size += more
        return groups

    def _part(self, head: str, calls: Sequence[Invoke], title: str, entry: bool = False) -> str:
        body = FunctionText(self.declared, self.functions, self.failing)
        for reserved in ("arguments", "workspace", "context", "code"):
            body.names.unique(reserved)
        for buffer in dict.fromkeys(buffer for call in calls for buffer, _ in call.buffers):
            body.buffers[buffer] = f"%{body.names.unique(buffer.name)}"
            _origin(body, buffer)
        for call in calls:
            body.invocation(call)
        return "\n".join([title, head, *body.text(), *(_CODE if entry else ["  ret void"]), "}"])


def _called_once(unit: Unit) -> set[Function]:
    """Return the functions that one stage calls at one place, and nobody else."""
    calls = Counter(call.function for call in (*unit.forward, *(unit.backward or ())))
    inner = {s.function for function in unit.functions for s in walk(function.body) if isinstance(s, Invoke)}
    return {function for function, count in calls.items() if count == 1 and function not in inner}


_CODE = ["  %code = load i64, ptr %context, align 8", "  ret i64 %code"]


def _origin(body: FunctionText, buffer: Buffer) -> None:
    """Define the pointer of a buffer of the unit."""
    name = body.buffers[buffer]
    if buffer.space in (Space.INPUT, Space.OUTPUT, Space.CONSTANT):
        slot = body.names.unique(f"{buffer.name}_slot")
        body.line(f"%{slot} = getelementptr inbounds ptr, ptr %arguments, i64 {buffer.position}")
        body.line(f"{name} = load ptr, ptr %{slot}, align 8")
    elif buffer.space in (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL):
        body.line(f"{name} = getelementptr i8, ptr %workspace, i64 {buffer.offset}")
    else:
        raise VerificationError(f"buffer {buffer.name!r} ({buffer.space.value}) cannot be handed to a function of a unit")


class FunctionText(Values):
    """The text of one function's body. Mutable scalars are slots on the stack, which LLVM turns into registers."""

    def __init__(self, declared: dict[str, str], calls: dict[Function, str], failing: set[Function]) -> None:
        super().__init__(declared)
        self.calls = calls  # what the internal functions are called
        self.failing = failing  # those that take the context
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
                self.let(statement)
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
                    self.line(f"call void @fail(ptr %context, i64 {code}, i64 {node}, i64 {self.index(index)})")
                self._jump(on)
                self._begin(on)
            case Invoke():
                self.invocation(statement)
            case loops.External(symbol=name):
                raise VerificationError(f"the external symbol {name!r} cannot be called from LLVM text yet")
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
        items = [f"ptr {self.place(buffer, index)}" for buffer, index in statement.buffers]
        items += [f"i64 {self.index(number)}" for number in statement.numbers]
        if statement.function in self.failing:
            items.append("ptr %context")
        self.line(f"call void {self.calls[statement.function]}({', '.join(items)})")


def _is_plain(body: Block) -> bool:
    """Return whether a loop with this body is left to the vectoriser: an inner loop over single values that carries none along."""
    stores = 0
    for statement in walk(body):
        stores += isinstance(statement, Store)
        match statement:
            case Loop() | loops.While() | Invoke() | loops.Fail():
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
