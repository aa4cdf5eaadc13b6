"""Stored units: a graph whose machine code is on the disk is not lowered again, and whatever stands there, the numbers are right."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import staticgrad as sg
import staticgrad.runtime.build as build_module
from staticgrad.config import config, configure
from staticgrad.errors import StaticgradWarning
from staticgrad.runtime import cache as cache_module
from staticgrad.runtime import stored_units, unit_file, unit_key
from staticgrad.runtime.build import build, forget, machine_code
from staticgrad.runtime.cache import DiskCache
from staticgrad.runtime.unit_file import Entry

CHECKOUT = Path(build_module.__file__).parents[2]
X = np.linspace(-1, 2, 6).reshape(2, 3)
TABLE = np.arange(12.0).reshape(3, 4) - 5
MASK = np.array([True, False, True])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk cache of its own, nothing in memory, and each test the first of its process to warn."""
    monkeypatch.setattr(cache_module, "_warned", False)
    before = configure(replace(config(), cache=tmp_path / "cache", printer="llvm", verify=False, dump=None, log=frozenset()))
    forget()
    yield tmp_path / "cache"
    forget()
    configure(before)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.unit"))


def again(function: sg.traced.Traced) -> None:
    """Let a function find nothing in memory, as in a new process."""
    function.cache_clear()
    forget()


def leaves(result: object) -> list[np.ndarray]:
    return [leaf for item in result for leaf in leaves(item)] if isinstance(result, tuple) else [np.asarray(result)]


def same(left: object, right: object) -> bool:
    """Return whether two results have the same bits."""
    described = [[(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in leaves(result)] for result in (left, right)]
    return described[0] == described[1]


FUNCTIONS: dict[str, Callable[[np.ndarray], object]] = {
    "elementwise": lambda x: np.tanh(x) * 2,
    "an array closed over": lambda x: x @ TABLE,
    "an array closed over, moved by the passes": lambda x: TABLE.T @ x.T,
    "constants folded by the passes": lambda x: x + sg.numpy.sum(sg.numpy.zeros((4, 3)) + TABLE.T * 0.5, axis=0),
    "an array of another dtype": lambda x: np.where(MASK, x, np.arange(3, dtype=np.int8)),
    "one output twice, and an input": lambda x: (x * 2, x, x * 2, x.T),
    "outputs under other shapes": lambda x: (np.sum(x), np.reshape(x * 3, (-1,)), x * 3, 7.0, np.float32(1.5)),
    "a gradient": lambda x: sg.value_and_grad(lambda y: np.sum(np.exp(y @ TABLE) * np.sin(y[:, :1])))(x),
    "no input is needed": lambda x: np.ones(3),
    "no element": lambda x: (x[:0] * 2, np.sum(x[:0])),
    "mapped": lambda x: sg.vmap(lambda row: np.sum(row * TABLE[:, 0]))(x),
}


@pytest.mark.parametrize(
    ("name", "printer"), [*((name, "llvm") for name in FUNCTIONS), ("one output twice, and an input", "numba"), ("a gradient", "numba")]
)
def test_a_hit_is_not_lowered(disk: Path, monkeypatch: pytest.MonkeyPatch, name: str, printer: str) -> None:
    expected = sg.trace(FUNCTIONS[name], backend="interp")(X)
    function = sg.trace(FUNCTIONS[name], printer=printer)
    again(function)
    first = function(X)
    assert function.cache_info()[1:4] == (1, 0, 0) and len(entries(disk)) == 1
    for found, correct in zip(leaves(first), leaves(expected), strict=True):
        np.testing.assert_allclose(found, correct, rtol=1e-13)
    again(function)
    monkeypatch.setattr(build_module, "lower_graph", None)
    assert same(function(X), first)
    assert function.cache_info()[1:4] == (0, 1, 0)


def test_a_pullback_of_a_hit_has_what_the_forward_stage_saved(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = sg.trace(lambda x: np.exp(x) @ TABLE)
    value, pullback = sg.vjp(function, X)
    cotangents = pullback(np.ones((2, 4)))
    again(function)
    monkeypatch.setattr(build_module, "lower_graph", None)
    value_again, pullback_again = sg.vjp(function, X)
    assert same(value, value_again) and same(cotangents, pullback_again(np.ones((2, 4))))


def test_constants_of_the_graph_are_not_stored(disk: Path) -> None:
    large = np.random.default_rng(0).normal(size=(3, 20_000))
    function = sg.trace(lambda x: np.sum(x @ large))
    value = function(X)
    (path,) = entries(disk)
    assert path.stat().st_size < large.nbytes / 4
    again(function)
    assert function(X) == value and function.cache_info().disk_hits == 1
    large[:] = 0  # the next trace sees other bits: another graph
    again(function)
    assert function(X) == 0 and function.cache_info().disk_hits == 0


def test_a_plan_reads_back(disk: Path) -> None:
    graph = sg.trace(lambda x: (x @ TABLE, x.T, x @ TABLE)).lower(X).graph
    plan = build(graph, "cpu")[0].executable.plan
    details, made = stored_units.plan_details(plan, graph)
    found = stored_units.plan_of(details, made, graph)
    numbers = [(p.order, p.early, p.workspace, p.residual, p.work) for p in (found, plan)]
    assert numbers[0] == numbers[1] and plan.early
    assert [(a.shape, a.dtype) for a in (*found.inputs, *found.outputs)] == [(a.shape, a.dtype) for a in (*plan.inputs, *plan.outputs)]
    other = replace(plan, constants=(np.full((2, 2), np.nan), np.float32([[-0.0]]), np.arange(3, dtype=np.int8)))
    details, made = stored_units.plan_details(other, graph)
    for array, expected in zip(stored_units.plan_of(details, made, graph).constants, other.constants, strict=True):
        assert same(array, expected) and array.flags.aligned


# ---- what the key covers


def installation(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        known = unit_key._installation()
        monkeypatch.setattr(unit_key, "_installation", lambda: {**known, name: f"{known[name]} of another kind"})

    return change


OTHERWISE: dict[str, Callable[[pytest.MonkeyPatch], dict[str, bool] | None]] = {
    **{name: installation(name) for name in ("staticgrad", "sources", "python", "numpy", "llvmlite", "cpu", "machine")},
    "printer": lambda monkeypatch: configure(replace(config(), printer="numba")) and None,
    "fastmath": lambda monkeypatch: {"fastmath": True},
    "max_memory": lambda monkeypatch: {"max_memory": "1GB"},
    "skipped passes": lambda monkeypatch: configure(replace(config(), skip=frozenset({"fuse"}))) and None,
    "rewrite limit": lambda monkeypatch: configure(replace(config(), rewrite_limit=0)) and None,
    "cache format": lambda monkeypatch: monkeypatch.setattr(unit_key, "FORMAT_VERSION", 99),
}
"""What makes each component of the key another one; some return an option of `sg.trace` that does."""


@pytest.mark.parametrize("component", OTHERWISE)
def test_entries_of_another_kind_are_not_taken(disk: Path, monkeypatch: pytest.MonkeyPatch, component: str) -> None:
    def f(x):
        return np.sum(np.tanh(x) + 0 * x)

    function = sg.grad(f)
    value = function(X)
    again(function)
    options = OTHERWISE[component](monkeypatch) or {}
    assert same(sg.grad(sg.trace(f, **options))(X), value)
    assert function.cache_info()[1:4] == (1, 0, 0)
    assert len(entries(disk)) == 2
    (unit,) = (unit for unit in sg.explain_cache().units[-1:])
    assert component in [difference.component for difference in unit.differences]


def test_every_component_is_tried() -> None:
    graph = sg.trace(lambda x: x).lower(X).graph
    assert set(stored_units.graph_parts(graph, "llvm")) == {*OTHERWISE, "graph", "inputs"}


def test_whoever_wants_to_see_the_passes_sees_them(disk: Path, tmp_path: Path) -> None:
    function = sg.trace(lambda x: np.tanh(x))
    function(X)
    before = config()
    for changed in (replace(before, dump=tmp_path / "dump"), replace(before, verify=True), replace(before, log=frozenset({"pass"}))):
        configure(changed)
        again(function)
        function(X)
        assert function.cache_info().compiles == 1
        assert "asked to see it compiled" in sg.explain_cache().units[-1].reason
    configure(before)
    assert list((tmp_path / "dump").glob("*.ll")) and list((tmp_path / "dump").glob("*simplify*"))
    again(function)
    assert function(X) is not None and function.cache_info().disk_hits == 1


def test_without_jit_the_source_runs_in_spite_of_what_is_stored(disk: Path) -> None:
    """NUMBA_DISABLE_JIT=1 is for people who step through the source."""
    source = """
import numpy as np, staticgrad as sg
sg.trace(lambda x: x * 2.5, printer="numba")(np.ones(3))
print(sg.compile_report().disk_hits)
"""
    hits = []
    for without_jit in ("0", "1"):
        environment = {**os.environ, "STATICGRAD_CACHE": str(disk), "NUMBA_DISABLE_JIT": without_jit}
        subprocess.run([sys.executable, "-c", source], env=environment, check=True)
        found = subprocess.run([sys.executable, "-c", source], env=environment, check=True, capture_output=True, text=True)
        hits.append(found.stdout.strip())
    assert hits == ["1", "0"]


def test_a_source_of_our_own_is_stored_too(disk: Path) -> None:
    source = (Path(build_module.__file__).parent / "epoch_driver.py").read_text(encoding="utf-8")
    assert machine_code(source, has_backward=False, title="epoch driver")[1:] == (None, "compiled")
    assert machine_code(source, has_backward=False, title="epoch driver")[1:] == (None, "disk")
    assert machine_code(source + "# changed\n", has_backward=False, title="epoch driver")[1:] == (None, "compiled")


# ---- what stands on the disk


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def planted(**changes: object) -> Callable[[Path], None]:
    """Return what puts other metadata into an entry, under a right checksum; None takes one away."""

    def plant(path: Path) -> None:
        key = path.stem.removeprefix("sg_")
        entry = unit_file.decode(path.read_bytes(), key)
        metadata = {name: value for name, value in {**entry.metadata, **changes}.items() if value is not None}
        assert DiskCache(path.parent).put(key, Entry(metadata, entry.payload))

    return plant


WRONG = {
    "damaged": damage,
    "empty": lambda path: path.write_bytes(b""),
    "no plan": planted(plan=None),
    "a plan of nothing": planted(plan={}),
    "a plan of too many results": planted(plan={"order": [0, 1, 2], "early": [], "numbers": {}, "constants": []}),
    "a plan of a gap": planted(plan={"order": [0, 2], "early": [], "numbers": {}, "constants": []}),
    "a constant that is not there": planted(plan={"order": [0, 1], "early": [], "numbers": {}, "constants": [99]}),
    "constants that are cut short": planted(plan={"order": [0, 1], "early": [], "numbers": {}, "constants": [["<f8", [9]]]}),
    "a plan that is a list": planted(plan=[]),
    "no numbers": planted(plan={"order": [0, 1], "early": [], "numbers": {}, "constants": []}),
    "other numbers": planted(plan={"order": [0, 1], "early": [], "numbers": {"workspace": 0, "residual": 0, "color": 1}, "constants": []}),
    "no length": planted(**{"object bytes": None}),
    "a length that is text": planted(**{"object bytes": "12"}),
    "no object code": planted(**{"object bytes": 0}),
    "a symbol that the object lacks": planted(symbols=["sg_of_another_unit_forward"]),
    "no symbols": planted(symbols=None),
    "no name": planted(name=None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_costs_a_compilation(disk: Path, name: str) -> None:
    function = sg.value_and_grad(lambda x: np.sum(np.tanh(x)))
    value = function(X)
    (path,) = entries(disk)
    WRONG[name](path)
    again(function)
    assert same(function(X), value)
    assert function.cache_info()[1:4] == (1, 0, 0)
    assert sg.explain_cache().units[-1].reason.startswith("damaged" if name in ("damaged", "empty") else "ignored")
    again(function)
    assert same(function(X), value) and function.cache_info().disk_hits == 1, "the right entry has taken its place"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_disk_that_cannot_be_written(disk: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(unit_file, "write_file", fail)
    function = sg.trace(lambda x: np.tanh(x) + code)
    with pytest.warns(StaticgradWarning, match=os.strerror(code)):
        assert np.allclose(function(X), np.tanh(X) + code)


def test_a_disk_that_can_only_be_read_is_read(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = sg.trace(lambda x: np.tanh(x))
    value = function(X)
    os.utime(entries(disk)[0], (0, 0))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache_module.os, "utime", fail)
    again(function)
    assert same(function(X), value) and function.cache_info().disk_hits == 1


def test_no_cache(disk: Path) -> None:
    configure(replace(config(), cache=None))
    function = sg.trace(lambda x: np.tanh(x))
    assert np.allclose(function(X), np.tanh(X)) and not disk.exists()
    found = sg.explain_cache()
    assert found.folder is None and found.units[-1].reason == "the cache is off" and "the cache is off" in str(found)


# ---- processes

PROGRAM = """
import os, signal, sys, threading
import numpy as np
import staticgrad as sg

x = np.linspace(0.0, 1.0, 10)
table = np.arange(30.0).reshape(10, 3)

def check(k, a=x):
    f = sg.trace(lambda x: np.sum(np.sin(k * x) @ table), printer="llvm")
    value, gradient = sg.value_and_grad(f)(a)
    assert np.isclose(value, np.sum(np.sin(k * a) @ table)), value
    assert np.allclose(gradient, k * np.cos(k * a) * table.sum(1)), gradient
    return sg.value_and_grad(f).cache_info()
"""


def start(script: str, folder: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STATICGRAD_")}
    environment |= {"PYTHONPATH": str(CHECKOUT), "STATICGRAD_CACHE": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM + script]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


UNNEEDED = """
info = check(1.5)
loaded = [name for name in sys.modules if name.split(".")[0] in ("numba", "scipy")]
loaded += [name for name in sys.modules if name.startswith(("staticgrad.passes", "staticgrad.codegen", "staticgrad.calls.lowered"))]
print(info.disk_hits, *loaded)
"""


def test_neither_a_miss_nor_a_hit_imports_numba_and_a_hit_no_code_generation(disk: Path) -> None:
    cold = finish(start(UNNEEDED, disk)).split()
    assert cold[0] == "0" and "staticgrad.codegen.lower" in cold
    assert not [name for name in cold if name.split(".")[0] in ("numba", "scipy")]
    assert finish(start(UNNEEDED, disk)) == "1\n"


def test_two_processes_fill_one_cache(disk: Path) -> None:
    race = "print(*(check(1.0 + k % 4).disk_hits for k in range(4)))"
    for process in [start(race, disk), start(race, disk)]:
        finish(process)
    assert finish(start(race, disk)) == "1 1 1 1\n"
    assert len(entries(disk)) == 4 and len(list(disk.iterdir())) == 4


def test_killed_in_the_middle_of_a_write(disk: Path) -> None:
    process = start("os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\ncheck(1.5)", disk)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert [path.suffix for path in disk.iterdir()] == [".tmp"]
    assert finish(start("print(check(1.5).disk_hits)", disk)) == "0\n"
    assert finish(start("print(check(1.5).disk_hits)", disk)) == "1\n"


FULL = """
import resource, warnings
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    check(1.5), check(2.5)
print(len(caught), caught[0].category.__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_file_that_the_disk_takes_only_in_part(disk: Path) -> None:
    assert finish(start(FULL, disk)) == "1 StaticgradWarning\n"
    assert list(disk.iterdir()) == []


FORK = """
stop = False
failed = []
def compile_on():
    k = 2.0
    while not stop:
        try:
            check(k)
        except BaseException as error:
            failed.append(error)
            return
        k += 1
thread = threading.Thread(target=compile_on)
thread.start()
codes = []
for child in range(8):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a child that finds a lock taken ends as a failure
        try:
            check(100.0 + child % 4), check(2.0), sg.compile_report(), sg.explain_cache()
        except BaseException:
            os._exit(1)
        os._exit(0)
    codes.append(os.waitpid(pid, 0)[1])
stop = True
thread.join()
print(codes, failed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_another_thread_compiles(disk: Path) -> None:
    assert finish(start(FORK, disk)) == f"{[0] * 8} []\n"
