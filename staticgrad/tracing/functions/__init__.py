"""What each NumPy function, array method and universal function does on tracers; every module here fills the table."""

from staticgrad.tracing.functions import (
    contractions,
    creation,
    einsum,
    fourier,
    joining,
    matrix_functions,
    nan_reductions,
    norms,
    numerics,
    picking,
    reductions,
    selection,
    shapes,
    sorting,
    systems,
)
from staticgrad.tracing.functions.methods import array_method
from staticgrad.tracing.functions.table import FUNCTIONS, call_numpy_function, closest, implements, supported_names
from staticgrad.tracing.functions.ufunc_methods import ufunc_method

__all__ = [
    "FUNCTIONS",
    "array_method",
    "call_numpy_function",
    "closest",
    "contractions",
    "creation",
    "einsum",
    "fourier",
    "implements",
    "joining",
    "matrix_functions",
    "nan_reductions",
    "norms",
    "numerics",
    "picking",
    "reductions",
    "selection",
    "shapes",
    "sorting",
    "supported_names",
    "systems",
    "ufunc_method",
]
