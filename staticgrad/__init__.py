"""staticgrad: write NumPy, trace once, get compiled gradients that run anywhere Numba runs."""

import importlib.util as _util
import sys as _sys
from pathlib import Path as _Path

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
from staticgrad import debug, nn, numpy, optim, special  # noqa: E402
from staticgrad.api import grad, jvp, stop_gradient, trace, value_and_grad, vjp, vmap  # noqa: E402
from staticgrad.errors import StaticgradError, StaticgradWarning, TraceError  # noqa: E402
from staticgrad.gradient_check import check_grads, numeric_grad  # noqa: E402
from staticgrad.train import Trainer  # noqa: E402

__all__ = [
    "StaticgradError",
    "StaticgradWarning",
    "TraceError",
    "Trainer",
    "__version__",
    "check_grads",
    "debug",
    "grad",
    "jvp",
    "nn",
    "numeric_grad",
    "numpy",
    "optim",
    "special",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "vjp",
    "vmap",
]  # fmt: skip
