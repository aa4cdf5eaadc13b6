"""Products of operands in any layout, writes in place, and other places where memory and order matter: source and machine code agree."""

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import constant, full, new_input
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import broadcast, concatenate, flip, pad, reshape, slice_, slice_set
from staticgrad.ops.reduce import sum_
from staticgrad.passes.layout import sums_of_contractions
from staticgrad.runtime.build import build, lower_graph
from tests.ops.running import run_uncompiled

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((12, 12)), RNG.standard_normal((12, 12))

PRODUCTS = {
    "plain": lambda a, b: a @ b,
    "columns backwards": lambda a, b: a @ b[:, ::-1],
    "every other column": lambda a, b: a @ b[:, ::2],
    "some columns": lambda a, b: a @ b[:, 3:],
    "rows backwards": lambda a, b: a @ b[::-1],
    "left operand backwards": lambda a, b: a[::-1, ::-1] @ b,
    "one column repeated": lambda a, b: a @ np.broadcast_to(b[:, :1], (12, 12)),
    "one row repeated": lambda a, b: a @ np.broadcast_to(b[0], (12, 12)),
    "left row repeated": lambda a, b: np.broadcast_to(a[0], (12, 12)) @ b,
    "one number repeated": lambda a, b: snp.full((12, 12), 2.0) @ b + a @ snp.full((12, 12), 3.0),
    "transposed": lambda a, b: a.T @ b.T,
    "padded": lambda a, b: a @ np.pad(b, ((0, 0), (1, 1))),
    "joined": lambda a, b: a @ np.concatenate([b[:, :7], b[:, 7:]], 1),
    "transposed result": lambda a, b: (a @ b).T + 1,
    "three axes": lambda a, b: a.reshape(6, 2, 12) @ b,
    "two axes at once": lambda a, b: np.tensordot(a.reshape(6, 2, 12), b.reshape(2, 6, 12), ((1, 2), (0, 2))),
    "batch": lambda a, b: a.reshape(3, 4, 12) @ b.reshape(3, 12, 4),
    "batch, transposed": lambda a, b: a.reshape(3, 4, 12) @ np.swapaxes(b.reshape(3, 4, 12), 1, 2),
    "einsum": lambda a, b: np.einsum("ijk,lj->kli", a.reshape(3, 4, 12), b.reshape(36, 4)),
    "computed operands": lambda a, b: np.exp(a) @ np.tanh(b),
    "with itself": lambda a, b: a.T @ a + b @ b.T,
    "unit axes": lambda a, b: a[:, None, :] @ b[None],
    "constant": lambda a, b: a @ np.eye(12)[:, ::-1] + np.eye(12)[:, ::-1].T @ b,
    "of a part of a product": lambda a, b: (a @ b)[2:12, ::3] @ b[:4],
    "a product under other axes": lambda a, b: np.multiply.outer((a.T @ b).T, b[:2, 0]).transpose(1, 2, 0) + (b.T @ a).T[:, None],
    "a product under permuted labels": lambda a, b: np.einsum("ij,k->kji", a.T @ b, b[:3, 0]),
    "parts, over two axes": lambda a, b: np.einsum("ijk,ijl->kl", a.reshape(3, 4, 12)[:, 1:], b.reshape(3, 4, 12)[:, :3]),
    "vectors": lambda a, b: np.outer(a[0], b[:, 1]) + a[:, 0] @ b + a @ b[0],
}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_products_of_any_layout(name):
    graph = sg.trace(PRODUCTS[name]).lower(A, B).graph
    (expected,) = interpret(graph, [A, B])
    np.testing.assert_allclose(expected, PRODUCTS[name](A, B), rtol=1e-12, atol=1e-12)
    for fuse in (True, False):
        (found,) = run_uncompiled(graph, [A, B], fuse)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_products_of_any_layout_compiled():
    def everything(a, b):
        return [product(a, b) for product in PRODUCTS.values()]

    graph = sg.trace(everything).lower(A, B).graph
    for found, expected in zip(build(graph, "cpu")[0].run([A, B]), interpret(graph, [A, B]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def value(*shape):
    return new_input(Aval(shape, np.dtype(float)))


def check(inputs, *outputs):
    graph = Graph(tuple(inputs), tuple(outputs))
    arrays = [RNG.standard_normal(v.shape) for v in inputs]
    expected = interpret(graph, arrays)
    for fuse in (True, False):
        for x, y in zip(run_uncompiled(graph, arrays, fuse), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    return lower_graph(graph)


def test_a_write_in_place_of_nothing_keeps_the_order():
    x, y = value(4), value(0)
    base = slice_set(x, full((1,), 2.0, x.dtype), (1,), (2,), (1,))
    written = slice_set(base, y, (3,), (3,), (1,))
    again = slice_set(written, full((1,), 3.0, x.dtype), (0,), (1,), (1,))
    check([x, y], again, sum_(again, (0,)))


def test_a_product_read_transposed_keeps_its_form():
    """The transposition appears when the outer product becomes a product of broadcasts, after the contraction was packed."""
    a, b, v = value(2, 10, 6), value(2, 10, 3), value(4)
    product = contract(a, b, (0, 1, 2), (0, 1, 3), (3, 2))
    check([a, b, v], contract(product, v, (0, 1), (2,), (1, 2, 0)))
    check([a, b, v], contract(product, v, (0, 1), (2,), (1, 2, 0)), product)


def test_what_reads_a_write_of_nothing_comes_after_the_writes_before():
    x, y = value(4), value(0)
    base = slice_set(x, full((1,), 2.0, x.dtype), (1,), (2,), (1,))
    written = slice_set(base, y, (3,), (3,), (1,))
    check([x, y], x * 2.0, written * 3.0 + x)


def test_reading_in_another_shape_waits_for_every_write():
    x, y = value(4, 3), value(2, 3)
    base = slice_set(x, y, (0, 0), (2, 3), (1, 1))
    written = slice_set(base, y * 2.0, (2, 0), (4, 3), (1, 1))
    flat = reshape(written, (2, 6))
    check([x, y], flat * 3.0, sum_(flat, (1,)))
    z = value(2, 6)
    part = broadcast(sum_(z, (1,)), (2, 3), (1,))
    late = reshape(slice_set(base, part, (2, 0), (4, 3), (1, 1)), (2, 6))
    check([x, y, z], late * 3.0 + z)
    unit = reshape(written, (4, 1, 3))
    check([x, y], unit, sum_(unit * 2.0, (0,)))


def test_a_value_written_over_later_is_read_first():
    x, y = value(5), value(2)
    base = concatenate([x, y], 0)
    before = base * 2.0
    written = slice_set(base, y, (0,), (2,), (1,))
    check([x, y], before, written)
    check([x, y], sum_(before, (0,)), written, sum_(written, (0,)))


def test_results_under_another_shape_share_memory():
    x = value(3, 4)
    total = sum_(x * x, (0,))
    lowering = check([x], reshape(total, (1, 4)), reshape(sum_(x, (1,)), (3, 1)))
    assert len(lowering.schedule.nests) == 1, str(lowering.schedule)


def test_outputs_that_are_inputs_constants_or_each_other():
    x = value(2, 3)
    flat = reshape(x, (6,))
    doubled = x * 2.0
    check([x], x, x, flat, reshape(flat, (3, 2)), full((2,), 1.0, x.dtype), doubled, reshape(doubled, (6,)), doubled)


def test_nothing_is_read_out_of_bounds():
    x = value(3)
    assert check([x], broadcast(flip(x, (0,)), (2, 3), (0,)))
    none = slice_(x, (3,), (3,), (1,))
    lowering = check([x], concatenate([none, x], 0), sum_(none, (0,)))
    assert lowering.lowered.unit.forward


def test_paddings_of_nothing():
    fill = value()
    check([fill], pad(constant(np.zeros(0)), fill, (1,), (2,), (0,)))
    x = value(0, 3)
    check([x, fill], pad(x, fill, (1, 0), (2, 1), (1, 0)) * 2.0)


def test_parts_of_paddings():
    x = value(4, 3)
    fill = full((), 5.0, x.dtype)
    wide = pad(x, fill, (0, 2), (0, 1), (0, 0))
    for columns in ((0, 1), (0, 2), (1, 4), (2, 5), (5, 6)):
        check([x], slice_(wide, (1, columns[0]), (4, columns[1]), (1, 1)) * 2.0)
    spread = pad(x, fill, (1, 0), (2, 0), (2, 1))
    for rows in ((0, 1), (1, 2), (2, 4), (10, 13), (0, 13)):
        check([x], slice_(spread, (rows[0], 0), (rows[1], 5), (1, 2)) * 2.0)
    again = pad(pad(x, fill, (1, 1), (1, 1), (0, 0)), fill * 2.0, (0, 1), (2, 0), (0, 1))
    check([x], again, sum_(again, (0,)))


# ---- sums of contractions

SUMS = {  # labels of both operands and of the result, the axes that are summed over, and those that still are
    "outer products": ((0, 1), (0, 2), (0, 1, 2), (0,), None),
    "all of them": ((0, 1), (0, 2), (0, 1, 2), (0, 1, 2), (0, 1)),
    "and rows": ((0, 1), (0, 2), (1, 0, 2), (0, 1), (0,)),
    "batches of products": ((0, 1), (0, 1, 2), (0, 2), (0,), None),
    "in another order": ((0, 1), (0, 2, 3), (3, 1, 0, 2), (2,), None),
    "rows alone": ((0, 1), (0, 2), (0, 1, 2), (1,), (1,)),
}


@pytest.mark.parametrize("name", sorted(SUMS))
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_sums_of_contractions(name, dtype):
    left, right, out, axes, rest = SUMS[name]
    arrays = [RNG.integers(-9, 9, [(9, 4, 5, 3)[label] for label in labels]).astype(dtype) for labels in (left, right)]
    x, y = (new_input(Aval(a.shape, a.dtype)) for a in arrays)
    graph = Graph((x, y), (sum_(contract(x, y, left, right, out), axes),))
    after = sums_of_contractions(graph)
    whole = axes if dtype == "int64" else rest
    assert [node.op.axes for node in after.nodes if node.op.name == "sum"] == ([] if whole is None else [whole])
    np.testing.assert_array_equal(interpret(after, arrays)[0], interpret(graph, arrays)[0])


def test_the_mean_of_the_gradients_of_every_example_holds_none_of_them():
    """Nor do their norms and what else is made of each of their elements on the way to a sum."""
    w, x, y = RNG.standard_normal((40, 50)), RNG.standard_normal((30, 40)), RNG.standard_normal((30, 50))
    gradients = sg.vmap(sg.grad(lambda w, x, y: np.sum((np.tanh(x @ w) - y) ** 2)), in_axes=(None, 0, 0))
    every = gradients(w, x, y)

    def clipped(w, x, y):
        each = gradients(w, x, y)
        norms = np.sqrt(np.sum(each**2, axis=(1, 2)))
        return np.sum(each * np.minimum(1.0, 3.0 / norms)[:, None, None], 0)

    reductions = {
        "mean": (lambda w, x, y: np.mean(gradients(w, x, y), 0), np.mean(every, 0)),
        "norms": (lambda w, x, y: np.sum(gradients(w, x, y) ** 2, (1, 2)), np.sum(every**2, (1, 2))),
        "clipped": (clipped, np.sum(every * np.minimum(1, 3 / np.sqrt(np.sum(every**2, (1, 2))))[:, None, None], 0)),
        "largest": (lambda w, x, y: np.max(np.abs(gradients(w, x, y))), np.max(np.abs(every))),
    }
    both = sg.trace(lambda w, x, y: [f(w, x, y) for f, _ in reductions.values()])
    for found, (_, expected) in zip(both(w, x, y), reductions.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for f, _ in reductions.values():
        lowered = sg.trace(f).lower(w, x, y)
        assert lowered.memory < every.nbytes / 4
    assert [node.op.name for node in sg.trace(reductions["mean"][0]).lower(w, x, y).optimized.nodes].count("contract") == 2
