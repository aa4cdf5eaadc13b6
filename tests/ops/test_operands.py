"""Each op with operands of every make: numbers, constant arrays, views of memory that lies otherwise, and what is computed on the way."""

import numpy as np
import pytest

from staticgrad.ir.aval import Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply, apply_all, constant, full, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.elementwise import Elementwise
from staticgrad.ops.movement import broadcast, flip, slice_, transpose
from tests.ops.running import assert_agree, run_uncompiled
from tests.ops.samples import REORDERED, ULPS, Sample, samples_of

LARGEST = 40


class Made:
    """Samples of one op in one graph, their operands made in several ways."""

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.arrays: list[np.ndarray] = []
        self.outputs: list[Value] = []
        self.names: list[str] = []

    def given(self, x: np.ndarray) -> Value:
        """Return an input that holds `x`."""
        self.inputs.append(new_input(Aval(x.shape, x.dtype)))
        self.arrays.append(np.ascontiguousarray(x).reshape(x.shape))
        return self.inputs[-1]

    def number(self, x: np.ndarray) -> Value:
        """Return one number everywhere, as zeros and ones are."""
        return full(x.shape, x.ravel()[0] if x.size else 0, x.dtype)

    def array(self, x: np.ndarray) -> Value:
        """Return a constant."""
        return constant(x)

    def turned(self, x: np.ndarray) -> Value:
        """Return `x` as a view of memory that holds it transposed and the other way round."""
        axes = tuple(range(x.ndim))
        return flip(transpose(self.given(np.flip(x).T), axes[::-1]), axes)

    def part(self, x: np.ndarray) -> Value:
        """Return `x` as a view of every second element of something larger."""
        larger = np.full([2 * n + 1 for n in x.shape], 7, x.dtype)
        larger[tuple(slice(1, None, 2) for _ in x.shape)] = x
        return slice_(self.given(larger), (1,) * x.ndim, larger.shape, (2,) * x.ndim)

    def row(self, x: np.ndarray) -> Value:
        """Return the first row everywhere."""
        return broadcast(self.given(x[0]), x.shape, (0,)) if x.ndim and x.shape[0] else self.given(x)

    def computed(self, x: np.ndarray) -> Value:
        """Return `x` as a result that is not needed otherwise."""
        if x.dtype.kind == "b":
            return apply(REGISTRY["logical_not"](), self.given(~x))
        return apply(REGISTRY["negative"](), self.given(-x))

    def add(self, sample: Sample) -> None:
        """Take in a sample with each of its operands made in each way, and with all of them made in one way."""
        for make in (Made.number, Made.array, Made.turned, Made.part, Made.row, Made.computed):
            places = range(len(sample.operands))
            for chosen in ([{k} for k in places] if len(places) > 1 else []) + [set(places)]:
                operands = [make(self, x) if k in chosen else self.given(x) for k, x in enumerate(sample.operands)]
                made = apply_all(sample.op, *operands)
                self.outputs += made
                self.names += [f"{sample}, {make.__name__} {sorted(chosen)}"] * len(made)


def chosen_samples(name: str) -> list[Sample]:
    """Return small samples of an op, one for each count of axes, of floats where there are any; of an elementwise op one."""
    if name == "contract":  # small ones are sums, not tiles
        return [s for s in samples_of(name) if s.operands[0].dtype == np.float64 and LARGEST <= max(x.size for x in s.operands) < 200]
    small = [s for s in samples_of(name) if 1 < max(x.size for x in s.operands) <= LARGEST]
    small.sort(key=lambda s: (bool(s.note), s.operands[0].dtype != np.float64))
    by_rank = {tuple(x.ndim for x in s.operands): s for s in reversed(small)}
    return [*by_rank.values()][-1:] if issubclass(REGISTRY[name], Elementwise) else [*by_rank.values()]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_operands_of_every_make(name):
    made = Made()
    for sample in chosen_samples(name):
        made.add(sample)
    graph = Graph(tuple(made.inputs), tuple(made.outputs))
    expected, found = interpret(graph, made.arrays), run_uncompiled(graph, made.arrays)
    for what, x, y in zip(made.names, found, expected, strict=True):
        assert_agree(what, x, y, ULPS.get(name, 0), name in REORDERED)
