# %% [markdown]
# # The ways to a derivative
#
# - **symbolic**: the derivative as a formula;
# - **numeric**: differences of function values;
# - **automatic, forward**: the chain rule applied from the inputs to the output, together with the function;
# - **automatic, reverse**: the chain rule applied backward, from the output to all inputs at once.
#
# All four on the same functions: how wrong they are, and what they cost.

# %%
import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import sympy

import staticgrad as sg

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="The ways to a derivative.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)


# %% [markdown]
# ## Symbolic
#
# The graph of the derivative, simplified and written down. SymPy takes it from there: it gives the value to as many digits as one likes,
# which serves as the truth below.


# %%
def f(x: float) -> float:
    """Return what is differentiated."""
    return np.exp(np.sin(x**2))


X0 = 0.9
slope_formula = sg.derivative_formula(f)
second_formula, third_formula = sg.derivative_formula(sg.grad(f)), sg.derivative_formula(sg.grad(sg.grad(f)))
print(f"f   = {sg.formula(f)}\nf'  = {slope_formula}\nf'' = {second_formula}")
assert str(slope_formula) == "2*x*cos(x**2)*exp(sin(x**2))"
assert sympy.simplify(slope_formula.to_sympy() - sympy.diff(sg.formula(f).to_sympy(), "x")) == 0


def exactly(formula: Any, x: float) -> sympy.Float:
    """Return the value of a formula to 50 digits."""
    return sympy.N(formula.to_sympy().subs("x", sympy.Float(x, 60)), 50)


truth = exactly(slope_formula, X0)


def error(value: float) -> float:
    """Return the relative error of a slope at X0."""
    return float(abs((sympy.Float(float(value), 60) - truth) / truth))


# %% [markdown]
# ## Numeric, and why the step matters
#
# Taylor's series says what differences are worth:
#
# - forward: (f(x + h) - f(x)) / h is off by h f''/2 (truncation),
# - central: (f(x + h) - f(x - h)) / 2h is off by h^2 f'''/6,
# - and both by the rounding of f, about 1e-16 f, divided by h.
#
# Truncation falls with h and rounding grows as 1/h, so the error over the step has the shape of a V. Half of the digits is the best that
# forward differences can do, two thirds central ones.


# %%
def forward_difference(x: float, h: float) -> float:
    """Return the slope from x and one point beside it."""
    return (f(x + h) - f(x)) / ((x + h) - x)  # the step as the computer has it


def central_difference(x: float, h: float) -> float:
    """Return the slope from two points around x."""
    return (f(x + h) - f(x - h)) / ((x + h) - (x - h))


ROUNDING = 2.0**-53
value, second, third = f(X0), float(abs(exactly(second_formula, X0))), float(abs(exactly(third_formula, X0)))
size = float(abs(truth))
h = 10.0 ** np.arange(-15.0, -0.75, 0.25)
forward_errors = np.array([error(forward_difference(X0, step)) for step in h])
central_errors = np.array([error(central_difference(X0, step)) for step in h])
truncation = {"forward": h * second / 2 / size, "central": h**2 * third / 6 / size}
rounding = {"forward": 2 * ROUNDING * value / h / size, "central": ROUNDING * value / h / size}
best_step = {"forward": np.sqrt(4 * ROUNDING * value / second), "central": np.cbrt(3 * ROUNDING * value / third)}

print(f"\n{'difference':>10} {'best step by Taylor':>20} {'error there':>12} {'least error seen':>17}")
for way, difference, errors in (
    ("forward", forward_difference, forward_errors),
    ("central", central_difference, central_errors),
):
    there = error(difference(X0, best_step[way]))
    print(f"{way:>10} {best_step[way]:20.1e} {there:12.1e} {errors.min():17.1e}")
    assert (errors <= 1.5 * truncation[way] + 8 * rounding[way] + 1e-15)[h < 0.02].all(), "no worse than Taylor says"
    large = (h > 30 * best_step[way]) & (h < 0.01)
    order = np.polyfit(np.log(h[large]), np.log(errors[large]), 1)[0]
    assert abs(order - {"forward": 1, "central": 2}[way]) < 0.1, "the left arm of the V is rounding, the right one h or h**2"
    assert errors[0] > 1000 * errors.min() and errors[-1] > 1000 * errors.min()
assert forward_errors.min() > 1e-11 and central_errors.min() < forward_errors.min() / 10

# %%
figure_of_errors, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for way, errors, colour in (("forward", forward_errors, "C0"), ("central", central_errors, "C1")):
    axis.loglog(h, np.maximum(errors, 1e-17), ".", color=colour, label=f"{way} difference")
    axis.loglog(h, truncation[way] + rounding[way], color=colour, lw=1, label=f"{way}, by Taylor's series")
axis.axhline(error(sg.grad(f)(X0)) + 1e-17, color="C2", ls="--", label="automatic")
axis.set(title="Error of the slope over the step", xlabel="step h", ylabel="relative error", ylim=(1e-17, 10))
axis.legend()
figure_of_errors.savefig(output / "l1_differences.png", dpi=100)
plt.close(figure_of_errors)

# %% [markdown]
# ## Automatic, forward and reverse
#
# Neither knows a step: both apply the chain rule to the numbers at hand, and are as exact as the function itself.

# %%
slopes = {
    "symbolic": sympy.lambdify("x", slope_formula.to_sympy(), "numpy")(X0),
    "forward difference": forward_difference(X0, best_step["forward"]),
    "central difference": central_difference(X0, best_step["central"]),
    "automatic, forward": sg.jvp(f, (X0,), (1.0,))[1],
    "automatic, reverse": sg.grad(f)(X0),
}
print(f"\nthe slope of f at {X0}; the truth is {sympy.N(truth, 20)}")
for way, slope in slopes.items():
    print(f"{way:>20} {slope:.16f}   relative error {error(slope):.0e}")
for way in ("symbolic", "automatic, forward", "automatic, reverse"):
    assert error(slopes[way]) < 5e-16
assert 1e-11 < error(slopes["forward difference"]) < 1e-7 and error(slopes["central difference"]) < 1e-9


# %% [markdown]
# ## What they cost
#
# A function of n parameters. Differences evaluate it n + 1 times. Forward mode goes through it once for each parameter. Reverse mode goes
# through it forward and back, two passes, whatever n is. A formula is written once, and evaluated for all parameters together.


# %%
@sg.trace
def g(p: np.ndarray) -> np.ndarray:
    """Return one number of many parameters."""
    return np.log1p(np.sum(np.sin(p) ** 2))


g_formula = sg.derivative_formula(g, np.zeros(10))
print(f"\nof 10 parameters, d g / d p[i] = {g_formula}")
assert str(g_formula) == "2*cos(p[i])*sin(p[i])/(Sum(sin(p[j])**2, (j, 0, 9)) + 1)"
directional = sg.trace(lambda p, direction: sg.jvp(g, (p,), (direction,))[1])
gradient = sg.grad(g)


def by_formula(p: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the gradient and the number of evaluations of the formula."""
    return 2 * np.cos(p) * np.sin(p) / (np.sum(np.sin(p) ** 2) + 1), 1


def by_differences(p: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the gradient and the number of evaluations of g."""
    at_p, step, moved, evaluations = g(p), 1e-7, p.copy(), 1
    found = np.empty_like(p)
    for k in range(p.size):
        moved[k] = p[k] + step
        found[k] = (g(moved) - at_p) / (moved[k] - p[k])
        moved[k] = p[k]
        evaluations += 1
    return found, evaluations


def by_forward_mode(p: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the gradient and the number of passes: one along each unit vector."""
    found, direction, passes = np.empty_like(p), np.zeros_like(p), 0
    for k in range(p.size):
        direction[k] = 1.0
        found[k] = directional(p, direction)
        direction[k] = 0.0
        passes += 1
    return found, passes


def by_reverse_mode(p: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the gradient and the number of passes: forward and back."""
    return gradient(p), 2


WAYS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {
    "symbolic": by_formula,
    "differences": by_differences,
    "forward mode": by_forward_mode,
    "reverse mode": by_reverse_mode,
}
SIZES = [1, 10, 100, 1000, 10_000]
rng = np.random.default_rng(0)
counts: dict[str, list[int]] = {way: [] for way in WAYS}
seconds: dict[str, list[float]] = {way: [] for way in WAYS}
errors_of: dict[str, list[float]] = {way: [] for way in WAYS}
for n in SIZES:
    p = rng.uniform(0.2, 1.4, n)
    wide = p.astype(np.longdouble)
    reference = np.sin(2 * wide) / (1 + np.sum(np.sin(wide) ** 2))
    for way, function in WAYS.items():
        function(p[:1]), g(p), gradient(p), directional(p, p)  # compiled before the clock runs
        begun = time.perf_counter()
        found, count = function(p)
        seconds[way].append(time.perf_counter() - begun)
        counts[way].append(count)
        errors_of[way].append(float(np.max(np.abs(found - reference) / np.max(np.abs(reference)))))

for title, table, form in (
    ("evaluations or passes", counts, "{:9d}"),
    ("milliseconds", {way: [1e3 * s for s in row] for way, row in seconds.items()}, "{:9.3f}"),
    ("largest error relative to the largest partial derivative", errors_of, "{:9.0e}"),
):
    print(f"\n{title}, for n parameters\n{'n':>14}" + "".join(f"{n:9d}" for n in SIZES))
    for way in WAYS:
        print(f"{way:>14}" + "".join(form.format(entry) for entry in table[way]))
assert counts["symbolic"] == [1] * 5 and counts["differences"] == [n + 1 for n in SIZES]
assert counts["forward mode"] == SIZES and counts["reverse mode"] == [2] * 5
for way in ("symbolic", "forward mode", "reverse mode"):
    assert max(errors_of[way]) < 1e-13
assert all(e > 1e-10 for e in errors_of["differences"]) and errors_of["differences"][-1] > 1e4 * errors_of["reverse mode"][-1]

# %%
figure_of_costs, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for way in WAYS:
    axes[0].loglog(SIZES, counts[way], "o-", label=way)
    axes[1].loglog(SIZES, seconds[way], "o-", label=way)
axes[0].set(title="Evaluations or passes", xlabel="parameters")
axes[1].set(title="Seconds for the whole gradient", xlabel="parameters")
axes[0].legend()
figure_of_costs.savefig(output / "l1_cost.png", dpi=100)
plt.close(figure_of_costs)


# %% [markdown]
# A formula has a price that this function hides: written out, that of a long computation grows with every part that is used twice. Here
# each step uses its input twice, and the formula doubles. A graph holds each part once; so does a formula that names its parts.


# %%
def steps(count: int) -> Callable[[float], float]:
    """Return a function of `count` equal steps."""

    def function(x: float) -> float:
        for _ in range(count):
            x = np.sin(x) * x + 1
        return x

    return function


DEPTHS = [1, 2, 4, 6, 8]
written_out = [len(str(sympy.diff(sg.formula(steps(k)).to_sympy(), "x"))) for k in DEPTHS]
graph_nodes = [len(sg.grad(steps(k)).lower(1.0).optimized.nodes) for k in DEPTHS]
print("\nsteps, characters of the derivative written out, nodes of its graph")
for row in zip(DEPTHS, written_out, graph_nodes, strict=True):
    print("{:5d} {:12d} {:6d}".format(*row))
print(f"with names for what occurs twice: {sg.derivative_formula(steps(3))}")
assert written_out[-1] > 100 * written_out[0] and graph_nodes[-1] <= 8 * DEPTHS[-1]

# %% [markdown]
# ## Where there is no derivative
#
# At a kink each way says something else. staticgrad's choices are documented, and the same in both modes. A formula has the same choice
# written into it. A central difference averages both sides; one-sided differences show both.

# %%
KINKS: dict[str, tuple[Callable[[float], float], float, float]] = {
    "abs(x) at 0": (np.abs, 0.0, 0.0),
    "relu(x) at 0": (sg.nn.relu, 0.0, 0.0),
    "clip(x, 0, 1) at 1": (lambda x: np.clip(x, 0.0, 1.0), 1.0, 1.0),
    "maximum(x, 2) at 2": (lambda x: np.maximum(x, 2.0), 2.0, 0.5),
    "max([x, 2, 2]) at 2": (lambda x: np.max(np.stack([x, np.float64(2.0), np.float64(2.0)])), 2.0, 1 / 3),
    "sqrt(x) at 0": (np.sqrt, 0.0, np.inf),
    "norm([x, 0]) at 0": (lambda x: np.linalg.norm(np.stack([x, np.float64(0.0)])), 0.0, 0.0),
    "hypot(x, 0) at 0": (lambda x: np.hypot(x, 0.0), 0.0, 0.0),
}


def symbolic_at(function: Callable[[float], float], x: float) -> tuple[str, str]:
    """Return the value of the formula at x, and its text."""
    try:
        formula = sg.derivative_formula(function)
    except sg.StaticgradError:
        return "-", "no notation for it"
    return str(formula.to_sympy().subs("x", sympy.nsimplify(x))), str(formula)


kink_rows = {}
print(f"\n{'':>20} {'reverse':>8} {'forward':>8} {'symbolic':>9} {'left':>9} {'right':>9} {'central':>8}   formula")
for name, (function, at, documented) in KINKS.items():
    reverse, forward = float(sg.grad(function)(at)), float(sg.jvp(function, (at,), (1.0,))[1])
    symbolic, text = symbolic_at(function, at)
    STEP = 1e-6
    with np.errstate(invalid="ignore"):
        left, right = (function(at) - function(at - STEP)) / STEP, (function(at + STEP) - function(at)) / STEP
    kink_rows[name] = (reverse, forward, symbolic, float(left), float(right), float(left + right) / 2)
    print(f"{name:>20} {reverse:8.3g} {forward:8.3g} {symbolic:>9} {left:9.3g} {right:9.3g} {(left + right) / 2:8.3g}   {text}")
    assert reverse == forward == documented

# %% [markdown]
# Tensors run the same operations with the same rules, and make the same choices.

# %%
tensor_kinks = {}
for name, (function, at, documented) in KINKS.items():
    point = sg.tensor(at, dtype=np.float64, requires_grad=True)
    function(point).backward()
    tensor_kinks[name] = point.grad.item()
    assert tensor_kinks[name] == documented
print("on tensors: " + ", ".join(f"{name} {slope:.3g}" for name, slope in tensor_kinks.items()))
