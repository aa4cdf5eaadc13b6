"""What `import staticgrad` loads, and what only those who ask for it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import staticgrad as sg

CHECKOUT = Path(sg.__file__).parents[1]
HEAVY = ("numba", "llvmlite", "scipy", "matplotlib", "hypothesis", "pandas", "jax", "sklearn", "tqdm", "email", "asyncio", "unittest")


def loaded(code: str, *names: str) -> list[str]:
    """Return which of `names` are loaded after `code` ran in a new process."""
    script = f"import sys\n{code}\nprint(*(name for name in {names!r} if name in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


PARTS = (
    "codegen.lower", "passes.pipeline", "tracing.functions", "nn", "optim", "train", "numpy", "gradient_check", "lowered", "debug",
    "formulas",
)  # fmt: skip


def test_the_import_is_light():
    assert loaded("import staticgrad", *HEAVY, "importlib.metadata", *(f"staticgrad.{part}" for part in PARTS)) == []


CALL = """
import numpy as np, staticgrad as sg
f = sg.trace(lambda x: np.sum(np.tanh(x) @ x), printer="llvm")
assert f(np.ones(3)) and len(sg.grad(f)(np.ones(3))) == 3
"""


def test_a_compiled_call_needs_llvmlite_alone(tmp_path):
    """The first time, and when everything is found on the disk."""
    code = f"import os; os.environ['STATICGRAD_CACHE'] = {str(tmp_path / 'cache')!r}\n{CALL}"
    for hits in (0, 1):
        counted = f"{code}assert f.cache_info().disk_hits == {hits}"
        assert loaded(counted, *HEAVY, "importlib.metadata") == ["llvmlite"]
    assert len(list((tmp_path / "cache").glob("*.unit"))) == 2


@pytest.mark.parametrize("name", ["nn", "optim", "train", "numpy", "debug"])
def test_modules_are_imported_when_they_are_asked_for(name):
    full = f"staticgrad.{name}"
    code = f"import staticgrad as sg\nassert {full!r} not in sys.modules\nassert sg.{name} is sys.modules[{full!r}]"
    assert loaded(code, full) == [full]


def test_the_tracer_finds_random_numbers_though_numpy_had_not_loaded_them():
    code = """
import warnings
import numpy as np, staticgrad as sg
assert "numpy.random" not in sys.modules
warnings.simplefilter("error")
try:
    sg.trace(lambda x: x + np.random.normal())(np.ones(3))
except sg.StaticgradWarning as warning:
    print(type(warning).__name__)
"""
    assert loaded(code) == ["StaticgradWarning"]


def test_names_and_their_listing():
    assert dir(sg) == sorted(sg.__all__)
    assert len(set(sg.__all__)) == len(sg.__all__)
    code = "from staticgrad import *\nimport staticgrad\nassert all(name in globals() for name in staticgrad.__all__)"
    assert loaded(code, "staticgrad.train", "staticgrad.nn") == ["staticgrad.train", "staticgrad.nn"]


def test_a_wrong_name_is_an_error_with_a_hint():
    with pytest.raises(AttributeError, match="module 'staticgrad' has no attribute 'gradd'") as caught:
        _ = sg.gradd
    assert isinstance(caught.value, sg.StaticgradError)
    assert (caught.value.name, caught.value.obj) == ("gradd", sg)
    assert not hasattr(sg, "codegen_of_nothing")


def test_type_checkers_see_every_name():
    """What is imported late is imported under TYPE_CHECKING as well, under the same name and from the same place."""
    tree = ast.parse(Path(sg.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    shown = {alias.name: node.module for node in block.body for alias in node.names}
    late = dict.fromkeys(sg._MODULES, "staticgrad") | {name: f"staticgrad.{home}" for name, home in sg._HOMES.items()}
    assert shown == late
    assert set(late) <= set(sg.__all__)
