"""Guards: notice that something a traced function reads from outside is no longer what it was when it was traced.

`Guards.collect` reads the bytecode of the function and of the user's functions it calls. Whatever they load from globals, closure
cells and attributes becomes a guard: a way to read the value again, and a snapshot of it. `changed` runs before every call of the
compiled function, so guards are flattened into probes, a reader and the object that it must return, which `is` compares in C:

    lr = 0.1; hyper = {"l2": 0.5}                     dict.get(globals, "lr")    is 0.1
    def step(w, g): return w - lr * hyper["l2"] * g   dict.get(globals, "hyper") is hyper;  the keys and values of hyper are the same

Only where a probe fails are values compared, so that running `lr = 0.1` once more, another object of equal value, changes nothing.

| value | changed when |
| --- | --- |
| bool, int, float, complex, str, bytes, None, NumPy scalar | type or bits differ (NaN equals NaN, 0.0 is not -0.0) |
| list, tuple, dict, set of at most 100 leaves | an item differs; a larger one: it is another object or its length differs |
| array, function, class, module of the user, any other object | it is another object (arrays are snapshotted: contents are not looked at) |
| object of a user's class that is used as a whole, not only through its attributes | an attribute differs |

No user code runs: attributes are looked up in `__dict__` and slots, and a property is followed into its getter. Guarded objects are
held strongly, so an id is never reused. A notebook that reloads a module changes functions in place: their `__code__` is guarded.
"""

from __future__ import annotations

import dis
import functools
import importlib.util
import os
import random
import re
import reprlib
import sys
import sysconfig
import types
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from operator import call, is_
from typing import Any

import numpy as np

from staticgrad.errors import StaticgradWarning

Read = Callable[[], Any]


class _Missing:
    """No value: a name that is not bound yet."""


class _Opaque:
    """A value that only user code could tell: the result of a descriptor or of `__getattr__`."""


_MISSING, _OPAQUE = _Missing(), _Opaque()
_MAX_LEAVES, _MAX_DEPTH, _MAX_FOLLOWED = 100, 6, 1000
_SCALARS = (bool, int, str, bytes, type(None), _Missing)
_FUNCTIONS = (types.FunctionType, types.MethodType, partial, staticmethod, classmethod)
_RANDOM_STATES = (np.random.Generator, np.random.RandomState, random.Random)
_RANDOM_FUNCTIONS = {
    id(vars(module)[name])
    for module in (np.random, random)
    for name in module.__all__
    if callable(vars(module)[name]) and not isinstance(vars(module)[name], type)
}
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARY_FOLDERS = tuple(
    folder + os.sep
    for folder in (_OWN, os.path.join(os.path.dirname(_OWN), "kernels"), os.path.dirname(np.__file__), sysconfig.get_path("stdlib"))
)
_CORE = {"numpy", "scipy", "numba", "llvmlite", "staticgrad", *sys.stdlib_module_names}  # modules whose attributes do not change

_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_members: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__


def _is_library_file(file: object) -> bool:
    if not isinstance(file, str):
        return False
    return file.startswith((*_LIBRARY_FOLDERS, "<frozen ")) or "site-packages" in file or "dist-packages" in file


def _is_core_module(members: Mapping[str, Any]) -> bool:
    name, file = str(members.get("__name__")), members.get("__file__")
    return name.partition(".")[0] in _CORE and (file is None or _is_library_file(file))


def _is_user_class(cls: type) -> bool:
    module = _members(cls).get("__module__")
    members = _namespace(sys.modules.get(module)) if isinstance(module, str) else None
    return members is None or not (_is_library_file(members.get("__file__")) or _is_core_module(members))


def _lookup(cls: type, name: str) -> Any:
    return next((_members(base)[name] for base in _mro(cls) if name in _members(base)), _MISSING)


def _namespace(value: object) -> dict[str, Any] | None:
    descriptor = _lookup(type(value), "__dict__")
    return descriptor.__get__(value) if type(descriptor) is types.GetSetDescriptorType else None


def _slots(value: object) -> dict[str, Read]:
    members = [(name, slot) for base in _mro(type(value)) for name, slot in _members(base).items()]
    return {name: partial(_attempt, partial(slot.__get__, value)) for name, slot in members if type(slot) is types.MemberDescriptorType}


def _attempt(read: Read) -> Any:
    try:
        return read()
    except (ValueError, AttributeError):  # an empty cell, an empty slot
        return _MISSING


def _constant(value: Any) -> Any:
    return value


def _holds(container: Any, items: tuple[object, ...]) -> bool:
    return len(container) == len(items) and all(map(is_, container, items))


def _has_length(container: Any, length: int) -> bool:
    return len(container) == length


def _container(value: Any) -> Any:
    """Return what tells the length of a list, tuple, set or dict, None for anything else."""
    kind = type(value)
    if issubclass(kind, dict):
        return dict.keys(value)
    if issubclass(kind, tuple):
        return tuple(tuple.__iter__(value))
    return value if kind in (list, set, frozenset) else None


def _is_open(value: object) -> bool:
    kind = type(value)
    if issubclass(kind, (np.ndarray, type, types.ModuleType, Enum)):
        return False
    return kind in (types.SimpleNamespace, Namespace) or _is_user_class(kind)


def _scalar_key(value: Any) -> tuple[Any, ...] | None:
    kind = type(value)
    if kind in _SCALARS:
        return ("scalar", kind, value)
    if kind is float:
        return ("scalar", kind, value.hex())
    if kind is complex:
        return ("scalar", kind, value.real.hex(), value.imag.hex())
    if issubclass(kind, np.generic) and not issubclass(kind, np.void):  # np.void is a view of an array
        return ("scalar", kind, value.dtype, value.tobytes())
    return None


def _item_name(value: object) -> str:
    return repr(value) if _scalar_key(value) else f"<{type(value).__name__} at {id(value):#x}>"


class _Leaf:
    """A value, equal to another one when a trace cannot tell them apart. `key` is `(form, type, ...)`."""

    __slots__ = ("key", "value")

    def __init__(self, key: tuple[Any, ...], value: object) -> None:
        self.key, self.value = key, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Leaf) and self.key == other.key

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        form, kind, *_ = self.key
        if form == "container":
            return f"a {kind.__name__} of {self.key[2]} items"
        if form == "scalar":
            return str(self.value) if issubclass(kind, np.generic) else reprlib.repr(self.value)
        name = (_namespace(self.value) or {}).get("_name_") if issubclass(kind, Enum) else None
        return f"{kind.__name__}.{name}" if name else f"a {kind.__name__}"


class _Snapshot:
    """A value as leaves by their path, and the probes that hold while nobody touches it."""

    def __init__(self, value: Any, whole: bool) -> None:
        self.leaves: dict[str, _Leaf] = {}
        self.probes: list[tuple[Read, object]] = []
        self._opened: set[int] = set()
        self._add(value, "", 0, whole)

    def _add(self, value: Any, path: str, depth: int, whole: bool) -> None:
        kind = type(value)
        if (key := _scalar_key(value)) is not None:
            self.leaves[path] = _Leaf(key, value)
            return
        container = _container(value)
        length = 0 if container is None else len(container)
        identity = ("object", kind, id(value)) if container is None else ("container", kind, length, id(value))
        self.leaves[path] = _Leaf(identity, value)
        if container is None and not (whole and _is_open(value)):
            return
        if depth == _MAX_DEPTH or len(self.leaves) + length > _MAX_LEAVES or id(value) in self._opened:
            if container is not None and not issubclass(kind, tuple):
                self.probes.append((partial(_has_length, container, length), True))
            return
        self._opened.add(id(value))
        self.leaves[path] = _Leaf(identity[:3], value)
        for name, item in self._items(value, container).items():
            self._add(item, path + name, depth + 1, True)

    def _items(self, value: Any, container: Any) -> dict[str, Any]:
        kind = type(value)
        if container is None:
            members, slots = _namespace(value) or {}, _slots(value)
            views: tuple[Any, ...] = (members.keys(), members.values())
            found = {name: read() for name, read in slots.items()}
            self.probes += [(read, found[name]) for name, read in slots.items()]
            items = {f".{name}": item for name, item in (found | members).items()}
        elif issubclass(kind, dict):
            views = (container, dict.values(value))
            items = {f"[{_item_name(name)}]": item for name, item in dict.items(value)}
        elif issubclass(kind, tuple):
            views, items = (), {f"[{i}]": item for i, item in enumerate(container)}
        elif kind is list:
            views, items = (value,), {f"[{i}]": item for i, item in enumerate(value)}
        else:
            views, items = (value,), {f"{{{_item_name(item)}}}": item for item in value}
        self.probes += [(partial(_holds, view, tuple(view)), True) for view in views]
        return items


@dataclass(frozen=True, slots=True, eq=False)
class _Guard:
    """A name, how it is read, and what it was."""

    label: str
    name: str
    read: Read
    whole: bool  # an object of a user's class is compared by its attributes
    value: Any
    snapshot: _Snapshot

    @classmethod
    def of(cls, label: str, name: str, read: Read, whole: bool = False) -> _Guard:
        value = _attempt(read)
        return cls(label, name, read, whole, value, _Snapshot(value, whole))

    def probes(self) -> list[tuple[Read, object, _Guard]]:
        first = [] if getattr(self.read, "func", None) is _constant else [(self.read, self.value)]
        return [(read, expected, self) for read, expected in [*first, *self.snapshot.probes]]

    def difference(self) -> tuple[str, _Leaf | None, _Leaf | None] | None:
        """Return the path, the old and the new leaf of the first difference."""
        before, now = self.snapshot.leaves, _Snapshot(_attempt(self.read), self.whole).leaves
        paths = () if before == now else (*before, *now)
        return next(((path, before.get(path), now.get(path)) for path in paths if before.get(path) != now.get(path)), None)

    def sentence(self) -> str | None:
        """Return what changed, for the log; None when nothing did."""
        try:
            difference = self.difference()
        except RuntimeError:  # a dict or a set that changed size during iteration
            return f"{self.label} changed while it was compared"
        if difference is None:
            return None
        path, before, now = difference
        if before is None or before.value is _MISSING:
            return f"{self.label}{path} appeared: {now}"
        if now is None or now.value is _MISSING:
            return f"{self.label}{path} was deleted; it was {before}"
        if str(before) == str(now):
            return f"{self.label}{path} was rebound: {now} took the place of another one"
        return f"{self.label}{path} changed from {before} to {now}"


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """Where the names of a code object come from: cells and values that are known, then globals."""

    function: types.FunctionType
    names: dict[str, Any]  # a CellType of the function's closure, or the value itself in a `_Known`


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    value: Any
    text: str


_KINDS = {"LOAD_METHOD": "attribute", "LOAD_ATTR": "attribute", "STORE_ATTR": "store attribute", "DELETE_ATTR": "store attribute"}
_KINDS |= {"STORE_GLOBAL": "store global", "DELETE_GLOBAL": "store global", "IMPORT_NAME": "import", "IMPORT_FROM": "import from"}
_KINDS |= {name: "global" for name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")}
_KINDS |= {name: "local" for name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")}
_KINDS |= {f"{verb}_{place}": "store" for verb in ("STORE", "DELETE") for place in ("FAST", "DEREF", "NAME")}


def _operations(code: types.CodeType) -> list[tuple[str, Any, int]]:
    """Return the loads and stores of `code` under names that do not depend on the Python version, as (kind, name, line)."""
    operations, line = [], code.co_firstlineno
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        line = (instruction.positions and instruction.positions.lineno) or line
        if name in ("NOP", "EXTENDED_ARG") or (name == "COPY" and instruction.arg == 1):  # COPY 1: `self.n += 1` reads and writes
            continue
        if isinstance(value, tuple) and "_FAST_" in name:  # LOAD_FAST_LOAD_FAST and its like
            kinds = ["local" if verb == "LOAD" else "store" for verb in re.findall("LOAD|STORE", name)]
            operations += [(kind, each, line) for kind, each in zip(kinds, value)]
        elif name.startswith("LOAD_FAST") and name != "LOAD_FAST_AND_CLEAR":
            is_cell = value in code.co_cellvars or value in code.co_freevars  # 3.13: the closure of an inner function
            operations.append(("other" if is_cell else "local", value, line))
        else:
            operations.append((_KINDS.get(name, "other"), value, line))
    return operations


def _stores(code: types.CodeType) -> Counter[str]:
    """Count the stores into each local of `code`, also by inner functions; a parameter counts as one."""
    stores = Counter(name for kind, name, _ in _operations(code) if kind == "store")
    stores.update(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            stores.update({name: count for name, count in _stores(inner).items() if name in inner.co_freevars})
    return stores
