"""The disk cache of compiled units: one file an entry (see `unit_file`), the least recently used ones removed when it grows.

The cache may only ever save time. Whatever stands on the disk (a file cut short by a kill, a flipped bit, another user's
folder, a full disk) costs at most a compilation, never a crash and never a wrong result: LLVM aborts the process on a damaged
object file, so every byte is verified before anything is returned. A folder that others can write would hand them
our process, so it is refused. Nothing is locked and nothing stays open between calls; writers meet in `os.replace`.

The modification time of a file says when it was last used, to the hour: a hit sets it anew where it is older.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staticgrad.config import config
from staticgrad.errors import InvalidValueError, StaticgradWarning
from staticgrad.runtime import unit_file
from staticgrad.runtime.unit_file import Damaged, Entry, Rejected

MOST_BYTES = 1 << 30
MOST_ENTRIES = 20_000
"""More than these is removed, the least recently used entries first. Bytes are whole blocks; listing the entries stays quick."""

_BLOCK = 4096
_KEPT_OF_FULL = 7 / 8
"""What is left of the bounds after a removal, so that the next one is far away."""

_LOOK_AFTER_BYTES, _LOOK_AFTER_ENTRIES = MOST_BYTES // 64, MOST_ENTRIES // 64
"""A process looks whether the cache is too large when it first writes, and whenever it has written this much since."""

_HOUR = 3600.0
_WRITE_ATTEMPTS = 3

_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME = re.compile(r"sg_([0-9a-f]{64})\.unit")
_TEMPORARY_NAME = re.compile(r"sg_[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")

_logger = logging.getLogger("staticgrad.cache")
_warned = False


@dataclass(frozen=True)
class Statistics:
    """What a cache holds: its entries, the bytes of disk they take, and when they were last used (seconds of the epoch)."""

    entries: int
    size: int
    oldest: float | None
    newest: float | None


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
    >>> from staticgrad.runtime.unit_key import unit_key
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
        self._unseen = _LOOK_AFTER_ENTRIES, 0  # written since this process last looked at the whole

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
        return self.look_up(key)[0]

    def look_up(self, key: str) -> tuple[Entry | None, str]:
        """Return what `get` does, and in words what was found: `"hit"`, `"absent"`, `"damaged, removed (...)"` or `"ignored (...)"`."""
        path = self._path(key)
        entry = None
        try:
            if problem := _folder_problem(self.folder):
                raise Rejected(problem)
            entry = unit_file.decode(unit_file.read_file(path), key)
            _note_use(path)
            found = "hit"
        except Damaged as error:
            with suppress(OSError):
                path.unlink()
            found = f"damaged, removed ({error})"
        except FileNotFoundError:
            found = "absent"
        except (Rejected, OSError, MemoryError) as error:
            found = f"ignored ({error})"
        _log("%s: %s", path.name, found)
        return entry, found

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
        content = unit_file.encode(key, entry)
        if len(content) > unit_file.LARGEST_FILE:
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

    def statistics(self) -> Statistics:
        """Return how much the cache holds."""
        files = self._entries()
        used = [file.used for file in files]
        return Statistics(len(files), sum(file.size for file in files), min(used, default=None), max(used, default=None))

    def metadata(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and metadata of every entry that can be read, not verified: to be shown, not to be relied on."""
        for file in self._entries():
            with suppress(OSError, MemoryError, Rejected):
                yield file.key, unit_file.read_metadata(self._path(file.key))

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
            try:
                unit_file.write_file(path, content)
                break
            except FileNotFoundError:  # another process cleared the cache or removed the folder just now
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise
        self._tidy(path.name, len(content))
        return None

    def _entries(self) -> list[_File]:
        """Return the files that are called as entries are."""
        found = []
        for file in self._files():
            if name := _ENTRY_NAME.fullmatch(file.name):
                with suppress(OSError):
                    status = file.stat(follow_symlinks=False)
                    found.append(_File(name[1], file.path, _whole_blocks(status.st_size), status.st_mtime))
        return found

    def _tidy(self, written: str, size: int) -> None:
        """Keep the cache within its bounds after a file was `written`, and remove the temporary files of writers that were killed.

        Several processes may do so at once: each removes the entries that were used least recently, and finds some gone already.
        A reader has its file open, so a removal costs others at most a compilation.
        """
        count, total = self._unseen
        self._unseen = count + 1, total + _whole_blocks(size)
        if self._unseen[0] < _LOOK_AFTER_ENTRIES and self._unseen[1] < _LOOK_AFTER_BYTES:
            return
        self._unseen = 0, 0
        oldest = time.time() - _HOUR
        for file in self._files():
            if _TEMPORARY_NAME.fullmatch(file.name):
                with suppress(OSError):
                    if file.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(file.path)
        entries = self._entries()
        if len(entries) > MOST_ENTRIES or sum(entry.size for entry in entries) > MOST_BYTES:
            self._evict(entries, written)

    def _evict(self, entries: list[_File], written: str) -> None:
        """Remove the least recently used of `entries`, but not the one just `written`, until the cache is well within its bounds."""
        # A time in the future, from another clock, says nothing of use: such entries go first, or they would stay for ever.
        latest = time.time() + _HOUR
        entries.sort(key=lambda entry: entry.used if entry.used <= latest else -math.inf)
        count, size = len(entries), sum(entry.size for entry in entries)
        for entry in entries:
            if count <= MOST_ENTRIES * _KEPT_OF_FULL and size <= MOST_BYTES * _KEPT_OF_FULL:
                break
            if os.path.basename(entry.path) == written:
                continue
            try:
                os.unlink(entry.path)
            except FileNotFoundError:
                pass  # another process was quicker
            except OSError:
                continue
            count, size = count - 1, size - entry.size
        _log("%s: grew too large, %d of %d entries are left, %d bytes", self.folder, count, len(entries), size)


@dataclass(frozen=True)
class _File:
    """An entry as the folder shows it."""

    key: str
    path: str
    size: int
    used: float


@functools.cache
def disk_cache(folder: Path) -> DiskCache:
    """Return this process's cache in a folder."""
    return DiskCache(folder)


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _note_use(path: Path) -> None:
    """Let the file's time be that of its last use, to the hour, so that most hits write nothing."""
    with suppress(OSError):  # removed just now, or on a disk that cannot be written
        if abs(time.time() - path.stat().st_mtime) > _HOUR:
            os.utime(path)


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
