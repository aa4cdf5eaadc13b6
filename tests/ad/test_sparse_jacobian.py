"""Sparse Jacobians and Hessians: equal to the dense ones, in as few sweeps as their structure allows."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import rosen_der, rosen_hess
from scipy.sparse import csr_array, random_array

import staticgrad as sg
from staticgrad.ad.coloring import color_jacobian, color_symmetric, least_colors
from staticgrad.errors import ArgumentError, DTypeError, InvalidValueError, MissingDerivativeError, ShapeError, TraceError
from staticgrad.ir.aval import FLOAT64
from staticgrad.ir.graph import Graph, inline
from staticgrad.ops.casts import cast
from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import tracer_of
from staticgrad.transforms import sparse
from tests.ad.functions import CASES
from tests.fuzz.programs import Program

MODES = ("auto", "forward", "reverse")


def interpreted(function):
    return sg.trace(function, backend="interp")


def assert_equal(found, expected, rtol=1e-12, atol=1e-12):
    """Assert that a CSR matrix is a dense one, entry by entry, and in order."""
    assert isinstance(found, csr_array)
    assert found.has_canonical_format
    np.testing.assert_allclose(found.toarray(), expected, rtol=rtol, atol=atol)


def tridiagonal(x):
    """The residual of u'' = exp(u) on a grid."""
    left, right = np.concatenate([[0.0], x[:-1]]), np.concatenate([x[1:], [0.0]])
    return left - 2 * x + right + np.exp(x)


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def brusselator(state):
    """Two concentrations that react, and diffuse on a grid whose ends meet."""
    u, v = state

    def diffused(w):
        return np.roll(w, 1, 0) + np.roll(w, -1, 0) + np.roll(w, 1, 1) + np.roll(w, -1, 1) - 4 * w

    return np.stack([1 + u * u * v - 4.4 * u + 0.2 * diffused(u), 3.4 * u - u * u * v + 0.2 * diffused(v)])


def flattened(jacobian, rows):
    return np.reshape(jacobian, (rows, -1))


# ---- equal to the dense ones


FUNCTIONS = {
    "tridiagonal": (tridiagonal, (7,)),
    "brusselator": (brusselator, (2, 4, 3)),
    "sums of rows": (lambda x: np.sum(np.sin(x), axis=1), (4, 5)),
    "rows and a total": (lambda x: np.concatenate([np.tanh(x[0]), [np.sum(x * x)]]), (3, 4)),
    "matrix of a product": (lambda x: x @ x[:2], (3, 2)),
    "one number": (lambda x: np.sum(x[1:] * x[:-1]), (6,)),
    "itself": (lambda x: x, (3,)),
    "reversed": (lambda x: x[::-1, ::2] * 2.0, (3, 5)),
    "without derivatives": (lambda x: np.floor(x), (3,)),
    "a constant": (lambda x: np.ones(2), (3,)),
    "no elements": (lambda x: x * 2.0, (0,)),
    "no results": (lambda x: x[:0], (3,)),
    "a scalar": (lambda x: x * x, ()),
    "sorted": (lambda x: np.sort(x, axis=0) * x, (3, 4)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobians_of_functions(name, mode):
    function, shape = FUNCTIONS[name]
    x = np.asarray(np.random.default_rng(3).standard_normal(shape))
    function = interpreted(function)
    found = sg.sparse_jacobian(function, mode=mode)(x)
    rows = np.size(function(x))
    assert_equal(found, np.reshape(sg.jacobian(function)(x), (rows, x.size)))
    assert found.dtype == np.float64


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hessians_and_jacobians_of_the_cases(case):
    function = interpreted(lambda *args: case.function(np, *args))
    for k, x in enumerate(case.args):
        if np.asarray(x).dtype.kind != "f":
            continue
        size = np.size(x)
        gradient = sg.grad(function, k)
        dense = np.reshape(sg.hessian(function, k)(*case.args), (size, size))
        scale = max(1.0, np.max(np.abs(dense)))
        assert_equal(sg.sparse_hessian(function, k)(*case.args), dense, rtol=1e-9, atol=1e-9 * scale)
        assert_equal(sg.sparse_jacobian(function, k)(*case.args), np.reshape(gradient(*case.args), (1, size)), rtol=1e-9, atol=1e-9)
        for mode in ("forward", "reverse"):
            assert_equal(sg.sparse_jacobian(gradient, k, mode)(*case.args), dense, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed):
    """As functions of all their float inputs: Jacobians of several values in both modes, the Hessian of a total."""
    program = Program(seed + 8000, smooth=True).grow(14)
    active = program.active()
    values = [cast(v, FLOAT64) for v in program.pool[-4:] if v.dtype.kind == "f" and v.aval.size <= 30]

    def of_graph(outputs):
        graph = Graph(tuple(active), tuple(outputs))

        def function(xs):
            return [tracer_of(y) for y in inline(graph, [lift(x) for x in xs])]

        return interpreted(function)

    arrays = [program.arrays[program.inputs.index(v)] for v in active]
    function = of_graph(values)
    dense = np.block(
        [[np.reshape(b, (y.aval.size, x.aval.size)) for b, x in zip(row, active, strict=True)]
         for row, y in zip(sg.jacobian(function)(arrays), values, strict=True)]
    )  # fmt: skip
    scale = max(1.0, np.max(np.abs(dense), initial=0))
    for mode in MODES:
        assert_equal(sg.sparse_jacobian(function, mode=mode)(arrays), dense, rtol=1e-9, atol=1e-9 * scale)
    total = of_graph([program.total()])
    scalar = interpreted(lambda xs: total(xs)[0])
    blocks = sg.hessian(scalar)(arrays)
    dense = np.block([[np.reshape(b, (x.aval.size, z.aval.size)) for b, z in zip(row, active, strict=True)]
                      for row, x in zip(blocks, active, strict=True)])  # fmt: skip
    scale = max(1.0, np.max(np.abs(dense), initial=0))
    assert_equal(sg.sparse_hessian(scalar)(arrays), dense, rtol=1e-8, atol=1e-8 * scale)


# ---- known matrices, compiled


def test_a_tridiagonal_jacobian_of_a_million_takes_three_sweeps():
    n = 1_000_000
    jacobian = sg.sparse_jacobian(lambda x: tridiagonal(x))
    x = np.random.default_rng(0).standard_normal(n)
    found = jacobian(x)
    coloring = jacobian.coloring(x)
    assert (coloring.mode, coloring.count) == ("forward", 3)
    assert found.shape == (n, n)
    assert found.nnz == 3 * n - 2
    np.testing.assert_array_equal(found.diagonal(1), np.ones(n - 1))
    np.testing.assert_array_equal(found.diagonal(-1), np.ones(n - 1))
    np.testing.assert_allclose(found.diagonal(), np.exp(x) - 2, rtol=1e-14, atol=1e-14)
    assert jacobian.lower(x).graph.outputs[0].shape == (3, n)
    again = jacobian(x + 1)
    np.testing.assert_allclose(again.diagonal(), np.exp(x + 1) - 2, rtol=1e-14, atol=1e-14)
    assert jacobian.cache_info().traces == 1


def test_the_hessian_of_a_chained_rosenbrock_function():
    n = 100_000
    hessian = sg.sparse_hessian(rosenbrock)
    x = np.random.default_rng(1).standard_normal(n)
    found = hessian(x)
    assert hessian.coloring(x).count == 3
    assert found.nnz == 3 * n - 2
    curvature = np.append(1200 * x[:-1] ** 2 - 400 * x[1:] + 2, 0.0) + np.append(0.0, np.full(n - 1, 200.0))
    np.testing.assert_allclose(found.diagonal(), curvature, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(found.diagonal(1), -400 * x[:-1], rtol=1e-12)
    np.testing.assert_array_equal(found.diagonal(1), found.diagonal(-1))
    small = x[:20]
    assert_equal(hessian(small), rosen_hess(small), rtol=1e-10, atol=1e-9)
    assert_equal(sg.sparse_jacobian(sg.grad(rosenbrock))(small), rosen_hess(small), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(sg.grad(rosenbrock)(small), rosen_der(small), rtol=1e-10)


def test_the_brusselator_on_a_grid():
    state = np.random.default_rng(2).standard_normal((2, 40, 40))
    jacobian = sg.sparse_jacobian(brusselator)
    found = jacobian(state)
    assert np.diff(found.indptr).max() == 6  # itself, four neighbours, the other concentration
    assert 6 <= jacobian.coloring(state).count <= 12
    u, v = state
    np.testing.assert_allclose(found.diagonal()[:1600], np.ravel(2 * u * v - 4.4 - 0.8), rtol=1e-12)
    np.testing.assert_allclose(found.diagonal(1600), np.ravel(u * u), rtol=1e-12)
    np.testing.assert_allclose(found.diagonal(-1600), np.ravel(3.4 - 2 * u * v), rtol=1e-12)
    small = state[:, :5, :4]
    assert_equal(jacobian(small), flattened(sg.jacobian(brusselator)(small), 40))


def test_a_laplacian_in_the_plane_is_the_sum_of_those_along_its_axes():
    from scipy.sparse import diags_array, eye_array, kron

    def laplacian(u):
        wide = np.pad(u, 1)
        return wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * u

    rows, columns = 30, 17
    u = np.zeros((rows, columns))
    jacobian = sg.sparse_jacobian(laplacian)
    one = [diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(k, k)) for k in (rows, columns)]
    expected = kron(one[0], eye_array(columns)) + kron(eye_array(rows), one[1])
    assert_equal(jacobian(u), expected.toarray())
    assert jacobian.coloring(u).count == 5


def test_the_hessian_of_an_arrow_takes_two_sweeps():
    n = 100_000

    def arrow(x):
        return np.sum(np.sin(x[-1]) * x[:-1] ** 3)

    hessian = sg.sparse_hessian(arrow)
    x = np.random.default_rng(4).standard_normal(n)
    found = hessian(x)
    assert hessian.coloring(x).count == 2
    assert found.nnz == 3 * n - 2
    np.testing.assert_allclose(found.diagonal()[:-1], 6 * x[:-1] * np.sin(x[-1]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[[n - 1], :].toarray()[0, :-1], 3 * x[:-1] ** 2 * np.cos(x[-1]), rtol=1e-12)
    assert_equal(hessian(x[:6]), sg.hessian(arrow)(x[:6]))


def test_an_arrow_takes_a_sweep_for_each_side_and_one_for_its_shaft():
    n = 100_000

    def arrow(x):
        return np.concatenate([[np.sum(np.sin(x))], x[1:] * x[0] ** 2])

    jacobian = sg.sparse_jacobian(arrow)
    x = np.random.default_rng(9).standard_normal(n)
    found = jacobian(x)
    coloring = jacobian.coloring(x)
    assert (coloring.mode, coloring.count) == ("both", 3)
    assert found.nnz == 3 * n - 2
    np.testing.assert_allclose(found[[0], :].toarray()[0], np.cos(x), rtol=1e-12)
    np.testing.assert_allclose(found.diagonal()[1:], x[0] ** 2, rtol=1e-12)
    np.testing.assert_allclose(found[:, [0]].toarray()[1:, 0], 2 * x[0] * x[1:], rtol=1e-12)
    for small in (x[:6], np.float32(x[:6])):
        assert_equal(jacobian(small), sg.jacobian(arrow)(small), rtol=1e-6)
    assert jacobian.lower(x).graph.outputs[0].shape == (3 * n,)


def test_hessians_are_symmetric_to_the_last_bit():
    def surface(u):
        """The area of a surface over a grid, as MINPACK-2's minimal surface has it."""
        across, along = u[:-1, :-1] - u[1:, 1:], u[1:, :-1] - u[:-1, 1:]
        return np.sum(np.sqrt(1 + across**2 + along**2))

    def chain(x):
        return np.sum(np.log1p(np.exp(x[1:] * x[:-1]) + x[2:].sum() * 0.1) / (1 + x[:-1] ** 2))

    rng = np.random.default_rng(10)
    for f, x in ((surface, rng.standard_normal((30, 20))), (chain, rng.standard_normal(50))):
        found = sg.sparse_hessian(f)(x).toarray()
        np.testing.assert_array_equal(found, found.T)
        np.testing.assert_allclose(found, sg.hessian(f)(x).reshape(found.shape), rtol=1e-10, atol=1e-12)


# ---- colourings


def assert_apart(pattern, coloring):
    """Assert that no row (in reverse mode no column) has two entries of one colour."""
    matrix = pattern.T.tocsr() if coloring.mode == "reverse" else pattern
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    assert len(np.unique(rows * coloring.count + coloring.colors[matrix.indices])) == matrix.nnz


def random_pattern(rng, rows, columns, density):
    pattern = csr_array(random_array((rows, columns), density=density, rng=rng) != 0)
    pattern.sort_indices()
    return pattern


sizes = st.integers(0, 12)


@given(seed=st.integers(0, 1000), rows=sizes, columns=sizes, density=st.floats(0, 0.5), mode=st.sampled_from(MODES))
def test_colours_of_one_row_differ(seed, rows, columns, density, mode):
    pattern = random_pattern(np.random.default_rng(seed), rows, columns, density)
    coloring = color_jacobian(pattern, mode)
    assert_apart(pattern, coloring)
    assert coloring.count >= least_colors(pattern)[coloring.mode]
    assert set(coloring.colors) == set(range(coloring.count))
    if mode == "auto":
        assert coloring.count <= min(color_jacobian(pattern, each).count for each in MODES)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 30), columns=st.integers(1, 30), long=st.integers(0, 3), wide=st.integers(0, 3))
def test_matrices_are_recovered_from_their_sweeps(seed, rows, columns, long, wide):
    rng = np.random.default_rng(seed)
    dense = random_pattern(rng, rows, columns, 0.06).toarray()
    dense[rng.integers(0, rows, long)] = True
    dense[:, rng.integers(0, columns, wide)] = True
    pattern = csr_array(dense)
    matrix = rng.integers(1, 9, (rows, columns)) * dense * 1.0
    counts = {}
    for mode in MODES:
        coloring = color_jacobian(pattern, mode)
        (by_column, forward), (by_row, reverse) = coloring.sides(columns)
        assert (counts.setdefault(mode, forward + reverse)) == coloring.count
        sweeps = [matrix @ (by_column == k) for k in range(forward)] + [(by_row == k) @ matrix for k in range(reverse)]
        data = np.concatenate([*sweeps, []])[coloring.places(pattern)]
        np.testing.assert_array_equal(csr_array((data, pattern.indices, pattern.indptr), shape=(rows, columns)).toarray(), matrix)
    assert counts["auto"] <= min(counts.values())


@given(seed=st.integers(0, 1000), size=st.integers(0, 14), density=st.floats(0, 0.5))
def test_a_star_colouring_tells_each_entry_apart(seed, size, density):
    """Neighbours differ and no path of four has two colours, or no row has two columns of one; a matrix is recovered from its sweeps."""
    rng = np.random.default_rng(seed)
    half = random_pattern(rng, size, size, density)
    pattern = csr_array((half + half.T) != 0)
    pattern.sort_indices()
    coloring = color_symmetric(pattern)
    dense = pattern.toarray() & ~np.eye(size, dtype=bool)
    near = [np.flatnonzero(row) for row in dense]
    colors = coloring.colors
    rows = np.repeat(np.arange(size), np.diff(pattern.indptr))
    are_apart = len(set(zip(rows, colors[pattern.indices], strict=True))) == pattern.nnz
    for a in range(0 if are_apart else size):
        for b in near[a]:
            assert colors[a] != colors[b]
            assert not any(colors[c] == colors[a] and colors[d] == colors[b] for c in near[b] if c != a for d in near[c] if d not in (a, b))
    values = rng.integers(1, 9, (size, size)) * 1.0
    matrix = (values + values.T) * pattern.toarray()
    sweeps = np.stack([matrix @ (colors == k) for k in range(coloring.count)]) if size else np.zeros((0, 0))
    data = sweeps.ravel()[coloring.places(pattern)]
    np.testing.assert_array_equal(csr_array((data, pattern.indices, pattern.indptr), shape=(size, size)).toarray(), matrix)


@pytest.mark.parametrize("width", range(4))
def test_bands_get_the_fewest_colours(width):
    n = 50
    band = csr_array(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= width)
    for mode in MODES:
        assert color_jacobian(band, mode).count == 2 * width + 1
    assert color_symmetric(band).count == 2 * width + 1


def test_auto_takes_the_side_with_fewer_colours():
    x = np.ones(20)
    wide, tall = lambda x: np.sum(x), lambda x: x[0] * np.ones(30)
    assert sg.sparse_jacobian(wide).coloring(x).mode == "reverse"
    assert sg.sparse_jacobian(wide).coloring(x).count == 1
    assert sg.sparse_jacobian(tall).coloring(x).mode == "forward"
    assert sg.sparse_jacobian(wide, mode="forward").coloring(x).count == 20
    two = lambda x: np.concatenate([[np.sum(x)], x])  # noqa: E731
    assert sg.sparse_jacobian(two).coloring(x).count == 2
    assert repr(sg.sparse_jacobian(two).coloring(x)) == "Coloring(mode='reverse', count=2)"


# ---- arguments and results of every kind


def test_containers_are_taken_leaf_by_leaf():
    params = {"b": np.array([1.0, 2.0]), "w": np.arange(6.0).reshape(2, 3)}

    def f(params, x):
        return {"y": params["w"] @ x + params["b"], "z": (params["b"] ** 2, params["w"][0, 1])}

    x = np.array([1.0, -1.0, 2.0])
    expected = np.zeros((5, 8))
    expected[0, [0, 2, 3, 4]] = expected[1, [1, 5, 6, 7]] = 1, 1, -1, 2
    expected[2, 0], expected[3, 1], expected[4, 3] = 2, 4, 1
    for mode in MODES:
        assert_equal(sg.sparse_jacobian(f, mode=mode)(params, x), expected)
        both = sg.sparse_jacobian(f, (1, 0), mode)(params, x)
        np.testing.assert_array_equal(both.toarray()[:, 3:], expected)
        np.testing.assert_array_equal(both.toarray()[:2, :3], params["w"])
    hessian = sg.sparse_hessian(lambda p: np.sum(p["b"][0] * p["w"] ** 2))(params)
    assert hessian.shape == (8, 8)
    np.testing.assert_array_equal(hessian.toarray()[0, 2:], 2 * np.arange(6))


def test_aux_comes_along():
    def f(x, y):
        return {"a": x[1:] * y}, (np.argmax(x), {"x": x + y})

    x = np.array([1.0, 3.0, 2.0])
    for function in (f, interpreted(f)):
        matrix, (where, kept) = sg.sparse_jacobian(function, has_aux=True)(x, 2.0)
        assert_equal(matrix, [[0, 2, 0], [0, 0, 2]])
        assert (where, kept["x"].tolist()) == (1, [3, 5, 4])
        hessian = sg.sparse_hessian(lambda x, y, f=function: (np.sum(f(x, y)[0]["a"] ** 2), f(x, y)[1]), has_aux=True)
        matrix, (where, kept) = hessian(x, 2.0)
        assert_equal(matrix, np.diag([0.0, 8.0, 8.0]))
        assert (where, kept["x"].tolist()) == (1, [3, 5, 4])
        assert hessian.pattern(x, 2.0).nnz == 2
    with pytest.raises(ArgumentError, match=r"has_aux=True: the function must return a pair"):
        sg.sparse_jacobian(lambda x: x, has_aux=True)(x)
    with pytest.raises(DTypeError, match=r"aux \(has_aux=True\)"):
        sg.sparse_jacobian(lambda x: (x, np.argsort(x)))(x)


def test_checkpoints_leave_no_trace():
    f = sg.checkpoint(lambda x: np.sin(x[1:] * x[:-1]))
    x = np.linspace(0.1, 1, 6)
    for mode in MODES:
        jacobian = sg.sparse_jacobian(f, mode=mode)
        assert jacobian.coloring(x).count == 2
        assert_equal(jacobian(x), sg.jacobian(f)(x))


def test_scipy_takes_the_matrices():
    """Least squares, a stiff differential equation, and minimisation under constraints."""
    from scipy.integrate import solve_ivp
    from scipy.optimize import NonlinearConstraint, least_squares, minimize

    def residuals(x):
        return np.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])

    n = 300
    found = least_squares(sg.trace(residuals), np.full(n, 0.5), jac=sg.sparse_jacobian(residuals), x_scale="jac")
    np.testing.assert_allclose(found.x, 1, rtol=1e-6)

    def reaction(t, y):
        u, v = y[::2], y[1::2]
        du = 1 + u * u * v - 4 * u + 800 * np.diff(u, 2, prepend=1.0, append=1.0)
        dv = 3 * u - u * u * v + 800 * np.diff(v, 2, prepend=3.0, append=3.0)
        return np.ravel(np.stack([du, dv], axis=1))

    x = np.linspace(0, 1, 42)[1:-1]
    start = np.ravel(np.stack([1 + np.sin(2 * np.pi * x), np.full(40, 3.0)], axis=1))
    jacobian = sg.sparse_jacobian(reaction, 1)
    assert jacobian.coloring(0.0, start).count == 4
    runs = [solve_ivp(sg.trace(reaction), (0.0, 1.0), start, method="Radau", jac=jac, rtol=1e-6, atol=1e-8) for jac in (jacobian, None)]
    np.testing.assert_allclose(runs[0].y[:, -1], runs[1].y[:, -1], rtol=1e-4)

    def products(x):
        return x[1:] * x[:-1]

    limits = NonlinearConstraint(
        sg.trace(products), 0.5, 2.0, jac=sg.sparse_jacobian(products), hess=sg.sparse_hessian(lambda x, v: products(x) @ v)
    )
    x0 = np.full(30, 0.8)
    for constraints in ((), limits):
        found = minimize(
            rosenbrock, x0, jac=sg.grad(rosenbrock), hess=sg.sparse_hessian(rosenbrock), method="trust-constr", constraints=constraints
        )
        np.testing.assert_allclose(found.x, 1, rtol=1e-3)


def test_a_product_with_a_sparse_matrix():
    """SciPy's own does not take traced arrays, and the error says how to write it."""
    import staticgrad.numpy as snp

    matrix = random_array((30, 20), density=0.1, rng=np.random.default_rng(11)).tocoo()
    x = np.linspace(0, 1, 20)
    for product in (lambda x: matrix @ x, lambda x: matrix.tocsr() @ x, lambda x: matrix.dot(x)):
        with pytest.raises(TraceError, match=r"np\.add\.at\(y, A\.row, A\.data \* x\[A\.col\]\)"):
            sg.sparse_jacobian(product)(x)

    def product(x):
        y = snp.zeros(matrix.shape[0])
        np.add.at(y, matrix.row, matrix.data * x[matrix.col])
        return y

    assert_equal(sg.sparse_jacobian(product)(x), matrix.toarray())


def test_dtypes():
    x = np.float32([1, 2, 3])
    assert sg.sparse_jacobian(tridiagonal)(x).dtype == np.float32
    assert sg.sparse_hessian(rosenbrock)(x).dtype == np.float32
    mixed = sg.sparse_jacobian(lambda x, y: x * y, (0, 1))(x, np.ones(3))
    assert mixed.dtype == np.float64
    np.testing.assert_array_equal(mixed.toarray(), np.hstack([np.eye(3), np.diag(x)]))


def test_keyword_and_static_arguments():
    @functools.partial(sg.trace, static_argnames="power")
    def f(x, power, *, scale):
        return x**power * scale

    jacobian = sg.sparse_jacobian(f)
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(jacobian(x, 3, scale=2.0).toarray(), np.diag(6 * x * x))
    np.testing.assert_array_equal(jacobian(x, power=1, scale=2.0).toarray(), 2 * np.eye(2))
    with pytest.raises(ArgumentError, match="static"):
        sg.sparse_jacobian(f, 1)(x, 3, scale=2.0)


def test_results_are_the_callers_own():
    jacobian = sg.sparse_jacobian(tridiagonal)
    x = np.zeros(4)
    first, pattern = jacobian(x), jacobian.pattern(x)
    expected = first.toarray()
    first.data[:] = 0
    first.eliminate_zeros()
    pattern.data[:] = False
    pattern.indices[:] = 0
    assert_equal(jacobian(x), expected)
    np.testing.assert_array_equal(jacobian.pattern(x).toarray(), expected != 0)
    with pytest.raises(ValueError, match="read-only"):
        jacobian.coloring(x).colors[0] = 2


def test_functions_are_traced_once_and_again_where_a_global_changed():
    scale = 2.0

    def f(x):
        return x[1:] * x[:-1] * scale

    x = np.array([1.0, 2.0, 3.0])
    for _ in range(3):
        np.testing.assert_array_equal(sg.sparse_jacobian(f)(x).toarray(), [[4, 2, 0], [0, 6, 4]])
    assert sg.sparse_jacobian(f).cache_info().traces == 1
    scale = 3.0
    np.testing.assert_array_equal(sg.sparse_jacobian(f)(x).toarray(), [[6, 3, 0], [0, 9, 6]])
    assert sg.sparse_jacobian(f)(np.ones(5)).shape == (4, 5)


def test_printing_happens_once(capsys):
    def f(x):
        sg.debug.print("sum {}", np.sum(x))
        return x * x

    sg.sparse_jacobian(f)(np.ones(2))
    assert capsys.readouterr().out == "sum 2.0\n"


def test_batches_are_block_diagonal():
    weights = np.random.default_rng(5).standard_normal((2, 3))
    layer = sg.vmap(lambda x: np.tanh(weights @ x))
    xs = np.random.default_rng(6).standard_normal((50, 3))
    jacobian = sg.sparse_jacobian(layer)
    assert jacobian.coloring(xs).count == 2
    assert jacobian.pattern(xs).nnz == 50 * 6
    assert_equal(jacobian(xs), flattened(sg.jacobian(layer)(xs), 100))


def adjacent(count, edges):
    """Return the pattern of a symmetric matrix whose graph has these edges."""
    dense = np.eye(count, dtype=bool)
    for a, b in edges:
        dense[a, b] = dense[b, a] = True
    return csr_array(dense)


def test_graphs_get_as_few_colours_as_a_star_colouring_needs():
    """Their star chromatic numbers are known (Fertin, Raspaud, Reed 2004)."""
    tree = adjacent(63, [((k - 1) // 2, k) for k in range(1, 63)])
    assert color_symmetric(tree).count == 3
    assert color_symmetric(adjacent(10, [(a, 3 + b) for a in range(3) for b in range(7)])).count == 4
    assert [color_symmetric(adjacent(n, [(k, (k + 1) % n) for k in range(n)])).count for n in (5, 9, 10)] == [4, 3, 3]
    petersen = [(k, (k + 1) % 5) for k in range(5)] + [(k, k + 5) for k in range(5)] + [(5 + k, 5 + (k + 2) % 5) for k in range(5)]
    assert color_symmetric(adjacent(10, petersen)).count == 5
    blocks = np.block([[np.kron(np.eye(5), np.ones((4, 4))), np.ones((20, 3))], [np.ones((3, 20)), np.ones((3, 3))]])
    assert color_symmetric(csr_array(blocks != 0)).count == 7
    assert color_symmetric(csr_array(np.ones((300, 300), bool))).count == 300


@pytest.mark.parametrize(
    ("width", "dimensions", "diagonals", "most"), [(30, 2, False, 7), (30, 2, True, 9), (9, 3, False, 12), (9, 3, True, 27)]
)
def test_grids_get_few_colours(width, dimensions, diagonals, most):
    """Neighbours along the axes alone, or across diagonals too."""
    places = np.stack(np.meshgrid(*[np.arange(width)] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    apart = np.abs(places[:, None] - places[None])
    near = csr_array(apart.max(-1) <= 1 if diagonals else apart.sum(-1) <= 1)
    assert color_jacobian(near).count <= most
    assert color_symmetric(near).count <= most


def test_auto_takes_the_side_that_has_a_rule():
    numba = pytest.importorskip("numba")
    double = numba.njit(lambda x: x * 2.0)
    only_reverse = sg.njit_op(double, vjp=lambda g, y, x: (2.0 * g,))
    only_forward = sg.njit_op(double, jvp=lambda t, y, x: 2.0 * t[0])
    x = np.ones(3)
    for op in (only_reverse, only_forward):
        np.testing.assert_array_equal(sg.sparse_jacobian(interpreted(lambda x, op=op: op(x)))(x).toarray(), 2 * np.eye(3))
        wide = interpreted(lambda x, op=op: op(x)[:1])
        np.testing.assert_array_equal(sg.sparse_jacobian(wide)(x).toarray(), [[2, 0, 0]])
    with pytest.raises(MissingDerivativeError, match="forward"):
        sg.sparse_jacobian(interpreted(only_reverse), mode="forward")(x)


def test_derivatives_by_hand_need_not_be_symmetric():
    """Their second derivatives are not taken to be."""
    numba = pytest.importorskip("numba")
    product = numba.njit(lambda x, y: x * y)
    op = sg.njit_op(product, vjp=lambda g, z, x, y: (g * x, g * 5.0), jvp=lambda t, z, x, y: t[0])
    f = interpreted(lambda v: np.sum(op(v[:2], v[2:])))
    v = np.array([1.0, 2.0, 3.0, 4.0])
    found = sg.sparse_hessian(f)
    np.testing.assert_array_equal(found(v).toarray(), sg.hessian(f)(v))
    assert found.coloring(v).mode != "symmetric"


def test_rules_by_hand_are_respected():
    """They say what depends on what, and auto takes the mode that there are rules for."""

    @sg.custom_vjp
    def clipped(x):
        return np.sin(x)

    clipped.defvjp(lambda x: (np.sin(x), x), lambda x, g: (np.clip(g, -0.5, 0.5) * np.cos(x),))
    x = np.array([0.3, 0.8, -0.4])

    def f(x):
        return clipped(x) * x

    jacobian = sg.sparse_jacobian(interpreted(f))
    assert jacobian.pattern(x).nnz == 3
    assert_equal(jacobian(x), sg.jacobian(interpreted(f))(x))
    total = interpreted(lambda x: np.sum(f(x)))
    assert_equal(sg.sparse_hessian(total)(x), sg.hessian(total)(x))


def test_branches_depend_on_what_one_of_them_does():
    def f(x):
        return sg.cond(x[0] > 0, lambda y: (np.sin(y), y[::-1]), lambda y: (y * y, y * 2.0), x[1:])

    x = np.array([0.3, 0.8, -0.4])
    for function in (f, interpreted(f)):
        jacobian = sg.sparse_jacobian(function)
        np.testing.assert_array_equal(jacobian.pattern(x).toarray(), [[0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1]])
        assert_equal(jacobian(x), np.vstack(sg.jacobian(function)(x)))
    total = interpreted(lambda x: np.sum(f(x)[0] * f(x)[1]))
    assert_equal(sg.sparse_hessian(total)(x), sg.hessian(total)(x))


def test_a_loop_over_independent_equations_keeps_them_apart():
    """Logistic growth of many populations: each depends on its own start and its own harvests."""

    @interpreted
    def grown(start, harvests):
        return sg.scan(lambda p, h: (p + 0.1 * p * (1 - p) - h, p * h), start, harvests)

    rng = np.random.default_rng(7)
    start, harvests = rng.random(4), 0.01 * rng.random((3, 4))
    jacobian = sg.sparse_jacobian(grown, (0, 1))
    earlier = np.hstack(
        [np.ones((4, 1)), np.vstack([np.ones((1, 3)), np.tri(3)])]
    )  # at the end all; before, the start and what was harvested until then
    np.testing.assert_array_equal(jacobian.pattern(start, harvests).toarray(), np.kron(earlier, np.eye(4)))
    blocks = sg.jacobian(grown, (0, 1))(start, harvests)
    dense = np.block([[np.reshape(block, (rows, -1)) for block in row] for row, rows in zip(blocks, (4, 12), strict=True)])
    assert_equal(jacobian(start, harvests), dense)


def test_a_loop_whose_steps_depend_on_parts_of_their_own_is_a_band():
    def differences(x):
        return sg.scan(lambda carry, part: (carry, np.sin(part[0]) * part[1]), 0.0, np.stack([x[1:], x[:-1]], axis=1))[1]

    x = np.linspace(0.1, 1.0, 200)
    for function in (differences, interpreted(differences)):
        jacobian = sg.sparse_jacobian(function)
        assert jacobian.coloring(x).count == 2
        found = jacobian(x)
        np.testing.assert_allclose(found.diagonal(), np.sin(x[1:]), rtol=1e-12)
        np.testing.assert_allclose(found.diagonal(1), np.cos(x[1:]) * x[:-1], rtol=1e-12)


def test_what_spreads_from_step_to_step_spreads_as_far_as_there_are_steps():
    def diffused(x, steps):
        return sg.scan(lambda u, _: (u + 0.1 * (np.roll(u, 1) + np.roll(u, -1) - 2 * u), None), x, None, length=steps)[0]

    x = np.ones(30)
    for steps in (0, 1, 3):
        jacobian = sg.sparse_jacobian(interpreted(lambda x, steps=steps: diffused(x, steps)))
        assert jacobian.pattern(x).nnz == 30 * (2 * steps + 1)
        assert_equal(jacobian(x), sg.jacobian(interpreted(lambda x, steps=steps: diffused(x, steps)))(x))


# ---- wrong use


def test_what_has_no_derivative_is_an_error():
    for transform in (sg.sparse_jacobian, sg.sparse_hessian):
        with pytest.raises(DTypeError, match=f"{transform.__name__} of .*x has dtype int64"):
            transform(lambda x: np.sum(x * 1.0))(np.arange(3))
        with pytest.raises(DTypeError, match=f"{transform.__name__} of .*returned"):
            transform(lambda x: np.argmax(x))(np.ones(3))
        with pytest.raises(ArgumentError, match="no arrays"):
            transform(lambda x, y: np.sum(y))((), np.ones(3))
        with pytest.raises(ArgumentError, match="twice"):
            transform(lambda x: np.sum(x * x), (0, -1))(np.ones(3))
        with pytest.raises(InvalidValueError, match="argnums=1"):
            transform(lambda x: np.sum(x), 1)(np.ones(3))
        with pytest.raises(ArgumentError, match="argnums"):
            transform(lambda x: np.sum(x), "x")
    with pytest.raises(ShapeError, match=r"sparse_hessian of .*returned shape \(3,\)"):
        sg.sparse_hessian(lambda x: x * x)(np.ones(3))
    with pytest.raises(ArgumentError, match="no arrays"):
        sg.sparse_jacobian(lambda x: ())(np.ones(3))
    with pytest.raises(InvalidValueError, match="mode='both'"):
        sg.sparse_jacobian(tridiagonal, mode="both")


def test_inside_of_a_trace_is_an_error():
    with pytest.raises(TraceError, match=r"SciPy matrix.*sg\.hessian"):
        sg.trace(lambda x: sg.sparse_hessian(rosenbrock)(x))(np.ones(3))


def test_too_many_sweeps_are_an_error(monkeypatch):
    monkeypatch.setattr(sparse, "MOST_ELEMENTS", 50)
    x = np.ones(10)
    assert sg.sparse_jacobian(interpreted(tridiagonal))(x).nnz == 28
    with pytest.raises(InvalidValueError, match="10 colours, 10 sweeps of 10 elements"):
        sg.sparse_jacobian(interpreted(lambda x: np.cumsum(x)))(x)
    with pytest.raises(InvalidValueError, match="sweeps of 10 elements"):
        sg.sparse_hessian(interpreted(lambda x: np.sum(x) ** 2))(x)
