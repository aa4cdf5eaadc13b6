"""The gradient of a 64-layer tanh network within a part of its memory: python benchmarks/memory_against_time.py [part]."""

import sys
import time

import numpy as np

import staticgrad as sg

LAYERS, WIDTH, BATCH, ROUNDS = 64, 64, 1024, 9


def loss(layers, x):
    """Return the mean square of the network's output."""
    for w, b in layers:
        x = np.tanh(x @ w + b)
    return np.mean(x * x)


def main() -> None:
    """Print peak bytes, the median ratio of times taken in turn, and whether the gradients have the same bits."""
    part = float(sys.argv[1]) if len(sys.argv) > 1 else 0.3
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH), np.zeros(WIDTH)) for _ in range(LAYERS)]
    x = rng.normal(size=(BATCH, WIDTH))
    free = sg.grad(sg.trace(loss))
    peak = free.lower(layers, x).memory
    tight = sg.grad(sg.trace(loss, max_memory=int(part * peak)))
    same = all(
        a.tobytes() == b.tobytes() for p, q in zip(free(layers, x), tight(layers, x), strict=True) for a, b in zip(p, q, strict=True)
    )
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for function in (free, tight):
            start = time.perf_counter()
            function(layers, x)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    print(f"peak {peak / 1e6:.1f} MB, within {part:.0%}: {tight.lower(layers, x).memory / 1e6:.1f} MB")
    print(f"time {np.median(ratios):.2f}x, same bits: {same}")


if __name__ == "__main__":
    main()
