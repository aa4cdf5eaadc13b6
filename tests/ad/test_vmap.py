"""What `vmap` maps: axes of arguments and results in any structure, its errors, and what is the same for the whole batch."""

import itertools
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.errors import ArgumentError, AxisError, InvalidValueError, ShapeError

snp = sg.numpy
X = np.arange(6.0).reshape(2, 3)
Pair = namedtuple("Pair", ["first", "second"])


def mapped(function, *args, **kwargs):
    return sg.vmap(sg.trace(function, backend="interp"), *args, **kwargs)


# ---- axes


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3, np.int64(1)])
@pytest.mark.parametrize("out_axis", [0, 1, 2, -1, -3, np.int64(2)])
def test_every_axis(axis, out_axis):
    x = np.arange(24.0).reshape(2, 3, 4)
    found = mapped(lambda row: 2 * row.T, in_axes=axis, out_axes=out_axis)(x)
    np.testing.assert_array_equal(found, np.stack([2 * row.T for row in np.moveaxis(x, axis, 0)], out_axis))


@pytest.mark.parametrize(
    ("in_axes", "argument"),
    [
        (({"a": 0, "b": None},), {"a": X, "b": np.ones(3)}),
        (({"b": None, "a": 1},), {"a": X.T, "b": np.ones(3)}),
        ((OrderedDict(b=None, a=0),), OrderedDict(b=np.ones(3), a=X)),
        ((OrderedDict(a=0, b=None),), OrderedDict(b=np.ones(3), a=X)),
        (({"a": 0, "b": 0},), {"a": X, "b": np.ones((2, 3))}),
        (0, {"a": X, "b": np.ones((2, 3))}),
        ([-2], {"a": X, "b": np.ones((2, 3))}),
    ],
)
def test_axes_by_key(in_axes, argument):
    np.testing.assert_array_equal(mapped(lambda d: d["a"] + d["b"], in_axes)(argument), X + 1)


def test_keys_of_several_types():
    found = mapped(lambda d: d[1] + d["a"], ({1: 0, "a": None},))({1: X, "a": np.ones(3)})
    np.testing.assert_array_equal(found, X + 1)


def test_axes_as_a_prefix():
    found = mapped(lambda x, tree: x * tree["scale"][0] + tree["shift"], (0, {"scale": None, "shift": 0}))(
        X, {"scale": [2.0, 3.0], "shift": np.array([10.0, 20.0])}
    )
    np.testing.assert_array_equal(found, 2 * X + np.array([[10.0], [20.0]]))


def test_arguments_without_leaves():
    np.testing.assert_array_equal(mapped(lambda x, nothing: 2 * x, (0, 0))(X, None), 2 * X)
    np.testing.assert_array_equal(mapped(lambda d: 2 * d["x"], ({"x": 0, "y": None},))({"x": X, "y": None}), 2 * X)


def test_named_tuples_in_and_out():
    function = mapped(lambda p: Pair(p.first * 2, p.second), in_axes=(Pair(0, None),), out_axes=Pair(1, None))
    found = function(Pair(X, 1.0))
    np.testing.assert_array_equal(found.first, 2 * X.T)
    assert found.second == 1.0 and isinstance(found, Pair)


def test_results_in_a_structure():
    found = mapped(lambda x: {"row": x, "parts": [x.sum(), (x[1:], None)]}, out_axes={"row": 1, "parts": 0})(X)
    np.testing.assert_array_equal(found["row"], X.T)
    np.testing.assert_array_equal(found["parts"][0], X.sum(1))
    np.testing.assert_array_equal(found["parts"][1][0], X[:, 1:])
    assert found["parts"][1][1] is None


def test_keyword_arguments_are_mapped_along_their_first_axis():
    np.testing.assert_array_equal(mapped(lambda x, y: x * y)(X, y=np.array([1.0, 2.0])), X * [[1], [2]])
    np.testing.assert_array_equal(mapped(lambda x, y: x * y, in_axes=1)(X.T, y=np.array([1.0, 2.0])), X * [[1], [2]])


def test_static_arguments_are_not_mapped():
    power = sg.trace(lambda x, n: x**n, static_argnames="n", backend="interp")
    np.testing.assert_array_equal(sg.vmap(power)(X, n=2), X**2)
    np.testing.assert_array_equal(sg.vmap(power, in_axes=(1, None), out_axes=1)(X, 2), X**2)


def test_axis_size():
    assert mapped(lambda: snp.ones(3), in_axes=(), axis_size=4)().shape == (4, 3)
    np.testing.assert_array_equal(mapped(lambda x: 2 * x, in_axes=None, axis_size=2)(X[0]), np.stack([2 * X[0]] * 2))
    np.testing.assert_array_equal(mapped(lambda x: 2 * x, axis_size=2)(X), 2 * X)


def test_a_mapped_axis_of_none():
    assert mapped(lambda x: np.sum(x))(np.zeros((0, 3))).shape == (0,)
    assert mapped(sg.grad(lambda x: np.sum(x**2)))(np.zeros((0, 3))).shape == (0, 3)


def test_equal_axes_share_programs():
    function = sg.trace(lambda d: d["a"] * 2, backend="interp")
    for axes in ({"a": 0}, {"a": np.int8(0)}, {"a": 0}):
        sg.vmap(function, in_axes=(axes,))({"a": X})
    assert function.cache_info().traces == 1


# ---- what is the same for the whole batch


def test_results_that_are_not_mapped():
    value, tangents = mapped(lambda t: sg.jvp(np.sin, (X[0],), (t,)), out_axes=(None, 0))(np.eye(3))
    np.testing.assert_array_equal(value, np.sin(X[0]))
    np.testing.assert_allclose(tangents, np.diag(np.cos(X[0])))


def test_loops_over_what_is_not_mapped_stay_unmapped():
    def function(x):
        (steps, total), parts = sg.scan(lambda c, row: ((c[0] + 1, c[1] + row), c[0]), (0, x), snp.ones((4, 3)))
        return steps, total, parts

    steps, total, parts = mapped(function, out_axes=(None, 0, None))(X)
    assert steps == 4
    np.testing.assert_array_equal(total, X + 4)
    np.testing.assert_array_equal(parts, np.arange(4))


def test_a_result_that_differs_along_the_axis_needs_one():
    with pytest.raises(InvalidValueError, match=r"out_axes is None for a result that differs along the mapped axis(.|\n)*test_vmap.py"):
        mapped(lambda x: 2 * x, out_axes=None)(X)


def test_what_is_not_mapped_is_computed_once():
    graph = sg.vmap(lambda x, y: x + np.tanh(y), in_axes=(0, None)).lower(X, X[0]).graph
    assert [v.shape for node in graph.nodes if node.op.name == "tanh" for v in node.outputs] == [(3,)]


# ---- errors


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InvalidValueError, "maps no argument; axis_size", lambda: mapped(lambda x: x, None)(X)),
        (InvalidValueError, "maps no argument; axis_size", lambda: mapped(lambda: 1.0)()),
        (ShapeError, r"2 \(axis 0 of argument 0, f64\[2,3\]\), 4 \(axis 1 of argument 1\['w'\]", lambda: mapped(
            lambda x, y: x, (0, 1))(X, {"w": np.ones((2, 4))})),
        (ShapeError, r"5 \(axis_size\), 2", lambda: mapped(lambda x: x, axis_size=5)(X)),
        (AxisError, r"argument 0 is f64\[2,3\] and has no axis 2", lambda: mapped(lambda x: x, 2)(X)),
        (AxisError, r"argument 0 is f64\[2,3\] and has no axis -3", lambda: mapped(lambda x: x, -3)(X)),
        (AxisError, r"argument y is .* by position", lambda: mapped(lambda x, y: x)(X, y=3.0)),
        (AxisError, r"out_axes 2 for a result of shape \(2, 3\)", lambda: mapped(lambda x: x, out_axes=2)(X)),
        (InvalidValueError, r"in_axes \(0,\) is no prefix", lambda: mapped(lambda x, y: x, (0,))(X, X)),
        (InvalidValueError, "in_axes .* is no prefix", lambda: mapped(lambda d: d["a"], ({"a": 0},))({"a": X, "b": X})),
        (InvalidValueError, "in_axes .* is no prefix", lambda: mapped(lambda x: x, ((0, 0),))(X)),
        (InvalidValueError, "out_axes .* is no prefix", lambda: mapped(lambda x: (x, x), out_axes=(0, 0, 0))(X)),
        (ArgumentError, "in_axes is an integer, None or a tuple", lambda: mapped(lambda x: x, 1.0)(X)),
        (ArgumentError, "in_axes is an integer, None or a tuple", lambda: mapped(lambda d: d["a"], {"a": 0})({"a": X})),
        (ArgumentError, "in_axes holds integers and None", lambda: mapped(lambda x: x, ("x",))(X)),
        (ArgumentError, "out_axes holds integers and None", lambda: mapped(lambda x: x, out_axes=1.0)(X)),
        (ArgumentError, "axis_name is not supported", lambda: mapped(lambda x: x, axis_name="batch")(X)),
        (ArgumentError, "axis_name is not supported", lambda: mapped(lambda x: x, spmd_axis_name="batch")(X)),
        (ArgumentError, "axis_size is an integer", lambda: mapped(lambda x: x, axis_size=2.0)(X)),
        (InvalidValueError, "axis_size is -1", lambda: mapped(lambda x: 1, None, axis_size=-1)(X)),
    ],
)  # fmt: skip
def test_errors(error, message, call):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "test_vmap.py" in str(caught.value)


# ---- control flow: what an element does not compute does not reach its derivative


def branch(x):
    return sg.cond(x > 0, np.log, lambda x: 2 * x, x)


def unknown_steps(x):
    return sg.while_loop(lambda c: c > 1, lambda c: np.sqrt(c - 1), x)


def some_steps(x):
    return sg.fori_loop(0, np.minimum(x.astype(int) // 2, 2), lambda i, c: np.sqrt(c - 1), x)


def kept_steps(x):
    return np.sum(sg.scan(lambda c, k: (branch(c) + 0.3 * k, c), x, np.arange(4.0))[1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("function", [branch, unknown_steps, some_steps, kept_steps])
def test_derivatives_through_batches_of_control_flow(function):
    """The steps of a loop that is done, and the branches not taken, have no finite derivative for some of these numbers."""
    x = np.array([0.0, 5.0, 1.5, -1.0, 30.0, 0.5])

    def total(x):
        return np.sum(sg.vmap(function)(x) * np.arange(1.0, 7.0))

    single = sg.trace(function, backend="interp")
    first = np.array([sg.grad(single)(v) for v in x])
    second = np.array([sg.grad(sg.grad(single))(v) for v in x])
    weights = np.arange(1.0, 7.0)
    assert np.all(np.isfinite(first))
    gradient = sg.grad(sg.trace(total, backend="interp"))
    np.testing.assert_allclose(gradient(x), first * weights, rtol=1e-12)
    np.testing.assert_allclose(mapped(sg.grad(function))(x), first, rtol=1e-12)
    np.testing.assert_allclose(sg.jvp(mapped(function), (x,), (weights,))[1], first * weights, rtol=1e-12)
    np.testing.assert_allclose(sg.hvp(sg.trace(total, backend="interp"), (x,), (np.ones(6),)), second * weights, rtol=1e-12)
    np.testing.assert_allclose(sg.grad(lambda x: np.sum(gradient(x)))(x), second * weights, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 1, 2)], ids=["nobody takes part", "some do"])
def test_second_derivatives_by_what_all_elements_share(counts):
    """A step has no finite derivative, of x or of w that all share, for the element that does none."""
    x, w, counts = np.array([1.0, 2.0, 3.0]), 1.0 if not any(counts) else 1.5, np.array(counts)

    def some_steps(x, count, w):
        return sg.fori_loop(0, count, lambda i, c: np.sqrt((c - 1) * np.log(w)) + w / (c - 1), x)

    def total(x, w):
        return np.sum(sg.vmap(some_steps, in_axes=(0, 0, None))(x, counts, w))

    def hessian(function, inner, outer):
        found = sg.trace(sg.jacobian(sg.jacobian(function, (0, 1), mode=inner), (0, 1), mode=outer), backend="interp")(x, w)
        (xx, xw), (wx, ww) = found
        return np.block([[xx, xw[:, None]], [wx[None], np.array([[ww]])]])

    expected = np.zeros((4, 4))
    for k, count in enumerate(counts):
        if count:  # one element at a time, forwards
            expected += hessian(lambda x, w, k=k, count=count: some_steps(x[k], int(count), w), "forward", "forward")
    for inner, outer in itertools.product(("forward", "reverse"), repeat=2):
        np.testing.assert_allclose(hessian(total, inner, outer), expected, rtol=1e-10, atol=1e-12)


def test_the_pattern_of_a_batch_of_branches_is_diagonal():
    found = sg.sparse_jacobian(lambda x: sg.vmap(branch)(x))(np.array([0.5, -1.0, 2.0]))
    assert found.nnz == 3
    np.testing.assert_allclose(found.diagonal(), [2.0, 2.0, 0.5])


# ---- what becomes of it: one batched graph that fuses like any other


def loss(params, x, label):
    hidden = np.tanh(x @ params["w"] + params["b"])
    scores = hidden @ params["v"]
    return sg.special.logsumexp(scores) - scores[label]


def network(batch):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((16, 32)), "b": np.zeros(32), "v": rng.standard_normal((32, 10))}
    return params, rng.standard_normal((batch, 16)), rng.integers(0, 10, batch)


def test_gradients_of_each_example_take_as_many_nests_for_any_batch():
    gradients = sg.vmap(sg.grad(loss), in_axes=(None, 0, 0))
    few, many = (gradients.lower(*network(batch)) for batch in (2, 64))
    assert few.report.forward_nests == many.report.forward_nests <= 14, str(many.schedule)
    arguments = network(8)
    found = gradients(*arguments)
    for k in range(8):
        single = sg.grad(loss)(arguments[0], arguments[1][k], arguments[2][k])
        for name, gradient in single.items():
            np.testing.assert_allclose(found[name][k], gradient, rtol=1e-12, atol=1e-14)


def test_norms_of_gradients_take_no_memory_for_the_gradients():
    def norm(params, x, label):
        return sum(np.sum(g * g) for g in sg.grad(loss)(params, x, label).values())

    params, x, labels = network(64)
    lowered = sg.vmap(norm, in_axes=(None, 0, 0)).lower(params, x, labels)
    assert lowered.memory < 64 * params["w"].nbytes / 4


def test_loops_of_a_batch_are_one_loop():
    def steps(x):
        return sg.while_loop(lambda c: c[0] < 100, lambda c: (c[0] * 1.5 + 1, c[1] + 1), (x, 0))

    lowered = sg.vmap(steps).lower(np.arange(1000.0))
    assert lowered.report.forward_nests == 1
    assert str(lowered.source).count("while True") == 1
