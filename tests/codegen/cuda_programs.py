"""Functions whose kernels for GPUs are tested: in the simulator against the interpreter, and through the compiler to PTX."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from staticgrad import nn, random
from staticgrad.api import grad, trace, value_and_grad, vmap
from staticgrad.calls.traced import Traced
from staticgrad.control.flow import cond, fori_loop, while_loop
from staticgrad.control.scans import scan
from staticgrad.ir.aval import INT64
from staticgrad.ir.graph import Graph
from staticgrad.ir.loops import Index, Scalar, Unit
from staticgrad.tracing.pytree import flatten, leaf_aval, prepared
from tests.codegen.units import function, parameter, unit_of

SEEDS = range(300, 312)
"""Of random programs."""


@dataclass(frozen=True)
class Example:
    """A traced function with arguments."""

    function: Traced
    arguments: tuple[Any, ...]

    def graph_and_arrays(self) -> tuple[Graph, list[np.ndarray]]:
        """Return the recorded graph, and the leaves of the arguments."""
        leaves = flatten((self.arguments, {}))[0]
        return self.function.program(*self.arguments).graph, [prepared(leaf, leaf_aval(leaf)) for leaf in leaves]


PROGRAMS: dict[str, Example] = {}


def example(*arguments: Any, transform: Callable[..., Any] = trace, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the table under its name."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS[function.__name__] = Example(transform(function, **options), arguments)
        return function

    return enter


def numbers(*shape: int, dtype: str = "float64") -> np.ndarray:
    """Return numbers that depend on the shape alone."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


@example(numbers(4, 3, dtype="float32"), numbers(4, 3, dtype="float32"), numbers(3, dtype="float32"), transform=value_and_grad)
def chain(w, x, b):
    return np.sum(np.tanh(x * w + b))


@example(numbers(4, 3), numbers(4, 1), numbers(1, 3), transform=value_and_grad, argnums=(0, 1, 2))
def broadcasts(x, column, row):
    return np.sum(np.exp(x * row) / (1 + column**2) + np.mean(x, axis=1, keepdims=True) * np.sin(row))


@example(2.0, random.key(5), transform=value_and_grad)
def random_numbers(scale, key):
    first, second = random.split(key)
    x = scale * random.normal(first, (6, 5)) + random.uniform(second, (5,), np.float32)
    return np.sum(x[random.randint(first, (3,), 0, 6)] ** 2) + np.sum(random.permutation(second, x))


# ---- index arrays and rows: threads share what no index array names, and each row is the work of one


@example(numbers(6, 5), numbers(4, 5), np.array([5, -4, 2, 5]), transform=value_and_grad, argnums=(0, 1))
def index_arrays(x, v, k):
    y = x * 2
    y[k] = v
    np.add.at(y, (k, k - 1), v[:, 0])
    y[k[0], 1:] *= 3
    return np.sum(np.tanh(y[k]) * v) + np.sum(y[:, k[1:3]])


@example(numbers(3, 40), numbers(7), transform=value_and_grad, argnums=(0, 1))
def sorted_rows(x, v):
    y = np.sort(x, axis=1)
    y[:, 0] = np.sort(np.sin(x), axis=0)[1, :3]
    at = np.searchsorted(y[1], v)
    return np.sum(np.cumsum(y, axis=1)[:, ::5]) + np.sum(y[0, np.minimum(at, 39)] * v) + np.median(x)


@example(numbers(4, 3, 3), numbers(3), transform=value_and_grad, argnums=(0, 1))
def systems(a, b):
    x = np.linalg.solve(a, b[:, None])[..., 0]
    for _ in range(2):
        x = cond(np.sum(x) > 0, lambda x: np.linalg.solve(a[0], x.T).T, lambda x: x * 2, x)
    return np.sum(np.sin(x))


@example(numbers(3000), np.arange(3000) % 7 - 3)
def picked_and_reduced(x, k):
    return np.sum(x[k]), np.max(x[k]), np.argmax(x[k])


# ---- reductions: the work of one thread, in parts, in blocks


@example(numbers(5, 7))
def short_reductions(x):
    return np.sum(x, axis=0), np.sum(x, axis=1), np.max(x), np.prod(x, axis=1), np.argmin(x, axis=0), np.any(x > 2, axis=1), np.var(x)


@example(numbers(3000))
def reductions_in_parts(x):
    return np.sum(x), np.max(x), np.argmin(x), np.argmax(np.abs(x)), np.all(x < 9), np.sum(x * x)


@example(numbers(2, 700), numbers(700, 2))
def rows_and_columns_in_parts(x, y):
    return np.sum(x, axis=1), np.sum(y, axis=0), np.argmax(x, axis=1), np.argmax(y, axis=0), np.sum(x, axis=0), np.sum(y.T * x)


@example(numbers(20, 3, 20))
def outer_and_inner_axes_in_parts(x):
    return np.sum(x, axis=(0, 2)), np.max(x * 2, axis=(0, 2)), np.sum(x, axis=1)


@example(numbers(3, 200))
def a_sum_in_blocks(x):
    return np.sum(x, axis=1), np.max(x, axis=1), np.sum(x.astype(np.float32), axis=1)


@example(np.zeros((0, 3)))
def reductions_of_nothing(x):
    return np.sum(x, axis=0), np.prod(x, axis=0), np.sum(x, axis=1), np.sum(x), x + 1


@example(np.arange(-6, 6, dtype=np.int8).reshape(4, 3), np.arange(12, dtype=np.uint64).reshape(4, 3))
def integers(i, u):
    return np.sum(i), np.max(i, axis=0), np.argmax(u, axis=1), i * i, u - 1, -i, u & 5, ~i, np.sum(u * u), i.astype(np.float32), i > 0


# ---- pieces moved and put together


@example(numbers(4, 3), transform=value_and_grad)
def moved(x):
    y = np.concatenate([x.T[::-1], x.T * 2], axis=1)
    return np.sum(np.pad(y, ((1, 2), (0, 1))) * 2.0) + np.sum(y[:, ::2] ** 3) + np.sum(np.stack([x, x + 1])[1])


@example(numbers(5, 3), transform=value_and_grad)
def written_in_place(x):
    y = x.copy()
    y[0] = y[1] * 2
    y[1:, 1] += 7 * x[0, 0]
    return np.sum(y * y)


@example(np.float64(2.0), np.float64(3.0), transform=value_and_grad, argnums=(0, 1))
def scalars(a, b):
    parts = np.stack([a * b, a, b])
    return np.prod(parts) * np.sum(parts) + parts[1]


@example(numbers(6), transform=value_and_grad)
def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@example(numbers(5), transform=grad)
def second_derivative(x):
    return np.sum(grad(lambda x: np.sum(np.sin(x) * np.exp(-x * x)))(x) * np.arange(5.0))


# ---- contractions


@example(
    {"w": numbers(20, 24, dtype="float32"), "b": numbers(24, dtype="float32"), "v": numbers(24, 10, dtype="float32")},
    numbers(16, 20, dtype="float32"),
    np.eye(16, 10, dtype=np.float32),
    transform=value_and_grad,
)
def perceptron(params, x, y):
    hidden = np.tanh(x @ params["w"] / 5 + params["b"])
    return -np.mean(np.sum(nn.log_softmax(hidden @ params["v"] / 5, axis=1) * y, axis=1))


@example(numbers(2, 9, 8), numbers(2, 10, 8), transform=value_and_grad, argnums=(0, 1))
def batches_of_products(x, y):
    return np.sum(np.einsum("bij,bkj->ibk", x, y) ** 2)


@example(numbers(3, 4, 5), numbers(5, 6), transform=vmap, in_axes=(0, None))
def mapped(x, y):
    return nn.softmax(x @ y, axis=-1)


# ---- control flow


@example(np.linspace(-1, 1, 9).reshape(3, 3), np.linspace(0, 1, 12).reshape(4, 3), transform=value_and_grad, argnums=(0, 1))
def a_loop_over_rows(w, xs):
    def step(h, x):
        h = cond(h.sum() > 0.5, lambda: np.tanh(w @ h + x), lambda: h * 0.5 - x)
        return h, h * x

    last, ys = scan(step, np.ones(3), xs)
    return np.sum(last) + np.sum(ys**2)


@example(np.linspace(-1, 1, 400).reshape(20, 20) / 8, np.linspace(0, 1, 400).reshape(20, 20))
def products_in_a_loop(w, x):
    return fori_loop(0, 3, lambda i, c: np.tanh(w @ c) + i, x)


@example(17.0, transform=grad)
def a_loop_of_unknown_length(x):
    return while_loop(lambda r: abs(r * r - x) > 1e-12, lambda r: (r + x / r) / 2, x)


# ---- failures


@example(np.array([2, -3, 5]), np.array([3, 2, 0]))
def integer_powers(x, p):
    return x**p


# ---- a unit in the loop IR


def counting_unit() -> tuple[Unit, list[int]]:
    """Return a unit whose kernel loops, branches and calls an internal function, and what it makes of 0 to 11."""
    values, offset = parameter("values", "i8", -1), Scalar(-2, INT64, hint="offset")

    def shift(b):
        b.store(values, 0, b.add(b.load(values, 0), b.add(offset, b.literal(1, INT64))))

    helper = function("shift", [values], shift, [offset], title="add a number")
    x, out = parameter("x", "i8", 12), parameter("out", "i8", 12)

    def count(b):
        small = b.local(INT64, 2, "small")
        with b.loop(12, parallel=True) as i:
            b.store(small, 0, b.load(x, i))
            b.store(small, 1, b.literal(0, INT64))
            with b.while_() as parts:
                with parts.test():
                    parts.until(b.lt(b.literal(0, INT64), b.load(small, 0)))
                with parts.body():
                    b.store(small, 0, b.shr(b.load(small, 0), 1))
                    b.invoke(helper, ((small, Index(1)),), (Index(2),))
            found = b.variable(b.load(small, 1), "found")
            with b.if_(b.eq(b.remainder(b.position(i), b.literal(2, INT64)), b.literal(0, INT64))) as otherwise:
                b.set(found, b.neg(b.get(found)))
            with b.otherwise(otherwise):
                b.set(found, b.add(b.get(found), b.literal(100, INT64)))
            b.store(out, i, b.get(found))

    kernel = function("count", [x, out], count, title="three times the number of bits, by turns negative and plus 100")
    bits = [3 * k.bit_length() for k in range(12)]
    return replace(unit_of("counting", kernel), functions=(helper, kernel)), [n + 100 if k % 2 else -n for k, n in enumerate(bits)]
