"""Machine code of each op against the interpreter, and that of one printer against that of the other, to the bit.

All samples of an op are one unit, so that few are compiled.
"""

import pytest

from staticgrad.config import config
from staticgrad.ir.interp import interpret
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.elementwise import Elementwise
from staticgrad.runtime.build import build
from tests.ops.running import assert_sample_agrees, identical
from tests.ops.samples import Grouped, Sample, reduce_in_lanes, samples_of


def compiled_samples(name: str) -> list[Sample]:
    """Return a choice of samples: of elementwise ops all combinations of edge values, of the others one for each dtype and rank."""
    samples = [sample for sample in samples_of(name) if max(x.size for x in sample.operands) > 1]
    if issubclass(REGISTRY[name], Elementwise):
        return [sample for sample in samples if sample.note]
    if name == "contract":
        return samples
    chosen: dict[tuple[object, ...], Sample] = {}
    for sample in samples:
        if name in ("arg_max", "arg_min") and sample.operands[0].dtype not in ("float64", "float32", "int64", "uint8"):
            continue  # the same code for the others
        chosen.setdefault((sample.operands[0].dtype, sample.operands[0].ndim, sample.note), sample)
    return list(chosen.values())


def check(samples: list[Sample]) -> None:
    group = Grouped(samples)
    expected = interpret(group.graph, group.arguments)
    found = build(group.graph, "cpu")[0].run(group.arguments)
    if config().printer != "llvm":  # the suite runs under both printers: once is enough
        other = build(group.graph, "cpu", "llvm")[0].run(group.arguments)
        assert all(map(identical, found, other)), "the printers differ in a bit"
    for sample, part in zip(group.samples, group.parts, strict=True):
        assert_sample_agrees(sample, found[part], expected[part])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_machine_code(name):
    check(compiled_samples(name))


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "arg_max", "arg_min"])
def test_reductions_in_lanes_and_blocks(name):
    check([sample for sample in reduce_in_lanes() if sample.op.name == name])
