"""`sg.compile_report`: the time of each phase once, and a line a unit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.config import config, configure
from staticgrad.runtime import report as module
from staticgrad.runtime.build import forget
from staticgrad.runtime.report import PHASES, phase


@pytest.fixture(autouse=True)
def process(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has compiled nothing, with a cache of its own."""
    monkeypatch.setattr(module, "_totals", module._Totals())
    before = configure(replace(config(), cache=tmp_path, printer="llvm", verify=False, dump=None, log=frozenset()))
    forget()
    yield
    forget()
    configure(before)


def seconds(name: str) -> float:
    return sg.compile_report().phases[name]


def test_phases_inside_each_other_count_once() -> None:
    start = time.perf_counter()
    with phase("derivatives"):
        time.sleep(0.01)
        with phase("trace"):
            time.sleep(0.03)
            with phase("trace"):
                time.sleep(0.02)
        time.sleep(0.01)
    spent = time.perf_counter() - start
    assert 0.05 <= seconds("trace") < seconds("trace") + seconds("derivatives") <= spent
    assert seconds("derivatives") >= 0.02
    assert sg.compile_report().seconds == pytest.approx(spent, abs=5e-3)


def test_a_phase_ends_with_an_error() -> None:
    with pytest.raises(KeyError), phase("passes"), phase("schedule"):
        raise KeyError
    with phase("passes"):
        time.sleep(0.01)
    assert seconds("passes") >= 0.01 > seconds("schedule")


def test_threads_do_not_share_what_is_under_way() -> None:
    def work() -> None:
        for _ in range(200):
            with phase("print"), phase("load"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    with phase("passes"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.02)
    assert seconds("passes") >= 0.02, "the time of other threads is not taken from it"
    assert seconds("print") > 0 and seconds("load") > 0


def test_a_phase_costs_little() -> None:
    best = min(_timed() for _ in range(5))
    assert best < 20e-6


def _timed() -> float:
    start = time.perf_counter()
    for _ in range(1000):
        with phase("trace"):
            pass
    return (time.perf_counter() - start) / 1000


@pytest.mark.parametrize("printer", ["llvm", "numba"])
def test_a_compilation(printer: str) -> None:
    function = sg.value_and_grad(sg.trace(lambda x: np.sum(np.tanh(x) @ x.T), printer=printer))
    start = time.perf_counter()
    function(np.ones((3, 4)))
    spent = time.perf_counter() - start
    found = sg.compile_report()
    assert list(found.phases) == list(PHASES)
    gone_through = set(PHASES) - {"imports", "Numba"} | ({"Numba"} if printer == "numba" else set())
    assert gone_through <= {name for name, value in found.phases.items() if value > 0}
    if printer == "llvm":
        assert found.phases["Numba"] == 0
    assert 0.5 * spent < found.seconds <= spent, "most of the time has a name"
    (unit,) = found.units
    lowered = function.lower(np.ones((3, 4)))
    assert (unit.title, unit.printer, unit.origin) == ("value_and_grad(<lambda>)", printer, "compiled")
    assert unit.nests == len(lowered.schedule.nests) and unit.functions > 0
    assert unit.bytes > 500 and 0 < unit.seconds <= spent
    assert (found.compiled, found.disk_hits, found.memory_hits) == (1, 0, 0)
    assert (found.functions, found.nests) == (unit.functions, unit.nests)


def test_hits() -> None:
    function = sg.trace(lambda x: np.tanh(x) * 1.75)
    function(np.ones(3))
    before = sg.compile_report(reset=True)
    assert before.compiled == 1
    forget()
    function.cache_clear()
    function(np.ones(3))
    sg.trace(lambda x: np.tanh(x) * 1.75)(np.ones(3))  # an equal graph
    found = sg.compile_report()
    assert (found.compiled, found.disk_hits, found.memory_hits) == (0, 1, 1)
    assert all(found.phases[name] == 0 for name in ("passes", "schedule", "lowering", "print", "LLVM parse"))
    assert all(found.phases[name] > 0 for name in ("trace", "disk cache", "load"))
    assert replace(found.units[0], origin="compiled", seconds=0) == replace(before.units[0], seconds=0)


def test_reset() -> None:
    sg.trace(lambda x: x * 1.125)(np.ones(3))
    assert sg.compile_report().compiled == 1
    assert sg.compile_report(reset=True).compiled == 1
    empty = sg.compile_report()
    assert (empty.units, empty.memory_hits, empty.seconds) == ((), 0, 0.0)


def test_a_report_does_not_change() -> None:
    before = sg.compile_report()
    sg.trace(lambda x: x * 1.375)(np.ones(3))
    assert before.units == () and before.seconds == 0


def test_the_table() -> None:
    empty = str(sg.compile_report())
    assert empty.splitlines()[-2:] == ["units: 0 compiled, 0 from disk, 0 from memory", "in them: functions 0, loop nests 0"]

    def a_function_with_a_name_that_is_much_too_long_for_a_table(x):
        return np.sum(x * 1.625)

    sg.trace(a_function_with_a_name_that_is_much_too_long_for_a_table)(np.ones(3))
    lines = str(sg.compile_report()).splitlines()
    assert lines[0].split() == ["phase", "seconds", "share"]
    assert [line[:16].strip() for line in lines[1 : len(PHASES) + 2]] == [*PHASES, "total"]
    assert "units: 1 compiled, 0 from disk, 0 from memory" in lines and "in them: functions 1, loop nests 1" in lines
    assert lines[-1].startswith("a_function_with_a_name_that_is_m...") and lines[-1].split()[1:3] == ["compiled", "llvm"]
    assert len(lines[-1]) == len(lines[-2])


def test_cuda_units_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from staticgrad.runtime import cuda

    class Anything:
        def __getattr__(self, name: str) -> Anything:
            return self

        def __call__(self, *arguments: object) -> Anything:
            return self

    monkeypatch.setattr(cuda, "vocabulary", Anything())
    monkeypatch.setattr(cuda, "load_source", Anything())
    sg.trace(lambda x: np.tanh(x)).lower(np.ones(3), backend="cuda").compile()
    (unit,) = sg.compile_report().units
    assert (unit.printer, unit.origin, unit.bytes) == ("cuda", "compiled", 0) and unit.nests == 1
