"""Tensors with a tape, under PyTorch's names: `import staticgrad.eager as torch` runs most introductory code unchanged.

Operations are recorded as they run, and `backward` gives gradients. They are those of `@sg.trace`: every operation means what its
graph means. A traced function that is given tensors is one step of the tape whose forward and backward are compiled kernels.

>>> import staticgrad.eager as torch
>>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> loss = torch.mean(x ** 2)
>>> loss.backward()
>>> x.grad
tensor([0.6667, 1.3333, 2.0000])
"""

from staticgrad.eager import operators  # noqa: F401  (gives tensors their operators)
from staticgrad.eager.tensor import Tensor
