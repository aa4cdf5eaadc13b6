"""The Numba printer: a unit as Python source that a person can read, Numba can compile and Python can run.

```python
@kernel("f32*, f32*")
def nest_0(x, y):
    \"\"\"tanh of `h` (model.py:12)\"\"\"
    for i in range(128):
        y[i] = x[i] * np.float32(2.0)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from staticgrad.codegen.callees import Callees
from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.python_text import FunctionText
from staticgrad.codegen.python_values import WIDTH, Names, docstring, dtype_name, rows, wrapped
from staticgrad.errors import VerificationError
from staticgrad.ir.aval import INT64
from staticgrad.ir.loops import Buffer, Function, Index, Invoke, Scalar, Space, Unit

VOCABULARY = (
    "any_lane", "argument", "bitcast", "call_external", "convert", "extract", "fail", "floor", "fma", "kernel", "load_lanes", "local_array",
    "maximum", "minimum", "mulhi", "offset", "parallel", "pointers", "poll", "quotient", "remainder", "rint", "scratch", "select",
    "shift_left", "shift_right", "splat", "sqrt", "store_lanes", "to_integer", "trunc",
)  # fmt: skip
"""What `staticgrad.runtime.vocabulary` offers to emitted source."""

KINDS = {"arguments": "void**", "workspace": "u8*", "context": "i64*"}
STAGE_PARAMETERS = tuple(KINDS)
"""What a stage takes."""

LONGEST_STAGE = 50
"""The number of calls in one function."""


def short_name(dtype: np.dtype) -> str:
    """Return the dtype as signatures write it: f32, i64, bool."""
    return "bool" if dtype == np.bool_ else f"{dtype.kind}{8 * dtype.itemsize}"


def print_unit(unit: Unit) -> str:
    """Return the unit as source: its functions, then `forward` and, where it has one, `backward`."""
    return _UnitText(unit).text()


def _decorator(kinds: list[str], options: str) -> list[str]:
    line = f'@kernel("{", ".join(kinds)}"{options and f", {options}"})'
    if len(line) <= WIDTH:
        return [line]
    pieces = [f"{kind}, " for kind in kinds]
    pieces[-1] = kinds[-1]
    texts = [f'    "{"".join(row)}"' for row in rows(pieces, WIDTH - 8, gap=0)]
    return ["@kernel(", *texts[:-1], f"{texts[-1]},", *([f"    {options},"] if options else []), ")"]


class _UnitText:
    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.used: set[str] = {"kernel"}
        self.module = Names({"np", "forward", "backward", *STAGE_PARAMETERS, *VOCABULARY})
        self.callees = Callees(unit)
        self.disjoint = disjoint_functions(unit)
        self.tasks: dict[Invoke, str] = {}

    def note(self, name: str) -> str:
        self.used.add(name)
        return name

    def text(self) -> str:
        parts = [self._function(function) for function in self.unit.functions]
        parts += self._stage("forward", self.unit.forward)
        if self.unit.backward is not None:
            parts += self._stage("backward", self.unit.backward)
        what = "forward kernels" if self.unit.backward is None else "forward and backward kernels"
        imports = wrapped(sorted(self.used), "from staticgrad.runtime.vocabulary import ", "", "")
        if len(imports) > 1:
            imports = wrapped(sorted(self.used), "from staticgrad.runtime.vocabulary import (", ")", "")
        head = [f'"""{self.unit.name}: {what}."""', "", "import numpy as np", "", *imports]
        return "\n".join(head) + "\n\n\n" + "\n\n\n".join(parts) + "\n"

    def _function(self, function: Function) -> str:
        names = Names(set(self.module.taken))
        body = FunctionText(names, self.callees, self.note)
        parameters: list[str] = []
        for buffer in function.buffers:
            body.buffers[buffer] = names.unique(buffer.name)
            parameters.append(body.buffers[buffer])
        for scalar in function.numbers:
            parameters.append(names.unique(scalar.hint or "n"))
            body.number(scalar, parameters[-1])
        kinds = [f"{short_name(buffer.dtype)}*" for buffer in function.buffers] + ["i64"] * len(function.numbers)
        for name in self.callees.behind(function):
            parameters.append(name)
            kinds.append(KINDS[name])
        body.body(function.body)
        options = "disjoint=True" if function in self.disjoint and len(function.buffers) > 1 else ""
        name = self.callees.names[function] = self.module.unique(function.name)
        text = "\n".join([*self._head(name, parameters, kinds, function.title, options), *body.lines])
        return f"{text}\n\n\n{self._task_of_parts(function)}" if function in self.callees.in_blocks else text

    def _task_of_parts(self, function: Function) -> str:
        """Return the function that runs one block of a function which others call in blocks: its pointers are handed over in a table."""
        places = tuple((replace(buffer, space=Space.INPUT, position=k), Index()) for k, buffer in enumerate(function.buffers))
        name = self.callees.tasks[function] = self.module.unique(f"{self.callees.names[function]}_block")
        return self._task(name, Invoke(function, places))

    def _head(self, name: str, parameters: list[str], kinds: list[str], title: str, options: str) -> list[str]:
        lines = _decorator(kinds, options)
        lines += wrapped(parameters, f"def {name}(", "):", "")
        if title:
            lines.append(f"    {docstring(title)}")
        return lines

    def _stage(self, name: str, calls: tuple[Invoke, ...]) -> list[str]:
        """Return `forward` or `backward`: pointers out of the table and the workspace, then the calls in order.

        A long stage becomes several functions: compile time grows faster than linearly with the size of one.
        """
        self.tasks = {call: self.module.unique(f"{self.callees.names[call.function]}_block") for call in calls if call.blocks}
        texts, parts = [self._task(task, call) for call, task in self.tasks.items()], []
        if len(calls) <= LONGEST_STAGE:
            return [*texts, self._part(name, calls, f"Run the {name} kernels.", entry=True)]
        for start in range(0, len(calls), LONGEST_STAGE):
            parts.append(self.module.unique(f"{name}_part", 0))
            texts.append(self._part(parts[-1], calls[start : start + LONGEST_STAGE], f"Run a part of the {name} kernels."))
        kinds = list(KINDS.values())
        lines = self._head(name, list(STAGE_PARAMETERS), kinds, f"Run the {name} kernels.", "entry=True")
        lines += [f"    {part}({', '.join(STAGE_PARAMETERS)})" for part in parts]
        return [*texts, "\n".join([*lines, "    return context[0]"])]

    def _part(self, name: str, calls: tuple[Invoke, ...], title: str, entry: bool = False) -> str:
        names = Names(set(self.module.taken))
        body = FunctionText(names, self.callees, self.note)
        self._pointers(body, [call for call in calls if not call.blocks])
        for call in calls:
            if call.blocks:
                items = [self.tasks[call], str(call.blocks), *STAGE_PARAMETERS]
                body.lines += wrapped(items, f"{self.note('parallel')}(", ")", body.indent)
            else:
                body.lines += body.invocation(call)
        if entry:
            body.line("return context[0]")
        kinds = list(KINDS.values())
        return "\n".join([*self._head(name, list(STAGE_PARAMETERS), kinds, title, "entry=True" if entry else ""), *body.lines])

    def _task(self, name: str, call: Invoke) -> str:
        """Return the function that runs one block of a parallel call, wherever the stage is run."""
        names = Names({*self.module.taken, "block"})
        body = FunctionText(names, self.callees, self.note)
        block = Scalar(-1, INT64, hint="block")
        body.number(block, "block")
        self._pointers(body, [call])
        body.lines += body.invocation(replace(call, numbers=(*call.numbers, Index.of(block)), blocks=0))
        title = f"Run one block of {self.callees.names[call.function]}."
        return "\n".join([*self._head(name, [*STAGE_PARAMETERS, "block"], [*KINDS.values(), "i64"], title, ""), *body.lines])

    def _pointers(self, body: FunctionText, calls: Sequence[Invoke]) -> None:
        """Write a line for each buffer that `calls` hand over."""
        for buffer in dict.fromkeys(buffer for call in calls for buffer, _ in call.buffers):
            body.buffers[buffer] = body.names.unique(buffer.name)
            body.line(f"{body.buffers[buffer]} = {self._origin(buffer)}")

    def _origin(self, buffer: Buffer) -> str:
        dtype = dtype_name(buffer.dtype)
        if buffer.space in (Space.INPUT, Space.OUTPUT, Space.CONSTANT):
            return f"{self.note('argument')}(arguments, {buffer.position}, {dtype})"
        if buffer.space in (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL):
            return f"{self.note('scratch')}(workspace, {buffer.offset}, {dtype})"
        raise VerificationError(f"buffer {buffer.name!r} ({buffer.space.value}) cannot be handed to a function of a unit")
