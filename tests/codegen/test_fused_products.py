"""Products fused with sums: which, and that both printers and plain Python give the same bits."""

import numpy as np
import pytest

from staticgrad.codegen.fused_products import with_fused_products
from staticgrad.ir.loop_text import function_text
from staticgrad.ir.loop_verify import verify_unit
from staticgrad.ir.loops import Let, walk
from tests.codegen.llvm_units import run_text, writable
from tests.codegen.units import function, parameter, run, unit_of, whole

N = 40


def fused(make, dtype="f8"):
    """Return the unit of a function of x, y and z that stores what `make` gives, its products fused."""
    x, y, z, out = (parameter(name, dtype, N) for name in ("x", "y", "z", "out"))

    def body(b):
        with b.loop(N) as i:
            b.store(out, i, make(b, *(b.load(buffer, i) for buffer in (x, y, z))))

    unit = writable(unit_of("fused", function("f", [x, y, z, out], body)))
    verify_unit(unit)
    made = with_fused_products(unit)
    verify_unit(made, "fusing products")
    return made


def opcodes(unit):
    return [s.opcode for s in walk(unit.functions[0].body) if isinstance(s, Let)]


CASES = {
    "product first": (lambda b, x, y, z: b.add(b.mul(x, y), z), ["fma"], lambda x, y, z: (x, y, z)),
    "product second": (lambda b, x, y, z: b.add(z, b.mul(x, y)), ["fma"], lambda x, y, z: (x, y, z)),
    "less": (lambda b, x, y, z: b.sub(b.mul(x, y), z), ["neg", "fma"], lambda x, y, z: (x, y, -z)),
    "less a product": (lambda b, x, y, z: b.sub(z, b.mul(x, y)), ["neg", "fma"], lambda x, y, z: (-x, y, z)),
    "less a number": (lambda b, x, y, z: b.sub(b.mul(x, y), b.like(0.1, x)), ["fma"], lambda x, y, z: (x, y, -0.1 + 0 * z)),
    "less a multiple": (lambda b, x, y, z: b.sub(z, b.mul(b.like(0.1, x), y)), ["fma"], lambda x, y, z: (-0.1 + 0 * x, y, z)),
}


def exactly(x, y, z):
    """Return x * y + z rounded once: what extended precision gives for these few bits."""
    return (x.astype(np.longdouble) * y + z).astype(np.float64)


@pytest.mark.parametrize("name", CASES)
def test_one_rounding(name):
    make, expected, operands = CASES[name]
    unit = fused(make)
    assert opcodes(unit) == expected
    rng = np.random.default_rng(1)
    arrays = [np.round(rng.standard_normal(N) * 2**25) / 2**25 for _ in range(3)] + [np.zeros(N)]
    for runner in (run, run_text):
        found = runner(unit, arrays).compiled[3]
        np.testing.assert_allclose(found, exactly(*operands(*arrays[:3])), rtol=2e-16)
        assert not np.any(np.isnan(found))


def test_both_products():
    unit = fused(lambda b, x, y, z: b.add(b.mul(x, y), b.mul(y, z)))
    assert opcodes(unit) == ["mul", "fma"]
    assert "fma" in function_text(unit.functions[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda b, x, y, z: b.mul(b.add(b.mul(x, y), z), b.mul(x, y)),  # read twice
        lambda b, x, y, z: b.div(b.mul(x, y), z),
        lambda b, x, y, z: b.max(b.mul(x, y), z),
    ],
)
def test_products_that_stay(make):
    assert "fma" not in opcodes(fused(make))


def test_integers_wrap_as_they_did():
    unit = fused(lambda b, x, y, z: b.add(b.mul(x, y), z), "i8")
    assert opcodes(unit) == ["mul", "add"]


def test_sums_in_loops_branches_and_called_functions():
    x, out = parameter("x", "f4", N), parameter("out", "f4", 1)

    def inner(b):
        total = b.variable(b.load(out, 0), "total")
        with b.loop(N) as i:
            v = b.load(x, i)
            with b.if_(b.lt(b.like(0, v), v)):
                b.set(total, b.add(b.get(total), b.mul(v, v)))
        left = b.variable(b.literal(3, np.dtype("i8")), "left")
        with b.while_() as parts:
            with parts.test():
                parts.until(b.lt(b.literal(0, np.dtype("i8")), b.get(left)))
            with parts.body():
                b.set(left, b.sub(b.get(left), b.literal(1, np.dtype("i8"))))
                b.set(total, b.sub(b.get(total), b.mul(b.get(total), b.literal(0.1, np.dtype("f4")))))
        b.store(out, 0, b.get(total))

    called = function("inner", [x, out], inner)
    outer = function("outer", [x, out], lambda b: b.invoke(called, whole(x, out)))
    unit = unit_of("calls", outer)
    unit = writable(type(unit)(unit.name, unit.arguments, unit.forward, None, 0, 0, (called, outer)))
    made = with_fused_products(unit)
    verify_unit(made, "fusing products")
    assert opcodes(made).count("fma") == 2
    arrays = [np.random.default_rng(2).standard_normal(N).astype(np.float32), np.ones(1, np.float32)]
    first, second = run(made, arrays).compiled[1], run_text(made, arrays).compiled[1]
    assert first.tobytes() == second.tobytes()
    np.testing.assert_allclose(first, run(unit, arrays).compiled[1], rtol=1e-5)
