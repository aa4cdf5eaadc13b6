"""Batches of solves some of which fail: each tells how it ended, and those that failed leave the derivatives of the others alone."""

import numpy as np
import pytest

import staticgrad as sg

TIMES = np.linspace(0.0, 4.0, 12)
CLEAN = 2.0 * np.exp(-1.3 * TIMES) + 0.5


def fitted(start, data, scale):
    found = sg.least_squares(lambda p: scale * (p[0] * np.exp(-p[1] * TIMES) + p[2] - data), start)
    return found.x, found.success


def lowest(start, data, scale):
    found = sg.lbfgs(lambda x: np.sum(10 * (x[1:] - x[:-1] ** 2) ** 2 + (data * scale - x[:-1]) ** 2), start)
    return found.x, found.converged


def root(start, data, scale):
    found = sg.newton(lambda x: np.stack([x[0] ** 2 + x[1] ** 2 - data * scale, x[0] - x[1]]), start)
    return found.x, found.converged


SOLVES = {
    "least_squares": (
        fitted,
        [[1.0, 1.0, 0.0]] * 2 + [[np.nan, 1.0, 0.0], [1.0, -1e4, 0.0]],
        np.stack([CLEAN, np.nan * CLEAN, CLEAN, CLEAN]),
    ),
    "lbfgs": (lowest, [[-1.2, 1.0], [np.nan, 1.0], [1e200, 1.0], [0.0, 0.0]], np.array([1.0, 1.0, 1.0, np.inf])),
    "newton": (root, [[1.0, 0.5], [0.0, 0.0], [np.nan, 1.0], [1.0, 0.5]], np.array([4.0, 4.0, 4.0, -1.0])),
}


@pytest.mark.parametrize("name", SOLVES)
def test_failed_solves_leave_the_others_alone(name):
    """At first and second order, by what each has of its own and by what all share."""
    solve, starts, data = SOLVES[name]
    starts = np.array(starts)

    @sg.trace(backend="interp")
    def total(data, scale):
        x, there = sg.vmap(solve, (0, 0, None))(starts, data, scale)
        return np.sum(np.where(there[:, None], x, 0.0) ** 2), there

    @sg.trace(backend="interp")
    def alone(data, scale):
        return np.sum(solve(starts[0], data, scale)[0] ** 2)

    (by_data, by_scale), there = sg.grad(total, (0, 1), has_aux=True)(data, 1.5)
    assert there.tolist() == [True, False, False, False]
    expected = sg.grad(alone, (0, 1))(data[0], 1.5)
    np.testing.assert_allclose(by_data, [expected[0], *np.zeros_like(data[1:])], atol=1e-9)
    np.testing.assert_allclose(by_scale, expected[1], atol=1e-9)
    twice = sg.grad(sg.grad(lambda data, scale: total(data, scale)[0], 1), 1)(data, 1.5)
    np.testing.assert_allclose(twice, sg.grad(sg.grad(alone, 1), 1)(data[0], 1.5), rtol=1e-6, atol=1e-7)
