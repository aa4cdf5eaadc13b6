"""`import staticgrad` from a bare checkout, from a wheel, and from a wheel with Python started inside the checkout; the two commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
# With -S no .pth file is read, so an editable install in this environment cannot help an import along.
DEPENDENCIES = os.pathsep.join(sysconfig.get_path(name) for name in ("purelib", "platlib"))
WHERE = """
import pathlib, staticgrad, staticgrad.kernels
for package in (staticgrad, staticgrad.kernels):
    print(pathlib.Path(package.__file__).resolve().parent)
"""


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "PYTHON"}
    return subprocess.run(
        command, cwd=folder, env=inherited | environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def imported_from(folder: Path, *search: Path) -> list[Path]:
    """Return the folders of `staticgrad` and `staticgrad.kernels`, imported by a Python started in `folder`."""
    path = os.pathsep.join([*map(str, search), DEPENDENCIES])
    done = run(sys.executable, "-S", "-c", WHERE, folder=folder, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from a copy, so that no build folder appears in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("staticgrad", "kernels"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    done = run(sys.executable, "-m", "pip", "wheel", ".", *options, "--wheel-dir", str(target), folder=source)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    done = run(sys.executable, "-m", "pip", "install", str(wheel), *options, "--target", str(target), folder=target)
    assert done.returncode == 0, done.stderr
    return target


def test_bare_checkout(tmp_path):
    assert imported_from(tmp_path, CHECKOUT) == [CHECKOUT / "staticgrad", CHECKOUT / "kernels"]


def test_installed(tmp_path, installed):
    assert imported_from(tmp_path, installed) == [installed / "staticgrad", installed / "staticgrad" / "kernels"]


def test_installed_and_started_inside_the_checkout(installed):
    assert imported_from(CHECKOUT, installed) == [CHECKOUT / "staticgrad", CHECKOUT / "kernels"]


def test_wheel_holds_every_module(wheel):
    own = [path for pattern in ("*.py", "*.ll") for path in (CHECKOUT / "staticgrad").rglob(pattern)]
    expected = {f"staticgrad/{path.relative_to(CHECKOUT / 'staticgrad').as_posix()}" for path in own}
    expected |= {f"staticgrad/kernels/{path.relative_to(CHECKOUT / 'kernels').as_posix()}" for path in (CHECKOUT / "kernels").rglob("*.py")}
    expected.add("staticgrad/py.typed")
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def test_runtime_dependencies():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"numpy", "numba", "llvmlite", "scipy", "optree"}


@pytest.mark.parametrize("target", ["demo", "test"])
def test_both_commands_are_named(target):
    assert f"make {target}" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert f"make {target} " in run("make", "help", folder=CHECKOUT).stdout


def interpreter(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def make_environment(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make, "make is not installed"
    return run(make, "venv", f"VENV={tmp_path / 'venv'}", folder=CHECKOUT, PATH=str(tmp_path))


def test_make_passes_over_an_interpreter_that_does_not_run(tmp_path):
    interpreter(tmp_path, "python3.13", "exit 127")  # as a pyenv shim does
    interpreter(tmp_path, "python3.12", f'[ "$1" = -c ] && exit 0; echo "$0 $@" > {tmp_path}/ran')
    assert make_environment(tmp_path).returncode == 0
    assert (tmp_path / "ran").read_text(encoding="utf-8").split()[:3] == [str(tmp_path / "python3.12"), "-m", "venv"]


def test_make_says_which_interpreter_it_needs(tmp_path):
    interpreter(tmp_path, "python3", f'exec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"')
    done = make_environment(tmp_path)
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr


def staticgrad(*arguments: str, folder: Path, package: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), DEPENDENCIES])
    return run(sys.executable, "-S", "-m", "staticgrad", *arguments, folder=folder, PYTHONPATH=path, **environment)


def test_demo_outside_a_checkout_says_where_it_is(tmp_path, installed):
    done = staticgrad("demo", folder=tmp_path, package=installed)
    assert done.returncode == 1
    assert "checkout" in done.stderr and "make demo" in done.stderr


def test_info_names_every_dependency(tmp_path):
    done = staticgrad("info", folder=tmp_path, STATICGRAD_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    for word in ("staticgrad", "python", "numpy", "numba", "llvmlite", "scipy", "optree", "cores", str(tmp_path / "cache")):
        assert word in done.stdout


@pytest.mark.parametrize(("action", "answer"), [("info", "entries     1 of at most 20000"), ("clear", "removed 1 entries")])
def test_cache_commands(tmp_path, action, answer):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    (folder / f"sg_{'0' * 64}.unit").write_bytes(b"entry")
    done = staticgrad("cache", action, folder=tmp_path, STATICGRAD_CACHE=str(folder))
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout
    assert len(list(folder.iterdir())) == (action == "info")


def test_cache_that_is_off(tmp_path):
    assert "off" in staticgrad("cache", "clear", folder=tmp_path, STATICGRAD_CACHE="off").stdout
