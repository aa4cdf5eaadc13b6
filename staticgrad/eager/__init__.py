"""Tensors with a tape: PyTorch's semantics on the package's own ops."""
