"""Movement, reduction and contraction ops on arbitrary shapes and axes: NumPy, the interpreter and the emitted source agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.loops import External, Fail, walk
from staticgrad.ir.node import Value, apply, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.contract import contract
from staticgrad.ops.movement import broadcast_to, concatenate, flip, pad, reshape, slice_, slice_set, transpose
from staticgrad.runtime.build import lower_graph
from tests.ops.derivatives import Function, assert_adjoint
from tests.ops.running import close, identical, run_uncompiled
from tests.ops.samples import samples_of

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
DTYPES = st.sampled_from(["float64", "float32", "int32", "bool"])


def numbered(shape: tuple[int, ...], dtype: object = float) -> np.ndarray:
    """Return an array whose elements all differ (as far as the dtype goes)."""
    return np.asarray(np.arange(int(np.prod(shape))).reshape(shape) - 3).astype(dtype)


def check(build, reference, *arrays: np.ndarray, exact: bool = True) -> None:
    """Hold the value against NumPy and the emitted source, and both modes against each other."""
    inputs = [new_input(Aval(x.shape, x.dtype)) for x in arrays]
    y: Value = build(*inputs)
    graph = Graph(tuple(inputs), (y,))
    (found,) = interpret(graph, arrays)
    expected = np.asarray(reference(*arrays))
    agree = identical if exact else close
    assert agree(found, expected), f"{found!r} is not {expected!r}"
    (emitted,) = run_uncompiled(graph, arrays)
    assert agree(emitted, expected), f"the emitted source gives {emitted!r}, not {expected!r}"
    if y.dtype == np.float64 and any(v.dtype == np.float64 for v in inputs):
        assert_adjoint("", Function(inputs, [y], list(arrays)), np.random.default_rng(0))


@given(st.data(), shapes, DTYPES)
def test_reshape(data, shape, dtype):
    size = int(np.prod(shape))
    factors = data.draw(st.permutations([n for n in shape if n != 1]))
    after = []
    for n in factors:
        if after and data.draw(st.booleans()):
            after[-1] *= n
        else:
            after.append(n)
        if data.draw(st.booleans()):
            after.append(1)
    assert int(np.prod(after)) == size
    check(lambda x: reshape(x, tuple(after)), lambda x: x.reshape(after), numbered(shape, dtype))


@given(st.data(), shapes, DTYPES)
def test_transpose(data, shape, dtype):
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    check(lambda x: transpose(x, order), lambda x: x.transpose(order), numbered(shape, dtype))


@given(st.data(), shapes, DTYPES)
def test_broadcast_to(data, shape, dtype):
    before = [n if data.draw(st.booleans()) else 1 for n in shape]
    while before and before[0] == 1 and data.draw(st.booleans()):
        del before[0]
    check(lambda x: broadcast_to(x, shape), lambda x: np.broadcast_to(x, shape), numbered(tuple(before), dtype))


def draw_region(data, shape):
    starts = tuple(data.draw(st.integers(0, n)) for n in shape)
    stops = tuple(data.draw(st.integers(s, n)) for s, n in zip(starts, shape, strict=True))
    return starts, stops, tuple(data.draw(st.integers(1, 3)) for _ in shape)


@given(st.data(), shapes, DTYPES)
def test_slice(data, shape, dtype):
    region = draw_region(data, shape)
    slices = tuple(map(slice, *region))
    check(lambda x: slice_(x, *region), lambda x: x[slices], numbered(shape, dtype))


@given(st.data(), shapes)
def test_slice_set(data, shape):
    region = draw_region(data, shape)
    slices = tuple(map(slice, *region))

    def written(x, y):
        x = x.copy()
        x[slices] = y
        return x

    part = numbered(numbered(shape)[slices].shape) + 100.0
    check(lambda x, y: slice_set(x, y, *region), written, numbered(shape), part)


@given(st.data(), shapes, DTYPES)
def test_flip(data, shape, dtype):
    axes = tuple(k for k in range(len(shape)) if data.draw(st.booleans()))
    check(lambda x: flip(x, axes), lambda x: np.flip(x, axes), numbered(shape, dtype))


@given(st.data(), shapes, DTYPES)
def test_pad(data, shape, dtype):
    low, high, interior = (tuple(data.draw(st.integers(0, 2)) for _ in shape) for _ in range(3))

    def padded(x, fill):
        spread = [n + max(n - 1, 0) * k for n, k in zip(shape, interior, strict=True)]
        result = np.full([a + n + b for n, a, b in zip(spread, low, high, strict=True)], fill, x.dtype)
        result[tuple(slice(a, a + n, k + 1) for n, a, k in zip(spread, low, interior, strict=True))] = x
        return result

    check(lambda x, f: pad(x, f, low, high, interior), padded, numbered(shape, dtype), np.asarray(7).astype(dtype))


@given(st.data(), shapes.filter(len), DTYPES)
def test_concatenate(data, shape, dtype):
    axis = data.draw(st.integers(0, len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    arrays = [numbered((*shape[:axis], n, *shape[axis + 1 :]), dtype) for n in lengths]
    check(lambda *x: concatenate(x, axis), lambda *x: np.concatenate(x, axis), *arrays)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all"])
@given(data=st.data(), shape=shapes)
def test_reductions(name, data, shape):
    dtype = bool if name in ("any", "all") else data.draw(st.sampled_from(["float64", "float32", "int32"]))
    axes = tuple(k for k in range(len(shape)) if data.draw(st.booleans()))
    if name in ("max", "min") and 0 in [shape[k] for k in axes]:
        return
    x = numbered(shape, dtype) if name != "prod" else np.cos(numbered(shape)).astype(dtype)

    def reference(x):
        return getattr(np, name)(x, axis=axes, **({"dtype": x.dtype} if name in ("sum", "prod") else {}))

    check(lambda v: apply(REGISTRY[name](axes), v), reference, x, exact=name not in ("sum", "prod"))


@pytest.mark.parametrize("name", ["arg_max", "arg_min"])
@given(data=st.data(), shape=shapes.filter(len))
def test_positions(name, data, shape):
    axis = data.draw(st.integers(0, len(shape) - 1))
    if shape[axis] == 0:
        return
    x = np.random.default_rng(len(shape)).integers(0, 3, shape).astype(float)
    check(lambda v: apply(REGISTRY[name]((axis,)), v), lambda x: getattr(np, name.replace("_", ""))(x, axis=axis), x)


@given(st.data())
def test_contractions(data):
    extents = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    kinds = [data.draw(st.sampled_from(["batch", "left", "right", "inner"])) for _ in extents]
    lhs = tuple(data.draw(st.permutations([k for k, kind in enumerate(kinds) if kind != "right"])))
    rhs = tuple(data.draw(st.permutations([k for k, kind in enumerate(kinds) if kind != "left"])))
    out = tuple(data.draw(st.permutations([k for k, kind in enumerate(kinds) if kind != "inner"])))
    x, y = (numbered(tuple(extents[k] for k in labels)) % 5 for labels in (lhs, rhs))

    def reference(x, y):
        text = ["".join("abcdefgh"[k] for k in labels) for labels in (lhs, rhs, out)]
        return np.einsum(f"{text[0]},{text[1]}->{text[2]}", x, y)

    check(lambda v, w: contract(v, w, lhs, rhs, out), reference, x, y, exact=False)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans())
def test_tiles_of_every_shape(m, k, n, left, right):
    """Products large enough for tiles, with every width of the last columns; whole numbers, so that every bit must be right."""
    if m * k * n > 4000:
        k = max(4000 // (m * n), 1)
    x, y = numbered((k, m) if left else (m, k)) % 7, numbered((n, k) if right else (k, n)) % 5
    lhs, rhs = ((1, 0) if left else (0, 1)), ((2, 1) if right else (1, 2))
    graph_inputs = [new_input(Aval(a.shape, a.dtype)) for a in (x, y)]
    graph = Graph(tuple(graph_inputs), (contract(*graph_inputs, lhs, rhs, (0, 2)),))
    expected = (x.T if left else x) @ (y.T if right else y)
    (found,) = run_uncompiled(graph, [x, y])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_op_says_whether_it_may_fail(name):
    """What may fail is not computed ahead of a loop that may take no step."""
    chosen = {tuple(x.dtype for x in sample.operands): sample for sample in samples_of(name) if all(x.size for x in sample.operands)}
    for sample in chosen.values():
        graph = sample.graph()
        unit = lower_graph(graph).lowered.unit
        expected = any(isinstance(each, (Fail, External)) for function in unit.functions for each in walk(function.body))
        assert any(node.op.may_fail(*(v.aval for v in node.inputs)) for node in graph.nodes) == expected, sample
