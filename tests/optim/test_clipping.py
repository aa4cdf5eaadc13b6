"""Clipping, and the chain that puts it before an optimiser."""

import numpy as np
import pytest

from staticgrad import api
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, StaticgradError
from staticgrad.optim import adam, chain, clip_by_global_norm, clip_by_value, schedules, sgd


def slopes(dtype=np.float64):
    return {"w": np.array([[3.0, -4.0], [0.0, 12.0]], dtype), "b": np.array(84.0, dtype)}  # of norm 85


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_global_norm(dtype):
    half = clip_by_global_norm(42.5)(slopes(dtype))
    for name, value in slopes(dtype).items():
        np.testing.assert_array_equal(half[name], value / 2)
        assert half[name].dtype == dtype
    for norm in (85.0, 85.1, 1e300):
        kept = clip_by_global_norm(norm)(slopes(dtype))
        for name, value in slopes(dtype).items():
            np.testing.assert_array_equal(kept[name], value)


def test_global_norm_of_extremes():
    big = clip_by_global_norm(1.0)([np.array([3e30, 4e30], np.float32)])  # squares beyond float32
    np.testing.assert_allclose(big[0], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(clip_by_global_norm(1.0)(np.zeros(2)), np.zeros(2))
    assert np.isnan(clip_by_global_norm(1.0)(np.array([1.0, np.nan]))).all()
    assert clip_by_global_norm(1.0)({}) == {}


def test_value():
    clipped = clip_by_value(5.0)(slopes(np.float32))
    np.testing.assert_array_equal(clipped["w"], np.array([[3.0, -4.0], [0.0, 5.0]], np.float32))
    assert clipped["b"] == 5.0
    assert clipped["w"].dtype == np.float32
    np.testing.assert_array_equal(clip_by_value(1.0)(np.array([-np.inf, np.nan, 0.5])), [-1.0, np.nan, 0.5])


@pytest.mark.parametrize("change", [clip_by_global_norm(10.0), clip_by_value(2.5)])
def test_traced_clipping_is_the_same(change):
    found, expected = api.trace(change)(slopes()), change(slopes())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-15)


def test_chain_is_its_parts():
    params = {"w": np.ones((2, 2)), "b": np.array(2.0)}
    plain = adam(0.1)
    optimizer = chain(clip_by_value(20.0), clip_by_global_norm(5.0), lambda g: {"w": 2 * g["w"], "b": g["b"]}, plain)
    state, expected_state, expected = optimizer.init(params), plain.init(params), params
    for _ in range(3):
        params, state = optimizer.update(params, slopes(), state)
        changed = clip_by_global_norm(5.0)(clip_by_value(20.0)(slopes()))
        expected, expected_state = plain.update(expected, {"w": 2 * changed["w"], "b": changed["b"]}, expected_state)
    np.testing.assert_array_equal(params["w"], expected["w"])
    np.testing.assert_array_equal(state.square["w"], expected_state.square["w"])
    assert type(state) is type(expected_state)


def test_chains_compare_by_value():
    assert chain(clip_by_value(1.0), sgd(0.1)) == chain(clip_by_value(1.0), sgd(0.1)) != chain(clip_by_value(2.0), sgd(0.1))
    assert hash(chain(clip_by_value(1.0), sgd(0.1))) == hash(chain(clip_by_value(1.0), sgd(0.1)))
    assert chain(sgd(0.1)).schedule is None
    assert chain(sgd(schedules.constant(0.1))).schedule == schedules.constant(0.1)


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: clip_by_global_norm(0), InvalidValueError, "max_norm=0: expected a number greater than 0"),
        (lambda: clip_by_value(-1.0), InvalidValueError, "limit=-1.0"),
        (lambda: clip_by_value("small"), ArgumentError, "limit='small'"),
        (lambda: chain(), ArgumentError, "nothing"),
        (lambda: chain(sgd(0.1), clip_by_value(1.0)), ArgumentError, "no optimizer"),
        (lambda: chain(1.0, sgd(0.1)), ArgumentError, "1.0 stands before the optimizer"),
        (lambda: clip_by_value(1.0)({"k": np.arange(3)}), DTypeError, "['k'] has dtype int64"),
    ],
)
def test_errors(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert isinstance(caught.value, StaticgradError)
    assert "test_clipping.py" in str(caught.value)
