"""What `Trainer` makes of a loss function and an optimiser: a step and an evaluation, as bodies of a loop.

loss(params, *arguments)  --value_and_grad-->  --optimizer.update-->  step((params, optimizer state), (arguments, weights))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from staticgrad.api import value_and_grad
from staticgrad.calls.records import Options
from staticgrad.calls.traced import traced
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from staticgrad.ir.aval import FLOAT64, Aval, is_float
from staticgrad.ir.graph import inline
from staticgrad.ir.source import at_user_line
from staticgrad.tracing.lift import lift
from staticgrad.tracing.pytree import Signature, flatten, unflatten
from staticgrad.tracing.record import Program, record
from staticgrad.tracing.tracer import tracer_of
from staticgrad.train.compiled import RESERVED, WEIGHT, Body, check_name, name_of

TAKEN = ("loss", "learning_rate", WEIGHT, *RESERVED)


class Carry(NamedTuple):
    """What a training carries from step to step."""

    params: Any
    optimizer_state: Any


class Evaluation(Body):
    """Loss and metrics of a batch."""

    def __init__(self, loss: Callable[..., Any], metrics: Mapping[str, Callable[..., Any]]) -> None:
        self.loss = traced(loss)
        self.name = name_of(loss)
        self._metrics = {name: traced(function) for name, function in metrics.items()}
        for name, function in self._metrics.items():
            check_name(name, name_of(function), TAKEN)

    @property
    def options(self) -> Options:
        return self.loss._options

    def recorded(self, *arguments: Any) -> tuple[Program, ...]:
        carry, (batch, weights) = arguments
        programs = tuple(function.program(carry.params, *batch) for function in (self.loss, *self._metrics.values()))
        rows = len(flatten(batch)[0][0])
        self._check_loss(programs[0], rows, weights is not None)
        for (name, function), program in zip(self._metrics.items(), programs[1:], strict=True):
            single = program.results == 1 and program.out_tree.is_leaf()
            _check_metric(name, program.graph.outputs[0].aval if single else None, rows, name_of(function))
        return programs

    def program(self, recorded: tuple[Program, ...], signature: Signature) -> Program:
        def evaluation(carry: Carry, batch: Any) -> Any:
            return self._values(recorded, carry.params, batch)

        return record(evaluation, signature, f"evaluation of {self.name}")

    def _values(self, recorded: tuple[Program, ...], params: Any, batch: Any) -> dict[str, Any]:
        """Return loss and metrics, and the weight of the batch where its rows have weights."""
        arguments, weights = batch
        head, *others = (_inlined(program, params, arguments) for program in recorded)
        loss, extra = head if isinstance(head, tuple) else (head, {})
        values = {"loss": loss, **extra, **dict(zip(self._metrics, others, strict=True))}
        values = {name: _mean(value, weights) for name, value in values.items()}
        return values if weights is None else {**values, WEIGHT: np.sum(weights)}

    def _check_loss(self, program: Program, rows: int, has_weights: bool) -> None:
        result = unflatten(program.out_tree, list(range(program.results)))
        has_metrics = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        head, extra = result if has_metrics else (result, {})
        if not isinstance(head, int):
            shown = unflatten(program.out_tree, [str(value.aval) for value in program.graph.outputs[: program.results]])
            expected = "a scalar, or a pair of it and a dict of scalars: (loss, {name: scalar})"
            raise ArgumentError(at_user_line(f"{self.name} must return {expected}; it returned {shown!r}"))
        aval = program.graph.outputs[head].aval
        if aval.shape not in ((), (rows,)):
            raise ShapeError(
                at_user_line(f"{self.name} returned a loss of shape {aval.shape}; reduce it to one number, for example with np.mean")
            )
        if has_weights and aval.shape != (rows,):
            raise ShapeError(
                at_user_line(
                    f"{self.name} returned one loss for the whole batch; with sample_weight it must return one for each row, here an "
                    f"array of shape ({rows},): leave the mean to the trainer"
                )
            )
        if not is_float(aval.dtype):
            raise DTypeError(at_user_line(f"{self.name} returned a loss of dtype {aval.dtype}, which has no derivative; return a float"))
        for key, place in extra.items():
            check_name(key, self.name, TAKEN)
            _check_metric(key, program.graph.outputs[place].aval if isinstance(place, int) else None, rows, self.name)
            if key in self._metrics:
                text = f"the metric {key!r} is both returned by {self.name} and given as metrics={{...}}"
                raise InvalidValueError(at_user_line(text))


class TrainingStep(Evaluation):
    """Loss, gradient and update."""

    def __init__(self, loss: Callable[..., Any], optimizer: Any, metrics: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(loss, metrics)
        self._optimizer = optimizer

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        found: tuple[Callable[..., Any], ...] = getattr(self._optimizer, "functions", (self._optimizer.update,))
        return found

    def program(self, recorded: tuple[Program, ...], signature: Signature) -> Program:
        has_schedule = getattr(self._optimizer, "schedule", None) is not None and hasattr(self._optimizer, "rate")

        def objective(params: Any, batch: Any) -> Any:
            values = self._values(recorded, params, batch)
            return values["loss"], values

        def step(carry: Carry, batch: Any) -> Any:
            (_, values), gradients = value_and_grad(objective, has_aux=True)(carry.params, batch)
            if has_schedule:
                values["learning_rate"] = self._optimizer.rate(carry.optimizer_state)
            return Carry(*self._optimizer.update(carry.params, gradients, carry.optimizer_state)), values

        return record(step, signature, f"step of {self.name}")


def _inlined(program: Program, params: Any, arguments: tuple[Any, ...]) -> Any:
    values = [lift(leaf) for leaf in flatten((params, *arguments))[0]]
    results = inline(program.graph, values)[: program.results]
    return unflatten(program.out_tree, [tracer_of(value) for value in results])


def _mean(value: Any, weights: Any) -> Any:
    """Return one number as it is, and of one for each row the mean, weighted where there are weights; of nothing, 0."""
    if not value.shape:
        return value
    if weights is None:
        return np.mean(value)
    value = value if is_float(value.dtype) else value.astype(FLOAT64)
    shares = weights.astype(value.dtype)
    total = np.sum(shares)
    return np.sum(shares * value) / np.where(total > 0, total, np.ones_like(total))


def _check_metric(key: str, aval: Aval | None, rows: int, name: str) -> None:
    if aval is None or aval.shape not in ((), (rows,)):
        shape = "a container" if aval is None else f"shape {aval.shape}"
        raise ShapeError(at_user_line(f"{name}: the metric {key!r} is not one number but {shape}; reduce it, for example with np.mean"))
