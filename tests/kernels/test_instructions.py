"""What a kernel is as a loop program: its instructions, their number, and that they compute what `OnFloats` computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import OPCODES, Assign, Block, Declare, Get, If, Let, Scalar, walk
from tests.kernels.accuracy import FORMATS, PAIR_CASES
from tests.kernels.special_cases import ALL_CASES

PROGRAMS = ALL_CASES | PAIR_CASES
LIMITS = {(name, dtype): limit for name, case in PROGRAMS.items() for dtype, limit in zip(FORMATS, case.instructions, strict=True)}
pytestmark = [
    pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__),
    pytest.mark.parametrize("name", PROGRAMS),
]
BRANCHES = {("sin", np.float64), ("cos", np.float64), ("tan", np.float64)}


def build(name: str, dtype: type, lanes: int = 1) -> tuple[Block, tuple[Scalar, ...], Scalar]:
    b = Builder()
    operands = tuple(b._new(np.dtype(dtype), lanes) for _ in range(2 if name in PAIR_CASES else 1))
    return b.root, operands, getattr(kernels, name)(b, *operands)


def replay(block: Block, known: dict, b: OnFloats) -> None:
    """Run a recorded program on NumPy values."""

    def value(scalar: Scalar):
        return known[scalar] if scalar.literal is None else scalar.literal

    for statement in block.statements:
        match statement:
            case Let(target, opcode, operands):
                method = getattr(b, f"{opcode}_" if opcode in ("and", "or", "not") else opcode)
                extra = {"cast": [target.dtype], "bitcast": [target.dtype], "splat": [target.lanes]}.get(opcode, [])
                known[target] = method(*map(value, operands), *extra)
                assert known[target].dtype == target.dtype, opcode
            case Declare(variable, first):
                known[variable] = b.variable(value(first))
            case Get(target, variable):
                known[target] = b.get(known[variable])
            case Assign(variable, new):
                b.set(known[variable], value(new))
            case If(condition, then, otherwise):
                with b.if_(value(condition)) as other:
                    replay(then, known, b)
                with b.otherwise(other):
                    replay(otherwise, known, b)
            case _:
                raise AssertionError(f"a kernel must not contain {statement}")


def sample(dtype: type) -> np.ndarray:
    integers = {4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    rng = np.random.default_rng(21)
    anything = rng.integers(0, np.iinfo(integers).max, 3000, dtype=integers, endpoint=True).view(dtype)
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1], dtype)
    return np.concatenate([anything, rng.uniform(-20, 20, 3000).astype(dtype), ends])


def test_instruction_count(name: str, dtype: type) -> None:
    root, _, _ = build(name, dtype)
    statements = list(walk(root))
    found = Counter(statement.opcode for statement in statements if isinstance(statement, Let))
    assert set(found) <= set(OPCODES)
    print(f"{name} {dtype.__name__}: {len(statements)} instructions ({', '.join(f'{n} {op}' for op, n in found.most_common())})")
    assert len(statements) <= LIMITS[name, dtype]


def test_only_circular_functions_branch(name: str, dtype: type) -> None:
    root, _, _ = build(name, dtype)
    others = {type(statement) for statement in root.statements} - {Let}
    assert others == ({Declare, Get, If} if (name, dtype) in BRANCHES else set())


def test_no_variable_shift_counts_and_no_float_to_integer_casts(name: str, dtype: type) -> None:
    """Both need guards on most processors; the reduction of huge arguments has the only shifts of that kind."""
    root, _, _ = build(name, dtype)
    for statement in root.statements:
        if isinstance(statement, Let) and statement.opcode in ("shl", "shr"):
            assert statement.operands[1].literal is not None
        if isinstance(statement, Let) and statement.opcode == "cast":
            assert statement.target.dtype.kind != "i" or statement.operands[0].dtype.kind != "f"


@pytest.mark.parametrize("lanes", [1, 16])
def test_program_computes_the_same_bits(name: str, dtype: type, lanes: int) -> None:
    root, operands, result = build(name, dtype, lanes)
    assert result.dtype == dtype
    assert {s.target.lanes for s in walk(root) if isinstance(s, Let)} == {lanes}
    x = sample(dtype)
    values = (x, np.random.default_rng(22).permutation(x))[: len(operands)]
    b = OnFloats()
    known = dict(zip(operands, values, strict=True))
    replay(root, known, b)
    np.testing.assert_array_equal(known[result], getattr(kernels, name)(OnFloats(), *values))
