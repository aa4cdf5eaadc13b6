"""The file of a compiled unit: object bytes, JSON and a checksum. Whatever a file holds, reading it returns an entry or raises `Rejected`.

A file is called `sg_<key>.unit` and holds, integers in little-endian order:

    magic (8 bytes) · format version (4) · length of the header (8) · header · payload · SHA-256 of everything before (32)

The header is a JSON object with `key`, `metadata`, `payload_bytes` and `payload_sha256`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from staticgrad.errors import InvalidValueError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMAT_VERSION = 1
_MAGIC = b"\x89SGUNIT\n"  # no text file starts with 0x89, and a newline conversion would damage the magic first
_PREFIX = struct.Struct("<8sIQ")
_DIGEST_BYTES = hashlib.sha256().digest_size
LARGEST_FILE = 512 << 20
_HEADER_NAMES = {"key", "metadata", "payload_bytes", "payload_sha256"}

# Windows has neither O_NOFOLLOW nor O_NONBLOCK (which keeps a named pipe from blocking the reader), and needs O_BINARY.
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _OPEN_FLAGS
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS


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


class Rejected(Exception):
    """A file that is not the entry asked for: foreign or outdated, and left where it is."""


class Damaged(Rejected):
    """A file that was an entry once; it is removed."""


def read_file(path: Path) -> bytes:
    """Return the content of a regular file that is the user's own and can hold an entry."""
    descriptor = os.open(path, _READ_FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("not a regular file")
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise Rejected("others can write it")
        if status.st_size > LARGEST_FILE:
            raise Damaged("too large")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Put a file of `content` at `path`; readers see what stood there before or all of the new, never a part."""
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


def encode(key: str, entry: Entry) -> bytes:
    """Return the content of the file of an entry; metadata that JSON would change are an `InvalidValueError`."""
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


def decode(content: bytes, key: str) -> Entry:
    """Return the entry that `content` holds, or raise `Rejected`."""
    if len(content) < _PREFIX.size + _DIGEST_BYTES:
        raise Damaged("too short")
    magic, version, header_bytes = _PREFIX.unpack_from(content)
    if magic != _MAGIC:
        raise Damaged("wrong magic")
    if version != FORMAT_VERSION:
        raise Rejected(f"format version {version}, expected {FORMAT_VERSION}")
    end = len(content) - _DIGEST_BYTES
    if hashlib.sha256(memoryview(content)[:end]).digest() != content[end:]:
        raise Damaged("wrong checksum")
    start = _PREFIX.size + header_bytes
    if start > end:
        raise Damaged("header longer than the file")
    document = _document(content[_PREFIX.size : start])
    if document["key"] != key:
        raise Rejected("it holds another entry")
    payload = content[start:end]
    length = document["payload_bytes"]
    if type(length) is not int or length != len(payload) or document["payload_sha256"] != hashlib.sha256(payload).hexdigest():
        raise Damaged("wrong payload")
    return Entry(document["metadata"], payload)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of an entry without reading its payload, and so unverified: to be shown, not to be relied on."""
    with open(os.open(path, _READ_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Rejected("not a regular file")
        prefix = file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
            raise Damaged("no entry")
        _, version, header_bytes = _PREFIX.unpack(prefix)
        if version != FORMAT_VERSION or header_bytes > LARGEST_FILE:
            raise Rejected(f"format version {version}")
        metadata: dict[str, Any] = _document(file.read(header_bytes))["metadata"]
        return metadata


def _document(header: bytes) -> dict[str, Any]:
    """Return the object that a header holds."""
    try:
        document = _parse(header)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"header: {error}") from error
    if not isinstance(document, dict) or document.keys() != _HEADER_NAMES or not isinstance(document["metadata"], dict):
        raise Damaged("header of the wrong form")
    return document


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
