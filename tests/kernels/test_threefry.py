"""The random bits: known answers of Threefry-2x32, as a function of NumPy arrays and as a loop program."""

from __future__ import annotations

import numpy as np
import pytest

from staticgrad import kernels
from staticgrad.ir.builder import Builder
from staticgrad.ir.floats import OnFloats
from staticgrad.ir.loops import Let, walk
from tests.kernels.test_instructions import replay

# Key, counter and result, in hexadecimal, of the reference implementation (Random123, 20 rounds).
KNOWN = [
    ("00000000 00000000", "00000000 00000000", "6b200159 99ba4efe"),
    ("ffffffff ffffffff", "ffffffff ffffffff", "1cb996fc bb002be7"),
    ("13198a2e 03707344", "243f6a88 85a308d3", "c4923a9c 483df7a0"),
]
LONGEST = 120


def words(text: str) -> tuple[np.uint32, np.uint32]:
    first, second = (np.uint32(int(word, 16)) for word in text.split())
    return first, second


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_known_answers(key: str, counter: str, expected: str) -> None:
    assert kernels.threefry(OnFloats(), words(key), words(counter)) == words(expected)


@pytest.mark.parametrize("lanes", [1, 16])
def test_program(lanes: int) -> None:
    b = Builder()
    operands = [b._new(np.dtype(np.uint32), lanes) for _ in range(4)]
    results = kernels.threefry(b, (operands[0], operands[1]), (operands[2], operands[3]))
    statements = list(walk(b.root))
    assert {type(statement) for statement in statements} == {Let}
    assert {statement.opcode for statement in statements} - {"splat"} == {"add", "xor", "or", "shl", "shr"}
    assert sum(statement.opcode != "splat" for statement in statements) <= LONGEST
    arrays = list(np.random.default_rng(3).integers(0, 2**32, (4, 1000), dtype=np.uint32))
    known = dict(zip(operands, arrays, strict=True))
    replay(b.root, known, OnFloats())
    expected = kernels.threefry(OnFloats(), (arrays[0], arrays[1]), (arrays[2], arrays[3]))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(known[result], wanted)


def test_each_bit_of_key_and_counter_changes_half_of_the_bits() -> None:
    rng = np.random.default_rng(4)
    operands = rng.integers(0, 2**32, (4, 500), dtype=np.uint32)
    before = kernels.threefry(OnFloats(), (operands[0], operands[1]), (operands[2], operands[3]))
    for operand in range(4):
        for bit in (0, 13, 31):
            changed = operands.copy()
            changed[operand] ^= np.uint32(1 << bit)
            after = kernels.threefry(OnFloats(), (changed[0], changed[1]), (changed[2], changed[3]))
            for x, y in zip(before, after, strict=True):
                assert abs(np.unpackbits((x ^ y).view(np.uint8)).mean() - 0.5) < 0.02
