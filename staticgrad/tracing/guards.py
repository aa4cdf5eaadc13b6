"""Guards notice that something a traced function reads from outside is no longer what it was when it was traced.

`Guards.collect` reads the bytecode of the function and of the user's functions it calls; each global, closure variable and attribute
that they load becomes a guard. `changed` runs at every call, so guards are flattened into probes: a reader and the object that it has
to return, compared by `is`. Only where a probe fails are values compared, so running `lr = 0.1` once more changes nothing.

    lr = 0.1; hyper = {"l2": 0.5}                     globals.get("lr")    is 0.1
    def step(w, g): return w - lr * hyper["l2"] * g   globals.get("hyper") is hyper;  hyper holds the same keys and values

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
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property, partial
from operator import call, is_
from typing import Any

import numpy as np

from staticgrad.errors import StaticgradWarning
from staticgrad.tracing.snapshots import (
    FOLLOWED,
    FUNCTIONS,
    MISSING,
    OPAQUE,
    UNREADABLE,
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


@cache
def _random() -> tuple[frozenset[int], tuple[type, ...]]:
    """Return the functions (by identity) and the classes that draw random numbers; NumPy loads its own when they are asked for."""
    states = (np.random.Generator, np.random.RandomState, random.Random)
    named = [vars(module).get(name) for module in (np.random, random) for name in module.__all__]
    return frozenset(id(item) for item in named if callable(item) and not isinstance(item, type)), states


def _is_random(value: object) -> bool:
    functions, states = _random()
    return id(value) in functions or issubclass(type(value), states)


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
    return sys.modules.get(full if has_names else full.partition(".")[0], OPAQUE)


class _Walk:
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
                    if name in members:
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


_Probes = tuple[tuple[Read, ...], tuple[object, ...], tuple[Guard, ...]]


class Guards:
    """What a function reads from outside, as it was when the guards were collected.

    Attributes
    ----------
    random_uses : tuple of str
        The random numbers that the function draws from outside, such as `"np.random.normal, model.py:12"`.
    side_effects : frozenset of str
        What the function itself changes, known once `warn_about_side_effects` has run.

    Examples
    --------
    >>> lr = 0.1
    >>> guards = Guards.collect(lambda w, g: w - lr * g)
    >>> guards.changed()
    >>> lr = 0.2
    >>> guards.changed()
    "global 'lr' of module staticgrad.tracing.guards changed from 0.1 to 0.2"
    """

    def __init__(self, guards: list[Guard], stored: set[str], random_uses: tuple[str, ...]) -> None:
        self.random_uses = random_uses
        self.side_effects: frozenset[str] = frozenset()
        self._stored = frozenset(stored)
        self._set(guards)

    def _set(self, guards: list[Guard]) -> None:
        self._guards = tuple(guards)
        columns: Any = tuple(zip(*(probe for guard in guards for probe in guard.probes))) or ((), (), ())
        self._probes: _Probes = columns  # one assignment: other threads see the old ones or the new ones
        self._pairs = tuple(zip(*columns[:2]))

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
        except (*UNREADABLE, ReferenceError):
            pass
        for read, value, guard in zip(reads, expected, guards):
            try:
                is_same = read() is value
            except (*UNREADABLE, ReferenceError):
                is_same = False
            if not is_same and (sentence := guard.sentence()):
                return sentence
        with suppress(RuntimeError):  # a dict that another thread resizes: the next call looks again
            before = self._guards
            now = [guard.again() for guard in before]
            if all(map(Guard.is_like, before, now)):  # another thread may have changed something since the values were compared
                self._set(now)  # equal values, other objects: known by identity from now on
        return None

    def probes(self) -> tuple[tuple[Read, object], ...]:
        """Return the readers and the objects that they have to return; the same tuple as long as nothing is guarded anew."""
        return self._pairs

    def warn_about_side_effects(self, stacklevel: int = 2) -> None:
        """Warn of each list, dict, set and variable that the function changed since `collect`; they are in `side_effects` then.

        These are guarded no more, here and (by `forget`) for the function's other signatures: every trace changes them.
        What was `None` or missing is let be: a value that is made at first use is an ordinary change, which retraces once.
        """
        for guard in self._guards:
            now = guard.again()
            path, old, _ = guard.difference(now) or ("", "None", "")
            is_mutated = path.endswith("]") or old.endswith(" items")
            is_stored = old not in ("None", "nothing") and (path.rpartition(".")[2] or guard.name) in self._stored
            if guard.leaves != now.leaves and (is_mutated or is_stored):
                self.side_effects |= {guard.label}
                place = guard.label + (path and ": " + path)
                message = f"{place} was changed by the function being traced: Python side effects happen once, at tracing"
                warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
        self.forget(self.side_effects)

    def forget(self, labels: frozenset[str]) -> None:
        """Guard what is called `labels` no more."""
        if labels:
            self._set([guard for guard in self._guards if guard.label not in labels])

    def warn_about_random(self, stacklevel: int = 2) -> None:
        """Warn when the function draws random numbers with NumPy: every call would see those of the tracing."""
        if self.random_uses:
            uses = "; ".join(self.random_uses)
            message = f"random numbers drawn once, at tracing, stay the same at every call ({uses}): pass them in or use sg.random"
            warnings.warn(message, StaticgradWarning, stacklevel=stacklevel)
