"""What the training of an expression graph did, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from staticgrad.primer.network import Edge

BY_MEASURE = "finite differences"
PARTIALS = (BY_MEASURE, "exact")
"""Which partial derivatives a training can follow."""


@dataclass(frozen=True, eq=False, repr=False)
class ExpressionTraining:
    """The record of a training; `print` shows its report.

    Parameters
    ----------
    losses : array, shape (samples,)
        The squared error of each sample, added up over the outputs, before the update that the sample caused.
    constants : dict of str to float
        The constants after the last update.
    vertex_gradients, constant_gradients : dict of str to array, shape (samples,)
        The gradient of the loss of each sample at every vertex and at every constant.
    trajectory : dict of str to array, shape (samples,)
        The constants that each sample met.
    exact_partials, measured_partials : dict of (source, target) to array, shape (samples,)
        The partial derivative of every edge at each sample: from the compiled derivative, and by finite differences.
    partials : str
        Which of these the gradients and the updates followed.
    """

    losses: np.ndarray
    constants: Mapping[str, float]
    vertex_gradients: Mapping[str, np.ndarray]
    constant_gradients: Mapping[str, np.ndarray]
    trajectory: Mapping[str, np.ndarray]
    exact_partials: Mapping[Edge, np.ndarray]
    measured_partials: Mapping[Edge, np.ndarray]
    partials: str

    @property
    def first_nonfinite(self) -> int | None:
        """The first sample, counted from 0, whose loss is infinite or not a number."""
        wrong = np.flatnonzero(~np.isfinite(self.losses))
        return int(wrong[0]) if wrong.size else None

    @property
    def disagreement(self) -> dict[Edge, float]:
        """The largest relative difference of the two partial derivatives of every edge, over the samples where both are finite.

        It is large where a slope nearly vanishes beside its target, and where values are so large that `grad_delta` is lost in them.
        """
        return {edge: _largest_difference(exact, self.measured_partials[edge]) for edge, exact in self.exact_partials.items()}

    def mean_losses(self, count: int) -> np.ndarray:
        """Return the mean loss of every `count` samples in a row; the last mean is that of what is left."""
        starts = range(0, len(self.losses), count)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.array([np.mean(self.losses[start : start + count]) for start in starts])

    def __repr__(self) -> str:
        """Return the report: losses, constants, and the partial derivatives of each edge side by side, at the last sample."""
        lines = [f"{len(self.losses)} samples, partial derivatives: {self.partials}"]
        lines.append(f"loss: {self.losses[0]:.6g} at the first sample, {self.losses[-1]:.6g} at the last")
        if self.first_nonfinite is not None:
            lines.append(
                f"the loss is infinite or not a number from sample {self.first_nonfinite + 1} on: lower the learning rate, "
                "or look for a division by zero or the logarithm of 0"
            )
        lines += [f"{name}: {self.trajectory[name][0]:.6g} -> {value:.6g}" for name, value in self.constants.items()]
        rows = [("edge", "exact", "measured", "largest relative difference")]
        for edge, difference in self.disagreement.items():
            exact, measured = self.exact_partials[edge][-1], self.measured_partials[edge][-1]
            rows.append((" -> ".join(edge), f"{exact:.8g}", f"{measured:.8g}", f"{difference:.1e}"))
        widths = [max(map(len, entries)) for entries in zip(*rows)]
        lines += ["  ".join(entry.ljust(width) for entry, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


def _largest_difference(exact: np.ndarray, measured: np.ndarray) -> float:
    usable = np.isfinite(exact) & np.isfinite(measured) & (exact != measured)
    if not usable.any():
        return 0.0
    exact, measured = exact[usable], measured[usable]
    with np.errstate(over="ignore"):
        return float(np.max(np.abs(exact - measured) / np.maximum(np.abs(exact), np.abs(measured))))
