"""From a graph to something that runs: passes, schedule, lowering, printing, compiling, with both caches."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from staticgrad.codegen.blocks import GRAIN, Grain, divide
from staticgrad.codegen.fused_products import with_fused_products
from staticgrad.codegen.llvm_printer import named_text
from staticgrad.codegen.lower import Lowered, lower
from staticgrad.codegen.numba_printer import print_unit
from staticgrad.codegen.schedule import Schedule, schedule
from staticgrad.codegen.widen import widened
from staticgrad.config import BACKENDS, config
from staticgrad.errors import InvalidValueError
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.verify import verify
from staticgrad.passes.pipeline import PassResult, optimize
from staticgrad.runtime.cache import DiskCache, Entry, environment_parts, unit_key
from staticgrad.runtime.executor import CallPlan, Executable

log = logging.getLogger("staticgrad.cache")


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
        return print_unit(self.lowered.unit)

    @functools.cached_property
    def llvm(self) -> tuple[str, str]:
        """The name of the unit as LLVM text, which holds a hash of it, and the text."""
        return named_text(widened(self.lowered.unit))

    @functools.cached_property
    def call_plan(self) -> CallPlan:
        """What a call needs to know."""
        unique = list(dict.fromkeys(self.optimized.outputs))
        return CallPlan(
            inputs=tuple(v.aval for v in self.optimized.inputs),
            constants=self.lowered.constants,
            outputs=tuple(v.aval for v in self.schedule.outputs),
            order=tuple(unique.index(v) for v in self.optimized.outputs),
            workspace=self.lowered.unit.workspace,
            residual=self.lowered.unit.residual,
            parallel=any(nest.blocks is not None for nest in self.schedule.nests),
        )


def lower_graph(
    graph: Graph,
    fuse: bool = True,
    to_loops: Callable[[Schedule, str], Lowered] = lower,
    grain: Grain = GRAIN,
    fastmath: bool = False,
) -> Lowering:
    """Return the lowering of `graph`, for CPUs unless `to_loops` makes another unit of its schedule.

    `grain` says which nests for CPUs become parallel blocks; with `fastmath` the last digits of results may differ.
    """
    if config().verify:
        verify(graph)
    optimized, passes = optimize(graph, fastmath)
    chosen = schedule(optimized, fuse and "fuse" not in config().skip)
    if to_loops is lower:
        divide(chosen, grain)
    lowered = to_loops(chosen, f"sg_{graph.digest[:16]}")
    if fastmath:
        lowered = replace(lowered, unit=with_fused_products(lowered.unit))
    if config().verify:
        verify_unit(lowered.unit, after="lowering")
    return Lowering(graph, optimized, tuple(passes), chosen, lowered)


@dataclass(eq=False)
class Built:
    """A runnable graph, and where it came from: `compiled`, `disk` or `memory`."""

    run: Callable[..., list[np.ndarray]]
    """Takes the arrays, and how many threads may share the work (None: the default)."""

    executable: Executable | None
    lowering: Lowering | None
    origin: str


_memory: dict[tuple[str, str, str, bool], Built] = {}

compile_lock = threading.RLock()
"""Held while anything is traced or compiled: one at a time, and never across a fork, so that a child finds no lock taken."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=compile_lock.acquire, after_in_parent=compile_lock.release, after_in_child=compile_lock.release)


def build(graph: Graph, backend: str, printer: str | None = None, fastmath: bool = False) -> tuple[Built, str]:
    """Return `graph` as something to call with arrays, and where it was found: memory, disk or compiled.

    On CPUs the `printer`, by default the configuration's, writes what is compiled. The interpreter knows no `fastmath`.
    """
    if backend == "interp":
        return Built(lambda arrays, threads=None: interpret(graph, arrays), None, None, "interp"), "compiled"
    if backend not in BACKENDS:
        raise InvalidValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")
    printer = (printer or config().printer) if backend == "cpu" else ""
    key = (graph.digest, backend, printer, fastmath)
    with compile_lock:
        found = _memory.get(key)
        if found is not None:
            return found, "memory"
        built = _memory[key] = _build_cpu(graph, printer, fastmath) if backend == "cpu" else _build_cuda(graph, fastmath)
    return built, built.origin


def _build_cuda(graph: Graph, fastmath: bool) -> Built:
    from staticgrad.runtime.cuda import build_cuda

    return build_cuda(graph, fastmath)


def forget() -> None:
    """Drop every unit this process holds in memory."""
    with compile_lock:
        _memory.clear()


def _build_cpu(graph: Graph, printer: str, fastmath: bool) -> Built:
    from staticgrad.runtime.compile import Stage

    lowering = lower_graph(graph, fastmath=fastmath)
    has_backward = lowering.lowered.unit.backward is not None
    if printer == "llvm":
        forward, backward, origin = machine_code_of_text(*lowering.llvm, has_backward, graph.name)
    else:
        forward, backward, origin = machine_code(lowering.source, has_backward, graph.name)
    executable = Executable(lowering.call_plan, Stage(forward), Stage(backward) if backward is not None else None)
    return Built(executable, executable, lowering, origin)


def machine_code(source: str, has_backward: bool, title: str) -> tuple[int, int | None, str]:
    """Return the addresses of the stages in a Numba source, and where they were found: disk or compiled."""
    key = _key("numba", source)
    return _addresses(key, f"sg_{key[:24]}", source, has_backward, title, ".py")


def machine_code_of_text(name: str, text: str, has_backward: bool, title: str) -> tuple[int, int | None, str]:
    """Return the addresses of the stages in the LLVM text of a unit, and where they were found: disk or compiled.

    The name holds a hash of the text but for its remarks, so a function that moved to another line is found again.
    """
    return _addresses(_key("llvm", name), name, text, has_backward, title, ".ll")


def _key(printer: str, source: str) -> str:
    return unit_key({**environment_parts(), "cpu": _cpu(), "compiler": _compiler(), "printer": printer, "source": source})


def _addresses(key: str, name: str, source: str, has_backward: bool, title: str, suffix: str) -> tuple[int, int | None, str]:
    from staticgrad.runtime.compile import compile_unit, load_object
    from staticgrad.runtime.llvm_compile import compile_text

    if config().dump is not None:
        config().dump.joinpath(f"{name}{suffix}").write_text(source, encoding="utf-8")  # type: ignore[union-attr]
    disk = None if config().cache is None else DiskCache(config().cache)  # type: ignore[arg-type]
    entry = disk.get(key) if disk is not None else None
    if entry is not None:
        forward, backward = load_object(name, entry.payload, has_backward)
        origin = "disk"
    else:
        compiled = compile_text(name, source, has_backward) if suffix == ".ll" else compile_unit(name, source)
        forward, backward = compiled.forward_address, compiled.backward_address
        origin = "compiled"
        if disk is not None and compiled.object_code:
            disk.put(key, Entry({"title": title}, compiled.object_code))
    if "cache" in config().log:
        log.info("%s %s: %s", name, title, origin)
    return forward, backward, origin


@functools.cache
def _compiler() -> str:
    """Return a digest of what turns source into machine code, so that objects made by another state of it are not taken."""
    folder = Path(__file__).parent
    sha = hashlib.sha256()
    for path in sorted([*folder.glob("vocabulary/*.py"), folder / "assemble.py", folder / "compile.py", folder / "llvm_compile.py"]):
        sha.update(path.read_bytes())
    return sha.hexdigest()


@functools.cache
def _cpu() -> str:
    """Return the processor's name and features, for which machine code is made."""
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
