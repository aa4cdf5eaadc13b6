"""The derivatives of one op application as graphs, to be held against differences and against each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from staticgrad.ad.forward import tangents
from staticgrad.ad.reverse import cotangents
from staticgrad.gradient_check import LEVELS, derivative_at_zero
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, new_input, zeros_like
from staticgrad.ir.verify import verify
from tests.ops.samples import Sample


@dataclass
class Function:
    """Values that depend on inputs, with numbers for the inputs: something to differentiate."""

    inputs: list[Value]
    outputs: list[Value]
    arrays: list[np.ndarray]

    @classmethod
    def of(cls, sample: Sample) -> "Function":
        """Return an op application as a function of its operands."""
        inputs, outputs = sample.apply()
        return cls(inputs, list(outputs), list(sample.operands))

    @property
    def active(self) -> list[int]:
        """The positions of the inputs that have derivatives."""
        return [k for k, v in enumerate(self.inputs) if v.dtype.kind == "f"]

    def __call__(self, outputs: Sequence[Value] | None = None, arrays: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Return the numbers of `outputs`, by default its own."""
        graph = Graph(tuple(self.inputs), tuple(self.outputs if outputs is None else outputs))
        verify(graph)
        return interpret(graph, self.arrays if arrays is None else arrays)

    def _extended(self, values: Sequence[Value], rng: np.random.Generator) -> tuple[list[Value], list[np.ndarray]]:
        made = [new_input(v.aval) for v in values]
        return made, [np.asarray(rng.standard_normal(v.shape)).astype(v.dtype) for v in values]

    def forward(self, rng: np.random.Generator, only: Sequence[int] | None = None) -> tuple["Function", list[np.ndarray]]:
        """Return the tangents of the outputs as a function of inputs and tangents, and the tangents' numbers."""
        chosen = self.active if only is None else list(only)
        extra, numbers = self._extended([self.inputs[k] for k in chosen], rng)
        seeds: list[Value | None] = [None] * len(self.inputs)
        for k, t in zip(chosen, extra, strict=True):
            seeds[k] = t
        found = tangents(self.outputs, self.inputs, seeds)
        moved = [zeros_like(y) if t is None else t for t, y in zip(found, self.outputs, strict=True)]
        return Function([*self.inputs, *extra], moved, [*self.arrays, *numbers]), numbers

    def reverse(self, rng: np.random.Generator) -> tuple["Function", list[np.ndarray]]:
        """Return the cotangents of the active inputs as a function of inputs and cotangents, and the cotangents' numbers."""
        extra, numbers = self._extended(self.outputs, rng)
        wanted = [self.inputs[k] for k in self.active]
        found = cotangents(self.outputs, wanted, [g if g.dtype.kind == "f" else None for g in extra])
        moved = [zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]
        return Function([*self.inputs, *extra], moved, [*self.arrays, *numbers]), numbers

    def differences(self, directions: Sequence[np.ndarray], levels: int = LEVELS) -> list[np.ndarray]:
        """Return the derivatives of the outputs when the active inputs move along `directions`; `levels` steps are tried."""

        def along(distance: float) -> np.ndarray:
            moved = list(self.arrays)
            for k, t in zip(self.active, directions, strict=True):
                moved[k] = moved[k] + distance * t
            return np.concatenate([np.ravel(y).astype(np.float64) for y in self(arrays=moved)])

        flat = derivative_at_zero(along, 1 / 64, levels)
        ends = np.cumsum([y.aval.size for y in self.outputs])
        return [part.reshape(y.shape) for part, y in zip(np.split(flat, ends[:-1]), self.outputs, strict=True)]


def inner(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the inner product of two lists of arrays, and the sum of the absolute products: the scale of its rounding."""
    products = [np.ravel(x * y) for x, y in zip(xs, ys, strict=True)]
    return float(sum(np.sum(p) for p in products)), float(sum(np.sum(np.abs(p)) for p in products))


def assert_adjoint(what: str, function: Function, rng: np.random.Generator, tolerance: float = 1e-12) -> None:
    """Assert <g, J t> = <J' g, t> for random g and t."""
    forward, t = function.forward(rng)
    reverse, g = function.reverse(rng)
    left, scale = inner(forward(), g)
    right, _ = inner(reverse(), t)
    assert abs(left - right) <= tolerance * max(scale, 1e-3), f"{what}: <g, jvp> = {left!r}, <vjp, t> = {right!r}"


def assert_differences(what: str, function: Function, rng: np.random.Generator, tolerance: float = 1e-7, levels: int = LEVELS) -> None:
    """Assert that the tangents are what differences say."""
    forward, t = function.forward(rng)
    for found, expected in zip(forward(), function.differences(t, levels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=what)
