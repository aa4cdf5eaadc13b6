"""Runs kernels in the CUDA simulator and prints what went wrong: `NUMBA_ENABLE_CUDASIM=1 python -m tests.codegen.in_simulator`.

On a machine with a GPU the same runs there, without the variable. Names of checks can be given.
The simulator is chosen by the environment before Numba is imported, so the tests start this in a process of its own.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np

from staticgrad.api import trace, value_and_grad, vjp
from staticgrad.codegen.cuda_printer import print_cuda
from staticgrad.errors import IndexingError, IntegerPowerError
from staticgrad.ir.aval import FLOAT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import apply, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.movement import broadcast, slice_
from staticgrad.runtime.compile import execute
from staticgrad.runtime.cuda import CudaExecutable, build_cuda, lower_cuda, vocabulary
from tests.codegen.cuda_programs import PROGRAMS, SEEDS, counting_unit
from tests.fuzz.programs import Program
from tests.fuzz.test_random_graphs import assert_equal, settings
from tests.ops.running import assert_sample_agrees
from tests.ops.samples import Grouped, samples_of


def op(name: str) -> None:
    """Run an op on its samples of every dtype."""
    group = Grouped([sample for sample in samples_of(name) if max(x.size for x in sample.operands) <= 1000])
    expected, found = interpret(group.graph, group.arguments), build_cuda(group.graph).run(group.arguments)
    for sample, part in zip(group.samples, group.parts, strict=True):
        assert_sample_agrees(sample, found[part], expected[part])


def program(name: str) -> None:
    """Run a function of the table."""
    graph, arrays = PROGRAMS[name].graph_and_arrays()
    assert_equal(name, graph, build_cuda(graph).run(arrays), interpret(graph, arrays))


def random_gradient(seed: str) -> None:
    """Run the gradient of a random program, with odd seeds unoptimised."""
    made = Program(int(seed)).grow(20)
    graph = made.gradient()
    with settings(skip=frozenset({"simplify", "simplify again"} if int(seed) % 2 else {})):
        assert_equal(f"seed {seed}", graph, build_cuda(graph).run(made.arrays), interpret(graph, made.arrays))


def one_after_the_other() -> None:
    """Items of one element each may read each other, whatever they are."""
    x, y = (new_input(Aval((1,), FLOAT64)) for _ in "xy")
    total = apply(REGISTRY["sum"]((0,)), x)
    joined = apply(REGISTRY["concatenate"](0), broadcast(total, (1,), (0,)), y)
    graph = Graph((x, y), (total * 2, joined, slice_(joined, (1,), (2,), (1,))))
    arrays = [np.array([3.0]), np.array([5.0])]
    with settings(skip=frozenset({"simplify", "simplify again"})):
        assert_equal("scalars", graph, build_cuda(graph).run(arrays), interpret(graph, arrays))


def launch_configurations() -> None:
    """Any number of blocks and threads gives the same bits."""
    graph, arrays = PROGRAMS["rows_and_columns_in_parts"].graph_and_arrays()
    executable = build_cuda(graph).run
    lowering = lower_cuda(graph)
    expected = executable(arrays)
    for count, threads in ((1, 1), (1, 7), (3, 2), (40, 16)):
        namespace = execute("launch", lowering.source)
        namespace["blocks"], namespace["THREADS"] = lambda extent, count=count: count, threads
        found = CudaExecutable(lowering.call_plan, namespace["forward"], namespace.get("backward"), False)(arrays)
        for x, y in zip(found, expected, strict=True):
            assert x.tobytes() == y.tobytes(), (count, threads)


def through_the_public_functions() -> None:
    """`backend="cuda"` goes the whole way: values, gradients, pullbacks, scalars, repeated outputs, and errors of kernels."""
    f = trace(lambda x, y: np.sum(np.sin(x) * y), backend="cuda")
    x, y = np.linspace(0, 1, 5), np.arange(5.0)
    value, gradient = value_and_grad(f)(x, y)
    np.testing.assert_allclose([value, *gradient], [np.sum(np.sin(x) * y), *(np.cos(x) * y)], rtol=1e-14)
    value, pullback = vjp(f, x, y)
    np.testing.assert_allclose(pullback(2.0)[1], 2 * np.sin(x), rtol=1e-14)
    first, second = trace(lambda x: (x + 1, x + 1), backend="cuda")(x)
    assert first is not second and first.tobytes() == second.tobytes() == (x + 1).tobytes()
    assert isinstance(f(x, y), np.float64) and f.cache_info().compiles == 1
    power = trace(lambda x, p: x**p, backend="cuda")
    assert power(np.array([2, 3]), np.array([3, 2])).tolist() == [8, 9]
    try:
        power(np.array([2, 3]), np.array([3, -2]))
    except IntegerPowerError:
        pass
    else:
        raise AssertionError("a negative integer power is an error")
    assert power(np.array([2, 3]), np.array([0, 1])).tolist() == [1, 3]
    pick = trace(lambda x, k: x[k], backend="cuda")
    assert pick(x, np.array([4, -5])).tolist() == [1, 0]
    try:
        pick(x, np.array([0, 5]))
    except IndexingError as error:
        assert "5 for an axis with size 5" in str(error)
    else:
        raise AssertionError("an index out of bounds is an error")


def hand_built() -> None:
    """Loops, branches, variables, local arrays and calls of functions inside a kernel."""
    unit, expected = counting_unit()
    namespace = execute("hand_built", print_cuda(unit))
    cuda = vocabulary().cuda
    arrays = [cuda.to_device(np.arange(12)), cuda.to_device(np.zeros(12, np.int64))]
    namespace["forward"](arrays, cuda.device_array(1, np.uint8), None)
    assert arrays[1].copy_to_host().tolist() == expected


def main() -> None:
    """Print, as JSON, the traceback of each check that failed and the seconds of all."""
    checks: dict[str, Callable[[], None]] = {}
    checks |= {f"op {name}": lambda name=name: op(name) for name in sorted(REGISTRY)}
    checks |= {f"program {name}": lambda name=name: program(name) for name in PROGRAMS}
    checks |= {f"seed {seed}": lambda seed=seed: random_gradient(seed) for seed in SEEDS}
    checks |= {check.__name__: check for check in (one_after_the_other, launch_configurations, through_the_public_functions, hand_built)}
    found = {}
    for name, check in checks.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        try:
            with np.errstate(all="ignore"):
                check()
            failed = ""
        except Exception:
            failed = traceback.format_exc()
        found[name] = {"failed": failed, "seconds": round(time.perf_counter() - start, 3)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
