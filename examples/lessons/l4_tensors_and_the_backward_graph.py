# %% [markdown]
# # Tensors and the backward graph
#
# A gradient travels backward along the way that the values came. This page follows it by hand through a chain of neurons, looks at what
# a tensor knows about where it came from, and asks what `backward` means for a tensor that is not a single number.

# %%
import argparse
from pathlib import Path

import matplotlib
import numpy as np

import staticgrad as sg
import staticgrad.eager as torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Tensors and the backward graph.")
parser.add_argument("--output", type=Path, default=Path("lessons_output"), help="where the pictures go")
output: Path = parser.parse_known_args()[0].output
output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A chain of neurons
#
# Each layer is one neuron: `f_i = tanh(w_i f_{i-1})`, with `f_0 = x`. The loss is half the squared difference of the last one from `y`.

# %%
WEIGHTS = [0.9, -1.4, 0.6, 1.8, -0.7, 1.1]
x, y = 0.8, 0.5


def chain(weights, x, y):
    """Return the loss; `tanh` is NumPy's, which works on arrays, tensors and traced arrays."""
    output = x
    for k in range(len(WEIGHTS)):
        output = np.tanh(weights[k] * output)
    return 0.5 * (y - output) ** 2


# %% [markdown]
# By hand: keep the outputs of all layers on the way forward. Then go backward. The loss changes with the last output as `f_L - y`. Let
# `error_i` be the derivative of the loss by `f_i`; through the activation it becomes `error_i * (1 - f_i^2)`, and there it splits: times
# what the neuron saw, `f_{i-1}`, it is the gradient of `w_i`; times `w_i` it is `error_{i-1}`, and the next neuron's turn. No derivative is
# computed twice, which is all there is to backpropagation.


# %%
def chain_by_hand(weights: np.ndarray, x: float, y: float) -> tuple[np.ndarray, list[float]]:
    """Return the gradient of the loss by the weights, and the errors from the last layer to the input."""
    outputs = [x]
    for weight in weights:
        outputs.append(np.tanh(weight * outputs[-1]))
    gradient, errors = np.zeros(len(weights)), [outputs[-1] - y]
    for k in reversed(range(len(weights))):
        through_activation = errors[-1] * (1 - outputs[k + 1] ** 2)
        gradient[k] = through_activation * outputs[k]
        errors.append(through_activation * weights[k])
    return gradient, errors


by_hand, errors = chain_by_hand(np.array(WEIGHTS), x, y)
weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
chain_loss = chain(weights, x, y)
chain_loss.backward()
chain_traced = sg.grad(chain)(np.array(WEIGHTS), x, y)
print("layer  by hand        backward()     sg.grad")
for k in reversed(range(len(WEIGHTS))):
    print(f"{k + 1:5}  {by_hand[k]:+.10f}  {weights.grad[k]:+.10f}  {chain_traced[k]:+.10f}")
np.testing.assert_allclose(weights.grad.numpy(), by_hand, rtol=1e-12)
np.testing.assert_allclose(chain_traced, by_hand, rtol=1e-12)

# %% [markdown]
# The errors that were passed along are derivatives as well. Intermediate tensors keep theirs when they are told to: `retain_grad()`.

# %%
kept = [torch.tensor(x, dtype=torch.float64, requires_grad=True)]
for weight in WEIGHTS:
    kept.append(torch.tanh(weight * kept[-1]))
    kept[-1].retain_grad()
(0.5 * (y - kept[-1]) ** 2).backward()
kept_errors = [float(tensor.grad) for tensor in reversed(kept)]
print("errors by hand   ", np.round(errors, 6))
print("errors retained  ", np.round(kept_errors, 6))
np.testing.assert_allclose(kept_errors, errors, rtol=1e-12)

# %% [markdown]
# ## Five fields
#
# A node of the graph is a tensor with five fields:
#
# - `data`, the numbers;
# - `grad`, the gradient that has arrived, None before the first backward pass;
# - `grad_fn`, the operation that made it, None for what the user made;
# - `is_leaf`, whether the user made it;
# - `requires_grad`, whether operations on it are recorded.
#
# A tracked tensor plus an untracked one is tracked: `requires_grad` spreads to everything that depends on a tensor that has it.

# %%
tracked = torch.tensor(2.0, requires_grad=True)
untracked = torch.tensor(3.0)
total = tracked + untracked
before = torch.backward_graph(total, tracked=tracked, untracked=untracked, total=total)
print(before)
assert total.requires_grad and not total.is_leaf and repr(total) == "tensor(5., grad_fn=<AddBackward0>)"
assert tracked.grad is None and before["tracked"].fields.grad is None

total.backward()
after = torch.backward_graph(total, tracked=tracked, untracked=untracked, total=total)
print("\nafter backward()\n" + str(after))
(output / "l4_five_fields.svg").write_text(after.to_svg(), encoding="utf-8")
assert tracked.grad.item() == 1.0 and untracked.grad is None
assert after.backward_arrows == [("total.backward()", "AddBackward0"), ("AddBackward0", "tracked.grad")]

# %% [markdown]
# Every operation names itself in the `grad_fn` of its result.

# %%
z = torch.tensor([0.5, 2.0], requires_grad=True)
named = {
    "z + 1": z + 1,
    "z * z": z * z,
    "z - 1": z - 1,
    "z / 2": z / 2,
    "z ** 2": z**2,
    "z.exp()": z.exp(),
    "z.log()": z.log(),
    "z.sin()": z.sin(),
    "z.sigmoid()": z.sigmoid(),
    "z.sum()": z.sum(),
    "z.mean()": z.mean(),
}
grad_fns = {text: result.grad_fn.name() for text, result in named.items()}
for text, name in grad_fns.items():
    print(f"{text:12} {name}")

# %% [markdown]
# Tensors of whole numbers have no slope: between 1 and 2 there is nothing. They never require gradients.

# %%
integers = torch.tensor([1, 2, 3])
print(integers, integers.dtype, integers.requires_grad)
assert integers.requires_grad is False and integers.dtype == torch.int64

# %% [markdown]
# ## Two powers
#
# `c = 2 a^6 - b^9`, element by element. The slopes are `12 a^5` and `-9 b^8`.

# %%
a = torch.tensor([1.0, 4.0], requires_grad=True)
b = torch.tensor([5.0, 2.0], requires_grad=True)


def powers(a, b):
    """Return 2 a^6 - b^9."""
    return 2 * a**6 - b**9


c = powers(a, b)
print(c)
assert c.tolist() == [-1953123.0, 7680.0]

# %% [markdown]
# `c` has two elements. Which one is to be differentiated? `backward()` alone refuses to guess.

# %%
try:
    c.backward()
except RuntimeError as error:
    refusal = str(error).splitlines()[0]
print(refusal)
assert "gradient=v" in refusal

# %% [markdown]
# What it needs is a weight for each element: `backward(gradient=v)` differentiates the weighted sum `v[0] c[0] + v[1] c[1]`.

# %%
c.backward(gradient=torch.tensor([1.0, 1.0]))
print(f"a.grad {a.grad.tolist()}, b.grad {b.grad.tolist()}")
assert a.grad.tolist() == [12.0, 12288.0] and b.grad.tolist() == [-3515625.0, -2304.0]
power_graph = torch.backward_graph(c, a=a, b=b, c=c)
(output / "l4_two_powers.svg").write_text(power_graph.to_svg(), encoding="utf-8")

# %% [markdown]
# Traced, the pullback of `sg.vjp` takes the same weights.

# %%
a_array, b_array = a.detach().numpy(), b.detach().numpy()
traced_c, pullback = sg.vjp(powers, a_array, b_array)
traced_a, traced_b = pullback(np.ones(2, np.float32))
assert traced_c.tolist() == c.tolist() and traced_a.tolist() == a.grad.tolist() and traced_b.tolist() == b.grad.tolist()

# %% [markdown]
# ## A vector times the Jacobian
#
# The Jacobian holds the derivative of every output (a row each) by every input (a column each). `backward(gradient=v)` gives `v @ J`
# without ever making J: for a loss, which is one output, a single such product is the whole gradient. Here is a function that mixes its
# inputs, so that J is not a diagonal.

# %%
MIXING = np.array([[1.0, -2.0, 0.5], [0.3, 0.8, -1.0]])


def mix(x):
    """Return two numbers made of three."""
    return np.sin(MIXING @ x) * np.sum(x**2)


point, v = np.array([0.2, -0.4, 0.9]), np.array([0.7, -1.5])
jacobian = sg.jacobian(mix)(point)
tensor_point = torch.tensor(point, requires_grad=True)
mix(tensor_point).backward(gradient=torch.tensor(v))
traced_product = sg.vjp(mix, point)[1](v)[0]
print(f"J has the shape {jacobian.shape}")
print(f"v @ J       {v @ jacobian}\nbackward(v) {tensor_point.grad.numpy()}\nsg.vjp      {traced_product}")
np.testing.assert_allclose(tensor_point.grad.numpy(), v @ jacobian, rtol=1e-12)
np.testing.assert_allclose(traced_product, v @ jacobian, rtol=1e-12)

# %% [markdown]
# Row by row, with the unit vectors for `v`, backward passes make up the whole Jacobian.

# %%
rows = []
for unit in np.eye(2):
    (row,) = torch.autograd.grad(mix(tensor_point), tensor_point, torch.tensor(unit))
    rows.append(row.numpy())
np.testing.assert_allclose(np.stack(rows), jacobian, rtol=1e-12)

# %% [markdown]
# ## A picture of the chain
#
# How far back does a gradient reach? Each layer multiplies the error by a weight and by the slope of the activation, which is at most 1.

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
layers = np.arange(len(WEIGHTS), -1, -1)
axes.semilogy(layers, np.abs(errors), "o-", color="#1f6f8b")
axes.set(title="The error on its way back to the input", xlabel="layer", ylabel="size of the derivative by its output")
axes.invert_xaxis()
figure.savefig(output / "l4_chain.png", dpi=100)
drawn_errors = axes.get_lines()[0].get_ydata()
plt.close(figure)
print(f"\npictures: {', '.join(str(output / name) for name in ('l4_five_fields.svg', 'l4_two_powers.svg', 'l4_chain.png'))}")
