"""Hand-built units for tests, and running them compiled and as plain Python."""

from dataclasses import dataclass

import numpy as np

from staticgrad.codegen.numba_printer import print_unit
from staticgrad.ir.builder import Builder
from staticgrad.ir.loops import Buffer, Function, Index, Invoke, Space, Unit
from staticgrad.runtime.compile import compile_unit, run_python

LANES = 16


def parameter(name, dtype, size):
    return Buffer(name, np.dtype(dtype), size, Space.PARAMETER)


def function(name, buffers, make, numbers=(), title=""):
    builder = Builder()
    make(builder)
    return Function(name, tuple(buffers), tuple(numbers), builder.root, title)


def whole(*buffers):
    return tuple((buffer, Index()) for buffer in buffers)


def unit_of(name, *functions):
    """Return a unit that calls each function on arguments of its own."""
    arguments, calls = [], []
    for f in functions:
        names = [buffer.name if len(functions) == 1 else f"{buffer.name}_{f.name}" for buffer in f.buffers]
        own = [Buffer(n, b.dtype, b.size, Space.INPUT, position=len(arguments) + k) for k, (n, b) in enumerate(zip(names, f.buffers))]
        arguments += own
        calls.append(Invoke(f, whole(*own)))
    return Unit(f"sg_{name}", tuple(arguments), tuple(calls), None, 0, 0, functions)


@dataclass
class Ran:
    compiled: list
    python: list
    code: int
    context: np.ndarray


def pointers(arrays):
    return np.array([array.ctypes.data for array in arrays], np.uintp)


def aligned(size):
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def call(compiled, arrays, stage="forward", workspace=None, context=None):
    """Call a stage of a compiled unit and return its code."""
    table = pointers(arrays)
    workspace = aligned(64) if workspace is None else workspace
    context = np.zeros(8, np.int64) if context is None else context
    native = compiled.call_forward if stage == "forward" else compiled.call_backward
    return native(table.ctypes.data, workspace.ctypes.data, context.ctypes.data)


def run(unit, arrays, stages=("forward",)):
    """Run a unit compiled and as plain Python, and check that both write the same bytes."""
    source = print_unit(unit)
    compiled = compile_unit(unit.name, source)
    results = []
    for mode in ("compiled", "python"):
        own = [array.copy() for array in arrays]
        workspace, context = aligned(unit.workspace), np.zeros(8, np.int64)
        for stage in stages:
            if mode == "python":
                code = run_python(source, own, workspace, context, stage)
            else:
                code = call(compiled, own, stage, workspace, context)
        results.append((own, code, context))
    (first, code, context), (second, other_code, other_context) = results
    for buffer, x, y in zip(unit.arguments, first, second):
        assert_same(x, y, f"{buffer.name}: compiled and Python")
    assert code == other_code and context.tolist() == other_context.tolist()
    return Ran(first, second, code, context)


def assert_same(x, y, what):
    """Check equal bits, any NaN being as good as another."""
    assert x.dtype == y.dtype and x.shape == y.shape
    same = (bits(x) == bits(y)) | ((x != x) & (y != y))
    if not same.all():
        at = int(np.flatnonzero(~same)[0])
        raise AssertionError(f"{what}: element {at} is {x[at]!r} and {y[at]!r}")


def bits(x):
    return x.view(f"u{x.dtype.itemsize}")


# ---- functions that several tests use


def matmul(rows, inner, columns, height, width):
    """Return a register-tiled product: `height` rows of `width` vectors stay in registers."""
    a, b_, c = parameter("a", "f4", rows * inner), parameter("b", "f4", inner * columns), parameter("out", "f4", rows * columns)

    def make(b):
        with b.loop(columns, step=width * LANES, hint="column") as j, b.loop(rows, step=height, hint="row") as i:
            zero = b.literal(0, a.dtype, LANES)
            tile = {(m, n): b.variable(zero, f"c{m}_{n}") for m in range(height) for n in range(width)}
            with b.loop(inner, hint="k") as k:
                right = [b.load(b_, k * columns + j + n * LANES, LANES) for n in range(width)]
                for m in range(height):
                    left = b.splat(b.load(a, (i + m) * inner + k), LANES)
                    for n in range(width):
                        b.set(tile[m, n], b.fma(left, right[n], b.get(tile[m, n])))
            for (m, n), variable in tile.items():
                b.store(c, (i + m) * columns + j + n * LANES, b.get(variable))

    return function("matmul", [a, b_, c], make)


def doubling(name, n=8, factor=2.0, title=""):
    """Return a function that multiplies by `factor`."""
    x, out = parameter(f"x_{name}", "f8", n), parameter(f"out_{name}", "f8", n)

    def make(b):
        with b.loop(n) as i:
            value = b.load(x, i)
            b.store(out, i, b.mul(value, b.like(factor, value)))

    return function(name, [x, out], make, title=title)
