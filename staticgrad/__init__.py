"""staticgrad: write NumPy, trace once, get compiled gradients that run anywhere Numba runs."""

from pathlib import Path as _Path

from staticgrad._version import __version__

# A bare checkout, and an installed package shadowed by one, have the kernels in the folder beside this package.
_root = _Path(__file__).resolve().parent.parent
if (_root / "kernels" / "__init__.py").is_file() and (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))

# The path above must be complete before anything else of the package is imported.
from staticgrad import debug, nn, numpy  # noqa: E402
from staticgrad.api import grad, jvp, stop_gradient, trace, value_and_grad, vjp, vmap  # noqa: E402
from staticgrad.errors import StaticgradError, StaticgradWarning, TraceError  # noqa: E402

__all__ = [
    "StaticgradError", "StaticgradWarning", "TraceError", "__version__", "debug", "grad", "jvp", "nn", "numpy", "stop_gradient", "trace",
    "value_and_grad", "vjp", "vmap",
]  # fmt: skip
