"""Steps and evaluations as units: recorded once for each signature, compiled, and checked for what a loop relies on.

step(carry, batch) -> (carry, metrics)          evaluation(carry, batch) -> metrics
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optree

from staticgrad.calls.records import CacheInfo, Options
from staticgrad.calls.traced import traced
from staticgrad.config import config
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError, StaticgradWarning, UnsupportedError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.node import Value
from staticgrad.ir.source import at_user_line, user_stack_level
from staticgrad.runtime.build import build
from staticgrad.runtime.training_loop import Step
from staticgrad.tracing.guards import Guards
from staticgrad.tracing.lift import convert
from staticgrad.tracing.pytree import Signature, flatten, leaf_aval, unflatten
from staticgrad.tracing.record import Program

WEIGHT = "weight"
"""The metric that says how much a batch counts in the means of the others; it is not shown."""

RESERVED = ("seconds", "samples_per_second")


class Body:
    """What a step or an evaluation is made of: a function of the user's. `Trainer` has bodies of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = traced(function)
        self.name = name_of(function)

    @property
    def options(self) -> Options:
        """The options that the user's function was traced with."""
        return self._function._options

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Functions of the user's that `program` runs; what they read is guarded, as it is for those that `recorded` runs."""
        return ()

    def recorded(self, *arguments: Any) -> tuple[Program, ...]:
        """Return the programs of the user's functions; the first one is counted as a trace."""
        return (self._function.program(*arguments),)

    def program(self, recorded: tuple[Program, ...], signature: Signature) -> Program:
        """Return the program of the whole, made of what was recorded."""
        return recorded[0]


@dataclass(frozen=True, eq=False)
class CompiledStep:
    """A step or an evaluation for one signature, and what it was made of."""

    recorded: tuple[Program, ...]
    guards: tuple[Guards, ...]
    step: Step
    names: tuple[str, ...]

    def is_made_of(self, recorded: tuple[Program, ...]) -> bool:
        """Return whether it was made of these programs and nothing else that it depends on has changed."""
        return self.recorded == recorded and all(guards.changed() is None for guards in self.guards)


class Compiler:
    """The compiled steps and evaluations of a loop, each made once for a signature."""

    def __init__(self, backend: str | None) -> None:
        self._backend = backend
        self._made: dict[tuple[str, Signature], CompiledStep] = {}
        self._origins: list[str] = []
        self._seen: list[Program] = []
        self._lock = threading.RLock()

    @property
    def cache_info(self) -> CacheInfo:
        """How often the user's function was run, and what was compiled."""
        count = self._origins.count
        return CacheInfo(len(self._seen), count("compiled"), count("disk"), count("memory"), len(self._made))

    def step(self, body: Body, *arguments: Any) -> CompiledStep:
        """Return the step for a carry and a batch (or none) like these."""
        return self._compiled("step", body, arguments)

    def evaluation(self, body: Body, *arguments: Any) -> CompiledStep:
        """Return the evaluation for a carry and a batch like these."""
        return self._compiled("evaluation", body, arguments)

    def _compiled(self, kind: str, body: Body, arguments: tuple[Any, ...]) -> CompiledStep:
        with self._lock:
            leaves, tree = flatten((arguments, {}))
            signature = Signature(tree, tuple(leaf_aval(leaf) for leaf in leaves))
            recorded = body.recorded(*arguments)
            found = self._made.get((kind, signature))
            if found is not None and found.is_made_of(recorded):
                return found
            if recorded[0] not in self._seen:
                self._seen.append(recorded[0])
                if any(program.prints for program in recorded):
                    text = f"sg.debug.print in {body.name} prints nothing in a native training loop"
                    warnings.warn(text, StaticgradWarning, stacklevel=user_stack_level())
            program = body.program(recorded, signature)
            made = self._made[kind, signature] = self._built(kind, body, program, recorded, arguments[0])
            return made

    def _built(self, kind: str, body: Body, program: Program, recorded: tuple[Program, ...], carry: Any) -> CompiledStep:
        graph, result = program.graph, unflatten(program.out_tree, list(range(program.results)))
        metrics = result
        updates: list[Value] = list(graph.inputs[: len(flatten(carry)[0])])
        if kind == "step":
            if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
                raise ArgumentError(
                    at_user_line(
                        f"{body.name} must return (carry, metrics), metrics a dict of numbers by name; it returned {_shown(program)}"
                    )
                )
            returned, metrics = result
            updates = _updates(body.name, carry, returned, graph.outputs)
        elif not isinstance(result, dict):
            raise ArgumentError(at_user_line(f"{body.name} must return a dict of numbers by name; it returned {_shown(program)}"))
        numbers = [convert(value, FLOAT64) for value in _numbers(body.name, metrics, graph.outputs)]
        moves = [value != old for value, old in zip(updates, graph.inputs, strict=False)]
        changed = [value for value, is_new in zip(updates, moves, strict=True) if is_new]
        places = iter(range(len(changed)))
        step_updates = tuple(next(places) if is_new else -1 for is_new in moves)
        place_of = {name: len(changed) + k for k, name in enumerate(metrics)}
        weight = place_of.pop(WEIGHT, -1)
        graph = graph.with_outputs((*changed, *numbers), numbers)
        built, origin = build(graph, self._backend_of(body), body.options.printer, bool(body.options.fastmath), body.options.max_memory)
        self._origins.append(origin)
        step = Step(graph, built, step_updates, tuple(place_of.values()), weight, threads=body.options.threads)
        return CompiledStep(recorded, tuple(Guards.collect(function) for function in body.functions), step, tuple(place_of))

    def _backend_of(self, body: Body) -> str:
        backend = self._backend or body.options.backend or config().backend
        if backend == "cuda":
            raise UnsupportedError(at_user_line("the training loop does not run on CUDA devices yet; use backend='cpu'"))
        return backend


def _updates(name: str, carry: Any, returned: Any, outputs: tuple[Value, ...]) -> list[Value]:
    """Return the new carried values, which must be like the old ones."""
    leaves, tree = flatten(carry)
    places, found = flatten(returned)
    if found != tree:
        raise ArgumentError(at_user_line(f"{name} was given a carry of structure {tree} and returned one of structure {found}"))
    for accessor, leaf, place in zip(optree.treespec_accessors(tree), leaves, places, strict=True):
        before, after = leaf_aval(leaf), outputs[place].aval
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            kind = ShapeError if before.shape != after.shape else DTypeError
            where = accessor.codify("carry")
            raise kind(at_user_line(f"{name}: {where} is {before} before the step and {after} after it; shapes and dtypes must last"))
    return [outputs[place] for place in places]


def _numbers(name: str, metrics: Mapping[Any, Any], outputs: tuple[Value, ...]) -> list[Value]:
    """Return the metrics, each of which must be one number."""
    for key, place in metrics.items():
        check_name(key, name)
        if not isinstance(place, int) or outputs[place].shape:
            shape = f"shape {outputs[place].shape}" if isinstance(place, int) else "a container"
            raise ShapeError(at_user_line(f"{name}: the metric {key!r} is not one number but {shape}; reduce it, for example with np.mean"))
    return [outputs[place] for place in metrics.values()]


def check_name(key: Any, name: str, reserved: tuple[str, ...] = RESERVED) -> None:
    """Raise where a metric of the function `name` cannot be called `key`."""
    if not isinstance(key, str) or key in reserved or key.startswith("val_"):
        taken = ", ".join(reserved)
        raise InvalidValueError(at_user_line(f"{name}: a metric cannot be called {key!r}; names are strings, not {taken} or val_..."))


def _shown(program: Program) -> str:
    return repr(unflatten(program.out_tree, [str(value.aval) for value in program.graph.outputs[: program.results]]))


def name_of(function: Any) -> str:
    """Return how messages call a function."""
    return str(getattr(function, "__name__", type(function).__name__))
