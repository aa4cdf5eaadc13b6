"""`lowered.memory`: what a call allocates, told before the run; held to what the system says that the process grew by."""

import os
import subprocess
import sys

import numpy as np
import pytest

import staticgrad as sg


@pytest.fixture(scope="module")
def measured():
    """Return planned and real peak bytes, by setting and by how it was called."""
    # Every array goes to pages of its own and these back to the system: else memory that earlier calls have freed would hide some.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-m", "tests.runtime.peaks"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return {name: (int(planned), int(real)) for name, planned, real in (line.split("\t") for line in done.stdout.splitlines())}


def test_the_real_peak_is_the_planned_one(measured):
    assert len(measured) == 20
    far = {name: real / planned for name, (planned, real) in measured.items() if abs(real - planned) > 0.05 * planned}
    assert not far, f"real over planned peak: {far}"


def test_memory_is_a_number_with_parts():
    table = np.arange(5.0)
    lowered = sg.value_and_grad(lambda w, x: np.sum(np.tanh(x @ w) * table)).lower(np.ones((5, 5)), np.ones((1000, 5)))
    memory = lowered.memory
    assert memory == memory.results + memory.workspace > memory.residuals > 0
    assert (memory.results, memory.arguments, memory.constants) == (8 + 200, 200 + 40_000, 40)
    assert f"{memory}" == str(int(memory))
    assert repr(memory).startswith(f"<{int(memory)} bytes: results=208, workspace=")


def test_a_result_that_is_returned_twice_counts_twice():
    def twice(x):
        y = np.exp(x)
        return y, y

    assert sg.trace(twice).lower(np.ones(1000)).memory.results == 16_000


def test_the_backward_stage_uses_the_memory_of_what_it_has_read():
    def chain(x):
        for _ in range(16):
            x = np.tanh(x)
        return np.sum(x)

    x = np.ones(50_000)
    memory = sg.grad(chain).lower(x).memory
    assert memory <= 20 * x.nbytes
    pullback = sg.vjp(sg.trace(chain), x)[1]
    first, second = pullback(1.0)[0], pullback(1.0)[0]
    assert first.tobytes() == second.tobytes() == sg.grad(chain)(x).tobytes()


def test_a_loop_does_not_stack_what_its_steps_only_move():
    def stencil(x):
        return np.sum(sg.scan(lambda c, _: ((np.roll(c, 1) - c) * np.roll(c, -1), None), x, None, length=50)[0])

    x = np.ones(1000)
    assert sg.grad(stencil).lower(x).memory <= 60 * x.nbytes
