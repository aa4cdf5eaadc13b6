"""Permutations and choices: JAX's, in traces too, with derivatives, equally likely, and their mistakes."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats

import staticgrad as sg
from staticgrad import random
from staticgrad.errors import ArgumentError, AxisError, InvalidValueError, ShapeError
from tests.random.test_against_jax import jax, same, theirs
from tests.tracing.harness import fails

KEY = random.key(7)
X = np.random.default_rng(0).normal(size=(4, 5))
P = np.array([0.1, 0.2, 0.3, 0.4])


def test_permutations_as_in_jax():
    for n in (0, 1, 2, 5, 3000):
        same(random.permutation(KEY, n), theirs.permutation(KEY, n))
    for axis in (0, 1, -1):
        for independent in (False, True):
            same(random.permutation(KEY, X, axis, independent), theirs.permutation(KEY, X, axis, independent))
    same(random.permutation(KEY, X[0]), theirs.permutation(KEY, X[0]))


def test_choices_as_in_jax():
    for shape in ((), (4,), (2, 3)):
        same(random.choice(KEY, 5, shape), theirs.choice(KEY, 5, shape))
        same(random.choice(KEY, X, shape, axis=1), theirs.choice(KEY, X, shape, axis=1))
        same(random.choice(KEY, 4, shape, p=P), theirs.choice(KEY, 4, shape, p=P))
        same(random.choice(KEY, X, shape, p=P), theirs.choice(KEY, X, shape, p=P))
    for shape in ((), (4,), (2, 2)):
        same(random.choice(KEY, 4, shape, False, P), theirs.choice(KEY, 4, shape, False, P))
        same(random.choice(KEY, X, shape, False), theirs.choice(KEY, X, shape, False))
        same(random.choice(KEY, 9, shape, False), theirs.choice(KEY, 9, shape, False))
    assert random.choice(KEY, X, (0, 2)).shape == (0, 2, 5)
    assert random.choice(KEY, 0, (0,)).shape == (0,)


@pytest.mark.parametrize("options", [{"printer": "numba"}, {"printer": "llvm"}, {"backend": "interp"}], ids=str)
def test_the_same_in_a_trace(options):
    def draws(key, x, p):
        return (
            random.permutation(key, x), random.permutation(key, x, 1, True), random.permutation(key, 10),
            random.choice(key, x, (3,), p=p), random.choice(key, x, (3,), False), random.choice(key, x, (2, 2), False, p, 0),
        )  # fmt: skip

    for found, expected in zip(sg.trace(draws, **options)(KEY, X, P), draws(KEY, X, P), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_derivatives_go_where_elements_go():
    weights = np.arange(5.0)
    found = sg.grad(lambda x, key: np.sum(random.permutation(key, x) * weights))(np.ones(5), KEY)
    np.testing.assert_array_equal(found, weights[np.argsort(random.permutation(KEY, 5))])
    chosen = sg.grad(lambda x, key: np.sum(random.choice(key, x, (7,))))(np.ones(4), KEY)
    np.testing.assert_array_equal(chosen, np.bincount(random.choice(KEY, 4, (7,)), minlength=4))


def test_keys_under_vmap():
    keys = random.split(KEY, 3)
    same(sg.vmap(lambda key: random.permutation(key, 6))(keys), jax.vmap(lambda key: theirs.permutation(key, 6))(keys))
    same(sg.vmap(lambda key: random.choice(key, 4, (5,), p=P))(keys), jax.vmap(lambda key: theirs.choice(key, 4, (5,), p=P))(keys))


def test_all_orders_are_equally_likely():
    orders = sg.vmap(lambda key: random.permutation(key, 4))(random.split(KEY, 5000))
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == 24
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert sorted(random.permutation(KEY, 3000)) == list(range(3000))


def test_choices_follow_their_probabilities():
    counts = np.bincount(random.choice(KEY, 4, (20_000,), p=P), minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * P).pvalue > 1e-3
    firsts = sg.vmap(lambda key: random.choice(key, 4, (2,), False, P))(random.split(KEY, 5000))
    assert (firsts[:, 0] != firsts[:, 1]).all()
    assert scipy.stats.chisquare(np.bincount(firsts[:, 0], minlength=4), 5000 * P).pvalue > 1e-3
    assert not np.isin(random.choice(KEY, 4, (1000,), p=[0.0, 0.5, 0.5, 0.0]), (0, 3)).any()


def test_mistakes():
    fails(lambda n: random.permutation(KEY, n), np.int64(3), kind=ArgumentError, match="a traced number cannot say how many")
    fails(lambda x: random.permutation(KEY, 2.5), X, kind=ArgumentError, match="permutation takes an array or an integer, not 2.5")
    fails(lambda x: random.permutation(KEY, -1), X, kind=InvalidValueError, match="must not be negative, got -1")
    fails(lambda x: random.permutation(KEY, x, 2), X, kind=AxisError, match="axis 2 is out of bounds")
    fails(lambda x: random.choice(KEY, x, (5,), False), X, kind=InvalidValueError, match="5 different ones out of 4 .* replace=True")
    fails(lambda x: random.choice(KEY, x[:0], (5,)), X, kind=InvalidValueError, match="nothing to choose from")
    fails(lambda x: random.choice(KEY, x, (2,), p=P[:2]), X, kind=ShapeError, match=r"p must have shape \(4,\), .* not f64\[2\]")
    fails(lambda x: random.choice(x, 3), X, kind=TypeError, match="choice: a key is a uint32 array")
