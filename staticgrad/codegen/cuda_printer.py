"""The CUDA printer: a unit as Python source with `@cuda.jit` kernels, and the functions that launch them.

```python
@cuda.jit
def nest_0(x, b, out0):
    \"\"\"tanh, multiply (model.py:12)\"\"\"
    for i in range(cuda.grid(1), 1000, cuda.gridsize(1)):
        out0[i] = x[i] * b[i % 10]


def forward(arguments, workspace, context):
    \"\"\"Launch the forward kernels.\"\"\"
    x = arguments[0]
    b = arguments[1]
    out0 = arguments[2]
    nest_0[blocks(1000), THREADS](x, b, out0)
```

`arguments` is a list of flat device arrays, `workspace` a device array of bytes, `context` one of eight int64. A kernel's threads
share its outermost loop; whatever the launch configuration, an element is computed by one thread in one order.
"""

from __future__ import annotations

import numpy as np

from staticgrad.codegen.callees import Callees
from staticgrad.codegen.python_text import FunctionText
from staticgrad.codegen.python_values import PRODUCT, Names, Text, docstring, dtype_name, wrapped
from staticgrad.errors import VerificationError
from staticgrad.ir.loops import (
    Block,
    Buffer,
    Fail,
    Function,
    Index,
    Invoke,
    Let,
    Load,
    Local,
    Loop,
    Scalar,
    Space,
    Statement,
    Store,
    Unit,
    walk,
)

VOCABULARY = frozenset({
    "bitcast", "floor", "fma", "maximum", "minimum", "mulhi", "quotient", "remainder", "rint", "select", "shift_left",
    "shift_right", "sqrt", "times", "to_integer", "trunc",
})  # fmt: skip
"""What `staticgrad.runtime.cuda_vocabulary` offers to emitted kernels, beside `cuda` itself and the launch configuration."""

LAUNCH = ("THREADS", "blocks")

STAGE_PARAMETERS = ("arguments", "workspace", "context")

ROUNDED = frozenset({"lt", "le", "eq", "ne", "mul", "div", "fma", "sqrt", "floor", "rint", "trunc"})
"""Instructions into which a product that they read is never fused."""


def print_cuda(unit: Unit) -> str:
    """Return the unit as source: its kernels, then `forward` and, where it has one, `backward`, which launch them."""
    return _CudaText(unit).text()


def launch_extent(function: Function) -> int:
    """Return how many threads' work a kernel is: the extent of its parallel loop, 1 if it has none."""
    loops = [s for s in function.body.statements if isinstance(s, Loop) and s.parallel]
    if not loops:
        return 1
    if len(loops) > 1 or loops[0].start != Index() or loops[0].stop.terms or loops[0].step != 1:
        raise VerificationError(f"function {function.name!r} is not one parallel loop from 0 to a known end: it cannot be a kernel")
    return loops[0].stop.constant


class KernelText(FunctionText):
    """The text of a kernel's body, or of a function that kernels call."""

    is_kernel = True

    def body(self, block: Block) -> None:
        """Print the body of a function."""
        self._counting: set[Scalar] = set()  # counters, which are never negative, and what is made of them by // and %
        self._loaded = {statement.buffer for statement in walk(block) if isinstance(statement, Load)}
        super().body(block)

    def _statement(self, statement: Statement, block: Block, position: int) -> None:
        if isinstance(statement, Local):
            self.buffers[statement.buffer] = self.names.unique(statement.buffer.name)
            self.line(f"{self.buffers[statement.buffer]} = cuda.local.array({statement.buffer.size}, {dtype_name(statement.buffer.dtype)})")
            return
        if isinstance(statement, Loop) and self._is_count(statement.start):
            self._counting.add(statement.counter)
        super()._statement(statement, block, position)

    def _is_count(self, index: Index) -> bool:
        return index.constant >= 0 and all(scalar in self._counting and factor > 0 for scalar, factor in index.terms)

    def _range(self, loop: Loop) -> str:
        if loop.parallel and self.is_kernel and self._level == 1:
            return f"cuda.grid(1), {self.index(loop.stop).text}, cuda.gridsize(1)"
        return super()._range(loop)

    def _operation(self, let: Let) -> Text:
        if let.target.lanes > 1 or any(operand.lanes > 1 for operand in let.operands):
            raise VerificationError(f"{let.opcode} of several lanes: a thread of a GPU has none")
        divisor = let.operands[-1].literal
        if let.opcode in ("quotient", "remainder") and let.operands[0] in self._counting and divisor is not None and divisor.item() > 0:
            self._counting.add(let.target)
            symbol = "//" if let.opcode == "quotient" else "%"
            return Text(f"{self.value(let.operands[0]).within(PRODUCT)} {symbol} {divisor}", PRODUCT, loose=True)
        return super()._operation(let)

    def _operator(self, let: Let) -> Text:
        if self._may_be_fused(let):
            return self.call("times", *(self.value(operand).text for operand in let.operands))
        return super()._operator(let)

    def _assignment(self, name: str, value: Scalar) -> str:
        let = self._lets.get(value)
        if let is not None and self._may_be_fused(let):
            return f"{name} = {self.value(value, typed=True).text}"
        return super()._assignment(name, value)

    def _fail(self, statement: Fail) -> None:
        """Note the failure with plain stores: of several at once some one is kept."""
        self.line(f"if {self.value(statement.condition).text}:")
        self.line(f"    context[0], context[1], context[2] = {statement.code}, {statement.node}, {self.index(statement.index).text}")

    def _name(self, target: Scalar, text: Text, noun: str) -> None:
        names = {"quotient": "row", "remainder": "column"}
        let = self._lets.get(target)
        super()._name(target, text, names.get(let.opcode, noun) if let is not None and target in self._counting else noun)

    def _may_be_fused(self, let: Let) -> bool:
        """Return whether NVIDIA's compiler might fuse a product with an addition that reads it."""
        if let.opcode != "mul" or let.target.dtype.kind != "f":
            return False
        return not all(
            (isinstance(user, Let) and user.opcode in ROUNDED) or (isinstance(user, Store) and user.buffer not in self._loaded)
            for user in self._users.get(let.target, [])
        )

    def _pointer(self, buffer: Buffer, index: Index) -> str:
        text = self.index(index).text
        return self.buffer(buffer) if text == "0" else f"{self.buffer(buffer)}[{text}:]"


class _CudaText:
    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.used: set[str] = {"cuda"}
        self.module = Names({"np", "cuda", "forward", "backward", *STAGE_PARAMETERS, *VOCABULARY, *LAUNCH})
        self.callees = Callees(unit)
        bodies = (statement for function in unit.functions for statement in walk(function.body))
        self.internal = {statement.function for statement in bodies if isinstance(statement, Invoke)}

    def note(self, name: str) -> str:
        if name not in VOCABULARY and name not in LAUNCH:
            raise VerificationError(f"{name!r} is not in the vocabulary of CUDA kernels")
        self.used.add(name)
        return name

    def text(self) -> str:
        parts = [self._function(function) for function in self.unit.functions]
        parts.append(self._stage("forward", self.unit.forward))
        if self.unit.backward is not None:
            parts.append(self._stage("backward", self.unit.backward))
        what = "forward kernels" if self.unit.backward is None else "forward and backward kernels"
        source = "from staticgrad.runtime.cuda_vocabulary import "
        imports = wrapped(sorted(self.used), source, "", "")
        if len(imports) > 1:
            imports = wrapped(sorted(self.used), f"{source}(", ")", "")
        numpy = ["import numpy as np", ""] if any("np." in part for part in parts) else []
        head = [f'"""{self.unit.name}: {what} for CUDA GPUs."""', "", *numpy, *imports]
        return "\n".join(head) + "\n\n\n" + "\n\n\n".join(parts) + "\n"

    def _function(self, function: Function) -> str:
        names = Names(set(self.module.taken))
        body = KernelText(names, self.callees, self.note)
        body.is_kernel = function not in self.internal
        parameters: list[str] = []
        for buffer in function.buffers:
            body.buffers[buffer] = names.unique(buffer.name)
            parameters.append(body.buffers[buffer])
        for scalar in function.numbers:
            parameters.append(names.unique(scalar.hint or "n"))
            body.number(scalar, parameters[-1])
        parameters += self.callees.behind(function)
        body.body(function.body)
        name = self.callees.names[function] = self.module.unique(function.name)
        decorator = "@cuda.jit" if body.is_kernel else '@cuda.jit(device=True, inline="always")'
        head = [decorator, *wrapped(parameters, f"def {name}(", "):", "")]
        if function.title:
            head.append(f"    {docstring(function.title)}")
        return "\n".join([*head, *body.lines])

    def _stage(self, name: str, calls: tuple[Invoke, ...]) -> str:
        """Return `forward` or `backward`: arrays out of the arguments and the workspace, then the launches in order."""
        names = Names(set(self.module.taken))
        body = KernelText(names, self.callees, self.note)
        for call in calls:
            for buffer, _ in call.buffers:
                if buffer not in body.buffers:
                    body.buffers[buffer] = names.unique(buffer.name)
                    body.line(f"{body.buffers[buffer]} = {_origin(buffer)}")
        for call in calls:
            name_of_kernel = self.callees.names[call.function]
            extent = launch_extent(call.function)
            launch = "1, 1" if extent == 1 else f"{self.note('blocks')}({extent}), {self.note('THREADS')}"
            items = [body._pointer(buffer, index) for buffer, index in call.buffers]
            items += [str(number.constant) for number in call.numbers]
            items += self.callees.behind(call.function)
            body.lines += wrapped(items, f"{name_of_kernel}[{launch}](", ")", body.indent)
        signature = f"def {name}({', '.join(STAGE_PARAMETERS)}):"
        return "\n".join([signature, f'    """Launch the {name} kernels."""', *body.lines])


def _origin(buffer: Buffer) -> str:
    if buffer.space in (Space.INPUT, Space.OUTPUT, Space.CONSTANT):
        return f"arguments[{buffer.position}]"
    if buffer.space in (Space.WORKSPACE, Space.SLOT, Space.RESIDUAL):
        stop = buffer.offset + buffer.size * np.dtype(buffer.dtype).itemsize
        return f"workspace[{buffer.offset}:{stop}].view({dtype_name(buffer.dtype)})"
    raise VerificationError(f"buffer {buffer.name!r} ({buffer.space.value}) cannot be handed to a kernel")
