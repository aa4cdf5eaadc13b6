"""Tangents and cotangents as users give them: those of integers and truth values, and what is no direction at all."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.errors import ArgumentError, DTypeError, ShapeError, StaticgradError

FLOAT0 = np.dtype([("float0", np.void, 0)])
"""The dtype that JAX gives to tangents of integers."""

X, N = np.array([1.0, 2.0]), np.array([3, 4])


def scaled(x, n, flag):
    return {"y": x * n["n"], "count": n["n"] + 1, "all": flag & (x > 0)}


POINT = (X, {"n": N}, np.array([True, False]))
NOTHING = {
    "None": (None, None),
    "float0": ({"n": np.zeros(2, FLOAT0)}, np.zeros(2, FLOAT0)),
    "integers": ({"n": N}, np.array([True, True])),
    "None inside": ({"n": None}, np.zeros(2, FLOAT0)),
}


@pytest.mark.parametrize("kind", NOTHING)
@pytest.mark.parametrize("inside", [False, True])
def test_integers_and_truth_values_move_nowhere(kind, inside):
    """In all three of them, called from outside and within a trace; results have zeros for them, of their dtypes."""
    count, flag = NOTHING[kind]
    f = scaled if inside else sg.trace(scaled, backend="interp")

    def everything(x):
        point = (x, *POINT[1:])
        pushed = sg.jvp(f, point, (np.full(2, 10.0), count, flag))[1]
        linear = sg.linearize(f, *point)[1](np.full(2, 10.0), count, flag)
        pulled = sg.vjp(f, *point)[1]({"y": np.full(2, 10.0), "count": None if count is None else count["n"], "all": flag})
        return pushed, linear, pulled

    pushed, linear, pulled = sg.trace(everything, backend="interp")(X) if inside else everything(X)
    for moved in (pushed, linear):
        assert moved["y"].tolist() == [30.0, 40.0]
        assert moved["count"].tolist() == [0, 0] and moved["count"].dtype == N.dtype
        assert moved["all"].tolist() == [False, False]
    assert pulled[0].tolist() == [30.0, 40.0] and pulled[1]["n"].tolist() == [0, 0] and pulled[2].dtype == bool


def pullback(f=lambda x, n: {"a": x * n, "b": n}):
    return sg.vjp(sg.trace(f, backend="interp"), X, N)[1]


def pushforward():
    return sg.linearize(sg.trace(lambda x, n: x * n, backend="interp"), X, N)[1]


def jvp(x, n):
    return sg.jvp(sg.trace(lambda x, n: x * n, backend="interp"), (X, N), (x, n))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: pullback()(), ArgumentError, r"the pullback of <lambda>\(cotangent\): missing a required argument: 'cotangent'"),
        (lambda: pullback()(X, N), ArgumentError, r"the pullback of <lambda>\(cotangent\): too many positional"),
        (lambda: pullback()(g=X), ArgumentError, "the pullback of <lambda>"),
        (lambda: pullback()(None), ArgumentError, r"the value has structure PyTreeSpec\(\{.*\}\), the cotangent PyTreeSpec\(None\)"),
        (lambda: pullback()({"a": None, "b": None}), ArgumentError, "the cotangent PyTreeSpec.*None"),
        (lambda: pullback()({"a": X}), ArgumentError, "the value has structure"),
        (lambda: pullback()({"a": X[:1], "b": None}), ShapeError, r"pullback of <lambda>: a value is f64\[2\], its cotangent f64\[1\]"),
        (lambda: pullback()({"a": N, "b": N}), DTypeError, r"a value is f64\[2\], its cotangent i64\[2\]; they must have one dtype"),
        (lambda: pullback()({"a": X, "b": X}), DTypeError, r"a value is i64\[2\], its cotangent f64\[2\]; integers and truth"),
        (lambda: pullback()({"a": X, "b": np.zeros(3, FLOAT0)}), ShapeError, r"a value is i64\[2\], its cotangent i64\[3\]"),
        (lambda: pullback()({"a": 1j * X, "b": N}), DTypeError, r"the pullback of <lambda>: a value is f64\[2\], .* complex128"),
        (lambda: pullback()({"a": "g", "b": N}), ArgumentError, "the pullback of <lambda>: .*its cotangent str"),
        (lambda: pullback()({"a": np.zeros(2, FLOAT0), "b": N}), DTypeError, r"pullback of <lambda>: a cotangent for f64\[2\] .*float0"),
        (lambda: pushforward()(X), ArgumentError, "the pushforward of <lambda>: the arguments have structure"),
        (lambda: pushforward()(X, n=N), ArgumentError, "the pushforward of <lambda>.*unexpected keyword argument 'n'"),
        (lambda: pushforward()(X, X), DTypeError, r"an argument is i64\[2\], its tangent f64\[2\]; integers and truth values have none"),
        (lambda: jvp(X, X), DTypeError, r"jvp of <lambda>: a primal is i64\[2\], its tangent f64\[2\]; integers .*None.*astype\(float\)"),
        (lambda: jvp(None, N), ArgumentError, "jvp of <lambda>: primals have structure"),
        (lambda: jvp(np.zeros(2, FLOAT0), N), DTypeError, r"jvp of <lambda>: a tangent for f64\[2\] has dtype float0"),
        (lambda: jvp(N, N), DTypeError, "they must have one dtype"),
        (lambda: sg.jvp(np.square, (3,), (1.0,)), DTypeError, "integers and truth values have none"),
        (lambda: sg.checkpoint(lambda x: x)(X, N), ArgumentError, "too many positional arguments"),
        (lambda: sg.numeric_grad(lambda x, n: 1.0)(X), ArgumentError, "missing a required argument: 'n'"),
    ],
)  # fmt: skip
def test_what_is_no_direction(call, error, said):
    with pytest.raises(error, match=said) as caught:
        call()
    assert isinstance(caught.value, StaticgradError)
    assert "test_directions.py" in str(caught.value)
