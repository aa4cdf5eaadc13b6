"""Random numbers in traced functions: the same as outside, by every way of running, with derivatives, and anew at each call."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import random
from staticgrad.errors import LeakedTracerError, StaticgradWarning
from tests.ops.running import ulps_apart

KEY = random.key(11)


def draws(key, scale):
    first, second = random.split(key)
    third = random.fold_in(second, 3)
    logits = np.log(np.array([0.2, 0.3, 0.5]))
    exact = (
        first, third, random.split(third, (2, 2)), random.key(key[0]), random.bits(first), random.bits(first, (3, 5), np.uint8),
        random.uniform(first, (3, 70)), random.uniform(second, 33, np.float32), random.randint(first, (40,), 0, 10),
        random.randint(third, (2, 3), -5, 200, np.uint8), random.bernoulli(third, 0.3, 50), random.rademacher(second, (7,)),
        random.categorical(first, logits, shape=(8,)), random.uniform(third, (0, 3)), random.uniform(key, (4, 3), minval=-scale),
    )  # fmt: skip
    names = ("normal", "exponential", "gumbel", "laplace", "logistic", "cauchy")
    return exact, tuple(getattr(random, name)(third, (5, 7), dtype) for name in names for dtype in (np.float64, np.float32))


@pytest.mark.parametrize("options", [{"printer": "numba"}, {"printer": "llvm"}, {"backend": "interp"}], ids=str)
def test_the_same_as_outside(options):
    traced = sg.trace(draws, **options)
    for key in (KEY, random.key(12)):
        (exact, close), (exactly, closely) = traced(key, 2.0), draws(key, 2.0)
        for found, expected in zip(exact, exactly, strict=True):
            assert np.asarray(found).dtype == np.asarray(expected).dtype
            np.testing.assert_array_equal(found, expected)
        for found, expected in zip(close, closely, strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(found.dtype).eps, atol=8 * np.finfo(found.dtype).eps)
    assert traced.cache_info().traces == 1


def test_both_printers_give_the_same_bits():
    found = [sg.trace(draws, printer=printer)(KEY, 2.0)[1] for printer in ("numba", "llvm")]
    for x, y in zip(*found, strict=True):
        assert ulps_apart(x, y) == 0


@pytest.mark.parametrize("printer", ["numba", "llvm"])
def test_any_number_of_threads_gives_the_same_bits(printer):
    def large(key):
        return random.normal(key, (300, 1001)), random.bits(key, (300_000,), np.uint32)

    expected = random.bits(KEY, (300_000,), np.uint32)
    alone = sg.trace(large, threads=1, printer=printer)(KEY)
    together = sg.trace(large, threads=2, printer=printer)(KEY)
    np.testing.assert_array_equal(alone[1], expected)
    for x, y in zip(alone, together, strict=True):
        assert x.tobytes() == y.tobytes()


def test_a_key_made_inside():
    f = sg.trace(lambda seed: random.uniform(random.key(seed), 3))
    for seed in (0, 5, -1, 2**40):
        np.testing.assert_array_equal(f(seed), random.uniform(random.key(seed), 3))
    constant = sg.trace(lambda x: x + random.uniform(random.key(3), 4))
    np.testing.assert_array_equal(constant(1.0), 1.0 + random.uniform(random.key(3), 4))


def test_a_large_array_of_a_known_key_is_drawn_at_each_call():
    """It must not be stored in the graph."""
    f = sg.trace(lambda x: x * np.sum(random.uniform(KEY, (1000, 1000))))
    assert sum(node.outputs[0].aval.size > 2 for node in f.lower(1.0).optimized.nodes if node.op.name == "constant") == 0
    np.testing.assert_allclose(f(2.0), 2 * np.sum(random.uniform(KEY, (1000, 1000))), rtol=1e-13)


def test_numbers_fuse_with_what_uses_them():
    lowered = sg.trace(lambda key, x: np.sum(x * random.uniform(key, x.shape))).lower(KEY, np.ones((50, 3)))
    assert len(lowered.schedule.nests) == 1
    assert lowered.source.count("for i in") == 1, "the axes are one loop"


def test_derivatives():
    z = random.exponential(KEY, (5,))
    for backend in ("cpu", "interp"):
        loss = sg.trace(lambda scale, shift, key: np.sum((scale * random.exponential(key, (5,)) + shift) ** 2), backend=backend)
        found = sg.grad(loss, argnums=(0, 1))(2.0, 0.5, KEY)
        np.testing.assert_allclose(found, [np.sum(2 * (2 * z + 0.5) * z), np.sum(2 * (2 * z + 0.5))], rtol=1e-13)
    found = sg.grad(lambda scale, key: np.sum(scale * random.normal(key, (5,))))(3.0, KEY)
    np.testing.assert_allclose(found, np.sum(random.normal(KEY, (5,))), rtol=1e-13)
    sg.check_grads(lambda low, high: random.truncated_normal(KEY, low, high, 20), (-0.5, 1.5), order=1)
    u = random.uniform(KEY, (5,))
    found = sg.grad(lambda low, high: np.sum(random.uniform(KEY, (5,), minval=low, maxval=high)), argnums=(0, 1))(1.0, 3.0)
    np.testing.assert_allclose(found, [np.sum(1 - u), np.sum(u)], rtol=1e-13)
    _, tangent = sg.jvp(lambda scale: scale * random.gumbel(KEY, (3,)), (2.0,), (1.0,))
    np.testing.assert_allclose(tangent, random.gumbel(KEY, (3,)), rtol=1e-13)


def test_vmap_over_keys_and_parameters():
    keys = random.split(KEY, 4)
    scales = np.arange(1.0, 5.0)
    found = sg.vmap(sg.grad(lambda scale, key: np.sum(scale**2 * random.laplace(key, (6,)))))(scales, keys)
    np.testing.assert_allclose(found, [2 * s * np.sum(random.laplace(k, (6,))) for s, k in zip(scales, keys, strict=True)], rtol=1e-13)
    shared = sg.vmap(lambda x: x + random.uniform(KEY, (2,)))(scales)
    np.testing.assert_array_equal(shared, scales[:, None] + random.uniform(KEY, (2,)))


def test_a_leaked_key():
    kept = []
    with pytest.warns(StaticgradWarning, match="kept"):
        sg.trace(lambda key: kept.append(random.split(key)) or key[0])(KEY)
    with pytest.raises(LeakedTracerError):
        random.uniform(kept[0][0])
