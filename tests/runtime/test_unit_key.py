"""The key of a unit: every component counts, and the components of this installation are what they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest

import staticgrad as sg
from staticgrad.runtime import unit_key as module
from staticgrad.runtime.unit_key import environment_parts, sources_digest, unit_key

CHECKOUT = Path(module.__file__).parents[2]


def test_unit_key_is_a_sha256_of_an_injective_encoding() -> None:
    parts = [
        {},
        {"": ""},
        {"a": ""},
        {"": "a"},
        {"a": "b"},
        {"ab": ""},
        {"a": "", "b": ""},
        {"a": "b", "c": "d"},
        {"a": "bc", "d": ""},
        {"a": "d", "c": "b"},
        {"a": "é"},
        {"a": "e\u0301"},
        {"a": "?"},
        {"a": "\udc80"},
        {"a": "\udc81"},
        {"a": "\ud800\udc00"},
        {"a": "\U00010000"},
    ]
    keys = [unit_key(part) for part in parts]
    assert len(set(keys)) == len(parts)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    assert unit_key({"a": "1", "b": "2"}) == unit_key({"b": "2", "a": "1"})


def test_unit_key_is_the_same_in_every_process() -> None:
    assert unit_key({"b": "2", "a": "é"}) == "8b5295491bd803bd04820358bd1c5e484f11a6b781bc29a0c319125d54db11eb"


def test_environment_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = environment_parts("llvm")
    assert set(parts) == {"staticgrad", "sources", "python", "numpy", "llvmlite", "cpu", "machine", "printer", "cache format"}
    assert all(isinstance(text, str) and text for text in parts.values())
    assert (parts["staticgrad"], parts["numpy"], parts["printer"]) == (sg.__version__, np.__version__, "llvm")
    assert parts["llvmlite"].startswith(f"{llvmlite.__version__}, LLVM ")
    assert parts["python"].startswith(f"cpython {sys.version_info[0]}.{sys.version_info[1]}.")
    parts.clear()
    assert environment_parts("llvm"), "a new dictionary each time"
    key = unit_key(environment_parts("llvm"))
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
    assert unit_key(environment_parts("llvm")) != key


def test_numba_counts_where_it_compiles() -> None:
    assert environment_parts("numba")["numba"] == numba.__version__
    assert "numba" not in environment_parts("llvm")
    assert unit_key(environment_parts("numba")) != unit_key(environment_parts("llvm"))


def package(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    for name in ("one.py", "two.py", "inner/three.py"):
        (folder / name).write_text(f"# {name}")
        os.utime(folder / name, (0, 0))
    return folder


def test_sources_digest_covers_names_and_contents(tmp_path: Path) -> None:
    first, second = package(tmp_path / "a"), package(tmp_path / "b")
    digest = sources_digest(first)
    assert digest == sources_digest(second) == sources_digest(first)
    (second / "__pycache__" / "one.py").write_text("not a source")
    (second / "notes.txt").write_text("neither")
    assert sources_digest(second) == digest
    (second / "inner" / "three.py").write_text("# another")
    os.utime(second / "inner" / "three.py", (0, 0))
    changed = sources_digest(second)
    assert changed != digest and changed == sources_digest(second)
    (first / "one.py").rename(first / "four.py")
    assert sources_digest(first) not in (digest, changed)
    assert sources_digest(tmp_path / "nowhere") == sources_digest()


def test_sources_that_changed_after_the_start_are_nobody_elses(tmp_path: Path) -> None:
    folder = package(tmp_path / "a")
    later = time.time() + 100
    os.utime(folder / "two.py", (later, later))
    assert sources_digest(folder) != sources_digest(folder)


def test_the_digest_is_of_the_package_and_its_kernels(tmp_path: Path) -> None:
    """Two processes agree, and a change of a kernel is another key."""
    code = "from staticgrad.runtime.unit_key import environment_parts; print(environment_parts('llvm')['sources'])"

    def digest(path: Path) -> str:
        environment = os.environ | {"PYTHONPATH": str(path)}
        return subprocess.run([sys.executable, "-c", code], env=environment, cwd=path, capture_output=True, text=True, check=True).stdout

    assert digest(CHECKOUT) == environment_parts("llvm")["sources"] + "\n"
    for name in ("staticgrad", "kernels"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(CHECKOUT / "pyproject.toml", tmp_path)
    assert digest(tmp_path) == digest(CHECKOUT), "wherever it stands"
    kernel = tmp_path / "kernels" / "logistic.py"
    kernel.write_text(kernel.read_text() + "# changed\n")
    os.utime(kernel, (0, 0))
    assert digest(tmp_path) != digest(CHECKOUT)
