"""The configuration: the one place that reads the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from staticgrad.errors import InvalidValueError

LOG_TOPICS = ("trace", "pass", "codegen", "cache", "retrace")
BACKENDS = ("cpu", "cuda", "interp")
PRINTERS = ("llvm", "numba")


@dataclass(frozen=True)
class Config:
    """Settings of a process; read once from `STATICGRAD_*` variables, replaced as a whole by `configure`."""

    log: frozenset[str] = frozenset()
    dump: Path | None = None
    verify: bool = False
    backend: str = "cpu"
    printer: str = "llvm"
    skip: frozenset[str] = frozenset()
    rewrite_limit: int | None = None
    cache: Path | None = field(default_factory=lambda: default_cache_folder({}))
    threads: int | None = None
    without_jit: bool = False
    """NUMBA_DISABLE_JIT: people want to step through the emitted source, as Python."""


def default_cache_folder(environment: dict[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/staticgrad`, or `~/.cache/staticgrad`."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".cache") / "staticgrad"


def read_environment(environment: dict[str, str]) -> Config:
    """Return the configuration that `environment` asks for; a value that makes no sense names its variable."""

    def words(name: str) -> frozenset[str]:
        return frozenset(word.strip() for word in environment.get(name, "").split(",") if word.strip())

    def number(name: str, least: int) -> int | None:
        text = environment.get(name, "").strip()
        if not text:
            return None
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise InvalidValueError(f"{name}={text!r}: expected a whole number of at least {least}.")
        return int(text)

    log = words("STATICGRAD_LOG")
    if unknown := log - set(LOG_TOPICS):
        raise InvalidValueError(f"STATICGRAD_LOG: unknown topic {sorted(unknown)}; the topics are {', '.join(LOG_TOPICS)}.")
    backend = environment.get("STATICGRAD_BACKEND", "cpu")
    if backend not in BACKENDS:
        raise InvalidValueError(f"STATICGRAD_BACKEND={backend!r}: expected one of {', '.join(BACKENDS)}.")
    without_jit = environment.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    printer = environment.get("STATICGRAD_PRINTER", "numba" if without_jit else "llvm")
    if printer not in PRINTERS:
        raise InvalidValueError(f"STATICGRAD_PRINTER={printer!r}: expected one of {', '.join(PRINTERS)}.")
    verify = environment.get("STATICGRAD_VERIFY", "0")
    if verify not in ("0", "1"):
        raise InvalidValueError(f"STATICGRAD_VERIFY={verify!r}: expected 0 or 1.")
    dump = environment.get("STATICGRAD_DUMP")
    cache = environment.get("STATICGRAD_CACHE")
    return Config(
        log=log,
        dump=Path(dump) if dump else None,
        verify=verify == "1",
        backend=backend,
        printer=printer,
        skip=words("STATICGRAD_SKIP"),
        rewrite_limit=number("STATICGRAD_REWRITE_LIMIT", 0),
        cache=None if cache == "off" else Path(cache) if cache else default_cache_folder(environment),
        threads=number("STATICGRAD_THREADS", 1),
        without_jit=without_jit,
    )


_current: Config | None = None
_observers: list[Callable[[], None]] = []


def on_change(observer: Callable[[], None]) -> None:
    """Have `observer` called whenever another configuration is in force."""
    _observers.append(observer)


def config() -> Config:
    """Return the configuration in force; the environment is read at the first call."""
    if _current is None:
        configure(read_environment(dict(os.environ)))
    assert _current is not None
    return _current


def configure(new: Config) -> Config:
    """Put `new` in force and return what was in force before (`new` itself at the first call)."""
    global _current
    previous, _current = _current or new, new
    if previous != new:
        for observer in _observers:
            observer()
    for topic in LOG_TOPICS:
        logger = logging.getLogger(f"staticgrad.{topic}")
        if topic in new.log and not logger.handlers:
            logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO if topic in new.log else logging.NOTSET)
    return previous
