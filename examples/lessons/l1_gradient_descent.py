# %% [markdown]
# # What a gradient is for
#
# A line through points: start anywhere, measure how wrong the line is, ask the gradient in which direction it becomes less wrong, take a
# small step there, and repeat. Everything that learns by gradients does this.

# %%
import argparse
import warnings
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="What a gradient is for.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data: a line with noise

# %%
rng = np.random.default_rng(1)
x = rng.uniform(-2.0, 3.0, 60)
y = 1.5 * x - 0.7 + rng.normal(scale=0.6, size=60)


# %% [markdown]
# ## Residuals and the loss
#
# The residual of a sample is what was predicted minus what is true; each sample has its own. What is made small is one number, the mean
# of the squares of all residuals.


# %%
def predict(params: dict, x: np.ndarray) -> np.ndarray:
    """Return the line at x."""
    return params["w"] * x + params["b"]


@sg.trace
def residuals(params: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return predicted minus actual, one number a sample."""
    return predict(params, x) - y


@sg.trace
def loss(params: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean squared error."""
    return np.mean(residuals(params, x, y) ** 2)


start = {"w": -1.0, "b": 3.0}
first_residuals = residuals(start, x, y)
print("residuals of the first samples at the start", first_residuals[:4].round(3))
print(f"mean squared error at the start {loss(start, x, y):.4f}")
np.testing.assert_allclose(loss(start, x, y), np.mean(first_residuals**2), rtol=1e-14)

# %% [markdown]
# The gradient says how the loss changes with each parameter. It can be written down. One sample's part of it is its residual, twice, times
# what the prediction changes by.

# %%
formulas = sg.derivative_formula(loss, start, x, y)
for name, formula in formulas.items():
    print(f"dloss/d{name} = {formula}")
assert str(formulas["b"]) == "Sum(w*x[i] + b - y[i], (i, 0, 59))/30"

# %% [markdown]
# ## Descent
#
# Forward pass, loss, backward pass, update. The gradient points uphill, so the step goes against it. `value_and_grad` compiles both
# passes at its first call.

# %%
value_and_grad = sg.value_and_grad(loss)


def descend(params: dict, rate: float, steps: int) -> tuple[list[dict], np.ndarray]:
    """Return the parameters before and after each step, and the loss at each of them."""
    path, losses = [params], []
    for _ in range(steps):
        value, gradient = value_and_grad(params, x, y)
        params = {name: params[name] - rate * gradient[name] for name in params}
        path.append(params)
        losses.append(value)
    return path, np.array([*losses, loss(params, x, y)])


RATE, STEPS = 0.1, 300
path, losses = descend(start, RATE, STEPS)
fit = path[-1]
best = dict(zip(("w", "b"), np.polyfit(x, y, 1), strict=True))
slope_at_the_fit = value_and_grad(fit, x, y)[1]
print(f"\nafter {STEPS} steps w {fit['w']:.6f}, b {fit['b']:.6f}; least squares in closed form w {best['w']:.6f}, b {best['b']:.6f}")
print(f"the gradient at the start {value_and_grad(start, x, y)[1]}")
print(f"the gradient at the fit   {slope_at_the_fit}: (nearly) zero")
for name, wanted_value in best.items():
    np.testing.assert_allclose(fit[name], wanted_value, rtol=1e-9)
    assert abs(slope_at_the_fit[name]) < 1e-9
assert (np.diff(losses) <= 1e-15).all(), "with this rate each step helps"


# %% [markdown]
# The same as one native call: `sg.Loop` compiles forward pass, backward pass and update together, and runs all steps in machine code.


# %%
def step(carry: tuple) -> tuple:
    """Return the carry after one step down the slope, and the loss before it."""
    params, x, y = carry
    value, gradient = value_and_grad(params, x, y)
    return ({name: params[name] - RATE * gradient[name] for name in params}, x, y), {"loss": value}


(compiled_fit, _, _), history = sg.Loop(step).run((start, x, y), epochs=STEPS)
compiled_losses = np.array(history["loss"])
np.testing.assert_allclose(compiled_losses, losses[:-1], rtol=1e-12)
np.testing.assert_allclose([compiled_fit["w"], compiled_fit["b"]], [fit["w"], fit["b"]], rtol=1e-12)
print(f"the same {STEPS} steps in one native call end at w {compiled_fit['w']:.6f}, b {compiled_fit['b']:.6f}")

# %% [markdown]
# And by hand on tensors. These record what is done to them while it is done: `backward()` walks the record and leaves the gradient in
# `.grad`, where the next one would be added to it, so it is set to zero after each step. The update itself is not to be recorded.

# %%
w = sg.tensor(start["w"], dtype=np.float64, requires_grad=True)
b = sg.tensor(start["b"], dtype=np.float64, requires_grad=True)
x_tensor, y_tensor = sg.tensor(x), sg.tensor(y)
tensor_losses = []
for _ in range(STEPS):
    tensor_loss = ((w * x_tensor + b - y_tensor) ** 2).mean()
    tensor_loss.backward()
    tensor_losses.append(tensor_loss.item())
    with sg.no_grad():
        for parameter in (w, b):
            parameter -= RATE * parameter.grad
            parameter.grad.zero_()
np.testing.assert_allclose(tensor_losses, losses[:-1], rtol=1e-12)
np.testing.assert_allclose([w.item(), b.item()], [fit["w"], fit["b"]], rtol=1e-12)
print(f"by hand on tensors they end at w {w.item():.6f}, b {b.item():.6f}")

# %% [markdown]
# ## The learning rate
#
# Too small, and it takes forever. Too large, and each step overshoots by more than the one before. Where that begins is known for least
# squares: at 2 over the largest curvature of the loss, which is the largest eigenvalue of its Hessian.

# %%
hessian = sg.hessian(lambda p, x, y: loss({"w": p[0], "b": p[1]}, x, y))(np.zeros(2), x, y)
limit = 2 / np.linalg.eigvalsh(hessian)[-1]
print(f"\nthe largest learning rate that converges is {limit:.4f}")
rates = {"too small": 0.01 * limit, "good": RATE, "too large": 1.02 * limit}
runs = {title: descend(start, rate, 100)[1] for title, rate in rates.items()}
for title, run in runs.items():
    print(f"{title:>9}, {rates[title]:.4f}: the loss goes from {run[0]:.3f} to {run[-1]:.6g} in 100 steps")
lowest = loss(best, x, y)
assert (np.diff(runs["too small"]) < 0).all() and runs["too small"][-1] > 1.2 * lowest, "it falls, but does not arrive"
assert runs["good"][-1] < lowest * (1 + 1e-6)
assert runs["too large"][-1] > runs["too large"][0] and (np.diff(runs["too large"][-10:]) > 0).all(), "it runs away"

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
axes[0].scatter(x, y, s=12, color="0.5", label="samples")
ends = np.array([x.min(), x.max()])
SHOWN = {"before": 0, "during, step 5": 5, "during, step 20": 20, "after": STEPS}
for (title, position), shade in zip(SHOWN.items(), (0.25, 0.5, 0.75, 1.0), strict=True):
    axes[0].plot(ends, predict(path[position], ends), color=plt.cm.viridis(1 - shade), label=title)
axes[0].set(title="The line before, during and after", xlabel="x", ylabel="y")
axes[0].legend()
for title, run in runs.items():
    axes[1].semilogy(run, label=f"{title}: {rates[title]:.3g}")
axes[1].set(title="Mean squared error over the steps", xlabel="step", ylabel="mean squared error", ylim=(lowest / 2, 1e3))
axes[1].legend(title="learning rate")
figure.savefig(output / "l1_gradient_descent.png", dpi=100)
plt.close(figure)

# %% [markdown]
# ## Many parameters at once
#
# One layer of 10,000 neurons, each with a weight and a bias: 20,000 partial derivatives. Reverse mode takes all of them in one pass
# backward through the graph. Finite differences would evaluate the layer 20,001 times.

# %%
NEURONS = 10_000
layer = {"weight": rng.normal(size=NEURONS), "bias": rng.normal(size=NEURONS)}
wanted = rng.uniform(-1.0, 1.0, NEURONS)


@sg.trace
def layer_loss(params: dict, x: float, wanted: np.ndarray) -> np.ndarray:
    """Return the mean squared error of tanh neurons that all see the same number."""
    return np.mean((np.tanh(params["weight"] * x + params["bias"]) - wanted) ** 2)


layer_value_and_grad = sg.value_and_grad(layer_loss)
_, layer_gradient = layer_value_and_grad(layer, 0.8, wanted)
partial_derivatives = sum(part.size for part in layer_gradient.values())
activation = np.tanh(layer["weight"] * 0.8 + layer["bias"])
by_hand = 2 / NEURONS * (activation - wanted) * (1 - activation**2)
np.testing.assert_allclose(layer_gradient["bias"], by_hand, rtol=1e-9, atol=1e-18)
np.testing.assert_allclose(layer_gradient["weight"], by_hand * 0.8, rtol=1e-9, atol=1e-18)
info = layer_value_and_grad.cache_info()
layer_lowered = layer_value_and_grad.lower(layer, 0.8, wanted)
print(f"\n{partial_derivatives} partial derivatives from {info.traces} trace; the compiled passes:")
print(layer_lowered.schedule)
assert partial_derivatives == 20_000 and info.traces == 1 and len(layer_lowered.schedule.stage("backward")) == 1

# %% [markdown]
# On tensors it is one backward pass, too.

# %%
layer_tensors = {name: sg.tensor(values, requires_grad=True) for name, values in layer.items()}
neurons = np.tanh(layer_tensors["weight"] * 0.8 + layer_tensors["bias"])
((neurons - sg.tensor(wanted)) ** 2).mean().backward()
for name, tensor in layer_tensors.items():
    np.testing.assert_allclose(tensor.grad.numpy(), layer_gradient[name], rtol=1e-9, atol=1e-18)
print(f"from one backward pass on tensors {sum(tensor.grad.numel() for tensor in layer_tensors.values())}")

# %% [markdown]
# ## Backward is for training
#
# A function that is only evaluated emits no backward kernel and saves nothing for one; that of its gradient does both.

# %%
evaluated = layer_loss.lower(layer, 0.8, wanted)
print(f"\nevaluated alone: {evaluated.memory:7d} bytes of memory, backward {evaluated.backward}")
print(f"with gradient:   {layer_lowered.memory:7d} bytes of memory, backward {layer_lowered.backward}")
assert evaluated.backward is None and "def backward" not in evaluated.source and "saved" not in evaluated.source
assert layer_lowered.backward is not None and "def backward" in layer_lowered.source and "saved_tanh" in layer_lowered.source
assert evaluated.memory < 1000 < 8 * NEURONS < layer_lowered.memory

# %% [markdown]
# ## A page of history
#
# Older texts wrap tensors in `Variable` to have them tracked. Tensors have carried their gradients themselves for long; the wrapper still
# works, returns a tensor, and says that it is retired.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    variable = sg.Variable([1.0, 2.0], requires_grad=True)
retired = caught[0]
(variable**2).sum().backward()
print(f"\n{variable}; data {variable.data}, gradient {variable.grad}, detached {variable.detach()}\n{retired.message}")
assert isinstance(variable, sg.Tensor) and issubclass(retired.category, DeprecationWarning)
assert variable.grad.tolist() == [2.0, 4.0] and not variable.detach().requires_grad and not sg.tensor([1.0]).requires_grad
