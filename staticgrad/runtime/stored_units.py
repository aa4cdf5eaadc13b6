"""Graphs and their machine code on the disk: the key of a graph, and an entry that can be called without lowering the graph again.

An entry holds the object code, then the constants that the passes made; constants that the graph itself holds are named by their
position there. Its metadata hold what a call needs, and the components of the key, which tell a miss from a hit by name.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from staticgrad.config import config
from staticgrad.errors import StaticgradError
from staticgrad.ir.graph import Graph
from staticgrad.ir.node import Bits, Constant
from staticgrad.ops.foreign import foreign_names
from staticgrad.runtime.cache import disk_cache
from staticgrad.runtime.compile import link
from staticgrad.runtime.executor import CallPlan
from staticgrad.runtime.report import phase
from staticgrad.runtime.unit_file import JSON, Entry
from staticgrad.runtime.unit_key import environment_parts, unit_key

log = logging.getLogger("staticgrad.cache")


@dataclass(frozen=True, eq=False)
class StoredUnit:
    """Machine code as the disk holds it, with what is needed to call it where it is that of a graph."""

    name: str
    object_code: bytes
    symbols: tuple[str, ...]
    plan: CallPlan | None = None
    functions: int = 0
    nests: int = 0


@dataclass(frozen=True)
class Lookup:
    """A unit that this process looked for: under which components of the key, when, and what it found (see `DiskCache.look_up`)."""

    title: str
    parts: Mapping[str, str]
    when: float
    found: str


lookups: list[Lookup] = []
"""All of this process, in order."""


def graph_parts(graph: Graph, printer: str, fastmath: bool = False, max_memory: int | None = None) -> dict[str, str]:
    """Return the components of a graph's key: everything that decides its machine code and how it is called."""
    settings = config()
    return {
        **environment_parts(printer),
        "graph": graph.digest,
        "inputs": ", ".join(str(value.aval) for value in graph.inputs),
        "fastmath": str(fastmath),
        "max_memory": "none" if max_memory is None else str(max_memory),
        "skipped passes": ", ".join(sorted(settings.skip)),
        "rewrite limit": "none" if settings.rewrite_limit is None else str(settings.rewrite_limit),
    }


def fetch(title: str, parts: Mapping[str, str], graph: Graph | None = None) -> tuple[StoredUnit, list[int]] | None:
    """Return the unit of these components and the addresses of its symbols, None where it has to be compiled; `lookups` says why."""
    entry, found = None, _passed_over(graph)
    folder = config().cache
    if not found and folder is not None:
        with phase("disk cache"):
            entry, found = disk_cache(folder).look_up(unit_key(parts))
    unit = None
    if entry is not None:
        try:
            unit = _unit_of(entry, graph)
            addresses = link(unit.name, unit.object_code, unit.symbols)
        except (StaticgradError, LookupError, TypeError, ValueError) as error:
            unit, found = None, f"ignored ({type(error).__name__}: {error})"
    if "cache" in config().log:
        log.info("%s: %s", title, found)
    lookups.append(Lookup(title, parts, time.time(), found))
    return None if unit is None else (unit, addresses)


def _unit_of(entry: Entry, graph: Graph | None) -> StoredUnit:
    facts: Mapping[str, Any] = entry.metadata
    length = facts["object bytes"]
    plan = None if graph is None else plan_of(facts["plan"], entry.payload[length:], graph)
    return StoredUnit(facts["name"], entry.payload[:length], tuple(facts["symbols"]), plan, facts["functions"], facts["nests"])


def _passed_over(graph: Graph | None) -> str:
    """Return why the disk is not asked, empty where it is: who wants to see the passes at work is not shown a result."""
    settings = config()
    if graph is not None and (names := foreign_names(graph)):
        return f"not looked for: it calls {' and '.join(names)}, which this process alone has"
    if settings.cache is None:
        return "the cache is off"
    asked = [f"STATICGRAD_{name}" for name, value in (("VERIFY", settings.verify), ("DUMP", settings.dump)) if value]
    asked += [f"STATICGRAD_LOG={topic}" for topic in ("pass", "codegen") if topic in settings.log]
    return f"not looked for: {' and '.join(asked)} asked to see it compiled" if asked else ""


def store(title: str, parts: Mapping[str, str], unit: StoredUnit, graph: Graph | None = None) -> None:
    """Put a unit on the disk, where there is a cache, and machine code that another process can use."""
    folder = config().cache
    if folder is None or not unit.object_code or (graph is not None and foreign_names(graph)):
        return
    with phase("disk cache"):
        plan, constants = (None, b"") if graph is None or unit.plan is None else plan_details(unit.plan, graph)
        metadata: dict[str, JSON] = {
            "title": title,
            "parts": dict(parts),
            "created": time.time(),
            "name": unit.name,
            "object bytes": len(unit.object_code),
            "symbols": list(unit.symbols),
            "plan": plan,
            "functions": unit.functions,
            "nests": unit.nests,
        }
        disk_cache(folder).put(unit_key(parts), Entry(metadata, unit.object_code + constants))


# ---- how a unit is called

_NUMBERS = [each.name for each in fields(CallPlan) if each.name not in ("inputs", "constants", "outputs", "order", "early")]
"""What a call plan holds besides arrays: numbers, true or false."""


def plan_details(plan: CallPlan, graph: Graph) -> tuple[dict[str, JSON], bytes]:
    """Return a call plan as JSON, and the bytes of the constants that `graph` does not hold."""
    known: dict[Bits, int] = {}
    for number, bits in enumerate(_constants(graph)):
        known.setdefault(bits, number)
    places: list[JSON] = []
    made: list[bytes] = []
    for array in plan.constants:
        bits = Bits.of(array)
        if bits in known:
            places.append(known[bits])
        else:
            places.append([bits.dtype.str, list(bits.shape)])
            made.append(bits.data)
    numbers: dict[str, JSON] = {name: getattr(plan, name) for name in _NUMBERS}
    details: dict[str, JSON] = {"order": list(plan.order), "early": list(plan.early), "numbers": numbers, "constants": places}
    return details, b"".join(made)


def plan_of(details: Mapping[str, Any], made: bytes, graph: Graph) -> CallPlan:
    """Return the call plan of `graph` that `plan_details` described."""
    order = tuple(details["order"])
    outputs = {place: value.aval for place, value in zip(order, graph.outputs, strict=True)}
    held = list(_constants(graph)) if any(isinstance(place, int) for place in details["constants"]) else []
    constants: list[np.ndarray] = []
    position = 0
    for place in details["constants"]:
        if isinstance(place, int):
            constants.append(held[place].array())
            continue
        dtype, shape = np.dtype(place[0]), tuple(place[1])
        count = math.prod(shape)
        constants.append(np.frombuffer(made, dtype, count, position).reshape(shape).copy())  # aligned
        position += count * dtype.itemsize
    avals = tuple(outputs[place] for place in range(len(outputs)))
    return CallPlan(
        tuple(v.aval for v in graph.inputs), tuple(constants), avals, order, early=tuple(details["early"]), **details["numbers"]
    )


def _constants(graph: Graph) -> Iterator[Bits]:
    """Yield the constants of a graph and of the graphs that its ops hold."""
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            yield node.op.bits
        for inner in node.op.subgraphs:
            yield from _constants(inner)
