"""What compiled bytes depend on, as named texts, and the key that is made of them.

The components are kept with every entry of the cache, so that a miss can be told from a hit by name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from staticgrad._version import __version__
from staticgrad.runtime.report import phase
from staticgrad.runtime.unit_file import FORMAT_VERSION

_IMPORTED = time.time()


def unit_key(parts: Mapping[str, str]) -> str:
    """Return the SHA-256, in hexadecimal digits, of named components.

    Parameters
    ----------
    parts : mapping of str to str
        Everything the compiled bytes depend on. The order does not matter; names and texts are prefixed with their lengths,
        so that no two mappings look alike.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> unit_key({"graph": "ab", "flags": ""}) == unit_key({"flags": "", "graph": "ab"})
    True
    >>> unit_key({"graph": "ab", "flags": ""}) == unit_key({"graph": "a", "flags": "b"})
    False
    """
    digest = hashlib.sha256(b"staticgrad unit\0")
    for name in sorted(parts):
        for text in (name, parts[name]):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()


def environment_parts(printer: str) -> dict[str, str]:
    """Return the components of a key that this installation and this machine determine.

    Parameters
    ----------
    printer : str
        What writes the source: Numba's version counts where Numba compiles it.

    Returns
    -------
    dict of str to str
        A new dictionary at each call.

    Examples
    --------
    >>> sorted(environment_parts("llvm"))
    ['cache format', 'cpu', 'llvmlite', 'machine', 'numpy', 'printer', 'python', 'sources', 'staticgrad']
    """
    numba = {"numba": _numba_version()} if printer == "numba" else {}
    return {**_installation(), **numba, "printer": printer, "cache format": str(FORMAT_VERSION)}


@functools.cache
def _installation() -> dict[str, str]:
    with phase("imports"):
        import platform

        import llvmlite
        import llvmlite.binding as llvm
        import numpy as np

        import staticgrad.kernels

    package = Path(__file__).resolve().parent.parent
    kernels = Path(str(staticgrad.kernels.__file__)).resolve().parent  # beside the package where it runs from a checkout
    return {
        "staticgrad": __version__,
        "sources": sources_digest(package, *(() if package in kernels.parents else (kernels,))),
        "python": f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}{getattr(sys, 'abiflags', '')}",
        "numpy": np.__version__,
        "llvmlite": f"{llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}",
        "cpu": f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}",
        "machine": f"{platform.machine()} {sys.platform} {8 * struct.calcsize('P')} bit",
    }


@functools.cache
def _numba_version() -> str:
    """Return the version of Numba without importing it, which takes longer than to load what it compiled."""
    from importlib import metadata

    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return "absent"


def sources_digest(*folders: Path) -> str:
    """Return a digest of all Python files below `folders`: machine code that another state of the compiler made is not taken.

    A file that was changed after this process started may differ from what the process runs: then nobody else gets this digest.
    """
    sha = hashlib.sha256()
    newest = 0.0
    for folder in folders:
        for name, path in sorted(_python_files(folder, "")):
            with open(path, "rb", buffering=0) as file:
                content = file.read()
                newest = max(newest, os.fstat(file.fileno()).st_mtime)
            sha.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogatepass"))
            sha.update(content)
    if newest > _IMPORTED:
        sha.update(os.urandom(32))
    return sha.hexdigest()


def _python_files(folder: Path | str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder: the path from there, and the whole one."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as found:
        for item in found:
            if item.name.endswith(".py"):
                yield f"{prefix}{item.name}", item.path
            elif item.name != "__pycache__" and item.is_dir():
                yield from _python_files(item.path, f"{prefix}{item.name}/")
