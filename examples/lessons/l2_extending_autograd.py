# %% [markdown]
# # Extending autograd
#
# An operation of your own with a backward pass of your own: numbers are quantised, which has no useful derivative, and the backward
# pass pretends one. The same class works on tensors, operation by operation, and inside of traced functions, compiled.

# %%
import argparse
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg
import staticgrad.eager as torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Extending autograd.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A function that forgets the fraction
#
# `forward` casts to an unsigned byte and back: the fraction is cut off, towards zero, and what is left is taken modulo 256. What was
# lost is saved. `backward` is given the gradient of the result; the true derivative is 0 nearly everywhere, so it hands the gradient
# on, with the error added: where much was lost, the parameter is pushed.


# %%
class Quantise(sg.Function):
    """Cut off the fraction; backward passes the gradient on, with what was cut off added."""

    @staticmethod
    def forward(ctx, x):
        """Return x as a whole number from 0 to 255."""
        whole = x.to(torch.uint8).to(x.dtype)
        ctx.save_for_backward(x - whole)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with the error added."""
        (error,) = ctx.saved_tensors
        return gradient + error


numbers = [0.25, 2.75, 300.75, -1.5]
x = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
whole = Quantise.apply(x)
whole.sum().backward()
print("   of", numbers)
print("whole", whole.tolist(), " by", whole.grad_fn.name())
print(" grad", x.grad.tolist())
assert whole.tolist() == [0.0, 2.0, 44.0, 255.0]  # 300 - 256 and -1 + 256
assert x.grad.tolist() == [1.25, 1.75, 257.75, -255.5]

# %% [markdown]
# Inside of a traced function the same two methods become part of the graph: one node for `forward`, and `backward` where the gradient
# passes. The NumPy interpreter and both printers of the compiler give the same bits; for GPUs there is CUDA source.


# %%
def quantised_sum(x):
    """Return the sum of the quantised numbers."""
    return np.sum(Quantise.apply(x))


array = np.array(numbers)
compiled = {
    "interpreter": sg.trace(quantised_sum, backend="interp"),
    "LLVM": sg.trace(quantised_sum, printer="llvm"),
    "Numba": sg.trace(quantised_sum, printer="numba"),
}
values = {name: float(function(array)) for name, function in compiled.items()}
slopes = {name: sg.grad(function)(array) for name, function in compiled.items()}
print(values)
for name in compiled:
    assert values[name] == 301.0
    assert slopes[name].tolist() == x.grad.tolist()
assert "cuda.jit" in compiled["LLVM"].lower(array, backend="cuda").source

# %% [markdown]
# ## Does the gradient tell the truth?
#
# `gradcheck` compares a backward pass with small differences. A smooth function passes. The quantiser does not, and should not: its
# gradient is a useful lie.

# %%
smooth = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(lambda x: torch.exp(torch.sin(x)), (smooth,))
truthful = torch.autograd.gradcheck(Quantise.apply, (smooth,), raise_exception=False)
print("gradcheck of exp(sin(x)): True, of Quantise:", truthful)
assert not truthful

# %% [markdown]
# ## The way back
#
# Every tensor that was computed knows the node that made it, and every node the nodes before it: the path that `backward` takes.


# %%
def way_back(tensor) -> list[str]:
    """Return the names of the nodes from a tensor back to a leaf, always by the first operand."""
    names, node = [], tensor.grad_fn
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    return names


w = torch.tensor([1.5, 3.5], requires_grad=True)
path = way_back((Quantise.apply(w * 2) + 1).sum())
print(" -> ".join(path))
assert path == ["SumBackward0", "AddBackward0", "QuantiseBackward", "MulBackward0", "AccumulateGrad"]

# %% [markdown]
# ## In a network
#
# A network 2-16-1 learns a product of two numbers. First plain, then with the quantiser on its input, then in its middle. On the input
# the altered gradient goes nowhere, as nobody asks for the gradient of the data: only the values are coarser. In the middle it is all
# that the first layer gets to know, with the error added at every step.

# %%
rng = np.random.default_rng(7)
inputs = rng.uniform(0.0, 4.0, (200, 2))
targets = (inputs[:, :1] * inputs[:, 1:]) / 4
initial = {"w1": rng.normal(size=(2, 16)), "b1": np.ones(16), "w2": rng.normal(size=(16, 1)) / 4}
SCALE = 16.0  # steps of a sixteenth: a byte holds 0 to 16


def coarse(x):
    """Return x in steps of 1 / SCALE; what lies below 0 is 0, and what lies above 15 is 15."""
    return Quantise.apply(np.clip(x, 0.0, 15.0) * SCALE) / SCALE


def network(params, x, place):
    """Return the outputs; `place` says where the quantiser stands."""
    x = coarse(x) if place == "input" else x
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0.0)
    hidden = coarse(hidden) if place == "middle" else hidden
    return hidden @ params["w2"]


def loss(params, x, y, place):
    """Return the mean squared error."""
    return np.mean((network(params, x, place) - y) ** 2)


slope = sg.value_and_grad(sg.trace(loss, static_argnames="place"))
RATE, STEPS = 0.01, 400
histories: dict[str, list[float]] = {}
for place in ("nowhere", "input", "middle"):
    params, losses = dict(initial), []
    for _ in range(STEPS):
        value, grads = slope(params, inputs, targets, place)
        losses.append(float(value))
        params = {name: params[name] - RATE * grads[name] for name in params}
    histories[place] = losses
    print(f"quantiser {place:8} loss {losses[0]:7.3f} -> {losses[-1]:7.4f}")

# %% [markdown]
# The same network on tensors, one step: the gradients agree.

# %%
tensors = {name: torch.tensor(array, requires_grad=True) for name, array in initial.items()}
step = loss(tensors, torch.tensor(inputs), torch.tensor(targets), "middle")
step.backward()
_, traced_grads = slope(initial, inputs, targets, "middle")
difference = {name: float(np.max(np.abs(tensors[name].grad.numpy() - traced_grads[name]))) for name in initial}
print("eager against traced:", difference)
assert max(difference.values()) < 1e-12

# %% [markdown]
# What the altered gradient does: with the honest straight-through gradient (the error left out) the first layer would get this, with the
# error it gets that.


# %%
class StraightThrough(sg.Function):
    """Cut off the fraction; backward passes the gradient on as it is."""

    @staticmethod
    def forward(ctx, x):
        """Return x as a whole number from 0 to 255."""
        return x.to(torch.uint8).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient."""
        return gradient


def loss_straight(params, x, y):
    """Return the loss with the honest quantiser in the middle."""
    hidden = np.clip(np.maximum(x @ params["w1"] + params["b1"], 0.0), 0.0, 15.0) * SCALE
    return np.mean((StraightThrough.apply(hidden) / SCALE @ params["w2"] - y) ** 2)


honest = sg.grad(loss_straight)(initial, inputs, targets)
moved = float(np.linalg.norm(traced_grads["w1"] - honest["w1"]) / np.linalg.norm(honest["w1"]))
print(f"the error changes the gradient of the first layer by {moved:.0f} times its size, that of the second by nothing")
assert moved > 0.5
assert histories["nowhere"][-1] < 0.1 and histories["input"][-1] < 0.1 < histories["middle"][-1]
np.testing.assert_allclose(traced_grads["w2"], honest["w2"], rtol=1e-12)

# %%
figure, axes = plt.subplots(figsize=(7, 4))
for place, losses in histories.items():
    axes.semilogy(losses, label=f"quantiser {place}" if place != "nowhere" else "no quantiser")
axes.set_xlabel("step")
axes.set_ylabel("mean squared error")
axes.legend()
figure.tight_layout()
figure.savefig(output / "l2_extending_autograd.png", dpi=120)
print("picture:", output / "l2_extending_autograd.png")
