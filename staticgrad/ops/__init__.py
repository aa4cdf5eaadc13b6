"""All operations: importing this package fills the registry."""

from staticgrad.ops import contract, control, elementwise, index, movement, reduce

__all__ = ["contract", "control", "elementwise", "index", "movement", "reduce"]
