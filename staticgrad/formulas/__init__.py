"""Symbolic derivatives: functions and their derivatives as formulas that people read and SymPy parses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from staticgrad.ad.forward import tangents as push_forward
from staticgrad.api import checked_argnums, grad
from staticgrad.calls.traced import Traced, traced
from staticgrad.errors import ArgumentError, DependencyError, DTypeError, ShapeError
from staticgrad.formulas.algebra import CONSTANTS, Expression, walk
from staticgrad.formulas.elements import Elements
from staticgrad.formulas.text import names_of, shared_parts, texts
from staticgrad.ir.aval import is_float
from staticgrad.ir.graph import Graph, topological
from staticgrad.ir.node import Value, full
from staticgrad.ir.source import at_user_line
from staticgrad.ops.control import inline_calls
from staticgrad.ops.elementwise import Elementwise
from staticgrad.passes.pipeline import simplify
from staticgrad.tracing.pytree import unflatten
from staticgrad.transforms.base import selected

__all__ = ["Formula", "derivative_formula", "formula"]

LONGEST = 60
"""A formula of more nodes than this, written out, is shown with names for the parts that it holds several times."""

SMALLEST = 4
"""Parts of fewer nodes get no name."""


@dataclass(frozen=True, eq=False)
class Formula:
    """One element of an array, or a number, as a formula of the arguments of a function. Read over the real numbers.

    `str()` gives one line. It is in SymPy's language unless parts of it have names of their own (`bindings`).

    Attributes
    ----------
    text
        The formula.
    bindings
        Names that stand in the text for parts that occur several times, and their texts, each using earlier ones. A name with indices
        stands for a part that depends on those of the sums around it.
    indices
        The letters that stand for the place of the element, one an axis of the result (0 for one of length 1); empty where no array is
        indexed.
    """

    text: str
    bindings: dict[str, str]
    indices: tuple[str, ...]
    _expression: Expression = field(repr=False)

    def __str__(self) -> str:
        where = ", ".join(f"{name} = {text}" for name, text in self.bindings.items())
        return f"{self.text} where {where}" if where else self.text

    def __repr__(self) -> str:
        return f"<formula {self}>"

    def to_sympy(self) -> Any:
        """Return the formula as an object of SymPy: symbols for the numbers, `IndexedBase` for indexed arrays.

        Raises
        ------
        DependencyError
            Where SymPy is missing.

        Examples
        --------
        >>> import numpy as np, staticgrad as sg
        >>> sg.formula(lambda x: np.sqrt(x) / x).to_sympy()
        1/sqrt(x)
        """
        try:
            import sympy  # noqa: F401
        except ImportError:
            raise DependencyError(at_user_line("a formula as an object of SymPy needs it: pip install 'staticgrad[symbolic]'")) from None
        from staticgrad.formulas.to_sympy import to_sympy

        return to_sympy(self._expression)

    def _repr_latex_(self) -> str | None:
        """Return what a notebook shows; without SymPy it shows the text."""
        try:
            import sympy
        except ImportError:
            return None
        return f"$\\displaystyle {sympy.latex(self.to_sympy())}$"


def formula(f: Callable[..., Any], *args: Any) -> Any:
    """Return what `f` computes, as a formula.

    Parameters
    ----------
    f
        A function written with NumPy: elementwise functions, sums, products and matrix products.
    *args
        Arguments like those it will get: their shapes and dtypes count. Without any, each parameter stands for a float64 number.

    Returns
    -------
    Formula
        The result, or each leaf of it in its structure. For an array it is that of one element: `x*y` is element by element; where
        arrays are read at different places, indices say which, and `Formula.indices` are those of the result.

    Raises
    ------
    UnsupportedError
        When the function does something that has no notation; the message names it and the line.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> print(sg.formula(lambda x, y: np.exp(-x * x) * np.log1p(y)))
    exp(-x**2)*log(y + 1)
    >>> print(sg.formula(lambda a, x: a @ x, np.ones((2, 3)), np.ones(3)))
    Sum(a[i, j]*x[j], (j, 0, 2))
    """
    function = traced(f)
    program = function.program(*(args or _numbers(function)))
    outputs = program.graph.outputs[: program.results]
    found = _formulas(program.graph, outputs, f"the formula of {program.graph.name}")
    return unflatten(program.out_tree, found)


def derivative_formula(f: Callable[..., Any], *args: Any, argnums: int | tuple[int, ...] = 0) -> Any:
    """Return the derivative of `f` with respect to one of its arguments, as a formula.

    The graph of the derivative, the same that `grad` compiles, is simplified and written down.

    Parameters
    ----------
    f
        A function written with NumPy that returns one number, or one array: of an array each element must depend on the same
        element of the argument alone (or the argument is a number), and the formula is that of one element.
    *args
        Arguments like those it will get: their shapes and dtypes count. Without any, each parameter stands for a float64 number.
    argnums
        Which positional arguments to differentiate by: a number, or a tuple for a tuple of formulas.

    Returns
    -------
    Formula
        The derivative; for a container of arrays a formula for each leaf, in its structure.

    Raises
    ------
    UnsupportedError
        When the derivative contains something that has no notation; the message names it and the line.
    ShapeError
        When the derivative of an array by an array is a whole Jacobian.
    DTypeError
        When an argument or the result is not of floats.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> print(sg.derivative_formula(lambda x: np.sin(x**2)))
    2*x*cos(x**2)
    >>> print(sg.derivative_formula(lambda x, y: np.sum(x * y**2), np.ones(3), np.ones(3), argnums=1))
    2*x*y
    >>> line = lambda w, x, y: np.mean((w * x - y) ** 2)
    >>> print(sg.derivative_formula(line, 1.0, np.ones(5), np.ones(5)))
    2*Sum(x[i]*(w*x[i] - y[i]), (i, 0, 4))/5
    """
    function = traced(f)
    arguments = args or _numbers(function)
    program = function.program(*arguments)
    what = f"the derivative of {program.graph.name}"
    if program.results != 1:
        raise ArgumentError(
            at_user_line(f"{what}: the function returns {program.results} arrays, not one; differentiate one of them at a time")
        )
    value = program.graph.outputs[0]
    if not value.shape:
        derived = grad(function, argnums).program(*arguments)
        found = _formulas(derived.graph, derived.graph.outputs[: derived.results], what)
        return unflatten(derived.out_tree, found)
    if not is_float(value.dtype):
        raise DTypeError(at_user_line(f"{what}: the function returned {value.dtype}, which has no derivative; return floats"))
    places, tree = selected(program.signature, checked_argnums(argnums), program.graph.name, "derivative_formula")
    graph = inline_calls(program.graph)
    slopes = [_elementwise_slope(graph, graph.outputs[0], graph.inputs[k], what) for k in places]
    return unflatten(tree, _formulas(graph, slopes, what))


def _numbers(function: Traced) -> tuple[float, ...]:
    """Return a number for each parameter that must be given."""
    try:
        parameters = inspect.signature(function.py_func).parameters.values()
    except (TypeError, ValueError):
        return (1.0,)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(1.0 for p in parameters if p.kind in kinds and p.default is p.empty)


def _elementwise_slope(graph: Graph, y: Value, x: Value, what: str) -> Value:
    """Return the derivative of each element of y by the same element of x, or by the number x."""
    if not is_float(x.dtype):
        raise DTypeError(at_user_line(f"{what}: an argument has dtype {x.dtype}, which has no derivative; pass floats"))
    if x.shape:
        reached = {x.node}
        for node in topological([y], stop=graph.inputs):
            if any(value.node in reached for value in node.inputs):
                reached.add(node)
                if not isinstance(node.op, Elementwise):
                    raise ShapeError(
                        at_user_line(
                            f"{what}: the result of shape {y.shape} depends on the argument of shape {x.shape} through {node.op.name}: "
                            "its derivative is a Jacobian; sum the result to a number, or return one element",
                            node.line,
                        )
                    )
    (slope,) = push_forward([y], [x], [full(x.shape, 1, x.dtype)])
    return full(y.shape, 0, y.dtype) if slope is None else slope


def _formulas(graph: Graph, outputs: Sequence[Value], what: str) -> list[Formula]:
    plain, _ = simplify(inline_calls(graph.with_outputs(outputs), keep_rules=False))
    labels = [*graph.labels, *("" for _ in graph.inputs)]
    names = {v: label or f"x{k}" for k, (v, label) in enumerate(zip(plain.inputs, labels, strict=False))}
    return [_formula(value, names, what) for value in plain.outputs]


def _formula(value: Value, names: dict[Value, str], what: str) -> Formula:
    found, indices = _expression(value, _apart(names, {str(each.head) for each in CONSTANTS}), what)
    used = {str(node.head) for node in walk([found])}
    functions = {str(node.head) for node in walk([found]) if node.kind == "call"}
    if functions & set(names.values()):
        found, indices = _expression(value, _apart(names, functions | {str(each.head) for each in CONSTANTS}), what)
    bound = names_of(shared_parts(found, SMALLEST, LONGEST), found, used)
    made = texts([found], bound)
    return Formula(made[found][0], {name: made[part][0] for part, name in bound.items()}, indices, found)


def _apart(names: dict[Value, str], taken: set[str]) -> dict[Value, str]:
    """Return names of arguments that are no names of functions or constants: gamma -> gamma_, where the formula has the function."""
    return {value: f"{name}_" if name in taken else name for value, name in names.items()}


def _expression(value: Value, names: dict[Value, str], what: str) -> tuple[Expression, tuple[str, ...]]:
    """Return one element of a value, and its indices; none where every array is read at the same place as the result."""
    elements = Elements(names, what)
    place = elements.index_of(value.shape)
    found = elements(value, place)
    if elements.read <= {place}:
        return Elements(names, what, plain=True)(value, place), ()
    return found, tuple(str(letter.head) for letter in place)
