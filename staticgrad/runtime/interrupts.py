"""Ctrl-C in long loops of machine code: the word of a context that leads to Python's signal handlers, and what they raised.

A unit whose loops may go on for long calls the `poll` of its context now and then (see `codegen.polling`); where there is none, as in
`@njit` code and in C, it costs next to nothing. `poll.ll` is what Python's own calls offer.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from pathlib import Path

from staticgrad.runtime.callable_type import is_supported


def poll_address() -> int:
    """Return the address of what runs the signal handlers of Python, 0 where this system or interpreter is not one it is made for."""
    machine_code = _machine_code()
    return machine_code[0] if machine_code else 0


def raise_interruption() -> None:
    """Raise what a handler raised while a unit polled; nothing if nobody polled."""
    if machine_code := _machine_code():
        ctypes.PYFUNCTYPE(None)(machine_code[1])()


@functools.cache
def _machine_code() -> list[int]:
    """Return the addresses of `sg_poll` and `sg_raise`."""
    if not (hasattr(time, "CLOCK_MONOTONIC") and hasattr(time, "clock_gettime") and is_supported()):
        return []
    from staticgrad.runtime.build import compile_lock, machine_code_of_library

    text = Path(__file__).with_name("poll.ll").read_text(encoding="utf-8")
    with compile_lock:
        poll, raise_, start = machine_code_of_library("poll", text, ("sg_poll", "sg_raise", "sg_start"))
    say_thread = ctypes.PYFUNCTYPE(None, ctypes.c_int64, ctypes.c_int32)(start)
    say_thread(threading.main_thread().ident or 0, time.CLOCK_MONOTONIC)
    if hasattr(os, "register_at_fork"):  # the thread that forks is the main one of the child
        os.register_at_fork(after_in_child=lambda: say_thread(threading.get_ident(), time.CLOCK_MONOTONIC))
    return [poll, raise_]
