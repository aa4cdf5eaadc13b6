"""Sparsity patterns: never less than the derivatives that there are, for every op; and no more where structure tells."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array

import staticgrad as sg
from staticgrad.ad import sparsity
from staticgrad.ad.jacobian import blocks_by_pullback, blocks_by_pushforward
from staticgrad.ad.sparsity import pattern_of
from staticgrad.errors import InvalidValueError
from staticgrad.ir.aval import FLOAT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply_all, constant, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.arithmetic import multiply
from staticgrad.ops.control import Rules, call, inline_calls
from staticgrad.ops.movement import slice_
from staticgrad.ops.reduce import sum_
from tests.fuzz.programs import Program
from tests.ops.samples import Sample, smooth_samples

MODES = ("forward", "reverse")


@dataclass
class Applied:
    """Values that depend on inputs, with numbers for the inputs."""

    outputs: list[Value]
    inputs: list[Value]
    arrays: list[np.ndarray]

    @classmethod
    def of(cls, sample: Sample, known: bool) -> "Applied":
        """Return an op applied to a sample's operands; those that are not floats are constants, if they are `known`."""
        values = [constant(x) if known and x.dtype.kind != "f" else new_input(Aval(x.shape, x.dtype)) for x in sample.operands]
        pairs = [(v, x) for v, x in zip(values, sample.operands, strict=True) if not v.node.is_fixed]
        return cls([y for y in apply_all(sample.op, *values) if y.dtype.kind == "f"], [v for v, _ in pairs], [x for _, x in pairs])

    @property
    def active(self) -> list[Value]:
        """The inputs that have derivatives."""
        return [x for x in self.inputs if x.dtype.kind == "f"]

    def pattern(self) -> csr_array:
        """Return the pattern."""
        return pattern_of(self.outputs, self.active, "test")

    def matrix(self, mode: str) -> np.ndarray:
        """Return the Jacobian as one matrix, by the rules of the ops."""
        if mode == "reverse":
            blocks = [blocks_by_pullback(y, self.active) for y in self.outputs]
        else:
            columns = [blocks_by_pushforward(self.outputs, x) for x in self.active]
            blocks = [[column[k] for column in columns] for k in range(len(self.outputs))]
        flat = iter(interpret(Graph(tuple(self.inputs), tuple(block for row in blocks for block in row)), self.arrays))
        rows = [[next(flat).reshape(y.aval.size, x.aval.size) for x in self.active] for y in self.outputs]
        return np.concatenate([np.concatenate(row, 1) for row in rows], 0)


def assert_contains(pattern: csr_array, matrix: np.ndarray, what: str) -> None:
    """Assert that the pattern has an entry wherever the matrix is not 0, and holds none twice."""
    assert pattern.dtype == np.bool_
    assert pattern.shape == matrix.shape, what
    assert pattern.has_canonical_format, what
    missing = (matrix != 0) & ~pattern.toarray()
    assert not missing.any(), f"{what}: no entries in the pattern at {np.argwhere(missing)[:5].tolist()}"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_op_has_derivatives_outside_of_its_pattern(name):
    for sample in smooth_samples(name):
        for known in (False, True):
            applied = Applied.of(sample, known)
            if applied.outputs and applied.active:
                for mode in MODES:
                    assert_contains(applied.pattern(), applied.matrix(mode), str(sample))


EXACT = (
    "add", "multiply", "divide", "tanh", "cast", "contiguous", "reshape", "transpose", "broadcast", "slice", "flip", "pad", "concatenate",
    "slice_set", "sum", "prod", "contract", "gather", "scatter_add", "scatter_set",
)  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_patterns_are_exact_where_structure_tells(name):
    """With index arrays that are known, each entry is a derivative that is not 0."""
    checked = [Applied.of(sample, known=True) for sample in smooth_samples(name)]
    assert any(0 not in x.shape for applied in checked for x in applied.arrays)
    for applied in checked:
        np.testing.assert_array_equal(applied.pattern().toarray(), applied.matrix("forward") != 0)


@pytest.mark.parametrize("seed", range(60))
def test_no_program_has_derivatives_outside_of_its_pattern(seed):
    program = Program(seed + 7000, smooth=seed % 2 == 0).grow(25)
    outputs = [v for v in program.pool[-8:] if v.dtype.kind == "f" and v.aval.size <= 60]
    graph = inline_calls(Graph(tuple(program.inputs), tuple(outputs)))
    applied = Applied(list(graph.outputs), program.inputs, program.arrays)
    for mode in MODES:
        assert_contains(applied.pattern(), applied.matrix(mode), f"seed {seed}, {mode}")


# ---- what users see


def pattern(f, *args, **kwargs):
    return sg.sparse_jacobian(f, **kwargs).pattern(*args).toarray().astype(int)


def test_index_arrays_that_are_arguments_reach_the_whole_axis():
    x, where = np.ones((3, 2)), np.array([2, 0])
    expected = np.zeros((4, 6))
    expected[[0, 1, 2, 3], [4, 5, 0, 1]] = 1
    np.testing.assert_array_equal(pattern(lambda x: x[where], x), expected)
    whole = np.tile(np.eye(2), (2, 3))
    np.testing.assert_array_equal(pattern(lambda x, where: x[where], x, where), whole)

    def added(x, y, where):
        z = x.copy()
        np.add.at(z, where, y)
        return z

    both = pattern(added, x, np.ones((2, 2)), where, argnums=(0, 1))
    np.testing.assert_array_equal(both, np.hstack([np.eye(6), np.tile(np.eye(2), (3, 2))]))
    known = pattern(lambda x, y: added(x, y, where), x, np.ones((2, 2)), argnums=1)
    np.testing.assert_array_equal(known, expected.T)


def test_sorting_and_sums_stay_in_their_rows():
    x = np.array([[3.0, 1.0], [2.0, 5.0], [0.0, 4.0]])
    rows = np.kron(np.eye(3), np.ones((2, 2)))
    for f in (lambda x: np.sort(x, axis=1), lambda x: np.cumsum(x, axis=1), lambda x: x - np.max(x, axis=1, keepdims=True)):
        np.testing.assert_array_equal(pattern(f, x), rows)


def test_products_of_matrices_reach_rows_and_columns():
    a, b = np.ones((2, 3)), np.ones((3, 4))
    by_a, by_b = pattern(lambda a, b: a @ b, a, b), pattern(lambda a, b: a @ b, a, b, argnums=1)
    np.testing.assert_array_equal(by_a, np.kron(np.eye(2), np.ones((4, 3))))
    np.testing.assert_array_equal(by_b, np.tile(np.eye(4), (2, 3)))


def test_values_play_no_role():
    """Neither numbers that happen to be 0, nor NaN; but what has no derivative at all is not there."""
    x = np.array([0.0, np.nan, 1.0])
    np.testing.assert_array_equal(pattern(lambda x: x * 0.0 + x[0] * x, x), [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(pattern(lambda x: np.floor(x) + sg.stop_gradient(x), x), np.zeros((3, 3)))
    np.testing.assert_array_equal(pattern(lambda x: np.where(x > x[0], x, 0.0), x), np.eye(3))
    np.testing.assert_array_equal(pattern(lambda x: np.maximum(x[1:], x[:-1]), x), [[1, 1, 0], [0, 1, 1]])


def test_a_function_without_a_rule_is_dense():
    numba = pytest.importorskip("numba")
    double = sg.njit_op(numba.njit(lambda x: x * 2.0), jvp=lambda t, y, x: 2.0 * t[0])
    x = np.arange(3.0)
    np.testing.assert_array_equal(pattern(lambda x: double(x[:2]), x), [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(sg.sparse_jacobian(lambda x: double(x[:2]))(x).toarray(), [[2, 0, 0], [0, 2, 0]])


def test_an_op_with_a_graph_inside_is_dense():
    """Each of its outputs depends on all of its operands: the rules of a call may say anything."""
    x, y = new_input(Aval((3,), FLOAT64)), new_input(Aval((2,), FLOAT64))
    body = Graph((x, y), (multiply(x, x), sum_(y, (0,))), (), "body")
    first, second = call(body, x, y, rules=Rules("by hand", vjp=lambda g, outputs, *operands: operands))
    found = pattern_of([first, second, slice_(first, (0,), (1,), (1,))], [x, y], "test")
    np.testing.assert_array_equal(found.toarray(), np.ones((5, 5)))


def test_second_derivatives_of_what_is_linear_are_not_there():
    x = np.arange(1.0, 6.0)

    def f(x):
        return np.sum(x) + np.sum(x[1:] * 3.0) + x[0] * x[4] + np.sum(np.abs(x)) + np.max(x) + x[1] ** 2

    found = sg.sparse_hessian(f).pattern(x).toarray()
    expected = np.zeros((5, 5))
    expected[0, 4] = expected[4, 0] = expected[1, 1] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_pattern_that_is_not_sparse_is_an_error_that_names_the_line(monkeypatch):
    monkeypatch.setattr(sparsity, "MOST_ENTRIES", 100)
    with pytest.raises(InvalidValueError, match=r"sparse_jacobian of .*lambda.*broadcast.*not sparse.*\n.*test_sparsity.py") as caught:
        sg.sparse_jacobian(lambda x: x - np.mean(x))(np.ones(11))
    assert isinstance(caught.value, ValueError)
