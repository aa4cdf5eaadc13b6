# %% [markdown]
# # The loss surface
#
# Over the plane of two parameters the loss is a landscape. Its gradient comes from the Jacobian of the predictions; walking down it has
# three troubles; walking with a part of the data at a time is cheaper, and unsteady; and steps that know the Jacobian jump.

# %%
import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg
from staticgrad import numpy as snp

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="The loss surface.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

Loss = Callable[..., np.ndarray]

# %% [markdown]
# ## The gradient through the Jacobian
#
# With the errors eps = Y - f(X, p) the loss is L = eps^T eps. J_f is the Jacobian of the predictions, one row a prediction and one column
# a parameter; that of the errors is J_eps = -J_f. The chain rule gives
#
#     dL/dp = 2 J_eps^T eps = -2 J_f^T eps,     so a step of descent is     p + 2 alpha J_f^T eps.
#
# Lecture notes often print the step without the transpose. The shapes tell: J_f is (predictions, parameters) and eps has one entry a
# prediction, so that J_f eps does not exist.


# %%
def wave(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a wave with the frequency p[0] and the phase p[1]."""
    return np.sin(p[0] * x + p[1])


def squared_error(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of the squared errors of the wave."""
    return np.sum((y - wave(p, x)) ** 2)


x = np.linspace(0.0, 6.0, 25)
TRUE_WAVE = np.array([1.6, 0.4])
y = wave(TRUE_WAVE, x)
p = np.array([1.3, 0.1])
ALPHA = 0.002

jacobian = sg.jacobian(wave)(p, x)
errors = y - wave(p, x)
by_jacobian = p + 2 * ALPHA * jacobian.T @ errors
by_gradient = p - ALPHA * sg.grad(squared_error)(p, x, y)
print(f"J has shape {jacobian.shape}, eps {errors.shape}")
print(f"the step by the Jacobian leads to {by_jacobian}, the one by sg.grad to {by_gradient}")
np.testing.assert_allclose(by_jacobian, by_gradient, rtol=1e-13)
assert squared_error(by_jacobian, x, y) < squared_error(p, x, y)
try:
    jacobian @ errors
except ValueError as error:
    print(f"without the transpose: {error}")

# %% [markdown]
# With one-hot targets there are several predictions for each sample. They are stacked into one long vector, and all stays as it was.

# %%
SAMPLES, CLASSES = 12, 3
rng = np.random.default_rng(5)
points = rng.normal(size=(SAMPLES, 2))
labels = rng.integers(0, CLASSES, SAMPLES)
one_hot = np.eye(CLASSES)[labels].reshape(-1)


def probabilities(p: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the probabilities of all classes for all samples as one vector."""
    weights, offsets = p[:6].reshape(2, CLASSES), p[6:]
    return sg.nn.softmax(points @ weights + offsets, axis=1).reshape(-1)


p9 = rng.normal(size=9)
stacked_jacobian = sg.jacobian(probabilities)(p9, points)
stacked_errors = one_hot - probabilities(p9, points)
stacked_step = p9 + 2 * ALPHA * stacked_jacobian.T @ stacked_errors
gradient_step = p9 - ALPHA * sg.grad(lambda p, x, y: np.sum((y - probabilities(p, x)) ** 2))(p9, points, one_hot)
print(f"\n{SAMPLES} samples of {CLASSES} classes: J has shape {stacked_jacobian.shape}, eps {stacked_errors.shape}")
np.testing.assert_allclose(stacked_step, gradient_step, rtol=1e-13)


# %% [markdown]
# ## Three troubles of plain gradient descent


# %%
def descend(loss: Loss, start: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Return the parameters before and after each step, (steps + 1, 2); all of it is one native call."""

    def step(carry: tuple) -> tuple:
        params, path, position = carry
        params = params - rate * sg.grad(loss)(params)
        path = path.copy()
        path[position] = params
        return (params, path, position + 1), {}

    begun = np.zeros((steps + 1, 2))
    begun[0] = start
    return sg.Loop(step).run((start, begun, 1), epochs=steps)[0][1]


def surface(loss: Loss, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the loss over a grid, (len(second), len(first)): one call maps it over all points."""
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    return sg.vmap(loss)(grid).reshape(len(second), len(first))


# %% [markdown]
# **Slow near the optimum.** Steps are as long as the gradient, and at the bottom of a flat bowl there is nearly none left: to halve the
# distance takes four times as many steps each time.


# %%
def flat_bowl(p: np.ndarray) -> np.ndarray:
    """Return the fourth power of the distance."""
    return np.sum(p**2) ** 2


slow_path = descend(flat_bowl, np.array([1.2, 0.9]), 0.01, 12_000)
distances = np.linalg.norm(slow_path, axis=1)
halved = [int(np.argmax(distances < distances[0] / 2**k)) for k in range(1, 5)]
print(f"\nslow: the distance is halved after {halved} steps")
ratios = np.diff(halved)[1:] / np.diff(halved)[:-1]
assert (np.diff(distances) < 0).all() and (np.abs(ratios - 4) < 0.2).all()


# %% [markdown]
# **Caught in a local minimum.** Downhill leads to the bottom of the valley in which one starts. For the wave that is
# often a wrong frequency.


# %%
def wave_loss(p: np.ndarray) -> np.ndarray:
    """Return the mean squared error of the wave on the data."""
    return np.mean((y - wave(p, x)) ** 2)


STARTS = {"caught": np.array([3.2, 0.0]), "lucky": np.array([1.9, 0.0])}
wave_paths = {name: descend(wave_loss, start, 0.05, 2000) for name, start in STARTS.items()}
for name, path in wave_paths.items():
    slope = np.linalg.norm(sg.grad(wave_loss)(path[-1]))
    print(f"{name}: from {path[0]} to {path[-1].round(4)}, loss {wave_loss(path[-1]):.5f}, gradient {slope:.0e}")
    assert slope < 1e-4, "it stays there"
caught_at, lucky_at = wave_paths["caught"][-1], wave_paths["lucky"][-1]
assert wave_loss(caught_at) > 0.3 and (np.linalg.eigvalsh(sg.hessian(wave_loss)(caught_at)) > 0).all(), "a minimum, and not the least"
np.testing.assert_allclose(lucky_at, TRUE_WAVE, atol=1e-4)

# %% [markdown]
# **Zig-zag in a narrow valley.** The rate must suit the steepest direction. Across the valley each step overshoots to the other side;
# along it hardly anything happens. The steps that are needed grow with the condition number, the ratio of the curvatures.

# %%
STEEP = 30.0


def valley(p: np.ndarray) -> np.ndarray:
    """Return a bowl that is 30 times as steep across as along."""
    return (p[0] ** 2 + STEEP * p[1] ** 2) / 2


def round_bowl(p: np.ndarray) -> np.ndarray:
    """Return a bowl that is equally steep everywhere."""
    return (p[0] ** 2 + p[1] ** 2) / 2


zigzag = descend(valley, np.array([10.0, 1.0]), 0.95 * 2 / STEEP, 300)
straight = descend(round_bowl, np.array([10.0, 1.0]), 0.95, 300)
crossings = int(np.sum(zigzag[1:41, 1] * zigzag[:40, 1] < 0))
needed = {name: int(np.argmax(np.linalg.norm(path, axis=1) < 0.01)) for name, path in (("narrow", zigzag), ("round", straight))}
print(f"zig-zag: {crossings} of the first 40 steps cross the valley; steps to a distance of 0.01: {needed}")
assert crossings == 40 and needed["narrow"] > 30 * needed["round"]

# %%
figure_of_troubles, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
PANELS = [
    ("slow near the optimum", flat_bowl, np.linspace(-1.5, 1.5, 81), np.linspace(-1.2, 1.2, 81), [slow_path[::50]]),
    ("caught in a local minimum", wave_loss, np.linspace(0.8, 4.2, 121), np.linspace(-2.5, 2.5, 121), list(wave_paths.values())),
    ("zig-zag in a narrow valley", valley, np.linspace(-2, 11, 81), np.linspace(-1.4, 1.4, 81), [zigzag]),
]
for axis, (title, function, first, second, paths) in zip(axes, PANELS, strict=True):
    axis.contour(first, second, surface(function, first, second), 25, cmap="viridis", linewidths=0.7)
    for path in paths:
        axis.plot(*path.T, ".-", ms=3, lw=0.8)
        axis.plot(*path[-1], "k*")
    axis.set(title=title, xlabel="first parameter", ylabel="second parameter")
figure_of_troubles.savefig(output / "l2_three_troubles.png", dpi=100)
plt.close(figure_of_troubles)

# %% [markdown]
# ## Mini-batches
#
# A step needs the gradient of the whole data, or an estimate of it from a few samples. The estimate is right on average; how far it is off
# depends on the size of the batch. The same twenty samples, in batches of 1, 4, 5 and all.

# %%
COUNT, BATCHES, EPOCHS, RATE = 20, (1, 4, 5, 20), 200, 0.06
inputs = rng.uniform(-1.5, 2.0, COUNT)
targets = 1.2 * inputs + 0.5 + rng.normal(scale=0.8, size=COUNT)


@sg.trace
def batch_loss(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean squared error of a line on a batch."""
    return np.mean((p[0] * x + p[1] - y) ** 2)


batch_gradient = sg.grad(batch_loss)
line = np.polyfit(inputs, targets, 1)
line_start = np.array([-1.5, 2.5])


def mini_batch_path(size: int) -> np.ndarray:
    """Return the parameters before and after each step of all epochs, each epoch in an order of its own."""
    order, params = np.random.default_rng(size), line_start
    path = [params]
    for _ in range(EPOCHS):
        rows = order.permutation(COUNT)
        for begin in range(0, COUNT, size):
            batch = rows[begin : begin + size]
            params = params - RATE * batch_gradient(params, inputs[batch], targets[batch])
            path.append(params)
    return np.array(path)


batch_paths = {size: mini_batch_path(size) for size in BATCHES}
scatter = {}
print(f"\nthe fit in closed form is {line.round(4)}")
for size, path in batch_paths.items():
    late = path[len(path) // 2 :]
    scatter[size] = float(np.sqrt(np.mean(np.sum((late - line) ** 2, axis=1))))
    print(f"batches of {size:2d}: {len(path) - 1:4d} steps; in the second half {scatter[size]:.4f} away from it")
assert scatter[1] > 1.5 * scatter[4] and scatter[5] > 10 * scatter[20], "a constant rate keeps small batches from settling"
np.testing.assert_allclose(batch_paths[20][-1], line, atol=1e-3)

# %% [markdown]
# The variance of a step falls with the size of the batch. Drawn without replacement out of N samples, the mean over b of them has the
# variance of a single one divided by b, times (N - b) / (N - 1); for the whole data nothing is left. The gradients of all single samples
# come from one call: `vmap` maps the gradient over the samples.

# %%
each = sg.vmap(batch_gradient, in_axes=(None, 0, 0))(line_start, inputs[:, None], targets[:, None])
np.testing.assert_allclose(each.mean(axis=0), batch_gradient(line_start, inputs, targets), rtol=1e-12)
spread = float(np.sum(np.var(each, axis=0)))
variance = {}
print(f"\n{'batch':>5} {'variance of the step':>21} {'by the formula':>15}")
for size in BATCHES:
    drawn = np.array([each[rng.permutation(COUNT)[:size]].mean(axis=0) for _ in range(4000)])
    variance[size] = RATE**2 * float(np.sum(np.var(drawn, axis=0)))
    expected = RATE**2 * spread / size * (COUNT - size) / (COUNT - 1)
    print(f"{size:5d} {variance[size]:21.6f} {expected:15.6f}")
    np.testing.assert_allclose(variance[size], expected, rtol=0.1, atol=1e-20)

# %% [markdown]
# Each batch has a surface of its own, with a minimum of its own. The mean of the surfaces of all batches of an epoch is that of the data.

# %%
first, second = np.linspace(-2.5, 3.5, 61), np.linspace(-2.0, 3.5, 61)
whole = surface(lambda p: batch_loss(p, inputs, targets), first, second)
parts = [slice(begin, begin + 4) for begin in range(0, COUNT, 4)]
part_surfaces = [surface(lambda p, part=part: batch_loss(p, inputs[part], targets[part]), first, second) for part in parts]
part_minima = np.array([np.polyfit(inputs[part], targets[part], 1) for part in parts])
np.testing.assert_allclose(np.mean(part_surfaces, axis=0), whole, rtol=1e-12)
print(f"\nminima of the surfaces of five batches:\n{part_minima.round(3)}")
assert np.min(np.linalg.norm(part_minima - line, axis=1)) > 0.05 and np.linalg.norm(part_minima[0] - part_minima[1]) > 0.2

# %%
figure_of_batches, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
for axis, title, heights, minimum in (
    (axes[0], "surface of the first batch of 4", part_surfaces[0], part_minima[0]),
    (axes[1], "surface of the second batch of 4", part_surfaces[1], part_minima[1]),
    (axes[2], "paths over the surface of all samples", whole, line),
):
    axis.contour(first, second, heights, np.geomspace(0.3, 40, 18), cmap="viridis", linewidths=0.7)
    axis.plot(*minimum, "k*")
    axis.set(title=title, xlabel="slope", ylabel="offset")
for size, path in batch_paths.items():
    axes[2].plot(*path[:200].T, ".-", ms=2, lw=0.7, label="all" if size == COUNT else f"batches of {size}")
axes[2].legend()
figure_of_batches.savefig(output / "l2_mini_batches.png", dpi=100)
plt.close(figure_of_batches)

# %% [markdown]
# In three dimensions: the surface of the wave, with its ridges and valleys.

# %%
frequencies, phases = np.linspace(0.5, 4.2, 90), np.linspace(-2.5, 2.5, 60)
wave_surface = surface(wave_loss, frequencies, phases)
figure_in_space = plt.figure(figsize=(8, 6), layout="constrained")
axis = figure_in_space.add_subplot(projection="3d")
axis.plot_surface(*np.meshgrid(frequencies, phases), wave_surface, cmap="viridis", alpha=0.7, lw=0)
for path in wave_paths.values():
    axis.plot(*path.T, sg.vmap(wave_loss)(path), "k.-", ms=2, zorder=10)
axis.set(xlabel="frequency", ylabel="phase", zlabel="mean squared error")
figure_in_space.savefig(output / "l2_loss_surface.png", dpi=100)
plt.close(figure_in_space)
lowest = np.unravel_index(np.argmin(wave_surface), wave_surface.shape)
assert abs(frequencies[lowest[1]] - TRUE_WAVE[0]) < 0.1 and abs(phases[lowest[0]] - TRUE_WAVE[1]) < 0.2

# %% [markdown]
# ## Jumping instead of walking
#
# Gauss and Newton jump to where the errors would be least if they were linear in the parameters: p + (J^T J)^-1 J^T eps. Levenberg and
# Marquardt add a damping, p + (J^T J + damping D^2)^-1 J^T eps: a step stays only if the norm of the errors falls; then the damping
# shrinks and the next step is more like Gauss and Newton's, otherwise it grows and the next one is a short step along the gradient. In the
# banana-shaped valley of Rosenbrock, where plain descent crawls, a handful of steps is enough.


# %%
def banana(p: np.ndarray) -> np.ndarray:
    """Return the two errors whose squares add up to Rosenbrock's function."""
    return snp.array([10.0 * (p[1] - p[0] ** 2), 1.0 - p[0]])


banana_start = np.array([-1.2, 1.0])
crawled = descend(lambda p: np.sum(banana(p) ** 2), banana_start, 0.001, 2000)
print(f"\nplain descent after 2000 steps is {np.linalg.norm(crawled[-1] - 1):.3f} away")
assert np.linalg.norm(crawled[-1] - 1) > 0.05
jumps = {}
for title, method in (
    ("Gauss-Newton", sg.optim.gauss_newton()),
    ("Levenberg-Marquardt", sg.optim.levenberg_marquardt(1e-3, acceleration=False)),
):
    jumps[title] = sg.least_squares(banana, banana_start, method=method)
    stayed = [trial.accepted for trial in jumps[title].history]
    print(f"{title}: {len(stayed)} steps, {sum(stayed)} of them stay; {np.linalg.norm(jumps[title].x - 1):.0e} away")
    np.testing.assert_allclose(jumps[title].x, [1.0, 1.0], rtol=1e-8)
    assert len(stayed) < 50

print("\nLevenberg-Marquardt, step by step: damping, cost, stays")
costs = [float(np.sum(banana(banana_start) ** 2)) / 2]
for trial in jumps["Levenberg-Marquardt"].history:
    print(f"{trial.control:10.2e} {trial.cost:10.2e} {'yes' if trial.accepted else 'no':>4}")
    if trial.accepted:
        assert trial.cost < costs[-1], "a step stays only if the norm of the errors falls"
        costs.append(trial.cost)
assert not all(trial.accepted for trial in jumps["Levenberg-Marquardt"].history)
dampings = [trial.control for trial in jumps["Levenberg-Marquardt"].history]
for trial, damping, following in zip(jumps["Levenberg-Marquardt"].history, dampings, dampings[1:], strict=False):
    assert trial.accepted or following > damping, "after a step that is taken back the damping grows"

# %% [markdown]
# Why is this not how networks are trained? J^T J has the square of the number of parameters as its size: for a million parameters it has
# 10^12 entries, 8 terabytes, and solving with it takes some 10^18 operations a step. The gradient J^T eps has a million.
