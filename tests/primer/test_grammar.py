"""The language of expressions: what it means, that printing and reading are inverse, and what its errors show."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import staticgrad as sg
from staticgrad.errors import ExpressionError, StaticgradError
from staticgrad.primer.grammar import DEEPEST, FUNCTIONS, Binary, Call, Definition, Name, Negative, Number, evaluate, names_in, parse

VALUES = {"xa": 3.0, "xb": -2.0, "ab": 0.5, "k_1": 7.0}

MEANINGS = {
    "xa": 3.0,
    "2": 2.0,
    "2.": 2.0,
    ".5": 0.5,
    "1.5e-3": 0.0015,
    "2E+2": 200.0,
    "1e2*xa": 300.0,
    "-xa^2": -9.0,
    "(-xa)^2": 9.0,
    "2^3^2": 512.0,
    "(2^3)^2": 64.0,
    "2^-1": 0.5,
    "-2^-xa": -0.125,
    "2^-xa^2": 2.0**-9,
    "xa-xb-ab": 4.5,
    "xa-(xb-ab)": 5.5,
    "8/4/2": 1.0,
    "8/(4/2)": 4.0,
    "2+3*4": 14.0,
    "(2+3)*4": 20.0,
    "2*3^2": 18.0,
    "-2*3": -6.0,
    "2*-3": -6.0,
    "2--3": 5.0,
    "--xa": 3.0,
    "6/2*3": 9.0,
    "k_1*xa": 21.0,
    "exp(log(xa))^2": 9.0,
    "sqrt(xa^2 + 16)": 5.0,
    "abs(xb)": 2.0,
    "-sin(0)": 0.0,
    "cos(0) + tan(0)+tanh(0)": 1.0,
    " ( xa\t) ": 3.0,
}


@pytest.mark.parametrize("text", MEANINGS)
def test_what_an_expression_means(text):
    assert evaluate(parse(f"xy = {text}").tree, VALUES) == pytest.approx(MEANINGS[text], rel=1e-15)


def test_a_definition():
    definition = parse(" xy=ab*xx + ac*xa^2")
    assert definition.target == Name("xy")
    square = Binary("^", Name("xa"), Number(2.0))
    assert definition.tree == Binary("+", Binary("*", Name("ab"), Name("xx")), Binary("*", Name("ac"), square))
    assert [(each.name, each.position) for each in names_in(definition.tree)] == [("ab", 4), ("xx", 7), ("ac", 12), ("xa", 15)]
    assert str(definition) == "xy = ab*xx + ac*xa^2"


NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,4}", fullmatch=True).filter(lambda name: name not in FUNCTIONS).map(Name)
NUMBERS = st.floats(0.0, allow_nan=False, allow_infinity=False).map(abs).map(Number)


def trees(leaves):
    def larger(inner):
        return st.one_of(
            st.builds(Negative, inner),
            st.builds(Binary, st.sampled_from("+-*/^"), inner, inner),
            st.builds(Call, st.sampled_from(sorted(FUNCTIONS)), inner),
        )

    return st.recursive(leaves, larger, max_leaves=30)


@given(trees(NAMES | NUMBERS))
def test_reading_what_was_printed(tree):
    definition = Definition(Name("xy"), tree)
    assert parse(str(definition)) == definition


@given(trees(NAMES | NUMBERS), st.sampled_from(["", " ", "  "]))
def test_spaces_mean_nothing(tree, space):
    tokens = re.findall(r"[\d.]+(?:e[+-]?\d+)?|\w+|\S", str(tree))
    assert parse(f"{space}xy{space}={space}" + space.join(tokens)).tree == tree


IN_NUMPY = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "^": "power"}


def in_python(tree):
    """Return the tree as Python source that calls NumPy's functions."""
    match tree:
        case Number(value):
            return repr(value)
        case Name(name):
            return name
        case Negative(operand):
            return f"np.negative({in_python(operand)})"
        case Call(function, argument):
            return f"np.{function}({in_python(argument)})"
        case Binary(operator, left, right):
            return f"np.{IN_NUMPY[operator]}({in_python(left)}, {in_python(right)})"


@given(trees(st.sampled_from(["xa", "xb", "ab"]).map(Name) | st.floats(0, 5).map(Number)))
def test_values_are_those_of_numpy(tree):
    values = {"xa": np.linspace(0.1, 2.0, 7), "xb": np.linspace(-1.0, 1.0, 7), "ab": 0.75}
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(evaluate(parse(f"xy = {tree}").tree, values), eval(in_python(tree), {"np": np, **values}))


COMPILED = [
    "-xa^2 + ab*xb",
    "exp(-xa)/(1 + xb^2)",
    "sqrt(abs(xb)) - tanh(ab*xa)^3",
    "xa^ab*log(2*xa)",
    "cos(xa)*sin(xb) + tan(xa/4)",
    "2^-xa",
]


@pytest.mark.parametrize("text", COMPILED)
def test_compiled_values_are_those_of_numpy(text):
    tree = parse(f"xy = {text}").tree
    values = {"xa": np.linspace(0.1, 2.0, 7), "xb": np.linspace(-1.0, 1.0, 7), "ab": np.float64(0.75)}
    compiled = sg.trace(lambda values: evaluate(tree, values))
    np.testing.assert_allclose(compiled(values), evaluate(tree, values), rtol=1e-14, atol=1e-300)


def test_numbers_among_themselves_overflow_quietly():
    graph = sg.ExpressionGraph(["xy = xa/9^9^9"])
    graph.parse_expressions()
    assert graph.function({"xa": 1.0}, {})["xy"] == 0.0


MALFORMED = {
    "": (0, "an empty expression"),
    "   ": (0, "an empty expression"),
    "xy": (2, "expected = after 'xy', where it ends"),
    "xy ab": (3, "expected = after 'xy', where 'ab' stands"),
    "xy = ": (4, "expected a number, a name or \"(\" after '=', not the end"),
    "xy = ab*": (8, "after '*', not the end"),
    "xy = ab*/xa": (8, "after '*', not '/'"),
    "xy = ab**2": (8, "a power is written with ^"),
    "xy = xa^": (8, "after '^', not the end"),
    "xy = ab xx": (8, "for a product write ab*xx"),
    "xy = 2xa": (6, "for a product write 2*xa"),
    "xy = 2(xa)": (6, "expected an operator between '2' and '('"),
    "xy = foo(xa)": (5, "'foo' is not a function (abs, cos, exp"),
    "xy = xa(2)": (5, "for a product write xa*(...)"),
    "xy = (xa": (5, "never closed"),
    "xy = sin(xa + (2*xb)": (8, "never closed"),
    "xy = xa)": (7, "never opened"),
    "xy = sin xa": (9, "expected \"(\" after the function 'sin'"),
    "xy = sin": (8, "expected \"(\" after the function 'sin', not the end"),
    "xy = sin(xa xb)": (12, "for a product write xa*xb"),
    "xy = ()": (6, "not ')'"),
    "xy = xa == 2": (8, "a second ="),
    "xy = xa = 2": (8, "a second ="),
    "ab = xa": (0, "'ab' is a trained constant"),
    " 3 = xa": (1, "not with '3'"),
    "= xa": (0, "not with '='"),
    "xy = xa $ 2": (8, "'$' has no meaning here"),
    "xy = xa.real": (7, "'.' has no meaning here"),
    "xy = ab*x\u00e9": (9, "has no meaning here"),
    "xy = +xa": (5, "not '+'"),
    "xy = 1e999*xa": (5, "too large"),
    "xy\t=\txa @ 2": (8, "'@' has no meaning here"),
    "xy = __import__('os').system('true')": (5, "is not a function"),
    "xy = " + "-" * 500 + "xa": (5 + DEEPEST, "more than 100 levels"),
    "xy = " + "(" * 500 + "xa" + ")" * 500: (5 + DEEPEST, "more than 100 levels"),
    "xy = " + "^".join(["xa"] * 500): (5 + 3 * DEEPEST, "more than 100 levels"),
    "xy = " + "+".join(["xa"] * 500): (4 + 3 * DEEPEST, "more than 100 levels"),
}  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40])
def test_errors_show_the_place(text):
    position, message = MALFORMED[text]
    with pytest.raises(ExpressionError, match=re.escape(message)) as caught:
        parse(text)
    assert isinstance(caught.value, StaticgradError)
    assert isinstance(caught.value, SyntaxError)
    assert isinstance(caught.value, ValueError)
    first, shown, caret, where, _ = str(caught.value).splitlines()
    assert message in first
    assert shown == "    " + text.replace("\t", " ")
    assert caret == " " * (4 + position) + "^"
    assert "test_grammar.py" in where


def test_as_deep_as_allowed():
    assert evaluate(parse("xy = " + "(" * (DEEPEST - 1) + "xa" + ")" * (DEEPEST - 1)).tree, VALUES) == 3.0
    assert evaluate(parse("xy = " + "+".join(["xa"] * DEEPEST)).tree, VALUES) == 3.0 * DEEPEST
