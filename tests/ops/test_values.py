"""What each op computes: shape rule, interpreter, emitted source and machine code say the same."""

import numpy as np
import pytest

from staticgrad.ir.aval import DTYPES, Aval
from staticgrad.ir.interp import interpret
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.elementwise import Elementwise
from staticgrad.runtime.build import build
from tests.ops.running import assert_agree, run_uncompiled
from tests.ops.samples import REORDERED, SHAPES, ULPS, Grouped, Sample, reduce_in_lanes, samples_of


def agree(sample: Sample, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    name = sample.op.name
    for x, y in zip(found, expected, strict=True):
        finite = [np.abs(v[np.isfinite(v)]) for v in sample.operands if v.dtype.kind == "f"]
        scale = max([1.0, *(float(v.max(initial=0.0)) for v in finite)])
        assert_agree(str(sample), x, y, ULPS.get(name, 0), name in REORDERED, scale)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_op_has_samples(name):
    samples = samples_of(name)
    assert samples, f"{name} has no samples: add some to tests/ops/samples.py"
    found = {x.shape for sample in samples for x in sample.operands}
    assert () in found or name in ("arg_max", "arg_min", "concatenate")
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
        agree(sample, found[part], expected[part])


def compiled_samples(name: str) -> list[Sample]:
    """Return one sample of every dtype and kind, so that machine code is made for each but not for each shape."""
    chosen: dict[tuple[object, ...], Sample] = {}
    for sample in samples_of(name):
        ranks = tuple(x.ndim for x in sample.operands)
        fields = "" if issubclass(REGISTRY[name], Elementwise) else sample.op.signature()
        key = (sample.op, sample.operands[0].dtype) if sample.note else (sample.operands[0].dtype, ranks if fields else "", fields[:40])
        if sample.note or max(x.size for x in sample.operands) > 1:
            chosen.setdefault(key, sample)
    return list(chosen.values())


FILES = {
    "elementwise": [n for n, cls in sorted(REGISTRY.items()) if issubclass(cls, Elementwise) and n != "cast"],
}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_machine_code(name):
    group = Grouped([*compiled_samples(name)])
    graph, arguments = group.graph, group.arguments
    expected = interpret(graph, arguments)
    found = build(graph, "cpu")[0].run(arguments)
    for sample, part in zip(group.samples, group.parts, strict=True):
        agree(sample, found[part], expected[part])
