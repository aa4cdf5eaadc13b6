"""The batching rule of each op: a batch of operands gives the stack of the single results, whichever operands are batched."""

import itertools

import numpy as np
import pytest

from staticgrad.ad.batch import all_batched
from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ir.verify import verify
from tests.ops.running import assert_agree
from tests.ops.samples import REORDERED, Sample, samples_of

SIZES = (3, 1)


def variants(x: np.ndarray, size: int) -> np.ndarray:
    """Return `size` arrays like x, stacked: x with its elements rolled around."""
    return np.stack([np.roll(x, k) for k in range(size)])


def check(sample: Sample, flags: tuple[bool, ...], size: int) -> None:
    stacks = [variants(x, size) if flag else x for x, flag in zip(sample.operands, flags, strict=True)]
    inputs, outputs = sample.apply()
    arguments = [new_input(Aval(x.shape, x.dtype)) for x in stacks]
    results = all_batched(outputs, inputs, arguments, flags, size)
    graph = Graph(tuple(arguments), tuple(results))
    verify(graph, after="batching")
    found = interpret(graph, stacks)
    single = sample.graph()
    rows = [interpret(single, [x[k] if flag else x for x, flag in zip(stacks, flags, strict=True)]) for k in range(size)]
    for x, *expected in zip(found, *rows, strict=True):
        assert_agree(f"{sample}, batched {flags}", x, np.stack(expected), 0, sample.op.name in REORDERED, 10.0)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_subset_of_operands(name):
    for sample in samples_of(name):
        if max(x.size for x in sample.operands) > 200:
            continue
        for flags in itertools.product((False, True), repeat=len(sample.operands)):
            for size in SIZES if any(flags) else ():
                check(sample, flags, size)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_batch_of_none(name):
    for sample in samples_of(name):
        if sample.note or max(x.size for x in sample.operands) > 60:
            continue
        inputs, outputs = sample.apply()
        arguments = [new_input(Aval((0, *x.shape), x.dtype)) for x in sample.operands]
        graph = Graph(tuple(arguments), tuple(all_batched(outputs, inputs, arguments, [True] * len(inputs), 0)))
        verify(graph, after="batching")
        found = interpret(graph, [np.zeros((0, *x.shape), x.dtype) for x in sample.operands])
        assert [y.shape for y in found] == [(0, *v.shape) for v in outputs], str(sample)
