"""One run of a loop: epochs in native calls, and between them Python: validation, callbacks, early stopping, progress, Ctrl-C."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from staticgrad.errors import ArgumentError, InvalidValueError, NonFiniteLossError, StaticgradWarning
from staticgrad.ir.options import whole
from staticgrad.ir.source import at_user_line, user_stack_level
from staticgrad.runtime.training_loop import Place, TrainingLoop
from staticgrad.tracing.pytree import flatten, leaf_aval, prepared, unflatten
from staticgrad.train.compiled import Body, CompiledStep, Compiler
from staticgrad.train.data import Rows
from staticgrad.train.history import EpochInfo, History, Result
from staticgrad.train.progress import Progress
from staticgrad.train.stopping import Best, EarlyStopping, Watch

Callback = Callable[[EpochInfo], Any]

NON_FINITE = ("stop", "raise", "warn")
"""What can happen when the loss is not finite."""


@dataclass(frozen=True, eq=False)
class Options:
    """What users ask of a run, checked."""

    epochs: int
    batch_size: int | None
    shuffle: bool
    seed: int
    early_stopping: EarlyStopping | None
    on_nonfinite: str
    callbacks: tuple[Callback, ...]

    @staticmethod
    def checked(
        epochs: Any,
        batch_size: Any,
        shuffle: Any,
        seed: Any,
        early_stopping: Any,
        on_nonfinite: Any,
        callbacks: Iterable[Any],
    ) -> Options:
        """Return the options, or raise for those that make no sense."""
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise ArgumentError(at_user_line(f"early_stopping={early_stopping!r}: expected sg.EarlyStopping('val_loss', patience=5)"))
        if on_nonfinite not in NON_FINITE:
            raise InvalidValueError(at_user_line(f"on_nonfinite={on_nonfinite!r}: expected one of {', '.join(NON_FINITE)}"))
        callbacks = tuple(callbacks)
        if not all(map(callable, callbacks)):
            raise ArgumentError(at_user_line("callbacks must be functions of one argument"))
        size = None if batch_size is None else whole("batch_size", batch_size)
        return Options(whole("epochs", epochs), size, bool(shuffle), whole("seed", seed, 0), early_stopping, str(on_nonfinite), callbacks)


def _sizes(rows: int, batch_size: int) -> list[int]:
    """Return the sizes of batches that occur: that of a whole one, and that of the last where it is smaller."""
    return [size for size in (batch_size, rows % batch_size) if size]


def _names(made: list[CompiledStep]) -> tuple[str, ...]:
    """Return the names of the metrics, which must be the same for the last batch."""
    first, last = made[0].names, made[-1].names
    if first != last:
        raise ArgumentError(
            at_user_line(
                f"the metrics of a whole batch are {', '.join(first)}, those of the smaller last one {', '.join(last)}; name the same"
            )
        )
    return first


class Evaluating:
    """Metrics over data that change nothing of what is carried."""

    def __init__(self, compiler: Compiler, body: Body, carry: Any, data: Rows, batch_size: int) -> None:
        batch_size = min(batch_size, len(data))
        made = [compiler.evaluation(body, carry, data.batch(size)) for size in _sizes(len(data), batch_size)]
        self.names = _names(made)
        self.loop = TrainingLoop([each.step for each in made], flatten(carry)[0], data.leaves, len(data), batch_size)

    def run(self, training: TrainingLoop | None = None) -> np.ndarray:
        """Return the means; for what `training` carries now, if it is given."""
        if training is not None:
            self.loop.borrow(training)
        epoch = self.loop.place.epoch
        while self.loop.place.epoch == epoch:
            self.loop.run(1)
        return self.loop.means(epoch)


class Run:
    """A run under way.

    Parameters
    ----------
    compiler, step, evaluation
        The bodies of the loop, the second for validation, and what compiles them.
    carry
        What goes from step to step, a pytree of arrays.
    data
        The rows that batches hold; None for steps without data, where an epoch is one step.
    validation
        Rows for the evaluation.
    options
        How to run.
    place
        Where an earlier run ended.
    """

    def __init__(
        self,
        compiler: Compiler,
        step: Body,
        evaluation: Body | None,
        carry: Any,
        data: Rows | None,
        validation: Rows | None,
        options: Options,
        place: Place,
    ) -> None:
        self._rows = 1 if data is None else len(data)
        self._batch = options.batch_size or self._rows
        if self._batch > self._rows:
            raise InvalidValueError(
                at_user_line(f"batch_size={self._batch}, but data has {self._rows} rows; take at most that many, or None for all at once")
            )
        leaves, self._tree = flatten(carry)
        batches = [() if data is None else (data.batch(size),) for size in _sizes(self._rows, self._batch)]
        made = [compiler.step(step, carry, *batch) for batch in batches]
        self._names = _names(made)
        if place.position >= self._rows or place.position % self._batch:
            place = Place(place.epoch, 0, place.step)
        self._loop = TrainingLoop(
            [each.step for each in made],
            leaves,
            [] if data is None else data.leaves,
            self._rows,
            self._batch,
            options.seed if options.shuffle and options.batch_size is not None else None,
            place,
            self._names.index("loss") if "loss" in self._names else -1,
            options.on_nonfinite != "warn",
        )
        self._evaluating: Evaluating | None = None
        if validation is not None and evaluation is not None:
            self._evaluating = Evaluating(compiler, evaluation, carry, validation, self._batch)
        checked = () if self._evaluating is None else tuple(f"val_{name}" for name in self._evaluating.names)
        self.history = History((*self._names, *checked, "seconds", "samples_per_second"), place)
        self._watch: Watch | None = None
        if options.early_stopping is not None:
            self._watch = Watch(options.early_stopping, options.early_stopping.monitor, self.history.names)
        elif "val_loss" in checked:
            self._watch = Watch(None, "val_loss", self.history.names)
        self._start, self._options = place, options
        self._unit = "steps" if data is None else "samples"
        self._seconds = 0.0  # of the epoch under way

    def run(self, progress: bool) -> Result:
        """Run all epochs; Ctrl-C ends it early and is noted in the history."""
        history, options, loop = self.history, self._options, self._loop
        bar = Progress(progress, self._rows, options.epochs, self._unit)
        by_epoch = bool(options.callbacks or self._evaluating or self._watch)
        is_noted, running, trained = False, True, 0.0
        try:
            while running and (left := options.epochs - self._done) > 0:
                before = loop.place
                seconds, steps = loop.run(1 if by_epoch else left)
                trained += seconds
                self._record(before, seconds / max(steps, 1))
                done = self._done * self._rows + loop.place.position
                metric = (self._names[0], loop.mean_so_far()[0]) if self._names else None
                bar.show(done, metric, (done - self._start.position) / trained, last=self._done == options.epochs)
                if loop.bad_place is not None and not is_noted:
                    is_noted, running = True, options.on_nonfinite == "warn"
                    self._note(*loop.bad_place)
                if by_epoch and loop.place.epoch > before.epoch:
                    running = self._after_epoch() and running
        except KeyboardInterrupt:
            self._record(loop.place, 0.0)
            history.ended_by = "Ctrl-C"
        finally:
            bar.close()
        history.place, history.best = loop.place, self._best
        best = history.best
        if best is None or options.early_stopping is None or not options.early_stopping.restore_best or history.interrupted:
            return Result(self._carry(), history)
        history.place = best.place
        return Result(best.state, history)

    @property
    def _done(self) -> int:
        return self._loop.place.epoch - self._start.epoch

    @property
    def _best(self) -> Best | None:
        return None if self._watch is None else self._watch.best

    def _carry(self) -> Any:
        """Return what is carried now: copies."""
        return unflatten(self._tree, self._loop.carried())

    def _record(self, before: Place, pace: float) -> None:
        """Enter the epochs that ended since `before` into the history; steps took `pace` seconds each."""
        means = self._loop.means(self._start.epoch + self.history.epochs)
        position = before.position
        if len(means):
            seconds = np.full(len(means), pace * -(-self._rows // self._batch))
            seconds[0] = self._seconds + pace * -(-(self._rows - position) // self._batch)
            rows = np.full(len(means), float(self._rows))
            if not self.history.epochs:
                rows[0] -= self._start.position
            rate = np.divide(rows, seconds, out=np.full(len(means), np.nan), where=seconds > 0)
            checked = np.empty((len(means), 0))
            if self._evaluating is not None:
                width = len(self._evaluating.names)
                checked = self._evaluating.run(self._loop) if pace else np.full((len(means), width), np.nan)
            self.history.add(np.column_stack([means, checked, seconds, rate]))
            self._seconds, position = 0.0, 0
        self._seconds += pace * ((self._loop.place.position - position) // self._batch)

    def _after_epoch(self) -> bool:
        """Look at the epoch that has just ended; return whether to go on."""
        values, place = self.history.last(), self._loop.place
        is_over = self._watch is not None and self._watch.see(place, values[self._watch.monitor], self._carry)
        if is_over:
            self.history.ended_by = "early stopping"
        if not self._options.callbacks:
            return not is_over
        info = EpochInfo(place.epoch, values, self._carry(), place)
        answers = [callback(info) for callback in self._options.callbacks]
        if any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers):
            self.history.ended_by, is_over = "callback", True
        return not is_over

    def _note(self, epoch: int, position: int) -> None:
        """Tell the user that the loss is not finite, and where."""
        batch, batches = position // self._batch + 1, -(-self._rows // self._batch)
        message = (
            f"the loss is infinite or not a number in epoch {epoch + 1}, batch {batch} of {batches}: lower the learning rate, scale the "
            "data, or look for a division by zero or the logarithm of 0 in the loss function"
        )
        if self._options.on_nonfinite == "warn":
            warnings.warn(message, StaticgradWarning, stacklevel=user_stack_level())
            return
        self.history.ended_by, self.history.place, self.history.best = "non-finite loss", self._loop.place, self._best
        message += "; the state is the one before the update that led there"
        if self._options.on_nonfinite == "raise":
            raise NonFiniteLossError(at_user_line(message), self._carry(), self.history, epoch + 1, batch)
        warnings.warn(message, StaticgradWarning, stacklevel=user_stack_level())


def arrays_of(carry: Any) -> Any:
    """Return a carry as arrays of native dtypes; they are not copied unless they must be."""
    leaves, tree = flatten(carry)
    return unflatten(tree, [prepared(leaf, leaf_aval(leaf)) for leaf in leaves])
