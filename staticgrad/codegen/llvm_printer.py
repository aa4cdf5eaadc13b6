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
from collections.abc import Sequence
from dataclasses import replace

from staticgrad.codegen.callees import Callees
from staticgrad.codegen.llvm_facts import PointerFacts, pointer_facts
from staticgrad.codegen.llvm_text import FunctionText
from staticgrad.codegen.llvm_values import LocalNames
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.errors import VerificationError
from staticgrad.ir import context
from staticgrad.ir.aval import INT64
from staticgrad.ir.loops import WORK_BETWEEN_POLLS, Buffer, Function, Index, Invoke, Scalar, Space, Unit, polls, symbol, walk

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

POLL = f"""\
; whether to go on, so many nanoseconds of work later: no failure is noted, and the poll of the context, if it is time for it, notes none
define internal i1 @poll(ptr %context, i64 %work) #2 {{
entry:
  %left_at = getelementptr inbounds i64, ptr %context, i64 {context.WORK_LEFT}
  %left = load i64, ptr %left_at, align 8
  %rest = sub i64 %left, %work
  store i64 %rest, ptr %left_at, align 8
  %due = icmp slt i64 %rest, 0
  br i1 %due, label %look, label %done
look:
  store i64 {WORK_BETWEEN_POLLS}, ptr %left_at, align 8
  %place = getelementptr inbounds i64, ptr %context, i64 {context.POLL}
  %poll = load ptr, ptr %place, align 8
  %nobody = icmp eq ptr %poll, null
  br i1 %nobody, label %done, label %ask
ask:
  call void %poll(ptr %context)
  br label %done
done:
  %noted = load i64, ptr %context, align 8
  %well = icmp eq i64 %noted, 0
  ret i1 %well
}}"""

PARALLEL = """\
; run blocks of a task: by the parallel_for of the context, or one after the other where it has none
define internal void @parallel(ptr %task, i64 %blocks, ptr %arguments, ptr %workspace, ptr %context) #0 {
entry:
  %place = getelementptr inbounds i64, ptr %context, i64 4
  %parallel_for = load ptr, ptr %place, align 8
  %serial = icmp eq ptr %parallel_for, null
  br i1 %serial, label %loop, label %share
share:
  call void %parallel_for(ptr %task, i64 %blocks, ptr %arguments, ptr %workspace, ptr %context)
  ret void
loop:
  %block = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void %task(ptr %arguments, ptr %workspace, ptr %context, i64 %block)
  %next = add nuw nsw i64 %block, 1
  %more = icmp slt i64 %next, %blocks
  br i1 %more, label %loop, label %done
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
        If the unit breaks a rule that this printer relies on.
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
        self.callees = Callees(unit)
        self.disjoint = disjoint_functions(unit)
        self.facts = pointer_facts(unit)
        self.sizes = {function: sum(1 for _ in walk(function.body)) for function in unit.functions}
        self.called_once = _called_once(unit)
        self.plain_loops = False
        self.tasks: dict[Invoke, str] = {}

    def text(self) -> str:
        """Return the whole module."""
        stages = {"forward": self.unit.forward, "backward": self.unit.backward}
        for reserved in ("fail", "poll", "parallel", *(symbol(self.name, stage) for stage in stages)):
            self.module.unique(reserved)
        parts = [self._function(function) for function in self.unit.functions]
        for stage, calls in stages.items():
            if calls is not None:
                parts += self._stage(stage, calls)
        if self.callees.can_fail:
            parts.insert(0, FAIL)
        if polls(self.unit):
            parts.insert(0, POLL)
        if self.callees.in_blocks or any(call.blocks for call in (*self.unit.forward, *(self.unit.backward or ()))):
            parts.insert(0, PARALLEL)
        head = f"; {self.unit.name}: {'forward' if self.unit.backward is None else 'forward and backward'} kernels"
        declarations = "\n".join(self.declared[name] for name in sorted(self.declared))
        # What a stage calls once becomes a part of it, but not where the vectoriser wants to know that pointers are disjoint.
        attributes = ATTRIBUTES.format("noinline" if self.plain_loops else "alwaysinline")
        tail = [declarations, attributes, PLAIN_LOOPS if self.plain_loops else ""]
        return "\n\n".join(part for part in (head, *parts, *tail) if part) + "\n"

    def _function(self, function: Function) -> str:
        body = FunctionText(self.declared, self.callees)
        behind = [f"ptr %{body.names.unique(name)}" for name in self.callees.behind(function)]
        parameters = []
        for buffer, fact in zip(function.buffers, self.facts[function]):
            body.buffers[buffer] = f"%{body.names.unique(buffer.name)}"
            parameters.append(f"{self._pointer(function, buffer, fact)} {body.buffers[buffer]}")
        for scalar in function.numbers:
            body.scalars[scalar] = f"%{body.names.unique(scalar.hint or 'n')}"
            parameters.append(f"i64 {body.scalars[scalar]}")
        parameters += behind
        name = self.callees.names[function] = f"@{self.module.unique(function.name)}"
        body.body(function.body)
        title = [f"; {' '.join(function.title.split())}"] if function.title else []
        self.plain_loops |= body.plain_loops
        head = f"define internal void {name}({', '.join(parameters)}) #{3 if function in self.called_once else 0} {{"
        text = "\n".join([*title, head, *body.text(), "  ret void", "}"])
        return f"{text}\n\n{self._task_of_parts(function)}" if function in self.callees.in_blocks else text

    def _task_of_parts(self, function: Function) -> str:
        """Return the function that runs one block of a function which others call in blocks: its pointers are handed over in a table."""
        places = tuple((replace(buffer, space=Space.INPUT, position=k), Index()) for k, buffer in enumerate(function.buffers))
        name = self.callees.tasks[function] = f"@{self.module.unique(f'{function.name}_block')}"
        return self._task(name, Invoke(function, places))

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
        self.tasks |= {call: f"@{self.module.unique(f'{call.function.name}_block')}" for call in dict.fromkeys(calls) if call.blocks}
        tasks = [self._task(self.tasks[call], call) for call in dict.fromkeys(calls) if call.blocks]
        if len(groups) == 1:
            return [*tasks, self._part(f"define i64 {exported}({STAGE_PARAMETERS}) #2 {{", calls, title, entry=True)]
        parts, names = [], []
        for group in groups:
            names.append(f"@{self.module.numbered(f'{stage}_part')}")
            head = f"define internal void {names[-1]}({STAGE_PARAMETERS}) #0 {{"
            parts.append(self._part(head, group, f"; run a part of the {stage} kernels"))
        lines = [f"  call void {name}({STAGE_PARAMETERS})" for name in names]
        return [*tasks, *parts, "\n".join([title, f"define i64 {exported}({STAGE_PARAMETERS}) #2 {{", "entry:", *lines, *_CODE, "}"])]

    def _task(self, name: str, call: Invoke) -> str:
        """Return the function that runs one block of a parallel call, wherever the stage is run."""
        body = FunctionText(self.declared, self.callees)
        for reserved in ("arguments", "workspace", "context", "block"):
            body.names.unique(reserved)
        block = Scalar(-1, INT64, hint="block")
        body.scalars[block] = "%block"
        _pointers(body, [call])
        body.invocation(replace(call, numbers=(*call.numbers, Index.of(block)), blocks=0))
        head = f"define internal void {name}({STAGE_PARAMETERS}, i64 %block) #0 {{"
        return "\n".join([f"; run one block of {call.function.name}", head, *body.text(), "  ret void", "}"])

    def _groups(self, calls: Sequence[Invoke]) -> list[list[Invoke]]:
        """Return the calls of a stage, each group small enough for a function."""
        groups: list[list[Invoke]] = [[]]
        size = 0
        for call in calls:
            more = self.sizes[call.function] if call.function in self.called_once and not call.blocks else 1
            if groups[-1] and (size + more > MOST_STATEMENTS or len(groups[-1]) == MOST_CALLS):
                groups.append([])
                size = 0
            groups[-1].append(call)
            size += more
        return groups

    def _part(self, head: str, calls: Sequence[Invoke], title: str, entry: bool = False) -> str:
        body = FunctionText(self.declared, self.callees)
        for reserved in ("arguments", "workspace", "context", "code"):
            body.names.unique(reserved)
        _pointers(body, [call for call in calls if not call.blocks])
        for call in calls:
            if call.blocks:
                body.line(f"call void @parallel(ptr {self.tasks[call]}, i64 {call.blocks}, {STAGE_PARAMETERS})")
            else:
                body.invocation(call)
        return "\n".join([title, head, *body.text(), *(_CODE if entry else ["  ret void"]), "}"])


def _pointers(body: FunctionText, calls: Sequence[Invoke]) -> None:
    """Define the pointer of each buffer that `calls` hand over."""
    for buffer in dict.fromkeys(buffer for call in calls for buffer, _ in call.buffers):
        body.buffers[buffer] = f"%{body.names.unique(buffer.name)}"
        _origin(body, buffer)


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
