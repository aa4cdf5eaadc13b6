"""Threads: the pool that runs the blocks of parallel kernels, and the words of a context that lead there.

The pool is native (see `pool_text`) and its threads know nothing of Python: they hold no lock of it, run none of its signal handlers
and end with the process. It is made at the first call that can use it. For a fork the threads end; parent and child make new ones at
their next call, and a call under way in the parent goes on without.
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
from staticgrad.ir.context import PARALLEL_FOR, SLOTS
from staticgrad.runtime.compile import link, target_machine
from staticgrad.runtime.pool_text import PLACES, POOL_BYTES, SYMBOLS, pool_text

MOST_THREADS = 64
"""No kernel has more blocks."""

_lock = threading.Lock()


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
        if len(pool.threads) < count - 1:
            pool.grow(count - 1)
        context[PARALLEL_FOR], context[SLOTS] = pool.parallel_for, count
    else:
        context[PARALLEL_FOR], context[SLOTS] = 0, 1


class _Pool:
    """The machine code of the pool, with its one block of memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        import llvmlite.binding as llvm

        target_machine()  # initialises LLVM
        # Without optimisation, which would take ten times as long and gain nothing: what counts are the atomic operations.
        machine = llvm.Target.from_default_triple().create_target_machine(opt=0, reloc="pic", codemodel="small")
        module = llvm.parse_assembly(pool_text())
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        module.verify()
        self.parallel_for, self._worker, self._memory = link("sg_pool", machine.emit_object(module), SYMBOLS)
        self._library = library
        self.reset()

    def reset(self) -> None:
        """Put the memory into its first state; no thread may be using it."""
        self.threads: list[ctypes.c_void_p] = []
        ctypes.memset(self._memory, 0, POOL_BYTES)
        for name, initialise in (("mutex", "pthread_mutex_init"), ("work", "pthread_cond_init"), ("done", "pthread_cond_init")):
            self._library[initialise](ctypes.c_void_p(self._memory + PLACES[name]), None)

    def grow(self, count: int) -> None:
        """Make threads until there are `count`, or as many as the system allows."""
        with _lock, _no_signals():
            while len(self.threads) < count:
                thread = ctypes.c_void_p()
                if self._library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(self._worker), None):
                    break
                self.threads.append(thread)

    def stop(self) -> None:
        """End all threads, each after the job that it takes part in; the caller holds `_lock`."""
        mutex, work = (ctypes.c_void_p(self._memory + PLACES[name]) for name in ("mutex", "work"))
        generation, stop = (ctypes.c_int64.from_address(self._memory + PLACES[name]) for name in ("generation", "stop"))
        self._library.pthread_mutex_lock(mutex)
        generation.value += 1
        stop.value = 1
        self._library.pthread_cond_broadcast(work)
        self._library.pthread_mutex_unlock(mutex)
        for thread in self.threads:
            self._library.pthread_join(thread, None)
        self.threads = []
        stop.value = 0


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


def _before_fork() -> None:
    _lock.acquire()
    if _made and _made[0] is not None:
        _made[0].stop()


def _after_fork() -> None:
    """Start again in a child, where no other thread goes on with what it was about."""
    _lock.release()
    if _made and _made[0] is not None:
        _made[0].reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork)
