# %% [markdown]
# # One hidden layer on two Gaussian classes
#
# Two clouds of points in the plane, a network 2-10-2 without biases, and the summed squared difference between its two outputs and the
# label. The gradient is taken three ways: by hand, by tracing (a compiled graph), and on eager tensors (a tape). Parameters are updated
# after every sample, or once per epoch.

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

parser = argparse.ArgumentParser(description="One hidden layer on two Gaussian classes.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

RATE, EPOCHS, REPORT = 1e-6, 5, 200
Params = dict[str, np.ndarray]


# %% [markdown]
# ## Data
#
# A thousand points around (3, 3) with label 1 and a thousand around (5, 5) with label 2, unit covariance, in random order. Random numbers
# are functions of a key: the same key gives the same lesson everywhere.


# %%
def samples(key: np.ndarray, dtype: type, each: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return points of shape (2 * each, 2) and labels of shape (2 * each, 1), mixed."""
    cloud, order = sg.random.split(key)
    points = sg.random.normal(cloud, (2 * each, 2)) + np.repeat([[3.0, 3.0], [5.0, 5.0]], each, axis=0)
    labels = np.repeat([[1.0], [2.0]], each, axis=0)
    mixed = sg.random.permutation(order, 2 * each)
    return points[mixed].astype(dtype), labels[mixed].astype(dtype)


def initial(key: np.ndarray, dtype: type) -> Params:
    """Return the weights of the layers 2-10-2, drawn from the standard normal distribution."""
    first, second = sg.random.split(key)
    return {"w1": sg.random.normal(first, (2, 10)).astype(dtype), "w2": sg.random.normal(second, (10, 2)).astype(dtype)}


data_key, weights_key = sg.random.split(sg.random.key(2020))
x, y = samples(data_key, np.float32)
start = initial(weights_key, np.float32)
print(f"{len(x)} samples; class means {x[y[:, 0] == 1].mean(axis=0).round(2)} and {x[y[:, 0] == 2].mean(axis=0).round(2)}")

# %% [markdown]
# ## The network and its loss
#
# Plain NumPy. The label of a sample is one number and the network has two outputs: NumPy compares both of them with it. `np.clip(x, 0,
# None)` is `clamp(min=0)`.


# %%
def network(params: Params, x: np.ndarray) -> np.ndarray:
    """Return the outputs, (samples, 2)."""
    return np.clip(x @ params["w1"], 0, None) @ params["w2"]


def loss(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of squared differences over samples and outputs."""
    return np.sum((network(params, x) - y) ** 2)


value_and_gradient = sg.value_and_grad(loss)

# %% [markdown]
# ## The gradient by hand
#
# Write `output_0 = x`, `output_1 = clamp(output_0 @ w1)`, `output_2 = output_1 @ w2`, and let `error_l` be the derivative of the loss by
# what layer l computes before its activation. Going backwards,
#
# - `error_2 = 2 (output_2 - y)`,
# - `gradient of w_l = output_{l-1}^T @ error_l`,
# - `error_1 = error_2 @ w2^T`, and 0 where the clamp cut off.


# %%
def gradient_by_hand(params: Params, x: np.ndarray, y: np.ndarray) -> Params:
    """Return the gradient of `loss` by the parameters, layer by layer from the last to the first."""
    before = x @ params["w1"]
    hidden = np.maximum(before, 0)
    error_2 = 2 * (hidden @ params["w2"] - y)
    error_1 = (error_2 @ params["w2"].T) * (before >= 0)
    return {"w1": x.T @ error_1, "w2": hidden.T @ error_2}


by_hand, (_, automatic) = gradient_by_hand(start, x[:REPORT], y[:REPORT]), value_and_gradient(start, x[:REPORT], y[:REPORT])
for name in start:
    np.testing.assert_allclose(automatic[name], by_hand[name], rtol=2e-5, atol=1e-5 * np.abs(by_hand[name]).max())
    furthest = np.abs(automatic[name] - by_hand[name]).max() / np.abs(by_hand[name]).max()
    print(f"gradient of {name}: by hand and automatic differ by {furthest:.0e} of the largest entry (float32)")

# %% [markdown]
# At a pre-activation of exactly 0 the two ways to write the activation part: `clamp(min=0)` passes the gradient on, as 0 lies within its
# bounds; `relu` does not. PyTorch makes the same choices, and the mask above has to say `>=`.

# %%
corner = np.zeros(3)
clamp_slope = sg.grad(lambda z: np.sum(np.clip(z, 0, None)))(corner)
relu_slope = sg.grad(lambda z: np.sum(sg.nn.relu(z)))(corner)
on_tape = torch.zeros(3, requires_grad=True)
clamped, cut = (torch.autograd.grad(z.sum(), on_tape)[0].tolist() for z in (on_tape.clamp(min=0), torch.relu(on_tape)))
print(f"slope at exactly 0: clamp(min=0) {clamp_slope[0]:.0f}, relu {relu_slope[0]:.0f}")
assert clamp_slope.tolist() == clamped == [1, 1, 1]
assert relu_slope.tolist() == cut == [0, 0, 0]

on_the_corner = {"w1": np.array([[1.0, 0.5], [-1.0, 0.5]]), "w2": np.ones((2, 2))}  # the first neuron sees 3 - 3
point, label = np.array([[3.0, 3.0]]), np.array([[1.0]])
at_corner = value_and_gradient(on_the_corner, point, label)[1]["w1"]
assert (at_corner == gradient_by_hand(on_the_corner, point, label)["w1"]).all() and (at_corner[:, 0] != 0).all()


# %% [markdown]
# ## An update after every sample
#
# First as a loop in Python around one compiled step. The step holds forward pass, backward pass and update; it is compiled in its first
# call and used 10,000 times. Every 200 samples the loss that they had is reported.


# %%
@sg.trace
def update(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[Params, np.ndarray]:
    """Return the parameters after a step down the slope, and the loss before it."""
    value, gradient = sg.value_and_grad(loss)(params, x, y)
    return {name: params[name] - RATE * gradient[name] for name in params}, value


def per_sample_in_python(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[Params, np.ndarray]:
    """Return the parameters after all epochs, and the reported losses, (epochs, reports)."""
    report = np.zeros(EPOCHS * len(x) // REPORT)
    for k in range(EPOCHS * len(x)):
        row = k % len(x)
        params, value = update(params, x[row : row + 1], y[row : row + 1])
        report[k // REPORT] += value
    return params, report.reshape(EPOCHS, -1)


# %% [markdown]
# Then as one native call. `sg.Loop` runs a step over all batches of all epochs in machine code. What goes from step to step is the carry:
# the parameters, how many samples were seen, and the report, into which the step writes.


# %%
def step(carry: tuple, batch: tuple) -> tuple:
    """Return the carry after one sample; no metrics."""
    params, seen, report = carry
    params, value = update(params, *batch)
    report = report.copy()
    report[seen // REPORT] += value
    return (params, seen + 1, report), {}


loop = sg.Loop(step)


def per_sample_compiled(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[Params, np.ndarray]:
    """Return what `per_sample_in_python` returns."""
    nothing_yet = np.zeros(EPOCHS * len(x) // REPORT)
    (params, _, report), _ = loop.run((params, 0, nothing_yet), (x, y), epochs=EPOCHS, batch_size=1, shuffle=False)
    return params, report.reshape(EPOCHS, -1)


def timed(function, *arguments):
    """Return what the function returns, and the seconds of a second call: the first one compiles."""
    function(*arguments)
    begun = time.perf_counter()
    return *function(*arguments), time.perf_counter() - begun


in_python, report_in_python, seconds_in_python = timed(per_sample_in_python, start, x, y)
per_sample, per_sample_report, seconds_compiled = timed(per_sample_compiled, start, x, y)
np.testing.assert_allclose(per_sample_report, report_in_python, rtol=1e-6)
for name in start:
    np.testing.assert_allclose(per_sample[name], in_python[name], rtol=1e-5, atol=1e-6)


def show(title: str, report: np.ndarray) -> None:
    print(f"\n{title}: loss of each {REPORT} samples")
    for epoch, losses in enumerate(report, 1):
        print(f"  epoch {epoch} " + "".join(f"{value:8.1f}" for value in losses) + f"   together {losses.sum():9.1f}")


show("updated after every sample", per_sample_report)
print(f"{EPOCHS * len(x)} steps: {1e3 * seconds_in_python:.1f} ms as a loop in Python, {1e3 * seconds_compiled:.2f} ms as one native call")

# %% [markdown]
# ## One update per epoch
#
# The gradient of a sum is the sum of the gradients: 2,000 gradients of single samples, added up at unchanged parameters, are the gradient
# of the whole batch, which is two matrix products. `sg.Trainer` makes loss, gradient and update one compiled step; without a batch size it
# takes all rows at once.


# %%
def per_epoch_in_python(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[Params, np.ndarray]:
    """Return the parameters after all epochs, and the reported losses; gradients are accumulated sample by sample."""
    report = np.zeros(EPOCHS * len(x) // REPORT)
    for epoch in range(EPOCHS):
        accumulated = {name: np.zeros_like(weights) for name, weights in params.items()}
        for row in range(len(x)):
            value, gradient = value_and_gradient(params, x[row : row + 1], y[row : row + 1])
            report[(epoch * len(x) + row) // REPORT] += value
            for name in params:
                accumulated[name] += gradient[name]
        params = {name: params[name] - RATE * accumulated[name] for name in params}
    return params, report.reshape(EPOCHS, -1)


def loss_of_rows(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the loss of every sample."""
    return np.sum((network(params, x) - y) ** 2, axis=1)


trainer = sg.Trainer(loss, sg.optim.sgd(RATE))
losses_of = sg.trace(loss_of_rows)


def per_epoch_compiled(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[Params, list[float]]:
    """Return the parameters after all epochs, and the loss of each."""
    state, history = trainer.fit(trainer.init(params), (x, y), epochs=EPOCHS, batch_size=None, progress=False)
    return state.params, history["loss"]


accumulated, per_epoch_report, seconds_in_python = timed(per_epoch_in_python, start, x, y)
per_epoch, losses, seconds_compiled = timed(per_epoch_compiled, start, x, y)
np.testing.assert_allclose(losses, per_epoch_report.sum(axis=1), rtol=1e-5)
for name in start:
    np.testing.assert_allclose(per_epoch[name], accumulated[name], rtol=1e-5, atol=1e-5)

show("updated once per epoch", per_epoch_report)
print(f"{EPOCHS} epochs: {1e3 * seconds_in_python:.1f} ms adding up in Python, {1e3 * seconds_compiled:.2f} ms in whole batches")
assert (np.diff(per_sample_report.sum(axis=1)) < 0).all() and (np.diff(losses) < 0).all()
np.testing.assert_allclose(per_epoch_report[0], losses_of(start, x, y).reshape(-1, REPORT).sum(axis=1), rtol=1e-5)

# %% [markdown]
# ## The same on eager tensors
#
# In PyTorch's words: operations run at once and leave a tape, `backward()` walks it, and gradients add up at the leaves until they are
# zeroed. So both kinds of update are one loop: the leaves are updated and zeroed after each sample, or only after the last batch of an
# epoch.


# %%
def on_tensors(params: Params, x: np.ndarray, y: np.ndarray, every_sample: bool) -> tuple[Params, np.ndarray]:
    """Return the parameters after all epochs, and the reported losses."""
    w1, w2 = (torch.tensor(params[name], requires_grad=True) for name in ("w1", "w2"))
    inputs, labels = torch.tensor(x), torch.tensor(y)
    report = np.zeros(EPOCHS * len(x) // REPORT)
    batch = 1 if every_sample else REPORT
    for epoch in range(EPOCHS):
        for row in range(0, len(x), batch):
            y_pred = inputs[row : row + batch].mm(w1).clamp(min=0).mm(w2)
            loss = (y_pred - labels[row : row + batch]).pow(2).sum()
            loss.backward()
            report[(epoch * len(x) + row) // REPORT] += loss.item()
            if every_sample or row + batch == len(x):
                with torch.no_grad():
                    for weights in (w1, w2):
                        weights -= RATE * weights.grad
                        weights.grad.zero_()
    return {"w1": w1.detach().numpy(), "w2": w2.detach().numpy()}, report.reshape(EPOCHS, -1)


begun = time.perf_counter()
eager_per_sample, eager_per_sample_report = on_tensors(start, x, y, every_sample=True)
seconds_eager = time.perf_counter() - begun
eager_per_epoch, eager_per_epoch_report = on_tensors(start, x, y, every_sample=False)
np.testing.assert_allclose(eager_per_sample_report, per_sample_report, rtol=1e-5)
np.testing.assert_allclose(eager_per_epoch_report, per_epoch_report, rtol=1e-5)
for name in start:
    np.testing.assert_allclose(eager_per_sample[name], per_sample[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(eager_per_epoch[name], per_epoch[name], rtol=1e-5, atol=1e-5)
print(f"\non eager tensors: the same losses and weights; {1e3 * seconds_eager:.0f} ms for {EPOCHS * len(x)} steps")

# %% [markdown]
# ## Pictures

# %%
curves, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for which, colour in ((1, "#1f6f8b"), (2, "#c8553d")):
    of_class = y[:, 0] == which
    left.scatter(*x[of_class].T, s=6, color=colour, alpha=0.5, label=f"label {which}")
left.set(title="Two Gaussian classes", xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
left.legend()
reports = np.arange(1, EPOCHS * len(x) // REPORT + 1) * REPORT
right.plot(reports, per_sample_report.ravel(), color="#1f6f8b", label="updated after every sample")
right.plot(reports, per_epoch_report.ravel(), color="#c8553d", drawstyle="steps", label="updated once per epoch")
right.set(title=f"Loss of each {REPORT} samples", xlabel="samples seen", ylabel="summed squared difference", yscale="log")
right.legend()
curves.savefig(output / "gaussian_classes.png", dpi=120)
plt.close(curves)

grid = np.stack(np.meshgrid(np.linspace(0, 8, 60), np.linspace(0, 8, 60)), axis=-1).reshape(-1, 2).astype(np.float32)
surfaces, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
for axes, params, title in ((panels[0], start, "before"), (panels[1], per_sample, f"after {EPOCHS} epochs")):
    outputs = network(params, grid).mean(axis=1).reshape(60, 60)
    drawn = axes.contourf(np.linspace(0, 8, 60), np.linspace(0, 8, 60), outputs, levels=20, cmap="viridis")
    axes.scatter(*x[::10].T, c=np.where(y[::10, 0] == 1, "white", "black"), s=6)
    axes.set(title=f"Mean output {title}", xlabel="first coordinate", xlim=(0, 8), ylim=(0, 8))
    surfaces.colorbar(drawn, ax=axes)
surfaces.savefig(output / "gaussian_outputs.png", dpi=120)
plt.close(surfaces)
print(f"\npictures: {output / 'gaussian_classes.png'}, {output / 'gaussian_outputs.png'}")
