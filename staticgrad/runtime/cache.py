"""The disk cache of compiled units: object bytes, JSON and a checksum, one file an entry.

The cache may only ever save time. Whatever stands on the disk (a file cut short by a kill, a flipped bit, another user's
folder, a full disk) costs at most a compilation, never a crash and never a wrong result: LLVM aborts the process on a damaged
object file, so every byte is verified before anything is returned. A folder that others can write would hand them
our process, so it is refused. Nothing is locked and nothing stays open between calls; writers meet in `os.replace`.

A file is called `sg_<key>.unit` and holds, integers in little-endian order:

    magic (8 bytes) · format version (4) · length of the header (8) · header · payload · SHA-256 of everything before (32)

The header is a JSON object with `key`, `metadata`, `payload_bytes` and `payload_sha256`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import math
import os
import platform
import re
import stat
import struct
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from staticgrad.config import config
from staticgrad.errors import InvalidValueError, StaticgradWarning

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMAT_VERSION = 1
_MAGIC = b"\x89SGUNIT\n"  # no text file starts with 0x89, and a newline conversion would damage the magic first
_PREFIX = struct.Struct("<8sIQ")
_DIGEST_BYTES = hashlib.sha256().digest_size
_LARGEST_FILE = 512 << 20
_HEADER_NAMES = {"key", "metadata", "payload_bytes", "payload_sha256"}

_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME = re.compile(r"sg_[0-9a-f]{64}\.unit")
_TEMPORARY_NAME = re.compile(r"sg_[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")
_STALE_SECONDS = 3600.0
_WRITE_ATTEMPTS = 3

# Windows has neither O_NOFOLLOW nor O_NONBLOCK (which keeps a named pipe from blocking the reader), and needs O_BINARY.
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _OPEN_FLAGS
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS

_logger = logging.getLogger("staticgrad.cache")
_warned = False


@dataclass(frozen=True)
class Entry:
    """A compiled unit as the disk holds it.

    Parameters
    ----------
    metadata : mapping of str to JSON
        Whatever is needed to call the unit; plain JSON: lists instead of tuples, `str` keys, no NaN and no infinity.
    payload : bytes
        The object code.
    """

    metadata: Mapping[str, JSON]
    payload: bytes


class _Rejected(Exception):
    """A file that is not the entry asked for: foreign or outdated, and left where it is."""


class _Damaged(_Rejected):
    """A file that was an entry once; it is removed."""


class DiskCache:
    """A folder of compiled units, shared by any number of processes.

    Parameters
    ----------
    folder : Path
        Made by the first `put`, with mode 0700. A folder that is a symbolic link, belongs to another user or lets
        others in is neither read nor written.

    Examples
    --------
    >>> import tempfile
    >>> cache = DiskCache(Path(tempfile.mkdtemp()))
    >>> key = unit_key({"graph": "sin(x)", "cpu": "any"})
    >>> cache.get(key) is None
    True
    >>> cache.put(key, Entry({"workspace": 64}, b"object code"))
    True
    >>> cache.get(key)
    Entry(metadata={'workspace': 64}, payload=b'object code')
    >>> cache.clear()
    1
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        with suppress(OSError):  # of a relative folder below a working directory that is gone
            self.folder = Path(os.path.abspath(folder))
        self._next_sweep = -math.inf

    def get(self, key: str) -> Entry | None:
        """Return the entry called `key`, every byte of it verified, or None.

        Parameters
        ----------
        key : str
            64 hexadecimal digits, from `unit_key`.

        Returns
        -------
        Entry or None
            None when the entry is absent, damaged (it is removed then), foreign or outdated, or the folder is refused.

        Raises
        ------
        InvalidValueError
            If `key` is no key. Nothing that stands on the disk raises.
        """
        path = self._path(key)
        try:
            if problem := _folder_problem(self.folder):
                raise _Rejected(problem)
            entry = _decode(_read(path), key)
        except _Damaged as error:
            _log("%s: damaged, removed (%s)", path.name, error)
            with suppress(OSError):
                path.unlink()
        except FileNotFoundError:
            _log("%s: absent", path.name)
        except (_Rejected, OSError, MemoryError) as error:
            _log("%s: ignored (%s)", path.name, error)
        else:
            _log("%s: hit, %d bytes", path.name, len(entry.payload))
            return entry
        return None

    def put(self, key: str, entry: Entry) -> bool:
        """Return whether `entry` was stored under `key`; readers see the old entry or the new one, never a part.

        Parameters
        ----------
        key : str
            64 hexadecimal digits, from `unit_key`.
        entry : Entry
            Replaces what stood there.

        Returns
        -------
        bool
            False when the folder is refused, cannot be written or is full (the first time in a process with a
            `StaticgradWarning`), or when the entry is larger than 512 MiB.

        Raises
        ------
        InvalidValueError
            If `key` is no key, or the metadata are not JSON that reads back equal.
        """
        path = self._path(key)
        content = _encode(key, entry)
        if len(content) > _LARGEST_FILE:
            _log("%s: not stored, %d bytes are too many", path.name, len(content))
            return False
        try:
            problem = self._write(path, content)
        except OSError as error:
            problem = f"{error.strerror or error}"
        if problem is None:
            _log("%s: stored, %d bytes", path.name, len(entry.payload))
            return True
        _log("%s: not stored (%s)", path.name, problem)
        _warn_once(self.folder, problem)
        return False

    def clear(self) -> int:
        """Return the number of entries removed; left-over temporary files go too, files of other names stay."""
        removed = 0
        for file in self._files():
            own = _ENTRY_NAME.fullmatch(file.name)
            if own or _TEMPORARY_NAME.fullmatch(file.name):
                with suppress(OSError):
                    os.unlink(file.path)
                    removed += own is not None
        _log("%s: cleared, %d entries", self.folder, removed)
        return removed

    def statistics(self) -> tuple[int, int]:
        """Return the number of entries and the bytes they take."""
        entries = size = 0
        for file in self._files():
            if _ENTRY_NAME.fullmatch(file.name):
                with suppress(OSError):
                    size += file.stat(follow_symlinks=False).st_size
                    entries += 1
        return entries, size

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InvalidValueError(f"{key!r} is not a cache key: expected 64 hexadecimal digits in lower case.")
        return self.folder / f"sg_{key}.unit"

    def _files(self) -> list[os.DirEntry[str]]:
        """Return the regular files of the folder; none where there is no folder, or a symbolic link in its place."""
        with suppress(OSError):
            if stat.S_ISDIR(os.lstat(self.folder).st_mode):
                with os.scandir(self.folder) as files:
                    return [file for file in files if file.is_file(follow_symlinks=False)]
        return []

    def _write(self, path: Path, content: bytes) -> str | None:
        """Return None after storing `content`, or what is wrong with the folder."""
        for attempt in range(_WRITE_ATTEMPTS):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            if problem := _folder_problem(self.folder):
                return problem
            self._sweep()
            try:
                _write_atomically(path, content)
                break
            except FileNotFoundError:  # another process cleared the cache or removed the folder just now
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise
        return None

    def _sweep(self) -> None:
        """Remove, at most once an hour, the temporary files of writers that were killed."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + _STALE_SECONDS
        oldest = time.time() - _STALE_SECONDS
        for file in self._files():
            if _TEMPORARY_NAME.fullmatch(file.name):
                with suppress(OSError):
                    if file.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(file.path)


def unit_key(parts: Mapping[str, str]) -> str:
    """Return the SHA-256, in hexadecimal digits, of named components.

    Parameters
    ----------
    parts : mapping of str to str
        Everything the compiled bytes depend on: the graph, flags, constants' bits, CPU features and `environment_parts()`.
        The order does not matter; names and texts are prefixed with their lengths, so that no two mappings look alike.

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


def environment_parts() -> dict[str, str]:
    """Return the components of a key that this installation determines: versions, machine and cache format.

    The CPU's name and features are not among them; only the compiler knows for which CPU it compiles.

    Returns
    -------
    dict of str to str
        A new dictionary at each call.

    Examples
    --------
    >>> sorted(environment_parts())
    ['cache format', 'llvmlite', 'machine', 'numba', 'numpy', 'python', 'staticgrad']
    """
    return {
        "staticgrad": _own_version(),
        "python": f"{sys.implementation.name} {platform.python_version()}{getattr(sys, 'abiflags', '')}",
        **{name: _installed_version(name) for name in ("numpy", "numba", "llvmlite")},
        "machine": f"{platform.machine()} {sys.platform} {8 * struct.calcsize('P')} bit",
        "cache format": str(FORMAT_VERSION),
    }


def _own_version() -> str:
    version = getattr(importlib.import_module("staticgrad"), "__version__", None)
    if version is None:
        version = importlib.import_module("staticgrad._version").__version__
    return str(version)


@functools.cache
def _installed_version(name: str) -> str:
    from importlib import metadata  # 10 to 20 ms to import, for those who ask for a key

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _folder_problem(folder: Path) -> str | None:
    """Return what forbids the use of `folder`, or None."""
    status = os.lstat(folder)
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a folder"
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return f"it belongs to user {status.st_uid}, not to you"
        if status.st_mode & 0o077:
            return f"its mode {stat.S_IMODE(status.st_mode):04o} lets other users in; `chmod 700` makes it private"
    return None


def _read(path: Path) -> bytes:
    """Return the content of a regular file that is the user's own and can hold an entry."""
    descriptor = os.open(path, _READ_FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Rejected("not a regular file")
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise _Rejected("others can write it")
        if status.st_size > _LARGEST_FILE:
            raise _Damaged("too large")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, _CREATE_FLAGS, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _encode(key: str, entry: Entry) -> bytes:
    document: dict[str, JSON] = {
        "key": key,
        "metadata": dict(entry.metadata),
        "payload_bytes": len(entry.payload),
        "payload_sha256": hashlib.sha256(entry.payload).hexdigest(),
    }
    try:
        header = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("ascii")
        faithful = _parse(header) == document
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"The metadata of a cache entry are not JSON: {error}.") from error
    if not faithful:
        raise InvalidValueError("The metadata of a cache entry must read back equal from JSON: lists instead of tuples, str keys.")
    body = b"".join((_PREFIX.pack(_MAGIC, FORMAT_VERSION, len(header)), header, entry.payload))
    return body + hashlib.sha256(body).digest()


def _decode(content: bytes, key: str) -> Entry:
    """Return the entry that `content` holds, or raise `_Rejected`."""
    if len(content) < _PREFIX.size + _DIGEST_BYTES:
        raise _Damaged("too short")
    magic, version, header_bytes = _PREFIX.unpack_from(content)
    if magic != _MAGIC:
        raise _Damaged("wrong magic")
    if version != FORMAT_VERSION:
        raise _Rejected(f"format version {version}, expected {FORMAT_VERSION}")
    end = len(content) - _DIGEST_BYTES
    if hashlib.sha256(memoryview(content)[:end]).digest() != content[end:]:
        raise _Damaged("wrong checksum")
    start = _PREFIX.size + header_bytes
    if start > end:
        raise _Damaged("header longer than the file")
    try:
        document = _parse(content[_PREFIX.size : start])
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"header: {error}") from error
    if not isinstance(document, dict) or document.keys() != _HEADER_NAMES or not isinstance(document["metadata"], dict):
        raise _Damaged("header of the wrong form")
    if document["key"] != key:
        raise _Rejected("it holds another entry")
    payload = content[start:end]
    length = document["payload_bytes"]
    if type(length) is not int or length != len(payload) or document["payload_sha256"] != hashlib.sha256(payload).hexdigest():
        raise _Damaged("wrong payload")
    return Entry(document["metadata"], payload)


def _parse(header: bytes) -> Any:
    """Return the JSON value in `header`, or raise ValueError or RecursionError; NaN, infinity and repeated names are errors."""
    return json.loads(header.decode("utf-8"), parse_constant=_reject_constant, parse_float=_finite, object_pairs_hook=_unique)


def _reject_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return result


def _log(message: str, *arguments: object) -> None:
    if "cache" in config().log:
        _logger.info(message, *arguments)


def _warn_once(folder: Path, problem: str) -> None:
    global _warned
    if _warned:
        return
    _warned = True
    warnings.warn(
        f"The cache folder {folder} cannot be used: {problem}. Compiled functions are kept in memory only. "
        "STATICGRAD_CACHE=<folder> names another folder, STATICGRAD_CACHE=off asks for none.",
        StaticgradWarning,
        stacklevel=3,
    )
