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

import re

import numpy as np

from staticgrad.codegen.overlap import disjoint_functions
from staticgrad.codegen.python_text import FunctionText, can_fail, wrapped
from staticgrad.codegen.python_values import Names, Text, dtype_name
from staticgrad.errors import VerificationError
from staticgrad.ir.loops import Block, Buffer, Function, Invoke, Space, Unit

VOCABULARY = (
    "argument", "bitcast", "convert", "extract", "fail", "fma", "floor", "kernel", "load_lanes", "local_array", "maximum", "minimum",
    "mulhi", "offset", "quotient", "remainder", "rint", "scratch", "select", "shift_left", "shift_right", "splat", "sqrt",
    "store_lanes", "to_integer", "trunc",
)  # fmt: skip
"""What `staticgrad.runtime.vocabulary` offers to emitted source."""

STAGE_PARAMETERS = ("arguments", "workspace", "context")


def short_name(dtype: np.dtype) -> str:
    """Return the dtype as signatures write it: f32, i64, bool."""
    return "bool" if dtype == np.bool_ else f"{dtype.kind}{8 * dtype.itemsize}"


def print_unit(unit: Unit) -> str:
    """Return the unit as source: its functions, then `forward` and, where it has one, `backward`."""
    return _UnitText(unit).text()


class _UnitText:
    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.used: set[str] = {"kernel"}
        self.module = Names({"np", "forward", "backward", *STAGE_PARAMETERS, *VOCABULARY})
        self.functions: dict[Function, str] = {}
        self.disjoint = disjoint_functions(unit)

    def note(self, name: str) -> str:
        self.used.add(name)
        return name

    def text(self) -> str:
        parts: list[str] = []
        for function in self.unit.functions:
            parts.append(self._function(function))
        stages = [self._stage("forward", self.unit.forward)]
        if self.unit.backward is not None:
            stages.append(self._stage("backward", self.unit.backward))
        what = "forward kernel" if self.unit.backward is None else "forward and backward kernels"
        head = [f'"""{self.unit.name}: the {what}."""', "", "import numpy as np", ""]
        imports = wrapped(sorted(self.used), "from staticgrad.runtime.vocabulary import ", "", "")
        if len(imports) > 1:
            imports = wrapped(sorted(self.used), "from staticgrad.runtime.vocabulary import (", ")", "")
        return "\n".join([*head, *imports]) + "\n\n\n" + "\n\n\n".join([*parts, *stages]) + "\n"

    def _function(self, function: Function) -> str:
        names = Names(set(self.module.taken))
        body = FunctionText(function, names, self.functions, self.note)
        parameters: list[str] = []
        for buffer in function.buffers:
            body.buffers[buffer] = names.unique(buffer.name)
            parameters.append(body.buffers[buffer])
        for scalar in function.numbers:
            body.number(scalar, name := names.unique(scalar.hint or "n"))
            parameters.append(name)
        kinds = [f"{short_name(buffer.dtype)}*" for buffer in function.buffers] + ["i64"] * len(function.numbers)
        if can_fail(function):
            parameters.append("context")
            kinds.append("i64*")
        body.block(function.body, 0)
        options = ", disjoint=True" if function in self.disjoint and len(function.buffers) > 1 else ""
        name = self.functions[function] = self.module.unique(function.name)
        return "\n".join([*self._head(name, parameters, kinds, function.title, options), *body.lines])

    def _head(self, name: str, parameters: list[str], kinds: list[str], title: str, options: str) -> list[str]:
        signature = ", ".join(kinds)
        lines = [f'@kernel("{signature}"{options})', *wrapped(parameters, f"def {name}(", "):", "")]
        if title:
            text = re.sub(r"\s+", " ", title).strip().replace("\\", "\\\\").replace('"""', "'''")
            lines.append(f'    """{text}{" " if text.endswith(chr(34)) else ""}"""')
        return lines

    def _stage(self, name: str, calls: tuple[Invoke, ...]) -> str:
        """Return `forward` or `backward`: pointers out of the table and the workspace, then the calls in order."""
        names = Names(set(self.module.taken))
        empty = Function(name, (), (), Block())
        body = FunctionText(empty, names, self.functions, self.note)
        for call in calls:
            for buffer, _ in call.buffers:
                if buffer not in body.buffers:
                    body.buffers[buffer] = names.unique(buffer.name)
                    body.line(f"{body.buffers[buffer]} = {self._origin(buffer).text}")
        for call in calls:
            body.lines += body.invocation(call)
        body.line("return context[0]")
        title = f"Run the {name} kernels."
        return "\n".join([*self._head(name, list(STAGE_PARAMETERS), ["void**", "u8*", "i64*"], title, ", entry=True"), *body.lines])

    def _origin(self, buffer: Buffer) -> Text:
        dtype = dtype_name(buffer.dtype)
        if buffer.space in (Space.INPUT, Space.OUTPUT, Space.CONSTANT):
            return Text(f"{self.note('argument')}(arguments, {buffer.position}, {dtype})")
        if buffer.space in (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL):
            return Text(f"{self.note('scratch')}(workspace, {buffer.offset}, {dtype})")
        raise VerificationError(f"buffer {buffer.name!r} ({buffer.space.value}) cannot be handed to a function of a unit")
