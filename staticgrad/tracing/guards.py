"""Guards notice that something a traced function reads from outside is no longer what it was when it was traced.

`Guards.collect` reads the bytecode of the function and of the user's functions it calls; each global, closure variable and attribute
that they load becomes a guard. `changed` runs at every call, so guards are flattened into probes: a reader and the object that it has
to return, compared by `is`. Only where a probe fails are values compared, so running `lr = 0.1` once more changes nothing.

    lr = 0.1; hyper = {"l2": 0.5}                     globals.get("lr")    is 0.1
    def step(w, g): return w - lr * hyper["l2"] * g   globals.get("hyper") is hyper;  hyper holds the same keys and values

| value | changed when |
| --- | --- |
| bool, int, float, complex, str, bytes, None, NumPy scalar | type or value differ (NaN equals NaN, 0.0 is not -0.0) |
| list, tuple, dict, set of at most 100 leaves | an item differs; a larger one: it is another object or its length differs |
| array, function, class, module of the user, any other object | it is another object (arrays are snapshotted: contents are not looked at) |
| object of a user's class that is used as a whole, not only through attributes | an attribute differs |

No user code runs: attributes are looked up in `__dict__` and slots, a property is followed into its getter. Values are held strongly,
so that no id is used twice, but not the function itself nor the object that it is bound to: guards may be kept in a registry that
is keyed by them weakly. Notebooks reload functions in place, so the `__code__` of each function is guarded, too.
"""

from __future__ import annotations

import builtins
import dis
import importlib.util
import inspect
import os
import random
import re
import sys
import types
import warnings
import weakref
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cached_property, partial
from operator import call, is_
from typing import Any

import numpy as np

from staticgrad.errors import StaticgradWarning

Read = Callable[[], Any]


class _Sentinel:
    def __repr__(self) -> str:
        return "nothing"


_MISSING = _Sentinel()  # a name that is not bound yet
_OPAQUE = _Sentinel()  # what only running user code could tell
_FOLLOWED = _Sentinel()  # the result of a property, whose getter is guarded
_MAX_LEAVES, _MAX_DEPTH, _MAX_FOLLOWED = 100, 6, 1000
# Types are compared by their ids: a metaclass may define `==`.
_SCALARS = {id(kind) for kind in (bool, int, float, complex, str, bytes, type(None), _Sentinel)}
_FUNCTIONS = {id(kind) for kind in (types.FunctionType, types.MethodType, partial, staticmethod, classmethod)}
_UNREADABLE = (ValueError, AttributeError, RuntimeError)  # an empty cell, an empty slot, a dict that another thread resizes
_RANDOM_STATES = (np.random.Generator, np.random.RandomState, random.Random)
_RANDOM_NAMES = [vars(module).get(name) for module in (np.random, random) for name in module.__all__]
_RANDOM_FUNCTIONS = {id(item) for item in _RANDOM_NAMES if callable(item) and not isinstance(item, type)}
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_KERNELS = os.path.join(os.path.dirname(_OWN), "kernels")
_FOLDERS = tuple(path + os.sep for path in (_OWN, _KERNELS, os.path.dirname(np.__file__), os.path.dirname(os.__file__)))

_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_members: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_name: Callable[[type], str] = type.__dict__["__name__"].__get__


def _is_library_file(file: str) -> bool:
    return file.startswith((*_FOLDERS, "<frozen ")) or "site-packages" in file or "dist-packages" in file


def _is_library_module(members: Mapping[str, Any]) -> bool:
    file = members.get("__file__")
    return _is_library_file(file) if isinstance(file, str) else str(members.get("__name__")).partition(".")[0] in sys.stdlib_module_names


def _is_user_class(cls: type) -> bool:
    module = _members(cls).get("__module__")
    return type(module) is str and not _is_library_module(_namespace(sys.modules.get(module)) or {"__name__": module})


def _lookup(cls: type, name: str) -> Any:
    return next((_members(base)[name] for base in _mro(cls) if name in _members(base)), _MISSING)


def _namespace(value: object) -> dict[str, Any] | None:
    descriptor = _lookup(type(value), "__dict__")
    return descriptor.__get__(value) if type(descriptor) in (types.GetSetDescriptorType, types.MemberDescriptorType) else None


def _slots(value: object) -> dict[str, Read]:
    members = [item for base in _mro(type(value)) for item in _members(base).items() if type(item[1]) is types.MemberDescriptorType]
    return {name: partial(_attempt, partial(slot.__get__, value)) for name, slot in members}


def _attempt(read: Read) -> Any:
    try:
        return read()
    except _UNREADABLE:
        return _MISSING


def _holds(view: Any, items: tuple[object, ...]) -> bool:
    return len(view) == len(items) and all(map(is_, view, items))


def _alive(reference: weakref.ref[Any]) -> Any:
    if (value := reference()) is None:
        raise ReferenceError
    return value


def _reference(value: Any) -> Read:
    try:
        return partial(_alive, weakref.ref(value))
    except TypeError:  # a container, an object with slots
        return lambda: value


def _is_scalar(value: object) -> bool:
    kind = type(value)
    return id(kind) in _SCALARS or (issubclass(kind, np.generic) and not issubclass(kind, np.void))  # np.void is a view of an array


def _is_open(value: object) -> bool:
    """Tell whether `value` is an object that its attributes stand for."""
    kind = type(value)
    if issubclass(kind, (np.ndarray, type, types.ModuleType, Enum)):
        return False
    return kind is types.SimpleNamespace or kind is Namespace or _is_user_class(kind)


def _is_random(value: object) -> bool:
    return id(value) in _RANDOM_FUNCTIONS or issubclass(type(value), _RANDOM_STATES)


def _views(value: Any) -> list[Any]:
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
    if _is_scalar(value):
        if (kind is str or kind is bytes) and len(value) > 1000:
            return f"{value[:20]!r}... (length {len(value)}, hash {hash(value):x})"
        return hex(value) if kind is int and value.bit_length() > 64 else repr(value)
    return f"{_name(kind)}.{(_namespace(value) or {}).get('_name_')}" if issubclass(kind, Enum) else f"a {_name(kind)}"


def _py_func(value: object) -> Any:
    """Return the Python function inside a traced or jitted one, None where there is none."""
    is_exposed = _lookup(type(value), "py_func") is not _MISSING and not _is_user_class(type(value))
    function = getattr(value, "py_func", None) if is_exposed else (_namespace(value) or {}).get("py_func")
    return function if callable(function) else None


class _Guard:
    """A name and what it was: leaves by their path (what is shown, the object's id or 0, its type's id), and probes."""

    def __init__(self, label: str, name: str, read: Read, whole: bool) -> None:
        self.label, self.name, self.whole = label, name, whole
        value = _attempt(read)
        self.read = partial(_attempt, read) if value is _MISSING else read
        self.leaves: dict[str, tuple[str, int, int]] = {}
        self.probes: list[tuple[Read, object, _Guard]] = [] if whole else [(self.read, value, self)]
        self.objects: list[Any] = []  # for the walk, which clears it
        self._opened: set[int] = set()
        self._add(value, "", 0)

    def _add(self, value: Any, path: str, depth: int) -> None:
        kind, views = type(value), _views(value)
        size = len(views[0]) if views else 0
        is_object = not views and not _is_scalar(value)
        is_closed = depth == _MAX_DEPTH or len(self.leaves) + size > _MAX_LEAVES or id(value) in self._opened
        by_identity = is_object or (is_closed and bool(views))
        self.leaves[path] = (_show(value) + (f" of {size} items" if views else ""), id(value) if by_identity else 0, id(kind))
        if is_object:
            self.objects.append(value)
        if views and is_closed:
            self.probes.append((lambda: len(views[0]) == size, True, self))
        if is_closed or not (views or (is_object and (self.whole or depth) and _is_open(value))):
            return
        self._opened.add(id(value))
        if is_object:
            members = _namespace(value) or {}
            views = [members.keys(), members.values()]
            items = {f".{name}": item for name, item in members.items()}
            for name, read in _slots(value).items():
                items[f".{name}"] = item = read()
                self.probes.append((read, item, self))
        elif issubclass(kind, dict) or kind is set or kind is frozenset:
            names = [_show(key) if _is_scalar(key) else f"{_show(key)} at {id(key):#x}" for key in views[0]]
            items = {f"[{name}]": item for name, item in zip(names, views[-1])}
        else:
            items = {f"[{i}]": item for i, item in enumerate(views[0])}
        self.probes += [(partial(_holds, view, tuple(view)), True, self) for view in views if type(view) is not tuple]
        for name, item in items.items():
            self._add(item, path + name, depth + 1)

    def again(self) -> _Guard:
        """Return this guard with what is there now; itself when the function or the object is no more, so nobody calls it."""
        try:
            guard = _Guard(self.label, self.name, self.read, self.whole)
        except ReferenceError:
            return self
        guard.objects.clear()
        return guard

    def difference(self, now: _Guard) -> tuple[str, str, str] | None:
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


_VERSIONS = {
    "attribute": "LOAD_ATTR LOAD_METHOD",
    "global": "LOAD_GLOBAL",
    "name": "LOAD_NAME LOAD_FROM_DICT_OR_GLOBALS",  # in the body of a class
    "local": "LOAD_FAST LOAD_FAST_CHECK LOAD_DEREF LOAD_CLASSDEREF LOAD_FROM_DICT_OR_DEREF",
    "store": "STORE_FAST STORE_DEREF STORE_NAME DELETE_FAST DELETE_DEREF DELETE_NAME",
    "store outside": "STORE_ATTR DELETE_ATTR STORE_GLOBAL DELETE_GLOBAL",
    "import": "IMPORT_NAME",
    "import from": "IMPORT_FROM",
}
_KINDS = {name: kind for kind, names in _VERSIONS.items() for name in names.split()}


def _operations(code: types.CodeType) -> list[tuple[str, Any, int]]:
    """Return the instructions of `code` as (kind, name, line), the same for every Python version."""
    operations: list[tuple[str, Any, int]] = []
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        line = (instruction.positions and instruction.positions.lineno) or line
        if isinstance(value, tuple) and "_FAST_" in name:  # 3.13: LOAD_FAST_LOAD_FAST and its like
            operations += [(_KINDS[verb + "_FAST"], each, line) for verb, each in zip(re.findall("LOAD|STORE", name), value)]
        elif name == "LOAD_FAST" and value in (*code.co_cellvars, *code.co_freevars):  # 3.13: a cell for an inner function
            operations.append(("other", value, line))
        elif name not in ("NOP", "EXTENDED_ARG"):
            operations.append(("copy" if name == "COPY" and instruction.arg == 1 else _KINDS.get(name, "other"), value, line))
    operations.append(("other", "", line))
    # `self.n += 1` copies self, to read and to write
    return [this for this, after in zip(operations, operations[1:] + operations[-1:]) if (this[0], after[0]) != ("copy", "attribute")]


def _inner_stores(code: types.CodeType) -> Iterator[str]:
    """Yield the names that functions inside `code` declare `nonlocal` and store."""
    for inner in (constant for constant in code.co_consts if isinstance(constant, types.CodeType)):
        yield from (name for kind, name, _ in _operations(inner) if kind == "store" and name in inner.co_freevars)
        yield from _inner_stores(inner)


def _imported(function: types.FunctionType, name: str, level: int, has_names: bool) -> Any:
    package = function.__globals__.get("__package__") or str(function.__globals__.get("__name__")).rpartition(".")[0]
    full = importlib.util.resolve_name("." * level + name, package) if level and package else name
    return sys.modules.get(full if has_names else full.partition(".")[0], _OPAQUE)


class _Walk:
    """The functions that one function reaches, and the guards of what they read."""

    def __init__(self, function: object) -> None:
        self.guards: dict[tuple[int, str], _Guard] = {}
        self.random: dict[str, None] = {}
        self.stored: set[str] = set()
        self._seen: dict[tuple[int, ...], object] = {}
        self._queue: list[object] = []
        self._follow(function)
        while self._queue and len(self._seen) < _MAX_FOLLOWED:
            self._visit(self._queue.pop(), (), {})

    def _follow(self, value: Any) -> None:
        key = (id(value.__func__), id(value.__self__)) if type(value) is types.MethodType else (id(value),)
        if key not in self._seen and not _is_scalar(value):
            self._seen[key] = value
            self._queue.append(value)

    def _follow_held(self, values: list[Any]) -> None:
        """Follow the functions that an object or a closure of a library holds: `np.vectorize`, `lru_cache`, a decorator."""
        for value in values:
            if id(type(value)) in _FUNCTIONS or _py_func(value) is not None:
                self._follow(value)

    def _guard(self, holder: object, name: str, label: str, read: Read, whole: bool = False) -> Any:
        value = _attempt(read)
        is_library = issubclass(type(value), types.ModuleType) and _is_library_module(_namespace(value) or {})
        if (id(holder), name) not in self.guards and not is_library:
            guard = self.guards[id(holder), name] = _Guard(label, name, read, whole)
            if _views(value):
                self.guards.setdefault((id(value), ""), guard)
            for item in guard.objects if whole or _views(value) else ():
                self._follow(item)
                if _is_open(item):
                    self._follow(type(item))
            guard.objects.clear()
        return value

    def _use(self, value: Any, text: str) -> None:
        """Guard as a whole a value that leaves our sight, as an operand or an argument."""
        self._follow(value)
        if _is_open(value) or _views(value):
            self._guard(value, "", f"'{text}'", _reference(value), whole=True)

    def _visit(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kind = type(value)
        if kind is types.FunctionType:
            self._function(value, args, kwargs)
        elif kind is types.MethodType:
            self._visit(value.__func__, (value.__self__, *args), kwargs)
        elif kind is partial:
            self._visit(value.func, (*value.args, *args), {**value.keywords, **kwargs})
        elif kind is staticmethod or kind is classmethod:
            self._visit(value.__func__, args, kwargs)
        elif issubclass(kind, type):
            for member in (member for base in _mro(value) if _is_user_class(base) for member in _members(base).values()):
                if type(member) is property or id(type(member)) in _FUNCTIONS:
                    self._follow(member.fget if type(member) is property else member)
        elif (function := _py_func(value)) is not None:
            self._visit(function, args, kwargs)
        elif not _is_user_class(kind):
            self._follow_held([*(_namespace(value) or {}).values(), *(read() for read in _slots(value).values())])
        elif type(method := _lookup(kind, "__call__")) is types.FunctionType:
            self._visit(method, (value, *args), kwargs)

    def _function(self, function: types.FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        code = function.__code__
        cells = dict(zip(code.co_freevars, function.__closure__ or ()))
        self._follow(function.__dict__.get("__wrapped__"))
        if _is_library_file(code.co_filename):
            self._follow_held([_attempt(partial(getattr, cell, "cell_contents")) for cell in cells.values()])
            return
        weak = weakref.proxy(function)
        for part in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(function, part) is not None:
                self._guard(function, part, f"{part} of {function.__qualname__}", partial(getattr, weak, part))
        known = kwargs | dict(zip(code.co_varnames[: code.co_argcount], args))
        for value in (*args[code.co_argcount :], *(value for name, value in known.items() if name not in code.co_varnames)):
            self._use(value, "an argument")
        self._code(code, function, {**cells, **{name: (value,) for name, value in known.items()}})

    def _code(self, code: types.CodeType, function: types.FunctionType, names: dict[str, Any]) -> None:
        """Follow what `code` loads; `names` holds the cells of the closure and, in 1-tuples, the values of locals that are known."""
        operations = _operations(code)
        stores = Counter(name for kind, name, _ in operations if kind == "store")
        unseen = {"__class__", *code.co_varnames[:1]} if "__class__" in code.co_freevars else set()  # `super()` reads both
        for name, entry in list(names.items()):
            is_rebound = stores[name] > 0 and type(entry) is tuple
            if is_rebound or name in unseen:
                self._use(self._load(function, names, name), name)
            if is_rebound:
                del names[name]
        # A local that is stored once stands for the value; a parameter counts as stored.
        parameters = code.co_argcount + code.co_kwonlyargcount + (code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)).bit_count()
        stores.update((*_inner_stores(code), *code.co_freevars, *code.co_varnames[:parameters]))
        module: Any = _OPAQUE
        for position, (kind, name, line) in enumerate(operations[:-1]):
            end = position + 1
            while operations[end][0] == "attribute":
                end += 1
            path = [attribute for _, attribute, _ in operations[position + 1 : end]]
            if kind == "local" and name in names:
                value = self._load(function, names, name)
            elif kind == "global" or (kind == "name" and not stores[name]):
                value = self._load(function, {}, name)
            elif kind == "import":
                (_, level, _), (_, from_names, _) = operations[position - 2 : position]
                module = value = _imported(function, name, level, bool(from_names))
            elif kind == "import from":
                value, path, name = module, [name], str((_namespace(module) or {}).get("__name__"))
            else:
                if kind == "store outside" or (kind == "store" and type(names.get(name)) is types.CellType):
                    self.stored.add(name)
                continue
            value, is_random = self._attributes(value, path, name)
            if is_random and kind != "import from":
                self.random[f"{'.'.join([name, *path])}, {os.path.basename(code.co_filename)}:{line}"] = None
            following, target, _ = operations[end]
            if following == "store" and stores[target] == 1 and target not in names:
                names[target] = (value,)
            elif kind != "import" and following != "store outside":
                self._use(value, ".".join([name, *path]))
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                self._code(inner, function, {name: names[name] for name in inner.co_freevars if name in names})

    def _load(self, function: types.FunctionType, names: dict[str, Any], name: str) -> Any:
        entry, outside = names.get(name), function.__globals__
        if type(entry) is tuple:
            return entry[0]
        if type(entry) is types.CellType:
            label = f"closure variable '{name}' of {function.__qualname__}"
            return self._guard(entry, name, label, partial(getattr, entry, "cell_contents"))
        if name not in outside and name in vars(builtins):
            return _OPAQUE
        label = f"global '{name}' of module {outside.get('__name__')}"
        return self._guard(outside, name, label, partial(dict.get.__get__(outside), name, _MISSING))

    def _attributes(self, value: Any, path: list[str], text: str) -> tuple[Any, bool]:
        """Return what `text.path` is, and whether it draws random numbers."""
        is_random = _is_random(value)
        for name in path:
            if type(value) is _Sentinel:
                break
            owner, value = value, self._attribute(value, name, f"'{text}.{name}'")
            is_random = is_random or _is_random(value)
            if value is _OPAQUE:
                self._use(owner, text)
            text = f"{text}.{name}"
        return value, is_random

    def _attribute(self, owner: Any, name: str, label: str) -> Any:
        """Return what `owner.name` is, guarded, without running code of the user."""
        kind = type(owner)
        members, found = _namespace(owner), _lookup(kind, name)
        has_name = members is not None and name in members
        if issubclass(kind, type):
            return self._class_attribute(owner, name, label, _MISSING)
        if issubclass(kind, types.ModuleType):
            if members is None or _is_library_module(members) or (not has_name and "__getattr__" in members):
                return (members or {}).get(name, _OPAQUE)
            label = f"global '{name}' of module {members.get('__name__')}"
        elif type(found) is property or type(found) is cached_property:
            getter = getattr(found, "fget", None) or getattr(found, "func", None)
            self._follow(types.MethodType(getter, owner) if callable(getter) else None)
            return _FOLLOWED
        elif type(found) is types.MemberDescriptorType:
            return self._guard(owner, name, label, partial(found.__get__, owner))
        elif type(_lookup(kind, "__getattribute__")) is types.FunctionType or _lookup(type(found), "__set__") is not _MISSING:
            return _OPAQUE
        if found is _MISSING and not has_name and _lookup(kind, "__getattr__") is not _MISSING:
            return _OPAQUE
        value: Any = _MISSING
        if members is not None and (has_name or found is _MISSING or _is_open(owner)):
            value = self._guard(members, name, label, partial(dict.get.__get__(members), name, _MISSING))
        return value if has_name or found is _MISSING else self._class_attribute(kind, name, label, owner)

    def _class_attribute(self, cls: type, name: str, label: str, instance: Any) -> Any:
        found: Any = _MISSING
        for base in _mro(cls):
            read = partial(types.MappingProxyType.get, _members(base), name, _MISSING)
            found = self._guard(base, name, label, read) if _is_user_class(base) else read()
            if found is not _MISSING:
                break
        kind: Any = type(found)
        function = _py_func(found)
        if kind is classmethod:
            return types.MethodType(found.__func__, cls)
        if kind is types.FunctionType or function is not None:
            return (function or found) if instance is _MISSING else types.MethodType(function or found, instance)
        if kind is staticmethod:
            return found.__func__
        return _OPAQUE if found is _MISSING or _lookup(kind, "__get__") is not _MISSING else found


_Probes = tuple[tuple[Read, ...], tuple[object, ...], tuple[_Guard, ...]]


class Guards:
    """What a function reads from outside, as it was when the guards were collected.

    Attributes
    ----------
    random_uses : tuple of str
        The random numbers that the function draws from outside, such as `"np.random.normal, model.py:12"`.

    Examples
    --------
    >>> lr = 0.1
    >>> guards = Guards.collect(lambda w, g: w - lr * g)
    >>> guards.changed()
    >>> lr = 0.2
    >>> guards.changed()
    "global 'lr' of module staticgrad.tracing.guards changed from 0.1 to 0.2"
    """

    def __init__(self, guards: list[_Guard], stored: set[str], random_uses: tuple[str, ...]) -> None:
        self.random_uses = random_uses
        self._stored = frozenset(stored)
        self._set(guards)

    def _set(self, guards: list[_Guard]) -> None:
        probes = [probe for guard in guards for probe in guard.probes]
        self._guards = tuple(guards)
        columns: Any = tuple(zip(*probes)) or ((), (), ())
        self._probes: _Probes = columns  # one assignment: other threads see the old ones or the new ones

    @classmethod
    def collect(cls, function: object) -> Guards:
        """Return the guards of `function` for what the names it reads stand for now.

        Parameters
        ----------
        function : callable
            A function, a method, a `functools.partial`, an object with `__call__` or `py_func`.

        Returns
        -------
        Guards
            Without any guard when `function` is not written in Python or reads nothing.
        """
        walk = _Walk(function)
        return cls(list(dict.fromkeys(walk.guards.values())), walk.stored, tuple(walk.random))

    def changed(self) -> str | None:
        """Return a sentence on the first thing that changed, None when nothing did."""
        reads, expected, guards = self._probes
        if not reads:
            return None
        try:
            if all(map(is_, map(call, reads), expected)):
                return None
        except (*_UNREADABLE, ReferenceError):
            pass
        for read, value, guard in zip(reads, expected, guards):
            try:
                is_same = read() is value
            except (*_UNREADABLE, ReferenceError):
                is_same = False
            if not is_same and (sentence := guard.sentence()):
                return sentence
        return None

    def warn_about_side_effects(self, stacklevel: int = 2) -> None:
        """Warn of each list, dict, set and variable that the function changed since `collect`, and guard what they hold now.

        What was `None` or missing is let be: a value that is made at first use is an ordinary change, which retraces once.
        """
        guards = list(self._guards)
        for index, guard in enumerate(guards):
            now = guard.again()
            path, old, _ = guard.difference(now) or ("", "None", "")
            is_mutated = path.endswith("]") or old.endswith(" items")
            is_stored = old not in ("None", "nothing") and (path.rpartition(".")[2] or guard.name) in self._stored
            if guard.leaves != now.leaves and (is_mutated or is_stored):
                guards[index] = now
                place = guard.label + (path and ": " + path)
                message = f"{place} was changed by the function being traced: Python side effects happen once, at tracing"
                warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
        self._set(guards)

    def warn_about_random(self, stacklevel: int = 2) -> None:
        """Warn when the function draws random numbers with NumPy: every call would see those of the tracing."""
        if self.random_uses:
            uses = "; ".join(self.random_uses)
            message = f"random numbers drawn once, at tracing, stay the same at every call ({uses}): pass them in or use sg.random"
            warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
