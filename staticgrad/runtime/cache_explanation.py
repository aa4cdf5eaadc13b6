"""Why the units of this process were found on the disk or not: `sg.explain_cache()`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staticgrad.config import config
from staticgrad.runtime.cache import disk_cache
from staticgrad.runtime.stored_units import Lookup, lookups
from staticgrad.runtime.unit_key import unit_key

MEANINGS = {
    "graph": "the recorded program: its operations, closed-over arrays and options",
    "inputs": "dtypes and shapes of the arguments",
    "source": "the source of a function that is part of staticgrad",
    "sources": "staticgrad's own files",
    "staticgrad": "the version of staticgrad",
    "printer": "what writes the code that is compiled",
    "cpu": "the processor and its features",
    "machine": "the kind of machine",
    "fastmath": "the option of sg.trace",
    "max_memory": "the option of sg.trace",
    "skipped passes": "STATICGRAD_SKIP",
    "rewrite limit": "STATICGRAD_REWRITE_LIMIT",
}
"""What the components of a key stand for, where the name does not say it."""

_LONGEST = 60


@dataclass(frozen=True)
class Difference:
    """A component of the key that differs: its name, what the nearest entry has, and what this process needs; None for none."""

    component: str
    stored: str | None
    wanted: str | None

    def __str__(self) -> str:
        stored, wanted = _brief(self.stored, self.wanted), _brief(self.wanted, self.stored)
        meaning = f" ({MEANINGS[self.component]})" if self.component in MEANINGS else ""
        return f"{self.component}{meaning}: stored {stored}, wanted {wanted}"


@dataclass(frozen=True)
class UnitExplanation:
    """How it went for one unit.

    Attributes
    ----------
    title : str
        The function it computes: `"grad(loss)"`.
    key : str
        What it is called on the disk.
    hit : bool
        Whether its machine code was found there.
    reason : str
        Of a miss, in words.
    differences : tuple of Difference
        Of a miss: what differs from the nearest entry of the same program that was there at the time.
    """

    title: str
    key: str
    hit: bool
    reason: str
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        head = f"{'hit ' if self.hit else 'miss'}  {self.title}"
        lines = [head if self.hit else f"{head}: {self.reason}", *(f"        {difference}" for difference in self.differences)]
        return "\n".join(lines)


@dataclass(frozen=True)
class CacheExplanation:
    """Why the units of this process were found on the disk or not; `str` of it is to be read.

    Attributes
    ----------
    folder : Path or None
        Where the cache is; None where it is off.
    units : tuple of UnitExplanation
        In the order in which this process looked for them.
    """

    folder: Path | None
    units: tuple[UnitExplanation, ...]

    @property
    def hits(self) -> int:
        """The number of units that were found."""
        return sum(unit.hit for unit in self.units)

    @property
    def misses(self) -> int:
        """The number of units that were not."""
        return len(self.units) - self.hits

    def __str__(self) -> str:
        where = "the cache is off" if self.folder is None else str(self.folder)
        return "\n".join([f"{where}: hits {self.hits}, misses {self.misses}", *map(str, self.units)])


def explain_cache() -> CacheExplanation:
    """Return why the compiled functions of this process were found on the disk or not.

    For a miss it names the components of the key that differ from the nearest entry of the same program: another version, another
    processor, other shapes, changed code.

    Returns
    -------
    CacheExplanation
        `print` it, or read its attributes `folder`, `units`, `hits` and `misses`.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def height(x):
    ...     return np.sum(x * 0.375)
    >>> sg.trace(height)(np.ones(2)), sg.trace(height)(np.ones(3))
    (np.float64(0.75), np.float64(1.125))
    >>> unit = sg.explain_cache().units[-1]
    >>> unit.title, unit.hit
    ('height', False)
    """
    folder = config().cache
    entries = [] if folder is None or all(map(_is_hit, lookups)) else [facts for _, facts in disk_cache(folder).metadata()]
    return CacheExplanation(folder, tuple(_explained(lookup, entries) for lookup in lookups))


def _is_hit(lookup: Lookup) -> bool:
    return lookup.found == "hit"


def _explained(lookup: Lookup, entries: Iterable[Mapping[str, Any]]) -> UnitExplanation:
    key = unit_key(lookup.parts)
    if lookup.found != "absent":
        return UnitExplanation(lookup.title, key, _is_hit(lookup), "" if _is_hit(lookup) else lookup.found, ())
    nearest = _nearest(lookup, entries)
    if nearest is None:
        return UnitExplanation(lookup.title, key, False, "no entry of this program", ())
    differences = tuple(
        Difference(name, nearest.get(name), lookup.parts.get(name))
        for name in sorted({*nearest, *lookup.parts})
        if nearest.get(name) != lookup.parts.get(name)
    )
    if any(difference.component == "inputs" for difference in differences):  # then the recorded program differs of necessity
        differences = tuple(difference for difference in differences if difference.component != "graph")
    reason = f"the nearest entry differs in {' and '.join(difference.component for difference in differences)}"
    return UnitExplanation(lookup.title, key, False, reason, differences)


def _nearest(lookup: Lookup, entries: Iterable[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Return the components of the entry, older than the lookup, that has most in common with it: the graph first, or else the title."""
    program = "source" if "source" in lookup.parts else "graph"
    best: tuple[tuple[bool, int, float], Mapping[str, str]] | None = None
    for facts in entries:
        title, parts, created = facts.get("title"), facts.get("parts"), facts.get("created")
        if not isinstance(parts, dict) or not isinstance(created, float) or created >= lookup.when or parts == lookup.parts:
            continue
        same = parts.get(program) == lookup.parts[program]
        if not same and (title != lookup.title or program not in parts):
            continue
        rank = same, sum(parts.get(name) == text for name, text in lookup.parts.items()), created
        if best is None or rank > best[0]:
            best = rank, parts
    return None if best is None else best[1]


def _brief(text: str | None, other: str | None) -> str:
    """Return a component to be shown: of long lists the items that the other one lacks, of a digest its beginning."""
    if text is None:
        return "nothing"
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:12]
    if len(text) <= _LONGEST:
        return text or "nothing"
    theirs = set(re.split(r"[ ,]+", other or ""))
    own = " ".join(item for item in re.split(r"[ ,]+", text) if item not in theirs) or "nothing more"
    return own if len(own) <= _LONGEST else f"{own[: _LONGEST - 3]}..."
