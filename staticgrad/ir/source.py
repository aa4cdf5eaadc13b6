"""Where in the user's code a node comes from."""

from __future__ import annotations

import functools
import linecache
import os
import sys
from dataclasses import dataclass
from types import FrameType

import numpy as np

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_KERNELS = os.path.join(os.path.dirname(os.path.dirname(_OWN)), "kernels") + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_LIBRARIES = tuple(os.path.join(os.path.dirname(os.path.dirname(_NUMPY)), name) + os.sep for name in ("numba", "optree", "pandas", "scipy"))
_STANDARD = (os.path.dirname(os.path.abspath(os.__file__)) + os.sep, "<frozen")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's program."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        """The line itself, stripped; empty when the source is not at hand."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    def describe(self) -> str:
        """Return `file:line, in function` and the line's text below it, for error messages."""
        text = self.text
        return f"{self.file}:{self.line}, in {self.function}" + (f"\n    {text}" if text else "")


@functools.lru_cache(4096)  # eager operations ask at every step
def _is_foreign(file: str, module: object) -> bool:
    """Return whether a frame with this file and `__name__` is the user's."""
    if file.startswith((_OWN, _KERNELS, _NUMPY, *_LIBRARIES)) or (file.startswith(_STANDARD) and "site-packages" not in file):
        return False
    return str(module).partition(".")[0] != "staticgrad"  # the generated methods of our dataclasses


def user_line() -> SourceLine | None:
    """Return the innermost line that belongs neither to staticgrad nor to NumPy and its kin nor to the standard library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if _is_foreign(code.co_filename, frame.f_globals.get("__name__")):
            return SourceLine(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None


def user_stack_level() -> int:
    """Return the `stacklevel` at which a warning issued by the caller of this function shows the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and not _is_foreign(frame.f_code.co_filename, frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    return level


def at_user_line(message: str, line: SourceLine | None = None) -> str:
    """Return `message` with the user's line below it."""
    line = line or user_line()
    return message if line is None else f"{message}\n  at {line.describe()}"
