"""A traced function as an object: methods of all kinds, wrappers, pickles, pools of threads and processes, debuggers, wrong calls."""

import asyncio
import concurrent.futures
import copy
import functools
import inspect
import multiprocessing
import pickle
import sys
import weakref
from unittest import mock

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.errors import ArgumentError
from staticgrad.runtime.callable_type import is_supported
from tests.runtime.calls import assert_same, counting, warm

X = np.linspace(-1.0, 1.0, 6)


@sg.trace
def doubled(x):
    """Double x."""
    return x * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_executors_and_event_loops():
    warm(doubled, X)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert all(np.array_equal(found, X * 2) for found in pool.map(doubled, [X] * 50))
    assert_same(asyncio.run(asyncio.to_thread(doubled, X)), X * 2)
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(1) as processes:
            assert_same(processes.apply(doubled, (X,)), X * 2)


@pytest.mark.parametrize("install", [sys.settrace, sys.setprofile])
def test_debuggers_and_profilers(install):
    warm(doubled, X)
    previous = sys.gettrace() if install is sys.settrace else sys.getprofile()
    install(lambda *_: None)
    try:
        found = doubled(X)
    finally:
        install(previous)
    assert_same(found, X * 2)


class Times:
    """A callable that does not bind."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


class Model:
    factor = 2.0

    def __init__(self, scale=3.0):
        self.scale = scale

    def scaled(self, x):
        return x * self.scale

    @sg.trace
    def method(self, x):
        return self.scaled(x)

    @classmethod
    @sg.trace
    def of_class(cls, x):
        return x * cls.factor

    @sg.trace
    @classmethod
    def of_class_too(cls, x):
        return x * cls.factor

    @staticmethod
    @sg.trace
    def plain(x):
        return x * 5

    @sg.trace
    @staticmethod
    def plain_too(x):
        return x * 5

    callable_object = sg.trace(Times(7.0))


@pytest.mark.parametrize(
    ("name", "factor"),
    [("method", 3.0), ("of_class", 2.0), ("of_class_too", 2.0), ("plain", 5), ("plain_too", 5), ("callable_object", 7.0)],
)
def test_kinds_of_methods(name, factor):
    model = Model()
    for _ in range(3):
        assert_same(getattr(model, name)(X), X * factor)
        if name != "method":
            assert_same(getattr(Model, name)(X), X * factor)
    if name != "of_class" and is_supported():  # since Python 3.13 classmethod does not bind
        with counting() as slow:
            getattr(model, name)(X)
        assert not slow
        assert getattr(model, name).cache_info().traces == 1


def test_a_transform_is_no_method():
    """Which argument is the first one would depend on how it is called."""

    class Model:
        weight = 2.0

        @sg.trace
        def loss(self, x):
            return np.sum(self.weight * x * x)

        gradient = sg.grad(loss, 1)

    model, x = Model(), np.ones(2)
    np.testing.assert_array_equal(sg.grad(model.loss)(x), [4, 4])
    with pytest.raises(ArgumentError, match=r"grad\(loss\) is an attribute of a class.*sg\.grad\(model\.loss\)"):
        model.gradient(x)


def test_methods_see_their_object_and_class_change():
    model = Model()
    warm(model.method, X)
    model.scale = 4.0
    assert_same(model.method(X), X * 4.0)
    model.scaled = lambda x: x + 1
    assert_same(model.method(X), X + 1)
    with mock.patch.object(Model, "factor", 11.0):
        assert_same(Model.of_class(X), X * 11.0)
    assert_same(Model.of_class(X), X * 2.0)


def test_a_class_that_is_an_argument_is_refused():
    with pytest.raises(ArgumentError, match="static_argnames"):
        doubled(int)


def test_a_property_is_refused():
    with pytest.raises(ArgumentError, match="let the property call it"):
        sg.trace(property(lambda self: 1.0))


def test_an_argument_may_be_called_self():
    f = sg.trace(lambda self, x: self * x)
    for _ in range(3):
        assert_same(f(self=X, x=X), X * X)
    assert "multiply" in str(f.lower(self=X, x=X).graph)


def test_wrappers_signatures_and_references():
    @functools.wraps(doubled)
    def wrapper(x):
        return doubled(x)

    assert inspect.signature(doubled) == inspect.signature(wrapper) == inspect.signature(doubled.py_func)
    assert wrapper.__doc__ == "Double x." and weakref.ref(doubled)() is doubled
    assert copy.deepcopy({"f": doubled})["f"] is doubled


def test_pickling_goes_by_name():
    model = Model(4.0)
    for function in (doubled, Model.plain):
        assert pickle.loads(pickle.dumps(function)) is function
    assert_same(pickle.loads(pickle.dumps(model.method))(X), X * 4.0)
    assert_same(pickle.loads(pickle.dumps(Model.of_class_too))(X), X * 2.0)
    for other in (sg.trace(lambda x: x), sg.grad(lambda x: np.sum(x)), sg.grad(doubled), sg.trace(model.scaled)):
        with pytest.raises(ArgumentError, match=r"cannot be pickled.*top level"):
            pickle.dumps(other)


def test_wrong_calls_name_the_line():
    warm(doubled, X)
    for call in (lambda: doubled(X, X), lambda: doubled(X, other=1.0), lambda: doubled(), lambda: doubled(X, x=X)):
        with pytest.raises(ArgumentError, match=r"doubled\(x\): .*\n  at .*test_traced_object.py:\d+, in <lambda>"):
            call()


def test_the_structure_of_out_is_shown():
    f = sg.trace(lambda x: {"y": x})
    with pytest.raises(ArgumentError, match=r"out= has the structure of one array, the result \{'y': \*\}\n  at "):
        f(X, out=np.empty(6))
