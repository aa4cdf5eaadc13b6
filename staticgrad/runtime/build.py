"""From a graph to something that runs: passes, schedule, lowering, printing, compiling, with both caches."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from staticgrad.config import BACKENDS, config
from staticgrad.errors import InvalidValueError
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.loops import external_symbols
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.runtime.executor import CallPlan, Executable
from staticgrad.runtime.report import UnitReport, note_memory_hit, note_unit, phase
from staticgrad.runtime.stored_units import StoredUnit, fetch, graph_parts, store
from staticgrad.runtime.unit_key import environment_parts, unit_key

if TYPE_CHECKING:  # a graph whose machine code is on the disk needs neither passes nor code generation
    from staticgrad.codegen.blocks import Grain
    from staticgrad.codegen.budget import Budget
    from staticgrad.codegen.lower import Lowered
    from staticgrad.codegen.schedule import Schedule
    from staticgrad.passes.pipeline import PassResult
    from staticgrad.runtime.compile import CompiledUnit


@dataclass(frozen=True, eq=False)
class Lowering:
    """Everything between a graph and its machine code."""

    graph: Graph
    optimized: Graph
    passes: tuple[PassResult, ...]
    schedule: Schedule
    lowered: Lowered

    @functools.cached_property
    def source(self) -> str:
        """The emitted source."""
        from staticgrad.codegen.numba_printer import print_unit

        with phase("print"):
            return print_unit(self.lowered.unit)

    @functools.cached_property
    def llvm(self) -> tuple[str, str]:
        """The name of the unit as LLVM text, which holds a hash of it, and the text."""
        from staticgrad.codegen.llvm_printer import named_text
        from staticgrad.codegen.widen import widened

        with phase("print"):
            return named_text(widened(self.lowered.unit))

    @functools.cached_property
    def call_plan(self) -> CallPlan:
        """What a call needs to know."""
        from staticgrad.codegen.blocks import estimated_work
        from staticgrad.ir.loops import calls, polls

        unique = list(dict.fromkeys(self.optimized.outputs))
        made, storage = self.schedule, self.schedule.storage
        written = {storage(target) for nest in made.stage("forward") for target in nest.targets}
        return CallPlan(
            inputs=tuple(v.aval for v in self.optimized.inputs),
            constants=self.lowered.constants,
            outputs=tuple(v.aval for v in made.outputs),
            order=tuple(unique.index(v) for v in self.optimized.outputs),
            workspace=self.lowered.unit.workspace,
            residual=self.lowered.unit.residual,
            work=sum(map(estimated_work, made.nests)),
            early=tuple(k for k, output in enumerate(made.outputs) if storage(output) in written),
            parallel=any(call.blocks for call in calls(self.lowered.unit)),
            polls=polls(self.lowered.unit),
        )


def lower_graph(
    graph: Graph,
    fuse: bool = True,
    to_loops: Callable[[Schedule, str], Lowered] | None = None,
    grain: Grain | None = None,
    fastmath: bool = False,
    max_memory: int | None = None,
) -> Lowering:
    """Return the lowering of `graph`, for CPUs unless `to_loops` makes another unit of its schedule.

    `grain` says which nests for CPUs become parallel blocks; with `fastmath` the last digits of results may differ. With `max_memory`,
    values are computed anew rather than kept until workspace and outputs take no more bytes than that.
    """
    with phase("imports"):
        from staticgrad.codegen.blocks import GRAIN, divide
        from staticgrad.codegen.budget import without_saving
        from staticgrad.codegen.lower import lower
        from staticgrad.codegen.order import in_frugal_order
        from staticgrad.codegen.scheduler import schedule
        from staticgrad.ops.checkpoint import without_marks
        from staticgrad.passes.pipeline import optimize

    if config().verify:
        from staticgrad.ir.verify import verify

        verify(graph)
    with phase("passes"):
        marked, passes = optimize(graph, fastmath)
        optimized, unsaved = without_marks(marked)
    name = f"sg_{inline_calls(graph, keep_rules=False).digest[:16]}"
    to_unit = to_loops or functools.partial(lower, grain=grain or GRAIN)

    def in_blocks(made: Schedule) -> Schedule:
        return divide(made, grain or GRAIN) if to_loops is None else made

    def scheduled(graph: Graph) -> Schedule:
        with phase("schedule"):
            return in_blocks(in_frugal_order(schedule(graph, fuse and "fuse" not in config().skip)))

    def lowered_from(chosen: Schedule) -> Lowered:
        with phase("lowering"):
            return to_unit(chosen, name)

    first = scheduled(optimized)
    chosen = without_saving(first, unsaved) if unsaved else first
    lowered = lowered_from(chosen)
    if max_memory is not None and lowered.plan.peak > max_memory:
        search = _Search(max_memory, unsaved, scheduled, in_blocks, lowered_from, lowered.plan.peak, to_loops is not None)
        optimized, chosen, lowered = search.run(optimized, first)
    with phase("lowering"):
        if fastmath:
            from staticgrad.codegen.fused_products import with_fused_products

            lowered = replace(lowered, unit=with_fused_products(lowered.unit))
    if config().verify:
        from staticgrad.ir.loop_verify import verify_unit

        verify_unit(lowered.unit, after="lowering")
    return Lowering(graph, optimized, tuple(passes), chosen, lowered)


MOST_READS = (8, 2)
"""So many arrays are read by the nests of a schedule that is to need little memory; the smaller number where the larger does not do."""

SLOW = 1.5
"""A schedule within a budget that takes so much more work than one without is compared with others."""


@dataclass(frozen=True)
class _Search:
    """The search for a schedule that needs at most `max_memory` bytes, where only that is computed anew which is `unsaved` it is `peak`."""

    max_memory: int
    unsaved: Set[Value]
    scheduled: Callable[[Graph], Schedule]
    in_blocks: Callable[[Schedule], Schedule]
    lowered_from: Callable[[Schedule], Lowered]
    peak: int
    on_gpu: bool

    def run(self, graph: Graph, schedule: Schedule) -> tuple[Graph, Schedule, Lowered]:
        """Return a graph that does what `graph` does, its schedule and its unit, or raise where nothing is found."""
        from staticgrad.codegen.blocks import estimated_work
        from staticgrad.passes.segments import divided_loops

        enough = SLOW * sum(map(estimated_work, schedule.nests))
        fitting: list[tuple[float, Graph, Schedule, Lowered]] = []
        budgets: list[tuple[Graph, Budget]] = []
        for each, most_reads in itertools.product(dict.fromkeys((graph, divided_loops(graph))), MOST_READS):
            budget = self._budget(schedule if each is graph else self.scheduled(each), most_reads)
            budgets.append((each, budget))
            with phase("schedule"):
                chosen = budget.fitting()
            if chosen is not None and (lowered := self.lowered_from(chosen)).plan.peak <= self.max_memory:
                work = sum(map(estimated_work, chosen.nests))
                fitting.append((work, each, chosen, lowered))
                if work <= enough:
                    break
        if fitting:
            return min(fitting, key=lambda choice: choice[0])[1:]
        least = self.peak
        for each, budget in budgets:
            with phase("schedule"):
                chosen = budget.smallest()
            lowered = self.lowered_from(chosen)
            if lowered.plan.peak <= self.max_memory:
                return each, chosen, lowered
            least = min(least, lowered.plan.peak)
        raise InvalidValueError(
            at_user_line(
                f"{graph.name}: max_memory={self.max_memory} bytes is too small: with all that can be computed anew, results and workspace "
                f"take {least} bytes, without a limit {self.peak}; pass max_memory={least} or more, or smaller arguments"
            )
        )

    def _budget(self, schedule: Schedule, most_reads: int) -> Budget:
        """Return the search in a schedule with little in hand at a time."""
        from staticgrad.codegen.apart import apart
        from staticgrad.codegen.budget import Budget
        from staticgrad.codegen.memory import plan
        from staticgrad.codegen.order import in_frugal_order

        with phase("schedule"):
            frugal = self.in_blocks(in_frugal_order(apart(schedule, most_reads), tight=True))
            plain = not self.on_gpu and all(nest.nested is None and nest.rows is None for nest in frugal.nests)
            scratch = 0 if plain else self.lowered_from(frugal).plan.peak - plan(frugal).peak
            return Budget(frugal, self.max_memory, scratch, self.unsaved)


@dataclass(eq=False)
class Built:
    """A runnable graph, and where it came from: `compiled`, `disk` or `memory`."""

    run: Callable[..., list[np.ndarray]]
    """Takes the arrays, and how many threads may share the work (None: the default)."""

    executable: Executable | None
    origin: str


_memory: dict[tuple[object, ...], Built] = {}

compile_lock = threading.RLock()
"""Held while anything is traced or compiled: one at a time, and never across a fork, so that a child finds no lock taken."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=compile_lock.acquire, after_in_parent=compile_lock.release, after_in_child=compile_lock.release)


def build(
    graph: Graph, backend: str, printer: str | None = None, fastmath: bool = False, max_memory: int | None = None
) -> tuple[Built, str]:
    """Return `graph` as something to call with arrays, and where it was found: memory, disk or compiled.

    On CPUs the `printer`, by default the configuration's, writes what is compiled. The interpreter knows neither `fastmath` nor
    `max_memory`.
    """
    if backend == "interp":
        return Built(lambda arrays, threads=None: interpret(graph, arrays), None, "interp"), "compiled"
    if backend not in BACKENDS:
        raise InvalidValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")
    graph = inline_calls(graph, keep_rules=False)  # the key must not depend on rules for derivatives, which differ from trace to trace
    printer = (printer or config().printer) if backend == "cpu" else ""
    key = (graph.digest, backend, printer, fastmath, max_memory, config().skip, config().rewrite_limit)
    with compile_lock:
        found = _memory.get(key)
        if found is not None:
            note_memory_hit()
            return found, "memory"
        make = functools.partial(_build_cpu, printer=printer) if backend == "cpu" else _build_cuda
        built = _memory[key] = make(graph, fastmath=fastmath, max_memory=max_memory)
    return built, built.origin


def _build_cuda(graph: Graph, fastmath: bool, max_memory: int | None) -> Built:
    from staticgrad.runtime.cuda import build_cuda

    return build_cuda(graph, fastmath, max_memory)


def forget() -> None:
    """Drop every unit this process holds in memory."""
    with compile_lock:
        _memory.clear()


def _build_cpu(graph: Graph, printer: str, fastmath: bool, max_memory: int | None) -> Built:
    started = time.perf_counter()
    with phase("imports"):
        from staticgrad.runtime.compile import Stage, compile_unit
        from staticgrad.runtime.llvm_compile import compile_text

    with phase("disk cache"):
        parts = graph_parts(graph, printer, fastmath, max_memory)
    found = None if printer == "numba" and config().without_jit else fetch(graph.name, parts, graph)
    if found is not None:
        unit, addresses = found
    else:
        lowering = lower_graph(graph, fastmath=fastmath, max_memory=max_memory)
        loops = lowering.lowered.unit
        if printer == "llvm":
            name, text = lowering.llvm
            _dump(f"{name}.ll", text)
            compiled: CompiledUnit = compile_text(name, text, loops.backward is not None, external_symbols(loops))
        else:
            name = f"sg_{unit_key(parts)[:24]}"
            _dump(f"{name}.py", lowering.source)
            compiled = compile_unit(name, lowering.source, external_symbols(loops))
        addresses = compiled.addresses
        functions, nests = len(loops.functions), len(lowering.schedule.nests)
        unit = StoredUnit(name, compiled.object_code, compiled.symbols, lowering.call_plan, functions, nests)
        store(graph.name, parts, unit, graph)
    assert unit.plan is not None
    origin = "compiled" if found is None else "disk"
    executable = Executable(unit.plan, Stage(addresses[0]), Stage(addresses[1]) if len(addresses) == 2 else None)
    seconds = time.perf_counter() - started
    note_unit(UnitReport(graph.name, printer, origin, unit.functions, unit.nests, len(unit.object_code), seconds))
    return Built(executable, executable, origin)


def machine_code(source: str, has_backward: bool, title: str) -> tuple[int, int | None, str]:
    """Return the addresses of the stages in a Numba source, and where they were found: disk or compiled."""
    from staticgrad.runtime.compile import compile_unit

    parts = {**environment_parts("numba"), "source": hashlib.sha256(source.encode()).hexdigest()}
    found = None if config().without_jit else fetch(title, parts)
    if found is not None:
        addresses, origin = found[1], "disk"
    else:
        name = f"sg_{unit_key(parts)[:24]}"
        _dump(f"{name}.py", source)
        compiled = compile_unit(name, source)
        store(title, parts, StoredUnit(name, compiled.object_code, compiled.symbols))
        addresses, origin = compiled.addresses, "compiled"
    return addresses[0], addresses[1] if has_backward else None, origin


def machine_code_of_library(name: str, text: str, exported: Sequence[str]) -> list[int]:
    """Return the addresses of the functions that LLVM text of the package itself exports."""
    from staticgrad.runtime.compile import link
    from staticgrad.runtime.llvm_compile import assemble_library

    parts = {**environment_parts("library"), "source": hashlib.sha256(text.encode()).hexdigest()}
    found = fetch(name, parts)
    if found is not None:
        return found[1]
    unit = StoredUnit(name, assemble_library(name, text), tuple(exported))
    store(name, parts, unit)
    return link(name, unit.object_code, exported)


def _dump(name: str, text: str) -> None:
    if (folder := config().dump) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_text(text, encoding="utf-8")
