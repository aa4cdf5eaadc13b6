"""numpy.fft on tracers and through staticgrad.numpy: the order of frequencies, and what is said of transforms."""

import itertools

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.errors import AxisError, MissingAttributeError, UnsupportedError
from tests.tracing.harness import check, fails, traced

SHAPES = [(1,), (5,), (6,), (0, 3), (2, 3), (3, 4, 5)]
TRANSFORMS = sorted(set(np.fft.__all__) - {"fftfreq", "rfftfreq", "fftshift", "ifftshift"})


def numbered(shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("name", ["fftshift", "ifftshift"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shifts(name, shape):
    rank = len(shape)
    choices = [None, *range(-rank, rank), (), *itertools.permutations(range(rank), min(rank, 2)), [*range(rank)]]
    for function, axes in itertools.product((getattr(np.fft, name), getattr(snp.fft, name)), choices):
        check(lambda x, f=function, axes=axes: f(x, axes), numbered(shape))


def test_shifts_undo_each_other():
    check(lambda x: np.fft.ifftshift(np.fft.fftshift(x)), numbered((5, 4)))


def test_shifts_of_lists_and_other_dtypes():
    check(lambda x: snp.fft.fftshift([x[0], 3.0, x[1]]), np.array([1.0, 2.0]))
    for dtype in (bool, np.int8, np.float32):
        check(np.fft.fftshift, np.array([0, 1, 1, 0, 1]).astype(dtype))


def test_shift_has_a_derivative():
    weights = np.arange(5.0)
    found = sg.grad(lambda x: np.sum(np.fft.fftshift(x) * weights))(np.ones(5))
    np.testing.assert_array_equal(found, np.fft.ifftshift(weights))


@pytest.mark.parametrize("name", ["fftfreq", "rfftfreq"])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_frequencies(name, n):
    function, expected = getattr(snp.fft, name), getattr(np.fft, name)
    np.testing.assert_array_equal(function(n, 0.5), expected(n, 0.5))
    check(lambda d: getattr(np.fft, name)(n, d), np.float64(0.25))
    (inside,) = traced(lambda x: function(n, d=0.5), np.zeros(1))
    np.testing.assert_array_equal(inside, expected(n, 0.5))
    (scaled,) = traced(lambda d: function(n, d), np.float64(0.25))
    np.testing.assert_array_equal(scaled, expected(n, 0.25))


def test_frequencies_can_be_written_in_a_trace():
    def function(x):
        f = snp.fft.fftfreq(4)
        f[0] = x
        return f

    np.testing.assert_array_equal(traced(function, np.float64(9.0))[0], [9.0, 0.25, -0.5, -0.25])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name):
    x = numbered((4, 4)) if "2" in name or name.endswith("n") else numbered((4,))
    np.testing.assert_array_equal(getattr(snp.fft, name)(x), getattr(np.fft, name)(x))

    def through_numpy(x):
        return getattr(np.fft, name)(x)

    def through_ours(x):
        return getattr(snp.fft, name)(x)

    for function in (through_numpy, through_ours):
        fails(function, x, kind=UnsupportedError, match=f"np.fft.{name} needs complex numbers, which traced arrays cannot hold yet")


def test_transforms_of_real_arrays_in_a_trace():
    spectrum = np.abs(np.fft.rfft(np.arange(6.0)))
    check(lambda x: x * np.abs(snp.fft.rfft(np.arange(6.0))), spectrum)


def test_mistakes():
    fails(lambda x: np.fft.fftshift(x, 1), np.zeros(3), kind=AxisError, match="axes 1 is out of bounds")
    fails(lambda n: snp.fft.fftfreq(n), np.int64(3), kind=TypeError, match="integer")
    fails(lambda x: snp.fft.fftfreq(2.5), np.zeros(3), kind=TypeError, match="n must be an integer, not 2.5")
    with pytest.raises(MissingAttributeError, match=r"fftsort.*closest.*fft"):
        snp.fft.fftsort  # noqa: B018
    assert set(dir(snp.fft)) == set(np.fft.__all__)
