"""`python -m staticgrad info|demo|cache`: what is installed here, the demonstration, and the disk cache."""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import sys
import textwrap
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from staticgrad._version import __version__
from staticgrad.config import config

if TYPE_CHECKING:
    from staticgrad.runtime.cache import DiskCache

DEPENDENCIES = ("numpy", "numba", "llvmlite", "scipy", "optree")
EXTRAS = {"cuda": "numba-cuda", "threads": "tbb", "plot": "matplotlib", "examples": "scikit-learn"}
DEMO_NEEDS = ("sklearn", "matplotlib", "tqdm")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cache() -> DiskCache | None:
    from staticgrad.runtime.cache import disk_cache

    folder = config().cache
    return None if folder is None else disk_cache(folder)


def _describe_cache() -> str:
    cache = _cache()
    if cache is None:
        return "off"
    found = cache.statistics()
    return f"{cache.folder}: {found.entries} entries, {_size(found.size)}"


def info() -> int:
    """Print versions, processor, cache and extras."""
    from llvmlite import binding

    features = " ".join(sorted(name for name, present in binding.get_host_cpu_features().items() if present))
    indent = " " * 12
    rows = [
        ("staticgrad", f"{__version__} ({Path(__file__).parent})"),
        ("python", f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})"),
        *((name, _version(name) or "missing") for name in DEPENDENCIES),
        ("processor", f"{binding.get_host_cpu_name()}, {_cores()} cores"),
        ("features", textwrap.fill(features, 120, initial_indent=indent, subsequent_indent=indent).lstrip()),
        ("cache", _describe_cache()),
    ]
    for extra, distribution in EXTRAS.items():
        found = _version(distribution)
        rows.append((extra, f"{distribution} {found}" if found else f"{distribution} is not installed: pip install 'staticgrad[{extra}]'"))
    for name, text in rows:
        print(f"{name:<{len(indent)}}{text}")
    return 0


def demo(arguments: list[str]) -> int:
    """Run `examples/digits.py` of the checkout that this package stands in."""
    checkout = Path(__file__).resolve().parent.parent
    program = checkout / "examples" / "digits.py"
    if not (program.is_file() and (checkout / "pyproject.toml").is_file()):
        print("The demo is examples/digits.py in a checkout of staticgrad, which is not here; run `make demo` there.", file=sys.stderr)
        return 1
    if missing := [name for name in DEMO_NEEDS if find_spec(name) is None]:
        print(f"The demo needs {', '.join(missing)}: pip install -e '{checkout}[examples]', or run `make demo`.", file=sys.stderr)
        return 1
    sys.argv = [str(program), *arguments]
    runpy.run_path(str(program), run_name="__main__")
    return 0


def cache_info() -> int:
    """Print where the disk cache is, what it holds at most and what it holds."""
    from staticgrad.runtime.cache import MOST_BYTES, MOST_ENTRIES

    cache = _cache()
    if cache is None:
        print("The cache is off.")
        return 0
    found = cache.statistics()
    rows = [
        ("folder", str(cache.folder)),
        ("entries", f"{found.entries} of at most {MOST_ENTRIES}"),
        ("size", f"{_size(found.size)} of at most {_size(MOST_BYTES)}"),
        ("last used", f"{_date(found.oldest)} (oldest) to {_date(found.newest)} (newest)" if found.entries else "never"),
    ]
    for name, text in rows:
        print(f"{name:<12}{text}")
    return 0


def _date(when: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def clear_cache() -> int:
    """Remove every entry of the disk cache."""
    cache = _cache()
    print("The cache is off." if cache is None else f"{cache.folder}: removed {cache.clear()} entries")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command that `arguments` name and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m staticgrad", description="A compiler for gradients of NumPy code.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, processor, cache and extras")
    commands.add_parser("demo", help="train a small network on handwritten digits", add_help=False)
    cache = commands.add_parser("cache", help="show or clear the disk cache").add_subparsers(dest="action", required=True)
    cache.add_parser("info", help="print where it is and what it holds")
    cache.add_parser("clear", help="remove every entry")

    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command == "demo":
        return demo(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if chosen.command == "info":
        return info()
    return clear_cache() if chosen.action == "clear" else cache_info()


if __name__ == "__main__":
    sys.exit(main())
