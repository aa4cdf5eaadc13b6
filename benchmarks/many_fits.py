"""Thousands of small least-squares fits in one compiled call, against a Python loop over SciPy's `least_squares`.

Every fit has two parameters and 20 points of a decaying exponential with noise. The contenders take turns in one process, several
rounds: all fits in one call of `sg.vmap`, and a sample of them through SciPy (with exact derivatives and with differences), whose time
is scaled to all. Medians and ratios are printed, and by how much the parameters differ at most.

    python benchmarks/many_fits.py [--fits 10000] [--sample 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

import staticgrad as sg

POINTS = np.linspace(0, 4, 20)
START = np.array([1.0, 1.0])


def residuals(p: Any, y: Any) -> Any:
    """Return the model, p[0] exp(-p[1] t), less the data."""
    return p[0] * np.exp(-p[1] * POINTS) - y


def derivatives(p: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Return the Jacobian of the residuals, by hand."""
    decay = np.exp(-p[1] * POINTS)
    return np.stack([decay, -p[0] * POINTS * decay], axis=1)


@sg.vmap
def fits(y: Any) -> Any:
    """Return the fits of many data sets."""
    return sg.least_squares(residuals, START, args=(y,))


def by_scipy(data: np.ndarray, jac: Any) -> np.ndarray:
    """Return the parameters that SciPy finds, one fit after the other."""
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    return np.array([scipy.optimize.least_squares(residuals, START, jac=jac, args=(y,), **tight).x for y in data])


def seconds(run: Callable[[], Any]) -> float:
    """Return how long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 2, (options.fits, 2))
    data = true[:, :1] * np.exp(-true[:, 1:] * POINTS) + 0.02 * rng.normal(size=(options.fits, len(POINTS)))
    sample = np.linspace(0, options.fits - 1, min(options.sample, options.fits)).astype(int)
    first = seconds(lambda: fits(data))
    found, expected = fits(data), by_scipy(data[sample], derivatives)
    contenders: dict[str, tuple[Callable[[], Any], float]] = {
        "staticgrad, one call": (lambda: fits(data), 1.0),
        "SciPy, exact Jacobian": (lambda: by_scipy(data[sample], derivatives), options.fits / len(sample)),
        "SciPy, differences": (lambda: by_scipy(data[sample], "2-point"), options.fits / len(sample)),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, (run, factor) in contenders.items():
            times[name].append(seconds(run) * factor)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(f"{options.fits} fits, {int(found.success.sum())} of them ended by a tolerance; first call, compiling included, {first:.2f} s")
    print(f"largest difference to SciPy among {len(sample)}: {np.abs(found.x[sample] - expected).max():.1e}")
    for name, median in medians.items():
        print(f"{name:24} {median:8.3f} s {median / medians['staticgrad, one call']:8.1f} x")


if __name__ == "__main__":
    main()
