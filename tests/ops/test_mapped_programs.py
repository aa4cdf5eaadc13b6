"""Small programs around each op: `vmap` of the program and of its gradient is the stack of single ones, wherever the axes stand."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.ir.node import Value, apply_all
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.trigonometric import sin
from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import tracer_of
from tests.ops.samples import Sample, samples_of

SIZE, PROGRAMS = 3, 6


def program(sample: Sample):
    """Return the op between others, and the sum of what it gives of floats."""

    def mixed(v: Value) -> Value:
        return v + sin(v) * 0.01 if v.dtype.kind == "f" else v

    def results(*operands):
        return [tracer_of(mixed(y)) for y in apply_all(sample.op, *(mixed(lift(x)) for x in operands))]

    def total(*operands):
        return sum(np.sum(y * np.cos(y)) for y in results(*operands) if y.dtype.kind == "f") + 0.0

    return sg.trace(results, backend="interp"), sg.trace(total, backend="interp")


def chosen(name: str, rng: np.random.Generator) -> list[Sample]:
    """Return some samples of an op, those of float64 first."""
    small = [s for s in samples_of(name) if max(x.size for x in s.operands) <= 60]
    shuffled = [small[k] for k in rng.permutation(len(small))]
    shuffled.sort(key=lambda s: (bool(s.note), all(x.dtype != np.float64 for x in s.operands)))
    return [*shuffled[:PROGRAMS], *shuffled[-2:]]


def stacked(rng: np.random.Generator, x: np.ndarray) -> list[np.ndarray]:
    """Return arrays like x: its elements rolled around."""
    return [np.roll(x, int(k)).reshape(x.shape) for k in rng.integers(0, max(x.size, 1), SIZE)]


def check(what, function, rows, flags, axes) -> None:
    arrays = [np.stack(row, axis) if flag else row[0] for row, flag, axis in zip(rows, flags, axes, strict=True)]
    singles = [function(*(row[k if flag else 0] for row, flag in zip(rows, flags, strict=True))) for k in range(SIZE)]
    out_axes = [int(np.random.default_rng(k).integers(-np.ndim(y) - 1, np.ndim(y) + 1)) for k, y in enumerate(singles[0])]
    in_axes = tuple(axis if flag else None for flag, axis in zip(flags, axes, strict=True))
    found = sg.vmap(function, in_axes, out_axes)(*arrays)
    for y, axis, *expected in zip(found, out_axes, *singles, strict=True):
        expected = np.stack(expected, axis)
        assert y.dtype == expected.dtype and y.shape == expected.shape, what
        tolerance = 1e-4 if y.dtype == np.float32 else 1e-10
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg=what)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_programs_around_every_op(name):
    rng = np.random.default_rng(len(name))
    samples = chosen(name, rng)
    assert samples
    for sample in samples:
        results, total = program(sample)
        rows = [stacked(rng, x) for x in sample.operands]
        flags = [bool(k) for k in rng.integers(0, 2, len(rows))]
        flags[int(rng.integers(len(rows)))] = True
        axes = [int(rng.integers(-x.ndim - 1, x.ndim + 1)) for x in sample.operands]
        what = f"{sample} mapped {flags} along {axes}"
        check(what, results, rows, flags, axes)
        active = tuple(k for k, x in enumerate(sample.operands) if x.dtype.kind == "f")
        if active and any(y.dtype.kind == "f" for y in sample.apply()[1]):
            check(f"gradient of {what}", sg.grad(total, active), rows, flags, axes)
