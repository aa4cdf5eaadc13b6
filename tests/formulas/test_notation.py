"""The notation of every op: it says what the op computes, or there is none and a formula with the op is refused."""

import itertools

import mpmath
import numpy as np
import pytest
import sympy

import staticgrad.ops  # noqa: F401  (fills the registry)
from staticgrad.errors import UnsupportedError
from staticgrad.formulas.algebra import symbol
from staticgrad.formulas.elements import Elements
from staticgrad.formulas.notation import OPERANDS, expression_of
from staticgrad.formulas.to_sympy import to_sympy
from staticgrad.ir.aval import Aval
from staticgrad.ir.node import apply, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.elementwise import Elementwise
from tests.ops.samples import DOMAINS, distinct, samples_of

NOT_WRITTEN = {
    "bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift", "gcd", "lcm", "signbit", "nextafter",
    "random_bits", "bounded_index",
}  # fmt: skip
"""Ops on bits, which the real numbers do not have, and two of whole numbers alone."""

ELEMENTWISE = sorted(name for name, cls in REGISTRY.items() if issubclass(cls, Elementwise))


def instances(name):
    """Return the op with each of its parameters that the samples have."""
    return list(dict.fromkeys(sample.op for sample in samples_of(name)))


def operands_of(op, name):
    rng = np.random.default_rng(3)
    domains = DOMAINS.get(name, ())
    made = [distinct(rng, (7,), *(domains[k] if k < len(domains) else (-2.0, 2.0))) for k in range(op.arity)]
    if op.kinds == "b":
        made = [x > 0 for x in made]
    if name == "where":
        made[0] = made[0] > 0
    if name == "ldexp":
        made[1] = np.array([0, 1, -1, 3, -4, 2, 5])
    if name == "cast":
        made[0] = np.rint(np.abs(made[0]) * 8) / 8
    if name == "erfcx_integral":
        made[0] = np.abs(made[0])
    return made


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if name not in NOT_WRITTEN])
def test_the_notation_says_what_the_op_computes(name):
    for op in instances(name):
        arrays = operands_of(op, name)
        avals = [Aval(x.shape, x.dtype) for x in arrays]
        notation = op.formula(*avals)
        assert notation is not None, f"give {name} a notation, or list it in NOT_WRITTEN"
        expression = to_sympy(expression_of(notation, {name: symbol(name) for name in OPERANDS}))
        expected = op.numpy(*arrays)
        for k, wanted in enumerate(expected):
            at = {sympy.Symbol(letter): _exact(x[k]) for letter, x in zip(OPERANDS, arrays, strict=False)}
            found = expression.subs(at)
            if wanted.dtype == bool:
                assert bool(found) == bool(wanted), (op.signature(), at)
            else:
                found = float(mpmath.mpf(sympy.N(found, 30)))
                np.testing.assert_allclose(found, float(wanted), rtol=1e-12, atol=1e-13, err_msg=f"{op.signature()} {at}")


def _exact(x):
    return sympy.true if x.dtype == bool and x else sympy.false if x.dtype == bool else sympy.Float(float(x), 40)


@pytest.mark.parametrize("name", sorted(NOT_WRITTEN))
def test_ops_without_notation_are_refused(name):
    sample = next(s for s in samples_of(name) if s.operands[0].dtype != bool)
    inputs = [new_input(Aval(x.shape, x.dtype)) for x in sample.operands]
    value = apply(sample.op, *inputs)
    assert sample.op.formula(*(v.aval for v in inputs)) is None
    elements = Elements(dict(zip(inputs, OPERANDS, strict=False)), "the formula of f")
    with pytest.raises(UnsupportedError, match=rf"the formula of f: {name}\(.*\) has no notation"):
        elements(value, elements.index_of(value.shape))


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if "b" in REGISTRY[name].kinds and name != "cast"])
def test_the_notation_for_truth_values(name):
    op = REGISTRY[name]()
    rows = list(itertools.product((False, True), repeat=op.arity))
    expression = to_sympy(expression_of(op.formula(*(Aval((), np.dtype(bool)),) * op.arity), {name: symbol(name) for name in OPERANDS}))
    for row in rows:
        found = expression.subs({sympy.Symbol(letter): sympy.true if x else sympy.false for letter, x in zip(OPERANDS, row)})
        assert bool(found) == bool(op.numpy(*map(np.bool_, row))), (name, row)


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [("rint", [0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 7.0], None), ("trunc", [-1.5, -0.5, 0.0, 2.0], None), ("sign", [-2.0, 0.0, 3.0], None)],
)  # fmt: skip
def test_rounding_at_the_edges(op, x, expected):
    cls = REGISTRY[op]
    expression = to_sympy(expression_of(cls.notation, {"x": symbol("x")}))
    found = [float(expression.subs(sympy.Symbol("x"), sympy.Rational(v))) for v in x]
    np.testing.assert_array_equal(found, cls().numpy(np.array(x)))
