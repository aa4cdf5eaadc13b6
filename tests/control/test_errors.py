"""What users can do wrong: each error says what does not fit with what, and where."""

import os

import numpy as np
import pytest

import staticgrad as sg

HERE = os.path.basename(__file__)
x, xs = np.ones(3), np.ones((4, 3))

CASES = {
    # name: (call, errors, words of the message)
    "pred of ints": (lambda: sg.cond(1, lambda: 1.0, lambda: 2.0), TypeError, ["cond", "predicate", "bool", "!= 0"]),
    "pred of floats": (lambda: sg.cond(x[0], lambda: 1.0, lambda: 2.0), TypeError, ["cond", "f64[]", "bool"]),
    "pred with a shape": (lambda: sg.cond(x > 0, lambda: 1.0, lambda: 2.0), ValueError, ["cond", "(3,)", "np.any"]),
    "pred is no array": (lambda: sg.cond("yes", lambda: 1.0, lambda: 2.0), TypeError, ["yes"]),
    "branches of other shapes": (lambda: sg.cond(True, lambda v: v, lambda v: v[:2], x), ValueError, ["f64[3]", "f64[2]"]),
    "branches of other dtypes": (lambda: sg.cond(True, lambda v: v, lambda v: v.astype(np.float32), x), TypeError, ["f64[3]", "f32[3]"]),
    "branches of other structures": (lambda: sg.cond(True, lambda v: (v, v), lambda v: [v], x), TypeError, ["structure"]),
    "branches with other arguments": (lambda: sg.cond(True, lambda v: v, lambda v, w: v, x), TypeError, ["missing"]),
    "index of floats": (lambda: sg.switch(1.0, [np.sin, np.cos], x), TypeError, ["switch", "integer"]),
    "index with a shape": (lambda: sg.switch(np.arange(2), [np.sin, np.cos], x), ValueError, ["switch", "(2,)"]),
    "no branches": (lambda: sg.switch(0, [], x), ValueError, ["no branches"]),
    "third branch": (lambda: sg.switch(0, [np.sin, np.cos, np.sum], x), ValueError, ["sin", "sum", "f64[3]", "f64[]"]),
    "condition of floats": (lambda: sg.while_loop(lambda v: v, lambda v: v, 1.0), TypeError, ["while_loop", "condition", "bool"]),
    "condition with a shape": (lambda: sg.while_loop(lambda v: v > 0, lambda v: v, x), ValueError, ["while_loop", "condition", "bool[3]"]),
    "two conditions": (lambda: sg.while_loop(lambda v: (v > 0, v < 1), lambda v: v, 1.0), TypeError, ["while_loop", "one bool"]),
    "while changes shape": (lambda: sg.while_loop(lambda v: v[0] > 0, lambda v: v[:2], x), ValueError, ["f64[3]", "f64[2]"]),
    "while changes structure": (lambda: sg.while_loop(lambda v: v > 0, lambda v: (v,), 1.0), TypeError, ["while_loop", "structure"]),
    "negative limit": (lambda: sg.while_loop(lambda v: v > 0, lambda v: v, 1.0, max_steps=-1), ValueError, ["max_steps", "-1"]),
    "limit is no number": (lambda: sg.while_loop(lambda v: v > 0, lambda v: v, 1.0, max_steps=2.5), TypeError, ["max_steps", "2.5"]),
    "fori changes dtype": (
        lambda: sg.fori_loop(0, 3, lambda i, v: v.astype(np.float32), x), TypeError, ["fori_loop", "f64[3]", "f32[3]", "astype"],
    ),
    "integers become floats": (lambda: sg.fori_loop(0, 3, lambda i, v: v / 2, np.int64(7)), TypeError, ["i64[]", "f64[]"]),
    "bound of floats": (lambda: sg.fori_loop(0, 3.0, lambda i, v: v, x), TypeError, ["fori_loop", "bound", "3.0"]),
    "traced bound of floats": (lambda: sg.trace(lambda n: sg.fori_loop(0, n, lambda i, v: v, 0))(3.0), TypeError, ["bound", "f64[]"]),
    "traced bounds": (lambda: sg.trace(lambda n: sg.fori_loop(0, n, lambda i, v: v, 0))(np.arange(3)), ValueError, ["bound", "(3,)"]),
    "lengths differ": (lambda: sg.scan(lambda c, v: (c, v), 0.0, (xs, x)), ValueError, ["scan", "4 and 3"]),
    "length differs": (lambda: sg.scan(lambda c, v: (c, v), 0.0, xs, length=3), ValueError, ["length=3", "4"]),
    "no length": (lambda: sg.scan(lambda c, v: (c, v), 0.0), TypeError, ["scan", "length=10"]),
    "negative length": (lambda: sg.scan(lambda c, v: (c, v), 0.0, None, -2), ValueError, ["length=-2"]),
    "length is no number": (lambda: sg.scan(lambda c, v: (c, v), 0.0, None, 2.5), TypeError, ["length", "2.5"]),
    "traced length": (lambda: sg.trace(lambda n: sg.scan(lambda c, v: (c, v), 0.0, None, n))(3), TypeError, ["length", "while_loop"]),
    "xs without an axis": (lambda: sg.scan(lambda c, v: (c, v), 0.0, (xs, 1.0)), ValueError, ["scan", "axis"]),
    "no pair": (lambda: sg.scan(lambda c, v: c, 0.0, xs), TypeError, ["scan", "pair", "not an array (f64[]~)"]),
    "a list of two": (lambda: sg.scan(lambda c, v: [c, v], 0.0, xs), TypeError, ["scan", "pair", "list of 2"]),
    "scan changes shape": (lambda: sg.scan(lambda c, v: (v, c), x[:2], xs), ValueError, ["scan", "f64[2]", "f64[3]"]),
    "scan changes structure": (lambda: sg.scan(lambda c, v: ((c, c), v), 0.0, xs), TypeError, ["scan", "structure"]),
    "a number would be cut off": (lambda: sg.fori_loop(0, 3, lambda i, v: v.astype(int), 1.5), TypeError, ["f64[]", "i64[]"]),
    "a carry of text": (lambda: sg.scan(lambda c, v: (c, v), "text", xs), TypeError, ["text"]),
    "loop of no function": (lambda: sg.fori_loop(0, 3, 42, x), TypeError, ["body of fori_loop", "42", "not callable"]),
    "condition of no function": (lambda: sg.while_loop(True, lambda v: v, x), TypeError, ["condition of while_loop", "bool", "callable"]),
    "branch of no function": (lambda: sg.cond(True, x, lambda v: v, x), TypeError, ["branch of cond", "ndarray", "not callable"]),
    "scan of no function": (lambda: sg.scan("step", 0.0, xs), TypeError, ["body of scan", "step", "not callable"]),
    "unrolled by nothing": (lambda: sg.scan(lambda c, v: (c, v), 0.0, xs, unroll=0), ValueError, ["scan", "unroll=0"]),
    "unrolled by a word": (lambda: sg.fori_loop(0, 3, lambda i, v: v, x, unroll="all"), TypeError, ["fori_loop", "unroll", "'all'"]),
    "map of no function": (lambda: sg.map(3, xs), TypeError, ["map", "3", "not callable"]),
    "map over nothing": (lambda: sg.map(lambda v: v, ()), TypeError, ["map", "no arrays"]),
    "map over lengths that differ": (lambda: sg.map(lambda v: v, (xs, x), batch_size=2), ValueError, ["map", "4 and 3"]),
    "map over numbers": (lambda: sg.map(lambda v: v, 1.0), ValueError, ["map", "axis"]),
    "batches of nothing": (lambda: sg.map(lambda v: v, xs, batch_size=0), ValueError, ["batch_size=0"]),
    "batches of a part": (lambda: sg.map(lambda v: v, xs, batch_size=1.5), TypeError, ["batch_size", "1.5"]),
    "combined by no function": (lambda: sg.associative_scan(1, xs), TypeError, ["associative_scan", "not callable"]),
    "combined to another dtype": (
        lambda: sg.associative_scan(lambda a, b: a.astype(np.float32), xs), TypeError, ["associative_scan", "f64[2,3]", "f32[2,3]"],
    ),
    "combined to another shape": (
        lambda: sg.associative_scan(lambda a, b: np.sum(a, 1), xs), ValueError, ["associative_scan", "f64[2,3]", "f64[2]"],
    ),
    "a number that does not fit": (
        lambda: sg.trace(lambda v: sg.scan(lambda c, v: (c + v, v), -1, v))(np.ones(3, np.uint8)), OverflowError, ["-1", "uint8"],
    ),
    "results of text": (lambda: sg.scan(lambda c, v: (c, "text"), 0.0, xs), TypeError, ["text"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_messages(name):
    call, error, words = CASES[name]
    with pytest.raises(error) as found:
        call()
    assert isinstance(found.value, sg.StaticgradError)
    assert all(word in str(found.value) for word in words), str(found.value)
    assert HERE in str(found.value)


def test_messages_inside_of_a_trace():
    @sg.trace
    def f(v):
        return sg.fori_loop(0, 3, lambda i, c: np.concatenate([c, c]), v)  # here

    with pytest.raises(ValueError, match=r"starts as f64\[3\].*makes it f64\[6\]") as found:
        f(x)
    assert "# here" in str(found.value)


@pytest.mark.parametrize("transform", [sg.trace, sg.grad])
def test_printing_inside_of_a_body(transform):
    def shows(c, v):
        sg.debug.print("{}", c)
        return c + v, None

    with pytest.raises(sg.StaticgradError, match=r"sg\.debug\.print in the body of scan shows") as found:
        transform(lambda total: sg.scan(shows, total, x)[0])(0.0)
    assert "scan" in str(found.value)
    with pytest.raises(sg.StaticgradError, match=r"sg\.debug\.print in a branch of cond"):
        transform(lambda c: sg.cond(c > 0, lambda v: shows(v, v)[0], lambda v: v, c))(1.0)


def test_tracers_do_not_leave_bodies():
    kept = []

    def step(c, v):
        kept.append(c)
        return c + v, None

    @sg.trace
    def f(total):
        return sg.scan(step, total, x)[0] + kept[0]

    with pytest.raises(sg.TraceError, match="after its tracing ended"):
        f(0.0)


def test_python_control_flow_names_the_way_out():
    with pytest.raises(sg.TraceError, match=r"sg\.cond|sg\.while_loop"):
        sg.trace(lambda v: 1.0 if v > 0 else 2.0)(1.0)


def test_indices_out_of_bounds_are_reported():
    f = sg.trace(lambda t, n: sg.fori_loop(0, n, lambda i, v: v + t[i], 0.0))
    assert f(x, 3) == 3.0
    with pytest.raises(IndexError, match="3 for an axis with size 3"):
        f(x, 4)
