# %% [markdown]
# # A notebook on autograd
#
# Small experiments, one question each: what is a derivative that a program computes, where does it end up, when does it add up, and how
# does one switch it off? Every answer is given twice: by tensors, which record what they do while they do it, and by `sg.grad`, which looks
# at a function once and compiles its derivative.

# %%
import argparse
import math
import warnings
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg
import staticgrad.eager as torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="A notebook on autograd.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Only numbers with a point have slopes

# %%
try:
    torch.tensor(3, requires_grad=True)
except RuntimeError as error:
    refusal = str(error).splitlines()[0]
print(refusal)
assert "only floating-point and complex tensors can require gradients" in refusal

# %% [markdown]
# ## One operation: x squared
#
# At 3 the value is 9, and the slope, 2x, is 6.

# %%
x = torch.tensor(3.0, requires_grad=True)
square = x**2
print(square)
square.backward()
print("slope", x.grad)
assert repr(square) == "tensor(9., grad_fn=<PowBackward0>)" and x.grad.item() == 6.0

square_traced = sg.value_and_grad(lambda x: x**2)(3.0)
print("traced", square_traced)
assert square_traced == (9.0, 6.0)

# %% [markdown]
# ## Two: the sine of x squared
#
# The chain rule multiplies the slopes of the steps: `cos(x^2) * 2x`. The graph that `sg.grad` compiles can be printed as a formula.


# %%
def sine_of_square(x):
    """Return sin(x^2)."""
    return np.sin(x**2)


formula = str(sg.derivative_formula(sine_of_square, 1.0))
print("derivative", formula)
assert formula == "2*x*cos(x**2)"

SINE_SLOPES = {3.0: -5.466781571308061, 2.0: -2.6145744834544478}
sine_eager, sine_traced = {}, {}
for at, known in SINE_SLOPES.items():
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = sine_of_square(x)
    value.backward()
    sine_eager[at] = x.grad.item()
    sine_traced[at] = float(sg.grad(sine_of_square)(at))
    print(f"at {at}: value {value.item():.4f}, slope {sine_eager[at]!r}, traced {sine_traced[at]!r}")
    np.testing.assert_allclose([sine_eager[at], sine_traced[at], 2 * at * math.cos(at**2)], known, rtol=1e-12)
np.testing.assert_allclose(sine_of_square(3.0), 0.4121, atol=5e-5)

# %% [markdown]
# ## Three: the exponential of that
#
# `exp(sin(x^2))`, in single precision, and with names for what comes in between.

# %%
EXP_SLOPES = {3.0: -8.2549131, 2.0: -1.2266647}
exp_eager, exp_traced = {}, {}
for at, known in EXP_SLOPES.items():
    x = torch.tensor(at, requires_grad=True)
    first = x**2
    second = torch.sin(first)
    third = torch.exp(second)
    third.backward()
    exp_eager[at] = x.grad.item()
    exp_traced[at] = float(sg.grad(lambda x: np.exp(np.sin(x**2)))(at))
    print(f"at {at}: slope {exp_eager[at]:.7f}, traced {exp_traced[at]:.7f}")
    np.testing.assert_allclose(exp_eager[at], known, rtol=1e-5)
    np.testing.assert_allclose(exp_traced[at], known, rtol=1e-7)

# %% [markdown]
# Gradients are kept at leaves, where parameters are. Asking an intermediate tensor for its own gives None, and a warning says how to
# change that: `retain_grad()`, before the backward pass.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    not_kept = first.grad
warning = str(caught[0].message)
print(not_kept, "-", warning)
assert not_kept is None and "retain_grad()" in warning

x = torch.tensor(2.0, requires_grad=True)
first = x**2
first.retain_grad()
torch.exp(torch.sin(first)).backward()
inner_traced = sg.grad(lambda first: np.exp(np.sin(first)))(4.0)
print(f"kept {first.grad}; traced, as the gradient of the outer function at x^2: {inner_traced:.4f}")
np.testing.assert_allclose(first.grad.item(), math.cos(4.0) * math.exp(math.sin(4.0)), rtol=1e-5)
np.testing.assert_allclose(inner_traced, math.cos(4.0) * math.exp(math.sin(4.0)), rtol=1e-12)

chain = torch.backward_graph(torch.exp(torch.sin(first)), x=x, x_squared=first)
(output / "l5_chain.svg").write_text(chain.to_svg(), encoding="utf-8")
assert chain.backward_arrows[-1] == ("PowBackward0", "x.grad")

# %% [markdown]
# ## A perceptron
#
# One neuron with one input: `sigmoid(w x + b)`, the probability that the answer is yes. It is sure of it, and the answer is no. The loss is
# binary cross-entropy, the negative logarithm of the probability that was given to what happened. Logarithms of 0 must not occur, so
# probabilities are clamped to [1e-8, 1 - 1e-8] first.


# %%
def prediction(w, b, x):
    """Return the probability of yes. These functions work on tensors and on traced arrays."""
    return torch.sigmoid(w * x + b)


def cross_entropy(p, y):
    """Return the negative logarithm of the probability of what happened, y being 0 or 1."""
    q = torch.clamp(p, 1e-8, 1 - 1e-8)
    return -(y * torch.log(q) + (1 - y) * torch.log(1 - q))


def perceptron_loss(w, b, x, y):
    """Return the loss of one sample."""
    return cross_entropy(prediction(w, b, x), y)


def perceptron(x: float, dtype: np.dtype) -> dict[str, tuple[float, float, float]]:
    """Return loss and gradient by w and b at w = 1, b = 0, y = 0: of tensors, and traced."""
    w = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    b = torch.tensor(0.0, dtype=dtype, requires_grad=True)
    loss = perceptron_loss(w, b, torch.tensor(x, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    loss.backward()
    numbers = [dtype.type(number) for number in (1.0, 0.0, x, 0.0)]
    value, gradient = sg.value_and_grad(perceptron_loss, argnums=(0, 1))(*numbers)
    return {
        "tensors": (loss.item(), w.grad.item(), b.grad.item()),
        "traced": (float(value), float(gradient[0]), float(gradient[1])),
    }


results = {dtype.name: perceptron(6.7, dtype) for dtype in (torch.float32, torch.float64)}
for dtype, found in results.items():
    for how, (loss, w_slope, b_slope) in found.items():
        print(f"{dtype} {how:8} loss {loss:.6f}, gradient of w {w_slope:.6f}, of b {b_slope:.6f}")
        accuracy = {"float32": 1e-5, "float64": 1e-6}[dtype]
        np.testing.assert_allclose(loss, {"float32": 6.701176, "float64": 6.701230}[dtype], rtol=accuracy)
        np.testing.assert_allclose([w_slope, b_slope], [6.691762, 0.998771], rtol=accuracy)

# %% [markdown]
# By hand: the loss is `-log(1 - p)`, with slope `1 / (1 - p)` along p. The sigmoid has slope `p (1 - p)`. Their product is `p`: that is the
# gradient of b, and `p x` that of w. The clamp does nothing here: a slope of 1.
#
# Why do losses in single precision disagree in the fifth digit, even among themselves? `1 - p` is 0.0012: of p = 0.9988 with its seven
# digits only four are left after the subtraction, and two sigmoids that differ in the last one give different losses.

# %%
p = 1 / (1 + math.exp(-6.7))
chain_rule = (1 / (1 - p)) * (p * (1 - p))
by_hand = chain_rule * 6.7, chain_rule
print(f"p {p:.4f}; by hand, gradient of w {by_hand[0]:.6f}, of b {by_hand[1]:.6f}")
np.testing.assert_allclose(by_hand, [6.691762, 0.998771], rtol=1e-6)
for how in ("tensors", "traced"):
    np.testing.assert_allclose(results["float64"][how][1:], by_hand, rtol=1e-9)

# %% [markdown]
# ## A saturated prediction
#
# Make it surer: x = 67. The sigmoid is 1, to the last digit. In double precision the clamp holds the probability at 1 - 1e-8: the loss is
# finite, and the gradient 0, since p lies outside of the clamp's bounds, where nothing passes. The neuron is as wrong as can be, and learns
# nothing. In single precision `1 - 1e-8` *is* 1: the clamp does not help, and the loss is infinite; its gradient, infinity times 0, is not
# a number.

# %%
saturated = {dtype.name: perceptron(67.0, dtype) for dtype in (torch.float32, torch.float64)}
for dtype, found in saturated.items():
    for how, numbers in found.items():
        print(f"{dtype} {how:8} loss, gradient of w, of b: {numbers}")
assert np.float32(1 - 1e-8) == 1.0
for how in ("tensors", "traced"):
    np.testing.assert_allclose(saturated["float64"][how], [-math.log(1e-8), 0.0, 0.0], rtol=1e-7)
    assert saturated["float32"][how][0] == math.inf and math.isnan(saturated["float32"][how][1])

# %% [markdown]
# The cure is not a clamp. Written with z = w x + b, sigmoid and logarithm together are `log(1 + exp(z)) - y z`, which `logaddexp` computes
# without ever forming a probability. Its slope along z is `p - y`, never 0 where the answer is wrong.


# %%
def loss_of_logit(w, b, x, y):
    """Return the loss of one sample, from the number that goes into the sigmoid."""
    z = w * x + b
    return np.logaddexp(0.0, z) - y * z


w, b = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
cured = loss_of_logit(w, b, torch.tensor(67.0), torch.tensor(0.0))
cured.backward()
cured_traced = sg.value_and_grad(loss_of_logit, argnums=(0, 1))(*np.array([1.0, 0.0, 67.0, 0.0], np.float32))
print(f"loss {cured.item()}, gradient of w {w.grad}, of b {b.grad}; traced {cured_traced}")
np.testing.assert_allclose([cured.item(), w.grad.item(), b.grad.item()], [67.0, 67.0, 1.0], rtol=1e-6)
np.testing.assert_allclose([cured_traced[0], *cured_traced[1]], [67.0, 67.0, 1.0], rtol=1e-6)

# %% [markdown]
# ## Several numbers at once
#
# The mean of the squares of 1, 2, 3 is 14 / 3. Each number's share of the slope is 2 x / 3.

# %%
vector = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
mean_of_squares = torch.mean(vector**2)
mean_of_squares.backward()
mean_traced, mean_slope_traced = sg.value_and_grad(lambda v: np.mean(v**2))(np.array([1.0, 2.0, 3.0]))
print(mean_of_squares, vector.grad)
print("traced", mean_traced, mean_slope_traced)
assert repr(vector.grad) == "tensor([0.6667, 1.3333, 2.0000])"
np.testing.assert_allclose([mean_of_squares.item(), mean_traced], 14 / 3, rtol=1e-6)
np.testing.assert_allclose(mean_slope_traced, [2 / 3, 4 / 3, 2.0], rtol=1e-12)

# %% [markdown]
# ## Gradients accumulate
#
# Two backward passes of x squared at 2 leave 4, then 8, in `x.grad`; `zero_()` starts anew. A traced gradient is a returned value: there is
# nothing to clear.

# %%
x = torch.tensor(2.0, requires_grad=True)
seen = []
for _ in range(2):
    (x**2).backward()
    seen.append(x.grad.item())
x.grad.zero_()
(x**2).backward()
seen.append(x.grad.item())
square_slope = sg.grad(lambda x: x**2)
print(f"twice, and once more after zero_(): {seen}; traced {[float(square_slope(2.0)) for _ in range(2)]}")
assert seen == [4.0, 8.0, 4.0] and square_slope(2.0) == square_slope(2.0) == 4.0

# %% [markdown]
# ## Three ways to stop tracking
#
# - `requires_grad_(False)` changes the tensor itself, for good;
# - `detach()` gives another tensor on the same memory that is not tracked;
# - `with torch.no_grad():` records nothing inside of it.

# %%
x = torch.tensor(2.0, requires_grad=True)
tracked = [(x**2).requires_grad]

x.requires_grad_(False)
tracked.append((x**2).requires_grad)
x.requires_grad_(True)

detached = x.detach()
tracked.append((detached**2).requires_grad)
assert np.shares_memory(detached.numpy(), x.detach().numpy()) and x.requires_grad

with torch.no_grad():
    tracked.append((x**2).requires_grad)
    grad_enabled_inside = torch.is_grad_enabled()
tracked.append((x**2).requires_grad)
print("tracked: before, requires_grad_(False), detach(), no_grad(), after", tracked)
assert tracked == [True, False, False, False, True] and not grad_enabled_inside and torch.is_grad_enabled()

# %% [markdown]
# In a traced function: leave the argument out of `argnums`, or wrap a value in `sg.stop_gradient`. Here x stands twice in a product, and
# one of the two is held: the slope is x, not 2 x.

# %%
(x * x.detach()).backward()
held_traced = sg.grad(lambda x: x * sg.stop_gradient(x))(2.0)
print(f"slope of x * x.detach() at 2: {x.grad}, traced {held_traced}")
assert x.grad.item() == held_traced == 2.0

# %%
grid = np.linspace(0.0, 3.2, 400)
curve = torch.tensor(grid, requires_grad=True)
curve_values = torch.exp(torch.sin(curve**2))
curve_values.sum().backward()  # each element has its own slope
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(grid, curve_values.detach().numpy(), color="#1f6f8b", label="exp(sin(x²))")
axes.plot(grid, curve.grad.numpy(), color="#c8553d", label="its slope, by backward()")
axes.plot(list(exp_eager), list(exp_eager.values()), "o", color="0.2", label="slopes at 2 and 3")
axes.axhline(0.0, color="0.8", linewidth=1)
axes.set(title="A function and its slope", xlabel="x")
axes.legend()
figure.savefig(output / "l5_slope.png", dpi=100)
drawn = [line.get_xydata() for line in axes.get_lines()[:3]]
plt.close(figure)
print(f"\npictures: {output / 'l5_chain.svg'}, {output / 'l5_slope.png'}")
