"""The functions a training is made of: one step, and one evaluation, each a graph that is compiled as one unit.

loss(params, *batch)  --value_and_grad-->  --optimizer.update-->  (params, optimizer state, loss and metrics)
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from staticgrad.api import value_and_grad
from staticgrad.config import config
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError, StaticgradWarning, UnsupportedError
from staticgrad.ir.aval import FLOAT64, Aval, is_float
from staticgrad.ir.graph import inline
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.build import build
from staticgrad.runtime.training_loop import Step
from staticgrad.traced import CacheInfo, Traced, traced
from staticgrad.tracing.lift import convert, lift
from staticgrad.tracing.pytree import Signature, flatten, leaf_aval, unflatten
from staticgrad.tracing.record import Program, record
from staticgrad.tracing.tracer import tracer_of

RESERVED = ("loss", "seconds", "samples_per_second")


@dataclass(frozen=True, eq=False)
class CompiledStep:
    """A step or an evaluation for one signature. `sources` are the programs that it was made of."""

    sources: tuple[Program, ...]
    program: Program
    step: Step
    names: tuple[str, ...]


class Steps:
    """The compiled functions of a trainer, each made once for a signature."""

    def __init__(self, loss: Callable[..., Any], optimizer: Any, metrics: Mapping[str, Callable[..., Any]], backend: str | None) -> None:
        self.loss = traced(loss)
        self._optimizer = optimizer
        self._metrics = {name: traced(function) for name, function in metrics.items()}
        self._backend = backend
        self._made: dict[tuple[str, Signature], CompiledStep] = {}
        self._origins: list[str] = []
        self._seen: list[Program] = []  # what the user's functions were recorded as
        self._lock = threading.RLock()

    @property
    def cache_info(self) -> CacheInfo:
        """How often the loss was run, and what was compiled."""
        count = self._origins.count
        return CacheInfo(len(self._seen), count("compiled"), count("disk"), count("memory"), len(self._made))

    def training(self, params: Any, optimizer_state: Any, batch: tuple[Any, ...]) -> CompiledStep:
        """Return the step for parameters, a state and a batch like these."""
        with self._lock:
            loss, has_aux, names = self._loss(params, batch)
            gradient = value_and_grad(self.loss, has_aux=has_aux).program(params, *batch)
            others = [self._metric(name, params, batch) for name in self._metrics]

            def step(params: Any, optimizer_state: Any, *batch: Any) -> Any:
                head, gradients = self._inlined(gradient, params, batch)
                moved, remembered = self._optimizer.update(params, gradients, optimizer_state)
                return moved, remembered, self._values(head, has_aux, others, params, batch)

            carried = (params, optimizer_state)
            return self._compiled("step", step, (loss, gradient, *others), (*carried, *batch), names, carried)

    def evaluation(self, params: Any, batch: tuple[Any, ...]) -> CompiledStep:
        """Return the function that computes loss and metrics only."""
        with self._lock:
            loss, has_aux, names = self._loss(params, batch)
            others = [self._metric(name, params, batch) for name in self._metrics]

            def evaluation(params: Any, *batch: Any) -> Any:
                return self._values(self._inlined(loss, params, batch), has_aux, others, params, batch)

            return self._compiled("evaluation", evaluation, (loss, *others), (params, *batch), names, None)

    # ---- the user's functions

    def _loss(self, params: Any, batch: tuple[Any, ...]) -> tuple[Program, bool, tuple[str, ...]]:
        """Return the program of the loss function, whether it returns metrics, and the names of all metrics."""
        program, name = self._recorded(self.loss, params, batch), _name(self.loss)
        result = unflatten(program.out_tree, list(range(program.out_tree.num_leaves)))
        has_aux = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        head, extra = result if has_aux else (result, {})
        if not isinstance(head, int):
            shown = unflatten(program.out_tree, [str(value.aval) for value in program.graph.outputs[: program.out_tree.num_leaves]])
            expected = "a scalar, or a pair of it and a dict of scalars: (loss, {name: scalar})"
            raise ArgumentError(at_user_line(f"{name} must return {expected}; it returned {shown!r}"))
        aval = program.graph.outputs[head].aval
        if aval.shape:
            raise ShapeError(
                at_user_line(f"{name} returned a loss of shape {aval.shape}; reduce it to one number, for example with np.mean")
            )
        if not is_float(aval.dtype):
            raise DTypeError(at_user_line(f"{name} returned a loss of dtype {aval.dtype}, which has no derivative; return a float"))
        for key, place in extra.items():
            self._check_metric(key, program.graph.outputs[place].aval if isinstance(place, int) else None, name)
            if key in self._metrics:
                raise InvalidValueError(at_user_line(f"the metric {key!r} is both returned by {name} and given as metrics={{...}}"))
        return program, has_aux, ("loss", *extra, *self._metrics)

    def _metric(self, key: str, params: Any, batch: tuple[Any, ...]) -> Program:
        program = self._recorded(self._metrics[key], params, batch)
        single = program.out_tree.num_leaves == 1 and program.out_tree.is_leaf()
        self._check_metric(key, program.graph.outputs[0].aval if single else None, _name(self._metrics[key]))
        return program

    @staticmethod
    def _check_metric(key: Any, aval: Aval | None, name: str) -> None:
        if not isinstance(key, str) or key in RESERVED or key.startswith("val_"):
            taken = ", ".join(RESERVED)
            raise InvalidValueError(at_user_line(f"{name}: a metric cannot be called {key!r}; names are strings, not {taken} or val_..."))
        if aval is None or aval.shape:
            shape = "a container" if aval is None else f"shape {aval.shape}"
            raise ShapeError(at_user_line(f"{name}: the metric {key!r} is not one number but {shape}; reduce it, for example with np.mean"))

    def _recorded(self, function: Traced, params: Any, batch: tuple[Any, ...]) -> Program:
        program = function.program(params, *batch)
        if function is self.loss and program not in self._seen:
            self._seen.append(program)
            if program.prints:
                warnings.warn(
                    f"sg.debug.print in {_name(function)} prints nothing in a native training loop", StaticgradWarning, stacklevel=2
                )
        return program

    # ---- tracing and compiling

    @staticmethod
    def _inlined(program: Program, params: Any, batch: tuple[Any, ...]) -> Any:
        values = [lift(leaf) for leaf in flatten((params, *batch))[0]]
        results = inline(program.graph, values)[: program.out_tree.num_leaves]
        return unflatten(program.out_tree, [tracer_of(value) for value in results])

    def _values(self, head: Any, has_aux: bool, others: list[Program], params: Any, batch: tuple[Any, ...]) -> list[Any]:
        """Return loss and metrics in float64, as the driver adds them up."""
        values = [head[0], *head[1].values()] if has_aux else [head]
        values += [self._inlined(program, params, batch) for program in others]
        return [tracer_of(convert(lift(value), FLOAT64)) for value in values]

    def _compiled(
        self,
        kind: str,
        function: Callable[..., Any],
        sources: tuple[Program, ...],
        arguments: tuple[Any, ...],
        names: tuple[str, ...],
        carried: tuple[Any, Any] | None,
    ) -> CompiledStep:
        leaves, tree = flatten((arguments, {}))
        signature = Signature(tree, tuple(leaf_aval(leaf) for leaf in leaves))
        found = self._made.get((kind, signature))
        if found is not None and found.sources == sources and (found.program.guards is None or found.program.guards.changed() is None):
            return found
        program = record(function, signature, f"{kind} of {_name(self.loss)}")
        outputs = program.graph.outputs
        if carried is not None:
            _check_updates(carried, program, self._optimizer)
        graph = program.graph.with_outputs(outputs, outputs[len(outputs) - len(names) :])
        options = self.loss._options
        built, origin = build(graph, self._backend_name(), options.printer, bool(options.fastmath))
        self._origins.append(origin)
        made = self._made[kind, signature] = CompiledStep(sources, program, Step(graph, built, options.threads), names)
        return made

    def _backend_name(self) -> str:
        backend = self._backend or self.loss._options.backend or config().backend
        if backend == "cuda":
            raise UnsupportedError(at_user_line("the training loop does not run on CUDA devices yet; use backend='cpu'"))
        return backend


def _check_updates(carried: tuple[Any, Any], program: Program, optimizer: Any) -> None:
    """Raise unless an optimiser returned parameters and a state like those it was given."""
    result = unflatten(program.out_tree, list(range(program.out_tree.num_leaves)))
    for what, old, new in zip(("parameters", "a state"), carried, result[:2], strict=True):
        leaves, tree = flatten(old)
        places, found = flatten(new)
        if tree != found:
            raise ArgumentError(at_user_line(f"{optimizer!r}: update returned {what} of structure {found}, given {tree}"))
        for leaf, place in zip(leaves, places, strict=True):
            before, after = leaf_aval(leaf), program.graph.outputs[place].aval
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                raise DTypeError(at_user_line(f"{optimizer!r}: update made {after} of {what} with {before}; shapes and dtypes must last"))


def _name(function: Traced) -> str:
    return getattr(function, "__name__", "the loss function")
