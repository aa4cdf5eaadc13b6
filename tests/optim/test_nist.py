"""Fits of NIST's reference problems from both of their starting points, against the certified values."""

import numpy as np
import pytest

import staticgrad as sg
from staticgrad.optim import levenberg_marquardt
from tests.optim.nist_problems import FOLDER, MODELS, load

BEYOND_FLOAT64 = {"Lanczos1"}
"""Data without noise, whose certified residuals of 1e-13 are below the rounding errors of the model in float64."""

JUMPS_ASTRAY = {("Eckerle4", 0), ("MGH09", 0), ("MGH10", 0), ("MGH17", 0), ("Rat43", 0)}
"""Where jumps from the first starting point end in another valley, or do not end."""

CASES = [(name, start) for name in MODELS for start in (0, 1)]


def digits(found, certified) -> float:
    """Return how many significant digits agree, at least."""
    return float(np.min(-np.log10(np.maximum(np.abs(found - certified) / np.abs(certified), 1e-16))))


def fit(name, start, **options):
    problem = load(name)
    return problem, sg.least_squares(RESIDUALS[name], problem.starts[start], args=(problem.x, problem.y), **options)


def residuals_of(name):
    model = MODELS[name]
    return lambda b, x, y: model(b, x) - y


RESIDUALS = {name: residuals_of(name) for name in MODELS}


def test_all_problems_are_there():
    assert sorted(path.stem for path in FOLDER.glob("*.dat")) == sorted(MODELS)
    assert len(MODELS) == 27


@pytest.mark.parametrize("name", MODELS)
def test_the_models_have_the_certified_residuals(name):
    """What NIST certifies is the sum of squares at its parameters: so data and model are the ones that were meant."""
    problem = load(name)
    residuals = problem.model(problem.certified, problem.x) - problem.y
    if name in BEYOND_FLOAT64:
        assert np.sum(residuals**2) < 1e-20
    else:
        assert digits(np.sum(residuals**2), problem.sum_of_squares) > 9.9


@pytest.mark.parametrize(("name", "start"), CASES)
def test_certified_values(name, start):
    problem, found = fit(name, start)
    assert found.success
    assert digits(found.x, problem.certified) > 9
    if name not in BEYOND_FLOAT64:
        assert digits(found.standard_errors, problem.deviations) > 8
        assert digits(2 * found.cost, problem.sum_of_squares) > 8


@pytest.mark.parametrize(("name", "start"), [case for case in CASES if case not in JUMPS_ASTRAY])
def test_gauss_newton_where_jumps_lead_there(name, start):
    problem, found = fit(name, start, method="gauss-newton")
    assert found.success
    assert digits(found.x, problem.certified) > 8


@pytest.mark.parametrize(("name", "start"), [("Misra1a", 0), ("Thurber", 0), ("MGH09", 0), ("Bennett5", 1), ("Nelson", 0)])
def test_units_do_not_matter(name, start):
    """Parameters in other units take the same steps."""
    problem = load(name)
    units = 10.0 ** np.resize([5, -3, 0, -6, 2], len(problem.certified))
    found = sg.least_squares(lambda b, x, y: problem.model(b * units, x) - y, problem.starts[start] / units, args=(problem.x, problem.y))
    assert digits(found.x * units, problem.certified) > 9
    _, plain = fit(name, start)
    assert abs(len(found.history) - len(plain.history)) <= 6


@pytest.mark.parametrize(("name", "start"), [("Misra1a", 0), ("Gauss3", 0), ("ENSO", 1), ("Roszman1", 0), ("Lanczos3", 1)])
def test_without_acceleration(name, start):
    problem, found = fit(name, start, method=levenberg_marquardt(damping=1e-3, acceleration=False))
    assert digits(found.x, problem.certified) > 9


def test_acceleration_follows_curved_valleys():
    """Several times fewer steps where the valley is narrow; and BoxBOD's first start leads elsewhere without it."""
    _, fast = fit("Bennett5", 0)
    _, slow = fit("Bennett5", 0, method=levenberg_marquardt(acceleration=False))
    assert 4 * len(fast.history) < len(slow.history)
    problem, lost = fit("BoxBOD", 0, method=levenberg_marquardt(acceleration=False))
    assert lost.cost > 2 * problem.sum_of_squares
