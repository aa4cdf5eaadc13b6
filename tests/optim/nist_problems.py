"""NIST's 27 reference problems for nonlinear regression: the models, and what the files in `nist/` hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "nist"


@dataclass(frozen=True)
class Problem:
    """A model, its data, two starting points, and the certified parameters with their standard errors."""

    name: str
    starts: tuple[np.ndarray, np.ndarray]
    certified: np.ndarray
    deviations: np.ndarray
    sum_of_squares: float
    x: np.ndarray
    y: np.ndarray

    @property
    def model(self):
        """The function of the parameters and of x that is fitted to y."""
        return MODELS[self.name]


@cache
def load(name: str) -> Problem:
    """Return a problem from its file: parameters from line 41 on, data from line 61 on."""
    lines = (FOLDER / f"{name}.dat").read_text(encoding="ascii").splitlines()
    rows = [line.split("=")[1].split() for line in lines[40:60] if re.match(r"\s*b\d+ =", line)]
    first, second, certified, deviations = np.array(rows, float).T
    (squares,) = (float(line.split(":")[1]) for line in lines if line.startswith("Residual Sum of Squares"))
    data = np.array([line.split() for line in lines[60:] if line.strip()], float).T
    y, x = data[0], data[1] if len(data) == 2 else data[1:]
    return Problem(name, (first, second), certified, deviations, squares, x, np.log(y) if name == "Nelson" else y)


def exponential_decay(b, x):
    return b[0] * (1 - np.exp(-b[1] * x))


def exponential_over_line(b, x):
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


def three_exponentials(b, x):
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def two_peaks(b, x):
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2) + b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)


def cubic_over_cubic(b, x):
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def three_cycles(b, x):
    def cycle(period, cosine, sine):
        return cosine * np.cos(2 * np.pi * x / period) + sine * np.sin(2 * np.pi * x / period)

    return b[0] + cycle(12, b[1], b[2]) + cycle(b[3], b[4], b[5]) + cycle(b[6], b[7], b[8])


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": exponential_decay,
    "Chwirut1": exponential_over_line,
    "Chwirut2": exponential_over_line,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": three_cycles,
    "Eckerle4": lambda b, x: (b[0] / b[1]) * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": two_peaks,
    "Gauss2": two_peaks,
    "Gauss3": two_peaks,
    "Hahn1": cubic_over_cubic,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": three_exponentials,
    "Lanczos2": three_exponentials,
    "Lanczos3": three_exponentials,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * np.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Misra1a": exponential_decay,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * np.exp(-b[2] * x[1]),
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": cubic_over_cubic,
}
