"""The bounds of the disk cache: the least recently used entries go, whoever else is at work, and nothing else goes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from staticgrad.runtime import cache as module
from staticgrad.runtime.cache import DiskCache
from staticgrad.runtime.unit_file import Entry
from staticgrad.runtime.unit_key import unit_key

CHECKOUT = Path(module.__file__).parents[2]
BLOCK = 4096


def key(number: int) -> str:
    return unit_key({"number": str(number)})


def unit(cache: DiskCache, number: int) -> Path:
    return cache.folder / f"sg_{key(number)}.unit"


def there(cache: DiskCache, numbers: range) -> list[int]:
    return [number for number in numbers if unit(cache, number).exists()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of 16 entries and of 32 blocks, looked at whenever something is written."""
    monkeypatch.setattr(module, "MOST_ENTRIES", 16)
    monkeypatch.setattr(module, "MOST_BYTES", 32 * BLOCK)
    monkeypatch.setattr(module, "_LOOK_AFTER_ENTRIES", 1)


@pytest.fixture
def cache(tmp_path: Path, small: None) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def fill(cache: DiskCache, numbers: range, size: int = 10) -> None:
    """Store entries that were used one second after another, all in the last hour."""
    for number in numbers:
        assert cache.put(key(number), Entry({}, bytes(size)))
        used = time.time() - 3000 + number
        os.utime(unit(cache, number), (used, used))


def test_too_many_entries(cache: DiskCache) -> None:
    fill(cache, range(16))
    assert there(cache, range(16)) == list(range(16))
    fill(cache, range(16, 17))
    assert there(cache, range(17)) == list(range(3, 17)), "down to seven eighths"


def test_too_many_bytes(cache: DiskCache) -> None:
    fill(cache, range(8), size=4 * BLOCK - 1000)
    assert there(cache, range(8)) == list(range(8))
    assert cache.statistics().size == 32 * BLOCK
    fill(cache, range(8, 9))
    assert there(cache, range(9)) == list(range(2, 9))


def test_a_hit_counts_as_use_once_an_hour(cache: DiskCache) -> None:
    fill(cache, range(16))
    long_ago, lately = time.time() - 4000, time.time() - 3400
    os.utime(unit(cache, 0), (long_ago, long_ago))
    os.utime(unit(cache, 1), (lately, lately))
    assert cache.get(key(0)) and cache.get(key(1))
    assert unit(cache, 0).stat().st_mtime > time.time() - 60
    assert unit(cache, 1).stat().st_mtime == pytest.approx(lately), "most hits write nothing"
    fill(cache, range(16, 17))
    assert 0 in there(cache, range(17)) and 1 not in there(cache, range(17))


def test_a_single_entry_larger_than_the_bound_stays_until_another_comes(cache: DiskCache) -> None:
    fill(cache, range(1), size=40 * BLOCK)
    assert cache.get(key(0)), "what was just written is not removed"
    fill(cache, range(1, 2))
    assert there(cache, range(2)) == [1]


def test_times_in_the_future_go_first(cache: DiskCache) -> None:
    fill(cache, range(16))
    tomorrow = time.time() + 90_000
    os.utime(unit(cache, 9), (tomorrow, tomorrow))
    assert cache.put(key(16), Entry({}, b""))
    assert there(cache, range(17)) == [2, 3, 4, 5, 6, 7, 8, *range(10, 17)]


def test_files_of_others_count_for_nothing_and_stay(cache: DiskCache) -> None:
    fill(cache, range(1))
    (cache.folder / "notes.txt").write_bytes(bytes(64 * BLOCK))
    (cache.folder / "folder").mkdir()
    fill(cache, range(1, 17))
    assert (cache.folder / "notes.txt").exists() and (cache.folder / "folder").exists()
    assert there(cache, range(17)) == list(range(3, 17))


def test_what_cannot_be_removed_stays(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, range(16))
    unlink = os.unlink

    def refuse(path: str, **options: object) -> None:
        if path == str(unit(cache, 0)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, **options)

    monkeypatch.setattr(module.os, "unlink", refuse)
    assert cache.put(key(16), Entry({}, b""))
    assert there(cache, range(17)) == [0, *range(4, 17)]


def test_another_process_evicts_at_the_same_moment(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other one removed counts as removed: together they do not remove more than one would."""
    fill(cache, range(16))
    unlink = os.unlink

    def second(path: str, **options: object) -> None:
        unlink(path, **options)
        raise FileNotFoundError(errno.ENOENT, "removed by another process")

    monkeypatch.setattr(module.os, "unlink", second)
    assert cache.put(key(16), Entry({}, b""))
    assert there(cache, range(17)) == list(range(3, 17))


def test_a_process_looks_when_it_first_writes_and_then_rarely(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AFTER_ENTRIES", 20)
    monkeypatch.setattr(module, "_LOOK_AFTER_BYTES", 24 * BLOCK)
    looks = []
    monkeypatch.setattr(DiskCache, "_evict", lambda self, entries, written: looks.append(len(entries)))
    cache = DiskCache(cache.folder)
    for number in range(20):
        cache.put(key(number), Entry({}, b""))
    assert looks == [], "only one entry was there at the first write"
    cache = DiskCache(cache.folder)
    for number in range(30, 51):
        cache.put(key(number), Entry({}, b""))
    assert looks == [21, 41]
    cache.put(key(60), Entry({}, bytes(24 * BLOCK)))
    assert looks == [21, 41, 42]


def test_the_bounds_are_large_and_listing_stays_quick() -> None:
    assert module.MOST_BYTES == 1 << 30
    assert module.MOST_ENTRIES * 4 * BLOCK < module.MOST_BYTES, "the number binds small entries, the bytes large ones"


CROWD = """
import os, sys
from pathlib import Path
from staticgrad.runtime import cache as module
from staticgrad.runtime.unit_file import Entry
from staticgrad.runtime.unit_key import unit_key
module.MOST_ENTRIES, module._LOOK_AFTER_ENTRIES = 16, 1
cache = module.DiskCache(Path(sys.argv[1]))
keys = [unit_key({"number": str(number)}) for number in range(48)]
def work(first):
    for i in range(200):
        name = keys[(first + 7 * i) % 48]
        found = cache.get(name)
        assert found is None or found.payload == name.encode() * 9
        assert found is not None or cache.put(name, Entry({}, name.encode() * 9))
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            work(11 * child)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
print(cache.statistics().entries)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_crowd_of_processes_reads_writes_and_evicts(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error::UserWarning", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CROWD, str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert 8 <= int(done.stdout) <= 20
    assert [path.suffix for path in (tmp_path / "cache").iterdir()].count(".tmp") == 0
