"""Which epoch was the best, and whether it is time to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from staticgrad.errors import ArgumentError, InvalidValueError
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.runtime.training_loop import Place


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a training when a quantity has not got better for some epochs.

    Parameters
    ----------
    monitor
        A name of the history: `"val_loss"`, `"loss"`, a metric, or `"val_..."` of one.
    patience
        After so many epochs in a row without an improvement the training ends, at least 1.
    min_delta
        An epoch is better if it beats the best one by more than this, at least 0.
    mode
        `"min"` if less is better, `"max"` if more is.
    restore_best
        Whether the state that is returned is that of the best epoch, rather than that of the last one. (After Ctrl-C it is the last.)

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def loss(x, data):
    ...     return np.mean((x - data) ** 2)
    >>> trainer = sg.Trainer(loss, sg.optim.sgd(0.1))
    >>> train, held_out = np.linspace(0.0, 1.0, 10), np.full(5, 0.2)
    >>> stopping = sg.EarlyStopping("val_loss", patience=3)
    >>> result = trainer.fit(
    ...     trainer.init(-1.0), train, epochs=100, batch_size=10, validation=held_out, early_stopping=stopping, progress=False
    ... )
    >>> result.history.ended_by, len(result.history["loss"]), result.history.best.epoch
    ('early stopping', 10, 7)
    >>> result.state.epoch
    7
    """

    monitor: str = "val_loss"
    patience: int = 5
    min_delta: float = 0.0
    mode: str = "min"
    restore_best: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str):
            raise ArgumentError(at_user_line(f"monitor={self.monitor!r}: expected a name of the history, for example 'val_loss'"))
        whole("patience", self.patience)
        number("min_delta", self.min_delta)
        if self.mode not in ("min", "max"):
            raise InvalidValueError(at_user_line(f"mode={self.mode!r}: expected 'min' or 'max'"))


@dataclass(frozen=True)
class Best:
    """The best epoch of a training: what was done by then, the monitored value, and the state, a copy."""

    place: Place
    value: float
    state: Any

    @property
    def epoch(self) -> int:
        """How many epochs were done, the best one included."""
        return self.place.epoch


class Watch:
    """Early stopping under way, or with `rule` None only the best value of `monitor`."""

    def __init__(self, rule: EarlyStopping | None, monitor: str, names: Sequence[str]) -> None:
        if monitor not in names:
            listed = ", ".join(names)
            raise InvalidValueError(at_user_line(f"early_stopping: there is no {monitor!r} to monitor; the history holds {listed}"))
        self.monitor = monitor
        self.rule = rule
        self.best: Best | None = None
        self._waited = 0

    def see(self, place: Place, value: float, state: Callable[[], Any]) -> bool:
        """Take note of the value after an epoch; return whether to stop."""
        sign = -1.0 if self.rule is not None and self.rule.mode == "max" else 1.0
        least = self.rule.min_delta if self.rule is not None else 0.0
        if sign * value < (sign * self.best.value - least if self.best is not None else float("inf")):
            self.best = Best(place, value, state())
            self._waited = 0
            return False
        self._waited += 1
        return self.rule is not None and self._waited >= self.rule.patience
