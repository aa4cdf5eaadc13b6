"""The disk cache: whatever stands on the disk costs at most a compilation, and never a crash or a wrong payload."""

from __future__ import annotations

import ast
import errno
import hashlib
import itertools
import json
import logging
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from staticgrad.config import config, configure
from staticgrad.errors import InvalidValueError, StaticgradError, StaticgradWarning
from staticgrad.runtime import cache as module
from staticgrad.runtime import unit_file
from staticgrad.runtime.cache import DiskCache, Statistics
from staticgrad.runtime.unit_file import FORMAT_VERSION, Entry
from staticgrad.runtime.unit_key import unit_key

CHECKOUT = Path(module.__file__).parents[2]
KEY, OTHER = unit_key({"graph": "sin(x)"}), unit_key({"graph": "cos(x)"})
ENTRY = Entry({"name": "sg_é", "shapes": [[2, 3], []], "scale": -0.0, "parallel": True, "parent": None}, bytes(range(64)))
REWRITTEN = Entry({"name": "compiled anew"}, b"other bytes")
EMPTY = Statistics(0, 0, None, None)
POSIX = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has neither owners nor modes")


@pytest.fixture(autouse=True)
def first_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test be the first of its process to warn."""
    monkeypatch.setattr(module, "_warned", False)


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def unit(cache: DiskCache, key: str = KEY) -> Path:
    return cache.folder / f"sg_{key}.unit"


def stored(cache: DiskCache, key: str = KEY, entry: Entry = ENTRY) -> Path:
    assert cache.put(key, entry)
    assert cache.get(key) == entry
    return unit(cache, key)


def sealed(
    header: bytes, payload: bytes = b"", magic: bytes = b"\x89SGUNIT\n", version: int = FORMAT_VERSION, length: int | None = None
) -> bytes:
    """Return a file with a right checksum over whatever is given: the format as the module's docstring tells it."""
    body = struct.pack("<8sIQ", magic, version, len(header) if length is None else length) + header + payload
    return body + hashlib.sha256(body).digest()


def header(**changes: object) -> bytes:
    return json.dumps(
        {"key": KEY, "metadata": {}, "payload_bytes": 0, "payload_sha256": hashlib.sha256(b"").hexdigest()} | changes
    ).encode()


def plant(cache: DiskCache, content: bytes, key: str = KEY) -> Path:
    stored(cache, key)
    unit(cache, key).write_bytes(content)
    return unit(cache, key)


def assert_recompiles(cache: DiskCache) -> None:
    """The entry is not there, and what the compiler then makes takes its place."""
    assert cache.get(KEY) is None
    stored(cache, KEY, REWRITTEN)


# Round trip and format


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(256)) * 999], ids=["empty", "zero", "255 kB"])
def test_round_trip(cache: DiskCache, payload: bytes) -> None:
    entry = Entry(ENTRY.metadata, payload)
    assert cache.get(KEY) is None
    stored(cache, KEY, entry)
    assert DiskCache(cache.folder).get(KEY) == entry
    assert str(cache.get(KEY).metadata["scale"]) == "-0.0"
    assert cache.get(OTHER) is None


def test_put_replaces(cache: DiskCache) -> None:
    stored(cache)
    stored(cache, KEY, REWRITTEN)
    assert [path.name for path in cache.folder.iterdir()] == [f"sg_{KEY}.unit"]


def test_the_format_is_the_documented_one(cache: DiskCache) -> None:
    plant(cache, sealed(header()))
    assert cache.get(KEY) == Entry({}, b"")
    document = header(metadata=dict(ENTRY.metadata), payload_bytes=64, payload_sha256=hashlib.sha256(ENTRY.payload).hexdigest())
    plant(cache, sealed(document, ENTRY.payload))
    assert cache.get(KEY) == ENTRY


@pytest.mark.parametrize(
    "metadata",
    [{"x": float("nan")}, {"x": float("inf")}, {"x": (1, 2)}, {1: "x"}, {"x": b""}, {"x": {1, 2}}, {"x": 10**5000}],
    ids=["nan", "inf", "tuple", "int key", "bytes", "set", "huge int"],
)
def test_metadata_that_would_not_read_back(cache: DiskCache, metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError, match="metadata of a cache entry"):
        cache.put(KEY, Entry(metadata, b""))
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidValueError, match="metadata of a cache entry"):
        cache.put(KEY, Entry({"x": nested}, b""))
    assert not cache.folder.exists()


@pytest.mark.parametrize("key", ["", "../" + KEY[3:], KEY.upper(), KEY[:-1], KEY + "\n", "g" * 64])
def test_a_key_is_checked(cache: DiskCache, key: str) -> None:
    for call in (lambda: cache.get(key), lambda: cache.put(key, ENTRY)):
        with pytest.raises(InvalidValueError, match="not a cache key") as caught:
            call()
        assert isinstance(caught.value, StaticgradError)


def test_too_large_an_entry_is_not_stored(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_file, "LARGEST_FILE", 1000)
    assert not cache.put(KEY, Entry({}, bytes(1000)))
    assert cache.get(KEY) is None
    monkeypatch.undo()
    path = stored(cache, KEY, Entry({}, bytes(1000)))
    monkeypatch.setattr(unit_file, "LARGEST_FILE", 1000)
    assert cache.get(KEY) is None
    assert not path.exists()


# Damaged, foreign and outdated files


def test_every_flipped_bit_is_found(cache: DiskCache) -> None:
    path = stored(cache)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert cache.get(KEY) is None, position
        assert path.exists() == (8 <= position < 12), "damaged files go; another format version stays until it is replaced"
        path.write_bytes(content)
        assert cache.get(KEY) == ENTRY
    path.write_bytes(damaged)
    assert_recompiles(cache)


def test_every_truncation_is_found(cache: DiskCache) -> None:
    path = stored(cache)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert cache.get(KEY) is None, length
        assert not path.exists(), length
    path.write_bytes(content + b"\0")
    assert_recompiles(cache)


def test_another_entry_under_this_name(cache: DiskCache) -> None:
    stored(cache, OTHER).rename(unit(cache))
    assert cache.get(KEY) is None
    assert unit(cache).exists()
    assert_recompiles(cache)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, 2**32 - 1])
def test_another_format_version(cache: DiskCache, version: int) -> None:
    path = plant(cache, sealed(header(), version=version))
    assert cache.get(KEY) is None
    assert path.exists()
    assert_recompiles(cache)


def test_another_magic_under_a_right_checksum(cache: DiskCache) -> None:
    path = plant(cache, sealed(header(), magic=b"\x89SGUNIT\r"))
    assert cache.get(KEY) is None
    assert not path.exists()
    assert_recompiles(cache)


HOSTILE = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep metadata": header(metadata="X").replace(b'"X"', b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no JSON": b"\0" * 10,
    "empty": b"",
    "not UTF-8": header().replace(b"metadata", b"\xff\xfe"),
    "UTF-16": header().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + header(),
    "list": b"[]",
    "null": b"null",
    "NaN": header(metadata={"x": float("nan")}),
    "Infinity": header(metadata={"x": float("-inf")}),
    "overflow": header(metadata="X").replace(b'"X"', b'{"x":1e999}'),
    "huge integer": header(metadata="X").replace(b'"X"', b'{"x":' + b"9" * 5000 + b"}"),
    "repeated name": header().replace(b"{", b'{"key": "' + KEY.encode() + b'", ', 1),
    "repeated name in metadata": header(metadata="X").replace(b'"X"', b'{"a":1,"a":2}'),
    "missing name": header().replace(b'"metadata"', b'"other"'),
    "name too many": header(other=1),
    "key is a number": header(key=1),
    "key is null": header(key=None),
    "metadata are a list": header(metadata=[]),
    "metadata are text": header(metadata="text"),
    "length is a bool": header(payload_bytes=False),
    "length is a float": header(payload_bytes=0.0),
    "length is text": header(payload_bytes="0"),
    "length is negative": header(payload_bytes=-1),
    "length is huge": header(payload_bytes=2**80),
    "digest is a number": header(payload_sha256=0),
    "digest is wrong": header(payload_sha256="0" * 64),
    "text behind": header() + b"{}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_under_a_right_checksum(cache: DiskCache, name: str) -> None:
    plant(cache, sealed(HOSTILE[name]))
    assert_recompiles(cache)


@pytest.mark.parametrize("length", [0, len(header()) - 1, len(header()) + 1, 2**31, 2**63, 2**64 - 1])
def test_wrong_header_length_under_a_right_checksum(cache: DiskCache, length: int) -> None:
    path = plant(cache, sealed(header(), length=length))
    assert cache.get(KEY) is None
    assert not path.exists()


@POSIX
def test_neither_links_nor_folders_nor_pipes_are_entries(cache: DiskCache, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    stored(cache).rename(elsewhere)
    before = open_descriptors()

    unit(cache).symlink_to(elsewhere)
    assert cache.get(KEY) is None
    assert cache.statistics() == EMPTY
    assert cache.clear() == 0
    assert unit(cache).is_symlink()
    assert_recompiles(cache)
    assert not unit(cache).is_symlink(), "replaced, not followed"
    assert DiskCache(tmp_path).get(KEY) is None
    assert hashlib.sha256(elsewhere.read_bytes()[:-32]).digest() == elsewhere.read_bytes()[-32:], "what it pointed to is untouched"
    unit(cache).unlink()

    os.mkfifo(unit(cache))
    assert cache.get(KEY) is None
    assert unit(cache).is_fifo()
    assert_recompiles(cache)
    unit(cache).unlink()

    unit(cache).mkdir()
    assert cache.get(KEY) is None
    with pytest.warns(StaticgradWarning, match="directory"):
        assert not cache.put(KEY, ENTRY)
    assert [path.name for path in cache.folder.iterdir()] == [unit(cache).name], "no temporary file stays"
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@POSIX
def test_a_file_that_others_can_write_is_not_read(cache: DiskCache) -> None:
    stored(cache).chmod(0o622)
    assert_recompiles(cache)
    assert stat.S_IMODE(unit(cache).stat().st_mode) == 0o600


# Folders that must not or cannot be used


def assert_refused(cache: DiskCache, match: str) -> None:
    """Nothing is read or written, and one warning says why, however often it is tried."""
    assert cache.get(KEY) is None
    with pytest.warns(StaticgradWarning, match=match) as caught:
        assert not cache.put(KEY, ENTRY)
    assert str(cache.folder) in str(caught[0].message)
    assert "STATICGRAD_CACHE" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cache.put(KEY, ENTRY)
        assert not DiskCache(cache.folder).put(OTHER, ENTRY)
        assert cache.get(KEY) is None


@POSIX
def test_the_folder_is_made_private(cache: DiskCache) -> None:
    before = os.umask(0)
    try:
        stored(cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(unit(cache).stat().st_mode) == 0o600


@POSIX
@pytest.mark.parametrize("mode", [0o701, 0o710, 0o740, 0o755, 0o777, 0o1777])
def test_a_folder_others_can_enter_is_refused(cache: DiskCache, mode: int) -> None:
    stored(cache)
    cache.folder.chmod(mode)
    assert_refused(cache, f"{mode:04o}.*chmod 700")
    cache.folder.chmod(0o700)
    assert cache.get(KEY) == ENTRY


@POSIX
def test_a_folder_of_another_user_is_refused(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert_refused(cache, f"belongs to user {me}")


@POSIX
def test_a_file_of_another_user_is_not_read(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(cache)
    me = os.getuid()
    answers = itertools.chain([me], itertools.repeat(me + 1))
    monkeypatch.setattr(os, "getuid", lambda: next(answers))
    assert cache.get(KEY) is None
    assert path.exists()


def test_a_folder_that_is_a_symbolic_link_is_refused(cache: DiskCache, tmp_path: Path) -> None:
    path = stored(cache)
    link = DiskCache(tmp_path / "link")
    link.folder.symlink_to(cache.folder)
    assert_refused(link, "symbolic link")
    assert (link.clear(), link.statistics()) == (0, EMPTY)
    assert path.exists()
    dangling = DiskCache(tmp_path / "dangling")
    dangling.folder.symlink_to(tmp_path / "nowhere")
    assert dangling.get(KEY) is None
    assert not dangling.put(KEY, ENTRY)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_place_of_the_folder(cache: DiskCache) -> None:
    cache.folder.write_text("a user's notes")
    assert_refused(cache, "not a folder")
    assert (cache.clear(), cache.statistics()) == (0, EMPTY)
    below = DiskCache(cache.folder / "below")
    assert below.get(KEY) is None
    assert not below.put(KEY, ENTRY)
    assert cache.folder.read_text() == "a user's notes"


class Failing:
    """A file whose `write` stores half of the bytes before the disk is full."""

    def __init__(self, descriptor: int) -> None:
        self.file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["open", "replace", "mkdir", "lstat"])
def test_an_unwritable_or_full_disk(cache: DiskCache, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, call, fail)
    assert_refused(cache, os.strerror(code))
    monkeypatch.undo()
    assert list(cache.folder.glob("*")) == []
    stored(cache)


def test_a_disk_that_fills_up_while_writing(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)
    monkeypatch.setattr(unit_file, "open", lambda descriptor, mode, **options: Failing(descriptor), raising=False)
    with pytest.warns(StaticgradWarning, match=os.strerror(errno.ENOSPC)):
        assert not cache.put(KEY, REWRITTEN)
    monkeypatch.undo()
    assert cache.get(KEY) == ENTRY, "the old entry stands"
    assert len(list(cache.folder.iterdir())) == 1, "no temporary file stays"


def test_ctrl_c_while_writing(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, ENTRY)
    assert list(cache.folder.iterdir()) == []


def test_reading_never_raises(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(cache)
    for error in (OSError(errno.EIO, "I/O error"), PermissionError(), MemoryError()):

        def fail(*arguments: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fstat", fail)
            assert cache.get(KEY) is None
    assert path.exists()
    assert cache.get(KEY) == ENTRY


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = DiskCache(Path("relative") / "folder")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stored(cache)
    assert (tmp_path / "relative" / "folder" / f"sg_{KEY}.unit").exists()


# Clearing, statistics and left-over files


def test_clear_removes_only_what_is_ours(cache: DiskCache) -> None:
    assert (cache.clear(), cache.statistics()) == (0, EMPTY)
    stored(cache), stored(cache, OTHER, REWRITTEN)
    foreign = ["notes.txt", f"sg_{KEY}.unit.bak", f"sg_{KEY[:-1]}.unit", f"sg_{KEY}.tmp", f"x_sg_{KEY}.unit", f"sg_{KEY}.{'0' * 15}.tmp"]
    for name in [*foreign, f"sg_{KEY}.{'0' * 16}.tmp"]:
        (cache.folder / name).write_bytes(b"x")
    found = cache.statistics()
    assert (found.entries, found.size) == (2, 2 * 4096)
    assert time.time() - 60 < found.oldest <= found.newest <= time.time() + 60
    assert cache.clear() == 2
    assert sorted(path.name for path in cache.folder.iterdir()) == sorted(foreign)
    assert cache.get(KEY) is None
    stored(cache)


def test_put_removes_temporary_files_older_than_an_hour(cache: DiskCache) -> None:
    stored(cache)
    old, young, foreign = (cache.folder / name for name in (f"sg_{OTHER}.{'0' * 16}.tmp", f"sg_{OTHER}.{'1' * 16}.tmp", "other.tmp"))
    for path in (old, young, foreign, unit(cache)):
        path.touch()
        os.utime(path, (time.time() - 3700,) * 2 if path != young else None)
    stored(DiskCache(cache.folder), OTHER)
    assert [path.exists() for path in (old, young, foreign, unit(cache))] == [False, True, True, True]


def test_put_survives_a_cache_cleared_meanwhile(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, rounds = os.replace, iter([True, True, False])

    def clear_first(source: Path, target: Path) -> None:
        if next(rounds):
            DiskCache(cache.folder).clear()
            cache.folder.rmdir()
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", clear_first)
    stored(cache)


# Processes


START = """
import os, sys, signal, time
from pathlib import Path
from staticgrad.runtime.cache import DiskCache
from staticgrad.runtime.unit_file import Entry
cache = DiskCache(Path(sys.argv[1]))
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python whose only thread runs `script`, so that it may fork."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error::UserWarning", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", START + script, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


MANY = """
key, clearing = sys.argv[2], sys.argv[3] == "True"
def entry(i):
    return Entry({"i": i}, bytes([i % 251]) * (1 + 7919 * i % 60000))
def work(first):
    hits = 0
    for i in range(first, first + 60):
        assert cache.put(key, entry(i))
        found = cache.get(key)
        assert found is None or found == entry(found.metadata["i"])
        hits += found is not None
        if clearing and first == 0 and i % 20 == 19:
            cache.clear()
    assert hits > 30 if clearing else hits == 60
children = []
for child in range(6):
    pid = os.fork()
    if pid == 0:
        try:
            work(1000 * child)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("clearing", [False, True])
def test_many_processes_write_and_read_one_key(cache: DiskCache, clearing: bool) -> None:
    assert finish(python(MANY, str(cache.folder), KEY, str(clearing))) == "done\n"
    assert [path.name for path in cache.folder.iterdir()] in ([[unit(cache).name], []] if clearing else [[unit(cache).name]])


FORK = """
key = sys.argv[2]
assert cache.put(key, Entry({}, b"parent"))
before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
pid = os.fork()
if pid == 0:
    ok = cache.get(key).payload == b"parent" and cache.put(key, Entry({}, b"child"))
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
assert cache.get(key).payload == b"child"
assert before == (len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_shares_the_cache(cache: DiskCache) -> None:
    finish(python(FORK, str(cache.folder), KEY))
    assert cache.get(KEY) == Entry({}, b"child")


KILLED = """
key = sys.argv[2]
def loop():
    i = 0
    while True:
        cache.put(key, Entry({"i": i}, bytes([i % 256]) * 300_000))
        i += 1
cache.put(key, Entry({"i": 0}, bytes(300_000)))
for round in range(25):
    pid = os.fork()
    if pid == 0:
        loop()
    time.sleep(0.004 + 0.0007 * round)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    found = cache.get(key)
    assert found.payload == bytes([found.metadata["i"] % 256]) * 300_000
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_writers_killed_at_any_moment(cache: DiskCache) -> None:
    finish(python(KILLED, str(cache.folder), KEY))
    stored(cache)
    assert cache.clear() == 1
    assert list(cache.folder.iterdir()) == []


@POSIX
def test_a_writer_killed_before_its_file_is_in_place(cache: DiskCache) -> None:
    process = python(
        "os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\ncache.put(sys.argv[2], Entry({}, b'x'))", str(cache.folder), KEY
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (left,) = cache.folder.iterdir()
    assert left.suffix == ".tmp"
    assert (cache.get(KEY), cache.statistics()) == (None, EMPTY)
    stored(cache)
    assert left.exists(), "its writer might still be at work"
    os.utime(left, (0, 0))
    stored(DiskCache(cache.folder), OTHER)
    assert not left.exists()


# House rules


@pytest.fixture
def topics() -> Iterator[None]:
    before = config()
    yield
    configure(before)


@pytest.mark.usefixtures("topics")
def test_log(cache: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    caplog.set_level(logging.INFO, "staticgrad.cache")
    configure(replace(config(), log=frozenset({"trace"})))
    stored(cache)
    assert caplog.records == []
    configure(replace(config(), log=frozenset({"cache"})))
    cache.get(OTHER)
    stored(cache).write_bytes(b"damaged")
    cache.get(KEY)
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(": ")[1].split(",")[0].split(" (")[0] for text in said] == ["absent", "stored", "hit", "damaged"]
    assert all(record.levelno == logging.INFO and record.name == "staticgrad.cache" for record in caplog.records)


@pytest.mark.parametrize("part", [module, unit_file], ids=["cache", "unit_file"])
def test_only_the_standard_library_and_no_pickle(part: ModuleType) -> None:
    source = Path(part.__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported |= {node.module} if node.module != "staticgrad.runtime" else {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
    own = {name for name in imported if name.startswith("staticgrad")}
    assert own <= {"staticgrad.config", "staticgrad.errors", "staticgrad.runtime.unit_file"}
    assert {name.partition(".")[0] for name in imported - own} <= sys.stdlib_module_names
    assert not imported & {"pickle", "marshal", "shelve", "dbm", "copyreg"}
    assert "pickle" not in source
