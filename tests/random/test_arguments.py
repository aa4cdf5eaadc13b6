"""Shapes, dtypes and mistakes: what is no key, no dtype, no shape, and what there is not."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad import random
from staticgrad.errors import (
    ArgumentError,
    AxisError,
    DTypeError,
    InvalidValueError,
    MissingAttributeError,
    OverflowedError,
    ShapeError,
    StaticgradWarning,
    TraceError,
    UnsupportedAttributeError,
)
from staticgrad.ir.aval import Aval
from staticgrad.ir.builder import Builder, Index
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Let, walk
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.random import UINT32, UINT64
from tests.kernels.test_instructions import replay
from tests.tracing.harness import fails

KEY = random.key(3)
FLOATS = ("uniform", "normal", "exponential", "gumbel", "laplace", "logistic", "cauchy")


@pytest.mark.parametrize("name", FLOATS)
def test_shapes_and_dtypes(name):
    draw = getattr(random, name)
    assert isinstance(draw(KEY), np.float64)
    assert isinstance(draw(KEY, (), np.float32), np.float32)
    assert draw(KEY, 3).shape == draw(KEY, [3]).shape == draw(KEY, np.int64(3)).shape == (3,)
    assert draw(KEY, (0, 3)).shape == (0, 3)
    assert draw(KEY, (2, 1), "float32").dtype == np.float32


def test_dtypes_of_integers_and_flags():
    assert random.randint(KEY, (), 0, 5).dtype == np.int64
    assert random.bits(KEY).dtype == np.uint64
    assert random.bernoulli(KEY).dtype == random.bernoulli(KEY, np.float32(0.5), 3).dtype == np.bool_
    assert random.rademacher(KEY, (2,), np.float32).dtype == np.float32
    assert random.categorical(KEY, np.zeros(3)).dtype == random.categorical(KEY, [1, 2]).dtype == np.int64


def test_keys_are_arrays():
    key = random.key(3)
    assert type(key) is np.ndarray and key.dtype == np.uint32 and key.shape == (2,)
    assert random.PRNGKey is random.key
    np.testing.assert_array_equal(random.uniform(np.array([0, 3], np.uint32)), random.uniform(key))


@pytest.mark.parametrize("name", [*FLOATS, "bits", "split", "bernoulli", "rademacher"])
def test_what_is_no_key(name):
    draw = getattr(random, name)
    for key in (3, np.zeros(2), np.zeros(2, np.int64), None):
        with pytest.raises((DTypeError, ArgumentError), match=r"uint32 array of shape \(2,\), such as sg.random.key|not an array"):
            draw(key)
    with pytest.raises(ShapeError, match=r"shape \(2,\), not u32\[3,2\]; of several keys pick one, keys\[0\], or use sg.vmap"):
        draw(random.split(KEY, 3))
    with pytest.raises(ShapeError, match=r"shape \(2,\), not u32\[3\]"):
        draw(np.zeros(3, np.uint32))
    fails(lambda x: draw(x), np.zeros(2), kind=TypeError, match=f"{name}: a key is a uint32 array")
    fails(lambda x: draw(x), np.zeros((2, 2), np.uint32), kind=ValueError, match=f"{name}: a key has shape")


def test_mistakes():
    fails(lambda k: random.uniform(k, (3,), int), KEY, kind=TypeError, match="uniform: dtype must be a float, not int64")
    fails(lambda k: random.gumbel(k, (3,), np.float16), KEY, kind=TypeError, match="float16 .* is not supported")
    fails(lambda k: random.truncated_normal(k, 0.0, np.ones(2), 3), KEY, kind=ValueError, match=r"truncated_normal: a bound: f64\[2\]")
    fails(lambda k: random.truncated_normal(k, np.ones(3), np.ones(2)), KEY, kind=ValueError, match="lower and upper")
    fails(lambda k: random.bits(k, 3, int), KEY, kind=TypeError, match="must be an unsigned integer, not int64")
    fails(lambda k: random.randint(k, 3, 0, 9, float), KEY, kind=TypeError, match="must be an integer, not float64")
    fails(lambda k: random.rademacher(k, 3, np.uint8), KEY, kind=TypeError, match="must have -1, unlike uint8")
    fails(lambda k: random.bernoulli(k, 1), KEY, kind=TypeError, match="the probability must be a float, not i64")
    fails(lambda k: random.uniform(k, -1), KEY, kind=ValueError, match="negative dimensions are not allowed")
    fails(lambda k: random.uniform(k, 2.5), KEY, kind=TypeError, match="a length in the shape must be an integer")
    fails(lambda k: random.uniform(k, k[0]), KEY, kind=TraceError, match="static_argnames")
    for low in (np.ones(2), np.zeros(2)):
        fails(lambda k, low=low: random.uniform(k, 3, minval=low), KEY, kind=ValueError, match=r"uniform: minval: f64\[2\] .* shape \(3,\)")
    fails(lambda k: random.uniform(k, (), maxval=np.ones(2)), KEY, kind=ValueError, match=r"uniform: maxval - minval: f64\[2\]")
    fails(lambda k: random.uniform(k, 3, minval=np.ones(2), maxval=np.ones(3)), KEY, kind=ValueError, match="cannot be broadcast together")
    fails(lambda k: random.randint(k, 3, np.zeros(2, int), 5), KEY, kind=ValueError, match=r"randint: minval and maxval: i64\[2\]")
    fails(lambda k: random.randint(k, 3, False, 5), KEY, kind=TypeError, match="minval must be an integer, not bool")
    fails(lambda k: random.bernoulli(k, np.full(2, 0.5), 3), KEY, kind=ValueError, match=r"bernoulli: p: f64\[2\]")
    fails(lambda k: random.categorical(k, np.zeros((3, 0))), KEY, kind=InvalidValueError, match="no classes along axis 1")
    fails(lambda k: random.categorical(k, np.zeros(3), 1), KEY, kind=AxisError, match="axis 1 is out of bounds")
    fails(lambda k: random.categorical(k, np.zeros((3, 2)), shape=2), KEY, kind=ValueError, match=r"shape \(2,\) must end with \(3,\)")


def test_mistakes_with_seeds():
    fails(lambda x: random.key(x), np.zeros(3, int), kind=ShapeError, match="a seed is one integer, not i64.3.; for several use sg.vmap")
    fails(lambda x: random.key(x), np.float64(1.5), kind=DTypeError, match="a seed is an integer, not f64")
    fails(lambda k: random.fold_in(k, np.zeros(3, int)), KEY, kind=ShapeError, match="data is one integer")
    fails(lambda k: random.fold_in(k, 1.5), KEY, kind=DTypeError, match="data is an integer, not f64")
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowedError, match="64 bits"):
            random.key(seed)
    for data in (-1, 2**32):
        with pytest.raises(OverflowedError, match="between 0 and"):
            random.fold_in(KEY, data)


def test_what_there_is_not():
    for name in ("gamma", "beta", "poisson", "dirichlet"):
        with pytest.raises(UnsupportedAttributeError, match=f"{name} needs loops, .*exponential"):
            getattr(random, name)
    with pytest.raises(MissingAttributeError, match=r"no state and no 'seed': make a key, sg.random.key"):
        random.seed(0)
    with pytest.raises(MissingAttributeError, match=r"'unifrom'.*uniform"):
        random.unifrom  # noqa: B018
    assert not hasattr(random, "gamma") and not hasattr(random, "rand")
    assert set(dir(random)) == set(random.__all__)


def test_numpys_generator_in_a_trace_points_here():
    with pytest.warns(StaticgradWarning, match="drawn once, at tracing.*sg.random"):
        sg.trace(lambda x: x + np.random.normal())(1.0)


def test_more_than_32_bits_of_places():
    """An array of 2**34 numbers is not made; one of its elements is, from its place."""
    shape, index = (2**17, 2**17), (100_000, 123)
    op = REGISTRY["random_bits"](UINT64, 2)
    b = Builder()
    words = [b._new(dtype) for dtype in (UINT32, UINT32)]
    operands = (*words, b.literal(0, UINT64))
    result = op.element(b, lambda k, at: operands[k], tuple(map(Index, index)), [Aval(shape, d) for d in (UINT32, UINT32, UINT64)])
    known = dict(zip(words, KEY, strict=True))
    replay(b.root, known, OnFloats())
    assert all(isinstance(statement, Let) for statement in walk(b.root))
    place = np.uint64(index[0] * shape[1] + index[1])
    assert place > 2**32
    assert known[result] == REGISTRY["random_bits"](UINT64, 0).numpy(*map(np.asarray, (*KEY, place)))
