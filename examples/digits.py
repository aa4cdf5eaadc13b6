"""The main job: train a small network on handwritten digits, compiled once, and compare with a graph rebuilt at every pass.

Run it with `make demo`, or with `python examples/digits.py [folder for the pictures]`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import staticgrad as sg

HIDDEN, CLASSES, BATCH, EPOCHS = 128, 10, 32, 60
SEEDS = range(5)

Params = dict[str, np.ndarray]


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (images, labels) for training and for the final test: a fixed stratified quarter that training never sees."""
    digits = load_digits()
    images = (digits.data / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(images, digits.target, test_size=0.25, stratify=digits.target, random_state=0)
    return (train_x, train_y), (test_x, test_y)


def moved(images: np.ndarray) -> np.ndarray:
    """Return the images and four copies of each, moved by one pixel up, down, left and right: a digit stays what it is."""
    wide = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    return np.concatenate([wide[:, y : y + 8, x : x + 8] for y, x in corners]).reshape(-1, 64)


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Return a row per label with a one at its place."""
    return np.eye(CLASSES, dtype=np.float32)[labels]


def initial(seed: int, inputs: int = 64) -> Params:
    """Return random parameters, scaled as Glorot and Bengio (2010) advise for tanh."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        limit = np.sqrt(6.0 / (rows + columns))
        return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    return {
        "w1": matrix(inputs, HIDDEN),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": matrix(HIDDEN, CLASSES),
        "b2": np.zeros(CLASSES, np.float32),
    }


def network(params: Params, images: np.ndarray) -> np.ndarray:
    """Return one score per class: plain NumPy."""
    hidden = np.tanh(images @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params: Params, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean cross-entropy, written out in NumPy so that every library of the comparison runs the same lines."""
    scores = network(params, images)
    shifted = scores - np.max(scores, axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(np.sum(targets * log_probabilities, axis=1))


def accuracy(params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose highest score is at their label."""
    return float(np.mean(np.argmax(predict(params, images), axis=1) == labels))


predict = sg.trace(network)


# ---- the comparison: the same network, batches and update on a graph that is rebuilt at every pass ------------------------


def rebuilt_by_autograd(learning_rate: float) -> Callable[[Params, np.ndarray, np.ndarray], Params]:
    """Return an SGD step of HIPS autograd, which records a tape at every call."""
    import autograd
    import autograd.numpy as anp

    def autograd_loss(params: Params, images: np.ndarray, targets: np.ndarray) -> Any:
        hidden = anp.tanh(anp.dot(images, params["w1"]) + params["b1"])
        scores = anp.dot(hidden, params["w2"]) + params["b2"]
        shifted = scores - anp.max(scores, axis=1, keepdims=True)
        log_probabilities = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
        return -anp.mean(anp.sum(targets * log_probabilities, axis=1))

    gradient = autograd.grad(autograd_loss)

    def step(params: Params, images: np.ndarray, targets: np.ndarray) -> Params:
        found = gradient(params, images, targets)
        return {name: value - np.float32(learning_rate) * found[name] for name, value in params.items()}

    return step


def rebuilt_by_us(learning_rate: float) -> Callable[[Params, np.ndarray, np.ndarray], Params]:
    """Return an SGD step that traces, differentiates and interprets anew at every call: what reuse saves."""

    def step(params: Params, images: np.ndarray, targets: np.ndarray) -> Params:
        gradient = sg.grad(sg.trace(loss, backend="interp"))
        found = gradient(params, images, targets)
        return {name: value - np.float32(learning_rate) * found[name] for name, value in params.items()}

    return step


def steps_per_second(step: Callable[..., Params], params: Params, data: tuple[np.ndarray, np.ndarray], seconds: float = 0.7) -> float:
    """Return how many steps of `BATCH` samples run in a second."""
    images, targets = (array[:BATCH] for array in data)
    step(params, images, targets)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        params = step(params, images, targets)
        count += 1
    return count / elapsed


def compiled_steps_per_second(params: Params, data: tuple[np.ndarray, np.ndarray], epochs: int = 30) -> float:
    """Return the steps a second of the compiled loop with the same SGD update."""
    whole = len(data[0]) // BATCH * BATCH
    trainer = sg.Trainer(loss, sg.optim.sgd(0.1))
    batches = tuple(array[:whole] for array in data)
    state, _ = trainer.fit(trainer.init(params), batches, epochs=2, batch_size=BATCH, progress=False)
    start = time.perf_counter()
    trainer.fit(state, batches, epochs=epochs, batch_size=BATCH, progress=False)
    return epochs * (whole // BATCH) / (time.perf_counter() - start)


# ---- pictures ----------------------------------------------------------------------------------------------------------------


def draw_loss(history: Any, path: Path) -> None:
    """Write the training loss over the epochs as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.semilogy(np.arange(1, len(history["loss"]) + 1), history["loss"], color="#1f6f8b")
    axes.set(xlabel="epoch", ylabel="mean cross-entropy", title="Training loss (seed 0)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_predictions(params: Params, images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Write a grid of test images with predictions as a PNG file: the mistakes first, in red."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = np.argmax(predict(params, images), axis=1)
    order = np.argsort(found == labels, kind="stable")[:40]
    figure, grid = plt.subplots(4, 10, figsize=(9, 4.4), layout="constrained")
    for axes, k in zip(grid.flat, order, strict=True):
        axes.imshow(images[k].reshape(8, 8), cmap="gray_r")
        right = found[k] == labels[k]
        axes.set_title(f"{found[k]}" if right else f"{found[k]} ({labels[k]})", color="black" if right else "#b00020", fontsize=9)
        axes.axis("off")
    figure.suptitle("Predictions on unseen digits; mistakes first, with the right answer in brackets")
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ---- the program ---------------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Train, test, compare and draw; return 0 if the network is as good as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo_output"), help="where the pictures go")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    (train_x, train_y), (test_x, test_y) = load()
    data = (moved(train_x), one_hot(np.tile(train_y, 5)))
    print(f"digits: {len(train_x)} images to train on (and each moved by a pixel four ways), {len(test_x)} held out")
    print(f"network 64-{HIDDEN}-{CLASSES}, float32, Adam, {EPOCHS} epochs, chosen by cross-validation on the training images")

    lowered = sg.value_and_grad(loss).lower(initial(0), train_x[:BATCH], data[1][:BATCH])
    print(f"\nWhat was traced, simplified and fused (one batch of {BATCH}):\n{lowered.report}\n")

    trainer = sg.Trainer(loss, sg.optim.adam(2e-3))
    print("compiling the training step ...", end=" ", flush=True)
    start = time.perf_counter()
    trainer.fit(trainer.init(initial(0)), data, epochs=1, batch_size=BATCH, progress=False)
    first = time.perf_counter() - start
    start = time.perf_counter()
    trainer.fit(trainer.init(initial(0)), data, epochs=1, batch_size=BATCH, progress=False)
    later = time.perf_counter() - start
    print(f"done: first epoch {first:.2f} s with compilation, every later one {1e3 * later:.2f} ms")

    results: list[float] = []
    for seed in SEEDS:
        state, history = trainer.fit(
            trainer.init(initial(seed)), data, epochs=EPOCHS, batch_size=BATCH, seed=seed, progress=sys.stderr.isatty()
        )
        results.append(accuracy(state.params, test_x, test_y))
        last, share, seconds = history["loss"][-1], 100 * results[-1], sum(history["seconds"])
        print(f"seed {seed}: loss {last:.4f}, accuracy on unseen digits {share:.2f}%, {seconds:.2f} s")
        if seed == 0:
            draw_loss(history, folder / "loss.png")
            draw_predictions(state.params, test_x, test_y, folder / "predictions.png")
    median = statistics.median(results)
    print(f"accuracy over seeds 0 to 4: median {100 * median:.2f}%, minimum {100 * min(results):.2f}%")
    print(f"traced and compiled: {trainer.cache_info()}")

    print("\nThe same network, batches and SGD update:")
    ours = compiled_steps_per_second(initial(0), data)
    print(f"  {'compiled once, loop in native code':<48}{ours:>10.0f} steps/s")
    rebuilt = {"graph rebuilt at every pass: our interpreter": rebuilt_by_us(0.1)}
    try:
        rebuilt["graph rebuilt at every pass: HIPS autograd"] = rebuilt_by_autograd(0.1)
    except ImportError:
        print("  (HIPS autograd is not installed: pip install autograd for its row)")
    for name, step in rebuilt.items():
        rate = steps_per_second(step, initial(0), data)
        print(f"  {name:<48}{rate:>10.0f} steps/s   the compiled loop is {ours / rate:.0f} times as fast")
    print(f"\npictures: {folder / 'loss.png'}, {folder / 'predictions.png'}; {time.perf_counter() - begun:.0f} s in total")
    return 0 if median >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
