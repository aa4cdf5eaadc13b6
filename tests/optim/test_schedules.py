"""Schedules against the formulas they stand for, written out for one number of updates at a time."""

import math

import numpy as np
import pytest

from staticgrad import api
from staticgrad.errors import ArgumentError, InvalidValueError, StaticgradError
from staticgrad.optim import schedules, sgd
from staticgrad.optim.schedules import constant, cosine, exponential, linear_warmup, one_cycle, piecewise, step, warmup_cosine


def torch_one_cycle(n, peak, steps, warmup, divisor, final_divisor):
    """torch.optim.lr_scheduler.OneCycleLR with cosine annealing, for update number n."""

    def anneal(start, end, share):
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    first = peak / divisor
    turn, last = float(warmup * steps) - 1, steps - 1
    if n <= turn:
        return anneal(first, peak, n / turn)
    return anneal(peak, first / final_divisor, (n - turn) / (last - turn))


def cosine_formula(n, rate, steps, final):
    n = min(n, steps)
    return final + (rate - final) * (1 + math.cos(math.pi * n / steps)) / 2


CASES = {
    "constant": (constant(0.3), lambda n: 0.3),
    "step": (step(0.3, 10), lambda n: 0.3 * 0.1 ** (n // 10)),
    "step, grows": (step(0.3, 7, 1.5), lambda n: 0.3 * 1.5 ** (n // 7)),
    "piecewise": (piecewise([0.3, 0.1, 0.2], [10, 30]), lambda n: 0.3 if n < 10 else 0.1 if n < 30 else 0.2),
    "piecewise, one": (piecewise([0.3], []), lambda n: 0.3),
    "exponential": (exponential(0.3, 0.9), lambda n: 0.3 * 0.9**n),
    "exponential, slow": (exponential(0.3, 0.5, 20), lambda n: 0.3 * 0.5 ** (n / 20)),
    "cosine": (cosine(0.3, 50), lambda n: cosine_formula(n, 0.3, 50, 0.0)),
    "cosine, final": (cosine(0.3, 33, 0.05), lambda n: cosine_formula(n, 0.3, 33, 0.05)),
    "warm-up": (linear_warmup(0.3, 10), lambda n: 0.3 * min(n / 10, 1)),
    "warm-up of a schedule": (
        linear_warmup(step(0.3, 5), 10, 0.1),
        lambda n: 0.1 + 0.2 * n / 10 if n < 10 else 0.3 * 0.1 ** ((n - 10) // 5),
    ),
    "warm-up of a function": (linear_warmup(lambda n: 1.0 / (1 + n), 4), lambda n: n / 4 if n < 4 else 1.0 / (n - 3)),
    "warm-up and cosine": (
        warmup_cosine(0.3, 10, 50, 0.01, 0.02),
        lambda n: 0.01 + 0.29 * n / 10 if n < 10 else cosine_formula(n - 10, 0.3, 40, 0.02),
    ),
    "one cycle": (one_cycle(0.3, 60), lambda n: torch_one_cycle(min(n, 59), 0.3, 60, 0.3, 25.0, 1e4)),
    "one cycle, long rise": (one_cycle(0.3, 41, 0.8, 10, 5), lambda n: torch_one_cycle(min(n, 40), 0.3, 41, 0.8, 10, 5)),
    "one cycle, no rise": (one_cycle(0.3, 11, 0.0), lambda n: cosine_formula(n, 0.3, 10, 0.3 / 25 / 1e4)),
}


@pytest.mark.parametrize("name", CASES)
def test_formula(name):
    schedule, formula = CASES[name]
    traced = api.trace(schedule)
    for n in [*range(70), 1000]:
        expected = pytest.approx(formula(n), rel=1e-12, abs=1e-17)
        found = schedule(n)
        assert np.shape(found) == ()
        assert found == expected
        assert schedule(np.int64(n)) == found
        assert traced(np.int64(n)) == expected


def test_descriptions():
    assert repr(cosine(0.1, 100)) == "cosine(rate=0.1, steps=100, final=0.0)"
    assert repr(sgd(step(0.1, 5)).learning_rate) == "step(rate=0.1, every=5, factor=0.1)"
    assert cosine(0.1, 100) == cosine(0.1, 100) != cosine(0.1, 101)
    assert set(schedules.__all__) == {name for name in vars(schedules) if name in schedules.__all__}


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: constant(-0.1), InvalidValueError, "rate=-0.1"),
        (lambda: step(0.1, 0), InvalidValueError, "every=0"),
        (lambda: step(0.1, 2.5), ArgumentError, "every=2.5"),
        (lambda: cosine("fast", 9), ArgumentError, "rate='fast'"),
        (lambda: piecewise([0.1, 0.2], [5, 10]), InvalidValueError, "2 rates and boundaries (5, 10)"),
        (lambda: piecewise([0.1, 0.2, 0.3], [10, 10]), InvalidValueError, "increasing"),
        (lambda: warmup_cosine(0.1, 10, 10), InvalidValueError, "warmup=10 must be less than steps=10"),
        (lambda: one_cycle(0.1, 1), InvalidValueError, "at least 2"),
        (lambda: one_cycle(0.1, 10, warmup=1.0), InvalidValueError, "less than 1"),
        (lambda: one_cycle(0.1, 10, divisor=0.5), InvalidValueError, "divisor=0.5"),
    ],
)
def test_errors(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert isinstance(caught.value, StaticgradError)
    assert "test_schedules.py" in str(caught.value)
