"""Derivatives as formulas: the text, read by SymPy, is what SymPy derives itself."""

import mpmath
import numpy as np
import pytest
import sympy
from sympy.parsing.sympy_parser import parse_expr

import staticgrad as sg

x, y = sympy.symbols("x y")


def sigmoid(v):
    return 1 / (1 + sympy.exp(-v))


ONE_VARIABLE = {
    "polynomial": (lambda x: 3 * x**4 - 2 * x**2 + 5 * x - 7, 3 * x**4 - 2 * x**2 + 5 * x - 7),
    "quotient": (lambda x: (x**2 - 1) / (x**2 + 1), (x**2 - 1) / (x**2 + 1)),
    "reciprocal": (lambda x: 1 / (2 * x + 3), 1 / (2 * x + 3)),
    "negative power": (lambda x: x**-3, x**-3),
    "real power": (lambda x: x**2.5, x ** sympy.Rational(5, 2)),
    "power of itself": (lambda x: x**x, x**x),
    "exponential of another base": (lambda x: 2.0**x, 2**x),
    "sqrt": (lambda x: np.sqrt(x**2 + 1), sympy.sqrt(x**2 + 1)),
    "cbrt": (lambda x: np.cbrt(1 + x**2), sympy.cbrt(1 + x**2)),
    "exp": (lambda x: np.exp(-x * x / 2), sympy.exp(-x * x / 2)),
    "exp2": (lambda x: np.exp2(x), 2**x),
    "log": (lambda x: x * np.log(x), x * sympy.log(x)),
    "log2": (lambda x: np.log2(x), sympy.log(x, 2)),
    "log10": (lambda x: np.log10(x) ** 2, sympy.log(x, 10) ** 2),
    "log1p": (lambda x: np.log1p(x**2), sympy.log(1 + x**2)),
    "expm1": (lambda x: np.expm1(3 * x) / x, (sympy.exp(3 * x) - 1) / x),
    "sin of square": (lambda x: np.sin(x**2), sympy.sin(x**2)),
    "product of three": (lambda x: np.sin(x) * np.cos(x) * np.tan(x / 2), sympy.sin(x) * sympy.cos(x) * sympy.tan(x / 2)),
    "arcsin": (lambda x: np.arcsin(x / 3), sympy.asin(x / 3)),
    "arccos": (lambda x: np.arccos(x / 3), sympy.acos(x / 3)),
    "arctan": (lambda x: np.arctan(1 / x), sympy.atan(1 / x)),
    "sinh and cosh": (lambda x: np.sinh(x) * np.cosh(2 * x), sympy.sinh(x) * sympy.cosh(2 * x)),
    "tanh": (lambda x: np.tanh(3 * x + 1), sympy.tanh(3 * x + 1)),
    "arcsinh": (lambda x: np.arcsinh(x**2), sympy.asinh(x**2)),
    "arccosh": (lambda x: np.arccosh(x + 2), sympy.acosh(x + 2)),
    "arctanh": (lambda x: np.arctanh(x / 3), sympy.atanh(x / 3)),
    "sigmoid": (lambda x: sg.nn.sigmoid(2 * x - 1), sigmoid(2 * x - 1)),
    "logistic by hand": (lambda x: 1 / (1 + np.exp(-x)), sigmoid(x)),
    "log of sigmoid": (lambda x: np.log(sg.nn.sigmoid(x) ** 2), sympy.log(sigmoid(x) ** 2)),
    "softplus": (lambda x: sg.nn.softplus(x) ** 2, sympy.log(1 + sympy.exp(x)) ** 2),
    "erf": (lambda x: sg.special.erf(x * x), sympy.erf(x * x)),
    "erfc": (lambda x: x * sg.special.erfc(x), x * sympy.erfc(x)),
    "erfcx": (lambda x: sg.special.erfcx(x), sympy.exp(x**2) * sympy.erfc(x)),
    "normal distribution": (lambda x: sg.special.ndtr(x), (1 + sympy.erf(x / sympy.sqrt(2))) / 2),
    "gamma": (lambda x: sg.special.gamma(x), sympy.gamma(x)),
    "digamma": (lambda x: sg.special.digamma(x), sympy.digamma(x)),
    "nested": (lambda x: np.exp(np.sin(np.sqrt(x) + np.log1p(x))), sympy.exp(sympy.sin(sympy.sqrt(x) + sympy.log(1 + x)))),
    "absolute value": (lambda x: np.abs(x - 1), sympy.Abs(sympy.Symbol("x", real=True) - 1)),
    "choice": (lambda x: np.where(x > 1, x**2, np.sin(x)), sympy.Piecewise((x**2, x > 1), (sympy.sin(x), True))),
    "constant": (lambda x: 3.0, sympy.Integer(3)),
    "constants of mathematics": (lambda x: np.pi * x**2 + np.log(2) * x, sympy.pi * x**2 + sympy.log(2) * x),
}  # fmt: skip
"""Functions in NumPy, and the same in SymPy."""

TWO_VARIABLES = {
    "product": (lambda x, y: x**2 * y**3, x**2 * y**3),
    "quotient": (lambda x, y: (x - y) / (x + y), (x - y) / (x + y)),
    "power": (lambda x, y: x**y, x**y),
    "waves": (lambda x, y: np.sin(x * y) * np.exp(-x - y), sympy.sin(x * y) * sympy.exp(-x - y)),
    "length": (lambda x, y: np.sqrt(x**2 + y**2), sympy.sqrt(x**2 + y**2)),
    "hypot": (lambda x, y: np.hypot(x, y), sympy.sqrt(x**2 + y**2)),
    "angle": (lambda x, y: np.arctan2(y, x), sympy.atan2(y, x)),
    "logaddexp": (lambda x, y: np.logaddexp(x, y), sympy.log(sympy.exp(x) + sympy.exp(y))),
    "Rosenbrock": (lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, (1 - x) ** 2 + 100 * (y - x**2) ** 2),
    "cross-entropy": (
        lambda x, y: -(y * np.log(sg.nn.sigmoid(x)) + (1 - y) * np.log(1 - sg.nn.sigmoid(x))),
        -(y * sympy.log(sigmoid(x)) + (1 - y) * sympy.log(1 - sigmoid(x))),
    ),
}  # fmt: skip

POINTS = [("0.3717", "1.2361"), ("0.8342", "0.4519"), ("1.7213", "2.1931"), ("2.6117", "0.7717")]
"""Where formulas are compared, to 30 digits."""


def assert_equal_everywhere(found, expected):
    for a, b in POINTS:
        at = {"x": sympy.Float(a, 50), "y": sympy.Float(b, 50)}
        values = []
        for formula in (found, expected):
            values.append(sympy.N(formula.subs({s: at[s.name] for s in formula.free_symbols}).doit(), 40))
        assert abs(values[0] - values[1]) <= sympy.Float("1e-30", 40) * (1 + abs(values[1])), (found, expected, a, b, values)


@pytest.mark.parametrize("name", ONE_VARIABLE)
def test_the_printed_derivative_is_that_of_sympy(name):
    function, expression = ONE_VARIABLE[name]
    found = sg.derivative_formula(function)
    expected = sympy.diff(expression, *expression.free_symbols) if expression.free_symbols else sympy.Integer(0)
    assert not found.bindings
    assert_equal_everywhere(parse_expr(str(found)), expected)
    assert_equal_everywhere(found.to_sympy(), expected)


@pytest.mark.parametrize("name", TWO_VARIABLES)
def test_partial_derivatives_are_those_of_sympy(name):
    function, expression = TWO_VARIABLES[name]
    for found, symbol in zip(sg.derivative_formula(function, argnums=(0, 1)), (x, y), strict=True):
        expected = sympy.diff(expression, symbol)
        if not found.bindings:
            assert_equal_everywhere(parse_expr(str(found)), expected)
        assert_equal_everywhere(found.to_sympy(), expected)


@pytest.mark.parametrize("name", ONE_VARIABLE | TWO_VARIABLES)
def test_the_formula_of_the_function_itself(name):
    function, expression = (ONE_VARIABLE | TWO_VARIABLES)[name]
    assert_equal_everywhere(parse_expr(str(sg.formula(function))), expression)


@pytest.mark.parametrize("name", ["sin of square", "sigmoid", "erf", "nested", "expm1"])
def test_second_derivatives(name):
    function, expression = ONE_VARIABLE[name]
    assert_equal_everywhere(sg.derivative_formula(sg.grad(function)).to_sympy(), sympy.diff(expression, x, 2))


@pytest.mark.parametrize("name", ["polynomial", "sigmoid", "erf", "choice", "sin of square"])
def test_the_formula_says_what_grad_computes(name):
    function, _ = ONE_VARIABLE[name]
    evaluated = sympy.lambdify(x, sg.derivative_formula(function).to_sympy(), "mpmath")
    for point in (0.3, 1.9):
        np.testing.assert_allclose(sg.grad(function)(point), float(evaluated(mpmath.mpf(point))), rtol=1e-14)


# ---- how it reads ------------------------------------------------------------------------------------------------------------

READS = [
    (lambda x: np.sin(x**2), "2*x*cos(x**2)"),
    (lambda x: x**3 - 2 * x**2 + 5 * x - 1, "3*x**2 - 4*x + 5"),
    (lambda x: np.exp(-(x**2) / 2), "-x*exp(-x**2/2)"),
    (lambda x: np.log(x) * x, "log(x) + 1"),
    (lambda x: np.sqrt(x), "1/(2*sqrt(x))"),
    (lambda x: np.sqrt(x**2 + 1), "x/sqrt(x**2 + 1)"),
    (lambda x: x / (x**2 + 1), "1/(x**2 + 1) - 2*x**2/(x**2 + 1)**2"),
    (lambda x: np.tanh(x), "1 - tanh(x)**2"),
    (lambda x: np.arcsin(x), "1/sqrt(1 - x**2)"),
    (lambda x: x**2.5, "5*x**(3/2)/2"),
    (lambda x: 2.0**x, "2**x*log(2)"),
    (lambda x: 0.37 * x**2 + np.pi * x, "pi + 0.74*x"),
    (lambda x: np.abs(x), "sign(x)"),
    (lambda x: np.maximum(x, 0), "Piecewise((1/2, Eq(x, 0)), (1, x > 0), (0, True))"),
    (lambda x: np.where(x > 0, x**2, -x), "Piecewise((2*x, x > 0), (-1, True))"),
    (lambda x: np.exp(np.sin(x**2)), "2*x*cos(x**2)*exp(sin(x**2))"),
    (lambda x: sg.special.erf(x), "2*exp(-x**2)/sqrt(pi)"),
    (lambda x: -(1 - x) * (x - 3), "2*x - 4"),
    (lambda x: 1e-3 * x**2, "0.002*x"),
    (lambda x: x * 1e300 * 1e10, "oo"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "text"), READS, ids=[text for _, text in READS])
def test_how_it_reads(function, text):
    assert str(sg.derivative_formula(function)) == text


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x, y: (x - y) * (x + y), "x**2 - y**2"),
        (lambda x, y: x - (y - 1), "x - y + 1"),
        (lambda x, y: -x - y, "-x - y"),
        (lambda x, y: 1 / (x / y), "y/x"),
        (lambda x, y: x / (2 * y), "x/(2*y)"),
        (lambda x, y: (x + y) / 2, "(x + y)/2"),
        (lambda x, y: (x * y) ** 2, "x**2*y**2"),
        (lambda x, y: (-x) ** 3, "-x**3"),
        (lambda x, y: (x**y) ** 0.5, "sqrt(x**y)"),
        (lambda x, y: (x**2) ** 0.5, "sqrt(x**2)"),
        (lambda x, y: x ** (-y), "x**(-y)"),
        (lambda x, y: (x + 1) ** (y + 1), "(x + 1)**(y + 1)"),
        (lambda x, y: np.sqrt(2) * x * np.sqrt(2) * y, "2*x*y"),
        (lambda x, y: np.where((x > 0) & ~(y > 0), x, y), "Piecewise((x, (x > 0) & ~(y > 0)), (y, True))"),
        (lambda x, y: np.where(x > 0, np.where(x > 0, x, y), 2), "Piecewise((x, x > 0), (2, True))"),
        (lambda x, y: x - x, "0"),
        (lambda x, y: np.isnan(x) * y, "0"),
        (lambda x, y: np.arctan2(y, x) * 0.1, "atan2(y, x)/10"),
    ],
)  # fmt: skip
def test_how_functions_read(function, text):
    assert str(sg.formula(function)) == text


def test_single_precision_reads_like_double():
    x = np.float32(1.0)
    assert str(sg.formula(lambda x: np.float32(0.1) * x + np.float32(0.37), x)) == "x/10 + 0.37"


def test_names_come_from_the_parameters():
    def loss(params, target):
        return (params["w"] * params["scale"] - target) ** 2

    found = sg.derivative_formula(loss, {"w": 1.0, "scale": 2.0}, 3.0)
    assert {name: str(each) for name, each in found.items()} == {
        "w": "2*scale*(scale*w - target)",
        "scale": "2*w*(scale*w - target)",
    }


def test_names_that_are_functions_and_constants():
    """An argument keeps its name unless the formula holds a function or a constant of that name."""
    assert str(sg.formula(lambda gamma: gamma + 1)) == "gamma + 1"
    assert str(sg.formula(lambda gamma: sg.special.gamma(gamma))) == "gamma(gamma_)"
    assert str(sg.formula(lambda pi: np.pi * pi)) == "pi*pi_"
    assert sg.formula(lambda pi: np.pi * pi).to_sympy() == sympy.pi * sympy.Symbol("pi_")


# ---- long formulas ---------------------------------------------------------------------------------------------------------------


def steps(count):
    def function(x):
        for _ in range(count):
            x = np.sin(x) * x + 1
        return x

    return function


def test_shared_parts_of_long_formulas_get_names():
    found = sg.formula(steps(5))
    assert str(found) == (
        "sin(t4)*t4 + 1 where t1 = x*sin(x) + 1, t2 = sin(t1)*t1 + 1, t3 = sin(t2)*t2 + 1, t4 = sin(t3)*t3 + 1"
    )  # fmt: skip
    names = {}
    for name, text in found.bindings.items():
        names[name] = parse_expr(text).subs(names)
    expected = steps(5)(np.float64(0.7))
    np.testing.assert_allclose(float(parse_expr(found.text).subs(names).subs(x, 0.7)), expected, rtol=1e-14)
    np.testing.assert_allclose(float(sg.derivative_formula(steps(5)).to_sympy().subs(x, 0.7)), sg.grad(steps(5))(0.7), rtol=1e-12)


def test_a_name_for_a_part_is_no_argument():
    found = sg.formula(lambda t1: steps(5)(t1))
    assert list(found.bindings) == ["t2", "t3", "t4", "t5"]


def test_depth_is_no_limit():
    """Written out, this would be some 10**150 characters long; it is 3000 operations deep."""
    found = sg.derivative_formula(steps(500))
    assert 1000 < len(found.bindings) < 4000
    assert len(str(found)) < 200_000


def deep(x):
    for _ in range(1500):
        x = np.sin(x)
    return x


def test_a_deep_chain_without_sharing():
    assert str(sg.formula(deep)) == "sin(" * 1500 + "x" + ")" * 1500


# ---- notebooks and SymPy ---------------------------------------------------------------------------------------------------------


def test_notebooks_show_latex():
    assert sg.derivative_formula(lambda x: np.sin(x**2))._repr_latex_() == r"$\displaystyle 2 x \cos{\left(x^{2} \right)}$"


def test_without_sympy(monkeypatch):
    found = sg.derivative_formula(lambda x: np.sin(x**2))
    monkeypatch.setitem(__import__("sys").modules, "sympy", None)
    assert str(found) == "2*x*cos(x**2)"
    assert found._repr_latex_() is None
    with pytest.raises(sg.StaticgradError, match=r"staticgrad\[symbolic\]") as caught:
        found.to_sympy()
    assert isinstance(caught.value, ImportError)
