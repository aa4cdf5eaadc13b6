"""What each op computes: shape rule, interpreter and emitted source say the same."""

import numpy as np
import pytest

from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.interp import interpret
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.elementwise import Elementwise
from staticgrad.ops.matrices import OnMatrices
from tests.ops.running import assert_sample_agrees, run_uncompiled
from tests.ops.samples import SHAPES, Grouped, samples_of

ON_MATRICES = {name for name, cls in REGISTRY.items() if issubclass(cls, OnMatrices)}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_op_has_samples(name):
    samples = samples_of(name)
    assert samples, f"{name} has no samples: add some to tests/ops/samples.py"
    found = {x.shape for sample in samples for x in sample.operands}
    assert () in found or name in ("arg_max", "arg_min", "concatenate", "arg_sort", "cumulative_sum", *ON_MATRICES)
    assert any(0 in shape for shape in found)
    cls = REGISTRY[name]
    if issubclass(cls, Elementwise):
        taken = {x.dtype for sample in samples for x in sample.operands}
        assert taken >= {dtype for dtype in DTYPES.values() if dtype.kind in cls.kinds}
        assert found >= set(SHAPES)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_shape_rule(name):
    for sample in samples_of(name):
        with np.errstate(all="ignore"):
            results = sample.op.numpy(*sample.operands)
        results = results if isinstance(results, tuple) else (results,)
        avals = sample.op.infer(*(Aval(x.shape, x.dtype) for x in sample.operands))
        avals = avals if isinstance(avals, tuple) else (avals,)
        assert [(np.shape(r), np.asarray(r).dtype) for r in results] == [(a.shape, a.dtype) for a in avals], str(sample)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_emitted_source_without_a_compiler(name):
    group = Grouped(samples_of(name))
    graph, arguments = group.graph, group.arguments
    expected = interpret(graph, arguments)
    found = run_uncompiled(graph, arguments)
    for sample, part in zip(group.samples, group.parts, strict=True):
        assert_sample_agrees(sample, found[part], expected[part])
