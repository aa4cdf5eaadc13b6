"""What is known of traced functions: for each function object one record, with its programs, its compiled entries and its transforms."""

from __future__ import annotations

import inspect
import logging
import re
import types
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from staticgrad.config import BACKENDS, PRINTERS, config
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.build import Built, build, compile_lock
from staticgrad.runtime.fast_call import Forms, forms_lock
from staticgrad.runtime.report import phase
from staticgrad.tracing.context import tracing
from staticgrad.tracing.pytree import Signature
from staticgrad.tracing.record import Program, record
from staticgrad.transforms import Transform

log = logging.getLogger("staticgrad.retrace")


class CacheInfo(NamedTuple):
    """How often a function was traced and compiled, and what was found compiled already, on disk or in memory."""

    traces: int
    compiles: int
    disk_hits: int
    memory_hits: int
    signatures: int


@dataclass(frozen=True)
class Options:
    """The options of `sg.trace`."""

    static_argnames: tuple[str, ...] = ()
    backend: str | None = None
    printer: str | None = None
    threads: int | None = None
    fastmath: bool | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.backend is not None and self.backend not in BACKENDS:
            raise InvalidValueError(at_user_line(f"backend={self.backend!r}: expected one of {', '.join(BACKENDS)}"))
        if self.printer is not None and self.printer not in PRINTERS:
            raise InvalidValueError(at_user_line(f"printer={self.printer!r}: expected one of {', '.join(PRINTERS)}"))
        if self.threads is not None and (not isinstance(self.threads, int) or self.threads < 1):
            raise InvalidValueError(at_user_line(f"threads={self.threads!r}: expected a whole number of at least 1"))
        if self.fastmath not in (None, False, True):
            raise InvalidValueError(at_user_line(f"fastmath={self.fastmath!r}: expected True or False"))

    def place(self, signature: Signature) -> Place:
        """Return where a signature compiled with these options is found; what they leave open is the configuration's."""
        return self.backend or config().backend, self.printer or config().printer, bool(self.fastmath), self.max_memory, signature


Place = tuple[str, str, bool, int | None, Signature]
"""Where a compiled signature is found: under the backend, the printer, whether exactness was given up, the bytes that may be in use,
and the signature."""

UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def checked_memory(max_memory: Any) -> int | None:
    """Return the bytes that `max_memory` means, or raise where it means none: `"1.5MB"` -> 1500000."""
    if max_memory is None:
        return None
    wrong = f"max_memory={max_memory!r}: expected a whole number of bytes, or a text such as '64MB' or '1.5GiB'"
    if isinstance(max_memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", max_memory)
        if match is None or match[2] not in UNITS:
            raise InvalidValueError(at_user_line(f"{wrong}; units are {', '.join(UNITS)}"))
        max_memory = int(float(match[1]) * UNITS[match[2]])
    if isinstance(max_memory, bool) or not isinstance(max_memory, (int, np.integer)):
        raise DTypeError(at_user_line(wrong))
    if max_memory < 1:
        raise InvalidValueError(at_user_line(f"{wrong}, at least 1"))
    return int(max_memory)


@dataclass(eq=False)
class Entry:
    """A compiled signature."""

    program: Program
    built: Built
    calls: int = 0
    """How many calls took the slow path."""


@dataclass(eq=False)
class Record:
    """All that is known of a function: its programs, its compiled entries and those of its transforms, shared by everyone."""

    name: str
    function: Callable[..., Any] | None = None
    base: Record | None = None
    transform: Transform | None = None
    programs: dict[Signature, Program] = field(default_factory=dict)
    entries: dict[Place, Entry] = field(default_factory=dict)
    derived: dict[Hashable, Record] = field(default_factory=dict)
    forms: dict[Options, Forms] = field(default_factory=dict)
    side_effects: frozenset[str] = frozenset()
    traces: int = 0
    compiles: int = 0
    disk_hits: int = 0
    memory_hits: int = 0

    def program(self, signature: Signature) -> Program:
        """Return the program for a signature; it is kept unless it closes over a trace that is under way."""
        with compile_lock:
            found = self.programs.get(signature)
            if found is not None and (found.guards is None or found.guards.changed() is None) and not tracing():
                return found
            if self.function is not None:
                with phase("imports"):
                    import staticgrad.tracing.functions  # noqa: F401  (what NumPy's functions do on tracers)
                with phase("trace"):
                    made = record(self.function, signature, self.name)
                self.traces += 1
                if made.guards is not None:
                    self.side_effects |= made.guards.side_effects
                    for program in (made, *self.programs.values()):
                        program.guards.forget(self.side_effects)  # type: ignore[union-attr]
            else:
                assert self.base is not None and self.transform is not None
                with phase("derivatives"):
                    made = self.transform(self.base, signature)
            if not made.captures and not tracing():
                self.programs[signature] = made
            return made

    def entry(self, place: Place) -> Entry:
        """Return the compiled entry at a place, compiling it if need be."""
        backend, printer, fastmath, max_memory, signature = place
        with compile_lock:
            found = self.entries.get(place)
            if found is not None:
                reason = found.program.guards.changed() if found.program.guards is not None else None
                if reason is None:
                    return found
            else:
                reason = "first call" if not self.entries else f"new signature {', '.join(map(str, signature.avals))}"
            log.info("%s: %s", self.name, reason)
            program = self.program(signature)
            built, origin = build(program.graph, backend, printer, fastmath, max_memory)
            self.compiles += origin == "compiled"
            self.disk_hits += origin == "disk"
            self.memory_hits += origin == "memory"
            entry = self.entries[place] = Entry(program, built)
            return entry

    def clear(self) -> None:
        """Forget everything, transforms included."""
        with compile_lock:
            self.programs.clear()
            self.entries.clear()
            for forms in list(self.forms.values()):  # other threads add some
                forms.clear()
            for each in self.derived.values():
                each.clear()
            self.traces = self.compiles = self.disk_hits = self.memory_hits = 0

    def forms_for(self, options: Options) -> Forms:
        """Return the forms of call that the entry knows, for a function with these options."""
        found = self.forms.get(options)
        if found is None:
            with forms_lock:
                found = self.forms.setdefault(options, Forms())
        return found

    @property
    def root(self) -> Record:
        """The record of the user's own function."""
        return self if self.base is None else self.base.root


_records: weakref.WeakKeyDictionary[Any, Record] = weakref.WeakKeyDictionary()
_bound: weakref.WeakKeyDictionary[Any, dict[Any, Record]] = weakref.WeakKeyDictionary()


def record_of(function: Callable[..., Any]) -> Record:
    """Return the record of a function: one for each function object (for a method: for each object it is bound to)."""
    name = getattr(function, "__name__", type(function).__name__)
    with compile_lock:
        try:
            if isinstance(function, types.MethodType):
                records = _bound.setdefault(function.__self__, {})
                if function.__func__ not in records:
                    records[function.__func__] = Record(name, _Weak(function))
                return records[function.__func__]
            if function not in _records:
                _records[function] = Record(name, _Weak(function))
            return _records[function]
        except TypeError:  # no weak references, or not hashable: a record of its own
            return Record(name, function)


class _Weak:
    """A function held weakly, so that the registry does not keep it alive."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._reference: Callable[[], Any] = (
            weakref.WeakMethod(function) if isinstance(function, types.MethodType) else weakref.ref(function)
        )

    @property
    def py_func(self) -> Callable[..., Any]:
        """The function itself."""
        function: Callable[..., Any] | None = self._reference()
        if function is None:
            raise ArgumentError("the traced function no longer exists")
        return function

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.py_func)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.py_func(*args, **kwargs)
