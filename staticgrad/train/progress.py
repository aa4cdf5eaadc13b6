"""The progress bar: tqdm's where that is installed, a line that is written over on a terminal otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS = 0.1
"""The bar moves this often at most."""


def readable(rate: float) -> str:
    """Return a rate in few digits: 1234567.0 -> 1.23M."""
    for unit in ("", "k", "M"):
        if rate < 999.5:
            return f"{rate:.3g}{unit}"
        rate /= 1000
    return f"{rate:.3g}G"


class Progress:
    """Shows how far a training is, its first metric and the `unit` it takes in a second; silent unless `enabled`."""

    def __init__(self, enabled: bool, rows: int, epochs: int, unit: str = "samples") -> None:
        self._rows, self._epochs, self._unit = rows, epochs, unit
        self._next = 0.0
        self._bar: Any = None
        self._is_terminal = enabled and sys.stderr is not None and sys.stderr.isatty()
        self._enabled = self._is_terminal
        if not enabled:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._enabled = True
        form = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(total=rows * epochs, bar_format=form, dynamic_ncols=True, mininterval=0, miniters=0)

    def show(self, rows: int, metric: tuple[str, float] | None, rate: float, last: bool = False) -> None:
        """Show that `rows` rows of all epochs are done, a metric by name, and the rate."""
        if not self._enabled or (not last and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + SECONDS
        epoch = min(rows // self._rows + (rows % self._rows > 0), self._epochs)
        shown = "" if metric is None else f"{metric[0]} {metric[1]:.4g}, "
        place, numbers = f"epoch {epoch}/{self._epochs}", f"{shown}{readable(rate)} {self._unit}/s"
        if self._bar is None:
            sys.stderr.write(f"\r{place}: {numbers}\033[K")
            sys.stderr.flush()
            return
        self._bar.set_description_str(place, refresh=False)
        self._bar.set_postfix_str(numbers, refresh=False)
        self._bar.update(rows - self._bar.n)

    def close(self) -> None:
        """Leave the last line standing."""
        if self._bar is not None:
            self._bar.close()
        elif self._enabled:
            sys.stderr.write("\n")
        self._enabled = False
