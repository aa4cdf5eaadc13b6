"""Problems for minimisers: a function of a vector and where to start.

Most are of J. J. More, B. S. Garbow, K. E. Hillstrom, "Testing unconstrained optimization software" (ACM Transactions on Mathematical
Software 7, 1981); chained, extended and convex ones as in CUTEst.
"""

import numpy as np


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def powell_singular(x):
    a, b, c, d = (x[k::4] for k in range(4))
    return np.sum((a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4)


def wood(x):
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10 * (x[1] + x[3] - 2) ** 2 + 0.1 * (x[1] - x[3]) ** 2


def trigonometric(x):
    i = np.arange(1, len(x) + 1)
    return np.sum((len(x) - np.sum(np.cos(x)) + i * (1 - np.cos(x)) - np.sin(x)) ** 2)


def himmelblau(x):
    a, b = x[0::2], x[1::2]
    return np.sum((a * a + b - 11) ** 2 + (a + b * b - 7) ** 2)


def helical_valley(x):
    turns = np.arctan2(x[1], x[0]) / (2 * np.pi)
    return 100 * ((x[2] - 10 * turns) ** 2 + (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1) ** 2) + x[2] ** 2


def biggs(x):
    t = 0.1 * np.arange(1, 14)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return np.sum((x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y) ** 2)


def powell_badly_scaled(x):
    return (1e4 * x[0] * x[1] - 1) ** 2 + (np.exp(-x[0]) + np.exp(-x[1]) - 1.0001) ** 2


def variably_dimensioned(x):
    total = np.sum(np.arange(1, len(x) + 1) * (x - 1))
    return np.sum((x - 1) ** 2) + total**2 + total**4


def watson(x):
    t, j = np.arange(1, 30)[:, None] / 29, np.arange(len(x))
    slope = (j * t ** np.maximum(j - 1, 0)) @ x
    return np.sum((slope - (t**j @ x) ** 2 - 1) ** 2) + x[0] ** 2 + (x[1] - x[0] ** 2 - 1) ** 2


def penalty(x):
    return 1e-5 * np.sum((x - 1) ** 2) + (np.sum(x * x) - 0.25) ** 2


def brown_badly_scaled(x):
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2) ** 2


def brown_dennis(x):
    t = np.arange(1, 21) / 5
    return np.sum(((x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2) ** 2)


def gulf(x):
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return np.sum((np.exp(-(np.abs(y - x[1]) ** x[2]) / x[0]) - t) ** 2)


def broyden_tridiagonal(x):
    padded = np.concatenate([np.zeros(1), x, np.zeros(1)])
    return np.sum(((3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1) ** 2)


def arrow_head(x):
    return np.sum(3 - 4 * x[:-1]) + np.sum((x[:-1] ** 2 + x[-1] ** 2) ** 2)


def tridiagonal(x):
    return (x[0] - 1) ** 2 + np.sum(np.arange(2, len(x) + 1) * (2 * x[1:] - x[:-1]) ** 2)


def quartic(x):
    return np.sum((x - np.arange(1, len(x) + 1)) ** 4)


def flat(x):
    return np.sum(1 - np.exp(-x * x / 50))


MINIMISATION = {
    "rosenbrock": (rosenbrock, np.array([-1.2, 1.0])),
    "far rosenbrock": (rosenbrock, np.array([-120.0, 100.0])),
    "chained rosenbrock": (rosenbrock, np.tile([-1.2, 1.0], 10)),
    "powell singular": (powell_singular, np.tile([3.0, -1.0, 0.0, 1.0], 25)),
    "wood": (wood, np.array([-3.0, -1.0, -3.0, -1.0])),
    "trigonometric": (trigonometric, np.full(10, 0.1)),
    "himmelblau": (himmelblau, np.ones(100)),
    "helical valley": (helical_valley, np.array([-1.0, 0.0, 0.0])),
    "biggs": (biggs, np.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0])),
    "powell badly scaled": (powell_badly_scaled, np.array([0.0, 1.0])),
    "variably dimensioned": (variably_dimensioned, 1 - np.arange(1, 11) / 10),
    "watson": (watson, np.zeros(6)),
    "penalty": (penalty, np.arange(1.0, 11.0)),
    "brown badly scaled": (brown_badly_scaled, np.ones(2)),
    "brown dennis": (brown_dennis, np.array([25.0, 5.0, -5.0, -1.0])),
    "gulf": (gulf, np.array([5.0, 2.5, 0.15])),
    "broyden tridiagonal": (broyden_tridiagonal, -np.ones(100)),
    "arrow head": (arrow_head, np.ones(100)),
    "tridiagonal": (tridiagonal, np.ones(100)),
    "quartic": (quartic, np.full(50, 2.0)),
    "flat": (flat, np.full(3, 20.0)),
}
