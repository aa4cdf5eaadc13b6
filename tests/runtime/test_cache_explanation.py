"""`sg.explain_cache`: for every unit of the process a hit, or the component of the key that the nearest entry does not share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.config import config, configure
from staticgrad.runtime import stored_units, unit_key
from staticgrad.runtime.build import forget
from staticgrad.runtime.cache_explanation import MEANINGS, Difference, UnitExplanation
from staticgrad.runtime.stored_units import graph_parts


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and a process that has not looked for anything yet."""
    monkeypatch.setattr(stored_units, "lookups", found := [])
    monkeypatch.setattr("staticgrad.runtime.cache_explanation.lookups", found)
    before = configure(replace(config(), cache=tmp_path / "cache", printer="llvm", verify=False, dump=None, log=frozenset()))
    forget()
    yield tmp_path / "cache"
    forget()
    configure(before)


def height(x: np.ndarray) -> np.ndarray:
    return np.sum(x * 1.5)


def compiled(function, *arguments: object) -> UnitExplanation:
    """Return what is said of the one unit of a call in a new process."""
    sg.trace(function).cache_clear()
    forget()
    sg.trace(function)(*arguments)
    return sg.explain_cache().units[-1]


def test_nothing_was_looked_for() -> None:
    found = sg.explain_cache()
    assert (found.units, found.hits, found.misses) == ((), 0, 0)
    assert str(found) == f"{config().cache}: hits 0, misses 0"


def test_hits_and_misses(process: Path) -> None:
    first, second = compiled(height, np.ones(3)), compiled(height, np.ones(3))
    assert (first.title, first.hit, first.reason, first.differences) == ("height", False, "no entry of this program", ())
    assert (second.title, second.hit, second.reason, second.differences) == ("height", True, "", ())
    assert first.key == second.key and (process / f"sg_{first.key}.unit").exists()
    found = sg.explain_cache()
    assert (found.folder, found.hits, found.misses) == (process, 1, 1)
    assert str(found) == f"{process}: hits 1, misses 1\nmiss  height: no entry of this program\nhit   height"


def test_other_shapes_and_dtypes() -> None:
    compiled(height, np.ones(3))
    found = compiled(height, np.ones((2, 2), np.float32))
    assert found.reason == "the nearest entry differs in inputs"
    assert found.differences == (Difference("inputs", "f64[3]", "f32[2,2]"),)
    assert str(found).splitlines() == [
        "miss  height: the nearest entry differs in inputs",
        "        inputs (dtypes and shapes of the arguments): stored f64[3], wanted f32[2,2]",
    ]


def test_changed_code_under_the_same_name() -> None:
    compiled(height, np.ones(3))

    def changed(x: np.ndarray) -> np.ndarray:
        return np.sum(x * 2.5)

    changed.__name__ = "height"
    found = compiled(changed, np.ones(3))
    assert [difference.component for difference in found.differences] == ["graph"]
    assert "the recorded program" in str(found)
    other = compiled(lambda x: x * 7.5, np.ones(3))
    assert other.reason == "no entry of this program"


def test_another_version_of_numpy_on_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    known = unit_key._installation()
    with monkeypatch.context() as patch:
        older = {**known, "numpy": "1.0", "cpu": known["cpu"].replace("+sse2,", "+mmx3,")}
        patch.setattr(unit_key, "_installation", lambda: older)
        compiled(height, np.ones(3))
    found = compiled(height, np.ones(3))
    assert found.reason == "the nearest entry differs in cpu and numpy"
    assert found.differences[1] == Difference("numpy", "1.0", np.__version__)
    assert "cpu (the processor and its features): stored +mmx3, wanted +sse2" in str(found), "of long lists what differs"


def test_the_nearest_entry_is_the_one_of_the_same_program_with_most_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    known = unit_key._installation()
    for changes in ({"numpy": "1.0", "llvmlite": "0.1"}, {"python": "cpython 2.7"}, {"machine": "vax", "numpy": "1.1"}):
        with monkeypatch.context() as patch:
            patch.setattr(unit_key, "_installation", lambda changes=changes: {**known, **changes})
            compiled(height, np.ones(3))
    compiled(height, np.ones(4))  # the same title and installation, but another graph
    assert compiled(height, np.ones(3)).differences == (Difference("python", "cpython 2.7", known["python"]),)


def test_settings_and_printers_have_names() -> None:
    compiled(height, np.ones(3))
    configure(replace(config(), skip=frozenset({"fuse"}), rewrite_limit=3))
    found = compiled(height, np.ones(3))
    assert [str(difference) for difference in found.differences] == [
        "rewrite limit (STATICGRAD_REWRITE_LIMIT): stored none, wanted 3",
        "skipped passes (STATICGRAD_SKIP): stored nothing, wanted fuse",
    ]
    configure(replace(config(), skip=frozenset(), rewrite_limit=None, printer="numba"))
    found = compiled(height, np.ones(3))
    assert [(d.component, d.stored) for d in found.differences] == [("numba", None), ("printer", "llvm")]


def test_digests_are_shortened() -> None:
    assert str(Difference("sources", "a" * 64, "b" * 64)) == "sources (staticgrad's own files): stored aaaaaaaaaaaa, wanted bbbbbbbbbbbb"
    long = ", ".join(f"f64[{size}]" for size in range(40))
    assert len(str(Difference("inputs", long, ""))) < 160


def test_what_was_stored_later_does_not_explain_a_miss(process: Path) -> None:
    compiled(height, np.ones(3))
    compiled(height, np.ones(4))
    assert sg.explain_cache().units[0].reason == "no entry of this program"


def test_entries_that_cannot_be_read_explain_nothing(process: Path) -> None:
    compiled(height, np.ones(3))
    (path,) = process.glob("*.unit")
    for content in (b"", b"no entry", path.read_bytes()[:100], path.read_bytes().replace(b'"created"', b'"creates"')):
        path.write_bytes(content)
        assert compiled(height, np.ones(2)).reason == "no entry of this program"
        for other in set(process.glob("*.unit")) - {path}:
            other.unlink()


def test_every_component_has_a_name_that_says_what_it_is() -> None:
    graph = sg.trace(height).lower(np.ones(3)).graph
    plain = {"python", "numpy", "numba", "llvmlite", "cache format"}
    assert set(graph_parts(graph, "numba")) | {"source"} == plain | set(MEANINGS)
