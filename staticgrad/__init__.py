"""staticgrad: write NumPy, trace once, get compiled gradients that run anywhere Numba runs."""

import importlib as _importlib
import importlib.util as _util
import sys as _sys
from pathlib import Path as _Path
from typing import TYPE_CHECKING

from staticgrad._version import __version__

# In a bare checkout, and in one that shadows an installed package, the kernels are the folder beside this package.
_kernels = _Path(__file__).resolve().parent.parent / "kernels"
if not (_Path(__file__).parent / "kernels").is_dir() and (_kernels.parent / "pyproject.toml").is_file():
    _spec = _util.spec_from_file_location("staticgrad.kernels", _kernels / "__init__.py", submodule_search_locations=[str(_kernels)])
    assert _spec is not None and _spec.loader is not None
    _module = _sys.modules["staticgrad.kernels"] = _util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    globals()["kernels"] = _module

# The kernels must be in place before anything else of the package is imported.
from staticgrad.api import grad, jvp, linearize, stop_gradient, trace, value_and_grad, vjp, vmap  # noqa: E402
from staticgrad.errors import MissingAttributeError as _MissingAttributeError  # noqa: E402
from staticgrad.errors import StaticgradError, StaticgradWarning, TraceError  # noqa: E402

if TYPE_CHECKING:
    from staticgrad import checkpoint_policies, debug, eager, nn, numpy, optim, random, special, train
    from staticgrad.checkpoints import checkpoint
    from staticgrad.control.flow import cond, fori_loop, switch, while_loop
    from staticgrad.control.scans import associative_scan, map, scan
    from staticgrad.custom.derivatives import custom_jvp, custom_vjp
    from staticgrad.custom.fixed_points import fixed_point
    from staticgrad.custom.foreign import njit_op
    from staticgrad.custom.implicit import custom_linear_solve, custom_root
    from staticgrad.eager import Function, Tensor, enable_grad, is_grad_enabled, no_grad, set_default_dtype, tensor
    from staticgrad.eager.creation import Variable
    from staticgrad.eager.engine import autograd_grad
    from staticgrad.formulas import derivative_formula, formula
    from staticgrad.gradient_check import check_grads, numeric_grad
    from staticgrad.jacobians import hessian, hvp, jacobian
    from staticgrad.optim.fitting import least_squares
    from staticgrad.optim.lbfgs import lbfgs
    from staticgrad.optim.newton import newton
    from staticgrad.primer import ExpressionGraph
    from staticgrad.runtime.cache_explanation import explain_cache
    from staticgrad.runtime.report import compile_report
    from staticgrad.sparse import sparse_hessian, sparse_jacobian
    from staticgrad.train import EarlyStopping, Loop, Trainer

__all__ = [
    "EarlyStopping",
    "ExpressionGraph",
    "Function",
    "Loop",
    "StaticgradError",
    "StaticgradWarning",
    "Tensor",
    "TraceError",
    "Trainer",
    "Variable",
    "__version__",
    "associative_scan",
    "autograd_grad",
    "check_grads",
    "checkpoint",
    "checkpoint_policies",
    "compile_report",
    "cond",
    "custom_jvp",
    "custom_linear_solve",
    "custom_root",
    "custom_vjp",
    "debug",
    "derivative_formula",
    "eager",
    "enable_grad",
    "explain_cache",
    "fixed_point",
    "fori_loop",
    "formula",
    "grad",
    "hessian",
    "hvp",
    "is_grad_enabled",
    "jacobian",
    "jvp",
    "lbfgs",
    "least_squares",
    "linearize",
    "map",
    "newton",
    "njit_op",
    "nn",
    "no_grad",
    "numeric_grad",
    "numpy",
    "optim",
    "random",
    "scan",
    "set_default_dtype",
    "sparse_hessian",
    "sparse_jacobian",
    "special",
    "stop_gradient",
    "switch",
    "tensor",
    "trace",
    "train",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]  # fmt: skip

_MODULES = frozenset({"checkpoint_policies", "debug", "eager", "nn", "numpy", "optim", "random", "special", "train"})
"""Modules of the package that are imported when they are first asked for."""

_HOMES = {
    "EarlyStopping": "train",
    "ExpressionGraph": "primer",
    "Function": "eager",
    "Loop": "train",
    "Tensor": "eager",
    "Trainer": "train",
    "Variable": "eager.creation",
    "associative_scan": "control.scans",
    "autograd_grad": "eager.engine",
    "check_grads": "gradient_check",
    "checkpoint": "checkpoints",
    "compile_report": "runtime.report",
    "cond": "control.flow",
    "custom_jvp": "custom.derivatives",
    "custom_linear_solve": "custom.implicit",
    "custom_root": "custom.implicit",
    "custom_vjp": "custom.derivatives",
    "derivative_formula": "formulas",
    "enable_grad": "eager",
    "explain_cache": "runtime.cache_explanation",
    "fixed_point": "custom.fixed_points",
    "fori_loop": "control.flow",
    "formula": "formulas",
    "hessian": "jacobians",
    "hvp": "jacobians",
    "is_grad_enabled": "eager",
    "jacobian": "jacobians",
    "lbfgs": "optim.lbfgs",
    "least_squares": "optim.fitting",
    "map": "control.scans",
    "newton": "optim.newton",
    "njit_op": "custom.foreign",
    "no_grad": "eager",
    "numeric_grad": "gradient_check",
    "scan": "control.scans",
    "set_default_dtype": "eager",
    "sparse_hessian": "sparse",
    "sparse_jacobian": "sparse",
    "switch": "control.flow",
    "tensor": "eager",
    "while_loop": "control.flow",
}
"""Names that are imported when they are first asked for, and the modules they stand in."""

if not TYPE_CHECKING:  # a type checker sees the imports above, and finds a wrong name

    def __getattr__(name):
        if name in _MODULES:
            return _importlib.import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise _MissingAttributeError(message, name=name, obj=_sys.modules[__name__])  # Python adds what was meant
        value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__():
        return sorted(__all__)
