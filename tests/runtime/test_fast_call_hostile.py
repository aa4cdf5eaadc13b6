"""Hostile callers of the entry in machine code: user code that runs in the middle of a call, failing memory, odd uses of the object."""

import contextlib
import copy
import ctypes
import enum
import gc
import itertools
import os
import subprocess
import sys
import threading
import types
import weakref
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.calls.traced import Traced, _Cold
from staticgrad.runtime import call_form, fast_call
from staticgrad.runtime.callable_type import FastCallable, is_supported
from staticgrad.runtime.fast_call import Form, Forms
from staticgrad.tracing.context import Trace, traces_under_way, tracing
from staticgrad.tracing.guards import Guard, Guards
from tests.runtime.calls import assert_fast, assert_same, assert_slow, counting, warm

pytestmark = pytest.mark.skipif(not is_supported(), reason="this interpreter has no entry in machine code")

X = np.linspace(-1.0, 1.0, 6)


class Key:
    """A key of a dict whose comparison does something first."""

    def __init__(self, action: Any = None) -> None:
        self.action = action

    def __hash__(self) -> int:
        return 1

    def __lt__(self, other: Any) -> bool:
        return False

    def __eq__(self, other: Any) -> bool:
        if self.action is not None:
            self.action()
        return isinstance(other, Key)


def forms_of(function: Any) -> list[Form]:
    """Return the forms in use."""
    return [form for forms in function._record.forms.values() for form in forms._forms.values()]


def reuse_the_memory() -> list[np.ndarray]:
    """Return arrays that lie where arrays of this size were freed just now."""
    return [np.full(6, 7.0) for _ in range(20)]


# ---- user code in the middle of a call


@pytest.mark.parametrize("container", [dict, list])
def test_a_comparison_may_drop_what_was_matched(container):
    trash = []

    def drop():
        inner.clear()
        trash.extend(reuse_the_memory())

    f = sg.trace(lambda inner, p: (inner[0] + next(iter(p.values())), 1.0))
    assert_fast(f, {0: X} if container is dict else [X], {Key(): X})
    expected = f({0: X} if container is dict else [X], {Key(): X})
    inner = {0: X.copy()} if container is dict else [X.copy()]
    with counting() as slow:
        found = f(inner, {Key(drop): X})
    assert not slow and not inner
    assert_same(found, expected)


def test_a_comparison_may_drop_the_container_it_looks_into():
    def drop():
        outer.clear()
        gc.collect()

    f = sg.trace(lambda outer: next(iter(outer[0].values())) * 2)
    assert_fast(f, [{Key(): X}])
    outer = [{Key(drop): X}]
    assert_same(f(outer), X * 2)


def test_a_probe_may_drop_what_was_matched():
    module = types.ModuleType("model")
    exec("factors = [2.0, 3.0]\ndef f(p): return p['x'] * factors[0]", vars(module))
    f = sg.trace(module.f)
    assert_fast(f, {"x": X})
    p, trash = {"x": X.copy()}, []

    def drop(frame, event, _):
        if event == "call" and frame.f_code.co_name == "_holds" and p:
            p.clear()
            trash.extend(reuse_the_memory())

    sys.setprofile(drop)
    try:
        found = f(p)
    finally:
        sys.setprofile(None)
    assert trash
    assert_same(found, X * 2)


def test_a_comparison_may_clear_the_function():
    f = sg.trace(lambda p, y: next(iter(p.values())) + y)
    assert_fast(f, {Key(): X}, X)
    assert_fast(f, {Key(): X}, 1.0)

    def clear():
        key.action = None
        f.cache_clear()
        gc.collect()

    for y in (X, X[:1]):  # one form that fits, then none: the walk goes on from a form that was taken out
        key = Key(clear)
        assert_same(f({key: X}, y), X + y)
        warm(f, {Key(): X}, X)
        warm(f, {Key(): X}, 1.0)


def test_a_comparison_may_call_the_function():
    f = sg.grad(lambda p: np.sum(np.tanh(next(iter(p.values())))))
    big = np.linspace(-1.0, 1.0, 4000)
    expected = warm(f, {Key(): big})
    inner = []

    def call():
        key.action = None
        inner.append(f({Key(): big}))

    key = Key(call)
    assert_same([*f({key: big}).values()], [*expected.values()])
    assert_same([*inner[0].values()], [*expected.values()])


def test_a_comparison_may_call_the_function_without_end():
    """Python's own limit ends it, not that of the stack."""
    f = sg.trace(lambda p, xs: next(iter(p.values())) + xs[0])
    xs = [X] * (call_form.LARGEST_FORM - 1)
    assert_fast(f, {Key(): X}, xs)
    depths = [0]

    def call():
        depths.append(depths[-1] + 1)
        f({Key(call): X}, xs)

    before, size = sys.getrefcount(X), threading.stack_size(4 << 20)
    try:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert max(depths) > 100 and sys.getrefcount(X) == before


def test_an_error_in_a_comparison_means_that_the_call_has_another_form():
    def fail():
        raise ZeroDivisionError

    f = sg.trace(lambda p: next(iter(p.values())) * 2)
    assert_fast(f, {Key(): X})
    key = Key(fail)
    with counting() as slow, contextlib.suppress(ZeroDivisionError):
        f({key: X})
    assert slow
    assert_fast(f, {Key(): X})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_comparison_is_raised(error):
    def interrupt():
        raise error

    f = sg.trace(lambda p: next(iter(p.values())) * 2)
    assert_fast(f, {Key(): X})
    held = X.copy()
    before = sys.getrefcount(held)
    with counting() as slow, pytest.raises(error):
        f({Key(interrupt): held})
    assert not slow and sys.getrefcount(held) == before


def test_an_interrupt_in_a_probe_is_raised():
    module = types.ModuleType("model")
    exec("factors = [2.0, 3.0]\ndef f(x): return x * factors[0]", vars(module))
    f = sg.trace(module.f)
    assert_fast(f, X)

    def interrupt(frame, event, _):
        if event == "call" and frame.f_code.co_name == "_holds":
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            f(X)
    finally:
        sys.setprofile(None)
    assert_fast(f, X)


class Box(NamedTuple):
    content: Any


EVERYWHERE = vars(optree.registry)["__GLOBAL_NAMESPACE"]


def test_user_code_that_makes_the_result():
    """It may clear the function, fail, or call without end: an error, not a crash."""

    class Node:
        action: Any = None

        def __init__(self, content: Any) -> None:
            self.content = content

    def rebuild(_: Any, children: Any) -> Node:
        if Node.action is not None:
            Node.action()
        return Node(*children)

    optree.register_pytree_node(Node, lambda node: ((node.content,), None), rebuild, namespace=EVERYWHERE)
    try:
        f = sg.trace(lambda x: Node(np.tanh(x) * x[::-1]))
        x = np.linspace(0.0, 1.0, 1000)  # a workspace on the stack, as large as may be
        warm(f, x)
        expected = f(x).content
        Node.action = f.cache_clear
        assert_same(f(x).content, expected)
        Node.action = None
        warm(f, x)
        Node.action = lambda: f(x)
        before = sys.getrefcount(x)
        with pytest.raises(RecursionError):
            f(x)
        Node.action = None
        assert sys.getrefcount(x) == before
        assert_same(f(x).content, expected)
    finally:
        optree.unregister_pytree_node(Node, namespace=EVERYWHERE)


def test_a_cleared_function_is_not_entered_by_a_call_under_way():
    f = sg.trace(lambda x: x * 2)
    f(X)
    prepared = sys.modules["staticgrad.calls.traced"].prepared

    def clear(*args):
        f.cache_clear()
        return prepared(*args)

    with mock.patch("staticgrad.calls.traced.prepared", clear):
        f(X)
        f(X)
    assert not forms_of(f)


# ---- memory


def test_forms_are_freed():
    module = types.ModuleType("model")
    exec("import numpy as np\nrate = 0.0\ndef f(x): return np.tanh(x[::-1]) * x * rate", vars(module))
    f = sg.trace(module.f)
    x = np.ones(5000)  # a workspace on the heap

    def weak_forms(x):
        warm(f, x)
        f(x)
        return [weakref.ref(form) for form in forms_of(f)]

    first = weak_forms(x)
    f.cache_clear()
    second = weak_forms(x)
    module.rate = float("0.0")
    third = weak_forms(x)
    assert len(first) == len(second) == len(third) == 1
    assert first[0]() is second[0]() is None
    assert third[0]() is not None
    forms = [weak_forms(np.ones(n))[-1] for n in range(1, 3 * fast_call.MOST_FORMS)]
    assert [form() is not None for form in forms] == [k >= len(forms) - fast_call.MOST_FORMS for k in range(len(forms))]
    assert not fast_call._retired


def test_a_form_in_use_is_kept_until_the_call_is_over():
    f = sg.trace(lambda p: next(iter(p.values())) * 2)
    warm(f, {Key(): X})
    form = weakref.ref(*forms_of(f))
    alive = []

    def clear():
        key.action = None
        f.cache_clear()
        alive.append(form() is not None)

    key = Key(clear)
    assert_same(f({key: X}), X * 2)
    assert alive == [True]
    f.cache_clear()
    assert form() is None


def test_what_is_rebound_before_each_call_makes_no_forms():
    module = types.ModuleType("model")
    exec("rate = 1.5\ndef f(x): return x * rate", vars(module))
    f = sg.trace(module.f)
    assert_fast(f, X)
    with mock.patch("staticgrad.calls.traced.form_of", side_effect=call_form.form_of) as made:
        for _ in range(10):
            module.rate = float("1.5")
            assert_same(f(X), X * 1.5)
        assert not made.called
        for _ in range(3):
            f(X)
        assert made.call_count == 1
    assert_fast(f, X)
    assert f.cache_info().traces == 1


def test_more_forms_than_fit_do_not_chase_each_other():
    f = sg.trace(lambda x: x * 2)
    shapes = [np.ones(n) for n in range(1, 2 * fast_call.MOST_FORMS)]
    for _ in range(2):
        for x in shapes:
            f(x)
    with mock.patch("staticgrad.calls.traced.form_of") as made, counting() as slow:
        for _ in range(5):
            for x in shapes:
                assert_same(f(x), x * 2)
    assert not made.called
    assert len(slow) == 5 * (len(shapes) - fast_call.MOST_FORMS)


def test_failing_allocations_leave_no_reference():
    testing = pytest.importorskip("_testcapi")
    f = sg.value_and_grad(lambda p, s: np.sum(np.tanh(p["a"]) * p["b"][0]) * s)
    p, s = {"a": np.linspace(0, 1, 3000), "b": [np.linspace(0, 1, 3000)]}, 2.0
    expected = warm(f, p, s)
    held = [p, p["a"], p["b"], p["b"][0], s]
    before = [sys.getrefcount(each) for each in held]
    failures = 0
    for allocation in range(40):
        try:
            testing.set_nomemory(allocation, allocation + 1)
            try:
                f(p, s)
            finally:
                testing.remove_mem_hooks()
        except MemoryError:
            failures += 1
    assert failures >= 3
    assert [sys.getrefcount(each) for each in held] == before
    assert_same(f(p, s), expected)


def test_reference_counts_of_the_types():
    def f(x):
        return x * 2

    warm(sg.trace(f), X)
    kinds = Traced, _Cold, FastCallable
    gc.collect()
    before = [sys.getrefcount(kind) for kind in kinds]
    for _ in range(1000):
        g = sg.trace(f)
        g(X)
        del g
    gc.collect()
    assert all(abs(a - b) <= 2 for a, b in zip(before, (sys.getrefcount(kind) for kind in kinds)))


def test_reference_counts_of_interned_and_immortal_objects():
    f = sg.trace(lambda flag, n, x: {"x": x, "none": None, "empty": (), "flag": flag})
    args = True, 3, X
    warm(f, *args)
    held = [True, None, (), 3, "x", "none", X]
    before = [sys.getrefcount(each) for each in held]
    for _ in range(10_000):
        f(*args)
    assert all(abs(sys.getrefcount(each) - count) <= 5 for each, count in zip(held, before))


def test_the_entry_is_found_under_the_debugging_allocator():
    code = "from staticgrad.runtime.fast_call import entry_address; assert entry_address()"
    subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, env={**os.environ, "PYTHONMALLOC": "debug"})


def test_the_interpreter_ends_with_forms_alive():
    code = """if True:
        import numpy as np, staticgrad as sg
        f = sg.trace(lambda x: np.tanh(x[::-1]) * x)
        x = np.ones(5000)
        for _ in range(4): f(x)
    """
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert not done.stderr


# ---- other threads and processes


def test_slow_calls_do_not_wait_for_a_compilation():
    started, go, gave_up = (threading.Event() for _ in range(3))

    def f(x):
        if x.shape == (7,):
            started.set()
            if not go.wait(30):
                gave_up.set()
        return x * 2

    g = sg.trace(f)
    for _ in range(3):
        g(X)
        g(X[:3])
    thread = threading.Thread(target=g, args=(np.ones(7),))
    thread.start()
    assert started.wait(10)
    for _ in range(3):
        assert_same(g(X), X * 2)
        assert_same(g(X[::2]), X[::2] * 2)  # a call that always takes the slow path
    go.set()
    thread.join()
    assert not gave_up.is_set()


def test_a_value_rebound_while_values_are_compared_is_seen():
    module = types.ModuleType("model")
    exec("a = 1.5\nb = 2.5\ndef f(x): return x * a * b", vars(module))
    guards = Guards.collect(module.f)
    sentence = Guard.sentence

    def rebind(guard):
        found = sentence(guard)
        module.a = 3.5  # as another thread may do
        return found

    module.a = float("1.5")
    with mock.patch.object(Guard, "sentence", rebind):
        assert guards.changed() is None
    assert "from 1.5 to 3.5" in guards.changed()


@pytest.mark.parametrize("change", ["put", "clear"])
def test_an_interrupt_while_forms_change_leaves_no_link_to_what_is_freed(change, monkeypatch):
    """Ctrl-C at any line of the change."""
    monkeypatch.setattr(fast_call, "MOST_FORMS", 4)
    f = sg.trace(lambda x: x * 2)
    shapes = [np.ones(n) for n in range(1, 5)]

    def links():
        (forms,) = f._record.forms.values()
        address = int(forms.head[0])
        while address:
            yield address
            address = ctypes.c_int64.from_address(address).value

    for step in range(25):
        for x in shapes:
            warm(f, x)
        lines = itertools.count()

        def interrupt(frame, event, _, step=step, lines=lines):
            if frame.f_code is not Forms._link.__code__:
                return None
            if event == "line" and next(lines) == step:
                raise KeyboardInterrupt
            return interrupt

        previous = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                f.cache_clear() if change == "clear" else warm(f, np.ones(99))
        finally:
            sys.settrace(previous)
        alive = {each.address for each in gc.get_objects() if type(each) is Form and hasattr(each, "address")}
        for address in links():
            assert address in alive
        for x in shapes:
            assert_same(f(x), x * 2)
        f.cache_clear()


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
def test_an_interrupt_at_the_ends_of_a_trace_leaves_nothing(method):
    """As of Ctrl-C in the last line of entering a trace, or in the first of leaving it."""
    f = sg.trace(lambda x: x * 2)

    def interrupted(trace, *_):
        if method == "__enter__":
            enter(trace)
        raise KeyboardInterrupt

    enter = Trace.__enter__
    with mock.patch.object(Trace, method, interrupted), pytest.raises(KeyboardInterrupt):
        f(X)
    assert_fast(f, X)
    assert not tracing() and traces_under_way[0] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_count_the_traces_of_other_threads():
    entered, go = threading.Event(), threading.Event()

    def work():
        with Trace("elsewhere"):
            entered.set()
            go.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(int(traces_under_way[0]))
    go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert traces_under_way[0] == 0


# ---- what must not send calls to the slow path


def test_names_that_are_missing_cost_nothing():
    module = types.ModuleType("model")
    exec("flag = False\ndef f(x):\n    if flag: return missing\n    return x * 2", vars(module))
    f = sg.trace(module.f)
    assert_fast(f, X)
    module.missing = 1.0
    with counting() as slow:
        assert_same(f(X), X * 2)
    assert slow


def test_an_odd_argument_does_not_send_the_usual_ones_to_the_slow_path():
    class Sub(np.ndarray):
        pass

    class Scale(enum.IntEnum):
        TWO = 2

    f = sg.trace(lambda x: x * 2)
    assert_slow(f, X.view(Sub))
    assert_fast(f, X)
    g = sg.trace(lambda x: x + x)
    assert_slow(g, Scale.TWO)
    assert_fast(g, np.int64(2))
    out = np.empty(6)
    for _ in range(3):
        f(X, out=out.view(Sub))
    for _ in range(3):
        f(X, out=out)
    with counting() as slow:
        f(X, out=out)
    assert not slow


# ---- any structure, any leaves

LEAVES = st.one_of(
    st.floats(allow_nan=True), st.integers(-(2**62), 2**62), st.booleans(), st.just(None),
    st.builds(
        lambda shape, dtype, seed: np.random.default_rng(seed).integers(0, 5, shape).astype(dtype),
        st.sampled_from([(), (1,), (3,), (2, 3), (0, 2), (1, 1, 2)]),
        st.sampled_from(["float64", "float32", "int64", "int8", "uint16", "bool", ">f8"]),
        st.integers(0, 9),
    ),
    st.sampled_from([np.float32(1.5), np.int8(-3), np.bool_(True), np.float64(-0.0), np.uint64(2**63)]),
    st.sampled_from([np.arange(12.0)[::2], np.arange(6.0).reshape(2, 3).T, np.frombuffer(bytes(17), np.uint8)[1:].view(np.float64)]),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b", 1, 2.5]), inner, max_size=3),
        inner.map(Box),
    ),
    max_leaves=6,
)


def reference_counts(tree: Any) -> list[int]:
    """Return the reference count of each array and container in a structure."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    own = [sys.getrefcount(tree)] if isinstance(tree, (dict, list, np.ndarray)) else []
    return own + [count for each in inner for count in reference_counts(each)]


@settings(max_examples=60, deadline=None)
@given(TREES, TREES)
def test_any_structure(first, second):
    def f(first, second):
        leaves = [leaf for leaf in optree.tree_leaves((first, second), namespace="") if leaf is not None]
        return {"same": (first, second), "more": [optree.tree_map(lambda leaf: leaf == leaf, second), leaves[:2]]}

    g = sg.trace(f)
    expected = warm(g, first, second)
    both = first, second
    before = reference_counts(both)
    for _ in range(3):
        found = g(first, second)
        assert_same(found, expected)
    del found
    assert reference_counts(both) == before
    odd = copy.deepcopy(second)
    assert_same(g(first, odd), expected)
