"""Runs a lesson's script and returns what it defined."""

import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

LESSONS = Path(__file__).resolve().parent.parent.parent / "examples" / "lessons"


def run(name: str, output: Path) -> dict[str, Any]:
    """Return the names that `examples/lessons/<name>.py` defines; its pictures go to `output`."""
    path = LESSONS / f"{name}.py"
    with mock.patch.object(sys, "argv", [str(path), "--output", str(output)]):
        return runpy.run_path(str(path))
