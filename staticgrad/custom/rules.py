"""Calls whose derivatives are the user's: a function recorded as one node, and its rules as graphs that are recorded when asked for.

    y = call(x)      vjp: residuals = forward(x); x's cotangent = backward(residuals, y's cotangent)
                     jvp: y's tangent = rule(x, x's tangent); read backwards, as it is linear in the tangent, that is the vjp

What functions close over of the traces around them stands among the operands. As graphs, rules can be differentiated and mapped
like anything else; they may call the function itself.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from staticgrad.ad.reverse import cotangents
from staticgrad.errors import (
    ArgumentError,
    DTypeError,
    LeakedTracerError,
    MissingDerivativeError,
    ShapeError,
    StaticgradError,
    UnsupportedError,
)
from staticgrad.ir.aval import Aval, is_float
from staticgrad.ir.graph import Graph, inline
from staticgrad.ir.node import Value, new_input
from staticgrad.ir.source import SourceLine, at_user_line, user_line
from staticgrad.ops.control import NoDerivative, Rules, call, inline_calls
from staticgrad.ops.nested import trim
from staticgrad.tracing.bodies import Body, record_body
from staticgrad.tracing.closures import holds_tracers
from staticgrad.tracing.context import current_trace
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import Tree, argument_array, flatten
from staticgrad.tracing.record import called, output_value
from staticgrad.tracing.tracer import Tracer, tracer_of

_serials = itertools.count()


@dataclass(frozen=True)
class CustomFunction:
    """A user's function, as one of array arguments alone, and what tells it from others."""

    name: str
    function: Callable[..., Any]
    owner: Any
    """The object that the user made; with `options`, what the function was given besides arrays, it tells a call of itself."""

    options: tuple[Any, ...] = ()

    def is_like(self, other: CustomFunction) -> bool:
        """Return whether both are the same function with the same options."""
        pairs = zip(self.options, other.options, strict=False)
        same = all(a is b or (type(a) is type(b) and isinstance(a, (int, float, str, bool, bytes)) and a == b) for a, b in pairs)
        return self.owner is other.owner and len(self.options) == len(other.options) and same


class Rule(ABC):
    """The derivative of a call."""

    is_recorded_at_once = False
    """Whether the rules are recorded with the call; otherwise that waits until they are needed, unless they close over arrays."""

    def __init__(self, custom: CustomFunction, tree: Tree, body: Body, printed: int) -> None:
        self.custom = custom
        self.tree = tree
        self.body = body
        self.line: SourceLine | None = user_line()
        self.key = str(next(_serials))
        self.captures = list(body.captures)
        """What the function and its rules close over; the first operands of the call."""
        self.results = len(body.avals) - printed
        self.is_recursive = False
        """Whether the rules called the function again while they were recorded."""
        self._error: Exception | None = None
        self._recorded = False

    # ---- recording

    @property
    @abstractmethod
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The user's rules."""

    @abstractmethod
    def record(self) -> list[Body]:
        """Record the user's rules, and return their graphs."""

    def record_now(self) -> None:
        """Record the rules as long as the traces around are under way; what they close over joins the operands.

        What goes wrong is kept until somebody differentiates.
        """
        while True:
            self.is_recursive = False
            try:
                with _recording(self):
                    bodies = self.record()
            except Exception as error:
                self._error = error
                break
            more = [v for v in dict.fromkeys(v for body in bodies for v in body.captures) if v not in self.captures]
            self.captures += more
            if not more or not self.is_recursive:
                break
        self._recorded = True

    def ready(self) -> None:
        """Have the rules recorded."""
        if self._error is not None:
            raise self._error
        if not self._recorded:
            try:
                with _recording():
                    self.record()
            except LeakedTracerError as error:
                raise LeakedTracerError(
                    f"a rule of {self.custom.name} reads an array of a trace that has ended: hand it to {self.custom.name} as an argument, "
                    f"or keep it among the residuals\n{error}"
                ) from error
            self._recorded = True

    def said(self, message: str) -> str:
        """Return a message about a rule that names the line of the call."""
        return at_user_line(f"{self.custom.name}: {message}", self.line)

    # ---- what users' rules take and return

    def run(self, rule: Callable[..., Any], *args: Any) -> Any:
        """Return what a user's rule returns."""
        return called(rule, f"{name_of(rule)}, a rule of {self.custom.name}, ", *args)

    def value(self, leaves: Iterable[Any]) -> Any:
        """Return leaves in the structure of the function's result."""
        rest = range(len(self.body.avals) - self.results)
        result, _ = self.body.result([*leaves, *rest])
        return result

    def check_value(self, value: Any, rule: Callable[..., Any]) -> None:
        """Raise unless the value that a rule returned is like that of the function."""
        leaves, tree = flatten(value)
        expected = flatten(self.value(range(self.results)))[1]
        if tree != expected:
            raise ArgumentError(self.said(f"it returns a value of structure {expected}, {name_of(rule)} returned {tree}"))
        for leaf, aval in zip(leaves, self.body.avals, strict=False):
            found = output_value(leaf, name_of(rule)).aval
            both = f"it returns {_plain(aval)}, {name_of(rule)} returned {_plain(found)} for it"
            if found.shape != aval.shape:
                raise ShapeError(self.said(both))
            if found.dtype != aval.dtype and not found.weak and not aval.weak:
                raise DTypeError(self.said(both))

    def beside_value(self, pair: Any, rule: Callable[..., Any], what: str) -> Any:
        """Return the other half of the pair (value, `what`) that a rule returned, or raise where it is none."""
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ArgumentError(self.said(f"{name_of(rule)} must return a pair (value, {what}), not {shown(pair)}"))
        self.check_value(pair[0], rule)
        return pair[1]

    def fitting(self, leaf: Any, aval: Aval, what: str, rule: Callable[..., Any]) -> Tracer:
        """Return a derivative in the dtype of what it belongs to, or raise where it does not fit."""
        value = output_value(leaf, name_of(rule))
        found = value.aval
        both = f"{what} is {_plain(aval)}, {name_of(rule)} returned {_plain(found)} for it"
        if found.shape != aval.shape:
            raise ShapeError(self.said(both))
        if found.dtype != aval.dtype and not found.weak:
            raise DTypeError(self.said(f"{both}; convert it, .astype(np.{aval.dtype})"))
        return tracer_of(convert(value, aval.dtype))

    def all_fitting(self, leaves: Sequence[Any], avals: Sequence[Aval], what: Sequence[str], rule: Callable[..., Any]) -> list[Any]:
        """Return the derivatives of several values, as `fitting` does; None where there is none."""
        return [
            None if leaf is None or not is_float(aval.dtype) else self.fitting(leaf, aval, each, rule)
            for leaf, aval, each in zip(leaves, avals, what, strict=True)
        ]

    # ---- applying

    def apply(self, values: Sequence[Value], captures: Sequence[Value] | None = None) -> tuple[Value, ...]:
        """Return the results of the call as one node; with `captures`, of a call that closes over those values instead."""
        graph, own = self.body.graph, len(self.body.captures)
        known = dict(zip(self.body.captures, graph.inputs, strict=False))
        inputs = [known.get(v) or new_input(_plain(v.aval)) for v in self.captures]
        whole = Graph((*inputs, *graph.inputs[own:]), graph.outputs, (), self.custom.name)
        rules = Rules(self.custom.name, self.key, self.push, self.pull)
        return call(whole, *(self.captures if captures is None else captures), *values, rules=rules)

    def inlined(self, body: Body, x: Sequence[Value], *arguments: Value) -> tuple[Value, ...]:
        """Return the outputs of a recorded rule, with what it closes over taken from the operands `x` of the call."""
        image = dict(zip(self.captures, x, strict=False))
        return inline(body.graph, (*(image.get(v, v) for v in body.captures), *arguments))

    @abstractmethod
    def push(self, tangents: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | None]:
        """Return the tangents of the results."""

    @abstractmethod
    def pull(self, g: Sequence[Value | None], y: Sequence[Value], *x: Value) -> Sequence[Value | NoDerivative | None]:
        """Return the cotangents of the operands."""

    def closed_over(self, value: Value) -> StaticgradError:
        """Return the error for a derivative by what the function closes over."""
        return MissingDerivativeError(
            self.said(
                f"it closes over an array ({_plain(value.aval)}) that is differentiated by, and its rule tells of arguments alone; "
                "pass the array as an argument, or close over sg.stop_gradient of it"
            )
        )

    def transposed(self, g: Sequence[Value | None], y: Sequence[Value], x: Sequence[Value], wanted: Sequence[int]) -> list[Value | None]:
        """Return the cotangents of the operands at the places `wanted`: `push`, which is linear in the tangents, read backwards."""
        given = [new_input(_plain(v.aval)) for v in (*x, *y)]
        inside, values = given[: len(x)], given[len(x) :]
        seeds = {k: new_input(_plain(x[k].aval), "tangent") for k in wanted if is_float(x[k].dtype)}
        moved = self.push([seeds.get(k) for k in range(len(x))], values, *inside)
        there = [(t, cotangent) for t, cotangent in zip(moved, g, strict=True) if t is not None and cotangent is not None]
        ends = [new_input(_plain(t.aval), "cotangent") for t, _ in there]
        found = cotangents([t for t, _ in there], list(seeds.values()), ends)
        back = Graph((*given, *ends), tuple(v for v in found if v is not None))
        if any(seed in back.free for seed in seeds.values()):  # perhaps loops and branches hand it on, and nobody reads it
            back = trim(back)
        if any(seed in back.free for seed in seeds.values()):
            raise ArgumentError(self.said("its rule is not linear in the tangents, so it tells nothing of reverse mode"))
        made = iter(inline(back, (*x, *y, *(cotangent for _, cotangent in there))))
        pulled = {k: None if v is None else next(made) for k, v in zip(seeds, found, strict=True)}
        return [pulled.get(k) for k in range(len(x))]


def _plain(aval: Aval) -> Aval:
    return Aval(aval.shape, aval.dtype)


class _Stack(threading.local):
    """What is recorded in this thread."""

    def __init__(self) -> None:
        self.rules: list[Rule | None] = []


_stack = _Stack()


@contextmanager
def _recording(rule: Rule | None = None) -> Iterator[None]:
    """Record rules; calls that are like that of `rule` are calls of it."""
    _stack.rules.append(rule)
    try:
        yield
    finally:
        _stack.rules.pop()


def recorded_rule(custom: CustomFunction, rule: Callable[..., Any], run: Callable[..., Any], tree: Tree, avals: Sequence[Aval]) -> Body:
    """Return what `run`, which calls the user's function `rule`, does with arguments of these avals."""
    name = name_of(rule)

    def checked(*args: Any) -> Any:
        result = run(*args)
        if current_trace().prints:
            raise UnsupportedError(
                at_user_line(f"sg.debug.print in {name}, a rule of {custom.name}: derivatives print nothing; print what you get from them")
            )
        return result

    body = record_body(like(run, checked, name), tree, avals, f"a rule of {custom.name},")
    return replace(body, graph=inline_calls(body.graph))


def custom_call(custom: CustomFunction, args: tuple[Any, ...], make: Callable[[Tree, Body, int], Rule]) -> Any:
    """Return what a custom function makes of arguments in the trace under way; `make` gives the rule for (arguments, body, printed)."""
    leaves, tree = flatten(args)
    values = [_operand(leaf, custom.name) for leaf in leaves]
    avals = [v.aval for v in values]
    prints: list[tuple[str, int]] = []
    rule = next((r for r in _stack.rules if r is not None and r.custom.is_like(custom) and r.tree == tree and _avals(r) == avals), None)
    if rule is not None:
        rule.is_recursive = True
    else:
        body = record_body(with_prints(custom.function, prints), tree, avals, "the function")
        rule = make(tree, replace(body, graph=inline_calls(body.graph)), sum(count for _, count in prints))
        if rule.is_recorded_at_once or holds_tracers(*rule.functions):
            rule.record_now()
    outputs = rule.apply(values)
    at = rule.results
    for text, count in () if _stack.rules else prints:  # while rules are recorded it was printed already
        current_trace().prints.append((text, tuple(outputs[at : at + count])))
        at += count
    return rule.value(tracer_of(v) for v in outputs[: rule.results])


def _avals(rule: Rule) -> list[Aval]:
    return [v.aval for v in rule.body.graph.inputs[len(rule.body.captures) :]]


def _operand(leaf: Any, name: str) -> Value:
    if not isinstance(leaf, Tracer):
        try:
            argument_array(leaf)
        except ArgumentError:
            raise ArgumentError(
                at_user_line(
                    f"{name}: an argument of type {type(leaf).__name__} ({str(leaf)[:60]!r}) is no array, number or container of these; "
                    "name its position in nondiff_argnums"
                )
            ) from None
    return lift(leaf)


def with_prints(function: Callable[..., Any], prints: list[tuple[str, int]]) -> Callable[..., Any]:
    """Return `function` with the values that it prints as further results."""

    def recorded(*args: Any) -> Any:
        prints.clear()
        result = function(*args)
        shown = current_trace().prints
        prints.extend((text, len(values)) for text, values in shown)
        values = [tracer_of(v) for _, group in shown for v in group]
        shown.clear()
        return result, values

    return like(function, recorded)


def name_of(function: Callable[..., Any]) -> str:
    """Return what a function is called in messages."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def shown(found: Any) -> str:
    """Return what was returned instead of a tuple, for messages."""
    return f"{type(found).__name__} of {len(found)}" if isinstance(found, (tuple, list)) else type(found).__name__


def like(function: Callable[..., Any], run: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """Return `run` under the name and with the parameters of `function`."""
    run.__name__ = name or name_of(function)
    with suppress(TypeError, ValueError):
        run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return run
