"""NumPy's functions on tracers: values, dtypes and shapes are NumPy's own, for a table of expressions and for random shapes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad import nn
from staticgrad.errors import ShapeError, StaticgradError, UnsupportedError
from staticgrad.tracing.functions import FUNCTIONS, supported_names
from tests.tracing.expressions import ARRAYS, ERRORS, IN_PLACE, TABLE, UNSUPPORTED, evaluate
from tests.tracing.harness import check, traced


@pytest.mark.parametrize("text", TABLE)
def test_expression_gives_what_numpy_gives(text: str) -> None:
    function, arrays = evaluate(text)
    assert arrays, "the expression names no array"
    check(function, *arrays)


def test_every_supported_function_is_in_the_table() -> None:
    text = "\n".join(TABLE + ERRORS + IN_PLACE)
    aliases = {"amax", "amin", "concat", "permute_dims", "einsum_path", "dsplit", "may_share_memory", "row_stack"}
    missing = {name.rpartition(".")[2] for name in map(_short, FUNCTIONS)} - set(re.findall(r"[a-z_0-9]+", text)) - aliases
    assert not missing


def _short(function: Any) -> str:
    return str(function.__name__)


# ---- errors: the built-in exception that NumPy raises, at the user's line, with operation and shapes ------------------------


@pytest.mark.parametrize("row", ERRORS)
def test_misuse_gives_numpys_exception_at_the_users_line(row: str) -> None:
    text, pattern = re.split(r"\s{2,}", row, maxsplit=1)
    function, arrays = evaluate(text)
    with pytest.raises(Exception) as theirs:
        function(*arrays)
    with pytest.raises(StaticgradError, match=f"(?s){pattern}.*<string>:1, in <lambda>") as ours:
        traced(function, *arrays)
    builtin = next(kind for kind in type(theirs.value).__mro__ if kind.__module__ == "builtins")
    assert isinstance(ours.value, builtin), f"NumPy raises {type(theirs.value)}"


@pytest.mark.parametrize("text", UNSUPPORTED)
def test_what_is_missing_is_named_with_what_is_near(text: str) -> None:
    function, arrays = evaluate(text)
    with pytest.raises(UnsupportedError, match=f"(?s)({UNSUPPORTED[text]}).*<string>:1, in <lambda>"):
        traced(function, *arrays)


def test_complex_and_half_precision_are_type_errors() -> None:
    for dtype in (complex, np.float16, object, "datetime64[s]"):
        with pytest.raises(TypeError, match="not supported"):
            traced(lambda x, dtype=dtype: x.astype(dtype), ARRAYS["x"])
    with pytest.raises(TypeError, match="float16"):
        traced(np.exp, ARRAYS["b"])
    with pytest.raises(TypeError, match="complex128"):
        traced(lambda x: x * 1j, ARRAYS["x"])


# ---- in-place functions -------------------------------------------------------------------------------------------------------


def _copyto(x: Any, y: Any, b: Any) -> Any:
    z = x.copy()
    np.copyto(z, y, where=b)
    np.copyto(z[:1], 3)
    return z


def _fill_diagonal(x: Any, q: Any) -> Any:
    z, a = x.copy(), q.copy()
    np.fill_diagonal(z, 7)
    np.fill_diagonal(a, x[0])
    return z, a


def _outs(x: Any, y: Any) -> Any:
    z, total, product = snp.zeros((2, 3)), snp.zeros(3), snp.zeros((2, 2))
    same = np.add(x, y, out=z)
    np.sum(x, axis=0, out=total)
    np.matmul(x, y.T, out=product)
    x.max(axis=0, out=total[:])
    np.multiply(x, 2, out=z, where=x > 0)
    return same, total, product


def _einsum_view(q: Any) -> Any:
    z = q.copy()
    np.einsum("ii->i", z)[:] = 5
    np.einsum("ij->ji", z)[0] += 1
    return z


def _nan_in_place(n: Any) -> Any:
    z = n.copy()
    np.nan_to_num(z[0], copy=False)
    return z


def _at(v: Any, x: Any) -> Any:
    z = v.copy()
    np.add.at(z, slice(1, None), 2.0)
    np.multiply.at(z, 0, v[1])
    np.negative.at(z, 2)
    return z


def _put(x: Any, k: Any, v: Any) -> Any:
    z, t, e = x.copy(), x.copy().T, x.copy()
    np.put(z, [0, 5, -1], v)
    np.put(z, k, [1, 2])
    np.put(z, [9, -9], 4.0, mode="wrap")
    np.put(t, k + 1, v)
    np.put_along_axis(z, np.argmax(x, axis=1, keepdims=True), 9.0, axis=1)
    np.put_along_axis(z, np.array([[0, 1, 0], [0, 0, 1]]), x, axis=0)
    np.put_along_axis(e, k, v, None)
    np.put(e, [], v)
    return z, t, e


def _at_arrays(x: Any, k: Any, v: Any) -> Any:
    z, i = x.copy(), k.copy()
    np.add.at(z, (slice(None), np.array([0, 0, 2])), x)
    np.add.at(z, ([1, 1, 0], k), v)
    np.subtract.at(z, (0, k), 1.0)
    np.multiply.at(z, (1, [0, 0, 1]), v)
    np.maximum.at(z, ([0, 0, 1, 0], [1, 1, 2, 1]), np.array([0.1, 0.9, 0.2, 0.4]))
    np.negative.at(z, ([0, 0, 1],))
    np.multiply.at(z, k[1], 3.0)
    np.subtract.at(i, [0, 0], np.uint8(3))
    return z, i


def _sort_in_place(x: Any, i: Any) -> Any:
    z, n = x.copy(), i.copy()
    z.sort()
    n[:, ::-1].sort(axis=0)
    n[0].sort(kind="stable")
    z[:, 0].partition(1)
    return z, n


@pytest.mark.parametrize(
    ("function", "names"),
    [
        *((_put, "xkv"), (_at_arrays, "xkv"), (_sort_in_place, "xi"), (_copyto, "xyb"), (_fill_diagonal, "xq")),
        *((_outs, "xy"), (_einsum_view, "q"), (_nan_in_place, "n"), (_at, "vx")),
    ],
)
def test_functions_that_write(function: Any, names: str) -> None:
    check(function, *(ARRAYS[name] for name in names))


# ---- random shapes ------------------------------------------------------------------------------------------------------------

SHAPE = st.lists(st.integers(0, 3), max_size=4).map(tuple)
FILLED = st.lists(st.integers(1, 3), max_size=4).map(tuple)


def numbers(shape: tuple[int, ...], dtype: Any = float) -> np.ndarray:
    """Return small whole numbers, so that sums are exact in any order."""
    size = int(np.prod(shape))
    return (np.arange(size) * 7 % 11 - 5).reshape(shape).astype(dtype)


@given(data=st.data(), shape=SHAPE, keepdims=st.booleans(), dtype=st.sampled_from(["f8", "f4", "i8", "u1", "?"]))
def test_reductions_of_random_shapes(data: Any, shape: tuple[int, ...], keepdims: bool, dtype: str) -> None:
    axes = st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape)).map(tuple) if shape else st.just(())
    axis = data.draw(st.none() | axes)
    x = numbers(shape, dtype)
    for name in ("sum", "prod", "mean", "var", "std", "any", "all"):
        check(lambda x, name=name: getattr(np, name)(x, axis=axis, keepdims=keepdims), x, rtol=1e-12)
    single = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1)) if shape else None
    for name, where in (("max", axis), ("min", axis), ("argmax", single), ("argmin", single)):
        try:
            getattr(np, name)(x, axis=where)
        except ValueError as error:
            with pytest.raises(ValueError, match=r"zero-size|empty"):
                traced(lambda x, name=name, where=where: getattr(np, name)(x, axis=where), x)
            assert "zero-size" in str(error) or "empty" in str(error)
        else:
            check(lambda x, name=name, where=where: getattr(np, name)(x, axis=where, keepdims=keepdims), x)


@given(data=st.data(), shape=SHAPE, dtype=st.sampled_from(["f8", "f4", "i8", "u1", "?"]))
def test_sorting_random_shapes(data: Any, shape: tuple[int, ...], dtype: str) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1)) if shape else None
    x = numbers(shape, dtype)
    if dtype.startswith("f"):
        x = np.where(x == 3, np.nan, np.where(x == 2, -0.0, np.where(x == 1, 0.0, x))).astype(dtype)
    check(lambda x: (np.sort(x, axis, kind="stable"), np.argsort(x, axis, kind="stable"), np.cumsum(x, axis)), x)
    if axis is not None and dtype != "?":
        check(lambda x: (np.median(x, axis), np.quantile(x, [0, 0.3], axis)) if x.shape[axis] else np.sort(x, axis), x)


@given(data=st.data(), shape=SHAPE)
def test_views_of_random_shapes(data: Any, shape: tuple[int, ...]) -> None:
    x = numbers(shape)
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    flipped = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))) if shape else ()
    wide = (*data.draw(FILLED), *(data.draw(st.integers(1, 3)) if extent == 1 else extent for extent in shape))
    new = tuple(sorted(data.draw(st.lists(st.integers(0, len(shape)), unique=True, max_size=2))))
    check(lambda x: np.broadcast_to(np.flip(x, flipped), wide), x)
    check(lambda x: np.flip(x.transpose(order), flipped).reshape(-1), x)
    check(lambda x: np.squeeze(np.expand_dims(x, new)).ravel("F"), x)


@given(data=st.data(), shape=SHAPE, dtype=st.sampled_from(["f8", "f4", "i8", "u1", "?"]))
def test_repetition_of_random_shapes(data: Any, shape: tuple[int, ...], dtype: str) -> None:
    x, rank = numbers(shape, dtype), len(shape)
    counts = data.draw(st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=5).map(tuple))
    axis = data.draw(st.none() | st.integers(-rank, rank - 1)) if rank else None
    times, turns = data.draw(st.integers(0, 3)), data.draw(st.integers(-5, 5))
    check(lambda x: (np.tile(x, counts), np.repeat(x, times, axis), np.roll(x, turns, axis)), x)
    check(lambda x: (np.atleast_1d(x), np.atleast_2d(x), np.atleast_3d(x)), x)
    if rank >= 2:
        axes = tuple(data.draw(st.permutations(range(rank)))[:2])
        start = data.draw(st.integers(0, rank))
        offset = data.draw(st.integers(-2, 2))
        check(lambda x: (np.rot90(x, turns, axes), np.rollaxis(x, axes[0], start), np.moveaxis(x, axes[0], axes[1])), x)
        check(lambda x: (np.tril(x, turns), np.triu(x, turns), np.diagonal(x, offset, *axes), np.trace(x, offset, *axes)), x)


@given(data=st.data(), shape=FILLED, dtypes=st.tuples(*[st.sampled_from(["f8", "f4", "i8", "u1", "?"])] * 2))
def test_joining_of_random_shapes(data: Any, shape: tuple[int, ...], dtypes: tuple[str, str]) -> None:
    count = data.draw(st.integers(1, 3))
    arrays = [numbers(shape, dtypes[k % 2]) for k in range(count)]
    check(lambda *x: (np.vstack(x), np.hstack(x), np.dstack(x)), *arrays)
    check(lambda *x: (np.append(x[0], x[-1]), np.block([[*x], [*x]]), np.block([*x])), *arrays)
    if len(shape) <= 2:
        check(lambda *x: np.column_stack(x), *arrays)
    other = numbers(data.draw(FILLED), dtypes[1])
    check(lambda x, y: np.kron(x, y), arrays[0], other)


@given(data=st.data(), shape=FILLED, kinds=st.tuples(*[st.sampled_from(["f8", "f4", "i8"])] * 2))
def test_calculus_of_random_shapes(data: Any, shape: tuple[int, ...], kinds: tuple[str, str]) -> None:
    shape = (*shape, data.draw(st.integers(3, 5)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, order, length = numbers(shape, kinds[0]), data.draw(st.integers(1, 2)), shape[axis]
    points = np.cumsum(1 + numbers((length,), float) ** 2).astype(kinds[1])
    check(lambda x: (np.trapezoid(x, axis=axis), np.trapezoid(x, points, axis=axis), np.trapezoid(x, dx=0.5, axis=axis)), x)
    if length > order:

        def slopes(x: Any, p: Any) -> Any:
            return [np.gradient(x, *more, axis=axis, edge_order=order) for more in ((), (0.5,), (points,), (p,))]

        check(slopes, x, points.astype(float), rtol=1e-12)
    check(lambda x: (np.ediff1d(x), np.round(x / 7, order), np.ptp(x, axis=axis)), x)
    vectors = numbers((*shape[:-1], 3), kinds[1])
    check(lambda x, y: np.cross(x[..., :3], y, axisc=0), x, vectors)
    at = numbers(shape, "f8") / 3
    check(lambda at, p, x: np.interp(at, p, x.reshape(-1, length)[0] if axis in (-1, len(shape) - 1) else p * 2), at, points, x, rtol=1e-12)


@given(data=st.data(), shape=FILLED, keepdims=st.booleans(), dtype=st.sampled_from(["f8", "f4", "i8"]))
def test_reductions_that_pass_over_nan(data: Any, shape: tuple[int, ...], keepdims: bool, dtype: str) -> None:
    axes = st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape)).map(tuple) if shape else st.just(())
    axis = data.draw(st.none() | axes)
    x = numbers(shape, dtype)
    if dtype != "i8":
        missing = data.draw(st.lists(st.booleans(), min_size=x.size, max_size=x.size))
        x = np.where(np.array(missing, bool).reshape(shape), np.nan, x).astype(dtype)
    for name in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"):
        check(lambda x, name=name: getattr(np, name)(x, axis=axis, keepdims=keepdims), x, rtol=1e-12)


@given(batch=FILLED, other=FILLED, n=st.integers(0, 3), k=st.integers(0, 3), m=st.integers(1, 3), data=st.data())
def test_matmul_broadcasts_batches(batch: tuple[int, ...], other: tuple[int, ...], n: int, k: int, m: int, data: Any) -> None:
    dtypes = [data.draw(st.sampled_from(["f8", "f4", "i8", "u1", "?"])) for _ in range(2)]
    x, y = numbers((*batch, n, k), dtypes[0]), numbers((*other, k, m), dtypes[1])
    try:
        np.broadcast_shapes(batch, other)
    except ValueError:
        with pytest.raises(ShapeError, match="matmul"):
            traced(np.matmul, x, y)
        return
    check(np.matmul, x, y)
    check(lambda x, y: x[..., 0, :] @ y[..., 0] if x.shape[-2] and x.ndim == y.ndim == 2 else x @ y, x, y)


@settings(max_examples=150)
@given(data=st.data())
def test_einsum_of_random_strings(data: Any) -> None:
    lengths = {c: data.draw(st.integers(1, 3)) for c in "abcd"}
    terms = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=4))
    letters = sorted(set("".join(terms)))
    out = "".join(data.draw(st.permutations(letters)))[: data.draw(st.integers(0, len(letters)))]
    dots = data.draw(st.lists(st.sampled_from(["", "...", "..."]), min_size=len(terms), max_size=len(terms)))
    hidden = [tuple(data.draw(st.sampled_from([1, n])) for n in (2, 3)[data.draw(st.integers(0, 2)) :]) if d else () for d in dots]
    arrays = [numbers((*shape, *(lengths[c] for c in term))) for shape, term in zip(hidden, terms, strict=True)]
    left = ",".join(d + term for d, term in zip(dots, terms, strict=True))
    for text in (left, f"{left}->{'...' if any(dots) else ''}{out}"):
        check(lambda *x, text=text: np.einsum(text, *x), *arrays)


# ---- sg.nn -----------------------------------------------------------------------------------------------------------------

LARGE = np.array([[800.0, -800.0, 0.0], [1.0, -np.inf, 2.0]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (nn.sigmoid, scipy.special.expit),
        (nn.softplus, lambda x: np.logaddexp(0, x)),
        (nn.relu, lambda x: np.maximum(x, 0)),
        (nn.softmax, lambda x: scipy.special.softmax(x, axis=-1)),
        (nn.log_softmax, lambda x: scipy.special.log_softmax(x, axis=-1)),
        (nn.logsumexp, scipy.special.logsumexp),
        (lambda x: nn.softmax(x, axis=None), scipy.special.softmax),
        (lambda x: nn.softmax(x, axis=0), lambda x: scipy.special.softmax(x, axis=0)),
        (lambda x: nn.logsumexp(x, axis=1, keepdims=True), lambda x: scipy.special.logsumexp(x, axis=1, keepdims=True)),
    ],
)
def test_nn_functions_are_scipys_and_stable(ours: Any, reference: Any, dtype: Any) -> None:
    with np.errstate(all="ignore"):
        x = LARGE.astype(dtype) if dtype != np.int64 else ARRAYS["i"]
        expected = np.asarray(reference(x))
    for result in (traced(ours, x)[0], ours(x)):
        assert result.dtype == (dtype if dtype != np.int64 or ours is nn.relu else np.float64)
        assert not np.any(np.isnan(result))
        np.testing.assert_allclose(result, expected, rtol=1e-14 if dtype != np.float32 else 1e-6, atol=1e-30)


def test_derivatives_at_kinks_follow_the_conventions() -> None:
    def gradient(function: Any, *x: float) -> list[float]:
        found = sg.grad(sg.trace(function, backend="interp"))(np.array(x, float))
        return np.asarray(found).tolist()

    assert gradient(np.std, 2, 2, 2) == [0, 0, 0]
    assert gradient(np.linalg.norm, 0, 0) == [0, 0]
    assert gradient(lambda x: np.sum(np.linalg.norm(x.reshape(2, 1), axis=1)), 0, -3) == [0, -1]
    assert gradient(lambda x: np.sum(np.clip(x, 0, None)), -1, 0, 1) == [0, 1, 1]
    assert gradient(lambda x: np.sum(np.clip(x, 0, 1)), -1, 0, 1, 2) == [0, 1, 1, 0]
    assert gradient(np.max, 1, 3, 3) == [0, 0.5, 0.5]
    assert gradient(nn.logsumexp, -np.inf, -np.inf) == [0, 0]
    assert gradient(lambda x: np.sum(np.sinc(x)), 0, 1) == [0, -1]
    assert gradient(lambda x: np.sum(np.round(x, 1)), 0.05, 1) == [0, 0]
    assert gradient(lambda x: np.sum(np.interp(x, [0.0, 1.0, 3.0], [0.0, 2.0, 3.0])), -1, 0, 0.5, 1, 2, 3, 4) == [0, 2, 2, 0.5, 0.5, 0, 0]
    assert gradient(lambda x: np.nansum(x) + np.nanmax(x) + np.nanmean(x), np.nan, 1, 3) == [0, 1.5, 2.5]
    assert gradient(np.nanstd, np.nan, 2, 2) == [0, 0, 0]
    assert gradient(nn.logsumexp, -np.inf, 2, 2) == [0, 0.5, 0.5]
    assert gradient(lambda x: nn.softmax_cross_entropy(x, 1), 800, 0, -np.inf) == [1, -1, 0]
    assert gradient(lambda x: np.sum(scipy.special.xlogy(0 * x, x)), 0, 2) == [0, 0]
    assert gradient(lambda x: np.sum(scipy.special.xlogy(x, np.array([0.0, np.e]))), 0, 0) == [0, 1]


def test_sinc_near_zero() -> None:
    mpmath = pytest.importorskip("mpmath")
    x = np.array([0.0, 1e-200, 1e-9, 1e-3, 0.1, 0.2999, 0.3001, -0.7, 1.5])
    derivative = sg.grad(sg.trace(lambda x: np.sum(np.sinc(x)), backend="interp"))
    curvature = sg.grad(sg.trace(lambda x: np.sum(derivative(x)), backend="interp"))
    for order, found in ((1, derivative(x)), (2, curvature(x))):
        with mpmath.workprec(300):
            exact = [float(mpmath.diff(lambda v: mpmath.sincpi(v), mpmath.mpf(v), order)) for v in x.tolist()]
        np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-30)


def test_nn_outside_of_a_trace_gives_numpy_results() -> None:
    assert isinstance(nn.sigmoid(0.0), np.float64)
    assert isinstance(nn.softmax([1, 2]), np.ndarray)
    assert nn.softmax(np.zeros((0, 3))).shape == (0, 3)
    assert nn.logsumexp(np.zeros((0, 3)), axis=0).tolist() == [-np.inf] * 3
    with pytest.raises(StaticgradError, match=r"test_numpy_functions\.py"):
        nn.softmax(np.zeros(3), axis=1)


def test_logsumexp_of_infinities() -> None:
    rows = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 3.0], [np.inf, np.inf], [np.nan, 0.0]])
    np.testing.assert_array_equal(nn.logsumexp(rows, axis=1), [-np.inf, np.inf, 3.0, np.inf, np.nan])


def test_cross_entropy_of_classes_and_of_distributions() -> None:
    logits, labels = np.array([[800.0, 0.0, -np.inf], [1.0, 2.0, 3.0]]), np.array([1, 2])
    expected = -scipy.special.log_softmax(logits, axis=-1)[[0, 1], labels]
    np.testing.assert_allclose(nn.softmax_cross_entropy(logits, labels), expected, rtol=1e-14)
    np.testing.assert_allclose(traced(nn.softmax_cross_entropy, logits, labels)[0], expected, rtol=1e-14)
    np.testing.assert_allclose(nn.softmax_cross_entropy(logits, nn.one_hot(labels, 3)), expected, rtol=1e-14)
    narrow = nn.softmax_cross_entropy(logits.astype(np.float32), labels.astype(np.uint8))
    assert narrow.dtype == np.float32
    assert np.isnan(nn.softmax_cross_entropy(logits, np.array([3, -1]))).all()
    assert nn.softmax_cross_entropy(np.zeros((2, 4, 5)), np.zeros((2, 4), int)).shape == (2, 4)
    for bad in (np.zeros(3, int), np.zeros((2, 3), int), np.zeros(2), np.zeros((2, 1))):
        with pytest.raises(StaticgradError, match="softmax_cross_entropy"):
            nn.softmax_cross_entropy(logits, bad)


def test_one_hot() -> None:
    np.testing.assert_array_equal(nn.one_hot(ARRAYS["k"], 3), np.eye(3)[ARRAYS["k"]])
    found = traced(lambda k: nn.one_hot(k, 4, np.float32), ARRAYS["k"])[0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.eye(4, dtype=np.float32)[ARRAYS["k"]])
    with pytest.raises(StaticgradError, match="integers"):
        nn.one_hot(np.zeros(2), 3)
    with pytest.raises(ValueError, match="negative"):
        nn.one_hot(np.zeros(2, int), -3)


# ---- the namespace --------------------------------------------------------------------------------------------------------


def test_namespace_outside_of_a_trace_is_numpys() -> None:
    assert type(snp.zeros(3)) is np.ndarray
    assert type(snp.array([1, 2])) is np.ndarray
    assert snp.sum([1, 2]) == 3
    assert snp.add is np.add
    np.testing.assert_array_equal(snp.r_[0:3, 5], np.r_[0:3, 5])
    np.testing.assert_array_equal(snp.c_[[1, 2], [3, 4]], np.c_[[1, 2], [3, 4]])
    assert snp.linspace(0, 1, 3).tolist() == [0, 0.5, 1]


def test_namespace_lists_what_it_has_and_names_what_is_near() -> None:
    names = dir(snp)
    assert {"zeros", "array", "sum", "einsum", "float32", "pi", "linalg", "r_", "matmul", "tanh"} <= set(names)
    assert all(hasattr(snp, name) for name in names)
    assert not hasattr(snp, "cumprod")
    with pytest.raises(AttributeError, match=r"staticgrad.numpy.cumprod.*sum"):
        snp.cumprod  # noqa: B018
    with pytest.raises(AttributeError, match=r"neither.*'summ'.*sum"):
        snp.summ  # noqa: B018
    with pytest.raises(AttributeError, match=r"linalg.eig .*linalg.eigh|linalg.eig.*eigh"):
        snp.linalg.eig  # noqa: B018
    assert "linalg.norm" in supported_names()
