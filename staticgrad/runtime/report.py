"""What compiling costs a process: time by phase, and a line a unit. Always on: a phase costs about a microsecond."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

PHASES = (
    "imports", "trace", "derivatives", "passes", "schedule", "lowering", "print", "Numba", "LLVM parse", "LLVM optimise",
    "LLVM codegen", "disk cache", "load",
)  # fmt: skip
"""Every phase, in the order in which a function goes through them."""


@dataclass(frozen=True)
class UnitReport:
    """One compiled graph.

    Attributes
    ----------
    title : str
        The function it computes: `"grad(loss)"`.
    printer : str
        What wrote its source: `"llvm"`, `"numba"` or `"cuda"`.
    origin : str
        `"compiled"`, or `"disk"` where machine code was found there.
    functions, nests : int
        Functions that were emitted, and the loop nests that call them; equal nests share a function.
    bytes : int
        The size of its machine code, 0 where there is none.
    seconds : float
        From the graph to something that can be called; tracing and differentiating are not part of it.
    """

    title: str
    printer: str
    origin: str
    functions: int
    nests: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class CompileReport:
    """What this process compiled, and where the time went; `str` of it is a table.

    Attributes
    ----------
    phases : dict of str to float
        Seconds by phase, in the order of `PHASES`; the time of a phase inside another one counts once, for the inner one.
    units : tuple of UnitReport
        One for each graph that was compiled or found on the disk.
    memory_hits : int
        How often an equal graph was compiled already in this process.
    """

    phases: dict[str, float]
    units: tuple[UnitReport, ...]
    memory_hits: int

    @property
    def seconds(self) -> float:
        """The time of all phases together."""
        return sum(self.phases.values())

    @property
    def compiled(self) -> int:
        """The number of units that were compiled."""
        return len(self.units) - self.disk_hits

    @property
    def disk_hits(self) -> int:
        """The number of units whose machine code was found on the disk."""
        return sum(unit.origin == "disk" for unit in self.units)

    @property
    def functions(self) -> int:
        """The number of functions in all units."""
        return sum(unit.functions for unit in self.units)

    @property
    def nests(self) -> int:
        """The number of loop nests in all units."""
        return sum(unit.nests for unit in self.units)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{'phase':<16}{'seconds':>10}{'share':>8}"]
        lines += [f"{name:<16}{spent:>10.4f}{spent / total:>8.0%}" for name, spent in self.phases.items()]
        lines.append(f"{'total':<16}{self.seconds:>10.4f}")
        lines.append(f"units: {self.compiled} compiled, {self.disk_hits} from disk, {self.memory_hits} from memory")
        lines.append(f"in them: functions {self.functions}, loop nests {self.nests}")
        if self.units:
            lines += ["", f"{'unit':<36}{'origin':>10}{'printer':>9}{'functions':>11}{'nests':>7}{'bytes':>9}{'seconds':>10}"]
            for u in self.units:
                name = u.title if len(u.title) <= 35 else f"{u.title[:32]}..."
                lines.append(f"{name:<36}{u.origin:>10}{u.printer:>9}{u.functions:>11}{u.nests:>7}{u.bytes:>9}{u.seconds:>10.4f}")
        return "\n".join(lines)


@dataclass
class _Totals:
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    units: list[UnitReport] = field(default_factory=list)
    memory_hits: int = 0


class _Running(threading.local):
    phase: phase | None = None


_running = _Running()
_totals = _Totals()
_lock = threading.Lock()  # held for moments


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # another thread of the parent may have held it


class phase:
    """Context manager: the time inside belongs to one of `PHASES`, but for that of the phases inside it."""

    __slots__ = ("_inner", "_name", "_outer", "_start")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._outer, _running.phase = _running.phase, self
        self._inner = 0.0
        self._start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        spent = time.perf_counter() - self._start
        outer = _running.phase = self._outer
        if outer is not None:
            outer._inner += spent
        with _lock:
            _totals.seconds[self._name] += spent - self._inner


def note_unit(unit: UnitReport) -> None:
    """Enter a unit into the report."""
    with _lock:
        _totals.units.append(unit)


def note_memory_hit() -> None:
    """Enter that an equal graph was there already."""
    with _lock:
        _totals.memory_hits += 1


def compile_report(reset: bool = False) -> CompileReport:
    """Return what this process has compiled so far, and where the time went.

    Parameters
    ----------
    reset
        Whether the next report starts from zero.

    Returns
    -------
    CompileReport
        `print` shows a table; the numbers are its attributes `phases`, `units`, `compiled`, `disk_hits`, `memory_hits`,
        `functions`, `nests` and `seconds`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> before = sg.compile_report(reset=True)
    >>> sg.grad(lambda x: np.sum(x**3))(np.ones(4))
    array([3., 3., 3., 3.])
    >>> report = sg.compile_report()
    >>> len(report.units), report.units[0].title, report.phases["trace"] > 0
    (1, 'grad(<lambda>)', True)
    """
    global _totals
    with _lock:
        found = CompileReport(dict(_totals.seconds), tuple(_totals.units), _totals.memory_hits)
        if reset:
            _totals = _Totals()
    return found
