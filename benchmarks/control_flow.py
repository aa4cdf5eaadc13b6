"""Loops in traced functions beside the same loops written by hand for Numba, gradients included, and beside `jax.lax.scan`.

The contenders take turns in one run, so that a machine that slows down slows all of them; medians and ratios are printed.

    python benchmarks/control_flow.py [--rounds 7]

scalar     10000 steps of c = a * c + x, every c kept
network    100 steps of h = tanh(w @ h + x), 32 numbers wide, and the sum of the squares of every h
compile    from a new function to its first gradient, for 10 and for 10000 steps; no disk cache
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["STATICGRAD_CACHE"] = "off"

import numba
import numpy as np
from latency import a_call, installed, show

import staticgrad as sg

Contenders = dict[str, Callable[[], Any]]


def rounds_of(title: str, contenders: Contenders, rounds: int) -> None:
    """Time the contenders in turn, and print what they took."""
    for function in contenders.values():
        function()
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            measured[name].append(a_call(function))
    show(title, "us", 1e6, measured)


def scalar(a: Any, xs: Any) -> Any:
    """Return the last number and all those before it."""
    return sg.scan(lambda c, x: (a * c + x, c), 0.0, xs)


@numba.njit
def scalar_by_hand(a, xs):  # type: ignore[no-untyped-def]
    c, cs = 0.0, np.empty_like(xs)
    for k in range(xs.size):
        cs[k] = c
        c = a * c + xs[k]
    return c, cs


@numba.njit
def scalar_gradient_by_hand(a, xs):  # type: ignore[no-untyped-def]
    c, cs = scalar_by_hand(a, xs)
    g, total = 1.0, 0.0
    for k in range(xs.size - 1, -1, -1):
        total += g * cs[k]
        g *= a
    return c, total


def network(w: Any, xs: Any) -> Any:
    """Return the sum of the squares of all states."""
    return np.sum(sg.scan(lambda h, x: (np.tanh(w @ h + x), h), np.zeros(xs.shape[1]), xs)[1] ** 2)


@numba.njit(fastmath=True)
def network_by_hand(w, xs):  # type: ignore[no-untyped-def]
    steps, size = xs.shape
    hs = np.zeros((steps + 1, size))
    for k in range(steps):
        for i in range(size):
            total = 0.0
            for j in range(size):
                total += w[i, j] * hs[k, j]
            hs[k + 1, i] = np.tanh(total + xs[k, i])
    return np.sum(hs[:-1] ** 2), hs


@numba.njit(fastmath=True)
def network_gradient_by_hand(w, xs):  # type: ignore[no-untyped-def]
    value, hs = network_by_hand(w, xs)
    steps, size = xs.shape
    gw, g, p = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for k in range(steps - 1, -1, -1):
        for i in range(size):
            p[i] = g[i] * (1 - hs[k + 1, i] ** 2)
            g[i] = 2 * hs[k, i]
        for i in range(size):
            for j in range(size):
                g[j] += w[i, j] * p[i]
                gw[i, j] += p[i] * hs[k, j]
    return value, gw


def with_jax(contenders: Contenders, function: Callable[..., Any], *args: Any) -> Contenders:
    """Add the same function for JAX, where it is installed."""
    if not installed("jax"):
        return contenders
    import jax

    jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(lambda *a: function(jax, *a))
    there = [jax.numpy.asarray(x) for x in args]
    return {**contenders, "JAX": lambda: jax.block_until_ready(compiled(*there))}


def loops(rounds: int) -> None:
    """Compare the values and the gradients of both loops."""
    rng = np.random.default_rng(0)
    xs, w, rows = rng.normal(size=10_000), rng.normal(size=(32, 32)) / 6, rng.normal(size=(100, 32))
    value, gradient = sg.trace(scalar), sg.value_and_grad(lambda a, xs: scalar(a, xs)[0])
    mine: Contenders = {"staticgrad": lambda: value(0.9, xs), "by hand, @njit": lambda: scalar_by_hand(0.9, xs)}
    rounds_of("scalar", with_jax(mine, lambda j, a, v: j.lax.scan(lambda c, x: (a * c + x, c), 0.0, v), 0.9, xs), rounds)
    mine = {"staticgrad": lambda: gradient(0.9, xs), "by hand, @njit": lambda: scalar_gradient_by_hand(0.9, xs)}
    rounds_of("scalar, value and gradient", mine, rounds)

    def of_jax(j: Any, w: Any, xs: Any) -> Any:
        return j.numpy.sum(j.lax.scan(lambda h, x: (j.numpy.tanh(w @ h + x), h), j.numpy.zeros(32), xs)[1] ** 2)

    run, pull = sg.trace(network), sg.value_and_grad(network)
    mine = {"staticgrad": lambda: run(w, rows), "by hand, @njit(fastmath=True)": lambda: network_by_hand(w, rows)}
    rounds_of("network", with_jax(mine, of_jax, w, rows), rounds)
    mine = {"staticgrad": lambda: pull(w, rows), "by hand, @njit(fastmath=True)": lambda: network_gradient_by_hand(w, rows)}
    of_both = with_jax(mine, lambda j, *a: j.value_and_grad(lambda *b: of_jax(j, *b))(*a), w, rows)
    rounds_of("network, value and gradient", of_both, rounds)


def compiling(rounds: int) -> None:
    """Compare the first gradients of a short and of a long loop."""

    def ending(w: Any, xs: Any) -> Any:
        return np.sum(sg.scan(lambda h, x: (np.tanh(w @ h + x), None), np.zeros(xs.shape[1]), xs)[0])

    measured: dict[str, list[float]] = {"10 steps": [], "10000 steps": []}
    for number in range(rounds):
        for name, found in measured.items():
            rows = np.ones((int(name.split()[0]), 8 + number))
            start = time.perf_counter()
            sg.value_and_grad(ending)(np.eye(8 + number) / 2, rows)
            found.append(time.perf_counter() - start)
    show("compile", "ms", 1e3, measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    loops(given.rounds)
    compiling(given.rounds)
