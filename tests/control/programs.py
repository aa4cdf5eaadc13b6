"""Programs with control flow, written once for staticgrad and for JAX: `lax` has the five functions, `xp` is the array namespace."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Program:
    """A function of (lax, xp, *args) and arguments for it; JAX cannot go backwards through some."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    reverse_in_jax: bool = True

    @property
    def name(self) -> str:
        """What it is called."""
        return self.function.__name__


PROGRAMS: list[Program] = []


def program(*args: Any, reverse_in_jax: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the list."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append(Program(function, args, reverse_in_jax))
        return function

    return enter


rng = np.random.default_rng(40)


@program(3.0)
def one_branch(lax, xp, x):
    return lax.cond(x > 0, lambda v: v * xp.sin(v), lambda v: -v, x)


@program(-3.0, np.arange(3.0))
def other_branch_over_a_container(lax, xp, x, y):
    result = lax.cond(x > 0, lambda d: {"a": d["a"] * 2, "b": d["b"]}, lambda d: {"a": d["a"] * x, "b": d["b"] + d["a"]}, {"a": y, "b": y})
    return result["a"] * result["b"]


@program(1.5, np.array(2))
def third_of_three(lax, xp, x, k):
    return lax.switch(k, [xp.sin, xp.cos, lambda v: v * v * x], x)


@program(1.5, np.array(-4))
def index_below(lax, xp, x, k):
    return lax.switch(k, [xp.sin, xp.cos], x)


@program(1.1, np.arange(1.0, 6.0))
def horner(lax, xp, x, coefficients):
    return lax.scan(lambda total, c: (total * x + c, total), 0.0, coefficients)


@program(1.1, np.arange(1.0, 6.0))
def horner_backwards(lax, xp, x, coefficients):
    return lax.scan(lambda total, c: (total * x + c, total * c), 0.0, coefficients, reverse=True)


@program(rng.normal(size=(3, 3)) / 2, rng.normal(size=(3, 2)), rng.normal(size=(7, 2)))
def recurrent_network(lax, xp, w, u, xs):
    def step(h, x):
        h = xp.tanh(w @ h + u @ x)
        return h, h

    last, ys = lax.scan(step, xp.zeros(3), xs)
    return last.sum() + (ys**2).sum()


@program(rng.normal(size=4), rng.normal(size=(5, 4)), rng.normal(size=(5,)))
def several_of_everything(lax, xp, x, rows, scales):
    def step(carry, parts):
        total, product, count = carry
        row, scale = parts["row"], parts["scale"]
        total = total + row * scale
        return (total, product * (1 + 0.1 * xp.sum(row * total)), count + 1), {"total": total, "none": None, "count": count * 1.5}

    return lax.scan(step, (x, 1.0, 0.0), {"row": rows, "scale": scales})


@program(0.3)
def without_xs(lax, xp, x):
    return lax.scan(lambda c, _: (xp.sin(c) + x, c), x, None, length=6)


@program(np.arange(3.0), np.zeros((0, 3)))
def no_steps(lax, xp, x, xs):
    return lax.scan(lambda c, row: (c * 2 + row, c.sum()), x, xs)


@program(np.arange(1.0, 4.0))
def exchanged(lax, xp, x):
    return lax.scan(lambda c, _: ((c[1], c[0] * c[1]), c[0]), (x, x + 1), None, length=5)


@program(1.3)
def power(lax, xp, x):
    return lax.fori_loop(0, 5, lambda i, v: v * x, 1.0)


@program(1.3, np.arange(1.0, 8.0))
def from_two_on(lax, xp, x, y):
    return lax.fori_loop(2, 6, lambda i, v: v * x + i * xp.take(y, i), y)


@program(1.3)
def negative_range(lax, xp, x):
    return lax.fori_loop(5, 2, lambda i, v: v * x, x * 2)


@program(1.01, np.array(1), np.array(7), reverse_in_jax=False)
def bounds_that_depend_on_data(lax, xp, x, low, high):
    return lax.fori_loop(low, high, lambda i, v: v * x + i, x)


@program(17.0, reverse_in_jax=False)
def square_root(lax, xp, x):
    return lax.while_loop(lambda r: abs(r * r - x) > 1e-13, lambda r: (r + x / r) / 2, x)


@program(np.array([0.3, 0.2]), reverse_in_jax=False)
def logistic_map(lax, xp, x):
    def going(c):
        return (c[1] < 30) & (c[0][0] > 1e-3)

    return lax.while_loop(going, lambda c: (c[0] * 2.8 * (1 - c[0]) * xp.array([1.0, 0.9]), c[1] + 1), (x, 0))[0]


@program(rng.normal(size=(2, 3)), rng.normal(size=(4, 3)))
def loop_in_a_loop(lax, xp, x, xs):
    def outer(c, row):
        def inner(d, _):
            return xp.sin(d) * row + 0.1 * c, d

        d, ds = lax.scan(inner, c, None, length=3)
        return c + 0.5 * d, ds.sum(0)

    return lax.scan(outer, x, xs)


@program(rng.normal(size=5))
def branch_in_a_loop(lax, xp, xs):
    def step(c, x):
        c = lax.cond(x > 0, lambda v: v * x, lambda v: v - x, c)
        return c, c

    return lax.scan(step, 1.0, xs)


@program(2.0, np.arange(3.0))
def loop_in_a_branch(lax, xp, x, y):
    def loop(v):
        return lax.fori_loop(0, 3, lambda i, c: xp.sin(c) * x + i, v)

    return lax.cond(x > 1, loop, lambda v: v * x, y)


@program(1.2, reverse_in_jax=False)
def while_in_a_scan(lax, xp, x):
    def step(c, _):
        c = lax.while_loop(lambda v: v < 10, lambda v: v * x * 1.8, c)
        return c / 20, c

    return lax.scan(step, x, None, length=4)


@program(rng.normal(size=(3, 4)))
def rows_and_reductions(lax, xp, x):
    def step(c, row):
        c = c - xp.mean(c) + xp.sort(c)[::-1] * row.max()
        return c / (1 + xp.sqrt(xp.sum(c * c))), xp.cumsum(c)

    return lax.scan(step, x[0], x)


@program(rng.normal(size=(20, 20)) / 5, rng.normal(size=(20, 20)))
def matrix_products(lax, xp, w, x):
    return lax.scan(lambda c, _: (xp.tanh(w @ c), xp.sum(c)), x, None, length=3)
