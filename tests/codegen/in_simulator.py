"""Runs kernels in the CUDA simulator (or on a GPU) and prints what went wrong: `NUMBA_ENABLE_CUDASIM=1 python -m tests.codegen.in_simulator`.

The simulator is chosen by the environment before Numba is imported, so the tests start this in a process of its own.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np

from staticgrad.ir.interp import interpret
from staticgrad.ir.op import REGISTRY
from staticgrad.runtime.cuda import build_cuda
from tests.codegen.cuda_programs import PROGRAMS, SEEDS
from tests.fuzz.programs import Program
from tests.fuzz.test_random_graphs import assert_equal
from tests.ops.samples import Grouped, samples_of
from tests.ops.test_values import agree


def op(name: str) -> None:
    """Run an op on its samples of every dtype."""
    group = Grouped([sample for sample in samples_of(name) if max(x.size for x in sample.operands) <= 1000])
    expected, found = interpret(group.graph, group.arguments), build_cuda(group.graph).run(group.arguments)
    for sample, part in zip(group.samples, group.parts, strict=True):
        agree(sample, found[part], expected[part])


def program(name: str) -> None:
    """Run a function of the table."""
    graph, arrays = PROGRAMS[name].graph_and_arrays()
    assert_equal(name, graph, build_cuda(graph).run(arrays), interpret(graph, arrays))


def random_gradient(seed: str) -> None:
    """Run the gradient of a random program."""
    made = Program(int(seed)).grow(20)
    graph = made.gradient()
    assert_equal(f"seed {seed}", graph, build_cuda(graph).run(made.arrays), interpret(graph, made.arrays))


def main() -> None:
    """Print, as JSON, the traceback of each check that failed and the seconds of all."""
    checks: dict[str, Callable[[], None]] = {}
    checks |= {f"op {name}": lambda name=name: op(name) for name in sorted(REGISTRY)}
    checks |= {f"program {name}": lambda name=name: program(name) for name in PROGRAMS}
    checks |= {f"seed {seed}": lambda seed=seed: random_gradient(seed) for seed in SEEDS}
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
