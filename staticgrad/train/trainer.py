"""`Trainer`: a loss function and an optimiser as a compiled training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from staticgrad.calls.records import CacheInfo
from staticgrad.errors import ArgumentError, NonFiniteLossError
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.training_loop import Place
from staticgrad.tracing.pytree import flatten, leaf_aval, prepared, unflatten
from staticgrad.train.compiled import name_of
from staticgrad.train.data import arguments_of, rows_of, weights_of
from staticgrad.train.history import History, Result, TrainState
from staticgrad.train.loop import Loop
from staticgrad.train.losses import Carry, Evaluation, TrainingStep
from staticgrad.train.running import Callback
from staticgrad.train.stopping import EarlyStopping


class Trainer:
    """Trains parameters on batches of data in native code.

    The loss function is recorded once for each shape of a batch. Loss, gradient and update become one compiled function, the step of a
    `Loop`: whole epochs of it run without Python and without its lock.

    Parameters
    ----------
    loss
        A function `loss(params, *batch)`, plain or traced, of a pytree of float arrays and of arrays with one row for each example. It
        returns the loss, one float, or a pair of that and a dict of metrics, one number each. In place of one number it may return
        one for each row of the batch, whose mean is taken; where rows have weights it must, and the mean is weighted.
    optimizer
        From `sg.optim`, or anything with `init(params)` and `update(params, gradients, state)` like these.
    metrics
        Further functions like `loss`, by name; they are not differentiated.
    backend
        `"cpu"`, or `"interp"` for the NumPy interpreter; by default that of `loss`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> x = np.linspace(-1.0, 1.0, 100)
    >>> def loss(params, x, y):
    ...     return np.mean((params["slope"] * x + params["offset"] - y) ** 2)
    >>> trainer = sg.Trainer(loss, sg.optim.sgd(0.5))
    >>> state = trainer.init({"slope": np.zeros(()), "offset": np.zeros(())})
    >>> state, history = trainer.fit(state, (x, 3 * x + 1), epochs=50, batch_size=20, progress=False)
    >>> np.round(state.params["slope"], 3), np.round(state.params["offset"], 3)
    (np.float64(3.0), np.float64(1.0))
    >>> history["loss"][0] > history["loss"][-1]
    True
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        optimizer: Any,
        *,
        metrics: Mapping[str, Callable[..., Any]] | None = None,
        backend: str | None = None,
    ) -> None:
        if not callable(loss):
            raise ArgumentError(at_user_line(f"Trainer: the loss is a {type(loss).__name__}, not a function"))
        if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
            raise ArgumentError(at_user_line(f"Trainer: {optimizer!r} is no optimizer; pass one, for example sg.optim.adam(1e-3)"))
        if getattr(optimizer, "of_residuals", False):
            hint = "fit all data at once with sg.least_squares(residuals, params), or pass sg.optim.adam(1e-3)"
            raise ArgumentError(at_user_line(f"Trainer: {optimizer!r} takes residuals, not the gradient of a loss; {hint}"))
        if metrics is not None and (not isinstance(metrics, Mapping) or not all(map(callable, metrics.values()))):
            raise ArgumentError(at_user_line("Trainer: metrics must be a dict of functions by name"))
        self.optimizer = optimizer
        self._loss = loss
        self._loop = Loop(TrainingStep(loss, optimizer, metrics or {}), Evaluation(loss, metrics or {}), backend=backend)

    def init(self, params: Any) -> TrainState:
        """Return the state before the first epoch.

        Parameters
        ----------
        params
            A pytree of float arrays; they are copied.

        Returns
        -------
        TrainState

        Raises
        ------
        DTypeError
            If a parameter is not of floats.
        """
        leaves, tree = flatten(params)
        copied = unflatten(tree, [prepared(leaf, leaf_aval(leaf)).copy() for leaf in leaves])
        return TrainState(copied, self.optimizer.init(copied))

    def fit(
        self,
        state: TrainState,
        data: Any,
        epochs: int,
        batch_size: int | None,
        shuffle: bool = True,
        seed: int = 0,
        validation: Any = None,
        progress: bool = True,
        callbacks: Iterable[Callback] = (),
        *,
        sample_weight: Any = None,
        validation_sample_weight: Any = None,
        early_stopping: EarlyStopping | None = None,
        on_nonfinite: str = "stop",
    ) -> Result:
        """Return the state after `epochs` more epochs, and what happened in them.

        Ctrl-C ends the training early: what was reached is returned, and `history.interrupted` is True.

        Parameters
        ----------
        state
            From `init` or an earlier `fit`, which it continues: epochs are counted on, and so is the sequence of their orders.
        data
            The arguments of the loss function after the parameters: an array, a tuple of arrays, or a dict of arrays by name, all with
            the rows along their first axis. An argument may be a pytree of such arrays. Arrays that are not contiguous, or in foreign
            byte order, are converted once.
        epochs
            How often to go through the data.
        batch_size
            Rows of a batch; the last one of an epoch holds what is left. None is all rows at once, in their own order.
        shuffle
            Whether each epoch goes through the rows in another random order.
        seed
            What these orders depend on, together with the number of the epoch.
        validation
            Data like `data`; loss and metrics on them are computed after each epoch.
        progress
            Whether to show a progress bar with loss and samples a second.
        callbacks
            Functions of an `EpochInfo`, called after each epoch; one that returns True ends the training.
        sample_weight
            One number for each row, at least 0. The loss function then returns one loss for each row, and the loss of a batch is
            sum(weight * loss) / sum(weight), as if rows were repeated; so are the means of an epoch. Metrics that are one number for
            each row are weighted, too.
        validation_sample_weight
            The same for `validation`.
        early_stopping
            When to end the training before the last epoch.
        on_nonfinite
            What happens when the loss is infinite or not a number: `"stop"` ends the training with a warning that names epoch and
            batch, `"raise"` raises `NonFiniteLossError`, which holds the state; in both cases that is the one before the update that
            led there. `"warn"` trains on.

        Returns
        -------
        state : TrainState
        history : History
            `history["loss"]` and so on, with one entry for each epoch. The pair that is returned also has a `best_state`.

        Raises
        ------
        StaticgradError
            If arrays differ in length, the batch is larger than the data, the loss is not one float, a step fails ...

        References
        ----------
        The order of the rows: `staticgrad.runtime.epoch_driver.shuffle`.
        """
        _check_state(state)
        checked = None
        if validation is not None:
            checked = self._batches(validation, validation_sample_weight, "validation", "validation_sample_weight")
        elif validation_sample_weight is not None:
            raise ArgumentError(at_user_line("validation_sample_weight needs validation=..."))
        try:
            carry, history = self._loop.run(
                Carry(state.params, state.optimizer_state),
                self._batches(data, sample_weight, "data", "sample_weight"),
                epochs=epochs,
                batch_size=batch_size,
                shuffle=shuffle,
                seed=seed,
                validation=checked,
                early_stopping=early_stopping,
                on_nonfinite=on_nonfinite,
                callbacks=[_with_state(callback) for callback in callbacks],
                progress=progress,
                start=Place(int(state.epoch), int(state.position), int(state.step)),
            )
        except NonFiniteLossError as error:
            error.state = _state(error.state, error.history.place)
            _complete(error.history)
            raise
        _complete(history)
        return Result(_state(carry, history.place), history)

    def evaluate(self, state: TrainState, data: Any, batch_size: int = 256, *, sample_weight: Any = None) -> dict[str, float]:
        """Return the mean loss and metrics over all rows of `data`.

        Parameters
        ----------
        state
            The parameters to evaluate.
        data
            As for `fit`.
        batch_size
            How many rows to evaluate at once.
        sample_weight
            As for `fit`.

        Returns
        -------
        dict of str to float
        """
        _check_state(state)
        batches = self._batches(data, sample_weight, "data", "sample_weight")
        return self._loop.evaluate(Carry(state.params, state.optimizer_state), batches, batch_size)

    def cache_info(self) -> CacheInfo:
        """Return how often the loss function was run, and what was compiled or found on disk or in memory."""
        return self._loop.cache_info()

    def _batches(self, data: Any, weights: Any, what: str, what_weights: str) -> tuple[Any, Any]:
        """Return the data of the loop: the arguments of the loss function, and the weights of the rows."""
        arguments = arguments_of(data, self._loss, what)
        return arguments, weights_of(weights, len(rows_of(arguments, what)), what_weights)

    def __repr__(self) -> str:
        return f"<trainer of {name_of(self._loss)} with {self.optimizer!r}>"


def _state(carry: Carry, place: Place) -> TrainState:
    return TrainState(carry.params, carry.optimizer_state, place.epoch, place.step, place.position)


def _complete(history: History) -> None:
    """Make the best state of a history one of the trainer's."""
    if history.best is not None:
        history.best = replace(history.best, state=_state(history.best.state, history.best.place))


def _with_state(callback: Any) -> Any:
    """Return a callback of a loop that tells one of the trainer's; what is no function stays, for the loop to complain of."""
    return (lambda info: callback(replace(info, state=_state(info.state, info.place)))) if callable(callback) else callback


def _check_state(state: Any) -> None:
    if not isinstance(state, TrainState):
        raise ArgumentError(
            at_user_line(f"the state is a {type(state).__name__}; pass what trainer.init(params) or trainer.fit(...) returned")
        )
