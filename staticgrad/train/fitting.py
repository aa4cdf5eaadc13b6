"""One call of `fit`: epochs in native calls, and between them Python: validation, callbacks, the progress bar, Ctrl-C."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staticgrad.errors import StaticgradWarning
from staticgrad.runtime.training_loop import Place, TrainingLoop
from staticgrad.tracing.pytree import flatten, leaf_aval, prepared, unflatten
from staticgrad.train.data import Rows
from staticgrad.train.history import EpochInfo, History, TrainState
from staticgrad.train.progress import Progress
from staticgrad.train.steps import CompiledStep, Steps

Callback = Callable[[EpochInfo], Any]


def sizes(rows: int, batch_size: int) -> list[int]:
    """Return the sizes of batches that occur: that of a whole one, and that of the last where it is smaller."""
    return [size for size in (batch_size, rows % batch_size) if size]


class Evaluation:
    """Loss and metrics over data that nothing is learnt from."""

    def __init__(self, steps: Steps, params: Any, data: Rows, batch_size: int) -> None:
        batch_size = min(batch_size, len(data))
        made = [steps.evaluation(params, data.batch(size)) for size in sizes(len(data), batch_size)]
        self.names = made[0].names
        leaves = [prepared(leaf, leaf_aval(leaf)) for leaf in flatten(params)[0]]
        self.loop = TrainingLoop([each.step for each in made], leaves, data.leaves, batch_size, len(self.names))

    def run(self, training: TrainingLoop | None = None) -> list[float]:
        """Return the means; of the parameters that `training` has reached, if it is given."""
        if training is not None:
            self.loop.borrow(training)
        epoch = self.loop.place.epoch
        while self.loop.place.epoch == epoch:
            self.loop.run(1)
        return self.loop.means(epoch)[0]


class Fitting:
    """A training under way."""

    def __init__(
        self,
        steps: Steps,
        state: TrainState,
        data: Rows,
        epochs: int,
        batch_size: int,
        seed: int | None,
        validation: Rows | None,
        callbacks: Sequence[Callback],
    ) -> None:
        carried = (state.params, state.optimizer_state)
        leaves, self._tree = flatten(carried)
        made: list[CompiledStep] = [steps.training(*carried, data.batch(size)) for size in sizes(len(data), batch_size)]
        self._names = made[0].names
        position = int(state.position)
        place = Place(int(state.epoch), position if position < len(data) and position % batch_size == 0 else 0, int(state.step))
        arrays = [prepared(leaf, leaf_aval(leaf)) for leaf in leaves]
        self._loop = TrainingLoop([each.step for each in made], arrays, data.leaves, batch_size, len(self._names), seed, place)
        self._evaluation = None if validation is None else Evaluation(steps, state.params, validation, batch_size)
        checked = () if self._evaluation is None else tuple(f"val_{name}" for name in self._evaluation.names)
        self.history = History((*self._names, *checked, "seconds", "samples_per_second"))
        self._rows, self._batch = len(data), batch_size
        self._start, self._epochs = place, epochs
        self._callbacks = tuple(callbacks)
        self._seconds = 0.0  # of the epoch under way

    @property
    def state(self) -> TrainState:
        """The state that is reached: copies."""
        place = self._loop.place
        params, optimizer_state = unflatten(self._tree, self._loop.carried())
        return TrainState(params, optimizer_state, place.epoch, place.step, place.position)

    def run(self, progress: bool) -> None:
        """Train; Ctrl-C ends it early and is noted in the history."""
        bar = Progress(progress, self._rows, self._epochs)
        warned = stopped = False
        trained = 0.0
        try:
            while not stopped and (left := self._epochs - self._done) > 0:
                before = self._loop.place
                seconds, steps = self._loop.run(1 if self._callbacks or self._evaluation else left)
                trained += seconds
                self._record(before, seconds / steps)
                done = self._done * self._rows + self._loop.place.position
                rate = (done - self._start.position) / trained
                bar.show(done, self._loop.mean_so_far()[0], rate, last=self._done == self._epochs)
                if self._loop.bad_step is not None and not warned:
                    warned = True
                    _warn(self._loop.bad_step, self._start)
                if self._callbacks and self._loop.place.epoch > before.epoch:
                    stopped = self._call_back()
        except KeyboardInterrupt:
            self._record(self._loop.place, 0.0)
            self.history.interrupted = True
        finally:
            bar.close()

    @property
    def _done(self) -> int:
        return self._loop.place.epoch - self._start.epoch

    def _record(self, before: Place, pace: float) -> None:
        """Enter the epochs that ended since `before` into the history; steps took `pace` seconds each."""
        first = self._start.epoch + len(self.history.rows)
        position = before.position
        for means in self._loop.means(first):
            started = self._start.position if not self.history.rows else 0
            seconds = self._seconds + pace * -(-(self._rows - position) // self._batch)
            checked: list[float] = []
            if self._evaluation is not None:
                checked = self._evaluation.run(self._loop) if pace else [np.nan] * len(self._evaluation.names)
            rate = (self._rows - started) / seconds if seconds else np.nan
            self.history.rows.append((*means, *checked, seconds, rate))
            self._seconds, position = 0.0, 0
        self._seconds += pace * ((self._loop.place.position - position) // self._batch)

    def _call_back(self) -> bool:
        """Return whether a callback asked to stop."""
        values = dict(zip(self.history.names, self.history.rows[-1], strict=True))
        info = EpochInfo(self._loop.place.epoch, values, self.state)
        answers = [callback(info) for callback in self._callbacks]
        return any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)


def _warn(step: int, start: Place) -> None:
    warnings.warn(
        f"the loss is infinite or not a number in step {step - start.step + 1} of this training: lower the learning rate, scale the data, "
        "or look for a division by zero or the logarithm of 0 in the loss function",
        StaticgradWarning,
        stacklevel=4,
    )
