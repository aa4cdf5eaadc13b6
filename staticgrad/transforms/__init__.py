"""Transforms of recorded functions: program in, program out."""

from staticgrad.transforms.base import Source, Transform
from staticgrad.transforms.gradient import Grad
from staticgrad.transforms.mapping import Vmap
from staticgrad.transforms.products import Jvp, Linearize, Pullback, Vjp

__all__ = ["Grad", "Jvp", "Linearize", "Pullback", "Source", "Transform", "Vjp", "Vmap"]
