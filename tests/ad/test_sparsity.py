"""Sparsity patterns: never less than the derivatives that there are, for every op; and no more where structure tells."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array

import staticgrad as sg
import staticgrad.numpy as snp
from staticgrad.ad.jacobian import blocks_by_pullback, blocks_by_pushforward
from staticgrad.errors import InvalidValueError, MissingDerivativeError
from staticgrad.ir import sparsity
from staticgrad.ir.aval import FLOAT64, Aval
from staticgrad.ir.graph import Graph
from staticgrad.ir.interp import interpret
from staticgrad.ir.node import Value, apply_all, constant, new_input
from staticgrad.ir.op import REGISTRY
from staticgrad.ir.sparsity import pattern_of
from staticgrad.ops import loop_sparsity
from staticgrad.ops.arithmetic import multiply
from staticgrad.ops.control import Rules, call, inline_calls
from staticgrad.ops.movement import broadcast, flip, slice_
from staticgrad.ops.reduce import sum_
from tests.fuzz.programs import Program
from tests.ops.samples import Sample, smooth_samples

MODES = ("forward", "reverse")


@dataclass
class Applied:
    """Values that depend on inputs, with numbers for the inputs."""

    outputs: list[Value]
    inputs: list[Value]
    arrays: list[np.ndarray]

    @classmethod
    def of(cls, sample: Sample, known: bool, only: int | None = None) -> "Applied":
        """Return an op applied to a sample's operands.

        Those that are not floats are constants, if they are `known`, and so are all others if there is an `only` one that is not.
        """
        fixed = [known and (x.dtype.kind != "f" if only is None else k != only) for k, x in enumerate(sample.operands)]
        values = [constant(x) if now else new_input(Aval(x.shape, x.dtype)) for x, now in zip(sample.operands, fixed, strict=True)]
        pairs = [(v, x) for v, x in zip(values, sample.operands, strict=True) if not v.node.is_fixed]
        return cls([y for y in apply_all(sample.op, *values) if y.dtype.kind == "f"], [v for v, _ in pairs], [x for _, x in pairs])

    @property
    def active(self) -> list[Value]:
        """The inputs that have derivatives."""
        return [x for x in self.inputs if x.dtype.kind == "f"]

    def pattern(self) -> csr_array:
        """Return the pattern."""
        return pattern_of(self.outputs, self.active, "test")

    def matrix(self, mode: str) -> np.ndarray:
        """Return the Jacobian as one matrix, by the rules of the ops."""
        if mode == "reverse":
            blocks = [blocks_by_pullback(y, self.active) for y in self.outputs]
        else:
            columns = [blocks_by_pushforward(self.outputs, x) for x in self.active]
            blocks = [[column[k] for column in columns] for k in range(len(self.outputs))]
        flat = iter(interpret(Graph(tuple(self.inputs), tuple(block for row in blocks for block in row)), self.arrays))
        rows = [[next(flat).reshape(y.aval.size, x.aval.size) for x in self.active] for y in self.outputs]
        return np.concatenate([np.concatenate(row, 1) for row in rows], 0)


def assert_contains(pattern: csr_array, matrix: np.ndarray, what: str) -> None:
    """Assert that the pattern has an entry wherever the matrix is not 0, and holds none twice."""
    assert pattern.dtype == np.bool_
    assert pattern.shape == matrix.shape, what
    assert pattern.has_canonical_format, what
    missing = (matrix != 0) & ~pattern.toarray()
    assert not missing.any(), f"{what}: no entries in the pattern at {np.argwhere(missing)[:5].tolist()}"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_op_has_derivatives_outside_of_its_pattern(name):
    for sample in smooth_samples(name):
        alone = range(len(sample.operands)) if sample.op.kind != "nested" else ()
        for known, only in ((False, None), (True, None), *((True, k) for k in alone)):
            applied = Applied.of(sample, known, only)
            if applied.outputs and applied.active:
                for mode in MODES:
                    assert_contains(applied.pattern(), applied.matrix(mode), str(sample))


EXACT = (
    "add", "multiply", "divide", "tanh", "cast", "contiguous", "reshape", "transpose", "broadcast", "slice", "flip", "pad", "concatenate",
    "slice_set", "sum", "prod", "contract", "gather", "scatter_add", "scatter_set",
)  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_patterns_are_exact_where_structure_tells(name):
    """With index arrays that are known, each entry is a derivative that is not 0."""
    checked = [Applied.of(sample, known=True) for sample in smooth_samples(name)]
    assert any(0 not in x.shape for applied in checked for x in applied.arrays)
    for applied in checked:
        np.testing.assert_array_equal(applied.pattern().toarray(), applied.matrix("forward") != 0)


@pytest.mark.parametrize("seed", range(60))
def test_no_program_has_derivatives_outside_of_its_pattern(seed):
    program = Program(seed + 7000, smooth=seed % 2 == 0).grow(25)
    outputs = [v for v in program.pool[-8:] if v.dtype.kind == "f" and v.aval.size <= 60]
    graph = inline_calls(Graph(tuple(program.inputs), tuple(outputs)))
    applied = Applied(list(graph.outputs), program.inputs, program.arrays)
    for mode in MODES:
        assert_contains(applied.pattern(), applied.matrix(mode), f"seed {seed}, {mode}")


# ---- what users see


def pattern(f, *args, **kwargs):
    return sg.sparse_jacobian(f, **kwargs).pattern(*args).toarray().astype(int)


def interpreted(f):
    return sg.trace(f, backend="interp")


def test_index_arrays_that_are_arguments_reach_the_whole_axis():
    x, where = np.ones((3, 2)), np.array([2, 0])
    expected = np.zeros((4, 6))
    expected[[0, 1, 2, 3], [4, 5, 0, 1]] = 1
    np.testing.assert_array_equal(pattern(lambda x: x[where], x), expected)
    whole = np.tile(np.eye(2), (2, 3))
    np.testing.assert_array_equal(pattern(lambda x, where: x[where], x, where), whole)

    def added(x, y, where):
        z = x.copy()
        np.add.at(z, where, y)
        return z

    both = pattern(added, x, np.ones((2, 2)), where, argnums=(0, 1))
    np.testing.assert_array_equal(both, np.hstack([np.eye(6), np.tile(np.eye(2), (3, 2))]))
    known = pattern(lambda x, y: added(x, y, where), x, np.ones((2, 2)), argnums=1)
    np.testing.assert_array_equal(known, expected.T)


def test_sorting_and_sums_stay_in_their_rows():
    x = np.array([[3.0, 1.0], [2.0, 5.0], [0.0, 4.0]])
    rows = np.kron(np.eye(3), np.ones((2, 2)))
    for f in (lambda x: np.sort(x, axis=1), lambda x: np.cumsum(x, axis=1), lambda x: x - np.max(x, axis=1, keepdims=True)):
        np.testing.assert_array_equal(pattern(f, x), rows)


def test_products_of_matrices_reach_rows_and_columns():
    a, b = np.ones((2, 3)), np.ones((3, 4))
    by_a, by_b = pattern(lambda a, b: a @ b, a, b), pattern(lambda a, b: a @ b, a, b, argnums=1)
    np.testing.assert_array_equal(by_a, np.kron(np.eye(2), np.ones((4, 3))))
    np.testing.assert_array_equal(by_b, np.tile(np.eye(4), (2, 3)))


def test_values_play_no_role():
    """Neither numbers that happen to be 0, nor NaN; but what has no derivative at all is not there."""
    x = np.array([0.0, np.nan, 1.0])
    np.testing.assert_array_equal(pattern(lambda x: x * 0.0 + x[0] * x, x), [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(pattern(lambda x: np.floor(x) + sg.stop_gradient(x), x), np.zeros((3, 3)))
    np.testing.assert_array_equal(pattern(lambda x: np.where(x > x[0], x, 0.0), x), np.eye(3))
    np.testing.assert_array_equal(pattern(lambda x: np.maximum(x[1:], x[:-1]), x), [[1, 1, 0], [0, 1, 1]])


def test_what_a_numba_function_depends_on_is_what_its_rules_say():
    numba = pytest.importorskip("numba")
    swapped = numba.njit(lambda x, y: x[::-1] * y)
    rules = {"jvp": lambda t, z, x, y: t[0][::-1] * y + x[::-1] * t[1], "vjp": lambda g, z, x, y: ((g * y)[::-1], g * x[::-1])}
    x = np.arange(3.0)
    expected = np.hstack([np.eye(3)[::-1], np.eye(3)])
    for given in (["jvp"], ["vjp"], ["jvp", "vjp"]):
        op = sg.njit_op(swapped, **{name: rules[name] for name in given})
        np.testing.assert_array_equal(pattern(lambda x, y, op=op: op(x, y), x, x, argnums=(0, 1)), expected)
        many = np.ones((2, 3))
        mapped = np.hstack([np.kron(np.eye(2), np.eye(3)[::-1]), np.tile(np.eye(3), (2, 1))])
        np.testing.assert_array_equal(pattern(sg.vmap(op, (0, None)), many, x, argnums=(0, 1)), mapped)
    without = sg.njit_op(swapped)
    with pytest.raises(MissingDerivativeError):
        pattern(lambda x: without(x, x), x)


def test_what_a_call_depends_on_is_what_its_rules_say():
    """Whatever the graph inside of it does."""
    x, y = new_input(Aval((3,), FLOAT64)), new_input(Aval((2,), FLOAT64))
    body = Graph((x, y), (multiply(x, x), sum_(y, (0,))), (), "body")

    def vjp(g, outputs, x, y):
        return flip(g[0], (0,)), broadcast(g[1], (2,), (0,)) * y

    def jvp(t, outputs, x, y):
        return None, sum_(t[0], (0,))

    for rules, expected in (
        (Rules("flipped", vjp=vjp), [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 0, 0, 0]]),
        (Rules("summed", jvp=jvp), [[0] * 5, [0] * 5, [0] * 5, [1, 1, 1, 0, 0], [0] * 5]),
    ):
        first, second = call(body, x, y, rules=rules)
        found = pattern_of([first, second, slice_(first, (1,), (2,), (1,))], [x, y], "test")
        np.testing.assert_array_equal(found.toarray(), expected)
    first, second = call(body, x, y)
    np.testing.assert_array_equal(pattern_of([first], [x], "test").toarray(), np.eye(3))


def test_custom_rules_of_large_arrays():
    @sg.custom_jvp
    def softened(x, sharpness):
        return np.logaddexp(0, x * sharpness) / sharpness

    softened.defjvp(lambda primals, tangents: (softened(*primals), tangents[0] / (1 + np.exp(-primals[0] * primals[1]))))

    @sg.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (np.clip(g, -1, 1),))
    x = np.ones(100_000)
    for f in (lambda x: softened(x[1:] - x[:-1], 3.0), lambda x: clipped(x[1:]) * clipped(x[:-1])):
        found = sg.sparse_jacobian(sg.trace(f, backend="interp"))
        assert found.pattern(x).nnz == 2 * len(x) - 2
        assert found.coloring(x).count == 2
    np.testing.assert_array_equal(pattern(sg.vmap(lambda x: softened(x, 2.0)), np.ones((3, 2))), np.eye(6))
    second = sg.sparse_hessian(sg.trace(lambda x: np.sum(softened(x, 3.0) ** 2), backend="interp"))
    assert second.pattern(x).nnz == len(x)


def test_rules_that_apply_the_operation_itself_tell_nothing():
    """So the solution of linear equations depends on all of them, while roots of separate equations stay apart."""
    numba = pytest.importorskip("numba")
    x = np.linspace(0.5, 1, 4)
    reverse = sg.njit_op(numba.njit(lambda x: x[::-1] * 1.0), jvp=lambda t, y, x: reverse(t[0]), vjp=lambda g, y, x: (reverse(g),))
    assert np.all(pattern(lambda x: reverse(x), x))
    many = np.ones((2, 3, 4))
    np.testing.assert_array_equal(pattern(sg.vmap(sg.vmap(lambda x: reverse(x))), many), np.kron(np.eye(6), np.ones((4, 4))))
    np.testing.assert_array_equal(sg.sparse_jacobian(lambda x: reverse(x))(x).toarray(), np.eye(4)[::-1])

    def solve(matvec, b):
        return sg.fori_loop(0, 20, lambda _, y: y + 0.4 * (b - matvec(y)), b)

    def solution(b):
        return sg.custom_linear_solve(lambda v: 2 * v + 0.1 * np.append(v[1:], 0.0), b, solve, solve)

    for f in (solution, sg.vmap(solution)):
        b = x if f is solution else np.stack([x, 2 * x])
        found = sg.sparse_jacobian(interpreted(f))
        np.testing.assert_array_equal(found.pattern(b).toarray(), np.kron(np.eye(b.size // 4), np.ones((4, 4))))
        np.testing.assert_allclose(found(b).toarray(), np.reshape(sg.jacobian(interpreted(f))(b), (b.size, b.size)), atol=1e-12)

    def roots(p):
        newton = lambda f, y: sg.fori_loop(0, 5, lambda _, y: y - f(y) / (3 * y * y + 1), y)  # noqa: E731
        return sg.custom_root(lambda y: y**3 + y - p, np.ones_like(p), newton, lambda g, y: y / g(np.ones_like(y)))

    np.testing.assert_array_equal(pattern(roots, x), np.eye(4))


def test_zeros_of_constants_leave_no_links():
    """What the function closes over is known: a matrix that is mostly 0, weights, and where a mask holds."""
    band = np.eye(5) + np.eye(5, k=1)
    x = np.ones(5)
    for f in (lambda x: band @ x, lambda x: x @ band.T, lambda x: np.einsum("ij,j->i", band, x), lambda x: np.sin(x) @ (2 * band.T)):
        np.testing.assert_array_equal(pattern(f, x), band)
    rows, places = np.ones((2, 5)), np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(pattern(lambda x: x @ band.T, rows), np.kron(np.eye(2), band))
    np.testing.assert_array_equal(pattern(lambda x: band @ x.T, rows), np.kron(band, np.eye(2))[:, places.T.ravel().argsort()])
    np.testing.assert_array_equal(pattern(lambda x: np.einsum("bi,ij,bj->bj", x, band, np.ones((2, 5))), rows), np.kron(np.eye(2), band.T))
    weights = np.array([1.0, 0.0, 2.0, 0.0, -1.0])
    np.testing.assert_array_equal(pattern(lambda x: x * weights + weights * x, x), np.diag(weights != 0))
    inside = weights > 0
    mixed = np.where(inside[:, None], np.eye(5), np.roll(np.eye(5), 1, 1))
    np.testing.assert_array_equal(pattern(lambda x: np.where(inside, x * 2.0, np.roll(x, -1)), x), mixed)
    np.testing.assert_array_equal(pattern(lambda x, w: x * w, x, weights), np.eye(5))
    np.testing.assert_array_equal(sg.sparse_hessian(lambda x: x @ (band @ x)).pattern(x).toarray(), (band + band.T) != 0)


def test_right_hand_sides_of_equations_stay_apart():
    matrix, sides = np.eye(2) + 0.5, np.ones((3, 2, 2))
    one_block = np.kron(np.ones((2, 2)), np.eye(2))
    np.testing.assert_array_equal(pattern(lambda b: np.linalg.solve(matrix, b), sides), np.kron(np.eye(3), one_block))
    np.testing.assert_array_equal(pattern(lambda a: np.linalg.solve(a, sides), sides + np.eye(2)), np.kron(np.eye(3), np.ones((4, 4))))


# ---- loops


def random_loop(rng):
    """Return a body with a carry and parts that reads, among others, what the number of the step points at; and whether to reverse."""
    where = rng.integers(0, 4, 4)
    chosen = rng.random(5) < 0.5

    def body(carry, given, x):
        (first, second), (step, part) = carry, given
        new = second[where] * part if chosen[0] else np.append(second[1:], part[0])
        kept = np.append(first[1:], x[step]) if chosen[1] else first * 2.0
        made = [part[:2]]
        if chosen[2]:
            made.append(first + x[step + 1])
        if chosen[3]:
            made.append(second[:3] * part[2])
        return (kept, new), np.concatenate(made)

    return body, bool(chosen[4])


def random_writes(rng):
    """Return a body whose steps read and write parts of two large carries, one after the other; and whether to reverse."""
    table, fixed, kinds = rng.integers(0, 20, (6, 3)), rng.integers(0, 8, 7), rng.integers(0, 7, 4)

    def body(carry, given, x):
        (first, second), (step, part) = carry, given
        first, second = first.copy(), second.copy()
        own = snp.asarray(table)[step]
        for k in kinds:
            at = fixed[k]
            if k == 0:
                first[step + at] = x[step] * part[0]
            elif k == 1:
                first[step] = first[step + 2] * x[0]
            elif k == 2:
                np.add.at(first, own, second[own] * part[:3])
            elif k == 3:
                second[at : at + 2] = first[at + 1] + part[3]
            elif k == 4:
                first[own] = second[own] * x[own % 8]
            elif k == 5:
                second[at] += first[own[0]]
            else:
                second[own[1]] *= 2 + x[3]
        return (first, second), np.stack([first[fixed[0]], second[own[2]] * part[1]])

    return body, bool(rng.integers(2))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("make, sizes", [(random_loop, (3, 4)), (random_writes, (24, 20))])
def test_a_loop_has_the_pattern_of_its_steps_written_out(seed, make, sizes):
    rng = np.random.default_rng(seed)
    body, reverse = make(rng)
    length = int(rng.integers(1, 7))
    arrays = [*map(np.ones, sizes), np.ones((length, 4)), np.ones(8)]

    def looped(first, second, parts, x):
        return sg.scan(lambda c, given: body(c, given, x), (first, second), (np.arange(length), parts), reverse=reverse)

    def written_out(first, second, parts, x):
        carry, made = (first, second), {}
        for step in reversed(range(length)) if reverse else range(length):
            carry, made[step] = body(carry, (step, parts[step]), x)
        return carry, np.stack([made[step] for step in range(length)])

    found, expected = (pattern(f, *arrays, argnums=(0, 1, 2, 3)) for f in (looped, written_out))
    np.testing.assert_array_equal(found, expected)
    total = [interpreted(lambda *args, f=f: np.sum(f(*args)[0][1] ** 2) + np.sum(np.sin(f(*args)[1]))) for f in (looped, written_out)]
    arrays = [np.asarray(rng.standard_normal(a.shape)) for a in arrays]
    hessians = [sg.sparse_hessian(f, (0, 1, 2, 3)) for f in total]
    np.testing.assert_allclose(hessians[0](*arrays).toarray(), hessians[1](*arrays).toarray(), rtol=1e-9, atol=1e-9)


def test_loops_whose_steps_are_not_told_apart(monkeypatch):
    """Then what any step is given may reach all: more than there is, never less."""
    exact = {}
    for most in (loop_sparsity.MOST_IN_STEPS, 400, 100, 10):
        monkeypatch.setattr(loop_sparsity, "MOST_IN_STEPS", most)
        for seed in range(8):
            body, reverse = random_loop(np.random.default_rng(seed))

            def f(first, second, parts, x, body=body, reverse=reverse):
                return sg.scan(lambda c, given: body(c, given, x), (first, second), (np.arange(5), parts), reverse=reverse)

            found = pattern(f, np.ones(3), np.ones(4), np.ones((5, 4)), np.ones(8), argnums=(0, 1, 2, 3))
            assert np.all(found >= exact.setdefault(seed, found))


def test_a_chain_in_a_loop_is_a_band():
    """Each step needs what it is given and what the one before was: tridiagonal, of any length, and so is a loop over indices."""

    def chain(x):
        return np.sum(sg.scan(lambda before, now: (now, (now - before**2) ** 2), x[0], x[1:])[1])

    def by_index(x):
        return sg.fori_loop(1, len(x), lambda i, total: total + (x[i] - x[i - 1] ** 2) ** 2, 0.0)

    def by_total(x):
        return sg.scan(lambda c, now: ((now, c[1] + (now - c[0] ** 2) ** 2), None), (x[0], 0.0), x[1:])[0][1]

    def by_writing(x):
        def body(i, y):
            y = y.copy()
            y[i] += x[i] * x[i - 1]
            return y

        return np.sum(np.sin(sg.fori_loop(1, len(x), body, x)))

    for f, n in ((chain, 20_000), (by_total, 20_000), (by_index, 100_000), (by_writing, 100_000)):
        hessian = sg.sparse_hessian(interpreted(f))
        x = np.ones(n)
        assert hessian.pattern(x).nnz == 3 * n - 2
        assert hessian.coloring(x).count == 3


def test_branches_know_what_steps_know():
    """Which branch a step takes, and where that one writes."""

    def f(x):
        def even(i, y):
            y = y.copy()
            y[i] = x[i] * x[i // 2]
            return y

        return sg.fori_loop(0, len(x), lambda i, y: sg.cond(i % 2 == 0, even, lambda i, y: y, i, y), snp.zeros(len(x)))

    expected = np.zeros((9, 9))
    expected[np.arange(0, 9, 2), np.arange(0, 9, 2)] = expected[np.arange(0, 9, 2), np.arange(5)] = 1
    np.testing.assert_array_equal(pattern(f, np.ones(9)), expected)


def test_a_model_in_a_loop_has_an_arrow():
    """Stochastic volatility: neighbours in time, and three parameters for all times."""

    def log_density(z):
        level, persistence, logarithm, log_variances = z[0], z[1], z[2], z[3:]

        def step(carry, now):
            before, total = carry
            change = (now - level - persistence * (before - level)) / np.exp(logarithm)
            return (now, total - (change**2 + now + np.exp(-now)) / 2 - logarithm), None

        return sg.scan(step, (log_variances[0], 0.0), log_variances[1:])[0][1]

    hessian = sg.sparse_hessian(interpreted(log_density))
    z = np.linspace(0.1, 1.0, 10_003)
    assert hessian.pattern(z).nnz == 3 * 10_000 - 2 + 6 * 10_000 + 9
    assert hessian.coloring(z).count == 6
    dense = sg.hessian(interpreted(log_density))(z[:12])
    np.testing.assert_allclose(hessian(z[:12]).toarray(), dense, rtol=1e-9, atol=1e-12)


def test_a_loop_over_a_condition_keeps_apart_what_it_keeps_apart():
    def newton(x, y):
        def step(z):
            return z - (z * z - x) / (2 * z)

        return sg.while_loop(lambda z: np.max(np.abs(z * z - x)) > 1e-12, step, y)

    x = np.array([2.0, 3.0, 5.0])
    np.testing.assert_array_equal(pattern(newton, x, x, argnums=(0, 1)), np.tile(np.eye(3), 2))
    for limited in (None, 40):

        def shifted(x, y, limited=limited):
            def step(carry):
                k, z = carry
                return k + 1, np.append(z[1:], x[0])

            return sg.while_loop(lambda carry: carry[0] < np.sum(x), step, (0.0, y), max_steps=limited)[1]

        upper = np.triu(np.ones((3, 3)))
        np.testing.assert_array_equal(pattern(shifted, x, x, argnums=(0, 1)), np.hstack([[[1, 0, 0]] * 3, upper]))
        many = np.stack([x, 2 * x])
        rows = pattern(sg.vmap(shifted, (None, 0)), x, many, argnums=1)
        np.testing.assert_array_equal(rows, np.kron(np.eye(2), upper))


def test_what_goes_around_in_a_loop_is_found_without_going_around(monkeypatch):
    """A wave that reaches everywhere, and one that only goes on."""
    monkeypatch.setattr(loop_sparsity, "WORK", 100)
    x = np.ones(40)

    def waves(x):
        def step(carry):
            k, u, v = carry
            return k + 1, u + np.roll(u, 1), np.concatenate([v[:1] * u[0], v[1:] + v[:-1]])

        return sg.while_loop(lambda carry: carry[0] < 3, step, (0, x[:20], x[20:]))[1:]

    everywhere = np.ones((20, 20))
    np.testing.assert_array_equal(pattern(waves, x), np.block([[everywhere, 0 * everywhere], [everywhere, np.tril(everywhere)]]))


def test_second_derivatives_of_what_is_linear_are_not_there():
    x = np.arange(1.0, 6.0)

    def f(x):
        return np.sum(x) + np.sum(x[1:] * 3.0) + x[0] * x[4] + np.sum(np.abs(x)) + np.max(x) + x[1] ** 2

    found = sg.sparse_hessian(f).pattern(x).toarray()
    expected = np.zeros((5, 5))
    expected[0, 4] = expected[4, 0] = expected[1, 1] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_pattern_that_is_not_sparse_is_an_error_that_names_the_line(monkeypatch):
    monkeypatch.setattr(sparsity, "MOST_ENTRIES", 100)
    with pytest.raises(InvalidValueError, match=r"sparse_jacobian of .*lambda.*broadcast.*not sparse.*\n.*test_sparsity.py") as caught:
        sg.sparse_jacobian(lambda x: x - np.mean(x))(np.ones(11))
    assert isinstance(caught.value, ValueError)
