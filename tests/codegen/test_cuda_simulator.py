"""Kernels for GPUs run in the simulator: every op on its samples, a table of functions, and gradients of random programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from staticgrad.ir.op import REGISTRY
from tests.codegen.cuda_programs import PROGRAMS, SEEDS

pytest.importorskip("numba_cuda")

CHECKS = [
    *(f"op {name}" for name in sorted(REGISTRY)),
    *(f"program {name}" for name in PROGRAMS),
    *(f"seed {seed}" for seed in SEEDS),
    "one_after_the_other",
    "launch_configurations",
    "through_the_public_functions",
    "hand_built",
]


@pytest.fixture(scope="module")
def results():
    """What the simulator says, in a process of its own: Numba chooses it when it is imported."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "STATICGRAD_VERIFY": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.codegen.in_simulator"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_simulator(results, check):
    assert not results[check]["failed"], results[check]["failed"]


def test_all_checks_ran(results):
    assert list(results) == CHECKS
