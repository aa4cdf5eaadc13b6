"""What `fn.lower(...)` returns: every stage between the user's function and machine code, to be read."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from staticgrad.codegen.memory import Plan
from staticgrad.codegen.schedule import Schedule
from staticgrad.ir.graph import Graph
from staticgrad.ir.loops import external_symbols
from staticgrad.passes.pipeline import PassResult
from staticgrad.runtime.build import Built, Lowering, build, compile_lock, lower_graph


@dataclass(frozen=True)
class Report:
    """Nodes before and after each pass, and loop nests before and after fusion."""

    passes: tuple[PassResult, ...]
    forward_nests: int
    backward_nests: int
    forward_nests_unfused: int
    backward_nests_unfused: int
    parallel_nests: int
    """Nests, fused, that run in blocks on several threads."""

    def __str__(self) -> str:
        lines = [f"{'pass':<28}{'nodes before':>14}{'after':>8}"]
        lines += [f"{result.name:<28}{result.before:>14}{result.after:>8}" for result in self.passes]
        lines.append(f"{'loop nests':<28}{'unfused':>14}{'fused':>8}")
        lines.append(f"{'  forward':<28}{self.forward_nests_unfused:>14}{self.forward_nests:>8}")
        lines.append(f"{'  backward':<28}{self.backward_nests_unfused:>14}{self.backward_nests:>8}")
        if self.parallel_nests:
            lines.append(f"{'  of both, in blocks':<28}{'':>14}{self.parallel_nests:>8}")
        return "\n".join(lines)


class PlannedMemory(int):
    """The most bytes that a call allocates, known before it: a number, and its parts.

    It is the sum of `results` and `workspace`, as exact as the plan that the machine code follows; what the interpreter and NumPy need
    for the objects themselves is some kilobytes more. `arguments` and `constants` are not in it: a call reads them where they are
    (arguments that are not C-contiguous, or not arrays, are copied first). The workspace stays with the compiled function for its next
    call. A while loop that is differentiated counts with all the checkpoints that it may keep; with few steps it touches fewer pages.

    To see the same number from outside, take the growth of `resource.getrusage(resource.RUSAGE_SELF).ru_maxrss` in a call, in a process
    that has not been as large before, and that has loaded what compiled calls need: see `tests/runtime/peaks.py`.

    Attributes
    ----------
    results
        Bytes of the arrays that are returned.
    workspace
        Bytes for all values on the way.
    residuals
        The part of the workspace that carries values from the forward to the backward kernel.
    arguments
        Bytes of the arguments, which are the caller's.
    constants
        Bytes of the arrays that were closed over, which the compiled function holds.
    """

    results: int
    workspace: int
    residuals: int
    arguments: int
    constants: int

    def __new__(cls, plan: Plan) -> PlannedMemory:
        """Return what a memory plan needs."""
        made = super().__new__(cls, plan.peak)
        made.results, made.workspace, made.residuals, made.arguments = plan.results, plan.workspace, plan.residual, plan.inputs
        made.constants = sum(array.nbytes for array in plan.constants)
        return made

    __str__ = int.__repr__

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={number}" for name, number in vars(self).items())
        return f"<{int(self)} bytes: {parts}>"


class LoweredFunction:
    """A function on its way to machine code for one signature."""

    def __init__(self, graph: Graph, backend: str, printer: str = "llvm", fastmath: bool = False, max_memory: int | None = None) -> None:
        self.graph = graph
        self.backend = backend
        self._printer = printer
        self._fastmath = fastmath
        self._max_memory = max_memory

    @functools.cached_property
    def _lowering(self) -> Lowering:
        if self.backend == "cuda":
            from staticgrad.runtime.cuda import lower_cuda

            return lower_cuda(self.graph, fastmath=self._fastmath, max_memory=self._max_memory)
        return lower_graph(self.graph, fastmath=self._fastmath, max_memory=self._max_memory)

    @property
    def optimized(self) -> Graph:
        """The graph after all passes."""
        return self._lowering.optimized

    @property
    def schedule(self) -> Schedule:
        """Every choice of the code generator, as data."""
        return self._lowering.schedule

    @property
    def source(self) -> str:
        """The emitted source: readable Python with the functions `forward` and `backward`."""
        return self._lowering.source

    @property
    def llvm(self) -> str:
        """The same unit as LLVM text, which `printer="llvm"` compiles."""
        return self._lowering.llvm[1]

    @property
    def memory(self) -> PlannedMemory:
        """The most bytes that a call allocates: a number, and its parts as attributes."""
        return PlannedMemory(self._lowering.lowered.plan)

    @property
    def printer(self) -> str:
        """The printer that writes the code to be run."""
        return "cuda" if self.backend == "cuda" else self._printer

    @functools.cached_property
    def report(self) -> Report:
        """What the passes and fusion did."""
        unfused = lower_graph(self.graph, fuse=False, fastmath=self._fastmath).schedule

        def loops(schedule: Schedule, stage: str) -> int:
            return sum(nest.whole is not None or bool(nest.domain) for nest in schedule.stage(stage))

        chosen = self.schedule
        return Report(
            self._lowering.passes,
            loops(chosen, "forward"),
            loops(chosen, "backward"),
            loops(unfused, "forward"),
            loops(unfused, "backward"),
            sum(nest.blocks is not None for nest in chosen.nests),
        )

    @functools.cached_property
    def _compiled(self) -> Any:
        if self.backend == "cuda":
            from staticgrad.runtime.cuda import load_source

            return load_source(self.source)
        from staticgrad.runtime.compile import compile_unit, without_jit

        unit = self._lowering.lowered.unit
        externals = external_symbols(unit)
        with compile_lock:
            if self._printer == "llvm" and not without_jit():
                from staticgrad.runtime.llvm_compile import compile_text

                return compile_text(*self._lowering.llvm, unit.backward is not None, externals)
            return compile_unit(unit.name, self.source, externals)

    @property
    def forward(self) -> Any:
        """The Numba dispatcher of the forward kernel; for CUDA the function that launches the forward kernels."""
        return self._compiled.forward

    @property
    def backward(self) -> Any:
        """The Numba dispatcher of the backward kernel (for CUDA the function that launches); None where nothing is differentiated.

        It writes over what the forward kernel has saved in the workspace.
        """
        return self._compiled.backward

    def compile(self) -> Built:
        """Compile, and return something to call with a list of arrays (the leaves of the arguments)."""
        return build(self.graph, self.backend, self._printer, self._fastmath, self._max_memory)[0]

    def __repr__(self) -> str:
        return f"<lowered {self.graph.name} for {self.backend}>"
