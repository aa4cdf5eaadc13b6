"""What every test gets: a private cache, golden files, repeatable hypothesis, and the number of compiled units at the end."""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"
COUNT = "staticgrad_compile_count"

# Before staticgrad is imported; the workers of pytest-xdist inherit the folder from the process that starts them.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:
    os.environ["STATICGRAD_CACHE"] = tempfile.mkdtemp(prefix="staticgrad-tests-")
os.environ["MPLBACKEND"] = "Agg"
# Numba's linker asks for memory section by section, and aborts where code and its constants come to lie over 2 GiB apart, as they may in
# the large processes of a whole run. With llvmlite's memory manager it asks for all sections together.
os.environ.setdefault("NUMBA_USE_LLVMLITE_MEMORY_MANAGER", "1")

settings.register_profile(
    "staticgrad", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")), database=None, print_blob=True
)
settings.load_profile("staticgrad")


def compile_count() -> int:
    """Return how many units this process compiled."""
    count = getattr(sys.modules.get("staticgrad.runtime.compile"), "compile_count", None)
    return count() if count else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files in tests/golden/ anew; only tests that use them run")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what runs in the background; tests of Ctrl-C would never end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[WORKER_COUNTS] = []


WORKER_COUNTS = pytest.StashKey[list[int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--update-golden"):
        unrelated = [item for item in items if "golden" not in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=unrelated)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if IS_WORKER:
        session.config.workeroutput[COUNT] = compile_count()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    # A worker that crashed has no output.
    node.config.stash[WORKER_COUNTS].append(getattr(node, "workeroutput", {}).get(COUNT, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    compiled = compile_count() + sum(terminalreporter.config.stash[WORKER_COUNTS])
    terminalreporter.write_line(f"compiled units: {compiled}")


def pytest_unconfigure() -> None:
    if not IS_WORKER:
        shutil.rmtree(os.environ["STATICGRAD_CACHE"], ignore_errors=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare a text with `tests/golden/<name>`: `golden("chain.txt", str(graph))`; `make golden` writes the files."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"tests/golden/{name} does not exist; `make golden` writes it.", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), f"tests/golden/{name}", "now", lineterm="")
            pytest.fail("\n".join([*lines, "", "If the change is meant, `make golden` writes the file anew."]), pytrace=False)

    return compare


@pytest.fixture(scope="module", autouse=True)
def _without_caches_of_jax() -> Iterator[None]:
    """Let go of what JAX compiled when a file is done: a worker runs dozens of them."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
