"""`Loop`: a step given by the user as a compiled loop over epochs and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from staticgrad.calls.records import CacheInfo
from staticgrad.config import BACKENDS
from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.options import whole
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.training_loop import Place
from staticgrad.train.compiled import Body, Compiler
from staticgrad.train.data import rows_of
from staticgrad.train.history import Result
from staticgrad.train.running import Callback, Evaluating, Options, Run, arrays_of
from staticgrad.train.stopping import EarlyStopping


class Loop:
    """Runs a step over and over in native code.

    The step is recorded once for each shape of a batch and compiled as one function; a native loop runs whole epochs of it: order of
    the rows, batches, steps and means, without Python and without its lock. `Trainer` is the loop whose step is made of a loss function
    and an optimiser.

    Parameters
    ----------
    step
        A function `step(carry, batch) -> (carry, metrics)` in NumPy, or `step(carry) -> (carry, metrics)` for a loop without data. The
        carry is any pytree of arrays; shapes and dtypes last from step to step, and what a step returns as it got it costs nothing. A
        batch is like the data, with fewer rows. Metrics are a dict of numbers by name, `{}` for none. The metric `"loss"`, if there is
        one, must stay finite. The metric `"weight"`, if there is one, says how much the batch counts in the means of an epoch, in place
        of its number of rows.
    evaluate
        A function `evaluate(carry, batch) -> metrics`, for validation.
    backend
        `"cpu"`, or `"interp"` for the NumPy interpreter; by default that of `step`.

    Examples
    --------
    Least squares by gradient descent, the data within the carry; an epoch is one step:

    >>> import numpy as np, staticgrad as sg
    >>> def loss(params, x, y):
    ...     return np.mean((params[0] * x + params[1] - y) ** 2)
    >>> def step(carry):
    ...     params, x, y = carry
    ...     value, slope = sg.value_and_grad(loss)(params, x, y)
    ...     return (params - 0.5 * slope, x, y), {"loss": value}
    >>> x = np.linspace(-1.0, 1.0, 11)
    >>> (params, _, _), history = sg.Loop(step).run((np.zeros(2), x, 3 * x + 1), epochs=200)
    >>> np.round(params, 6)
    array([3., 1.])
    >>> len(history["loss"])
    200

    A running mean over batches:

    >>> def count(carry, batch):
    ...     return (carry[0] + np.sum(batch["x"]), carry[1] + len(batch["x"])), {}
    >>> (total, rows), _ = sg.Loop(count).run((0.0, 0), {"x": np.arange(10.0)}, batch_size=4)
    >>> float(total), int(rows)
    (45.0, 10)
    """

    def __init__(
        self, step: Callable[..., Any] | Body, evaluate: Callable[..., Any] | Body | None = None, *, backend: str | None = None
    ) -> None:
        for name, function in (("step", step), ("evaluate", evaluate)):
            if not isinstance(function, Body) and not callable(function) and (name, function) != ("evaluate", None):
                raise ArgumentError(at_user_line(f"Loop: {name} is a {type(function).__name__}, not a function"))
        if backend is not None and backend not in BACKENDS:
            raise InvalidValueError(at_user_line(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}"))
        self._step = step if isinstance(step, Body) else Body(step)
        self._evaluation = evaluate if isinstance(evaluate, Body) or evaluate is None else Body(evaluate)
        self._compiler = Compiler(backend)

    def run(
        self,
        carry: Any,
        data: Any = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        validation: Any = None,
        early_stopping: EarlyStopping | None = None,
        on_nonfinite: str = "stop",
        callbacks: Iterable[Callback] = (),
        progress: bool = False,
        start: Place | None = None,
    ) -> Result:
        """Return the carry after `epochs` epochs, and what happened in them.

        Ctrl-C ends the run early: what was reached is returned, and `history.interrupted` is True.

        Parameters
        ----------
        carry
            What the first step gets, a pytree of arrays and numbers; nothing of it is changed.
        data
            An array or a pytree of arrays with the rows along their first axis; None where the step takes no batch.
        epochs
            How often to go through the data; without data, the number of steps.
        batch_size
            Rows of a batch; the last one of an epoch holds what is left. None is all rows at once, in their own order.
        shuffle
            Whether each epoch goes through the rows in another random order.
        seed
            What these orders depend on, together with the number of the epoch.
        validation
            Data for `evaluate`, whose metrics after each epoch are in the history as `val_...`.
        early_stopping
            When to end the run before the last epoch.
        on_nonfinite
            What happens when the loss is infinite or not a number: `"stop"` ends the run with a warning that names epoch and batch,
            `"raise"` raises `NonFiniteLossError`, which holds the state; in both cases that is the carry before the update that led
            there. `"warn"` goes on.
        callbacks
            Functions of an `EpochInfo`, called after each epoch; one that returns True ends the run.
        progress
            Whether to show a progress bar.
        start
            Where an earlier run ended, `history.place`: epochs and the sequence of their orders are counted on.

        Returns
        -------
        state
            The carry.
        history : History
            `history["loss"]` and so on, with one entry for each epoch.

        Raises
        ------
        StaticgradError
            If arrays differ in length, a step returns another kind of carry than it got, a step fails ...

        References
        ----------
        The order of the rows: `staticgrad.runtime.epoch_driver.shuffle`.
        """
        options = Options.checked(epochs, batch_size, shuffle, seed, early_stopping, on_nonfinite, callbacks)
        rows = None if data is None else rows_of(data, "data")
        if rows is None and batch_size is not None:
            raise InvalidValueError(at_user_line(f"batch_size={batch_size}, but there is no data"))
        checked = None if validation is None else rows_of(validation, "validation")
        if checked is not None and self._evaluation is None:
            raise ArgumentError(at_user_line("validation needs a function that computes metrics: Loop(step, evaluate)"))
        if start is not None and not isinstance(start, Place):
            raise ArgumentError(at_user_line(f"start={start!r}: expected the place where an earlier run ended, history.place"))
        run = Run(self._compiler, self._step, self._evaluation, arrays_of(carry), rows, checked, options, start or Place())
        return run.run(progress)

    def evaluate(self, carry: Any, data: Any, batch_size: int = 256) -> dict[str, float]:
        """Return the means of the metrics that `evaluate` computes, over all rows of `data`.

        Parameters
        ----------
        carry
            What is evaluated.
        data
            As for `run`.
        batch_size
            How many rows to evaluate at once.

        Returns
        -------
        dict of str to float

        Raises
        ------
        ArgumentError
            If the loop was made without `evaluate`.
        """
        if self._evaluation is None:
            raise ArgumentError(at_user_line("this loop has no function that computes metrics: Loop(step, evaluate)"))
        rows = rows_of(data, "data")
        evaluating = Evaluating(self._compiler, self._evaluation, arrays_of(carry), rows, whole("batch_size", batch_size))
        return dict(zip(evaluating.names, evaluating.run()[0].tolist(), strict=True))

    def cache_info(self) -> CacheInfo:
        """Return how often the user's function was run, and what was compiled or found on disk or in memory."""
        return self._compiler.cache_info

    def __repr__(self) -> str:
        return f"<loop of {self._step.name}>"
