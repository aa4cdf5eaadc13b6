"""The entry of traced functions in machine code: loading it, and the tables that it reads (`fast_call.ll` says how).

A `Form` is one way to call one compiled signature: so many positional arguments, these keywords, these containers, these arrays.
`Forms` is what a traced function has: the forms in use, as a list linked in memory, where the machine code walks it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from staticgrad.config import on_change
from staticgrad.ir.context import CONTEXT_WORDS
from staticgrad.runtime.build import compile_lock, machine_code_of_library
from staticgrad.runtime.callable_type import is_supported
from staticgrad.runtime.executor import Executable, failure
from staticgrad.runtime.result_memory import ALIGNMENT, KEPT, LARGE, result_memory
from staticgrad.tracing.context import traces_under_way
from staticgrad.tracing.snapshots import MISSING

log = logging.getLogger("staticgrad.codegen")

ARRAY, NUMBER, FLOAT, INT, SAME, TUPLE, LIST, DICT = range(8)
"""The patterns of arguments."""

OUTPUT, COPY, TUPLE_OF, LIST_OF, DICT_OF, OBJECT = range(6)
"""The shapes of results."""

ENTRY, FIELD, CALL = range(3)
"""The kinds of probes."""

STATE_WORDS = 25
FOLLOWING, SPARE_WORKSPACE, INSIDE = 0, 17, 24
MOST_FORMS = 16
"""Forms of one function that the entry walks through; a function with more takes the slow path for the others."""

forms_lock = threading.RLock()
"""Held for a moment, while a list of forms changes, and without waiting for any other lock."""

_SLOW_NAME = "_slow_call"
_free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyMem_RawFree", ctypes.pythonapi))


@dataclass(frozen=True)
class Probe:
    """How to see that one thing outside is what it was: `kind` with its two operands, and the object that must be found.

    Operands are numbers, the addresses of objects that others keep alive among them, or objects that this keeps alive.
    """

    kind: int
    holder: Any
    key: Any
    expected: Any


class Form:
    """The tables of one form of call, in memory that lives as long as this object.

    Parameters
    ----------
    positional
        The number of positional arguments.
    names
        The keywords, in the order of the call.
    pattern, result
        What the arguments look like, and what is made of the outputs.
    finish
        What makes the result of a tuple of the outputs, where `result` cannot.
    probes
        What must not have changed.
    executable
        What runs.
    long
        Whether it takes long enough to release the GIL.
    out
        Which argument holds the arrays that receive the results; -1 where new ones are made.
    threads
        How many threads may share the work; None for the default.
    """

    state = np.zeros(STATE_WORDS, np.int64)  # until there is one

    def __init__(
        self,
        positional: int,
        names: Sequence[str],
        pattern: Words,
        result: Words,
        finish: Callable[[Any], Any] | None,
        probes: Sequence[Probe],
        executable: Executable,
        long: bool,
        out: int = -1,
        threads: int | None = None,
    ) -> None:
        self.state = np.zeros(STATE_WORDS, np.int64)
        plan = executable.plan
        forward, backward = executable.addresses
        self._keep: list[Any] = [names, pattern, result, finish, probes, executable]
        probe_words = Words()
        for probe in probes:
            probe_words.add(probe.kind).operand(probe.holder).operand(probe.key)
            if probe.expected is MISSING and probe.kind == ENTRY:
                probe_words.add(0)
            else:
                probe_words.hold(probe.expected)
        outputs = Words()
        for aval in plan.outputs:
            shape = self._table(aval.shape)
            outputs.add(aval.rank, shape, aval.dtype.num).hold(aval.dtype)
            outputs.add(aval.nbytes if aval.nbytes >= LARGE else 0)
            if aval.nbytes + ALIGNMENT < KEPT:
                outputs.add(0)
            else:
                outputs.hold(aval.nbytes)
        constants = [array.ctypes.data for array in plan.constants]
        table = [*(0 for _ in plan.inputs), *constants, *(0 for _ in plan.outputs)]
        sizes = [*(aval.nbytes for aval in plan.inputs), *(array.nbytes for array in plan.constants), *(a.nbytes for a in plan.outputs)]
        context = [0] * CONTEXT_WORDS
        plan.prepare(context, threads)
        name_words = Words()
        for name in names:
            name_words.hold(name)
        words = [
            0, positional, len(names), self._words(name_words), self._words(pattern), self._words(probe_words), len(probes),
            self._table(table), len(table), len(plan.inputs), len(plan.outputs), self._words(outputs), self._words(result),
            0 if finish is None else id(finish), forward, backward, plan.workspace, 0, int(long), id(_raise_failure),
            self._table(context), out, self._table(sizes), pattern.items, 0,
        ]  # fmt: skip
        self.state[:] = words
        self.address: int = self.state.ctypes.data

    def _words(self, words: Words) -> int:
        self._keep.append(words)
        return self._table(words.words)

    def _table(self, words: Sequence[int]) -> int:
        table = np.array([*words, 0, 0, 0], np.int64)  # the entry may look three words ahead
        self._keep.append(table)
        return int(table.ctypes.data)

    def __del__(self, spare: int = SPARE_WORKSPACE, free: Callable[[int], None] = _free) -> None:
        # Bound as defaults: when Python ends, the module's names may be gone before the last form is.
        if block := int(self.state[spare]):
            free(block)


class Words:
    """Words for the entry, with the objects whose addresses are among them."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.objects: list[Any] = []
        self.items = 0  # of lists and dicts

    def add(self, *words: int) -> Words:
        """Append numbers."""
        self.words += words
        return self

    def hold(self, item: Any) -> Words:
        """Append the address of an object, which stays alive."""
        self.objects.append(item)
        self.words.append(id(item))
        return self

    def operand(self, item: Any) -> Words:
        """Append a number, or the address of an object."""
        return self.add(item) if type(item) is int else self.hold(item)


def _raise_failure(words: bytes) -> None:
    raise failure(np.frombuffer(words, np.int64))


class Forms:
    """The forms of call of one traced function."""

    def __init__(self) -> None:
        self.head = (ctypes.c_int64 * 1)(0)
        self.address: int = ctypes.addressof(self.head)
        self._forms: dict[Any, Form] = {}
        self._probes: dict[Any, Any] = {}
        self._new_probes: dict[Any, Any] = {}
        _everyone.add(self)

    def wants(self, key: Any, probes: Any) -> bool:
        """Return whether to make the form called `key` with these probes: at once where there was none, or none was possible.

        One with other probes is made anew only when the new ones have stood for a call: what is rebound before each call, to an
        object that is equal, would otherwise cost a form each time.
        """
        if key not in self._probes:
            return True
        if self._probes[key] is probes:
            return False
        if self._new_probes.get(key) is probes:
            return True
        self._new_probes[key] = probes
        return False

    def put(self, key: Any, probes: Any, form: Form | None) -> None:
        """Let the entry try `form` first, in place of the one that had the same key; with None such calls have no form."""
        with forms_lock:
            others = [item for item in self._forms.items() if item[0] != key]
            self._link(dict(others) if form is None else dict(others[-MOST_FORMS + 1 :]) | {key: form})
            self._new_probes.pop(key, None)
            self._probes[key] = probes
            gone = _unused()
        del gone  # only now: what a form keeps alive may have finalisers

    def clear(self) -> None:
        """Send every call to the slow path."""
        with forms_lock:
            self._probes = {}
            self._new_probes = {}
            self._link({})
            gone = _unused()
        del gone

    def _link(self, forms: dict[Any, Form]) -> None:
        """Have the entry walk these forms and no others; in an order that leaves no link to what is freed if Ctrl-C cuts it short."""
        self.head[0] = 0
        for form in self._forms.values():
            form.state[FOLLOWING] = 0
        _retired.extend([form for key, form in self._forms.items() if forms.get(key) is not form])
        self._forms = forms
        following = 0
        for form in forms.values():
            form.state[FOLLOWING] = following
            following = form.address
        self.head[0] = following


_retired: list[Form] = []  # another thread may be inside, or a call on the way back from user code


def _unused() -> list[Form]:
    """Return the retired forms that no call is inside of, and let go of them."""
    found = [form for form in _retired if not form.state[INSIDE]]
    _retired[:] = [form for form in _retired if form.state[INSIDE]]
    return found


_everyone: weakref.WeakSet[Forms] = weakref.WeakSet()


def _clear_all() -> None:
    with forms_lock:
        everyone = list(_everyone)
    for forms in everyone:
        forms.clear()


def _after_fork() -> None:
    forms_lock._at_fork_reinit()  # type: ignore[attr-defined]  # another thread of the parent may have held it
    _clear_all()


on_change(_clear_all)
if hasattr(os, "register_at_fork"):  # threads end at a fork; new ones are made with the next forms
    os.register_at_fork(after_in_parent=_clear_all, after_in_child=_after_fork)

# ---- the machine code


@functools.cache
def entry_address() -> int | None:
    """Return the address of the vectorcall function, or None where the slow path has to do."""
    api = _numpy_api() if is_supported() and _layout_is_known() else 0
    if not api:
        log.info("calls go through Python: this interpreter or this NumPy is not one that the entry knows")
        return None
    path = Path(__file__).with_name("fast_call.ll")
    with compile_lock:
        install, call = machine_code_of_library("fast_call", path.read_text(encoding="utf-8"), ("sg_install", "sg_call"))
    arguments = (api, id(np.ndarray), traces_under_way.ctypes.data, id(_SLOW_NAME), id(result_memory))
    ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * len(arguments))(install)(*arguments)
    return call


def _numpy_api() -> int:
    """Return the address of NumPy's table of functions, 0 where this NumPy keeps it elsewhere."""
    try:
        capsule = vars(importlib.import_module("numpy._core._multiarray_umath"))["_ARRAY_API"]
    except (ImportError, KeyError):
        return 0
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    return int(get(capsule, None) or 0)


def _layout_is_known() -> bool:
    """Return whether arrays and objects lie in memory as `fast_call.ll` has it."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = array.T
    words = (ctypes.c_int64 * 10).from_address(id(array))
    extents = (ctypes.c_int64 * 2).from_address(words[4])
    flags = ctypes.c_int32.from_address(id(array) + 64).value
    return (
        words[1] == id(np.ndarray)
        and words[2] == array.ctypes.data
        and ctypes.c_int32.from_address(id(array) + 24).value == 2
        and tuple(extents) == (2, 3)
        and words[7] == id(array.dtype)
        and flags & 0x101 == 0x101
        and ctypes.c_int32.from_address(id(turned) + 64).value & 0x1 == 0
    )
