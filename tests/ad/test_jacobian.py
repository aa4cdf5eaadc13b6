"""Jacobians, Hessians, products with Hessians and linearisation: against JAX, against differences, and against each other."""

import functools

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import staticgrad as sg
from staticgrad.ad.jacobian import blocks_by_pullback, blocks_by_pushforward
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, MissingDerivativeError, ShapeError
from staticgrad.gradient_check import derivative_at_zero
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from tests.ad.functions import CASES
from tests.fuzz.programs import Program

RNG = np.random.default_rng(0)
MODES = ("reverse", "forward")


def interpreted(function):
    return sg.trace(function, backend="interp")


def assert_trees_close(found, expected, rtol=1e-10, atol=1e-11):
    leaves, tree = optree.tree_flatten(found)
    others, other_tree = optree.tree_flatten(expected)
    assert tree == other_tree
    for x, y in zip(leaves, others, strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def numeric_jacobian(f, x):
    """Return the Jacobian of an array-valued function of one array by differences."""
    columns = []
    for unit in np.eye(x.size).reshape(x.size, *x.shape):
        columns.append(derivative_at_zero(lambda h, unit=unit: np.asarray(f(x + h * unit)), 0.125))
    return np.stack(columns, axis=-1).reshape(*np.shape(f(x)), *x.shape)


# ---- structure, against JAX


def with_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def params():
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal((3, 2)), "b": [rng.standard_normal(2), rng.standard_normal()]}


def layers(np_, p, x):
    hidden = np_.tanh(x @ p["w"] + p["b"][0])
    return {"hidden": hidden, "parts": (np_.sum(hidden * p["b"][1]), hidden[0] * 2.0)}


@pytest.mark.parametrize("mode", ["auto", *MODES])
@pytest.mark.parametrize("argnums", [0, 1, (1,), (0, 1), -1, (1, 0)])
def test_structure_is_that_of_jax(mode, argnums):
    jax = with_jax()
    x = np.random.default_rng(2).standard_normal((2, 3))
    found = sg.jacobian(interpreted(lambda p, x: layers(np, p, x)), argnums, mode)(params(), x)
    transform = {"auto": jax.jacobian, "reverse": jax.jacrev, "forward": jax.jacfwd}[mode]
    expected = transform(lambda p, x: layers(jax.numpy, p, x), argnums)(params(), x)
    assert_trees_close(found, jax.tree.map(np.asarray, expected))


@pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
def test_structure_of_hessians_is_that_of_jax(argnums):
    jax = with_jax()
    x = np.random.default_rng(2).standard_normal((2, 3))
    found = sg.hessian(interpreted(lambda p, x: layers(np, p, x)), argnums)(params(), x)
    expected = jax.hessian(lambda p, x: layers(jax.numpy, p, x), argnums)(params(), x)
    assert_trees_close(found, jax.tree.map(np.asarray, expected))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_jacobians_and_hessians_of_the_cases(case):
    """The Jacobian is the gradient, in both modes; the Hessian is symmetric, in all orders of the modes, and equals JAX's."""
    jax = with_jax()
    numbers = tuple(k for k, x in enumerate(case.args) if np.asarray(x).dtype.kind == "f")
    function = interpreted(lambda *args: case.function(np, *args))
    gradient = sg.grad(function, numbers)(*case.args)
    for mode in MODES:
        assert_trees_close(sg.jacobian(function, numbers, mode)(*case.args), gradient)
    k = numbers[0]
    hessian = sg.hessian(function, k)(*case.args)
    size = np.size(case.args[k])
    flat = np.reshape(hessian, (size, size))
    np.testing.assert_allclose(flat, flat.T, rtol=1e-9, atol=1e-9)
    for first in MODES:
        for second in MODES:
            found = sg.jacobian(sg.jacobian(function, k, first), k, second)(*case.args)
            np.testing.assert_allclose(found, hessian, rtol=1e-9, atol=1e-9)
    if case.name not in ("kinks", "reductions"):  # JAX differentiates its own choices at ties
        expected = jax.hessian(lambda *args: case.function(jax.numpy, *args), k)(*map(np.asarray, case.args))
        np.testing.assert_allclose(hessian, expected, rtol=1e-8, atol=1e-8)


# ---- values, against differences


def test_jacobians_against_differences():
    x = RNG.standard_normal((2, 3))

    def function(x):
        return np.stack([np.sin(x) @ x.T, np.cumsum(x @ x.T, axis=0)]) * np.exp(x[0, 0])

    expected = numeric_jacobian(function, x)
    assert expected.shape == (2, 2, 2, 2, 3)
    for mode in MODES:
        np.testing.assert_allclose(sg.jacobian(interpreted(function), mode=mode)(x), expected, rtol=1e-6, atol=1e-8)


shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@given(shape=shapes, seed=st.integers(0, 10), single=st.booleans())
def test_both_modes_agree_for_every_shape(shape, seed, single):
    """A vector of a few mixed functions of x; the blocks, row by row, are gradients."""
    dtype = np.float32 if single else np.float64
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal(shape)).astype(dtype)

    def function(x):
        return np.tanh(x) * np.sum(x), np.sum(x * x)

    by_reverse, by_forward = (sg.jacobian(interpreted(function), mode=mode)(x) for mode in MODES)
    rtol = 1e-4 if single else 1e-11
    for k, out_shape in enumerate((shape, ())):
        assert by_reverse[k].shape == by_forward[k].shape == (*out_shape, *shape)
        assert by_reverse[k].dtype == by_forward[k].dtype == dtype
        np.testing.assert_allclose(by_reverse[k], by_forward[k], rtol=rtol, atol=rtol)
    diagonal = np.eye(x.size, dtype=dtype).reshape((*shape, *shape))
    spread = np.expand_dims(1 - np.tanh(x) ** 2, tuple(range(x.ndim, 2 * x.ndim))) * diagonal
    expected = spread * np.sum(x) + np.expand_dims(np.tanh(x), tuple(range(x.ndim, 2 * x.ndim)))
    np.testing.assert_allclose(by_reverse[0], expected, rtol=rtol, atol=rtol)


@given(shape=shapes, seed=st.integers(0, 10))
def test_linear_parts_are_adjoint(shape, seed):
    """<g, J t> = <J^T g, t>, with J formed, pushed forward, pulled back and linearised."""
    rng = np.random.default_rng(seed)
    x, t = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    function = interpreted(lambda x: np.sin(x) * np.mean(np.append(x, 1.0)))
    g = np.asarray(rng.standard_normal(shape))
    value, pushforward = sg.linearize(function, x)
    np.testing.assert_array_equal(value, function(x))
    moved = np.sum(g * pushforward(t))
    np.testing.assert_allclose(np.sum(sg.vjp(function, x)[1](g)[0] * t), moved, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.sum(g * sg.jvp(function, (x,), (t,))[1]), moved, rtol=1e-10, atol=1e-12)
    flat = np.reshape(sg.jacobian(function)(x), (x.size, x.size))
    np.testing.assert_allclose(np.ravel(g) @ flat @ np.ravel(t), moved, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_blocks_of_random_programs(seed):
    """Both modes, for values of random smooth graphs, and the Hessian of their total in four orders of the modes."""
    program = Program(seed + 5000, smooth=True).grow(15)
    inputs, active = tuple(program.inputs), program.active()
    outputs = [v for v in program.pool[-3:] if v.dtype.kind == "f" and v.aval.size <= 30]
    from staticgrad.ops.control import inline_calls

    total, *outputs = inline_calls(Graph(inputs, (program.total(), *outputs))).outputs
    rows = [block for y in outputs for block in blocks_by_pullback(y, active)]
    columns = [blocks_by_pushforward(outputs, x) for x in active]
    found = interpret(Graph(inputs, (*rows, *(column[k] for k in range(len(outputs)) for column in columns))), program.arrays)
    for by_reverse, by_forward in zip(found[: len(rows)], found[len(rows) :], strict=True):
        np.testing.assert_allclose(by_reverse, by_forward, rtol=1e-9, atol=1e-9 * max(1.0, np.max(np.abs(by_forward), initial=0)))

    def blocks(mode, values, x):
        return [blocks_by_pullback(y, [x])[0] for y in values] if mode == "reverse" else blocks_by_pushforward(values, x)

    x = active[0]
    hessians = [blocks(second, blocks(first, [total], x), x)[0] for first in MODES for second in MODES]
    first, *others = interpret(Graph(inputs, tuple(hessians)), program.arrays)
    scale = max(1.0, np.max(np.abs(first), initial=0))
    flat = first.reshape(x.aval.size, x.aval.size)
    np.testing.assert_allclose(flat, flat.T, rtol=0, atol=1e-9 * scale)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0, atol=1e-9 * scale)


# ---- arguments and results of every kind


def test_numbers_and_scalars():
    for x in (2.0, np.float64(2.0), np.array(2.0)):
        for mode in MODES:
            found = sg.jacobian(lambda x: x * x * x, mode=mode)(x)
            assert np.shape(found) == ()
            assert found == 12.0
        assert sg.hessian(lambda x: x * x * x)(x) == 12.0
    assert sg.jacobian(lambda x: x**2)(np.float32(3)).dtype == np.float32


def test_dtypes_are_those_of_the_arguments():
    x, y = np.float32([1, 2]), np.array([3.0, 4.0, 5.0])
    for mode in MODES:
        by_x, by_y = sg.jacobian(interpreted(lambda x, y: np.outer(x, y)), (0, 1), mode)(x, y)
        assert (by_x.dtype, by_y.dtype) == (np.float32, np.float64)
        assert (by_x.shape, by_y.shape) == ((2, 3, 2), (2, 3, 3))


def test_what_does_not_depend_is_zero():
    for mode in MODES:
        by_x, by_y = sg.jacobian(interpreted(lambda x, y: np.sin(y)), (0, 1), mode)(np.ones(2), np.zeros(3))
        np.testing.assert_array_equal(by_x, np.zeros((3, 2)))
        np.testing.assert_array_equal(by_y, np.eye(3))
        np.testing.assert_array_equal(sg.jacobian(interpreted(lambda x: np.ones(2)), mode=mode)(np.ones(3)), np.zeros((2, 3)))


def test_an_argument_as_result():
    for mode in MODES:
        np.testing.assert_array_equal(sg.jacobian(lambda x: x, mode=mode)(np.zeros((2, 2))), np.eye(4).reshape(2, 2, 2, 2))


def test_auxiliary_results():
    def function(x, scale):
        return x * x * scale, {"sum": np.sum(x), "count": np.argmax(x)}

    x = np.array([1.0, 3.0, 2.0])
    for mode in MODES:
        jacobian, aux = sg.jacobian(function, mode=mode, has_aux=True)(x, 2.0)
        np.testing.assert_array_equal(jacobian, np.diag(4 * x))
        assert aux == {"sum": 6.0, "count": 1}
    hessian, aux = sg.hessian(lambda x: (np.sum(x**3), np.max(x)), has_aux=True)(x)
    np.testing.assert_allclose(hessian, np.diag(6 * x))
    assert aux == 3.0


def test_auxiliary_results_of_products():
    """jvp, linearize and vjp keep apart what is not differentiated, whatever its structure; nested, too."""

    def function(x):
        return {"y": np.sin(x) * x}, [np.argmax(x), {"x": 2 * x, "nothing": None}]

    def checked(aux):
        assert aux[0] == 1
        np.testing.assert_array_equal(aux[1]["x"], 2 * x)
        assert aux[1]["nothing"] is None

    x, t = np.array([0.3, 0.5]), np.array([1.0, -2.0])
    slope = np.cos(x) * x + np.sin(x)
    value, moved, aux = sg.jvp(interpreted(function), (x,), (t,), has_aux=True)
    np.testing.assert_allclose(value["y"], np.sin(x) * x)
    np.testing.assert_allclose(moved["y"], slope * t)
    checked(aux)
    _, pushforward, aux = sg.linearize(interpreted(function), x, has_aux=True)
    np.testing.assert_allclose(pushforward(t)["y"], slope * t)
    checked(aux)
    _, pullback, aux = sg.vjp(interpreted(function), x, has_aux=True)
    np.testing.assert_allclose(pullback({"y": t})[0], slope * t)
    checked(aux)
    twice = interpreted(lambda x: (sg.jvp(function, (x,), (t,), has_aux=True)[1]["y"], sg.jvp(function, (x,), (t,), has_aux=True)[2]))
    _, _, aux = sg.jvp(twice, (x,), (t,), has_aux=True)
    checked(aux)
    with pytest.raises(ArgumentError, match=r"jvp of .*has_aux=True: the function must return a pair"):
        sg.jvp(np.sin, (1.0,), (1.0,), has_aux=True)


def test_keyword_and_static_arguments():
    @functools.partial(sg.trace, static_argnames="power", backend="interp")
    def function(x, power, *, scale):
        return x**power * scale

    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(sg.jacobian(function)(x, 3, scale=2.0), np.diag(6 * x * x))
    np.testing.assert_array_equal(sg.hessian(function)(x, power=2, scale=1.0)[0], [[2, 0], [0, 0]])
    with pytest.raises(ArgumentError, match="static"):
        sg.jacobian(function, 1)(x, 3, scale=2.0)


def test_auto_takes_the_shorter_side():
    """The batch has the length of the smaller side; of equal sides it takes reverse mode, and a scalar needs no batch."""

    def batch(rows, columns):
        matrix = np.ones((rows, columns))
        graph = sg.jacobian(lambda x: matrix @ np.sin(x)).lower(np.zeros(columns)).graph
        return {v.shape for node in graph.nodes if node.op.name == "equal" for v in node.outputs}

    assert batch(2, 50) == batch(50, 2) == batch(2, 2) == {(2, 2)}
    assert batch(3, 5) == {(3, 3)}
    assert batch(1, 50) == batch(50, 1) == set()


def test_auto_takes_the_side_that_has_a_rule():
    numba = pytest.importorskip("numba")

    @numba.njit
    def double(x):
        return x * 2.0

    only_reverse = sg.njit_op(double, vjp=lambda g, y, x: (2.0 * g,))
    only_forward = sg.njit_op(double, jvp=lambda t, y, x: 2.0 * t[0])
    x = np.ones(2)
    for op in (only_reverse, only_forward):
        tall, wide = (lambda x, op=op: np.tile(op(x), 2)), (lambda x, op=op: np.sum(op(x)))
        np.testing.assert_array_equal(sg.jacobian(interpreted(tall))(x), 2 * np.tile(np.eye(2), (2, 1)))
        np.testing.assert_array_equal(sg.jacobian(interpreted(wide))(x), [2, 2])
    with pytest.raises(MissingDerivativeError, match="forward"):
        sg.jacobian(only_reverse, mode="forward")(x)
    with pytest.raises(MissingDerivativeError, match="forward"):
        sg.jacobian(interpreted(lambda x: np.tile(sg.njit_op(double)(x), 2)))(x)


# ---- composition


def test_inside_of_a_trace_and_closing_over_it():
    @interpreted
    def outer(x, scale):
        jacobian = sg.jacobian(lambda y: np.sin(y) * scale)(x)
        return jacobian, sg.hessian(lambda y: np.sum(y**3) * scale)(x), sg.hvp(lambda y: np.sum(y**3) * scale, (x,), (x,))

    x = RNG.standard_normal(3)
    jacobian, hessian, product = outer(x, 2.0)
    np.testing.assert_allclose(jacobian, np.diag(2 * np.cos(x)))
    np.testing.assert_allclose(hessian, np.diag(12 * x))
    np.testing.assert_allclose(product, 12 * x * x)
    by_scale = sg.jacobian(outer, 1)(x, 2.0)
    np.testing.assert_allclose(by_scale[0], np.diag(np.cos(x)))


def test_nested_to_any_order():
    function = interpreted(lambda x: np.sin(x[0]) * np.exp(x[1]) + x[0] ** 3 * x[1] ** 2)
    jax = with_jax()

    def expected(x):
        return jax.numpy.sin(x[0]) * jax.numpy.exp(x[1]) + x[0] ** 3 * x[1] ** 2

    x = np.array([0.4, -0.7])
    third = jax.jacfwd(jax.jacfwd(jax.jacrev(expected)))
    for modes in [(a, b, c) for a in MODES for b in MODES for c in MODES]:
        made = function
        for mode in modes:
            made = sg.jacobian(made, mode=mode)
        np.testing.assert_allclose(made(x), third(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sg.hessian(sg.hessian(function))(x), jax.hessian(jax.hessian(expected))(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sg.jacobian(sg.grad(function))(x), jax.hessian(expected)(x), rtol=1e-10, atol=1e-12)
    trace_of = interpreted(lambda x: np.trace(sg.hessian(function)(x)))
    np.testing.assert_allclose(sg.grad(trace_of)(x), np.trace(np.asarray(third(x))), rtol=1e-10, atol=1e-12)


def test_batches_of_jacobians():
    function = interpreted(lambda x, w: np.tanh(w @ x))
    xs, w = RNG.standard_normal((4, 3)), RNG.standard_normal((2, 3))
    for mode in MODES:
        single = sg.jacobian(function, (0, 1), mode)
        found = sg.vmap(single, in_axes=(0, None))(xs, w)
        for row, x in enumerate(xs):
            for many, one in zip(found, single(x, w), strict=True):
                np.testing.assert_allclose(many[row], one, rtol=1e-12)
    hessians = sg.vmap(sg.hessian(interpreted(lambda x: np.sum(np.tanh(w @ x)))))(xs)
    np.testing.assert_allclose(hessians[2], sg.hessian(interpreted(lambda x: np.sum(np.tanh(w @ x))))(xs[2]), rtol=1e-12)


def test_the_jacobian_of_a_batch_is_block_diagonal():
    xs = RNG.standard_normal((3, 2))
    function = interpreted(lambda x: np.array([1.0, 2.0, 3.0]) * x[0] * x[1])
    found = sg.jacobian(sg.vmap(function))(xs)
    for i in range(3):
        for j in range(3):
            expected = sg.jacobian(function)(xs[i]) if i == j else np.zeros((3, 2))
            np.testing.assert_allclose(found[i, :, j], expected, rtol=1e-12)


def test_methods_and_sharing():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @sg.trace
        def __call__(self, x):
            return x * x * self.scale

    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(sg.jacobian(Model(2.0).__call__)(x), np.diag(4 * x))

    def function(x):
        return np.sin(x)

    for _ in range(3):
        np.testing.assert_allclose(sg.jacobian(function)(x), np.diag(np.cos(x)))
    assert sg.jacobian(function).cache_info().traces == 1
    assert sg.jacobian(function).cache_info().compiles == 1


def test_printing_happens_once(capsys):
    def function(x):
        sg.debug.print("sum {}", np.sum(x))
        return x * x

    sg.jacobian(function)(np.ones(2))
    assert capsys.readouterr().out == "sum 2.0\n"
    sg.hvp(lambda x: np.sum(function(x)), (np.ones(2),), (np.ones(2),))
    assert capsys.readouterr().out == "sum 2.0\n"
    sg.linearize(function, np.ones(2))[1](np.ones(2))
    assert capsys.readouterr().out == "sum 2.0\n"


# ---- compiled


def test_compiled_jacobians_and_hessians():
    x, w = RNG.standard_normal(5), RNG.standard_normal((3, 5))

    def function(x, w):
        return {"y": np.tanh(w @ x), "s": np.sum(x**3)}

    for mode in MODES:
        found = sg.jacobian(function, (0, 1), mode)(x, w)
        expected = sg.jacobian(interpreted(function), (0, 1), mode)(x, w)
        assert_trees_close(found, expected)
    assert_trees_close(sg.hessian(function)(x, w), sg.hessian(interpreted(function))(x, w))


def test_unit_vectors_take_no_memory():
    """The identity is part of the loops: the planned workspace does not grow with its size."""
    x, w = np.zeros(300), RNG.standard_normal((300, 300))
    assert not any(
        node.op.name == "constant" and v.aval.size >= 300 * 300
        for node in sg.jacobian(lambda x: np.sin(x) * 2.0, mode="reverse").lower(x).optimized.nodes
        for v in node.outputs
    )
    np.testing.assert_allclose(sg.jacobian(lambda x: w @ np.sin(x), mode="forward")(x), w, rtol=1e-12)


# ---- products with the Hessian, linearisation


def test_products_with_the_hessian():
    rng = np.random.default_rng(0)
    for case in CASES:
        numbers = tuple(k for k, x in enumerate(case.args) if np.asarray(x).dtype.kind == "f")
        if len(numbers) < len(case.args):
            continue
        function = interpreted(lambda *args, case=case: case.function(np, *args))
        vectors = tuple(np.asarray(rng.standard_normal(np.shape(x))) for x in case.args)
        found = sg.hvp(function, case.args, vectors)
        expected = sg.jvp(sg.grad(function, numbers), case.args, vectors)[1]
        assert_trees_close(found, expected[0] if len(numbers) == 1 else expected)


def test_products_with_the_hessian_of_containers():
    p = params()
    function = interpreted(lambda p: np.sum(np.tanh(p["w"]) @ p["b"][0]) * p["b"][1])
    vectors = optree.tree_map(lambda x: np.asarray(RNG.standard_normal(np.shape(x))), p)
    found = sg.hvp(function, (p,), (vectors,))
    rows = iter(optree.tree_leaves(sg.hessian(function)(p)))
    expected = {}
    for name, x in (("b0", p["b"][0]), ("b1", p["b"][1]), ("w", p["w"])):
        parts = [(next(rows), v) for v in optree.tree_leaves(vectors)]
        expected[name] = sum(np.tensordot(block, v, np.ndim(v)) for block, v in parts)
        assert expected[name].shape == np.shape(x)
    assert_trees_close(found, {"b": [expected["b0"], expected["b1"]], "w": expected["w"]})


def test_the_hessian_is_never_formed():
    """For 100,000 parameters, which have 10^10 second derivatives."""
    x = np.ones(100_000)

    def function(x):
        return np.sum(x[1:] ** 2 * x[:-1])

    vector = RNG.standard_normal(x.size)
    found = sg.hvp(function, (x,), (vector,))
    expected = 2 * np.append(0, vector[1:] * x[:-1]) + 2 * np.append(0, x[1:] * vector[:-1]) + 2 * np.append(x[1:] * vector[1:], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_linearize_runs_the_function_once():
    x = RNG.standard_normal(4)
    value, pushforward = sg.linearize(lambda x: {"y": np.sin(x), "n": np.argmax(x)}, x)
    np.testing.assert_allclose(value["y"], np.sin(x))
    for scale in (1.0, -2.0):
        moved = pushforward(scale * np.ones(4))
        np.testing.assert_allclose(moved["y"], scale * np.cos(x))
        assert moved["n"] == 0
    value, pushforward, aux = sg.linearize(lambda x: (x * x, np.sum(x)), x, has_aux=True)
    np.testing.assert_allclose(pushforward(x), 2 * x * x)
    np.testing.assert_allclose(aux, np.sum(x))


@pytest.mark.parametrize("backend", ["cpu", "interp"])
def test_linear_parts_inside_of_a_trace(backend):
    """A pushforward or a pullback made outside is applied to tracers, and one made inside is differentiated."""
    x = RNG.standard_normal(3)
    function = sg.trace(lambda x: np.sin(x) * x[0], backend=backend)
    jacobian = sg.jacobian(function)(x)
    _, pushforward = sg.linearize(function, x)
    _, pullback = sg.vjp(function, x)
    np.testing.assert_allclose(sg.vmap(sg.trace(pushforward, backend=backend))(np.eye(3)).T, jacobian, atol=1e-15)
    np.testing.assert_allclose(sg.vmap(sg.trace(lambda g: pullback(g)[0], backend=backend))(np.eye(3)), jacobian, atol=1e-15)
    along = sg.trace(lambda x: np.sum(sg.linearize(function, x)[1](np.ones(3))), backend=backend)
    total = sg.trace(lambda x: np.sum(sg.jacobian(function)(x)), backend=backend)
    np.testing.assert_allclose(sg.grad(along)(x), sg.grad(total)(x), rtol=1e-12)


def test_a_linear_part_keeps_its_point():
    for backend in ("cpu", "interp"):
        x = np.array([1.0, 2.0])
        _, pushforward = sg.linearize(sg.trace(lambda x: x * x, backend=backend), x)
        x[:] = 100.0
        np.testing.assert_array_equal(pushforward(np.ones(2)), [2.0, 4.0])


# ---- gradients of several arguments


def test_numbers_of_arguments_may_be_those_of_numpy():
    assert sg.grad(interpreted(lambda x, y: x * y * y), np.int64(1))(2.0, 3.0) == 12.0
    assert sg.grad(interpreted(lambda x, y: x * y * y), [np.int8(1), -2])(2.0, 3.0) == (12.0, 9.0)


def test_gradients_of_several_arguments():
    p, x = params(), RNG.standard_normal((2, 3))

    def loss(np_, p, x, scale):
        y = layers(np_, p, x)["hidden"] * scale
        return np_.sum(y * y), {"mean": np_.mean(y)}

    jax = with_jax()
    function = interpreted(lambda p, x, s: loss(np, p, x, s))
    for argnums in (0, (0, 1), (2, 0), -1, (1,)):
        found, aux = sg.grad(function, argnums, has_aux=True)(p, x, 3.0)
        expected = jax.grad(lambda p, x, s: loss(jax.numpy, p, x, s), argnums, has_aux=True)(p, x, 3.0)
        assert_trees_close((found, aux), jax.tree.map(np.asarray, expected))
        (value, aux), again = sg.value_and_grad(function, argnums, has_aux=True)(p, x, 3.0)
        assert_trees_close(again, found)
        np.testing.assert_allclose(value, loss(np, p, x, 3.0)[0])


# ---- mistakes

HERE = "test_jacobian.py"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: sg.jacobian(np.sin, mode="backward"), InvalidValueError, "mode='backward': expected one of auto, reverse, forward"),
        (lambda: sg.jacobian(np.sin, 0.5), ArgumentError, r"argnums=0\.5"),
        (lambda: sg.hessian(np.sin, ()), ArgumentError, r"argnums=\(\)"),
        (lambda: sg.jacobian(lambda x: x, 1)(1.0), InvalidValueError, "jacobian of .*argnums=1"),
        (lambda: sg.jacobian(lambda x: x * 1.0)(np.arange(3)), DTypeError, "jacobian of .*x has dtype int64.*argnums"),
        (lambda: sg.jacobian(lambda p: p["a"] * 1.0)({"a": np.ones(2), "b": [1, 2]}), DTypeError, "jacobian of .*int64"),
        (lambda: sg.hessian(lambda n: n * 1.0)(3), DTypeError, "hessian of .*n has dtype int64"),
        (lambda: sg.jacobian(lambda x: (x, np.argmax(x)))(np.ones(3)), DTypeError, r"jacobian of .*returned i64\[\].*has_aux=True"),
        (lambda: sg.hessian(lambda x: x > 0)(np.ones(3)), DTypeError, r"hessian of .*returned bool\[3\]"),
        (lambda: sg.jacobian(lambda x: x, has_aux=True)(np.ones(3)), ArgumentError, "jacobian of .*pair"),
        (lambda: sg.hvp(lambda x: np.sum(x), np.ones(3), np.ones(3)), ArgumentError, "hvp: primals must be a tuple"),
        (lambda: sg.hvp(lambda x: np.sum(x), (np.ones(3),), (np.ones(2),)), ShapeError, r"hvp of .*f64\[3\], its vector f64\[2\]"),
        (lambda: sg.hvp(lambda x: np.sum(x), (np.ones(3),), ()), ArgumentError, "hvp of .*primals have structure .* vectors"),
        (lambda: sg.hvp(lambda x: x * x, (np.ones(3),), (np.ones(3),)), ShapeError, r"hvp of .*returned shape \(3,\)"),
        (lambda: sg.hvp(lambda n: n * 1.0, (1,), (1.0,)), DTypeError, "hvp of .*n has dtype int64.*close over"),
        (lambda: sg.hvp(np.sum, (np.ones(3),), (np.arange(3),)), DTypeError, "its vector i64.*vectors are floats"),
        (lambda: sg.linearize(np.sin, np.ones(3))[1](np.ones(2)), ShapeError, r"of sin: an argument is f64\[3\], its tangent f64\[2\]"),
        (lambda: sg.linearize(np.sin, np.ones(3))[1](np.arange(3)), DTypeError, "its tangent i64"),
        (lambda: sg.linearize(np.sin, np.ones(3))[1](np.ones(3), np.ones(3)), ArgumentError, "of sin: the arguments have structure"),
        (lambda: sg.vjp(np.sin, np.ones(3))[1](np.ones(2)), ShapeError, r"pullback of sin: a value is f64\[3\], its cotangent f64\[2\]"),
        (lambda: sg.linearize(lambda x: x, np.ones(3), has_aux=True), ArgumentError, "linearize of .*pair"),
    ],
)  # fmt: skip
def test_mistakes(make, error, said):
    with pytest.raises(error, match=said) as caught:
        make()
    assert HERE in str(caught.value)


# ---- static arguments


@functools.partial(sg.trace, static_argnames="power", backend="interp")
def _to_the_power(x, power):
    return x**power


def test_pullbacks_and_pushforwards_pass_over_static_arguments():
    value, pullback = sg.vjp(_to_the_power, 2.0, 3)
    assert (value, pullback(1.0)) == (8.0, (12.0, None))
    value, pushforward = sg.linearize(_to_the_power, 2.0, 3)
    assert (value, pushforward(1.0, None)) == (8.0, 12.0)


@pytest.mark.parametrize("transform", [sg.jvp, sg.hvp])
def test_products_say_how_to_bind_static_arguments(transform):
    with pytest.raises(ArgumentError, match=r"'power' is static.*functools\.partial"):
        transform(_to_the_power, (2.0, 3), (1.0, 0))
    assert np.isfinite(transform(functools.partial(_to_the_power, power=3), (2.0,), (1.0,))).all()
