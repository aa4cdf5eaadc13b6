"""All operations: importing this package fills the registry."""

from staticgrad.ops import along, contract, control, elementwise, index, movement, reduce

__all__ = ["along", "contract", "control", "elementwise", "index", "movement", "reduce"]
