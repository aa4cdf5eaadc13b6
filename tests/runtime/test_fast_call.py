"""The entry in machine code: the results and errors of the slow path, exact reference counts, and nothing stale."""

import collections
import copy
import gc
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest

import staticgrad as sg
from staticgrad.calls.traced import Traced
from staticgrad.config import config, configure
from staticgrad.errors import ArgumentError, DTypeError, IntegerPowerError, ReadOnlyError, ShapeError
from staticgrad.runtime import call_form, fast_call
from staticgrad.runtime.callable_type import is_supported
from tests.runtime.calls import assert_fast, assert_same, assert_slow, counting, warm

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(not is_supported(), reason="this interpreter has no entry in machine code")


class Pair(NamedTuple):
    left: Any
    right: Any


EVERYWHERE = vars(optree.registry)["__GLOBAL_NAMESPACE"]
X = np.linspace(-1.0, 1.0, 6)
M = np.arange(6, dtype=np.float32).reshape(2, 3)

# ---- arguments and results


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3), (3, 1, 2), (1,) * 20])
def test_arrays_of_every_dtype_and_rank(dtype, shape):
    f = sg.trace(lambda x: (x, x == x))
    assert_fast(f, np.ones(shape, dtype))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"])
def test_numpy_scalars_and_arrays_of_rank_0_are_one_form(dtype):
    f = sg.trace(lambda x: x)
    scalar = np.dtype(dtype).type(1)
    assert_fast(f, scalar)
    with counting() as slow:
        assert_same(f(np.asarray(scalar)), scalar)
        assert_same(f(np.dtype(dtype).type(0)), np.dtype(dtype).type(0))
    assert not slow


def test_python_numbers():
    f = sg.trace(lambda x: x * 2)
    for value in (1.5, -0.0, float("inf"), 3, -(2**62), 0):
        assert_fast(f, value)
    with pytest.raises(ArgumentError, match="does not fit into 64 bits"):
        f(2**70)
    g = sg.trace(lambda flag, x: np.where(flag, x, -x))
    for flag in (True, False, np.True_, np.False_, np.asarray(True)):
        assert_fast(g, flag, X)


def test_an_int_is_no_float_and_a_bool_no_int():
    f = sg.trace(lambda x: x + x)
    assert_fast(f, 2.0)
    assert_same(f(2), np.int64(4))
    assert_same(f(True), np.True_)
    assert_same(f(np.float32(2)), np.float32(4))


def test_containers():
    f = sg.trace(lambda tree, y: ({"sum": tree["w"][0] + y, "rest": [tree["w"][1], None, ()]}, (tree["b"],)))
    tree = {"w": (X, X * 2), "b": [1.0]}
    found = assert_fast(sg.trace(lambda tree, y: f(tree | {"b": tree["b"][0]}, y)), tree, X)
    assert list(found[0]) == list(f(tree | {"b": 1.0}, X)[0])


def test_the_order_of_the_keys_does_not_matter():
    f = sg.trace(lambda p: p["a"] - p["b"])
    assert_fast(f, {"a": X, "b": 2 * X})
    with counting() as slow:
        assert_same(f({"b": 2 * X, "a": X}), -X)
    assert not slow


def test_other_keys_take_the_slow_path():
    f = sg.trace(lambda p: sum(p.values()))
    assert_fast(f, {"a": X, "b": X})
    for other in ({"a": X, "c": X}, {"a": X}, {"a": X, "b": X, "c": X}):
        assert_same(f(other), sum(other.values()))


def test_other_lengths_take_the_slow_path():
    f = sg.trace(lambda xs: sum(xs))
    assert_fast(f, [X, X])
    assert_same(f([X, X, X]), X * 3)
    assert_same(f((X, X)), X * 2)
    with pytest.raises(ArgumentError):
        f()


def test_unusual_containers_are_known_to_the_slow_path():
    f = sg.trace(lambda pair: pair.left * pair.right)
    assert_slow(f, Pair(X, 2.0))
    g = sg.trace(lambda d: d["a"])
    assert_slow(g, collections.OrderedDict(a=X))
    assert_fast(g, {"a": X})
    assert_slow(g, collections.OrderedDict(a=X))


def test_unusual_containers_as_results():
    f = sg.trace(lambda x: Pair(x, [x * 2]))
    found = assert_fast(f, X)
    assert isinstance(found, Pair)
    g = sg.grad(lambda pair: np.sum(pair[0] * pair[1]))
    assert_fast(g, (X, X))
    h = sg.trace(lambda x: collections.OrderedDict(b=x, a=x + 1))
    assert list(assert_fast(h, X)) == ["b", "a"]


def test_a_registered_node():
    class Box:
        def __init__(self, content):
            self.content = content

    optree.register_pytree_node(Box, lambda box: ((box.content,), None), lambda _, children: Box(*children), namespace=EVERYWHERE)
    try:
        f = sg.trace(lambda box: Box(box.content * 2))
        for _ in range(4):
            assert_same(f(Box(X)).content, X * 2)
    finally:
        optree.unregister_pytree_node(Box, namespace=EVERYWHERE)


def test_no_arguments_and_no_results():
    assert_fast(sg.trace(lambda: np.arange(3.0)))
    assert_fast(sg.trace(lambda x: ()), X)
    assert_fast(sg.trace(lambda x: None), X)
    assert_fast(sg.trace(lambda x, nothing: {"x": x, "none": nothing}), X, None)


def test_one_result_twice_is_two_arrays():
    first, second = assert_fast(sg.trace(lambda x: (x * 2, x * 2)), X)
    assert not np.shares_memory(first, second)
    assert_fast(sg.trace(lambda x: (np.sum(x), np.sum(x))), X)


def test_keywords():
    f = sg.trace(lambda x, *, scale=2.0, shift=0.0: x * scale + shift)
    assert_fast(f, X)
    assert_fast(f, X, scale=3.0)
    assert_fast(f, X, shift=1.0, scale=3.0)
    assert_fast(f, X, scale=3.0, shift=1.0)
    assert_fast(f, x=X, scale=3.0)
    with counting() as slow:
        assert_same(f(X, **{"".join(["sc", "ale"]): 3.0}), X * 3.0)  # a name that is not the interned one
    assert slow
    with pytest.raises(ArgumentError):
        f(X, other=1.0)
    with pytest.raises(ArgumentError):
        f(X, X, X)


def test_static_arguments():
    f = sg.trace(lambda x, kind, *, power=2: x**power if kind == "power" else -x, static_argnames=("kind", "power"))
    assert_fast(f, X, "power")
    assert_fast(f, X, "negate")
    assert_fast(f, X, "power", power=3)
    assert_same(f(X, "power", power=2), X**2)
    assert_same(f(X, "".join(["neg", "ate"])), -X)


def test_methods_and_partials():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @sg.trace
        def __call__(self, x):
            return x * self.scale

    one, two = Model(1.0), Model(2.0)
    for _ in range(4):
        assert_same(one(X), X)
        assert_same(two(X), X * 2)


def test_very_many_arguments():
    f = sg.trace(lambda xs: sum(xs))
    assert_fast(f, [X] * 200)
    assert_slow(f, [1.0] * (call_form.LARGEST_FORM + 1))


# ---- arrays that are not as compiled


def odd_arrays():
    wide = np.zeros((6, 2))
    wide[:, 0] = X
    raw = np.zeros(6 * 8 + 1, np.uint8)
    misaligned = raw[1:].view(np.float64)
    misaligned[:] = X
    read_only = X.copy()
    read_only.flags.writeable = False

    class Sub(np.ndarray):
        pass

    return {
        "strided": wide[:, 0], "reversed": X[::-1].copy()[::-1], "misaligned": misaligned, "swapped": X.astype(X.dtype.newbyteorder()),
        "subclass": X.view(Sub), "memory map": np.asarray(X), "read-only": read_only, "Fortran": np.asfortranarray(X),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_arrays())
def test_odd_arrays(name):
    f = sg.value_and_grad(lambda x: np.sum(x**3))
    expected = warm(f, X)
    odd = odd_arrays()[name]
    for _ in range(3):
        value, gradient = f(odd)
        assert_same(np.asarray(gradient), expected[1])
        assert_same(value, expected[0])
    assert f.cache_info().traces == 1


def test_other_shapes_and_dtypes():
    f = sg.trace(lambda x: x * 2)
    assert_fast(f, M)
    for other in (M.T, M.astype(np.float64), M.reshape(3, 2), M[:1], M.ravel(), M[:, :0], np.zeros((2, 3, 1), np.float32)):
        assert_same(f(other), other.copy() * 2)
    with pytest.raises(DTypeError, match="float16"):
        f(M.astype(np.float16))
    with pytest.raises(ArgumentError, match="static_argnames"):
        f("text")


def test_objects_with_an_array_interface():
    class Like:
        def __init__(self, array):
            self.__array_interface__ = array.__array_interface__
            self.keep = array

    f = sg.trace(lambda x: x * 2)
    warm(f, X)
    for _ in range(3):
        assert_same(f(Like(X)), X * 2)


def test_large_workspace_and_huge_arrays():
    f = sg.grad(lambda x: np.sum(np.tanh(x @ x.T) ** 2))
    assert_fast(f, np.random.default_rng(0).normal(size=(60, 60)))
    g = sg.value_and_grad(lambda x: np.sum(x * x))
    big = np.ones(2**18)
    assert_fast(g, big)


# ---- out


def test_out_receives_the_results():
    f = sg.value_and_grad(lambda p: np.sum(p["w"] ** 2 * p["b"]))
    p = {"w": X, "b": X + 1}
    expected = f(p)
    out = (np.empty(()), {"w": np.empty(6), "b": np.empty(6)})
    for _ in range(3):
        assert f(p, out=out) is out
    with counting() as slow:
        assert f(p, out=out) is out
    assert not slow
    assert_same((out[0][()], out[1]), expected)


def test_out_that_overlaps():
    f = sg.trace(lambda x, y: (x[::-1] + y, x - y))
    x, y = X.copy(), X * 2
    warm(f, x, y)
    expected = f(x, y)
    for _ in range(3):
        memory = np.zeros(12)
        memory[:6] = X
        assert_same(f(memory[:6], y, out=(memory[:6], memory[6:]))[0], memory[:6])
        assert_same(memory, np.concatenate(expected))


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.empty(5), ShapeError), (np.empty(6, np.float32), DTypeError), ((np.empty(6),), ArgumentError), (None, ArgumentError),
        ([0.0], ArgumentError), (1.0, ArgumentError), (np.frombuffer(bytes(48)), ReadOnlyError),
    ],
)  # fmt: skip
def test_out_that_does_not_fit(out, error):
    f = sg.trace(lambda x: x * 2)
    good = np.empty(6)
    warm(f, X, out=good)
    for _ in range(2):
        with pytest.raises(error, match="out="):
            f(X, out=out)


def test_strided_out():
    f = sg.trace(lambda x: x * 2)
    wide = np.zeros((6, 2))
    for _ in range(4):
        f(X, out=wide[:, 1])
    np.testing.assert_array_equal(wide, np.stack([np.zeros(6), X * 2], 1))


def test_out_that_is_the_functions_own():
    f = sg.trace(lambda x, out: x + out)
    assert_fast(f, X, out=X)
    g = sg.trace(lambda x, **rest: x + rest["out"])
    assert_fast(g, X, out=X)


def test_out_inside_of_a_trace():
    inner = sg.grad(lambda x: np.sum(x**2))

    @sg.trace
    def outer(x):
        y = np.zeros_like(x)
        inner(x, out=y)
        return y

    assert_fast(outer, X)


# ---- what stands outside


def test_a_rebound_global_is_seen():
    module = types.ModuleType("model")
    exec(
        "import numpy as np\nlr = 0.5\nhyper = {'l2': 2.0}\ndef helper(x): return x * lr\ndef f(x): return helper(x) * hyper['l2']",
        vars(module),
    )
    f = sg.trace(module.f)
    assert_fast(f, X)
    module.lr = 0.25
    assert_same(f(X), X * 0.5)
    assert_fast(f, X)
    module.hyper["l2"] = 4.0
    assert_same(f(X), X)
    exec("def helper(x): return x + lr", vars(module))
    assert_same(f(X), (X + 0.25) * 4.0)
    del module.hyper
    with pytest.raises(NameError):
        f(X)


def test_an_equal_value_in_another_object_changes_nothing_for_long():
    module = types.ModuleType("model")
    exec("rate = 1.5\ndef f(x): return x * rate", vars(module))
    f = sg.trace(module.f)
    assert_fast(f, X)
    module.rate = float("1.5")
    f(X)
    f(X)
    with counting() as slow:
        f(X)
    assert not slow
    assert f.cache_info().traces == 1


def test_closures_defaults_and_code():
    scale = 2.0

    def f(x, shift=1.0):
        return x * scale + shift

    g = sg.trace(f)
    assert_fast(g, X)
    scale = 3.0
    assert_same(g(X), X * 3.0 + 1.0)
    assert_fast(g, X)
    f.__defaults__ = (2.0,)
    assert_same(g(X), X * 3.0 + 2.0)
    assert_fast(g, X)
    f.__code__ = (lambda x, shift=0.0: x * scale - shift).__code__
    assert_same(g(X), X * 3.0 - 2.0)


def test_attributes_of_objects():
    class Settings:
        pass

    settings = Settings()
    settings.rate = 2.0
    f = sg.trace(lambda x: x * settings.rate)
    assert_fast(f, X)
    settings.rate = 4.0
    assert_same(f(X), X * 4.0)


def test_cache_clear_and_another_configuration():
    g = sg.trace(lambda x: x * 2)
    warm(g, X)
    g.cache_clear()
    with counting() as slow:
        assert_same(g(X), X * 2)
    assert slow and g.cache_info().traces == 1
    assert_fast(g, X)
    previous = configure(type(config())(**(vars(config()) | {"backend": "interp"})))
    try:
        with counting() as slow:
            assert_same(g(X), X * 2)
        assert slow
    finally:
        configure(previous)


def test_inside_of_a_trace_a_call_becomes_part_of_it():
    inner = sg.grad(lambda x: np.sum(x**3))
    warm(inner, X)

    @sg.trace
    def outer(x):
        return inner(x) + inner(X)

    assert_same(outer(X), inner(X) + inner(X))
    assert "integer_power" in str(outer.lower(X).graph)


def test_options_have_forms_of_their_own():
    def f(x):
        return x * 2

    cpu, interp = sg.trace(f), sg.trace(f, backend="interp")
    warm(cpu, X)
    assert_slow(interp, X)
    assert_fast(cpu, X)


def test_transforms_made_anew_share_their_forms():
    def f(x):
        return np.sum(x**2)

    for _ in range(3):
        sg.grad(f)(X)
    fresh = sg.grad(f)
    fresh(X)
    assert_fast(fresh, X)
    assert fresh.cache_info().traces == 1


def test_many_forms():
    f = sg.trace(lambda x: x * 2)
    for n in range(1, 2 * fast_call.MOST_FORMS):
        assert_fast(f, np.ones(n))
    for n in range(1, 2 * fast_call.MOST_FORMS):
        assert_same(f(np.ones(n)), np.full(n, 2.0))


def test_what_prints_takes_the_slow_path(capsys):
    def f(x):
        sg.debug.print("x is {}", x)
        return x

    g = sg.trace(f)
    for _ in range(4):
        g(2.0)
    assert capsys.readouterr().out == "x is 2.0\n" * 4


# ---- failures, memory, threads


def test_failures_are_raised():
    f = sg.trace(lambda x, n: x**n)
    x, n = np.array([2, 3]), np.array([1, 2])
    assert_fast(f, x, n)
    before = sys.getrefcount(x)
    for _ in range(100):
        with pytest.raises(IntegerPowerError):
            f(x, -n)
    assert sys.getrefcount(x) == before
    assert_fast(f, x, n)


def test_reference_counts_are_exact():
    """In a process of its own: what other tests leave behind in theirs takes references and memory, too."""
    code = "from tests.runtime.test_fast_call import count_references; count_references()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def count_references():
    """Over a million calls: a reference lost or kept shows in a count or in memory."""
    f = sg.trace(lambda tree, y, flag, out_scale=1.0: ({"a": tree["a"] * y, "b": [np.sum(tree["a"]), None]}, (tree["a"], tree["a"])))
    tree, y = {"a": X}, np.float64(3.0)
    warm(f, tree, y, True, out_scale=2.0)
    held = [X, y, tree, None, True, 2.0, "a", "b", np.ndarray, np.float64, np.dtype(np.float64), *f._record.forms.values()]

    def counts():
        gc.collect()
        return [sys.getrefcount(each) for each in held]

    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    scale = held[5]
    for _ in range(20_000):
        f(tree, y, True, out_scale=scale)
    before, resident = counts(), memory() if os.path.exists("/proc/self/statm") else 0
    with counting() as slow:
        for _ in range(1_000_000):
            f(tree, y, True, out_scale=scale)
    assert not slow
    changes = [a - b for a, b in zip(counts(), before)]
    assert max(map(abs, changes)) < 100, changes  # what runs beside takes a None or two; a call takes a million
    if resident:
        assert memory() - resident < 4 << 20


def test_reference_counts_of_calls_that_are_refused():
    f = sg.trace(lambda p, y: p["a"] * y)
    p = {"a": X}
    warm(f, p, 2.0)
    wrong = np.ones((6, 1))
    before = [sys.getrefcount(each) for each in (p, X, wrong)]
    for _ in range(1000):
        f({"a": X}, wrong)
    assert [sys.getrefcount(each) for each in (p, X, wrong)] == before


def test_threads_and_a_workspace_each():
    f = sg.grad(lambda x: np.sum(np.tanh(x @ x.T) ** 2))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(80, 80)) for _ in range(4)]
    expected = [warm(f, x) for x in inputs]
    errors = []

    def work(k):
        for _ in range(50):
            if not np.array_equal(f(inputs[k]), expected[k]):
                errors.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_arrays_stay_alive_while_the_gil_is_released():
    f = sg.trace(lambda p: np.sum(np.tanh(p["x"]) * np.tanh(p["x"] + 1)))
    p = {"x": np.ones(400_000)}
    expected = warm(f, p)
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            p["x"] = np.ones(400_000)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(50):
            assert f(p) == expected
    finally:
        stop.set()
        thread.join()


def test_a_call_while_another_thread_compiles():
    started, go, gave_up = (threading.Event() for _ in range(3))

    def f(x):
        if x.shape == (7,):
            started.set()
            if not go.wait(30):
                gave_up.set()
        return x * 2

    g = sg.trace(f)
    warm(g, X)
    results = []
    threads = [threading.Thread(target=lambda: results.append(g(np.ones(7)))) for _ in range(3)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    assert_same(g(X), X * 2)  # known already: no waiting
    go.set()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and not gave_up.is_set()
    assert all(np.array_equal(r, np.full(7, 2.0)) for r in results)
    assert g.cache_info().traces == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork():
    f = sg.grad(lambda x: np.sum(x**2))
    warm(f, X)
    child = os.fork()
    if child == 0:
        fine = np.array_equal(f(X), 2 * X) and np.allclose(sg.grad(lambda x: np.sum(x**4))(X), 4 * X**3)
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0


# ---- the object itself


def test_a_traced_function_is_a_function():
    @sg.trace
    def f(x):
        """Double x."""
        return x * 2

    assert callable(f) and isinstance(f, Traced)
    for _ in range(3):
        f(X)
        assert f.__name__ == "f" and f.__doc__ == "Double x." and f.__wrapped__ is f.py_func
        assert isinstance(f, Traced) and callable(f)
    assert copy.copy(f) is f and copy.deepcopy(f) is f
    assert list(map(f, [X, X]))[1][0] == -2.0
    with pytest.raises(TypeError):
        object.__new__(Traced)(X)


def test_traced_functions_are_collected():
    import weakref

    def f(x):
        return x * 2

    g = sg.trace(f)
    warm(g, X)
    seen = weakref.ref(g), weakref.ref(f)
    del g, f
    gc.collect()
    assert [each() for each in seen] == [None, None]


def test_offsets_are_found():
    assert call_form.cell_offset() is not None
    assert set(call_form.part_offsets()) == {"__code__", "__defaults__", "__kwdefaults__"}
    assert fast_call.entry_address()


def test_without_the_entry(monkeypatch):
    monkeypatch.setattr("staticgrad.calls.traced.entry_address", lambda: None)
    f = sg.value_and_grad(lambda x: np.sum(x**2))
    for _ in range(4):
        _, gradient = f(X)
        assert_same(gradient, 2 * X)
    assert type(f) is not Traced
