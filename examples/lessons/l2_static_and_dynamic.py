# %% [markdown]
# # Static against dynamic graphs
#
# A dynamic graph is recorded anew on every pass, by the operations as they run. A static graph is recorded once, and every later pass
# runs what was made of it. This lesson trains one network both ways, on the same data with the same steps: what differs is the time, and
# what can be done to a graph that lasts.

# %%
import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np

import staticgrad as sg

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Static against dynamic graphs.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

Params = dict[str, np.ndarray]
BATCH, STEPS, RATE = 32, 100, 0.5

# %% [markdown]
# ## One network, written once
#
# 2-32-2 with tanh, a softmax and the mean cross-entropy. The namespace is a parameter, since HIPS autograd needs its own
# `autograd.numpy`; staticgrad takes NumPy itself.


# %%
def loss_in(np: ModuleType) -> Callable[..., Any]:
    """Return the loss of the network, written with a namespace like NumPy's."""

    def loss(params, x, targets):
        hidden = np.tanh(np.matmul(x, params["w1"]) + params["b1"])
        scores = np.matmul(hidden, params["w2"]) + params["b2"]
        shifted = scores - np.max(scores, axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
        return -np.mean(np.sum(targets * log_probabilities, axis=1))

    return loss


loss = loss_in(np)

keys = sg.random.split(sg.random.key(1), 4)
labels = np.arange(STEPS * BATCH) % 2
x = sg.random.normal(keys[0], (STEPS * BATCH, 2)) + np.where(labels == 0, 3.0, 5.0)[:, None] - 4.0
targets = np.eye(2)[labels]
start: Params = {
    "w1": sg.random.normal(keys[1], (2, 32)) / np.sqrt(2),
    "b1": np.zeros(32),
    "w2": sg.random.normal(keys[2], (32, 2)) / np.sqrt(32),
    "b2": np.zeros(2),
}


def train(gradient: Callable[..., Params], epochs: int) -> Params:
    """Return the parameters after one step down the slope for each batch of each epoch."""
    params = start
    for k in [*range(0, len(x), BATCH)] * epochs:
        found = gradient(params, x[k : k + BATCH], targets[k : k + BATCH])
        params = {name: value - RATE * found[name] for name, value in params.items()}
    return params


# %% [markdown]
# ## Built anew on every pass
#
# Our own graph, treated as a dynamic one: every call traces a new function, differentiates its graph and lets the NumPy interpreter run
# it. Most of the time goes into making what the call before has made already.


# %%
def rebuilt(params: Params, x: np.ndarray, targets: np.ndarray) -> Params:
    """Return the gradient; the graph is recorded, differentiated, run and dropped."""

    @sg.trace(backend="interp")
    def fresh(params, x, targets):
        return loss(params, x, targets)

    return sg.grad(fresh)(params, x, targets)


# %% [markdown]
# HIPS autograd is made for this: its tape is recorded by the operations themselves.

# %%
ways: dict[str, Callable[[int], Params]] = {"rebuilt by staticgrad, interpreted": lambda epochs: train(rebuilt, epochs)}
try:
    import autograd
    import autograd.numpy

    tape_gradient = autograd.grad(loss_in(autograd.numpy))
    ways["rebuilt by HIPS autograd"] = lambda epochs: train(tape_gradient, epochs)
except ImportError:
    print("HIPS autograd is not installed (pip install autograd): its rows are left out")

# %% [markdown]
# So are our eager tensors. They take NumPy's functions as well as PyTorch's, and what was recorded can be walked: `grad_fn` is the last
# operation, `next_functions` those that it got its operands from.


# %%
def on_tensors(params: Params, x: np.ndarray, targets: np.ndarray) -> tuple[sg.Tensor, dict[str, sg.Tensor]]:
    """Return the loss, and the leaves that it was computed from."""
    leaves = {name: sg.tensor(value, requires_grad=True) for name, value in params.items()}
    return loss(leaves, x, targets), leaves


def tape_of(tensor: sg.Tensor) -> set:
    """Return the nodes that a backward pass from `tensor` goes through."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [operand for operand, _ in node.next_functions]
    return seen


def eager_gradient(params: Params, x: np.ndarray, targets: np.ndarray) -> Params:
    """Return the gradient; the tape is recorded, walked once and dropped."""
    value, leaves = on_tensors(params, x, targets)
    value.backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}


ways["rebuilt by eager tensors"] = lambda epochs: train(eager_gradient, epochs)
nodes_of_a_pass = len(tape_of(on_tensors(start, x[:BATCH], targets[:BATCH])[0]))
print(f"eager tensors record {nodes_of_a_pass} nodes in every pass, {nodes_of_a_pass * STEPS} in {STEPS} steps")

# %% [markdown]
# ## Compiled once
#
# `sg.grad` traces at the first call for these shapes. After that, a call is a call of machine code; and `sg.Trainer` needs none, since its
# loop over the batches is compiled, too.

# %%
compiled_gradient = sg.grad(loss)
trainer = sg.Trainer(loss, sg.optim.sgd(RATE))


def whole_loop(epochs: int) -> Params:
    """Return the parameters after some epochs of the compiled loop."""
    state, _ = trainer.fit(trainer.init(start), (x, targets), epochs=epochs, batch_size=BATCH, shuffle=False, progress=False)
    return state.params


ways["compiled once, loop in Python"] = lambda epochs: train(compiled_gradient, epochs)
ways["compiled once, loop compiled, too"] = whole_loop

# %% [markdown]
# ## The same results
#
# All of them end at the same parameters, up to rounding: sums are added in another order.

# %%
ends = {name: way(1) for name, way in ways.items()}
reference = ends["rebuilt by staticgrad, interpreted"]
for name, found in ends.items():
    for key, value in reference.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-10, atol=1e-12, err_msg=name)
print(f"loss on all data: {loss(start, x, targets):.6f} before, {loss(reference, x, targets):.6f} after {STEPS} steps, whichever way")

# %% [markdown]
# ## The times
#
# Medians of three rounds in which all take turns; those that are compiled get more epochs, to have something to measure.

# %%
seconds: dict[str, list[float]] = {name: [] for name in ways}
for _ in range(3):
    for name, way in ways.items():
        epochs = 20 if name.startswith("compiled") else 1
        begun = time.perf_counter()
        way(epochs)
        seconds[name].append((time.perf_counter() - begun) / (epochs * STEPS))
medians = {name: statistics.median(times) for name, times in seconds.items()}
print(f"\n{'':<40}microseconds a step   times the fastest")
for name, took in medians.items():
    print(f"  {name:<38}{1e6 * took:>19.1f}{took / min(medians.values()):>20.1f}")

info = compiled_gradient.cache_info()
print(f"traces of the compiled gradient: {info.traces}, in {61 * STEPS} steps")
assert info.traces == 1

# %% [markdown]
# ## What a lasting graph is good for
#
# What is used a thousand times may be improved first. The passes drop what is not needed, share what occurs twice and simplify, all without
# changing a bit. Fusion then merges what would be one loop per operation, each with an array of its own to write and read again.

# %%
lowered = compiled_gradient.lower(start, x[:BATCH], targets[:BATCH])
report = lowered.report
print(f"\n{report}\n")
fired: dict[str, int] = {}
for result in report.passes:
    for rule, count in result.fired.items():
        fired[rule] = fired.get(rule, 0) + count
print("rewrite rules that fired: " + ", ".join(f"{rule} ({count})" for rule, count in sorted(fired.items())))
assert len(lowered.optimized.nodes) < len(lowered.graph.nodes)
assert report.forward_nests < report.forward_nests_unfused and report.backward_nests < report.backward_nests_unfused

before = sg.trace(loss, backend="interp")
batch = x[:BATCH], targets[:BATCH]
as_traced = sg.grad(before)(start, *batch)
for key, value in compiled_gradient(start, *batch).items():
    np.testing.assert_allclose(value, as_traced[key], rtol=1e-12, atol=1e-15)
print("the gradient of the optimised graph is that of the graph as it was traced")

# %% [markdown]
# What an evaluation does not need, it does not pay for: the loss alone has no backward kernel.

# %%
evaluation = sg.trace(loss).lower(start, *batch)
print(f"loss alone: {len(evaluation.optimized.nodes)} nodes, gradient: {len(lowered.optimized.nodes)}; planned memory in bytes:", end=" ")
print(f"{evaluation.memory} and {lowered.memory}")
assert len(evaluation.optimized.nodes) < len(lowered.optimized.nodes)

# %% [markdown]
# ## What a static graph asks in return
#
# It is recorded before values are known, so Python cannot branch on them. On a dynamic graph this function works; traced, it is an error
# that says where and what to write.


# %%
def steep(z):
    """Return z squared where z is positive, -z elsewhere."""
    if z > 0:
        return z**2
    return -z


branched = []
for number in (3.0, -3.0):
    z = sg.tensor(number, requires_grad=True)
    steep(z).backward()
    branched.append(z.grad.item())
print(f"\na branch in Python: on tensors the slopes at 3 and -3 are {branched[0]:.0f} and {branched[1]:.0f}")

try:
    sg.grad(sg.trace(steep))(3.0)
except sg.TraceError as error:
    refused = str(error)
print(f"traced: {refused}")


def steep_by_value(z):
    """Return the same, chosen by value."""
    return np.where(z > 0, z**2, -z)


slopes = [float(sg.grad(steep_by_value)(z)) for z in (3.0, -3.0)]
print(f"with np.where the slopes at 3 and -3 are {slopes[0]:.0f} and {slopes[1]:.0f}")
assert slopes == branched == [6.0, -1.0]

# %% [markdown]
# ## Recurrent computation
#
# A recurrent network runs the same cell along a sequence. A dynamic graph records the cell once for every step. So does a static one, if
# the loop is Python's: the graph grows with the sequence, and so does the time to compile it. `sg.scan` records the cell once, whatever
# the length: the loop is part of the graph, forward and backward.

# %%
UNITS = 8
cell_keys = sg.random.split(sg.random.key(3), 4)
weights: Params = {
    "in": sg.random.normal(cell_keys[0], (2, UNITS)) / 2,
    "again": sg.random.normal(cell_keys[1], (UNITS, UNITS)) / 4,
    "out": sg.random.normal(cell_keys[2], (UNITS,)),
}
sequence = sg.random.normal(cell_keys[3], (100, 2))


def cell(weights, state, x):
    """Return the state after one more input."""
    return np.tanh(np.matmul(x, weights["in"]) + np.matmul(state, weights["again"]))


def unrolled(weights, sequence):
    """Return the squared output at the end of the sequence; a loop in Python."""
    state = np.zeros(UNITS)
    for x in sequence:
        state = cell(weights, state, x)
    return np.matmul(state, weights["out"]) ** 2


def scanned(weights, sequence):
    """Return the same; a loop in the graph."""
    state, _ = sg.scan(lambda state, x: (cell(weights, state, x), None), np.zeros(UNITS), sequence)
    return np.matmul(state, weights["out"]) ** 2


print(f"\n{'a recurrent network: steps':<40}{'nodes of the gradient':>22}   seconds until the first gradient")
recurrent: dict[str, dict[int, int]] = {"unrolled": {}, "scanned": {}}
for name, function in (("unrolled", unrolled), ("scanned", scanned)):
    gradient = sg.grad(function)
    for steps in (25, 50, 100):
        recurrent[name][steps] = len(gradient.lower(weights, sequence[:steps]).graph.nodes)
        begun = time.perf_counter()
        gradient(weights, sequence[:steps])
        print(f"  {name + ', ' + str(steps):<38}{recurrent[name][steps]:>22}{time.perf_counter() - begun:>35.2f}")

leaves = {name: sg.tensor(value, requires_grad=True) for name, value in weights.items()}
unrolled(leaves, sg.tensor(sequence)).backward()
by_scan = sg.grad(scanned)(weights, sequence)
for name, value in sg.grad(unrolled)(weights, sequence).items():
    np.testing.assert_allclose(by_scan[name], value, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(leaves[name].grad.numpy(), value, rtol=1e-10, atol=1e-13)
print("on tensors, unrolled and scanned the gradients agree")

# %% [markdown]
# Even how often to go round can be left to the values. Heron's method goes on until its steps are small, sooner for some numbers than for
# others; one compiled function serves all of them, and it has a derivative.


# %%
@sg.trace
def heron(a):
    """Return the square root of a, and how many steps it took."""

    def goes_on(carry):
        root, _ = carry
        return np.abs(root * root - a) > 1e-12 * a

    def step(carry):
        root, steps = carry
        return (root + a / root) / 2, steps + 1

    return sg.while_loop(goes_on, step, (a, 0))


heron_steps = {}
for number in (2.0, 1e6):
    root, steps = heron(number)
    heron_steps[number] = int(steps)
    slope = sg.grad(lambda a: heron(a)[0])(number)
    print(f"the root of {number:g} took {steps} steps; its slope is {slope:.6g}, by the book {0.5 / np.sqrt(number):.6g}")
    np.testing.assert_allclose([root, slope], [np.sqrt(number), 0.5 / np.sqrt(number)], rtol=1e-9)
assert heron.cache_info().traces == 1

# %% [markdown]
# ## Picture

# %%
bars, axes = plt.subplots(figsize=(8, 3), layout="constrained")
names = list(medians)
axes.barh(names, [1e6 * medians[name] / STEPS for name in names], color=["#1f6f8b" if "compiled" in name else "#c8553d" for name in names])
axes.set(xscale="log", xlim=(1, None), xlabel="microseconds a step", title="One training step, graph rebuilt or compiled once")
axes.invert_yaxis()
bars.savefig(output / "static_and_dynamic.png", dpi=120)
plt.close(bars)
print(f"\npicture: {output / 'static_and_dynamic.png'}")
