"""Running graphs in every way there is, and comparing what comes out."""

from collections.abc import Sequence

import numpy as np

from staticgrad.ir.context import CONTEXT_WORDS
from staticgrad.ir.graph import Graph
from staticgrad.runtime.build import Lowering, lower_graph
from staticgrad.runtime.compile import run_python
from staticgrad.runtime.executor import failure
from tests.ops.samples import REORDERED, ULPS, Sample


def run_uncompiled(graph: Graph, arrays: Sequence[np.ndarray], fuse: bool = True, lowering: Lowering | None = None) -> list[np.ndarray]:
    """Return the results of the emitted source, run as plain Python."""
    lowering = lowering or lower_graph(graph, fuse)
    plan = lowering.call_plan
    outputs = [np.full(aval.shape, 77, aval.dtype) for aval in plan.outputs]  # what is never written shows
    arguments = [np.array(x).ravel() for x in (*arrays, *plan.constants)] + [y.reshape(-1) for y in outputs]
    memory = np.full(plan.workspace + 64, 0x5A, np.uint8)
    start = -memory.ctypes.data % 64
    context = np.zeros(CONTEXT_WORDS, np.int64)
    for stage in ("forward", "backward") if lowering.lowered.unit.backward is not None else ("forward",):
        with np.errstate(all="ignore"):
            code = run_python(lowering.source, arguments, memory[start:], context, stage)
        if code:
            raise failure(context)
    return [outputs[k] for k in plan.order]


def identical(found: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether two arrays agree in dtype, shape and every bit; all NaNs are one."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    same = (found == expected) & (np.signbit(found) == np.signbit(expected))
    return bool(np.all(same | (np.isnan(found) & np.isnan(expected))))


def ulps_apart(found: np.ndarray, expected: np.ndarray) -> int:
    """Return how many floats lie between two arrays at most; a NaN beside a number, or 0 beside -0, are infinitely far apart."""
    word = {4: np.int32, 8: np.int64}[found.dtype.itemsize]
    far = np.iinfo(np.int64).max
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return far
    if not found.size:
        return 0
    found, expected = found.reshape(-1), expected.reshape(-1)
    nans = np.isnan(found) & np.isnan(expected)
    zeros = (found == 0) & (expected == 0)
    if np.any(np.isnan(found) != np.isnan(expected)) or np.any(zeros & (np.signbit(found) != np.signbit(expected))):
        return far
    places = []
    for x in (found, expected):
        bits = np.where(nans, x.dtype.type(0), x).view(word).astype(object)
        places.append(np.where(bits >= 0, bits, int(np.iinfo(word).min) - bits))
    return int(np.max(np.abs(places[0] - places[1])))


def close(found: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> bool:
    """Return whether two arrays agree to a few roundings, relative to numbers of size `scale`."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    eps = float(np.finfo(found.dtype).eps)
    return bool(np.allclose(found, expected, rtol=200 * eps, atol=200 * eps * scale, equal_nan=True))


def assert_agree(name: str, found: np.ndarray, expected: np.ndarray, ulps: int, reordered: bool, scale: float = 1.0) -> None:
    """Assert that two results of one op agree as exactly as the op promises."""
    if reordered and found.dtype.kind == "f":
        fits = close(found, expected, scale)
    elif ulps:
        fits = ulps_apart(found, expected) <= ulps if found.dtype.kind == "f" else identical(found, expected)
    else:
        fits = identical(found, expected)
    assert fits, f"{name}:\n{found!r}\nis not\n{expected!r}"


def assert_sample_agrees(sample: Sample, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Assert that two results of a sample agree as exactly as its op promises."""
    finite = [np.abs(x[np.isfinite(x)]) for x in sample.operands if x.dtype.kind == "f"]
    scale = max([1.0, *(float(x.max(initial=0.0)) for x in finite)])
    for x, y in zip(found, expected, strict=True):
        assert_agree(str(sample), x, y, ULPS.get(sample.op.name, 0), sample.op.name in REORDERED, scale)
