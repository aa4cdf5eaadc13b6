"""Steps a second of one training step: compiled once, against graphs rebuilt at every pass, and against JAX.

Every contender trains the same network (64-128-10, tanh, float32, SGD) on the same batches in the same order. Each is written as
its documentation advises. The contenders take turns in one process, several rounds, so that a machine that slows down slows all
of them; medians and ratios are printed. Rows of packages that are not installed are left out and named.

    python benchmarks/static_vs_dynamic.py [--rounds 5] [--seconds 0.5] [--hidden 128] [--batch 32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import staticgrad as sg

INPUTS, CLASSES, LEARNING_RATE = 64, 10, 0.05

Params = dict[str, np.ndarray]
Advance = Callable[[int], None]
"""Runs so many epochs over the batches, from where it stands."""


class Task:
    """The data and the start that all contenders share."""

    def __init__(self, hidden: int, batch: int, batches: int) -> None:
        rng = np.random.default_rng(0)
        self.batch, self.batches = batch, batches
        self.x = rng.uniform(0, 1, (batches * batch, INPUTS)).astype(np.float32)
        self.y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batches * batch)]
        self.hidden = hidden

    def params(self) -> Params:
        """Return the same random parameters at every call."""
        rng = np.random.default_rng(1)
        return {
            "w1": (rng.standard_normal((INPUTS, self.hidden)) * 0.1).astype(np.float32),
            "b1": np.zeros(self.hidden, np.float32),
            "w2": (rng.standard_normal((self.hidden, CLASSES)) * 0.1).astype(np.float32),
            "b2": np.zeros(CLASSES, np.float32),
        }

    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the batches in order."""
        return [(self.x[k : k + self.batch], self.y[k : k + self.batch]) for k in range(0, len(self.x), self.batch)]


def make_loss(xp: Any) -> Callable[..., Any]:
    """Return the loss written with the NumPy-like module `xp`."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        hidden = xp.tanh(xp.dot(x, params["w1"]) + params["b1"])
        scores = xp.dot(hidden, params["w2"]) + params["b2"]
        shifted = scores - xp.max(scores, axis=1, keepdims=True)
        return -xp.mean(xp.sum(y * (shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))), axis=1))

    return loss


def by_hand(task: Task, gradient: Callable[..., Any]) -> Advance:
    """Return a loop in Python that updates NumPy arrays with what `gradient(params, x, y)` returns."""
    params, rate, parts = task.params(), np.float32(LEARNING_RATE), task.parts()

    def advance(epochs: int) -> None:
        for _ in range(epochs):
            for x, y in parts:
                found = gradient(params, x, y)
                for name in params:
                    params[name] = params[name] - rate * found[name]

    return advance


def staticgrad_loop(task: Task) -> Advance:
    """Return the compiled loop."""
    trainer = sg.Trainer(make_loss(np), sg.optim.sgd(LEARNING_RATE))
    state = trainer.init(task.params())

    def advance(epochs: int) -> None:
        nonlocal state
        state, _ = trainer.fit(state, (task.x, task.y), epochs=epochs, batch_size=task.batch, shuffle=False, progress=False)

    return advance


def staticgrad_calls(task: Task) -> Advance:
    """Return a loop in Python around the compiled gradient."""
    return by_hand(task, sg.grad(make_loss(np)))


def staticgrad_rebuilt(task: Task) -> Advance:
    """Return a loop that records, differentiates and interprets anew at every pass."""
    loss = make_loss(np)
    return by_hand(task, sg.grad(sg.trace(loss, backend="interp")))


def autograd_rebuilt(task: Task) -> Advance:
    """Return the loop of HIPS autograd."""
    import autograd
    import autograd.numpy as anp

    return by_hand(task, autograd.grad(make_loss(anp)))


def torch_rebuilt(task: Task) -> Advance:
    """Return the eager loop of PyTorch, with its modules and its SGD; one thread, which is its best at this size."""
    import torch

    torch.set_num_threads(1)
    first, second = torch.nn.Linear(INPUTS, task.hidden), torch.nn.Linear(task.hidden, CLASSES)
    start = task.params()
    with torch.no_grad():
        for layer, w, b in ((first, "w1", "b1"), (second, "w2", "b2")):
            layer.weight.copy_(torch.from_numpy(start[w].T.copy()))
            layer.bias.copy_(torch.from_numpy(start[b]))
    model = torch.nn.Sequential(first, torch.nn.Tanh(), second)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    criterion = torch.nn.CrossEntropyLoss()
    parts = [(torch.from_numpy(x), torch.from_numpy(y.argmax(1))) for x, y in task.parts()]

    def advance(epochs: int) -> None:
        for _ in range(epochs):
            for x, y in parts:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()

    return advance


def jax_jit(task: Task) -> Advance:
    """Return a loop in Python around a jitted step on device arrays."""
    import jax

    gradient = jax.grad(make_loss(jax.numpy))
    step = jax.jit(lambda p, x, y: jax.tree.map(lambda v, g: v - LEARNING_RATE * g, p, gradient(p, x, y)))
    params = jax.tree.map(jax.numpy.asarray, task.params())
    parts = [(jax.numpy.asarray(x), jax.numpy.asarray(y)) for x, y in task.parts()]

    def advance(epochs: int) -> None:
        nonlocal params
        for _ in range(epochs):
            for x, y in parts:
                params = step(params, x, y)
        jax.block_until_ready(params)

    return advance


def jax_scan(task: Task) -> Advance:
    """Return an epoch inside `lax.scan`."""
    import jax

    gradient = jax.grad(make_loss(jax.numpy))

    @jax.jit
    def epoch(params: Any, x: Any, y: Any) -> Any:
        def step(p: Any, part: Any) -> Any:
            return jax.tree.map(lambda v, g: v - LEARNING_RATE * g, p, gradient(p, *part)), None

        return jax.lax.scan(step, params, (x, y))[0]

    params = jax.tree.map(jax.numpy.asarray, task.params())
    shape = (task.batches, task.batch)
    x, y = (jax.numpy.asarray(array.reshape(*shape, -1)) for array in (task.x, task.y))

    def advance(epochs: int) -> None:
        nonlocal params
        for _ in range(epochs):
            params = epoch(params, x, y)
        jax.block_until_ready(params)

    return advance


CONTENDERS: tuple[tuple[str, str, Callable[[Task], Advance]], ...] = (
    ("staticgrad, compiled loop", "compiled", staticgrad_loop),
    ("staticgrad, compiled gradient, loop in Python", "compiled", staticgrad_calls),
    ("JAX, lax.scan", "compiled", jax_scan),
    ("JAX, jitted step, loop in Python", "compiled", jax_jit),
    ("PyTorch, eager", "rebuilt", torch_rebuilt),
    ("HIPS autograd", "rebuilt", autograd_rebuilt),
    ("staticgrad's interpreter, rebuilt", "rebuilt", staticgrad_rebuilt),
)


def rate(advance: Advance, seconds: float, batches: int) -> float:
    """Return the steps a second over about `seconds`."""
    epochs, elapsed = 1, 0.0
    while True:
        start = time.perf_counter()
        advance(epochs)
        elapsed = time.perf_counter() - start
        if elapsed > 0.3 * seconds:
            return epochs * batches / elapsed
        epochs = max(epochs + 1, int(epochs * seconds / max(elapsed, 1e-6)))


def main() -> None:
    """Run all contenders in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    task = Task(options.hidden, options.batch, options.batches)
    running: list[tuple[str, str, Advance]] = []
    for name, kind, make in CONTENDERS:
        try:
            start = time.perf_counter()
            advance = make(task)
            advance(1)
            print(f"{name:<48} first epoch {time.perf_counter() - start:6.2f} s", flush=True)
            running.append((name, kind, advance))
        except ImportError as error:
            print(f"{name:<48} left out: {error.name} is not installed")
    found: dict[str, list[float]] = {name: [] for name, _, _ in running}
    for _ in range(options.rounds):
        for name, _, advance in running:
            found[name].append(rate(advance, options.seconds, options.batches))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    ours = medians["staticgrad, compiled loop"]
    shape = f"{INPUTS}-{options.hidden}-{CLASSES}, batch {options.batch}, float32, SGD"
    print(f"\n{shape}: median of {options.rounds} rounds\n{'':<48}{'steps/s':>10}{'us/step':>10}{'compiled loop is':>19}")
    for name, value in sorted(medians.items(), key=lambda pair: -pair[1]):
        print(f"{name:<48}{value:>10.0f}{1e6 / value:>10.1f}{ours / value:>15.1f} x")
    fastest = max((medians[name] for name, kind, _ in running if kind == "rebuilt"), default=None)
    if fastest:
        print(f"\ncompiled loop against the fastest graph that is rebuilt at every pass: {ours / fastest:.1f} x")


if __name__ == "__main__":
    main()
