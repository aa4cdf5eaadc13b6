"""The index of the lessons names all of them, and each is tested."""

import re
from pathlib import Path

import pytest

from tests.lessons.running import LESSONS

SCRIPTS = sorted(path.stem for path in LESSONS.glob("l[0-9]_*.py"))
TESTS = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))


def test_the_index_lists_the_lessons():
    index = (LESSONS / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((l\d_\w+)\.py\)", index)) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_lesson_is_run_by_a_test(name):
    assert f'run("{name}"' in TESTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_lessons_assert_what_they_claim(name):
    source = (LESSONS / f"{name}.py").read_text(encoding="utf-8")
    assert len(re.findall(r"^\s*(?:assert |np\.testing\.assert_)", source, re.MULTILINE)) >= 5
    assert source.startswith("# %% [markdown]\n# # ")
