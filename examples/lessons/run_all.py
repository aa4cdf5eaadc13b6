"""Run all lessons, each in a process of its own with nothing compiled before, and show how long each takes.

    python examples/lessons/run_all.py [--output FOLDER]

Ends with an error if a lesson fails, or if all together take longer than two minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 120.0
"""Seconds for all lessons together."""

parser = argparse.ArgumentParser(description="Run all lessons.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures and the printed texts go")
output: Path = parser.parse_args().output
output.mkdir(parents=True, exist_ok=True)

seconds = {}
for script in sorted(Path(__file__).resolve().parent.glob("l[0-9]_*.py")):
    with tempfile.TemporaryDirectory() as cache:
        begun = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, str(script), "--output", str(output)],
            env={**os.environ, "STATICGRAD_CACHE": cache},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds[script.stem] = time.perf_counter() - begun
    (output / f"{script.stem}.txt").write_text(ended.stdout, encoding="utf-8")
    print(f"{script.stem:38} {seconds[script.stem]:6.1f} s", flush=True)
    if ended.returncode:
        sys.exit(f"{script.name} failed:\n{ended.stderr}")

total = sum(seconds.values())
print(f"{'all':38} {total:6.1f} s; pictures and texts are in {output}")
if total > LIMIT:
    sys.exit(f"the lessons take longer than {LIMIT:.0f} s")
