"""The arrows of the architecture: who may import whom, how long a file may be, and the public names."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, KERNELS = ROOT / "staticgrad", ROOT / "kernels"

LEVELS = {
    "_version": -1, "errors": -1, "checkpoint_policies": -1, "config": 0,
    "ir": 1,
    "kernels": 2,
    "ops": 3,
    "tracing": 4, "ad": 4, "passes": 4, "codegen": 4,
    "runtime": 5, "transforms": 5, "numpy": 5, "special": 5, "random": 5, "nn": 5, "debug": 5,
    "calls": 6,
    "api": 7, "control": 7,
    "jacobians": 8, "sparse": 8, "gradient_check": 8, "custom": 8, "formulas": 8, "train": 8,
    "checkpoints": 9, "optim": 9, "eager": 9, "primer": 9,
    "__main__": 10, "__init__": 10,
}  # fmt: skip
"""Imports point to lower numbers; parts of one number do not import each other."""

JIT = {"numba", "llvmlite"}
LONGEST = 600

FILES = sorted([*PACKAGE.rglob("*.py"), *KERNELS.rglob("*.py")])


def part_of(path: Path) -> str:
    """Return the part that a file belongs to: the first folder, or the file in the package itself."""
    if KERNELS in path.parents:
        return "kernels"
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> list[tuple[str, int]]:
    """Return every imported module as (dotted name, line), those inside functions included; those for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def target_part(module: str) -> str | None:
    """Return the part of staticgrad that an imported name belongs to, None for other packages."""
    first, _, rest = module.partition(".")
    if first != "staticgrad":
        return None
    name = rest.partition(".")[0] or "__init__"
    return name if name in LEVELS else "__init__"


def test_there_is_something_to_check():
    assert len(FILES) > 50
    assert {part_of(path) for path in FILES} <= set(LEVELS), "a new part: give it a place in LEVELS"


def may_import(own: str, other: str) -> bool:
    return own == other or LEVELS[other] < LEVELS[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = part_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {own} imports {module}"
        for module, line in imported(path)
        if (other := target_part(module)) is not None and not may_import(own, other)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_runtime_imports_the_compilers(path):
    if part_of(path) in ("runtime", "__main__"):
        return
    wrong = [f"{path.relative_to(ROOT)}:{line}: {module}" for module, line in imported(path) if module.partition(".")[0] in JIT]
    assert not wrong, "\n".join(wrong)


def test_the_runtime_is_what_imports_them():
    users = {part_of(path) for path in FILES if any(module.partition(".")[0] in JIT for module, _ in imported(path))}
    assert "runtime" in users


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_fit_into_the_head(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_importing_the_interface_needs_no_compiler_in_graph_code():
    """Graph IR, ops, differentiation, passes and code generation can be imported and used where Numba cannot."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules.update(numba=None, llvmlite=None)\n"
        "import staticgrad.ops, staticgrad.ad.reverse, staticgrad.ad.batch, staticgrad.passes.pipeline, staticgrad.codegen.numba_printer\n"
        "import staticgrad.tracing.record\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


PUBLIC = [
    "trace", "grad", "value_and_grad", "vjp", "jvp", "linearize", "jacobian", "hessian", "hvp", "sparse_jacobian",
    "sparse_hessian", "vmap", "checkpoint",
    "stop_gradient", "custom_vjp", "custom_jvp", "numeric_grad", "check_grads", "cond", "switch", "while_loop", "fori_loop",
    "scan", "tensor", "Tensor", "Function", "no_grad", "enable_grad", "is_grad_enabled", "set_default_dtype", "autograd_grad",
    "eager", "optim", "Trainer", "minimize", "least_squares", "save", "load", "numpy", "special", "random", "nn", "debug",
    "njit_op", "StaticgradError", "TraceError",
]  # fmt: skip
"""Names of design.md."""


def test_public_names_resolve():
    package = importlib.import_module("staticgrad")
    for name in package.__all__:
        assert getattr(package, name, None) is not None, f"staticgrad.{name} is in __all__ and does not exist"


def test_names_of_the_design_that_exist_are_public():
    package = importlib.import_module("staticgrad")
    there = {name for name in PUBLIC if name in vars(package)}
    assert there <= set(package.__all__)


def test_public_functions_are_documented():
    package = importlib.import_module("staticgrad")
    for name in package.__all__:
        value = getattr(package, name)
        if callable(value) and getattr(value, "__module__", "").startswith("staticgrad"):
            assert value.__doc__, f"staticgrad.{name} has no docstring"
