"""Traced functions: what `sg.trace` and every transform return. One trace and one compilation a signature."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from staticgrad.calls.out_argument import write_results, write_traced_results
from staticgrad.errors import ArgumentError
from staticgrad.ir.graph import inline
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.build import compile_lock
from staticgrad.runtime.call_form import form_of
from staticgrad.runtime.callable_type import FastCallable, directly_called, enter
from staticgrad.runtime.fast_call import Forms, entry_address, forms_lock
from staticgrad.runtime.result_memory import let_go
from staticgrad.tracing.context import current_trace, tracing
from staticgrad.tracing.lift import lift
from staticgrad.tracing.protocol import taker
from staticgrad.tracing.pytree import Signature, Tree, flatten, leaf_aval, prepared, unflatten
from staticgrad.tracing.record import Program, show
from staticgrad.tracing.tracer import tracer_of
from staticgrad.transforms import Transform

if TYPE_CHECKING:
    from staticgrad.calls.lowered import LoweredFunction

from staticgrad.calls.records import CacheInfo, Entry, Options, Place, Record, record_of
from staticgrad.tracing.static_arguments import hashable, static_by_nature, static_positions


class Traced(FastCallable):  # type: ignore[misc]
    """A function that is recorded once a signature, compiled, and reused.

    Calls go to machine code, which knows the forms of call that were seen; any other one arrives in `_slow_call`.
    """

    def __new__(cls, *_: Any) -> Traced:
        made: Traced = super().__new__(_Cold)
        return made

    def __init__(self, py_func: Callable[..., Any], rec: Record, options: Options) -> None:
        self._function = py_func
        self._record = rec
        self._options = options
        self._static = static_positions(py_func, tuple(dict.fromkeys((*options.static_argnames, *static_by_nature(py_func)))))
        functools.update_wrapper(self, py_func, updated=())
        if (forms := rec.forms.get(options)) is not None:  # another object for the same function: a method, a transform made anew
            self._warm_up(forms)

    # ---- calling

    def _slow_call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Do what a call does, whatever the arguments are."""
        if args and isinstance(args[0], type) and self._is_classmethod_of(args[0]):  # which does not bind since Python 3.13
            return self._bound(types.MethodType(self._function, args[0]))(*args[1:], **kwargs)
        takes = taker(args) or taker(kwargs)
        if takes is not None:
            return takes(self, args, kwargs)
        has_out = "out" in kwargs and not self._takes_out
        given = {name: value for name, value in kwargs.items() if name != "out"} if has_out else kwargs
        if tracing():
            result = self._inside(args, given)
            if not has_out:
                return result
            leaves, tree = flatten(result)
            return write_traced_results(kwargs["out"], leaves, tree, self._record.name)
        leaves, signature = self._signature(args, given)
        place = self._options.place(signature)
        entry = self._record.entries.get(place)
        if entry is None or (entry.program.guards is not None and entry.program.guards.changed() is not None):
            entry = self._record.entry(place)
        arrays = [prepared(leaf, aval) for leaf, aval in zip(leaves, signature.avals, strict=True)]
        results = [r if r.ndim else r[()] for r in entry.built.run(arrays, self._options.threads)]
        entry.calls += 1
        if entry.calls > 1 and entry.built.executable is not None:  # what is called once needs no entry
            kinds = tuple(map(type, flatten((leaves, kwargs["out"]))[0] if has_out else leaves))
            self._enter(place, kinds, args, kwargs, entry, has_out)
        if entry.program.prints:
            show(entry.program.prints, results[entry.program.results :])
            del results[entry.program.results :]
        if has_out:
            return write_results(kwargs["out"], results, entry.program.out_tree, self._record.name)
        return unflatten(entry.program.out_tree, results)

    @functools.cached_property
    def _takes_out(self) -> bool:
        """Whether `out` is an argument of the function itself."""
        try:
            parameters = inspect.signature(self._function).parameters
        except (TypeError, ValueError):
            return False
        return "out" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def _enter(
        self, place: Place, kinds: tuple[type, ...], args: tuple[Any, ...], kwargs: dict[str, Any], entry: Entry, has_out: bool
    ) -> None:
        """Let further calls like this one, with leaves of these types, go to machine code."""
        program, executable = entry.program, entry.built.executable
        assert executable is not None
        forms = self._record.forms_for(self._options)
        key = (place[-1], len(args), tuple(kwargs), kinds)
        probes = program.guards.probes() if program.guards is not None else ()
        if type(self) is _Cold:
            self._warm_up(forms)
        if type(self) is _Cold or not forms.wants(key, probes):
            return
        form = form_of(self._function, args, kwargs, place[-1], program, probes, executable, has_out, self._options.threads)
        with forms_lock:
            if self._options.place(place[-1]) == place and self._record.entries.get(place) is entry:  # else another thread cleared it
                forms.put(key, probes, form)
                if form is not None:  # which has a workspace of its own
                    executable.release()

    def _warm_up(self, forms: Forms) -> None:
        """Become a function whose calls go to machine code, where there is any."""
        vectorcall = entry_address()
        if vectorcall is not None:
            enter(self, vectorcall, forms.address)
            self.__class__ = _Entered

    def _inside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Become part of the trace under way."""
        if self._record.function is not None:
            return self._function(*args, **kwargs)
        leaves, tree, static = self._split(args, kwargs)
        values = [lift(leaf) for leaf in leaves]
        program = self._record.program(Signature(tree, tuple(v.aval for v in values), static))
        outputs = inline(program.graph, (*values, *program.captures))
        print_later(program, outputs[program.results :])
        return unflatten(program.out_tree, [tracer_of(v) for v in outputs[: program.results]])

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Tree, tuple[tuple[str, Hashable], ...]]:
        static: list[tuple[str, Hashable]] = []
        if self._static:
            positional = list(args)
            named = dict(kwargs)
            for name, position in self._static.items():
                if name in named:
                    static.append((name, hashable(name, named.pop(name))))
                elif position is not None and position < len(positional):
                    static.append((str(position), hashable(name, positional[position])))
                    positional[position] = None
            args, kwargs = tuple(positional), named
        leaves, tree = flatten((args, kwargs))
        return leaves, tree, tuple(static)

    def _signature(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Signature]:
        leaves, tree, static = self._split(args, kwargs)
        return leaves, Signature(tree, tuple(leaf_aval(leaf) for leaf in leaves), static)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as the function itself does, to an instance or (a classmethod) to the class, which is static then."""
        bind = getattr(type(self._function), "__get__", None)
        return self if bind is None else self._bound(bind(self._function, instance, owner))

    def _bound(self, function: Any) -> Callable[..., Any]:
        if function is self._function:
            return self
        return self._refuse if self._record.transform is not None else Traced(function, record_of(function), self._options)

    def _refuse(self, *_args: Any, **_kwargs: Any) -> Any:
        raise ArgumentError(
            at_user_line(
                f"{self._record.name} is an attribute of a class and cannot be called as a method: it counts its arguments without the "
                "instance before them; transform the method of an instance, as in sg.grad(model.loss)"
            )
        )

    def _is_classmethod_of(self, owner: type) -> bool:
        member = inspect.getattr_static(owner, self._record.name, None)
        return isinstance(member, classmethod) and member.__func__ is self

    def __reduce__(self) -> Any:
        """Pickle as functions and methods are, by name: the other process traces and compiles for itself."""
        function, name = self._function, getattr(self, "__qualname__", self._record.name)
        holder = getattr(function, "__self__", None)
        if holder is not None and isinstance(found := getattr(holder, self._record.name, None), Traced) and found._record is self._record:
            return getattr, (holder, self._record.name)
        found = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        raise ArgumentError(
            at_user_line(
                f"{self._record.name} cannot be pickled: pickles hold functions by name, and {self.__module__}.{name} is another object. "
                "Trace, or transform, a function at the top level of a module and give the result a name of its own: "
                "`@sg.trace def step(...)`; or pickle the plain function and transform it in the other process"
            )
        )

    def __copy__(self) -> Traced:
        return self

    def __deepcopy__(self, _: Any) -> Traced:
        return self

    # ---- looking inside

    @property
    def py_func(self) -> Callable[..., Any]:
        """The user's own function."""
        return self._function

    @property
    def signatures(self) -> list[tuple[Any, ...]]:
        """The compiled signatures: one tuple of avals each."""
        return [signature.avals for *_, signature in self._record.entries]

    def cache_info(self) -> CacheInfo:
        """Return how often this function was traced and compiled."""
        r = self._record
        return CacheInfo(r.root.traces, r.compiles, r.disk_hits, r.memory_hits, len(r.entries))

    def cache_clear(self) -> None:
        """Forget all traces and compiled code of this function and of its transforms, and the memory kept for very large results."""
        self._record.root.clear()
        let_go()

    def lower(self, /, *args: Any, backend: str | None = None, printer: str | None = None, **kwargs: Any) -> LoweredFunction:
        """Return the graph, the passes, the schedule and the emitted source for these arguments; nothing is compiled yet."""
        from staticgrad.calls.lowered import LoweredFunction

        options = replace(self._options, backend=backend or self._options.backend, printer=printer or self._options.printer)
        _, signature = self._signature(args, kwargs)
        program = self._record.program(signature)
        return LoweredFunction(program.graph, *options.place(signature)[:-1])

    def program(self, /, *args: Any, **kwargs: Any) -> Program:
        """Return the recorded program for these arguments."""
        return self._record.program(self._signature(args, kwargs)[1])

    def __repr__(self) -> str:
        return f"<staticgrad function {self._record.name}: {self._record.root.traces} traces, {len(self._record.entries)} compiled>"

    # ---- transforming

    def derive(self, transform: Transform, name: str) -> Traced:
        """Return the transformed function; equal transforms of one function share everything."""
        rec = self._record
        with compile_lock:
            if transform not in rec.derived:
                rec.derived[transform] = Record(f"{name}({rec.name})", None, rec, transform)
        return Traced(self._function, rec.derived[transform], self._options)

    def values(self, args: tuple[Any, ...]) -> list[Value]:
        """Return the leaves of arguments as values of the trace under way."""
        return [lift(leaf) for leaf in flatten(args)[0]]


_Entered: Any = directly_called(Traced)


class _Cold(Traced):
    """A traced function whose calls do not go to machine code yet."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._slow_call(*args, **kwargs)


def print_later(program: Program, values: Sequence[Value]) -> None:
    """Hand what an inlined program prints on to the trace under way."""
    at = 0
    for text, count in program.prints:
        current_trace().prints.append((text, tuple(values[at : at + count])))
        at += count


def traced(function: Callable[..., Any], options: Options | None = None) -> Traced:
    """Return `function` as a traced function; one that is traced already stays as it is."""
    if isinstance(function, Traced):
        return function if options is None else Traced(function.py_func, function._record, options)
    if isinstance(function, property):
        raise ArgumentError(at_user_line("expected a function, not a property: trace a method and let the property call it"))
    if not callable(function) and not isinstance(function, classmethod):
        raise ArgumentError(at_user_line(f"expected a function, not {type(function).__name__}"))
    return Traced(function, record_of(function), options or Options())
