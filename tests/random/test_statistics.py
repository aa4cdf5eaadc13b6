"""Distributions, with fixed seeds: Kolmogorov and Smirnov's test, moments, frequencies, and independence of streams."""

import numpy as np
import pytest
import scipy.stats

from staticgrad import random

KEYS = random.split(random.key(2026), 3)
COUNT = 20_000

CONTINUOUS = {
    "uniform": scipy.stats.uniform(), "normal": scipy.stats.norm(), "exponential": scipy.stats.expon(), "gumbel": scipy.stats.gumbel_r(),
    "laplace": scipy.stats.laplace(), "logistic": scipy.stats.logistic(), "cauchy": scipy.stats.cauchy(),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_distribution(name, dtype):
    expected = CONTINUOUS[name]
    for key in KEYS:
        x = getattr(random, name)(key, (COUNT,), dtype)
        assert np.isfinite(x).all()
        assert scipy.stats.kstest(x.astype(np.float64), expected.cdf).pvalue > 1e-3
        if name != "cauchy":
            mean, variance, kurtosis = expected.stats("mvk")
            assert abs(x.mean() - mean) < 4 * np.sqrt(variance / COUNT)
            assert abs(x.var() / variance - 1) < 4 * np.sqrt((kurtosis + 2) / COUNT)


def test_truncated_normal():
    for low, high in ((-1.0, 2.0), (-np.inf, 0.5), (1.0, np.inf), (2.0, 2.5)):
        x = random.truncated_normal(KEYS[0], low, high, (COUNT,))
        assert (x > low).all() and (x < high).all()
        assert scipy.stats.kstest(x, scipy.stats.truncnorm(low, high).cdf).pvalue > 1e-3


def fits(counts, probabilities):
    expected = np.sum(counts) * np.asarray(probabilities)
    return scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_integers():
    for key in KEYS:
        assert fits(np.bincount(random.randint(key, (COUNT,), 0, 7), minlength=7), np.full(7, 1 / 7))
        assert fits(np.bincount(random.randint(key, (COUNT,), 0, 256, np.uint8), minlength=256), np.full(256, 1 / 256))
        large = random.randint(key, (COUNT,), -(2**62), 2**62)
        assert scipy.stats.kstest(large / 2.0**63 + 0.5, scipy.stats.uniform().cdf).pvalue > 1e-3


def test_bits():
    for dtype in ("uint8", "uint16", "uint32", "uint64"):
        flags = np.unpackbits(random.bits(KEYS[0], (COUNT,), dtype).view(np.uint8).reshape(COUNT, -1), axis=1)
        assert np.abs(flags.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(COUNT)
        assert np.abs(np.corrcoef(flags.T) - np.eye(flags.shape[1])).max() < 5 / np.sqrt(COUNT)


def test_choices():
    for key in KEYS:
        assert fits(np.bincount(random.bernoulli(key, 0.3, (COUNT,)), minlength=2), [0.7, 0.3])
        assert fits(np.bincount(random.rademacher(key, (COUNT,)) + 1, minlength=3)[::2], [0.5, 0.5])
        p = np.array([0.1, 0.6, 0.05, 0.25])
        assert fits(np.bincount(random.categorical(key, np.log(p) + 3, shape=(COUNT,)), minlength=4), p)
    assert not random.bernoulli(KEYS[0], 0.0, (COUNT,)).any()
    assert random.bernoulli(KEYS[0], 1.0, (COUNT,)).all()


def test_streams_have_nothing_in_common():
    key = random.key(5)
    first, second = random.split(key)
    streams = [random.uniform(k, (COUNT,)) for k in (key, first, second, random.fold_in(key, 2), random.fold_in(first, 0), random.key(6))]
    assert np.abs(np.corrcoef(streams) - np.eye(len(streams))).max() < 5 / np.sqrt(COUNT)
    keys = random.split(key, 5000)
    assert len(np.unique(keys, axis=0)) == 5000
