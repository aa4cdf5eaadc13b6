"""What `sg.special` says of each universal function: its operands, what it returns, and an example."""

from __future__ import annotations

import inspect
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A universal function of `scipy.special`: an example is a call and its value to six digits."""

    name: str
    operands: tuple[str, ...]
    summary: str
    call: str
    value: str
    note: str = ""

    @property
    def signature(self) -> inspect.Signature:
        """The signature: operands by position."""
        return inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in self.operands])

    @property
    def docstring(self) -> str:
        """The docstring in NumPy's style."""
        note = f"\n\n{self.note}" if self.note else ""
        return (
            f"Return {self.summary}.{note}\n\n"
            f"Parameters\n----------\n{', '.join(self.operands)} : array_like\n    Real numbers"
            f"{' of shapes that broadcast' if len(self.operands) > 1 else ' of any shape'}; integers become float64, float32 stays.\n\n"
            f"Returns\n-------\narray\n    `scipy.special.{self.name}`, in the shape and dtype that it has there.\n\n"
            f"Examples\n--------\n>>> round(float({self.call}), 6)\n{self.value}\n"
        )


X, XY = ("x",), ("x", "y")

ENTRIES = (
    Entry("betaln", ("a", "b"), "the logarithm of |beta(a, b)|", "betaln(2.0, 3.0)", "-2.484907"),
    Entry("cosm1", X, "cos(x) - 1, accurate near 0", "cosm1(1e-3)", "-0.0"),
    Entry("digamma", X, "the derivative of `gammaln`", "digamma(1.0)", "-0.577216"),
    Entry("entr", X, "-x log(x), the entropy", "entr(0.5)", "0.346574", "It is 0 at 0 and -inf below; the derivative at 0 is 0."),
    Entry("erf", X, "the error function", "erf(1.0)", "0.842701"),
    Entry("erfc", X, "1 - erf(x), without cancellation", "erfc(3.0)", "2.2e-05"),
    Entry("erfcx", X, "exp(x**2) erfc(x)", "erfcx(10.0)", "0.056141"),
    Entry("erfinv", X, "the inverse of `erf`", "erfinv(0.5)", "0.476936", "It is infinite at -1 and 1, and NaN beyond."),
    Entry("exp10", X, "10**x", "exp10(2.0)", "100.0"),
    Entry("exp2", X, "2**x", "exp2(3.0)", "8.0"),
    Entry("expit", X, "1 / (1 + exp(-x)), the logistic function", "expit(0.0)", "0.5"),
    Entry("expm1", X, "exp(x) - 1, accurate near 0", "expm1(1e-3)", "0.001001"),
    Entry("gamma", X, "the gamma function", "gamma(5.0)", "24.0"),
    Entry("gammaln", X, "the logarithm of |gamma(x)|", "gammaln(5.0)", "3.178054"),
    Entry(
        "huber", ("delta", "r"), "Huber's loss: r**2 / 2 up to delta, from there delta (|r| - delta / 2)", "huber(1.0, 3.0)", "2.5",
        "It is infinite for a negative delta.",
    ),
    Entry(
        "kl_div", XY, "x log(x / y) - x + y", "kl_div(0.5, 1.0)", "0.153426",
        "It is y where x is 0, and infinite for negative numbers; on traced arrays it has no cancellation where x is nearly y.",
    ),
    Entry("log1p", X, "log(1 + x), accurate near 0", "log1p(1e-3)", "0.001"),
    Entry("log_expit", X, "the logarithm of `expit`", "log_expit(-800.0)", "-800.0"),
    Entry("log_ndtr", X, "the logarithm of `ndtr`", "log_ndtr(-40.0)", "-804.608442"),
    Entry("loggamma", X, "the logarithm of gamma(x), NaN below 0", "loggamma(5.0)", "3.178054"),
    Entry("logit", X, "log(x / (1 - x)), the inverse of `expit`", "logit(0.75)", "1.098612"),
    Entry("ndtr", X, "the distribution function of the standard normal distribution", "ndtr(0.0)", "0.5"),
    Entry(
        "pseudo_huber", ("delta", "r"), "delta**2 (sqrt(1 + (r / delta)**2) - 1), a smooth `huber`", "pseudo_huber(1.0, 3.0)", "2.162278"
    ),
    Entry("psi", X, "the derivative of `gammaln`; another name of `digamma`", "psi(2.0)", "0.422784"),
    Entry(
        "rel_entr", XY, "x log(x / y)", "rel_entr(0.5, 1.0)", "-0.346574", "It is 0 where x is 0, and infinite for negative numbers."
    ),
    Entry("xlog1py", XY, "x log(1 + y), 0 where x is 0", "xlog1py(0.0, -1.0)", "0.0"),
    Entry("xlogy", XY, "x log(y), 0 where x is 0", "xlogy(0.0, 0.0)", "0.0"),
)  # fmt: skip
"""Every universal function that traced arrays know, in alphabetical order."""
