"""Formulas of functions of arrays: element by element where that says it all, with indices and sums elsewhere."""

import numpy as np
import pytest
import sympy

import staticgrad as sg

X, V, W = np.arange(12.0).reshape(4, 3) / 7, np.array([0.3, -1.2, 0.7]), np.array([1.0, 0.2, -0.4, 2.0])


def evaluated(formula, shape, **arrays):
    """Return the array that a formula describes, for the arrays it is of; arrays without indices are read at the place of the result."""
    whole = formula.to_sympy().replace(sympy.Product, lambda *parts: sympy.Product(*parts).doit())
    indexed = {str(each.base) for each in whole.atoms(sympy.Indexed)}
    variables = [sympy.IndexedBase(name) if name in indexed else sympy.Symbol(name) for name in arrays]
    letters = [letter for letter in formula.indices if letter != "0"]
    function = sympy.lambdify([*variables, *map(sympy.Symbol, letters)], whole, "numpy")
    result = np.zeros(shape)
    for place in np.ndindex(*shape):
        values = [x if name in indexed or np.shape(x) != shape else x[place] for name, x in arrays.items()]
        index = [k for k, letter in zip(place, formula.indices, strict=False) if letter != "0"]
        result[place] = function(*values, *index)
    return result


CASES = {
    "sum of squares": (lambda x: np.sum(x**2), (V,), "2*x"),
    "mean of squares": (lambda x: np.mean(x**2), (V,), "2*x/3"),
    "dot with itself": (lambda x: x @ x, (V,), "2*x"),
    "dot of two": (lambda x, y: np.dot(x, np.sin(y)), (V, V + 1), "sin(y)"),
    "sum of sines": (lambda x, y: np.sum(np.sin(x) * y), (V, V + 1), "y*cos(x)"),
    "squared norm of a product": (lambda x, y: np.sum((y @ x) ** 2), (V, X), "2*Sum(y[j, i]*Sum(x[k]*y[j, k], (k, 0, 2)), (j, 0, 3))"),
    "least squares": (
        lambda x, y, z: np.mean((y @ x - z) ** 2), (V, X, W),
        "Sum(y[j, i]*(Sum(x[k]*y[j, k], (k, 0, 2)) - z[j]), (j, 0, 3))/2",
    ),
    "one matrix": (lambda x, y: np.sum(np.tanh(x @ y)), (X, V), "y[j]*(1 - tanh(Sum(x[i, k]*y[k], (k, 0, 2)))**2)"),
    "weights by rows": (lambda x, y: np.sum(np.mean(x, axis=0) * y), (X, V), "y[j]/4"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_scalar_functions(name):
    function, arguments, text = CASES[name]
    found = sg.derivative_formula(function, *arguments)
    assert str(found) == text
    expected = sg.grad(function)(*arguments)
    np.testing.assert_allclose(evaluated(found, expected.shape, **dict(zip("xyz", arguments))), expected, rtol=1e-12)


FUNCTIONS = {
    "matrix times vector": (lambda x, y: x @ y, (X, V), "Sum(x[i, j]*y[j], (j, 0, 2))"),
    "elementwise": (lambda x, y: np.exp(x) * y, (V, V), "y*exp(x)"),
    "rows": (lambda x, y: x * y, (X, V), "x[i, j]*y[j]"),
    "columns": (lambda x, y: x * y[:, None], (X, W), "x[i, j]*y[i]"),
    "transposed and cut": (lambda x: x.T[1:], (X,), "x[j, i + 1]"),
    "backwards": (lambda x: x[::-1], (V,), "x[2 - i]"),
    "every other": (lambda x: x[::2], (W,), "x[2*i]"),
    "product over an axis": (lambda x: np.prod(x, axis=1), (X,), "Product(x[i, j], (j, 0, 2))"),
    "variance": (lambda x: np.var(x), (V,), "Sum((x[i] - Sum(x[j], (j, 0, 2))/3)**2, (i, 0, 2))/3"),
    "outer product": (lambda x, y: np.outer(x, y), (V, W), "x[i]*y[j]"),
    "a number and an array": (lambda x, y: x * np.sin(y), (2.0, V), "x*sin(y)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_arrays(name):
    function, arguments, text = FUNCTIONS[name]
    found = sg.formula(function, *arguments)
    assert str(found) == text
    expected = np.asarray(function(*arguments))
    np.testing.assert_allclose(evaluated(found, expected.shape, **dict(zip("xyz", arguments))), expected, rtol=1e-12)


def test_derivatives_of_elementwise_arrays():
    assert str(sg.derivative_formula(lambda x: np.sin(x) * x, V)) == "x*cos(x) + sin(x)"
    assert str(sg.derivative_formula(lambda s, x: np.sin(x) * s**2, 1.0, V)) == "2*s*sin(x)"
    assert str(sg.derivative_formula(lambda x, y: x * 2, V, V, argnums=1)) == "0"


def test_names_of_parts_that_depend_on_an_index():
    def wavy(x, y):
        waves = np.sin(y @ x)
        return np.sum(np.exp(waves) * waves**3 / (1 + waves**2))

    found = sg.derivative_formula(wavy, V, X)
    assert str(found) == (
        "Sum(y[j, i]*cos(t1[j])*(3*t3[j]*t4[j]/t5[j] - 2*t3[j]*t2[j]**4/t5[j]**2 + t3[j]*t2[j]**3/t5[j]), (j, 0, 3)) "
        "where t1[j] = Sum(x[k]*y[j, k], (k, 0, 2)), t2[j] = sin(t1[j]), t3[j] = exp(t2[j]), t4[j] = t2[j]**2, t5[j] = t4[j] + 1"
    )
    np.testing.assert_allclose(evaluated(found, (3,), x=V, y=X), sg.grad(wavy)(V, X), rtol=1e-12)


def test_a_network():
    def loss(params, x, y):
        hidden = np.tanh(x @ params["w"] + params["b"])
        return np.mean((hidden @ params["v"] - y) ** 2)

    arrays = {"w": X.T, "b": W, "v": W[::-1].copy()}
    found = sg.derivative_formula(loss, arrays, X, W)
    assert str(found["v"]) == (
        "Sum(tanh(b[i] + Sum(w[m, i]*x[j, m], (m, 0, 2)))"
        "*(Sum(v[k]*tanh(b[k] + Sum(w[l, k]*x[j, l], (l, 0, 2))), (k, 0, 3)) - y[j]), (j, 0, 3))/2"
    )
    gradients = sg.grad(loss)(arrays, X, W)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(evaluated(found[name], gradient.shape, x=X, y=W, **arrays), gradient, rtol=1e-10)


def test_indices_are_no_arguments():
    assert str(sg.formula(lambda i, j: i @ j, X, V)) == "Sum(i[k, l]*j[l], (l, 0, 2))"


def test_results_in_containers():
    found = sg.formula(lambda x: {"double": 2 * x, "square": (x**2, x)}, V)
    assert (str(found["double"]), str(found["square"][0]), str(found["square"][1])) == ("2*x", "x**2", "x")


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (lambda x: np.cumsum(x), (V,), ValueError, "through cumulative_sum: its derivative is a Jacobian"),
        (lambda x: X @ x, (V,), ValueError, "through contract: its derivative is a Jacobian; sum the result"),
        (lambda x: np.sum(np.sort(x)), (V,), TypeError, "has no notation; formulas hold elementwise functions"),
        (lambda x: np.sum(x * np.arange(3.0)), (V,), TypeError, r"a constant array of shape \(3,\) has no name in a formula; make it"),
        (lambda x: (x, x), (V,), TypeError, "returns 2 arrays, not one"),
        (lambda x: x > 0, (V,), TypeError, "bool, which has no derivative"),
        (lambda x: x * 2, (np.arange(3),), TypeError, "int64, which has no derivative"),
        (lambda x: np.sum(x * 2), (np.arange(3),), TypeError, "int64, which has no derivative|returned int64"),
        (lambda x: x, (V, V), TypeError, "too many positional arguments"),
    ],
)  # fmt: skip
def test_what_has_no_formula_is_refused(function, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        sg.derivative_formula(function, *arguments)
    assert isinstance(caught.value, sg.StaticgradError)
    assert "test_arrays.py" in str(caught.value)


def test_a_formula_that_would_never_end_is_refused():
    def function(x, y):
        for _ in range(40):
            x = np.tanh(y @ x) * (y.T @ x)
        return np.sum(x)

    with pytest.raises(sg.StaticgradError, match=r"more than 5000 elements of arrays; its graph is shorter: print fn\.lower"):
        sg.formula(function, V, np.ones((3, 3)))


def test_reductions_without_notation_are_refused():
    with pytest.raises(sg.StaticgradError, match=r"max\(f64\[3\]\) has no notation"):
        sg.formula(np.max, V)
