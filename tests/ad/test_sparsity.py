"""Sparsity patterns: never less than the derivatives that there are, for every op; and no more where structure tells."""

import numpy as np
import pytest
from scipy.sparse import csr_array

import staticgrad as sg
from staticgrad.ad.jacobian import blocks_by_pullback, blocks_by_pushforward
from staticgrad.ad.sparsity import pattern_of
from staticgrad.errors import InvalidValueError
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply_all, constant, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.control import inline_calls
from tests.ad.functions import CASES
from tests.fuzz.programs import Program
from tests.ops.samples import Sample, smooth_samples


def numeric(outputs: list[Value], inputs: list[Value], given: list[Value], arrays: list[np.ndarray], mode: str) -> np.ndarray:
    """Return the Jacobian as one matrix, by the rules of the ops."""
    if mode == "reverse":
        blocks = [blocks_by_pullback(y, inputs) for y in outputs]
    else:
        columns = [blocks_by_pushforward(outputs, x) for x in inputs]
        blocks = [[column[k] for column in columns] for k in range(len(outputs))]
    flat = iter(interpret(Graph(tuple(given), tuple(block for row in blocks for block in row)), arrays))
    rows = [[next(flat).reshape(y.aval.size, x.aval.size) for x in inputs] for y in outputs]
    return np.concatenate([np.concatenate(row, 1) for row in rows], 0)


def assert_contained(what: str, pattern: csr_array, matrix: np.ndarray) -> None:
    """Assert that the pattern has an entry wherever the matrix is not 0, and holds nothing twice."""
    assert pattern.dtype == np.bool_
    assert pattern.shape == matrix.shape, what
    assert pattern.has_canonical_format
    missing = (matrix != 0) & ~pattern.toarray()
    assert not missing.any(), f"{what}: no entries in the pattern at {np.argwhere(missing)[:5].tolist()}"


def parts(sample: Sample) -> list[tuple[list[Value], list[Value], list[Value], list[np.ndarray]]]:
    """Return a sample as (outputs, float inputs, inputs, arrays): with index operands that are inputs, and with constant ones."""
    found = []
    for known in (False, True):
        values, inputs, arrays = [], [], []
        for x in sample.operands:
            if known and x.dtype.kind != "f":
                values.append(constant(x))
                continue
            values.append(new_input(sample_aval(x)))
            inputs.append(values[-1])
            arrays.append(x)
        outputs = [y for y in apply_all(sample.op, *values) if y.dtype.kind == "f"]
        active = [v for v in inputs if v.dtype.kind == "f"]
        if outputs and active:
            found.append((outputs, active, inputs, arrays))
        if len(inputs) == len(values) and known is False and len(active) == len(values):
            break
    return found


def sample_aval(x: np.ndarray):
    from staticgrad.ir.aval import Aval

    return Aval(x.shape, x.dtype)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_op_has_derivatives_outside_of_its_pattern(name):
    for sample in smooth_samples(name):
        for outputs, active, inputs, arrays in parts(sample):
            pattern = pattern_of(outputs, active, name)
            for mode in ("forward", "reverse"):
                assert_contained(str(sample), pattern, numeric(outputs, active, inputs, arrays, mode))


EXACT = {
    "add", "multiply", "divide", "reshape", "transpose", "broadcast", "slice", "flip", "pad", "concatenate", "slice_set", "sum",
    "contract", "tanh", "where", "cast", "contiguous", "gather", "scatter_add", "scatter_set",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXACT))
def test_patterns_are_exact_where_structure_tells(name):
    """With index arrays that are known, and numbers that are not 0, each entry is a derivative that is not 0."""
    checked = 0
    for sample in smooth_samples(name):
        outputs, active, inputs, arrays = parts(sample)[-1]
        if any(0 in x.shape for x in arrays):
            continue
        if name == "where":
            arrays = [*arrays]
        pattern = pattern_of(outputs, active, name).toarray()
        matrix = numeric(outputs, active, inputs, arrays, "forward")
        if name == "where":  # of two numbers one is taken
            assert pattern.sum() == 2 * (matrix != 0).sum()
        else:
            np.testing.assert_array_equal(pattern, matrix != 0, err_msg=str(sample))
        checked += 1
    assert checked
