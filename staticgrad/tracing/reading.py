"""What a function reads from outside, found by following its bytecode: every global, closure variable and attribute becomes a guard.

The user's functions that it calls are followed as well; no user code runs. `guards.py` says what becomes of the guards.
"""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import os
import random
import sys
import types
from collections import Counter
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from staticgrad.tracing.bytecode import inner_stores, operations_of
from staticgrad.tracing.snapshots import (
    FOLLOWED,
    FUNCTIONS,
    MISSING,
    OPAQUE,
    CellOf,
    Guard,
    Read,
    Sentinel,
    attempt,
    class_members,
    entry_of,
    is_library_file,
    is_library_module,
    is_open,
    is_scalar,
    is_user_class,
    live_views,
    lookup,
    mro,
    namespace,
    part_of,
    py_func,
    reference,
    slots,
)

_MAX_FOLLOWED = 1000


@cache
def _random() -> tuple[frozenset[int], tuple[type, ...]]:
    """Return the functions (by identity) and the classes that draw random numbers; NumPy loads its own when they are asked for."""
    states = (np.random.Generator, np.random.RandomState, random.Random)
    named = [vars(module).get(name) for module in (np.random, random) for name in module.__all__]
    return frozenset(id(item) for item in named if callable(item) and not isinstance(item, type)), states


def _is_random(value: object) -> bool:
    functions, states = _random()
    return id(value) in functions or issubclass(type(value), states)


def _imported(function: types.FunctionType, name: str, level: int, has_names: bool) -> Any:
    package = function.__globals__.get("__package__") or str(function.__globals__.get("__name__")).rpartition(".")[0]
    full = importlib.util.resolve_name("." * level + name, package) if level and package else name
    return sys.modules.get(full if has_names else full.partition(".")[0], OPAQUE)


class Reading:
    """The functions that one function reaches, and the guards of what they read."""

    def __init__(self, function: object) -> None:
        self.guards: dict[tuple[int, str], Guard] = {}
        self.random: dict[str, None] = {}
        self.stored: set[str] = set()
        self._seen: dict[tuple[int, ...], object] = {}
        self._queue: list[object] = []
        self._follow(function)
        while self._queue and len(self._seen) < _MAX_FOLLOWED:
            self._visit(self._queue.pop(), (), {})

    def _follow(self, value: Any) -> None:
        key = (id(value.__func__), id(value.__self__)) if type(value) is types.MethodType else (id(value),)
        if key not in self._seen and not is_scalar(value):
            self._seen[key] = value
            self._queue.append(value)

    def _follow_held(self, values: list[Any]) -> None:
        """Follow the functions that an object or a closure of a library holds: `np.vectorize`, `lru_cache`, a decorator."""
        for value in values:
            if id(type(value)) in FUNCTIONS or py_func(value) is not None:
                self._follow(value)

    def _guard(self, holder: object, name: str, label: str, read: Read, whole: bool = False) -> Any:
        value = attempt(read)
        is_library = issubclass(type(value), types.ModuleType) and is_library_module(namespace(value) or {})
        if (id(holder), name) not in self.guards and not is_library:
            guard = self.guards[id(holder), name] = Guard(label, name, read, whole)
            if live_views(value):
                self.guards.setdefault((id(value), ""), guard)
            for item in guard.objects if whole or live_views(value) else ():
                self._follow(item)
                if is_open(item):
                    self._follow(type(item))
            guard.objects.clear()
        return value

    def _use(self, value: Any, text: str) -> None:
        """Guard as a whole a value that leaves our sight, as an operand or an argument."""
        self._follow(value)
        if is_open(value) or live_views(value):
            self._guard(value, "", f"'{text}'", reference(value), whole=True)

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
            for member in (member for base in mro(value) if is_user_class(base) for member in class_members(base).values()):
                if type(member) is property or id(type(member)) in FUNCTIONS:
                    self._follow(member.fget if type(member) is property else member)
        elif (function := py_func(value)) is not None:
            self._visit(function, args, kwargs)
        elif not is_user_class(kind):
            members = namespace(value) or {}
            guarded = getattr(kind, "guarded", ())
            for name in guarded:
                self._guard(members, name, f"{name} of {members.get('__name__')}", entry_of(members, name))
            if guarded and args:  # a method with rules: they are handed the object, too
                for name in ("__wrapped__", *guarded):
                    if members.get(name) is not None:
                        self._visit(members[name], args, kwargs)
            self._follow_held([*members.values(), *(read() for read in slots(value).values())])
        elif type(method := lookup(kind, "__call__")) is types.FunctionType:
            self._visit(method, (value, *args), kwargs)

    def _function(self, function: types.FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        code = function.__code__
        cells = dict(zip(code.co_freevars, function.__closure__ or ()))
        self._follow(function.__dict__.get("__wrapped__"))
        if is_library_file(code.co_filename):
            self._follow_held([attempt(partial(getattr, cell, "cell_contents")) for cell in cells.values()])
            return
        for part in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(function, part) is not None:
                self._guard(function, part, f"{part} of {function.__qualname__}", part_of(function, part))
        known = kwargs | dict(zip(code.co_varnames[: code.co_argcount], args))
        for value in (*args[code.co_argcount :], *(value for name, value in known.items() if name not in code.co_varnames)):
            self._use(value, "an argument")
        self._code(code, function, {**cells, **{name: (value,) for name, value in known.items()}})

    def _code(self, code: types.CodeType, function: types.FunctionType, names: dict[str, Any]) -> None:
        """Follow what `code` loads; `names` holds the cells of the closure and, in 1-tuples, the values of locals that are known."""
        operations = operations_of(code)
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
        stores.update((*inner_stores(code), *code.co_freevars, *code.co_varnames[:parameters]))
        module: Any = OPAQUE
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
                value, path, name = module, [name], str((namespace(module) or {}).get("__name__"))
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
            return self._guard(entry, name, label, CellOf(getattr, entry, "cell_contents"))
        if name not in outside and name in vars(builtins):
            return OPAQUE
        label = f"global '{name}' of module {outside.get('__name__')}"
        return self._guard(outside, name, label, entry_of(outside, name))

    def _attributes(self, value: Any, path: list[str], text: str) -> tuple[Any, bool]:
        """Return what `text.path` is, and whether it draws random numbers."""
        is_random = _is_random(value)
        for name in path:
            if type(value) is Sentinel:
                break
            owner, value = value, self._attribute(value, name, f"'{text}.{name}'")
            is_random = is_random or _is_random(value)
            if value is OPAQUE:
                self._use(owner, text)
            text = f"{text}.{name}"
        return value, is_random

    def _attribute(self, owner: Any, name: str, label: str) -> Any:
        """Return what `owner.name` is, guarded, without running code of the user."""
        kind = type(owner)
        members, found = namespace(owner), lookup(kind, name)
        has_name = members is not None and name in members
        if issubclass(kind, type):
            return self._class_attribute(owner, name, label, MISSING)
        if issubclass(kind, types.ModuleType):
            if members is None or is_library_module(members) or (not has_name and "__getattr__" in members):
                return (members or {}).get(name, OPAQUE)
            label = f"global '{name}' of module {members.get('__name__')}"
        elif type(found) is property or type(found) is cached_property:
            getter = getattr(found, "fget", None) or getattr(found, "func", None)
            self._follow(types.MethodType(getter, owner) if callable(getter) else None)
            return FOLLOWED
        elif type(found) is types.MemberDescriptorType:
            return self._guard(owner, name, label, partial(found.__get__, owner))
        elif type(lookup(kind, "__getattribute__")) is types.FunctionType or lookup(type(found), "__set__") is not MISSING:
            return OPAQUE
        if found is MISSING and not has_name and lookup(kind, "__getattr__") is not MISSING:
            return OPAQUE
        value: Any = MISSING
        if members is not None and (has_name or found is MISSING or is_open(owner)):
            value = self._guard(members, name, label, entry_of(members, name))
        return value if has_name or found is MISSING else self._class_attribute(kind, name, label, owner)

    def _class_attribute(self, cls: type, name: str, label: str, instance: Any) -> Any:
        found: Any = MISSING
        for base in mro(cls):
            read = partial(types.MappingProxyType.get, class_members(base), name, MISSING)
            found = self._guard(base, name, label, read) if is_user_class(base) else read()
            if found is not MISSING:
                break
        kind: Any = type(found)
        function = py_func(found)
        if kind is classmethod:
            return types.MethodType(found.__func__, cls)
        if kind is types.FunctionType or function is not None:
            return (function or found) if instance is MISSING else types.MethodType(function or found, instance)
        if kind is staticmethod:
            return found.__func__
        return OPAQUE if found is MISSING or lookup(kind, "__get__") is not MISSING else found
