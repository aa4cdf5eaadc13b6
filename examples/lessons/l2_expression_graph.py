# %% [markdown]
# # A primer of computational graphs
#
# Four expressions are a small network. Values flow forward through it, and with them the slope of every edge is measured; then the
# gradient of the loss flows backward along the same edges. The lesson does what a library for automatic differentiation does, where one
# can watch, and compares every slope with the exact derivative. It is modelled on Avinash Kak's teaching module
# ComputationalGraphPrimer.

# %%
import argparse
import time
from pathlib import Path

import numpy as np

import staticgrad as sg

parser = argparse.ArgumentParser(description="A primer of computational graphs.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output

# %% [markdown]
# ## A network in four lines
#
# The first letter of a name decides its role: `x...` is a vertex, anything else is a constant that will be learned. `^` raises to a power.
# Which vertices are given from outside, and which is the output, follows from the expressions.

# %%
EXPRESSIONS = ["xx=xa^2", "xy=ab*xx+ac*xa", "xz=bc*xx+xy", "xw=cd*xx+xz^3"]
TRUTH = {"ab": 1.0, "bc": 2.0, "cd": 3.0, "ac": 4.0}

graph = sg.ExpressionGraph(EXPRESSIONS, output_vars=["xw"], dataset_size=10000, learning_rate=1e-6, grad_delta=1e-4, seed=0)
graph.parse_expressions()
print(f"variables {graph.variables}, constants {graph.learnable_params}")
print(f"independent {graph.independent_vars}, output {graph.output_vars}")
print(f"depends on {graph.depends_on}")
print(f"leads to   {graph.leads_to}")
assert graph.depends_on == {"xx": ["xa"], "xy": ["xa", "xx"], "xz": ["xx", "xy"], "xw": ["xx", "xz"]}
assert graph.leads_to == {"xa": ["xx", "xy"], "xx": ["xy", "xz", "xw"], "xy": ["xz"], "xz": ["xw"]}

# %% [markdown]
# Expressions are read by a parser of a dozen lines of grammar; nothing is executed. What it cannot read, or what makes no sense, it shows.

# %%
errors = []
for wrong in (["xx = xa^2", "xy = ab*(xx + ac*xa"], ["xx = xa*xy", "xy = ab*xx"], ["xx = xa**2"]):
    try:
        sg.ExpressionGraph(wrong).parse_expressions()
    except SyntaxError as error:
        errors.append("\n".join(str(error).splitlines()[:3]))
        print("\n" + errors[-1])
assert len(errors) == 3 and "a cycle: xx reads xy reads xx" in errors[1]

# %% [markdown]
# Two views of it: vertices as nodes, with the constants at the edges that they weigh, and operators as nodes.

# %%
pictures = [graph.display_network(output / "network.png"), graph.display_network(output / "operators.png", operators=True)]

# %% [markdown]
# ## Data
#
# Inputs are drawn from the seed; the true constants give the outputs that belong to them.

# %%
graph.gen_gt_dataset(vals_for_learnable_params=TRUTH)
x, target = graph.dataset.inputs["xa"], graph.dataset.outputs["xw"]
np.testing.assert_allclose(target, 3 * x**2 + (3 * x**2 + 4 * x) ** 3, rtol=1e-12)
print(f"\n{len(x)} samples, xa from {x.min():.2f} to {x.max():.2f}, xw from {target.min():.2f} to {target.max():.2f}")

# %% [markdown]
# ## Training
#
# From random constants, one sample after the other:
#
# - forward: compute each vertex, and for each edge move its source by `grad_delta` to either side to see how steeply the target follows;
# - the loss is the squared difference of prediction and truth;
# - backward: the gradient at a vertex is what its readers pass back, each its own gradient times the slope of the edge between them;
# - every constant takes a step against its gradient.
#
# The same sweep computes the exact slopes, too: staticgrad differentiates each expression. All samples together are one native call.

# %%
begun = time.perf_counter()
measured = graph.train_on_all_data()
between = time.perf_counter()
exact = graph.train_on_all_data(partials="exact")
seconds = between - begun, time.perf_counter() - between
print(f"\n{exact}")
assert max(exact.disagreement.values()) < 1e-3
np.testing.assert_allclose(measured.losses, exact.losses, rtol=1e-4)
print(f"\nseconds, compiling included: {seconds[0]:.2f} along measured slopes, {seconds[1]:.2f} along exact ones")

means = exact.mean_losses(1000)
fallen = "fell" if means[-1] < means[0] else "did not fall"
print(f"with the rate {graph.learning_rate:g} the mean loss of 1000 samples {fallen}: {means[0]:.5g}, then {means[-1]:.5g}")
pictures.append(graph.plot_loss(output / "loss.png"))

# %% [markdown]
# ## The whole network at once
#
# Walking backward along edges is the chain rule. `sg.grad` of the composed function gives the same gradient for every constant.


# %%
def loss(constants: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the squared error of one sample; `graph.function` is the network as a traced function."""
    return (graph.function({"xa": x}, constants)["xw"] - target) ** 2


whole = sg.vmap(sg.grad(loss))(dict(exact.trajectory), x, target)
for name in graph.learnable_params:
    np.testing.assert_allclose(exact.constant_gradients[name], whole[name], rtol=1e-9)
    np.testing.assert_allclose(measured.constant_gradients[name], whole[name], rtol=1e-3)
    print(f"gradient at {name}, last sample: {measured.constant_gradients[name][-1]:.8g} measured, {whole[name][-1]:.8g} by sg.grad")

# %% [markdown]
# ## How far to move
#
# A slope measured across 2 delta is wrong by about delta^2 (Taylor's series), and by the rounding of the values divided by delta. In
# between there is a best delta; the exact derivative needs none.

# %%
print("\ndelta     largest relative difference of the slope of xz -> xw")
differences = {}
for exponent in range(-1, -14, -2):
    delta = 10.0**exponent
    coarse = sg.ExpressionGraph(EXPRESSIONS, dataset_size=1000, grad_delta=delta, display_vals_how_often=0)
    coarse.parse_expressions()
    coarse.gen_gt_dataset(vals_for_learnable_params=TRUTH)
    differences[delta] = coarse.train_on_all_data("exact").disagreement["xz", "xw"]
    print(f"{delta:.0e}     {differences[delta]:.1e}")
best = min(differences, key=differences.__getitem__)
assert 1e-9 < best < 1e-1 and differences[best] < 1e-6

# %% [markdown]
# ## What can be learned
#
# `ab` and `bc` both multiply `xx` on the way into `xz`: data say something about their sum only. The Jacobian of the outputs, one row per
# sample and one column per constant, has rank three, and the direction that it does not see is `ab` up, `bc` down.

# %%
jacobian_rows = sg.vmap(sg.grad(lambda constants, x: graph.function({"xa": x}, constants)["xw"]), in_axes=(None, 0))


def jacobian(constants: dict[str, float]) -> np.ndarray:
    """Return the derivatives of all outputs by the constants, (samples, constants)."""
    rows = jacobian_rows(constants, x)
    return np.column_stack([rows[name] for name in graph.learnable_params])


_, sizes, directions = np.linalg.svd(jacobian(TRUTH), full_matrices=False)
unseen = dict(zip(graph.learnable_params, (directions[-1] / directions[-1][0]).tolist()))
print(f"\nsingular values {', '.join(f'{size:.3g}' for size in sizes)}")
print("unseen direction: " + ", ".join(f"{name} {share + 0.0:.6f}" for name, share in unseen.items()))
assert sizes[3] < 1e-10 * sizes[0] < sizes[2]
np.testing.assert_allclose([unseen[name] for name in ("ab", "bc", "ac", "cd")], [1.0, -1.0, 0.0, 0.0], atol=1e-6)

# %% [markdown]
# Gradient descent soon finds `ab + bc` and `ac`, which the cube makes steep, and takes its time with `cd`; a larger rate overshoots, and
# the loss becomes infinite: the report says from which sample on. Gauss-Newton, which jumps to the bottom of the linearised problem, has
# all three in a few steps from there.

# %%
runs = {}
for rate in (1e-6, 1e-5, 1e-3):
    trial = sg.ExpressionGraph(EXPRESSIONS, learning_rate=rate, display_vals_how_often=0)
    trial.parse_expressions()
    trial.gen_gt_dataset(vals_for_learnable_params=TRUTH)
    runs[rate] = trial.train_on_all_data("exact")
    found, end = runs[rate].constants, runs[rate].first_nonfinite
    sums = f"ab + bc {found['ab'] + found['bc']:.4f}, ac {found['ac']:.4f}, cd {found['cd']:.4f}"
    print(f"rate {rate:g}: " + (sums if end is None else f"not finite from sample {end + 1} on"))
assert runs[1e-5].first_nonfinite is None and runs[1e-3].first_nonfinite is not None

constants = dict(runs[1e-5].constants)
for number in range(5):
    residuals = graph.function({"xa": x}, constants)["xw"] - target
    step = np.linalg.lstsq(jacobian(constants), -residuals, rcond=1e-10)[0]
    constants = {name: value + change for (name, value), change in zip(constants.items(), step)}
    print(f"Gauss-Newton {number + 1}: mean loss {np.mean(residuals**2):.3g}")
recovered = {"ab + bc": constants["ab"] + constants["bc"], "ac": constants["ac"], "cd": constants["cd"]}
print("recovered: " + ", ".join(f"{name} {value:.6f}" for name, value in recovered.items()) + f"; ab alone {constants['ab']:.4f}")
np.testing.assert_allclose(list(recovered.values()), [3.0, 4.0, 3.0], rtol=1e-6)

print(f"\npictures: {', '.join(map(str, pictures))}")
