"""`numeric_grad` and `check_grads`: they find true gradients right and wrong ones wrong, and say where."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, GradientCheckError, InvalidValueError, ShapeError, StaticgradError
from staticgrad.gradient_check import check_grads, derivative_at_zero, numeric_grad
from tests.ad.functions import CASES

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def interpreted(function):
    return sg.trace(function, backend="interp")


def of_floats(case):
    """Return a case as a function of its float arguments."""
    floats = [k for k, x in enumerate(case.args) if np.asarray(x).dtype.kind == "f"]

    def function(*x):
        args = list(case.args)
        for k, v in zip(floats, x, strict=True):
            args[k] = v
        return case.function(np, *args)

    function.__name__ = case.name
    return function, tuple(case.args[k] for k in floats)


# ---- numeric_grad


@each_case
def test_numeric_gradient(case):
    function, args = of_floats(case)
    everything = tuple(range(len(args)))
    found = numeric_grad(function, everything)(*args)
    expected = sg.grad(interpreted(function), everything)(*args)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("x", [1e-6, 1e-3, 1.0, 1e5, 1e12, -2.0, 0.0])
def test_steps_fit_the_size_of_the_element(x):
    for f, df in ((np.exp, np.exp), (np.sin, np.cos), (np.arctan, lambda x: 1 / (1 + x * x)), (lambda x: x * x, lambda x: 2 * x)):
        if (f is np.exp and abs(x) > 100) or (f is np.sin and abs(x) > 1e6):
            continue
        np.testing.assert_allclose(numeric_grad(f)(x), df(x), rtol=1e-8, atol=1e-12)


def test_near_the_edge_of_a_domain():
    x = np.array([1e-6, 1e-4, 3.0])
    np.testing.assert_allclose(numeric_grad(lambda x: np.sum(np.log(x)))(x), 1 / x, rtol=1e-8)
    np.testing.assert_allclose(numeric_grad(lambda x: np.sum(np.sqrt(x)))(x), 0.5 / np.sqrt(x), rtol=1e-8)


def test_rounding_does_not_decide():
    """Among the smallest steps two estimates may agree by chance; what is not finite does not keep the others from being done."""
    a = np.linspace(-3, 3, 50000)
    found = derivative_at_zero(lambda s: np.append(np.sin(a + 3 * s) + 1e3, np.nan), 0.125)
    np.testing.assert_allclose(found[:-1], 3 * np.cos(a), atol=1e-9)


def test_next_to_a_kink():
    x = np.array([-0.1, 1e-3, 0.0])
    np.testing.assert_allclose(numeric_grad(lambda x: np.sum(np.abs(x)))(x), [-1, 1, 0], atol=1e-12)


def test_trees_and_dtypes():
    tree = {"w": np.float32([1.0, 2.0]), "b": [np.float64(3.0), 4.0]}
    found = numeric_grad(lambda p, n: np.sum(p["w"] ** 2) * p["b"][0] + p["b"][1] * n)(tree, 2)
    assert found.keys() == tree.keys()
    assert found["w"].dtype == np.float64
    np.testing.assert_allclose(found["w"], [6, 12])
    np.testing.assert_allclose(found["b"], [5, 2])


def test_given_step_and_keywords():
    found = numeric_grad(lambda x, *, scale: x * x * scale, step=1e-2)(3.0, scale=2.0)
    np.testing.assert_allclose(found, 12.0)


def test_the_argument_is_not_changed():
    x = np.arange(3.0)
    numeric_grad(lambda x: np.sum(x * x))(x)
    np.testing.assert_array_equal(x, np.arange(3.0))


@pytest.mark.parametrize(
    ("function", "args", "argnums", "error", "message"),
    [
        (lambda x: x, (np.zeros(3),), 0, ShapeError, r"returned shape \(3,\)"),
        (lambda x: 3, (1.0,), 0, DTypeError, "returned int64"),
        (lambda x: 1.0, (3,), 0, DTypeError, "dtype int64"),
        (lambda x: 1.0, (1.0,), 2, InvalidValueError, "1 arguments were given"),
    ],
)
def test_what_numeric_gradients_are_not_defined_for(function, args, argnums, error, message):
    with pytest.raises(error, match=message):
        numeric_grad(function, argnums)(*args)


def test_derivative_at_zero_of_arrays():
    found = derivative_at_zero(lambda s: np.array([np.sin(3 * s), 5.0, np.nan, s**3]), 0.5)
    np.testing.assert_allclose(found[[0, 1, 3]], [3, 0, 0], atol=1e-12)
    assert np.isnan(found[2])


# ---- check_grads


@each_case
def test_true_gradients_pass(case):
    function, args = of_floats(case)
    check_grads(interpreted(function), args, order=2)


def test_compiled_functions_pass():
    check_grads(lambda x, y: np.tanh(x) * y + np.sum(x), (np.array([0.1, 2.0]), 3.0), order=2)


def test_results_and_arguments_may_be_trees_with_integers():
    def function(p, n):
        return {"y": p["x"] * n, "n": n + 1, "flags": p["x"] > 0}

    check_grads(interpreted(function), ({"x": np.array([1.0, -2.0])}, np.array([2, 3])))


def test_float32():
    check_grads(interpreted(lambda x: np.sin(x) * x), (np.float32([0.3, 2.0]),))


def wrong(x, y):
    """A function whose derivative along `y` is lost."""
    return np.exp(x) * np.sin(sg.stop_gradient(y)) + 0 * y


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_wrong_gradients_are_found(mode):
    with pytest.raises(GradientCheckError) as caught:
        check_grads(interpreted(wrong), (np.array([0.5, 1.0]), np.array([2.0, 3.0])), modes=(mode,))
    message = str(caught.value)
    assert "of wrong is wrong" in message
    assert "argument 1" in message
    assert "order 1" in message
    assert ("forward mode" if mode == "fwd" else "reverse mode") in message
    assert "differences say" in message


def test_the_leaf_is_named():
    def function(p):
        return np.sum(p["good"]) + np.sum(sg.stop_gradient(p["bad"][0]))

    with pytest.raises(GradientCheckError, match=r"argument 0\['bad'\]\[0\]"):
        check_grads(interpreted(function), ({"good": np.ones(2), "bad": [np.ones(2)]},))


def test_second_order_is_checked():
    def function(x):
        return sg.stop_gradient(x) * x - sg.stop_gradient(x * x) / 2  # value x**2 / 2, first derivative x, second 0

    check_grads(interpreted(lambda x: x * x / 2), (3.0,), order=2)
    check_grads(interpreted(function), (3.0,), order=1, atol=1e9)
    with pytest.raises(GradientCheckError):
        check_grads(interpreted(function), (3.0,), order=2)


def test_second_order_of_a_true_first_order():
    """The first derivative is right, the second one is lost: only order 2 finds it."""
    from staticgrad.ir.graph import Graph
    from staticgrad.ir.node import new_input
    from staticgrad.ops.arithmetic import multiply
    from staticgrad.ops.control import Rules, call, stop_gradient
    from staticgrad.tracing.lift import lift
    from staticgrad.tracing.tracer import tracer_of

    def square(x):
        value = lift(x)
        inner = new_input(value.aval)
        rules = Rules(
            "forgetful",
            jvp=lambda t, y, v: (t[0] * stop_gradient(v) * 2.0,),
            vjp=lambda g, y, v: (g[0] * stop_gradient(v) * 2.0,),
        )
        return tracer_of(call(Graph((inner,), (multiply(inner, inner),)), value, rules=rules)[0])

    for mode in ("fwd", "rev"):
        check_grads(interpreted(square), (np.array([1.0, 2.0]),), order=1, modes=(mode,))
        with pytest.raises(GradientCheckError, match="order 2"):
            check_grads(interpreted(square), (np.array([1.0, 2.0]),), order=2, modes=(mode,))


def test_modes_that_disagree():
    from staticgrad.ir.graph import Graph
    from staticgrad.ir.node import new_input
    from staticgrad.ops.control import Rules, call
    from staticgrad.ops.trigonometric import sin
    from staticgrad.tracing.lift import lift
    from staticgrad.tracing.tracer import tracer_of

    def function(x):
        value = lift(x)
        inner = new_input(value.aval)
        rules = Rules("torn", jvp=lambda t, y, v: (t[0] * _cos(v),), vjp=lambda g, y, v: (g[0] * 7.0,))
        return tracer_of(call(Graph((inner,), (sin(inner),)), value, rules=rules)[0])

    def _cos(v):
        from staticgrad.ops.trigonometric import cos

        return cos(v)

    check_grads(interpreted(function), (np.array([0.3]),), order=1, modes=("fwd",))
    with pytest.raises(GradientCheckError, match=r"forward mode says"):
        check_grads(interpreted(function), (np.array([0.3]),), order=1)


def test_tolerances():
    def function(x):
        return x + sg.stop_gradient(1e-4 * x)

    with pytest.raises(GradientCheckError):
        check_grads(interpreted(function), (1.0,), order=1)
    check_grads(interpreted(function), (1.0,), order=1, atol=1e-3)
    check_grads(interpreted(function), (1.0,), order=1, rtol=1e-3)


def test_values_that_are_not_finite_fail():
    with pytest.raises(GradientCheckError, match="nan"):
        check_grads(interpreted(np.log), (-1.0,), order=1)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [({"modes": ("forward",)}, InvalidValueError), ({"modes": ()}, InvalidValueError), ({"order": 0}, InvalidValueError)],
)
def test_bad_options(kwargs, error):
    with pytest.raises(error):
        check_grads(np.sin, (1.0,), **kwargs)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="tuple"):
        check_grads(np.sin, 1.0)
    with pytest.raises(DTypeError, match="no argument holds floats"):
        check_grads(interpreted(lambda n: n + 1), (3,))
    assert issubclass(GradientCheckError, StaticgradError)
    assert issubclass(GradientCheckError, AssertionError)
