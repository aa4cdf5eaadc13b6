"""Snapshots of values: what a value was, as leaves that can be compared, and as probes that tell quickly that nobody touched it.

| value | changed when |
| --- | --- |
| bool, int, float, complex, str, bytes, None, NumPy scalar | type or value differ (NaN equals NaN, 0.0 is not -0.0) |
| list, tuple, dict, set of at most 100 leaves | an item differs; a larger one: it is another object or its length differs |
| array, function, class, module of the user, any other object | it is another object (arrays are snapshotted: contents are not looked at) |
| object of a user's class that is used as a whole, not only through attributes | an attribute differs |

No user code runs: attributes are looked up in `__dict__` and slots.
"""

from __future__ import annotations

import os
import sys
import types
import weakref
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from operator import is_
from typing import Any

import numpy as np

Read = Callable[[], Any]


class Sentinel:
    """Stands for a value that there is not."""

    def __repr__(self) -> str:
        return "nothing"


class EntryOf(partial[Any]):
    """Reads what a dict holds under a name, `MISSING` where nothing: `EntryOf(dict.get.__get__(holder), name, MISSING)`."""


class CellOf(partial[Any]):
    """Reads a closure variable: `CellOf(getattr, cell, "cell_contents")`."""


class PartOf(partial[Any]):
    """Reads a part of a function that is held weakly: `PartOf(getattr, weakref.proxy(function), "__code__")`."""

    function: weakref.ref[Any]


def entry_of(holder: dict[str, Any], name: str) -> EntryOf:
    """Return a reader of what a dict holds under a name."""
    return EntryOf(dict.get.__get__(holder), name, MISSING)


def part_of(function: types.FunctionType, name: str) -> PartOf:
    """Return a reader of a part of a function, which it does not keep alive."""
    read = PartOf(getattr, weakref.proxy(function), name)
    read.function = weakref.ref(function)
    return read


MISSING = Sentinel()  # a name that is not bound yet
OPAQUE = Sentinel()  # what only running user code could tell
FOLLOWED = Sentinel()  # the result of a property, whose getter is guarded
_MAX_LEAVES, _MAX_DEPTH = 100, 6
# Types are compared by their ids: a metaclass may define `==`.
_SCALARS = {id(kind) for kind in (bool, int, float, complex, str, bytes, type(None), Sentinel)}
FUNCTIONS = {id(kind) for kind in (types.FunctionType, types.MethodType, partial, staticmethod, classmethod)}
UNREADABLE = (ValueError, AttributeError, RuntimeError)  # an empty cell, an empty slot, a dict that another thread resizes
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_KERNELS = os.path.join(os.path.dirname(_OWN), "kernels")
_FOLDERS = tuple(path + os.sep for path in (_OWN, _KERNELS, os.path.dirname(np.__file__), os.path.dirname(os.__file__)))

mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
class_members: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_name: Callable[[type], str] = type.__dict__["__name__"].__get__


def is_library_file(file: str) -> bool:
    """Tell whether `file` belongs to staticgrad, NumPy, the standard library or an installed package."""
    return file.startswith((*_FOLDERS, "<frozen ")) or "site-packages" in file or "dist-packages" in file


def is_library_module(members: Mapping[str, Any]) -> bool:
    """Tell whether the module with these members belongs to one of those."""
    file = members.get("__file__")
    return is_library_file(file) if isinstance(file, str) else str(members.get("__name__")).partition(".")[0] in sys.stdlib_module_names


def is_user_class(cls: type) -> bool:
    """Tell whether `cls` is written by the user."""
    module = class_members(cls).get("__module__")
    return type(module) is str and not is_library_module(namespace(sys.modules.get(module)) or {"__name__": module})


def lookup(cls: type, name: str) -> Any:
    """Return what the classes of `cls` hold under `name`, `MISSING` where nothing."""
    return next((class_members(base)[name] for base in mro(cls) if name in class_members(base)), MISSING)


def namespace(value: object) -> dict[str, Any] | None:
    """Return the `__dict__` of a value, None where it has none."""
    descriptor = lookup(type(value), "__dict__")
    return descriptor.__get__(value) if type(descriptor) in (types.GetSetDescriptorType, types.MemberDescriptorType) else None


def slots(value: object) -> dict[str, Read]:
    """Return readers of the slots of a value."""
    members = [item for base in mro(type(value)) for item in class_members(base).items() if type(item[1]) is types.MemberDescriptorType]
    return {name: partial(attempt, partial(slot.__get__, value)) for name, slot in members}


def attempt(read: Read) -> Any:
    """Return what `read` reads, `MISSING` where it cannot."""
    try:
        return read()
    except UNREADABLE:
        return MISSING


def _holds(view: Any, items: tuple[object, ...]) -> bool:
    return len(view) == len(items) and all(map(is_, view, items))


def _alive(reference: weakref.ref[Any]) -> Any:
    if (value := reference()) is None:
        raise ReferenceError
    return value


def reference(value: Any) -> Read:
    """Return a reader of `value` that does not keep it alive, where that is possible."""
    try:
        return partial(_alive, weakref.ref(value))
    except TypeError:  # a container, an object with slots
        return lambda: value


def is_scalar(value: object) -> bool:
    """Tell whether a value is compared by its `repr`."""
    kind = type(value)
    return id(kind) in _SCALARS or (issubclass(kind, np.generic) and not issubclass(kind, np.void))  # np.void is a view of an array


def is_open(value: object) -> bool:
    """Tell whether `value` is an object that its attributes stand for."""
    kind = type(value)
    if issubclass(kind, (np.ndarray, type, types.ModuleType, Enum)):
        return False
    argparse = sys.modules.get("argparse")  # whoever has a value of its class has imported it
    return kind is types.SimpleNamespace or (argparse is not None and kind is argparse.Namespace) or is_user_class(kind)


def live_views(value: Any) -> list[Any]:
    """Return live views: the keys and values of a dict, the items of a list, tuple or set; nothing for other values."""
    kind = type(value)
    if issubclass(kind, dict):
        return [dict.keys(value), dict.values(value)]
    if issubclass(kind, tuple):
        return [tuple(tuple.__iter__(value))]
    return [value] if kind is list or kind is set or kind is frozenset else []


def _show(value: Any) -> str:
    """Return the `repr` of a scalar, which tells any two apart, and the type of anything else."""
    kind = type(value)
    if is_scalar(value):
        if (kind is str or kind is bytes) and len(value) > 1000:
            return f"{value[:20]!r}... (length {len(value)}, hash {hash(value):x})"
        return hex(value) if kind is int and value.bit_length() > 64 else repr(value)
    return f"{_name(kind)}.{(namespace(value) or {}).get('_name_')}" if issubclass(kind, Enum) else f"a {_name(kind)}"


def py_func(value: object) -> Any:
    """Return the Python function inside a traced or jitted one, None where there is none."""
    is_exposed = lookup(type(value), "py_func") is not MISSING and not is_user_class(type(value))
    function = getattr(value, "py_func", None) if is_exposed else (namespace(value) or {}).get("py_func")
    return function if callable(function) else None


class Guard:
    """A name and what it was: leaves by their path (what is shown, the object's id or 0, its type's id), and probes."""

    def __init__(self, label: str, name: str, read: Read, whole: bool) -> None:
        self.label, self.name, self.whole = label, name, whole
        value = attempt(read)
        self.read = partial(attempt, read) if value is MISSING and type(read) is not EntryOf else read
        self.leaves: dict[str, tuple[str, int, int]] = {}
        self.probes: list[tuple[Read, object, Guard]] = [] if whole else [(self.read, value, self)]
        self.objects: list[Any] = []  # for the walk, which clears it
        self._opened: set[int] = set()
        self._add(value, "", 0)

    def _add(self, value: Any, path: str, depth: int) -> None:
        kind, views = type(value), live_views(value)
        size = len(views[0]) if views else 0
        is_object = not views and not is_scalar(value)
        is_closed = depth == _MAX_DEPTH or len(self.leaves) + size > _MAX_LEAVES or id(value) in self._opened
        by_identity = is_object or (is_closed and bool(views))
        self.leaves[path] = (_show(value) + (f" of {size} items" if views else ""), id(value) if by_identity else 0, id(kind))
        if is_object:
            self.objects.append(value)
        if views and is_closed:
            self.probes.append((lambda: len(views[0]) == size, True, self))
        if is_closed or not (views or (is_object and (self.whole or depth) and is_open(value))):
            return
        self._opened.add(id(value))
        if is_object:
            members = namespace(value) or {}
            views = [members.keys(), members.values()]
            items = {f".{name}": item for name, item in members.items()}
            for name, read in slots(value).items():
                items[f".{name}"] = item = read()
                self.probes.append((read, item, self))
        elif issubclass(kind, dict) or kind is set or kind is frozenset:
            names = [_show(key) if is_scalar(key) else f"{_show(key)} at {id(key):#x}" for key in views[0]]
            items = {f"[{name}]": item for name, item in zip(names, views[-1])}
        else:
            items = {f"[{i}]": item for i, item in enumerate(views[0])}
        self.probes += [(partial(_holds, view, tuple(view)), True, self) for view in views if type(view) is not tuple]
        for name, item in items.items():
            self._add(item, path + name, depth + 1)

    def again(self) -> Guard:
        """Return this guard with what is there now; itself when the function or the object is no more, so nobody calls it."""
        try:
            guard = Guard(self.label, self.name, self.read, self.whole)
        except ReferenceError:
            return self
        guard.objects.clear()
        return guard

    def is_like(self, now: Guard) -> bool:
        """Tell whether `now` guards the same values."""
        return self.leaves == now.leaves

    def difference(self, now: Guard) -> tuple[str, str, str] | None:
        """Return the path of the first difference, what is shown of it and of what stands there now."""
        nothing = ("nothing", 0, 0)
        for path in () if self.leaves == now.leaves else (*self.leaves, *now.leaves):
            if self.leaves.get(path) != now.leaves.get(path):
                return path, self.leaves.get(path, nothing)[0], now.leaves.get(path, nothing)[0]
        return None

    def sentence(self) -> str | None:
        """Return what changed, for the log; None when nothing did."""
        try:
            difference = self.difference(self.again())
        except RuntimeError:
            return f"{self.label} changed while it was compared"
        if difference is None:
            return None
        path, old, new = difference
        return f"{self.label}{path and ': ' + path} changed from {old} to {'another one' if new == old else new}"
