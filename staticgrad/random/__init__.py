"""Random numbers as functions of a key: JAX's names and JAX's streams, on traced keys and on NumPy arrays alike.

There is no hidden state. A key is a small array; equal keys give equal numbers, in a trace or outside, on any machine and any
number of threads. For more numbers, split the key:

>>> import numpy as np
>>> import staticgrad as sg
>>> key, once = sg.random.split(sg.random.key(7))
>>> sg.random.uniform(once, (2,))
array([0.30129575, 0.37495916])

In a traced function `np.random` would draw once, at tracing; these functions draw anew at each call, out of the key that it gets.
"""

from __future__ import annotations

from typing import Any

from staticgrad.errors import MissingAttributeError, UnsupportedAttributeError
from staticgrad.ir.source import at_user_line
from staticgrad.random.continuous import cauchy, exponential, gumbel, laplace, logistic, normal, truncated_normal
from staticgrad.random.discrete import categorical
from staticgrad.random.keys import PRNGKey, bits, fold_in, key, split
from staticgrad.random.order import choice, permutation
from staticgrad.random.uniform import bernoulli, rademacher, randint, uniform
from staticgrad.tracing.functions.table import closest

__all__ = [
    "PRNGKey", "bernoulli", "bits", "categorical", "cauchy", "choice", "exponential", "fold_in", "gumbel", "key", "laplace",
    "logistic", "normal", "permutation", "rademacher", "randint", "split", "truncated_normal", "uniform",
]  # fmt: skip

_REJECTED = (
    "ball", "beta", "binomial", "chisquare", "dirichlet", "f", "gamma", "generalized_normal", "loggamma", "multinomial", "poisson", "t",
    "wald",
)  # fmt: skip
"""Distributions whose samplers draw until something fits."""

_WITH_STATE = ("default_rng", "Generator", "RandomState", "rand", "randn", "random", "random_sample", "seed", "standard_normal")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    listed = f"there are {', '.join(__all__)}"
    if name in _REJECTED:
        raise UnsupportedAttributeError(at_user_line(f"staticgrad.random.{name} needs loops, which are not supported yet; {listed}"))
    if name in _WITH_STATE:
        raise MissingAttributeError(
            at_user_line(f"staticgrad.random has no state and no {name!r}: make a key, sg.random.key(seed), and draw from it; {listed}")
        )
    raise MissingAttributeError(at_user_line(f"staticgrad.random has no {name!r}; {closest(name, __all__)}"))


def __dir__() -> list[str]:
    return sorted(__all__)
