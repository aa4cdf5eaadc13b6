"""Which traces are under way: a stack a thread."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import numpy as np

from staticgrad.errors import LeakedTracerError
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line

traces_under_way = np.zeros(1, np.int64)
"""How many traces are under way in all threads: a word that the entry of traced functions, which is machine code, looks at."""

_all: set[Trace] = set()
_count_lock = threading.Lock()


def _count() -> None:
    with _count_lock:
        traces_under_way[0] = len(_all)


class Trace:
    """The recording of one function; its tracers die with it.

    Attributes
    ----------
    lock
        Held by who records, if given, around the trace: `with trace.lock, trace`. Unlike a method written in Python, leaving a lock
        cannot be cut short by Ctrl-C, so a trace whose lock is free is over whatever else is left of it.
    captures
        The values of enclosing traces that were read in this one.
    """

    def __init__(self, name: str, lock: threading.Lock | None = None) -> None:
        self.name = name
        self.lock = lock
        self.alive = False
        self.prints: list[tuple[str, tuple[Value, ...]]] = []
        self.captures: dict[Value, None] = {}

    def __enter__(self) -> Trace:
        self.alive = True
        _all.add(self)
        _count()
        _stack.traces.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.alive = False
        _stack.traces.remove(self)
        _all.discard(self)
        _count()

    @property
    def is_over(self) -> bool:
        """Whether it ended without having been left."""
        return self.lock is not None and not self.lock.locked()


class _Stack(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_stack = _Stack()


def _after_fork() -> None:
    """Count the traces of this thread alone: a child has no other."""
    _count_lock._at_fork_reinit()  # type: ignore[attr-defined]  # another thread of the parent may have held it
    _all.intersection_update(_stack.traces)
    _count()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def tracing() -> bool:
    """Return whether this thread records a function right now."""
    if traces_under_way[0]:
        _stack.traces[:] = [trace for trace in _stack.traces if not trace.is_over]
        _all.difference_update([trace for trace in tuple(_all) if trace.is_over])
        _count()
    return bool(_stack.traces)


def current_trace() -> Trace:
    """Return the innermost trace of this thread."""
    if not _stack.traces:
        raise LeakedTracerError(
            at_user_line("a traced array is used outside of the function that was traced; return it from that function instead")
        )
    return _stack.traces[-1]


def note_read(trace: Trace, value: Value) -> None:
    """Note a value of `trace`, which is read now, in the traces inside of that one."""
    for inner in reversed(_stack.traces):
        if inner is trace:
            return
        inner.captures[value] = None


def check_usable(trace: Trace) -> None:
    """Raise unless `trace` is under way in this thread."""
    if trace in _stack.traces:
        return
    where = "in another thread" if trace.alive else "after its tracing ended"
    raise LeakedTracerError(
        at_user_line(
            f"an array traced by {trace.name!r} is used {where}: it stands for a value that only exists while that function runs. "
            "Return it from the function instead of storing it in a global, an attribute or a list"
        )
    )
