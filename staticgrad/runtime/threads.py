"""Threads: the pool that runs the blocks of parallel kernels, and the words of a context that lead there.

The pool is native (see `pool_text`) and its threads know nothing of Python: they hold no lock of it, run none of its signal handlers
and end with the process. It is made at the first call that can use it. A fork leaves the child without threads but with a pool in
its first state: blocks run in order there until the child's own next call makes threads.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from staticgrad.config import config
from staticgrad.runtime.compile import load_symbols, target_machine
from staticgrad.runtime.pool_text import DONE, MUTEX, POOL_BYTES, SYMBOLS, WORK, pool_text

PARALLEL_FOR, SLOTS = 4, 5
"""Where the context holds the address of `parallel_for`, 0 for none, and the number of threads that it may use."""

MOST_THREADS = 64
"""No kernel has more blocks."""

_lock = threading.Lock()
_workers = 0


def thread_count(threads: int | None) -> int:
    """Return how many threads a call uses: those asked for, else `STATICGRAD_THREADS`, else the processors it may run on."""
    return min(threads or config().threads or _processors(), MOST_THREADS)


@functools.cache
def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(context: Any, threads: int | None) -> None:
    """Let a call run its parallel kernels on several threads: fill the words of its context.

    Parameters
    ----------
    context
        The words of the context, as anything that takes items.
    threads
        The number of threads; None for the default.
    """
    count = thread_count(threads)
    if count > 1 and (pool := _pool()) is not None:
        if _workers < count - 1:
            pool.grow(count - 1)
        context[PARALLEL_FOR], context[SLOTS] = pool.parallel_for, count
    else:
        context[PARALLEL_FOR], context[SLOTS] = 0, 1


class _Pool:
    """The machine code of the pool, with its one block of memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        import llvmlite.binding as llvm

        machine = target_machine()
        module = llvm.parse_assembly(pool_text())
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        module.verify()
        self.parallel_for, self._worker, self._memory = load_symbols("sg_pool", machine.emit_object(module), SYMBOLS)
        self._library = library
        self.reset()

    def reset(self) -> None:
        """Put the memory into its first state; no thread may be using it."""
        ctypes.memset(self._memory, 0, POOL_BYTES)
        for place, initialise in (
            (MUTEX, self._library.pthread_mutex_init),
            (WORK, self._library.pthread_cond_init),
            (DONE, self._library.pthread_cond_init),
        ):
            initialise(ctypes.c_void_p(self._memory + place), None)

    def grow(self, count: int) -> None:
        """Make threads until there are `count`, or as many as the system allows."""
        global _workers
        with _lock, _no_signals():
            while _workers < count:
                thread = ctypes.c_void_p()
                if self._library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(self._worker), None):
                    break
                self._library.pthread_detach(thread)
                _workers += 1


@contextmanager
def _no_signals() -> Iterator[None]:
    """Have threads that are made meanwhile take no signals: those are for Python's own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_made: list[_Pool | None] = []


def _pool() -> _Pool | None:
    """Return the pool, None where the system has no POSIX threads."""
    if not _made:
        with _lock:
            if not _made:
                library = ctypes.CDLL(None) if os.name == "posix" else None
                _made.append(_Pool(library) if library is not None and hasattr(library, "pthread_create") else None)
    return _made[0]


def _after_fork() -> None:
    """Start again in a child: the parent's threads do not exist there."""
    global _workers
    _workers = 0
    _lock.release()
    if _made and _made[0] is not None:
        _made[0].reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
