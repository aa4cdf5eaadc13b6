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
from staticgrad.api import grad, jvp, stop_gradient, trace, value_and_grad, vjp, vmap  # noqa: E402
from staticgrad.errors import MissingAttributeError as _MissingAttributeError  # noqa: E402
from staticgrad.errors import StaticgradError, StaticgradWarning, TraceError  # noqa: E402

if TYPE_CHECKING:
    from staticgrad import debug, nn, numpy, optim, random, special, train
    from staticgrad.control_flow import associative_scan, cond, fori_loop, scan, switch, while_loop
    from staticgrad.foreign import njit_op
    from staticgrad.gradient_check import check_grads, numeric_grad
    from staticgrad.runtime.cache_explanation import explain_cache
    from staticgrad.runtime.report import compile_report
    from staticgrad.train import EarlyStopping, Loop, Trainer

__all__ = [
    "EarlyStopping",
    "Loop",
    "StaticgradError",
    "StaticgradWarning",
    "TraceError",
    "Trainer",
    "__version__",
    "associative_scan",
    "check_grads",
    "compile_report",
    "cond",
    "debug",
    "explain_cache",
    "fori_loop",
    "grad",
    "jvp",
    "njit_op",
    "nn",
    "numeric_grad",
    "numpy",
    "optim",
    "random",
    "scan",
    "special",
    "stop_gradient",
    "switch",
    "trace",
    "train",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]  # fmt: skip

_MODULES = frozenset({"debug", "nn", "numpy", "optim", "random", "special", "train"})
"""Modules of the package that are imported when they are first asked for."""

_HOMES = {
    "EarlyStopping": "train",
    "Loop": "train",
    "Trainer": "train",
    "associative_scan": "control_flow",
    "check_grads": "gradient_check",
    "compile_report": "runtime.report",
    "cond": "control_flow",
    "explain_cache": "runtime.cache_explanation",
    "fori_loop": "control_flow",
    "njit_op": "foreign",
    "numeric_grad": "gradient_check",
    "scan": "control_flow",
    "switch": "control_flow",
    "while_loop": "control_flow",
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
