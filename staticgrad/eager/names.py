"""What the tape calls operations: PyTorch's names, so that its printouts can be compared."""

from __future__ import annotations

from typing import Any

_PYTORCH = {
    "add": "Add", "subtract": "Sub", "sub": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "negative": "Neg", "absolute": "Abs",
    "maximum": "Maximum", "minimum": "Minimum", "logaddexp": "Logaddexp", "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan",
    "arctan2": "Atan2", "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh", "square": "Pow", "concatenate": "Cat",
    "reshape": "View", "copy": "Clone", "float_power": "Pow", "clip": "Clamp",
}  # fmt: skip


def node_name(name: str) -> str:
    """Return the tape's name of an operation: multiply -> Mul, masked_fill -> MaskedFill."""
    return _PYTORCH.get(name) or "".join(word.capitalize() for word in name.strip("_").split("_"))


def contraction_name(*operands: Any) -> str:
    """Return the name of a matrix product, which goes by the operands' ranks."""
    first, second = (len(x.shape) for x in operands[:2])
    return {(2, 2): "Mm", (2, 1): "Mv", (1, 1): "Dot"}.get((first, second), "Bmm")
