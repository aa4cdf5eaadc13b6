"""The largest error of every special function over its whole domain: against mpmath, and in float32 densely against SciPy in float64."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from staticgrad.ir.floats import OnFloats
from tests.kernels.accuracy import FORMATS, Case, dense_errors, errors
from tests.kernels.special_cases import SPECIAL_CASES
from tests.kernels.test_accuracy import report

each_case = pytest.mark.parametrize("case", SPECIAL_CASES.values(), ids=SPECIAL_CASES)


@each_case
@pytest.mark.parametrize("dtype", FORMATS, ids=lambda dtype: dtype.__name__)
def test_against_mpmath(case: Case, dtype: type) -> None:
    x = case.points(dtype, 3000, seed=1)
    with mp.workprec(150):
        found = errors(case.kernel(OnFloats(), x), [case.exact(mp.mpf(v)) for v in x.tolist()])
    report(case.name, dtype, found, case.bounds[FORMATS.index(dtype)], x)


@each_case
def test_densely(case: Case) -> None:
    x = case.points(np.float32, 200_000, seed=2)
    with np.errstate(all="ignore"):
        reference = case.dense(x.astype(np.float64))
    report(case.name, np.float32, dense_errors(case.kernel(OnFloats(), x), reference), case.bounds[0], x)
