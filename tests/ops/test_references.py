"""Values and derivatives of each op against JAX, wherever the conventions agree."""

import math
from functools import partial

import numpy as np
import pytest

from staticgrad.ir.aval import INT64, Aval
from staticgrad.ir.op import REGISTRY
from staticgrad.ops.nested import Nested
from tests.ops.derivatives import Function
from tests.ops.samples import FLOATS, random_array, samples_of, smooth_samples

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

ELEMENTWISE = {
    "add": jnp.add, "subtract": jnp.subtract, "multiply": jnp.multiply, "divide": jnp.divide, "negative": jnp.negative,
    "absolute": jnp.abs, "sign": jnp.sign, "floor": jnp.floor, "sqrt": jnp.sqrt, "maximum": jnp.maximum, "minimum": jnp.minimum,
    "clip": jnp.clip, "exp": jnp.exp, "expm1": jnp.expm1, "log": jnp.log, "log1p": jnp.log1p, "sin": jnp.sin, "cos": jnp.cos,
    "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus, "relu": jax.nn.relu, "power": jnp.power,
    "less": jnp.less, "less_equal": jnp.less_equal, "greater": jnp.greater, "greater_equal": jnp.greater_equal, "equal": jnp.equal,
    "not_equal": jnp.not_equal, "isnan": jnp.isnan, "isinf": jnp.isinf, "isfinite": jnp.isfinite, "where": jnp.where,
    "stop_gradient": jax.lax.stop_gradient, "contiguous": lambda x: x, "again": lambda x: x,
    "erfinv": jax.scipy.special.erfinv,
    "exp2": jnp.exp2, "log2": jnp.log2, "log10": jnp.log10, "logaddexp": jnp.logaddexp, "logaddexp2": jnp.logaddexp2, "tan": jnp.tan,
    "sinh": jnp.sinh, "cosh": jnp.cosh, "arcsin": jnp.arcsin, "arccos": jnp.arccos, "arctan": jnp.arctan, "arctan2": jnp.arctan2,
    "arcsinh": jnp.arcsinh, "arccosh": jnp.arccosh, "arctanh": jnp.arctanh, "cbrt": jnp.cbrt, "hypot": jnp.hypot, "fmax": jnp.fmax,
    "fmin": jnp.fmin, "ceil": jnp.ceil, "trunc": jnp.trunc, "rint": jnp.rint, "remainder": jnp.remainder, "fmod": jnp.fmod,
    "floor_divide": jnp.floor_divide, "copysign": jnp.copysign, "signbit": jnp.signbit, "heaviside": jnp.heaviside,
    "ldexp": jnp.ldexp,
    "nextafter": lambda x, y: jnp.nextafter(*map(jax.lax.stop_gradient, (x, y))),
    "erf": jax.scipy.special.erf, "erfc": jax.scipy.special.erfc, "gaussian": lambda x: jnp.exp(-x * x),
    "normal_density": jax.scipy.stats.norm.pdf, "log_ratio": lambda x, y: jnp.log(x / y), "rel_entr": jax.scipy.special.rel_entr,
    "kl_div": jax.scipy.special.kl_div, "erfcx": lambda x: jnp.exp(x * x) * jax.scipy.special.erfc(x), "ndtr": jax.scipy.special.ndtr,
    "log_ndtr": jax.scipy.special.log_ndtr, "gamma": jax.scipy.special.gamma,
    "gammaln": jax.scipy.special.gammaln, "digamma": jax.scipy.special.digamma,
    "betaln": lambda x, y: jax.scipy.special.gammaln(x) + jax.scipy.special.gammaln(y) - jax.scipy.special.gammaln(x + y),
}  # fmt: skip

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _subscripts(op):
    left, right, out = ("".join(LETTERS[k] for k in labels) for labels in (op.lhs, op.rhs, op.out))
    return f"{left},{right}->{out}"


def _pad(op, x, fill):
    return jax.lax.pad(x, fill, list(zip(op.low, op.high, op.interior, strict=True)))


def _erfcx_integral(op, x):
    before, result = 2 / np.sqrt(np.pi), jnp.exp(x * x) * jax.scipy.special.erfc(x)
    for n in range(1, op.order + 1):
        before, result = result, (before - 2 * x * result) / (2 * n)
    return result


PARAMETERISED = {
    "polygamma": lambda op, x: jax.scipy.special.polygamma(op.order, x),
    "erfcx_integral": _erfcx_integral,
    "integer_power": lambda op, x: jax.lax.integer_pow(x, op.exponent),
    "cast": lambda op, x: x.astype(op.dtype),
    "checkpoint_start": lambda op, x: x,
    "checkpoint_end": lambda op, x, *_: x,
    "reshape": lambda op, x: jnp.reshape(x, op.shape),
    "transpose": lambda op, x: jnp.transpose(x, op.order),
    "broadcast": lambda op, x: jnp.broadcast_to(jnp.expand_dims(x, op.axes), op.shape),
    "slice": lambda op, x: x[op.slices],
    "flip": lambda op, x: jnp.flip(x, op.axes),
    "pad": _pad,
    "concatenate": lambda op, *x: jnp.concatenate(x, op.axis),
    "slice_set": lambda op, x, y: jnp.asarray(x).at[op.slice.slices].set(y),
    "sum": lambda op, x: jnp.sum(x, op.axes),
    "prod": lambda op, x: jnp.prod(x, op.axes),
    "max": lambda op, x: jnp.max(x, op.axes),
    "min": lambda op, x: jnp.min(x, op.axes),
    "arg_max": lambda op, x: jnp.argmax(x, op.axes[0]),
    "arg_min": lambda op, x: jnp.argmin(x, op.axes[0]),
    "contract": lambda op, x, y: jnp.einsum(_subscripts(op), x, y),
    "gather": lambda op, x, *i: x.reshape(-1)[op.offsets(np.zeros(x.shape), i)].reshape(op.picked(*_avals(x, i)).shape),
    "scatter_add": lambda op, x, y, *i: jnp.asarray(x).reshape(-1).at[op.offsets(np.zeros(x.shape), i)].add(y.reshape(-1)).reshape(x.shape),
    "scatter_set": lambda op, x, y, *i: _written(jnp.asarray(x).reshape(-1), op.offsets(np.zeros(x.shape), i), y.reshape(-1)).reshape(
        x.shape
    ),
    "arg_sort": lambda op, x: jnp.argsort(x, op.axis, stable=True),
    "cumulative_sum": lambda op, x: jnp.cumsum(x, op.axis),
    "search_sorted": lambda op, x, v: _searched(op, x, v),
    "solve": lambda op, a, b: _on_matrices(op, lambda a, b: jnp.linalg.solve(a.mT if op.turned else a, b), a, b),
    "solve_triangular": lambda op, a, b: _on_matrices(op, partial(_triangular, lower=op.lower, unit_diagonal=op.unit), a, b),
    "cholesky": lambda op, a: _on_matrices(op, lambda a: jnp.linalg.cholesky(jnp.tril(a) + jnp.tril(a, -1).mT), a),
    "determinant": lambda op, a: _on_matrices(op, jnp.linalg.det, a),
    "cofactors": lambda op, a: _on_matrices(op, lambda a: jnp.linalg.det(a)[..., None, None] * jnp.linalg.inv(a).mT, a),
    "lu": lambda op, a: _on_rows(op, _factored, a),
    "permutation": lambda op, factors: _on_rows(op, lambda row: jnp.eye(_unpacked(row)[0].shape[-1])[_unpacked(row)[2]], factors),
    "solve_factored": lambda op, factors, b: _on_rows(op, partial(_solved, turned=op.turned), factors, b),
    "sign_and_log_determinant": lambda op, a: _on_matrices(op, lambda a: jnp.stack(jnp.linalg.slogdet(a), -1), a),
    "eigen": lambda op, a: _aligned(op, lambda a: jnp.linalg.eigh(jnp.tril(a) + jnp.tril(a, -1).mT), a),
    "singular_values": lambda op, a: _aligned(op, _values_and_vectors, a),
    "pseudo_inverse": lambda op, a: _on_matrices(op, _packed(lambda a: (jnp.linalg.pinv(a),)), a),
    "qr": lambda op, a: _on_matrices(op, _packed(jnp.linalg.qr), a),
}

WITHOUT_FLOATS = {
    "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "invert", "any", "all",
    "bounded_index", "left_shift", "right_shift", "gcd", "lcm", "random_bits",
}  # fmt: skip


def _avals(x, indices):
    return Aval(x.shape, np.dtype(np.float64)), [Aval(i.shape, INT64) for i in indices]


NESTED = {name for name, cls in REGISTRY.items() if issubclass(cls, Nested)}
"""Ops with sub-graphs: `tests/control` compares the functions that make them with `jax.lax`."""


def _written(x, places, y):
    """One write after the other: JAX leaves open which of several writes to one place stays."""
    for place, value in zip(places, y, strict=True):
        x = x.at[place].set(value)
    return x


def _searched(op, x, v):
    search = partial(jnp.searchsorted, side=op.side)
    for _ in range(op.shared):
        search = jax.vmap(search)
    return search(x, v)


def _on_matrices(op, function, *operands):
    """Apply a function of matrices to rows along an axis."""
    rows = [jnp.moveaxis(jnp.asarray(x), op.axis, -1) for x in operands]
    count = getattr(op, "rows", round(rows[0].shape[-1] ** 0.5))
    found = function(*(x.reshape(*x.shape[:-1], count, -1) for x in rows))
    return jnp.moveaxis(found.reshape(*rows[0].shape[:-1], -1), -1, op.axis)


def _triangular(a, b, lower, unit_diagonal):
    solve = partial(jax.scipy.linalg.solve_triangular, lower=lower, unit_diagonal=unit_diagonal)
    for _ in range(a.ndim - 2):
        solve = jax.vmap(solve)
    return solve(a, b)


def _on_rows(op, function, *operands):
    """Apply a function of rows along an axis."""
    rows = [jnp.moveaxis(jnp.asarray(x), op.axis, -1) for x in operands]
    leading = rows[0].shape[:-1]
    for _ in leading:
        function = jax.vmap(function)
    return jnp.moveaxis(function(*rows).reshape(*leading, -1), -1, op.axis)


def _factored(row):
    """Return the factors of a matrix in a row, and behind them which row each one is exchanged with."""
    n = math.isqrt(row.shape[0])
    factors, exchanges, _ = jax.lax.linalg.lu(row.reshape(n, n))
    return jnp.concatenate([factors.ravel(), exchanges.astype(row.dtype)])


def _unpacked(row):
    """Return both factors and the order of the rows."""
    n = math.isqrt(row.shape[0])  # of n * (n + 1)
    factors = row[: n * n].reshape(n, n)
    order = jax.lax.linalg.lu_pivots_to_permutation(row[n * n :].astype(jnp.int32), n)
    return jnp.tril(factors, -1) + jnp.eye(n, dtype=row.dtype), jnp.triu(factors), order


def _solved(row, b, turned):
    lower, upper, order = _unpacked(row)
    b = b.reshape(len(order), -1)
    if turned:
        return jnp.linalg.solve(lower.T, jnp.linalg.solve(upper.T, b))[jnp.argsort(order)]
    return jnp.linalg.solve(upper, jnp.linalg.solve(lower, b[order]))


def _packed(function):
    """Return a function of matrices as one of the same that gives its results one after the other in a row."""
    return lambda a: jnp.concatenate([part.reshape(*a.shape[:-2], -1) for part in function(a)], -1)


def _values_and_vectors(a):
    u, s, v = jnp.linalg.svd(a, full_matrices=False)
    return u, s, v.mT


def _aligned(op, function, a):
    """Apply a function whose results are vectors with any sign; they get those of the op."""
    found = _on_matrices(op, _packed(function), a)
    ours, theirs = op.numpy(np.asarray(jax.lax.stop_gradient(a))), np.asarray(jax.lax.stop_gradient(found))
    return found * np.where(ours * theirs < 0, -1.0, 1.0)


def reference(op):
    """Return the op as a function of JAX arrays."""
    return ELEMENTWISE[op.name] if op.name in ELEMENTWISE else lambda *x: PARAMETERISED[op.name](op, *x)


def chosen(name):
    """Return a few samples of an op: JAX takes a while for each shape."""
    samples = [s for s in smooth_samples(name) if all(x.size for x in s.operands)]
    largest = sorted(samples, key=lambda s: -max(x.size for x in s.operands))
    return [*largest[:4], *samples[:2]]


def test_every_op_with_floats_has_a_reference():
    assert set(ELEMENTWISE) | set(PARAMETERISED) | WITHOUT_FLOATS | NESTED == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - WITHOUT_FLOATS - NESTED))
def test_values_and_derivatives(name):
    rng = np.random.default_rng(0)
    for sample in chosen(name):
        f = reference(sample.op)
        function = Function.of(sample)
        (y,) = function()
        (expected,) = (np.asarray(f(*sample.operands)),)
        np.testing.assert_allclose(y, expected, rtol=1e-6 if y.dtype == np.float32 else 1e-12, atol=1e-13, err_msg=str(sample))
        if y.dtype != np.float64:
            continue
        active = function.active

        def of_active(*x, operands=sample.operands, active=active, f=f):
            full = list(operands)
            for k, v in zip(active, x, strict=True):
                full[k] = v
            return f(*full)

        points = [sample.operands[k] for k in active]
        forward, t = function.forward(rng)
        np.testing.assert_allclose(forward()[0], jax.jvp(of_active, points, t)[1], rtol=1e-10, atol=1e-12, err_msg=str(sample))
        reverse, (g,) = function.reverse(rng)
        for found, wanted in zip(reverse(), jax.vjp(of_active, *points)[1](g), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12, err_msg=str(sample))


TIES = {
    "maximum": ([0.0, 1.0, -0.0], [0.0, 1.0, 0.0]), "minimum": ([0.0, 1.0, -0.0], [0.0, 1.0, 0.0]),
    "relu": ([0.0, -1.0],), "max": ([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]],), "min": ([[1.0, 1.0, 3.0], [2.0, 2.0, 2.0]],),
    "prod": ([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]],),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TIES))
def test_conventions_shared_with_jax(name):
    op = REGISTRY[name]((1,)) if name in ("max", "min", "prod") else REGISTRY[name]()
    operands = [np.array(x) for x in TIES[name]]
    from tests.ops.samples import Sample

    reverse, _ = Function.of(Sample(op, tuple(operands))).reverse(np.random.default_rng(0))
    ones = np.ones(op.numpy(*operands).shape)
    for found, wanted in zip(reverse(arrays=[*operands, ones]), jax.vjp(reference(op), *operands)[1](ones), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus", "sqrt"])
def test_special_values_as_in_jax(name):
    for dtype in FLOATS:
        x = np.array([0.0, 1.0, np.inf, -np.inf, np.nan, 800.0, -800.0, 1e-30, -1e-30, 20.0, -20.0], dtype)
        with np.errstate(all="ignore"):
            found = REGISTRY[name]().numpy(x)
        wanted = np.asarray(ELEMENTWISE[name](x))
        np.testing.assert_allclose(found, wanted, rtol=1e-6 if dtype == "float32" else 1e-13, atol=1e-37)


def test_random_bits_as_in_jax():
    for sample in samples_of("random_bits"):
        if sample.op.rank == sample.operands[0].ndim and sample.operands[0].size:
            zeros = [np.zeros_like(x) for x in sample.operands]
            key = np.array([7, 2**31 + 5], np.uint32)
            found = sample.op.numpy(zeros[0] + key[0], zeros[1] + key[1], zeros[2])
            np.testing.assert_array_equal(found, jax.random.bits(key, found.shape, found.dtype))


@pytest.mark.parametrize("name", sorted(WITHOUT_FLOATS - {"random_bits"}))
def test_logic_against_numpy(name):
    rng = np.random.default_rng(0)
    cls = REGISTRY[name]
    if name == "bounded_index":
        x = rng.integers(-9, 9, 50)
        np.testing.assert_array_equal(np.arange(4)[cls(4, "clip").numpy(x)], np.take(np.arange(4), x, mode="clip"))
        np.testing.assert_array_equal(np.arange(4)[cls(4, "wrap").numpy(x)], np.take(np.arange(4), x, mode="wrap"))
        np.testing.assert_array_equal(np.arange(9)[cls(9).numpy(x)], np.take(np.arange(9), x))
        return
    if name in ("any", "all"):
        x = random_array(rng, (4, 5), bool)
        np.testing.assert_array_equal(cls((1,)).numpy(x), getattr(np, name)(x, axis=1))
        return
    for dtype in (each for each in ("bool", "int8", "uint16") if np.dtype(each).kind in cls.kinds):
        operands = [random_array(rng, (50,), dtype) for _ in range(cls.arity)]
        np.testing.assert_array_equal(cls().numpy(*operands), getattr(np, name)(*operands))
