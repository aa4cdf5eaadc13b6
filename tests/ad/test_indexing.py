"""Derivatives of indexing with arrays, of sorting and of what builds on them: against JAX, differences and each other, compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import staticgrad as sg

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

RNG = np.random.default_rng(0)
X = RNG.permutation(24).reshape(4, 6) / 7.0
V = RNG.normal(size=(3, 6))
K = (2, 0, 2)
UNIQUE = (3, 0, 2)


@dataclass(frozen=True)
class Case:
    """A function of two float arrays and an index array, and the same in JAX."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    k: tuple[int, ...] = K


def _written(place: Callable[..., Any], how: str) -> Callable[..., Any]:
    def ours(x: Any, v: Any, k: Any) -> Any:
        z = x * 2
        if how == "set":
            z[place(k)] = v * x[1]
        elif how == "buffered":
            z[place(k)] += v * x[1]
        else:
            np.add.at(z, place(k), v * x[1])
        return z * z

    return ours


def _theirs(place: Callable[..., Any], how: str) -> Callable[..., Any]:
    def theirs(x: Any, v: Any, k: Any) -> Any:
        z = x * 2
        at = z.at[place(k)]
        z = at.set(v * x[1]) if how == "set" else at.add(v * x[1])
        return z * z

    return theirs


def _loop(x, v, k):
    z = x.copy()
    for n in range(3):
        z[k[n]] = v[n] * np.sum(z[k[n - 1]])
        z[k[n], 1] *= 3
    return z


def _loop_theirs(x, v, k):
    for n in range(3):
        x = x.at[k[n]].set(v[n] * jnp.sum(x[k[n - 1]]))
        x = x.at[k[n], 1].multiply(3)
    return x


def _last_one_stays(x, v, k):
    z = x.copy()
    z[k] = v
    z[k, 1:3] = v[:, :2] ** 2
    return np.sin(z)


def _last_one_stays_theirs(x, v, k):
    for n in range(3):
        x = x.at[k[n]].set(v[n])
    for n in range(3):
        x = x.at[k[n], 1:3].set(v[n, :2] ** 2)
    return jnp.sin(x)


def _sorted(numpy):
    return lambda x, v, k: numpy.sort(x, axis=0) * x + numpy.cumsum(numpy.sort(x, axis=1) ** 2, axis=1)


CASES = {
    "gather rows": Case(lambda x, v, k: np.tanh(x[k]) * v, lambda x, v, k: jnp.tanh(x[k]) * v),
    "gather columns": Case(lambda x, v, k: np.sin(x)[:, k], lambda x, v, k: jnp.sin(x)[:, k]),
    "gather elements": Case(lambda x, v, k: x[k, k + 1] ** 2 * x[k[0]][1], lambda x, v, k: x[k, k + 1] ** 2 * x[k[0]][1]),
    "take along axis": Case(
        lambda x, v, k: np.take_along_axis(x[:3], np.argsort(v, axis=1), 1) * v,
        lambda x, v, k: jnp.take_along_axis(x[:3], jnp.argsort(v, 1), 1) * v,
    ),
    "set": Case(_written(lambda k: k, "set"), _theirs(lambda k: k, "set"), UNIQUE),
    "set known": Case(_written(lambda k: np.array(UNIQUE), "set"), _theirs(lambda k: np.array(UNIQUE), "set")),
    "add": Case(_written(lambda k: k, "buffered"), _theirs(lambda k: k, "add"), UNIQUE),
    "add at": Case(_written(lambda k: k, "at"), _theirs(lambda k: k, "add")),
    "add at known": Case(_written(lambda k: np.array(K), "at"), _theirs(lambda k: np.array(K), "add")),
    "last one stays": Case(_last_one_stays, _last_one_stays_theirs),
    "loop": Case(_loop, _loop_theirs),
    "mask": Case(
        lambda x, v, k: np.where(x > 1.05, x, 0) * _masked(x), lambda x, v, k: jnp.where(x > 1.05, x, 0) * jnp.where(x > 2.05, x[0], x * 2)
    ),
    "sort": Case(_sorted(np), _sorted(jnp)),
    "median": Case(lambda x, v, k: np.median(x, axis=0) * v + np.median(v), lambda x, v, k: jnp.median(x, axis=0) * v + jnp.median(v)),
    "quantile": Case(
        lambda x, v, k: np.quantile(x, [0.2, 0.9], axis=1) ** 2, lambda x, v, k: jnp.quantile(x, jnp.array([0.2, 0.9]), axis=1) ** 2
    ),
    "interpolate": Case(lambda x, v, k: _table(np, x, v), lambda x, v, k: _table(jnp, x, v)),
}


def _masked(x):
    z = x * 2
    z[x > 2.05] = 0.0
    z[x[:, 0] > 99] = 7.0
    return np.where(x > 2.05, x[0], z)


def _table(numpy, x, v):
    """Linear interpolation in a table."""
    knots, values = numpy.sort(x[:, 0]), x[:, 1]
    at = numpy.clip(numpy.searchsorted(knots, v) - 1, 0, 2)
    part = (v - knots[at]) / (knots[at + 1] - knots[at])
    return values[at] * (1 - part) + values[at + 1] * part


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_jax(name):
    case = CASES[name]
    value, gradients = sg.value_and_grad(lambda x, v, k: np.sum(case.ours(x, v, k) * 1.5), argnums=(0, 1))(X, V, np.array(case.k))
    expected, wanted = jax.value_and_grad(lambda x, v, k: jnp.sum(case.theirs(x, v, k) * 1.5), argnums=(0, 1))(X, V, np.array(case.k))
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    for found, reference in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_both_modes_to_second_order(name):
    case = CASES[name]
    sg.check_grads(lambda x, v: case.ours(x, v, np.array(case.k)), (X, V), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("name", ["gather elements", "add at", "last one stays", "sort", "take along axis", "interpolate"])
def test_batches(name):
    case = CASES[name]
    xs, vs, ks = np.stack([X, X + 0.01, X * 2]), np.stack([V, V[::-1], V * 2]), np.array([case.k, case.k[::-1], (1, 1, 1)])

    def gradient(x, v, k):
        return sg.grad(lambda x: np.sum(case.ours(x, v, k)))(x)

    for axes in ((0, 0, 0), (None, 0, 0), (0, None, None), (None, None, 0)):
        arguments = [many if axis == 0 else one for many, one, axis in zip((xs, vs, ks), (X, V, np.array(case.k)), axes, strict=True)]
        found = sg.vmap(gradient, in_axes=axes)(*arguments)
        rows = [gradient(*(a[row] if axis == 0 else a for a, axis in zip(arguments, axes, strict=True))) for row in range(3)]
        np.testing.assert_allclose(found, np.stack(rows), rtol=1e-13, atol=1e-13)
