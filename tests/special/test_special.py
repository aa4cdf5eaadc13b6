"""`sg.special` on tracers, arrays and numbers: SciPy's values and dtypes, JAX's derivatives, and the errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special

import staticgrad as sg
from staticgrad.errors import MissingAttributeError, StaticgradError, UnsupportedAttributeError, UnsupportedError
from staticgrad.special.table import ENTRIES
from staticgrad.tracing.functions.special import SPECIAL
from tests.tracing.harness import check, fails, traced

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(7)
DOMAINS: dict[str, tuple[tuple[float, float], ...]] = {
    "betaln": ((0.2, 4.0), (0.2, 9.0)), "digamma": ((0.1, 9.0),), "psi": ((0.1, 9.0),), "entr": ((0.1, 3.0),), "gamma": ((0.1, 6.0),),
    "gammaln": ((0.1, 9.0),), "erfinv": ((-0.95, 0.95),),
    "loggamma": ((0.1, 9.0),), "huber": ((0.5, 2.0), (-3.0, 3.0)), "pseudo_huber": ((0.5, 2.0), (-3.0, 3.0)),
    "kl_div": ((0.1, 3.0), (0.3, 2.0)), "rel_entr": ((0.1, 3.0), (0.3, 2.0)), "log1p": ((-0.8, 3.0),), "logit": ((0.05, 0.95),),
    "xlogy": ((-2.0, 2.0), (0.2, 3.0)), "xlog1py": ((-2.0, 2.0), (-0.7, 3.0)),
}  # fmt: skip
EDGES = np.array([0.0, -0.0, 1.0, 0.5, -0.5, 2.0, -3.0, 30.0, -30.0, 800.0, -800.0, 1e-30, np.inf, -np.inf, np.nan])
names = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def operands(entry: Any, dtype: Any = np.float64, size: int = 12) -> list[np.ndarray]:
    domains = DOMAINS.get(entry.name, ((-3.0, 3.0),) * len(entry.operands))
    return [RNG.uniform(low, high, size).astype(dtype) for low, high in domains]


def ours(entry: Any) -> Any:
    return getattr(sg.special, entry.name)


def scipys(entry: Any) -> Any:
    return getattr(scipy.special, entry.name)


def test_names() -> None:
    assert {entry.name for entry in ENTRIES} == set(SPECIAL) | {"digamma"}
    assert [entry.name for entry in ENTRIES] == sorted(entry.name for entry in ENTRIES)
    assert set(dir(sg.special)) == {entry.name for entry in ENTRIES} | {"logsumexp", "softmax", "log_softmax", "polygamma"}
    for entry in ENTRIES:
        assert len(entry.operands) == scipys(entry).nin
        assert "Examples" in ours(entry).__doc__


@names
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_on_tracers_are_scipys(entry: Any, dtype: Any) -> None:
    x = operands(entry, dtype)
    check(ours(entry), *x, rtol=1e-13)
    check(scipys(entry), *x, rtol=1e-13)
    check(lambda *x: ours(entry)(*(v.reshape(3, 4) for v in x)), *x, rtol=1e-13)


@names
def test_edge_values_are_scipys(entry: Any) -> None:
    x = np.meshgrid(*[EDGES] * len(entry.operands)) if len(entry.operands) > 1 else [EDGES]
    x = [np.ravel(v) for v in x]
    if entry.name == "betaln":  # SciPy takes ways of its own for negative operands, and around 1e300
        kept = np.all([(v >= 0) & (v < 1e3) for v in x], axis=0)
        x = [v[kept] for v in x]
    check(ours(entry), *x, rtol=1e-12)


@names
def test_promotion_is_scipys(entry: Any) -> None:
    whole = [np.array([1, 2, 3]), np.array([1, 1, 2])][: len(entry.operands)]
    for dtype in (np.int64, np.int8, np.bool_):
        check(ours(entry), *(x.astype(dtype) for x in whole), rtol=1e-6)
    if len(entry.operands) == 2:
        single = operands(entry, np.float32)
        check(lambda x: ours(entry)(x, 2), single[0], rtol=1e-13)
        check(lambda x: ours(entry)(0.5, x), single[1], rtol=1e-13)
        check(ours(entry), single[0], single[1].astype(np.float64), rtol=1e-13)


@names
def test_arrays_and_numbers_are_left_to_scipy(entry: Any) -> None:
    x = operands(entry)
    np.testing.assert_array_equal(ours(entry)(*x), scipys(entry)(*x))
    found = ours(entry)(*(float(v[0]) for v in x))
    assert isinstance(found, np.float64)
    assert found == scipys(entry)(*x)[0]


@names
def test_lists_of_traced_numbers(entry: Any) -> None:
    x = operands(entry, size=3)
    (found,) = traced(lambda *x: ours(entry)(*([v[0], v[1], v[2]] for v in x)), *x)
    np.testing.assert_allclose(found, scipys(entry)(*x), rtol=1e-13, atol=1e-15)


@names
def test_derivatives_against_jax(entry: Any) -> None:
    gammaln = jax.scipy.special.gammaln
    known = {"exp10": lambda x: 10.0**x, "exp2": lambda x: 2.0**x, "cosm1": lambda x: jax.numpy.cos(x) - 1,
             "psi": jax.scipy.special.digamma,
             "erfcx": lambda x: jax.numpy.exp(x * x) * jax.scipy.special.erfc(x), "expm1": jax.numpy.expm1, "log1p": jax.numpy.log1p,
             "betaln": lambda a, b: gammaln(a) + gammaln(b) - gammaln(a + b),  # JAX's own has 7 digits
             "log_expit": jax.nn.log_sigmoid, "loggamma": jax.scipy.special.gammaln,
             "huber": lambda d, r: jax.numpy.where(abs(r) <= d, r * r / 2, d * (abs(r) - d / 2)),
             "pseudo_huber": lambda d, r: d * d * (jax.numpy.sqrt(1 + (r / d) ** 2) - 1)}  # fmt: skip
    reference = known.get(entry.name) or getattr(jax.scipy.special, entry.name)
    x = operands(entry, size=6)
    t = [RNG.standard_normal(6) for _ in x]
    everything = tuple(range(len(x)))
    function = sg.trace(lambda *x: np.sum(ours(entry)(*x)), backend="interp")

    def theirs(*x: Any) -> Any:
        return jax.numpy.sum(reference(*x))

    expected = jax.grad(theirs, everything)(*x)
    for found, wanted in zip(sg.grad(function, everything)(*x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sg.jvp(function, x, t)[1], jax.jvp(theirs, x, t)[1], rtol=1e-11, atol=1e-12)
    second = jax.jvp(jax.grad(theirs, everything), x, t)[1]
    _, over = sg.jvp(sg.grad(function, everything), x, t)
    back = sg.vjp(sg.grad(function, everything), *x)[1](tuple(t))
    for found, other, wanted in zip(over, back, second, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(other, wanted, rtol=1e-9, atol=1e-10)


def test_compiled() -> None:
    """All functions with their gradients in one program."""
    x = [operands(entry, size=5) for entry in ENTRIES]

    def everything(x: Any) -> Any:
        return [ours(entry)(*operand) for entry, operand in zip(ENTRIES, x, strict=True)]

    for entry, operand, found in zip(ENTRIES, x, sg.trace(everything)(x), strict=True):
        np.testing.assert_allclose(found, scipys(entry)(*operand), rtol=1e-13, err_msg=entry.name)
    total = sg.grad(lambda x: sum(np.sum(y) for y in everything(x)))
    reference = sg.grad(sg.trace(lambda x: sum(np.sum(y) for y in everything(x)), backend="interp"))
    for entry, found, wanted in zip(ENTRIES, total(x), reference(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14, err_msg=entry.name)


# ---- the functions that are no universal functions ------------------------------------------------------------------------------

A = RNG.normal(size=(3, 4)) * 3
B = RNG.normal(size=(3, 4))
REAL = [
    lambda a, b: sg.special.logsumexp(a), lambda a, b: sg.special.logsumexp(a, axis=1), lambda a, b: sg.special.softmax(a),
    lambda a, b: sg.special.logsumexp(a, 0, None, True), lambda a, b: sg.special.logsumexp(a, b=np.abs(b), axis=-1),
    lambda a, b: sg.special.logsumexp(a, b=b, axis=0), lambda a, b: sg.special.logsumexp(a, b=b, return_sign=True),
    lambda a, b: sg.special.logsumexp(a, b=b[0], axis=(0, 1), keepdims=True, return_sign=True),
    lambda a, b: sg.special.logsumexp(a, axis=1, return_sign=True), lambda a, b: sg.special.softmax(a, axis=0),
    lambda a, b: sg.special.log_softmax(a), lambda a, b: sg.special.log_softmax(a, axis=(0, 1)),
    lambda a, b: sg.special.polygamma(0, np.abs(a)), lambda a, b: sg.special.polygamma(1, a),
    lambda a, b: sg.special.polygamma(3, np.abs(a)),
    lambda a, b: sg.special.logsumexp(a, b=0 * b), lambda a, b: sg.special.logsumexp(a + np.array([0, -np.inf, 0, 800.0]), axis=0),
]  # fmt: skip


@pytest.mark.parametrize("function", REAL)
def test_other_functions_are_scipys(function: Any) -> None:
    check(function, A, B, rtol=1e-12)


def test_other_functions_on_integers_and_single_precision() -> None:
    whole = np.array([1, 2, 5])
    for dtype in (np.int64, np.float32):
        x = whole.astype(dtype)
        check(sg.special.logsumexp, x)
        check(sg.special.softmax, x)
        check(lambda x: sg.special.log_softmax(x, 0), x)
        check(lambda x: sg.special.polygamma(1, x), whole)
    (found,) = traced(lambda x: sg.special.polygamma(1, x), whole.astype(np.float32))
    assert found.dtype == np.float32


def test_weighted_sums_against_jax() -> None:
    function = sg.trace(lambda a, b: np.sum(sg.special.logsumexp(a, b=b, axis=1, return_sign=True)[0]), backend="interp")
    found = sg.grad(function, (0, 1))(A, B)
    wanted = jax.grad(lambda a, b: jax.numpy.sum(jax.scipy.special.logsumexp(a, b=b, axis=1, return_sign=True)[0]), (0, 1))(A, B)
    for ours_, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-11)


def test_conventions_at_the_edge() -> None:
    def gradient(function: Any, *x: float) -> list[float]:
        found = sg.grad(sg.trace(lambda x: np.sum(function(x)), backend="interp"))(np.array(x, float))
        return np.asarray(found).tolist()

    assert gradient(sg.special.entr, 0.0, 1.0) == [0, -1]
    assert gradient(lambda x: sg.special.rel_entr(x, np.array([0.0, 0.0, 1.0])), 0.0, 1.0, 1.0) == [0, 0, 1]
    assert gradient(lambda x: sg.special.kl_div(np.array([0.0, 2.0]), x), 1.0, 2.0) == [0, 0]
    assert gradient(lambda x: sg.special.huber(1.0, x), -3.0, 0.0, 0.5, 3.0) == [-1, 0, 0.5, 1]
    assert gradient(lambda x: sg.special.logsumexp(x), -np.inf, -np.inf) == [0, 0]


def test_derivatives_far_out_lose_no_digits() -> None:
    """The hazard x + m(x) of the normal tail, and the slope of erfcx, cancel if they are computed as differences."""
    x = np.array([-5.0, -40.0, -1e4])
    second = sg.grad(sg.trace(lambda x: np.sum(sg.grad(lambda x: np.sum(sg.special.log_ndtr(x)))(x)), backend="interp"))(x)
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        for point, found in zip(x.tolist(), second.tolist(), strict=True):
            z = mpmath.mpf(point)
            u = -z / mpmath.sqrt(2)
            scaled = (
                mpmath.exp(u * u) * mpmath.erfc(u)
                if u < 1000
                else (1 - 1 / (2 * u**2) + 3 / (4 * u**4) - 15 / (8 * u**6)) / u / mpmath.sqrt(mpmath.pi)
            )
            mills = mpmath.sqrt(2 / mpmath.pi) / scaled
            assert found == pytest.approx(float(-mills * (z + mills)), rel=1e-13)


# ---- errors ------------------------------------------------------------------------------------------------------------------------


def test_missing_names() -> None:
    with pytest.raises(UnsupportedAttributeError, match=r"staticgrad\.special\.gammaincinv is not supported.*closest.*gamma"):
        sg.special.gammaincinv  # noqa: B018
    with pytest.raises(MissingAttributeError, match=r"'nonsense'"):
        sg.special.nonsense  # noqa: B018
    assert not hasattr(sg.special, "ellipk")


def test_errors_name_the_line() -> None:
    x = np.array([0.5, 1.5])
    fails(lambda x: scipy.special.erfcinv(x), x, kind=UnsupportedError, match=r"scipy\.special\.erfcinv.*scipy\.special\.erfc")
    fails(lambda x: scipy.special.erf(x, where=x > 1), x, kind=UnsupportedError, match=r"scipy\.special\.erf with where=")
    fails(lambda x: sg.special.polygamma(x, x), x, kind=TypeError, match=r"polygamma: n")
    fails(lambda x: sg.special.polygamma(-1, x), x, kind=ValueError, match=r"negative, got -1")
    fails(lambda x: sg.special.softmax(x, axis=1), x, kind=StaticgradError, match="axis")
    fails(lambda x: sg.special.xlogy(x, np.ones(3)), x, kind=ValueError, match=r"xlogy.*broadcast")


def test_out() -> None:
    def write(x: Any) -> Any:
        target = np.zeros_like(x)
        scipy.special.erf(x, out=target)
        return target

    check(write, np.array([0.5, -1.0]))


def test_importing_the_package_leaves_scipy_alone() -> None:
    import subprocess
    import sys

    code = "import sys, staticgrad; staticgrad.special.erf; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
