"""Random functions: the formula of the derivative, evaluated by SymPy with many digits, is what `sg.grad` computes, and so is its text."""

import mpmath
import numpy as np
import sympy
from hypothesis import given
from hypothesis import strategies as st
from sympy.parsing.sympy_parser import parse_expr

import staticgrad as sg

ONE = [
    np.sin,
    np.tanh,
    np.arctan,
    lambda v: np.sqrt(v * v + 1),
    lambda v: np.exp(-v * v),
    np.abs,
    lambda v: v**3,
    lambda v: -v,
    sg.nn.sigmoid,
]
TWO = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (b * b + 2),
    lambda a, b: (a - b) * (a + b),
    np.maximum,
    lambda a, b: np.where(a > b, a * b, b),
]


@st.composite
def programs(draw):
    """Return a list of steps: a function, and which earlier values it takes."""
    steps = []
    for k in range(draw(st.integers(1, 9))):
        pick = st.integers(max(0, k - 2), k + 1)
        table = draw(st.sampled_from((ONE, TWO)))
        steps.append((draw(st.sampled_from(table)), tuple(draw(pick) for _ in range(1 if table is ONE else 2))))
    return steps


def function_of(steps):
    def function(x, y):
        values = [x, y]
        for f, places in steps:
            values.append(f(*(values[k] for k in places)))
        return values[-1] * 0.5 + x

    return function


@given(programs(), st.floats(-2, 2).filter(lambda v: abs(v) > 0.01), st.floats(-2, 2).filter(lambda v: abs(v) > 0.01))
def test_random_derivatives(steps, a, b):
    function = function_of(steps)
    symbols = sympy.symbols("x y")
    gradients = sg.grad(sg.trace(function, backend="interp"), argnums=(0, 1))(a, b)
    for found, expected in zip(sg.derivative_formula(function, argnums=(0, 1)), gradients, strict=True):
        with mpmath.workdps(40):
            value = sympy.lambdify(symbols, found.to_sympy(), "mpmath")(mpmath.mpf(a), mpmath.mpf(b))
        np.testing.assert_allclose(float(value), expected, rtol=1e-9, atol=1e-9)
        named = {}
        for name, text in [*found.bindings.items(), ("whole", found.text)]:
            named[name] = parse_expr(text).subs(named)
        with mpmath.workdps(40):
            read = sympy.lambdify(symbols, named["whole"], "mpmath")(mpmath.mpf(a), mpmath.mpf(b))
        np.testing.assert_allclose(float(read), float(value), rtol=1e-12, atol=1e-12)
