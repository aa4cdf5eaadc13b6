"""What a training leaves behind: the state it reached, and a record of every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from staticgrad.errors import InvalidValueError
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.training_loop import Place
from staticgrad.train.stopping import Best


class TrainState(NamedTuple):
    """How far a training is; a pytree. `Trainer.fit` takes one and returns another, the arrays of the first stay as they are.

    Parameters
    ----------
    params
        The parameters.
    optimizer_state
        What the optimiser remembers.
    epoch, step : int
        Epochs and updates done.
    position : int
        Rows done of an epoch that was interrupted; the next `fit` on as many rows continues there.
    """

    params: Any
    optimizer_state: Any
    epoch: int = 0
    step: int = 0
    position: int = 0


@dataclass(frozen=True)
class EpochInfo:
    """What callbacks are told after an epoch: `info.loss`, `info["val_loss"]`, `info.state.params`, `info.place`.

    Parameters
    ----------
    epoch : int
        How many epochs are done, counted over all calls of `fit`.
    values : mapping of str to float
        What the history holds of this epoch.
    state : TrainState
        The state after it, a copy; of a `Loop`, the carry.
    place : Place
        Epochs and steps done.
    """

    epoch: int
    values: Mapping[str, float]
    state: Any
    place: Place

    @property
    def loss(self) -> float:
        """The mean loss of the epoch."""
        return self.values["loss"]

    def __getitem__(self, name: str) -> float:
        return self.values[name]


class History(Mapping[str, list[float]]):
    """One list for each quantity, one entry for each epoch: `history["loss"]`.

    The quantities are `loss` and the metrics (means over the rows, each batch with the parameters it met), `learning_rate` where that
    has a schedule (the mean, too), `val_loss` and `val_...` (after the epoch), `seconds` and `samples_per_second` (of the training
    alone).

    Attributes
    ----------
    ended_by : str
        What ended the training: `"epochs"` (all were done), `"callback"`, `"early stopping"`, `"non-finite loss"` or `"Ctrl-C"`.
    place : Place
        Epochs and steps done at the end, and rows of an epoch under way: where a `Loop` can go on.
    best : Best or None
        The best epoch, where there is validation or early stopping: `best.epoch`, `best.value`, `best.state`.
    """

    def __init__(self, names: Sequence[str], place: Place) -> None:
        self.names = tuple(names)
        self.ended_by = "epochs"
        self.place = place
        self.best: Best | None = None
        self._blocks: list[np.ndarray] = []
        self._epochs = 0

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.ended_by == "Ctrl-C"

    @property
    def epochs(self) -> int:
        """How many epochs there are."""
        return self._epochs

    def add(self, block: np.ndarray) -> None:
        """Add epochs: a row for each, a column for each name."""
        self._blocks.append(block)
        self._epochs += len(block)

    def last(self) -> dict[str, float]:
        """Return all quantities of the last epoch."""
        return dict(zip(self.names, self._blocks[-1][-1].tolist(), strict=True))

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.names:
            raise KeyError(f"{name!r}; the history holds {', '.join(self.names)}")
        column = self.names.index(name)
        return [value for block in self._blocks for value in block[:, column].tolist()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.6g}" for name, value in self.last().items()) if self._blocks else "nothing"
        return f"<history of {self._epochs} epochs, ended by {self.ended_by}: {last}>"


class Result(NamedTuple):
    """What a training returns, a pair: `state, history = trainer.fit(...)`.

    Parameters
    ----------
    state
        The `TrainState`; of a `Loop`, the carry.
    history : History
        What happened.
    """

    state: Any
    history: History

    @property
    def best_state(self) -> Any:
        """The state after the best epoch: that with the least `val_loss`, or what early stopping found.

        Raises
        ------
        InvalidValueError
            If there was neither validation nor early stopping, or no epoch had a number to compare.
        """
        if self.history.best is None:
            raise InvalidValueError(at_user_line("no best state was kept; pass validation=... or early_stopping=sg.EarlyStopping('loss')"))
        return self.history.best.state
