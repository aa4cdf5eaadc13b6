"""`Trainer`: a loss function and an optimiser as a compiled training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from staticgrad.config import BACKENDS
from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.source import at_user_line
from staticgrad.traced import CacheInfo
from staticgrad.tracing.pytree import flatten, leaf_aval, prepared, unflatten
from staticgrad.train.data import rows_of
from staticgrad.train.fitting import Callback, Evaluation, Fitting
from staticgrad.train.history import History, TrainState
from staticgrad.train.steps import Steps


class Trainer:
    """Trains parameters on batches of data in native code.

    The loss function is recorded once for each shape of a batch. Loss, gradient and update become one compiled function, and a
    native loop runs whole epochs of it: order of the rows, batches, steps and means, without Python and without its lock.

    Parameters
    ----------
    loss
        A function `loss(params, *batch)`, plain or traced, of a pytree of float arrays and of arrays with one row for each example. It
        returns the loss, one float, or a pair of that and a dict of metrics, one number each.
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
        if metrics is not None and (not isinstance(metrics, Mapping) or not all(map(callable, metrics.values()))):
            raise ArgumentError(at_user_line("Trainer: metrics must be a dict of functions by name"))
        if backend is not None and backend not in BACKENDS:
            raise InvalidValueError(at_user_line(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}"))
        self.optimizer = optimizer
        self._steps = Steps(loss, optimizer, metrics or {}, backend)

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
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        validation: Any = None,
        progress: bool = True,
        callbacks: Iterable[Callback] = (),
    ) -> tuple[TrainState, History]:
        """Return the state after `epochs` more epochs, and what happened in them.

        Ctrl-C ends the training early: what was reached is returned, and `history.interrupted` is True.

        Parameters
        ----------
        state
            From `init` or an earlier `fit`, which it continues: epochs are counted on, and so is the sequence of their orders.
        data
            The arguments of the loss function after the parameters: an array, a tuple of arrays, or a dict of arrays by name, all with
            the rows along their first axis. Arrays that are not contiguous, or in foreign byte order, are converted once.
        epochs
            How often to go through the data.
        batch_size
            Rows of a batch; the last one of an epoch holds what is left.
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

        Returns
        -------
        state : TrainState
        history : History
            `history["loss"]` and so on, with one entry for each epoch.

        Raises
        ------
        StaticgradError
            If arrays differ in length, the batch is larger than the data, the loss is not one float, a step fails ...

        References
        ----------
        The order of the rows: `staticgrad.runtime.epoch_driver.shuffle`.
        """
        rows = rows_of(data, self._steps.loss, "data")
        checked = None if validation is None else rows_of(validation, self._steps.loss, "validation")
        _check_state(state)
        epochs, batch_size, seed = _whole("epochs", epochs, 1), _whole("batch_size", batch_size, 1), _whole("seed", seed, 0)
        if batch_size > len(rows):
            raise InvalidValueError(at_user_line(f"batch_size={batch_size}, but data has {len(rows)} rows; take at most that many"))
        callbacks = tuple(callbacks)
        if not all(map(callable, callbacks)):
            raise ArgumentError(at_user_line("fit: callbacks must be functions of one argument"))
        fitting = Fitting(self._steps, state, rows, epochs, batch_size, seed if shuffle else None, checked, callbacks)
        fitting.run(progress)
        return fitting.state, fitting.history

    def evaluate(self, state: TrainState, data: Any, batch_size: int = 256) -> dict[str, float]:
        """Return the mean loss and metrics over all rows of `data`.

        Parameters
        ----------
        state
            The parameters to evaluate.
        data
            As for `fit`.
        batch_size
            How many rows to evaluate at once.

        Returns
        -------
        dict of str to float
        """
        rows = rows_of(data, self._steps.loss, "data")
        _check_state(state)
        evaluation = Evaluation(self._steps, state.params, rows, _whole("batch_size", batch_size, 1))
        return dict(zip(evaluation.names, evaluation.run(), strict=True))

    def cache_info(self) -> CacheInfo:
        """Return how often the loss function was run, and what was compiled or found on disk or in memory."""
        return self._steps.cache_info

    def __repr__(self) -> str:
        return f"<trainer of {getattr(self._steps.loss, '__name__', 'a loss')} with {self.optimizer!r}>"


def _check_state(state: Any) -> None:
    if not isinstance(state, TrainState):
        raise ArgumentError(
            at_user_line(f"the state is a {type(state).__name__}; pass what trainer.init(params) or trainer.fit(...) returned")
        )


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(at_user_line(f"{name}={value!r}: expected a whole number"))
    if value < least:
        raise InvalidValueError(at_user_line(f"{name}={value!r}: expected at least {least}"))
    return int(value)
