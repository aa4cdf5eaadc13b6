"""All operations: importing this package fills the registry."""

from staticgrad.ops import contract, control, elementwise, movement, reduce, special

__all__ = ["contract", "control", "elementwise", "movement", "reduce", "special"]
