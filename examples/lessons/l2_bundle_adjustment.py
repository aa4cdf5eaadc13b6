# %% [markdown]
# # Bundle adjustment
#
# Several cameras took pictures of the same points. Where did they stand, which way did they look, and where are the points? All of it is
# found at once: the sum of the squares of the distances, in pixels, between where a point was seen and where it should be seen is made
# as small as possible. Each distance depends on one camera and one point, so nearly all of the Jacobian is 0, and Levenberg-Marquardt
# takes its steps through sparse normal equations.

# %%
import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import staticgrad as sg

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Bundle adjustment.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

CAMERAS, POINTS, FOCAL_LENGTH, NOISE = 8, 250, 800.0, 0.5
Scene = dict[str, np.ndarray]

# %% [markdown]
# ## Cameras
#
# A camera has six parameters: a vector w whose direction is the axis, and whose length the angle, of its rotation, and a translation t.
# A point p stands at q = R(w) p + t in front of it, and is seen at f q_xy / q_z. Rodrigues' formula rotates without a matrix:
#
#     R(w) p = p cos a + (w x p) sin a / a + w (w . p) (1 - cos a) / a^2,     a = |w|


# %%
def rotated(w: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return points rotated about the axes w by the angles |w|: (n, 3), (n, 3) -> (n, 3)."""
    angle = np.sqrt(np.sum(w * w, axis=1, keepdims=True))
    half = np.sinc(angle / (2 * np.pi))  # sin(a / 2) / (a / 2), also where a is 0
    along = np.sum(w * p, axis=1, keepdims=True)
    return p * np.cos(angle) + np.cross(w, p) * np.sinc(angle / np.pi) + w * along * half**2 / 2


def seen(cameras: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return where each camera sees its point, in pixels: (n, 6), (n, 3) -> (n, 2)."""
    q = rotated(cameras[:, :3], points) + cameras[:, 3:]
    return FOCAL_LENGTH * q[:, :2] / q[:, 2:]


turn = np.array([[0.3, -0.2, 0.5]])
np.testing.assert_allclose(rotated(-turn, rotated(turn, np.array([[1.0, 2.0, 3.0]]))), [[1.0, 2.0, 3.0]], rtol=1e-14)
np.testing.assert_array_equal(rotated(0 * turn, turn), turn)

# %% [markdown]
# ## A scene
#
# Points on a knot, and cameras on a circle around it that all look at its middle. Each point is seen by most of the cameras, with half a
# pixel of noise.

# %%
rng = np.random.default_rng(5)


def looking_at_the_middle(position: np.ndarray) -> np.ndarray:
    """Return the parameters of a camera that stands at `position` and looks at the origin."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(forward, right), forward])
    angle = np.arccos((np.trace(matrix) - 1) / 2)
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / (2 * np.sin(angle))
    return np.concatenate([angle * axis, -matrix @ position])


around = np.linspace(0, 1.6 * np.pi, CAMERAS)
positions = np.stack([9 * np.cos(around), 9 * np.sin(around), 2 + np.sin(3 * around)], axis=1)
along_the_knot = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
radius = 2 + np.cos(3 * along_the_knot)
knot = np.stack([radius * np.cos(2 * along_the_knot), radius * np.sin(2 * along_the_knot), np.sin(3 * along_the_knot)], axis=1)
truth: Scene = {
    "cameras": np.stack([looking_at_the_middle(position) for position in positions]),
    "points": knot + 0.1 * rng.standard_normal(knot.shape),
}

visible = rng.random((CAMERAS, POINTS)) < 0.7
visible[:2] = True  # at least two cameras for each point
camera_of, point_of = np.nonzero(visible)
pixels = seen(truth["cameras"][camera_of], truth["points"][point_of]) + NOISE * rng.standard_normal((len(camera_of), 2))
print(f"{CAMERAS} cameras, {POINTS} points, {len(pixels)} observations")

# %% [markdown]
# The start is far off: cameras turned by some 20 degrees and moved, points scattered.

# %%
start: Scene = {
    "cameras": truth["cameras"] + np.repeat([0.25, 1.5], 3) * rng.standard_normal((CAMERAS, 6)),
    "points": truth["points"] + 1.5 * rng.standard_normal((POINTS, 3)),
}


@sg.trace
def distances(scene: Scene, pixels: np.ndarray) -> np.ndarray:
    """Return how far each point is seen from where it was observed, in x and in y: (observations, 2)."""
    return seen(scene["cameras"][camera_of], scene["points"][point_of]) - pixels


def root_mean_square(scene: Scene) -> float:
    """Return the length of a typical distance in one direction."""
    return float(np.sqrt(np.mean(distances(scene, pixels) ** 2)))


print(f"distances at the start: {root_mean_square(start):.1f} pixels")

# %% [markdown]
# ## The Jacobian
#
# A row has eight entries: three for the rotation of its camera, three for its point, and two for the translation, as a camera that moves
# up sees nothing move sideways. Which ones they are is read from the graph, where `camera_of` and `point_of` are constants. Two cameras
# never share a row, so their columns can be computed together, and so can those of two points: eight sweeps are enough, for any number
# of cameras and points.

# %%
jacobian = sg.sparse_jacobian(distances)
J = jacobian(start, pixels)
coloring = jacobian.coloring(start, pixels)
gram = (J.T @ J).tocsr()
dense_bytes, sparse_bytes = 8 * J.shape[0] * J.shape[1], J.data.nbytes + J.indices.nbytes + J.indptr.nbytes
print(f"\nJ is {J.shape[0]} x {J.shape[1]}, {100 * J.nnz / np.prod(J.shape):.2f}% of it is stored:")
print(f"    {sparse_bytes / 1e6:.2f} MB instead of {dense_bytes / 1e6:.0f}")
print(f"J^T J is {gram.shape[0]} x {gram.shape[1]}, {100 * gram.nnz / np.prod(gram.shape):.1f}% of it is stored")
print(f"{coloring.count} sweeps in {coloring.mode} mode, instead of {min(J.shape)}")
assert coloring.count == 8 and np.all(np.diff(J.indptr) == 8)

whole: Any = sg.jacobian(distances)(start, pixels)
whole = np.hstack([whole[name].reshape(J.shape[0], -1) for name in ("cameras", "points")])
np.testing.assert_allclose(J.toarray(), whole, rtol=1e-12, atol=1e-9)

# %% [markdown]
# ## Levenberg-Marquardt
#
# A step solves (J^T J + damping D^2) step = -J^T distances. It stays only if the distances become shorter; then the damping falls,
# otherwise it grows. A step along which they bend too much is not even tried: it has no cost. The damping has a second task here: a scene
# that is moved, turned or scaled as a whole looks the same in all pictures, so J^T J has seven directions in which nothing changes, and
# could not be solved with by itself.

# %%
found = sg.least_squares(distances, start, args=(pixels,), method=sg.optim.levenberg_marquardt(damping=1e-3, sparse=True))
print(f"\n{found.message}")
print("   damping       cost  stays")
for trial in found.history:
    print(f"{trial.control:10.1e} {trial.cost:10.4g} {'yes' if trial.accepted else 'no':>6}")
degrees_of_freedom = J.shape[0] - (J.shape[1] - 7)
expected = NOISE * np.sqrt(degrees_of_freedom / J.shape[0])
print(f"distances at the end: {root_mean_square(found.x):.4f} pixels; the noise leaves {expected:.4f}")
assert found.success and not all(trial.accepted for trial in found.history)
assert abs(root_mean_square(found.x) / expected - 1) < 0.05

# %% [markdown]
# The dense method takes the same way, but needs a sweep for each of the hundreds of columns. Of a scene with 20 cameras and 4000 points the
# dense J would fill 11 GB; what is stored of it, and computed in eight sweeps as here, is 16 MB.

# %%
dense = sg.least_squares(distances, start, args=(pixels,), method=sg.optim.levenberg_marquardt(damping=1e-3))
print(f"\ndense: {len(dense.history)} steps to a cost of {dense.cost:.6g}; sparse: {len(found.history)} steps to {found.cost:.6g}")
np.testing.assert_allclose(dense.cost, found.cost, rtol=1e-9)

# %% [markdown]
# ## How far from the truth?
#
# Only up to where the scene as a whole is, which way round, and how large: these are taken from the truth before points are compared.


# %%
def in_place(points: np.ndarray, others: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return `others` moved, turned and scaled as brings `points` closest to `model` (Umeyama 1991)."""
    middle, target = points.mean(axis=0), model.mean(axis=0)
    left, stretch, right = np.linalg.svd((model - target).T @ (points - middle))
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = np.sum(stretch * mirror) / np.sum((points - middle) ** 2)
    aligned: np.ndarray = scale * (others - middle) @ (left * mirror @ right).T + target
    return aligned


def places(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the cameras, -R^T t, and the points, in place."""
    where = -rotated(-scene["cameras"][:, :3], scene["cameras"][:, 3:])
    return in_place(scene["points"], where, truth["points"]), in_place(scene["points"], scene["points"], truth["points"])


def typical(x: np.ndarray, model: np.ndarray) -> float:
    """Return the root mean square of the distances between points."""
    return float(np.sqrt(np.mean(np.sum((x - model) ** 2, axis=1))))


before, after = places(start), places(found.x)
point_errors = typical(before[1], truth["points"]), typical(after[1], truth["points"])
camera_errors = typical(before[0], positions), typical(after[0], positions)
print(f"\npoints: {point_errors[0]:.3f} from the truth before, {point_errors[1]:.4f} after; the knot is 6 across")
print(f"cameras: {camera_errors[0]:.3f} before, {camera_errors[1]:.4f} after")
assert point_errors[1] < 0.01 and camera_errors[1] < 0.02

figure = plt.figure(figsize=(13, 6.5), layout="constrained")
for place, (title, (cameras, points)) in enumerate({"before": before, "after": after}.items()):
    axes = figure.add_subplot(1, 2, place + 1, projection="3d")
    axes.scatter(*truth["points"].T, s=22, facecolors="none", edgecolors="0.6", label="points, truth")
    axes.scatter(*points.T, s=7, color="tab:blue", label="points")
    axes.scatter(*positions.T, s=70, marker="s", facecolors="none", edgecolors="0.4", label="cameras, truth")
    axes.scatter(*cameras.T, s=25, marker="s", color="tab:red", label="cameras")
    axes.set(title=f"{title}: points {point_errors[place]:.2g} from the truth", xlabel="x", ylabel="y", zlabel="z", box_aspect=(2, 2, 1))
axes.legend(loc="upper right")
figure.savefig(output / "l2_bundle_adjustment.png", dpi=100)
plt.close(figure)

# %% [markdown]
# ## What is sparse about it
#
# In J each row has its camera on the left and its point on the right. In J^T J cameras meet points that they see; cameras do not meet each
# other, nor points. That arrow is what keeps its factors sparse, if points are eliminated first.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained", width_ratios=(1, 1, 1.2))
left.spy(J, markersize=0.4, aspect="auto", color="tab:blue")
left.set(title=f"J: {J.nnz} of {J.shape[0]} x {J.shape[1]} entries", xlabel="6 columns a camera, 3 a point")
middle.spy(gram, markersize=0.4, color="tab:blue")
middle.set(title=f"J^T J: {gram.nnz} of {gram.shape[0]} x {gram.shape[1]} entries")
ends = [root_mean_square(scene) for scene, trial in zip(found.path[1:], found.history, strict=True) if trial.accepted]
right.semilogy([root_mean_square(start), *ends], "o-", color="tab:blue")
right.axhline(expected, color="0.6", linestyle="--", label="what the noise leaves")
right.set(title="distances after each step that stays", xlabel="step", ylabel="pixels (root mean square)")
right.legend()
figure.savefig(output / "l2_bundle_adjustment_sparsity.png", dpi=100)
plt.close(figure)
