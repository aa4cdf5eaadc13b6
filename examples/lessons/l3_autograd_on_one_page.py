# %% [markdown]
# # Automatic differentiation on one page
#
# A thermometer without a label on its scale, and eleven readings of it beside temperatures in degrees Celsius. Which unit does it show?
# Two numbers are wanted, `celsius = w * reading + b`, and gradients find them: first with tensors, operation by operation, then as one
# compiled loop.

# %%
import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg
import staticgrad.eager as torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Automatic differentiation on one page.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data, model, loss
#
# Everything is single precision (float32), the default of tensors that are made of Python's numbers.

# %%
t_c = torch.tensor([0.5, 14.0, 15.0, 28.0, 11.0, 8.0, 3.0, -4.0, 6.0, 13.0, 21.0])
t_u = torch.tensor([35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4])


def model(readings, w, b):
    """Return the temperatures that the readings mean."""
    return w * readings + b


def loss_fn(predicted, actual):
    """Return the mean squared difference."""
    return ((predicted - actual) ** 2).mean()


# %% [markdown]
# ## One backward pass
#
# `requires_grad=True` asks for the gradient with respect to this tensor. From then on every operation that it takes part in leaves a note:
# what was done, to what. `backward()` reads the notes from the last to the first and multiplies slopes, which is the chain rule. What
# arrives at `params` is put into `params.grad`; before the first backward pass there is nothing.

# %%
params = torch.tensor([1.0, 0.0], requires_grad=True)
gradient_before = params.grad
w, b = params
predicted = model(t_u, w, b)
loss = loss_fn(predicted, t_c)
loss.backward()
first_gradient = params.grad.clone()
print(f"loss {loss}")
print(f"gradient before {gradient_before}, after {params.grad}")
assert gradient_before is None
np.testing.assert_allclose(first_gradient.numpy(), [4517.2969, 82.6000], rtol=1e-5)

# %% [markdown]
# The same with pencil and paper: the loss is a mean of squares, so its slope along `b` is twice the mean residual, and along `w` twice the
# mean of residual times reading. And the same from `sg.value_and_grad`: there the function is plain NumPy, is looked at once, and the
# gradient is compiled.

# %%
readings, celsius = t_u.numpy(), t_c.numpy()
residuals = readings - celsius  # w is 1 and b is 0
by_hand = np.array([2 * np.mean(residuals * readings), 2 * np.mean(residuals)])


def numpy_loss(params: np.ndarray, readings: np.ndarray, celsius: np.ndarray) -> np.ndarray:
    """Return the mean squared difference, in NumPy."""
    return np.mean((params[0] * readings + params[1] - celsius) ** 2)


value_and_grad = sg.value_and_grad(numpy_loss)
traced_loss, traced_gradient = value_and_grad(np.array([1.0, 0.0], np.float32), readings, celsius)
print(f"by hand {by_hand}, traced {traced_gradient}")
np.testing.assert_allclose(by_hand, first_gradient.numpy(), rtol=1e-5)
np.testing.assert_allclose(traced_gradient, first_gradient.numpy(), rtol=1e-5)
np.testing.assert_allclose(traced_loss, loss.item(), rtol=1e-5)

# %% [markdown]
# ## The notes, drawn
#
# The forward pass goes from `params` down to `loss`; the backward pass goes from `loss.backward()` back to `params.grad` through the same
# operations in reverse order. `t_u` and `t_c` are read, and get no gradient: nobody asked for one. Only what somebody named is shown with
# its values. The notes hold no more than backward needs: `MulBackward0` needs the readings, and `AddBackward0` needs nothing, as the slope
# of a sum is 1.

# %%
graph = torch.backward_graph(loss, params=params, w=w, b=b, t_u=t_u, t_c=t_c, predicted=predicted, loss=loss)
print(graph)
(output / "l3_graph.svg").write_text(graph.to_svg(), encoding="utf-8")
assert [operation.name for operation in graph.operations] == ["Select", "Select #2", "Mul", "Add", "Sub", "Pow", "Mean"]
assert graph.backward_arrows == [
    ("loss.backward()", "MeanBackward0"),
    ("MeanBackward0", "PowBackward0"),
    ("PowBackward0", "SubBackward0"),
    ("SubBackward0", "AddBackward0"),
    ("AddBackward0", "MulBackward0"),
    ("AddBackward0", "SelectBackward0 #2"),
    ("MulBackward0", "SelectBackward0"),
    ("SelectBackward0 #2", "params.grad"),
    ("SelectBackward0", "params.grad"),
]
assert graph["t_u"].fields.requires_grad is False and graph["params"].fields.grad.tolist() == first_gradient.tolist()

# %% [markdown]
# One can walk there oneself, too: `grad_fn` is the last note, and `next_functions` says where its gradients go.

# %%
node, walked = loss.grad_fn, []
while node is not None:
    walked.append(node.name())
    node = node.next_functions[0][0] if node.next_functions else None
print(" -> ".join(walked))
assert walked == ["MeanBackward0", "PowBackward0", "SubBackward0", "AddBackward0", "MulBackward0", "SelectBackward0", "AccumulateGrad"]

# %% [markdown]
# ## Gradients add up
#
# A backward pass adds to `.grad`, it does not replace it. That is wanted where a loss comes in parts, and a mistake in a training loop
# that forgets to start from zero.

# %%
accumulated = [params.grad.clone()]
for _ in range(2):
    loss_fn(model(t_u, *params), t_c).backward()
    accumulated.append(params.grad.clone())
for times, gradient in enumerate(accumulated, 1):
    print(f"after {times} backward passes {gradient}")
    np.testing.assert_allclose(gradient.numpy(), times * first_gradient.numpy(), rtol=1e-6)
params.grad.zero_()
assert params.grad.tolist() == [0.0, 0.0]

# %% [markdown]
# ## Training
#
# The gradient along `w` is fifty times that along `b`, so no learning rate suits both. Readings divided by ten cure that. The update is
# made under `no_grad`: it is no part of the function that is differentiated. Every loss is kept, and every five hundredth shown.

# %%
EPOCHS, RATE = 5000, 1e-2
t_un = 0.1 * t_u


def train(epochs: int, params, readings, actual):
    """Return the parameters after gradient descent, and the loss of each epoch."""
    losses = []
    for _ in range(epochs):
        if params.grad is not None:
            params.grad.zero_()
        loss = loss_fn(model(readings, *params), actual)
        loss.backward()
        with torch.no_grad():
            params -= RATE * params.grad
        losses.append(loss.item())
    return params, losses


begun = time.perf_counter()
params, losses = train(EPOCHS, torch.tensor([1.0, 0.0], requires_grad=True), t_un, t_c)
eager_seconds = time.perf_counter() - begun

REPORTED = range(500, EPOCHS + 1, 500)
KNOWN = [7.860116, 3.828538, 3.092191, 2.957697, 2.933134, 2.928648, 2.927830, 2.927679, 2.927652, 2.927647]
for epoch in REPORTED:
    print(f"epoch {epoch}, loss {losses[epoch - 1]:.6f}")
print(params)
np.testing.assert_allclose([losses[epoch - 1] for epoch in REPORTED], KNOWN, atol=1e-5)
np.testing.assert_allclose(params.detach().numpy(), [5.3671, -17.3012], rtol=1e-5)

# %% [markdown]
# ## The same as one native call
#
# Each of the 5000 epochs above runs a dozen operations forward and a dozen backward, one by one, and takes notes that it throws away.
# The network never changes, so the notes need to be taken only once. `sg.Loop` looks at one step, compiles forward pass, backward pass and
# update into machine code, and runs all epochs there. The first call compiles; the time is that of a later one.


# %%
def step(carry: tuple) -> tuple:
    """Return the carry after one epoch, and its loss."""
    params, readings, celsius = carry
    value, gradient = value_and_grad(params, readings, celsius)
    return (params - np.float32(RATE) * gradient, readings, celsius), {"loss": value}


loop = sg.Loop(step)
start = (np.array([1.0, 0.0], np.float32), t_un.numpy(), celsius)
loop.run(start, epochs=EPOCHS)
native_seconds = np.inf
for _ in range(10):
    begun = time.perf_counter()
    (compiled_params, _, _), history = loop.run(start, epochs=EPOCHS)
    native_seconds = min(native_seconds, time.perf_counter() - begun)
compiled_losses = history["loss"]
np.testing.assert_allclose(compiled_losses, losses, rtol=1e-5)
np.testing.assert_allclose([compiled_losses[epoch - 1] for epoch in REPORTED], KNOWN, atol=1e-5)
np.testing.assert_allclose(compiled_params, [5.3671, -17.3012], rtol=1e-5)
print(f"compiled: parameters {compiled_params}, loss {compiled_losses[-1]:.6f}")
print(f"{EPOCHS} epochs: {1e3 * eager_seconds:.0f} ms operation by operation, {1e3 * native_seconds:.2f} ms as one native call")

# %% [markdown]
# ## Where it goes
#
# For a line the best parameters are known in closed form. Descent is on its way there and nearly has arrived: 9/5 and 32 would make
# `w = 5.56` and `b = -17.8`, so the thermometer shows degrees Fahrenheit, roughly.

# %%
design = np.column_stack([start[1].astype(float), np.ones(len(readings))])
optimum = np.linalg.lstsq(design, celsius.astype(float), rcond=None)[0]
gradient_there = sg.grad(numpy_loss)(optimum, start[1].astype(float), celsius.astype(float))
print(f"least squares {optimum}, gradient there {gradient_there}")
np.testing.assert_allclose(optimum, [5.36772, -17.30478], rtol=1e-6)
np.testing.assert_allclose(gradient_there, 0.0, atol=1e-10)

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
axes[0].scatter(readings, celsius, color="0.5", label="readings")
ends = np.array([20.0, 85.0], np.float32)
axes[0].plot(ends, model(0.1 * ends, *start[0]), color="#c8553d", label="before")
axes[0].plot(ends, model(0.1 * ends, *compiled_params), color="#1f6f8b", label=f"after {EPOCHS} epochs")
axes[0].set(title="An unknown thermometer", xlabel="reading", ylabel="degrees Celsius")
axes[0].legend()
axes[1].loglog(np.arange(1, EPOCHS + 1), losses, color="#c8553d", label="operation by operation")
axes[1].loglog(np.arange(1, EPOCHS + 1), compiled_losses, "--", color="#1f6f8b", label="one native call")
axes[1].set(title="Loss of each epoch", xlabel="epoch", ylabel="mean squared difference")
axes[1].legend()
figure.savefig(output / "l3_thermometer.png", dpi=100)
drawn_lines = [line.get_xydata() for line in axes[0].get_lines()]
drawn_losses = [line.get_ydata() for line in axes[1].get_lines()]
plt.close(figure)
print(f"\npictures: {output / 'l3_graph.svg'}, {output / 'l3_thermometer.png'}")
