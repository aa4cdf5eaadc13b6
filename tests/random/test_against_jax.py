"""The streams are JAX's: equal bits, and equal numbers up to the rounding of logarithms and the like."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import random

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
theirs = jax.random

KEYS = [random.key(seed) for seed in (0, 7, 2**40 + 5)]
SHAPES = [(), (1,), (0, 3), (7,), (4, 3, 5)]
FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def same(found, expected):
    expected = np.asarray(expected)
    assert np.asarray(found).dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def near(found, expected, roundings=8):
    """Assert equality up to a few roundings of numbers around 1, as XLA contracts a * b + c."""
    expected = np.asarray(expected)
    assert np.asarray(found).dtype == expected.dtype
    tolerance = roundings * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**40 + 5, -(2**63), 2**63 - 1, np.int32(-3), np.uint8(200), np.uint64(2**64 - 1)])
def test_seeds(seed):
    same(random.key(seed), theirs.PRNGKey(seed))


@pytest.mark.parametrize("key", KEYS)
def test_new_keys(key):
    for num in (2, 1, 0, 5, (2, 3), ()):
        same(random.split(key, num), theirs.split(key, num))
    for data in (0, 5, 2**32 - 1, np.int64(-4), np.uint64(2**40 + 3)):
        same(random.fold_in(key, data), theirs.fold_in(key, data))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_bits(dtype):
    for key in KEYS:
        for shape in SHAPES:
            same(random.bits(key, shape, dtype), theirs.bits(key, shape, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform(dtype):
    for key in KEYS:
        for shape in SHAPES:
            same(random.uniform(key, shape, dtype), theirs.uniform(key, shape, dtype))
        for low, high in ((0, 5), (-2.3, 5.1), (3.0, 3.0), (1e-3, 1), (5.0, -5.0)):
            near(random.uniform(key, (100,), dtype, low, high), theirs.uniform(key, (100,), dtype, low, high))
        lows = np.linspace(-2, 2, 3)
        near(random.uniform(key, (4, 3), dtype, lows, lows[1]), theirs.uniform(key, (4, 3), dtype, lows, lows[1]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exponential", "gumbel", "laplace", "logistic", "cauchy"])
def test_floats(name, dtype):
    for key in KEYS:
        for shape in ((), (0, 3), (50, 40)):  # XLA's log1p of float64 errs by up to 60 roundings
            near(getattr(random, name)(key, shape, dtype), getattr(theirs, name)(key, shape, dtype), 100)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal(dtype):
    """To a few units in the last place; JAX's inverse of erf errs by some 30, as its log1p does."""
    for key in KEYS:
        for shape in ((), (0, 3), (3000,)):
            found, expected = random.normal(key, shape, dtype), np.asarray(theirs.normal(key, shape, dtype))
            assert np.asarray(found).dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=32 * np.finfo(dtype).eps, atol=0)
        for low, high in ((-1.0, 2.0), (-np.inf, 0.5), (0.5, np.inf), (1.0, np.linspace(1.5, 3, 50))):
            near(random.truncated_normal(key, low, high, 50, dtype), theirs.truncated_normal(key, low, high, (50,), dtype), 100)
        near(random.truncated_normal(key, [-1.0, 0.0], 2.0), theirs.truncated_normal(key, np.array([-1.0, 0.0]), 2.0), 100)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_randint(dtype):
    info = np.iinfo(dtype)
    ranges = [(0, 10), (3, 100), (-5, 17), (0, 256), (5, 5), (9, 2), (-1000, 70000), (info.min, min(info.max, 2**63 - 1))]
    ranges += [(info.min, info.max + 1)] if info.bits < 64 else []
    for low, high in ranges:
        same(random.randint(KEYS[1], (100,), low, high, dtype), theirs.randint(KEYS[1], (100,), low, high, dtype))
    lows = np.arange(5)
    same(random.randint(KEYS[1], (20, 5), lows, 7.9, dtype), theirs.randint(KEYS[1], (20, 5), lows, 7.9, dtype))


def test_choices_between_two():
    p = np.linspace(0, 1, 9)
    for key in KEYS:
        same(random.bernoulli(key, p), theirs.bernoulli(key, p))
        same(random.bernoulli(key, np.float32(0.3), (50, 2)), theirs.bernoulli(key, np.float32(0.3), (50, 2)))
        same(random.bernoulli(key, p, (50, 9)), theirs.bernoulli(key, p, (50, 9)))
        same(random.bernoulli(key, shape=()), theirs.bernoulli(key, shape=()))
        for dtype in ("int64", "int8", "float32"):
            same(random.rademacher(key, (30,), dtype), theirs.rademacher(key, (30,), dtype))


def test_categorical():
    logits = np.random.default_rng(0).normal(size=(4, 5, 3))
    for key in KEYS:
        for axis in (0, 1, -1, -3):
            same(random.categorical(key, logits, axis), theirs.categorical(key, logits, axis))
        same(random.categorical(key, logits, 1, (7, 2, 4, 3)), theirs.categorical(key, logits, 1, (7, 2, 4, 3)))
        same(random.categorical(key, logits.astype(np.float32)), theirs.categorical(key, logits.astype(np.float32)))
        rare = np.array([-np.inf, 0.0, 1.0])
        same(random.categorical(key, rare, shape=(100,)), theirs.categorical(key, rare, shape=(100,)))


def test_keys_under_vmap():
    key = KEYS[1]
    keys = random.split(key, 4)
    same(sg.vmap(lambda k: random.uniform(k, (3, 2)))(keys), jax.vmap(lambda k: theirs.uniform(k, (3, 2)))(keys))
    same(sg.vmap(lambda k: random.split(k, 3))(keys), jax.vmap(lambda k: theirs.split(k, 3))(keys))
    steps = np.arange(6)
    same(sg.vmap(lambda k: random.bits(random.fold_in(key, k)))(steps), jax.vmap(lambda k: theirs.bits(theirs.fold_in(key, k)))(steps))
    same(sg.vmap(random.key)(steps - 3), jax.vmap(theirs.PRNGKey)(steps - 3))
    lows = np.linspace(0, 1, 4)
    near(
        sg.vmap(lambda k, low: random.uniform(k, (3,), minval=low))(keys, lows),
        jax.vmap(lambda k, low: theirs.uniform(k, (3,), minval=low))(keys, lows),
    )
