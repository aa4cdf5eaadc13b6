"""What the tape calls operations: PyTorch's names, so that its printouts can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from staticgrad.tracing.lift import lift
from staticgrad.tracing.tracer import Tracer

WRITTEN = "CopySlices"
"""What the tape calls the writing of a part (as PyTorch does, without more)."""

_PYTORCH = {
    "add": "Add", "subtract": "Sub", "sub": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "negative": "Neg", "absolute": "Abs",
    "maximum": "Maximum", "minimum": "Minimum", "logaddexp": "Logaddexp", "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan",
    "arctan2": "Atan2", "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh", "square": "Pow", "concatenate": "Cat",
    "reshape": "View", "copy": "Clone", "float_power": "Pow", "clip": "Clamp",
}  # fmt: skip


def node_name(name: str) -> str:
    """Return the tape's name of an operation: multiply -> Mul, masked_fill -> MaskedFill."""
    return _PYTORCH.get(name) or "".join(word.capitalize() for word in name.strip("_").split("_"))


def tape_name(name: str) -> str:
    """Return the name of the node: Mul -> MulBackward0; what has a number of its own stays, SumBackward1."""
    return name if name == WRITTEN or name[:-1].endswith("Backward") else f"{name}Backward0"


def contraction_name(*operands: Any, **_: Any) -> str:
    """Return the name of a matrix product, which goes by the operands' ranks."""
    first, second = (len(x.shape) for x in operands[:2])
    return {(2, 2): "Mm", (2, 1): "Mv", (1, 1): "Dot"}.get((first, second), "Bmm")


def difference_name(first: Any, second: Any, **_: Any) -> str:
    """Return the name of a difference: that of a number and a tensor is one of its own."""
    return "RsubBackward1" if lift(first).aval.weak else "Sub"


def power_name(base: Any, exponent: Any, **_: Any) -> str:
    """Return the name of a power, which goes by what is a tensor."""
    if not isinstance(exponent, Tracer):
        return "PowBackward0"
    return "PowBackward1" if isinstance(base, Tracer) else "PowBackward2"


def clamp_name(input: Any, min: Any = None, max: Any = None) -> str:
    """Return the name of a clamp, which goes by whether the bounds are tensors."""
    return f"ClampBackward{int(not isinstance(min, Tracer) and not isinstance(max, Tracer))}"


def reduction_name(name: str) -> Callable[..., str]:
    """Return what names a reduction: that along some axes is another one than that of all elements."""

    def named(input: Any, dim: Any = None, *_: Any, axis: Any = None, **__: Any) -> str:
        return f"{name}Backward{int(dim is not None or axis is not None)}"

    return named


def extremum_name(name: str, pairwise: str) -> Callable[..., str]:
    """Return what names max or min: of all elements, along an axis with the places, or of two tensors."""

    def named(input: Any, dim: Any = None, *_: Any, **__: Any) -> str:
        return pairwise if isinstance(dim, Tracer) else f"{name}Backward{int(dim is None)}"

    return named
