"""What a training leaves behind: the state it reached, and a record of every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


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
    """What callbacks are told after an epoch: `info.loss`, `info["val_loss"]`, `info.state.params`.

    Parameters
    ----------
    epoch : int
        How many epochs are done, counted over all calls of `fit`.
    values : mapping of str to float
        What the history holds of this epoch.
    state : TrainState
        The state after it, a copy.
    """

    epoch: int
    values: Mapping[str, float]
    state: TrainState

    @property
    def loss(self) -> float:
        """The mean loss of the epoch."""
        return self.values["loss"]

    def __getitem__(self, name: str) -> float:
        return self.values[name]


class History(Mapping[str, list[float]]):
    """One list for each quantity, one entry for each epoch: `history["loss"]`.

    The quantities are `loss` and the metrics (means over the rows, each batch with the parameters it met), `val_loss` and
    `val_...` (after the epoch), `seconds` and `samples_per_second` (of the training alone).

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.interrupted = False
        self.rows: list[tuple[float, ...]] = []

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.names:
            raise KeyError(f"{name!r}; the history holds {', '.join(self.names)}")
        column = self.names.index(name)
        return [row[column] for row in self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.6g}" for name, value in zip(self.names, self.rows[-1], strict=True)) if self.rows else "nothing"
        return f"<history of {len(self.rows)} epochs{', interrupted' * self.interrupted}: {last}>"
